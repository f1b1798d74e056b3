//! The Secret in the hands of others, on the real API server: damaged, taken away, claimed by two, or never ours.

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

/// A stage with one token at rest, and that token. Its Secret has a key, a label and an annotation beside the token.
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

/// Changes the Secret as a client with this field manager does.
async fn edit(stage: &Stage, name: &str, manager: &str, patch: Value) {
    let params = PatchParams { field_manager: Some(manager.into()), ..Default::default() };
    stage.secrets().patch(name, &params, &Patch::Merge(patch)).await.expect("the edit is taken");
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

/// All that makes a Secret what it is, without what changes by being written.
fn looks(secret: &Secret) -> Value {
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
    credentials.into_iter().find(|one| one.sha256.to_string() == hash).expect("the status knows the token")
}

async fn notes(stage: &Stage, name: &str, reason: &str) -> Vec<String> {
    let events = stage.events(name).await.into_iter();
    events.filter(|(found, _)| found == reason).map(|(_, note)| note).collect()
}

async fn condition(stage: &Stage, name: &str, type_: ConditionType) -> Condition {
    let found = stage.condition(name, type_).await;
    found.unwrap_or_else(|| panic!("there is no condition {type_}"))
}

/// The token is not told of its own conflict: no credential, and a message in which `word` stands. It waits 1 to 10 minutes.
async fn assert_in_conflict(stage: &Stage, name: &str, word: &str) {
    let wake = stage.settle(name).await.expect("it looks again by itself").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "it looks again after {wake}");
    assert_eq!(stage.ready(name).await, ("False".into(), "SecretConflict".into()));
    let stalled = condition(stage, name, ConditionType::Stalled).await;
    assert!(stalled.message.contains(word), "{word:?} is not in {:?}", stalled.message);
    assert_eq!(stage.status(name).await.credentials, [], "a token that cannot be delivered is not minted");
    let before = stage.versions().await;
    stage.settle(name).await;
    assert_eq!(stage.versions().await, before, "a conflict at rest writes nothing");
}

async fn assert_works(stage: &Stage, name: &str, secret: &str) -> String {
    assert_eq!(stage.ready(name).await, ("True".into(), "Issued".into()));
    assert!(stage.condition(name, ConditionType::Stalled).await.is_none());
    let token = stage.value(secret, "token").await;
    assert!(stage.accepts(name, &token).await);
    token
}

// --- Damage that costs no token -------------------------------------------------------------------------------------

/// Does `damage` as `intruder`, and asserts that everything is as it was, told by an event that names `named`.
async fn mends_without_a_mint(what: &str, named: Option<&str>, damage: impl AsyncFnOnce(&Stage)) {
    let (stage, token) = issued("mend").await;
    let before = stage.secret("app").await.expect("a Secret");
    let status = stage.status("app").await;
    damage(&stage).await;
    let damaged = stage.secret("app").await.expect("a Secret");
    assert_ne!(looks(&damaged), looks(&before), "{what}: the damage shows");
    stage.settle("app").await;
    let after = stage.secret("app").await.expect("a Secret");
    assert_eq!(looks(&after), looks(&before), "{what}: the Secret is as it was");
    assert_eq!(stage.status("app").await, status, "{what}: nothing is minted, nothing is said in the status");
    assert!(stage.accepts("app", &token).await, "{what}");
    let told = notes(&stage, "app", "Repaired").await;
    assert_eq!(told.len(), 1, "{what}: it is told once: {told:?}");
    assert!(told[0].contains("the token is the same"), "{what}: {told:?}");
    match named {
        Some(manager) => assert!(told[0].contains(&format!("{manager:?}")), "{what}: {told:?} names {manager}"),
        None => assert!(!told[0].contains("last changed by"), "{what}: {told:?} accuses nobody without a proof"),
    }
    let versions = stage.versions().await;
    stage.settle("app").await;
    assert_eq!(stage.versions().await, versions, "{what}: it is mended once");
}

