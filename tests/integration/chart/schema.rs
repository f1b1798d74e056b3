//! The schema of `tokens[].spec` in values.schema.json matches the CustomResourceDefinition, so that mistakes are found without a cluster.

use std::fs;

use pat_operator::api::crd;
use serde_json::{Map, Value, json};

use super::helm::root;
use crate::support::checked_in;

const FILE: &str = "charts/pat-operator/values.schema.json";

/// The start of the generated part, which is the last definition.
const GENERATED_START: &str = "    \"tokenSpec\": ";

/// Keywords that have the same meaning in both kinds of schema.
const COMMON_KEYWORDS: [&str; 10] = [
    "type",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
];

/// Converts a Kubernetes schema to JSON Schema, without additional properties and with unique items in sets. Times, sums of durations and
/// CEL rules are left to the API server, and descriptions to `kubectl explain`.
fn to_json_schema(schema: &Value) -> Value {
    let mut converted = Map::new();
    for (key, value) in schema.as_object().expect("a schema") {
        let value = match &key[..] {
            "properties" => {
                converted.insert("additionalProperties".into(), json!(false));
                let fields = value.as_object().expect("fields").iter();
                fields.map(|(name, field)| (name.clone(), to_json_schema(field))).collect()
            }
            "items" | "additionalProperties" => to_json_schema(value),
            "x-kubernetes-list-type" if value == "set" => {
                converted.insert("uniqueItems".into(), json!(true));
                continue;
            }
            "description" | "format" | "x-kubernetes-list-type" | "x-kubernetes-validations" => continue,
            key => {
                assert!(COMMON_KEYWORDS.contains(&key), "unknown keyword {key} in the schema of spec");
                value.clone()
            }
        };
        converted.insert(key.clone(), value);
    }
    Value::Object(converted)
}

#[test]
fn values_schema_of_tokens_matches_the_crd() {
    let text = fs::read_to_string(root().join(FILE)).expect("the file exists");
    let (head, _) = text.split_once(GENERATED_START).expect("the last of its definitions");
    let crd = serde_json::to_value(crd::crd()).expect("JSON");
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let spec = serde_json::to_string_pretty(&to_json_schema(spec)).expect("JSON").replace('\n', "\n    ");
    checked_in::compare(FILE, &format!("{head}{GENERATED_START}{spec}\n  }}\n}}\n"));

    let schema: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(schema["properties"]["tokens"]["items"]["properties"]["spec"], json!({"$ref": "#/$defs/tokenSpec"}));
}
