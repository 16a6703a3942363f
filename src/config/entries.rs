//! The text of a configuration: names and values, with the lines on which they are.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::text::escape;

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1; nothing where it is about no line alone.
    pub line: Option<usize>,
    /// What is wrong there.
    pub reason: String,
}

impl Mistake {
    /// On this line.
    pub fn on(line: usize, reason: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            reason: reason.into(),
        }
    }
}

/// `NAME = VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, as it is written.
    pub name: String,
    /// Where it is.
    pub line: usize,
    /// What it is to be.
    pub value: Value,
}

/// The value of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `true`, `false`.
    Flag(bool),
    /// A text or a number.
    One(Word),
    /// Several of them.
    List(Vec<Word>),
}

/// A text or a number, as it would be typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// As it would be typed.
    pub text: String,
    /// Where it is.
    pub line: usize,
}

/// Reads all entries, in the order of their lines.
///
/// # Errors
/// Where it is not TOML, or has values of which the command line has none.
pub fn parse(text: &[u8]) -> Result<Vec<Entry>, Mistake> {
    let lines = Lines::new(text);
    let text = std::str::from_utf8(text).map_err(|error| {
        let line = lines.at(error.valid_up_to());
        let reason = "it is not UTF-8; a path that is not can only be typed";
        Mistake::on(line, reason)
    })?;
    let table = DeTable::parse(text).map_err(|error| Mistake {
        line: error.span().map(|span| lines.of(&span)),
        reason: error.message().replace('\n', ", "),
    })?;
    let mut entries = Vec::new();
    for (name, value) in table.get_ref() {
        entries.push(Entry {
            name: name.get_ref().to_string(),
            line: lines.of(&name.span()),
            value: lines.value(name.get_ref(), value)?,
        });
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &[u8]) -> Self {
        let bytes = text.iter().enumerate();
        let ends = bytes.filter(|(_, byte)| **byte == b'\n');
        Self(ends.map(|(at, _)| at).collect())
    }

    /// The line at an offset, from 1.
    fn at(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|end| *end < offset)
    }

    fn of(&self, span: &Range<usize>) -> usize {
        self.at(span.start)
    }

    fn value(&self, name: &str, value: &Spanned<DeValue<'_>>) -> Result<Value, Mistake> {
        match value.get_ref() {
            DeValue::Boolean(flag) => Ok(Value::Flag(*flag)),
            DeValue::Array(list) => {
                let words = list.iter().map(|value| self.word(name, value));
                Ok(Value::List(words.collect::<Result<_, _>>()?))
            }
            _ => Ok(Value::One(self.word(name, value)?)),
        }
    }

    fn word(&self, name: &str, value: &Spanned<DeValue<'_>>) -> Result<Word, Mistake> {
        let line = self.of(&value.span());
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => typed(number),
            DeValue::Float(number) => number.as_str().to_owned(),
            other => {
                let (name, what) = (escape(name.as_bytes()), other.type_str());
                let reason = match other {
                    DeValue::Table(_) => format!(
                        "sections such as [{name}] are not supported; write the options directly"
                    ),
                    _ => format!(
                        "'{name}' is of type {what}; a text, a number, true, false or a list of texts is needed"
                    ),
                };
                return Err(Mistake::on(line, reason));
            }
        };
        // What could be neither typed nor handed on.
        if text.contains('\0') {
            let name = escape(name.as_bytes());
            return Err(Mistake::on(line, format!("'{name}' has a NUL in it")));
        }
        Ok(Word { text, line })
    }
}

/// A number as it would be typed: in decimal digits.
fn typed(number: &DeInteger<'_>) -> String {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, line: usize) -> Word {
        Word {
            text: text.into(),
            line,
        }
    }

    #[test]
    fn names_and_values_have_their_lines() {
        let text = "# first\nopen = true\nttl = 1_800\n\nfiles = [\n  \"a\", 'b', # one\n  0x10,\n]\nx = 1.5\n";
        let entry = |name: &str, line, value| Entry {
            name: name.into(),
            line,
            value,
        };
        assert_eq!(
            parse(text.as_bytes()),
            Ok(vec![
                entry("open", 2, Value::Flag(true)),
                entry("ttl", 3, Value::One(word("1800", 3))),
                entry(
                    "files",
                    5,
                    Value::List(vec![word("a", 6), word("b", 6), word("16", 7)])
                ),
                entry("x", 9, Value::One(word("1.5", 9))),
            ])
        );
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let mistake = |text: &[u8]| {
            let Mistake { line, reason } = parse(text).expect_err("it is wrong");
            (line.unwrap_or(0), reason)
        };
        for (text, line, reason) in [
            ("open = true\nttl\n", 2, "key with no value, expected `=`"),
            ("a = 1\n\na = 2\n", 3, "duplicate key"),
            ("a = yes\n", 1, "string values must be quoted"),
            (
                "\n[tracker]\nopen = true\n",
                2,
                "sections such as [tracker] are not supported",
            ),
            ("a = 1979-05-27\n", 1, "type datetime"),
            ("a = [\n1,\n[2]]\n", 3, "type array"),
            ("a = [true]\n", 1, "type boolean"),
            ("a = \"\\u0000\"\n", 1, "NUL"),
        ] {
            let (found, said) = mistake(text.as_bytes());
            assert_eq!(found, line, "{text}: {said}");
            assert!(said.contains(reason), "{text}: {said}");
        }
        assert_eq!(mistake(b"a = 1\nb = '\xff'\n").0, 2);
    }

    #[test]
    fn a_list_may_be_long() {
        let length = 50_000;
        let text = format!("files = [\n{}]\n", "\"x\",\n".repeat(length));
        let entries = parse(text.as_bytes()).expect("it is right");
        let Value::List(words) = &entries[0].value else {
            panic!("it is a list");
        };
        assert_eq!(words.last(), Some(&word("x", length + 1)));
    }
}
