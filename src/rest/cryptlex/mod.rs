//! Cryptlex's dialect: `/v3/personal-access-tokens`, where callers list, create, revoke and delete their own tokens.
//!
//! `docs/dialects.md` lists what its clients send and expect.

mod body;
mod error;
mod list;
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
use utoipa::{
    OpenApi,
    openapi::{RefOr, Schema},
};

use self::{
    error::{CryptlexError, CryptlexErrorBody},
    token::{CryptlexToken, CryptlexUser},
};
use super::{
    body::json,
    caller::{RestCaller, TokenSet, Verb, on_own_tokens},
    error::RestError,
    model::{IssuedToken, TokenItem},
    response,
    service::TokenService,
};

/// The path of all tokens.
const TOKENS: &str = "/v3/personal-access-tokens";

/// The path of one token.
const TOKEN: &str = "/v3/personal-access-tokens/{id}";

/// A new token.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct CryptlexAccessToken<'a> {
    /// The token. It is not shown again.
    access_token: &'a str,
}

/// Writes an error that occurred outside of the dialect.
pub(super) fn error_response(error: RestError) -> Response {
    CryptlexError::from(error).into_response()
}

#[derive(OpenApi)]
#[openapi(
    paths(list_tokens, create_token, show_token, change_token, delete_token),
    components(schemas(CryptlexErrorBody, list::CryptlexIdFilter, list::CryptlexTimeFilter)),
    tags((name = "Cryptlex", description = "Personal access tokens of Cryptlex's Web API"))
)]
struct CryptlexOperations;

/// Returns the OpenAPI description.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = CryptlexOperations::openapi();
    require_all_properties(
        &mut document,
        &[
            "CryptlexToken",
            "CryptlexUser",
            "CryptlexOrganization",
            "CryptlexAddress",
            "CryptlexReseller",
            "CryptlexMetadata",
            "CryptlexEmailPreference",
        ],
    );
    document
}

/// The fields that are absent if they are unknown.
const MAY_BE_ABSENT: [&str; 2] = ["createdAt", "updatedAt"];

/// Marks every other property of these schemas as required: optional ones are `null` and never absent.
fn require_all_properties(document: &mut utoipa::openapi::OpenApi, schemas: &[&str]) {
    let components = document.components.get_or_insert_default();
    for name in schemas {
        if let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(*name) {
            let is_required =
                |name: &&String| !MAY_BE_ABSENT.contains(&name.as_str()) || object.required.contains(*name);
            object.required = object.properties.keys().filter(is_required).cloned().collect();
        }
    }
}

/// The routes, to be nested at the base path.
pub fn routes(service: Arc<TokenService>) -> Router {
    let method_not_allowed = async || CryptlexError::method_not_allowed();
    Router::new()
        .route(TOKENS, get(list_tokens).post(create_token).fallback(method_not_allowed))
        .route(TOKEN, get(show_token).patch(change_token).delete(delete_token).fallback(method_not_allowed))
        .fallback(async || CryptlexError::no_such_path())
        .with_state(service)
}

