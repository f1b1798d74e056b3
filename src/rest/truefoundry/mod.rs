//! TrueFoundry's dialect, older and newer: `/api/svc/v1`, where callers list, create, regenerate, revoke and delete tokens, and ask who
//! they are.
//!
//! `docs/dialects.md` lists what its clients send and expect.

mod error;
mod request;
#[cfg(test)]
mod tests;
mod token;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use futures::{StreamExt, stream};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use self::{
    error::{TruefoundryError, TruefoundryErrorBody, TruefoundryErrorDetail, TruefoundryWriteErrors},
    request::{TruefoundryListQuery, TruefoundryNewToken},
    token::{TruefoundryNothing, TruefoundrySubject, TruefoundryToken},
};
use super::{
    body::json,
    caller::{RestCaller, TokenSet, Verb, is_own_scope, on_own_tokens},
    error::{Conflict, RestError},
    model::{ChangeToken, CreateToken, IssuedToken, TokenItem},
    query::{OwnerSelector, TokenQuery},
    response,
    service::TokenService,
    store::OwnerEntry,
};
use crate::{
    api::{Owner, OwnerKind},
    index::PatUid,
    token::TokenId,
};

/// The path of the caller's tokens.
const TOKENS: &str = "/api/svc/v1/personal-access-tokens";

/// The prefix of tokens. TrueFoundry's command line takes any other token for a JWT.
const PREFIX: &str = "tfy";

/// Writes an error that occurred outside of the dialect.
pub(super) fn error_response(error: RestError) -> Response {
    TruefoundryError::from(error).into_response()
}

#[derive(OpenApi)]
#[openapi(
    paths(
        list_tokens,
        create_token,
        create_token_for_user,
        revoke_tokens,
        get_or_create_token,
        delete_token,
        regenerate_token,
        delete_jwt,
        session
    ),
    components(schemas(TruefoundryErrorBody, TruefoundryErrorDetail)),
    tags((name = "TrueFoundry", description = "Personal access tokens of TrueFoundry's API"))
)]
struct TruefoundryOperations;

/// Returns the OpenAPI description.
pub fn openapi() -> utoipa::openapi::OpenApi {
    TruefoundryOperations::openapi()
}

/// The routes with full paths, and errors for every other path below `/api/svc`.
pub fn routes(service: Arc<TokenService>) -> Router {
    let method_not_allowed = async || TruefoundryError::method_not_allowed();
    let no_such_path = || any(async || TruefoundryError::no_such_path());
    let accounts = "/api/svc/v1/virtual-accounts/{id}";
    Router::new()
        .route(TOKENS, get(list_tokens).post(create_token).fallback(method_not_allowed))
        .route(&format!("{TOKENS}/for-user"), post(create_token_for_user).fallback(method_not_allowed))
        .route(&format!("{TOKENS}/revoke/all"), delete(revoke_tokens).fallback(method_not_allowed))
        .route(
            &format!("{TOKENS}/{{id}}"),
            // HEAD must not create a token, which axum answers like GET by default.
            get(get_or_create_token).head(head_not_allowed).delete(delete_token).fallback(method_not_allowed),
        )
        .route(&format!("{accounts}/regenerate-token"), post(regenerate_token).fallback(method_not_allowed))
        .route(&format!("{accounts}/jwt/{{jwt_id}}"), delete(delete_jwt).fallback(method_not_allowed))
        .route("/api/svc/v1/session", get(session).fallback(method_not_allowed))
        .route("/api/svc", no_such_path())
        .route("/api/svc/", no_such_path())
        .route("/api/svc/{*rest}", no_such_path())
        .with_state(service)
}

/// Extracts the authenticated caller.
struct TruefoundryCaller(RestCaller);

impl FromRequestParts<Arc<TokenService>> for TruefoundryCaller {
    type Rejection = TruefoundryError;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<TokenService>) -> Result<Self, TruefoundryError> {
        Ok(Self(service.caller(&parts.headers).await?))
    }
}

/// A page of tokens.
#[derive(Serialize, ToSchema)]
struct TruefoundryPage<'a> {
    /// The tokens, oldest first.
    data: Vec<TruefoundryToken<'a>>,
    /// The position of the page.
    pagination: TruefoundryPagination,
}

/// The position of a page.
#[derive(Serialize, ToSchema)]
struct TruefoundryPagination {
    /// The number of tokens on all pages.
    total: usize,
    /// The number of skipped tokens.
    offset: usize,
    /// The maximum number of tokens on a page.
    limit: usize,
}