/// The same for a table of merge patches.
async fn mends(cases: &[(&str, Value, Option<&str>)]) {
    for (what, patch, named) in cases {
        mends_without_a_mint(what, *named, async |stage| edit(stage, "app", "intruder", patch.clone()).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_other_keys_is_mended_and_the_token_stays() {
    mends(&[
        ("another key is edited", json!({"stringData": {"env": "x"}}), Some("intruder")),
        ("a key is added", json!({"stringData": {"extra": "x"}}), Some("intruder")),
        ("a key is removed", json!({"data": {"env": null}}), None),
        ("another key is emptied", json!({"data": {"env": ""}}), Some("intruder")),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_labels_and_annotations_is_mended_and_the_token_stays() {
    mends(&[
        ("our label is taken off", json!({"metadata": {"labels": {LABEL: null}}}), None),
        ("our label is edited", json!({"metadata": {"labels": {LABEL: "Helm"}}}), Some("intruder")),
        ("all labels are taken off", json!({"metadata": {"labels": null}}), None),
        ("a label of the spec is edited", json!({"metadata": {"labels": {"team": "b"}}}), Some("intruder")),
        ("a label of the spec is taken off", json!({"metadata": {"labels": {"team": null}}}), None),
        ("an annotation of the spec is edited", json!({"metadata": {"annotations": {"note": "m"}}}), Some("intruder")),
        ("an annotation of the spec is taken off", json!({"metadata": {"annotations": {"note": null}}}), None),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_owner_is_set_again_and_the_token_stays() {
    mends(&[
        ("the owner is taken off", json!({"metadata": {"ownerReferences": null}}), None),
        (
            "owner and label are taken off",
            json!({"metadata": {"ownerReferences": null, "labels": {LABEL: null}}}),
            None,
        ),
    ])
    .await;
    mends_without_a_mint("the owner is no longer the controller", Some("intruder"), async |stage| {
        let mut owner = stage.secret("app").await.expect("a Secret").owner_references()[0].clone();
        owner.controller = None;
        edit(stage, "app", "intruder", json!({"metadata": {"ownerReferences": [owner]}})).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_of_ours_that_are_taken_off_are_written_again() {
    for annotation in [PAT_UID, CREDENTIALS, DATA_HASH, RENDER_HASH, OWNED] {
        let patch = json!({"metadata": {"annotations": {annotation: null}}});
        mends(&[(annotation, patch, None)]).await;
    }
    mends(&[("all of them", json!({"metadata": {"annotations": null}}), None)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_of_ours_that_are_edited_are_written_again() {
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
        mends(&[(&format!("{annotation}: {value}"), patch, Some("intruder"))]).await;
    }
}

/// What the annotation about credentials says, changed by `change`.
async fn forge_ledger(stage: &Stage, change: impl FnOnce(&mut Value)) {
    let secret = stage.secret("app").await.expect("a Secret");
    let mut ledger: Value = serde_json::from_str(&secret.annotations()[CREDENTIALS]).expect("JSON");
    change(&mut ledger);
    let patch = json!({"metadata": {"annotations": {CREDENTIALS: ledger.to_string()}}});
    edit(stage, "app", "intruder", patch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_ledger_is_written_again() {
    let none = "0".repeat(64);
    mends_without_a_mint("another hash", Some("intruder"), async |stage| {
        forge_ledger(stage, |ledger| ledger["live"][0]["sha256"] = none.clone().into()).await;
    })
    .await;
    mends_without_a_mint("a later issue", Some("intruder"), async |stage| {
        forge_ledger(stage, |ledger| ledger["live"][0]["issuedAt"] = "2999-01-01T00:00:00Z".into()).await;
    })
    .await;
    mends_without_a_mint("an earlier first issue", Some("intruder"), async |stage| {
        forge_ledger(stage, |ledger| ledger["firstIssuedAt"] = "2000-01-01T00:00:00Z".into()).await;
    })
    .await;
    mends_without_a_mint("a revision of the future", Some("intruder"), async |stage| {
        forge_ledger(stage, |ledger| ledger["revision"] = 1_000_000.into()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_was_added_to_the_ledger_is_taken_out_again() {
    let (stage, _) = issued("added").await;
    let before = looks(&stage.secret("app").await.expect("a Secret"));
    forge_ledger(&stage, |ledger| {
        let mut planted = ledger["live"][0].clone();
        planted["id"] = "planted00000".into();
        planted["sha256"] = "0".repeat(64).into();
        ledger["live"].as_array_mut().expect("a list").push(planted);
    })
    .await;
    stage.settle("app").await;
    // It looks just like one that has been revoked since, so nobody is accused.
    assert_eq!(looks(&stage.secret("app").await.expect("a Secret")), before);
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_ledger_never_makes_a_token_good() {
    let (mut stage, _) = issued("forge").await;
    let planted = Token::mint(&TokenPrefix::default()).expect("a token");
    for revision in [0, 1, 2, 1_000_000] {
        let hash = planted.hash().to_string();
        forge_ledger(&stage, |ledger| {
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
async fn a_forged_ledger_never_brings_a_dead_token_back() {
    let (stage, leaked) = issued("undead").await;
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
    assert!(!stage.accepts("app", &leaked).await, "once recorded, dead is dead");
    for revision in ["\"revision\":1", "\"revision\":2", "\"revision\":9"] {
        let ledger = ledger.replacen("\"revision\":1", revision, 1);
        edit(&stage, "app", "intruder", json!({"metadata": {"annotations": {CREDENTIALS: ledger}}})).await;
        stage.settle("app").await;
        assert!(!stage.accepts("app", &leaked).await, "{revision}");
        assert_works(&stage, "app", "app").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_revision_does_not_keep_a_rotation_from_happening() {
    let (stage, first) = issued("floor").await;
    stage.advance("30d");
    forge_ledger(&stage, |ledger| ledger["revision"] = 1_000_000.into()).await;
    stage.settle("app").await;
    let second = assert_works(&stage, "app", "app").await;
    assert_ne!(first, second);
    assert!(stage.accepts("app", &first).await, "in grace");
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Active), (1, CredentialState::Grace)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_annotations_of_others_are_left_alone() {
    let (stage, _) = issued("others").await;
    let theirs = json!({"metadata": {"labels": {"theirs": "x"}, "annotations": {"example.com/theirs": "y"}}});
    edit(&stage, "app", "intruder", theirs).await;
    let before = stage.versions().await;
    stage.settle("app").await;
    assert_eq!(stage.versions().await, before, "nothing of ours has changed");
    edit(&stage, "app", "intruder", json!({"stringData": {"env": "x"}})).await;
    stage.settle("app").await;
    let secret = stage.secret("app").await.expect("a Secret");
    assert_eq!((&*secret.labels()["theirs"], &*secret.annotations()["example.com/theirs"]), ("x", "y"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_repair_is_told_with_who_made_it_necessary() {
    let (stage, _) = issued("told").await;
    for manager in ["kubectl-edit", "intruder", "argocd-controller"] {
        edit(&stage, "app", manager, json!({"stringData": {"env": manager}})).await;
        stage.settle("app").await;
        let told = notes(&stage, "app", "Repaired").await;
        assert!(told.iter().any(|note| note.contains(&format!("{manager:?}"))), "{told:?} names {manager}");
    }
    assert_eq!(notes(&stage, "app", "Repaired").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fight_over_the_secret_is_one_event_that_counts() {
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
async fn a_pat_with_the_longest_of_names_is_told_of_as_well() {
    let stage = Stage::new("long").await;
    let name = format!("{}-b.{}", "a".repeat(197), "c".repeat(53));
    assert_eq!(name.len(), 253);
    stage.apply(&name, json!({})).await;
    stage.settle(&name).await;
    delete_secret(&stage, &name).await;
    stage.settle(&name).await;
    assert_works(&stage, &name, &name).await;
    assert_eq!(notes(&stage, &name, "Repaired").await.len(), 1);
}

// --- Damage that costs the token ------------------------------------------------------------------------------------

/// Does `damage`, and asserts that a new token is there, that the former one has its grace, and that it is told.
async fn mends_with_a_mint(what: &str, words: &[&str], damage: impl AsyncFnOnce(&Stage)) {
    let (mut stage, former) = issued("remint").await;
    let before = looks(&stage.secret("app").await.expect("a Secret"));
    stage.advance("1m");
    damage(&stage).await;
    stage.settle("app").await;
    let token = assert_works(&stage, "app", "app").await;
    assert_ne!(token, former, "{what}");
    assert_eq!(stage.value("app", "env").await, format!("TOKEN={token}"), "{what}");
    let after = looks(&stage.secret("app").await.expect("a Secret"));
    assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"], "{what}");
    assert_eq!(after["metadata"]["ownerReferences"], before["metadata"]["ownerReferences"], "{what}");
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Active), (1, CredentialState::Grace)], "{what}");
    let status = stage.status("app").await;
    assert_eq!(status.unplanned_mints, [status.credentials[0].issued_at], "{what}");

    let grace = credential(&stage, "app", &former).await.expires_at.expect("an end");
    assert_eq!(grace.since(stage.now()).as_secs(), 3600, "{what}: the whole grace period");
    let told = notes(&stage, "app", "Repaired").await;
    assert_eq!(told.len(), 1, "{what}: {told:?}");
    for word in words {
        assert!(told[0].contains(word), "{what}: {word:?} is not in {told:?}");
    }
    assert_eq!(notes(&stage, "app", "Rotated").await.len(), 0, "{what}: it is told as what it was");

    let versions = stage.versions().await;
    stage.restart();
    stage.settle("app").await;
    assert_eq!(stage.versions().await, versions, "{what}: it is mended once");
    assert!(stage.accepts("app", &former).await, "{what}: the former token works on");
    stage.advance("1h1s");
    stage.settle("app").await;
    assert!(!stage.accepts("app", &former).await, "{what}: until the end of its grace period");
    assert!(stage.accepts("app", &token).await, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_secret_comes_back_with_a_new_token_and_the_former_one_works_on() {
    mends_with_a_mint("deleted", &["was deleted"], async |stage| delete_secret(stage, "app").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_edited_is_replaced_and_the_editor_is_named() {
    mends_with_a_mint("by kubectl", &["no longer held", "\"kubectl-edit\""], async |stage| {
        edit(stage, "app", "kubectl-edit", json!({"stringData": {"token": "kpat_mine"}})).await;
    })
    .await;
    mends_with_a_mint("by an intruder", &["no longer held", "\"intruder\""], async |stage| {
        edit(stage, "app", "intruder", json!({"data": {"token": ""}})).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_taken_out_is_replaced() {
    for patch in [json!({"data": {"token": null}}), json!({"data": null})] {
        let what = patch.to_string();
        mends_with_a_mint(&what, &["no longer held"], async |stage| edit(stage, "app", "intruder", patch).await).await;
    }
    mends_with_a_mint("with the label", &["no longer held"], async |stage| {
        edit(stage, "app", "intruder", json!({"data": null, "metadata": {"labels": {LABEL: null}}})).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_still_stands_under_another_key_is_copied_back() {
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
async fn the_token_of_the_previous_key_is_copied_back_or_given_up_but_never_minted() {
    let stage = Stage::new("previous").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "old"}})).await;
    stage.settle("app").await;
    stage.advance("30d");
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    edit(&stage, "app", "intruder", json!({"stringData": {"old": "x"}})).await;
    stage.settle("app").await;
    assert_eq!(stage.value("app", "token").await, token);
    assert!(!stage.data("app").await.contains_key("old"), "the former token is nowhere to be had");
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Active), (1, CredentialState::Grace)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_without_its_label_is_wiped_all_the_same_when_its_token_dies() {
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
async fn a_secret_of_another_type_in_our_name_is_a_conflict_until_it_is_gone() {
    let (stage, token) = issued("type").await;
    let ours = stage.secret("app").await.expect("a Secret");
    delete_secret(&stage, "app").await;
    let mut other = serde_json::to_value(&ours).expect("JSON");
    other["type"] = "example.com/other".into();
    other["metadata"]["resourceVersion"] = Value::Null;
    other["metadata"]["uid"] = Value::Null;
    let other = create(&stage, other).await;
    let wake = stage.settle("app").await.expect("it looks again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "{wake}");
    assert_eq!(stage.ready("app").await, ("False".into(), "SecretConflict".into()));
    let stalled = condition(&stage, "app", ConditionType::Stalled).await;
    assert!(stalled.message.contains("\"example.com/other\""), "{}", stalled.message);
    assert_eq!(stage.secret("app").await, Some(other), "it is not touched");
    assert!(stage.accepts("app", &token).await, "whoever has the token can go on");
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);
    delete_secret(&stage, "app").await;
    stage.settle("app").await;
    assert_ne!(assert_works(&stage, "app", "app").await, token);
    assert!(stage.accepts("app", &token).await, "in grace");
}

// --- The breaker ----------------------------------------------------------------------------------------------------

async fn take_token_out(stage: &Stage) {
    edit(stage, "app", "intruder", json!({"stringData": {"token": "x"}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fourth_unplanned_mint_within_an_hour_waits_across_restarts_until_the_hour_has_passed() {
    let (mut stage, _) = issued("breaker").await;
    let begin = stage.now();
    let mut token = String::new();
    for minute in 1..=3 {
        stage.advance("1m");
        take_token_out(&stage).await;
        stage.settle("app").await;
        let next = assert_works(&stage, "app", "app").await;
        assert_ne!(next, token, "mint {minute}");
        token = next;
        stage.restart();
    }
    take_token_out(&stage).await;
    let wake = stage.settle("app").await.expect("it goes on by itself");
    assert_eq!(stage.ready("app").await, ("False".into(), "MintLoop".into()));
    let stalled = condition(&stage, "app", ConditionType::Stalled).await;
    assert!(stalled.message.contains("\"intruder\""), "{}", stalled.message);
    assert_eq!(stage.status("app").await.unplanned_mints.len(), 3);
    assert_eq!(wake.since(begin).as_secs(), 61 * 60, "an hour after the first of the three");
    assert_eq!(notes(&stage, "app", "MintLoop").await.len(), 1);
    assert!(stage.accepts("app", &token).await, "a copy of the last token works on");

    let versions = stage.versions().await;
    for _ in 0..3 {
        stage.restart();
        stage.advance("10m");
        stage.settle("app").await;
    }
    assert_eq!(stage.versions().await, versions, "the breaker holds, and nothing is written");

    stage.hand.set(wake.timestamp());
    stage.restart();
    stage.settle("app").await;
    assert_ne!(assert_works(&stage, "app", "app").await, token);
    take_token_out(&stage).await;
    let next = stage.settle("app").await.expect("it goes on by itself");
    assert_eq!(stage.ready("app").await, ("False".into(), "MintLoop".into()));
    assert_eq!(next.since(begin).as_secs(), 62 * 60, "the hour slides: an hour after the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_of_hours_never_mints_more_than_three_times_in_any_hour() {
    let stage = &mut Stage::new("loop").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "gracePeriod": "5m"})).await;
    stage.settle("app").await;
    let mut mints = BTreeSet::new();
    for round in 0..60 {
        stage.advance("4m");
        take_token_out(stage).await;
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
    assert!(mints.len() > 3 * 3, "it goes on with what is allowed: {} mints in 4 hours", mints.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_rotation_and_a_repair_without_a_mint_do_not_trip_the_breaker() {
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

fn shared() -> Value {
    json!({"secret": {"name": "shared"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_secret_first_keeps_it_and_the_other_gets_going_when_it_is_free() {
    let stage = Stage::new("first").await;
    stage.apply("a", shared()).await;
    stage.settle("a").await;
    let token = assert_works(&stage, "a", "shared").await;
    stage.apply("b", shared()).await;
    assert_in_conflict(&stage, "b", "belongs to PersonalAccessToken \"a\"").await;
    stage.settle("a").await;
    assert_eq!(assert_works(&stage, "a", "shared").await, token);

    // The owner goes; its Secret still stands in the cache.
    let mut operator = stage.manual_operator(stage.client.clone());
    operator.show(stage.pat("b").await);
    operator.show_secret(stage.secret("shared").await.expect("a Secret"));
    let before = stage.pat("b").await;
    delete_pat(&stage, "a").await;
    let wake = operator.reconcile("b").await.expect("the run succeeds").expect("it looks again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "{wake}");
    assert_eq!(stage.pat("b").await, before);
    // What the garbage collector does, if it has not done it yet.
    let _gone_already = stage.secrets().delete("shared", &DeleteParams::default()).await;
    stage.settle("b").await;
    assert_ne!(assert_works(&stage, "b", "shared").await, token);
    assert_eq!(states(&stage, "b").await, [(1, CredentialState::Active)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_moves_away_leaves_the_secret_to_the_other() {
    let stage = Stage::new("moves").await;
    stage.apply("a", shared()).await;
    stage.settle("a").await;
    let token = assert_works(&stage, "a", "shared").await;
    stage.apply("b", shared()).await;
    assert_in_conflict(&stage, "b", "\"a\"").await;
    stage.apply("a", json!({"secret": {"name": "own"}})).await;
    assert_in_conflict(&stage, "b", "\"a\"").await;
    stage.settle("a").await;
    assert_eq!(assert_works(&stage, "a", "own").await, token, "the token moved");
    stage.settle("b").await;
    assert_ne!(assert_works(&stage, "b", "shared").await, token);
    assert_eq!(stage.value("own", "token").await, token);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_owner_the_older_one_gets_the_secret_whoever_is_looked_at_first() {
    for order in [["a", "b"], ["b", "a"]] {
        let stage = Stage::new("older").await;
        let mut ages = Vec::new();
        for name in order {
            let pat = stage.apply(name, shared()).await;
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
        assert_eq!(stage.status(younger).await.revision, None, "it never even tried");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_run_at_once_come_to_one_secret_and_one_token() {
    for _ in 0..5 {
        let stage = Stage::new("race").await;
        let (a, b) = tokio::join!(stage.apply("a", shared()), stage.apply("b", shared()));
        // Neither knows of the other: the API server alone decides who is first.
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
async fn a_better_claim_that_comes_later_takes_nothing_away_and_keeps_what_it_has() {
    let stage = Stage::new("claim").await;
    let old = stage.apply("old", json!({})).await.creation_timestamp().expect("a time").0;
    stage.settle("old").await;
    let kept = assert_works(&stage, "old", "old").await;
    // Ages have whole seconds.
    let young = loop {
        let young = stage.apply("young", shared()).await.creation_timestamp().expect("a time").0;
        if young > old {
            break young;
        }
        delete_pat(&stage, "young").await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert!(old < young);
    stage.settle("young").await;
    let token = assert_works(&stage, "young", "shared").await;

    stage.apply("old", shared()).await;
    let wake = stage.settle("old").await.expect("it looks again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "{wake}");
    assert_eq!(stage.ready("old").await, ("False".into(), "SecretConflict".into()));
    assert_eq!(stage.value("old", "token").await, kept, "its own Secret stays until it has another");
    assert!(stage.accepts("old", &kept).await);
    assert_eq!(states(&stage, "old").await, [(1, CredentialState::Active)]);
    stage.settle("young").await;
    assert_eq!(assert_works(&stage, "young", "shared").await, token);

    // Also when the young one's Secret has to be mended: it is still the owner, not the younger of two.
    edit(&stage, "shared", "intruder", json!({"stringData": {"token": "x"}})).await;
    stage.settle("old").await;
    stage.settle("young").await;
    assert_ne!(assert_works(&stage, "young", "shared").await, token);
    assert_eq!(stage.ready("old").await, ("False".into(), "SecretConflict".into()));

    // It goes back to where it was.
    stage.apply("old", json!({"secret": {"name": "old"}})).await;
    stage.settle("old").await;
    assert_eq!(assert_works(&stage, "old", "old").await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rival_that_is_being_deleted_has_no_claim_but_keeps_the_secret_that_it_has() {
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let let_go = json!({"metadata": {"finalizers": null}});
    for had_it in [false, true] {
        let stage = Stage::new("leaving").await;
        stage.apply("a", shared()).await;
        if had_it {
            stage.settle("a").await;
        }
        stage.pats().patch("a", &PatchParams::default(), &Patch::Merge(&hold)).await.expect("a finalizer");
        delete_pat(&stage, "a").await;
        stage.apply("b", shared()).await;
        stage.settle("a").await;
        if had_it {
            assert_in_conflict(&stage, "b", "belongs to PersonalAccessToken \"a\"").await;
            let token = stage.value("shared", "token").await;
            assert!(!stage.accepts("a", &token).await, "a token dies with its object's deletionTimestamp");
        } else {
            stage.settle("b").await;
            assert_works(&stage, "b", "shared").await;
        }
        stage.pats().patch("a", &PatchParams::default(), &Patch::Merge(&let_go)).await.expect("no finalizer");
    }
}

// --- Secrets that are not ours --------------------------------------------------------------------------------------

/// A ConfigMap, as the controller of something.
async fn config_map(stage: &Stage) -> Value {
    let api: Api<ConfigMap> = Api::namespaced(stage.client.clone(), stage.namespace.name());
    let map = serde_json::from_value(json!({"metadata": {"name": "them"}})).expect("a ConfigMap");
    let map = api.create(&PostParams::default(), &map).await.expect("a ConfigMap");
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "them", "uid": map.uid(), "controller": true})
}

async fn assert_foreign_is_left_alone(what: &str, metadata: Value, owned: bool, word: &str) {
    let stage = Stage::new("foreign").await;
    let mut metadata = metadata;
    metadata["name"] = "app".into();
    if owned {
        metadata["ownerReferences"] = json!([config_map(&stage).await]);
    }
    let foreign = create(&stage, json!({"metadata": metadata, "stringData": {"token": "theirs", "user": "me"}})).await;
    stage.apply("app", json!({})).await;
    assert_in_conflict(&stage, "app", word).await;
    assert_eq!(notes(&stage, "app", "SecretConflict").await.len(), 1, "{what}");
    for _ in 0..3 {
        let wake = stage.settle("app").await.expect("it looks again");
        stage.hand.set(wake.timestamp());
        assert_in_conflict(&stage, "app", word).await;
    }
    stage.apply("app", json!({"revoked": true})).await;
    stage.settle("app").await;
    stage.apply("app", json!({"revoked": false})).await;
    stage.settle("app").await;
    assert_eq!(stage.secret("app").await.as_ref(), Some(&foreign), "{what}: it is never touched");

    delete_secret(&stage, "app").await;
    stage.settle("app").await;
    assert_works(&stage, "app", "app").await;
    let status = stage.status("app").await;
    assert_eq!(status.first_issued_at, Some(status.credentials[0].issued_at), "{what}: its life begins now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_secret_is_never_touched_and_when_it_is_gone_the_token_gets_going() {
    assert_foreign_is_left_alone("plain", json!({}), false, "already exists").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_secret_with_our_label_is_never_touched() {
    let labels = json!({"labels": {LABEL: "pat-operator"}});
    assert_foreign_is_left_alone("labelled", labels, false, "already exists").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_another_controller_is_never_touched() {
    for labels in [json!({}), json!({LABEL: "pat-operator"})] {
        let metadata = json!({"labels": labels});
        assert_foreign_is_left_alone("owned", metadata, true, "belongs to ConfigMap them").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_longer_than_the_lifetime_before_the_first_token_costs_none_of_it() {
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
async fn a_secret_that_another_controller_took_over_is_left_to_it() {
    let (stage, token) = issued("taken").await;
    let owner = config_map(&stage).await;
    edit(&stage, "app", "intruder", json!({"metadata": {"ownerReferences": [owner]}})).await;
    let taken = stage.secret("app").await;
    let wake = stage.settle("app").await.expect("it looks again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "{wake}");
    assert_eq!(stage.secret("app").await, taken);
    assert_eq!(stage.ready("app").await, ("False".into(), "SecretConflict".into()));
    assert!(stage.accepts("app", &token).await);
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);
}

// --- Secrets that are stuck -----------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_finish_being_deleted_is_waited_for() {
    let (stage, token) = issued("deleting").await;
    edit(&stage, "app", "intruder", json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    delete_secret(&stage, "app").await;
    let stuck = stage.secret("app").await.expect("it is still there");
    let wake = stage.settle("app").await.expect("it looks again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "{wake}");
    assert_eq!(stage.ready("app").await, ("False".into(), "SecretConflict".into()));
    let stalled = condition(&stage, "app", ConditionType::Stalled).await;
    assert!(stalled.message.contains("finalizers"), "{}", stalled.message);
    assert_eq!(stage.secret("app").await, Some(stuck));
    assert!(stage.accepts("app", &token).await, "what stands in it still works");
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);
    edit(&stage, "app", "intruder", json!({"metadata": {"finalizers": null}})).await;
    stage.settle("app").await;
    assert_ne!(assert_works(&stage, "app", "app").await, token);
    assert!(stage.accepts("app", &token).await, "in grace");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_secret_is_told_and_its_replacement_gets_the_token() {
    let (stage, first) = issued("immutable").await;
    edit(&stage, "app", "intruder", json!({"immutable": true})).await;
    stage.settle("app").await;
    assert_works(&stage, "app", "app").await;
    stage.advance("30d");
    stage.settle("app").await;
    // The rotation is due and cannot be done; the old token works on.
    assert_eq!(assert_works(&stage, "app", "app").await, first);
    let reconciling = condition(&stage, "app", ConditionType::Reconciling).await;
    assert_eq!(reconciling.reason, "ApiError");
    assert!(reconciling.message.contains("immutable"), "{}", reconciling.message);
    for _ in 0..6 {
        let wake = stage.reconcile("app").await.expect("the run succeeds").expect("it tries again");
        assert!(wake.since(stage.now()).as_secs() <= 300, "{wake}");
        stage.hand.set(wake.timestamp());
        stage.reconcile("app").await.expect("the run succeeds");
        let pending =
            states(&stage, "app").await.iter().filter(|(_, state)| *state == CredentialState::Pending).count();
        assert!(pending <= 1, "hashes pile up");
    }
    delete_secret(&stage, "app").await;
    let wake = stage.settle("app").await.expect("it tries again");
    assert!(wake.since(stage.now()).as_secs() <= 300, "{wake}");
    stage.hand.set(wake.timestamp());
    stage.settle("app").await;
    let second = assert_works(&stage, "app", "app").await;
    assert_ne!(first, second);
    assert!(stage.condition("app", ConditionType::Reconciling).await.is_none());
    assert!(stage.accepts("app", &first).await, "in grace");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_secret_that_lost_its_label_gets_it_back() {
    let (stage, token) = issued("immutable").await;
    edit(&stage, "app", "intruder", json!({"immutable": true, "metadata": {"labels": {LABEL: null}}})).await;
    stage.settle("app").await;
    assert_eq!(stage.secret("app").await.expect("a Secret").labels()[LABEL], "pat-operator");
    assert_eq!(assert_works(&stage, "app", "app").await, token);
}
