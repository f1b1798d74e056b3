//! RFC 7662: tells a service that was given a token whether it is good, whose it is and what it may do.
//!
//! Unknown, expired, revoked and not for this caller all look alike: `{"active":false}`. Who may call is in `caller`.

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
    caller::{Caller, Callers, Rejected},
    challenge::{Challenge, REALM},
    metadata::Issuer,
    reply,
};
use crate::{
    api::Time,
    auth::decision::{Audience, Decision, Demand},
    index::CredentialRef,
    service::http::body::BodyError,
};

/// Where it is.
pub const PATH: &str = "/oauth2/introspect";

/// The methods that are answered. GET is not: the token would stand in the logs of everything on the way.
const ALLOWED: &str = "POST";

const FORM: &str = "application/x-www-form-urlencoded";

/// What is said about a good token.
#[derive(Serialize)]
struct Active<'a> {
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

/// And about all others.
#[derive(Serialize)]
struct Inactive {
    active: bool,
}

#[derive(Serialize)]
struct Failure {
    error: &'static str,
    error_description: &'static str,
}

/// Answers a request to introspect.
pub async fn answer(verifier: &Verifier, callers: &Callers, issuer: Option<&Issuer>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !reply::is_allowed(&head.method, ALLOWED) {
        return reply::wrong_method(ALLOWED);
    }
    let caller = match callers.identify(&head.headers).await {
        Ok(caller) => caller,
        Err(rejected) => return refuse(&rejected),
    };
    if !is_form(&head.headers) {
        return fail(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", "send application/x-www-form-urlencoded");
    }
    // Its header is not needed any more, and may be large.
    drop(head);
    let body = match reply::body(body, verifier.memory()).await {
        Ok(body) => body,
        Err(BodyError::NoRoom(_)) => return reply::try_again(unavailable()),
        Err(error) => return fail(error.status(), "invalid_request", "the body is too large, too slow or broken off"),
    };
    match token(&body) {
        Ok(token) => decide(verifier, &caller, issuer, &token),
        Err(InvalidForm::Missing) => fail(StatusCode::BAD_REQUEST, "invalid_request", "the form has no token"),
        Err(InvalidForm::Twice) => fail(StatusCode::BAD_REQUEST, "invalid_request", "the form has more than one token"),
    }
}

fn decide(verifier: &Verifier, caller: &Caller, issuer: Option<&Issuer>, token: &[u8]) -> Response {
    let audiences: Vec<&str> = match caller {
        Caller::Unlimited => Vec::new(),
        Caller::Limited(record) => record.pat.audiences().iter().collect(),
    };
    let audience = match caller {
        Caller::Unlimited => Audience::Any,
        Caller::Limited(_) => Audience::OneOf(&audiences),
    };
    match verifier.check(Protocol::Introspection, token, &Demand { scopes: &[], audience }) {
        Decision::Allow(record) => tell(&record, issuer),
        Decision::Deny(_) => reply::json(StatusCode::OK, &Inactive { active: false }),
        Decision::Unavailable(_) => unavailable(),
    }
}

fn tell(record: &CredentialRef, issuer: Option<&Issuer>) -> Response {
    let (pat, credential) = (&record.pat, record.credential());
    let subject = pat.subject();
    let issued_at = seconds(credential.issued_at);
    let end = [credential.expires_at, pat.terms.end()].into_iter().flatten().min();
    let active = Active {
        active: true,
        scope: pat.scopes().joined(),
        client_id: pat.uid.to_string(),
        username: subject,
        token_type: "Bearer",
        exp: end.map(seconds),
        iat: issued_at,
        nbf: issued_at,
        sub: subject,
        aud: pat.audiences().iter().collect(),
        iss: issuer.map(Issuer::as_str),
        jti: credential.id.to_string(),
    };
    reply::json(StatusCode::OK, &active)
}

/// Whole seconds, rounded down: nobody is told a start that has not come yet, or an end that has passed.
fn seconds(time: Time) -> i64 {
    time.as_micros().div_euclid(1_000_000)
}

fn refuse(rejected: &Rejected) -> Response {
    let challenge = match rejected {
        Rejected::Challenge(challenge) => challenge,
        Rejected::Unavailable => return unavailable(),
    };
    let status = StatusCode::from_u16(challenge.status()).unwrap_or(StatusCode::FORBIDDEN);
    let (error, words) = match challenge {
        Challenge::Missing => ("invalid_client", "authenticate by Bearer or Basic"),
        Challenge::InvalidToken => ("invalid_client", "the credentials are not accepted"),
        Challenge::InvalidRequest => ("invalid_request", "Authorization was sent twice or cannot be read"),
        Challenge::InsufficientScope { .. } => {
            ("insufficient_scope", "the credentials are good but may not introspect")
        }
    };
    let mut response = reply::challenged(fail(status, error, words), challenge);
    if status == StatusCode::UNAUTHORIZED
        && let Ok(basic) = HeaderValue::try_from(format!("Basic realm=\"{REALM}\""))
    {
        response.headers_mut().append(header::WWW_AUTHENTICATE, basic);
    }
    response
}

fn unavailable() -> Response {
    fail(
        StatusCode::SERVICE_UNAVAILABLE,
        "temporarily_unavailable",
        "tokens cannot be verified at the moment: try again",
    )
}

fn fail(status: StatusCode, error: &'static str, error_description: &'static str) -> Response {
    reply::json(status, &Failure { error, error_description })
}

fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM)
}

