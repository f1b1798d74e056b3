//! The policy `status`: who can write the status of a PersonalAccessToken.

use control_plane::Identity;
use kube::{
    Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    guard::Guard,
    people,
    write::{Change, Create, outcome, pat, pats},
};
use crate::support::process::{
    Launch,
    place::{Place, eventually},
    verifier::VerifierProcess,
};

const NOW: &str = "2026-01-01T00:00:00Z";

/// Writes this status with every kind of request, as a dry run, and returns the outcomes.
async fn writes(client: &Client, namespace: &str, status: &Value) -> Vec<(&'static str, Result<(), String>)> {
    let api = pats(client, namespace);
    let mut found = Vec::new();
    let whole = json!({ "status": status });
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    found.push(("merge patch", outcome(api.patch_status("app", &dry, &Patch::Merge(&whole)).await)));
    let operations = serde_json::from_value(json!([{"op": "add", "path": "/status", "value": status}])).unwrap();
    found.push(("JSON patch", outcome(api.patch_status("app", &dry, &Patch::Json::<()>(operations)).await)));
    let mut manifest = pat("app", json!({}));
    manifest["status"] = status.clone();
    let apply = PatchParams { dry_run: true, ..PatchParams::apply("other").force() };
    found.push(("apply", outcome(api.patch_status("app", &apply, &Patch::Apply(&manifest)).await)));
    let mut object: DynamicObject = api.get("app").await.expect("the PAT exists");
    object.data["status"] = status.clone();
    let put = PostParams { dry_run: true, ..PostParams::default() };
    found.push(("PUT", outcome(api.replace_status("app", &put, &object).await)));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn program_beside_the_chart_is_told_at_start() {
    let place = Place::new("status-start").await;
    let home = place.name();
    let guard = Guard::apply("status", &place, &[&place]).await;
    place.apply("app", json!({})).await;
    let other = Identity::service_account(home, "other");
    let client = people::make_administrator(&place, &other).await;
    let api = pats(&client, home);
    eventually("Role and policy are in force", async || {
        api.get("app").await.is_ok() && writes(&client, home, &json!({})).await[0].1.is_err()
    })
    .await;
    let kubeconfig = place.access.kubeconfig_for(&other).expect("a kubeconfig");

    let line = Launch::controller_in(&kubeconfig, home).run().await.refusal();
    let part = format!("add {} to the value policies.otherAccounts.controllers", other.name());
    assert!(line.contains(&part), "{line}");
    // A verifier works without writing, so it only warns.
    let namespaces = format!("--namespaces={home}");
    let mut verifier = VerifierProcess::start(&kubeconfig, &[&namespaces]).await;
    let part = format!("add {} to the value policies.otherAccounts.verifiers", other.name());
    verifier.process.logs(&["the times of last use cannot be recorded", &part]).await;
    verifier.process.terminate().await;
    guard.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_components_write_status() {
    let place = Place::new("status").await;
    let home = place.name();
    let guard = Guard::apply("status", &place, &[&place]).await;
    place.apply("app", json!({"scopes": ["a"]})).await;
    let (jane, jane_client) = people::administrator_of(&place, "jane").await;
    let mut others = vec![(jane.name().to_owned(), jane_client)];
    // The right account name in another namespace, a similar name, and the cluster administrator.
    for other in [
        Identity::service_account("pat-operator", "pat-operator-controller"),
        Identity::service_account(home, "pat-operator-controller-2"),
    ] {
        others.push((other.name().to_owned(), people::make_administrator(&place, &other).await));
    }
    others.push(("admin".to_owned(), place.client.clone()));

    let refused = |who: &str| {
        Err(format!(
            "status: {who} may not write it: it says which tokens are valid, and only the pat-operator controller writes it; to change \
             a token, set a field of spec: revoked, revokeIfIssuedBefore, rotateIfIssuedBefore, suspend; if this is a program of \
             pat-operator, add its user name to the value policies.otherAccounts of the release that installed this policy"
        ))
    };
    let (_, first) = &others[0];
    eventually("the policy is in force", async || writes(first, home, &json!({"revision": 1})).await[0].1.is_err())
        .await;
    let statuses = [
        json!({"credentials": [{"id": "000000000001", "revision": 1, "sha256": "a".repeat(64), "state": "Active", "issuedAt": NOW}]}),
        json!({"revision": 1}),
        json!({"lastUsedAt": NOW}),
        json!({"usage": {"000000000001": NOW}}),
        json!({}),
    ];
    for (who, client) in &others {
        for status in &statuses {
            for (how, found) in writes(client, home, status).await {
                assert_eq!(found, refused(who), "{who} by {how}: {status}");
            }
        }
    }
    // Another policy limits what the verifier and the REST API can write.
    for name in ["pat-operator-controller", "pat-operator-verifier", "pat-operator-api"] {
        let client = people::make_administrator(&place, &Identity::service_account(home, name)).await;
        for status in &statuses {
            for (how, found) in writes(&client, home, status).await {
                assert_eq!(found, Ok(()), "{name} by {how}: {status}");
            }
        }
    }
    // Writes to other fields are allowed, and the status in a write of the whole object is ignored.
    let (_, jane_client) = &others[0];
    let api = pats(jane_client, home);
    for change in Change::ALL {
        let patch =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"description": "x"}, "status": {"revision": 7}});
        assert_eq!(change.send(&api, "app", &patch).await, Ok(()), "{change:?}");
    }
    let mut created = pat("created", json!({}));
    created["status"] = json!({"revision": 7});
    assert_eq!(Create::Post.dry_run(&api, &created).await, Ok(()));
    assert_eq!(place.status("app").await, Default::default());
    guard.end().await;
}
