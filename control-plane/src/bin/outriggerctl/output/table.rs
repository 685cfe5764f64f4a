//! Tables as kubectl draws them: columns three spaces apart, no lines, the header in capitals.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table as Layout};

use super::style::{Color, paint};

/// One value of a table; never empty, so that columns can be told apart by programs too.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    color: Option<Color>,
}

impl Cell {
    pub fn colored(text: impl Into<String>, color: Color) -> Self {
        Self {
            color: Some(color),
            ..text.into().into()
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        let text = if text.is_empty() {
            "<none>".to_owned()
        } else {
            text
        };
        Self { text, color: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// Rows under a header.
#[derive(Debug, Default)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    /// Columns are at least this wide, so that tables printed one after another line up.
    widths: Vec<usize>,
}

impl Table {
    pub fn new(header: Vec<&'static str>) -> Self {
        Self {
            header,
            ..Self::default()
        }
    }

    /// Makes the columns at least this wide.
    pub fn at_least(self, widths: Vec<usize>) -> Self {
        Self { widths, ..self }
    }

    /// A further part of a table that was printed with these widths, without header.
    pub fn continuing(widths: Vec<usize>) -> Self {
        Self {
            widths,
            ..Self::default()
        }
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Removes the header.
    pub fn without_header(mut self) -> Self {
        self.header.clear();
        self
    }

    /// Widths of the columns without the space between them.
    pub fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .layout()
            .column_max_content_widths()
            .iter()
            .map(|w| usize::from(*w))
            .collect();
        for (index, least) in self.widths.iter().enumerate() {
            match widths.get_mut(index) {
                Some(width) => *width = (*width).max(*least),
                None => widths.push(*least),
            }
        }
        widths
    }

    /// All lines, each with a newline.
    pub fn render(&self, color: bool) -> String {
        let mut layout = self.layout();
        layout.set_content_arrangement(ContentArrangement::Disabled);
        let widths = self.widths();
        for (index, width) in widths.iter().enumerate() {
            if let Some(column) = layout.column_mut(index) {
                column.set_padding((0, 3));
                let width = u16::try_from(*width + 3).unwrap_or(u16::MAX);
                column.set_constraint(comfy_table::ColumnConstraint::LowerBoundary(
                    comfy_table::Width::Fixed(width),
                ));
            }
        }
        let mut text = String::new();
        for (index, line) in layout.lines().enumerate() {
            let row = index.checked_sub(usize::from(!self.header.is_empty()));
            let cells = row
                .and_then(|row| self.rows.get(row))
                .map_or(&[][..], Vec::as_slice);
            text.push_str(&painted(line.trim_end(), cells, &widths, color));
            text.push('\n');
        }
        text
    }

    fn layout(&self) -> Layout {
        let mut layout = Layout::new();
        layout.load_style(NOTHING);
        if !self.header.is_empty() {
            layout.set_header(self.header.clone());
        }
        for row in &self.rows {
            layout.add_row(row.iter().map(|cell| cell.text.as_str()));
        }
        layout
    }
}

/// Colours the cells of a laid-out line. Done afterwards, since escape codes would count as width in the layout.
fn painted(line: &str, cells: &[Cell], widths: &[usize], color: bool) -> String {
    if !color {
        return line.to_owned();
    }
    let mut text = String::with_capacity(line.len() + 16);
    let mut rest = line;
    for (cell, width) in cells.iter().zip(widths) {
        // Every character that is printed here is one column wide.
        let end = rest
            .char_indices()
            .nth(width + 3)
            .map_or(rest.len(), |(index, _)| index);
        let (column, tail) = rest.split_at(end);
        match (cell.color, column.strip_prefix(cell.text.as_str())) {
            (Some(color), Some(padding)) => {
                text.push_str(&paint(color, &cell.text, true));
                text.push_str(padding);
            }
            _ => text.push_str(column),
        }
        rest = tail;
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::style::{GREEN, RED};

    fn table() -> Table {
        let mut table = Table::new(vec!["NAME", "STATE", "AGE"]);
        table.row(vec![
            "chat".into(),
            Cell::colored("Ready", GREEN),
            "5m".into(),
        ]);
        table.row(vec![
            "a-longer-name".into(),
            Cell::colored("Gone", RED),
            "".into(),
        ]);
        table
    }

    #[test]
    fn columns_line_up_and_lines_end_without_spaces() {
        let expected = "\
NAME            STATE   AGE
chat            Ready   5m
a-longer-name   Gone    <none>
";
        assert_eq!(table().render(false), expected);
    }

    #[test]
    fn colours_change_no_column() {
        let colored = table().render(true);
        assert!(colored.contains("\x1b[32mReady\x1b[0m   5m"), "{colored}");
        assert!(
            colored.contains("\x1b[31mGone\x1b[0m    <none>"),
            "{colored}"
        );
        let plain = colored
            .replace("\x1b[32m", "")
            .replace("\x1b[31m", "")
            .replace("\x1b[0m", "");
        assert_eq!(plain, table().render(false));
    }

    #[test]
    fn colours_find_their_column_behind_other_letters() {
        let mut table = Table::new(vec!["A", "B"]);
        table.row(vec!["5µs".into(), Cell::colored("ok", GREEN)]);
        assert!(table.render(true).ends_with("5µs   \x1b[32mok\x1b[0m\n"));
    }

    #[test]
    fn later_rows_line_up_with_earlier_ones() {
        let mut more = Table::continuing(table().widths());
        more.row(vec!["b".into(), "Ready".into(), "1s".into()]);
        assert_eq!(more.render(false), "b               Ready   1s\n");
    }

    #[test]
    fn without_header() {
        assert_eq!(table().without_header().render(false).lines().count(), 2);
    }
}
