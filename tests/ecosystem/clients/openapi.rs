//! The description of the API, put to the test by schemathesis: requests that it makes up, right and wrong, and what is answered.

use pat_operator::api::{Owner, OwnerKind};
use serde_json::{Value, json};

use super::stage::{ALL_MANAGE, MY_MANAGE, Stage};
use crate::support::clients;

/// How many operations are described.
fn operations(document: &Value) -> usize {
    const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
    let paths = document["paths"].as_object().expect("paths").values();
    paths.map(|path| METHODS.iter().filter(|method| path.get(**method).is_some()).count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_requests_are_answered_as_described() {
    let stage = Stage::new("schemathesis", &["--rate-limit=100000", "--rate-burst=100000"]).await;
    let path = "/openapi.json";
    // All but this one: schemathesis leaves out where it has the description from.
    let described = operations(&stage.api.send("GET", path, &[], "").await.json()) - 1;
    // Somebody else than who calls: all tokens of this one are revoked now and then.
    let email = format!("bob@{}.example.com", stage.place.name());
    let owner = stage.owner(&email, json!({"email": email})).await;
    let user = Owner { kind: OwnerKind::User, name: "ada".into() };
    let account = Owner { kind: OwnerKind::VirtualAccount, name: "team/robot".into() };
    // By TrueFoundry's dialect only accounts create; by the others everybody does.
    let by_all: [(&str, &[u64]); 3] =
        [("cryptlexCreateToken", &[201, 409]), ("sailpointV1Create", &[200, 400]), ("exchange", &[200, 400, 401])];
    let by_account: [(&str, &[u64]); 2] =
        [("truefoundryCreateToken", &[201, 409]), ("truefoundryCreateTokenForUser", &[201, 409])];
    for (name, caller) in [("laptop", &user), ("robot", &account)] {
        let token = stage.caller_of(name, caller, &[MY_MANAGE, ALL_MANAGE, "deploy"]).await;
        let id = stage.place.pats().get(name).await.expect("it is there").metadata.uid.expect("a uid").replace('-', "");
        let url = format!("http://{}{path}", stage.api.http);
        let asked = json!({"url": url, "token": token, "id": id, "email": email, "examples": 25, "seconds": 240});
        let Some(told) = clients::run("schemathesis/check.py", &asked).await else { break };
        assert_eq!(told["failures"], json!([]), "{name}: {told}\n{}", stage.api.process);
        assert_eq!(told["operations"]["tested"], described, "{name}: {told}");
        let got = |operation: &str, status: &u64| {
            told["answers"][operation].as_array().is_some_and(|all| all.contains(&json!(status)))
        };
        for (operation, statuses) in by_all.iter().chain(by_account.iter().filter(|_| caller == &account)) {
            for status in *statuses {
                assert!(got(operation, status), "{name}: {operation} is never answered by {status}: {told}");
            }
        }
        let lists = stage.api.call("GET", "/cryptlex/v3/personal-access-tokens", &token, None).await;
        assert_eq!(lists.status, 200, "{name} was let in to the end: {told}");
        let refused = by_account.iter().all(|(operation, _)| got(operation, &403) && !got(operation, &201));
        assert_eq!(refused, caller == &user, "{name}: {told}");
    }
    owner.remove().await;
}
