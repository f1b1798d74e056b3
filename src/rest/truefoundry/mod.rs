//! The dialect of TrueFoundry, older and newer: `/api/svc/v1`, where a caller lists, creates, replaces, revokes and deletes tokens,
//! and asks who it is.
//!
//! Parses parameters and bodies, checks rights, and writes items and errors as TrueFoundry's clients read them. It must not know
//! Kubernetes, nor how tokens are made. What its clients send and take is in `docs/dialects.md`.

mod account;
mod list;
mod order;
mod refusal;
mod revoke;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, RawQuery, Request, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use self::{
    account::{Nothing, TruefoundrySubject, TruefoundryToken},
    list::Part,
    order::Wanted,
    refusal::{Refusal, TruefoundryBodyFailures, TruefoundryError, TruefoundryFailures, TruefoundryWriteFailures},
};
use super::{
    body,
    caller::Caller,
    failure::Failure,
    item::Item,
    order::{Change, Create, Created},
    owners::OwnerEntry,
    reply,
    rights::{self, Deed, Reach},
    service::Service,
};
use crate::{
    api::{Owner, OwnerKind},
    index::PatUid,
    token::TokenId,
};

/// The caller's tokens.
const TOKENS: &str = "/api/svc/v1/personal-access-tokens";

/// What tokens of this dialect begin with. Their command line takes everything else for a JWT.
const PREFIX: &str = "tfy";

/// A failure of which only those around know, in this dialect's words.
pub(super) fn failed(failure: Failure) -> Response {
    Refusal::from(failure).into_response()
}

#[derive(OpenApi)]
#[openapi(
    paths(list_tokens, create_token, create_token_for_user, revoke_tokens, delete_token, regenerate_token, delete_jwt, session),
    components(schemas(TruefoundryError)),
    tags((name = "TrueFoundry", description = "Personal access tokens as TrueFoundry's API has them"))
)]
struct Description;

/// What OpenAPI says of it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// All of it, with full paths, and an answer of its own to whatever else is asked below `/api/svc`.
pub fn routes(service: Arc<Service>) -> Router {
    let wrong_method = async || Refusal::wrong_method();
    let nothing = || any(async || Refusal::no_such_path());
    Router::new()
        .route(TOKENS, get(list_tokens).post(create_token).fallback(wrong_method))
        .route(&format!("{TOKENS}/for-user"), post(create_token_for_user).fallback(wrong_method))
        .route(&format!("{TOKENS}/revoke/all"), delete(revoke_tokens).fallback(wrong_method))
        .route(&format!("{TOKENS}/{{id}}"), delete(delete_token).fallback(wrong_method))
        .route("/api/svc/v1/virtual-accounts/{id}/regenerate-token", post(regenerate_token).fallback(wrong_method))
        .route("/api/svc/v1/virtual-accounts/{id}/jwt/{jwt_id}", delete(delete_jwt).fallback(wrong_method))
        .route("/api/svc/v1/session", get(session).fallback(wrong_method))
        .route("/api/svc", nothing())
        .route("/api/svc/", nothing())
        .route("/api/svc/{*rest}", nothing())
        .with_state(service)
}

/// A page of tokens.
#[derive(Serialize, ToSchema)]
struct TruefoundryPage<'a> {
    /// The tokens, oldest first.
    data: Vec<TruefoundryToken<'a>>,
    /// Where the page is.
    pagination: TruefoundryPagination,
}

/// Where a page is.
#[derive(Serialize, ToSchema)]
struct TruefoundryPagination {
    /// How many tokens there are in all.
    total: usize,
    /// How many were skipped.
    offset: usize,
    /// How many there are on a page at most.
    limit: usize,
}

/// A token that was made. It is shown this once.
#[derive(Serialize, ToSchema)]
struct TruefoundrySecret<'a> {
    /// The token itself.
    token: &'a str,
}

/// Who is asking.
#[derive(Serialize, ToSchema)]
struct TruefoundrySession<'a> {
    /// The owner of the token.
    user: TruefoundrySessionUser<'a>,
}

