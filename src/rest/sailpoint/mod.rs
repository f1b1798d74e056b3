//! SailPoint's dialect: personal access tokens under `/beta`, `/v3`, `/v2024`, `/v2025` and, newer, `/personal-access-tokens/v1`.
//!
//! `docs/dialects.md` lists what its clients send and expect.

mod body;
mod error;
mod expiry;
mod list;
#[cfg(test)]
mod tests;
mod token;

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, patch},
};
use utoipa::{OpenApi, openapi::path::Operation};

use self::{
    body::{SailpointPatch, SailpointPatchOperation},
    error::{
        JSON_PATCH, SailpointError, SailpointErrorBody, SailpointErrorMessage, SailpointTooManyRequests,
        SailpointUnauthorized, TrackedSailpointError,
    },
    expiry::ExpiryPolicy,
    list::SailpointListQuery,
    token::{SailpointCreatedToken, SailpointToken},
};
use super::{
    body::{json, read},
    caller::{RestCaller, TokenSet, Verb, missing_scope, scope},
    error::RestError,
    model::{IssuedToken, TokenItem},
    query::TokenQuery,
    request::RequestId,
    response,
    service::TokenService,
};
use crate::index::PatUid;

/// The older versions.
const VERSIONS: [&str; 4] = ["/beta", "/v3", "/v2024", "/v2025"];

/// The path below the older versions.
const TOKENS: &str = "/personal-access-tokens";

/// The newer version.
const V1: &str = "/personal-access-tokens/v1";

/// The path of the bulk update, which only the newer version has.
const BULK_UPDATE: &str = "/bulk-update";

/// Writes an error that occurred outside of the dialect.
pub(super) fn error_response(error: RestError, id: &RequestId) -> Response {
    SailpointError::from(error).tracked(id.to_string()).into_response()
}

/// The routes of all versions, to be nested at the base path.
pub fn routes(service: Arc<TokenService>) -> Router {
    let mut routes = Router::new();
    for version in VERSIONS {
        let state = SailpointState { service: service.clone(), policy: ExpiryPolicy::SixMonths };
        routes = routes.merge(token_routes(&format!("{version}{TOKENS}"), state));
    }
    let state = SailpointState { service, policy: ExpiryPolicy::NeverIfAcknowledged };
    let bulk = Router::new()
        .route(&format!("{V1}{BULK_UPDATE}"), patch(bulk_update).post(bulk_update))
        .with_state(state.clone());
    routes
        .merge(token_routes(V1, state))
        .merge(bulk)
        .fallback(async |TrackingId(id): TrackingId| SailpointError::NoSuchPath.tracked(id))
        .method_not_allowed_fallback(async |TrackingId(id): TrackingId| SailpointError::MethodNotAllowed.tracked(id))
}

fn token_routes(path: &str, state: SailpointState) -> Router {
    Router::new()
        .route(path, get(list_tokens).post(create_token))
        .route(&format!("{path}/{{id}}"), patch(change_token).delete(delete_token))
        .with_state(state)
}

/// The state of the handlers of one version.
#[derive(Clone)]
struct SailpointState {
    service: Arc<TokenService>,
    policy: ExpiryPolicy,
}

/// Extracts the id of the request, which errors contain.
struct TrackingId(String);

impl<S: Sync> FromRequestParts<S> for TrackingId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<RequestId>().map_or_else(String::new, |id| id.0.clone())))
    }
}

#[derive(OpenApi)]
#[openapi(
    paths(list_tokens, create_token, change_token, delete_token),
    components(schemas(SailpointErrorBody, SailpointErrorMessage, SailpointTooManyRequests, SailpointUnauthorized))
)]
struct SailpointOperations;

#[derive(OpenApi)]
#[openapi(paths(bulk_update))]
struct SailpointBulkOperations;

/// Returns the OpenAPI description. Each version has operation ids of its own, such as `sailpointV3List`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut bulk = SailpointBulkOperations::openapi();
    for path in bulk.paths.paths.values_mut() {
        path.post = path.patch.clone();
        if let Some(operation) = &mut path.post {
            operation.operation_id = Some("bulkUpdateByPost".to_owned());
            operation.description = Some("The same as PATCH.".to_owned());
        }
    }
    let mut document = utoipa::openapi::OpenApi::default();
    for version in VERSIONS {
        document =
            document.nest(format!("{version}{TOKENS}"), with_version(SailpointOperations::openapi(), &version[1..]));
    }
    document.nest(V1, with_version(SailpointOperations::openapi(), "v1")).nest(V1, with_version(bulk, "v1"))
}

fn with_version(mut document: utoipa::openapi::OpenApi, version: &str) -> utoipa::openapi::OpenApi {
    let rename = |operation: &mut Operation| {
        let id = operation.operation_id.take();
        operation.operation_id = id.map(|id| format!("sailpoint{}{}", capitalized(version), capitalized(&id)));
    };
    for path in document.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.post, &mut path.patch, &mut path.delete];
        operations.into_iter().flatten().for_each(rename);
    }
    document
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    format!("{}{rest}", first.to_uppercase())
}

