//! The terminal: detection, colors, confirmation, and the removal of control characters from text.

use std::{
    env, fmt,
    io::{self, IsTerminal},
};

use clap::{
    ValueEnum,
    builder::styling::{AnsiColor, Style},
};

use super::error::Error;

/// The values of `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Use colors on a terminal, unless NO_COLOR is set or TERM is dumb
    #[default]
    Auto,
    /// Use colors in pipes too
    Always,
    /// Use no colors
    Never,
}

/// The severity or role of a text, which decides its color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A good state.
    Good,
    /// A state that needs attention later.
    Warning,
    /// A state that needs action.
    Bad,
    /// A final or unknown state.
    Muted,
    /// A heading.
    Title,
    /// Ordinary text, without color.
    Plain,
}

/// Colors texts, or leaves them unchanged.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

impl Paint {
    /// The setting for stdout.
    pub fn stdout(color: Color) -> Self {
        Self::new(color, io::stdout().is_terminal())
    }

    /// The setting for an output that is a terminal or not.
    pub fn new(color: Color, is_terminal: bool) -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !is_set("NO_COLOR") && !is_dumb,
        })
    }

    /// The setting without colors.
    pub fn plain() -> Self {
        Self(false)
    }

    /// Returns the text in the color of its tone, without control characters of its own.
    pub fn tint(self, tone: Tone, text: impl fmt::Display) -> String {
        let text = plain(&text.to_string());
        if !self.0 {
            return text;
        }
        let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
        let style = match tone {
            Tone::Good => color(AnsiColor::Green),
            Tone::Warning => color(AnsiColor::Yellow),
            Tone::Bad => color(AnsiColor::Red).bold(),
            Tone::Muted => Style::new().dimmed(),
            Tone::Title => Style::new().bold(),
            Tone::Plain => return text,
        };
        format!("{style}{text}{style:#}")
    }
}

/// Replaces control characters, so that text from an object cannot control the terminal.
pub fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// The width of the terminal on stdout, in columns, at least 40; unlimited if stdout is no terminal.
pub fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    match size.map(|size| usize::from(size.ws_col)) {
        Ok(columns @ 1..) => columns.max(40),
        _ => usize::MAX,
    }
}

/// Breaks a text between words, into lines of at most `width` characters. A longer word has a line of its own.
///
/// textwrap would be one more dependency for a dozen lines.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    if text.chars().count() <= width {
        return vec![text.to_owned()];
    }
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Asks the user to confirm. Every answer except yes is a no.
///
/// # Errors
/// The user did not confirm. Without a terminal, the error is `unasked`.
pub fn confirm(question: &str, unasked: impl FnOnce() -> String) -> Result<(), Error> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Error::Usage(unasked()));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Error::io("terminal"))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::Refused("not confirmed, nothing was changed".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(Paint(false).tint(Tone::Bad, "a\x1b[2Jb\nc"), "a\u{fffd}[2Jb c");
        assert_eq!(Paint(true).tint(Tone::Good, "a"), "\x1b[32ma\x1b[0m");
        assert_eq!(Paint(true).tint(Tone::Plain, "a"), "a");
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("a  b", 4), ["a  b"]);
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aa bbbbbbb c", 4), ["aa", "bbbbbbb", "c"]);
        assert_eq!(wrap("üü üü", 5), ["üü üü"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn pipe_has_colors_only_on_request() {
        assert_eq!(Paint::new(Color::Auto, false).tint(Tone::Good, "a"), "a");
        assert_eq!(Paint::new(Color::Never, true).tint(Tone::Good, "a"), "a");
        assert_ne!(Paint::new(Color::Always, false).tint(Tone::Good, "a"), "a");
    }
}
