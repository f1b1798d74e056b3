//! How TrueFoundry's clients are told what went wrong: `{statusCode, message, code?, details?}`, always JSON. A body without the first
//! two breaks them.

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
#[serde(rename_all = "camelCase")]
pub struct TruefoundryError {
    /// The status of the answer, once more.
    pub status_code: u16,
    /// What is wrong, for people.
    pub message: String,
    /// What kind of error it is, for programs.
    pub code: &'static str,
    /// The parameters and fields that are wrong; left out where it is not about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub details: Option<[TruefoundryErrorDetail; 1]>,
}

/// A parameter or field that is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct TruefoundryErrorDetail {
    /// Its name.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// Why a request is not done, as it is answered.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: TruefoundryError,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let error = TruefoundryError { status_code: status.as_u16(), message: message.into(), code, details: None };
        Self { status, error, retry_after: None }
    }

    /// Nothing is at this path.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing here")
    }

    /// There is, but not for this method. The router adds which ones there are.
    pub fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this is not answered here; see the header Allow")
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let failure = failure.with_fields_named(named);
        let mut refusal = Self::new(failure.status(), failure.category(), failure.to_string());
        refusal.retry_after = failure.retry_after();
        if let Failure::Invalid { field, problem } = failure {
            refusal.error.details = Some([TruefoundryErrorDetail { field, problem }]);
        }
        refusal
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

/// What this dialect calls a field of the resource. What it has no name for keeps the resource's.
fn named(field: &str) -> String {
    const NAMES: [(&str, &str); 3] =
        [("spec.displayName", "name"), ("spec.expiry", "expirationDate"), ("spec.gracePeriod", "gracePeriodInMinutes")];
    let is_of = |theirs: &str| field.strip_prefix(theirs).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let ours = NAMES.iter().find(|(theirs, _)| is_of(theirs)).map(|(_, ours)| (*ours).to_owned());
    ours.unwrap_or_else(|| field.to_owned())
}

/// What any request may meet.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub enum TruefoundryFailures {
    /// A parameter is wrong; the message names it
    #[response(status = 400)]
    Invalid(TruefoundryError),
    /// There is no token, or none that is accepted
    #[response(status = 401, headers(("www-authenticate" = String, description = "`Bearer`")))]
    Unauthenticated(TruefoundryError),
    /// The token may not do this, or nobody may on this server
    #[response(status = 403)]
    Forbidden(TruefoundryError),
    /// The body did not come in time, or the answer took too long
    #[response(status = 408)]
    TooSlow(TruefoundryError),
    /// Too many requests of the same owner
    #[response(status = 429, headers(("retry-after" = u64, description = "When to come back, in seconds")))]
    TooMany(TruefoundryError),
    /// Something broke here
    #[response(status = 500)]
    Internal(TruefoundryError),
    /// It cannot be done at the moment
    #[response(status = 503, headers(("retry-after" = u64, description = "When to come back, in seconds")))]
    Unavailable(TruefoundryError),
}

/// What a request may meet that changes a token.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub enum TruefoundryWriteFailures {
    /// There is no such token or owner, or the caller may not know of it
    #[response(status = 404)]
    NotFound(TruefoundryError),
    /// The name is taken, somebody else has changed the token meanwhile, or it is managed elsewhere
    #[response(status = 409)]
    Conflict(TruefoundryError),
}

/// What a request with a body may meet.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub enum TruefoundryBodyFailures {
    /// The body is larger than 64 KiB
    #[response(status = 413)]
    TooLarge(TruefoundryError),
    /// The body is not `application/json`
    #[response(status = 415)]
    NotJson(TruefoundryError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_the_caller_wrote_them() {
        for (theirs, ours) in [
            ("spec.displayName", "name"),
            ("spec.expiry.at", "expirationDate"),
            ("spec.expiry", "expirationDate"),
            ("spec.gracePeriod", "gracePeriodInMinutes"),
            ("spec.expiryOfSomething", "spec.expiryOfSomething"),
            ("spec.scopes[3]", "spec.scopes[3]"),
            ("limit", "limit"),
        ] {
            assert_eq!(named(theirs), ours, "{theirs}");
        }
    }
}
