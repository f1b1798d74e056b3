//! `POST /oauth/token`: the client credentials grant of OAuth (RFC 6749, section 4.4). The client is a personal access token: its id and
//! the token are exchanged for an access token for this API.
//!
//! Credentials come by Basic authentication or in the body, which is a form or multipart. They are rejected in the URL, which
//! proxies log. axum's `Form` and `Multipart` extractors keep copies of the secret in memory. multer returns its copies, so that
//! they can be zeroed.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
    routing::any,
};
use multer::{Constraints, Multipart, SizeLimit};
use serde::Serialize;
use utoipa::ToSchema;
use zeroize::{Zeroize, Zeroizing};

use super::{
    body::{self, InvalidBody},
    dialect::OAUTH_TOKEN,
    error::RestError,
    response,
    service::{ExchangedToken, TokenService},
};
use crate::service::{
    authorization::{Authorization, percent_decoded},
    http::plain,
};

const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data";

/// The only supported grant.
const GRANT: &str = "client_credentials";

/// The known fields of a request; each at most once.
const FIELDS: [&str; 4] = ["grant_type", "client_id", "client_secret", "scope"];

const SECRET: &str = "client_secret";

/// The maximum number of fields.
const MAX_FIELDS: usize = 32;

/// An error in OAuth's format.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OauthError {
    status: StatusCode,
    error: &'static str,
    description: String,
    retry_after: Option<Duration>,
}

/// The request for an access token. `client_id` and `client_secret` may be sent by Basic authentication instead.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form, which is parsed field by field")]
pub(super) struct OauthRequest {
    /// The grant type.
    #[schema(pattern = "^client_credentials$")]
    grant_type: String,
    /// The id of a personal access token.
    client_id: Option<String>,
    /// The personal access token.
    client_secret: Option<String>,
    /// The requested scopes, separated by spaces. Default: all scopes of the personal access token.
    scope: Option<String>,
}

/// An access token for this API.
#[derive(Serialize, ToSchema)]
pub(super) struct OauthToken<'a> {
    /// The access token.
    access_token: &'a str,
    /// The type of the token: `Bearer`.
    #[schema(value_type = String, pattern = "^Bearer$")]
    token_type: &'static str,
    /// The lifetime in seconds. It ends earlier if the personal access token is revoked.
    #[schema(minimum = 1, maximum = 43_200)]
    expires_in: i64,
    /// The granted scopes, separated by spaces.
    scope: String,
}

/// An OAuth error (RFC 6749, section 5.2).
#[derive(Serialize, ToSchema)]
pub(super) struct OauthProblem {
    /// The error code.
    #[schema(value_type = String)]
    error: &'static str,
    /// The error message.
    error_description: String,
}

/// The endpoint, to be merged or nested.
pub fn routes(service: Arc<TokenService>) -> Router {
    Router::new().route(OAUTH_TOKEN, any(exchange)).with_state(service)
}

/// Writes an error that occurred outside of this endpoint.
pub(super) fn error_response(error: RestError) -> Response {
    OauthError::from(error).into_response()
}

/// Exchange a personal access token for an access token
#[utoipa::path(
    post,
    path = "/oauth/token",
    operation_id = "exchange",
    tag = "pat-operator",
    request_body(
        content((OauthRequest = "application/x-www-form-urlencoded"), (OauthRequest = "multipart/form-data")),
        description = "The id of a personal access token and the token itself"
    ),
    responses((status = 200, description = "The access token", body = OauthToken))
)]
pub(super) async fn exchange(State(service): State<Arc<TokenService>>, request: Request) -> Response {
    match answer(&service, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(service: &TokenService, request: Request) -> Result<Response, OauthError> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        return Err(OauthError { status: StatusCode::METHOD_NOT_ALLOWED, ..invalid("method not allowed: use POST") });
    }
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(invalid("send parameters in the body, not in the URL"));
    }
    let fields = FormFields::read(&parts.headers, body).await?;
    let grant = fields.text("grant_type")?.ok_or_else(|| invalid("grant_type is required"))?;
    if grant != GRANT {
        let description = format!("grant_type must be {GRANT}");
        return Err(OauthError { error: "unsupported_grant_type", ..invalid(description) });
    }
    let scope = fields.text("scope")?;
    let wanted: Option<Vec<&str>> = scope.map(|scope| scope.split(' ').filter(|one| !one.is_empty()).collect());
    let wanted = wanted.as_deref().filter(|wanted| !wanted.is_empty());
    let in_body = (fields.get("client_id"), fields.get(SECRET));
    let exchanged = match (Authorization::read(plain(&parts.headers)), in_body) {
        (Authorization::Missing, (Some(client), Some(secret))) => service.exchange(client, secret, wanted)?,
        (Authorization::Basic(basic), (client, None)) => {
            // OAuth form-encodes both first (RFC 6749, 2.3.1). Strict libraries send `%5F` for `_`, most send it unchanged.
            let (user, secret) = (percent_decoded(basic.user()), percent_decoded(basic.password()));
            if client.is_some_and(|client| client != user.as_slice()) {
                return Err(invalid("client_id in the body differs from the one in Authorization"));
            }
            service.exchange(&user, &secret, wanted)?
        }
        (Authorization::Basic(_), (_, Some(_))) => {
            return Err(invalid("send the secret once: by Basic authentication or in the body"));
        }
        (Authorization::Malformed | Authorization::Bearer(_), _) => {
            return Err(invalid("Authorization must be Basic or absent"));
        }
        (Authorization::Missing, _) => {
            return Err(invalid("client_id and client_secret are required: by Basic authentication or in the body"));
        }
    };
    granted(&exchanged)
}

