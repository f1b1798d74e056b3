//! The REST server while the API server is unavailable.

use control_plane::{Component, ControlPlane, Options};
use serde_json::json;

use super::{in_process::ada, stage::MY_MANAGE};
use crate::support::process::{
    api::ApiProcess,
    place::{Place, eventually},
};

const TOKENS: &str = "/cryptlex/v3/personal-access-tokens";

#[tokio::test(flavor = "multi_thread")]
async fn stale_server_accepts_known_callers_for_a_while_then_is_not_ready() {
    let mut plane = ControlPlane::start(Options::default()).await.expect("a control plane");
    let place = Place::on(&plane.access(), "rest-stale").await;
    crate::support::crd::install_crds(&place.client).await;
    let operator = place.operator().arg("--publish-lead=0s").start();
    place.apply("app", json!({"owner": ada(), "scopes": [MY_MANAGE]})).await;
    let token = place.ready("app").await;
    let mut api = ApiProcess::start(&place, &["--max-staleness=6s"]).await;
    let status = async |api: &ApiProcess| api.call("GET", TOKENS, &token, None).await.status;
    eventually("the caller is known", async || status(&api).await == 200).await;

    plane.kill(Component::ApiServer);
    let series = "pat_operator_index_staleness_seconds";
    eventually("it is stale", async || api.process.metrics().await.value(series) > 0.0).await;
    let answered = status(&api).await;
    // On a loaded machine the time may have passed already.
    let stale = api.process.metrics().await.value(series);
    assert!(answered == 200 || stale > 6.0, "known callers go on: {answered} after {stale} s");

    let mut refused = None;
    eventually("no caller is accepted any more", async || {
        let reply = api.call("GET", TOKENS, &token, None).await;
        let lost = reply.status == 503;
        refused = Some(reply);
        lost
    })
    .await;
    assert!(refused.is_some_and(|refused| refused.headers.contains_key("retry-after")));
    // The readiness probe fails at once, so no client is routed to a server that would refuse it.
    let told = api.process.get("/readyz").await;
    assert!(told.code == 503 && told.body.contains("[-]freshness not ready: lost\n"), "{}", told.body);
    assert_eq!(api.process.get("/livez").await.code, 200, "to start it anew would help nobody");

    plane.restart(Component::ApiServer).await.expect("the API server is back");
    api.process.is_ready().await;
    assert_eq!(status(&api).await, 200);
    assert_eq!(api.process.metrics().await.value(series), 0.0);
    api.process.terminate().await;
    operator.terminate().await;
}
