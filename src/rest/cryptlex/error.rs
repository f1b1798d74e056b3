//! Errors in Cryptlex's format: `{message, code?}`, always JSON. Its clients fail on a body without `message`.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::{body::InvalidBody, error::RestError, response};

/// The resource's fields and their names in this dialect. It has no other fields, so a problem with any other one is one with the body.
const FIELD_NAMES: [(&str, &str); 5] = [
    ("spec.displayName", "name"),
    ("spec.scopes", "scopes"),
    ("spec.expiry", "expiresAt"),
    ("spec.revoked", "revoked"),
    ("spec", "body"),
];

/// An error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CryptlexError)]
pub struct CryptlexErrorBody {
    /// The error message.
    message: String,
    /// The error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<&'static str>,
}

/// An error response.
#[derive(Debug)]
pub struct CryptlexError {
    status: StatusCode,
    body: CryptlexErrorBody,
    retry_after: Option<Duration>,
}

impl CryptlexError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, body: CryptlexErrorBody { message: message.into(), code: Some(code) }, retry_after: None }
    }

    /// There is no such path.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "No resource at this path.")
    }

    /// The path does not support the method. The router adds the header `Allow`.
    pub fn method_not_allowed() -> Self {
        let message = "Method not allowed. See the Allow header for the supported methods.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// An error of PATCH. Clients do not know 409 there and would drop the message.
    pub fn of_change(error: RestError) -> Self {
        let error = Self::from(error);
        match error.status {
            StatusCode::CONFLICT => Self { status: StatusCode::BAD_REQUEST, ..error },
            _ => error,
        }
    }
}

impl From<RestError> for CryptlexError {
    fn from(error: RestError) -> Self {
        let error = error.with_field_names(&FIELD_NAMES);
        Self { retry_after: error.retry_after(), ..Self::new(error.status(), error.category(), error.to_string()) }
    }
}

impl From<InvalidBody> for CryptlexError {
    fn from(error: InvalidBody) -> Self {
        Self { retry_after: error.retry_after(), ..Self::new(error.status(), "InvalidBody", error.to_string()) }
    }
}

impl IntoResponse for CryptlexError {
    fn into_response(self) -> Response {
        let mut response = response::json(self.status, &self.body);
        response::add_error_headers(&mut response, "Bearer", self.retry_after);
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use serde_json::{Value, json};

    use super::*;
    use crate::{rest::error::Conflict, service::http::body::BodyError};

    async fn answered(error: CryptlexError) -> (u16, Value, Option<String>) {
        let (parts, body) = error.into_response().into_parts();
        assert_eq!(parts.headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(parts.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(parts.headers.contains_key(header::WWW_AUTHENTICATE), parts.status == StatusCode::UNAUTHORIZED);
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let wait = parts.headers.get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        (parts.status.as_u16(), serde_json::from_slice(&body).unwrap(), wait)
    }

    #[test]
    fn resource_fields_have_the_dialects_names() {
        for (theirs, ours) in [
            ("spec.displayName", "name"),
            ("spec.scopes", "scopes"),
            ("spec.scopes[2]", "scopes[2]"),
            ("spec.expiry", "expiresAt"),
            ("spec.expiry.at", "expiresAt"),
            ("spec.revoked", "revoked"),
            ("spec.revokedCredentials", "body"),
            ("spec", "body"),
            ("specific", "specific"),
            ("metadata.name", "metadata.name"),
        ] {
            let message = |error: RestError| CryptlexError::from(error).body.message;
            assert_eq!(message(RestError::invalid(theirs, "x")), format!("{ours}: x"));
            let managed = Conflict::Managed { field: theirs.into(), manager: "flux".into() };
            assert_eq!(
                message(RestError::Conflict(managed)),
                format!("{ours} is managed by \"flux\": change it there")
            );
            let refused = message(RestError::Forbidden(format!("{theirs}: namespace team is not granted a: ask")));
            let shown = if theirs.starts_with("spec.") { ours } else { theirs };
            assert_eq!(refused, format!("{shown}: namespace team is not granted a: ask"));
        }
        let lacking = RestError::Forbidden("your token lacks the scope spec.a: b".into());
        assert_eq!(CryptlexError::from(lacking).body.message, "your token lacks the scope spec.a: b");
    }

    #[tokio::test]
    async fn every_error_has_a_status_a_message_and_a_code() {
        let (short, long) = (Duration::from_millis(1), Duration::from_millis(2500));
        let changed = || RestError::Conflict(Conflict::Changed);
        for (error, status, code, wait) in [
            (RestError::Unauthenticated.into(), 401, "Unauthenticated", None),
            (RestError::Forbidden("no".into()).into(), 403, "Forbidden", None),
            (RestError::ReadOnly.into(), 403, "ReadOnly", None),
            (RestError::NotFound.into(), 404, "NotFound", None),
            (RestError::invalid("page", "no").into(), 400, "Invalid", None),
            (changed().into(), 409, "Conflict", None),
            (CryptlexError::of_change(changed()), 400, "Conflict", None),
            (CryptlexError::of_change(RestError::NotFound), 404, "NotFound", None),
            (RestError::TooMany { retry_after: short }.into(), 429, "TooMany", Some("1")),
            (RestError::TooMany { retry_after: long }.into(), 429, "TooMany", Some("3")),
            (RestError::Unavailable { problem: "no", retry_after: long }.into(), 503, "Unavailable", Some("3")),
            (RestError::Timeout.into(), 408, "TooLong", None),
            (RestError::Internal.into(), 500, "Internal", None),
            (InvalidBody::MediaType("application/json").into(), 415, "InvalidBody", None),
            (InvalidBody::Unreadable(BodyError::TooLarge).into(), 413, "InvalidBody", None),
            (InvalidBody::Unreadable(BodyError::TooSlow).into(), 408, "InvalidBody", None),
            (CryptlexError::no_such_path(), 404, "NotFound", None),
            (CryptlexError::method_not_allowed(), 405, "MethodNotAllowed", None),
        ] {
            let described = format!("{error:?}");
            let (got, body, retry_after) = answered(error).await;
            assert_eq!((got, retry_after.as_deref()), (status, wait), "{described}");
            assert_eq!(body, json!({"message": body["message"], "code": code}), "{described}");
            assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{described}");
        }
    }
}