/// The owner of the token that was sent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TruefoundrySessionUser<'a> {
    /// The owner's email; `null` if it is not known.
    #[schema(required = true)]
    email: Option<&'a str>,
    /// The tenant.
    tenant_name: &'a str,
    /// The owner, and the token.
    subject: TruefoundrySessionSubject<'a>,
}

/// The owner, and the token that was sent.
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
/// Revoked and expired ones are in the list, too. Of each parameter there may be one.
#[utoipa::path(
    get,
    path = "/api/svc/v1/personal-access-tokens",
    operation_id = "truefoundryListTokens",
    tag = "TrueFoundry",
    security(("pat" = [])),
    params(list::TruefoundryListParameters),
    responses((status = 200, description = "The tokens of this page", body = TruefoundryPage), TruefoundryFailures)
)]
async fn list_tokens(
    State(service): State<Arc<Service>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers).await?;
    caller.needs_one_of(&rights::own(Deed::Read))?;
    let part = Part::read(query.as_deref().unwrap_or_default())?;
    let page = service.list(&part.of(caller.owner.clone()));
    let (subject, now) = (TruefoundrySubject::of(&service.owner(&caller.owner)), service.now());
    let data = page.items.iter().map(|item| TruefoundryToken::of(item, &subject, service.tenant(), now)).collect();
    let pagination = TruefoundryPagination { total: page.total, offset: part.offset, limit: part.limit };
    Ok(reply::json(StatusCode::OK, &TruefoundryPage { data, pagination }))
}

/// Create a token
///
/// It belongs to the caller, which has to be a virtual account, and has the caller's scopes but those for this product itself. Its text
/// is in the answer and is not told again.
#[utoipa::path(
    post,
    path = "/api/svc/v1/personal-access-tokens",
    operation_id = "truefoundryCreateToken",
    tag = "TrueFoundry",
    security(("pat" = [])),
    request_body = order::TruefoundryCreate,
    responses(
        (status = 201, description = "It is made", body = TruefoundrySecret),
        TruefoundryFailures, TruefoundryBodyFailures, TruefoundryWriteFailures
    )
)]
async fn create_token(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = service.caller(&parts.headers).await?;
    may_create(&caller)?;
    caller.needs_one_of(&rights::own(Deed::Manage))?;
    let wanted = order::create(&body::json(&parts.headers, body).await?, service.now())?;
    let owner = service.owner(&caller.owner);
    create(&service, &caller, owner, wanted).await
}

/// Create a token for a user
///
/// It belongs to the one owner with this email. Another's needs the right to manage everybody's tokens.
#[utoipa::path(
    post,
    path = "/api/svc/v1/personal-access-tokens/for-user",
    operation_id = "truefoundryCreateTokenForUser",
    tag = "TrueFoundry",
    security(("pat" = [])),
    request_body = order::TruefoundryCreateForUser,
    responses(
        (status = 201, description = "It is made", body = TruefoundrySecret),
        TruefoundryFailures, TruefoundryBodyFailures, TruefoundryWriteFailures
    )
)]
async fn create_token_for_user(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = service.caller(&parts.headers).await?;
    may_create(&caller)?;
    let wanted = order::create_for_user(&body::json(&parts.headers, body).await?, service.now())?;
    let owner = owner_of(&service, &caller, wanted.user_email.as_deref().unwrap_or_default())?;
    create(&service, &caller, owner, wanted).await
}

