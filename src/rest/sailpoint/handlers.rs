//! The routes of this dialect, and what each does: who asks, what for, whether it may, and the answer.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, patch},
};

use super::{
    BULK_UPDATE, TOKENS, V1, VERSIONS,
    access::{self, may_create, may_manage, may_manage_all, may_manage_some},
    bulk, create,
    family::Family,
    listing::Listing,
    openapi::{BodyRefusals, NoSuchToken, Refusals},
    patch::{Operation, TokenPatch},
    refusal::{JSON_PATCH, Refusal, Tracked},
    stream,
    token::{CreatedView, TokenView},
};
use crate::{
    index::PatUid,
    rest::{
        body, caller::Caller, failure::Failure, item::Item, order::Created, query::Query, reply, request_id::RequestId,
        service::Service,
    },
};

const PATCHES: &[&str] = &[JSON_PATCH];

/// The routes of both families, without what they are mounted under.
pub fn routes(service: Arc<Service>) -> Router {
    let mut routes = Router::new();
    for version in VERSIONS {
        routes = routes.merge(tokens(&format!("{version}{TOKENS}"), Desk::new(&service, Family::HalfYear)));
    }
    let desk = Desk::new(&service, Family::Acknowledged);
    let bulk = Router::new()
        .route(&format!("{V1}{BULK_UPDATE}"), patch(bulk_update).post(bulk_update_by_post))
        .with_state(desk.clone());
    routes
        .merge(tokens(V1, desk))
        .merge(bulk)
        .fallback(async |RequestOf(id): RequestOf| Refusal::Path.tracked(id))
        .method_not_allowed_fallback(async |RequestOf(id): RequestOf| Refusal::Method.tracked(id))
}

fn tokens(path: &str, desk: Desk) -> Router {
    Router::new()
        .route(path, get(list).post(create))
        .route(&format!("{path}/{{id}}"), patch(change).delete(delete))
        .with_state(desk)
}

/// Where a request of one family is answered.
#[derive(Clone)]
pub(super) struct Desk {
    service: Arc<Service>,
    family: Family,
}

/// The id of the request.
pub(super) struct RequestOf(String);

impl<S: Sync> FromRequestParts<S> for RequestOf {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<RequestId>().map_or_else(String::new, |id| id.0.clone())))
    }
}

