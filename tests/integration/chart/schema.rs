//! values.schema.json: the schema of `tokens[].spec` matches the CustomResourceDefinition, so that mistakes are found without a cluster, and
//! the defaults of missing values match values.yaml.

use std::fs;

use pat_operator::api::crd;
use serde_json::{Map, Value, json};

use super::helm::{chart, root};
use crate::support::checked_in;

const FILE: &str = "charts/pat-operator/values.schema.json";

/// The start of the generated part, which is the last definition.
const GENERATED_START: &str = "    \"tokenSpec\": ";

/// Keywords that have the same meaning in both kinds of schema.
const COMMON_KEYWORDS: [&str; 11] = [
    "type",
    "enum",
    "pattern",
    "minimum",
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

/// The part of values.yaml that `pat-operator.prepare` fills in. Maps with free keys, and lists without minItems, are left out: a user who sets
/// them to null wants them empty.
fn defaults(value: &Value, schema: &Value, whole: &Value) -> Option<Value> {
    let schema = match schema["$ref"].as_str() {
        Some(name) => &whole["$defs"][name.trim_start_matches("#/$defs/")],
        None => schema,
    };
    match value {
        Value::Object(values) => {
            let known = schema["properties"].as_object()?;
            let kept =
                values.iter().filter_map(|(key, value)| Some((key.clone(), defaults(value, &known[key], whole)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(_) => schema["minItems"].is_u64().then(|| value.clone()),
        value => Some(value.clone()),
    }
}

#[test]
fn defaults_match_values_and_schema() {
    let values: Value =
        serde_yaml::from_str(&fs::read_to_string(chart().join("values.yaml")).expect("values.yaml")).expect("YAML");
    let schema: Value = serde_json::from_str(&fs::read_to_string(root().join(FILE)).expect("a schema")).expect("JSON");
    let defaults = serde_yaml::to_string(&defaults(&values, &schema, &schema)).expect("YAML");
    let head = "# Generated from values.yaml and values.schema.json by `make generate`: do not edit.\n";
    checked_in::compare("charts/pat-operator/files/defaults.yaml", &format!("{head}{defaults}"));
}
