//! Tests of every response to Envoy, over an index in memory, and of the bytes of requests and responses.

use std::sync::Mutex;

use axum::body::to_bytes;
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::jiff::SignedDuration;
use prost::Message;
use serde_json::{Value as Json, json};
use tower::ServiceExt;

use super::{messages::ValueKind, *};
use crate::{
    api::Time,
    index::{Freshness, Index, IndexedPat, OwnerDescription},
    service::{Clock, http::MemoryBudget},
    token::Token,
    verifier::metrics::Metrics,
};

struct EnvoyFixture {
    index: Arc<Index>,
    now: Clock,
    freshness: Arc<Mutex<Freshness>>,
    router: Router,
}

impl EnvoyFixture {
    async fn new() -> Self {
        Self::with_memory(MemoryBudget::default()).await
    }

    /// Creates a fixture with this memory budget.
    async fn with_memory(memory: MemoryBudget) -> Self {
        let index = Arc::new(Index::default());
        let (now, _) = Clock::driven("2026-01-01T00:00:00Z".parse().unwrap());
        let freshness = Arc::new(Mutex::new(Freshness::Fresh));
        let current = Arc::clone(&freshness);
        let metrics = Arc::new(Metrics::default());
        let verifier = Verifier::new(Arc::clone(&index), move || *current.lock().unwrap(), now.clone(), metrics);
        let (_, health) = tonic_health::server::health_reporter();
        Self { index, now, freshness, router: router(Arc::new(verifier.with_memory(memory)), health) }
    }

    /// Puts a PAT with one token into the index.
    fn put(&self, spec: Json) -> String {
        let token = Token::from_parts(&Default::default(), "accessor0001".parse().unwrap(), &[1; 32]);
        let now: Time = self.now.now().into();
        let stored = json!({
            "metadata": {"namespace": "shop", "name": "app", "uid": "00000000-0000-4000-8000-000000000001"},
            "spec": spec,
            "status": {"credentials": [{
                "id": token.id().as_str(), "revision": 1, "sha256": token.hash().to_string(), "state": "Active",
                "issuedAt": now, "expiresAt": now.plus(SignedDuration::from_hours(1)),
            }]},
        });
        self.index.put(IndexedPat::read(&serde_json::from_value(stored).unwrap()).expect("a PAT"));
        token.expose().to_owned()
    }

    async fn ask(&self, extensions: &[(&str, &str)], headers: &[(&str, &[u8])]) -> CheckResponse {
        let question = CheckRequest {
            attributes: Some(messages::AttributeContext {
                request: Some(messages::AttributeRequest {
                    http: Some(messages::HttpRequest { headers: entries(headers), header_map: None }),
                }),
                context_extensions: entries(extensions),
            }),
        };
        self.send(&question.encode_to_vec()).await
    }

