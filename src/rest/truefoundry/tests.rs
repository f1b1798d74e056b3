//! The dialect over a fixture in memory, where nothing can be written: a permitted change ends with 503.

use std::num::NonZeroU32;

use axum::{
    body::Body,
    http::{Request, Response, header},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    index::Freshness,
    rest::{
        fixture::{NAMESPACE, NOW, RestFixture, TestToken, UNAUTHENTICATED, at, block_on, request, send},
        rate_limit::RateLimit,
    },
    token::Token,
};

const READ: &str = "sp:my-personal-access-tokens:read";
const MANAGE: &str = "idn:my-personal-access-tokens:manage";
const MANAGE_ALL: &str = "sp:all-personal-access-tokens:manage";

/// The dialect over a fixture.
struct TestApi(Router);

impl TestApi {
    fn over(fixture: &RestFixture) -> Self {
        Self(routes(fixture.service()))
    }

    async fn send(&self, request: Request<Body>) -> (Response<()>, Value) {
        let (response, body) = send(&self.0, request).await;
        (response, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body} is not JSON")))
    }

    async fn ask(&self, method: &str, path: &str, caller: &TestToken, body: Option<Value>) -> (u16, Value) {
        let (method, path) = (method.parse().unwrap(), format!("/api/svc/v1/{path}"));
        let body = body.map(|body| body.to_string());
        let body = body.as_deref().map(|body| ("application/json", body));
        let (response, body) = request(&self.0, Some(caller), method, &path, body).await;
        let status = response.status().as_u16();
        if status >= 400 {
            assert_eq!(body["statusCode"], status, "{body}");
            assert!(body["message"].is_string(), "{body}");
        }
        (status, body)
    }

    async fn get(&self, path: &str, caller: &TestToken) -> (u16, Value) {
        self.ask("GET", path, caller, None).await
    }

    async fn status(&self, method: &str, path: &str, caller: &TestToken, body: Option<Value>) -> u16 {
        self.ask(method, path, caller, body).await.0
    }

