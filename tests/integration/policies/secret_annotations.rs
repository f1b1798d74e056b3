//! Who may set annotations under `pat-operator.io/` on Secrets.

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
async fn our_annotations_on_secrets_are_set_by_the_controller_and_by_whoever_restores_backups() {
    let place = Place::new("annotations").await;
    let home = place.name();
    let guard = Guard::apply("secret-annotations", &place, &[&place]).await;
    let jane_s = people::administrator_of(&place, "jane").await.1;
    let jane = secrets(&jane_s, home);
    let planted = secret(json!({UID: "00000000-0000-4000-8000-000000000001"}));
    eventually("the policy is in force", async || Create::Post.try_out(&jane, &planted).await.is_err()).await;

    // A real one, of the operator as the chart's ServiceAccount.
    let controller = Identity::service_account(home, "pat-operator-controller");
    let controller_s = people::make_administrator(&place, &controller).await;
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
            assert_eq!(create.try_out(&jane, &manifest).await, expected, "{create:?}: {}", manifest["metadata"]);
        }
    }
    let changes = [
        (json!({"metadata": {"annotations": {UID: "00000000-0000-4000-8000-000000000001"}}}), refused("jane")),
        (json!({"metadata": {"annotations": {"pat-operator.io/credentials": "[]"}}}), refused("jane")),
        (json!({"metadata": {"annotations": {"pat-operator.io/new": "x"}}}), refused("jane")),
        // Ordinary work, also on what the controller will put right.
        (json!({"metadata": {"annotations": {"example.com/a": "c"}}}), Ok(())),
        (json!({"metadata": {"annotations": {"example.com/new": "x"}}}), Ok(())),
        (json!({"metadata": {"labels": {"team": "a"}}}), Ok(())),
        (json!({"metadata": {"finalizers": ["example.com/wait"]}}), Ok(())),
        (json!({"data": {"token": "eA=="}}), Ok(())),
    ];
    for (patch, expected) in changes {
        for change in Change::OF_SECRETS {
            assert_eq!(change.try_out(&jane, "app", &patch).await, expected, "{change:?}: {patch}");
        }
    }
    // To take them away is free.
    for gone in [
        json!({"metadata": {"annotations": {UID: null}}}),
        json!({"metadata": {"annotations": null}}),
        json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}),
    ] {
        for change in [Change::Put, Change::MergePatch, Change::JsonPatch, Change::StrategicMergePatch] {
            assert_eq!(change.try_out(&jane, "app", &gone).await, Ok(()), "{change:?}: {gone}");
        }
    }
    // A copy, as `kubectl get -o yaml | kubectl apply` makes one.
    let mut copy = serde_json::to_value(jane.get("app").await.unwrap()).unwrap();
    copy["metadata"] = json!({"name": "copy", "annotations": copy["metadata"]["annotations"]});
    assert_eq!(Create::Apply.try_out(&jane, &copy).await, refused("jane"));

    // Those who may.
    let (restorer, restorer_s) = people::administrator_of(&place, "restorer").await;
    let restore = json!([{"apiGroups": ["pat-operator.io"], "resources": ["secrets"], "verbs": ["restore"]}]);
    people::grant_in_cluster(&place, &restorer, &restore).await;
    let (local, local_s) = people::administrator_of(&place, "local").await;
    people::grant_in_namespace(&place, &local, "restore", &restore).await;
    let restores = secrets(&restorer_s, home);
    eventually("the right is in force", async || Create::Post.try_out(&restores, &planted).await.is_ok()).await;
    let change = json!({"metadata": {"annotations": {UID: "00000000-0000-4000-8000-000000000001"}}});
    let verifier = Identity::service_account(home, "pat-operator-verifier");
    let verifier_s = people::make_administrator(&place, &verifier).await;
    let cases = [
        (&restorer_s, Ok(())),
        (&controller_s, Ok(())),
        (&place.client, Ok(())),
        // In a namespace it is not enough.
        (&local_s, refused("local")),
        (&verifier_s, refused(verifier.name())),
    ];
    for (client, expected) in cases {
        let api = secrets(client, home);
        for create in Create::ALL {
            assert_eq!(create.try_out(&api, &planted).await, expected, "{create:?}");
        }
        for how in Change::OF_SECRETS {
            assert_eq!(how.try_out(&api, "app", &change).await, expected, "{how:?}");
        }
    }
    jane.delete("app", &DeleteParams::default()).await.expect("deletion is free");
    people::revoke_grants(&place).await;
    guard.end().await;
}
