//! What the answers of several systems have in common.

use std::{collections::BTreeMap, time::SystemTime};

use k8s_openapi::jiff::{Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{CallError, RemoteToken, client::Answer};
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

/// The same for a field that other people fill with free text: anything else than a time is none.
pub(super) fn lenient_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.as_deref().filter(|text| !text.starts_with("9999-12-31")).and_then(parse))
}

/// Returns the date of a time, in UTC.
pub(super) fn date(time: Time) -> String {
    TimeZone::UTC.to_datetime(time.timestamp()).date().to_string()
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

/// Returns the version of a server as far as it has the usual characters: it is shown in a status.
pub(super) fn version(text: &str) -> String {
    let is_usual = |one: &char| one.is_ascii_alphanumeric() || matches!(one, '.' | '-' | '+' | '_');
    text.chars().filter(is_usual).take(64).collect()
}

/// How often a list is read that changes meanwhile.
const ATTEMPTS: usize = 3;

/// Reads a list again if it changed meanwhile. `read` gets the number of attempts before.
///
/// # Errors
/// The error of the last attempt.
pub(super) async fn read_again<F, T>(read: impl Fn(usize) -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    for attempt in 0..ATTEMPTS - 1 {
        match read(attempt).await {
            Err(CallError::ListChanged) => {}
            other => return other,
        }
    }
    read(ATTEMPTS - 1).await
}

/// The maximum number of pages of a list, and of the bytes on them: a server that is wrong could send pages without end.
const MAX_PAGES: usize = 1_000;
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The pages of a list that were read so far.
#[derive(Default)]
pub(super) struct PageCount {
    pages: usize,
    bytes: usize,
}

impl PageCount {
    /// Counts a page.
    ///
    /// # Errors
    /// There are too many, or they are too large.
    pub(super) fn add(&mut self, page: &Answer) -> Result<(), CallError> {
        self.add_bytes(page.size())
    }

    fn add_bytes(&mut self, bytes: usize) -> Result<(), CallError> {
        (self.pages, self.bytes) = (self.pages + 1, self.bytes + bytes);
        if self.pages > MAX_PAGES {
            return Err(CallError::Malformed { problem: format!("the list has more than {MAX_PAGES} pages") });
        }
        if self.bytes > MAX_BYTES {
            return Err(CallError::Malformed { problem: format!("the list has more than {MAX_BYTES} bytes") });
        }
        Ok(())
    }
}

/// The tokens of several pages whose server tells the number of all. A deleted token moves those after it to an earlier page, so that one of
/// them is on no page that is read. Then fewer are found than there are.
#[derive(Default)]
pub(super) struct Collected {
    tokens: BTreeMap<String, RemoteToken>,
    total: Option<usize>,
    pages: usize,
}

impl Collected {
    /// Adds a page, with the number of all tokens if the server tells it. Returns whether there is something new on it.
    ///
    /// # Errors
    /// The number is another one than before.
    pub(super) fn add(
        &mut self,
        page: impl IntoIterator<Item = RemoteToken>,
        total: Option<usize>,
    ) -> Result<bool, CallError> {
        if self.pages > 0 && total != self.total {
            return Err(CallError::ListChanged);
        }
        (self.pages, self.total) = (self.pages + 1, total);
        let known = self.tokens.len();
        self.tokens.extend(page.into_iter().map(|token| (token.id.clone(), token)));
        Ok(self.tokens.len() > known)
    }

    /// Whether all tokens were found.
    pub(super) fn is_complete(&self) -> bool {
        self.total.is_some_and(|total| self.tokens.len() >= total)
    }

    /// Returns the tokens.
    ///
    /// # Errors
    /// Some are missing.
    pub(super) fn finish(self) -> Result<Vec<RemoteToken>, CallError> {
        if self.total.is_some_and(|total| total != self.tokens.len()) {
            return Err(CallError::ListChanged);
        }
        Ok(self.tokens.into_values().collect())
    }
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
    #[test]
    fn free_text_is_no_time() {
        assert_eq!(lenient_time(json!("tomorrow")).unwrap(), None);
        assert_eq!(lenient_time(json!("2025-08-01T12:00")).unwrap().unwrap().to_string(), "2025-08-01T12:00:00Z");
    }

    #[test]
    fn a_version_has_only_usual_characters() {
        assert_eq!(version("1.26.0+rc-1\n<script>"), "1.26.0+rc-1script");
    }

    fn token(id: u32) -> RemoteToken {
        RemoteToken { id: id.to_string(), name: String::new(), live: true, expires_at: None, last_used_at: None }
    }

    #[test]
    fn a_list_is_complete_if_all_tokens_were_found() {
        let pages = |pages: &[(&[u32], Option<usize>)]| {
            let mut found = Collected::default();
            for (ids, total) in pages {
                found.add(ids.iter().copied().map(token), *total)?;
            }
            found.finish().map(|tokens| tokens.len())
        };
        assert_eq!(pages(&[(&[1, 2], Some(3)), (&[3], Some(3))]), Ok(3));
        assert_eq!(pages(&[(&[1, 2], None), (&[3], None)]), Ok(3));
        assert_eq!(pages(&[(&[1, 2], Some(4)), (&[4], Some(3))]), Err(CallError::ListChanged), "1 was deleted");
        assert_eq!(pages(&[(&[1, 2], Some(3)), (&[2], Some(3))]), Err(CallError::ListChanged), "3 is on no page");
    }

    #[test]
    fn a_list_has_a_maximum_size() {
        let mut many = PageCount::default();
        assert!((0..MAX_PAGES).all(|_| many.add_bytes(2).is_ok()));
        assert!(many.add_bytes(2).unwrap_err().to_string().ends_with("more than 1000 pages"));
        let mut large = PageCount::default();
        assert!(large.add_bytes(MAX_BYTES).is_ok());
        assert!(large.add_bytes(1).unwrap_err().to_string().ends_with("more than 33554432 bytes"));
    }

    #[tokio::test]
    async fn a_changed_list_is_read_three_times() {
        let count = std::cell::Cell::new(0);
        let read = |attempt| {
            assert_eq!(attempt, count.replace(count.get() + 1));
            std::future::ready(Err::<(), _>(CallError::ListChanged))
        };
        assert_eq!((read_again(read).await, count.get()), (Err(CallError::ListChanged), 3));
        assert_eq!(read_again(|_| std::future::ready(Ok(7))).await, Ok(7));
    }
}
