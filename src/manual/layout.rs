//! Pages of mdoc(7) as plain text: sections, paragraphs, lists and examples.

use super::inline::{Argument, Words, arguments, unescape};

/// Columns of the text.
const WIDTH: usize = 78;
/// Columns before the text, before a subsection's heading, and before what is set off.
const TEXT: usize = 5;
const SUBSECTION: usize = 3;
const OFFSET: usize = 6;
/// The widest column of tags; longer ones have a line of their own.
const WIDEST_TAG: usize = 14;

/// A blank at which no line ends.
const UNBROKEN: char = '\u{a0}';

/// A page as plain text.
pub fn render(source: &str) -> String {
    let mut page = Page::default();
    for line in source.lines() {
        page.line(line);
    }
    page.flush();
    page.out
}

#[derive(Debug, Default)]
struct Page {
    out: String,
    words: Words,
    /// What the page describes.
    name: String,
    section: String,
    /// What begins the next line: a tag, a bullet, the name in a synopsis.
    tag: Option<String>,
    lists: Vec<List>,
    literal: Option<usize>,
    /// The parts of a reference.
    reference: Option<(Vec<String>, String)>,
}

#[derive(Debug)]
struct List {
    kind: Kind,
    /// Where tags begin, and the text.
    from: usize,
    to: usize,
    is_compact: bool,
    rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tag,
    Bullet,
    Column,
}

impl Page {
    fn line(&mut self, line: &str) {
        if let Some(indent) = self.literal {
            match line {
                ".Ed" => self.literal = None,
                _ => self.put(indent, &unescape(line)),
            }
            return;
        }
        let Some(line) = line.strip_prefix('.') else {
            self.words.text(line);
            return;
        };
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        match name {
            "" | "\\\"" | "Dd" | "Os" => {}
            "Dt" => self.title(&arguments(rest)),
            "Sh" => self.heading(0, rest),
            "Ss" => self.heading(SUBSECTION, rest),
            "Pp" => {
                self.flush();
                self.blank();
            }
            "Bl" => self.begin_list(&arguments(rest)),
            "It" => self.item(rest),
            "El" => self.end_list(),
            "Bd" => {
                self.flush();
                self.blank();
                self.literal =
                    Some(self.indent() + if rest.contains("-offset") { OFFSET } else { 0 });
            }
            "D1" | "Dl" => {
                self.flush();
                let line = self.inline(&arguments(rest));
                self.put(self.indent() + OFFSET, &line);
            }
            "Rs" => self.reference = Some(Default::default()),
            "%A" | "%B" => self.part_of_reference(name, rest),
            "Re" => self.end_reference(),
            "Nd" => {
                self.words.push("-");
                self.words.text(rest);
            }
            "Nm" if self.section == "SYNOPSIS" => {
                self.flush();
                self.markup(line);
            }
            "Nm" if self.section == "NAME" => {
                self.name = rest.into();
                self.words.push(rest);
            }
            _ => self.markup(line),
        }
    }

    fn title(&mut self, title: &[Argument]) {
        if let [name, section] = title {
            let title = format!("{}({})", name.text, section.text);
            let space = WIDTH.saturating_sub(2 * title.len() + "Cascade".len()) / 2;
            let space = " ".repeat(space);
            self.put(0, &format!("{title}{space}Cascade{space}{title}"));
        }
    }

    fn heading(&mut self, indent: usize, text: &str) {
        self.flush();
        self.blank();
        if indent == 0 {
            self.section = text.into();
        }
        let heading = self.inline(&arguments(text));
        self.put(indent, &heading);
    }

    fn begin_list(&mut self, options: &[Argument]) {
        self.flush();
        let has = |option: &str| options.iter().any(|given| given.text == option);
        let width = options
            .iter()
            .skip_while(|option| option.text != "-width")
            .nth(1)
            .map_or(OFFSET, |width| {
                (width.text.len() + 2).clamp(OFFSET, WIDEST_TAG)
            });
        let from = self.indent() + if has("-offset") { OFFSET } else { 0 };
        let (kind, to) = if has("-bullet") {
            (Kind::Bullet, from + 2)
        } else if has("-column") {
            (Kind::Column, from)
        } else {
            (Kind::Tag, from + width)
        };
        if kind == Kind::Column {
            self.blank();
        }
        self.lists.push(List {
            kind,
            from,
            to,
            is_compact: has("-compact"),
            rows: Vec::new(),
        });
    }