/// A new token.
#[derive(Serialize, ToSchema)]
struct TruefoundrySecret<'a> {
    /// The token. It is not shown again.
    token: &'a str,
}

/// A token that was requested by its name.
#[derive(Serialize, ToSchema)]
struct TruefoundryGetOrCreate<'a> {
    /// The token's details.
    data: TruefoundryToken<'a>,
    /// The token. It is not shown again.
    token: &'a str,
    /// Always `true`: the token was created.
    created: bool,
}

/// The caller.
#[derive(Serialize, ToSchema)]
struct TruefoundrySession<'a> {
    /// The owner of the token.
    user: TruefoundrySessionUser<'a>,
}

/// The owner of the caller's token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TruefoundrySessionUser<'a> {
    /// The owner's email; `null` if unknown.
    #[schema(required = true)]
    email: Option<&'a str>,
    /// The tenant.
    tenant_name: &'a str,
    /// The owner and the token.
    subject: TruefoundrySessionSubject<'a>,
}

/// The owner and the caller's token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TruefoundrySessionSubject<'a> {
    /// The owner.
    #[serde(flatten)]
    owner: TruefoundrySubject,
    /// The token's name.
    subject_pat_name: &'a str,
}

/// List the caller's tokens
///
/// The list includes revoked and expired tokens. Each parameter may be set once.
#[utoipa::path(
    get, path = "/api/svc/v1/personal-access-tokens",
    operation_id = "truefoundryListTokens", tag = "TrueFoundry", security(("pat" = [])),
    params(request::TruefoundryListParameters),
    responses((status = 200, description = "The tokens of this page", body = TruefoundryPage))
)]
async fn list_tokens(
    State(service): State<Arc<TokenService>>,
    TruefoundryCaller(caller): TruefoundryCaller,
    RawQuery(query): RawQuery,
) -> Result<Response, TruefoundryError> {
    caller.require_one_of(&on_own_tokens(Verb::Read))?;
    let query = TruefoundryListQuery::parse(query.as_deref().unwrap_or_default())?;
    let page = service.list(&query.of(caller.owner.clone()));
    let (subject, now) = (TruefoundrySubject::of(&service.owner(&caller.owner)), service.now());
    let data = page.items.iter().map(|item| TruefoundryToken::of(item, &subject, service.tenant(), now)).collect();
    let pagination = TruefoundryPagination { total: page.total, offset: query.offset, limit: query.limit };
    Ok(response::json(StatusCode::OK, &TruefoundryPage { data, pagination }))
}

