//! Detection of GitOps tools and other field managers, from the managedFields, labels and annotations of an object.
//!
//! A GitOps tool undoes changes of the fields that it manages. Such a change must be made in its repository.

use std::fmt;

use kube::{ResourceExt, api::DynamicObject};

use super::FIELD_MANAGER;

/// The tool that deploys an object, and the configuration that contains the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitOpsSource {
    /// The tool.
    pub tool: &'static str,
    /// The object of the tool, such as `Kustomization flux-system/apps`; empty if unknown.
    pub origin: String,
}

impl fmt::Display for GitOpsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.origin {
            "" => f.write_str(self.tool),
            origin => write!(f, "{}, {origin}", self.tool),
        }
    }
}

/// Field managers of the tools that undo changes by others.
const GITOPS_MANAGERS: [(&str, &str); 6] = [
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux"),
    ("argocd-controller", "Argo CD"),
    ("argocd-application-controller", "Argo CD"),
    ("fleet", "Fleet"),
    ("fleetagent", "Fleet"),
];

/// Finds the source of an object in its labels and annotations.
pub fn find_source(object: &DynamicObject) -> Option<GitOpsSource> {
    let label = |name: &str| object.labels().get(name).map_or("", String::as_str);
    let annotation = |name: &str| object.annotations().get(name).map_or("", String::as_str);
    let found = |tool: &'static str, origin: String| Some(GitOpsSource { tool, origin });
    for (kind, prefix) in [("Kustomization", "kustomize.toolkit.fluxcd.io"), ("HelmRelease", "helm.toolkit.fluxcd.io")]
    {
        let (name, namespace) = (label(&format!("{prefix}/name")), label(&format!("{prefix}/namespace")));
        if !name.is_empty() {
            return found("Flux", format!("{kind} {namespace}/{name}"));
        }
    }
    // <application>:<group>/<kind>:<namespace>/<name>
    if let Some((application, _)) = annotation("argocd.argoproj.io/tracking-id").split_once(':') {
        return found("Argo CD", format!("Application {application}"));
    }
    if !label("argocd.argoproj.io/instance").is_empty() {
        return found("Argo CD", format!("Application {}", label("argocd.argoproj.io/instance")));
    }
    if !annotation("meta.helm.sh/release-name").is_empty() {
        let (namespace, name) = (annotation("meta.helm.sh/release-namespace"), annotation("meta.helm.sh/release-name"));
        return found("Helm", format!("release {namespace}/{name}"));
    }
    None
}

/// A field manager that set a field of the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldOwner {
    /// The name of the field manager.
    pub manager: String,
    /// The GitOps tool behind it, if it is one that undoes changes.
    pub gitops: Option<&'static str>,
}

/// Returns every field manager that set `spec.<field>`, except the plugin.
pub fn field_owners(object: &DynamicObject, field: &str) -> Vec<FieldOwner> {
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
            let source = find_source(object).filter(|source| source.tool != "Helm" && manager.contains("apply"));
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
    fn source_is_read_from_labels_and_annotations() {
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
            assert_eq!(find_source(&object(metadata)).unwrap().to_string(), source);
        }
        assert_eq!(find_source(&object(json!({"name": "ci"}))), None);
    }

    #[test]
    fn only_fields_set_by_the_tool_belong_to_gitops() {
        let managed = json!({"managedFields": [
            entry("kustomize-controller", json!({"f:expiry": {"f:after": {}}})),
            entry("kubectl-client-side-apply", json!({"f:scopes": {}})),
            entry("kubectl-pat", json!({"f:rotateIfIssuedBefore": {}})),
        ]});
        let object = object(managed);
        let owners_of = |field| {
            field_owners(&object, field).into_iter().map(|owner| (owner.manager, owner.gitops)).collect::<Vec<_>>()
        };
        assert_eq!(owners_of("expiry"), [("kustomize-controller".to_owned(), Some("Flux"))]);
        assert_eq!(owners_of("scopes"), [("kubectl-client-side-apply".to_owned(), None)]);
        assert_eq!(owners_of("rotateIfIssuedBefore"), []);
    }
}
