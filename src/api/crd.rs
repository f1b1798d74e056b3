//! The CustomResourceDefinition, made from the types.
//!
//! It must not be edited by hand anywhere: `crds/` is this, printed, and a test compares.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::PersonalAccessToken;

/// The name of the CustomResourceDefinition.
pub const NAME: &str = "personalaccesstokens.pat-operator.io";

/// The plural of `PersonalAccessToken`, as it stands in URLs and Roles.
pub const PLURAL: &str = "personalaccesstokens";

/// What to tell a person whose cluster does not have it.
pub fn how_to_install() -> String {
    format!("{NAME} is not installed: kubectl apply -f crds/ (or: pat-operator crds | kubectl apply -f -)")
}

/// The CustomResourceDefinition of `PersonalAccessToken`.
///
/// The derive marks every optional field `nullable`, which would let an explicit `null` in a manifest pass the rules
/// that ask whether a field is there; a field is either absent or has a value.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = PersonalAccessToken::crd();
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

/// The same as YAML, as `crds/` holds it.
pub fn yaml() -> String {
    serde_yaml::to_string(&crd()).expect("a CustomResourceDefinition is plain data")
}