/// Create a token
///
/// It belongs to the caller, which must be a virtual account, and has the caller's scopes except those for this product itself. The
/// response contains the token, which is not shown again.
#[utoipa::path(
    post, path = "/api/svc/v1/personal-access-tokens",
    operation_id = "truefoundryCreateToken", tag = "TrueFoundry", security(("pat" = [])),
    request_body = request::TruefoundryCreate,
    responses(
        (status = 201, description = "The new token", body = TruefoundrySecret,
            headers(("warning" = String, description = "When the token ends, if the caller's token limits it"))),
        TruefoundryWriteErrors,
    )
)]
async fn create_token(
    State(service): State<Arc<TokenService>>,
    TruefoundryCaller(caller): TruefoundryCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, TruefoundryError> {
    check_is_account(&caller)?;
    caller.require_one_of(&on_own_tokens(Verb::Manage))?;
    let wanted = request::create(&json(&headers, body).await?, service.now())?;
    create(&service, &caller, service.owner(&caller.owner), wanted).await
}

/// Create a token for a user
///
/// It belongs to the only owner with this email. For another owner, the caller needs the permission to manage all tokens.
#[utoipa::path(
    post, path = "/api/svc/v1/personal-access-tokens/for-user",
    operation_id = "truefoundryCreateTokenForUser", tag = "TrueFoundry", security(("pat" = [])),
    request_body = request::TruefoundryCreateForUser,
    responses(
        (status = 201, description = "The new token", body = TruefoundrySecret,
            headers(("warning" = String, description = "When the token ends, if the caller's token limits it"))),
        TruefoundryWriteErrors,
    )
)]
async fn create_token_for_user(
    State(service): State<Arc<TokenService>>,
    TruefoundryCaller(caller): TruefoundryCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, TruefoundryError> {
    check_is_account(&caller)?;
    let wanted = request::create_for_user(&json(&headers, body).await?, service.now())?;
    let owner = owner_of(&service, &caller, wanted.user_email.as_deref().unwrap_or_default())?;
    create(&service, &caller, owner, wanted).await
}

/// Revoke all tokens of an owner
///
/// They belong to the only owner with this email. For another owner, the caller needs the permission to manage all tokens.
#[utoipa::path(
    delete, path = "/api/svc/v1/personal-access-tokens/revoke/all",
    operation_id = "truefoundryRevokeTokens", tag = "TrueFoundry", security(("pat" = [])),
    request_body = request::TruefoundryRevokeAll,
    responses((status = 200, description = "All tokens are revoked", body = TruefoundryNothing), TruefoundryWriteErrors)
)]
async fn revoke_tokens(
    State(service): State<Arc<TokenService>>,
    TruefoundryCaller(caller): TruefoundryCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, TruefoundryError> {
    let email = request::revoke_all(&json(&headers, body).await?)?;
    let owner = owner_of(&service, &caller, &email)?;
    let shared = service.clone();
    service.run_to_completion(async move { revoke_all(&shared, &caller, owner.owner).await }).await??;
    Ok(response::json(StatusCode::OK, &TruefoundryNothing {}))
}

/// Create a token by its name
///
/// TrueFoundry's own server also returns a token that exists. This server shows the text of a token only once, so it answers 409 then. A
/// new token never expires, unless the caller's token does. It is otherwise as if created by POST.
#[utoipa::path(
    get, path = "/api/svc/v1/personal-access-tokens/{id}",
    operation_id = "truefoundryGetOrCreateToken", tag = "TrueFoundry", security(("pat" = [])),
    params(("id" = String, Path, description = "The token's name: 3 to 36 lowercase letters, digits and `-`")),
    responses(
        (status = 200, description = "The new token", body = TruefoundryGetOrCreate,
            headers(("warning" = String, description = "When the token ends, if the caller's token limits it"))),
        TruefoundryWriteErrors,
    )
)]
async fn get_or_create_token(
    State(service): State<Arc<TokenService>>,
    TruefoundryCaller(caller): TruefoundryCaller,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, TruefoundryError> {
    check_is_account(&caller)?;
    caller.require_one_of(&on_own_tokens(Verb::Manage))?;
    let Path(name) = name.map_err(|_| RestError::NotFound)?;
    if service.named(&caller.owner, &name).is_some() {
        let problem = "exists, and its text was shown only once, when it was created: regenerate it by its id, or choose another name";
        return Err(RestError::Conflict(Conflict::State(format!("the token {name:?} {problem}"))).into());
    }
    let owner = service.owner(&caller.owner);
    let subject = TruefoundrySubject::of(&owner);
    let request = create_request(&caller, owner, request::by_name(name)?, service.tenant())?;
    let IssuedToken { item, token, receipt, limited_to } = service.create(&caller, request).await?;
    let data = TruefoundryToken::of(&item, &subject, service.tenant(), service.now());
    let content = TruefoundryGetOrCreate { data, token: token.expose(), created: true };
    Ok(response::token(StatusCode::OK, &content, receipt, limited_to)?)
}

async fn head_not_allowed() -> Response {
    let mut response = TruefoundryError::method_not_allowed().into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,DELETE"));
    response
}

/// Delete a token
///
/// It is no longer accepted.
#[utoipa::path(
    delete, path = "/api/svc/v1/personal-access-tokens/{id}",
    operation_id = "truefoundryDeleteToken", tag = "TrueFoundry", security(("pat" = [])),
    params(TruefoundryId),
    responses((status = 200, description = "The token is deleted", body = TruefoundryNothing), TruefoundryWriteErrors)
)]
async fn delete_token(
    State(service): State<Arc<TokenService>>,
    TruefoundryCaller(caller): TruefoundryCaller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, TruefoundryError> {
    let item = find(&service, &caller, &id.map_err(|_| RestError::NotFound)?)?;
    service.delete(&caller, &item, |caller, item| check_access(caller, &item.owner)).await?;
    Ok(response::json(StatusCode::OK, &TruefoundryNothing {}))
}

/// Regenerate a token
///
/// The token keeps its id and settings. The previous value stays valid for the requested grace period. The response contains the new
/// value, which is not shown again.
#[utoipa::path(
    post, path = "/api/svc/v1/virtual-accounts/{id}/regenerate-token",
    operation_id = "truefoundryRegenerateToken", tag = "TrueFoundry", security(("pat" = [])),
    params(TruefoundryId),
    request_body = request::TruefoundryRegenerate,
    responses(
        (status = 200, description = "The regenerated token", body = TruefoundrySecret,
            headers(("warning" = String, description = "When the token ends, if the caller's token limits it"))),
        TruefoundryWriteErrors,
    )
)]
async fn regenerate_token(
    State(service): State<Arc<TokenService>>,
    TruefoundryCaller(caller): TruefoundryCaller,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, TruefoundryError> {
    let item = find(&service, &caller, &id.map_err(|_| RestError::NotFound)?)?;
    let grace = request::grace(&json(&headers, body).await?)?;
    let issued = service.regenerate(&caller, &item, Some(grace)).await?;
    Ok(show_secret(StatusCode::OK, issued)?)
}

/// Revoke one credential of a token
///
/// Its other credentials stay valid.
#[utoipa::path(
    delete, path = "/api/svc/v1/virtual-accounts/{id}/jwt/{jwtId}",
    operation_id = "truefoundryDeleteJwt", tag = "TrueFoundry", security(("pat" = [])),
    params(TruefoundryId, TruefoundryJwtId),
    responses((status = 200, description = "The credential is revoked", body = TruefoundryNothing), TruefoundryWriteErrors)
)]
async fn delete_jwt(
    State(service): State<Arc<TokenService>>,
    TruefoundryCaller(caller): TruefoundryCaller,
    ids: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, TruefoundryError> {
    let Path((id, jwt)) = ids.map_err(|_| RestError::NotFound)?;
    let item = find(&service, &caller, &id)?;
    let jwt: TokenId = jwt.parse().map_err(|_| RestError::NotFound)?;
    if !token::live(&item, service.now()).any(|credential| credential.id == jwt) {
        return Err(RestError::NotFound.into());
    }
    let change = ChangeToken { revoke_credential: Some(jwt), ..ChangeToken::default() };
    service.change(&caller, &item, change).await?;
    Ok(response::json(StatusCode::OK, &TruefoundryNothing {}))
}

/// Show the caller
///
/// Every token may ask, whatever its scopes.
#[utoipa::path(
    get, path = "/api/svc/v1/session",
    operation_id = "truefoundrySession", tag = "TrueFoundry", security(("pat" = [])),
    responses((status = 200, description = "The caller", body = TruefoundrySession))
)]
async fn session(
    State(service): State<Arc<TokenService>>,
    TruefoundryCaller(caller): TruefoundryCaller,
) -> Result<Response, TruefoundryError> {
    let owner = service.owner(&caller.owner);
    let subject =
        TruefoundrySessionSubject { owner: TruefoundrySubject::of(&owner), subject_pat_name: &caller.token_name };
    let user = TruefoundrySessionUser { email: owner.spec.email.as_deref(), tenant_name: service.tenant(), subject };
    Ok(response::json(StatusCode::OK, &TruefoundrySession { user }))
}