/// List personal access tokens.
///
/// All of an owner's, or of everybody; there are no pages.
#[utoipa::path(
    get, path = "", operation_id = "list", tag = "SailPoint", security(("pat" = [])),
    params(
        ("owner-id" = Option<String>, Query, description = "Whose tokens: `me` (needs `sp:my-personal-access-tokens:read`), an owner's id \
            (needs `sp:all-personal-access-tokens:read`), or nothing for everybody's (needs the same). With \
            `sp:managed-personal-access-tokens:read` alone it is the owner's managed tokens that are listed."),
        ("filters" = Option<String>, Query, description = "Which of them: `lastUsed le 2023-02-05T10:59:27.214Z`, `lastUsed isnull`, with \
            `and`, `or`, `not` and parentheses."),
    ),
    responses(
        (status = 200, description = "The tokens, in the order of their creation", body = Vec<TokenView>),
        Refusals,
    )
)]
pub(super) async fn list(
    State(desk): State<Desk>,
    RequestOf(id): RequestOf,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Tracked> {
    desk.list(&headers, query.as_deref().unwrap_or_default()).await.map_err(|refusal| refusal.tracked(id))
}

/// Create a personal access token.
///
/// It is the caller's own. This is the only time that it is shown.
#[utoipa::path(
    post, path = "", operation_id = "create", tag = "SailPoint", security(("pat" = [])),
    request_body(content = create::CreateBody, content_type = "application/json"),
    responses(
        (status = 200, description = "The token", body = CreatedView),
        Refusals,
        BodyRefusals,
    )
)]
pub(super) async fn create(
    State(desk): State<Desk>,
    RequestOf(id): RequestOf,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Tracked> {
    desk.create(&headers, body).await.map_err(|refusal| refusal.tracked(id))
}

/// Change a personal access token.
///
/// A JSON patch (RFC 6902) of `/name`, `/scope`, `/accessTokenValiditySeconds`, `/expirationDate` and `/userAwareTokenNeverExpires`: all of
/// it is done, or nothing.
#[utoipa::path(
    patch, path = "/{id}", operation_id = "patch", tag = "SailPoint", security(("pat" = [])),
    params(("id" = String, Path, description = "The token's id.")),
    request_body(content = Vec<Operation>, content_type = "application/json-patch+json"),
    responses(
        (status = 200, description = "The token as it is now", body = TokenView),
        Refusals,
        BodyRefusals,
        NoSuchToken,
    )
)]
pub(super) async fn change(
    State(desk): State<Desk>,
    RequestOf(id): RequestOf,
    token: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Tracked> {
    desk.change(&headers, token, body).await.map_err(|refusal| refusal.tracked(id))
}

/// Delete a personal access token.
///
/// It is no longer accepted from this moment on.
#[utoipa::path(
    delete, path = "/{id}", operation_id = "delete", tag = "SailPoint", security(("pat" = [])),
    params(("id" = String, Path, description = "The token's id.")),
    responses(
        (status = 204, description = "It is deleted"),
        Refusals,
        NoSuchToken,
    )
)]
pub(super) async fn delete(
    State(desk): State<Desk>,
    RequestOf(id): RequestOf,
    token: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Tracked> {
    desk.delete(&headers, token).await.map_err(|refusal| refusal.tracked(id))
}

/// Change the end of many personal access tokens.
///
/// One JSON patch of `/expirationDate` and `/userAwareTokenNeverExpires` for all of them. Needs `sp:all-personal-access-tokens:manage`.
#[utoipa::path(
    patch, path = "/bulk-update", operation_id = "bulkUpdate", tag = "SailPoint", security(("pat" = [])),
    request_body(content = bulk::BulkBody, content_type = "application/json"),
    responses(
        (status = 200, description = "The tokens as they are now, in the order of the ids", body = Vec<TokenView>),
        Refusals,
        BodyRefusals,
        NoSuchToken,
    )
)]
pub(super) async fn bulk_update(
    State(desk): State<Desk>,
    RequestOf(id): RequestOf,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Tracked> {
    desk.bulk_update(&headers, body).await.map_err(|refusal| refusal.tracked(id))
}

/// Change the end of many personal access tokens.
///
/// The same as PATCH.
#[utoipa::path(
    post, path = "/bulk-update", operation_id = "bulkUpdateByPost", tag = "SailPoint", security(("pat" = [])),
    request_body(content = bulk::BulkBody, content_type = "application/json"),
    responses(
        (status = 200, description = "The tokens as they are now, in the order of the ids", body = Vec<TokenView>),
        Refusals,
        BodyRefusals,
        NoSuchToken,
    )
)]
pub(super) async fn bulk_update_by_post(
    desk: State<Desk>,
    id: RequestOf,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Tracked> {
    bulk_update(desk, id, headers, body).await
}

impl Desk {
    fn new(service: &Arc<Service>, family: Family) -> Self {
        Self { service: Arc::clone(service), family }
    }

    async fn list(&self, headers: &HeaderMap, query: &str) -> Result<Response, Refusal> {
        let caller = self.service.caller(headers).await?;
        let listing = Listing::read(query)?;
        let known = |id: &str| self.service.owner_by_id(id).map(|entry| entry.owner);
        let items = match access::whose(&caller, &listing.owner, known)? {
            Some(whose) => self.service.list(&Query { whose, filter: listing.filter, ..Query::default() }).items,
            None => Vec::new(),
        };
        let desk = self.clone();
        let array = stream::array(items, move |item, to| stream::append(&desk.view(item), to));
        Ok(reply::of_json(StatusCode::OK, array))
    }

    async fn create(&self, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
        let caller = self.service.caller(headers).await?;
        may_create(&caller)?;
        let body = body::json(headers, body).await?;
        let order = create::order(&body, &caller, self.family, self.service.now())?;
        let Created { item, token, receipt } = self.service.create(&caller, order).await?;
        let owner = self.service.owner(&item.owner);
        Ok(reply::handed_out(StatusCode::OK, &CreatedView::of(&item, owner, token.expose()), receipt)?)
    }

    async fn change(
        &self,
        headers: &HeaderMap,
        token: Result<Path<String>, PathRejection>,
        body: Body,
    ) -> Result<Response, Refusal> {
        let caller = self.service.caller(headers).await?;
        let item = self.manageable(&caller, token)?;
        let body = body::read(headers, body, PATCHES).await?;
        let change = TokenPatch::read(&body)?.change(&item, &caller, self.family, self.service.now())?;
        let changed = self.service.change(&caller, &item, change).await?;
        Ok(reply::json(StatusCode::OK, &self.view(&changed)))
    }

    async fn delete(
        &self,
        headers: &HeaderMap,
        token: Result<Path<String>, PathRejection>,
    ) -> Result<Response, Refusal> {
        let caller = self.service.caller(headers).await?;
        let item = self.manageable(&caller, token)?;
        self.service.delete(&caller, &item, may_manage).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// Looks for all of them before the first is changed: what can be wrong with the request stops it before it has an effect.
    async fn bulk_update(&self, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
        let caller = self.service.caller(headers).await?;
        may_manage_all(&caller)?;
        let body = body::json(headers, body).await?;
        let (ids, patch) = bulk::read(&body)?;
        let mut planned = Vec::with_capacity(ids.len());
        for (at, id) in ids.iter().enumerate() {
            let item = self.item(id).ok_or_else(|| Failure::invalid(format!("ids[{at}]"), "there is no such token"))?;
            let change = patch.change(&item, &caller, self.family, self.service.now())?;
            planned.push((item, change));
        }
        let service = self.service.clone();
        let changing = async move {
            let mut changed = Vec::with_capacity(planned.len());
            for (item, change) in planned {
                match service.change(&caller, &item, change).await {
                    Ok(item) => changed.push(item),
                    Err(failure) if changed.is_empty() => return Err(failure.into()),
                    Err(failure) => {
                        let done = changed.iter().map(|item: &Arc<Item>| item.id.to_string()).collect();
                        return Err(Refusal::HalfDone { failure, done });
                    }
                }
            }
            Ok(changed)
        };
        let changed = self.service.to_the_end(changing).await??;
        let views: Vec<TokenView<'_>> = changed.iter().map(|item| self.view(item)).collect();
        Ok(reply::json(StatusCode::OK, &views))
    }

    /// The token that a path names, if the caller may change it.
    fn manageable(&self, caller: &Caller, token: Result<Path<String>, PathRejection>) -> Result<Arc<Item>, Failure> {
        may_manage_some(caller)?;
        let item = token.ok().and_then(|Path(id)| self.item(&id)).ok_or(Failure::NotFound)?;
        may_manage(caller, &item)?;
        Ok(item)
    }

    fn item(&self, id: &str) -> Option<Arc<Item>> {
        // One text for one id: with dashes or in capital letters it is another.
        let uid: PatUid = id.parse().ok().filter(|uid: &PatUid| uid.to_string() == id)?;
        self.service.item(uid)
    }

    fn view<'a>(&self, item: &'a Item) -> TokenView<'a> {
        TokenView::of(item, self.service.owner(&item.owner), self.family)
    }
}
