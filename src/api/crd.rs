//! The CustomResourceDefinitions, generated from the types.
//!
//! `crds/` holds this module's output; a test compares them. Run `make generate` after a change.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::{ClusterTokenIssuer, PersonalAccessToken, TokenIssuer, TokenOwner};

/// Name of the CustomResourceDefinition of `PersonalAccessToken`.
pub const NAME: &str = "personalaccesstokens.pat-operator.io";

/// Plural of `PersonalAccessToken`, as used in URLs and Roles.
pub const PLURAL: &str = "personalaccesstokens";

/// Name of the CustomResourceDefinition of `TokenOwner`.
pub const OWNER_NAME: &str = "tokenowners.pat-operator.io";

/// Plural of `TokenOwner`, as used in URLs and ClusterRoles.
pub const OWNER_PLURAL: &str = "tokenowners";

/// Name of the CustomResourceDefinition of `TokenIssuer`.
pub const ISSUER_NAME: &str = "tokenissuers.pat-operator.io";

/// Plural of `TokenIssuer`, as used in URLs and Roles.
pub const ISSUER_PLURAL: &str = "tokenissuers";

/// Name of the CustomResourceDefinition of `ClusterTokenIssuer`.
pub const CLUSTER_ISSUER_NAME: &str = "clustertokenissuers.pat-operator.io";

/// Plural of `ClusterTokenIssuer`, as used in URLs and ClusterRoles.
pub const CLUSTER_ISSUER_PLURAL: &str = "clustertokenissuers";

/// Returns the message for a cluster that lacks the CustomResourceDefinition `name`.
pub fn how_to_install(name: &str) -> String {
    format!("{name} is not installed: kubectl apply -f crds/ (or: pat-operator crds | kubectl apply -f -)")
}

/// Returns the CustomResourceDefinition of `PersonalAccessToken`.
pub fn crd() -> CustomResourceDefinition {
    finished(PersonalAccessToken::crd())
}

/// Returns the CustomResourceDefinition of `TokenOwner`.
pub fn owner_crd() -> CustomResourceDefinition {
    finished(TokenOwner::crd())
}

/// Returns all CustomResourceDefinitions, each with the name of its file in `crds/`.
pub fn all() -> [(&'static str, CustomResourceDefinition); 4] {
    [
        ("clustertokenissuers.yaml", finished(ClusterTokenIssuer::crd())),
        ("personalaccesstokens.yaml", crd()),
        ("tokenissuers.yaml", finished(TokenIssuer::crd())),
        ("tokenowners.yaml", owner_crd()),
    ]
}

/// Corrects what the derive generates, in every schema of the definition.
fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|validation| validation.open_api_v3_schema.as_mut()) {
            finish(schema);
        }
    }
    crd
}

/// Corrects a schema and all schemas in it:
/// - The derive marks every optional field `nullable`. An explicit `null` would then pass CEL rules that use `has()`.
/// - A doc comment wraps its lines, and `kubectl explain` would print those line breaks.
fn finish(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.description = schema.description.take().map(|text| unwrapped(&text));
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        finish(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => finish(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(finish),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        finish(value);
    }
}

/// Joins the lines of each paragraph. Blank lines still separate paragraphs.
fn unwrapped(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

/// Returns a CustomResourceDefinition as YAML, as its file in `crds/` holds it.
pub fn yaml(crd: &CustomResourceDefinition) -> String {
    serde_yaml::to_string(crd).expect("a CustomResourceDefinition is plain data")
}

/// Returns all CustomResourceDefinitions as one stream of YAML documents.
pub fn all_yaml() -> String {
    all().map(|(_, crd)| yaml(&crd)).join("---\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn descriptions_have_no_line_break_within_a_sentence() {
        fn descriptions<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("description").and_then(Value::as_str));
                    fields.values().for_each(|field| descriptions(field, found));
                }
                Value::Array(items) => items.iter().for_each(|item| descriptions(item, found)),
                _ => {}
            }
        }
        for (file, crd) in all() {
            let crd = serde_json::to_value(crd).unwrap();
            let mut found = Vec::new();
            descriptions(&crd, &mut found);
            assert!(found.len() > 30, "{file}: {} descriptions", found.len());
            for text in found {
                let lines: Vec<_> = text.split('\n').collect();
                let broken = lines.windows(2).any(|pair| !pair[0].is_empty() && !pair[1].is_empty());
                assert!(!broken, "{file}: {text:?}");
                assert!(text.ends_with(['.', '`', ')']) || !text.contains(". "), "{file}: {text:?} is cut off");
            }
        }
    }

    #[test]
    fn patterns_are_no_prose() {
        for (file, crd) in all() {
            let yaml = yaml(&crd);
            let patterns: Vec<_> = yaml.lines().filter(|line| line.trim_start().starts_with("pattern:")).collect();
            assert!(patterns.len() > 5, "{file}: {patterns:?}");
            assert!(!yaml.contains("format: duration") && !yaml.contains("format: date-time"), "{file}");
            for pattern in patterns {
                assert!(
                    !pattern.trim_start_matches(' ').trim_start_matches("pattern: ").contains(' '),
                    "{file}: {pattern}"
                );
            }
        }
    }

    #[test]
    fn lines_of_a_paragraph_are_joined_and_paragraphs_are_kept() {
        assert_eq!(unwrapped("One\nsentence. Another\none.\n\nNext."), "One sentence. Another one.\n\nNext.");
    }
}
