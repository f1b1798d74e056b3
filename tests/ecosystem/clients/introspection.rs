//! Introspection by its real callers: ServiceAccounts that a real API server authenticates, and third-party OAuth clients.

use std::sync::{Arc, Mutex};

use crate::support::{
    clients,
    process::place::{Place, eventually},
};
use axum::{
    body::{Body, to_bytes},
    http::{Request, header},
};
use control_plane::Identity;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    client::ClientBuilder,
};
use pat_operator::{
    api::Time,
    index::{Freshness, Index, IndexedPat},
    service::{Clock, HttpServer},
    token::Token,
    verifier::{Verifier, http, metrics::Metrics},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, util::MapRequestLayer};

/// A verifier with one PAT that may introspect and one that may not. It records requests to the API server.
struct IntrospectionFixture {
    protocols: http::VerifierService,
    requests: Arc<Mutex<Vec<String>>>,
    caller: Token,
    token: Token,
}

const CALLER: &str = "00000000-0000-4000-8000-000000000001";

impl IntrospectionFixture {
    fn new(client: Option<Client>, requests: Arc<Mutex<Vec<String>>>) -> Self {
        let index = Arc::new(Index::default());
        let mint = || Token::mint(&Default::default()).expect("randomness");
        let (caller, token) = (mint(), mint());
        index.put(pat(CALLER, &caller, json!({"scopes": ["introspect"]})));
        let spec = json!({"scopes": ["a", "b"], "owner": {"kind": "User", "name": "jane@example.com"}});
        index.put(pat("00000000-0000-4000-8000-000000000002", &token, spec));
        let verifier = Verifier::new(index, || Freshness::Fresh, Clock::system(), Arc::new(Metrics::default()));
        let protocols = http::VerifierService::new(Arc::new(verifier), http::HttpConfig::default(), client);
        Self { protocols, requests, caller, token }
    }

    /// Creates a fixture that calls the API server as the ServiceAccount `verifier`, with only the permissions it needs.
    async fn at(place: &Place) -> Self {
        may(place, "verifier", "system:auth-delegator").await;
        Self::as_account(place, "verifier")
    }

    fn as_account(place: &Place, account: &str) -> Self {
        let identity = Identity::service_account(place.name(), account);
        let config = place.access.config_for(&identity).expect("a configuration");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let layer = MapRequestLayer::new(move |request: Request<kube::client::Body>| {
            let resource = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            seen.lock().expect("not poisoned").push(resource);
            request
        });
        let client = ClientBuilder::try_from(config).expect("a client").with_layer(&layer).build();
        Self::new(Some(client), requests)
    }

    /// Introspects the other PAT with this bearer token.
    async fn ask(&self, bearer: &str) -> (u16, Value) {
        let request = Request::post("/oauth2/introspect")
            .header(header::AUTHORIZATION, format!("Bearer {bearer}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(format!("token={}", self.token.expose())))
            .expect("a request");
        let response = self.protocols.clone().oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    /// Returns the requests to the API server since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().expect("not poisoned"))
    }
}

fn pat(uid: &str, token: &Token, spec: Value) -> IndexedPat {
    let issued_at: Time = Clock::system().now().into();
    let stored = json!({
        "metadata": {"namespace": "shop", "name": "app", "uid": uid},
        "spec": spec,
        "status": {"credentials": [{
            "id": token.id().to_string(),
            "revision": 1,
            "sha256": token.hash().to_string(),
            "state": "Active",
            "issuedAt": issued_at,
        }]},
    });
    IndexedPat::read(&serde_json::from_value(stored).expect("an object")).expect("a PAT")
}

/// Creates a ServiceAccount.
async fn account(place: &Place, name: &str) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let api: Api<ServiceAccount> = Api::namespaced(place.client.clone(), place.name());
    api.patch(name, &PatchParams::apply("tests"), &Patch::Apply(&account)).await.expect("a ServiceAccount");
}

/// Returns a token of the ServiceAccount for these audiences.
async fn token_of(place: &Place, name: &str, audiences: &[&str]) -> String {
    let spec = TokenRequestSpec {
        audiences: Some(audiences.iter().map(|audience| (*audience).to_owned()).collect()),
        expiration_seconds: Some(600),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let api: Api<ServiceAccount> = Api::namespaced(place.client.clone(), place.name());
    let answer = api.create_token_request(name, &PostParams::default(), &request).await.expect("a token");
    answer.status.expect("a status").token.expect("its token")
}

/// Binds a ClusterRole to a ServiceAccount.
async fn may(place: &Place, account: &str, role: &str) {
    let name = format!("{}-{account}", place.name());
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": place.name()}],
    });
    let api: Api<ClusterRoleBinding> = Api::all(place.client.clone());
    api.patch(&name, &PatchParams::apply("tests"), &Patch::Apply(&binding)).await.expect("a binding");
}

