//! Columns as `kubectl get` prints them: no lines, three spaces between, nothing behind the last.
//!
//! A table crate would bring frames and wrapping, which a pipe to `awk` does not want. It must not know what is in the cells.

use super::terminal::{Paint, Tone};

/// See the module.
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<(Tone, String)>>,
}

/// A cell without a tone of its own.
pub const PLAIN: Tone = Tone::Title;

impl Table {
    /// A table with this head.
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// One more row, as many cells as the head has.
    pub fn row(&mut self, cells: Vec<(Tone, String)>) {
        self.rows.push(cells);
    }

    /// The table as text; `indent` spaces before each line.
    pub fn text(&self, paint: Paint, indent: usize) -> String {
        let shown = |cell: &str| if cell.is_empty() { "-".to_owned() } else { super::terminal::plain(cell) };
        let rows: Vec<Vec<(Tone, String)>> =
            self.rows.iter().map(|row| row.iter().map(|(tone, cell)| (*tone, shown(cell))).collect()).collect();
        let mut widths: Vec<usize> = self.head.iter().map(|head| head.len()).collect();
        for row in &rows {
            for (width, (_, cell)) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let head = self.head.iter().map(|head| (Tone::Title, (*head).to_owned())).collect();
        let mut text = String::new();
        for (number, row) in std::iter::once(&head).chain(&rows).enumerate() {
            text.push_str(&" ".repeat(indent));
            let last = row.len().saturating_sub(1);
            for (column, ((tone, cell), width)) in row.iter().zip(&widths).enumerate() {
                let is_coloured = number == 0 || *tone != PLAIN;
                text.push_str(&if is_coloured { paint.tint(*tone, cell) } else { cell.clone() });
                if column < last {
                    text.push_str(&" ".repeat(width + 3 - cell.chars().count()));
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::terminal::Color;

    #[test]
    fn columns_line_up_whatever_is_coloured() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec![(PLAIN, "a-long-name".into()), (Tone::Good, "Ready".into())]);
        table.row(vec![(PLAIN, "ü".into()), (Tone::Bad, String::new())]);
        let text = table.text(Paint::of(Color::Never, false), 2);
        assert_eq!(text, "  NAME          STATE\n  a-long-name   Ready\n  ü             -\n");
        let painted = table.text(Paint::of(Color::Always, false), 0);
        assert!(painted.contains("a-long-name   \x1b[32mReady\x1b[0m\n"), "{painted:?}");
    }
}
