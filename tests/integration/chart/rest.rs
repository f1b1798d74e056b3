//! The REST API under the admission policies, with the chart's ServiceAccount and permissions: for which owners it issues tokens, and how it
//! refuses others.

use control_plane::{Binary, Identity};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use super::release::{Release, person};
use crate::support::is_left_out;
use crate::support::process::{
    api::{ApiProcess, Reply},
    place::eventually,
};

const SHOP: &str = "shop";
const CRYPTLEX: &str = "/cryptlex/v3/personal-access-tokens";
const SAILPOINT: &str = "/sailpoint/personal-access-tokens/v1";
const TRUEFOUNDRY: &str = "/api/svc/v1/personal-access-tokens";

/// The scope that manages the caller's own tokens.
const MY_MANAGE: &str = "sp:my-personal-access-tokens:manage";

/// Chart values with a REST API that can issue for these users, and a namespace with these scopes.
fn values(users: &[&str], scopes: &[&str]) -> Value {
    json!({
        "scopeGrants": {SHOP: scopes},
        "verifier": {"enabled": true, "replicas": 1, "tls": {"insecure": true}},
        "api": {
            "enabled": true, "namespace": SHOP, "issueForUsers": users, "lastUsedInterval": "1s", "rateLimit": 1000, "rateBurst": 10000,
            "tls": {"insecure": true},
        },
    })
}

/// Creates the first token of an owner as an administrator, and returns it once the REST API accepts it.
async fn first_token(release: &Release, api: &ApiProcess, name: &str, owner: Value) -> String {
    let kind = GroupVersionKind::gvk("pat-operator.io", "v1alpha1", "PersonalAccessToken");
    let pats: Api<DynamicObject> = Api::namespaced_with(release.client.clone(), SHOP, &ApiResource::from_gvk(&kind));
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": name},
        "spec": {"owner": owner, "scopes": [MY_MANAGE, "deploy"], "expiry": {"after": "1d"}},
    });
    // A new policy and its parameters need a moment to be in force.
    eventually("the scopes are granted", async || {
        pats.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(&manifest)).await.is_ok()
    })
    .await;
    let token = release.ready(SHOP, name).await;
    eventually("the REST API accepts the token", async || api.call("GET", CRYPTLEX, &token, None).await.status == 200)
        .await;
    token
}

async fn create(api: &ApiProcess, token: &str, name: &str) -> Reply {
    api.call("POST", CRYPTLEX, token, Some(&json!({"name": name, "scopes": ["deploy"]}))).await
}

/// Requests a token in each dialect. TrueFoundry's has none for users.
async fn request_in_each_dialect(api: &ApiProcess, token: &str, is_user: bool) -> Vec<(&'static str, Reply)> {
    let sailpoint = json!({"name": "by sailpoint", "scope": [MY_MANAGE], "userAwareTokenNeverExpires": true});
    let mut replies = vec![
        ("Cryptlex", create(api, token, "by cryptlex").await),
        ("SailPoint", api.call("POST", SAILPOINT, token, Some(&sailpoint)).await),
    ];
    if !is_user {
        let order = json!({"name": "by-truefoundry"});
        replies.push(("TrueFoundry", api.call("POST", TRUEFOUNDRY, token, Some(&order)).await));
    }
    replies
}

/// The token in a response of any dialect.
fn token_in(reply: &Reply) -> String {
    let body = reply.json();
    let found = ["accessToken", "secret", "token"].iter().find_map(|key| body[key].as_str());
    found.unwrap_or_else(|| panic!("a token in {reply:?}")).to_owned()
}

