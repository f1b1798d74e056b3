//! Orders for new tokens.

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::{NEWER, OLDER, cause, post, router};
use crate::rest::{
    order::Create,
    sailpoint::{create, family::Family},
    world::{NOW, World},
};

const MANAGE: &str = "sp:my-personal-access-tokens:manage";

async fn order(scopes: &[&str], family: Family, body: serde_json::Value) -> Result<Create, String> {
    let mut world = World::new();
    let known = world.user("ann@example.com", "caller", scopes);
    let caller = world.service().caller(&known.headers()).await.unwrap();
    let now = NOW.parse().unwrap();
    create::order(body.to_string().as_bytes(), &caller, family, now).map_err(|failure| failure.to_string())
}

#[tokio::test]
async fn a_name_is_enough_in_the_older_family_and_the_rest_has_defaults() {
    let order =
        order(&[MANAGE, "repo:read"], Family::HalfYear, json!({"name": "ci", "unknown": {"a": 1}})).await.unwrap();
    assert_eq!((order.display_name.as_str(), order.owner.text().as_str()), ("ci", "ann@example.com"));
    assert_eq!(order.scopes, [MANAGE, "repo:read"]);
    assert_eq!(order.access_token_validity, Some(SignedDuration::from_hours(12)));
    assert_eq!(order.expiry.at, Some("2026-12-01T12:00:00Z".parse().unwrap()));
}

#[tokio::test]
async fn every_field_of_the_request_becomes_one_of_the_order() {
    let body = json!({
        "name": "ci", "scope": ["repo:read", "repo:read"], "accessTokenValiditySeconds": 15,
        "expirationDate": "2026-06-02T00:00:00+02:00", "userAwareTokenNeverExpires": null,
    });
    for family in [Family::HalfYear, Family::Acknowledged] {
        let order = order(&["repo:read"], family, body.clone()).await.unwrap();
        assert_eq!(order.scopes, ["repo:read"]);
        assert_eq!(order.access_token_validity, Some(SignedDuration::from_secs(15)));
        assert_eq!(order.expiry.at, Some("2026-06-01T22:00:00Z".parse().unwrap()));
    }
    let never = json!({"name": "ci", "expirationDate": null, "userAwareTokenNeverExpires": true});
    let order = order(&["repo:read"], Family::Acknowledged, never).await.unwrap();
    assert_eq!(order.expiry.never, Some(true));
}