    async fn names(&self, query: &str, caller: &TestToken) -> Vec<String> {
        let (status, body) = self.get(&format!("personal-access-tokens{query}"), caller).await;
        assert_eq!(status, 200, "{body}");
        body["data"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn jane(fixture: &RestFixture) {
    fixture.owner(
        900,
        json!({
            "subject": {"kind": "User", "name": "jane"}, "email": "Jane@Example.com", "displayName": "Jane Doe",
            "groups": ["core"],
        }),
    );
}

#[tokio::test]
async fn token_has_every_field_that_a_published_client_needs() {
    let mut fixture = RestFixture::new();
    jane(&fixture);
    let target = json!({"type": "Email", "channel": "mail", "recipients": ["ops@example.com"]});
    let spec = json!({
        "owner": {"kind": "User", "name": "jane"}, "displayName": "ci", "scopes": [READ],
        "expiry": {"at": "2027-01-01T00:00:00Z"}, "rotation": {"interval": "30d"}, "gracePeriod": "36h",
        "permissions": [{"resourceFQN": "a:b", "resourceType": "cluster", "roleID": "admin"}], "notificationTarget": target,
    });
    let used = json!({"status": {
        "lastUsedAt": "2026-06-01T11:30:00Z", "secretName": "ci-token", "nextRotationAt": "2026-07-01T00:00:00Z",
    }});
    let known = fixture.pat(spec, used);

    let (status, body) = TestApi::over(&fixture).get("personal-access-tokens", &known).await;

    let (subject, target) = (
        PatUid::from(900).to_string(),
        json!({"type": "email", "notification_channel": "mail", "to_emails": ["ops@example.com"]}),
    );
    let id = known.token.id().to_string();
    let item = json!({
        "id": known.id.to_string(),
        "name": "ci",
        "type": "personal-access-token",
        "tenantName": NAMESPACE,
        "accountId": NAMESPACE,
        "manifest": {
            "name": "ci",
            "type": "virtual-account",
            "expiration_date": "2027-01-01T00:00:00Z",
            "permissions": [{"resource_fqn": "a:b", "resource_type": "cluster", "role_id": "admin"}],
            "auto_rotate": {"auto_rotate_interval": 30, "grace_period": 2, "notification_target": target},
            "notification_target": target,
            "secret_fqn": "team:ci-token",
            "token_type": "opaque",
        },
        "secret_fqn": "team:ci-token",
        "createdBySubject": {
            "subjectId": subject, "subjectType": "user", "subjectSlug": "Jane@Example.com", "subjectDisplayName": "Jane Doe",
        },
        "createdBy": subject,
        "createdAt": "2026-01-01T00:00:01Z",
        "updatedAt": "2026-01-01T00:00:01Z",
        "lastAccessedAt": "2026-06-01T11:30:00Z",
        "nextScheduledRotation": "2026-07-01T00:00:00Z",
        "isExpired": false,
        "jwtId": id,
        "jwts": [{
            "id": id, "subjectType": "user", "subjectId": subject, "metadata": {}, "expiry": "2027-01-01T00:00:00Z",
            "createdAt": "2026-06-01T11:00:00Z", "updatedAt": "2026-06-01T11:00:00Z", "tokenType": "opaque",
        }],
    });
    let page = json!({"data": [item], "pagination": {"total": 1, "offset": 0, "limit": 100}});
    assert_eq!((status, body), (200, page));
}

#[tokio::test]
async fn sparse_token_has_nulls_and_a_distant_expiry() {
    let mut fixture = RestFixture::new();
    let known = fixture.account("team/ci", "", &[READ]);
    let spec = json!({
        "owner": {"kind": "VirtualAccount", "name": "team/ci"}, "expiry": {"never": true}, "rotation": {"interval": "1h"},
        "notificationTarget": {"type": "Email"}, "secret": {"delivery": "Once"},
    });
    fixture.pat(spec, json!({"status": {"secretName": "s"}}));

    let (_, body) = TestApi::over(&fixture).get("personal-access-tokens?offset=1", &known).await;

    let item = &body["data"][0];
    assert_eq!(item["name"], "pat-2");
    let subject = json!({
        "subjectId": "va:team/ci", "subjectType": "serviceaccount", "subjectSlug": "team/ci", "subjectDisplayName": "team/ci",
    });
    assert_eq!(item["createdBySubject"], subject);
    let manifest = json!({
        "name": "pat-2", "type": "virtual-account", "expiration_date": null, "permissions": [],
        "auto_rotate": {
            "auto_rotate_interval": 1, "grace_period": 1,
            "notification_target": {"type": "email", "notification_channel": "", "to_emails": []},
        },
        "notification_target": {"type": "email", "notification_channel": "", "to_emails": []},
        "secret_fqn": null, "token_type": "opaque",
    });
    assert_eq!(item["manifest"], manifest);
    for field in ["secret_fqn", "lastAccessedAt", "nextScheduledRotation"] {
        assert!(item[field].is_null() && item.as_object().unwrap().contains_key(field), "{field}");
    }
    assert_eq!(item["jwts"][0]["expiry"], "9999-12-31T23:59:59.999Z");
    assert_eq!(body["data"][0]["manifest"]["auto_rotate"]["auto_rotate_interval"], 1);
}

#[tokio::test]
async fn only_live_credentials_are_shown_and_ended_tokens_are_expired() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("jane", "aaa", &[READ]);
    let owner = json!({"kind": "User", "name": "jane"});
    let ended = json!({"owner": owner, "displayName": "ended", "expiry": {"at": NOW}});
    fixture.pat(ended, json!({}));
    fixture.pat(json!({"owner": owner, "displayName": "revoked", "revoked": true}), json!({}));
    let credential = |id: &str, issued: &str, ends: Option<&str>| json!({"id": id, "revision": 1, "sha256": "ab".repeat(32), "state": "Grace", "issuedAt": issued, "expiresAt": ends});
    let spec = json!({
        "owner": owner, "displayName": "rotated", "revokedCredentials": ["000000000003"],
        "revokeIfIssuedBefore": "2026-05-01T00:00:00Z",
    });
    let credentials = [
        credential("000000000001", "2026-05-20T00:00:00Z", Some("2026-06-02T00:00:00Z")),
        credential("000000000002", "2026-05-10T00:00:00Z", Some(NOW)),
        credential("000000000003", "2026-05-09T00:00:00Z", None),
        credential("000000000004", "2026-04-01T00:00:00Z", None),
    ];
    fixture.pat(spec, json!({"status": {"credentials": credentials}}));

    let (_, body) = TestApi::over(&fixture).get("personal-access-tokens", &caller).await;

    let shown = |item: &Value| {
        let ids: Vec<_> = item["jwts"].as_array().unwrap().iter().map(|jwt| jwt["id"].as_str().unwrap()).collect();
        (item["name"].as_str().unwrap().to_owned(), item["isExpired"] == true, ids.join(","), item["jwtId"].clone())
    };
    let items: Vec<_> = body["data"].as_array().unwrap()[1..].iter().map(shown).collect();
    let expected = [
        ("ended".to_owned(), true, String::new(), Value::Null),
        ("revoked".to_owned(), true, String::new(), Value::Null),
        ("rotated".to_owned(), false, "000000000001".to_owned(), json!("000000000001")),
    ];
    assert_eq!(items, expected);
}

#[tokio::test]
async fn list_contains_the_requested_page_of_own_tokens() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("jane", "build-one", &[READ]);
    fixture.user("jane", "build-two", &[]);
    fixture.user("jane", "Deploy", &[]);
    fixture.user("john", "build-three", &[]);
    fixture.account("jane", "build-four", &[]);
    let api = TestApi::over(&fixture);

    assert_eq!(api.names("", &caller).await, ["build-one", "build-two", "Deploy"]);
    assert_eq!(api.names("?limit=1", &caller).await, ["build-one"]);
    assert_eq!(api.names("?limit=2&offset=1", &caller).await, ["build-two", "Deploy"]);
    assert_eq!(api.names("?nameSearchQuery=BUILD", &caller).await, ["build-one", "build-two"]);
    assert_eq!(api.names("?nameSearchQuery=deploy&limit=1000", &caller).await, ["Deploy"]);
    assert_eq!(api.names("?nameSearchQuery=", &caller).await.len(), 3);
    for offset in ["3", "4", "9007199254740991"] {
        let (status, body) = api.get(&format!("personal-access-tokens?offset={offset}"), &caller).await;
        let pagination = json!({"total": 3, "offset": offset.parse::<u64>().unwrap(), "limit": 100});
        assert_eq!((status, body), (200, json!({"data": [], "pagination": pagination})));
    }
    let (_, body) = api.get("personal-access-tokens?nameSearchQuery=two&limit=7", &caller).await;
    assert_eq!(body["pagination"], json!({"total": 1, "offset": 0, "limit": 7}));
}

#[tokio::test]
async fn invalid_parameter_is_named() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("jane", "ci", &[READ]);
    let api = TestApi::over(&fixture);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=1e9", "limit"),
        ("limit=1&limit=2", "limit"),
        ("offset=-1", "offset"),
        ("sort=name", "sort"),
    ] {
        let (status, body) = api.get(&format!("personal-access-tokens?{query}"), &caller).await;
        assert_eq!((status, &body["details"][0]["field"]), (400, &json!(field)), "{query}: {body}");
        assert_eq!(body["code"], "Invalid");
        assert!(body["message"].as_str().unwrap().starts_with(&format!("{field}: ")), "{body}");
    }
}

