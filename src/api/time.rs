//! A point in time as it stands in the resource: RFC 3339, UTC, microseconds.
//!
//! It must not read a clock: the present is always an argument.

use std::{borrow::Cow, fmt, num::NonZero, str::FromStr};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// RFC 3339 with capital letters. Not every year: the calendars of those who read it end in different years, the first of
/// them (jiff's) during 9999.
const PATTERN: &str =
    r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// What [`PATTERN`] says, in words.
const WORDS: &str = "a date, a time and Z or an offset, in the years 1000 to 2999, such as 2030-12-31T23:59:59Z";

/// The sign bit of a number of microseconds.
const SIGN: u64 = 1 << 63;

/// The longest text that can be a time.
const MAX_LENGTH: usize = 35;

/// A point in time with microseconds, the resolution of Kubernetes' `MicroTime`. Finer digits are cut off on the way in.
///
/// Always within jiff's calendar, and half its size, also as an `Option`: an index keeps many.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(NonZero<u64>);

impl Time {
    /// The earliest time there is; older than any credential.
    pub const MIN: Self = Self::of(-377_705_023_201_000_000);

    /// The latest time there is: the last one that jiff makes of microseconds.
    const MAX: Self = Self::of(253_402_207_200_000_000);

    /// Microseconds since the Unix epoch, moved up by half of all numbers: in the same order, and never zero within the calendar.
    const fn of(micros: i64) -> Self {
        match NonZero::new(micros.cast_unsigned() ^ SIGN) {
            Some(moved) => Self(moved),
            // Only for what is long before the calendar begins.
            None => Self(NonZero::<u64>::MIN),
        }
    }

    /// The time `micros` microseconds after the Unix epoch; saturates at the years −9999 and 9999.
    pub fn from_micros(micros: i64) -> Self {
        Self::of(micros).clamp(Self::MIN, Self::MAX)
    }

    /// Microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        (self.0.get() ^ SIGN).cast_signed()
    }

    /// This time moved by `by`; saturates at the ends of the calendar.
    #[must_use]
    pub fn plus(self, by: SignedDuration) -> Self {
        match self.timestamp().checked_add(by) {
            Ok(sum) => Self::from(sum),
            Err(_) if by.is_negative() => Self::MIN,
            Err(_) => Self::MAX,
        }
    }

    /// This time moved back by `by`; saturates at the ends of the calendar.
    #[must_use]
    pub fn minus(self, by: SignedDuration) -> Self {
        self.plus(-by)
    }

    /// How long it is from `earlier` to this time; negative if this time is the earlier one.
    pub fn since(self, earlier: Self) -> SignedDuration {
        SignedDuration::from_micros(self.as_micros().saturating_sub(earlier.as_micros()))
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
    fn the_calendar_ends_where_jiff_s_does() {
        assert_eq!((Time::MIN, Time::MAX), (Timestamp::MIN.into(), Timestamp::MAX.into()));
        assert_eq!(Time::MAX.timestamp().as_second(), Timestamp::MAX.as_second());
        assert_eq!(Time::from_micros(0).timestamp(), Timestamp::UNIX_EPOCH);
        assert!(Time::MIN < Time::from_micros(-1) && Time::from_micros(-1) < Time::from_micros(0));
        assert_eq!(Time::from_micros(-1).as_micros(), -1);
        assert_eq!(size_of::<Option<Time>>(), 8);
    }

    #[test]
    fn the_words_in_the_schema_are_too_long_to_be_a_value() {
        assert!(WORDS.len() > MAX_LENGTH);
    }

    #[test]
    fn arithmetic_saturates_instead_of_panicking() {
        let far = Time::from_micros(i64::MAX);
        assert_eq!((far, Time::from_micros(i64::MIN)), (Time::MAX, Time::MIN));
        assert!(far.since(Time::MIN).is_positive());
        assert_eq!(far.plus(SignedDuration::MAX), far);
        assert_eq!(Time::MIN.minus(SignedDuration::MAX), Time::MIN);
    }
}
