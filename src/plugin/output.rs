//! The output of a command: its exit code, its text, and the forms of that text (table, JSON, YAML).

use std::process::ExitCode;

use serde_json::Value;
use zeroize::Zeroizing;

use super::terminal::{Paint, Tone, plain};

/// An exit code of the plugin, as documented in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command succeeded, and the answer is yes.
    Success,
    /// The command failed.
    Failed,
    /// The command line is invalid.
    Usage,
    /// The token is not valid.
    NotValid,
    /// The expected change did not happen in time.
    TimedOut,
}

impl Exit {
    /// The numeric exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotValid => 3,
            Self::TimedOut => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The text and the exit code of a command.
pub struct CommandOutput {
    /// The text for stdout. It is zeroized when dropped, because it may be a token.
    pub text: Zeroizing<String>,
    /// The exit code.
    pub exit: Exit,
}

impl CommandOutput {
    /// Creates the output of a successful command.
    pub fn success(text: impl Into<String>) -> Self {
        Self::with_exit(text, Exit::Success)
    }

    /// Creates an output with any exit code.
    pub fn with_exit(text: impl Into<String>, exit: Exit) -> Self {
        Self { text: Zeroizing::new(text.into()), exit }
    }
}

/// Formats a value as indented JSON.
pub fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Formats a value as YAML.
pub fn yaml_text(value: &Value) -> String {
    serde_yaml::to_string(value).expect("JSON is always YAML")
}

/// A table in the style of `kubectl get`: no lines, three spaces between columns, no trailing spaces.
///
/// Table crates add frames and wrap cells, which makes the output hard to parse with `awk`.
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    /// Creates a table with this header.
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, which must have as many cells as the header.
    pub fn add_row(&mut self, cells: Vec<(Tone, String)>) {
        self.rows.push(cells);
    }

    /// Renders the table, with `indent` spaces before each line.
    pub fn render(&self, paint: Paint, indent: usize) -> String {
        let shown = |cell: &str| if cell.is_empty() { "-".to_owned() } else { plain(cell) };
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
        for row in std::iter::once(&head).chain(&rows) {
            text.push_str(&" ".repeat(indent));
            let last = row.len().saturating_sub(1);
            for (column, ((tone, cell), width)) in row.iter().zip(&widths).enumerate() {
                text.push_str(&paint.tint(*tone, cell));
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
    fn columns_are_aligned_with_and_without_colors() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.add_row(vec![(Tone::Plain, "a-long-name".into()), (Tone::Good, "Ready".into())]);
        table.add_row(vec![(Tone::Plain, "ü".into()), (Tone::Bad, String::new())]);
        let text = table.render(Paint::new(Color::Never, false), 2);
        assert_eq!(text, "  NAME          STATE\n  a-long-name   Ready\n  ü             -\n");
        let painted = table.render(Paint::new(Color::Always, false), 0);
        assert!(painted.contains("a-long-name   \x1b[32mReady\x1b[0m\n"), "{painted:?}");
    }
}