/// Revoke all tokens of an owner
///
/// It is the one owner with this email. Another's need the right to manage everybody's tokens.
#[utoipa::path(
    delete,
    path = "/api/svc/v1/personal-access-tokens/revoke/all",
    operation_id = "truefoundryRevokeTokens",
    tag = "TrueFoundry",
    security(("pat" = [])),
    request_body = order::TruefoundryRevokeAll,
    responses(
        (status = 200, description = "All are revoked", body = Nothing),
        TruefoundryFailures, TruefoundryBodyFailures, TruefoundryWriteFailures
    )
)]
async fn revoke_tokens(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = service.caller(&parts.headers).await?;
    let email = order::revoke_all(&body::json(&parts.headers, body).await?)?;
    let owner = owner_of(&service, &caller, &email)?;
    let all = service.clone();
    service.to_the_end(async move { revoke::all(&all, &caller, owner.owner).await }).await??;
    Ok(reply::json(StatusCode::OK, &Nothing {}))
}

/// Delete a token
///
/// From then on it is not accepted anywhere.
#[utoipa::path(
    delete,
    path = "/api/svc/v1/personal-access-tokens/{id}",
    operation_id = "truefoundryDeleteToken",
    tag = "TrueFoundry",
    security(("pat" = [])),
    params(TruefoundryId),
    responses(
        (status = 200, description = "It is gone", body = Nothing),
        TruefoundryFailures, TruefoundryWriteFailures
    )
)]
async fn delete_token(
    State(service): State<Arc<Service>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers).await?;
    let item = find(&service, &caller, &id.map_err(|_| Failure::NotFound)?)?;
    service.delete(&caller, &item, |caller, item| may_manage(caller, &item.owner)).await?;
    Ok(reply::json(StatusCode::OK, &Nothing {}))
}

/// Replace the text of a token
///
/// The token stays what it is; its former text goes on for the time that is asked for. The new one is in the answer and is not told
/// again.
#[utoipa::path(
    post,
    path = "/api/svc/v1/virtual-accounts/{id}/regenerate-token",
    operation_id = "truefoundryRegenerateToken",
    tag = "TrueFoundry",
    security(("pat" = [])),
    params(TruefoundryId),
    request_body = order::TruefoundryRegenerate,
    responses(
        (status = 200, description = "It has a new text", body = TruefoundrySecret),
        TruefoundryFailures, TruefoundryBodyFailures, TruefoundryWriteFailures
    )
)]
async fn regenerate_token(
    State(service): State<Arc<Service>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = service.caller(&parts.headers).await?;
    let item = find(&service, &caller, &id.map_err(|_| Failure::NotFound)?)?;
    let grace = order::grace(&body::json(&parts.headers, body).await?)?;
    let created = service.regenerate(&caller, &item, Some(grace)).await?;
    Ok(shown_once(StatusCode::OK, created)?)
}

/// Revoke one credential of a token
///
/// The others go on.
#[utoipa::path(
    delete,
    path = "/api/svc/v1/virtual-accounts/{id}/jwt/{jwtId}",
    operation_id = "truefoundryDeleteJwt",
    tag = "TrueFoundry",
    security(("pat" = [])),
    params(TruefoundryId, TruefoundryJwtId),
    responses(
        (status = 200, description = "It is revoked", body = Nothing),
        TruefoundryFailures, TruefoundryWriteFailures
    )
)]
async fn delete_jwt(
    State(service): State<Arc<Service>>,
    ids: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers).await?;
    let Path((id, jwt)) = ids.map_err(|_| Failure::NotFound)?;
    let item = find(&service, &caller, &id)?;
    let jwt: TokenId = jwt.parse().map_err(|_| Failure::NotFound)?;
    if !account::live(&item, service.now()).any(|credential| credential.id == jwt) {
        return Err(Failure::NotFound.into());
    }
    let change = Change { revoke_credential: Some(jwt), ..Change::default() };
    service.change(&caller, &item, change).await?;
    Ok(reply::json(StatusCode::OK, &Nothing {}))
}

/// Tell who the caller is
///
/// Every token may ask, whatever its scopes.
#[utoipa::path(
    get,
    path = "/api/svc/v1/session",
    operation_id = "truefoundrySession",
    tag = "TrueFoundry",
    security(("pat" = [])),
    responses((status = 200, description = "Who it is", body = TruefoundrySession), TruefoundryFailures)
)]
async fn session(State(service): State<Arc<Service>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let caller = service.caller(&headers).await?;
    let owner = service.owner(&caller.owner);
    let subject =
        TruefoundrySessionSubject { owner: TruefoundrySubject::of(&owner), subject_pat_name: &caller.token_name };
    let user = TruefoundrySessionUser { email: owner.spec.email.as_deref(), tenant_name: service.tenant(), subject };
    Ok(reply::json(StatusCode::OK, &TruefoundrySession { user }))
}

