//! What values.schema.json says of `tokens[].spec`: the same as the CustomResourceDefinition, so that a slip is found before there is a cluster.

use std::fs;

use pat_operator::api::crd;
use serde_json::{Map, Value, json};

use super::helm::root;
use crate::support::checked_in;

const FILE: &str = "charts/pat-operator/values.schema.json";

/// Where the generated part begins: it is the last definition.
const BEGINS: &str = "    \"tokenSpec\": ";

/// What both kinds of schema write alike.
const ALIKE: [&str; 10] = [
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

/// A schema of Kubernetes as JSON Schema: no other fields than it has, sets without doubles. What only an API server can judge (times, sums
/// of durations, rules in CEL) is left to it, and texts for people to `kubectl explain`.
fn translated(schema: &Value) -> Value {
    let mut made = Map::new();
    for (key, value) in schema.as_object().expect("a schema") {
        let value = match &key[..] {
            "properties" => {
                made.insert("additionalProperties".into(), json!(false));
                let fields = value.as_object().expect("fields").iter();
                fields.map(|(name, field)| (name.clone(), translated(field))).collect()
            }
            "items" | "additionalProperties" => translated(value),
            "x-kubernetes-list-type" if value == "set" => {
                made.insert("uniqueItems".into(), json!(true));
                continue;
            }
            "description" | "format" | "x-kubernetes-list-type" | "x-kubernetes-validations" => continue,
            key => {
                assert!(ALIKE.contains(&key), "nothing is known of {key}, which the schema of spec has");
                value.clone()
            }
        };
        made.insert(key.clone(), value);
    }
    Value::Object(made)
}

#[test]
fn values_schema_of_tokens_matches_the_crd() {
    let text = fs::read_to_string(root().join(FILE)).expect("it is there");
    let (head, _) = text.split_once(BEGINS).expect("the last of its definitions");
    let crd = serde_json::to_value(crd::crd()).expect("plain data");
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let spec = serde_json::to_string_pretty(&translated(spec)).expect("JSON").replace('\n', "\n    ");
    checked_in::compare(FILE, &format!("{head}{BEGINS}{spec}\n  }}\n}}\n"));

    let schema: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(schema["properties"]["tokens"]["items"]["properties"]["spec"], json!({"$ref": "#/$defs/tokenSpec"}));
}
