//! How soon the index of the verifier reflects changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use control_plane::{Component, ControlPlane, Identity, Options};
use kube::api::{DeleteParams, Patch, PatchParams};
use pat_operator::{
    api::{CredentialState, Time},
    token::Token,
};
use serde_json::json;

use crate::support::process::{
    place::{Place, eventually, in_seconds},
    verifier::VerifierProcess,
    wire::Wire,
};

/// Every replica must act on a revocation within this time.
pub const AT_ONCE: Duration = Duration::from_secs(1);

fn only(place: &Place) -> String {
    format!("--namespaces={}", place.name())
}

/// Issues tokens with a controller, which it then stops.
pub async fn issued(place: &Place, names: &[&str]) -> Vec<String> {
    let operator = place.operator().arg("--publish-lead=0s").start();
    let mut tokens = Vec::new();
    for name in names {
        place.apply(name, json!({"scopes": ["a"]})).await;
        tokens.push(place.ready(name).await);
    }
    operator.terminate().await;
    tokens
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_only_after_the_first_list() {
    let place = Place::new("ready").await;
    let token = issued(&place, &["app"]).await.remove(0);
    let wire = Wire::to(&place.access).await;
    wire.hold();
    let kubeconfig = wire.kubeconfig_for(&Identity::admin());
    let mut verifier = VerifierProcess::begin(&kubeconfig, &[&only(&place)]).await;
    wire.wait_until_held(1).await;
    let readiness = verifier.process.get("/readyz").await;
    assert_eq!(readiness.code, 503, "{}", readiness.body);
    assert!(readiness.body.contains("[-]index not ready: the first list is not complete\n"), "{}", readiness.body);
    assert!(readiness.body.contains("[+]freshness ok: starting\n"), "{}", readiness.body);
    assert_eq!(verifier.process.get("/livez").await.code, 200);
    assert_eq!(verifier.forward(&token, "").await, 403, "no decision is possible");
    assert_eq!(verifier.forward("kpat_junk", "").await, 401, "malformed text is refused without an index");
    wire.release_held();
    verifier.process.is_ready().await;
    assert_eq!(verifier.forward(&token, "scope=a").await, 200);
    assert_eq!(verifier.forward(&token, "scope=b").await, 403);
    let metrics = verifier.process.metrics().await;
    for (series, value) in [
        (r#"pat_operator_decisions_total{protocol="forward-auth",answer="unavailable",reason="Starting"}"#, 1.0),
        (r#"pat_operator_decisions_total{protocol="forward-auth",answer="deny",reason="Malformed"}"#, 1.0),
        (r#"pat_operator_decisions_total{protocol="forward-auth",answer="deny",reason="Scope"}"#, 1.0),
        (r#"pat_operator_decisions_total{protocol="forward-auth",answer="allow",reason="Good"}"#, 1.0),
        (r#"pat_operator_decision_duration_seconds_count{protocol="forward-auth"}"#, 4.0),
        (r#"pat_operator_watch_lists_total{kind="PersonalAccessToken"}"#, 1.0),
        ("pat_operator_index_credentials", 1.0),
        ("pat_operator_index_tokens", 1.0),
        ("pat_operator_index_staleness_seconds", 0.0),
    ] {
        assert_eq!(metrics.value(series), value, "{series}");
    }
    verifier.process.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_accepted_once_its_hash_is_published_in_any_state() {
    let place = Place::new("states").await;
    let verifier = VerifierProcess::start(&place.kubeconfig(), &[&only(&place)]).await;
    for state in [CredentialState::Pending, CredentialState::Active, CredentialState::Grace] {
        let (name, token) = (state.as_str().to_lowercase(), Token::mint(&Default::default()).expect("randomness"));
        place.apply(&name, json!({"scopes": ["a"]})).await;
        assert_eq!(verifier.forward(token.expose(), "").await, 401, "{state:?}: its hash is not published");
        let credential = json!({
            "id": token.id().to_string(), "revision": 1, "sha256": token.hash().to_string(), "state": state,
            "issuedAt": in_seconds(0),
        });
        let status = json!({"status": {"credentials": [credential]}});
        let published = place.pats().patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
        published.expect("a status");
        verifier.forwards(token.expose(), 200).await;
        assert_eq!(verifier.forward(token.expose(), "scope=b").await, 403, "{state:?}: for its own scopes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_controller_revocations_and_expiries_take_effect_at_once() {
    let place = Place::new("revoked").await;
    let names = ["flag", "time", "id", "deleted", "ending", "stays"];
    let tokens = issued(&place, &names).await;
    let (kubeconfig, only) = (place.kubeconfig(), only(&place));
    let start = || async { VerifierProcess::start(&kubeconfig, &[&only]).await };
    let replicas: [VerifierProcess; 2] = tokio::join!(start(), start()).into();
    for verifier in &replicas {
        for token in &tokens {
            assert_eq!(verifier.forward(token, "").await, 200);
        }
    }
    let refused = async |name: &str| {
        let token = &tokens[names.iter().position(|one| *one == name).unwrap()];
        for took in [replicas[0].forwards(token, 401).await, replicas[1].forwards(token, 401).await] {
            assert!(took < AT_ONCE, "{name}: {took:?}");
        }
    };
    place.apply("flag", json!({"scopes": ["a"], "revoked": true})).await;
    refused("flag").await;
    place.apply("time", json!({"scopes": ["a"], "revokeIfIssuedBefore": in_seconds(0)})).await;
    refused("time").await;
    let id = place.status("id").await.credentials[0].id.to_string();
    place.apply("id", json!({"scopes": ["a"], "revokedCredentials": [id]})).await;
    refused("id").await;
    place.pats().delete("deleted", &DeleteParams::default()).await.unwrap();
    refused("deleted").await;

    let end = in_seconds(3);
    place.apply("ending", json!({"scopes": ["a"], "expiry": {"at": end}})).await;
    let (token, end): (&str, Time) = (&tokens[4], end.parse().unwrap());
    for verifier in &replicas {
        verifier.forwards(token, 401).await;
        let late = Time::from(k8s_openapi::jiff::Timestamp::now()).since(end);
        assert!(!late.is_negative() && late.as_secs_f32() < 1.5, "{late}");
    }
    for verifier in &replicas {
        assert_eq!(verifier.forward(&tokens[5], "").await, 200);
    }
    for verifier in replicas {
        let ended = verifier.process.terminate().await;
        let log = ended.stderr.join("\n");
        assert!(log.contains(r#""reason":"Revoked""#) && log.contains(r#""reason":"Expired""#), "{log}");
        assert!(tokens.iter().all(|token| !log.contains(&token[token.len() - 49..])), "no token in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_when_etcd_and_the_api_server_restart() {
    let mut plane = ControlPlane::start(Options::default()).await.expect("a control plane");
    let place = Place::on(&plane.access(), "restart").await;
    crate::support::crd::install_crds(&place.client).await;
    let tokens = issued(&place, &["stays", "revoked", "deleted"]).await;
    let verifier = Arc::new(VerifierProcess::start(&place.kubeconfig(), &[&only(&place), "--log-level=debug"]).await);
    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking = tokio::spawn({
        let (verifier, token) = (verifier.clone(), tokens[0].clone());
        let (done, asked) = (done.clone(), asked.clone());
        async move {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(verifier.forward(&token, "").await, 200, "it is accepted all the time");
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    plane.kill(Component::ApiServer);
    plane.kill(Component::Etcd);
    plane.restart(Component::Etcd).await.expect("etcd is back");
    plane.restart(Component::ApiServer).await.expect("the API server is back");
    place.apply("revoked", json!({"scopes": ["a"], "revoked": true})).await;
    place.pats().delete("deleted", &DeleteParams::default()).await.unwrap();
    let new = issued(&place, &["new"]).await.remove(0);
    verifier.forwards(&new, 200).await;
    verifier.forwards(&tokens[1], 401).await;
    verifier.forwards(&tokens[2], 401).await;
    done.store(true, Ordering::Relaxed);
    asking.await.expect("no request was refused");
    assert!(asked.load(Ordering::Relaxed) > 100);
    let mut verifier = Arc::into_inner(verifier).expect("no other reference");
    let restarts = r#"pat_operator_watch_restarts_total{kind="PersonalAccessToken"}"#;
    assert!(verifier.process.metrics().await.value(restarts) >= 1.0);
    eventually("it is fresh", async || {
        verifier.process.get("/readyz?verbose").await.body.contains("[+]freshness ok: fresh\n")
    })
    .await;
    verifier.process.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_resource_version_causes_a_new_list_and_no_event_is_lost() {
    let mut plane = ControlPlane::start(Options::default()).await.expect("a control plane");
    let place = Place::on(&plane.access(), "gone").await;
    crate::support::crd::install_crds(&place.client).await;
    let tokens = issued(&place, &["stays", "revoked", "deleted"]).await;
    let mut verifier = VerifierProcess::start(&place.kubeconfig(), &[&only(&place), "--log-level=debug"]).await;
    let lists = r#"pat_operator_watch_lists_total{kind="PersonalAccessToken"}"#;
    assert_eq!(verifier.process.metrics().await.value(lists), 1.0);

    // While the verifier is paused, objects change, and the API server restarts with an empty watch cache.
    verifier.process.pause().await;
    plane.restart(Component::ApiServer).await.expect("the API server is back");
    place.apply("revoked", json!({"scopes": ["a"], "revoked": true})).await;
    place.pats().delete("deleted", &DeleteParams::default()).await.unwrap();
    let new = issued(&place, &["new"]).await.remove(0);
    plane.restart(Component::ApiServer).await.expect("the API server is back");
    verifier.process.resume();

    verifier.process.logs(&["too old resource version", "(410)"]).await;
    verifier.forwards(&new, 200).await;
    assert_eq!(verifier.forward(&tokens[0], "").await, 200);
    assert_eq!(verifier.forward(&tokens[1], "").await, 401);
    assert_eq!(verifier.forward(&tokens[2], "").await, 401);
    eventually("there is a second list", async || verifier.process.metrics().await.value(lists) == 2.0).await;
    verifier.process.terminate().await;
}
