//! The terminal: whether there is one, whether it takes colours, and text that no object can turn into control codes.
//!
//! It must not know what is shown.

use std::{
    env, fmt,
    io::{self, IsTerminal},
};

use clap::{
    ValueEnum,
    builder::styling::{AnsiColor, Style},
};

/// When there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb
    #[default]
    Auto,
    /// Also in a pipe
    Always,
    /// Never
    Never,
}

/// How something is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It works.
    Good,
    /// It works, and somebody should look some day.
    Notice,
    /// Somebody has to act.
    Bad,
    /// It is over, or of no weight.
    Quiet,
    /// A heading.
    Title,
}

/// Colours texts, or leaves them alone.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

impl Paint {
    /// For stdout, as the person wants it.
    pub fn stdout(color: Color) -> Self {
        Self::of(color, io::stdout().is_terminal())
    }

    /// For something that is a terminal or not.
    pub fn of(color: Color, is_terminal: bool) -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !is_set("NO_COLOR") && !is_dumb,
        })
    }

    /// The text in its colour, with nothing in it that a terminal would obey.
    pub fn tint(self, tone: Tone, text: impl fmt::Display) -> String {
        let text = plain(&text.to_string());
        if !self.0 {
            return text;
        }
        let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
        let style = match tone {
            Tone::Good => color(AnsiColor::Green),
            Tone::Notice => color(AnsiColor::Yellow),
            Tone::Bad => color(AnsiColor::Red).bold(),
            Tone::Quiet => Style::new().dimmed(),
            Tone::Title => Style::new().bold(),
        };
        format!("{style}{text}{style:#}")
    }
}

/// The text without control characters: what stands in an object must not move the cursor of whoever lists it.
pub fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// Whether a person sits there, to be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a yes. Anything else is a no.
pub fn confirm(question: &str) -> io::Result<bool> {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_an_object_does_not_steer_the_terminal() {
        assert_eq!(Paint(false).tint(Tone::Bad, "a\x1b[2Jb\nc"), "a\u{fffd}[2Jb c");
        assert_eq!(Paint(true).tint(Tone::Good, "a"), "\x1b[32ma\x1b[0m");
    }

    #[test]
    fn a_pipe_has_no_colours_unless_it_is_told_so() {
        assert_eq!(Paint::of(Color::Auto, false).tint(Tone::Good, "a"), "a");
        assert_eq!(Paint::of(Color::Never, true).tint(Tone::Good, "a"), "a");
        assert_ne!(Paint::of(Color::Always, false).tint(Tone::Good, "a"), "a");
    }
}
