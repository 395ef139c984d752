//! Columns that line up.

use super::{Style, clean};
use std::fmt::Write;

/// A table whose rows come as cells.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// With a first column for the node.
    pub(crate) fn by_node(head: &[&'static str]) -> Self {
        Self { head: std::iter::once("NODE").chain(head.iter().copied()).collect(), rows: Vec::new() }
    }

    /// Adds a row of a node's; the node is shown only in a table by node.
    pub(crate) fn row_of<const N: usize>(&mut self, node: &str, cells: [String; N]) {
        self.row(cells);
        if let Some(row) = self.rows.last_mut().filter(|row| row.len() < self.head.len()) {
            row.insert(0, clean(node));
        }
    }

    /// Adds a row. Empty cells print `-`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let cell = |text: String| {
            if text.is_empty() { "-".to_owned() } else { clean(&text) }
        };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    /// The table, a line per row.
    pub(crate) fn render(&self, style: Style) -> String {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells =
                    self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
                cells.max().unwrap_or(0).max(self.head[column].len())
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (cell, width) in cells.zip(&widths) {
                let _ = write!(text, "{cell:<width$}  ");
            }
            text.trim_end().to_owned()
        };
        let mut text = style.bold(&line(&mut self.head.iter().copied())) + "\n";
        for row in &self.rows {
            text += &line(&mut row.iter().map(String::as_str));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let mut table = Table::new(&["NAME", "X"]);
        table.row(["a".into(), "1".into()]);
        table.row(["längerer".into(), String::new()]);
        assert_eq!(table.render(Style::plain(true)), "NAME      X\na         1\nlängerer  -\n");
    }
}
