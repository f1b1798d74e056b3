//! `POST /oauth/token`: OAuth's client credentials (RFC 6749, section 4.4), where the client is a personal access token: its id and
//! its text become an access token for this API.
//!
//! Credentials come by Basic or in the body, which is a form or multipart; never in the URL, which others log. It must not know how
//! an access token is made.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
    routing::any,
};
use multer::{Constraints, Multipart, SizeLimit};
use percent_encoding::percent_decode;
use serde::Serialize;
use utoipa::ToSchema;
use zeroize::{Zeroize, Zeroizing};

use super::{
    body::{self, BadBody},
    failure::Failure,
    reply,
    service::{Exchanged, Service},
};
use crate::service::{
    authorization::Authorization,
    http::{body::BodyError, plain},
};

/// Where it is.
pub const PATH: &str = "/oauth/token";

const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data";

/// The one grant there is.
const GRANT: &str = "client_credentials";

/// The fields of a request that mean something; each at most once.
const FIELDS: [&str; 4] = ["grant_type", "client_id", "client_secret", "scope"];

/// The one that nobody may learn.
const SECRET: &str = "client_secret";

/// The most fields of a form.
const MOST_FIELDS: usize = 32;

/// What is wrong, in OAuth's words.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: String,
    retry_after: Option<Duration>,
}

/// An access token for this API.
#[derive(Serialize, ToSchema)]
pub(super) struct OauthToken<'a> {
    /// The access token.
    access_token: &'a str,
    /// How to send it: `Bearer`.
    #[schema(value_type = String, pattern = "^Bearer$")]
    token_type: &'static str,
    /// How many seconds it lives. It dies earlier if its personal access token does.
    #[schema(minimum = 1, maximum = 43_200)]
    expires_in: i64,
    /// What it may do, separated by spaces.
    scope: String,
}

/// An error, in OAuth's words (RFC 6749, section 5.2).
#[derive(Serialize, ToSchema)]
pub(super) struct OauthProblem {
    /// What kind of error it is.
    #[schema(value_type = String)]
    error: &'static str,
    /// What is wrong, for people.
    error_description: String,
}

/// The endpoint, to be merged or nested wherever clients look for it.
pub fn routes(service: Arc<Service>) -> Router {
    Router::new().route(
        PATH,
        any(async move |request: Request| {
            let answered = answer(&service, request).await.and_then(|exchanged| given(&exchanged));
            answered.unwrap_or_else(refused)
        }),
    )
}

/// A failure of which only those around know, in OAuth's words.
pub(super) fn failed(failure: Failure) -> Response {
    refused(failure.into())
}

async fn answer(service: &Service, request: Request) -> Result<Exchanged, Refusal> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        return Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, ..invalid("only POST is answered here") });
    }
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(invalid("parameters belong into the body, not into the URL"));
    }
    let fields = Fields::read(&parts.headers, body).await?;
    let grant = fields.text("grant_type")?.ok_or_else(|| invalid("grant_type is missing"))?;
    if grant != GRANT {
        let description = format!("grant_type must be {GRANT}");
        return Err(Refusal { error: "unsupported_grant_type", ..invalid(description) });
    }
    let scope = fields.text("scope")?;
    let wanted: Option<Vec<&str>> = scope.map(|scope| scope.split(' ').filter(|one| !one.is_empty()).collect());
    let wanted = wanted.as_deref().filter(|wanted| !wanted.is_empty());
    let in_body = (fields.get("client_id"), fields.get("client_secret"));
    let exchanged = match (Authorization::read(plain(&parts.headers)), in_body) {
        (Authorization::Missing, (Some(client), Some(secret))) => service.exchange(client, secret, wanted),
        (Authorization::Basic(basic), (client, None)) => {
            // OAuth has both form-encoded first (RFC 6749, 2.3.1): strict libraries write `%5F` for `_`, most leave it as it is.
            let (user, secret) = (decoded(basic.user()), decoded(basic.password()));
            if client.is_some_and(|client| client != user.as_slice()) {
                return Err(invalid("client_id in the body is another than in Authorization"));
            }
            service.exchange(&user, &secret, wanted)
        }
        (Authorization::Basic(_), (_, Some(_))) => {
            return Err(invalid("give the secret once: by Basic or in the body"));
        }
        (Authorization::Malformed | Authorization::Bearer(_), _) => {
            return Err(invalid("Authorization must be Basic, or left out"));
        }
        (Authorization::Missing, _) => {
            return Err(invalid("client_id and client_secret are needed: by Basic or in the body"));
        }
    };
    exchanged.map_err(Refusal::from)
}

/// Wipes what nobody else holds; where somebody does, it is not ours to wipe.
fn wipe(bytes: Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.zeroize();
    }
}

