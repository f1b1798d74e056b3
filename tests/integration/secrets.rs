//! Secrets that others change, on a real API server: damaged, deleted, wanted by two PATs, or foreign.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::stage::Stage;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Secret},
        events::v1::Event,
    },
    jiff::SignedDuration,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use pat_operator::{
    api::{Condition, ConditionType, Credential, CredentialState, Time},
    planner::observed::{CREDENTIALS, DATA_HASH, OWNED, PAT_UID, RENDER_HASH},
    token::{Token, TokenPrefix},
};
use serde_json::{Value, json};

const LABEL: &str = "app.kubernetes.io/managed-by";

/// A stage with one issued token, and that token. Its Secret also has a key, a label and an annotation.
async fn issued(prefix: &str) -> (Stage, String) {
    let stage = Stage::new(prefix).await;
    let secret = json!({
        "labels": {"team": "a"},
        "annotations": {"note": "n"},
        "template": {"data": {"env": "TOKEN={{ token }}"}},
    });
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "gracePeriod": "1h", "secret": secret})).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    (stage, token)
}

/// Changes the Secret as a client with this field manager.
async fn edit(stage: &Stage, name: &str, manager: &str, patch: Value) {
    let params = PatchParams { field_manager: Some(manager.into()), ..Default::default() };
    stage.secrets().patch(name, &params, &Patch::Merge(patch)).await.expect("the edit is accepted");
}

async fn delete_secret(stage: &Stage, name: &str) {
    stage.secrets().delete(name, &DeleteParams::default()).await.expect("the Secret is deleted");
}

async fn delete_pat(stage: &Stage, name: &str) {
    stage.pats().delete(name, &DeleteParams::default()).await.expect("the PAT is deleted");
}

async fn create(stage: &Stage, secret: Value) -> Secret {
    let secret: Secret = serde_json::from_value(secret).expect("a Secret");
    stage.secrets().create(&PostParams::default(), &secret).await.expect("the Secret is created")
}

/// The Secret without the metadata that every write changes.
fn without_write_metadata(secret: &Secret) -> Value {
    let mut secret = secret.clone();
    secret.metadata.resource_version = None;
    secret.metadata.managed_fields = None;
    serde_json::to_value(&secret).expect("JSON")
}

async fn states(stage: &Stage, name: &str) -> Vec<(i64, CredentialState)> {
    stage.status(name).await.credentials.iter().map(|one| (one.revision, one.state)).collect()
}

async fn credential(stage: &Stage, name: &str, token: &str) -> Credential {
    let hash = Token::parse(token).expect("a token").hash().to_string();
    let credentials = stage.status(name).await.credentials;
    credentials.into_iter().find(|one| one.sha256.to_string() == hash).expect("the status lists the token")
}

async fn event_notes(stage: &Stage, name: &str, reason: &str) -> Vec<String> {
    let events = stage.events(name).await.into_iter();
    events.filter(|(found, _)| found == reason).map(|(_, note)| note).collect()
}

async fn condition(stage: &Stage, name: &str, type_: ConditionType) -> Condition {
    let found = stage.condition(name, type_).await;
    found.unwrap_or_else(|| panic!("condition {type_} is missing"))
}

