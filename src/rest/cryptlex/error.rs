//! Errors in Cryptlex's format: `{message, code?}`, always JSON. Its clients fail on a body without `message`.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::{body::InvalidBody, error::RestError, response};

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