/// The fields of a body, wiped on drop.
struct Fields(Vec<(&'static str, Zeroizing<Vec<u8>>)>);

impl Fields {
    async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Refusal> {
        let body = body::read(headers, body, &[FORM, MULTIPART]).await?;
        let mut fields = Self(Vec::new());
        if body::media_type(headers).is_some_and(|given| given.eq_ignore_ascii_case(MULTIPART)) {
            fields.multipart(headers, &body).await?;
        } else {
            let mut count = 0;
            for (name, value) in form_urlencoded::parse(&body) {
                count += 1;
                fields.add(&name, Zeroizing::new(value.into_owned().into_bytes()), count)?;
            }
        }
        Ok(fields)
    }

    async fn multipart(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        let bad = |_| invalid("the multipart body cannot be read");
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let boundary = multer::parse_boundary(content_type).map_err(bad)?;
        let whole = Bytes::from_owner(Zeroizing::new(body.to_vec()));
        let whole = futures::stream::iter([Ok::<_, std::io::Error>(whole)]);
        let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(body::LIMIT as u64));
        let mut multipart = Multipart::with_constraints(whole, boundary, limits);
        let (mut count, mut parts) = (0, Vec::new());
        while let Some(mut field) = multipart.next_field().await.map_err(bad)? {
            count += 1;
            let name = field.name().unwrap_or_default().to_owned();
            let mut value = Zeroizing::new(Vec::with_capacity(body.len()));
            while let Some(part) = field.chunk().await.map_err(bad)? {
                value.extend_from_slice(&part);
                if name == SECRET {
                    parts.push(part);
                }
            }
            self.add(&name, value, count)?;
        }
        // multer has a copy of its own, which is ours alone once it is done.
        drop(multipart);
        parts.into_iter().for_each(wipe);
        Ok(())
    }

    /// Takes a field that means something, once.
    fn add(&mut self, name: &str, value: Zeroizing<Vec<u8>>, count: usize) -> Result<(), Refusal> {
        if count > MOST_FIELDS {
            return Err(invalid(format!("there are more than {MOST_FIELDS} fields")));
        }
        let Some(known) = FIELDS.into_iter().find(|known| *known == name) else { return Ok(()) };
        if self.get(known).is_some() {
            return Err(invalid(format!("{known} is there twice")));
        }
        self.0.push((known, value));
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_slice())
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, Refusal> {
        let text = self.get(name).map(str::from_utf8).transpose();
        text.map_err(|_| invalid(format!("{name} is not UTF-8")))
    }
}

fn decoded(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    decoded.extend(percent_decode(text));
    decoded
}

fn invalid(description: impl Into<String>) -> Refusal {
    let (status, error) = (StatusCode::BAD_REQUEST, "invalid_request");
    Refusal { status, error, description: description.into(), retry_after: None }
}

impl From<BadBody> for Refusal {
    fn from(bad: BadBody) -> Self {
        let description = match bad {
            BadBody::MediaType(_) => format!("Content-Type must be {FORM} or {MULTIPART}"),
            BadBody::Unreadable(
                error @ (BodyError::TooLarge | BodyError::TooSlow | BodyError::Broken | BodyError::NoRoom(_)),
            ) => error.to_string(),
        };
        Self { status: bad.status(), retry_after: bad.retry_after(), ..invalid(description) }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let (status, error) = match &failure {
            Failure::Unauthenticated => (StatusCode::UNAUTHORIZED, "invalid_client"),
            Failure::Forbidden(_) => (StatusCode::BAD_REQUEST, "invalid_scope"),
            Failure::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
            Failure::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
            Failure::TooLong => (StatusCode::REQUEST_TIMEOUT, "temporarily_unavailable"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        };
        let description = match &failure {
            Failure::Unauthenticated => {
                "client_id and client_secret are not the id and the text of a live token".to_owned()
            }
            other => other.to_string(),
        };
        Self { status, error, description, retry_after: failure.retry_after() }
    }
}

fn given(exchanged: &Exchanged) -> Result<Response, Refusal> {
    let answer = OauthToken {
        access_token: &exchanged.token,
        token_type: "Bearer",
        expires_in: exchanged.expires_in,
        scope: exchanged.scopes.join(" "),
    };
    Ok(uncached(reply::secret(StatusCode::OK, &answer)?))
}

fn refused(refusal: Refusal) -> Response {
    let problem = OauthProblem { error: refusal.error, error_description: refusal.description };
    let mut response = uncached(reply::json(refusal.status, &problem));
    reply::advise(&mut response, "Basic realm=\"pat-operator\"", refusal.retry_after);
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// As RFC 6749 has it (section 5.1), for caches of HTTP/1.0 as well.
fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
