//! The output of a command: its exit code, its text, and the forms of that text (table, JSON, YAML).

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::terminal::{Paint, Tone, plain, wrap};

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
    /// Errors for stderr, after the text, one line each.
    pub errors: Vec<String>,
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
        Self { text: Zeroizing::new(text.into()), errors: Vec::new(), exit }
    }
}

/// Writes a text to stdout at once.
///
/// # Errors
/// Stdout cannot be written, for example because its reader is gone.
pub fn write_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Returns objects as one, as `kubectl get` does.
pub fn list_object(items: impl Iterator<Item = Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items.collect::<Vec<_>>()})
}

/// Formats a value as indented JSON.
pub fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Formats a value as YAML.
pub fn yaml_text(value: &Value) -> String {
    serde_yaml::to_string(value).expect("JSON is always YAML")
}

/// A wrapped last column of a table has at least this many characters; with less space, it goes below its row.
const MIN_WRAPPED: usize = 30;

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
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { plain(&cell) };
        self.rows.push(cells.into_iter().map(|(tone, cell)| (tone, shown(cell))).collect());
    }

    /// The width of each column, at least as wide as in `others`.
    pub fn widths(&self, others: &[usize]) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|head| head.len()).collect();
        widths.iter_mut().zip(others).for_each(|(width, other)| *width = (*width).max(*other));
        for row in &self.rows {
            for (width, (_, cell)) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }

    /// Renders the table, with `indent` spaces before each line.
    pub fn render(&self, paint: Paint, indent: usize) -> String {
        self.render_within(paint, indent, usize::MAX)
    }

    /// Renders the table in lines of at most `width` characters, if wrapping the last column is enough for that.
    pub fn render_within(&self, paint: Paint, indent: usize, width: usize) -> String {
        let widths = self.widths(&[]);
        let total = |gap: usize| indent + widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1);
        let gap = if total(3) > width && total(2) <= width { 2 } else { 3 };
        let begin = total(gap) - widths.last().copied().unwrap_or_default();
        let is_below = total(gap) > width && begin + MIN_WRAPPED > width;
        let hang = if is_below { indent + 4 } else { begin };
        let head: Vec<_> = self.head.iter().map(|head| (Tone::Title, (*head).to_owned())).collect();
        let mut text = String::new();
        for (number, row) in std::iter::once(&head).chain(&self.rows).enumerate() {
            let Some(((tone, last), others)) = row.split_last() else { continue };
            let line = pad(others, &widths, gap, paint);
            let lines = wrap(last, width.saturating_sub(hang)).into_iter().map(|line| paint.tint(*tone, line));
            let lines = lines.collect::<Vec<_>>().join(&format!("\n{}", " ".repeat(hang)));
            text.push_str(&" ".repeat(indent));
            text.push_str(&match is_below {
                false => format!("{line}{lines}\n"),
                // The header of what is below its row would look like a row.
                true if number == 0 => format!("{}\n", line.trim_end()),
                true => format!("{}\n{}{lines}\n", line.trim_end(), " ".repeat(hang)),
            });
        }
        text
    }

    /// Renders the rows without the header, aligned to these widths.
    pub fn render_rows(&self, paint: Paint, widths: &[usize]) -> String {
        let rows = self.rows.iter().filter_map(|row| row.split_last());
        rows.map(|((tone, last), others)| format!("{}{}\n", pad(others, widths, 3, paint), paint.tint(*tone, last)))
            .collect()
    }
}

/// Pads cells to the widths of their columns, with a gap after each.
fn pad(cells: &[(Tone, String)], widths: &[usize], gap: usize, paint: Paint) -> String {
    let padded = |((tone, cell), width): (&(Tone, String), &usize)| {
        let spaces = width.saturating_sub(cell.chars().count()) + gap;
        format!("{}{}", paint.tint(*tone, cell), " ".repeat(spaces))
    };
    cells.iter().zip(widths).map(padded).collect()
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
        let rows = table.render_rows(Paint::new(Color::Never, false), &[12, 5]);
        assert_eq!(rows, "a-long-name    Ready\nü              -\n");
        let painted = table.render(Paint::new(Color::Always, false), 0);
        assert!(painted.contains("a-long-name   \x1b[32mReady\x1b[0m\n"), "{painted:?}");
    }

    #[test]
    fn last_column_is_wrapped_to_the_width() {
        let text = "the quick brown fox jumps over the lazy dog and over another one";
        let mut table = Table::new(&["NAME", "MESSAGE"]);
        table.add_row(vec![(Tone::Plain, "ab".into()), (Tone::Plain, text.into())]);
        let within = |width| table.render_within(Paint::new(Color::Never, false), 2, width);
        assert_eq!(within(usize::MAX), table.render(Paint::new(Color::Never, false), 2));
        assert_eq!(within(73), format!("  NAME   MESSAGE\n  ab     {text}\n"));
        assert_eq!(within(72), format!("  NAME  MESSAGE\n  ab    {text}\n"), "a narrower gap comes first");
        let (first, rest) = text.split_at(40);
        assert_eq!(within(50), format!("  NAME   MESSAGE\n  ab     {}\n         {rest}\n", first.trim_end()));
        let below =
            "  NAME\n  ab\n      the quick brown fox jumps over\n      the lazy dog and over another\n      one\n";
        assert_eq!(within(37), below);
    }
}
