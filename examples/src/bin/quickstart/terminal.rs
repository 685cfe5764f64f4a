//! What is printed: sections, lines, and a verdict on each claim. Colours only where a person reads.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

/// Columns of a line of streamed text.
const WIDTH: usize = 88;
/// A line without blanks is broken so much later.
const MARGIN: usize = 12;
/// Widest bar of a chart.
const BAR: u64 = 40;

/// Stdout, and the verdicts so far.
#[derive(Debug)]
pub struct Terminal {
    color: bool,
    sections: usize,
    held: usize,
    failed: Vec<String>,
    column: usize,
}

impl Terminal {
    pub fn new() -> Self {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            color,
            sections: 0,
            held: 0,
            failed: Vec::new(),
            column: 0,
        }
    }

    /// The first line.
    pub fn heading(&mut self, text: &str) {
        print(&format!("{}\n\n", self.paint(BOLD, text)));
    }

    /// A new numbered section.
    pub fn section(&mut self, text: &str) {
        self.sections += 1;
        let heading = format!("{}  {text}", self.sections);
        print(&format!("\n{}\n", self.paint(BOLD, &heading)));
    }

    /// A section without a number.
    pub fn subject(&mut self, text: &str) {
        print(&format!("\n{}\n", self.paint(BOLD, text)));
    }

    pub fn line(&mut self, text: impl Display) {
        print(&format!("   {text}\n"));
    }

    /// A line that matters less.
    pub fn note(&mut self, text: impl Display) {
        let text = self.paint(DIM, &text.to_string());
        print(&format!("   {text}\n"));
    }

    /// `label` and what there is to say of it.
    pub fn pair(&mut self, label: &str, text: impl Display) {
        let label = self.paint(CYAN, &format!("{label:<15}"));
        print(&format!("   {label} {text}\n"));
    }

    /// A line of a bar chart. The longest bar is that of `largest`.
    pub fn bar(&mut self, label: &str, count: u64, largest: u64) {
        let width = (count * BAR).div_ceil(largest.max(1)).min(BAR) as usize;
        self.pair(label, format!("{} {count}", "█".repeat(width)));
    }

    /// A verdict on what was claimed, with the figure that it rests on.
    pub fn claim(&mut self, holds: bool, text: &str, figure: &str) {
        let mark = if holds {
            self.paint(GREEN, "✔")
        } else {
            self.paint(RED, "✘")
        };
        let figure = self.paint(DIM, &format!("({figure})"));
        print(&format!("   {mark} {text} {figure}\n"));
        if holds {
            self.held += 1;
        } else {
            self.failed.push(text.to_owned());
        }
    }

    /// Text that comes in pieces, printed at once, and wrapped where a piece begins with a blank.
    pub fn stream(&mut self, text: &str) {
        for (index, line) in text.split('\n').enumerate() {
            let full = self.column + line.len() > WIDTH && line.starts_with(' ')
                || self.column > WIDTH + MARGIN;
            if self.column == 0 || index > 0 || full {
                let margin = self.paint(DIM, "│");
                let end = if self.column == 0 { "" } else { "\n" };
                print(&format!("{end}   {margin} {}", line.trim_start()));
                self.column = 1 + line.trim_start().len();
            } else {
                print(line);
                self.column += line.len();
            }
        }
    }

    /// Ends such a text.
    pub fn stream_end(&mut self) {
        if self.column > 0 {
            print("\n");
        }
        self.column = 0;
    }

    /// How many claims hold. True where all do.
    pub fn verdict(&mut self) -> bool {
        let all = self.held + self.failed.len();
        if self.failed.is_empty() {
            print(&format!(
                "\n{}\n",
                self.paint(GREEN, &format!("All {all} claims hold."))
            ));
            return true;
        }
        let summary = format!(
            "{} of {all} claims do not hold: {}",
            self.failed.len(),
            self.failed.join("; ")
        );
        print(&format!("\n{}\n", self.paint(RED, &summary)));
        false
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.color {
            format!("\u{1b}[{style}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Without anyone who reads, there is nothing to tell.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
