//! Whose a field is: a GitOps tool sets its fields back, so that a change belongs into its repository.
//!
//! Pure, over an object's managedFields, labels and annotations.

use std::fmt;

use kube::{ResourceExt, api::DynamicObject};

use super::FIELD_MANAGER;

/// Where an object comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The tool.
    pub tool: &'static str,
    /// What of that tool, such as `Kustomization flux-system/apps`; empty if it does not say.
    pub what: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.what {
            "" => f.write_str(self.tool),
            what => write!(f, "{}, {what}", self.tool),
        }
    }
}

/// Field managers of tools that set back what others change.
const GITOPS_MANAGERS: [(&str, &str); 6] = [
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux"),
    ("argocd-controller", "Argo CD"),
    ("argocd-application-controller", "Argo CD"),
    ("fleet", "Fleet"),
    ("fleetagent", "Fleet"),
];

/// Where an object comes from, as its labels and annotations say.
pub fn source(object: &DynamicObject) -> Option<Source> {
    let label = |name: &str| object.labels().get(name).map_or("", String::as_str);
    let annotation = |name: &str| object.annotations().get(name).map_or("", String::as_str);
    let of = |tool: &'static str, what: String| Some(Source { tool, what });
    for (kind, prefix) in [("Kustomization", "kustomize.toolkit.fluxcd.io"), ("HelmRelease", "helm.toolkit.fluxcd.io")]
    {
        let (name, namespace) = (label(&format!("{prefix}/name")), label(&format!("{prefix}/namespace")));
        if !name.is_empty() {
            return of("Flux", format!("{kind} {namespace}/{name}"));
        }
    }
    // <application>:<group>/<kind>:<namespace>/<name>
    if let Some((application, _)) = annotation("argocd.argoproj.io/tracking-id").split_once(':') {
        return of("Argo CD", format!("Application {application}"));
    }
    if !label("argocd.argoproj.io/instance").is_empty() {
        return of("Argo CD", format!("Application {}", label("argocd.argoproj.io/instance")));
    }
    if !annotation("meta.helm.sh/release-name").is_empty() {
        let place = (annotation("meta.helm.sh/release-namespace"), annotation("meta.helm.sh/release-name"));
        return of("Helm", format!("release {}/{}", place.0, place.1));
    }
    None
}

/// Who else wrote a field of the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldOwner {
    /// The field manager.
    pub manager: String,
    /// The tool, if it is one that sets fields back by itself.
    pub gitops: Option<&'static str>,
}

/// Everybody but ourselves who wrote `spec.<field>`.
pub fn owners(object: &DynamicObject, field: &str) -> Vec<FieldOwner> {
    let entries = object.metadata.managed_fields.as_deref().unwrap_or_default();
    let owns = |fields: &serde_json::Value| fields["f:spec"].get(format!("f:{field}")).is_some();
    let mut owners: Vec<FieldOwner> = entries
        .iter()
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)))
        .filter_map(|entry| entry.manager.clone())
        .filter(|manager| manager != FIELD_MANAGER)
        .map(|manager| {
            let known = GITOPS_MANAGERS.iter().find(|(name, _)| *name == manager).map(|(_, tool)| *tool);
            // Without server-side apply, Argo CD writes under the name of kubectl's library.
            let source = source(object).filter(|source| source.tool != "Helm" && manager.contains("apply"));
            FieldOwner { gitops: known.or(source.map(|source| source.tool)), manager }
        })
        .collect();
    owners.dedup();
    owners
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(metadata: Value) -> DynamicObject {
        serde_json::from_value(
            json!({"apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": metadata}),
        )
        .unwrap()
    }

    fn entry(manager: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": "Apply", "apiVersion": "pat-operator.io/v1alpha1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": fields}})
    }

    #[test]
    fn the_source_is_what_each_tool_writes_down() {
        for (metadata, source) in [
            (
                json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}}),
                "Flux, Kustomization flux-system/apps",
            ),
            (
                json!({"annotations": {"argocd.argoproj.io/tracking-id": "shop:pat-operator.io/PersonalAccessToken:shop/ci"}}),
                "Argo CD, Application shop",
            ),
            (
                json!({"annotations": {"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "prod"}}),
                "Helm, release prod/shop",
            ),
        ] {
            assert_eq!(super::source(&object(metadata)).unwrap().to_string(), source);
        }
        assert_eq!(super::source(&object(json!({"name": "ci"}))), None);
    }

    #[test]
    fn a_field_is_gitops_only_where_the_tool_wrote_that_field() {
        let managed = json!({"managedFields": [
            entry("kustomize-controller", json!({"f:expiry": {"f:after": {}}})),
            entry("kubectl-client-side-apply", json!({"f:scopes": {}})),
            entry("kubectl-pat", json!({"f:rotateIfIssuedBefore": {}})),
        ]});
        let object = object(managed);
        let told =
            |field| owners(&object, field).into_iter().map(|owner| (owner.manager, owner.gitops)).collect::<Vec<_>>();
        assert_eq!(told("expiry"), [("kustomize-controller".to_owned(), Some("Flux"))]);
        assert_eq!(told("scopes"), [("kubectl-client-side-apply".to_owned(), None)]);
        assert_eq!(told("rotateIfIssuedBefore"), []);
    }
}
