//! RFC 7662 token introspection: whether a token is active, who owns it and what it permits.
//!
//! Unknown, expired and revoked tokens and those for another audience all get `{"active":false}`. `caller.rs` decides who may
//! call.

use std::{borrow::Cow, ops::Deref};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use zeroize::{Zeroize, Zeroizing};

use super::{
    Protocol, Verifier,
    caller::{AuthenticatedCaller, CallerAuthenticator, CallerRejection, IntrospectionCaller},
    metadata::Issuer,
    response::{self, Challenge, REALM},
};
use crate::{
    api::Time,
    auth::decision::{Audience, Decision, Requirements},
    index::CredentialRef,
    service::http::body::BodyError,
};

/// Path of the endpoint.
pub const PATH: &str = "/oauth2/introspect";

/// The allowed methods. GET is not one of them, because the token would appear in access logs.
const ALLOWED: &str = "POST";

const FORM: &str = "application/x-www-form-urlencoded";

#[derive(Serialize)]
struct ActiveToken<'a> {
    active: bool,
    scope: &'a str,
    client_id: String,
    username: &'a str,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    iat: i64,
    nbf: i64,
    sub: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aud: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    jti: String,
}

/// The response for every other token.
#[derive(Serialize)]
struct InactiveToken {
    active: bool,
}

#[derive(Serialize)]
struct IntrospectionError {
    error: &'static str,
    error_description: &'static str,
}

/// Answers an introspection request.
pub async fn answer(
    verifier: &Verifier,
    callers: &CallerAuthenticator,
    issuer: Option<&Issuer>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    if !response::is_allowed(&head.method, ALLOWED) {
        return response::method_not_allowed(ALLOWED);
    }
    let authenticated = match callers.authenticate(&head.headers) {
        Ok(authenticated) => authenticated,
        Err(rejection) => return refuse(&rejection),
    };
    let is_form = is_form(&head.headers);
    // The header is no longer needed and may be large.
    drop(head);
    // Read before the API server is asked: HTTP/2 buffers data that waits unread, outside the memory budget.
    let body = if is_form { Some(response::body(body, verifier.memory()).await) } else { None };
    let caller = match authenticated {
        AuthenticatedCaller::Pat(caller) => caller,
        AuthenticatedCaller::Account(account) => match callers.review(account).await {
            Ok(caller) => caller,
            Err(rejection) => return refuse(&rejection),
        },
    };
    let body = match body {
        Some(Ok(body)) => body,
        Some(Err(BodyError::NoMemory(_))) => return response::with_retry_after(unavailable()),
        Some(Err(error)) => {
            return fail(error.status(), "invalid_request", "the body is too large, too slow or incomplete");
        }
        None => {
            return fail(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "invalid_request",
                "Content-Type: must be application/x-www-form-urlencoded",
            );
        }
    };
    match token(&body) {
        Ok(token) => decide(verifier, &caller, issuer, &token),
        Err(InvalidForm::Missing) => fail(StatusCode::BAD_REQUEST, "invalid_request", "the form has no token"),
        Err(InvalidForm::Repeated) => {
            fail(StatusCode::BAD_REQUEST, "invalid_request", "the form has more than one token")
        }
    }
}

fn decide(verifier: &Verifier, caller: &IntrospectionCaller, issuer: Option<&Issuer>, token: &[u8]) -> Response {
    let audiences: Vec<&str> = match caller {
        IntrospectionCaller::Unrestricted => Vec::new(),
        IntrospectionCaller::Restricted(record) => record.pat.audiences().iter().collect(),
    };
    let audience = match caller {
        IntrospectionCaller::Unrestricted => Audience::Any,
        IntrospectionCaller::Restricted(_) => Audience::OneOf(&audiences),
    };
    match verifier.check(Protocol::Introspection, token, &Requirements { scopes: &[], audience }) {
        Decision::Allow(record) => active(&record, issuer),
        Decision::Deny(_) => response::json(StatusCode::OK, &InactiveToken { active: false }),
        Decision::Unavailable(_) => unavailable(),
    }
}

fn active(record: &CredentialRef, issuer: Option<&Issuer>) -> Response {
    let (pat, credential) = (&record.pat, record.credential());
    let subject = pat.subject();
    let issued_at = seconds(credential.issued_at);
    let expires_at = [credential.expires_at, pat.terms.end()].into_iter().flatten().min();
    let claims = ActiveToken {
        active: true,
        scope: pat.scopes().joined(),
        client_id: pat.uid.to_string(),
        username: subject,
        token_type: "Bearer",
        exp: expires_at.map(seconds),
        iat: issued_at,
        nbf: issued_at,
        sub: subject,
        aud: pat.audiences().iter().collect(),
        iss: issuer.map(Issuer::as_str),
        jti: credential.id.to_string(),
    };
    response::json(StatusCode::OK, &claims)
}

/// Returns whole seconds, rounded down, so that `nbf` is never in the future and `exp` never later than the expiry.
fn seconds(time: Time) -> i64 {
    time.as_micros().div_euclid(1_000_000)
}

