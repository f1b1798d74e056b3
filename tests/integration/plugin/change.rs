//! Changes of specs: `extend`, and what becomes of a field that a GitOps tool, or another manifest, has.

use kube::api::{Patch, PatchParams};
use pat_operator::api::PersonalAccessToken;
use serde_json::{Value, json};

use super::hand::Hand;

async fn apply_as(hand: &Hand, manager: &str, name: &str, spec: Value) {
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1",
        "kind": "PersonalAccessToken",
        "metadata": {"name": name, "labels": {
            "kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
        }},
        "spec": spec,
    });
    hand.place
        .pats()
        .patch(name, &PatchParams::apply(manager).force(), &Patch::Apply(&manifest))
        .await
        .expect("it is taken");
}

async fn expiry(hand: &Hand, name: &str) -> Value {
    let pat: PersonalAccessToken = hand.place.pats().get(name).await.unwrap();
    serde_json::to_value(pat.spec.expiry).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_moved_and_nothing_is_issued_by_that() {
    let (hand, _operator) = Hand::with_operator("pat-extend").await;
    hand.pat("create ci --apply").good();
    hand.pat("wait ci --timeout 60s").good();
    let token = hand.place.token("ci").await;
    let default = hand.place.status("ci").await.expires_at.expect("the default end");
    let told = hand.pat("extend ci --by 10d").good();
    assert!(told.starts_with("ci ends at ") && told.contains("(in "), "{told}");
    let moved = default.plus(pat_operator::api::duration::parse("10d").unwrap());
    assert_eq!(expiry(&hand, "ci").await, json!({"at": moved}));
    assert!(hand.pat("extend ci --after 30d").good().starts_with("ci ends at "));
    assert_eq!(expiry(&hand, "ci").await, json!({"after": "30d"}));
    hand.pat("extend ci --by 1d --dry-run").good();
    assert_eq!(expiry(&hand, "ci").await, json!({"after": "30d"}), "only tried");
    hand.pat("extend ci --by 1d12h").good();
    assert_eq!(expiry(&hand, "ci").await, json!({"after": "31d12h"}));
    assert_eq!(hand.pat("extend ci --never").good(), "ci has no end\n");
    let refused = hand.pat("extend ci --by 1d").failed(1);
    assert!(refused.contains("has no end that could be moved"), "{refused}");
    hand.place.until("ci", "without an end", |status| status.expires_at.is_none()).await;
    assert_eq!(hand.place.token("ci").await, token);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_a_gitops_tool_is_left_to_it_and_its_repository_is_named() {
    let hand = Hand::new("pat-gitops").await;
    apply_as(&hand, "kustomize-controller", "ci", json!({"expiry": {"after": "30d"}})).await;
    let refused = hand.pat("extend ci --by 10d").failed(1);
    for part in
        ["spec.expiry of ci belongs to Flux", "Kustomization flux-system/apps", "expiry: {after: \"40d\"}", "--force"]
    {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(expiry(&hand, "ci").await, json!({"after": "30d"}));
    let forced = hand.pat("extend ci --by 10d --force");
    assert!(forced.code == 0 && forced.err.contains("will set it back"), "{forced:?}");
    assert_eq!(expiry(&hand, "ci").await, json!({"after": "40d"}));
    // What its manifest does not have is nobody's but the person's.
    hand.pat("revoke ci --yes").good();
    let page = hand.pat("show ci").good();
    assert!(page.contains("Managed by:    Flux, Kustomization flux-system/apps"), "{page}");
    // And it stays when the tool applies again.
    apply_as(&hand, "kustomize-controller", "ci", json!({"expiry": {"after": "30d"}})).await;
    assert_eq!(hand.place.pats().get("ci").await.unwrap().spec.revoked, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_somebody_s_manifest_is_changed_with_a_word_about_the_manifest() {
    let hand = Hand::new("pat-manifest").await;
    hand.place.apply("ci", json!({"expiry": {"after": "30d"}})).await;
    let ran = hand.pat("extend ci --after 60d");
    assert!(ran.code == 0 && ran.err.contains("note: person wrote spec.expiry before"), "{ran:?}");
    assert!(ran.err.contains("expiry: {after: \"60d\"}"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_refuses_is_told_in_one_line() {
    let hand = Hand::new("pat-refused").await;
    hand.pat("create ci --secret one --preset basic-auth --apply").good();
    let ran = hand.pat("create ci --secret one --apply").failed(1);
    assert!(
        ran.starts_with("error: ")
            && ran.lines().count() == 1
            && ran.contains("the type of a Secret cannot be changed"),
        "{ran}"
    );
    let ran = hand.pat("create bad --scope a\"b --apply").failed(1);
    assert!(ran.contains("a scope is"), "{ran}");
    let ran = hand.pat("rotate ghost").failed(1);
    assert!(ran.contains("there is no PersonalAccessToken ghost"), "{ran}");
}
