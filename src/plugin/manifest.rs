//! The PersonalAccessTokens and issuers in a file of manifests. Reading is strict, as with `kubectl apply --validate=strict`: an unknown or
//! duplicate field is a problem, and is reported with its path.

use std::{collections::BTreeMap, fmt, fs, io, path::Path, sync::LazyLock};

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use schemars::{JsonSchema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_yaml::DuplicateKeyPolicy;

use super::error::Error;
use crate::{
    api::{GROUP, IssuerKind, VERSION, crd},
    cli::subdomain,
};

/// The kind of the API group that does not matter for a plan.
const OWNER_KIND: &str = "TokenOwner";

/// One object of a file.
#[derive(Debug)]
pub struct Manifest {
    /// The object, without fields that are null.
    pub object: Value,
    /// What the API server would refuse, one line each.
    pub problems: Vec<String>,
}

impl Manifest {
    /// Checks an object. `duplicates` are the paths of its duplicate fields.
    fn check(mut object: Value, duplicates: Vec<String>) -> Self {
        let mut problems: Vec<_> = duplicates.into_iter().map(|path| format!("{path}: duplicate field")).collect();
        // The API server reads a field that is null as absent.
        remove_nulls(&mut object);
        let version = format!("{GROUP}/{VERSION}");
        if object["apiVersion"] != *version {
            problems.push(format!("apiVersion: must be {version}"));
        }
        let Some(fields) = object["kind"].as_str().and_then(|kind| FIELDS.get(kind)) else {
            let kinds = FIELDS.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            problems.push(format!("kind: must be one of {kinds}, {OWNER_KIND} in the API group {GROUP}"));
            return Self { object, problems };
        };
        match object["metadata"]["name"].as_str().filter(|name| !name.is_empty()) {
            None => problems.push("metadata.name: required in the manifest".to_owned()),
            Some(name) => problems.extend(subdomain(name).err().map(|error| format!("metadata.name: {error}"))),
        }
        add_unknown_fields(&object, fields, &mut problems);
        Self { object, problems }
    }

    /// The kind of an issuer; `None` for another object.
    pub fn issuer_kind(&self) -> Option<IssuerKind> {
        let kind = self.object["kind"].as_str();
        IssuerKind::ALL.into_iter().find(|one| kind == Some(one.as_str()))
    }
}

/// Reads the PersonalAccessTokens and issuers of a file, and ignores objects of other API groups. The path `-` is stdin.
///
/// # Errors
/// The file is unreadable or not YAML, or has no PersonalAccessToken.
pub fn read(file: &Path) -> Result<Vec<Manifest>, Error> {
    let (name, text) = match file.to_str() {
        Some("-") => ("stdin".to_owned(), io::read_to_string(io::stdin())),
        _ => (file.display().to_string(), fs::read_to_string(file)),
    };
    let text = text.map_err(Error::io(&*name))?;
    let not_yaml = |error: serde_yaml::Error| {
        // Further lines quote the file, which may contain Secrets.
        let line = error.to_string().lines().next().unwrap_or_default().to_owned();
        Error::Usage(format!("{name}: invalid YAML: {line}"))
    };
    let options = serde_yaml::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
    let documents: Vec<Document> = serde_yaml::from_multiple_with_options(&text, options).map_err(not_yaml)?;
    let found: Vec<_> = documents.into_iter().flat_map(Document::objects).filter_map(manifest).collect();
    if !found.iter().any(|manifest| manifest.issuer_kind().is_none()) {
        return Err(Error::Usage(format!(
            "{name}: no PersonalAccessToken of {GROUP} found; print one with `kubectl pat create NAME`"
        )));
    }
    Ok(found)
}

/// Checks an object of our API group; `None` for one that has no plan.
fn manifest(document: Document) -> Option<Manifest> {
    let Document { value, duplicates } = document;
    let group = value["apiVersion"].as_str().and_then(|version| version.split('/').next());
    let is_ours = group == Some(GROUP) && value["kind"] != OWNER_KIND;
    is_ours.then(|| Manifest::check(value, duplicates))
}

/// Removes fields that are null. Items of lists stay.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

// ---- duplicate fields

/// A YAML value, and the paths of the fields that it has twice. The last one counts.
struct Document {
    value: Value,
    duplicates: Vec<String>,
}

impl Document {
    /// Returns the object, or the items of a list.
    fn objects(self) -> Vec<Self> {
        let is_list = self.value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        let Some(items) = self.value["items"].as_array().filter(|_| is_list) else { return vec![self] };
        let item = |(index, value): (usize, &Value)| {
            let prefix = format!("items[{index}].");
            let inside = self.duplicates.iter().filter_map(|path| Some(path.strip_prefix(&prefix)?.to_owned()));
            Self { value: value.clone(), duplicates: inside.collect() }
        };
        items.iter().enumerate().map(item).collect()
    }
}

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self { value, duplicates: Vec::new() }
    }
}