/// Creates a ClusterRole with the permission to introspect, under a unique name.
async fn introspecting_role(place: &Place) -> String {
    let name = format!("{}-introspects", place.name());
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [{"apiGroups": ["pat-operator.io"], "resources": ["personalaccesstokens"], "verbs": ["introspect"]}],
    });
    let api: Api<ClusterRole> = Api::all(place.client.clone());
    api.patch(&name, &PatchParams::apply("tests"), &Patch::Apply(&role)).await.expect("a role");
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn permitted_service_account_introspects_and_is_reviewed_once() {
    let place = Place::new("introspects").await;
    let fixture = IntrospectionFixture::at(&place).await;
    account(&place, "shop").await;
    may(&place, "shop", &introspecting_role(&place).await).await;
    // RBAC takes a moment to be in force and refusals are cached, so each attempt uses another token.
    let mut bearer = String::new();
    eventually("the permissions are in force", async || {
        bearer = token_of(&place, "shop", &["pat-operator", "others"]).await;
        fixture.ask(&bearer).await.0 == 200
    })
    .await;
    fixture.asked();

    let (status, claims) = fixture.ask(&bearer).await;
    assert_eq!((status, &claims["active"], &claims["sub"]), (200, &json!(true), &json!("jane@example.com")));
    assert_eq!(fixture.asked(), [""; 0], "the result is cached");

    let another = token_of(&place, "shop", &["pat-operator"]).await;
    assert_eq!(fixture.ask(&another).await.0, 200);
    assert_eq!(fixture.asked(), ["tokenreviews", "subjectaccessreviews"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_without_permission_is_refused_from_the_cache() {
    let place = Place::new("introspects-not").await;
    let fixture = IntrospectionFixture::at(&place).await;
    let role = introspecting_role(&place).await;
    for name in ["without-right", "with-right"] {
        account(&place, name).await;
    }
    may(&place, "with-right", &role).await;
    eventually("the verifier may review", async || {
        fixture.ask(&token_of(&place, "with-right", &["pat-operator"]).await).await.0 == 200
    })
    .await;
    fixture.asked();

    // Every pod has a token for the API server's audience and sends it to others too.
    let (own, other) = (token_of(&place, "with-right", &[]).await, token_of(&place, "with-right", &["vault"]).await);
    let no_right = token_of(&place, "without-right", &["pat-operator"]).await;
    // Some bits of the last character are unused, so change another one.
    let (signed, signature) = no_right.rsplit_once('.').expect("a signature");
    let other_digit = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{signed}.{other_digit}{}", &signature[1..]);
    for (what, bearer, status, error, asked) in [
        // Its claims name other audiences, so it is not reviewed.
        ("the cluster's own audience", &own, 401, "invalid_client", &[][..]),
        ("another audience", &other, 401, "invalid_client", &[]),
        ("a broken signature", &forged, 401, "invalid_client", &["tokenreviews"]),
        ("no right", &no_right, 403, "insufficient_scope", &["tokenreviews", "subjectaccessreviews"]),
    ] {
        for asked in [asked, &[]] {
            let (got, body) = fixture.ask(bearer).await;
            assert_eq!((got, body["error"].as_str()), (status, Some(error)), "{what}");
            assert_eq!(body.get("active"), None);
            assert_eq!(fixture.asked(), asked, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_service_account_tokens_are_sent_to_the_api_server() {
    let place = Place::new("introspects-pats").await;
    let fixture = IntrospectionFixture::at(&place).await;
    let unknown = Token::mint(&Default::default()).expect("randomness");
    let good = fixture.caller.expose().to_owned();
    let mut mistyped = good.clone();
    mistyped.replace_range(20..21, if &good[20..21] == "a" { "b" } else { "a" });
    for (bearer, status) in [
        (&*good, 200),
        (fixture.token.expose(), 403),
        (unknown.expose(), 401),
        (&*mistyped, 401),
        (&good[..good.len() - 1], 401),
        ("opaque", 401),
        ("a.b", 401),
    ] {
        assert_eq!(fixture.ask(bearer).await.0, status);
    }
    assert_eq!(fixture.asked(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn verifier_without_permission_to_review_is_unavailable() {
    let place = Place::new("introspects-blind").await;
    account(&place, "shop").await;
    let fixture = IntrospectionFixture::as_account(&place, "nobody");
    let bearer = token_of(&place, "shop", &["pat-operator"]).await;
    for _ in 0..2 {
        let (status, body) = fixture.ask(&bearer).await;
        assert_eq!((status, body["error"].as_str()), (503, Some("temporarily_unavailable")));
        assert_eq!(fixture.asked(), ["tokenreviews"], "the error is not cached");
    }
    assert_eq!(fixture.ask(fixture.caller.expose()).await.0, 200, "PATs need no API server");
}

#[tokio::test(flavor = "multi_thread")]
async fn third_party_client_libraries_can_introspect() {
    let fixture = IntrospectionFixture::new(None, Arc::default());
    let server = HttpServer::bind("127.0.0.1:0".parse().expect("an address"), "tests", "--test").await.expect("a port");
    let (addr, stop) = (server.local_addr(), CancellationToken::new());
    let serving = tokio::spawn(server.serve(fixture.protocols.clone(), stop.clone()));
    let asked = |client_id: &str| {
        json!({
            "url": format!("http://{addr}/oauth2/introspect"),
            "issuer": format!("http://{addr}"),
            "client_id": client_id,
            "client_secret": fixture.caller.expose(),
            "tokens": [fixture.token.expose(), "unknown"],
        })
    };
    // Authlib and openid-client encode Basic differently: one without escapes, one with `_` and others percent-encoded.
    for script in ["introspect.py", "introspect.mjs"] {
        let by_uid = clients::run(script, &asked(&CALLER.replace('-', ""))).await;
        let by_another = clients::run(script, &asked("jane")).await;
        let (Some(by_uid), Some(by_another)) = (by_uid, by_another) else { continue };
        assert_eq!((&by_uid[0]["status"], &by_uid[0]["body"]["active"]), (&json!(200), &json!(true)), "{by_uid}");
        assert_eq!(by_uid[0]["body"]["scope"], "a b", "{script}");
        assert_eq!(by_uid[1], json!({"status": 200, "body": {"active": false}}), "{script}");
        let refused = [&by_another[0]["status"], &by_another[1]["status"]];
        assert_eq!(refused, [&json!(401); 2], "{script}: {by_another}");
    }
    stop.cancel();
    serving.await.expect("the server ends");
}