    fn item(&mut self, rest: &str) {
        self.flush();
        let Some(list) = self.lists.last() else {
            return;
        };
        match list.kind {
            Kind::Column => {
                let row = arguments(rest);
                let row = row.split(|argument| !argument.is_quoted && argument.text == "Ta");
                let row: Vec<String> = row.map(|cell| self.inline(cell)).collect();
                if let Some(list) = self.lists.last_mut() {
                    list.rows.push(row);
                }
            }
            kind => {
                if !list.is_compact {
                    self.blank();
                }
                self.tag = Some(match kind {
                    Kind::Bullet => "*".into(),
                    _ => self.inline(&arguments(rest)),
                });
            }
        }
    }

    fn end_list(&mut self) {
        self.flush();
        let Some(List { from, rows, .. }) = self.lists.pop() else {
            return;
        };
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(String::len).max().unwrap_or(0)
        };
        for row in &rows {
            let last = row.len().saturating_sub(1);
            let cells = row[..last].iter().enumerate();
            let begin: String = cells
                .map(|(column, cell)| format!("{cell:<0$}  ", width(column)))
                .collect();
            let text = row.last().map_or("", String::as_str);
            debug_assert!(row.len() == columns, "a row with other columns: {row:?}");
            self.fill(from, from + begin.len(), &begin, text);
        }
    }

    fn part_of_reference(&mut self, name: &str, text: &str) {
        if let Some((authors, title)) = &mut self.reference {
            match name {
                "%A" => authors.push(text.into()),
                _ => *title = text.into(),
            }
        }
    }

    fn end_reference(&mut self) {
        if let Some((authors, title)) = self.reference.take() {
            let text = format!("{}, {title}.", authors.join(" and "));
            self.words.text(&text);
        }
    }

    fn markup(&mut self, line: &str) {
        self.words.markup(&arguments(line), &self.name);
    }

    /// Words by themselves.
    fn inline(&self, arguments: &[Argument]) -> String {
        let mut words = Words::default();
        words.markup(arguments, &self.name);
        words.take()
    }

    fn indent(&self) -> usize {
        self.lists.last().map_or(TEXT, |list| list.to)
    }

    /// Ends the paragraph.
    fn flush(&mut self) {
        let text = self.words.take();
        let tag = self.tag.take();
        if text.is_empty() && tag.is_none() {
            return;
        }
        let to = self.indent();
        match (tag, self.lists.last()) {
            (Some(tag), Some(list)) => {
                let from = list.from;
                let is_long = tag.len() + 1 > to - from;
                if is_long || text.is_empty() {
                    self.fill(from, from + OFFSET, "", &tag);
                    self.fill(to, to, "", &text);
                } else {
                    self.fill(from, to, &format!("{tag:<0$}", to - from), &text);
                }
            }
            _ if self.section == "SYNOPSIS" => {
                self.fill(TEXT, TEXT + OFFSET, "", &keep_together(&text));
            }
            _ => self.fill(to, to, "", &text),
        }
    }

    /// Lines of a text: the first begins with `start` at `first`, the others at `others`.
    fn fill(&mut self, first: usize, others: usize, start: &str, text: &str) {
        if text.is_empty() && start.is_empty() {
            return;
        }
        let mut line = format!("{}{start}", " ".repeat(first));
        let mut is_empty = true;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if !is_empty && columns(&line) + 1 + columns(word) > WIDTH {
                let next = " ".repeat(others);
                self.put(0, &std::mem::replace(&mut line, next));
            } else if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        self.put(0, &line);
    }

    fn put(&mut self, indent: usize, line: &str) {
        let line = format!("{}{line}", " ".repeat(indent)).replace(UNBROKEN, " ");
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    /// An empty line, but not two of them.
    fn blank(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }
}

/// Each character is a column: the pages are ASCII, but for blanks at which no line ends.
fn columns(text: &str) -> usize {
    text.chars().count()
}

/// A synopsis whose lines end between its parts, not in brackets.
fn keep_together(text: &str) -> String {
    let mut depth = 0i32;
    text.chars()
        .map(|character| {
            depth += match character {
                '[' => 1,
                ']' => -1,
                _ => 0,
            };
            match character {
                ' ' if depth > 0 => UNBROKEN,
                other => other,
            }
        })
        .collect()
}
