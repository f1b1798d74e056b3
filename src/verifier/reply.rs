//! How every answer of the verifier is written, and how a body is read.
//!
//! All answers come from here, so that none is ever stored by a cache on the way or guessed at by a browser. It must not know
//! what is answered.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use futures::StreamExt;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{challenge::Challenge, demand::InvalidRequirements, identity::NAMES, outcome::Outcome};

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
}

impl BodyError {
    /// The status that says so.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a body, which holds a token: it is wiped on drop.
///
/// # Errors
/// When it is too large, too slow, or breaks off.
pub async fn body(body: Body) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    tokio::time::timeout(BODY_WITHIN, collect(body)).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(body: Body) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_BODY {
        return Err(BodyError::TooLarge);
    }
    let mut whole = Zeroizing::new(Vec::with_capacity(announced));
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| BodyError::Broken)?;
        if whole.len() + part.len() > MAX_BODY {
            return Err(BodyError::TooLarge);
        }
        if whole.capacity() < whole.len() + part.len() {
            // Not by growing, which would leave a copy behind.
            let mut larger = Zeroizing::new(Vec::with_capacity((whole.len() + part.len()).max(2 * whole.capacity())));
            larger.extend_from_slice(&whole);
            whole = larger;
        }
        whole.extend_from_slice(&part);
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
        assert!(body(Body::empty()).await.unwrap().is_empty());
        assert_eq!(body(Body::from(vec![7; MAX_BODY])).await.unwrap().len(), MAX_BODY);
        assert_eq!(body(Body::from(vec![7; MAX_BODY + 1])).await.unwrap_err(), BodyError::TooLarge);
        assert_eq!(**body(parts(64, 1024)).await.unwrap(), vec![7; MAX_BODY]);
        assert_eq!(body(parts(65, 1024)).await.unwrap_err(), BodyError::TooLarge);
        let broken = stream::iter([Ok(Bytes::from("a")), Err(std::io::Error::other("cut off"))]);
        assert_eq!(body(Body::from_stream(broken)).await.unwrap_err(), BodyError::Broken);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let slow = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(body(slow).await.unwrap_err(), BodyError::TooSlow);
    }
}
