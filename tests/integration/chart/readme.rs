//! The chart's README: its table of values is generated from the comments in values.yaml.

use std::{fmt::Write, fs};

use serde_json::Value;

use super::helm::{chart, root};
use crate::support::checked_in;

/// One value: its path, default and description.
struct DocumentedValue {
    path: String,
    default: String,
    description: String,
}

/// Reads the comments. Every value has one, or is a map whose values have one.
fn read(text: &str) -> Vec<DocumentedValue> {
    let whole: Value = serde_yaml::from_str(text).expect("values.yaml");
    let (mut found, mut path, mut description): (Vec<DocumentedValue>, Vec<(usize, String)>, Option<String>) =
        Default::default();
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if let Some(first) = trimmed.strip_prefix("# -- ") {
            description = Some(first.to_owned());
        } else if let (Some(more), Some(description)) = (trimmed.strip_prefix("# "), &mut description) {
            let _ = write!(description, " {more}");
        } else if let Some((key, _)) = trimmed.split_once(':').filter(|(key, _)| !key.starts_with('#')) {
            path.retain(|(at, _)| *at < indent);
            let inside_described = path.iter().any(|(_, key)| key.is_empty());
            path.push((indent, key.to_owned()));
            let keys: Vec<_> = path.iter().map(|(_, key)| key.as_str()).filter(|key| !key.is_empty()).collect();
            let value = keys.iter().fold(&whole, |value, key| &value[*key]);
            match description.take() {
                Some(description) => {
                    let default = serde_json::to_string(value).expect("JSON");
                    found.push(DocumentedValue { path: keys.join("."), default, description });
                    // The nested values are described, too.
                    path.push((indent, String::new()));
                }
                None => assert!(value.is_object() || inside_described, "{} is not described", keys.join(".")),
            }
        } else {
            assert!(description.is_none() || trimmed.is_empty(), "a comment without a value, before: {line}");
        }
    }
    found
}

fn table(values: &[DocumentedValue]) -> String {
    let mut table = String::from("| Value | Default | Description |\n| --- | --- | --- |\n");
    for DocumentedValue { path, default, description } in values {
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(table, "| `{path}` | `{}` | {} |", cell(default), cell(description));
    }
    table
}

#[test]
fn readme_table_matches_values_yaml() {
    let values = read(&fs::read_to_string(chart().join("values.yaml")).expect("values.yaml"));
    assert!(values.len() > 100, "{}", values.len());
    let page = fs::read_to_string(root().join("tests/integration/chart/README.md.in")).expect("the page");
    let made = page.replace("{{values}}\n", &table(&values));
    checked_in::compare("charts/pat-operator/README.md", &made);
}

#[test]
fn schema_and_values_have_the_same_keys() {
    let read = |name: &str| fs::read_to_string(chart().join(name)).expect("the file exists");
    let values: Value = serde_yaml::from_str(&read("values.yaml")).expect("YAML");
    let schema: Value = serde_json::from_str(&read("values.schema.json")).expect("JSON");
    compare(&values, &schema, &schema, "");
}

/// Compares keys, except below maps with arbitrary keys.
fn compare(values: &Value, schema: &Value, whole: &Value, path: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(name) => &whole["$defs"][name.trim_start_matches("#/$defs/")],
        None => schema,
    };
    let Some(known) = schema["properties"].as_object() else { return };
    let Some(values) = values.as_object().filter(|values| !values.is_empty()) else { return };
    assert_eq!(schema["additionalProperties"], false, "{path} allows no additional properties");
    for (key, schema) in known {
        // `global` is Helm's own, `enabled` is for the condition of a parent chart, and the chart's containers have no resource claims.
        if (path.is_empty() && ["global", "enabled"].contains(&&**key))
            || (path.ends_with("resources") && key == "claims")
        {
            continue;
        }
        let value = values.get(key).unwrap_or_else(|| panic!("{path}.{key} is in the schema only"));
        compare(value, schema, whole, &format!("{path}.{key}"));
    }
    for key in values.keys() {
        assert!(known.contains_key(key), "{path}.{key} is not in the schema");
    }
}
