//! A point in time as it stands in the resource: RFC 3339, UTC, microseconds.
//!
//! It must not read a clock: the present is always an argument.

use std::{borrow::Cow, fmt, str::FromStr};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// RFC 3339 with capital letters. Not every year: the calendars of those who read it end in different years, the first of
/// them (jiff's) during 9999.
const PATTERN: &str =
    r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// What [`PATTERN`] says, in words.
const WORDS: &str = "a date, a time and Z or an offset, in the years 1000 to 2999, such as 2030-12-31T23:59:59Z";

/// The longest text that can be a time.
const MAX_LENGTH: usize = 35;

/// A point in time with microseconds, the resolution of Kubernetes' `MicroTime`. Finer digits are cut off on the way in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Timestamp);

impl Time {
    /// The earliest time there is; older than any credential.
    pub const MIN: Self = Self(Timestamp::MIN);

    /// The time `micros` microseconds after the Unix epoch; saturates at the years −9999 and 9999.
    pub fn from_micros(micros: i64) -> Self {
        let end = if micros < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Self(Timestamp::from_microsecond(micros).unwrap_or(end))
    }

    /// Microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// This time moved by `by`; saturates at the ends of the calendar.
    #[must_use]
    pub fn plus(self, by: SignedDuration) -> Self {
        match self.0.checked_add(by) {
            Ok(sum) => Self::from(sum),
            Err(_) if by.is_negative() => Self(Timestamp::MIN),
            Err(_) => Self(Timestamp::MAX),
        }
    }

    /// This time moved back by `by`; saturates at the ends of the calendar.
    #[must_use]
    pub fn minus(self, by: SignedDuration) -> Self {
        self.plus(-by)
    }

    /// How long it is from `earlier` to this time; negative if this time is the earlier one.
    pub fn since(self, earlier: Self) -> SignedDuration {
        self.0.duration_since(earlier.0)
    }

    /// The whole second at or before this time.
    #[must_use]
    pub fn floor_second(self) -> Self {
        Self::from_micros(self.as_micros().div_euclid(1_000_000) * 1_000_000)
    }

    /// The whole second at or after this time.
    #[must_use]
    pub fn ceil_second(self) -> Self {
        let floor = self.floor_second();
        if floor == self { floor } else { floor.plus(SignedDuration::from_secs(1)) }
    }

    /// The same time for libraries that speak `jiff`.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self::from_micros(timestamp.as_microsecond())
    }
}

impl FromStr for Time {
    type Err = k8s_openapi::jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Timestamp>().map(Self::from)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    // The API server's own `date-time` takes more than RFC 3339 in places (any number of fraction digits, any offset);
    // the pattern keeps out what other readers would stumble over. It shows the pattern to whoever breaks it, so the words
    // are a branch of it; no value is that long.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "maxLength": MAX_LENGTH,
            "pattern": format!("{PATTERN}|^{WORDS}$"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_microseconds_and_cuts_off_the_rest() {
        let time: Time = "2026-01-02T03:04:05.123456789+02:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-02T01:04:05.123456Z");
    }

    #[test]
    fn the_words_in_the_schema_are_too_long_to_be_a_value() {
        assert!(WORDS.len() > MAX_LENGTH);
    }

    #[test]
    fn arithmetic_saturates_instead_of_panicking() {
        let far = Time::from_micros(i64::MAX);
        assert_eq!(far.plus(SignedDuration::MAX), far);
        assert_eq!(Time::MIN.minus(SignedDuration::MAX), Time::MIN);
    }
}