/// Appends a path inside a field or an item to the path of that field or item.
fn join(outer: &str, inner: &str) -> String {
    let dot = if inner.starts_with('[') { "" } else { "." };
    format!("{outer}{dot}{inner}")
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

/// serde_json's own visitor keeps the last of several fields and does not tell.
struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
        Ok(Value::Bool(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Document, E> {
        Number::from_f64(value).map(|number| Value::Number(number).into()).ok_or_else(|| E::custom("not a JSON number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Document, E> {
        Ok(Value::from(value).into())
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Value::Null.into())
    }

    fn visit_none<E>(self) -> Result<Document, E> {
        Ok(Value::Null.into())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document, D::Error> {
        Document::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Document, A::Error> {
        let (mut values, mut duplicates) = (Vec::new(), Vec::new());
        while let Some(item) = items.next_element::<Document>()? {
            let outer = format!("[{}]", values.len());
            duplicates.extend(item.duplicates.iter().map(|inner| join(&outer, inner)));
            values.push(item.value);
        }
        Ok(Document { value: Value::Array(values), duplicates })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Document, A::Error> {
        let (mut values, mut duplicates) = (Map::new(), Vec::new());
        while let Some((name, field)) = fields.next_entry::<String, Document>()? {
            duplicates.extend(field.duplicates.iter().map(|inner| join(&name, inner)));
            if values.insert(name.clone(), field.value).is_some() {
                duplicates.push(name);
            }
        }
        Ok(Document { value: Value::Object(values), duplicates })
    }
}

// ---- unknown fields

/// The schemas of fields, by name.
type Fields = BTreeMap<String, JSONSchemaProps>;

/// The schemas of the fields that the CustomResourceDefinitions describe, `spec` and `status`, by kind.
static FIELDS: LazyLock<BTreeMap<String, Fields>> = LazyLock::new(|| {
    let schemas = |crd: CustomResourceDefinition| {
        let mut schemas = crd.spec.versions.into_iter().filter_map(|version| version.schema?.open_api_v3_schema);
        (crd.spec.names.kind, schemas.next().and_then(|schema| schema.properties).unwrap_or_default())
    };
    crd::all().into_iter().map(|(_, crd)| schemas(crd)).filter(|(kind, _)| kind != OWNER_KIND).collect()
});

/// The names of the fields of `metadata`.
static METADATA_FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let schema = ObjectMeta::json_schema(&mut SchemaGenerator::default());
    schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect()
});

/// Adds a problem for each field that neither Kubernetes nor the CustomResourceDefinition knows.
fn add_unknown_fields(object: &Value, fields: &Fields, problems: &mut Vec<String>) {
    let known = || ["apiVersion", "kind", "metadata"].into_iter().chain(fields.keys().map(String::as_str));
    for (name, field) in object.as_object().into_iter().flatten() {
        match fields.get(name) {
            Some(schema) => walk(field, schema, name, problems),
            None if known().any(|known| known == name) => {}
            None => problems.push(unknown("", name, known())),
        }
    }
    for name in object["metadata"].as_object().into_iter().flat_map(Map::keys) {
        if !METADATA_FIELDS.contains(name) {
            problems.push(unknown("metadata", name, METADATA_FIELDS.iter().map(String::as_str)));
        }
    }
}

fn walk(value: &Value, schema: &JSONSchemaProps, path: &str, problems: &mut Vec<String>) {
    if let (Value::Array(items), Some(JSONSchemaPropsOrArray::Schema(schema))) = (value, &schema.items) {
        for (index, item) in items.iter().enumerate() {
            walk(item, schema, &format!("{path}[{index}]"), problems);
        }
    }
    // A value of another type is an error of its own.
    let fields = value.as_object().filter(|_| schema.type_.as_deref() == Some("object"));
    for (name, field) in fields.into_iter().flatten() {
        let known = schema.properties.as_ref();
        match (known.and_then(|known| known.get(name)), &schema.additional_properties) {
            (Some(schema), _) => walk(field, schema, &join(path, name), problems),
            (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => {
                walk(field, schema, &format!("{path}[{name}]"), problems);
            }
            (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
            (None, _) => problems.push(unknown(path, name, known.into_iter().flatten().map(|(name, _)| name.as_str()))),
        }
    }
}

/// Describes an unknown field, with the known one that differs only in its case, its separators, or an `s` at its end.
fn unknown<'k>(path: &str, name: &str, mut known: impl Iterator<Item = &'k str>) -> String {
    let reduced = |name: &str| -> String {
        let letters = name.chars().filter(char::is_ascii_alphanumeric);
        letters.collect::<String>().to_ascii_lowercase().trim_end_matches('s').to_owned()
    };
    let full = |name: &str| if path.is_empty() { name.to_owned() } else { join(path, name) };
    let meant = known.find(|known| reduced(known) == reduced(name));
    let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {}?", full(meant)));
    format!("{}: unknown field{hint}", full(name))
}
