//! Changes to the Secret's metadata, keys and name under a live token. The token is copied, never minted, and nothing is left over.

use kube::api::{Patch, PatchParams};
use pat_operator::api::CredentialState::{Active, Grace};
use serde_json::{Value, json};

use super::observe::{
    Write, annotations, assert_rests, conditions, credentials, is_anywhere, labels, mark, plain, reasons, revision,
    since,
};
use crate::support::stage::Stage;

fn string_map<const N: usize>(pairs: [(&str, &str); N]) -> std::collections::BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Changes a Secret with another field manager.
async fn edit_as_other(stage: &Stage, secret: &str, patch: Value) {
    let params = PatchParams { field_manager: Some("other".into()), ..Default::default() };
    stage.secrets().patch(secret, &params, &Patch::Merge(patch)).await.expect("the patch is accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_labels_annotations_and_key_cause_no_mint() {
    let mut stage = Stage::new("render").await;
    let managed = ("app.kubernetes.io/managed-by", "pat-operator");
    let first = json!({"labels": {"a": "1", "b": "1"}, "annotations": {"x/n": "1", "m": "1"}, "key": "one"});
    stage.apply("app", json!({"secret": first})).await;
    stage.settle("app").await;
    let token = stage.value("app", "one").await;
    assert_eq!(stage.data("app").await, string_map([("one", &token)]));
    assert_eq!(labels(&stage, "app").await, string_map([managed, ("a", "1"), ("b", "1")]));
    assert_eq!(annotations(&stage, "app").await, string_map([("x/n", "1"), ("m", "1")]));

    let others = json!({"metadata": {"labels": {"team": "x"}, "annotations": {"theirs": "y"}}});
    edit_as_other(&stage, "app", others).await;
    assert_rests(&mut stage, "app").await;

    let second = json!({"labels": {"b": "2", "c": "1"}, "annotations": {"m": "2"}, "key": "two"});
    stage.apply("app", json!({"secret": second})).await;
    stage.settle("app").await;
    assert_eq!(stage.data("app").await, string_map([("two", &token)]));
    assert_eq!(labels(&stage, "app").await, string_map([managed, ("b", "2"), ("c", "1"), ("team", "x")]));
    assert_eq!(annotations(&stage, "app").await, string_map([("m", "2"), ("theirs", "y")]));
    assert_rests(&mut stage, "app").await;

    stage.apply("app", plain()).await;
    stage.settle("app").await;
    assert_eq!(stage.data("app").await, string_map([("token", &token)]));
    assert_eq!(labels(&stage, "app").await, string_map([managed, ("team", "x")]));
    assert_eq!(annotations(&stage, "app").await, string_map([("theirs", "y")]));
    assert_rests(&mut stage, "app").await;

    assert_eq!(credentials(&stage, "app").await, [(1, Active)]);
    assert_eq!(revision(&stage, "app").await, 1);
    assert!(stage.accepts("app", &token).await);
    assert_eq!(reasons(&stage, "app").await, [""; 0], "a change of the spec publishes no event");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rendering_writes_secret_and_status_once() {
    let stage = Stage::new("render-writes").await;
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    for secret in [
        json!({"labels": {"a": "1"}}),
        json!({"annotations": {"a": "1"}}),
        json!({"key": "other"}),
        json!({"template": {"data": {"config": "{{ token }}"}}}),
        json!({"previousKey": "old"}),
    ] {
        stage.apply("app", json!({"secret": secret})).await;
        let start = mark(&stage).await;
        stage.settle("app").await;
        let writes = since(&stage, &start).await;
        let secrets = writes.iter().filter(|write| matches!(write, Write::Secret(_))).count();
        let statuses = writes.iter().filter(|write| matches!(write, Write::Pat(_))).count();
        assert_eq!((secrets, statuses, writes.len()), (1, 1, 2), "{secret}: {writes:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rendering_in_grace_keeps_both_tokens() {
    let mut stage = Stage::new("render-grace").await;
    let spec = |secret: Value, line: Option<pat_operator::api::Time>| {
        let mut spec = json!({"gracePeriod": "5d", "secret": secret});
        if let Some(line) = line {
            spec["rotateIfIssuedBefore"] = json!(line);
        }
        spec
    };
    stage.apply("app", spec(json!({"previousKey": "old"}), None)).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.advance("1h");
    let line = Some(stage.now());
    stage.apply("app", spec(json!({"previousKey": "old"}), line)).await;
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    // The two keys are swapped.
    stage.apply("app", spec(json!({"key": "old", "previousKey": "token"}), line)).await;
    stage.settle("app").await;
    assert_eq!(stage.data("app").await, string_map([("old", &second), ("token", &first)]));
    assert_eq!(credentials(&stage, "app").await, [(2, Active), (1, Grace)]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_secret_exists_before_the_old_one_is_removed() {
    let mut stage = Stage::new("rename").await;
    let spec = |secret: Value, line: Option<pat_operator::api::Time>| {
        let mut spec = json!({"gracePeriod": "5d", "secret": secret});
        if let Some(line) = line {
            spec["rotateIfIssuedBefore"] = json!(line);
        }
        spec
    };
    stage.apply("app", spec(json!({"previousKey": "old"}), None)).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.advance("1h");
    let line = Some(stage.now());
    stage.apply("app", spec(json!({"previousKey": "old"}), line)).await;
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    edit_as_other(&stage, "app", json!({"metadata": {"labels": {"team": "x"}}})).await;

    let renamed = json!({"name": "moved", "key": "api-key", "previousKey": "former", "labels": {"a": "1"}});
    stage.apply("app", spec(renamed, line)).await;
    let start = mark(&stage).await;
    stage.settle("app").await;
    let writes = since(&stage, &start).await;
    let created = writes
        .iter()
        .position(|write| matches!(write, Write::Secret(secret) if secret.metadata.name.as_deref() == Some("moved")));
    let removed = writes.iter().position(|write| matches!(write, Write::SecretGone(name) if name == "app"));
    assert!(created.expect("the new Secret is created") < removed.expect("the old Secret is removed"), "{writes:#?}");
    let Write::Secret(new) = &writes[created.unwrap()] else { unreachable!() };
    assert_eq!(
        new.data.as_ref().unwrap()["api-key"].0,
        second.as_bytes(),
        "its first version already contains the token"
    );
    let secret_writes = writes.iter().filter(|write| !matches!(write, Write::Pat(_))).count();
    assert_eq!(secret_writes, 2, "{writes:#?}");
    for write in &writes {
        let Write::Pat(pat) = write else { continue };
        let ready = &pat.status.as_ref().unwrap().conditions[0];
        assert_eq!((ready.type_.as_ref(), ready.status.as_ref()), ("Ready", "True"), "the PAT stays ready");
    }

    assert_eq!(stage.secret("app").await, None);
    assert_eq!(stage.data("moved").await, string_map([("api-key", &second), ("former", &first)]));
    assert_eq!(
        labels(&stage, "moved").await,
        string_map([("app.kubernetes.io/managed-by", "pat-operator"), ("a", "1")])
    );
    assert_eq!(credentials(&stage, "app").await, [(2, Active), (1, Grace)]);
    assert_eq!(stage.status("app").await.secret_name.as_deref(), Some("moved"));
    assert!(stage.accepts("app", &first).await && stage.accepts("app", &second).await);
    assert_eq!(reasons(&stage, "app").await, ["Rotated", "Moved"]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_secret_can_change_its_type() {
    let mut stage = Stage::new("rename-type").await;
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    let secret = json!({"name": "auth", "template": {"preset": "BasicAuth", "username": "robot"}});
    stage.apply("app", json!({"secret": secret})).await;
    stage.settle("app").await;
    assert_eq!(stage.data("auth").await, string_map([("token", &token), ("username", "robot"), ("password", &token)]));
    assert_eq!(stage.secret("app").await, None);
    assert_eq!(revision(&stage, "app").await, 1);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rename_to_a_taken_name_keeps_the_old_secret() {
    let mut stage = Stage::new("rename-taken").await;
    stage.apply("other", json!({})).await;
    stage.settle("other").await;
    let foreign = stage.secret("other").await;
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    stage.apply("app", json!({"secret": {"name": "other"}})).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, ["Ready=False SecretConflict", "Stalled=True SecretConflict"]);
    assert_eq!(stage.secret("other").await, foreign);
    assert_eq!(stage.value("app", "token").await, token);
    assert!(stage.accepts("app", &token).await, "the token stays valid");
    assert_eq!(stage.status("app").await.secret_name.as_deref(), Some("app"));
    assert_eq!(reasons(&stage, "app").await, ["SecretConflict"]);
    assert_rests(&mut stage, "app").await;

    stage.apply("app", json!({"secret": {"name": "free"}})).await;
    stage.settle("app").await;
    assert_eq!(stage.value("free", "token").await, token);
    assert_eq!(stage.secret("app").await, None);
    assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rename_during_a_rotation_ends_with_one_secret() {
    let mut stage = Stage::new("rename-middle").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.hand.set(stage.status("app").await.next_rotation_at.unwrap().timestamp());
    stage.reconcile("app").await.unwrap();
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "secret": {"name": "moved"}})).await;
    let start = mark(&stage).await;
    stage.settle("app").await;
    let mut existing = std::collections::BTreeSet::from(["app".to_owned()]);
    for write in since(&stage, &start).await {
        match write {
            Write::Secret(secret) => drop(existing.insert(secret.metadata.name.unwrap())),
            Write::SecretGone(name) => drop(existing.remove(&name)),
            Write::Pat(_) => {}
        }
        assert!(!existing.is_empty(), "at least one Secret exists at any time");
    }
    assert_eq!(existing.into_iter().collect::<Vec<_>>(), ["moved"]);
    let second = stage.value("moved", "token").await;
    assert_ne!(first, second, "the rotation was due");
    assert!(stage.accepts("app", &first).await && stage.accepts("app", &second).await);
    assert_eq!(conditions(&stage, "app").await[0], "Ready=True Issued");
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rename_of_a_revoked_pat_removes_the_old_secret() {
    let mut stage = Stage::new("rename-revoked").await;
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    stage.apply("app", json!({"revoked": true, "secret": {"name": "moved"}})).await;
    stage.settle("app").await;
    assert!(!is_anywhere(&stage, &token).await);
    assert_eq!(conditions(&stage, "app").await, ["Ready=False Revoked", "Stalled=True Revoked"]);
    assert_rests(&mut stage, "app").await;
    stage.apply("app", json!({"secret": {"name": "moved"}})).await;
    stage.settle("app").await;
    assert_eq!(stage.secret("app").await, None, "nothing is left under the old name");
    assert!(stage.accepts("app", &stage.value("moved", "token").await).await);
    assert_eq!(stage.status("app").await.secret_name.as_deref(), Some("moved"));
    assert_rests(&mut stage, "app").await;
}
