//! The first token of a PAT.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use pat_operator::{
    api::{CredentialState, Owner, OwnerKind},
    planner::intent::ControllerConfig,
};
use serde_json::json;

use super::observe::{Write, after, assert_rests, conditions, labels, lines, mark, revision, since};
use crate::support::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn manifest_creates_a_token_in_a_secret() {
    let mut stage = Stage::new("issue").await;
    let pat = stage.apply("app", json!({"scopes": ["read"]})).await;
    let issued = stage.now();
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    assert!(token.starts_with("kpat_"));
    assert!(stage.accepts("app", &token).await);
    assert_eq!(stage.data("app").await.len(), 1, "the token and nothing else");

    let status = stage.status("app").await;
    let namespace = stage.namespace.name();
    assert_eq!(lines(&status), ["Ready=True Issued"]);
    assert_eq!(status.observed_generation, pat.metadata.generation);
    let owner = Owner { kind: OwnerKind::VirtualAccount, name: format!("{namespace}/app") };
    assert_eq!(status.owner, Some(owner));
    assert_eq!(status.secret_name.as_deref(), Some("app"));
    assert_eq!(status.revision, Some(1));
    assert_eq!(status.first_issued_at, Some(issued));
    assert_eq!(status.default_expires_at, Some(issued.plus(super::observe::length("90d")).ceil_second()));
    assert_eq!(status.expires_at, status.default_expires_at);
    assert_eq!(status.next_rotation_at, None);
    assert_eq!(status.unplanned_mints, []);
    let [credential] = &status.credentials[..] else { panic!("one credential: {:?}", status.credentials) };
    assert_eq!((credential.revision, credential.state), (1, CredentialState::Active));
    assert_eq!((credential.issued_at, credential.expires_at), (issued, status.expires_at));
    assert!(token[5..].starts_with(credential.id.as_str()) && !token[5 + 12..].contains(credential.id.as_str()));

    let secret = stage.secret("app").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    assert_eq!(labels(&stage, "app").await, [("app.kubernetes.io/managed-by".into(), "pat-operator".into())].into());
    let owners = secret.metadata.owner_references.unwrap();
    assert_eq!(owners.len(), 1);
    assert_eq!(Some(&owners[0].uid), pat.metadata.uid.as_ref());
    assert_eq!((owners[0].controller, owners[0].block_owner_deletion), (Some(true), None));
    assert_eq!(stage.events("app").await, [], "a first mint publishes no event");
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issue_and_delivery_have_events_if_configured() {
    for issue_events in [false, true] {
        let stage = Stage::with("issue-events", ControllerConfig { issue_events, ..Default::default() }).await;
        stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
        stage.settle("app").await;
        stage.advance("30d");
        stage.settle("app").await;
        let expected: &[_] = if issue_events { &["Issued", "Rotated"] } else { &["Rotated"] };
        assert_eq!(reasons(&stage, "app").await, expected);

        stage.apply("once", json!({"secret": {"delivery": "Once"}})).await;
        stage.settle("once").await;
        stage.secrets().delete("once", &DeleteParams::default()).await.expect("the Secret is deleted");
        stage.settle("once").await;
        let expected: &[_] = if issue_events { &["Issued", "Delivered"] } else { &[] };
        assert_eq!(reasons(&stage, "once").await, expected);
    }
}

async fn reasons(stage: &Stage, name: &str) -> Vec<String> {
    stage.events(name).await.into_iter().map(|(reason, _)| reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn first_mint_publishes_the_hash_before_the_secret() {
    let stage = Stage::new("issue-order").await;
    stage.apply("app", json!({})).await;
    let start = mark(&stage).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    let writes = since(&stage, &start).await;
    let [Write::Pat(first), Write::Secret(secret), Write::Pat(last)] = &writes[..] else {
        panic!("status, Secret, status: {writes:#?}")
    };
    let published = first.status.clone().unwrap();
    assert_eq!(lines(&published), ["Ready=Unknown Issuing", "Reconciling=True Issuing"]);
    assert_eq!(published.observed_generation, first.metadata.generation);
    assert_eq!(published.credentials[0].state, CredentialState::Pending);
    let hash = pat_operator::token::Token::parse(&token).unwrap().hash().to_string();
    assert_eq!(
        published.credentials[0].sha256.to_string(),
        hash,
        "the published hash is that of the token in the Secret"
    );
    assert_eq!(secret.data.clone().unwrap()["token"].0, token.as_bytes());
    let done = last.status.clone().unwrap();
    assert_eq!(lines(&done), ["Ready=True Issued"]);
    assert_eq!(done.credentials[0].state, CredentialState::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_reports_the_owner_from_the_spec() {
    let stage = Stage::new("issue-owner").await;
    for (name, kind, owner) in [("person", "User", "jane@example.com"), ("robot", "VirtualAccount", "ci/deploy")] {
        stage.apply(name, json!({"owner": {"kind": kind, "name": owner}})).await;
        stage.settle(name).await;
        let found = stage.status(name).await.owner.unwrap();
        assert_eq!((format!("{:?}", found.kind), found.name), (kind.to_owned(), owner.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_prefix_applies_to_the_next_mint() {
    let mut stage = Stage::new("issue-prefix").await;
    stage.apply("app", json!({"tokenPrefix": "before"})).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    assert!(first.starts_with("before_"), "the prefix in the spec");
    stage.apply("app", json!({"tokenPrefix": "after"})).await;
    stage.settle("app").await;
    assert_eq!(stage.value("app", "token").await, first, "a prefix is no reason to mint");
    assert!(stage.accepts("app", &first).await);
    assert_rests(&mut stage, "app").await;

    stage.advance("1h");
    stage.apply("app", json!({"tokenPrefix": "after", "rotateIfIssuedBefore": stage.now()})).await;
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    assert!(second.starts_with("after_"));
    assert!(stage.accepts("app", &first).await && stage.accepts("app", &second).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_display_name_does_not_write_the_secret() {
    let mut stage = Stage::new("issue-display").await;
    stage.apply("app", json!({"displayName": "one"})).await;
    stage.settle("app").await;
    let before = stage.secret("app").await;
    let ready = stage.status("app").await.conditions;
    stage.advance("1h");
    let pat = stage.apply("app", json!({"displayName": "two", "description": "text", "scopes": ["x"]})).await;
    stage.settle("app").await;
    assert_eq!(stage.secret("app").await, before);
    let status = stage.status("app").await;
    assert_eq!(status.observed_generation, pat.metadata.generation);
    assert_eq!(status.conditions[0].observed_generation, pat.metadata.generation);
    assert_eq!(
        status.conditions[0].last_transition_time, ready[0].last_transition_time,
        "a condition that did not change keeps its time"
    );
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn default_lifetime_is_fixed_at_first_issue() {
    let mut stage = Stage::new("issue-default").await;
    stage.apply("old", json!({})).await;
    stage.settle("old").await;
    let end = after(&stage, "90d").ceil_second();
    assert_eq!(stage.status("old").await.default_expires_at, Some(end));
    stage.advance("1d");

    stage.settings.default_lifetime = super::observe::length("1h");
    let before = stage.versions().await;
    stage.restart();
    stage.settle("old").await;
    assert_eq!(stage.versions().await, before, "a changed flag causes no write");
    stage.apply("new", json!({})).await;
    stage.settle("new").await;
    let short = after(&stage, "1h").ceil_second();
    assert_eq!(stage.status("new").await.expires_at, Some(short));

    stage.live_until("new", short).await;
    stage.settle("new").await;
    assert_eq!(stage.ready("new").await, ("False".into(), "Expired".into()));
    stage.apply("old", json!({"description": "any change of the spec"})).await;
    stage.settle("old").await;
    assert_eq!(conditions(&stage, "old").await, ["Ready=True Issued"]);
    assert_eq!(stage.status("old").await.expires_at, Some(end));
    assert_eq!(revision(&stage, "old").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lifetime_does_not_start_during_a_secret_conflict() {
    let mut stage = Stage::new("issue-late").await;
    let metadata = ObjectMeta { name: Some("app".into()), ..Default::default() };
    let foreign = Secret { metadata, ..Default::default() };
    stage.secrets().create(&PostParams::default(), &foreign).await.unwrap();
    stage.apply("app", json!({"expiry": {"after": "1h"}})).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, ["Ready=False SecretConflict", "Stalled=True SecretConflict"]);
    stage.live_until("app", after(&stage, "3h")).await;
    stage.settle("app").await;
    assert_eq!(
        conditions(&stage, "app").await[0],
        "Ready=False SecretConflict",
        "a token that was never issued cannot expire"
    );
    stage.secrets().delete("app", &DeleteParams::default()).await.unwrap();
    stage.advance("10m");
    let issued = stage.now();
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    let status = stage.status("app").await;
    assert_eq!(status.first_issued_at, Some(issued));
    assert_eq!(status.expires_at, Some(issued.plus(super::observe::length("1h")).ceil_second()));
    assert_rests(&mut stage, "app").await;
}