/// The id of a token.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes a path parameter")]
struct TruefoundryId {
    /// The token's id: 32 hexadecimal digits, with or without dashes.
    #[param(example = "0e02b2c358cc4372a5670e02b2c3d479")]
    id: String,
}

/// The id of a credential.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes a path parameter")]
struct TruefoundryJwtId {
    /// The credential's id, as in `jwts[]`: 12 letters and digits.
    #[param(example = "0A1b2C3d4E5f")]
    jwt_id: String,
}

/// Rejects users: with a stolen token of a user, an attacker could keep access by creating more.
fn check_is_account(caller: &RestCaller) -> Result<(), RestError> {
    match caller.owner.kind {
        OwnerKind::VirtualAccount => Ok(()),
        OwnerKind::User => {
            Err(RestError::Forbidden("a user's token cannot create tokens: use a token of a virtual account".into()))
        }
    }
}

/// Checks whether the caller may change this owner's tokens. Other owners are hidden from a caller that may not manage all.
fn check_access(caller: &RestCaller, owner: &Owner) -> Result<(), RestError> {
    if caller.permissions.allow(TokenSet::All, Verb::Manage) {
        return Ok(());
    }
    if caller.owner != *owner {
        return Err(RestError::NotFound);
    }
    caller.require_one_of(&on_own_tokens(Verb::Manage))
}

/// Returns the token with this id, if the caller may change it.
fn find(service: &TokenService, caller: &RestCaller, id: &str) -> Result<Arc<TokenItem>, RestError> {
    let id: PatUid = id.parse().map_err(|_| RestError::NotFound)?;
    let item = service.item(id).ok_or(RestError::NotFound)?;
    check_access(caller, &item.owner)?;
    Ok(item)
}

