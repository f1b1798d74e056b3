//! What a verifier does while nothing is to be heard from the API server.

use std::time::Duration;

use control_plane::{Component, ControlPlane, Options};
use pat_operator::token::Token;
use serde_json::json;

use crate::support::process::{place::Place, verifier::VerifierProcess};

#[tokio::test(flavor = "multi_thread")]
async fn known_tokens_go_on_for_a_while_and_then_nobody_can_tell() {
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
    // It is fresh, so what is unknown is wrong.
    verifier.forwards(&unknown, 401).await;

    plane.kill(Component::ApiServer);
    verifier.forwards(&unknown, 403).await;
    assert_eq!(verifier.forward(&known, "").await, 200, "known tokens go on");
    assert_eq!(verifier.forward(&gone, "").await, 401, "revoked ones do not");
    assert_eq!(verifier.forward("kpat_junk", "").await, 401);
    let series = "pat_operator_index_staleness_seconds";
    assert!(verifier.process.metrics().await.value(series) > 0.0);

    let took = verifier.forwards(&known, 403).await;
    assert!(took < Duration::from_secs(12), "it fails closed after --max-staleness: {took:?}");
    assert_eq!(verifier.forward(&gone, "").await, 403);
    assert!(verifier.process.metrics().await.value(series) > 6.0);
    assert_eq!(verifier.process.get("/readyz").await.code, 200, "another replica would know no more");

    plane.restart(Component::ApiServer).await.expect("the API server is back");
    verifier.forwards(&known, 200).await;
    verifier.forwards(&unknown, 401).await;
    assert_eq!(verifier.process.metrics().await.value(series), 0.0);
    verifier.process.terminate().await;
    operator.terminate().await;
}
