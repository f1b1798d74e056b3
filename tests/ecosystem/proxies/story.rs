//! What every proxy must do, told once; and a test for each of them.

use super::{
    ask::{Answer, ask},
    istio::Mesh,
    istio_objects::Workload,
    proxy::{Kind, Proxy},
    upstream::{Seen, Upstream},
    verifier::{OWNER, Running},
};
use crate::support::process::place::eventually;

/// The headers that tell an upstream who it is.
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
async fn nginx_lets_in_who_may_and_nobody_else() {
    tell(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traefik_lets_in_who_may_and_nobody_else() {
    tell(Kind::Traefik).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_lets_in_who_may_and_nobody_else() {
    tell(Kind::Caddy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_over_http_lets_in_who_may_and_nobody_else() {
    tell(Kind::EnvoyHttp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_over_grpc_lets_in_who_may_and_nobody_else() {
    tell(Kind::EnvoyGrpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_of_istio_lets_in_who_may_and_nobody_else() {
    tell_of_istio(Workload::Sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_istio_lets_in_who_may_and_nobody_else() {
    tell_of_istio(Workload::Gateway).await;
}

struct Stage {
    proxy: Proxy,
    verifier: Running,
}

impl Stage {
    /// Asks the proxy; no answer but an echo may come from the upstream, and no token may be in any.
    async fn ask(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let answer = ask(self.proxy.addr, target, headers, body).await.expect("the proxy answers");
        assert!(!answer.head.contains("kpat_") && !answer.body.contains("kpat_"), "a token comes back: {answer:?}");
        assert_eq!(Seen::of(&answer).is_some(), answer.code == 200, "{answer:?}");
        answer
    }

    async fn with(&self, authorization: &str) -> Answer {
        self.ask("/", &[("Authorization", authorization)], "").await
    }

    /// Checks that this is let in, and that the upstream is told who it is and nothing else of the kind.
    async fn is_let_in(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Seen {
        let answer = self.ask(target, headers, body).await;
        let seen = Seen::of(&answer).unwrap_or_else(|| panic!("{headers:?} is not let in: {answer:?}"));
        let values = [OWNER, "", "", "", "", "read write", &self.verifier.good.id];
        for (name, value) in IDENTITY.into_iter().zip(values) {
            let got = seen.header(name);
            // These two pass no empty header on, as the document says.
            let left_out = value.is_empty() && matches!(self.proxy.kind, Kind::Nginx | Kind::Caddy);
            let expected = if left_out { &[][..] } else { &[value] };
            assert_eq!(got, expected, "{name} in {}", seen.0);
        }
        assert!(seen.header("authorization").is_empty(), "the upstream gets no token: {}", seen.0);
        seen
    }
}

async fn tell(kind: Kind) {
    let upstream = Upstream::start().await;
    let verifier = Running::start().await;
    let (http, grpc) = (verifier.verifier.http, verifier.verifier.grpc);
    let Some(proxy) = Proxy::start(kind, http, grpc, upstream.addr).await else { return };
    play(proxy, verifier).await;
}

async fn tell_of_istio(workload: Workload) {
    let upstream = Upstream::start().await;
    let verifier = Running::start().await;
    let mesh = Mesh::start(verifier.place(), workload, verifier.verifier.http, upstream.addr).await;
    let Some(proxy) = mesh.proxy().await else { return };
    play(proxy, verifier).await;
}

async fn play(mut proxy: Proxy, verifier: Running) {
    let kind = proxy.kind;
    let bearer = format!("Bearer {}", verifier.good.token);
    let good = [("Authorization", &*bearer)];
    proxy.answers(&good, |answer| answer.code == 200).await;
    let stage = Stage { proxy, verifier };

    allows(&stage, &bearer).await;
    denies(&stage, kind).await;
    is_not_fooled(&stage, &bearer).await;
    refuses_two_credentials(&stage, &bearer).await;

    // The verifier is gone, and takes nobody along.
    let Stage { proxy, verifier } = stage;
    let _place = verifier.stop().await;
    for _ in 0..3 {
        let answer = ask(proxy.addr, "/", &good, "").await.expect("the proxy answers");
        assert!(answer.code >= 400 && Seen::of(&answer).is_none(), "without a verifier: {answer:?}");
    }
}

async fn allows(stage: &Stage, bearer: &str) {
    let seen = stage.is_let_in("/orders?limit=3", &[("Authorization", bearer)], "").await;
    assert_eq!((&seen.0["method"], &seen.0["path"]), (&"GET".into(), &"/orders?limit=3".into()));
    let seen = stage.is_let_in("/orders", &[("Authorization", bearer)], "three of them").await;
    assert_eq!((&seen.0["method"], &seen.0["body"]), (&"POST".into(), &"three of them".into()));
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let value = bearer.replacen("Bearer", scheme, 1);
        stage.is_let_in("/", &[("aUTHORIZATION", &value)], "").await;
    }
    // The client's own path is nobody's requirement.
    for target in ["/scope=admin/-/", "/-/scope=admin/-/x?scope=admin&audience=x", "/?scope=admin"] {
        stage.is_let_in(target, &[("Authorization", bearer)], "").await;
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
        // nginx copies the challenge of 401 only.
        let told = target != "/" || kind == Kind::Nginx || answer.head.contains("insufficient_scope");
        assert!(matches!(answer.code, 400 | 403 | 307) && told, "missing scope at {target}: {answer:?}");
        assert!(target != "/" || answer.code == 403, "missing scope: {answer:?}");
    }
    for junk in ["Bearer", "Bearer ", "Bearer a b", "Bearer kpat_", "Basic", "Basic !!!"] {
        let answer = stage.with(junk).await;
        assert!(matches!(answer.code, 400 | 401), "{junk}: {answer:?}");
    }
}

/// What only the verifier may say, said by the client.
async fn is_not_fooled(stage: &Stage, bearer: &str) {
    let all = IDENTITY.join(", ");
    for names in [
        &["X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Scopes"][..],
        &["x-auth-request-user", "X-AUTH-REQUEST-EMAIL", "x-Auth-Request-groups", "x-auth-request-token-id"],
        &["X-Auth-Request-User", "X-Auth-Request-User", "X-Auth-Request-Groups", "X-Auth-Request-Groups"],
        &["X-Auth-Request-Preferred-Username", "X-Auth-Request-Access-Token", "x-auth-request-access-token"],
    ] {
        let mut headers = vec![("Authorization", bearer)];
        headers.extend(names.iter().map(|name| (*name, "admin")));
        stage.is_let_in("/", &headers, "").await;
        headers.rotate_left(1);
        stage.is_let_in("/", &headers, "").await;
        // A header that Connection names is one between neighbours, and goes at each proxy: ours must not.
        for named in [&*all, "close,X-Auth-Request-User,X-Auth-Request-Scopes,X-AUTH-REQUEST-TOKEN-ID"] {
            headers.push(("Connection", named));
            stage.is_let_in("/", &headers, "").await;
            headers.pop();
            stage.is_let_in("/", &[("Connection", named), ("Authorization", bearer)], "").await;
        }
        // The credential as well: then it may be refused, and is told as whose it is if not.
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
        // Named by Connection it may go before the verifier sees it; then it must not reach the upstream either.
        for headers in [&headers[..2], &headers] {
            let answer = stage.ask("/", headers, "").await;
            let Some(seen) = Seen::of(&answer) else {
                assert!(matches!(answer.code, 400 | 403), "{alias}: {answer:?}");
                continue;
            };
            let fooled = seen
                .headers()
                .into_iter()
                .any(|(name, value)| IDENTITY.contains(&&*name.replace(['_', '.'], "-")) && value == "admin");
            assert!(!fooled, "{alias} reaches the upstream: {}", seen.0);
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