    /// Sends a message as gRPC does, and checks that gRPC says OK.
    async fn send(&self, message: &[u8]) -> CheckResponse {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let framed = [&[0][..], &length, message].concat();
        let request = Request::post(CHECK).header("content-type", "application/grpc").body(Body::from(framed)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let (head, body) = response.into_parts();
        let collected = http_body_util::BodyExt::collect(body).await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = trailers.get("grpc-status").or(head.headers.get("grpc-status")).expect("a status");
        assert_eq!(status, "0", "a gRPC error lets every request pass if Envoy fails open");
        CheckResponse::decode(&collected.to_bytes()[5..]).unwrap()
    }
}

fn entries<K: AsRef<[u8]>, V: AsRef<[u8]>>(from: &[(K, V)]) -> Vec<messages::MapEntry> {
    let copy = |text: &[u8]| prost::bytes::Bytes::copy_from_slice(text);
    from.iter()
        .map(|(key, value)| messages::MapEntry { key: copy(key.as_ref()), value: copy(value.as_ref()) })
        .collect()
}

fn header(headers: &[HeaderValueOption], name: &str) -> Option<String> {
    let mut found = headers.iter().filter(|one| one.header.as_ref().unwrap().key == name);
    let value = found.next()?.header.as_ref().unwrap().value.clone();
    assert!(found.next().is_none(), "{name} twice");
    Some(value)
}

/// Returns the HTTP status, the challenge and the body of a denial.
fn denial(response: &CheckResponse) -> (i32, Option<String>, &str) {
    assert_ne!(response.status.as_ref().unwrap().code, 0, "{response:?}");
    assert!(!format!("{response:?}").contains("kpat_"), "{response:?}");
    let Some(HttpResponse::Denied(denied)) = &response.http_response else { panic!("not denied: {response:?}") };
    assert_eq!(header(&denied.headers, "cache-control").as_deref(), Some("no-store"));
    (denied.status.as_ref().unwrap().code, header(&denied.headers, "www-authenticate"), &denied.body)
}

fn is_allowed(response: &CheckResponse) -> &OkHttpResponse {
    assert_eq!(response.status.as_ref().unwrap().code, 0, "{response:?}");
    match &response.http_response {
        Some(HttpResponse::Ok(ok)) => ok,
        other => panic!("not allowed: {other:?}"),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// The expected bytes come from types that `protoc` generates from Envoy's files (the crate envoy-types 0.7.7).
#[test]
fn messages_are_encoded_as_in_envoys_protobuf_files() {
    let question = bytes(
        "0a480a032201702232123012034745541a190a0d617574686f72697a6174696f6e1208426561726572207822042f613f626a080a060a016b\
         1a01ff520d0a0573636f7065120472656164",
    );
    let read = CheckRequest::decode(&*question).unwrap().attributes.unwrap();
    assert_eq!(read.context_extensions, entries(&[("scope", "read")]));
    let http = read.request.unwrap().http.unwrap();
    assert_eq!(http.headers, entries(&[("authorization", "Bearer x")]));
    let raw = &http.header_map.unwrap().headers[0];
    assert_eq!((&*raw.key, &*raw.value, &*raw.raw_value), (&b"k"[..], &b""[..], &b"\xff"[..]));

    let ok = CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::Ok(OkHttpResponse {
            headers: vec![HeaderValueOption::set("x", "")],
            headers_to_remove: vec!["authorization".to_owned()],
        })),
        dynamic_metadata: Some(Struct::from([("scopes", ["a".to_owned()].into_iter().collect())])),
    };
    let written =
        "0a001a1a12090a030a0178180220012a0d617574686f72697a6174696f6e22130a110a0673636f706573120732050a031a0161";
    assert_eq!(ok.encode_to_vec(), bytes(written));

    let no = CheckResponse {
        status: Some(RpcStatus { code: 7, message: "m".to_owned() }),
        http_response: Some(HttpResponse::Denied(DeniedHttpResponse {
            status: Some(HttpStatus { code: 403 }),
            headers: vec![HeaderValueOption::set("x", "y")],
            body: "b".to_owned(),
        })),
        dynamic_metadata: None,
    };
    assert_eq!(no.encode_to_vec(), bytes("0a05080712016d12160a03089303120c0a060a0178120179180220011a0162"));
}

#[tokio::test]
async fn an_accepted_token_sets_every_identity_header_and_metadata() {
    let fixture = EnvoyFixture::new().await;
    let token =
        fixture.put(json!({"scopes": ["read", "write"], "owner": {"kind": "User", "name": "jane@example.com"}}));
    let bearer = format!("bEaReR {token}");
    let headers = [("authorization", bearer.as_bytes()), ("x-auth-request-email", b"admin@example.com")];
    for (extensions, strip) in [
        (&[][..], false),
        (&[("scope", "read")][..], false),
        (&[("scope", "read write"), ("strip-authorization", "false")], false),
        (&[("scope", "read, write"), ("strip-authorization", "true")], true),
    ] {
        let response = fixture.ask(extensions, &headers).await;
        let ok = is_allowed(&response);
        for (name, value) in [
            ("x-auth-request-user", "jane@example.com"),
            ("x-auth-request-email", ""),
            ("x-auth-request-groups", ""),
            ("x-auth-request-preferred-username", ""),
            ("x-auth-request-access-token", ""),
            ("x-auth-request-scopes", "read write"),
            ("x-auth-request-token-id", "accessor0001"),
        ] {
            assert_eq!(header(&ok.headers, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(ok.headers.len(), proxy::IDENTITY_HEADERS.len());
        assert!(ok.headers.iter().all(|one| one.append_action == messages::OVERWRITE_IF_EXISTS_OR_ADD));
        assert!(ok.headers.iter().all(|one| one.keep_empty_value), "an empty header must reach the service");
        let removed = if strip { vec!["authorization".to_owned()] } else { vec![] };
        assert_eq!(ok.headers_to_remove, removed);
        let metadata = &response.dynamic_metadata.as_ref().unwrap().fields;
        let kind = |at: usize| (metadata[at].key.as_str(), metadata[at].value.clone().unwrap().kind.unwrap());
        assert_eq!(kind(0), ("id", ValueKind::String("accessor0001".to_owned())));
        assert_eq!(kind(1), ("owner", ValueKind::String("jane@example.com".to_owned())));
        let ("scopes", ValueKind::List(scopes)) = kind(2) else { panic!("{metadata:?}") };
        assert_eq!(scopes.values.len(), 2);
    }
}

#[tokio::test]
async fn denials_have_their_status_and_challenge() {
    let fixture = EnvoyFixture::new().await;
    let token = fixture.put(json!({"scopes": ["read"], "audiences": ["shop"]}));
    let bearer = format!("Bearer {token}");
    let twice = format!("Bearer {token},Bearer {token}");
    let unknown = Token::from_parts(&Default::default(), "accessor0002".parse().unwrap(), &[2; 32]);
    let unknown = format!("Bearer {}", unknown.expose());
    let mistyped = format!("{}!", &bearer[..bearer.len() - 1]);
    let shop = [("audience", "shop")];
    let realm = "Bearer realm=\"pat-operator\"";
    for (what, extensions, authorization, status, challenge) in [
        ("no credential", &shop[..], None, 401, realm.to_owned()),
        ("another scheme", &shop, Some("Digest a"), 401, realm.to_owned()),
        ("twice, as Envoy joins it", &shop, Some(&*twice), 400, format!("{realm}, error=\"invalid_request\"")),
        ("junk", &shop, Some(&*mistyped), 400, format!("{realm}, error=\"invalid_request\"")),
        ("unknown", &shop, Some(&*unknown), 401, format!("{realm}, error=\"invalid_token\"")),
        ("no audience", &[], Some(&*bearer), 401, format!("{realm}, error=\"invalid_token\"")),
        ("another audience", &[("audience", "x")], Some(&*bearer), 401, format!("{realm}, error=\"invalid_token\"")),
        (
            "missing scope",
            &[("audience", "shop"), ("scope", "read,write")],
            Some(&*bearer),
            403,
            format!("{realm}, error=\"insufficient_scope\", scope=\"read write\""),
        ),
    ] {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_bytes())).collect();
        let response = fixture.ask(extensions, &headers).await;
        let (code, header, body) = denial(&response);
        assert_eq!((code, header), (status, Some(challenge)), "{what}");
        assert!(body.ends_with('\n') && body.len() > 10, "{what}: {body}");
    }
    is_allowed(&fixture.ask(&shop, &[("authorization", bearer.as_bytes())]).await);
}

#[tokio::test]
async fn a_misconfigured_route_denies_every_request() {
    let fixture = EnvoyFixture::new().await;
    let bearer = format!("Bearer {}", fixture.put(json!({"scopes": ["read"]})));
    for extensions in [
        &[("scopes", "read")][..],
        &[("Scope", "read")],
        &[("scope", "read"), ("realm", "x")],
        &[("scope", "")],
        &[("scope", " , ")],
        &[("scope", "a\"b")],
        &[("audience", "")],
        &[("audience", "a"), ("audience", "b")],
        &[("strip-authorization", "yes")],
        &[("", "")],
    ] {
        let response = fixture.ask(extensions, &[("authorization", bearer.as_bytes())]).await;
        let (code, challenge, body) = denial(&response);
        assert_eq!((code, challenge), (403, None), "{extensions:?}");
        assert!(body.starts_with("the proxy is misconfigured: "), "{body}");
    }
    // A token in place of a key: neither the response nor the log may contain any of its secret.
    let token = bearer.trim_start_matches("Bearer ");
    let response = fixture.ask(&[(token, "read")], &[]).await;
    let message = response.status.unwrap().message;
    assert!(message.contains(&token[..14]) && !message.contains(&token[..15]), "{message}");
    let Some(HttpResponse::Denied(DeniedHttpResponse { body, .. })) = response.http_response else {
        panic!("{message}")
    };
    assert_eq!(body.trim_end(), message);
}

#[tokio::test]
async fn an_alias_of_an_identity_header_is_refused() {
    let fixture = EnvoyFixture::new().await;
    let bearer = format!("Bearer {}", fixture.put(json!({})));
    for name in ["x_auth_request_user", "X-Auth.Request-User", "x-auth-request_groups", "x-auth-request-access_token"] {
        let response = fixture.ask(&[], &[(name, b"admin"), ("authorization", bearer.as_bytes())]).await;
        assert_eq!(denial(&response).0, 403, "{name}");
    }
}

#[tokio::test]
async fn raw_headers_are_read_and_two_tokens_are_refused() {
    let fixture = EnvoyFixture::new().await;
    let bearer = prost::bytes::Bytes::from(format!("Bearer {}", fixture.put(json!({}))).into_bytes());
    let raw = |value: &prost::bytes::Bytes, raw_value: &prost::bytes::Bytes| messages::RawHeader {
        key: "Authorization".into(),
        value: value.clone(),
        raw_value: raw_value.clone(),
    };
    let ask = async |headers| {
        let http = messages::HttpRequest { headers: Vec::new(), header_map: Some(messages::RawHeaders { headers }) };
        let request = Some(messages::AttributeRequest { http: Some(http) });
        let attributes = Some(messages::AttributeContext { request, context_extensions: Vec::new() });
        fixture.send(&CheckRequest { attributes }.encode_to_vec()).await
    };
    let none = prost::bytes::Bytes::new();
    is_allowed(&ask(vec![raw(&none, &bearer)]).await);
    let padded = [b" ", &bearer[..], b" \t "].concat();
    is_allowed(&ask(vec![raw(&none, &padded.into())]).await);
    is_allowed(&ask(vec![raw(&bearer, &none)]).await);
    assert_eq!(denial(&ask(vec![raw(&none, &bearer), raw(&none, &bearer)]).await).0, 400);
    assert_eq!(denial(&ask(vec![raw(&none, &b"Bearer \xff\xfe"[..].into())]).await).0, 400);
}

#[tokio::test]
async fn an_unreadable_request_is_denied_without_a_grpc_error() {
    let fixture = EnvoyFixture::new().await;
    let bearer = format!("Bearer {}", fixture.put(json!({})));
    for message in [&b""[..], b"\xff\xff\xff", b"\x0a\x05"] {
        assert_eq!(denial(&fixture.send(message).await).0, 403, "{message:?}");
    }
    // A header that is not UTF-8 and not relevant.
    is_allowed(&fixture.ask(&[], &[("authorization", bearer.as_bytes()), ("x-name", b"J\xf6rg")]).await);
    assert_eq!(denial(&fixture.ask(&[], &[("authorization", b"Bearer \xff")]).await).0, 400);
}

#[tokio::test]
async fn without_a_current_index_the_denial_is_503() {
    let fixture = EnvoyFixture::new().await;
    let bearer = format!("Bearer {}", fixture.put(json!({})));
    for freshness in [Freshness::Starting, Freshness::Lost] {
        *fixture.freshness.lock().unwrap() = freshness;
        let response = fixture.ask(&[], &[("authorization", bearer.as_bytes())]).await;
        assert_eq!((denial(&response).0, denial(&response).1), (503, None));
        assert_eq!(response.status.unwrap().code, 14);
    }
}

#[tokio::test]
async fn a_disabled_owner_is_denied_and_an_enabled_one_has_address_and_groups() {
    let fixture = EnvoyFixture::new().await;
    let jane = json!({"kind": "User", "name": "jane"});
    let bearer = format!("Bearer {}", fixture.put(json!({"owner": jane})));
    let describe = |disabled: bool| {
        let spec = json!({"subject": jane, "disabled": disabled, "email": "j@example.com", "groups": ["a", "b"]});
        let stored = serde_json::from_value(json!({"metadata": {"name": "jane"}, "spec": spec})).unwrap();
        fixture.index.owners().put(OwnerDescription::read(&stored).unwrap());
    };
    describe(true);
    let response = fixture.ask(&[], &[("authorization", bearer.as_bytes())]).await;
    let (status, challenge, _) = denial(&response);
    assert!(status == 401 && challenge.unwrap().contains("invalid_token"));
    describe(false);
    let response = fixture.ask(&[], &[("authorization", bearer.as_bytes())]).await;
    let headers = &is_allowed(&response).headers;
    assert_eq!(header(headers, "x-auth-request-email").as_deref(), Some("j@example.com"));
    assert_eq!(header(headers, "x-auth-request-groups").as_deref(), Some("a,b"));
}

#[tokio::test]
async fn beyond_the_memory_budget_the_denial_is_503() {
    let fixture = EnvoyFixture::with_memory(MemoryBudget::of(MAX_MESSAGE + 10_000)).await;
    let bearer = format!("Bearer {}", fixture.put(json!({})));
    // A request that announces a large message reserves memory for all of it, before any data arrives.
    let slow = stream::iter([Ok::<_, std::io::Error>(vec![0, 0, 3, 0, 0])]).chain(stream::pending());
    let slow = Request::post(CHECK).header("content-type", "application/grpc").body(Body::from_stream(slow)).unwrap();
    let mut held = Box::pin(fixture.router.clone().oneshot(slow));
    assert!((&mut held).now_or_never().is_none());
    let large = "x".repeat(10_000);
    let ask =
        async |with: &str| fixture.ask(&[], &[("authorization", bearer.as_bytes()), ("x", with.as_bytes())]).await;
    let response = ask(&large).await;
    let Some(HttpResponse::Denied(denied)) = &response.http_response else { panic!("not denied: {response:?}") };
    assert_eq!((denial(&response).0, header(&denied.headers, "retry-after").as_deref()), (503, Some("1")));
    is_allowed(&ask("small").await);
    drop(held);
    is_allowed(&ask(&large).await);
}

#[tokio::test]
async fn other_methods_are_unimplemented() {
    let fixture = EnvoyFixture::new().await;
    let request = Request::post("/envoy.service.auth.v2.Authorization/Check").body(Body::empty()).unwrap();
    let response = fixture.router.clone().oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["grpc-status"].as_bytes()), (200, &b"12"[..]));
    assert!(to_bytes(response.into_body(), 1).await.unwrap().is_empty());
}

