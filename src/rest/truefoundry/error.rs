//! Errors in TrueFoundry's format: `{statusCode, message, code?, details?}`, always JSON. Its clients fail on a body without the first two.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::rest::{body::InvalidBody, error::RestError, response};

/// The resource's fields and their names in this dialect.
const FIELD_NAMES: [(&str, &str); 3] =
    [("spec.displayName", "name"), ("spec.expiry", "expirationDate"), ("spec.gracePeriod", "gracePeriodInMinutes")];

/// An error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TruefoundryError)]
pub struct TruefoundryErrorBody {
    /// The HTTP status.
    status_code: u16,
    /// The error message.
    message: String,
    /// The error code.
    code: &'static str,
    /// The invalid parameter or field, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    details: Option<[TruefoundryErrorDetail; 1]>,
}

/// An invalid parameter or field.
#[derive(Debug, Serialize, ToSchema)]
pub struct TruefoundryErrorDetail {
    /// The name.
    field: String,
    /// What is wrong with it.
    problem: String,
}

/// An error response.
#[derive(Debug)]
pub struct TruefoundryError {
    status: StatusCode,
    body: TruefoundryErrorBody,
    retry_after: Option<Duration>,
}

impl TruefoundryError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let body = TruefoundryErrorBody { status_code: status.as_u16(), message: message.into(), code, details: None };
        Self { status, body, retry_after: None }
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
}

impl From<RestError> for TruefoundryError {
    fn from(error: RestError) -> Self {
        let error = error.with_field_names(&FIELD_NAMES);
        let mut response = Self::new(error.status(), error.category(), error.to_string());
        response.retry_after = error.retry_after();
        if let RestError::Invalid { field, problem } = error {
            response.body.details = Some([TruefoundryErrorDetail { field, problem }]);
        }
        response
    }
}

impl From<InvalidBody> for TruefoundryError {
    fn from(error: InvalidBody) -> Self {
        Self { retry_after: error.retry_after(), ..Self::new(error.status(), "InvalidBody", error.to_string()) }
    }
}

impl IntoResponse for TruefoundryError {
    fn into_response(self) -> Response {
        let mut response = response::json(self.status, &self.body);
        response::add_error_headers(&mut response, "Bearer", self.retry_after);
        response
    }
}

/// Further errors of operations that change a token.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes responses")]
pub enum TruefoundryWriteErrors {
    /// The token or owner does not exist, or the caller may not know of it
    #[response(status = 404)]
    NotFound(TruefoundryErrorBody),
    /// The name is taken, the token was changed by another request, or it is managed elsewhere
    #[response(status = 409)]
    Conflict(TruefoundryErrorBody),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_fields_have_the_dialects_names() {
        for (theirs, ours) in [
            ("spec.displayName", "name"),
            ("spec.expiry.at", "expirationDate"),
            ("spec.expiry", "expirationDate"),
            ("spec.gracePeriod", "gracePeriodInMinutes"),
            ("spec.expiryOfSomething", "spec.expiryOfSomething"),
            ("spec.scopes[3]", "spec.scopes[3]"),
            ("limit", "limit"),
        ] {
            let error = RestError::invalid(theirs, "x").with_field_names(&FIELD_NAMES);
            assert_eq!(error, RestError::invalid(ours, "x"), "{theirs}");
        }
    }
}
