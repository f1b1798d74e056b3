//! The OpenAPI 3.1 description of all dialects, served and checked in as `docs/openapi.json`.
//!
//! Each dialect describes its operations at their handlers. The common parts are added here.

use axum::{Router, body::Bytes, http::StatusCode, response::Response, routing::get};
use utoipa::{
    OpenApi,
    openapi::{
        Content, HeaderBuilder, OpenApi as Document, Ref, ResponseBuilder, Server, Type,
        path::Operation,
        schema::{KnownFormat, ObjectBuilder, SchemaFormat},
        security::{ClientCredentials, Flow, HttpAuthScheme, HttpBuilder, OAuth2, Scopes, SecurityScheme},
    },
};

use super::{
    cryptlex,
    dialect::{CRYPTLEX, OAUTH_TOKEN, SAILPOINT},
    oauth::{self, OauthProblem},
    response, sailpoint, truefoundry,
};

/// The path of the description.
pub const PATH: &str = "/openapi.json";

/// The security scheme for `Authorization: Bearer`.
const BEARER: &str = "pat";

/// The security scheme for an access token of `/oauth/token`.
const OAUTH: &str = "oauth";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pat-operator",
        description = "Personal access tokens in the dialects of several products, for their existing clients. Every token is also a \
            PersonalAccessToken resource in the cluster."
    ),
    paths(describe, oauth::exchange),
    components(schemas(OauthProblem)),
    tags((name = "pat-operator", description = "Common to all dialects"))
)]
struct CommonOperations;

/// Returns the complete description.
pub fn document() -> Document {
    let mut document = common();
    for (mount, part) in parts() {
        document = document.nest(mount, part);
    }
    document.servers = Some(vec![Server::new("/")]);
    let components = document.components.get_or_insert_default();
    let bearer = "A personal access token, or an access token from /oauth/token";
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(bearer)).build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    let flow = Flow::ClientCredentials(ClientCredentials::new(OAUTH_TOKEN, Scopes::new()));
    components.add_security_scheme(OAUTH, SecurityScheme::OAuth2(OAuth2::new([flow])));
    document
}

/// Returns the text of `docs/openapi.json`.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("its keys are strings");
    text.push('\n');
    text
}

/// The endpoint. It needs no token: the description is public.
pub fn routes() -> Router {
    Router::new().route(PATH, get(describe))
}

/// Describe this API
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "describe",
    tag = "pat-operator",
    responses((status = 200, description = "This description", body = Object, content_type = "application/json"))
)]
async fn describe() -> Response {
    static TEXT: std::sync::LazyLock<Bytes> = std::sync::LazyLock::new(|| text().into());
    response::of_json(StatusCode::OK, TEXT.clone().into())
}

/// The base path of each dialect and its part of the description.
fn parts() -> [(&'static str, Document); 3] {
    let sailpoint_error = |status| match status {
        401 => Some("SailpointUnauthorized"),
        429 => Some("SailpointTooManyRequests"),
        _ => Some("SailpointError"),
    };
    [
        (SAILPOINT, with_errors(sailpoint::openapi(), &sailpoint_error)),
        ("", with_errors(truefoundry::openapi(), &|_| Some("TruefoundryError"))),
        (CRYPTLEX, with_errors(cryptlex::openapi(), &|_| Some("CryptlexError"))),
    ]
}

/// Returns the operations of no dialect, and the token endpoint below SailPoint's base path.
fn common() -> Document {
    let mut document = CommonOperations::openapi();
    let mut exchange = document.paths.paths[OAUTH_TOKEN].clone();
    add_errors(&mut exchange.post, "Basic", &|status| (status != 403).then_some("OauthProblem"));
    document.paths.paths.insert(OAUTH_TOKEN.to_owned(), exchange.clone());
    if let Some(operation) = &mut exchange.post {
        operation.operation_id = Some("sailpointExchange".to_owned());
        operation.tags = Some(vec!["SailPoint".to_owned()]);
        operation.summary.get_or_insert_default().push_str(" (for SailPoint's clients)");
    }
    document.paths.paths.insert(format!("{SAILPOINT}{}", OAUTH_TOKEN), exchange);
    document
}

/// Errors of every operation: status and description.
const ERRORS: [(u16, &str); 7] = [
    (400, "A parameter or field is invalid, or the request conflicts with the token's state"),
    (401, "The token is missing or invalid"),
    (403, "The token lacks a permission, or the server is read-only"),
    (408, "The body did not arrive in time, or the request timed out"),
    (429, "The owner of the token sends too many requests"),
    (500, "Internal error"),
    (503, "The request cannot be served at the moment"),
];

/// Further errors of operations with a body.
const BODY_ERRORS: [(u16, &str); 2] =
    [(413, "The body is larger than 64 KiB"), (415, "The body has another media type")];

/// Adds the errors of every operation to all operations of a dialect. `schema` names the schema of each status.
fn with_errors(mut document: Document, schema: &dyn Fn(u16) -> Option<&'static str>) -> Document {
    for path in document.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post, &mut path.patch, &mut path.delete] {
            add_errors(operation, "Bearer", schema);
        }
    }
    document
}