#[tokio::test]
async fn each_operation_requires_its_permission() {
    let mut fixture = RestFixture::new();
    jane(&fixture);
    fixture.owner(901, json!({"subject": {"kind": "VirtualAccount", "name": "team/ci"}, "email": "ci@example.com"}));
    let other = fixture.user("jane", "other", &[]);
    let foreign = other.id.to_string();
    let foreign_jwt = other.token.id().to_string();
    let scopes: [(&str, &[&str]); 6] = [
        ("none", &["repo:read"]),
        ("read", &[READ]),
        ("manage", &[MANAGE]),
        ("read-all", &["idn:all-personal-access-tokens:read"]),
        ("managed", &["sp:managed-personal-access-tokens:manage"]),
        ("manage-all", &[MANAGE_ALL]),
    ];
    // 503: permitted, but the fixture cannot write.
    let expected: [(&str, [u16; 6]); 11] = [
        ("list", [403, 200, 200, 200, 403, 200]),
        ("create", [403, 403, 503, 403, 403, 503]),
        ("for-user own", [403, 403, 503, 403, 403, 503]),
        ("for-user", [404, 404, 404, 404, 404, 503]),
        ("revoke own", [403, 403, 503, 403, 403, 503]),
        ("revoke", [404, 404, 404, 404, 404, 503]),
        ("delete own", [403, 403, 503, 403, 403, 503]),
        ("delete", [404, 404, 404, 404, 404, 503]),
        ("regenerate", [404, 404, 404, 404, 404, 503]),
        ("jwt own", [403, 403, 503, 403, 403, 503]),
        ("jwt", [404, 404, 404, 404, 404, 503]),
    ];
    for (column, (name, scopes)) in scopes.into_iter().enumerate() {
        let caller = fixture.account("team/ci", name, scopes);
        let api = TestApi::over(&fixture);
        let (own, own_jwt) = (caller.id.to_string(), caller.token.id().to_string());
        for (operation, statuses) in expected {
            let create = |email: &str| Some(json!({"name": "new-one", "userEmail": email}));
            let email = |email: &str| Some(json!({"email": email}));
            let (method, path, body) = match operation {
                "list" => ("GET", "personal-access-tokens".to_owned(), None),
                "create" => ("POST", "personal-access-tokens".to_owned(), Some(json!({"name": "new-one"}))),
                "for-user own" => ("POST", "personal-access-tokens/for-user".to_owned(), create("ci@example.com")),
                "for-user" => ("POST", "personal-access-tokens/for-user".to_owned(), create("jane@example.com")),
                "revoke own" => ("DELETE", "personal-access-tokens/revoke/all".to_owned(), email("CI@example.com")),
                "revoke" => ("DELETE", "personal-access-tokens/revoke/all".to_owned(), email("jane@example.com")),
                "delete own" => ("DELETE", format!("personal-access-tokens/{own}"), None),
                "delete" => ("DELETE", format!("personal-access-tokens/{foreign}"), None),
                "regenerate" => (
                    "POST",
                    format!("virtual-accounts/{foreign}/regenerate-token"),
                    Some(json!({"gracePeriodInMinutes": 5})),
                ),
                "jwt own" => ("DELETE", format!("virtual-accounts/{own}/jwt/{own_jwt}"), None),
                "jwt" => ("DELETE", format!("virtual-accounts/{foreign}/jwt/{foreign_jwt}"), None),
                other => panic!("{other} is not an operation"),
            };
            let status = api.status(method, &path, &caller, body).await;
            assert_eq!(status, statuses[column], "{operation} by {name}");
        }
    }
}