fn refuse(rejection: &CallerRejection) -> Response {
    let challenge = match rejection {
        CallerRejection::Challenge(challenge) => challenge,
        CallerRejection::Unavailable => return unavailable(),
    };
    let status = challenge.status();
    let (error, description) = match challenge {
        Challenge::Missing => ("invalid_client", "authenticate with Bearer or Basic"),
        Challenge::InvalidToken => ("invalid_client", "the credentials are not accepted"),
        Challenge::InvalidRequest => ("invalid_request", "the header Authorization was sent twice or is malformed"),
        Challenge::InsufficientScope { .. } => {
            ("insufficient_scope", "the credentials lack the permission to introspect")
        }
    };
    let mut response = response::with_challenge(fail(status, error, description), challenge);
    if status == StatusCode::UNAUTHORIZED
        && let Ok(basic) = HeaderValue::try_from(format!("Basic realm=\"{REALM}\""))
    {
        response.headers_mut().append(header::WWW_AUTHENTICATE, basic);
    }
    response
}

/// Answers a request with too many headers.
pub fn refuse_headers() -> Response {
    fail(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "invalid_request", "the request has too many headers")
}

fn unavailable() -> Response {
    fail(
        StatusCode::SERVICE_UNAVAILABLE,
        "temporarily_unavailable",
        "tokens cannot be verified at the moment: try again",
    )
}

fn fail(status: StatusCode, error: &'static str, error_description: &'static str) -> Response {
    response::json(status, &IntrospectionError { error, error_description })
}

fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM)
}

/// Why a form has no usable token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidForm {
    /// The form has no `token`, or an empty one.
    #[error("the form has no token")]
    Missing,
    /// The form has several tokens.
    #[error("the form has more than one token")]
    Repeated,
}

/// Returns the token in a form. Everything else in the form is ignored, including `token_type_hint`.
///
/// # Errors
/// Returns an error if there is not exactly one token.
pub fn token(form: &[u8]) -> Result<FormToken<'_>, InvalidForm> {
    // A form need not escape any character of a token, so most forms are read without decoding.
    if form.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return escaped_token(form);
    }
    let named = form.split(|byte| *byte == b'&').filter_map(|pair| pair.strip_prefix(b"token"));
    let mut values = named.filter_map(|rest| if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"=") });
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(InvalidForm::Repeated),
        (Some(token), None) if !token.is_empty() => Ok(FormToken::Plain(token)),
        _ => Err(InvalidForm::Missing),
    }
}

/// The token in a form.
pub enum FormToken<'a> {
    /// The token was not escaped.
    Plain(&'a [u8]),
    /// The token after decoding.
    Unescaped(Zeroizing<String>),
}

impl Deref for FormToken<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(token) => token,
            Self::Unescaped(token) => token.as_bytes(),
        }
    }
}

fn escaped_token(form: &[u8]) -> Result<FormToken<'static>, InvalidForm> {
    let mut found: Option<Zeroizing<String>> = None;
    let mut is_repeated = false;
    for (name, value) in form_urlencoded::parse(form) {
        if name == "token" {
            is_repeated |= found.is_some();
            found = Some(Zeroizing::new(value.into_owned()));
        } else if let Cow::Owned(mut value) = value {
            // It may hold a token under a misspelt name.
            value.zeroize();
        }
    }
    match found {
        Some(_) if is_repeated => Err(InvalidForm::Repeated),
        Some(token) if !token.is_empty() => Ok(FormToken::Unescaped(token)),
        _ => Err(InvalidForm::Missing),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(form: Result<FormToken<'_>, InvalidForm>) -> Result<Vec<u8>, InvalidForm> {
        form.map(|token| token.to_vec())
    }

    proptest! {
        #[test]
        fn a_form_without_escapes_reads_like_a_decoded_form(form in "(token|tokens|toke|a|=|&|token=|token=b|&token=c){0,6}") {
            prop_assert_eq!(read(token(form.as_bytes())), read(escaped_token(form.as_bytes())));
        }
    }

    #[test]
    fn a_token_is_found_in_every_encoding_of_a_form() {
        for (form, found) in [
            ("token=abc", Ok("abc")),
            ("token_type_hint=access_token&token=abc", Ok("abc")),
            ("a=b%20c&token=ab%63", Ok("abc")),
            ("to%6Ben=a+b", Ok("a b")),
            ("token=abc&token=abc", Err(InvalidForm::Repeated)),
            ("token=abc&%74oken=abc", Err(InvalidForm::Repeated)),
            ("token=&token", Err(InvalidForm::Repeated)),
            ("token=", Err(InvalidForm::Missing)),
            ("tokens=abc", Err(InvalidForm::Missing)),
            ("", Err(InvalidForm::Missing)),
        ] {
            assert_eq!(read(token(form.as_bytes())), found.map(|token| token.as_bytes().to_vec()), "{form}");
        }
    }
}