#[tokio::test]
async fn health_reports_whether_the_verifier_serves() {
    let (reporter, health) = tonic_health::server::health_reporter();
    let fixture = EnvoyFixture::new().await;
    let metrics = Arc::new(Metrics::default());
    let freshness = Arc::clone(&fixture.freshness);
    let verifier = Verifier::new(fixture.index, move || *freshness.lock().unwrap(), fixture.now, metrics);
    let verifier = Arc::new(verifier);
    let router = router(Arc::clone(&verifier), health);
    for (freshness, drains, status) in [
        (Freshness::Starting, false, 2),
        (Freshness::Fresh, false, 1),
        (Freshness::Stale, false, 1),
        (Freshness::Lost, false, 2),
        (Freshness::Fresh, true, 2),
    ] {
        *fixture.freshness.lock().unwrap() = freshness;
        if drains {
            verifier.drain();
        }
        report_health(&reporter, &verifier).await;
        for service in ["", SERVICE] {
            let asked = tonic_health::pb::HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
            let framed = [&[0, 0, 0, 0, u8::try_from(asked.len()).unwrap()][..], &asked].concat();
            let request = Request::post("/grpc.health.v1.Health/Check").header("content-type", "application/grpc");
            let response = router.clone().oneshot(request.body(Body::from(framed)).unwrap()).await.unwrap();
            let body = to_bytes(response.into_body(), 100).await.unwrap();
            let answer = tonic_health::pb::HealthCheckResponse::decode(&body[5..]).unwrap();
            assert_eq!(answer.status, status, "{freshness:?} {service:?}");
        }
    }
}
