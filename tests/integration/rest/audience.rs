//! Tokens with audiences: a caller gets no token for another audience.

use serde_json::{Value, json};

use super::stage::{ALL_MANAGE, MY_MANAGE, Stage};
use crate::support::process::place::eventually;

const HERE: &str = "https://api.example.com";
const ELSEWHERE: &str = "https://elsewhere.example.com";

/// Returns a virtual account's token for these audiences, once the server accepts it.
async fn caller(stage: &Stage, name: &str, audiences: Value) -> String {
    let owner = json!({"kind": "VirtualAccount", "name": "team/robot"});
    let scopes = [MY_MANAGE, ALL_MANAGE];
    let spec = json!({"owner": owner, "scopes": scopes, "audiences": audiences, "expiry": {"after": "1d"}});
    stage.place.apply(name, spec).await;
    let token = stage.place.ready(name).await;
    eventually("the token is accepted", async || {
        stage.api.call("GET", "/api/svc/v1/session", &token, None).await.status == 200
    })
    .await;
    token
}

async fn id(stage: &Stage, name: &str) -> String {
    stage.place.pats().get(name).await.unwrap().metadata.uid.expect("a uid").replace('-', "")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_gains_an_audience_by_create_or_regenerate() {
    let stage = Stage::new("rest-audience", &["--audience", HERE]).await;
    let bound = caller(&stage, "bound", json!([HERE])).await;
    let free = caller(&stage, "free", json!([])).await;
    let wide = caller(&stage, "wide", json!([HERE, ELSEWHERE])).await;

    let wanted = json!({"name": "made", "scopes": [], "expiresAt": "2100-01-01T00:00:00Z"});
    let made = stage.api.call("POST", "/cryptlex/v3/personal-access-tokens", &bound, Some(&wanted)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let pat = stage.pat("made").await.expect("it is there");
    assert_eq!(pat.spec.audiences, [HERE], "its own audiences, and no token for everybody");

    // The caller, the regenerated token, and whether the caller gains nothing by it.
    for (token, target, status) in
        [(&bound, "free", 403), (&bound, "wide", 403), (&free, "bound", 403), (&wide, "bound", 200)]
    {
        let path = format!("/api/svc/v1/virtual-accounts/{}/regenerate-token", id(&stage, target).await);
        let answer = stage.api.call("POST", &path, token, Some(&json!({"gracePeriodInMinutes": 5}))).await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert_eq!(answer.json()["token"].is_string(), status == 200, "{target}");
    }
}