/// List the caller's tokens
///
/// The list includes revoked and expired tokens. Each parameter may be set once.
#[utoipa::path(
    get, path = "/v3/personal-access-tokens",
    operation_id = "cryptlexListTokens", tag = "Cryptlex", security(("pat" = [])),
    params(list::CryptlexListParameters),
    responses((status = 200, description = "The tokens of this page, in order", body = Vec<CryptlexToken>))
)]
async fn list_tokens(
    State(service): State<Arc<TokenService>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, CryptlexError> {
    let caller = service.caller(&headers).await?;
    caller.require_one_of(&on_own_tokens(Verb::Read))?;
    let query = list::parse(query.as_deref().unwrap_or_default(), caller.owner.clone())?;
    let owner = service.owner(&caller.owner);
    let user = CryptlexUser::of(&owner);
    let page = service.list(&query);
    let tokens: Vec<_> = page.items.iter().map(|item| CryptlexToken::of(item, &user)).collect();
    Ok(response::json(StatusCode::OK, &tokens))
}

/// Create a token
///
/// It belongs to the caller. The response contains the token, which is not shown again. The header `Location` names its path.
#[utoipa::path(
    post, path = "/v3/personal-access-tokens",
    operation_id = "cryptlexCreateToken", tag = "Cryptlex", security(("pat" = [])),
    request_body = body::CryptlexCreate,
    responses(
        (status = 201, description = "The new token", body = CryptlexAccessToken,
            headers(
                ("location" = String, description = "The token's path, relative to this request"),
                ("warning" = String, description = "When the token ends, if the caller's token limits it"),
            )),
        (status = 409, description = "The caller already has a token with this name", body = CryptlexErrorBody),
    )
)]
async fn create_token(State(service): State<Arc<TokenService>>, request: Request) -> Result<Response, CryptlexError> {
    let (parts, body) = request.into_parts();
    let caller = service.caller(&parts.headers).await?;
    caller.require_one_of(&on_own_tokens(Verb::Manage))?;
    let request = body::create(&json(&parts.headers, body).await?, &caller, service.now())?;
    let IssuedToken { item, token, receipt, limited_to } = service.create(&caller, request).await?;
    let content = CryptlexAccessToken { access_token: token.expose() };
    let mut response = response::token(StatusCode::CREATED, &content, receipt, limited_to)?;
    // Relative, because a proxy may have added a path prefix.
    if let Ok(location) = HeaderValue::try_from(format!("personal-access-tokens/{}", item.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Show a token
#[utoipa::path(
    get, path = "/v3/personal-access-tokens/{id}",
    operation_id = "cryptlexShowToken", tag = "Cryptlex", security(("pat" = [])),
    params(CryptlexId),
    responses(
        (status = 200, description = "The token", body = CryptlexToken),
        (status = 404, description = "The token does not exist, or is not the caller's", body = CryptlexErrorBody),
    )
)]
async fn show_token(
    State(service): State<Arc<TokenService>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, CryptlexError> {
    let caller = service.caller(&headers).await?;
    let item = find(&service, &caller, id, Verb::Read)?;
    Ok(shown(&service, &item))
}

/// Revoke a token
///
/// No other change is supported. A revoked token cannot be restored.
#[utoipa::path(
    patch, path = "/v3/personal-access-tokens/{id}",
    operation_id = "cryptlexRevokeToken", tag = "Cryptlex", security(("pat" = [])),
    params(CryptlexId),
    request_body = body::CryptlexChange,
    responses(
        (status = 200, description = "The changed token", body = CryptlexToken),
        (status = 404, description = "The token does not exist, or is not the caller's", body = CryptlexErrorBody),
    )
)]
async fn change_token(
    State(service): State<Arc<TokenService>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, CryptlexError> {
    let (parts, body) = request.into_parts();
    let caller = service.caller(&parts.headers).await?;
    let item = find(&service, &caller, id, Verb::Manage)?;
    let item = match body::change(&json(&parts.headers, body).await?, &item)? {
        None => item,
        Some(change) => service.change(&caller, &item, change).await.map_err(CryptlexError::of_change)?,
    };
    Ok(shown(&service, &item))
}

/// Delete a token
///
/// It is no longer accepted.
#[utoipa::path(
    delete, path = "/v3/personal-access-tokens/{id}",
    operation_id = "cryptlexDeleteToken", tag = "Cryptlex", security(("pat" = [])),
    params(CryptlexId),
    responses(
        (status = 204, description = "The token is deleted"),
        (status = 404, description = "The token does not exist, or is not the caller's", body = CryptlexErrorBody),
        (status = 409, description = "The token was changed by another request, or is managed elsewhere", body = CryptlexErrorBody),
    )
)]
async fn delete_token(
    State(service): State<Arc<TokenService>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, CryptlexError> {
    let caller = service.caller(&headers).await?;
    let item = find(&service, &caller, id, Verb::Manage)?;
    service.delete(&caller, &item, check_access).await?;
    Ok(response::no_content())
}

/// The id of a token.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes a path parameter")]
struct CryptlexId {
    /// The token's id: 32 hexadecimal digits, with or without dashes.
    #[param(example = "0e02b2c358cc4372a5670e02b2c3d479")]
    id: String,
}

/// Returns the token with this id: the caller's own, or any with the permission to manage all.
fn find(
    service: &TokenService,
    caller: &RestCaller,
    id: Result<Path<String>, PathRejection>,
    verb: Verb,
) -> Result<Arc<TokenItem>, CryptlexError> {
    caller.require_one_of(&on_own_tokens(verb))?;
    let id = id.map_err(|_| RestError::NotFound)?.parse().map_err(|_| RestError::NotFound)?;
    let item = service.item(id).ok_or(RestError::NotFound)?;
    check_access(caller, &item)?;
    Ok(item)
}

/// Hides other owners' tokens from a caller that may not manage all.
fn check_access(caller: &RestCaller, item: &TokenItem) -> Result<(), RestError> {
    if item.owner == caller.owner || caller.permissions.allow(TokenSet::All, Verb::Manage) {
        return Ok(());
    }
    Err(RestError::NotFound)
}

fn shown(service: &TokenService, item: &TokenItem) -> Response {
    response::json(StatusCode::OK, &CryptlexToken::of(item, &CryptlexUser::of(&service.owner(&item.owner))))
}