/// The token does not exist, or the caller may not know of it
#[derive(utoipa::IntoResponses)]
#[response(status = 404)]
#[expect(dead_code, reason = "describes a response")]
struct SailpointNotFound(SailpointErrorBody);

/// List personal access tokens.
///
/// The list is complete: there are no pages.
#[utoipa::path(
    get, path = "", operation_id = "list", tag = "SailPoint", security(("pat" = [])),
    params(
        ("owner-id" = Option<String>, Query, description = "Whose tokens: `me` (requires `sp:my-personal-access-tokens:read`), an owner's \
            id, or absent for all owners (both require `sp:all-personal-access-tokens:read`). With only \
            `sp:managed-personal-access-tokens:read`, the list contains the owner's managed tokens."),
        ("filters" = Option<String>, Query, description = "A filter: `lastUsed le 2023-02-05T10:59:27.214Z`, `lastUsed isnull`, with \
            `and`, `or`, `not` and parentheses."),
    ),
    responses((status = 200, description = "The tokens in order of creation", body = Vec<SailpointToken>))
)]
async fn list_tokens(
    State(state): State<SailpointState>,
    TrackingId(id): TrackingId,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, TrackedSailpointError> {
    state.list(&headers, query.as_deref().unwrap_or_default()).await.map_err(|error| error.tracked(id))
}

/// Create a personal access token.
///
/// It belongs to the caller. The response contains the token, which is not shown again.
#[utoipa::path(
    post, path = "", operation_id = "create", tag = "SailPoint", security(("pat" = [])),
    request_body(content = body::SailpointCreateToken, content_type = "application/json"),
    responses((
        status = 200, description = "The new token", body = SailpointCreatedToken,
        headers(("warning" = String, description = "When the token ends, if the caller's token limits it")),
    ))
)]
async fn create_token(
    State(state): State<SailpointState>,
    TrackingId(id): TrackingId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, TrackedSailpointError> {
    state.create(&headers, body).await.map_err(|error| error.tracked(id))
}

/// Change a personal access token.
///
/// A JSON patch (RFC 6902) of `/name`, `/scope`, `/accessTokenValiditySeconds`, `/expirationDate` and `/userAwareTokenNeverExpires`. Either
/// all of it is applied, or nothing.
#[utoipa::path(
    patch, path = "/{id}", operation_id = "patch", tag = "SailPoint", security(("pat" = [])),
    params(("id" = String, Path, description = "The token's id.")),
    request_body(content = Vec<SailpointPatchOperation>, content_type = "application/json-patch+json"),
    responses((status = 200, description = "The changed token", body = SailpointToken), SailpointNotFound)
)]
async fn change_token(
    State(state): State<SailpointState>,
    TrackingId(id): TrackingId,
    token: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, TrackedSailpointError> {
    state.change(&headers, token, body).await.map_err(|error| error.tracked(id))
}

/// Delete a personal access token.
///
/// It is no longer accepted.
#[utoipa::path(
    delete, path = "/{id}", operation_id = "delete", tag = "SailPoint", security(("pat" = [])),
    params(("id" = String, Path, description = "The token's id.")),
    responses((status = 204, description = "The token is deleted"), SailpointNotFound)
)]
async fn delete_token(
    State(state): State<SailpointState>,
    TrackingId(id): TrackingId,
    token: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, TrackedSailpointError> {
    state.delete(&headers, token).await.map_err(|error| error.tracked(id))
}

/// Change the expiry of several personal access tokens.
///
/// One JSON patch of `/expirationDate` and `/userAwareTokenNeverExpires` for all of them. Requires `sp:all-personal-access-tokens:manage`.
#[utoipa::path(
    patch, path = "/bulk-update", operation_id = "bulkUpdate", tag = "SailPoint", security(("pat" = [])),
    request_body(content = body::SailpointBulkUpdate, content_type = "application/json"),
    responses(
        (status = 200, description = "The changed tokens in the order of the ids", body = Vec<SailpointToken>),
        SailpointNotFound,
    )
)]
async fn bulk_update(
    State(state): State<SailpointState>,
    TrackingId(id): TrackingId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, TrackedSailpointError> {
    state.bulk_update(&headers, body).await.map_err(|error| error.tracked(id))
}

impl SailpointState {
    async fn list(&self, headers: &HeaderMap, query: &str) -> Result<Response, SailpointError> {
        let caller = self.service.caller(headers).await?;
        let query = SailpointListQuery::parse(query)?;
        let known = |id: &str| self.service.owner_by_id(id).map(|entry| entry.owner);
        let items = match list::owner_selector(&caller, &query.owner, known)? {
            Some(owner) => {
                self.service.list(&TokenQuery { owner, filter: query.filter, ..TokenQuery::default() }).items
            }
            None => Vec::new(),
        };
        let state = self.clone();
        let array = list::stream(items, move |item, to| list::append(&state.view(item), to));
        Ok(response::of_json(StatusCode::OK, array))
    }

    async fn create(&self, headers: &HeaderMap, body: Body) -> Result<Response, SailpointError> {
        let caller = self.service.caller(headers).await?;
        caller.require_one_of(&[(TokenSet::My, Verb::Manage), (TokenSet::All, Verb::Manage)])?;
        let body = json(headers, body).await?;
        let request = body::create(&body, &caller, self.policy, self.service.now())?;
        let IssuedToken { item, token, receipt, limited_to } = self.service.create(&caller, request).await?;
        let owner = self.service.owner(&item.owner);
        let content = SailpointCreatedToken::of(&item, owner, token.expose());
        Ok(response::token(StatusCode::OK, &content, receipt, limited_to)?)
    }

    async fn change(
        &self,
        headers: &HeaderMap,
        token: Result<Path<String>, PathRejection>,
        body: Body,
    ) -> Result<Response, SailpointError> {
        let caller = self.service.caller(headers).await?;
        let item = self.manageable(&caller, token)?;
        let body = read(headers, body, &[JSON_PATCH]).await?;
        let change = SailpointPatch::parse(&body)?.apply(&item, &caller, self.policy, self.service.now())?;
        let changed = self.service.change(&caller, &item, change).await?;
        Ok(response::json(StatusCode::OK, &self.view(&changed)))
    }

    async fn delete(
        &self,
        headers: &HeaderMap,
        token: Result<Path<String>, PathRejection>,
    ) -> Result<Response, SailpointError> {
        let caller = self.service.caller(headers).await?;
        let item = self.manageable(&caller, token)?;
        self.service.delete(&caller, &item, check_manage).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// Checks the whole request before the first token is changed.
    async fn bulk_update(&self, headers: &HeaderMap, body: Body) -> Result<Response, SailpointError> {
        let caller = self.service.caller(headers).await?;
        caller.require_one_of(&[(TokenSet::All, Verb::Manage)])?;
        let body = json(headers, body).await?;
        let (ids, patch) = body::bulk_update(&body)?;
        let mut planned = Vec::with_capacity(ids.len());
        for (at, id) in ids.iter().enumerate() {
            let item = self.item(id).ok_or_else(|| RestError::invalid(format!("ids[{at}]"), "token not found"))?;
            let change = patch.apply(&item, &caller, self.policy, self.service.now())?;
            self.service.check_change(&caller, &item, &change)?;
            planned.push((item, change));
        }
        let service = self.service.clone();
        let changing = async move {
            let mut changed = Vec::with_capacity(planned.len());
            for (item, change) in planned {
                match service.change(&caller, &item, change).await {
                    Ok(item) => changed.push(item),
                    Err(error) if changed.is_empty() => return Err(error.into()),
                    Err(error) => {
                        let done = changed.iter().map(|item: &Arc<TokenItem>| item.id.to_string()).collect();
                        return Err(SailpointError::PartlyDone { error, done });
                    }
                }
            }
            Ok(changed)
        };
        let changed = self.service.run_to_completion(changing).await??;
        let views: Vec<SailpointToken<'_>> = changed.iter().map(|item| self.view(item)).collect();
        Ok(response::json(StatusCode::OK, &views))
    }

    /// Returns the token of a path, if the caller may change it.
    fn manageable(
        &self,
        caller: &RestCaller,
        token: Result<Path<String>, PathRejection>,
    ) -> Result<Arc<TokenItem>, RestError> {
        let any = [TokenSet::My, TokenSet::Managed, TokenSet::All].map(|set| (set, Verb::Manage));
        caller.require_one_of(&any)?;
        let item = token.ok().and_then(|Path(id)| self.item(&id)).ok_or(RestError::NotFound)?;
        check_manage(caller, &item)?;
        Ok(item)
    }

    fn item(&self, id: &str) -> Option<Arc<TokenItem>> {
        // Only the canonical text is an id, without dashes and in lower case.
        let uid: PatUid = id.parse().ok().filter(|uid: &PatUid| uid.to_string() == id)?;
        self.service.item(uid)
    }

    fn view<'a>(&self, item: &'a TokenItem) -> SailpointToken<'a> {
        SailpointToken::of(item, self.service.owner(&item.owner), self.policy)
    }
}

/// Checks whether the caller may change and delete this token: `NotFound` if the caller may not read it, else `Forbidden`.
fn check_manage(caller: &RestCaller, item: &TokenItem) -> Result<(), RestError> {
    let may = |verb| {
        caller.permissions.allow(TokenSet::All, verb)
            || caller.permissions.allow(TokenSet::My, verb) && caller.owner == item.owner
            || caller.permissions.allow(TokenSet::Managed, verb) && item.managed
    };
    if may(Verb::Manage) {
        return Ok(());
    }
    if !may(Verb::Read) {
        return Err(RestError::NotFound);
    }
    let set = if caller.owner == item.owner { TokenSet::My } else { TokenSet::All };
    Err(missing_scope(&scope(set, Verb::Manage)))
}