#[tokio::test]
async fn another_owners_token_looks_like_an_unknown_one() {
    let mut fixture = RestFixture::new();
    jane(&fixture);
    let caller = fixture.account("team/ci", "ci", &[MANAGE]);
    let other = fixture.user("jane", "other", &[]);
    let api = TestApi::over(&fixture);
    let body = || Some(json!({"gracePeriodInMinutes": 5}));
    let jwt = other.token.id();
    let there = [
        api.ask("DELETE", &format!("personal-access-tokens/{}", other.id), &caller, None).await,
        api.ask("POST", &format!("virtual-accounts/{}/regenerate-token", other.id), &caller, body()).await,
        api.ask("DELETE", &format!("virtual-accounts/{}/jwt/{jwt}", other.id), &caller, None).await,
        api.ask("DELETE", "personal-access-tokens/revoke/all", &caller, Some(json!({"email": "jane@example.com"})))
            .await,
    ];
    let not = PatUid::from(0xabc);
    let not_there = [
        api.ask("DELETE", &format!("personal-access-tokens/{not}"), &caller, None).await,
        api.ask("POST", &format!("virtual-accounts/{not}/regenerate-token"), &caller, body()).await,
        api.ask("DELETE", &format!("virtual-accounts/{not}/jwt/{jwt}"), &caller, None).await,
        api.ask("DELETE", "personal-access-tokens/revoke/all", &caller, Some(json!({"email": "nobody@example.com"})))
            .await,
    ];
    assert_eq!(there, not_there);
    assert_eq!(there[0], (404, json!({"statusCode": 404, "message": "token not found", "code": "NotFound"})));
    for path in ["personal-access-tokens/x", "personal-access-tokens/%ff", "personal-access-tokens/..%2f"] {
        assert_eq!(api.ask("DELETE", path, &caller, None).await, there[0], "{path}");
    }
}