/// Checks that the PAT is in conflict: no credential, a message that contains `word`, and a retry after 1 to 10 minutes.
async fn assert_in_conflict(stage: &Stage, name: &str, word: &str) {
    let wake = stage.settle(name).await.expect("the PAT is reconciled again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "the PAT is reconciled again after {wake}");
    assert_eq!(stage.ready(name).await, ("False".into(), "SecretConflict".into()));
    let stalled = condition(stage, name, ConditionType::Stalled).await;
    assert!(stalled.message.contains(word), "{word:?} is not in {:?}", stalled.message);
    assert_eq!(stage.status(name).await.credentials, [], "a token that cannot be delivered is not minted");
    let before = stage.versions().await;
    stage.settle(name).await;
    assert_eq!(stage.versions().await, before, "an unchanged conflict writes nothing");
}

async fn assert_works(stage: &Stage, name: &str, secret: &str) -> String {
    assert_eq!(stage.ready(name).await, ("True".into(), "Issued".into()));
    assert!(stage.condition(name, ConditionType::Stalled).await.is_none());
    let token = stage.value(secret, "token").await;
    assert!(stage.accepts(name, &token).await);
    token
}

// --- Damage that is repaired without a mint -------------------------------------------------------------------------

/// Applies `damage`, and checks that the Secret is restored and that one event names the field manager `named`.
async fn assert_repaired_without_mint(what: &str, named: Option<&str>, damage: impl AsyncFnOnce(&Stage)) {
    let (stage, token) = issued("repair").await;
    let before = stage.secret("app").await.expect("a Secret");
    let status = stage.status("app").await;
    damage(&stage).await;
    let damaged = stage.secret("app").await.expect("a Secret");
    assert_ne!(without_write_metadata(&damaged), without_write_metadata(&before), "{what}: the damage is visible");
    stage.settle("app").await;
    let after = stage.secret("app").await.expect("a Secret");
    assert_eq!(without_write_metadata(&after), without_write_metadata(&before), "{what}: the Secret is restored");
    assert_eq!(stage.status("app").await, status, "{what}: nothing is minted, and the status is unchanged");
    assert!(stage.accepts("app", &token).await, "{what}");
    let published = event_notes(&stage, "app", "Repaired").await;
    assert_eq!(published.len(), 1, "{what}: one event is published: {published:?}");
    assert!(published[0].contains("the token is the same"), "{what}: {published:?}");
    match named {
        Some(manager) => {
            assert!(published[0].contains(&format!("{manager:?}")), "{what}: {published:?} names {manager}")
        }
        None => assert!(
            !published[0].contains("last changed by"),
            "{what}: {published:?} names no field manager without proof"
        ),
    }
    let versions = stage.versions().await;
    stage.settle("app").await;
    assert_eq!(stage.versions().await, versions, "{what}: one repair is enough");
}

/// The same for several merge patches.
async fn assert_all_repaired_without_mint(cases: &[(&str, Value, Option<&str>)]) {
    for (what, patch, named) in cases {
        assert_repaired_without_mint(what, *named, async |stage| edit(stage, "app", "intruder", patch.clone()).await)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_keys_are_repaired_without_a_mint() {
    assert_all_repaired_without_mint(&[
        ("another key is edited", json!({"stringData": {"env": "x"}}), Some("intruder")),
        ("a key is added", json!({"stringData": {"extra": "x"}}), Some("intruder")),
        ("a key is removed", json!({"data": {"env": null}}), None),
        ("another key is emptied", json!({"data": {"env": ""}}), Some("intruder")),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_metadata_is_repaired_without_a_mint() {
    assert_all_repaired_without_mint(&[
        ("our label is removed", json!({"metadata": {"labels": {LABEL: null}}}), None),
        ("our label is edited", json!({"metadata": {"labels": {LABEL: "Helm"}}}), Some("intruder")),
        ("all labels are removed", json!({"metadata": {"labels": null}}), None),
        ("a label of the spec is edited", json!({"metadata": {"labels": {"team": "b"}}}), Some("intruder")),
        ("a label of the spec is removed", json!({"metadata": {"labels": {"team": null}}}), None),
        ("an annotation of the spec is edited", json!({"metadata": {"annotations": {"note": "m"}}}), Some("intruder")),
        ("an annotation of the spec is removed", json!({"metadata": {"annotations": {"note": null}}}), None),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_owner_reference_is_restored_without_a_mint() {
    assert_all_repaired_without_mint(&[
        ("the owner is removed", json!({"metadata": {"ownerReferences": null}}), None),
        ("owner and label are removed", json!({"metadata": {"ownerReferences": null, "labels": {LABEL: null}}}), None),
    ])
    .await;
    assert_repaired_without_mint("the owner is no longer the controller", Some("intruder"), async |stage| {
        let mut owner = stage.secret("app").await.expect("a Secret").owner_references()[0].clone();
        owner.controller = None;
        edit(stage, "app", "intruder", json!({"metadata": {"ownerReferences": [owner]}})).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_own_annotations_are_restored() {
    for annotation in [PAT_UID, CREDENTIALS, DATA_HASH, RENDER_HASH, OWNED] {
        let patch = json!({"metadata": {"annotations": {annotation: null}}});
        assert_all_repaired_without_mint(&[(annotation, patch, None)]).await;
    }
    assert_all_repaired_without_mint(&[("all of them", json!({"metadata": {"annotations": null}}), None)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edited_own_annotations_are_restored() {
    let none = "0".repeat(64);
    for (annotation, value) in [
        (PAT_UID, "00000000-0000-0000-0000-000000000000"),
        (CREDENTIALS, "junk"),
        (CREDENTIALS, r#"{"revision":1,"live":[]}"#),
        (DATA_HASH, &none),
        (OWNED, "junk"),
        (OWNED, "{}"),
        (OWNED, r#"{"labels":["other","team"],"annotations":["note"]}"#),
    ] {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        assert_all_repaired_without_mint(&[(&format!("{annotation}: {value}"), patch, Some("intruder"))]).await;
    }
}

/// Edits the credentials annotation of the Secret with `change`.
async fn forge_credentials_annotation(stage: &Stage, change: impl FnOnce(&mut Value)) {
    let secret = stage.secret("app").await.expect("a Secret");
    let mut ledger: Value = serde_json::from_str(&secret.annotations()[CREDENTIALS]).expect("JSON");
    change(&mut ledger);
    let patch = json!({"metadata": {"annotations": {CREDENTIALS: ledger.to_string()}}});
    edit(stage, "app", "intruder", patch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_credentials_annotation_is_restored() {
    let none = "0".repeat(64);
    assert_repaired_without_mint("another hash", Some("intruder"), async |stage| {
        forge_credentials_annotation(stage, |ledger| ledger["live"][0]["sha256"] = none.clone().into()).await;
    })
    .await;
    assert_repaired_without_mint("a later issue", Some("intruder"), async |stage| {
        forge_credentials_annotation(stage, |ledger| ledger["live"][0]["issuedAt"] = "2999-01-01T00:00:00Z".into())
            .await;
    })
    .await;
    assert_repaired_without_mint("an earlier first issue", Some("intruder"), async |stage| {
        forge_credentials_annotation(stage, |ledger| ledger["firstIssuedAt"] = "2000-01-01T00:00:00Z".into()).await;
    })
    .await;
    assert_repaired_without_mint("a revision in the future", Some("intruder"), async |stage| {
        forge_credentials_annotation(stage, |ledger| ledger["revision"] = 1_000_000.into()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credential_added_to_the_annotation_is_removed() {
    let (stage, _) = issued("added").await;
    let before = without_write_metadata(&stage.secret("app").await.expect("a Secret"));
    forge_credentials_annotation(&stage, |ledger| {
        let mut planted = ledger["live"][0].clone();
        planted["id"] = "planted00000".into();
        planted["sha256"] = "0".repeat(64).into();
        ledger["live"].as_array_mut().expect("a list").push(planted);
    })
    .await;
    stage.settle("app").await;
    // The entry looks like a credential that has been revoked, so the event names no field manager.
    assert_eq!(without_write_metadata(&stage.secret("app").await.expect("a Secret")), before);
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_annotation_never_validates_a_token() {
    let (mut stage, _) = issued("forge").await;
    let planted = Token::mint(&TokenPrefix::default()).expect("a token");
    for revision in [0, 1, 2, 1_000_000] {
        let hash = planted.hash().to_string();
        forge_credentials_annotation(&stage, |ledger| {
            ledger["revision"] = revision.into();
            ledger["live"][0]["sha256"] = hash.into();
            ledger["live"][0]["id"] = planted.id().to_string().into();
        })
        .await;
        stage.restart();
        stage.settle("app").await;
        assert!(!stage.accepts("app", planted.expose()).await, "revision {revision}");
        let token = assert_works(&stage, "app", "app").await;
        assert_ne!(token, planted.expose());
        assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)], "revision {revision}: no mint");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_annotation_never_restores_a_revoked_token() {
    let (stage, leaked) = issued("restore").await;
    let ledger = stage.secret("app").await.expect("a Secret").annotations()[CREDENTIALS].clone();
    stage.advance("1m");
    let id = Token::parse(&leaked).expect("a token").id().to_string();
    let mut spec = serde_json::to_value(stage.pat("app").await.spec).expect("JSON");
    spec["revokedCredentials"] = json!([id]);
    stage.apply("app", spec.clone()).await;
    stage.settle("app").await;
    spec["revokedCredentials"] = json!([]);
    stage.apply("app", spec).await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", &leaked).await, "a recorded revocation is final");
    for revision in ["\"revision\":1", "\"revision\":2", "\"revision\":9"] {
        let ledger = ledger.replacen("\"revision\":1", revision, 1);
        edit(&stage, "app", "intruder", json!({"metadata": {"annotations": {CREDENTIALS: ledger}}})).await;
        stage.settle("app").await;
        assert!(!stage.accepts("app", &leaked).await, "{revision}");
        assert_works(&stage, "app", "app").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_revision_does_not_prevent_rotation() {
    let (stage, first) = issued("floor").await;
    stage.advance("30d");
    forge_credentials_annotation(&stage, |ledger| ledger["revision"] = 1_000_000.into()).await;
    stage.settle("app").await;
    let second = assert_works(&stage, "app", "app").await;
    assert_ne!(first, second);
    assert!(stage.accepts("app", &first).await, "in grace");
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Active), (1, CredentialState::Grace)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_labels_and_annotations_are_kept() {
    let (stage, _) = issued("others").await;
    let theirs = json!({"metadata": {"labels": {"theirs": "x"}, "annotations": {"example.com/theirs": "y"}}});
    edit(&stage, "app", "intruder", theirs).await;
    let before = stage.versions().await;
    stage.settle("app").await;
    assert_eq!(stage.versions().await, before, "no field of the operator has changed");
    edit(&stage, "app", "intruder", json!({"stringData": {"env": "x"}})).await;
    stage.settle("app").await;
    let secret = stage.secret("app").await.expect("a Secret");
    assert_eq!((&*secret.labels()["theirs"], &*secret.annotations()["example.com/theirs"]), ("x", "y"));
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_event_names_the_field_manager() {
    let (stage, _) = issued("manager").await;
    for manager in ["kubectl-edit", "intruder", "argocd-controller"] {
        edit(&stage, "app", manager, json!({"stringData": {"env": manager}})).await;
        stage.settle("app").await;
        let published = event_notes(&stage, "app", "Repaired").await;
        assert!(published.iter().any(|note| note.contains(&format!("{manager:?}"))), "{published:?} names {manager}");
    }
    assert_eq!(event_notes(&stage, "app", "Repaired").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_repairs_are_counted_in_one_event() {
    let (stage, token) = issued("fight").await;
    for round in 0..4 {
        edit(&stage, "app", "intruder", json!({"stringData": {"env": format!("x{round}")}})).await;
        stage.settle("app").await;
    }
    assert_eq!(stage.value("app", "token").await, token);
    let api: Api<Event> = Api::namespaced(stage.client.clone(), stage.namespace.name());
    let events = api.list(&ListParams::default()).await.expect("events are listed").items;
    let counts: Vec<_> = events.iter().map(|event| event.series.as_ref().map(|series| series.count)).collect();
    assert_eq!(counts, [Some(4)], "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pat_with_the_longest_name_gets_events() {
    let stage = Stage::new("long").await;
    let name = format!("{}-b.{}", "a".repeat(197), "c".repeat(53));
    assert_eq!(name.len(), 253);
    stage.apply(&name, json!({})).await;
    stage.settle(&name).await;
    delete_secret(&stage, &name).await;
    stage.settle(&name).await;
    assert_works(&stage, &name, &name).await;
    assert_eq!(event_notes(&stage, &name, "Repaired").await.len(), 1);
}

// --- Copies ---------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_the_secret_are_deleted_a_few_at_a_time() {
    const COPIES: usize = 40;
    let (stage, token) = issued("copies").await;
    let original = stage.secret("app").await.expect("a Secret");
    for number in 0..COPIES {
        let mut copy = original.clone();
        copy.metadata.name = Some(format!("copy-{number}"));
        (copy.metadata.uid, copy.metadata.resource_version) = (None, None);
        copy.metadata.managed_fields = None;
        create(&stage, serde_json::to_value(&copy).expect("JSON")).await;
    }
    let left = async || stage.secrets().list(&ListParams::default()).await.expect("Secrets are listed").items.len();
    let wake = stage.reconcile("app").await.expect("the run succeeds").expect("the PAT is reconciled again");
    assert_eq!(left().await, 1 + COPIES - 8);
    assert_eq!(wake.since(stage.now()).as_secs(), 1);
    stage.settle("app").await;
    assert_eq!(left().await, 1);
    assert_eq!(assert_works(&stage, "app", "app").await, token);
    let notes = event_notes(&stage, "app", "CopyDeleted").await;
    assert_eq!(notes.len(), COPIES, "each copy has an event");
    assert!(notes.iter().any(|note| note.contains("\"copy-7\"")), "{notes:?}");
}

// --- Damage that requires a mint ------------------------------------------------------------------------------------

/// Applies `damage`, and checks that a new token is issued, that the old one has its grace period, and that one event is published.
async fn assert_repaired_with_mint(what: &str, words: &[&str], damage: impl AsyncFnOnce(&Stage)) {
    let (mut stage, former) = issued("remint").await;
    let before = without_write_metadata(&stage.secret("app").await.expect("a Secret"));
    stage.advance("1m");
    damage(&stage).await;
    stage.settle("app").await;
    let token = assert_works(&stage, "app", "app").await;
    assert_ne!(token, former, "{what}");
    assert_eq!(stage.value("app", "env").await, format!("TOKEN={token}"), "{what}");
    let after = without_write_metadata(&stage.secret("app").await.expect("a Secret"));
    assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"], "{what}");
    assert_eq!(after["metadata"]["ownerReferences"], before["metadata"]["ownerReferences"], "{what}");
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Active), (1, CredentialState::Grace)], "{what}");
    let status = stage.status("app").await;
    assert_eq!(status.unplanned_mints, [status.credentials[0].issued_at], "{what}");

    let grace = credential(&stage, "app", &former).await.expires_at.expect("an end");
    assert_eq!(grace.since(stage.now()).as_secs(), 3600, "{what}: the full grace period");
    let published = event_notes(&stage, "app", "Repaired").await;
    assert_eq!(published.len(), 1, "{what}: {published:?}");
    for word in words {
        assert!(published[0].contains(word), "{what}: {word:?} is not in {published:?}");
    }
    assert_eq!(event_notes(&stage, "app", "Rotated").await.len(), 0, "{what}: it is a repair, not a rotation");

    let versions = stage.versions().await;
    stage.restart();
    stage.settle("app").await;
    assert_eq!(stage.versions().await, versions, "{what}: one repair is enough");
    assert!(stage.accepts("app", &former).await, "{what}: the former token is still valid");
    stage.advance("1h1s");
    stage.settle("app").await;
    assert!(!stage.accepts("app", &former).await, "{what}: until the end of its grace period");
    assert!(stage.accepts("app", &token).await, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_secret_is_recreated_with_a_new_token() {
    assert_repaired_with_mint("deleted", &["was deleted"], async |stage| delete_secret(stage, "app").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edited_token_is_replaced_and_its_editor_is_named() {
    assert_repaired_with_mint("by kubectl", &["no longer held", "\"kubectl-edit\""], async |stage| {
        edit(stage, "app", "kubectl-edit", json!({"stringData": {"token": "kpat_mine"}})).await;
    })
    .await;
    assert_repaired_with_mint("by an intruder", &["no longer held", "\"intruder\""], async |stage| {
        edit(stage, "app", "intruder", json!({"data": {"token": ""}})).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_token_is_replaced() {
    for patch in [json!({"data": {"token": null}}), json!({"data": null})] {
        let what = patch.to_string();
        assert_repaired_with_mint(&what, &["no longer held"], async |stage| {
            edit(stage, "app", "intruder", patch).await
        })
        .await;
    }
    assert_repaired_with_mint("with the label", &["no longer held"], async |stage| {
        edit(stage, "app", "intruder", json!({"data": null, "metadata": {"labels": {LABEL: null}}})).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_copied_back_from_another_key() {
    let stage = Stage::new("copyback").await;
    stage.apply("app", json!({"secret": {"template": {"preset": "BasicAuth"}}})).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    edit(&stage, "app", "intruder", json!({"data": {"token": null}})).await;
    stage.settle("app").await;
    let data = stage.data("app").await;
    assert_eq!((&data["token"], &data["password"]), (&token, &token));
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);
    edit(&stage, "app", "intruder", json!({"stringData": {"token": "x"}})).await;
    stage.settle("app").await;
    assert_eq!(stage.value("app", "token").await, token);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_previous_key_never_causes_a_mint() {
    let stage = Stage::new("previous").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "old"}})).await;
    stage.settle("app").await;
    stage.advance("30d");
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    edit(&stage, "app", "intruder", json!({"stringData": {"old": "x"}})).await;
    stage.settle("app").await;
    assert_eq!(stage.value("app", "token").await, token);
    assert!(!stage.data("app").await.contains_key("old"), "the former token cannot be recovered");
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Active), (1, CredentialState::Grace)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unlabelled_secret_is_cleared_when_its_token_ends() {
    for (what, end) in
        [("revoked", json!({"revoked": true})), ("expired", json!({"expiry": {"at": "2020-01-01T00:00:00Z"}}))]
    {
        let stage = Stage::new("unlabelled").await;
        stage.apply("app", json!({})).await;
        stage.settle("app").await;
        let token = stage.value("app", "token").await;
        edit(&stage, "app", "intruder", json!({"metadata": {"labels": {LABEL: null}}})).await;
        stage.apply("app", end).await;
        stage.settle("app").await;
        assert_eq!(stage.data("app").await, BTreeMap::new(), "{what}");
        assert!(!stage.accepts("app", &token).await, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_of_another_type_is_a_conflict_until_deleted() {
    let (stage, token) = issued("type").await;
    let ours = stage.secret("app").await.expect("a Secret");
    delete_secret(&stage, "app").await;
    let mut other = serde_json::to_value(&ours).expect("JSON");
    other["type"] = "example.com/other".into();
    other["metadata"]["resourceVersion"] = Value::Null;
    other["metadata"]["uid"] = Value::Null;
    let other = create(&stage, other).await;
    let wake = stage.settle("app").await.expect("the PAT is reconciled again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "{wake}");
    assert_eq!(stage.ready("app").await, ("False".into(), "SecretConflict".into()));
    let stalled = condition(&stage, "app", ConditionType::Stalled).await;
    assert!(stalled.message.contains("\"example.com/other\""), "{}", stalled.message);
    assert_eq!(stage.secret("app").await, Some(other), "the Secret is untouched");
    assert!(stage.accepts("app", &token).await, "the existing token stays valid");
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);
    delete_secret(&stage, "app").await;
    stage.settle("app").await;
    assert_ne!(assert_works(&stage, "app", "app").await, token);
    assert!(stage.accepts("app", &token).await, "in grace");
}

// --- The mint-loop breaker ------------------------------------------------------------------------------------------

async fn damage_token(stage: &Stage) {
    edit(stage, "app", "intruder", json!({"stringData": {"token": "x"}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fourth_unplanned_mint_in_an_hour_waits_across_restarts() {
    let (mut stage, _) = issued("breaker").await;
    let begin = stage.now();
    let mut token = String::new();
    for minute in 1..=3 {
        stage.advance("1m");
        damage_token(&stage).await;
        stage.settle("app").await;
        let next = assert_works(&stage, "app", "app").await;
        assert_ne!(next, token, "mint {minute}");
        token = next;
        stage.restart();
    }
    damage_token(&stage).await;
    let wake = stage.settle("app").await.expect("the PAT is reconciled again");
    assert_eq!(stage.ready("app").await, ("False".into(), "MintLoop".into()));
    let stalled = condition(&stage, "app", ConditionType::Stalled).await;
    assert!(stalled.message.contains("\"intruder\""), "{}", stalled.message);
    assert_eq!(stage.status("app").await.unplanned_mints.len(), 3);
    assert_eq!(wake.since(begin).as_secs(), 61 * 60, "an hour after the first of the three");
    assert_eq!(event_notes(&stage, "app", "MintLoop").await.len(), 1);
    assert!(stage.accepts("app", &token).await, "a copy of the last token stays valid");

    let versions = stage.versions().await;
    for _ in 0..3 {
        stage.restart();
        stage.advance("10m");
        stage.settle("app").await;
    }
    assert_eq!(stage.versions().await, versions, "the breaker stays open, and nothing is written");

    stage.hand.set(wake.timestamp());
    stage.restart();
    stage.settle("app").await;
    assert_ne!(assert_works(&stage, "app", "app").await, token);
    damage_token(&stage).await;
    let next = stage.settle("app").await.expect("the PAT is reconciled again");
    assert_eq!(stage.ready("app").await, ("False".into(), "MintLoop".into()));
    assert_eq!(next.since(begin).as_secs(), 62 * 60, "the window slides: an hour after the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_damage_causes_at_most_three_mints_an_hour() {
    let stage = &mut Stage::new("loop").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "gracePeriod": "5m"})).await;
    stage.settle("app").await;
    let mut mints = BTreeSet::new();
    for round in 0..60 {
        stage.advance("4m");
        damage_token(stage).await;
        if round % 2 == 0 {
            stage.restart();
        }
        stage.settle("app").await;
        mints.extend(stage.status("app").await.credentials.iter().map(|one| one.issued_at));
    }
    let mints: Vec<Time> = mints.into_iter().collect();
    for window in mints[1..].windows(4) {
        let took = window[3].since(window[0]);
        assert!(took >= SignedDuration::from_hours(1), "4 mints within {took}: {window:?}");
    }
    assert!(mints.len() > 3 * 3, "allowed mints continue: {} mints in 4 hours", mints.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_and_plain_repairs_do_not_trip_the_breaker() {
    let (stage, _) = issued("planned").await;
    for _ in 0..4 {
        stage.advance("30d");
        stage.settle("app").await;
        edit(&stage, "app", "intruder", json!({"stringData": {"env": "x"}})).await;
        stage.settle("app").await;
    }
    assert_eq!(stage.status("app").await.unplanned_mints, []);
    assert_eq!(stage.status("app").await.revision, Some(5));
    assert_works(&stage, "app", "app").await;
}

// --- Two PATs, one Secret -------------------------------------------------------------------------------------------

fn shared_secret_spec() -> Value {
    json!({"secret": {"name": "shared"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn first_pat_keeps_a_shared_secret_until_it_is_deleted() {
    let stage = Stage::new("first").await;
    stage.apply("a", shared_secret_spec()).await;
    stage.settle("a").await;
    let token = assert_works(&stage, "a", "shared").await;
    stage.apply("b", shared_secret_spec()).await;
    assert_in_conflict(&stage, "b", "belongs to PersonalAccessToken \"a\"").await;
    stage.settle("a").await;
    assert_eq!(assert_works(&stage, "a", "shared").await, token);

    // The owner is deleted, while its Secret is still in the cache.
    let mut operator = stage.manual_operator(stage.client.clone());
    operator.show(stage.pat("b").await);
    operator.show_secret(stage.secret("shared").await.expect("a Secret"));
    let before = stage.pat("b").await;
    delete_pat(&stage, "a").await;
    let wake = operator
        .reconcile("b")
        .await
        .expect("the run succeeds")
        .expect("the PAT is reconciled again")
        .since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "{wake}");
    assert_eq!(stage.pat("b").await, before);
    // Deletes the Secret as the garbage collector does, which may have been faster.
    let _already_deleted = stage.secrets().delete("shared", &DeleteParams::default()).await;
    stage.settle("b").await;
    assert_ne!(assert_works(&stage, "b", "shared").await, token);
    assert_eq!(states(&stage, "b").await, [(1, CredentialState::Active)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_secret_frees_its_name_for_another_pat() {
    let stage = Stage::new("moves").await;
    stage.apply("a", shared_secret_spec()).await;
    stage.settle("a").await;
    let token = assert_works(&stage, "a", "shared").await;
    stage.apply("b", shared_secret_spec()).await;
    assert_in_conflict(&stage, "b", "\"a\"").await;
    stage.apply("a", json!({"secret": {"name": "own"}})).await;
    assert_in_conflict(&stage, "b", "\"a\"").await;
    stage.settle("a").await;
    assert_eq!(assert_works(&stage, "a", "own").await, token, "the token moves with its Secret");
    stage.settle("b").await;
    assert_ne!(assert_works(&stage, "b", "shared").await, token);
    assert_eq!(stage.value("own", "token").await, token);
}

#[tokio::test(flavor = "multi_thread")]
async fn older_pat_gets_a_secret_name_without_owner() {
    for order in [["a", "b"], ["b", "a"]] {
        let stage = Stage::new("older").await;
        let mut ages = Vec::new();
        for name in order {
            let pat = stage.apply(name, shared_secret_spec()).await;
            ages.push((pat.creation_timestamp().expect("a time").0, pat.uid().expect("a uid"), name));
        }
        ages.sort();
        let (older, younger) = (ages[0].2, ages[1].2);
        for name in ["a", "b"] {
            stage.settle(name).await;
        }
        stage.settle(older).await;
        assert_works(&stage, older, "shared").await;
        assert_in_conflict(&stage, younger, &format!("{older:?}")).await;
        assert_eq!(stage.status(younger).await.revision, None, "it does not even try");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pats_end_with_one_secret_and_one_token() {
    for _ in 0..5 {
        let stage = Stage::new("race").await;
        let (a, b) = tokio::join!(stage.apply("a", shared_secret_spec()), stage.apply("b", shared_secret_spec()));
        // Neither operator sees the other PAT. The API server decides which write is first.
        let (mut left, mut right) =
            (stage.manual_operator(stage.client.clone()), stage.manual_operator(stage.client.clone()));
        left.show(a);
        right.show(b);
        let (one, two) = tokio::join!(left.reconcile("a"), right.reconcile("b"));
        one.expect("the run succeeds");
        two.expect("the run succeeds");
        let owner = stage.secret("shared").await.expect("a Secret").owner_references()[0].name.clone();
        let other = if owner == "a" { "b" } else { "a" };
        stage.settle(&owner).await;
        assert_works(&stage, &owner, "shared").await;
        assert_eq!(states(&stage, &owner).await, [(1, CredentialState::Active)]);
        assert_in_conflict(&stage, other, &format!("belongs to PersonalAccessToken {owner:?}")).await;
        stage.settle(&owner).await;
        assert_works(&stage, &owner, "shared").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_pat_does_not_take_an_owned_secret() {
    let stage = Stage::new("claim").await;
    let old = stage.apply("old", json!({})).await.creation_timestamp().expect("a time").0;
    stage.settle("old").await;
    let kept = assert_works(&stage, "old", "old").await;
    // Creation timestamps have whole seconds.
    let young = loop {
        let young = stage.apply("young", shared_secret_spec()).await.creation_timestamp().expect("a time").0;
        if young > old {
            break young;
        }
        delete_pat(&stage, "young").await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert!(old < young);
    stage.settle("young").await;
    let token = assert_works(&stage, "young", "shared").await;

    stage.apply("old", shared_secret_spec()).await;
    let wake = stage.settle("old").await.expect("the PAT is reconciled again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "{wake}");
    assert_eq!(stage.ready("old").await, ("False".into(), "SecretConflict".into()));
    assert_eq!(stage.value("old", "token").await, kept, "its own Secret stays until the new one exists");
    assert!(stage.accepts("old", &kept).await);
    assert_eq!(states(&stage, "old").await, [(1, CredentialState::Active)]);
    stage.settle("young").await;
    assert_eq!(assert_works(&stage, "young", "shared").await, token);

    // A repair of the shared Secret does not change its owner, although the owner is the younger PAT.
    edit(&stage, "shared", "intruder", json!({"stringData": {"token": "x"}})).await;
    stage.settle("old").await;
    stage.settle("young").await;
    assert_ne!(assert_works(&stage, "young", "shared").await, token);
    assert_eq!(stage.ready("old").await, ("False".into(), "SecretConflict".into()));

    // The older PAT returns to its own Secret.
    stage.apply("old", json!({"secret": {"name": "old"}})).await;
    stage.settle("old").await;
    assert_eq!(assert_works(&stage, "old", "old").await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn terminating_pat_keeps_its_secret_but_claims_no_other() {
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let release = json!({"metadata": {"finalizers": null}});
    for had_it in [false, true] {
        let stage = Stage::new("leaving").await;
        stage.apply("a", shared_secret_spec()).await;
        if had_it {
            stage.settle("a").await;
        }
        stage.pats().patch("a", &PatchParams::default(), &Patch::Merge(&hold)).await.expect("a finalizer");
        delete_pat(&stage, "a").await;
        stage.apply("b", shared_secret_spec()).await;
        stage.settle("a").await;
        if had_it {
            assert_in_conflict(&stage, "b", "belongs to PersonalAccessToken \"a\"").await;
            let token = stage.value("shared", "token").await;
            assert!(!stage.accepts("a", &token).await, "a token ends with the deletionTimestamp of its object");
        } else {
            stage.settle("b").await;
            assert_works(&stage, "b", "shared").await;
        }
        stage.pats().patch("a", &PatchParams::default(), &Patch::Merge(&release)).await.expect("no finalizer");
    }
}

// --- Foreign Secrets ------------------------------------------------------------------------------------------------

/// Creates a ConfigMap, and returns an owner reference to it as controller.
async fn config_map_owner(stage: &Stage) -> Value {
    let api: Api<ConfigMap> = Api::namespaced(stage.client.clone(), stage.namespace.name());
    let map = serde_json::from_value(json!({"metadata": {"name": "them"}})).expect("a ConfigMap");
    let map = api.create(&PostParams::default(), &map).await.expect("a ConfigMap");
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "them", "uid": map.uid(), "controller": true})
}

async fn assert_foreign_secret_untouched(what: &str, metadata: Value, owned: bool, word: &str) {
    let stage = Stage::new("foreign").await;
    let mut metadata = metadata;
    metadata["name"] = "app".into();
    if owned {
        metadata["ownerReferences"] = json!([config_map_owner(&stage).await]);
    }
    let foreign = create(&stage, json!({"metadata": metadata, "stringData": {"token": "theirs", "user": "me"}})).await;
    stage.apply("app", json!({})).await;
    assert_in_conflict(&stage, "app", word).await;
    assert_eq!(event_notes(&stage, "app", "SecretConflict").await.len(), 1, "{what}");
    for _ in 0..3 {
        let wake = stage.settle("app").await.expect("the PAT is reconciled again");
        stage.hand.set(wake.timestamp());
        assert_in_conflict(&stage, "app", word).await;
    }
    stage.apply("app", json!({"revoked": true})).await;
    stage.settle("app").await;
    stage.apply("app", json!({"revoked": false})).await;
    stage.settle("app").await;
    assert_eq!(stage.secret("app").await.as_ref(), Some(&foreign), "{what}: the Secret is untouched");

    delete_secret(&stage, "app").await;
    stage.settle("app").await;
    assert_works(&stage, "app", "app").await;
    let status = stage.status("app").await;
    assert_eq!(status.first_issued_at, Some(status.credentials[0].issued_at), "{what}: the lifetime starts now");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_secret_is_untouched_until_deleted() {
    assert_foreign_secret_untouched("plain", json!({}), false, "already exists").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_secret_with_our_label_is_untouched() {
    let labels = json!({"labels": {LABEL: "pat-operator"}});
    assert_foreign_secret_untouched("labelled", labels, false, "already exists").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_of_another_controller_is_untouched() {
    for labels in [json!({}), json!({LABEL: "pat-operator"})] {
        let metadata = json!({"labels": labels});
        assert_foreign_secret_untouched("owned", metadata, true, "belongs to ConfigMap them").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflict_before_the_first_token_costs_no_lifetime() {
    let stage = Stage::new("patience").await;
    create(&stage, json!({"metadata": {"name": "app"}})).await;
    stage.apply("app", json!({"expiry": {"after": "10d"}})).await;
    assert_in_conflict(&stage, "app", "already exists").await;
    stage.advance("20d");
    assert_in_conflict(&stage, "app", "already exists").await;
    delete_secret(&stage, "app").await;
    stage.advance("10m");
    stage.settle("app").await;
    assert_works(&stage, "app", "app").await;
    let end = stage.status("app").await.expires_at.expect("an end");
    assert_eq!(end.since(stage.now()).as_secs(), 10 * 86_400);
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_taken_over_by_another_controller_is_untouched() {
    let (stage, token) = issued("taken").await;
    let owner = config_map_owner(&stage).await;
    edit(&stage, "app", "intruder", json!({"metadata": {"ownerReferences": [owner]}})).await;
    let taken = stage.secret("app").await;
    let wake = stage.settle("app").await.expect("the PAT is reconciled again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "{wake}");
    assert_eq!(stage.secret("app").await, taken);
    assert_eq!(stage.ready("app").await, ("False".into(), "SecretConflict".into()));
    assert!(stage.accepts("app", &token).await);
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);
}

// --- Stuck Secrets --------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn terminating_secret_is_waited_for() {
    let (stage, token) = issued("deleting").await;
    edit(&stage, "app", "intruder", json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    delete_secret(&stage, "app").await;
    let stuck = stage.secret("app").await.expect("the Secret still exists");
    let wake = stage.settle("app").await.expect("the PAT is reconciled again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "{wake}");
    assert_eq!(stage.ready("app").await, ("False".into(), "SecretConflict".into()));
    let stalled = condition(&stage, "app", ConditionType::Stalled).await;
    assert!(stalled.message.contains("finalizers"), "{}", stalled.message);
    assert_eq!(stage.secret("app").await, Some(stuck));
    assert!(stage.accepts("app", &token).await, "the token in it is still valid");
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);
    edit(&stage, "app", "intruder", json!({"metadata": {"finalizers": null}})).await;
    stage.settle("app").await;
    assert_ne!(assert_works(&stage, "app", "app").await, token);
    assert!(stage.accepts("app", &token).await, "in grace");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_into_an_immutable_secret_waits_until_the_secret_is_deleted() {
    let (mut stage, first) = issued("immutable").await;
    edit(&stage, "app", "intruder", json!({"immutable": true})).await;
    stage.settle("app").await;
    assert_works(&stage, "app", "app").await;
    stage.advance("30d");
    stage.settle("app").await;
    // The rotation is due but impossible. The old token stays valid.
    assert_eq!(assert_works(&stage, "app", "app").await, first);
    let reconciling = condition(&stage, "app", ConditionType::Reconciling).await;
    assert_eq!(reconciling.reason, "SecretImmutable");
    for part in ["\"app\" is immutable", "works until", "delete the Secret"] {
        assert!(reconciling.message.contains(part), "{}", reconciling.message);
    }
    assert_eq!(event_notes(&stage, "app", "SecretImmutable").await.len(), 1);
    let versions = stage.versions().await;
    for _ in 0..3 {
        stage.restart();
        let wake = stage.settle("app").await.expect("the PAT is reconciled again");
        stage.hand.set(wake.timestamp());
    }
    assert_eq!(stage.versions().await, versions, "no token is minted for a Secret that cannot hold it");
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);

    delete_secret(&stage, "app").await;
    stage.settle("app").await;
    let second = assert_works(&stage, "app", "app").await;
    assert_ne!(first, second);
    assert!(stage.condition("app", ConditionType::Reconciling).await.is_none());
    assert!(stage.accepts("app", &first).await, "in grace");
}

#[tokio::test(flavor = "multi_thread")]
async fn template_that_an_immutable_secret_cannot_follow_is_reported() {
    let (stage, token) = issued("immutable").await;
    edit(&stage, "app", "intruder", json!({"immutable": true})).await;
    let spec = |text: &str| json!({"rotation": {"interval": "30d"}, "gracePeriod": "1h", "secret": {"labels": {"team": "b"}, "template": {"data": {"env": text}}}});
    stage.apply("app", spec("NEW={{ token }}")).await;
    stage.settle("app").await;
    assert_eq!(assert_works(&stage, "app", "app").await, token);
    let reconciling = condition(&stage, "app", ConditionType::Reconciling).await;
    assert_eq!(reconciling.reason, "SecretImmutable");
    for part in ["\"app\" is immutable", "field is immutable when", "delete the Secret"] {
        assert!(reconciling.message.contains(part), "{}", reconciling.message);
    }
    // Labels can change.
    stage.apply("app", spec("TOKEN={{ token }}")).await;
    stage.advance("5m");
    stage.settle("app").await;
    assert_eq!(assert_works(&stage, "app", "app").await, token);
    assert!(stage.condition("app", ConditionType::Reconciling).await.is_none());
    assert_eq!(stage.secret("app").await.expect("a Secret").labels()["team"], "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_secret_is_deleted_when_its_token_ends() {
    let spec = |more: Value| {
        let mut spec =
            json!({"rotation": {"interval": "30d"}, "gracePeriod": "1h", "secret": {"labels": {"team": "a"}}});
        spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        spec
    };
    for (what, label, end) in [
        ("revoked", "pat-operator", json!({"revoked": true})),
        ("revoked, without the label", "", json!({"revoked": true})),
        ("expired", "pat-operator", json!({"expiry": {"at": "2020-01-01T00:00:00Z"}})),
        ("suspended until its end", "pat-operator", json!({"suspend": true})),
    ] {
        let (mut stage, token) = issued("immutable").await;
        edit(&stage, "app", "intruder", json!({"immutable": true, "metadata": {"labels": {LABEL: label}}})).await;
        stage.apply("app", spec(end.clone())).await;
        if end.get("suspend").is_some() {
            stage.settle("app").await;
            assert_eq!(stage.value("app", "token").await, token, "{what}: it works until its end");
            stage.advance("60d");
        }
        stage.settle("app").await;
        assert!(stage.secret("app").await.is_none(), "{what}");
        assert!(!stage.accepts("app", &token).await, "{what}");
        assert_eq!(states(&stage, "app").await, [], "{what}");
        let notes = event_notes(&stage, "app", "SecretDeleted").await;
        assert!(matches!(&notes[..], [note] if note.contains("\"app\" was deleted")), "{what}: {notes:?}");
        assert!(stage.condition("app", ConditionType::SecretNotCleared).await.is_none(), "{what}");
        let versions = stage.versions().await;
        stage.restart();
        stage.settle("app").await;
        assert_eq!(stage.versions().await, versions, "{what}");

        stage.apply("app", spec(json!({}))).await;
        stage.settle("app").await;
        assert_ne!(assert_works(&stage, "app", "app").await, token, "{what}: a new Secret holds a new token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_secret_is_replaced_when_its_token_is_revoked_or_not_rotated_in_time() {
    for revoke in [true, false] {
        let (stage, token) = issued("immutable").await;
        let uid = stage.secret("app").await.expect("a Secret").uid();
        edit(&stage, "app", "intruder", json!({"immutable": true})).await;
        if revoke {
            stage.advance("1h");
            stage.apply("app", json!({"rotation": {"interval": "30d"}, "revokeIfIssuedBefore": stage.now()})).await;
        } else {
            stage.advance("60d");
        }
        stage.settle("app").await;
        assert_ne!(assert_works(&stage, "app", "app").await, token);
        assert!(!stage.accepts("app", &token).await);
        assert_ne!(stage.secret("app").await.expect("a Secret").uid(), uid);
        assert_eq!(event_notes(&stage, "app", "SecretDeleted").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_secret_of_a_one_time_token_is_deleted_after_the_end_is_recorded() {
    let mut stage = Stage::new("immutable-once").await;
    stage.apply("app", json!({"secret": {"delivery": "Once"}})).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    edit(&stage, "app", "intruder", json!({"immutable": true})).await;
    stage.settle("app").await;
    assert_eq!(assert_works(&stage, "app", "app").await, token);
    stage.advance("10m");
    stage.settle("app").await;
    assert!(stage.secret("app").await.is_none());
    assert_eq!(stage.ready("app").await, ("False".into(), "NotDelivered".into()), "its deletion is no receipt");
    assert!(!stage.accepts("app", &token).await);
    stage.restart();
    stage.settle("app").await;
    assert_eq!(stage.ready("app").await, ("False".into(), "NotDelivered".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_secret_gets_its_label_back() {
    let (stage, token) = issued("immutable").await;
    edit(&stage, "app", "intruder", json!({"immutable": true, "metadata": {"labels": {LABEL: null}}})).await;
    stage.settle("app").await;
    assert_eq!(stage.secret("app").await.expect("a Secret").labels()[LABEL], "pat-operator");
    assert_eq!(assert_works(&stage, "app", "app").await, token);
}
