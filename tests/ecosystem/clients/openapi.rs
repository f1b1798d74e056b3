//! Tests the OpenAPI description with schemathesis, which generates valid and invalid requests and checks the answers.

use pat_operator::api::{Owner, OwnerKind};
use serde_json::{Value, json};

use super::stage::{ALL_MANAGE, MY_MANAGE, Stage};
use crate::support::clients;

/// The number of operations in the description.
fn operations(document: &Value) -> usize {
    const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
    let paths = document["paths"].as_object().expect("paths").values();
    paths.map(|path| METHODS.iter().filter(|method| path.get(**method).is_some()).count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_requests_are_answered_as_described() {
    let stage = Stage::new("schemathesis", &["--rate-limit=100000", "--rate-burst=100000"]).await;
    let path = "/openapi.json";
    // Without one operation: schemathesis does not test the path of the description.
    let described = operations(&stage.api.send("GET", path, &[], "").await.json()) - 1;
    // Not the caller, because some requests revoke all tokens of this user.
    let email = format!("bob@{}.example.com", stage.place.name());
    let owner = stage.owner(&email, json!({"email": email})).await;
    let user = Owner { kind: OwnerKind::User, name: "ada".into() };
    let account = Owner { kind: OwnerKind::VirtualAccount, name: "team/robot".into() };
    // In TrueFoundry's dialect only virtual accounts create tokens. In the others all callers do.
    let by_all: [(&str, &[u64]); 3] =
        [("cryptlexCreateToken", &[201, 409]), ("sailpointV1Create", &[200, 400]), ("exchange", &[200, 400, 401])];
    let by_account: [(&str, &[u64]); 2] =
        [("truefoundryCreateToken", &[201, 409]), ("truefoundryCreateTokenForUser", &[201, 409])];
    for (name, caller) in [("laptop", &user), ("robot", &account)] {
        let token = stage.caller_of(name, caller, &[MY_MANAGE, ALL_MANAGE, "deploy"]).await;
        let id =
            stage.place.pats().get(name).await.expect("the PAT exists").metadata.uid.expect("a uid").replace('-', "");
        let url = format!("http://{}{path}", stage.api.http);
        let asked = json!({"url": url, "token": token, "id": id, "email": email, "examples": 25, "seconds": 240});
        let Some(results) = clients::run("schemathesis/check.py", &asked).await else { break };
        assert_eq!(results["failures"], json!([]), "{name}: {results}\n{}", stage.api.process);
        assert_eq!(results["operations"]["tested"], described, "{name}: {results}");
        let got = |operation: &str, status: &u64| {
            results["answers"][operation].as_array().is_some_and(|all| all.contains(&json!(status)))
        };
        for (operation, statuses) in by_all.iter().chain(by_account.iter().filter(|_| caller == &account)) {
            for status in *statuses {
                assert!(got(operation, status), "{name}: {operation} never gets {status}: {results}");
            }
        }
        let lists = stage.api.call("GET", "/cryptlex/v3/personal-access-tokens", &token, None).await;
        assert_eq!(lists.status, 200, "the token of {name} still works: {results}");
        let refused = by_account.iter().all(|(operation, _)| got(operation, &403) && !got(operation, &201));
        assert_eq!(refused, caller == &user, "{name}: {results}");
    }
    owner.remove().await;
}
