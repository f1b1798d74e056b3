//! The dialect of Cryptlex: `/v3/personal-access-tokens`, where a caller lists, creates, revokes and deletes its own tokens.
//!
//! Parses parameters and bodies, checks rights, and writes items and errors as Cryptlex's clients read them. It must not know
//! Kubernetes, nor how tokens are made. What its clients send and take is in `docs/dialects.md`.

mod list;
mod order;
mod refusal;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, RawQuery, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use utoipa::OpenApi;

use self::{
    refusal::{CryptlexError, CryptlexFailures, CryptlexWriteFailures, Refusal},
    token::{CryptlexToken, CryptlexUser},
};
use super::{
    body,
    caller::Caller,
    failure::Failure,
    item::Item,
    order::Created,
    reply,
    rights::{self, Deed, Reach},
    service::Service,
};

/// All tokens of the caller.
const TOKENS: &str = "/v3/personal-access-tokens";

/// One token.
const TOKEN: &str = "/v3/personal-access-tokens/{id}";

/// A token that was made. It is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct CryptlexAccessToken<'a> {
    /// The token itself.
    access_token: &'a str,
}

/// A failure of which only those around know, in this dialect's words.
pub(super) fn failed(failure: Failure) -> Response {
    Refusal::from(failure).into_response()
}

#[derive(OpenApi)]
#[openapi(
    paths(list, create, show, change, delete),
    components(schemas(CryptlexError, list::CryptlexIdFilter, list::CryptlexTimeFilter)),
    tags((name = "Cryptlex", description = "Personal access tokens as Cryptlex's Web API has them"))
)]
struct Description;

/// What OpenAPI says of it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// All of it, to be nested wherever its clients are pointed to.
pub fn routes(service: Arc<Service>) -> Router {
    let wrong_method = async || Refusal::wrong_method();
    Router::new()
        .route(TOKENS, get(list).post(create).fallback(wrong_method))
        .route(TOKEN, get(show).patch(change).delete(delete).fallback(wrong_method))
        .fallback(async || Refusal::no_such_path())
        .with_state(service)
}

/// List the caller's tokens
///
/// Revoked and expired ones are in the list, too. Of each parameter there may be one.
#[utoipa::path(
    get,
    path = "/v3/personal-access-tokens",
    operation_id = "cryptlexListTokens",
    tag = "Cryptlex",
    security(("pat" = [])),
    params(list::CryptlexListParameters),
    responses(
        (status = 200, description = "The tokens of this page, in order", body = Vec<CryptlexToken>),
        CryptlexFailures
    )
)]
async fn list(
    State(service): State<Arc<Service>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers).await?;
    caller.needs_one_of(&rights::own(Deed::Read))?;
    let query = list::read(query.as_deref().unwrap_or_default(), caller.owner.clone())?;
    let owner = service.owner(&caller.owner);
    let user = CryptlexUser::of(&owner);
    let page = service.list(&query);
    let tokens: Vec<_> = page.items.iter().map(|item| CryptlexToken::of(item, &user)).collect();
    Ok(reply::json(StatusCode::OK, &tokens))
}

/// Create a token
///
/// It belongs to the caller. Its text is in the answer and is not told again; `Location` says where the token is.
#[utoipa::path(
    post,
    path = "/v3/personal-access-tokens",
    operation_id = "cryptlexCreateToken",
    tag = "Cryptlex",
    security(("pat" = [])),
    request_body = order::CryptlexCreate,
    responses(
        (status = 201, description = "It is made", body = CryptlexAccessToken,
            headers(("location" = String, description = "Where the token is, relative to this request"))),
        (status = 409, description = "The caller has a token of this name", body = CryptlexError),
        CryptlexWriteFailures
    )
)]
async fn create(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = service.caller(&parts.headers).await?;
    caller.needs_one_of(&rights::own(Deed::Manage))?;
    let order = order::create(&body::json(&parts.headers, body).await?, &caller, service.now())?;
    let Created { item, token, receipt } = service.create(&caller, order).await.map_err(order::in_these_words)?;
    let shown = CryptlexAccessToken { access_token: token.expose() };
    let mut response = reply::handed_out(StatusCode::CREATED, &shown, receipt)?;
    // Relative, as whatever stands before us may have put a path of its own in front.
    if let Ok(place) = HeaderValue::try_from(format!("personal-access-tokens/{}", item.id)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// Show a token
#[utoipa::path(
    get,
    path = "/v3/personal-access-tokens/{id}",
    operation_id = "cryptlexShowToken",
    tag = "Cryptlex",
    security(("pat" = [])),
    params(CryptlexId),
    responses(
        (status = 200, description = "The token", body = CryptlexToken),
        (status = 404, description = "There is no such token, or it is not the caller's", body = CryptlexError),
        CryptlexFailures
    )
)]
async fn show(
    State(service): State<Arc<Service>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers).await?;
    let item = find(&service, &caller, id, Deed::Read)?;
    Ok(shown(&service, &item))
}