#[tokio::test]
async fn no_scope_and_the_scope_for_everything_are_what_the_caller_has_and_an_empty_list_is_nothing() {
    for (scope, scopes) in [
        (json!(null), &["a", "b"][..]),
        (json!(["sp:scopes:all"]), &["a", "b"]),
        (json!(["a", "sp:scopes:all"]), &["a", "b"]),
        (json!(["b"]), &["b"]),
        (json!([]), &[]),
    ] {
        let order = order(&["a", "b"], Family::HalfYear, json!({"name": "ci", "scope": scope})).await.unwrap();
        assert_eq!(order.scopes, scopes, "{scope}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_its_name() {
    let mut world = World::new();
    let caller = world.user("ann@example.com", "caller", &[MANAGE]);
    let router = router(&world);
    let validity = "accessTokenValiditySeconds: must be a whole number from 15 to 43200";
    let many = serde_json::to_string(&json!({"name": "a", "scope": vec!["a"; 65]})).unwrap();
    let deep = format!("{{\"name\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for (body, words) in [
        ("", "body: must be JSON, which it is not at line 1, column 0"),
        ("{", "body: must be JSON, which it is not at line 1, column 1"),
        ("[]", "body: must be an object such as {\"name\": \"ci\"}"),
        (r#"["ci", null, null, null, null]"#, "body: must be an object such as {\"name\": \"ci\"}"),
        ("\"ci\"", "body: must be an object such as {\"name\": \"ci\"}"),
        ("{}", "name: is required"),
        (r#"{"name": null}"#, "name: is required"),
        (r#"{"name": ""}"#, "name: must be a text that is not empty"),
        (r#"{"name": "  "}"#, "name: must be a text that is not empty"),
        (r#"{"name": 5}"#, "name: must be a text that is not empty"),
        (r#"{"name": "a", "scope": "b"}"#, "scope: must be a list of texts"),
        (r#"{"name": "a", "scope": ["b", 1]}"#, "scope[1]: must be a text"),
        (&many, "scope: must have at most 64 entries"),
        (r#"{"name": "a", "accessTokenValiditySeconds": 14}"#, validity),
        (r#"{"name": "a", "accessTokenValiditySeconds": 43201}"#, validity),
        (r#"{"name": "a", "accessTokenValiditySeconds": 60.5}"#, validity),
        (r#"{"name": "a", "accessTokenValiditySeconds": 1e9}"#, validity),
        (r#"{"name": "a", "accessTokenValiditySeconds": "60"}"#, validity),
        (r#"{"name": "a", "accessTokenValiditySeconds": true}"#, validity),
        (r#"{"name": "a", "expirationDate": 5}"#, "expirationDate: must be a text, or null"),
        (r#"{"name": "a", "expirationDate": "2020-01-01"}"#, "expirationDate: must be in the future"),
        (r#"{"name": "a", "userAwareTokenNeverExpires": "true"}"#, "userAwareTokenNeverExpires: must be true or false"),
        (&deep, "body: must be JSON, which it is not at line 1, column 136"),
    ] {
        for base in OLDER.into_iter().chain([NEWER]) {
            let (status, error) = post(&router, &caller, base, body).await;
            assert_eq!((status, cause(&error)), (400, words), "{base} {body:.200}");
        }
    }
    let twice = r#"{"name": "a", "scope": [], "scope": ["sp:my-personal-access-tokens:manage"]}"#;
    let (status, error) = post(&router, &caller, NEWER, twice).await;
    assert_eq!(status, 400);
    assert!(cause(&error).starts_with("body: duplicate field `scope`"), "{error}");
}

#[tokio::test]
async fn each_family_minds_its_own_rule_for_the_end() {
    let mut world = World::new();
    let caller = world.user("ann@example.com", "caller", &[MANAGE]);
    let router = router(&world);
    for (older, newer, body) in [
        (503, 400, json!({"name": "a"})),
        (503, 503, json!({"name": "a", "userAwareTokenNeverExpires": true})),
        (503, 503, json!({"name": "a", "expirationDate": "2026-07-01"})),
        (400, 503, json!({"name": "a", "expirationDate": "2027-07-01"})),
        (400, 400, json!({"name": "a", "expirationDate": "9999-12-31T23:59:59.999Z"})),
        (
            400,
            503,
            json!({"name": "a", "expirationDate": "9999-12-31T23:59:59.999Z", "userAwareTokenNeverExpires": true}),
        ),
        (503, 400, json!({"name": "a", "userAwareTokenNeverExpires": false})),
    ] {
        for base in OLDER {
            assert_eq!(post(&router, &caller, base, &body.to_string()).await.0, older, "{base} {body}");
        }
        assert_eq!(post(&router, &caller, NEWER, &body.to_string()).await.0, newer, "{body}");
    }
}

#[tokio::test]
async fn to_create_takes_the_right_to_manage_one_s_own_or_all() {
    for (scope, status) in [
        ("sp:my-personal-access-tokens:manage", 503),
        ("idn:my-personal-access-tokens:manage", 503),
        ("sp:all-personal-access-tokens:manage", 503),
        ("idn:all-personal-access-tokens:manage", 503),
        ("sp:my-personal-access-tokens:read", 403),
        ("sp:all-personal-access-tokens:read", 403),
        ("sp:managed-personal-access-tokens:manage", 403),
        ("other", 403),
    ] {
        let mut world = World::new();
        let caller = world.user("ann@example.com", "caller", &[scope]);
        let router = router(&world);
        for base in OLDER {
            assert_eq!(post(&router, &caller, base, "{\"name\": \"a\"}").await.0, status, "{base} {scope}");
        }
    }
}

#[tokio::test]
async fn a_server_that_only_reads_creates_nothing() {
    let mut world = World::new();
    world.settings.read_only = true;
    let caller = world.user("ann@example.com", "caller", &[MANAGE]);
    let (status, error) = post(&router(&world), &caller, OLDER[1], "{\"name\": \"a\"}").await;
    assert_eq!((status, cause(&error)), (403, "this server is read-only"));
}