/// Returns the owner with this email, if the caller may change its tokens.
fn owner_of(service: &TokenService, caller: &RestCaller, email: &str) -> Result<OwnerEntry, RestError> {
    let owner = service.owner_by_email(email).ok_or(RestError::NoSuchUser)?;
    check_access(caller, &owner.owner).map_err(|error| match error {
        RestError::NotFound => RestError::NoSuchUser,
        other => other,
    })?;
    Ok(owner)
}

async fn create(
    service: &TokenService,
    caller: &RestCaller,
    owner: OwnerEntry,
    wanted: TruefoundryNewToken,
) -> Result<Response, TruefoundryError> {
    let request = create_request(caller, owner, wanted, service.tenant())?;
    let issued = service.create(caller, request).await?;
    Ok(show_secret(StatusCode::CREATED, issued)?)
}

/// Builds the request for a token with the caller's scopes except those for this product itself.
fn create_request(
    caller: &RestCaller,
    owner: OwnerEntry,
    wanted: TruefoundryNewToken,
    tenant: &str,
) -> Result<CreateToken, RestError> {
    if wanted.account.is_some_and(|account| account != tenant) {
        return Err(RestError::invalid("accountName", "unknown account: leave it out"));
    }
    if wanted.team.is_some_and(|team| !owner.spec.groups.contains(&team)) {
        return Err(RestError::invalid("teamName", "must be a team of the token's owner"));
    }
    Ok(CreateToken {
        owner: owner.owner,
        display_name: wanted.name,
        description: None,
        scopes: caller.scopes.iter().filter(|scope| !is_own_scope(scope)).cloned().collect(),
        expiry: wanted.expiry,
        access_token_validity: None,
        permissions: Vec::new(),
        token_prefix: Some(PREFIX.parse().expect("it is a valid prefix")),
    })
}

fn show_secret(status: StatusCode, issued: IssuedToken) -> Result<Response, RestError> {
    let IssuedToken { token, receipt, limited_to, .. } = issued;
    response::token(status, &TruefoundrySecret { token: token.expose() }, receipt, limited_to)
}

/// The number of tokens that are revoked concurrently.
const CONCURRENT_REVOCATIONS: usize = 16;

/// The number of passes over an owner's tokens.
const REVOCATION_PASSES: usize = 5;

/// The pause between passes, in which the watch delivers changes of others.
const PASS_PAUSE: Duration = Duration::from_millis(200);

/// Revokes all tokens of an owner, the caller's own last, so that a failed request can be retried. One failure does not stop the others.
///
/// No token that is created concurrently is missed. Either the last pass sees it, or its caller is rechecked before it is delivered. Both
/// come from one watch, in one order.
async fn revoke_all(service: &TokenService, caller: &RestCaller, owner: Owner) -> Result<(), RestError> {
    let mut failed = RestError::Conflict(Conflict::Changed);
    for _ in 0..REVOCATION_PASSES {
        let remaining = unrevoked(service, &owner).into_iter();
        let (own, others): (Vec<_>, Vec<_>) = remaining.partition(|item| item.id == caller.id);
        if own.is_empty() && others.is_empty() {
            return Ok(());
        }
        let mut errors = revoke(service, others).await;
        if errors.is_empty() {
            errors = revoke(service, own).await;
        }
        // A token that another request has changed is read again in the next pass.
        let changed = !errors.is_empty();
        if let Some(permanent) = errors.into_iter().find(|one| *one != RestError::Conflict(Conflict::Changed)) {
            failed = permanent;
            break;
        }
        if changed {
            tokio::time::sleep(PASS_PAUSE).await;
        }
    }
    if unrevoked(service, &owner).is_empty() { Ok(()) } else { Err(failed) }
}

fn unrevoked(service: &TokenService, owner: &Owner) -> Vec<Arc<TokenItem>> {
    let query = TokenQuery { owner: OwnerSelector::Owner(owner.clone()), ..TokenQuery::default() };
    let mut items = service.list(&query).items;
    items.retain(|item| !item.revoked);
    items
}

/// Revokes these tokens and returns the errors. A deleted token counts as revoked.
async fn revoke(service: &TokenService, items: Vec<Arc<TokenItem>>) -> Vec<RestError> {
    stream::iter(items)
        .map(async |item| service.revoke(&item).await.err())
        .buffer_unordered(CONCURRENT_REVOCATIONS)
        .filter_map(async |error| error.filter(|error| *error != RestError::NotFound))
        .collect()
        .await
}