/// Why a form cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidForm {
    /// It has no `token`, or an empty one.
    #[error("the form has no token")]
    Missing,
    /// It has several.
    #[error("the form has more than one token")]
    Twice,
}

/// The token of a form; everything else in it, `token_type_hint` too, is left alone.
///
/// # Errors
/// If there is not exactly one.
pub fn token(form: &[u8]) -> Result<FormToken<'_>, InvalidForm> {
    // No token has anything in it that a form would have to escape, so that most forms are read as they stand.
    if form.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return escaped_token(form);
    }
    let named = form.split(|byte| *byte == b'&').filter_map(|pair| pair.strip_prefix(b"token"));
    let mut values = named.filter_map(|rest| if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"=") });
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(InvalidForm::Twice),
        (Some(token), None) if !token.is_empty() => Ok(FormToken::Plain(token)),
        _ => Err(InvalidForm::Missing),
    }
}

/// The token of a form.
pub enum FormToken<'a> {
    /// As it stands there.
    Plain(&'a [u8]),
    /// Freed of what the form has escaped.
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
    let mut twice = false;
    for (name, value) in form_urlencoded::parse(form) {
        if name == "token" {
            twice |= found.is_some();
            found = Some(Zeroizing::new(value.into_owned()));
        } else if let Cow::Owned(mut value) = value {
            // It may hold a token under a name that was misspelt.
            value.zeroize();
        }
    }
    match found {
        Some(_) if twice => Err(InvalidForm::Twice),
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
        /// What is read as it stands is what the library reads.
        #[test]
        fn a_form_without_escapes_is_read_as_any_other(form in "(token|tokens|toke|a|=|&|token=|token=b|&token=c){0,6}") {
            prop_assert_eq!(read(token(form.as_bytes())), read(escaped_token(form.as_bytes())));
        }
    }

    #[test]
    fn a_token_is_found_however_a_form_writes_it() {
        for (form, found) in [
            ("token=abc", Ok("abc")),
            ("token_type_hint=access_token&token=abc", Ok("abc")),
            ("a=b%20c&token=ab%63", Ok("abc")),
            ("to%6Ben=a+b", Ok("a b")),
            ("token=abc&token=abc", Err(InvalidForm::Twice)),
            ("token=abc&%74oken=abc", Err(InvalidForm::Twice)),
            ("token=&token", Err(InvalidForm::Twice)),
            ("token=", Err(InvalidForm::Missing)),
            ("tokens=abc", Err(InvalidForm::Missing)),
            ("", Err(InvalidForm::Missing)),
        ] {
            assert_eq!(read(token(form.as_bytes())), found.map(|token| token.as_bytes().to_vec()), "{form}");
        }
    }
}
