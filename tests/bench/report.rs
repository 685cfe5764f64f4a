//! What is printed and written.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::peers::Peer;

/// A figure that was taken in each round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle value, or the mean of the two in the middle. `None` where nothing was measured.
    pub(crate) fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let (&low, &high) = (
            sorted.get(sorted.len().checked_sub(1)? / 2)?,
            sorted.get(sorted.len() / 2)?,
        );
        Some((low + high) / 2.0)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn json(&self) -> Value {
        let sorted = self.sorted();
        json!({"median": self.median(), "min": sorted.first(), "max": sorted.last(), "rounds": self.0})
    }

    /// `median (min..max)`
    fn cell(&self, digits: usize) -> String {
        let sorted = self.sorted();
        match (self.median(), sorted.first(), sorted.last()) {
            (Some(median), Some(min), Some(max)) => {
                format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
            }
            _ => "-".to_string(),
        }
    }
}

/// One row: a peer in a scenario.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) peer: Peer,
    /// In the order of [`Table::columns`].
    pub(crate) figures: Vec<Series>,
}

/// What a column holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) key: &'static str,
    pub(crate) digits: usize,
    /// Print it relative to Envoy's.
    pub(crate) ratio: bool,
    /// Print what it is more than without a proxy.
    pub(crate) added: bool,
}

/// A scenario.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) key: &'static str,
    pub(crate) title: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    fn median(&self, peer: Peer, column: usize) -> Option<f64> {
        self.rows.iter().find(|row| row.peer == peer)?.figures[column].median()
    }

    /// In Markdown.
    pub(crate) fn text(&self) -> String {
        let mut head = vec!["".to_string()];
        for column in &self.columns {
            head.push(column.title.to_string());
            if column.ratio {
                head.push("× Envoy".to_string());
            }
            if column.added {
                head.push("added".to_string());
            }
        }
        let mut lines = vec![head];
        for row in &self.rows {
            let mut line = vec![row.peer.name().to_string()];
            for (index, column) in self.columns.iter().enumerate() {
                let mine = row.figures[index].median();
                line.push(row.figures[index].cell(column.digits));
                if column.ratio {
                    let ratio = mine
                        .zip(self.median(Peer::Envoy, index))
                        .map(|(mine, envoy)| mine / envoy);
                    line.push(ratio.map_or("-".to_string(), |ratio| format!("{ratio:.2}")));
                }
                if column.added {
                    let added = mine
                        .zip(self.median(Peer::Direct, index))
                        .map(|(mine, direct)| mine - direct);
                    line.push(added.map_or("-".to_string(), |added| format!("{added:.0}")));
                }
            }
            lines.push(line);
        }
        let mut text = format!("\n### {}\n\n", self.title);
        for (number, line) in lines.iter().enumerate() {
            let cells: Vec<String> = (0..line.len())
                .map(|column| {
                    let width = lines
                        .iter()
                        .map(|line| line[column].chars().count())
                        .max()
                        .unwrap_or_default();
                    format!("{:>width$}", line[column])
                })
                .collect();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if number == 0 {
                let rules: String = cells
                    .iter()
                    .map(|cell| format!("{}:|", "-".repeat(cell.chars().count() + 1)))
                    .collect();
                let _ = writeln!(text, "|{rules}");
            }
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let mut peers = serde_json::Map::new();
        for row in &self.rows {
            let figures = self.columns.iter().zip(&row.figures);
            let figures: serde_json::Map<_, _> = figures
                .map(|(column, series)| (column.key.to_string(), series.json()))
                .collect();
            peers.insert(row.peer.name().to_lowercase(), figures.into());
        }
        json!({"scenario": self.key, "title": self.title, "peers": peers})
    }
}

#[cfg(test)]
mod tests {
    use super::Series;

    #[test]
    fn median_of_odd_and_even_counts() {
        assert_eq!(Series::default().median(), None);
        assert_eq!(Series(vec![3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(Series(vec![4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
    }
}
