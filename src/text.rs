//! Text from strangers, made fit to be shown.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The longest text of a stranger's that is shown, in characters.
const LONGEST: usize = 200;

/// Escapes control characters and whatever else could make a terminal or a log say something else than it does, and
/// cuts the text to a sane length.
///
/// ```
/// assert_eq!(cascade::text::escape(b"no such file\x1b[2J\n"), r"no such file\u{1b}[2J");
/// ```
pub fn escape(bytes: &[u8]) -> String {
    // A character has at most four bytes, so that more than this cannot be shown anyway.
    let bytes = &bytes[..bytes.len().min(4 * LONGEST + 4)];
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == LONGEST {
            shown.push('…');
            break;
        }
        push(&mut shown, character);
    }
    shown
}

/// Text of ours that is to stay on one line, whatever of others' is in it and was not escaped: the last resort.
///
/// ```
/// assert_eq!(cascade::text::one_line("as it is"), "as it is");
/// assert_eq!(cascade::text::one_line("two\nlines"), r"two\nlines");
/// ```
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unfit) {
        return text.into();
    }
    let mut shown = String::new();
    text.chars()
        .for_each(|character| push(&mut shown, character));
    shown.into()
}

/// Text as it stands in HTML and SVG.
pub fn escape_markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A system's error message without its number, which says nothing to a person.
///
/// ```
/// let error = std::io::Error::from_raw_os_error(2);
/// let text = cascade::text::without_errno(&format!("x: {error}; y"));
/// assert_eq!(text, "x: No such file or directory; y");
/// ```
pub fn without_errno(message: &str) -> String {
    const MARK: &str = " (os error ";
    let mut text = String::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(MARK) {
        text.push_str(before);
        let number = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
        rest = number.strip_prefix(')').unwrap_or(after);
    }
    text + rest
}

/// A file's name for people: as they typed it, but for characters that a terminal would obey, and bytes that are not
/// text.
pub fn escape_path(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            push(&mut text, character);
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// `1 file`, `2 files`.
///
/// ```
/// assert_eq!(cascade::text::count(2, "file"), "2 files");
/// ```
pub fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// A number of bytes with three digits that count, rounded down: more is never said than there is.
///
/// ```
/// assert_eq!(cascade::text::size(50_855_936), "48.5 MiB");
/// assert_eq!(cascade::text::size(1023), "1023 B");
/// assert_eq!(cascade::text::size(1 << 30), "1 GiB");
/// ```
pub fn size(bytes: u64) -> String {
    let unit = Unit::of(bytes);
    format!("{} {}", unit.amount(bytes), unit.name())
}

/// So much of so much, in one unit.
///
/// ```
/// assert_eq!(cascade::text::size_of(50_855_936, 286 << 20, " of "), "48.5 of 286 MiB");
/// ```
pub fn size_of(part: u64, whole: u64, between: &str) -> String {
    let unit = Unit::of(whole);
    let (part, all) = (unit.amount(part), unit.amount(whole));
    format!("{part}{between}{all} {}", unit.name())
}

/// A unit of bytes: the power of 1024.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    /// The one in which this is a number of at most four digits.
    fn of(bytes: u64) -> Self {
        Self(bytes.max(1).ilog2() / 10)
    }

    fn name(self) -> &'static str {
        ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][self.0 as usize]
    }

    fn amount(self, bytes: u64) -> String {
        let whole = bytes >> (10 * self.0);
        let decimals = match whole {
            _ if self.0 == 0 => 0,
            0..10 => 2,
            10..100 => 1,
            _ => 0,
        };
        let rest = u128::from(bytes - (whole << (10 * self.0)));
        let fraction = (rest * 10u128.pow(decimals)) >> (10 * self.0);
        let width = decimals as usize;
        let text = match width {
            0 => whole.to_string(),
            _ => format!("{whole}.{fraction:0width$}"),
        };
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').into(),
            false => text,
        }
    }
}

fn push(text: &mut String, character: char) {
    if is_unfit(character) {
        text.extend(character.escape_default());
    } else {
        text.push(character);
    }
}

/// Characters that are not to be shown as they are.
fn is_unfit(character: char) -> bool {
    character.is_control() || reorders(character)
}

/// Characters that change the direction of the text around them, or are not seen.
fn reorders(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A number with its thousands apart: `208,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn control_characters_and_tricks_are_escaped() {
        assert_eq!(
            escape("ab\tc\u{202e}d\u{61c}\u{7f}".as_bytes()),
            r"ab\tc\u{202e}d\u{61c}\u{7f}"
        );
        assert_eq!(escape(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(escape(&[b'a'; 5000]).chars().count(), 201);
    }

    #[test]
    fn names_cannot_command_a_terminal() {
        let name = Path::new(OsStr::from_bytes(b"a\x1b[2J\xffb\n\xc3\xa9"));
        assert_eq!(escape_path(name), "a\\u{1b}[2J\\xffb\\né");
    }

    #[test]
    fn sizes_have_three_digits_and_are_never_more_than_there_is() {
        for (bytes, text) in [
            (0, "0 B"),
            (1024, "1 KiB"),
            (1034, "1 KiB"),
            (1535, "1.49 KiB"),
            (12 * 1024 - 1, "11.9 KiB"),
            ((1 << 20) - 1, "1023 KiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size_of((286 << 20) - 1, 286 << 20, "/"), "285/286 MiB");
        assert_eq!(size_of(1 << 20, 1 << 30, "/"), "0/1 GiB");
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
