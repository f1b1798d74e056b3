//! The identities of the verifier and the REST API can write only last uses in the status, even if they are compromised.

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use pat_operator::api::PersonalAccessToken;
use serde_json::{Value, json};

use super::grant::{API, Account, Grant, VERIFIER, pat_kind, writer};
use crate::support::process::place::{Place, eventually};

/// Part of the message of the admission policy.
const ALLOWED: &str = "the verifier may change only status.lastUsedAt and status.usage of a PersonalAccessToken";

const NOW: &str = "2026-01-01T00:00:00Z";

#[tokio::test(flavor = "multi_thread")]
async fn the_verifiers_identity_can_write_only_uses() {
    let place = Place::new("policy").await;
    let grant = only_uses(&place, &VERIFIER).await;
    // It has no permission outside the status.
    let pats = own(&place, &grant);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    pats.patch("app", &PatchParams::default(), &Patch::Merge(&labels)).await.expect_err("no right to patch a PAT");
    grant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_apis_identity_can_write_only_uses_in_status() {
    let place = Place::new("policy-api").await;
    let grant = only_uses(&place, &API).await;
    // The rest of a token it manages; what it says of status along with that counts for nothing.
    let pats = own(&place, &grant);
    let before = place.status("app").await;
    let whole = json!({"metadata": {"labels": {"a": "b"}}, "status": {"revision": 77}});
    pats.patch("app", &PatchParams::default(), &Patch::Merge(&whole)).await.expect("it may patch a PAT");
    let after = place.pats().get("app").await.unwrap();
    assert_eq!(after.metadata.labels.unwrap()["a"], "b");
    assert_eq!(after.status.unwrap(), before);
    grant.end().await;
}

/// PATs, as this identity sees them.
fn own(place: &Place, grant: &Grant) -> Api<DynamicObject> {
    let own = place.access.client_for(grant.identity()).expect("a client");
    Api::namespaced_with(own, place.name(), &pat_kind())
}

/// Tries every way to write something else of status.
async fn only_uses(place: &Place, account: &Account) -> Grant {
    let operator = place.operator().start();
    place.apply("app", json!({"scopes": ["a"]})).await;
    place.ready("app").await;
    operator.terminate().await;
    let grant = Grant::new(place, account, "app").await;
    let pats = own(place, &grant);
    let id = place.status("app").await.credentials[0].id.to_string();

    // Its purpose, twice with the same value.
    for when in [NOW, NOW, "2026-01-02T00:00:00Z"] {
        let uses = json!({"status": {"lastUsedAt": when, "usage": {&id: when}}});
        pats.patch_status("app", &writer(), &Patch::Merge(uses)).await.expect("its own keys");
    }
    let gone = json!({"status": {"usage": {&id: null, "000000000009": NOW}}});
    pats.patch_status("app", &writer(), &Patch::Merge(gone)).await.expect("its own keys");
    let before = place.pats().get("app").await.unwrap();

    refuses_other_changes(&pats, &before).await;
    refuses_ownership(&pats, &before).await;
    leaves_metadata_alone(place, &pats, &before).await;
    refuses_put(place, &grant, &pats).await;

    // The policy does not affect other writers of the status.
    let person = json!({"status": {"revision": 7}});
    place.pats().patch_status("app", &PatchParams::default(), &Patch::Merge(person)).await.expect("an administrator");
    grant
}

/// Returns changes of the status other than uses.
fn other_changes(before: &PersonalAccessToken) -> Vec<(&'static str, Value)> {
    let credentials = serde_json::to_value(&before.status.as_ref().unwrap().credentials).unwrap();
    let mut planted = credentials.clone();
    planted[0]["sha256"] = json!("a".repeat(64));
    let mut added = credentials.as_array().unwrap().clone();
    added.push(json!({
        "id": "000000000001", "revision": 1, "sha256": "a".repeat(64), "state": "Grace", "issuedAt": NOW,
    }));
    vec![
        ("a planted hash", json!({"credentials": planted})),
        ("a credential more", json!({"credentials": added})),
        ("no credential", json!({"credentials": []})),
        ("credentials removed", json!({"credentials": null})),
        ("another owner", json!({"owner": {"kind": "User", "name": "root"}})),
        ("owner removed", json!({"owner": null})),
        (
            "another condition",
            json!({"conditions": [{
                "type": "Ready", "status": "False", "reason": "Revoked", "message": "", "lastTransitionTime": NOW,
            }]}),
        ),
        ("conditions removed", json!({"conditions": null})),
        ("a later end", json!({"defaultExpiresAt": "2099-01-01T00:00:00Z"})),
        ("a key that was not there", json!({"unplannedMints": [NOW]})),
        ("one of them along with its own", json!({"lastUsedAt": NOW, "firstIssuedAt": NOW})),
        ("everything", Value::Null),
    ]
}

/// Tries each change as merge patch, as JSON patch and as apply.
async fn refuses_other_changes(pats: &Api<DynamicObject>, before: &PersonalAccessToken) {
    for (what, status) in other_changes(before) {
        let merge = json!({ "status": status });
        let merged = pats.patch_status("app", &writer(), &Patch::Merge(&merge)).await;
        let refused = |how: &str, answer: kube::Result<DynamicObject>| {
            let error = answer.expect_err(&format!("{what} by {how}")).to_string();
            assert!(error.contains(ALLOWED), "{what} by {how}: {error}");
        };
        refused("merge patch", merged);

        // The same as JSON patch.
        let operations: Vec<Value> = match status.as_object() {
            None => vec![json!({"op": "remove", "path": "/status"})],
            Some(status) => status
                .iter()
                .map(|(key, value)| match value {
                    Value::Null => json!({"op": "remove", "path": format!("/status/{key}")}),
                    value => json!({"op": "add", "path": format!("/status/{key}"), "value": value}),
                })
                .collect(),
        };
        let operations = serde_json::from_value(json!(operations)).unwrap();
        let patched = pats.patch_status("app", &writer(), &Patch::Json::<()>(operations)).await;
        refused("JSON patch", patched);

        // And as an apply that takes over what others own; it cannot remove what it never had.
        let sets = status.as_object().is_some_and(|status| status.values().all(|value| !value.is_null()));
        if sets {
            let apply =
                json!({"apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "status": status});
            let params = PatchParams::apply("pat-operator-verifier").force();
            refused("apply", pats.patch_status("app", &params, &Patch::Apply(&apply)).await);
        }
    }
}

async fn refuses_ownership(pats: &Api<DynamicObject>, before: &PersonalAccessToken) {
    // It cannot become owner of fields that others set: the controller could not remove them any more.
    let owner = serde_json::to_value(&before.status.as_ref().unwrap().owner).unwrap();
    let apply =
        json!({"apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "status": {"owner": owner}});
    for manager in ["pat-operator-verifier", "pat-operator", "another"] {
        let params = PatchParams::apply(manager).force();
        let applied = pats.patch_status("app", &params, &Patch::Apply(&apply)).await.expect_err(manager).to_string();
        // As the controller, the apply would remove other fields of the controller.
        let parts = ["field manager pat-operator-verifier", "the field managers of other fields", ALLOWED];
        assert!(parts.iter().any(|part| applied.contains(part)), "{manager}: {applied}");
    }
    let odd = json!({"status": {"usage": {"not an id": NOW}}});
    let odd = pats.patch_status("app", &writer(), &Patch::Merge(odd)).await.expect_err("no id").to_string();
    assert!(odd.contains("each key of status.usage must be the id of a credential"), "{odd}");
}

async fn leaves_metadata_alone(place: &Place, pats: &Api<DynamicObject>, before: &PersonalAccessToken) {
    // A request for the status cannot change metadata.
    let metadata = json!({
        "labels": {"a": "b"}, "annotations": {"pat-operator.io/x": "y"}, "finalizers": ["example.com/stuck"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "00000000-0000-4000-8000-000000000001"}],
    });
    let patch = json!({"metadata": metadata, "spec": {"revoked": true}, "status": {"lastUsedAt": NOW}});
    let _ignored_or_denied = pats.patch_status("app", &writer(), &Patch::Merge(&patch)).await;
    let after = place.pats().get("app").await.unwrap();
    let seen = |pat: &PersonalAccessToken| {
        let metadata = &pat.metadata;
        let own = (metadata.labels.clone(), metadata.annotations.clone(), metadata.generation);
        (own, metadata.finalizers.clone(), metadata.owner_references.clone(), pat.spec.revoked)
    };
    assert_eq!(seen(&after), seen(before));
}

async fn refuses_put(place: &Place, grant: &Grant, pats: &Api<DynamicObject>) {
    // A PUT needs the verb `update`, which no Role grants. With that verb, the policy still holds.
    let mut object = pats.get("app").await.unwrap();
    object.data["status"]["owner"] = json!({"kind": "User", "name": "root"});
    let put = pats.replace_status("app", &PostParams::default(), &object).await.expect_err("no right to PUT");
    assert!(put.to_string().contains("forbidden"), "{put}");
    allow_put(place, grant.identity().name()).await;
    eventually("the right is in force", async || {
        let put = pats.replace_status("app", &PostParams::default(), &object).await.expect_err("the policy holds");
        put.to_string().contains(ALLOWED)
    })
    .await;
}

/// Permits this user to PUT the status of PATs in the namespace.
async fn allow_put(place: &Place, user: &str) {
    use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "put"},
        "rules": [{"apiGroups": ["pat-operator.io"], "resources": ["personalaccesstokens/status"], "verbs": ["update"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "put"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "put"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    let params = PatchParams::apply("tests");
    let roles: Api<Role> = Api::namespaced(place.client.clone(), place.name());
    roles.patch("put", &params, &Patch::Apply(&role)).await.expect("a Role");
    let bindings: Api<RoleBinding> = Api::namespaced(place.client.clone(), place.name());
    bindings.patch("put", &params, &Patch::Apply(&binding)).await.expect("a RoleBinding");
}
