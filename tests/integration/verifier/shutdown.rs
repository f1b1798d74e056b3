//! Shutdown: the verifier first reports that it is not ready, and answers until clients have noticed.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{index::issued, protocols::is_serving};
use crate::support::process::{
    SOON,
    place::{Place, eventually},
    verifier::VerifierProcess,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_drains_and_the_second_exits_at_once() {
    let place = Place::new("delay").await;
    let tokens = issued(&place, &["stays", "revoked"]).await;
    let only = format!("--namespaces={}", place.name());
    let mut verifier = VerifierProcess::start(&place.kubeconfig(), &[&only, "--shutdown-delay=1m"]).await;
    eventually("gRPC health reports serving", async || is_serving(verifier.grpc).await).await;
    verifier.process.signal("TERM");
    let began = Instant::now();
    let readiness = loop {
        let readiness = verifier.process.get("/readyz").await;
        if readiness.code == 503 {
            break readiness.body;
        }
        assert!(began.elapsed() < SOON, "{}", verifier.process);
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(readiness.contains("[-]index not ready: stopping\n"), "{readiness}");
    eventually("gRPC health reports not serving", async || !is_serving(verifier.grpc).await).await;
    // It still answers, and its watch still runs.
    assert_eq!(verifier.forward(&tokens[0], "").await, 200);
    assert_eq!(verifier.forward(&tokens[1], "").await, 200);
    place.apply("revoked", json!({"scopes": ["a"], "revoked": true})).await;
    verifier.forwards(&tokens[1], 401).await;
    assert_eq!(verifier.process.get("/livez").await.code, 200);

    verifier.process.signal("TERM");
    let ended = verifier.process.ends_within(SOON).await;
    assert_eq!(ended.code, 143, "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_delay_it_exits_cleanly() {
    let place = Place::new("ends").await;
    let token = issued(&place, &["app"]).await.remove(0);
    let only = format!("--namespaces={}", place.name());
    let verifier = VerifierProcess::start(&place.kubeconfig(), &[&only, "--shutdown-delay=1s"]).await;
    let http = verifier.http;
    assert_eq!(verifier.forward(&token, "").await, 200);
    let ended = verifier.process.terminate().await;
    assert!(ended.took >= Duration::from_secs(1), "{ended}");
    assert!(std::net::TcpStream::connect(http).is_err(), "the port is closed");
    place.until("app", "used", |status| status.last_used_at.is_some()).await;
}
