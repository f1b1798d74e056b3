//! Reads the body of a request: of the right media type, within 64 KiB and ten seconds, and wiped afterwards.
//!
//! It must not know what is in it, nor how a dialect tells what is wrong.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::service::http::{
    Budget,
    body::{self, BodyError, MAX_BODY, Whole},
};

/// A body is read in moments: then there is room again.
const COME_BACK: Duration = Duration::from_secs(1);

/// What all requests of the process share.
static MEMORY: LazyLock<Arc<Budget>> = LazyLock::new(Arc::default);

/// Why a body cannot be had. The texts are for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// It is of another media type, or says nothing of it.
    #[error("Content-Type must be {0}")]
    MediaType(&'static str),
    /// It is too large, too slow, or breaks off.
    #[error("{0}")]
    Unreadable(BodyError),
}

impl BadBody {
    /// The status that says so.
    pub fn status(self) -> StatusCode {
        match self {
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unreadable(error) => error.status(),
        }
    }

    /// When to come back, if that would help.
    pub fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::Unreadable(BodyError::NoRoom(_))).then_some(COME_BACK)
    }
}

/// The most bytes that are read.
pub const LIMIT: usize = MAX_BODY;

/// Reads a body of one of these media types, such as `application/json`; the first of them is named in the refusal. Parameters like
/// `charset=utf-8` are passed over.
///
/// # Errors
/// See [`BadBody`].
pub async fn read(headers: &HeaderMap, body: Body, types: &'static [&'static str]) -> Result<Whole, BadBody> {
    let given = media_type(headers);
    if !types.iter().any(|one| given.is_some_and(|given| given.eq_ignore_ascii_case(one))) {
        return Err(BadBody::MediaType(types.first().copied().unwrap_or_default()));
    }
    body::read(body, &MEMORY).await.map_err(BadBody::Unreadable)
}

/// Reads a body of JSON.
///
/// # Errors
/// See [`BadBody`].
pub async fn json(headers: &HeaderMap, body: Body) -> Result<Whole, BadBody> {
    read(headers, body, &["application/json"]).await
}

/// The fields of a JSON object. Only where a known one is given twice do the words tell which: others of serde could quote what was sent.
///
/// # Errors
/// `Invalid`.
pub fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let not_object = || Failure::invalid("body", "must be a JSON object");
    // serde takes a list for the fields in their order, too.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(not_object());
    }
    serde_json::from_slice(body).map_err(|error| {
        let words = error.to_string();
        if error.is_syntax() || error.is_eof() {
            return Failure::invalid("body", format!("is not JSON: line {}, column {}", error.line(), error.column()));
        }
        match words.strip_prefix("duplicate field `").and_then(|rest| rest.split_once('`')) {
            Some((field, _)) => Failure::invalid(field, "is given more than once"),
            None => not_object(),
        }
    })
}

/// The media type of a request's body, without parameters; `None` if there is none, or more than one.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    Some(value.to_str().ok()?.split(';').next()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(types: &[&str]) -> HeaderMap {
        types.iter().map(|one| (header::CONTENT_TYPE, one.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn only_the_media_type_that_is_asked_for_is_read_and_only_if_it_is_given_once() {
        const JSON: &[&str] = &["application/json", "application/json-patch+json"];
        for (types, taken) in [
            (&["application/json"][..], true),
            (&["Application/JSON; charset=utf-8"], true),
            (&["application/json-patch+json"], true),
            (&["text/plain"], false),
            (&["application/jsonx"], false),
            (&[], false),
            (&["application/json", "application/json"], false),
        ] {
            let read = read(&headers(types), Body::from("{}"), JSON).await;
            assert_eq!(read.is_ok(), taken, "{types:?}");
            if let Err(error) = read {
                assert_eq!(
                    (error.status().as_u16(), error.to_string().as_str()),
                    (415, "Content-Type must be application/json")
                );
            }
        }
        let long = read(&headers(&["application/json"]), Body::from(vec![b' '; LIMIT + 1]), JSON).await;
        assert_eq!(long.unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
