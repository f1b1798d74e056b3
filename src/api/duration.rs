//! Durations as people write them in the resources and on the command line: `30d`, `2w`, `1d12h`.
//!
//! The grammar is strict: any other text is an error that states the right form.

use std::{borrow::Cow, fmt, str::FromStr};

use k8s_openapi::jiff::{SignedDuration, Span, SpanRelativeTo, fmt::friendly::SpanParser};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::spec::bound;

/// Grammar of a duration: whole weeks, days, hours, minutes and seconds, in this order, each at most once. A day has 24 hours.
///
/// The schema has no `format: duration`, which the API server reads too freely: `-1d` as one day, `1.5d` as five days. With it, CEL
/// rules would not see the text either, so no rule could say what is wrong with it.
pub const PATTERN: &str = "^([0-9]{1,3}w)?([0-9]{1,4}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,7}s)?$";

/// [`PATTERN`] in words.
const WORDS: &str = "must be a duration greater than zero: whole weeks, days, hours, minutes and seconds, in this order and without spaces, such as 30d, 12h or 1d12h";

/// Maximum length of a duration's text.
const MAX_LENGTH: usize = 24;

/// Returns a CEL expression: whether the text `of` is a duration that the schema accepts.
fn is_duration(of: &str) -> String {
    format!("size({of}) <= {MAX_LENGTH} && {of}.matches('{PATTERN}') && {of}.matches('[1-9]')")
}

/// Returns a CEL expression: the seconds of the duration `of`, which must be valid.
fn seconds(of: &str) -> String {
    let units = [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let number = |(unit, size)| format!("int('0' + {of}.find('[0-9]+{unit}').replace('{unit}', '')) * {size}");
    units.map(number).join(" + ")
}

/// Returns a CEL rule for a duration of at least `min` seconds. Another rule refuses what is no duration.
pub(super) fn at_least(min: u32) -> String {
    format!("!({}) || {} >= {min}", is_duration("self"), seconds("self"))
}

/// Returns a CEL rule for a duration from `min` to `max` seconds. Another rule refuses what is no duration.
pub(super) fn between(min: u32, max: u32) -> String {
    let (is_duration, seconds) = (is_duration("self"), seconds("self"));
    format!("!({is_duration}) || {seconds} >= {min} && {seconds} <= {max}")
}

/// Returns a CEL rule for a duration that is shorter than another one, if both are set. Other rules refuse what is no duration.
pub(super) fn shorter(set: &str, one: &str, other: &str) -> String {
    let (first, second) = (is_duration(one), is_duration(other));
    format!("!({set}) || !({first}) || !({second}) || {} < {}", seconds(one), seconds(other))
}

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

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": bound(MAX_LENGTH),
            "pattern": PATTERN,
            "x-kubernetes-validations": [{"rule": is_duration("self"), "message": WORDS}],
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
    fn a_formatted_duration_parses_to_the_same_duration() {
        for seconds in [1, 59, 60, 3_600, 86_399, 86_400, 129_600, 7 * 86_400] {
            let length = SignedDuration::from_secs(seconds);
            assert_eq!(parse(&format(length)), Ok(length));
        }
    }
}
