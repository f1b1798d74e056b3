//! The verifier without its API server or etcd.

use std::time::{Duration, Instant};

use control_plane::{Component, ControlPlane, Identity, Options};
use kube::Api;
use pat_operator::{
    api::StoredPat,
    index::{Freshness, IndexFreshness, freshness::probe},
    token::Token,
};
use serde_json::json;

use super::index::issued;
use crate::support::process::{SOON, place::Place, verifier::VerifierProcess, wire::Wire};

#[tokio::test(flavor = "multi_thread")]
async fn known_tokens_are_accepted_until_max_staleness() {
    let mut plane = ControlPlane::start(Options::default()).await.expect("a control plane");
    let place = Place::on(&plane.access(), "stale").await;
    crate::support::crd::install_crds(&place.client).await;
    let operator = place.operator().arg("--publish-lead=0s").start();
    place.apply("app", json!({})).await;
    let known = place.ready("app").await;
    place.apply("gone", json!({})).await;
    let gone = place.ready("gone").await;
    let only = format!("--namespaces={}", place.name());
    let mut verifier = VerifierProcess::start(&place.kubeconfig(), &[&only, "--max-staleness=6s"]).await;
    place.apply("gone", json!({"revoked": true})).await;
    verifier.forwards(&gone, 401).await;
    let token = Token::mint(&Default::default()).expect("randomness");
    let unknown = token.expose().to_owned();
    // The index is fresh, so an unknown token is invalid.
    verifier.forwards(&unknown, 401).await;

    plane.kill(Component::ApiServer);
    verifier.forwards(&unknown, 403).await;
    assert_eq!(verifier.forward(&known, "").await, 200, "known tokens are still accepted");
    assert_eq!(verifier.forward(&gone, "").await, 401, "revoked tokens are refused");
    assert_eq!(verifier.forward("kpat_junk", "").await, 401);
    let series = "pat_operator_index_staleness_seconds";
    assert!(verifier.process.metrics().await.value(series) > 0.0);

    let took = verifier.forwards(&known, 403).await;
    assert!(took < Duration::from_secs(12), "it fails closed after --max-staleness: {took:?}");
    assert_eq!(verifier.forward(&gone, "").await, 403);
    assert!(verifier.process.metrics().await.value(series) > 6.0);
    let readiness = verifier.process.get("/readyz").await;
    assert!(readiness.code == 503 && readiness.body.contains("[-]freshness not ready: lost\n"), "{}", readiness.body);

    plane.restart(Component::ApiServer).await.expect("the API server is back");
    verifier.forwards(&known, 200).await;
    verifier.forwards(&unknown, 401).await;
    verifier.process.is_ready().await;
    assert_eq!(verifier.process.metrics().await.value(series), 0.0);
    verifier.process.terminate().await;
    operator.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_without_etcd_makes_the_index_stale_and_then_lost() {
    let mut plane = ControlPlane::start(Options::default()).await.expect("a control plane");
    let client = plane.access().client().expect("a client");
    crate::support::crd::install_crds(&client).await;
    // This watch never breaks and always receives events, like a watch of another API server that still sends bookmarks.
    let pulse = IndexFreshness::new(1, Duration::from_secs(2));
    let heartbeat = pulse.heartbeat(0);
    let (probed, api) = (pulse.clone(), Api::<StoredPat>::all(client.clone()));
    let probing = tokio::spawn(async move { probe(api, &probed).await });
    let becomes = async |freshness: Freshness| {
        let began = Instant::now();
        loop {
            heartbeat.beat();
            if pulse.freshness() == freshness {
                return;
            }
            assert!(began.elapsed() < 2 * SOON, "it is {:?} and not {freshness:?} in time", pulse.freshness());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    becomes(Freshness::Fresh).await;
    plane.kill(Component::Etcd);
    becomes(Freshness::Stale).await;
    becomes(Freshness::Lost).await;
    let alive = hyper::Request::get("/livez/ping").body(Vec::new()).expect("a request");
    assert_eq!(client.request_text(alive).await.expect("the API server answers"), "ok");
    plane.restart(Component::Etcd).await.expect("etcd is back");
    becomes(Freshness::Fresh).await;
    probing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_unknown_tokens_are_unavailable_until_it_is_back() {
    let mut plane = ControlPlane::start(Options::default()).await.expect("a control plane");
    let place = Place::on(&plane.access(), "no-etcd").await;
    crate::support::crd::install_crds(&place.client).await;
    let known = issued(&place, &["app"]).await.remove(0);
    let mut verifier = VerifierProcess::start(&place.kubeconfig(), &["--max-staleness=1d"]).await;
    let unknown = Token::mint(&Default::default()).expect("randomness").expose().to_owned();
    verifier.forwards(&unknown, 401).await;
    plane.kill(Component::Etcd);
    verifier.forwards(&unknown, 403).await;
    assert_eq!(verifier.forward(&known, "").await, 200, "known tokens are still accepted");
    assert_eq!(verifier.process.get("/readyz").await.code, 200);
    plane.restart(Component::Etcd).await.expect("etcd is back");
    verifier.forwards(&unknown, 401).await;
    assert_eq!(verifier.forward(&known, "").await, 200);
    verifier.process.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_arrives_although_the_present_connections_are_dead() {
    let place = Place::new("half-open").await;
    let token = issued(&place, &["app"]).await.remove(0);
    let wire = Wire::to(&place.access).await;
    let only = format!("--namespaces={}", place.name());
    let verifier = VerifierProcess::start(&wire.kubeconfig_for(&Identity::admin()), &[&only]).await;
    verifier.forwards(&token, 200).await;
    wire.swallow_present_connections();
    place.apply("app", json!({"scopes": ["a"], "revoked": true})).await;
    // It takes up to 20 seconds, the deadline of a watch.
    verifier.forwards(&token, 401).await;
    verifier.process.terminate().await;
}
