//! Errors in SailPoint's format. 401 and 429 have bodies of their own.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{FIELD_NAMES, NAME};
use crate::rest::{
    body::InvalidBody,
    error::{Conflict, RestError},
    response,
};

/// The media type of a JSON patch.
pub const JSON_PATCH: &str = "application/json-patch+json";

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SailpointError {
    /// An error that all dialects share.
    #[error("{0}")]
    Rest(#[from] RestError),
    /// The body cannot be used.
    #[error("{0}")]
    Body(#[from] InvalidBody),
    /// There is no such path.
    #[error("No resource at this path.")]
    NoSuchPath,
    /// The path does not support the method.
    #[error("Method not allowed. See the Allow header for the supported methods.")]
    MethodNotAllowed,
    /// A bulk update failed after it had changed some tokens.
    #[error("{error}")]
    PartlyDone {
        /// Why it failed.
        error: RestError,
        /// The ids of the changed tokens.
        done: Vec<String>,
    },
}

/// An error and the id of its request.
#[derive(Debug)]
pub struct TrackedSailpointError {
    error: SailpointError,
    id: String,
}

/// An error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SailpointError)]
pub struct SailpointErrorBody {
    /// The error code.
    #[schema(value_type = String)]
    detail_code: &'static str,
    /// The id of the request, as in the server's log.
    tracking_id: String,
    /// The meaning of the error code.
    messages: Vec<SailpointErrorMessage>,
    /// What is wrong with this request.
    causes: Vec<SailpointErrorMessage>,
}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SailpointErrorMessage {
    /// The language: always `en-US`.
    #[schema(value_type = String)]
    locale: &'static str,
    /// The origin of the language: always `DEFAULT`.
    #[schema(value_type = String)]
    locale_origin: &'static str,
    /// The text.
    text: String,
}

/// An authentication error.
#[derive(Debug, Serialize, ToSchema)]
pub struct SailpointUnauthorized {
    /// The error message.
    error: String,
}

/// A rate limit error.
#[derive(Debug, Serialize, ToSchema)]
pub struct SailpointTooManyRequests {
    /// The error message.
    message: String,
}

impl SailpointError {
    /// Adds the id of the request.
    pub fn tracked(self, id: String) -> TrackedSailpointError {
        TrackedSailpointError { error: self, id }
    }

    fn status(&self) -> StatusCode {
        match self {
            // SailPoint's clients do not know 409.
            Self::Rest(RestError::Conflict(_)) | Self::PartlyDone { error: RestError::Conflict(_), .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Rest(error) | Self::PartlyDone { error, .. } => error.status(),
            Self::Body(error) => error.status(),
            Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rest(error) | Self::PartlyDone { error, .. } => error.retry_after(),
            Self::Body(error) => error.retry_after(),
            Self::NoSuchPath | Self::MethodNotAllowed => None,
        }
    }

    /// Returns the message with this dialect's field names.
    fn message(&self) -> String {
        match self {
            Self::Rest(error) | Self::PartlyDone { error, .. } => match error.clone().with_field_names(&FIELD_NAMES) {
                RestError::Conflict(conflict @ Conflict::NameTaken(_)) => format!("{NAME}: {conflict}"),
                other => other.to_string(),
            },
            other => other.to_string(),
        }
    }

    fn causes(&self) -> Vec<String> {
        let mut causes = vec![self.message()];
        if let Self::PartlyDone { done, .. } = self {
            let done = done.join(", ");
            causes
                .push(format!("these tokens were changed before the error: {done}; it is safe to repeat the request"));
        }
        causes
    }
}

/// Returns SailPoint's code for a status, and its meaning.
fn code(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::BAD_REQUEST => (
            "400.1 Bad Request Content",
            "The request was syntactically correct but its content is semantically invalid.",
        ),
        StatusCode::FORBIDDEN => ("403 Forbidden", "The server understood the request but refuses to authorize it."),
        StatusCode::NOT_FOUND => {
            ("404 Not found", "The server did not find a current representation for the target resource.")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            ("405 Method Not Allowed", "The target resource does not support this method.")
        }
        StatusCode::REQUEST_TIMEOUT => ("408 Request Timeout", "The request was not complete in time."),
        StatusCode::PAYLOAD_TOO_LARGE => {
            ("413 Payload Too Large", "The request is larger than the server is willing to process.")
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("415 Unsupported Media Type", "The content of the request is in a format that is not supported.")
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            ("503 Service Unavailable", "The request cannot be processed at the moment. Try again later.")
        }
        _ => ("500.0 Internal Fault", "An internal fault occurred."),
    }
}

fn message(text: impl Into<String>) -> SailpointErrorMessage {
    SailpointErrorMessage { locale: "en-US", locale_origin: "DEFAULT", text: text.into() }
}

impl IntoResponse for TrackedSailpointError {
    fn into_response(self) -> Response {
        let Self { error, id } = self;
        let status = error.status();
        let mut response = match status {
            StatusCode::UNAUTHORIZED => response::json(status, &SailpointUnauthorized { error: error.message() }),
            StatusCode::TOO_MANY_REQUESTS => {
                response::json(status, &SailpointTooManyRequests { message: error.message() })
            }
            _ => {
                let (detail_code, text) = code(status);
                let causes = error.causes().into_iter().map(message).collect();
                let messages = vec![message(text)];
                response::json(status, &SailpointErrorBody { detail_code, tracking_id: id, messages, causes })
            }
        };
        response::add_error_headers(&mut response, "Bearer", error.retry_after());
        if let SailpointError::Body(InvalidBody::MediaType(JSON_PATCH)) = error {
            response.headers_mut().insert("accept-patch", HeaderValue::from_static(JSON_PATCH));
        }
        response
    }
}
