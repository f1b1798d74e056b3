//! The scenario that each proxy must pass, and a test for each proxy.

use super::{
    ask::{Answer, ask},
    istio::Mesh,
    istio_objects::Workload,
    proxy::{Kind, Proxy},
    upstream::{Seen, Upstream},
    verifier::{OWNER, Running},
};
use crate::support::process::place::eventually;

/// The headers that tell an upstream about the caller.
pub const IDENTITY: [&str; 7] = [
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-auth-request-preferred-username",
    "x-auth-request-access-token",
    "x-auth-request-scopes",
    "x-auth-request-token-id",
];

#[tokio::test(flavor = "multi_thread")]
async fn nginx_admits_only_valid_tokens() {
    check_proxy(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traefik_admits_only_valid_tokens() {
    check_proxy(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_admits_only_valid_tokens() {
    check_proxy(Kind::Caddy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_over_http_admits_only_valid_tokens() {
    check_proxy(Kind::EnvoyHttp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_over_grpc_admits_only_valid_tokens() {
    check_proxy(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn istio_sidecar_admits_only_valid_tokens() {
    check_istio(Workload::Sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn istio_gateway_admits_only_valid_tokens() {
    check_istio(Workload::Gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_does_not_let_the_client_state_the_requirements() {
    let upstream = Upstream::start().await;
    let verifier = Running::start().await;
    let addrs = [verifier.verifier.http, verifier.verifier.grpc, upstream.addr];
    // Without a query of its own, Caddy passes on the client's.
    let bare = |text: String| text.replace("/auth/forward?scope=read", "/auth/forward");
    let Some(mut proxy) = Proxy::start_with(Kind::Caddy, addrs, bare).await else { return };
    let bearer = format!("Bearer {}", verifier.good.token);
    let good = [("Authorization", &*bearer)];
    proxy.answers(&good, |answer| answer.code == 200).await;
    for target in ["/?scope=read", "/orders?audience=x", "/?limit=3"] {
        let answer = ask(proxy.addr, target, &good, "").await.expect("the proxy answers");
        assert!(answer.code == 403 && Seen::of(&answer).is_none(), "{target}: {answer:?}");
        assert!(answer.body.contains("X-Forwarded-Uri"), "{answer:?}");
    }
    let _place = verifier.stop().await;
}

struct Stage {
    proxy: Proxy,
    verifier: Running,
}

impl Stage {
    /// Sends a request. Asserts that only a 200 comes from the upstream, and that no response contains a token.
    async fn ask(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let answer = ask(self.proxy.addr, target, headers, body).await.expect("the proxy answers");
        assert!(
            !answer.head.contains("kpat_") && !answer.body.contains("kpat_"),
            "the response contains a token: {answer:?}"
        );
        assert_eq!(Seen::of(&answer).is_some(), answer.code == 200, "{answer:?}");
        answer
    }

    async fn with(&self, authorization: &str) -> Answer {
        self.ask("/", &[("Authorization", authorization)], "").await
    }

    /// Asserts that the request is admitted, and that the upstream gets exactly the identity headers of the token.
    async fn assert_admitted(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Seen {
        let answer = self.ask(target, headers, body).await;
        let seen =
            Seen::of(&answer).unwrap_or_else(|| panic!("the request with {headers:?} is not admitted: {answer:?}"));
        let values = [OWNER, "", "", "", "", "read write", &self.verifier.good.id];
        for (name, value) in IDENTITY.into_iter().zip(values) {
            let got = seen.header(name);
            // nginx and Caddy pass on no empty headers, as the page says.
            let left_out = value.is_empty() && matches!(self.proxy.kind, Kind::Nginx | Kind::Caddy);
            let expected = if left_out { &[][..] } else { &[value] };
            assert_eq!(got, expected, "{name} in {}", seen.0);
        }
        assert!(seen.header("authorization").is_empty(), "the upstream must get no token: {}", seen.0);
        seen
    }
}

async fn check_proxy(kind: Kind) {
    let upstream = Upstream::start().await;
    let verifier = Running::start().await;
    let (http, grpc) = (verifier.verifier.http, verifier.verifier.grpc);
    let Some(proxy) = Proxy::start(kind, http, grpc, upstream.addr).await else { return };
    check_scenario(proxy, verifier).await;
}

async fn check_istio(workload: Workload) {
    let upstream = Upstream::start().await;
    let verifier = Running::start().await;
    let mesh = Mesh::start(verifier.place(), workload, verifier.verifier.http, upstream.addr).await;
    let Some(proxy) = mesh.proxy().await else { return };
    check_scenario(proxy, verifier).await;
}

async fn check_scenario(mut proxy: Proxy, verifier: Running) {
    let kind = proxy.kind;
    let bearer = format!("Bearer {}", verifier.good.token);
    let good = [("Authorization", &*bearer)];
    proxy.answers(&good, |answer| answer.code == 200).await;
    let stage = Stage { proxy, verifier };

    allows(&stage, &bearer).await;
    denies(&stage, kind).await;
    ignores_forged_headers(&stage, &bearer).await;
    refuses_two_credentials(&stage, &bearer).await;

    // Without a verifier, no request is admitted.
    let Stage { proxy, verifier } = stage;
    let _place = verifier.stop().await;
    for _ in 0..3 {
        let answer = ask(proxy.addr, "/", &good, "").await.expect("the proxy answers");
        assert!(answer.code >= 400 && Seen::of(&answer).is_none(), "without a verifier: {answer:?}");
    }
}

async fn allows(stage: &Stage, bearer: &str) {
    let seen = stage.assert_admitted("/orders?limit=3", &[("Authorization", bearer)], "").await;
    assert_eq!((&seen.0["method"], &seen.0["path"]), (&"GET".into(), &"/orders?limit=3".into()));
    let seen = stage.assert_admitted("/orders", &[("Authorization", bearer)], "three of them").await;
    assert_eq!((&seen.0["method"], &seen.0["body"]), (&"POST".into(), &"three of them".into()));
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let value = bearer.replacen("Bearer", scheme, 1);
        stage.assert_admitted("/", &[("aUTHORIZATION", &value)], "").await;
    }
    // The client's path does not change the requirements.
    for target in ["/scope=admin/-/", "/-/scope=admin/-/x?scope=admin&audience=x", "/?scope=admin"] {
        stage.assert_admitted(target, &[("Authorization", bearer)], "").await;
    }
}

async fn denies(stage: &Stage, kind: Kind) {
    let realm = "Bearer realm=\"pat-operator\"";
    let answer = stage.ask("/", &[], "").await;
    assert_eq!((answer.code, answer.header("www-authenticate")), (401, vec![realm]), "no credential: {answer:?}");
    let answer = stage.with("Digest username=\"jane\"").await;
    assert_eq!(answer.code, 401, "another scheme: {answer:?}");

    let verifier = &stage.verifier;
    let revoked = format!("Bearer {}", verifier.revoked.token);
    assert_eq!(stage.with(&revoked).await.code, 200, "not revoked yet");
    verifier.revoke().await;
    eventually("the revoked token is refused", async || stage.with(&revoked).await.code != 200).await;
    let invalid = format!("{realm}, error=\"invalid_token\"");
    for (what, credential) in
        [("expired", &verifier.expired), ("revoked", &verifier.revoked), ("unknown", &verifier.unknown)]
    {
        let answer = stage.with(&format!("Bearer {}", credential.token)).await;
        assert_eq!((answer.code, answer.header("www-authenticate")), (401, vec![&*invalid]), "{what}: {answer:?}");
    }
    let writes = format!("Bearer {}", verifier.writes.token);
    for target in
        ["/", "/scope=write/-/", "/-/scope=write/-/", "/?scope=write", "/../scope=write/-/", "/%2e%2e/scope=write/-/"]
    {
        let answer = stage.ask(target, &[("Authorization", &writes)], "").await;
        // nginx copies only the challenge of a 401.
        let has_reason = target != "/" || kind == Kind::Nginx || answer.head.contains("insufficient_scope");
        assert!(matches!(answer.code, 400 | 403 | 307) && has_reason, "missing scope at {target}: {answer:?}");
        assert!(target != "/" || answer.code == 403, "missing scope: {answer:?}");
    }
    for junk in ["Bearer", "Bearer ", "Bearer a b", "Bearer kpat_", "Basic", "Basic !!!"] {
        let answer = stage.with(junk).await;
        assert!(matches!(answer.code, 400 | 401), "{junk}: {answer:?}");
    }
}

/// Sends headers that only the verifier may set.
async fn ignores_forged_headers(stage: &Stage, bearer: &str) {
    let all = IDENTITY.join(", ");
    for names in [
        &["X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Scopes"][..],
        &["x-auth-request-user", "X-AUTH-REQUEST-EMAIL", "x-Auth-Request-groups", "x-auth-request-token-id"],
        &["X-Auth-Request-User", "X-Auth-Request-User", "X-Auth-Request-Groups", "X-Auth-Request-Groups"],
        &["X-Auth-Request-Preferred-Username", "X-Auth-Request-Access-Token", "x-auth-request-access-token"],
    ] {
        let mut headers = vec![("Authorization", bearer)];
        headers.extend(names.iter().map(|name| (*name, "admin")));
        stage.assert_admitted("/", &headers, "").await;
        headers.rotate_left(1);
        stage.assert_admitted("/", &headers, "").await;
        // Each proxy removes the headers that Connection names. It must not remove the verifier's headers.
        for named in [&*all, "close,X-Auth-Request-User,X-Auth-Request-Scopes,X-AUTH-REQUEST-TOKEN-ID"] {
            headers.push(("Connection", named));
            stage.assert_admitted("/", &headers, "").await;
            headers.pop();
            stage.assert_admitted("/", &[("Connection", named), ("Authorization", bearer)], "").await;
        }
        // If Connection also names the credential, the request may be refused. If it is admitted, the user must be right.
        headers.push(("Connection", "close, X-Auth-Request-User, X-Auth-Request-Groups, Authorization"));
        let answer = stage.ask("/", &headers, "").await;
        if let Some(seen) = Seen::of(&answer) {
            assert_eq!(seen.header("x-auth-request-user"), [OWNER], "named by Connection: {}", seen.0);
        }
    }
    for alias in [
        "X_Auth_Request_User",
        "x_auth_request_groups",
        "X-Auth_Request-User",
        "X.Auth.Request.User",
        "X-Auth-Request.Email",
        "X-Auth.Request_Groups",
        "X-Auth-Request-Access.Token",
    ] {
        let headers = [(alias, "admin"), ("Authorization", bearer), ("Connection", alias)];
        // The proxy may remove a header that Connection names before it asks the verifier. Then it must not reach the upstream either.
        for headers in [&headers[..2], &headers] {
            let answer = stage.ask("/", headers, "").await;
            let Some(seen) = Seen::of(&answer) else {
                assert!(matches!(answer.code, 400 | 403), "{alias}: {answer:?}");
                continue;
            };
            let forged = seen
                .headers()
                .into_iter()
                .any(|(name, value)| IDENTITY.contains(&&*name.replace(['_', '.'], "-")) && value == "admin");
            assert!(!forged, "{alias} reaches the upstream: {}", seen.0);
        }
    }
}

async fn refuses_two_credentials(stage: &Stage, bearer: &str) {
    let junk = "Bearer kpat_junk";
    for two in [[bearer, bearer], [bearer, junk], [junk, bearer], [bearer, "Basic YTpi"]] {
        let headers = two.map(|value| ("Authorization", value));
        let answer = stage.ask("/", &headers, "").await;
        assert!(matches!(answer.code, 400 | 401 | 403), "two credentials: {answer:?}");
        let answer = stage.with(&two.join(", ")).await;
        assert!(matches!(answer.code, 400 | 401 | 403), "joined by a comma: {answer:?}");
    }
}