#[tokio::test]
async fn only_a_live_credential_of_the_token_can_be_revoked() {
    let mut fixture = RestFixture::new();
    let caller = fixture.account("team/ci", "ci", &[MANAGE]);
    let second = fixture.account("team/ci", "second", &[]);
    let spec = json!({"owner": {"kind": "VirtualAccount", "name": "team/ci"}, "revoked": true});
    let dead = fixture.pat(spec, json!({}));
    let api = TestApi::over(&fixture);
    for (pat, jwt, status) in [
        (&second, second.token.id().to_string(), 503),
        (&second, caller.token.id().to_string(), 404),
        (&second, "short".to_owned(), 404),
        (&dead, dead.token.id().to_string(), 404),
    ] {
        let path = format!("virtual-accounts/{}/jwt/{jwt}", pat.id);
        assert_eq!(api.status("DELETE", &path, &caller, None).await, status, "{path}");
    }
}

#[tokio::test]
async fn email_must_belong_to_one_owner_and_ignores_case() {
    let mut fixture = RestFixture::new();
    jane(&fixture);
    for (uid, name) in [(910, "one"), (911, "two")] {
        let subject = json!({"kind": "User", "name": name});
        fixture.owner(uid, json!({"subject": subject, "email": "shared@example.com"}));
    }
    let caller = fixture.account("team/ci", "ci", &[MANAGE_ALL]);
    let api = TestApi::over(&fixture);
    for (email, status) in
        [("JANE@example.COM", 503), ("shared@example.com", 404), ("nobody@example.com", 404), ("jane", 404), ("", 404)]
    {
        let body = json!({"name": "new-one", "userEmail": email});
        let (answered, error) = api.ask("POST", "personal-access-tokens/for-user", &caller, Some(body)).await;
        assert_eq!(answered, status, "{email}");
        if status == 404 {
            let expected = json!({"statusCode": 404, "message": "no such user", "code": "NotFound"});
            assert_eq!(error, expected, "{email}");
        }
    }
    // Without tokens, nothing has to be written.
    let body = Some(json!({"email": "jane@example.com"}));
    assert_eq!(api.ask("DELETE", "personal-access-tokens/revoke/all", &caller, body).await, (200, json!({})));
}

#[tokio::test]
async fn users_token_cannot_create_tokens() {
    let mut fixture = RestFixture::new();
    jane(&fixture);
    let user = fixture.user("jane", "mine", &[MANAGE, MANAGE_ALL]);
    let api = TestApi::over(&fixture);
    let body = json!({"name": "new-one", "userEmail": "jane@example.com"});
    for path in ["personal-access-tokens", "personal-access-tokens/for-user"] {
        let (status, error) = api.ask("POST", path, &user, Some(body.clone())).await;
        assert_eq!((status, &error["code"]), (403, &json!("Forbidden")));
        assert!(error["message"].as_str().unwrap().contains("virtual account"), "{error}");
    }
    // Everything else is permitted.
    let own = format!("virtual-accounts/{}/regenerate-token", user.id);
    assert_eq!(api.status("POST", &own, &user, Some(json!({"gracePeriodInMinutes": 1}))).await, 503);
}

#[tokio::test]
async fn token_is_created_by_its_name_unless_it_exists() {
    let mut fixture = RestFixture::new();
    let caller = fixture.account("team/ci", "Robot 1", &[MANAGE]);
    let reader = fixture.account("team/ci", "reader", &[READ]);
    let user = fixture.user("jane", "mine", &[MANAGE]);
    fixture.account("team/cd", "of-another", &[]);
    let api = TestApi::over(&fixture);
    let named = |name: &str| format!("personal-access-tokens/{name}");
    for name in ["Robot%201", "reader"] {
        let (status, error) = api.get(&named(name), &caller).await;
        assert_eq!((status, &error["code"]), (409, &json!("Conflict")), "{name}: {error}");
        assert!(error["message"].as_str().unwrap().contains("its text was shown only once"), "{error}");
    }
    let head = Request::head(format!("/api/svc/v1/{}", named("new-one")));
    let head = head.header(header::AUTHORIZATION, caller.bearer()).body(Body::empty()).unwrap();
    let (response, _) = send(&api.0, head).await;
    assert_eq!((response.status().as_u16(), response.headers()[header::ALLOW].to_str().unwrap()), (405, "GET,DELETE"));
    // 503: it would be created, but the fixture cannot write.
    for (name, known, status) in [
        ("new-one", &caller, 503),
        ("of-another", &caller, 503),
        ("Robot%202", &caller, 400),
        ("x", &caller, 400),
        ("new-one", &reader, 403),
        ("new-one", &user, 403),
    ] {
        assert_eq!(api.get(&named(name), known).await.0, status, "{name}");
    }
}

