//! The policy `parameters`: who can delete the ConfigMaps that other policies need.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use super::{
    guard::{Guard, PARAMETERS, put_parameters},
    people,
    write::{Outcome, outcome},
};
use crate::support::process::place::{Place, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_delete_policies_deletes_their_parameters() {
    let place = Place::new("parameters").await;
    let elsewhere = Place::new("parameters-elsewhere").await;
    let guard = Guard::apply("parameters", &place, &[&place, &elsewhere]).await;
    for name in PARAMETERS.into_iter().chain(["other"]) {
        put_parameters(&place, name, json!({})).await;
        put_parameters(&elsewhere, name, json!({})).await;
    }
    let (ann, client) = people::administrator_of(&place, "ann").await;
    people::make_administrator(&elsewhere, &ann).await;
    let own: Api<ConfigMap> = Api::namespaced(client.clone(), place.name());
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let denied = |name: &str| -> Outcome {
        Err(format!(
            "ConfigMap {name}: ann may not delete it: an admission policy needs it, and without it every change of a PersonalAccessToken is \
             refused; change its data instead, or ask a cluster administrator to delete it"
        ))
    };
    eventually("the policy is in force", async || own.delete(PARAMETERS[0], &dry).await.is_err()).await;
    for name in PARAMETERS {
        assert_eq!(outcome(own.delete(name, &dry).await), denied(name));
    }
    // A request for all ConfigMaps has no name. It stops at the first that must stay.
    let found = outcome(own.delete_collection(&dry, &ListParams::default()).await);
    assert!(PARAMETERS.iter().any(|name| found == denied(name)), "{found:?}");
    // Other ConfigMaps, those of the same names in other namespaces, and changes.
    assert_eq!(outcome(own.delete("other", &dry).await), Ok(()));
    let there: Api<ConfigMap> = Api::namespaced(client, elsewhere.name());
    assert_eq!(outcome(there.delete(PARAMETERS[0], &dry).await), Ok(()));
    put_parameters(&place, PARAMETERS[0], json!({"a": "b"})).await;
    // The right to delete policies is the right to delete their parameters.
    let rules = json!([{
        "apiGroups": ["admissionregistration.k8s.io"], "resources": ["validatingadmissionpolicybindings"], "verbs": ["delete"],
    }]);
    people::grant_in_cluster(&place, &ann, &rules).await;
    eventually("the right is in force", async || own.delete(PARAMETERS[0], &dry).await.is_ok()).await;
    let root: Api<ConfigMap> = Api::namespaced(place.client.clone(), place.name());
    assert_eq!(outcome(root.delete(PARAMETERS[1], &dry).await), Ok(()));
    people::revoke_grants(&place).await;
    guard.end().await;
}