/// Zeroes bytes unless another owner shares them.
fn wipe(bytes: Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.zeroize();
    }
}

/// The fields of a body, zeroed on drop.
struct FormFields(Vec<(&'static str, Zeroizing<Vec<u8>>)>);

impl FormFields {
    async fn read(headers: &HeaderMap, body: Body) -> Result<Self, OauthError> {
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

    async fn multipart(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<(), OauthError> {
        let bad = |_| invalid("invalid multipart body");
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
        // multer's own copy is not shared any more once it is dropped.
        drop(multipart);
        parts.into_iter().for_each(wipe);
        Ok(())
    }

    /// Adds a known field, at most once.
    fn add(&mut self, name: &str, value: Zeroizing<Vec<u8>>, count: usize) -> Result<(), OauthError> {
        if count > MAX_FIELDS {
            return Err(invalid(format!("the body has more than {MAX_FIELDS} fields")));
        }
        let Some(known) = FIELDS.into_iter().find(|known| *known == name) else { return Ok(()) };
        if self.get(known).is_some() {
            return Err(invalid(format!("{known} must not be set more than once")));
        }
        self.0.push((known, value));
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_slice())
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, OauthError> {
        let text = self.get(name).map(str::from_utf8).transpose();
        text.map_err(|_| invalid(format!("{name} must be UTF-8")))
    }
}

fn invalid(description: impl Into<String>) -> OauthError {
    let (status, error) = (StatusCode::BAD_REQUEST, "invalid_request");
    OauthError { status, error, description: description.into(), retry_after: None }
}

impl From<InvalidBody> for OauthError {
    fn from(invalid_body: InvalidBody) -> Self {
        let description = match invalid_body {
            InvalidBody::MediaType(_) => format!("Content-Type must be {FORM} or {MULTIPART}"),
            InvalidBody::Unreadable(error) => error.to_string(),
        };
        Self { status: invalid_body.status(), retry_after: invalid_body.retry_after(), ..invalid(description) }
    }
}

impl From<RestError> for OauthError {
    fn from(error: RestError) -> Self {
        let (status, code) = match &error {
            RestError::Unauthenticated => (StatusCode::UNAUTHORIZED, "invalid_client"),
            RestError::Forbidden(_) => (StatusCode::BAD_REQUEST, "invalid_scope"),
            RestError::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
            RestError::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
            RestError::Timeout => (StatusCode::REQUEST_TIMEOUT, "temporarily_unavailable"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        };
        let description = match &error {
            RestError::Unauthenticated => {
                "authentication failed: client_id and client_secret must be the id and the value of a valid token"
                    .into()
            }
            other => other.to_string(),
        };
        Self { status, error: code, description, retry_after: error.retry_after() }
    }
}

impl OauthError {
    fn into_response(self) -> Response {
        let problem = OauthProblem { error: self.error, error_description: self.description };
        let mut response = uncached(response::json(self.status, &problem));
        response::add_error_headers(&mut response, "Basic realm=\"pat-operator\"", self.retry_after);
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

fn granted(exchanged: &ExchangedToken) -> Result<Response, OauthError> {
    let content = OauthToken {
        access_token: &exchanged.token,
        token_type: "Bearer",
        expires_in: exchanged.expires_in,
        scope: exchanged.scopes.join(" "),
    };
    Ok(uncached(response::secret(StatusCode::OK, &content)?))
}

/// Forbids caching by HTTP/1.0 caches as well (RFC 6749, section 5.1).
fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
