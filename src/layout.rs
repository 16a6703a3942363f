//! Lines and bars for a terminal.

/// Columns of the terminal for which reports are made.
pub const COLUMNS: usize = 80;

/// A bar of eighths of a column.
pub fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    // What is there is seen.
    let eighths = if share > 0.0 { eighths.max(1) } else { eighths };
    let bar = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
    format!("{bar:<width$}")
}

/// Cuts a text into lines, of which all but the first are indented.
pub fn wrapped(text: &str, indent: usize) -> Vec<String> {
    let start = text.len() - text.trim_start().len();
    let mut lines = Vec::new();
    let mut line = " ".repeat(start);
    let mut is_empty = true;
    // The first word may be followed by several spaces: a label.
    for word in text.trim_start().split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        assert_eq!(bar(0.0, 4), "    ");
        assert_eq!(bar(0.5, 4), "██  ");
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(0.001, 4), "▏   ");
        assert_eq!(bar(2.0, 4), "████");
    }

    #[test]
    fn long_texts_are_cut_between_words_and_indented() {
        let lines = wrapped(&format!("Label  {}", "word ".repeat(30).trim()), 7);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.chars().count() <= COLUMNS));
        assert!(lines[0].starts_with("Label  word") && lines[1].starts_with("       word"));
    }
}
