//! Generates `docs/reference.md` with all fields of both resources, from their CustomResourceDefinitions.

use std::fmt::Write;

use pat_operator::api::crd;
use serde_json::Value;

use super::{checked_in, code, table};

const PAGE: &str = include_str!("reference.md.in");

#[test]
fn reference_lists_each_field() {
    let mut page = PAGE.to_owned();
    for (_, crd) in crd::all() {
        let crd = serde_json::to_value(crd).expect("plain data");
        let kind = text(&crd["spec"]["names"]["kind"]);
        page = page.replace(&format!("{{{{ {kind} }}}}"), &resource(&crd));
    }
    assert!(!page.contains("{{ "), "a placeholder remains: {page}");
    // A doc comment describes the placeholders of templates.
    checked_in::compare("docs/reference.md", &page.replace("{\u{200b}{", "{{"));
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn resource(crd: &Value) -> String {
    let [version] = &crd["spec"]["versions"].as_array().expect("versions")[..] else { panic!("one version") };
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut made = Vec::new();
    for part in ["spec", "status"] {
        if !schema["properties"][part].is_null() {
            object(part, &schema["properties"][part], &mut made);
        }
    }
    made.push(columns(version));
    made.join("\n\n")
}

/// A section for this object, and one for each object in it.
fn object(path: &str, schema: &Value, made: &mut Vec<String>) {
    let properties = schema["properties"].as_object().expect("an object has fields");
    let is_required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let rows = properties.iter().map(|(name, schema)| {
        let mut holds = type_of(schema);
        if inside(schema).1["properties"].is_object() {
            // GitHub's anchor of the heading below.
            let anchor = format!("{path}{name}").replace(['.', '[', ']'], "").to_lowercase();
            holds = holds.replace("fields", &format!("[fields](#{anchor})"));
        }
        if is_required(name) {
            holds.push_str(", **required**");
        }
        vec![code(name), holds, about(schema)]
    });
    let mut section = format!("### `{path}`\n\n{}", table(&["field", "type", "description"], rows));
    let mut rules = Vec::new();
    messages("", schema, &mut rules);
    if !rules.is_empty() {
        section.push_str("\n\nValidation messages:\n");
        for (field, message) in rules {
            let field = if field.is_empty() { String::new() } else { format!("`{field}`: ") };
            let _ = write!(section, "\n- {field}{}", escaped(&message));
        }
    }
    made.push(section);
    for (name, schema) in properties {
        let (suffix, inner) = inside(schema);
        if inner["properties"].is_object() {
            object(&format!("{path}.{name}{suffix}"), inner, made);
        }
    }
}

/// The object that a field holds, or a list of them.
fn inside(schema: &Value) -> (&'static str, &Value) {
    if schema["items"]["properties"].is_object() { ("[]", &schema["items"]) } else { ("", schema) }
}

/// The validation messages of this object, and of its fields that have no section of their own.
fn messages(field: &str, schema: &Value, rules: &mut Vec<(String, String)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        rules.push((field.to_owned(), text(&rule["message"])));
    }
    if !schema["items"]["properties"].is_object() && schema["items"].is_object() {
        messages(&format!("{field}[]"), &schema["items"], rules);
    }
    if schema["additionalProperties"].is_object() {
        messages(&format!("{field}[…]"), &schema["additionalProperties"], rules);
    }
    if field.is_empty() {
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            if !schema["properties"].is_object() {
                messages(name, schema, rules);
            }
        }
    }
}

/// The type of a value, with its limits.
fn type_of(schema: &Value) -> String {
    let limits = |least: &str, most: &str, what: &str| match (schema[least].as_u64(), schema[most].as_u64()) {
        (Some(least), Some(most)) if least > 0 => format!(", {least} to {most} {what}"),
        (_, Some(most)) => format!(", up to {most} {what}"),
        _ => String::new(),
    };
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| code(&text(value))).collect::<Vec<_>>().join(" or ");
    }
    let says = text(&schema["x-kubernetes-validations"][0]["message"]);
    match (text(&schema["type"]).as_str(), text(&schema["format"]).as_str()) {
        ("string", _) if says.starts_with("must be a duration") => "duration".to_owned(),
        ("string", _) if says.starts_with("must be a date, a time") => "timestamp".to_owned(),
        // The message has the limits.
        ("string", _) if !says.is_empty() => "string".to_owned(),
        ("string", _) => format!("string{}", limits("minLength", "maxLength", "characters")),
        ("boolean", _) => "boolean".to_owned(),
        ("integer", _) => "integer".to_owned(),
        ("array", _) => {
            let what = if schema["x-kubernetes-list-type"] == "set" { "set" } else { "list" };
            format!("{what} of {}{}", type_of(&schema["items"]), limits("minItems", "maxItems", "items"))
        }
        ("object", _) if schema["additionalProperties"].is_object() => {
            let values = type_of(&schema["additionalProperties"]);
            format!("map of string to {values}{}", limits("minProperties", "maxProperties", "entries"))
        }
        ("object", _) => "fields".to_owned(),
        (other, _) => panic!("the reference has no name for the type {other:?}"),
    }
}

fn about(schema: &Value) -> String {
    let about = text(&schema["description"]);
    assert!(!about.is_empty(), "a field without a description: {schema}");
    escaped(&about.replace('\n', " "))
}

/// Escapes placeholders, because the page has its own.
fn escaped(text: &str) -> String {
    text.replace("{{", "{\u{200b}{")
}

/// The columns of `kubectl get`, and its field selectors.
fn columns(version: &Value) -> String {
    let mut section = "### Columns of `kubectl get`\n\n".to_owned();
    let rows = version["additionalPrinterColumns"].as_array().expect("columns").iter().map(|column| {
        let wide = column["priority"].as_u64().unwrap_or(0) > 0;
        let when = if wide { "with `-o wide`" } else { "always" };
        vec![text(&column["name"]).to_uppercase(), code(&text(&column["jsonPath"])), when.to_owned()]
    });
    section.push_str(&table(&["column", "field", "shown"], rows));
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    let fields: Vec<_> = fields.map(|field| code(&text(&field["jsonPath"]).trim_start_matches('.'))).collect();
    if !fields.is_empty() {
        let _ = write!(section, "\n\n`kubectl get --field-selector` supports {}.", fields.join(", "));
    }
    section
}
