//! Errors as this dialect writes them. Each status has a body of its own kind; none tells more than the failure says.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::names;
use crate::rest::{
    body::BadBody,
    failure::{Conflict, Failure},
    reply,
};

/// The media type of a JSON patch.
pub const JSON_PATCH: &str = "application/json-patch+json";

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What can go wrong in every dialect.
    #[error("{0}")]
    Failed(#[from] Failure),
    /// The body cannot be had.
    #[error("{0}")]
    Body(#[from] BadBody),
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    Path,
    /// This path does not have this method.
    #[error("this path does not have this method")]
    Method,
    /// Some of many tokens have been changed before it failed.
    #[error("{failure}")]
    HalfDone {
        /// Why it stopped.
        failure: Failure,
        /// The ids of those that have been changed.
        done: Vec<String>,
    },
}

/// A refusal, and the id of the request that is refused.
#[derive(Debug)]
pub struct Tracked {
    refusal: Refusal,
    id: String,
}

/// An error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SailpointError)]
pub struct ErrorView {
    /// What kind of error it is.
    #[schema(value_type = String)]
    detail_code: &'static str,
    /// The id of the request, which the server's log has too.
    tracking_id: String,
    /// What the kind of error means.
    messages: Vec<MessageView>,
    /// What exactly is wrong.
    causes: Vec<MessageView>,
}

/// A text for people.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SailpointErrorMessage)]
pub struct MessageView {
    /// The language: always `en-US`.
    #[schema(value_type = String)]
    locale: &'static str,
    /// Why it is in this language: always `DEFAULT`.
    #[schema(value_type = String)]
    locale_origin: &'static str,
    /// The text.
    text: String,
}

/// An error of a caller who is not known.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SailpointUnauthorized)]
pub struct UnauthorizedView {
    /// What is wrong.
    error: String,
}

/// An error of a caller who asks too often.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SailpointTooManyRequests)]
pub struct TooManyRequestsView {
    /// What is wrong.
    message: String,
}

impl Refusal {
    /// The refusal of this request.
    pub fn tracked(self, id: String) -> Tracked {
        Tracked { refusal: self, id }
    }

    fn status(&self) -> StatusCode {
        match self {
            // These clients do not know 409.
            Self::Failed(Failure::Conflict(_)) | Self::HalfDone { failure: Failure::Conflict(_), .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Failed(failure) | Self::HalfDone { failure, .. } => failure.status(),
            Self::Body(bad) => bad.status(),
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// When to come back.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(failure) | Self::HalfDone { failure, .. } => failure.retry_after(),
            Self::Body(bad) => bad.retry_after(),
            Self::Path | Self::Method => None,
        }
    }

    /// What exactly is wrong, with fields called as this dialect calls them.
    fn words(&self) -> String {
        match self {
            Self::Failed(failure) | Self::HalfDone { failure, .. } => words(failure),
            other => other.to_string(),
        }
    }

    fn causes(&self) -> Vec<String> {
        let mut causes = vec![self.words()];
        if let Self::HalfDone { done, .. } = self {
            causes.push(format!(
                "these tokens have been changed before: {}; to repeat the request does no harm",
                done.join(", ")
            ));
        }
        causes
    }
}

fn words(failure: &Failure) -> String {
    match failure {
        Failure::Invalid { field, problem } => format!("{}: {problem}", names::own(field)),
        Failure::Conflict(Conflict::Managed { field, manager }) => {
            Conflict::Managed { field: names::own(field), manager: manager.clone() }.to_string()
        }
        Failure::Conflict(conflict @ Conflict::NameTaken(_)) => format!("{}: {conflict}", names::NAME),
        other => other.to_string(),
    }
}

/// What SailPoint calls this kind of error, and what it says about it.
fn kind(status: StatusCode) -> (&'static str, &'static str) {
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

fn message(text: impl Into<String>) -> MessageView {
    MessageView { locale: "en-US", locale_origin: "DEFAULT", text: text.into() }
}

impl IntoResponse for Tracked {
    fn into_response(self) -> Response {
        let status = self.refusal.status();
        let mut response = match status {
            StatusCode::UNAUTHORIZED => reply::json(status, &UnauthorizedView { error: self.refusal.words() }),
            StatusCode::TOO_MANY_REQUESTS => {
                reply::json(status, &TooManyRequestsView { message: self.refusal.words() })
            }
            _ => {
                let (detail_code, text) = kind(status);
                let causes = self.refusal.causes().into_iter().map(message).collect();
                reply::json(
                    status,
                    &ErrorView { detail_code, tracking_id: self.id, messages: vec![message(text)], causes },
                )
            }
        };
        reply::advise(&mut response, "Bearer", self.refusal.retry_after());
        if let Refusal::Body(BadBody::MediaType(JSON_PATCH)) = self.refusal {
            response.headers_mut().insert("accept-patch", HeaderValue::from_static(JSON_PATCH));
        }
        response
    }
}