/// The id of a token.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is only described")]
struct TruefoundryId {
    /// The token's id: 32 hexadecimal digits, with or without dashes.
    #[param(example = "0e02b2c358cc4372a5670e02b2c3d479")]
    id: String,
}

/// The id of a credential.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path, rename_all = "camelCase")]
#[expect(dead_code, reason = "it is only described")]
struct TruefoundryJwtId {
    /// The credential's id, as `jwts[]` has it: 12 letters and digits.
    #[param(example = "0A1b2C3d4E5f")]
    jwt_id: String,
}

/// A user's token makes no others: whoever has got hold of it could keep what it may do for ever.
fn may_create(caller: &Caller) -> Result<(), Failure> {
    match caller.owner.kind {
        OwnerKind::VirtualAccount => Ok(()),
        OwnerKind::User => Err(Failure::Forbidden(
            "tokens cannot be created with the token of a user: use one of a virtual account".into(),
        )),
    }
}

/// Whether the caller may change this owner's tokens. Another's are not there for whoever may not.
fn may_manage(caller: &Caller, owner: &Owner) -> Result<(), Failure> {
    if caller.rights.may(Reach::All, Deed::Manage) {
        return Ok(());
    }
    if caller.owner != *owner {
        return Err(Failure::NotFound);
    }
    caller.needs_one_of(&rights::own(Deed::Manage))
}

/// The token of an id, to be changed.
fn find(service: &Service, caller: &Caller, id: &str) -> Result<Arc<Item>, Failure> {
    let id: PatUid = id.parse().map_err(|_| Failure::NotFound)?;
    let item = service.item(id).ok_or(Failure::NotFound)?;
    may_manage(caller, &item.owner)?;
    Ok(item)
}

/// The owner of an email, whose tokens are to be changed.
fn owner_of(service: &Service, caller: &Caller, email: &str) -> Result<OwnerEntry, Failure> {
    let owner = service.owner_by_email(email).ok_or(Failure::NotFound)?;
    may_manage(caller, &owner.owner)?;
    Ok(owner)
}

/// Makes a token for an owner.
async fn create(service: &Service, caller: &Caller, owner: OwnerEntry, wanted: Wanted) -> Result<Response, Refusal> {
    let order = order_of(caller, owner, wanted, service.tenant())?;
    let created = service.create(caller, order).await?;
    Ok(shown_once(StatusCode::CREATED, created)?)
}

/// A token for an owner, with what the caller may do elsewhere.
fn order_of(caller: &Caller, owner: OwnerEntry, wanted: Wanted, tenant: &str) -> Result<Create, Failure> {
    if wanted.account.is_some_and(|account| account != tenant) {
        return Err(Failure::invalid("accountName", "there is no such account: leave it out"));
    }
    if wanted.team.is_some_and(|team| !owner.spec.groups.contains(&team)) {
        return Err(Failure::invalid("teamName", "must be a team that the owner of the token is in"));
    }
    Ok(Create {
        owner: owner.owner,
        display_name: wanted.name,
        description: None,
        scopes: caller.scopes.iter().filter(|scope| !rights::is_own(scope)).cloned().collect(),
        expiry: wanted.expiry,
        access_token_validity: None,
        permissions: Vec::new(),
        token_prefix: Some(PREFIX.parse().expect("it is small letters")),
    })
}

fn shown_once(status: StatusCode, created: Created) -> Result<Response, Failure> {
    let Created { token, receipt, .. } = created;
    reply::handed_out(status, &TruefoundrySecret { token: token.expose() }, receipt)
}
