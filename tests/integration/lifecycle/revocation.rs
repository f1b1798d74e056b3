//! Revocation: immediate, final and without grace, with a new token where the spec asks for one.

use kube::api::{DeleteParams, Patch, PatchParams};
use pat_operator::api::{
    CredentialState::{Active, Grace},
    Time, VERIFIER_FIELD_MANAGER,
};
use serde_json::{Value, json};

use super::observe::{
    Write, after, assert_rests, before, conditions, credentials, id_of, is_anywhere, keys, length, mark, plain,
    reasons, revision, since,
};
use crate::support::stage::Stage;

fn at(stage: &Stage, offset: &str) -> Time {
    match (offset, offset.strip_prefix('-')) {
        ("0", _) => stage.now(),
        (_, Some(offset)) => before(stage, offset),
        (_, None) => after(stage, offset),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_if_issued_before_acts_once_and_on_time() {
    // The token is issued an hour before the field is set. `now` and `later` are the revisions right after that and 3 h later.
    let cases = [
        ("long-past", "-2h", 1, 1),
        ("instant-of-issue", "-1h", 1, 1),
        ("past", "-30m", 2, 2),
        ("now", "0", 2, 2),
        ("future", "1h", 1, 2),
    ];
    let mut stage = Stage::new("revoke-if").await;
    for (name, offset, now, later) in cases {
        stage.apply(name, json!({"secret": {"previousKey": "old"}})).await;
        stage.settle(name).await;
        let first = stage.value(name, "token").await;
        stage.advance("1h");
        let line = at(&stage, offset);
        stage.apply(name, json!({"revokeIfIssuedBefore": line, "secret": {"previousKey": "old"}})).await;
        assert_eq!(stage.accepts(name, &first).await, now == 1, "{name}: verifiers act without the operator");
        stage.settle(name).await;
        assert_eq!(revision(&stage, name).await, now, "{name}");
        assert_eq!(stage.accepts(name, &first).await, now == 1, "{name}");
        if now != later {
            stage.live_until(name, line.minus(length("1s"))).await;
            assert!(stage.accepts(name, &first).await, "{name}: not before the set time");
            stage.hand.set(line.timestamp());
            assert!(!stage.accepts(name, &first).await, "{name}: at the set time");
        }
        stage.live_until(name, after(&stage, "3h")).await;
        stage.settle(name).await;
        assert_eq!(credentials(&stage, name).await, [(later, Active)], "{name}: one mint and no grace");
        assert_eq!(stage.accepts(name, &first).await, later == 1, "{name}");
        assert_eq!(is_anywhere(&stage, &first).await, later == 1, "{name}");
        let second = stage.value(name, "token").await;
        assert!(stage.accepts(name, &second).await, "{name}");
        assert_eq!(keys(&stage, name).await, ["token"], "{name}: a revoked token is not kept as the previous token");
        assert_eq!(reasons(&stage, name).await, vec!["CredentialRevoked"; usize::from(later == 2)], "{name}");
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_takes_precedence_over_rotation() {
    // Both fields are set an hour after the issue. Offsets of both, the revision right after that, and the live revisions 3 h later.
    let cases = [
        ("both-now", "0", "0", 2, vec![2]),
        ("both-past", "-10m", "-20m", 2, vec![2]),
        ("rotate-first", "-20m", "-10m", 2, vec![2]),
        ("both-later", "1h", "1h", 1, vec![2]),
        ("rotate-now-revoke-later", "0", "1h", 2, vec![3]),
        ("revoke-now-rotate-later", "1h", "0", 2, vec![3, 2]),
    ];
    let mut stage = Stage::new("revoke-both").await;
    for (name, rotate, revoke, now, live) in cases {
        stage.apply(name, json!({})).await;
        stage.settle(name).await;
        let first = stage.value(name, "token").await;
        stage.advance("1h");
        let spec = json!({"rotateIfIssuedBefore": at(&stage, rotate), "revokeIfIssuedBefore": at(&stage, revoke)});
        stage.apply(name, spec).await;
        stage.settle(name).await;
        assert_eq!(revision(&stage, name).await, now, "{name}");
        let in_force = !matches!(name, "both-later" | "rotate-now-revoke-later");
        assert_eq!(stage.accepts(name, &first).await, !in_force, "{name}");
        stage.live_until(name, after(&stage, "3h")).await;
        stage.settle(name).await;
        assert_eq!(revision(&stage, name).await, live[0], "{name}");
        let revisions: Vec<_> = credentials(&stage, name).await.into_iter().map(|(revision, _)| revision).collect();
        assert_eq!(revisions, live, "{name}");
        assert!(!stage.accepts(name, &first).await, "{name}");
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_and_rotation_due_during_downtime_mint_once() {
    let mut stage = Stage::new("revoke-down").await;
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    let spec = json!({"rotateIfIssuedBefore": after(&stage, "1h"), "revokeIfIssuedBefore": after(&stage, "2h")});
    stage.apply("app", spec).await;
    stage.settle("app").await;
    assert_eq!(revision(&stage, "app").await, 1);
    stage.advance("5h");
    assert!(!stage.accepts("app", &first).await);
    stage.restart();
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(2, Active)]);
    assert_eq!(reasons(&stage, "app").await, ["CredentialRevoked"]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_during_a_rotation_ends_both_tokens() {
    let mut stage = Stage::new("revoke-middle").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.hand.set(stage.status("app").await.next_rotation_at.unwrap().timestamp());
    stage.reconcile("app").await.unwrap();
    let pending = stage.status("app").await.credentials[0].clone();
    assert_eq!(pending.revision, 2, "published, not yet in the Secret");
    stage.advance("1s");
    let line = stage.now();
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "revokeIfIssuedBefore": line})).await;
    let start = mark(&stage).await;
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(3, Active)]);
    assert!(!stage.accepts("app", &first).await);
    let third = stage.value("app", "token").await;
    assert!(stage.accepts("app", &third).await);
    for write in since(&stage, &start).await {
        if let Write::Secret(secret) = write {
            let token = String::from_utf8(secret.data.unwrap()["token"].0.clone()).unwrap();
            assert!(!token.contains(pending.id.as_str()), "the revoked pending token was never in the Secret");
        }
    }
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_the_active_credential_by_id_issues_a_new_one() {
    let mut stage = Stage::new("revoke-active").await;
    stage.apply("app", json!({"gracePeriod": "1d"})).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.advance("1h");
    let line = stage.now();
    stage.apply("app", json!({"gracePeriod": "1d", "rotateIfIssuedBefore": line})).await;
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    let id = id_of(&stage, "app", 2).await;
    let spec = json!({"gracePeriod": "1d", "rotateIfIssuedBefore": line, "revokedCredentials": [id]});
    stage.apply("app", spec.clone()).await;
    assert!(!stage.accepts("app", &second).await, "verifiers act without the operator");
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(3, Active), (1, Grace)]);
    assert!(stage.accepts("app", &first).await && !stage.accepts("app", &second).await);
    assert!(!is_anywhere(&stage, &second).await);
    assert_eq!(reasons(&stage, "app").await, ["Rotated", "CredentialRevoked"]);
    assert_rests(&mut stage, "app").await;

    // Clearing the list does not restore the revoked token.
    stage.apply("app", json!({"gracePeriod": "1d", "rotateIfIssuedBefore": line})).await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", &second).await);
    assert_eq!(revision(&stage, "app").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_credential_in_grace_ends_only_that_one() {
    let mut stage = Stage::new("revoke-grace").await;
    let spec = |more: Value| {
        let mut spec = json!({"gracePeriod": "5d", "secret": {"previousKey": "old"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    stage.apply("app", spec(json!({}))).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.advance("1h");
    stage.apply("app", spec(json!({"rotateIfIssuedBefore": stage.now()}))).await;
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    stage.advance("1h");
    let line = stage.now();
    stage.apply("app", spec(json!({"rotateIfIssuedBefore": line}))).await;
    stage.settle("app").await;
    let third = stage.value("app", "token").await;

    let id = id_of(&stage, "app", 2).await;
    stage.apply("app", spec(json!({"rotateIfIssuedBefore": line, "revokedCredentials": [id]}))).await;
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(3, Active), (1, Grace)], "no mint");
    assert!(stage.accepts("app", &first).await && stage.accepts("app", &third).await);
    assert!(!stage.accepts("app", &second).await);
    assert!(!is_anywhere(&stage, &second).await);
    assert_eq!(stage.value("app", "token").await, third);
    assert_eq!(reasons(&stage, "app").await, ["Rotated", "Rotated", "CredentialRevoked"]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_pat_gets_a_new_token_once_unrevoked() {
    let mut stage = Stage::new("revoke-all").await;
    let secret = json!({"previousKey": "old", "template": {"data": {"config": "t={{ token }} p={{ previousToken }}"}}});
    stage.apply("app", json!({"secret": secret})).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.advance("1h");
    stage.apply("app", json!({"secret": secret, "rotateIfIssuedBefore": stage.now()})).await;
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    assert!(stage.value("app", "config").await.contains(&first));

    stage.apply("app", json!({"secret": secret, "revoked": true})).await;
    assert!(!stage.accepts("app", &first).await && !stage.accepts("app", &second).await);
    let start = mark(&stage).await;
    stage.settle("app").await;
    let writes = since(&stage, &start).await;
    assert!(
        matches!(&writes[..], [Write::Secret(_), Write::Pat(_)]),
        "the Secret is cleared before the status changes: {writes:#?}"
    );
    assert_eq!(keys(&stage, "app").await, [""; 0], "the Secret exists and is empty");
    assert_eq!(conditions(&stage, "app").await, ["Ready=False Revoked", "Stalled=True Revoked"]);
    let status = stage.status("app").await;
    assert_eq!((status.credentials.len(), status.next_rotation_at, status.revision), (0, None, Some(2)));
    assert_eq!(reasons(&stage, "app").await, ["Rotated", "Revoked"]);
    assert_rests(&mut stage, "app").await;
    stage.live_until("app", after(&stage, "30d")).await;
    assert_rests(&mut stage, "app").await;

    stage.apply("app", json!({"secret": secret, "revoked": false})).await;
    assert!(
        !stage.accepts("app", &first).await && !stage.accepts("app", &second).await,
        "the revoked tokens stay invalid"
    );
    stage.settle("app").await;
    let third = stage.value("app", "token").await;
    assert_eq!(stage.value("app", "config").await, format!("t={third} p="));
    assert_eq!(credentials(&stage, "app").await, [(3, Active)]);
    assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    assert!(stage.accepts("app", &third).await);
    assert!(
        !stage.accepts("app", &first).await && !stage.accepts("app", &second).await,
        "the revoked tokens stay invalid"
    );
    assert_eq!(reasons(&stage, "app").await, ["Rotated", "Revoked"]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pat_revoked_from_the_start_gets_no_secret() {
    let mut stage = Stage::new("revoke-born").await;
    stage.apply("app", json!({"revoked": true})).await;
    stage.settle("app").await;
    assert_eq!(stage.secret("app").await, None);
    assert_eq!(conditions(&stage, "app").await, ["Ready=False Revoked", "Stalled=True Revoked"]);
    assert_eq!(stage.status("app").await.secret_name, None);
    assert_rests(&mut stage, "app").await;
    stage.apply("app", plain()).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    assert_eq!(revision(&stage, "app").await, 1);
}

/// Applies a spec on the server as this field manager.
async fn apply_as(stage: &Stage, manager: &str, name: &str, spec: &Value, dry_run: bool) -> Result<(), String> {
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": name}, "spec": spec,
    });
    let params = PatchParams { dry_run, ..PatchParams::apply(manager).force() };
    let applied = stage.pats().patch(name, &params, &Patch::Apply(&manifest)).await;
    applied.map(drop).map_err(|error| error.to_string())
}

/// Takes a revocation back in every way, as a dry run and then for real: by a manifest without the field or with another value, and by a merge
/// patch. Returns the results.
async fn take_back(stage: &Stage, manager: &str, name: &str) -> Vec<Result<(), String>> {
    let mut results = Vec::new();
    for dry_run in [true, false] {
        results.push(apply_as(stage, manager, name, &plain(), dry_run).await);
        let cleared = json!({"displayName": "plain", "revoked": false, "revokedCredentials": []});
        results.push(apply_as(stage, manager, name, &cleared, dry_run).await);
        let params = PatchParams { dry_run, ..PatchParams::default() };
        let nulls = Patch::Merge(json!({"spec": {"revoked": null, "revokedCredentials": null}}));
        let merged = stage.pats().patch(name, &params, &nulls).await;
        results.push(merged.map(drop).map_err(|error| error.to_string()));
    }
    results
}

/// Changes that never take a revocation back: metadata, finalizers, last uses, and a dry run of the deletion.
async fn change_the_rest(stage: &Stage, name: &str) {
    for metadata in [
        json!({"labels": {"team": "shop"}, "annotations": {"note": "leaked"}}),
        json!({"finalizers": ["example.com/keep"]}),
        json!({"finalizers": null}),
    ] {
        let patch = Patch::Merge(json!({"metadata": metadata}));
        stage.pats().patch(name, &PatchParams::default(), &patch).await.expect("metadata may change");
    }
    let used = Patch::Merge(json!({"status": {"lastUsedAt": stage.now()}}));
    let verifier = PatchParams { field_manager: Some(VERIFIER_FIELD_MANAGER.into()), ..PatchParams::default() };
    stage.pats().patch_status(name, &verifier, &used).await.expect("a last use is recorded");
    let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
    stage.pats().delete(name, &dry_run).await.expect("the object may be deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn unrecorded_revocation_cannot_be_taken_back() {
    let mut stage = Stage::new("revoke-back").await;
    // kubectl, and the field managers of Flux and Argo CD.
    for (manager, by_id) in
        ["kubectl", "kustomize-controller", "argocd-controller"].into_iter().flat_map(|one| [(one, false), (one, true)])
    {
        let name = &format!("{manager}-{by_id}");
        apply_as(&stage, manager, name, &plain(), false).await.expect("it is created");
        stage.settle(name).await;
        let token = stage.value(name, "token").await;
        let mut revocation = plain();
        let field = if by_id {
            revocation["revokedCredentials"] = json!([id_of(&stage, name, 1).await]);
            "spec.revokedCredentials: Forbidden: "
        } else {
            revocation["revoked"] = true.into();
            "spec.revoked: Forbidden: "
        };
        apply_as(&stage, manager, name, &revocation, false).await.expect("it is revoked");

        // No controller runs.
        change_the_rest(&stage, name).await;
        for result in take_back(&stage, manager, name).await {
            let message = result.expect_err("a revocation is not taken back");
            assert!(message.contains(field) && message.contains("then try again"), "{name}: {message}");
        }
        assert!(!stage.accepts(name, &token).await, "{name}");
        assert_eq!(stage.pat(name).await.metadata.generation, Some(2), "{name}: only the revocation changed the spec");

        // The controller records the revocation. From here on, it can be taken back.
        stage.settle(name).await;
        for result in take_back(&stage, manager, name).await {
            assert_eq!(result, Ok(()), "{name}");
        }
        stage.settle(name).await;
        assert!(!stage.accepts(name, &token).await && !is_anywhere(&stage, &token).await, "{name}");
        assert_eq!(credentials(&stage, name).await, [(2, Active)], "{name}");
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn object_with_unrecorded_revocation_can_be_deleted() {
    let stage = Stage::new("revoke-delete").await;
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    let finalizers = |list: Value| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    let params = PatchParams::default();
    stage.apply("app", json!({"revoked": true})).await;
    stage.pats().patch("app", &params, &finalizers(json!(["example.com/keep"]))).await.expect("a finalizer is added");
    stage.pats().delete("app", &DeleteParams::default()).await.expect("the deletion begins");
    assert!(stage.pat("app").await.metadata.deletion_timestamp.is_some());
    stage.pats().patch("app", &params, &finalizers(json!(null))).await.expect("the finalizer is removed");
    assert!(stage.pats().get_opt("app").await.expect("an answer").is_none());
}