#[tokio::test]
async fn new_token_has_the_callers_other_scopes_and_truefoundrys_prefix() {
    let mut fixture = RestFixture::new();
    jane(&fixture);
    let scopes = ["repo:read", MANAGE, MANAGE_ALL, "introspect", "sp:other", READ, "deploy"];
    let known = fixture.account("team/ci", "ci", &scopes);
    let service = fixture.service();
    let caller = service.caller(&known.headers()).await.unwrap();
    let wanted = |account: Option<&str>, team: Option<&str>| TruefoundryNewToken {
        name: "new-one".into(),
        user_email: None,
        expiry: Default::default(),
        account: account.map(str::to_owned),
        team: team.map(str::to_owned),
    };
    let jane = Owner { kind: OwnerKind::User, name: "jane".into() };
    let order = |account, team| create_request(&caller, service.owner(&jane), wanted(account, team), service.tenant());

    let made = order(None, None).unwrap();

    assert_eq!(made.scopes, ["repo:read", "sp:other", "deploy"]);
    assert_eq!(made.token_prefix.unwrap().as_str(), "tfy");
    assert_eq!((made.owner, made.display_name.as_str()), (jane.clone(), "new-one"));
    assert!(order(Some(NAMESPACE), Some("core")).is_ok());
    let field = |error| match error {
        RestError::Invalid { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(order(Some("elsewhere"), None).unwrap_err()), "accountName");
    assert_eq!(field(order(None, Some("sales")).unwrap_err()), "teamName");
}

#[tokio::test]
async fn invalid_body_has_its_status_and_code() {
    let mut fixture = RestFixture::new();
    let caller = fixture.account("team/ci", "ci", &[MANAGE_ALL]);
    let api = TestApi::over(&fixture);
    let post = |media_type: &str, body: String| {
        Request::post(TOKENS)
            .header(header::AUTHORIZATION, caller.bearer())
            .header(header::CONTENT_TYPE, media_type)
            .body(Body::from(body))
            .unwrap()
    };
    let good = json!({"name": "new-one"}).to_string();
    for (media_type, body, status, code) in [
        ("application/json", good.clone(), 503, "Unavailable"),
        ("application/json; charset=utf-8", good.clone(), 503, "Unavailable"),
        ("text/plain", good, 415, "InvalidBody"),
        ("application/json", format!("{{\"name\": \"{}\"}}", "a".repeat(65_536)), 413, "InvalidBody"),
        ("application/json", "{".to_owned(), 400, "Invalid"),
        ("application/json", "{\"name\": \"abc\", \"name\": \"abd\"}".to_owned(), 400, "Invalid"),
        ("application/json", "{\"name\": \"ab\"}".to_owned(), 400, "Invalid"),
        ("application/json", "{\"name\": \"abc\", \"expirationDate\": \"2020-01-01\"}".to_owned(), 400, "Invalid"),
    ] {
        let (response, error) = api.send(post(media_type, body)).await;
        assert_eq!((response.status().as_u16(), &error["code"]), (status, &json!(code)), "{error}");
        assert_eq!(error["statusCode"], status);
        assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503);
    }
}

#[tokio::test]
async fn missing_or_invalid_token_gets_401() {
    let mut fixture = RestFixture::new();
    let revoked = fixture.pat(json!({"scopes": [READ], "revoked": true}), json!({}));
    let for_others = fixture.pat(json!({"scopes": [READ], "audiences": ["git"]}), json!({}));
    let api = TestApi::over(&fixture);
    let unknown = format!("Bearer {}", Token::mint(&Default::default()).unwrap().expose());
    let basic = "Basic YTpi".to_owned();
    let error = json!({"statusCode": 401, "code": "Unauthenticated", "message": UNAUTHENTICATED});
    for authorization in [String::new(), basic, unknown, revoked.bearer(), for_others.bearer()] {
        for path in ["personal-access-tokens?limit=0", "session"] {
            let request = Request::get(format!("/api/svc/v1/{path}")).header(header::AUTHORIZATION, &authorization);
            let (response, body) = api.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!((response.status().as_u16(), &body), (401, &error));
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        }
    }
}

