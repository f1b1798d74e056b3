//! Timestamps as clients of all dialects send them and as responses show them.
//!
//! Parsing is stricter than jiff's (no week dates, no zone names) and wider than RFC 3339: a time without a zone is UTC, and a date is its
//! first instant.

use k8s_openapi::jiff::{SignedDuration, civil::DateTime, tz::TimeZone};

use crate::api::Time;

/// The expiry that the products show for a token that never expires. It is later than any jiff timestamp.
pub const NEVER: &str = "9999-12-31T23:59:59.999Z";

/// An expiry from this time on means never: the start of the last year with four digits.
const FOREVER: i64 = 253_370_764_800_000_000;

/// The error for anything else.
pub const EXPECTED: &str = "must be a timestamp such as 2030-12-31T23:59:59Z, 2030-12-31T23:59 (UTC) or 2030-12-31";

/// Text that is not a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{EXPECTED}")]
pub struct InvalidTimestamp;

/// Parses a timestamp: `2030-01-01`, `2025-08-01T12:00`, `2023-02-05T10:59:27.214Z`, `2023-02-05 10:59:27+01:00`. Later ones than jiff
/// supports, such as [`NEVER`], become the last one; see [`is_never`].
pub fn parse(text: &str) -> Result<Time, InvalidTimestamp> {
    let (local, zone) = text.split_at(zone_of(text).ok_or(InvalidTimestamp)?);
    let local: DateTime = local.to_ascii_uppercase().parse().map_err(|_| InvalidTimestamp)?;
    Ok(in_utc(local).minus(offset(zone).ok_or(InvalidTimestamp)?))
}

/// Returns the offset of a zone from UTC: `+dd:dd`, or zero for none and `Z`.
fn offset(zone: &str) -> Option<SignedDuration> {
    let Some((hours, minutes)) = zone.split_once(':') else { return Some(SignedDuration::ZERO) };
    let (sign, hours) = hours.split_at_checked(1)?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let ahead = SignedDuration::from_mins(hours * 60 + minutes);
    (hours < 24 && minutes < 60).then_some(if sign == "-" { -ahead } else { ahead })
}

/// Converts to UTC. Times beyond jiff's range become the last one.
fn in_utc(time: DateTime) -> Time {
    time.to_zoned(TimeZone::UTC).map_or(Time::from_micros(i64::MAX), |zoned| Time::from(zoned.timestamp()))
}

/// Returns the position of the zone, or the end of the text, if it has the form of a timestamp.
fn zone_of(text: &str) -> Option<usize> {
    const DATE: &str = "dddd-dd-dd";
    const MINUTES: &str = "Tdd:dd";
    const SECONDS: &str = ":dd";
    const OFFSET: &str = "+dd:dd";
    let mut rest = strip(text, DATE)?;
    if rest.is_empty() {
        return Some(text.len());
    }
    rest = strip(rest, MINUTES)?;
    if let Some(after) = strip(rest, SECONDS) {
        rest = after;
        if let Some(fraction) = rest.strip_prefix('.') {
            let digits = fraction.len() - fraction.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if !(1..=9).contains(&digits) {
                return None;
            }
            rest = &fraction[digits..];
        }
    }
    let is_zone = rest.is_empty() || rest.eq_ignore_ascii_case("z") || strip(rest, OFFSET) == Some("");
    is_zone.then(|| text.len() - rest.len())
}

/// Strips a prefix of this form: `d` is any digit, `T` also `t` or a space, `+` also `-`.
fn strip<'a>(text: &'a str, form: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(form.len())?;
    let fits = |(byte, form): (u8, u8)| match form {
        b'd' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        b'+' => matches!(byte, b'+' | b'-'),
        _ => byte == form,
    };
    start.bytes().zip(form.bytes()).all(fits).then_some(rest)
}

/// Whether an expiry at this time means that the token never expires.
pub fn is_never(time: Time) -> bool {
    time.as_micros() >= FOREVER
}

/// Formats a time with milliseconds, such as `2023-02-05T10:59:27.214Z`.
pub fn millis(time: Time) -> String {
    format!("{:.3}", time.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn time_without_a_zone_is_utc_and_date_is_its_first_instant() {
        for (text, time) in [
            ("2030-01-01", "2030-01-01T00:00:00Z"),
            ("2025-08-01T12:00", "2025-08-01T12:00:00Z"),
            ("2025-08-01 12:00", "2025-08-01T12:00:00Z"),
            ("2025-08-01T12:00Z", "2025-08-01T12:00:00Z"),
            ("2025-08-01T12:00:01", "2025-08-01T12:00:01Z"),
            ("2025-08-01t12:00:01.5z", "2025-08-01T12:00:01.5Z"),
            ("2023-02-05T10:59:27.214Z", "2023-02-05T10:59:27.214Z"),
            ("2023-02-05T10:59:27.214123+00:00", "2023-02-05T10:59:27.214123Z"),
            ("2023-02-05T10:59:27-01:30", "2023-02-05T12:29:27Z"),
            ("2023-02-05T10:59:27.1234567Z", "2023-02-05T10:59:27.123456Z"),
            ("2024-02-29", "2024-02-29T00:00:00Z"),
        ] {
            assert_eq!(parse(text), Ok(time.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn malformed_timestamps_are_refused() {
        for text in [
            "",
            "now",
            "0",
            "1675594767",
            "2030",
            "2030-01",
            "2030-1-1",
            "20300101",
            "2030-01-01Z",
            "2030-01-01+01:00",
            "2030-01-01T",
            "2030-01-01T12",
            "2030-01-01T12:00:00.",
            "2030-01-01T12:00:00.1234567890Z",
            "2030-01-01T12:00:00+01",
            "2030-01-01T12:00:00+0100",
            "2030-01-01T12:00:00 Z",
            "2030-01-01T12:00:00Z[UTC]",
            "2030-01-01T12:00:00Z ",
            " 2030-01-01",
            "2030-01-01T24:00:00Z",
            "2030-01-01T12:00:00+24:00",
            "2030-01-01T12:00:00+01:60",
            "2023-02-29",
            "2030-13-01",
            "2030-W01-1",
            "+002030-01-01",
            "٢٠٣٠-٠١-٠١",
        ] {
            assert_eq!(parse(text), Err(InvalidTimestamp), "{text}");
        }
    }

    #[test]
    fn last_year_means_never_and_can_be_parsed() {
        for text in [NEVER, "9999-12-31", "9999-12-31T23:59:59.999+00:00", "9999-12-31T23:59:59"] {
            assert!(is_never(parse(text).unwrap()), "{text}");
        }
        assert!(is_never(parse("9999-01-01").unwrap()));
        assert!(!is_never(parse("9998-12-31T23:59:59.999999Z").unwrap()));
    }

    #[test]
    fn timestamps_are_formatted_with_milliseconds() {
        assert_eq!(millis("2023-02-05T10:59:27.214999Z".parse().unwrap()), "2023-02-05T10:59:27.214Z");
        assert_eq!(millis("2023-02-05T10:59:27Z".parse().unwrap()), "2023-02-05T10:59:27.000Z");
    }

    proptest! {
        #[test]
        fn formatted_timestamp_is_parsed_to_the_millisecond(micros in 0..FOREVER) {
            let time = Time::from_micros(micros);
            prop_assert_eq!(parse(&millis(time)), Ok(Time::from_micros(micros / 1_000 * 1_000)));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "[0-9TZ:+. -]{0,40}|.{0,40}") {
            let _ = parse(&text);
        }
    }
}
