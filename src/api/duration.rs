//! A length of time as a person writes it: `30d`, `2w`, `1d12h`.
//!
//! The grammar is that of the resource; what it must not do is guess: anything else is an error that says what is right.

use std::{borrow::Cow, fmt, str::FromStr};

use k8s_openapi::jiff::{SignedDuration, Span, SpanRelativeTo, fmt::friendly::SpanParser};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Weeks, days, hours, minutes and seconds in this order, each at most once, as whole numbers. A day is 24 hours.
///
/// The API server reads `format: duration` more freely than anybody expects (`-1d` as one day, `1.5d` as five), so the
/// pattern is what really decides.
pub const PATTERN: &str = "^([0-9]{1,3}w)?([0-9]{1,4}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,7}s)?$";

/// What [`PATTERN`] says, in words. A rule cannot say it: to rules the value is a duration already, whatever its text was.
const WORDS: &str =
    "whole weeks, days, hours, minutes and seconds, in this order and without spaces, such as 30d, 12h or 1d12h";

/// The longest text that can be a length of time.
const MAX_LENGTH: usize = 24;

/// A length of time in the resource, kept as it was written. [`LengthOfTime::parse`] reads it; keeping the text means
/// that one object with an unreadable value is a problem of that object and not of the whole list it arrives in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LengthOfTime(pub String);

impl LengthOfTime {
    /// Reads the text: more than zero, at most 999 weeks + 9999 days + 999999 h + 999999 min + 9999999 s.
    ///
    /// # Errors
    /// Text outside of the grammar, and zero.
    pub fn parse(&self) -> Result<SignedDuration, InvalidDuration> {
        parse(&self.0)
    }
}

impl From<&str> for LengthOfTime {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for LengthOfTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a length of time; write whole weeks, days, hours, minutes and seconds in this order and more than zero in all, such as 30d, 2w, 12h or 1d12h"
)]
pub struct InvalidDuration {
    text: String,
}

/// Reads a length of time, see [`PATTERN`]. Also the parser of command-line flags.
///
/// # Errors
/// Text outside of the grammar, and zero.
pub fn parse(text: &str) -> Result<SignedDuration, InvalidDuration> {
    read(text)
        .filter(SignedDuration::is_positive)
        .ok_or_else(|| InvalidDuration { text: text.chars().take(40).collect() })
}

fn read(text: &str) -> Option<SignedDuration> {
    const PARSER: SpanParser = SpanParser::new();
    // jiff's friendly format is wider than ours (signs, fractions, spaces, words): hold the text against the grammar.
    let mut rest = text;
    for (unit, digits) in [('w', 3), ('d', 4), ('h', 6), ('m', 6), ('s', 7)] {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if rest[number..].starts_with(unit) {
            if !(1..=digits).contains(&number) {
                return None;
            }
            rest = &rest[number + 1..];
        }
    }
    if !rest.is_empty() {
        return None;
    }
    let span: Span = PARSER.parse_span(text).ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

/// Writes a length of time in the grammar that [`parse`] reads; parts of a second are cut off.
pub fn format(length: SignedDuration) -> String {
    let mut seconds = length.as_secs().max(0);
    let mut text = String::new();
    for (unit, size) in [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)] {
        if seconds >= size {
            text.push_str(&format!("{}{unit}", seconds / size));
            seconds %= size;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

impl FromStr for LengthOfTime {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(|_| Self(text.to_owned()))
    }
}

impl JsonSchema for LengthOfTime {
    fn schema_name() -> Cow<'static, str> {
        "LengthOfTime".into()
    }

    fn inline_schema() -> bool {
        true
    }

    // The API server shows the pattern to whoever breaks it, so the words are a branch of it; no value is that long.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "duration",
            "maxLength": MAX_LENGTH,
            "pattern": format!("{PATTERN}|^{WORDS}$"),
            "x-kubernetes-validations": [{
                "rule": "self > duration('0s')",
                "message": "must be a length of time of more than zero, such as 30d, 12h or 1d12h",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_api_server_reads() {
        for (text, seconds) in [
            ("30d", 30 * 86_400),
            ("2w", 14 * 86_400),
            ("12h", 43_200),
            ("1d12h", 129_600),
            ("1w1d1h1m1s", 8 * 86_400 + 3_661),
            ("90s", 90),
            ("999999h", 999_999 * 3_600),
            ("9999999s", 9_999_999),
        ] {
            assert_eq!(parse(text), Ok(SignedDuration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn refuses_what_only_looks_like_a_length_of_time() {
        for text in [
            "", "0s", "0d0h", "-1d", "1.5d", "1d 12h", "12h1d", "1day", "1000w", "5", "d", "1d1d", "10000d", "P1D",
            "1 d", "1ms",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_words_in_the_schema_are_too_long_to_be_a_value() {
        assert!(WORDS.len() > MAX_LENGTH);
    }

    #[test]
    fn formats_what_it_can_read_again() {
        for seconds in [1, 59, 60, 3_600, 86_399, 86_400, 129_600, 7 * 86_400] {
            let length = SignedDuration::from_secs(seconds);
            assert_eq!(parse(&format(length)), Ok(length));
        }
    }
}