#[tokio::test]
async fn rate_limit_and_unverifiable_token_get_retry_after() {
    let mut fixture = RestFixture::new();
    let once = NonZeroU32::MIN;
    fixture.config.rate = RateLimit { per_second: once, burst: once };
    let (caller, second) = (fixture.user("jane", "ci", &[READ]), fixture.user("jane", "cd", &[READ]));
    let early = TestApi(routes(fixture.service_with(|| Freshness::Starting)));
    let api = TestApi::over(&fixture);
    let list = |known: &TestToken| {
        Request::get(TOKENS).header(header::AUTHORIZATION, known.bearer()).body(Body::empty()).unwrap()
    };

    let (response, error) = early.send(list(&caller)).await;
    assert_eq!((response.status().as_u16(), &error["code"]), (503, &json!("Unavailable")));
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");

    assert_eq!(api.send(list(&caller)).await.0.status(), 200);
    let (response, error) = api.send(list(&second)).await;
    assert_eq!((response.status().as_u16(), &error["statusCode"]), (429, &json!(429)));
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn read_only_server_only_reads() {
    let mut fixture = RestFixture::new();
    fixture.config.read_only = true;
    let caller = fixture.account("team/ci", "ci", &[MANAGE_ALL]);
    let api = TestApi::over(&fixture);
    assert_eq!(api.status("GET", "personal-access-tokens", &caller, None).await, 200);
    let own = format!("personal-access-tokens/{}", caller.id);
    assert_eq!(api.ask("DELETE", &own, &caller, None).await.0, 403);
    let (status, error) = api.ask("POST", "personal-access-tokens", &caller, Some(json!({"name": "abc"}))).await;
    assert_eq!((status, &error["code"]), (403, &json!("ReadOnly")));
}

#[tokio::test]
async fn session_shows_the_caller_to_any_live_token() {
    let mut fixture = RestFixture::new();
    jane(&fixture);
    let user = fixture.user("jane", "laptop", &[]);
    let account = fixture.account("team/ci", "robot", &["repo:read"]);
    let api = TestApi::over(&fixture);
    let subject = json!({
        "subjectId": PatUid::from(900).to_string(), "subjectType": "user", "subjectSlug": "Jane@Example.com",
        "subjectDisplayName": "Jane Doe", "subjectPatName": "laptop",
    });
    let session = json!({"user": {"email": "Jane@Example.com", "tenantName": NAMESPACE, "subject": subject}});
    assert_eq!(api.get("session", &user).await, (200, session));
    let (status, session) = api.get("session", &account).await;
    assert_eq!((status, &session["user"]["email"]), (200, &Value::Null));
    assert_eq!(session["user"]["subject"]["subjectPatName"], "robot");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_in_json() {
    let mut fixture = RestFixture::new();
    let caller = fixture.account("team/ci", "ci", &[MANAGE_ALL]);
    let api = TestApi::over(&fixture);
    for path in [
        "",
        "/",
        "/v1",
        "/v2/personal-access-tokens",
        "/v1/personal-access-tokens/",
        "/v1/personal-access-tokens/a/b",
        "/v1/virtual-accounts",
        "/v1/virtual-accounts/x/jwt",
        "/v1/%ff",
    ] {
        let request = Request::get(format!("/api/svc{path}")).body(Body::empty()).unwrap();
        let (response, error) = api.send(request).await;
        assert_eq!((response.status().as_u16(), &error["statusCode"]), (404, &json!(404)), "{path}: {error}");
    }
    for (method, path, allowed) in [
        ("PATCH", "personal-access-tokens", "GET,HEAD,POST"),
        ("GET", "personal-access-tokens/for-user", "POST"),
        ("POST", "personal-access-tokens/revoke/all", "DELETE"),
        ("PUT", "personal-access-tokens/x", "GET,HEAD,DELETE"),
        ("GET", "virtual-accounts/x/regenerate-token", "POST"),
        ("GET", "virtual-accounts/x/jwt/y", "DELETE"),
        ("POST", "session", "GET,HEAD"),
    ] {
        let request = Request::builder().method(method).uri(format!("/api/svc/v1/{path}"));
        let request = request.header(header::AUTHORIZATION, caller.bearer()).body(Body::empty()).unwrap();
        let (response, error) = api.send(request).await;
        assert_eq!((response.status().as_u16(), &error["statusCode"]), (405, &json!(405)), "{method} {path}");
        assert_eq!(response.headers()[header::ALLOW], allowed, "{method} {path}");
    }
}

#[test]
fn every_path_is_described_with_the_dialects_errors() {
    let description = serde_json::to_value(crate::rest::openapi::document()).unwrap();
    let paths = description["paths"].as_object().unwrap();
    let operations: Vec<_> = paths
        .iter()
        .filter(|(path, _)| path.starts_with("/api/svc/"))
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(move |(method, about)| (path, method, about))
        })
        .collect();
    assert_eq!(operations.len(), 9);
    for (path, method, about) in operations {
        assert!(path.starts_with("/api/svc/v1/"), "{path}");
        assert!(about["operationId"].as_str().unwrap().starts_with("truefoundry"), "{method} {path}");
        for status in ["401", "403", "429", "500", "503"] {
            let schema = &about["responses"][status]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/TruefoundryError", "{status} of {method} {path}");
        }
    }
}

