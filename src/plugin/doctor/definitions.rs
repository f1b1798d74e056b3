//! The CustomResourceDefinitions: whether they are there, and whether they have the fields that this version knows.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::Api;

use super::{
    super::{
        failure::Failure,
        session::{Session, in_time},
        terminal::Tone,
    },
    Findings, allowed,
};
use crate::api::{GROUP, VERSION, crd};

/// The CustomResourceDefinitions; whether tokens are served.
pub async fn look(session: &Session, findings: &mut Findings) -> Result<bool, Failure> {
    let version = format!("{GROUP}/{VERSION}");
    let served = match in_time(session.client.list_api_group_resources(&version)).await {
        Ok(found) => found.resources.into_iter().map(|one| one.name).collect(),
        Err(Failure::Api(kube::Error::Api(status))) if matches!(status.code, 404 | 503) => BTreeSet::new(),
        Err(failure) => return Err(failure),
    };
    let api: Api<CustomResourceDefinition> = Api::all(session.client.clone());
    for (_, ours) in crd::all() {
        let name = ours.metadata.name.clone().unwrap_or_default();
        if !served.contains(&ours.spec.names.plural) {
            let tone = if name == crd::NAME { Tone::Bad } else { Tone::Notice };
            findings.add(tone, format!("{name} {VERSION} is not served"), crd::how_to_install(&name));
            continue;
        }
        let Some(theirs) = allowed(in_time(api.get(&name)).await)? else {
            findings.good(format!("{name} {VERSION} is served (whether all its fields are there, you may not read)"));
            continue;
        };
        let (ours, theirs) = (fields(&ours), fields(&theirs));
        let missing: Vec<_> = ours.difference(&theirs).cloned().collect();
        let extra = theirs.difference(&ours).count();
        match (missing.is_empty(), extra) {
            (true, 0) => findings.good(format!("{name} {VERSION} is installed, with every field that this version ({}) knows", env!("CARGO_PKG_VERSION"))),
            (true, extra) => findings.add(
                Tone::Notice,
                format!("{name} has {extra} fields that this version ({}) does not know", env!("CARGO_PKG_VERSION")),
                "install the kubectl-pat that belongs to the operator",
            ),
            (false, _) => findings.add(
                Tone::Notice,
                format!("{name} is older than this version ({}): it lacks {}", env!("CARGO_PKG_VERSION"), missing.join(", ")),
                "kubectl apply --server-side -f crds/ of the release that the operator has, or helm upgrade with crds.enabled",
            ),
        }
    }
    Ok(served.contains(crd::PLURAL))
}

/// The paths of all fields that a definition has in our version.
fn fields(crd: &CustomResourceDefinition) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let versions = crd.spec.versions.iter().filter(|version| version.name == VERSION);
    for schema in versions.filter_map(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref()) {
        for part in ["spec", "status"] {
            let properties = schema.properties.as_ref().and_then(|properties| properties.get(part));
            properties.into_iter().for_each(|property| walk(property, part, &mut paths));
        }
    }
    paths
}

fn walk(schema: &JSONSchemaProps, path: &str, paths: &mut BTreeSet<String>) {
    for (name, property) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        walk(property, &path, paths);
        paths.insert(path);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        walk(item, path, paths);
    }
}