/// Revoke a token
///
/// That is the only change there is. It cannot be taken back.
#[utoipa::path(
    patch,
    path = "/v3/personal-access-tokens/{id}",
    operation_id = "cryptlexRevokeToken",
    tag = "Cryptlex",
    security(("pat" = [])),
    params(CryptlexId),
    request_body = order::CryptlexChange,
    responses(
        (status = 200, description = "The token as it is now", body = CryptlexToken),
        (status = 404, description = "There is no such token, or it is not the caller's", body = CryptlexError),
        CryptlexWriteFailures
    )
)]
async fn change(
    State(service): State<Arc<Service>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = service.caller(&parts.headers).await?;
    let item = find(&service, &caller, id, Deed::Manage)?;
    let item = match order::change(&body::json(&parts.headers, body).await?, &item)? {
        None => item,
        Some(change) => {
            let changed = service.change(&caller, &item, change).await;
            changed.map_err(|failure| Refusal::of_change(order::in_these_words(failure)))?
        }
    };
    Ok(shown(&service, &item))
}

/// Delete a token
///
/// From then on it is not accepted anywhere.
#[utoipa::path(
    delete,
    path = "/v3/personal-access-tokens/{id}",
    operation_id = "cryptlexDeleteToken",
    tag = "Cryptlex",
    security(("pat" = [])),
    params(CryptlexId),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such token, or it is not the caller's", body = CryptlexError),
        (status = 409, description = "It was changed meanwhile, or cannot be deleted here", body = CryptlexError),
        CryptlexFailures
    )
)]
async fn delete(
    State(service): State<Arc<Service>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers).await?;
    let item = find(&service, &caller, id, Deed::Manage)?;
    service.delete(&caller, &item, may_reach).await.map_err(order::in_these_words)?;
    Ok(reply::no_content())
}

/// The id of a token.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is only described")]
struct CryptlexId {
    /// The token's id: 32 hexadecimal digits, with or without dashes.
    #[param(example = "0e02b2c358cc4372a5670e02b2c3d479")]
    id: String,
}

/// The token of an id: the caller's own, or, with the right to manage all, anybody's. For everyone else that one is not there.
fn find(
    service: &Service,
    caller: &Caller,
    id: Result<Path<String>, PathRejection>,
    deed: Deed,
) -> Result<Arc<Item>, Refusal> {
    caller.needs_one_of(&rights::own(deed))?;
    let id = id.map_err(|_| Failure::NotFound)?.parse().map_err(|_| Failure::NotFound)?;
    let item = service.item(id).ok_or(Failure::NotFound)?;
    may_reach(caller, &item)?;
    Ok(item)
}

/// Whether this token is there for the caller.
fn may_reach(caller: &Caller, item: &Item) -> Result<(), Failure> {
    if item.owner == caller.owner || caller.rights.may(Reach::All, Deed::Manage) {
        return Ok(());
    }
    Err(Failure::NotFound)
}

fn shown(service: &Service, item: &Item) -> Response {
    reply::json(StatusCode::OK, &CryptlexToken::of(item, &CryptlexUser::of(&service.owner(&item.owner))))
}