/// Name, description, second of creation, and whether it is the caller's. Names overlap, and there are ties.
type TruefoundrySample = (String, Option<String>, u8, bool);

fn made() -> impl Strategy<Value = Vec<TruefoundrySample>> {
    let one = ("[abAB]{1,4}", proptest::option::of("[abAB]{1,2}"), 0_u8..4, proptest::bool::weighted(0.7));
    proptest::collection::vec(one, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn pages_together_are_the_matching_tokens_in_order(
        made in made(),
        limit in 1_usize..12,
        search in proptest::option::of("[abAB]{0,2}"),
        right in proptest::sample::select(vec![READ, MANAGE, MANAGE_ALL]),
        is_user in proptest::bool::ANY,
    ) {
        let mut fixture = RestFixture::new();
        let caller = if is_user { fixture.user("jane", "first", &[right]) } else { fixture.account("jane", "first", &[right]) };
        let owner = |kind: &str, name: &str| json!({"kind": kind, "name": name});
        let [own, other] = if is_user { ["User", "VirtualAccount"] } else { ["VirtualAccount", "User"] };
        let created = |second: u8| format!("2026-01-01T00:00:0{second}Z");
        // The caller's token is the first in its second.
        let mut expected = vec![(1, format!("{:032x}", 1), "first".to_owned())];
        for (number, (name, description, second, is_own)) in (2_u128..).zip(&made) {
            // Ids have another order than creations. An owner of the other kind has the same name.
            let uid = u128::MAX - number;
            let owner = if *is_own { owner(own, "jane") } else { owner(other, "jane") };
            let spec = json!({"owner": owner, "displayName": name, "description": description});
            let metadata = json!({"uid": PatUid::from(uid).hyphenated(), "creationTimestamp": created(*second)});
            fixture.pat(spec, json!({"metadata": metadata}));
            if *is_own {
                expected.push((*second, format!("{uid:032x}"), name.clone()));
            }
        }
        let part = search.as_deref().unwrap_or_default().to_lowercase();
        expected.retain(|(_, _, name)| name.to_lowercase().contains(&part));
        expected.sort();
        let expected: Vec<_> = expected.into_iter().map(|(second, id, name)| (at(&created(second)), id, name)).collect();
        let api = TestApi::over(&fixture);
        let pages = block_on(async {
            let mut all = Vec::new();
            loop {
                let part = search.as_ref().map(|part| format!("&nameSearchQuery={part}")).unwrap_or_default();
                let path = format!("personal-access-tokens?limit={limit}&offset={}{part}", all.len());
                let (status, body) = api.get(&path, &caller).await;
                assert_eq!(status, 200, "{body}");
                assert_eq!(body["pagination"]["total"], expected.len());
                // Like the client, stop at an empty page.
                let page = body["data"].as_array().unwrap();
                if page.is_empty() {
                    return all;
                }
                assert!(page.len() <= limit);
                let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
                all.extend(page.iter().map(|item| (at(&text(item, "createdAt")), text(item, "id"), text(item, "name"))));
            }
        });
        prop_assert_eq!(pages, expected);
    }
}
