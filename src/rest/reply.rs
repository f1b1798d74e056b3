//! How every dialect writes an answer: JSON, which nobody on the way may keep, and what a refusal says beside its body.
//!
//! It must not know what is answered, nor which dialect it is.

use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{failure::Failure, receipt::Receipt};
use crate::service::http::OnlyIfThere;

/// An answer in JSON.
pub fn json(status: StatusCode, content: &impl Serialize) -> Response {
    match serde_json::to_vec(content) {
        Ok(bytes) => of_json(status, bytes.into()),
        // Only a map with keys that are no text fails, and there is none.
        Err(_) => of_json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"message":"the answer cannot be written"}"#.into()),
    }
}

/// An answer that is JSON already.
pub fn of_json(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    unstored(response.headers_mut());
    response
}

/// An answer in JSON that holds a secret: it is wiped once it is sent.
///
/// # Errors
/// `Internal`, if it cannot be written.
pub fn secret(status: StatusCode, content: &impl Serialize) -> Result<Response, Failure> {
    Ok(of_json(status, wiped(content)?.into()))
}

/// The same for a token that was made for whoever asked: this is the only time that it can be had, and what does not go out is taken
/// back.
///
/// # Errors
/// `Internal`, if it cannot be written; it is taken back.
pub fn handed_out(status: StatusCode, content: &impl Serialize, receipt: Receipt) -> Result<Response, Failure> {
    let mut response = of_json(status, receipt.with(wiped(content)?));
    response.extensions_mut().insert(OnlyIfThere);
    Ok(response)
}

/// JSON that is wiped on drop.
fn wiped(content: &impl Serialize) -> Result<Bytes, Failure> {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, content).map_err(|_| Failure::Internal)?;
    // Of its final size from the start: one that grows would leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *bytes, content).map_err(|_| Failure::Internal)?;
    debug_assert_eq!(bytes.len(), length.0, "it did not grow");
    Ok(Bytes::from_owner(bytes))
}

/// An answer that has nothing to say.
pub fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    unstored(response.headers_mut());
    response
}

/// Says beside a refusal how to authenticate, if that was it, and when to come back, in whole seconds, never too early.
pub fn advise(response: &mut Response, challenge: &'static str, retry_after: Option<Duration>) {
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(wait) = retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.max(1).into());
    }
}

/// Also where nobody stands around a dialect who says so.
fn unstored(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Counts what is written, and keeps nothing.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
