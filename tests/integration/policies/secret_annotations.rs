//! The policy `secret-annotations`: who can set annotations under `pat-operator.io/` on Secrets.

use control_plane::Identity;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::{
    guard::Guard,
    people,
    write::{Change, Create, secrets},
};
use crate::support::process::place::{Place, eventually};

const UID: &str = "pat-operator.io/pat-uid";

fn secret(annotations: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "made", "annotations": annotations}, "stringData": {"a": "b"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn only_controller_and_restorers_set_our_annotations() {
    let place = Place::new("annotations").await;
    let home = place.name();
    let guard = Guard::apply("secret-annotations", &place, &[&place]).await;
    let jane_client = people::administrator_of(&place, "jane").await.1;
    let jane = secrets(&jane_client, home);
    let planted = secret(json!({UID: "00000000-0000-4000-8000-000000000001"}));
    eventually("the policy is in force", async || Create::Post.dry_run(&jane, &planted).await.is_err()).await;

    // A real Secret, written by the operator with the chart's ServiceAccount.
    let controller = Identity::service_account(home, "pat-operator-controller");
    let controller_client = people::make_administrator(&place, &controller).await;
    let kubeconfig = place.access.kubeconfig_for(&controller).expect("a kubeconfig");
    let operator = crate::support::process::Launch::controller_in(&kubeconfig, home).start();
    place.apply("app", json!({"secret": {"annotations": {"example.com/a": "b"}}})).await;
    place.ready("app").await;
    operator.terminate().await;

    let refused = |who: &str| {
        Err(format!(
            "metadata.annotations: {who} may not set annotations under pat-operator.io/ on a Secret: they say which tokens it contains, and only \
             the pat-operator controller sets them; to copy the Secret, omit them; to restore a backup, ask a cluster administrator for \
             a ClusterRole and a ClusterRoleBinding that grant the verb restore on secrets.pat-operator.io"
        ))
    };
    let creations = [
        (planted.clone(), refused("jane")),
        (secret(json!({"pat-operator.io/anything": ""})), refused("jane")),
        (secret(json!({"example.com/a": "b", "pat-operator.io/owned": "{}"})), refused("jane")),
        (
            secret(json!({"example.com/a": "b", "pat-operator.io.example.com/a": "b", "xpat-operator.io/a": "b"})),
            Ok(()),
        ),
        (secret(json!({})), Ok(())),
        (secret(Value::Null), Ok(())),
    ];
    for (manifest, expected) in creations {
        for create in Create::ALL {
            assert_eq!(create.dry_run(&jane, &manifest).await, expected, "{create:?}: {}", manifest["metadata"]);
        }
    }
    let changes = [
        (json!({"metadata": {"annotations": {UID: "00000000-0000-4000-8000-000000000001"}}}), refused("jane")),
        (json!({"metadata": {"annotations": {"pat-operator.io/credentials": "[]"}}}), refused("jane")),
        (json!({"metadata": {"annotations": {"pat-operator.io/new": "x"}}}), refused("jane")),
        // Ordinary changes, including those that the controller will revert.
        (json!({"metadata": {"annotations": {"example.com/a": "c"}}}), Ok(())),
        (json!({"metadata": {"annotations": {"example.com/new": "x"}}}), Ok(())),
        (json!({"metadata": {"labels": {"team": "a"}}}), Ok(())),
        (json!({"metadata": {"finalizers": ["example.com/wait"]}}), Ok(())),
        (json!({"data": {"token": "eA=="}}), Ok(())),
    ];
    for (patch, expected) in changes {
        for change in Change::OF_SECRETS {
            assert_eq!(change.dry_run(&jane, "app", &patch).await, expected, "{change:?}: {patch}");
        }
    }
    // Removing the annotations is allowed.
    for removal in [
        json!({"metadata": {"annotations": {UID: null}}}),
        json!({"metadata": {"annotations": null}}),
        json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}),
    ] {
        for change in [Change::Put, Change::MergePatch, Change::JsonPatch, Change::StrategicMergePatch] {
            assert_eq!(change.dry_run(&jane, "app", &removal).await, Ok(()), "{change:?}: {removal}");
        }
    }
    // A copy, as `kubectl get -o yaml | kubectl apply` makes one.
    let mut copy = serde_json::to_value(jane.get("app").await.unwrap()).unwrap();
    copy["metadata"] = json!({"name": "copy", "annotations": copy["metadata"]["annotations"]});
    assert_eq!(Create::Apply.dry_run(&jane, &copy).await, refused("jane"));

    // Users with the right.
    let (restorer, restorer_client) = people::administrator_of(&place, "restorer").await;
    let restore = json!([{"apiGroups": ["pat-operator.io"], "resources": ["secrets"], "verbs": ["restore"]}]);
    people::grant_in_cluster(&place, &restorer, &restore).await;
    let (local, local_client) = people::administrator_of(&place, "local").await;
    people::grant_in_namespace(&place, &local, "restore", &restore).await;
    let restores = secrets(&restorer_client, home);
    eventually("the right is in force", async || Create::Post.dry_run(&restores, &planted).await.is_ok()).await;
    let change = json!({"metadata": {"annotations": {UID: "00000000-0000-4000-8000-000000000001"}}});
    let verifier = Identity::service_account(home, "pat-operator-verifier");
    let verifier_client = people::make_administrator(&place, &verifier).await;
    let cases = [
        (&restorer_client, Ok(())),
        (&controller_client, Ok(())),
        (&place.client, Ok(())),
        // A Role in the namespace is not sufficient.
        (&local_client, refused("local")),
        (&verifier_client, refused(verifier.name())),
    ];
    for (client, expected) in cases {
        let api = secrets(client, home);
        for create in Create::ALL {
            assert_eq!(create.dry_run(&api, &planted).await, expected, "{create:?}");
        }
        for how in Change::OF_SECRETS {
            assert_eq!(how.dry_run(&api, "app", &change).await, expected, "{how:?}");
        }
    }
    jane.delete("app", &DeleteParams::default()).await.expect("deletion is allowed");
    people::revoke_grants(&place).await;
    guard.end().await;
}
