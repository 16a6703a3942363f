//! A terminal on which rows are drawn anew, with the lines of the log above them.

use std::io::{self, IsTerminal, Write};

use console::{Term, measure_text_width};

use crate::logging::{self, Diverted};

/// The rows at the bottom of the terminal.
#[derive(Debug)]
pub struct Screen {
    /// Only the process that draws may write to the terminal meanwhile.
    log: Diverted,
    /// The widths of the rows that are there.
    drawn: Vec<usize>,
}

impl Screen {
    /// Standard error, where that is a terminal that can move its cursor, and nothing else is to be printed there.
    pub fn open() -> Option<Self> {
        let term = std::env::var_os("TERM").unwrap_or_default();
        let can_draw = io::stderr().is_terminal() && !term.is_empty() && term != "dumb";
        if !can_draw || logging::is_for_programs() {
            return None;
        }
        let log = logging::divert().ok()?;
        Some(Self {
            log,
            drawn: Vec::new(),
        })
    }

    /// Draws the rows that there are for a terminal of so many rows and columns.
    pub fn draw(&mut self, rows: impl FnOnce(usize, usize) -> Vec<String>) {
        const CLEAR_LINE: &str = "\x1b[K";
        let (height, width) = Term::stderr().size();
        let mut text = self.to_first_row(width.into());
        for line in self.log.take() {
            text.push_str(&format!("{line}{CLEAR_LINE}\n"));
        }
        let rows = rows(height.into(), width.into());
        let rows_text: Vec<String> = rows
            .iter()
            .map(|row| format!("{row}{CLEAR_LINE}"))
            .collect();
        text.push_str(&rows_text.join("\n"));
        text.push_str(CLEAR_BELOW);
        self.drawn = rows.iter().map(|row| measure_text_width(row)).collect();
        write(&text);
    }

    /// Takes the rows off the terminal.
    pub fn erase(&mut self) {
        if !self.drawn.is_empty() {
            let (_, width) = Term::stderr().size();
            let text = self.to_first_row(width.into()) + CLEAR_BELOW;
            self.drawn.clear();
            write(&text);
        }
    }

    /// Moves the cursor to where the rows begin. A terminal that became narrower has wrapped them.
    fn to_first_row(&self, columns: usize) -> String {
        let height = |width: &usize| width.div_ceil(columns.max(1)).max(1);
        let lines: usize = self.drawn.iter().map(height).sum();
        match lines.saturating_sub(1) {
            0 => "\r".into(),
            up => format!("\r\x1b[{up}A"),
        }
    }
}

const CLEAR_BELOW: &str = "\x1b[J";

/// At once, so that no half of it is seen.
fn write(text: &str) {
    // A terminal that cannot be written to any more has no reader.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