fn add_errors(operation: &mut Option<Operation>, challenge: &str, schema: &dyn Fn(u16) -> Option<&'static str>) {
    let Some(operation) = operation else { return };
    let body_errors = BODY_ERRORS.iter().filter(|_| operation.request_body.is_some());
    for (status, description) in ERRORS.iter().chain(body_errors) {
        let Some(schema) = schema(*status) else { continue };
        let content = Content::new(Some(Ref::from_schema_name(schema)));
        let mut response = ResponseBuilder::new().description(*description).content("application/json", content);
        let challenge = format!("`{challenge}`");
        let header = match status {
            401 => Some(("www-authenticate", Type::String, &*challenge)),
            429 | 503 => Some(("retry-after", Type::Integer, "When to retry, in seconds")),
            _ => None,
        };
        if let Some((name, kind, description)) = header {
            let is_number = matches!(kind, Type::Integer);
            let schema = ObjectBuilder::new().schema_type(kind);
            let schema = if is_number {
                schema.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64))).minimum(Some(0))
            } else {
                schema
            };
            let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
            response = response.header(name, header);
        }
        operation.responses.responses.insert(status.to_string(), response.build().into());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    fn described() -> Value {
        serde_json::to_value(document()).unwrap()
    }

    /// Every operation: path, method and description.
    fn operations(document: &Value) -> Vec<(String, String, Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter().filter(|(_, operation)| operation.is_object());
            methods.map(|(method, operation)| (path.clone(), method.clone(), operation.clone()))
        });
        operations.collect()
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    match value {
                        Value::String(reference) if key == "$ref" => _ = found.insert(reference.clone()),
                        value => references(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn dialects_do_not_overwrite_each_other() {
        let mut seen = BTreeMap::new();
        for (mount, part) in [("", common())].into_iter().chain(parts()) {
            let part = serde_json::to_value(part).unwrap();
            let schemas =
                part["components"]["schemas"].as_object().unwrap().keys().map(|name| format!("schema {name}"));
            let operations = operations(&part).into_iter().flat_map(|(path, method, operation)| {
                [format!("{method} {mount}{path}"), format!("id {}", operation["operationId"].as_str().unwrap())]
            });
            for name in schemas.chain(operations) {
                let before = seen.insert(name.clone(), mount);
                assert_eq!(before, None, "{name}");
            }
        }
    }

    #[test]
    fn all_references_exist() {
        let document = described();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_operation_describes_its_security_and_errors() {
        let document = described();
        assert_eq!(document["openapi"], "3.1.0");
        for (path, method, operation) in operations(&document) {
            if path == PATH {
                continue;
            }
            let what = format!("{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            for status in ["400", "401", "408", "429", "500", "503"] {
                assert!(responses.contains_key(status), "{what} has no {status}");
            }
            if operation.get("requestBody").is_some() {
                for status in ["413", "415"] {
                    assert!(responses.contains_key(status), "{what} has no {status}");
                }
            }
            if !path.ends_with(OAUTH_TOKEN) {
                assert!(responses.contains_key("403"), "{what} has no 403");
                let schemes =
                    operation["security"].as_array().unwrap().iter().flat_map(|one| one.as_object().unwrap().keys());
                let schemes: Vec<_> = schemes.collect();
                assert!(schemes.contains(&&BEARER.to_owned()), "{what}: {schemes:?}");
                let known = &document["components"]["securitySchemes"];
                assert!(schemes.iter().all(|one| known.get(one).is_some()), "{what}");
            }
            for (status, response) in responses.iter().filter(|(status, _)| !status.starts_with('2')) {
                let schema = &response["content"]["application/json"]["schema"];
                assert!(schema.is_object(), "{what}: {status} has no schema");
            }
        }
    }
}