fn refusal(kind: &str, owner: &str) -> String {
    let (resource, helm) = match kind {
        "User" => ("users", " (with Helm: the value api.issueForUsers)"),
        _ => ("virtualaccounts", ""),
    };
    format!(
        "the REST API may not issue tokens for the {kind} {owner}: ask the administrator of pat-operator to grant its ServiceAccount the verb \
         issue-for on {resource}.pat-operator.io with the resource name {owner}{helm}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_api_issues_only_for_permitted_owners() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let release = Release::new().await;
    person(&release, SHOP).await;
    release.put(&["install", "--create-namespace"], &values(&["jane@example.com"], &["sp:*", "deploy"]));
    let controllers = release.controllers().await;
    let verifier = release.verifier().await;
    let mut api = release.api().await;
    let user = |name: &str| json!({"kind": "User", "name": name});
    let account = |name: &str| json!({"kind": "VirtualAccount", "name": name});

    // For permitted owners it issues valid tokens and records their use.
    let jane = first_token(&release, &api, "jane", user("jane@example.com")).await;
    let robot = first_token(&release, &api, "robot", account("shop/robot")).await;
    for (token, is_user) in [(&jane, true), (&robot, false)] {
        for (dialect, reply) in request_in_each_dialect(&api, token, is_user).await {
            assert!(matches!(reply.status, 200 | 201), "{dialect}: {reply:?}");
            verifier.forwards(&token_in(&reply), 200).await;
        }
    }
    eventually("uses are recorded", async || {
        let pat = release.pats(SHOP).get("jane").await.expect("the PAT exists");
        pat.status.is_some_and(|status| status.last_used_at.is_some())
    })
    .await;

    // For other owners it refuses in each dialect and leaves no object.
    let bob = first_token(&release, &api, "bob", user("bob@example.com")).await;
    let foreign = first_token(&release, &api, "foreign", account("elsewhere/robot")).await;
    let before = release.pats(SHOP).list(&Default::default()).await.expect("a list").items.len();
    for (token, kind, owner) in [(&bob, "User", "bob@example.com"), (&foreign, "VirtualAccount", "elsewhere/robot")] {
        let refusal = refusal(kind, owner);
        for (dialect, reply) in request_in_each_dialect(&api, token, kind == "User").await {
            assert_eq!(reply.status, 403, "{dialect}: {reply:?}");
            assert!(reply.text.contains(&refusal), "{dialect}: {reply:?}");
        }
    }
    assert_eq!(release.pats(SHOP).list(&Default::default()).await.expect("a list").items.len(), before);

    // These owners cannot change their tokens, but can revoke them.
    let of_bob =
        release.pats(SHOP).get("bob").await.expect("the PAT exists").metadata.uid.expect("a uid").replace('-', "");
    let rename = json!([{"op": "replace", "path": "/name", "value": "another"}]).to_string();
    let bearer = format!("Bearer {bob}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json-patch+json")];
    let renamed = api.send("PATCH", &format!("{SAILPOINT}/{of_bob}"), &headers, &rename).await;
    assert_eq!(renamed.status, 403, "{renamed:?}");
    assert!(renamed.text.contains(&refusal("User", "bob@example.com")), "{renamed:?}");

    let own = api.call("GET", CRYPTLEX, &foreign, None).await.json()[0].clone();
    let path = format!("{CRYPTLEX}/{}", own["id"].as_str().expect("an id"));
    let revoked = api.call("PATCH", &path, &foreign, Some(&json!({"revoked": true}))).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    verifier.forwards(&foreign, 401).await;

    // The administrator grants the right that the message names.
    release.put(&["upgrade"], &values(&["jane@example.com", "bob@example.com"], &["sp:*", "deploy"]));
    eventually("the right is in force", async || create(&api, &bob, "at last").await.status == 201).await;

    // A withdrawn scope is refused in new tokens.
    release.put(&["upgrade"], &values(&["jane@example.com"], &["sp:*"]));
    let mut refused = create(&api, &jane, "too late").await;
    eventually("the grant is gone", async || {
        refused = create(&api, &jane, "even later").await;
        refused.status == 403
    })
    .await;
    let message = refused.json()["message"].as_str().expect("a message").to_owned();
    let expected = "scopes: namespace shop is not granted deploy: ask the administrator of pat-operator to add them, one per line, under the key shop of \
               the ConfigMap pat-operator/pat-operator-scope-grants (with Helm: the value scopeGrants.shop)";
    assert_eq!(message, expected);
    let without = api.call("POST", CRYPTLEX, &jane, Some(&json!({"name": "without", "scopes": []}))).await;
    assert_eq!(without.status, 201, "{without:?}");

    // RBAC refused none of its requests.
    for word in ["forbidden: User", "not permitted", "refuses what this server has to do"] {
        assert!(!api.process.has_logged(&[word]), "{word}\n{}", api.process);
    }
    let metrics = api.process.metrics().await;
    assert_eq!(metrics.value("pat_operator_last_used_errors_total"), 0.0);
    api.process.terminate().await;
    verifier.process.terminate().await;
    for controller in controllers {
        controller.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_rest_api_cannot_issue() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let release = Release::new().await;
    person(&release, SHOP).await;
    let mut read_only = values(&["*"], &["sp:*", "deploy"]);
    read_only["api"]["readOnly"] = json!(true);
    release.put(&["install", "--create-namespace"], &read_only);
    let controllers = release.controllers().await;
    let api = release.api().await;
    let jane = first_token(&release, &api, "jane", json!({"kind": "User", "name": "jane@example.com"})).await;
    let reply = create(&api, &jane, "new").await;
    assert_eq!(reply.status, 403, "{reply:?}");
    // Its ServiceAccount does not have the permission either.
    let account = Identity::service_account(super::helm::NAMESPACE, "pat-operator-api");
    let client = release.access().client_for(&account).expect("a client");
    let pats: Api<pat_operator::api::PersonalAccessToken> = Api::namespaced(client, SHOP);
    let refused = pats.delete("jane", &Default::default()).await.expect_err("the delete is refused").to_string();
    assert!(refused.contains("cannot delete resource"), "{refused}");
    api.process.terminate().await;
    for controller in controllers {
        controller.terminate().await;
    }
}
