//! The CustomResourceDefinitions, made from the types.
//!
//! They must not be edited by hand anywhere: `crds/` is this, printed, and a test compares.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::{PersonalAccessToken, TokenOwner};

/// The name of the CustomResourceDefinition of `PersonalAccessToken`.
pub const NAME: &str = "personalaccesstokens.pat-operator.io";

/// The plural of `PersonalAccessToken`, as it stands in URLs and Roles.
pub const PLURAL: &str = "personalaccesstokens";

/// The name of the CustomResourceDefinition of `TokenOwner`.
pub const OWNER_NAME: &str = "tokenowners.pat-operator.io";

/// The plural of `TokenOwner`, as it stands in URLs and ClusterRoles.
pub const OWNER_PLURAL: &str = "tokenowners";

/// What to tell a person whose cluster does not have the definition `name`.
pub fn how_to_install(name: &str) -> String {
    format!("{name} is not installed: kubectl apply -f crds/ (or: pat-operator crds | kubectl apply -f -)")
}

/// The CustomResourceDefinition of `PersonalAccessToken`.
pub fn crd() -> CustomResourceDefinition {
    strict(PersonalAccessToken::crd())
}

/// The CustomResourceDefinition of `TokenOwner`.
pub fn owner_crd() -> CustomResourceDefinition {
    strict(TokenOwner::crd())
}

/// All of them, each with the name of its file in `crds/`.
pub fn all() -> [(&'static str, CustomResourceDefinition); 2] {
    [("personalaccesstokens.yaml", crd()), ("tokenowners.yaml", owner_crd())]
}

/// The derive marks every optional field `nullable`, which would let an explicit `null` in a manifest pass the rules
/// that ask whether a field is there; a field is either absent or has a value.
fn strict(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|validation| validation.open_api_v3_schema.as_mut()) {
            refuse_null(schema);
        }
    }
    crd
}

fn refuse_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        refuse_null(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => refuse_null(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(refuse_null),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        refuse_null(value);
    }
}

/// One of them as YAML, as its file in `crds/` holds it.
pub fn yaml(crd: &CustomResourceDefinition) -> String {
    serde_yaml::to_string(crd).expect("a CustomResourceDefinition is plain data")
}

/// All of them as one stream of YAML documents.
pub fn all_yaml() -> String {
    all().map(|(_, crd)| yaml(&crd)).join("---\n")
}
