//! What the answers of several systems have in common.

use std::time::SystemTime;

use k8s_openapi::jiff::{Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{CallError, RemoteToken};
use crate::api::Time;

/// Reads an optional time: RFC 3339, or without a zone, which is UTC, or a date, which is its first instant. A year past the calendar means
/// never: SailPoint and TrueFoundry have `9999-12-31T23:59:59.999Z` for it.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let Some(text) = text.as_deref().filter(|text| !text.is_empty() && !text.starts_with("9999-12-31")) else {
        return Ok(None);
    };
    parse(text).map(Some).ok_or_else(|| D::Error::custom("not a time"))
}

fn parse(text: &str) -> Option<Time> {
    let utc = |time: civil::DateTime| time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let timestamp = text.parse::<Timestamp>().ok();
    timestamp.or_else(|| text.parse().ok().and_then(utc)).map(Time::from)
}

/// Returns the time of this computer.
pub(super) fn now() -> Time {
    Timestamp::try_from(SystemTime::now()).map_or(Time::MIN, Time::from)
}

/// Finds the token that a create has just made, for systems that do not answer with its id. Any error means that the token exists and nobody
/// knows its id.
pub(super) fn created<'a>(
    name: &str,
    listed: &'a Result<Vec<RemoteToken>, CallError>,
) -> Result<&'a RemoteToken, CallError> {
    let unknown = |reason: String| CallError::Unavailable { reason, message: String::new() };
    match listed {
        Ok(tokens) => tokens
            .iter()
            .find(|token| token.name == name)
            .ok_or_else(|| unknown("the token was created, but is not in the list".to_owned())),
        Err(error) => Err(unknown(format!("the token was created, but its id cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_of_all_systems_are_read() {
        for (text, expected) in [
            (json!("2026-01-02T03:04:05Z"), Some("2026-01-02T03:04:05Z")),
            (json!("2026-01-02T03:04:05.678+02:00"), Some("2026-01-02T01:04:05.678Z")),
            (json!("2026-01-02T03:04:05.678"), Some("2026-01-02T03:04:05.678Z")),
            (json!("2026-01-02"), Some("2026-01-02T00:00:00Z")),
            (json!("9999-12-31T23:59:59.999Z"), None),
            (json!(null), None),
            (json!(""), None),
        ] {
            let read = time(text.clone()).unwrap();
            assert_eq!(read.map(|time| time.to_string()).as_deref(), expected, "{text}");
        }
        assert!(time(json!("tomorrow")).is_err() && time(json!(1)).is_err());
    }
}
