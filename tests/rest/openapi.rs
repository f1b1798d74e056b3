//! The description of the API, put to the test by schemathesis: requests that it makes up, right and wrong, and what is answered.

use serde_json::json;

use super::stage::{ALL_MANAGE, MY_MANAGE, Stage};
use crate::support::clients;

#[tokio::test(flavor = "multi_thread")]
async fn no_made_up_request_is_answered_otherwise_than_described() {
    let stage = Stage::new("schemathesis", &["--rate-limit=100000", "--rate-burst=100000"]).await;
    let token = stage.caller("laptop", "ada", &[MY_MANAGE, ALL_MANAGE, "deploy"]).await;
    let id = stage.place.pats().get("laptop").await.expect("it is there").metadata.uid.expect("a uid").replace('-', "");
    let url = format!("http://{}/openapi.json", stage.api.http);
    let asked = json!({"url": url, "token": token, "id": id, "examples": 25, "seconds": 240});
    let Some(told) = clients::run("schemathesis/check.py", &asked).await else { return };
    assert_eq!(told["failures"], json!([]), "{told:#}\n{}", stage.api.process);
    assert!(told["operations"].as_u64() >= Some(5), "{told:#}");
}
