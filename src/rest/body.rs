//! Request bodies: checked for their media type, read within 64 KiB and ten seconds, and zeroed afterwards.
//!
//! axum's `Json` and `Form` extractors have error bodies of their own, quote the request in them, and leave copies of a token in
//! memory.

use std::{
    collections::HashSet,
    fmt,
    ops::RangeInclusive,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{error::RestError, timestamp};
use crate::{
    api::{Expiry, Time},
    service::http::{
        MemoryBudget,
        body::{self, BodyError, MAX_BODY, RequestBody},
    },
};

/// When to retry if the memory budget is exhausted: other bodies are read in moments.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The memory budget of all requests of the process.
static MEMORY: LazyLock<Arc<MemoryBudget>> = LazyLock::new(Arc::default);

/// Why a body cannot be used. The messages are for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBody {
    /// Its media type is another one or missing.
    #[error("Content-Type must be {0}")]
    MediaType(&'static str),
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(BodyError),
}

impl InvalidBody {
    /// Returns the HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unreadable(error) => error.status(),
        }
    }

    /// Returns when to retry, if that may help.
    pub fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::Unreadable(BodyError::NoMemory(_))).then_some(RETRY_AFTER)
    }
}

/// The maximum size in bytes.
pub const LIMIT: usize = MAX_BODY;

/// Reads a body with one of these media types, such as `application/json`. The error names the first of them. Parameters such as
/// `charset=utf-8` are ignored.
pub async fn read(headers: &HeaderMap, body: Body, types: &'static [&'static str]) -> Result<RequestBody, InvalidBody> {
    let given = media_type(headers);
    if !types.iter().any(|one| given.is_some_and(|given| given.eq_ignore_ascii_case(one))) {
        return Err(InvalidBody::MediaType(types.first().copied().unwrap_or_default()));
    }
    body::read(body, &MEMORY).await.map_err(InvalidBody::Unreadable)
}

/// Reads a JSON body.
pub async fn json(headers: &HeaderMap, body: Body) -> Result<RequestBody, InvalidBody> {
    read(headers, body, &["application/json"]).await
}

/// Parses a JSON object.
pub fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, RestError> {
    const SHAPE: &str = "a JSON object";
    // serde also accepts a list of the fields in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(not_of_shape(SHAPE));
    }
    parse(body, SHAPE)
}

/// Parses JSON; `shape` is what the body must be. A field that is set more than once is an error, whether it is known or not. The error
/// names only a known one: an unknown field and other messages of serde could quote a secret.
pub fn parse<T: DeserializeOwned>(body: &[u8], shape: &str) -> Result<T, RestError> {
    const DUPLICATE: &str = "must not be set more than once";
    let parsed = serde_json::from_slice(body).map_err(|error| {
        if !error.is_data() {
            return invalid_json(&error);
        }
        match error.to_string().strip_prefix("duplicate field `").and_then(|rest| rest.split_once('`')) {
            Some((field, _)) => RestError::invalid(field, DUPLICATE),
            None => not_of_shape(shape),
        }
    })?;
    match serde_json::from_slice::<UniqueFields>(body) {
        Ok(UniqueFields) => Ok(parsed),
        Err(error) if error.is_data() => Err(RestError::invalid("body", format!("a field {DUPLICATE}"))),
        Err(error) => Err(invalid_json(&error)),
    }
}

fn not_of_shape(shape: &str) -> RestError {
    RestError::invalid("body", format!("must be {shape}"))
}

fn invalid_json(error: &serde_json::Error) -> RestError {
    RestError::invalid("body", format!("invalid JSON at line {}, column {}", error.line(), error.column()))
}

/// Any JSON in which no object has a field more than once. serde itself detects only duplicates of known fields.
struct UniqueFields;

impl<'de> Deserialize<'de> for UniqueFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueFieldsVisitor)
    }
}

struct UniqueFieldsVisitor;

impl<'de> Visitor<'de> for UniqueFieldsVisitor {
    type Value = UniqueFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<UniqueFields, E> {
        Ok(UniqueFields)
    }

    fn visit_i64<E>(self, _: i64) -> Result<UniqueFields, E> {
        Ok(UniqueFields)
    }

    fn visit_u64<E>(self, _: u64) -> Result<UniqueFields, E> {
        Ok(UniqueFields)
    }

    fn visit_f64<E>(self, _: f64) -> Result<UniqueFields, E> {
        Ok(UniqueFields)
    }

    fn visit_str<E>(self, _: &str) -> Result<UniqueFields, E> {
        Ok(UniqueFields)
    }

    fn visit_unit<E>(self) -> Result<UniqueFields, E> {
        Ok(UniqueFields)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<UniqueFields, A::Error> {
        while items.next_element::<UniqueFields>()?.is_some() {}
        Ok(UniqueFields)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<UniqueFields, A::Error> {
        let mut seen = HashSet::new();
        while let Some((field, UniqueFields)) = fields.next_entry::<String, UniqueFields>()? {
            if !seen.insert(field) {
                return Err(de::Error::custom("duplicate field"));
            }
        }
        Ok(UniqueFields)
    }
}

/// Parses an expiry; none means never.
pub fn expiry(field: &str, value: Option<Value>, now: Time) -> Result<Expiry, RestError> {
    let at = match value {
        None => None,
        Some(Value::String(text)) => {
            Some(timestamp::parse(&text).map_err(|error| RestError::invalid(field, error.to_string()))?)
        }
        Some(_) => return Err(RestError::invalid(field, "must be a string or null")),
    };
    match at.filter(|at| !timestamp::is_never(*at)) {
        None => Ok(Expiry { never: Some(true), ..Expiry::default() }),
        Some(at) if at > now => Ok(Expiry { at: Some(at), ..Expiry::default() }),
        Some(_) => Err(RestError::invalid(field, "must be in the future")),
    }
}

/// Parses a number in a query string within these bounds.
pub fn number(field: &str, text: &str, bounds: RangeInclusive<usize>) -> Result<usize, RestError> {
    // `parse` accepts a leading plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && bounds.contains(number));
    let problem = || format!("must be a whole number from {} to {}", bounds.start(), bounds.end());
    number.ok_or_else(|| RestError::invalid(field, problem()))
}

/// Returns the media type of a body without parameters; `None` if there is none, or more than one.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    Some(value.to_str().ok()?.split(';').next()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_single_supported_media_type_is_accepted() {
        const JSON: &[&str] = &["application/json", "application/json-patch+json"];
        let headers = |types: &[&str]| types.iter().map(|one| (header::CONTENT_TYPE, one.parse().unwrap())).collect();
        for (types, accepted) in [
            (&["application/json"][..], true),
            (&["Application/JSON; charset=utf-8"], true),
            (&["application/json-patch+json"], true),
            (&["text/plain"], false),
            (&["application/jsonx"], false),
            (&[], false),
            (&["application/json", "application/json"], false),
        ] {
            let read = read(&headers(types), Body::from("{}"), JSON).await;
            assert_eq!(read.is_ok(), accepted, "{types:?}");
            if let Err(error) = read {
                let expected = (415, "Content-Type must be application/json");
                assert_eq!((error.status().as_u16(), &*error.to_string()), expected);
            }
        }
        let long = read(&headers(&["application/json"]), Body::from(vec![b' '; LIMIT + 1]), JSON).await;
        assert_eq!(long.unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
