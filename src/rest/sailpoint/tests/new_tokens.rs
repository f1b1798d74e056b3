//! Requests for new tokens.

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::{NEWER, OLDER, cause, post, router};
use crate::rest::{
    fixture::{NOW, RestFixture},
    model::CreateToken,
    sailpoint::{body, expiry::ExpiryPolicy},
};

const MANAGE: &str = "sp:my-personal-access-tokens:manage";

async fn parse(scopes: &[&str], policy: ExpiryPolicy, body: serde_json::Value) -> Result<CreateToken, String> {
    let mut fixture = RestFixture::new();
    let known = fixture.user("ann@example.com", "caller", scopes);
    let caller = fixture.service().caller(&known.headers()).await.unwrap();
    let now = NOW.parse().unwrap();
    body::create(body.to_string().as_bytes(), &caller, policy, now).map_err(|error| error.to_string())
}

#[tokio::test]
async fn older_versions_require_only_a_name() {
    let created = parse(&[MANAGE, "repo:read"], ExpiryPolicy::SixMonths, json!({"name": "ci", "unknown": {"a": 1}}))
        .await
        .unwrap();
    assert_eq!((created.display_name.as_str(), created.owner.text().as_str()), ("ci", "ann@example.com"));
    assert_eq!(created.scopes, [MANAGE, "repo:read"]);
    assert_eq!(created.access_token_validity, Some(SignedDuration::from_hours(12)));
    assert_eq!(created.expiry.at, Some("2026-12-01T12:00:00Z".parse().unwrap()));
}

#[tokio::test]
async fn every_field_is_parsed() {
    let body = json!({
        "name": "ci", "scope": ["repo:read", "repo:read"], "accessTokenValiditySeconds": 15,
        "expirationDate": "2026-06-02T00:00:00+02:00", "userAwareTokenNeverExpires": null,
    });
    for policy in [ExpiryPolicy::SixMonths, ExpiryPolicy::NeverIfAcknowledged] {
        let created = parse(&["repo:read"], policy, body.clone()).await.unwrap();
        assert_eq!(created.scopes, ["repo:read"]);
        assert_eq!(created.access_token_validity, Some(SignedDuration::from_secs(15)));
        assert_eq!(created.expiry.at, Some("2026-06-01T22:00:00Z".parse().unwrap()));
    }
    let never = json!({"name": "ci", "expirationDate": null, "userAwareTokenNeverExpires": true});
    let created = parse(&["repo:read"], ExpiryPolicy::NeverIfAcknowledged, never).await.unwrap();
    assert_eq!(created.expiry.never, Some(true));
}

#[tokio::test]
async fn absent_scope_or_all_scopes_means_the_callers_scopes() {
    for (scope, scopes) in [
        (json!(null), &["a", "b"][..]),
        (json!(["sp:scopes:all"]), &["a", "b"]),
        (json!(["a", "sp:scopes:all"]), &["a", "b"]),
        (json!(["b"]), &["b"]),
        (json!([]), &[]),
    ] {
        let created = parse(&["a", "b"], ExpiryPolicy::SixMonths, json!({"name": "ci", "scope": scope})).await.unwrap();
        assert_eq!(created.scopes, scopes, "{scope}");
    }
}

#[tokio::test]
async fn invalid_field_is_named() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("ann@example.com", "caller", &[MANAGE]);
    let router = router(&fixture);
    let validity = "accessTokenValiditySeconds: must be a whole number from 15 to 43200";
    let many = serde_json::to_string(&json!({"name": "a", "scope": vec!["a"; 65]})).unwrap();
    let deep = format!("{{\"name\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for (body, words) in [
        ("", "body: invalid JSON at line 1, column 0"),
        ("{", "body: invalid JSON at line 1, column 1"),
        ("[]", "body: must be an object such as {\"name\": \"ci\"}"),
        (r#"["ci", null, null, null, null]"#, "body: must be an object such as {\"name\": \"ci\"}"),
        ("\"ci\"", "body: must be an object such as {\"name\": \"ci\"}"),
        ("{}", "name: is required"),
        (r#"{"name": null}"#, "name: is required"),
        (r#"{"name": ""}"#, "name: must be a string that is not blank"),
        (r#"{"name": "  "}"#, "name: must be a string that is not blank"),
        (r#"{"name": 5}"#, "name: must be a string that is not blank"),
        (r#"{"name": "a", "scope": "b"}"#, "scope: must be a list of strings"),
        (r#"{"name": "a", "scope": ["b", 1]}"#, "scope[1]: must be a string"),
        (&many, "scope: must have at most 64 entries"),
        (r#"{"name": "a", "accessTokenValiditySeconds": 14}"#, validity),
        (r#"{"name": "a", "accessTokenValiditySeconds": 43201}"#, validity),
        (r#"{"name": "a", "accessTokenValiditySeconds": 60.5}"#, validity),
        (r#"{"name": "a", "accessTokenValiditySeconds": 1e9}"#, validity),
        (r#"{"name": "a", "accessTokenValiditySeconds": "60"}"#, validity),
        (r#"{"name": "a", "accessTokenValiditySeconds": true}"#, validity),
        (r#"{"name": "a", "expirationDate": 5}"#, "expirationDate: must be a string or null"),
        (r#"{"name": "a", "expirationDate": "2020-01-01"}"#, "expirationDate: must be in the future"),
        (r#"{"name": "a", "userAwareTokenNeverExpires": "true"}"#, "userAwareTokenNeverExpires: must be true or false"),
        (&deep, "body: invalid JSON at line 1, column 136"),
    ] {
        for base in OLDER.into_iter().chain([NEWER]) {
            let (status, error) = post(&router, &caller, base, body).await;
            assert_eq!((status, cause(&error)), (400, words), "{base} {body:.200}");
        }
    }
    let twice = r#"{"name": "a", "scope": [], "scope": ["sp:my-personal-access-tokens:manage"]}"#;
    let (status, error) = post(&router, &caller, NEWER, twice).await;
    assert_eq!((status, cause(&error)), (400, "scope: must not be set more than once"));
}

#[tokio::test]
async fn each_version_applies_its_expiry_policy() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("ann@example.com", "caller", &[MANAGE]);
    let router = router(&fixture);
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
async fn create_requires_the_permission_to_manage_own_or_all() {
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
        let mut fixture = RestFixture::new();
        let caller = fixture.user("ann@example.com", "caller", &[scope]);
        let router = router(&fixture);
        for base in OLDER {
            assert_eq!(post(&router, &caller, base, "{\"name\": \"a\"}").await.0, status, "{base} {scope}");
        }
    }
}

#[tokio::test]
async fn read_only_server_creates_nothing() {
    let mut fixture = RestFixture::new();
    fixture.config.read_only = true;
    let caller = fixture.user("ann@example.com", "caller", &[MANAGE]);
    let (status, error) = post(&router(&fixture), &caller, OLDER[1], "{\"name\": \"a\"}").await;
    assert_eq!((status, cause(&error)), (403, "this server is read-only"));
}
