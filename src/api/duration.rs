//! Durations as people write them in the resources and on the command line: `30d`, `2w`, `1d12h`.
//!
//! The grammar is strict: any other text is an error that states the right form.

use std::{borrow::Cow, fmt, str::FromStr};

use k8s_openapi::jiff::{SignedDuration, Span, SpanRelativeTo, fmt::friendly::SpanParser};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Grammar of a duration: whole weeks, days, hours, minutes and seconds, in this order, each at most once. A day has 24 hours.
///
/// The pattern decides, because the API server reads `format: duration` too freely: `-1d` as one day, `1.5d` as five days.
pub const PATTERN: &str = "^([0-9]{1,3}w)?([0-9]{1,4}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,7}s)?$";

/// [`PATTERN`] in words. A CEL rule cannot check the text, because it sees a parsed duration.
const WORDS: &str =
    "whole weeks, days, hours, minutes and seconds, in this order and without spaces, such as 30d, 12h or 1d12h";

/// Maximum length of a duration's text.
const MAX_LENGTH: usize = 24;

/// A duration in a resource, kept as text and parsed by [`LengthOfTime::parse`].
///
/// Because it stays text, an invalid value affects only its own object and not the list that contains it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LengthOfTime(pub String);

impl LengthOfTime {
    /// Parses the text: more than zero, at most 999 weeks + 9999 days + 999999 h + 999999 min + 9999999 s.
    ///
    /// # Errors
    /// Returns an error for zero and for text outside the grammar.
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

/// The error for text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: write whole weeks, days, hours, minutes and seconds, in this order and greater than zero in total, such as 30d, 2w, 12h or 1d12h"
)]
pub struct InvalidDuration {
    text: String,
}

/// Parses a duration, see [`PATTERN`]. Command-line flags use it too.
///
/// # Errors
/// Returns an error for zero and for text outside the grammar.
pub fn parse(text: &str) -> Result<SignedDuration, InvalidDuration> {
    read(text)
        .filter(SignedDuration::is_positive)
        .ok_or_else(|| InvalidDuration { text: text.chars().take(40).collect() })
}

fn read(text: &str) -> Option<SignedDuration> {
    const PARSER: SpanParser = SpanParser::new();
    // jiff's friendly format accepts more (signs, fractions, spaces, words), so check the grammar first.
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

/// Formats a duration in the grammar that [`parse`] reads. Fractions of a second are dropped.
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

    // The API server shows the pattern in its error, so the words are one branch of it. No value is as long as the words.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "duration",
            "maxLength": MAX_LENGTH,
            "pattern": format!("{PATTERN}|^{WORDS}$"),
            "x-kubernetes-validations": [{
                "rule": "self > duration('0s')",
                "message": "must be a duration greater than zero, such as 30d, 12h or 1d12h",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_durations_are_parsed() {
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
    fn near_durations_are_refused() {
        for text in [
            "", "0s", "0d0h", "-1d", "1.5d", "1d 12h", "12h1d", "1day", "1000w", "5", "d", "1d1d", "10000d", "P1D",
            "1 d", "1ms",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_words_in_the_pattern_exceed_the_maximum_length() {
        assert!(WORDS.len() > MAX_LENGTH);
    }

    #[test]
    fn a_formatted_duration_parses_to_the_same_duration() {
        for seconds in [1, 59, 60, 3_600, 86_399, 86_400, 129_600, 7 * 86_400] {
            let length = SignedDuration::from_secs(seconds);
            assert_eq!(parse(&format(length)), Ok(length));
        }
    }
}
