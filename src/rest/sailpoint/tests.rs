//! The dialect over a world in memory, where nothing can be written: an order that is right ends with 503, and all others before.

mod changes;
mod errors;
mod lists;
mod orders;

use axum::{
    Extension, Router,
    body::Body,
    http::{Method, Request, Response, header},
};
use serde_json::Value;

use super::routes;
use crate::rest::{
    request_id::RequestId,
    world::{Known, World, send},
};

/// What every list and create of a version begins with.
const OLDER: [&str; 4] = [
    "/beta/personal-access-tokens",
    "/v3/personal-access-tokens",
    "/v2024/personal-access-tokens",
    "/v2025/personal-access-tokens",
];
const NEWER: &str = "/personal-access-tokens/v1";

/// The id of every request.
const TRACKING_ID: &str = "00000000000000000000000000000007";

/// The dialect over this world.
fn router(world: &World) -> Router {
    routes(world.service()).layer(Extension(RequestId(TRACKING_ID.into())))
}

/// Asks, as the owner of a token or as nobody, and reads the answer as JSON; `null` if it is empty.
async fn ask(
    router: &Router,
    caller: Option<&Known>,
    method: Method,
    path: &str,
    body: Option<(&str, &str)>,
) -> (Response<()>, Value) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(caller) = caller {
        request = request.header(header::AUTHORIZATION, caller.bearer());
    }
    if let Some((media_type, _)) = body {
        request = request.header(header::CONTENT_TYPE, media_type);
    }
    let request = request.body(Body::from(body.map_or(String::new(), |(_, body)| body.to_owned()))).unwrap();
    let (response, text) = send(router, request).await;
    let json =
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")) };
    (response, json)
}

async fn get(router: &Router, caller: &Known, path: &str) -> (u16, Value) {
    let (response, json) = ask(router, Some(caller), Method::GET, path, None).await;
    (response.status().as_u16(), json)
}

async fn post(router: &Router, caller: &Known, path: &str, body: &str) -> (u16, Value) {
    let (response, json) = ask(router, Some(caller), Method::POST, path, Some(("application/json", body))).await;
    (response.status().as_u16(), json)
}

async fn patch(router: &Router, caller: &Known, path: &str, body: &str) -> (u16, Value) {
    let body = Some(("application/json-patch+json", body));
    let (response, json) = ask(router, Some(caller), Method::PATCH, path, body).await;
    (response.status().as_u16(), json)
}

/// For tests that are not asynchronous themselves.
fn block_on<T>(doing: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(doing)
}

/// What exactly is wrong.
fn cause(error: &Value) -> &str {
    error["causes"][0]["text"].as_str().unwrap_or_else(|| panic!("{error} has a cause"))
}

/// The ids of a list, as the numbers that they are.
fn numbers(list: &Value) -> Vec<u128> {
    let items = list.as_array().unwrap_or_else(|| panic!("{list} is a list"));
    items.iter().map(|item| u128::from_str_radix(item["id"].as_str().unwrap(), 16).unwrap()).collect()
}
