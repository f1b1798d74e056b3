//! What OpenAPI 3.1 says of this API: one description of all dialects, served, and checked in as `docs/openapi.json`.
//!
//! Every dialect describes itself beside its code; here they come together. It must not know how anything is answered.

use axum::{Router, body::Bytes, http::StatusCode, routing::get};
use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        OpenApi as Document, Server,
        security::{ClientCredentials, Flow, HttpAuthScheme, HttpBuilder, OAuth2, Scopes, SecurityScheme},
    },
};

use super::{
    cryptlex,
    oauth::{self, OauthProblem, OauthToken},
    reply, sailpoint,
    server::{CRYPTLEX, SAILPOINT},
    truefoundry,
};

/// Where it is served.
pub const PATH: &str = "/openapi.json";

/// A personal access token, or an access token that was given for one, as `Authorization: Bearer`.
const BEARER: &str = "pat";

/// The access token that `/oauth/token` gives.
const OAUTH: &str = "oauth";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pat-operator",
        description = "Personal access tokens in the dialects of products whose clients are pointed here. Every token is a \
            PersonalAccessToken resource in the cluster as well."
    ),
    paths(description, token, token_below_sailpoint),
    components(schemas(OauthProblem)),
    tags((name = "pat-operator", description = "What is the same for all dialects"))
)]
struct Common;

/// All of it.
pub fn document() -> Document {
    let mut document = Common::openapi();
    for (mount, part) in parts() {
        document = document.nest(mount, part);
    }
    document.servers = Some(vec![Server::new("/")]);
    let components = document.components.get_or_insert_default();
    let bearer = "A personal access token, or an access token that was given for one";
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(bearer)).build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    let flow = Flow::ClientCredentials(ClientCredentials::new(oauth::PATH, Scopes::new()));
    components.add_security_scheme(OAUTH, SecurityScheme::OAuth2(OAuth2::new([flow])));
    document
}

/// The same as text, as it is checked in.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("texts as keys are JSON");
    text.push('\n');
    text
}

/// The endpoint. It needs no token: what is said here is known anyway.
pub fn routes() -> Router {
    let bytes = Bytes::from(text());
    Router::new().route(PATH, get(async move || reply::of_json(StatusCode::OK, bytes.into())))
}

/// The dialects, and where each is mounted.
fn parts() -> Vec<(&'static str, Document)> {
    vec![(SAILPOINT, sailpoint::openapi()), ("", truefoundry::openapi()), (CRYPTLEX, cryptlex::openapi())]
}

/// Describe this API
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "describe",
    tag = "pat-operator",
    responses((status = 200, description = "This description", body = Object, content_type = "application/json"))
)]
#[expect(dead_code, reason = "it is only described")]
fn description() {}

/// What is asked for. `client_id` and `client_secret` may come by Basic instead.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
struct OauthRequest {
    /// The one grant there is.
    #[schema(pattern = "^client_credentials$")]
    grant_type: String,
    /// The id of a personal access token.
    client_id: Option<String>,
    /// Its text.
    client_secret: Option<String>,
    /// Only these of its scopes, separated by spaces.
    scope: Option<String>,
}

/// What an exchange may meet.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
enum OauthFailures {
    /// A field is wrong, or the token does not have that scope
    #[response(status = 400)]
    Invalid(OauthProblem),
    /// They are not the id and the text of a live token
    #[response(status = 401, headers(("www-authenticate" = String, description = "`Basic`")))]
    Unauthenticated(OauthProblem),
    /// The body did not come in time, or the answer took too long
    #[response(status = 408)]
    TooSlow(OauthProblem),
    /// The body is larger than 64 KiB
    #[response(status = 413)]
    TooLarge(OauthProblem),
    /// The body is no form
    #[response(status = 415)]
    NoForm(OauthProblem),
    /// Too many requests of the same owner
    #[response(status = 429, headers(("retry-after" = u64, description = "When to come back, in seconds")))]
    TooMany(OauthProblem),
    /// Something broke here
    #[response(status = 500)]
    Internal(OauthProblem),
    /// Nobody can tell at the moment whether the token is good
    #[response(status = 503, headers(("retry-after" = u64, description = "When to come back, in seconds")))]
    Unavailable(OauthProblem),
}

/// Exchange a personal access token for an access token
#[utoipa::path(
    post,
    path = "/oauth/token",
    operation_id = "exchange",
    tag = "pat-operator",
    request_body(
        content((OauthRequest = "application/x-www-form-urlencoded"), (OauthRequest = "multipart/form-data")),
        description = "The id and the text of a personal access token"
    ),
    responses((status = 200, description = "An access token", body = OauthToken), OauthFailures)
)]
#[expect(dead_code, reason = "it is only described")]
fn token() {}

/// Exchange a personal access token for an access token, where SailPoint's clients look
#[utoipa::path(
    post,
    path = "/sailpoint/oauth/token",
    operation_id = "sailpointExchange",
    tag = "SailPoint",
    request_body(
        content((OauthRequest = "application/x-www-form-urlencoded"), (OauthRequest = "multipart/form-data")),
        description = "The id and the text of a personal access token"
    ),
    responses((status = 200, description = "An access token", body = OauthToken), OauthFailures)
)]
#[expect(dead_code, reason = "it is only described")]
fn token_below_sailpoint() {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    fn described() -> Value {
        serde_json::to_value(document()).unwrap()
    }

    /// Every operation: path, method, and what is said of it.
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
    fn no_dialect_takes_the_place_of_another() {
        let mut seen = BTreeMap::new();
        let common = [("", Common::openapi())];
        for (mount, part) in common.into_iter().chain(parts()) {
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
    fn all_that_is_referred_to_is_there() {
        let document = described();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_operation_tells_what_it_needs_and_what_may_go_wrong() {
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
            if !path.ends_with(oauth::PATH) {
                assert!(responses.contains_key("403"), "{what} has no 403");
                let schemes =
                    operation["security"].as_array().unwrap().iter().flat_map(|one| one.as_object().unwrap().keys());
                let schemes: Vec<_> = schemes.collect();
                assert!(schemes.contains(&&BEARER.to_owned()), "{what}: {schemes:?}");
                assert!(
                    schemes.iter().all(|one| document["components"]["securitySchemes"].get(one).is_some()),
                    "{what}"
                );
            }
            for (status, response) in responses.iter().filter(|(status, _)| !status.starts_with('2')) {
                assert!(
                    response["content"]["application/json"]["schema"].is_object(),
                    "{what}: {status} has no schema"
                );
            }
        }
    }
}
