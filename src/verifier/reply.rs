//! How every answer of the verifier is written, and how a body is read.
//!
//! All answers come from here, so that none is ever stored by a cache on the way or guessed at by a browser. It must not know
//! what is answered.

use std::{ops::Deref, sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use futures::StreamExt;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{challenge::Challenge, demand::InvalidRequirements, identity::NAMES, outcome::Outcome};
use crate::runtime::http::{Budget, NoRoom, Share};

/// The largest body that is read. A token has 77 bytes; a ServiceAccount's, some thousand.
pub const MAX_BODY: usize = 64 * 1024;

/// How long a body may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// An answer that a person reads.
pub fn text(status: StatusCode, words: impl Into<Body>) -> Response {
    with_type(status, "text/plain; charset=utf-8", words.into())
}

/// An answer that a program reads.
pub fn json(status: StatusCode, content: &impl Serialize) -> Response {
    match serde_json::to_vec(content) {
        Ok(bytes) => with_type(status, "application/json", bytes.into()),
        // Only a map with keys that are no text fails, and there is none.
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written\n"),
    }
}

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // Room for those of an allow as well: a map that grows is filled anew.
    headers.reserve(3 + NAMES.len());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// 405 and what would be allowed.
pub fn wrong_method(allowed: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed} is answered here\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Whether the method is one of `allowed`, written as `Allow` has it.
pub fn is_allowed(method: &Method, allowed: &str) -> bool {
    allowed.split(", ").any(|one| one == method.as_str())
}

/// Says when to try again, to whoever was refused for want of room.
#[must_use]
pub fn try_again(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Adds a challenge to an answer.
#[must_use]
pub fn challenged(mut response: Response, challenge: &Challenge) -> Response {
    if let Ok(value) = HeaderValue::try_from(challenge.header()) {
        response.headers_mut().append(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// Writes the answer to a proxy. `refused` and `unavailable` are the statuses that this proxy takes for them.
pub fn to_proxy(
    outcome: &Outcome,
    refused: impl FnOnce(&Challenge) -> StatusCode,
    unavailable: StatusCode,
) -> Response {
    match outcome {
        Outcome::Allow(identity) => {
            let mut response = text(StatusCode::OK, Body::empty());
            for (name, value) in identity.headers() {
                match HeaderValue::from_str(value) {
                    Ok(value) => response.headers_mut().insert(HeaderName::from_static(name), value),
                    // An allow without one of them would let the client's own through.
                    Err(_) => return text(StatusCode::FORBIDDEN, Outcome::Unprintable.words()),
                };
            }
            response
        }
        Outcome::Challenge(challenge) => challenged(text(refused(challenge), challenge.words()), challenge),
        Outcome::Alias | Outcome::Unprintable => text(StatusCode::FORBIDDEN, outcome.words()),
        Outcome::Unavailable(_) => text(unavailable, outcome.words()),
    }
}

/// Tells whoever set up a proxy what is wrong with it.
pub fn misconfigured(error: &InvalidRequirements) -> Response {
    text(StatusCode::FORBIDDEN, format!("this check is set up wrongly: {error}\n"))
}

/// Names and values of headers as they came, for what is shared with gRPC.
pub fn plain(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Why a body cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than [`MAX_BODY`].
    #[error("the body is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// It did not come in time.
    #[error("the body did not come in time")]
    TooSlow,
    /// The connection broke.
    #[error("the body ended early")]
    Broken,
    /// There is no room for it at the moment.
    #[error(transparent)]
    NoRoom(NoRoom),
}

impl BodyError {
    /// The status that says so.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A body, which holds a token: it is wiped on drop, and then its room is given back.
#[derive(Debug)]
pub struct Whole {
    bytes: Zeroizing<Vec<u8>>,
    share: Share,
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Whole {
    fn new(memory: &Arc<Budget>, capacity: usize) -> Result<Self, BodyError> {
        let mut share = memory.share();
        share.take(capacity).map_err(BodyError::NoRoom)?;
        Ok(Self { bytes: Zeroizing::new(Vec::with_capacity(capacity)), share })
    }

    fn push(&mut self, part: &[u8]) -> Result<(), BodyError> {
        let length = self.bytes.len() + part.len();
        if length > MAX_BODY {
            return Err(BodyError::TooLarge);
        }
        let capacity = self.bytes.capacity();
        if capacity < length {
            let larger = length.max(2 * capacity).min(MAX_BODY);
            self.share.take(larger - capacity).map_err(BodyError::NoRoom)?;
            // Not by growing, which would leave a copy behind.
            let mut bytes = Zeroizing::new(Vec::with_capacity(larger));
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }
}

/// Reads a body, within the memory that all of them share.
///
/// # Errors
/// When it is too large, too slow, or breaks off, or there is no room.
pub async fn body(body: Body, memory: &Arc<Budget>) -> Result<Whole, BodyError> {
    tokio::time::timeout(BODY_WITHIN, collect(body, memory)).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(body: Body, memory: &Arc<Budget>) -> Result<Whole, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_BODY {
        return Err(BodyError::TooLarge);
    }
    let mut whole = Whole::new(memory, announced)?;
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        whole.push(&part.map_err(|_| BodyError::Broken)?)?;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures::stream;

    use super::*;

    fn parts(count: usize, size: usize) -> Body {
        Body::from_stream(stream::iter((0..count).map(move |_| Ok::<_, std::io::Error>(Bytes::from(vec![7; size])))))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_whether_its_length_is_announced_or_not() {
        let memory = Arc::new(Budget::default());
        let all = memory.left();
        assert!(body(Body::empty(), &memory).await.unwrap().is_empty());
        assert_eq!(body(Body::from(vec![7; MAX_BODY]), &memory).await.unwrap().len(), MAX_BODY);
        assert_eq!(body(Body::from(vec![7; MAX_BODY + 1]), &memory).await.unwrap_err(), BodyError::TooLarge);
        assert_eq!(*body(parts(64, 1024), &memory).await.unwrap(), *vec![7; MAX_BODY]);
        assert_eq!(body(parts(65, 1024), &memory).await.unwrap_err(), BodyError::TooLarge);
        let broken = stream::iter([Ok(Bytes::from("a")), Err(std::io::Error::other("cut off"))]);
        assert_eq!(body(Body::from_stream(broken), &memory).await.unwrap_err(), BodyError::Broken);
        assert_eq!(memory.left(), all, "all room is given back");
    }

    #[tokio::test]
    async fn a_body_for_which_there_is_no_room_is_refused_whether_its_length_is_announced_or_not() {
        let memory = Arc::new(Budget::of(10_000));
        let held = body(Body::from(vec![7; 6_000]), &memory).await.unwrap();
        for too_much in [Body::from(vec![7; 4_001]), parts(5, 1024)] {
            assert_eq!(body(too_much, &memory).await.unwrap_err(), BodyError::NoRoom(NoRoom));
        }
        assert_eq!(memory.left(), 4_000);
        drop(held);
        assert_eq!(body(parts(5, 1024), &memory).await.unwrap().len(), 5_120);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let slow = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(body(slow, &Arc::default()).await.unwrap_err(), BodyError::TooSlow);
    }
}
