//! How Cryptlex's clients are told what went wrong: `{message, code?}`, always JSON. A body without `message` breaks them.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::rest::{body::BadBody, failure::Failure, reply};

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub struct CryptlexError {
    /// What is wrong, for people.
    pub message: String,
    /// What kind of error it is, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub code: Option<&'static str>,
}

/// Why a request is not done, as it is answered.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: CryptlexError,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, error: CryptlexError { message: message.into(), code: Some(code) }, retry_after: None }
    }

    /// Nothing is at this path.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing here")
    }

    /// There is, but not for this method. The router adds which ones there are.
    pub fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this is not answered here; see the header Allow")
    }

    /// Of a PATCH: its clients do not know 409 there, and would lose the message.
    pub fn of_change(failure: Failure) -> Self {
        let refusal = Self::from(failure);
        match refusal.status {
            StatusCode::CONFLICT => Self { status: StatusCode::BAD_REQUEST, ..refusal },
            _ => refusal,
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self {
            retry_after: failure.retry_after(),
            ..Self::new(failure.status(), failure.category(), failure.to_string())
        }
    }
}

impl From<BadBody> for Refusal {
    fn from(bad: BadBody) -> Self {
        Self { retry_after: bad.retry_after(), ..Self::new(bad.status(), "InvalidBody", bad.to_string()) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = reply::json(self.status, &self.error);
        reply::advise(&mut response, "Bearer", self.retry_after);
        response
    }
}

/// What any request may meet.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub enum CryptlexFailures {
    /// A parameter is wrong; the message names it
    #[response(status = 400)]
    Invalid(CryptlexError),
    /// There is no token, or none that is accepted
    #[response(status = 401, headers(("www-authenticate" = String, description = "`Bearer`")))]
    Unauthenticated(CryptlexError),
    /// The token may not do this, or nobody may on this server
    #[response(status = 403)]
    Forbidden(CryptlexError),
    /// The answer took too long
    #[response(status = 408)]
    TooSlow(CryptlexError),
    /// Too many requests of the same owner
    #[response(status = 429, headers(("retry-after" = u64, description = "When to come back, in seconds")))]
    TooMany(CryptlexError),
    /// Something broke here
    #[response(status = 500)]
    Internal(CryptlexError),
    /// It cannot be done at the moment
    #[response(status = 503, headers(("retry-after" = u64, description = "When to come back, in seconds")))]
    Unavailable(CryptlexError),
}

/// What a request with a body may meet.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub enum CryptlexWriteFailures {
    /// A field is wrong, or the change cannot be made as things stand; the message says which and why
    #[response(status = 400)]
    Invalid(CryptlexError),
    /// There is no token, or none that is accepted
    #[response(status = 401, headers(("www-authenticate" = String, description = "`Bearer`")))]
    Unauthenticated(CryptlexError),
    /// The token may not do this, or nobody may on this server
    #[response(status = 403)]
    Forbidden(CryptlexError),
    /// The body did not come in time, or the answer took too long
    #[response(status = 408)]
    TooSlow(CryptlexError),
    /// The body is larger than 64 KiB
    #[response(status = 413)]
    TooLarge(CryptlexError),
    /// The body is not `application/json`
    #[response(status = 415)]
    NotJson(CryptlexError),
    /// Too many requests of the same owner
    #[response(status = 429, headers(("retry-after" = u64, description = "When to come back, in seconds")))]
    TooMany(CryptlexError),
    /// Something broke here
    #[response(status = 500)]
    Internal(CryptlexError),
    /// It cannot be done at the moment
    #[response(status = 503, headers(("retry-after" = u64, description = "When to come back, in seconds")))]
    Unavailable(CryptlexError),
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use serde_json::{Value, json};

    use super::*;
    use crate::{rest::failure::Conflict, service::http::body::BodyError};

    async fn answered(refusal: Refusal) -> (u16, Value, Option<String>) {
        let (parts, body) = refusal.into_response().into_parts();
        assert_eq!(parts.headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(parts.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(parts.headers.contains_key(header::WWW_AUTHENTICATE), parts.status == StatusCode::UNAUTHORIZED);
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let wait = parts.headers.get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        (parts.status.as_u16(), serde_json::from_slice(&body).unwrap(), wait)
    }

    fn changed() -> Failure {
        Failure::Conflict(Conflict::Changed)
    }

    #[tokio::test]
    async fn every_failure_has_its_status_a_message_and_a_code() {
        let (short, long) = (Duration::from_millis(1), Duration::from_millis(2500));
        for (refusal, status, code, wait) in [
            (Failure::Unauthenticated.into(), 401, "Unauthenticated", None),
            (Failure::Forbidden("no".into()).into(), 403, "Forbidden", None),
            (Failure::ReadOnly.into(), 403, "ReadOnly", None),
            (Failure::NotFound.into(), 404, "NotFound", None),
            (Failure::invalid("page", "no").into(), 400, "Invalid", None),
            (changed().into(), 409, "Conflict", None),
            (Refusal::of_change(changed()), 400, "Conflict", None),
            (Refusal::of_change(Failure::NotFound), 404, "NotFound", None),
            (Failure::TooMany { retry_after: short }.into(), 429, "TooMany", Some("1")),
            (Failure::TooMany { retry_after: long }.into(), 429, "TooMany", Some("3")),
            (Failure::Unavailable { problem: "no", retry_after: long }.into(), 503, "Unavailable", Some("3")),
            (Failure::TooLong.into(), 408, "TooLong", None),
            (Failure::Internal.into(), 500, "Internal", None),
            (BadBody::MediaType("application/json").into(), 415, "InvalidBody", None),
            (BadBody::Unreadable(BodyError::TooLarge).into(), 413, "InvalidBody", None),
            (BadBody::Unreadable(BodyError::TooSlow).into(), 408, "InvalidBody", None),
            (Refusal::no_such_path(), 404, "NotFound", None),
            (Refusal::wrong_method(), 405, "MethodNotAllowed", None),
        ] {
            let said = format!("{refusal:?}");
            let (got, body, retry_after) = answered(refusal).await;
            assert_eq!((got, retry_after.as_deref()), (status, wait), "{said}");
            assert_eq!(body, json!({"message": body["message"], "code": code}), "{said}");
            assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{said}");
        }
    }
}
