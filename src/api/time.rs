//! Points in time in the resources: RFC 3339, UTC, microseconds. No function reads a clock.

use std::{borrow::Cow, fmt, num::NonZero, str::FromStr};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::spec::bound;

/// RFC 3339 with capital letters, in years that the calendars of all readers support (jiff's ends during 9999).
const PATTERN: &str =
    r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// [`PATTERN`] in words.
const WORDS: &str =
    "must be a date, a time and Z or an offset, in the years 1000 to 2999, such as 2030-12-31T23:59:59Z";

/// Sign bit of a number of microseconds.
const SIGN: u64 = 1 << 63;

/// Maximum length of a time's text.
const MAX_LENGTH: usize = 35;

/// A point in time in microseconds, the resolution of Kubernetes' `MicroTime`. Parsing drops finer digits.
///
/// It is always within jiff's calendar. Both it and its `Option` take 8 bytes, half of jiff's `Timestamp`, because an index
/// keeps many of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(NonZero<u64>);

impl Time {
    /// The earliest time; older than any credential.
    pub const MIN: Self = Self::of(-377_705_023_201_000_000);

    /// The latest time that jiff represents in microseconds.
    const MAX: Self = Self::of(253_402_207_200_000_000);

    /// Flips the sign bit of microseconds since the Unix epoch, which keeps their order and is never zero within the calendar.
    const fn of(micros: i64) -> Self {
        match NonZero::new(micros.cast_unsigned() ^ SIGN) {
            Some(moved) => Self(moved),
            // Only for a time long before the calendar begins.
            None => Self(NonZero::<u64>::MIN),
        }
    }

    /// Returns the time `micros` microseconds after the Unix epoch; saturates at the years −9999 and 9999.
    pub fn from_micros(micros: i64) -> Self {
        Self::of(micros).clamp(Self::MIN, Self::MAX)
    }

    /// Returns the microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        (self.0.get() ^ SIGN).cast_signed()
    }

    /// Returns this time moved by `by`; saturates at the ends of the calendar.
    #[must_use]
    pub fn plus(self, by: SignedDuration) -> Self {
        match self.timestamp().checked_add(by) {
            Ok(sum) => Self::from(sum),
            Err(_) if by.is_negative() => Self::MIN,
            Err(_) => Self::MAX,
        }
    }

    /// Returns this time moved back by `by`; saturates at the ends of the calendar.
    #[must_use]
    pub fn minus(self, by: SignedDuration) -> Self {
        self.plus(-by)
    }

    /// Returns the duration from `earlier` to this time; negative if `earlier` is the later one.
    pub fn since(self, earlier: Self) -> SignedDuration {
        SignedDuration::from_micros(self.as_micros().saturating_sub(earlier.as_micros()))
    }

    /// Returns the whole second at or before this time.
    #[must_use]
    pub fn floor_second(self) -> Self {
        Self::from_micros(self.as_micros().div_euclid(1_000_000) * 1_000_000)
    }

    /// Returns the whole second at or after this time.
    #[must_use]
    pub fn ceil_second(self) -> Self {
        let floor = self.floor_second();
        if floor == self { floor } else { floor.plus(SignedDuration::from_secs(1)) }
    }

    /// Returns this time as a `jiff` timestamp.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_microsecond(self.as_micros()).expect("it is within the calendar")
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
        self.timestamp().fmt(f)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timestamp().fmt(f)
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

    // The API server's `format: date-time` accepts more than RFC 3339 (any number of fraction digits, any offset). For what it refuses, the
    // API server would not evaluate the rule, which has the message for people. The rule parses the time, so that the date must exist.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": bound(MAX_LENGTH),
            "pattern": PATTERN,
            "x-kubernetes-validations": [{
                "rule": format!(
                    "size(self) <= {MAX_LENGTH} && self.matches(r'{PATTERN}') && timestamp(self).getFullYear() > 0"
                ),
                "message": WORDS,
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing_keeps_microseconds_and_drops_finer_digits() {
        let time: Time = "2026-01-02T03:04:05.123456789+02:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-02T01:04:05.123456Z");
    }

    #[test]
    fn the_calendar_ends_where_jiffs_does() {
        assert_eq!((Time::MIN, Time::MAX), (Timestamp::MIN.into(), Timestamp::MAX.into()));
        assert_eq!(Time::MAX.timestamp().as_second(), Timestamp::MAX.as_second());
        assert_eq!(Time::from_micros(0).timestamp(), Timestamp::UNIX_EPOCH);
        assert!(Time::MIN < Time::from_micros(-1) && Time::from_micros(-1) < Time::from_micros(0));
        assert_eq!(Time::from_micros(-1).as_micros(), -1);
        assert_eq!(size_of::<Option<Time>>(), 8);
    }

    #[test]
    fn arithmetic_saturates_without_panicking() {
        let far = Time::from_micros(i64::MAX);
        assert_eq!((far, Time::from_micros(i64::MIN)), (Time::MAX, Time::MIN));
        assert!(far.since(Time::MIN).is_positive());
        assert_eq!(far.plus(SignedDuration::MAX), far);
        assert_eq!(Time::MIN.minus(SignedDuration::MAX), Time::MIN);
    }
}
