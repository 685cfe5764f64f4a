//! A page of labels with values, and sections below.

use std::fmt::Write as _;

use crate::output::style::{Color, paint};
use crate::output::table::Table;

/// Width of the labels' column.
const LABEL: usize = 18;

/// The page while it is being written. Writing to a String cannot fail, so results of `writeln!` are dropped here.
pub struct Sheet {
    text: String,
    color: bool,
}

impl Sheet {
    pub fn new(color: bool) -> Self {
        Self {
            text: String::new(),
            color,
        }
    }

    /// `Label:   value`; further lines of the value stand below its first.
    pub fn field(&mut self, label: &str, value: impl AsRef<str>) {
        let label = format!("{label}:");
        let mut lines = value.as_ref().lines();
        let _ = writeln!(
            self.text,
            "{label:<LABEL$}{}",
            lines.next().unwrap_or("<none>")
        );
        for line in lines {
            let _ = writeln!(self.text, "{:LABEL$}{line}", "");
        }
    }

    /// Starts a section.
    pub fn section(&mut self, title: &str) {
        let _ = writeln!(self.text, "\n{title}:");
    }

    /// A line of a section.
    pub fn line(&mut self, line: impl AsRef<str>) {
        let _ = writeln!(self.text, "  {}", line.as_ref());
    }

    /// A coloured line of a section.
    pub fn painted(&mut self, color: Color, line: &str) {
        let line = paint(color, line, self.color);
        self.line(line);
    }

    /// A table as a section's content.
    pub fn table(&mut self, table: &Table) {
        for line in table.render(self.color).lines() {
            self.line(line);
        }
    }

    pub fn finish(self) -> String {
        self.text
    }
}
