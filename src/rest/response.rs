//! Responses: JSON that must not be stored, and tokens that are taken back unless the response is sent.

use std::{
    convert::Infallible,
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use zeroize::Zeroizing;

use super::error::RestError;
use crate::api::Time;

/// Creates a JSON response.
pub fn json(status: StatusCode, content: &impl Serialize) -> Response {
    match serde_json::to_vec(content) {
        Ok(bytes) => of_json(status, bytes.into()),
        // Encoding fails only for maps with keys that are not strings, which no response has.
        Err(_) => of_json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"message":"internal error"}"#.into()),
    }
}

/// Creates a response from JSON text.
pub fn of_json(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    forbid_storing(response.headers_mut());
    response
}

/// Creates a JSON response that holds a secret: it is zeroed after it is sent.
pub fn secret(status: StatusCode, content: &impl Serialize) -> Result<Response, RestError> {
    Ok(of_json(status, zeroized(content)?.into()))
}

/// Creates a JSON response that holds a new token, which cannot be read again. It is taken back if the response is dropped before it is
/// sent, or cannot be written. `limited_to` is the end of the token, if the caller's PAT limits it: the header `Warning` says so.
pub fn token(
    status: StatusCode,
    content: &impl Serialize,
    receipt: DeliveryReceipt,
    limited_to: Option<Time>,
) -> Result<Response, RestError> {
    let mut response = of_json(status, receipt.with(zeroized(content)?));
    if let Some(end) = limited_to {
        // As the Kubernetes API warns its clients (RFC 7234, section 5.5), because not every dialect has a field for it.
        let warning =
            format!("299 - \"the token ends at {end}, because it cannot outlive the token that requested it\"");
        if let Ok(warning) = HeaderValue::try_from(warning) {
            response.headers_mut().insert(header::WARNING, warning);
        }
    }
    Ok(response)
}

/// Creates an empty response.
pub fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    forbid_storing(response.headers_mut());
    response
}

/// Adds to an error how to authenticate and when to retry, in whole seconds, rounded up.
pub fn add_error_headers(response: &mut Response, challenge: &'static str, retry_after: Option<Duration>) {
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(wait) = retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.max(1).into());
    }
}

/// Forbids caching. The middleware does so too, but tests of a single dialect bypass it.
fn forbid_storing(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Writes JSON that is zeroed on drop.
fn zeroized(content: &impl Serialize) -> Result<Bytes, RestError> {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, content).map_err(|_| RestError::Internal)?;
    // Allocated in its final size: a vector that grows leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *bytes, content).map_err(|_| RestError::Internal)?;
    debug_assert_eq!(bytes.len(), length.0, "it did not grow");
    Ok(Bytes::from_owner(bytes))
}

/// Counts the bytes that are written.
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

/// The delivery of a new token. The token is taken back if the receipt is dropped before [`confirm`](Self::confirm).
pub struct DeliveryReceipt(Option<Box<dyn FnOnce(bool) + Send + Sync>>);

impl DeliveryReceipt {
    /// Creates a receipt. `settle` is called once, with whether the token was delivered.
    pub fn new(settle: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(settle)))
    }

    /// Creates a receipt for a token that stays in its Secret.
    pub fn none() -> Self {
        Self(None)
    }

    /// Confirms the delivery.
    pub fn confirm(mut self) {
        self.settle(true);
    }

    fn settle(&mut self, delivered: bool) {
        if let Some(settle) = self.0.take() {
            settle(delivered);
        }
    }

    /// Creates a body that confirms the delivery when the server takes its bytes to send them.
    pub fn with(self, bytes: Bytes) -> Body {
        Body::new(TokenBody(Some((bytes, self))))
    }
}

impl Drop for DeliveryReceipt {
    fn drop(&mut self) {
        self.settle(false);
    }
}

impl fmt::Debug for DeliveryReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryReceipt").field("pending", &self.0.is_some()).finish()
    }
}

struct TokenBody(Option<(Bytes, DeliveryReceipt)>);

impl HttpBody for TokenBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|(bytes, receipt)| {
            receipt.confirm();
            Ok(Frame::data(bytes))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use http_body_util::BodyExt;

    use super::*;

    fn receipt() -> (DeliveryReceipt, Arc<AtomicBool>) {
        let taken_back = Arc::new(AtomicBool::new(false));
        let settled = taken_back.clone();
        (DeliveryReceipt::new(move |delivered| settled.store(!delivered, Ordering::SeqCst)), taken_back)
    }

    #[test]
    fn unconfirmed_token_is_taken_back() {
        let (dropped, taken_back) = receipt();
        assert!(!taken_back.load(Ordering::SeqCst));
        drop(dropped);
        assert!(taken_back.load(Ordering::SeqCst));
        let (confirmed, taken_back) = receipt();
        confirmed.confirm();
        assert!(!taken_back.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn body_confirms_when_its_bytes_are_taken_and_not_before() {
        let (dropped, taken_back) = receipt();
        let body = dropped.with("a token".into());
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(7), false));
        drop(body);
        assert!(taken_back.load(Ordering::SeqCst));

        let (sent, taken_back) = receipt();
        let mut body = sent.with("a token".into());
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!((&*frame.into_data().unwrap(), body.is_end_stream()), (&b"a token"[..], true));
        drop(body);
        assert!(!taken_back.load(Ordering::SeqCst));

        let (collected, taken_back) = receipt();
        assert_eq!(collected.with("x".into()).collect().await.unwrap().to_bytes(), "x");
        assert!(!taken_back.load(Ordering::SeqCst));
    }
}
