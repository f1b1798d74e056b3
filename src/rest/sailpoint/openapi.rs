//! The description of this dialect, from what stands at its handlers: once for each version.

use utoipa::{OpenApi, openapi::path::Operation};

use super::{
    TOKENS, V1, VERSIONS, handlers,
    refusal::{ErrorView, MessageView, TooManyRequestsView, UnauthorizedView},
};

#[derive(OpenApi)]
#[openapi(
    paths(handlers::list, handlers::create, handlers::change, handlers::delete),
    components(schemas(ErrorView, MessageView, TooManyRequestsView, UnauthorizedView))
)]
struct Tokens;

#[derive(OpenApi)]
#[openapi(paths(handlers::bulk_update, handlers::bulk_update_by_post))]
struct Bulk;

/// How any operation may be refused.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub(super) enum Refusals {
    /// The request is wrong, or cannot be done as things stand
    #[response(status = 400)]
    Invalid(ErrorView),
    /// No token, or none that is accepted
    #[response(status = 401, headers(("www-authenticate" = String, description = "`Bearer`")))]
    Unauthenticated(UnauthorizedView),
    /// The token lacks a right or a scope, or this server is read-only
    #[response(status = 403)]
    Forbidden(ErrorView),
    /// The body did not come in time, or the answer took too long
    #[response(status = 408)]
    TooSlow(ErrorView),
    /// Too many requests of the same owner
    #[response(status = 429, headers(("retry-after" = u64, description = "When to come back, in seconds")))]
    TooMany(TooManyRequestsView),
    /// Something broke here
    #[response(status = 500)]
    Internal(ErrorView),
    /// It cannot be answered at the moment
    #[response(status = 503, headers(("retry-after" = u64, description = "When to come back, in seconds")))]
    Unavailable(ErrorView),
}

/// How an operation may be refused that has a body.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub(super) enum BodyRefusals {
    /// The body is larger than 64 KiB
    #[response(status = 413)]
    TooLarge(ErrorView),
    /// The body is of another media type
    #[response(status = 415)]
    MediaType(ErrorView),
}

/// There is no such token, or none that the caller may know of
#[derive(utoipa::IntoResponses)]
#[response(status = 404)]
#[expect(dead_code, reason = "it is only described")]
pub(super) struct NoSuchToken(ErrorView);

/// The description, without what the dialect is mounted under.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut all = utoipa::openapi::OpenApi::default();
    for version in VERSIONS {
        all = all.nest(format!("{version}{TOKENS}"), named(Tokens::openapi(), &version[1..]));
    }
    all.nest(V1, named(Tokens::openapi(), "v1")).nest(V1, named(Bulk::openapi(), "v1"))
}

/// The same, with ids of operations that no other version has: `sailpointV3List`.
fn named(mut api: utoipa::openapi::OpenApi, version: &str) -> utoipa::openapi::OpenApi {
    for path in api.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.post, &mut path.patch, &mut path.delete];
        for operation in operations.into_iter().flatten() {
            rename(operation, version);
        }
    }
    api
}

fn rename(operation: &mut Operation, version: &str) {
    operation.operation_id =
        operation.operation_id.take().map(|id| format!("sailpoint{}{}", capital(version), capital(&id)));
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    format!("{}{rest}", first.to_uppercase())
}
