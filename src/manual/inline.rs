//! What stands in a line of mdoc(7): words, and macros that mark them up.

/// Words of a paragraph, with blanks where they belong.
#[derive(Debug, Default)]
pub struct Words {
    text: String,
    /// The next word follows without a blank.
    glued: bool,
}

impl Words {
    /// Adds a word.
    pub fn push(&mut self, word: &str) {
        if !self.glued && !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(word);
        self.glued = false;
    }

    /// The next word follows without a blank.
    pub fn glue(&mut self) {
        self.glued = true;
    }

    /// Adds a word without a blank before it.
    pub fn close(&mut self, word: &str) {
        self.glue();
        self.push(word);
    }

    /// What was added; nothing is left.
    pub fn take(&mut self) -> String {
        self.glued = false;
        std::mem::take(&mut self.text)
    }

    /// Adds a line of text.
    pub fn text(&mut self, line: &str) {
        for word in line.split_whitespace() {
            self.push(&unescape(word));
        }
    }

    /// Adds a line that is a macro and its arguments; `page` is what the page describes.
    pub fn markup(&mut self, arguments: &[Argument], page: &str) {
        // What precedes each word of the macro that is in force.
        let mut before = "";
        let mut rest = arguments;
        while let Some((argument, behind)) = rest.split_first() {
            rest = behind;
            let word = &*argument.text;
            match word {
                _ if argument.is_quoted => self.push(&format!("{before}{word}")),
                "." | "," | ":" | ";" | ")" | "]" | "?" | "!" => self.close(word),
                "(" | "[" => {
                    self.push(word);
                    self.glue();
                }
                "|" => self.push(word),
                "Op" => return self.enclosed("[", "]", rest, page),
                "Pq" => return self.enclosed("(", ")", rest, page),
                "Ql" => return self.enclosed("'", "'", rest, page),
                "Ns" => self.glue(),
                "Xr" => {
                    if let [name, section, ..] = rest {
                        self.push(&format!("{}({})", name.text, section.text));
                        rest = &rest[2..];
                    }
                }
                "Lk" => {
                    if let [address, name, ..] = rest {
                        self.push(&format!("{}: {}", name.text, address.text));
                        rest = &rest[2..];
                    }
                }
                "Nm" => {
                    before = "";
                    if !rest.first().is_some_and(Argument::is_word) {
                        self.push(page);
                    }
                }
                "Fl" => {
                    before = "-";
                    if !rest.first().is_some_and(Argument::is_word) {
                        self.push(before);
                    }
                }
                "Ar" => {
                    before = "";
                    if !rest.first().is_some_and(Argument::is_word) {
                        self.push("file ...");
                    }
                }
                _ if argument.is_macro() => before = "",
                _ => self.push(&format!("{before}{word}")),
            }
        }
    }

    /// Adds what is between a pair of signs. Punctuation at the end is behind them.
    fn enclosed(&mut self, open: &str, close: &str, arguments: &[Argument], page: &str) {
        let is_inside = |argument: &Argument| !argument.is_punctuation();
        let end = arguments.iter().rposition(is_inside).map_or(0, |at| at + 1);
        self.push(open);
        self.glue();
        self.markup(&arguments[..end], page);
        self.close(close);
        self.markup(&arguments[end..], page);
    }
}

/// An argument of a macro.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// What it says.
    pub text: String,
    /// Nothing that is quoted is a macro or punctuation.
    pub is_quoted: bool,
}

impl Argument {
    fn is_macro(&self) -> bool {
        const INLINE: [&str; 17] = [
            "Ar", "Cm", "Dv", "Em", "Er", "Ev", "Fl", "Ic", "Li", "Nm", "No", "Ns", "Op", "Pa",
            "Pq", "Ql", "Sx",
        ];
        !self.is_quoted && (INLINE.contains(&&*self.text) || matches!(&*self.text, "Xr" | "Lk"))
    }

    fn is_punctuation(&self) -> bool {
        !self.is_quoted && matches!(&*self.text, "." | "," | ":" | ";" | ")" | "]" | "?" | "!")
    }

    fn is_word(&self) -> bool {
        !self.is_macro() && !self.is_punctuation() && (self.is_quoted || self.text != "|")
    }
}

/// The arguments of a macro line.
pub fn arguments(line: &str) -> Vec<Argument> {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let is_quoted = rest.starts_with('"');
        let (word, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        // An escape that prints nothing keeps a sign from being punctuation.
        let is_quoted = is_quoted || word.contains("\\&");
        found.push(Argument {
            text: unescape(word),
            is_quoted,
        });
        rest = behind.trim_start();
    }
    found
}

/// Text without the escapes of roff(7) that the pages use.
pub fn unescape(text: &str) -> String {
    text.replace("\\&", "")
        .replace("\\(dq", "\"")
        .replace("\\-", "-")
        .replace("\\e", "\\")
}
