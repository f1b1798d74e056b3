//! Validation by the API server: the message for each invalid manifest, and that valid manifests are stored as sent. The
//! manifests are in `data/admission.yaml` and `data/admission-owners.yaml`.

use std::{collections::BTreeSet, fmt};

use axum::http::Request;
use control_plane::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Client, core::Status};
use pat_operator::{
    api::{StoredOwner, StoredPat, crd as definition},
    planner::intent::Intent,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// A resource with its table of manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    PersonalAccessToken,
    TokenOwner,
}

impl Kind {
    const ALL: [Self; 2] = [Self::PersonalAccessToken, Self::TokenOwner];

    fn crd(self) -> CustomResourceDefinition {
        match self {
            Self::PersonalAccessToken => definition::crd(),
            Self::TokenOwner => definition::owner_crd(),
        }
    }
}

// ---- the table

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    refused: Vec<Refused>,
    accepted: Vec<Accepted>,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    it: String,
    #[serde(default, deserialize_with = "present")]
    spec: Option<Value>,
    field: Fields,
    says: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    it: String,
    spec: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    it: String,
    from: Value,
    /// The status at the time of the change.
    status: Option<Value>,
    to: Value,
    field: Option<Fields>,
    says: Option<String>,
}

/// One path, or two if the schema and the rules write the same path differently.
#[derive(Deserialize)]
#[serde(untagged)]
enum Fields {
    One(String),
    Some(Vec<String>),
}

impl Fields {
    fn contain(&self, field: &str) -> bool {
        match self {
            Self::One(one) => one == field,
            Self::Some(all) => all.iter().any(|one| one == field),
        }
    }
}

/// Distinguishes `null` from an absent field.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn table(kind: Kind) -> Table {
    let text = match kind {
        Kind::PersonalAccessToken => include_str!("../data/admission.yaml"),
        Kind::TokenOwner => include_str!("../data/admission-owners.yaml"),
    };
    let mut table: Table = serde_yaml::from_str(text).expect("the table is readable");
    table.refused.iter_mut().filter_map(|case| case.spec.as_mut()).for_each(expand);
    table.accepted.iter_mut().for_each(|case| expand(&mut case.spec));
    table.changes.iter_mut().for_each(|case| [&mut case.from, &mut case.to].into_iter().for_each(expand));
    table
}

/// Expands the long values that the head of the table describes.
fn expand(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(expand),
        Value::Object(fields) => fields.values_mut().for_each(expand),
        _ => {}
    }
    let Some(times) = value.get("times").and_then(Value::as_u64) else { return };
    let width = value.get("width").and_then(Value::as_u64).unwrap_or_default() as usize;
    let text = |form: &str| value.get(form).and_then(Value::as_str);
    let numbered = |pattern: &str| -> Vec<String> {
        let fill = |number: u64| {
            let number = number.to_string();
            let missing = width.saturating_sub(pattern.len() - 1 + number.len());
            pattern.replace('#', &("x".repeat(missing) + &number))
        };
        (0..times).map(fill).collect()
    };
    *value = if let Some(text) = text("$text") {
        text.repeat(times as usize).into()
    } else if let Some(pattern) = text("$list") {
        numbered(pattern).into()
    } else if let Some(pattern) = text("$map") {
        numbered(pattern).into_iter().map(|key| (key, value["value"].clone())).collect()
    } else {
        return;
    };
}

// ---- the API server

struct Api {
    client: Client,
    namespace: Namespace,
    kind: Kind,
}

impl Api {
    async fn new(kind: Kind, prefix: &str) -> Self {
        let access = control_plane::shared().await.expect("a control plane");
        let client = access.client().expect("an administrator's client");
        crate::support::crd::install_on_shared(&client).await;
        Self { client, namespace: access.namespace(prefix).await.expect("a namespace"), kind }
    }

    /// Returns the name of the objects of all cases. Cluster-scoped objects have a name of their own in each test.
    fn name(&self) -> &str {
        match self.kind {
            Kind::PersonalAccessToken => "x",
            Kind::TokenOwner => self.namespace.name(),
        }
    }

    fn manifest(&self, spec: Option<&Value>) -> Value {
        let mut manifest = json!({
            "apiVersion": "pat-operator.io/v1alpha1",
            "kind": format!("{:?}", self.kind),
            "metadata": {"name": self.name()},
        });
        if let Some(spec) = spec {
            manifest["spec"] = spec.clone();
        }
        manifest
    }

    async fn send(&self, method: &str, name: &str, query: &str, body: &Value) -> kube::Result<Value> {
        let all = match self.kind {
            Kind::PersonalAccessToken => format!("namespaces/{}/personalaccesstokens", self.namespace),
            Kind::TokenOwner => "tokenowners".into(),
        };
        let kind = if method == "PATCH" { "application/apply-patch+yaml" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .header("Content-Type", kind)
            .uri(format!("/apis/pat-operator.io/v1alpha1/{all}{name}?{query}"));
        let body = if method == "DELETE" { Vec::new() } else { body.to_string().into_bytes() };
        self.client.request(request.body(body).expect("a request")).await
    }

    /// Sends a manifest like `kubectl create`, as a dry run.
    async fn try_create(&self, manifest: &Value) -> kube::Result<Value> {
        self.send("POST", "", "fieldValidation=Strict&dryRun=All", manifest).await
    }

    async fn create(&self, manifest: &Value) -> Value {
        let created = self.send("POST", "", "fieldValidation=Strict", manifest).await;
        created.unwrap_or_else(|error| panic!("{error}: {manifest:.300}"))
    }

    /// Sends a manifest like `kubectl replace`, as a dry run.
    async fn try_replace(&self, manifest: &Value) -> kube::Result<Value> {
        self.send("PUT", &format!("/{}", self.name()), "fieldValidation=Strict&dryRun=All", manifest).await
    }

    async fn replace_status(&self, object: &Value) -> Value {
        let replaced = self.send("PUT", &format!("/{}/status", self.name()), "fieldValidation=Strict", object).await;
        replaced.unwrap_or_else(|error| panic!("{error}: {object:.300}"))
    }

    /// Sends a manifest like `kubectl apply --server-side` and GitOps tools.
    async fn apply(&self, manifest: &Value) -> kube::Result<Value> {
        self.send("PATCH", &format!("/{}", self.name()), "fieldValidation=Strict&fieldManager=gitops", manifest).await
    }

    async fn get(&self) -> Value {
        self.send("GET", &format!("/{}", self.name()), "", &Value::Null).await.expect("the object is there")
    }

    async fn delete(&self) {
        self.send("DELETE", &format!("/{}", self.name()), "", &Value::Null).await.expect("the object is deleted");
    }
}

/// One validation error of the API server.
#[derive(Debug)]
struct FieldError {
    field: String,
    message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Returns the validation errors of a response.
fn field_errors(error: kube::Error) -> Vec<FieldError> {
    let kube::Error::Api(status) = error else { panic!("the API server answers: {error}") };
    let Status { details, message, .. } = *status;
    let causes = details.map(|details| details.causes).unwrap_or_default();
    if let Some((_, unknown)) = message.split_once("unknown field \"") {
        return vec![FieldError { field: unknown.split('"').next().unwrap_or_default().to_owned(), message }];
    }
    assert!(!causes.is_empty(), "the whole manifest is invalid: {message}");
    let about_the_others = |message: &str| message.contains("some validation rules were not checked");
    causes
        .into_iter()
        .map(|cause| FieldError { field: cause.field, message: cause.message })
        .filter(|error| !about_the_others(&error.message))
        .collect()
}

/// Checks that every error is about the expected field, and that one of them has the expected message.
fn judge(it: &str, answer: kube::Result<Value>, field: &Fields, says: &str) -> Result<Vec<FieldError>, String> {
    let Err(error) = answer else { return Err(format!("a manifest that {it} is accepted")) };
    let errors = field_errors(error);
    let good = errors.iter().all(|error| field.contain(&error.field))
        && errors.iter().any(|error| error.message.contains(says));
    if good {
        return Ok(errors);
    }
    let lines: Vec<_> = errors.iter().map(FieldError::to_string).collect();
    Err(format!("a manifest that {it} is refused with another message than {says:?}:\n  {}", lines.join("\n  ")))
}

fn report(wrong: Vec<String>, of: usize) {
    assert!(wrong.is_empty(), "{} of {of} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// Returns the validation errors of all invalid manifests in the table, and descriptions of the unexpected ones.
async fn refusals(api: &Api, table: &Table) -> (Vec<FieldError>, Vec<String>) {
    let (mut heard, mut wrong) = (Vec::new(), Vec::new());
    let mut hear = |judged: Result<Vec<FieldError>, String>| match judged {
        Ok(errors) => heard.extend(errors),
        Err(message) => wrong.push(message),
    };
    for Refused { it, spec, field, says } in &table.refused {
        hear(judge(it, api.try_create(&api.manifest(spec.as_ref())).await, field, says));
    }
    for Change { it, from, status, to, field, says } in &table.changes {
        let mut object = api.create(&api.manifest(Some(from))).await;
        if let Some(status) = status {
            object["status"] = status.clone();
            object = api.replace_status(&object).await;
        }
        object["spec"] = to.clone();
        let answer = api.try_replace(&object).await;
        match (field, says) {
            (Some(field), Some(says)) => hear(judge(it, answer, field, says)),
            _ => hear(answer.map(|_| Vec::new()).map_err(|error| format!("a change that {it} is refused: {error}"))),
        }
        api.delete().await;
    }
    (heard, wrong)
}

// ---- the tests

#[tokio::test]
async fn an_error_names_the_field_and_the_valid_values() {
    for kind in Kind::ALL {
        let (api, table) = (Api::new(kind, "refused").await, table(kind));
        let (_, wrong) = refusals(&api, &table).await;
        report(wrong, table.refused.len() + table.changes.len());
    }
}

#[tokio::test]
async fn every_bound_and_rule_of_the_spec_has_a_violating_manifest() {
    for kind in Kind::ALL {
        let api = Api::new(kind, "bounds").await;
        let (heard, _) = refusals(&api, &table(kind)).await;
        let unbroken = |bound: &Bound| !heard.iter().any(|one| bound.breaks(one));
        let unheard: Vec<_> = bounds(kind).into_iter().filter(unbroken).collect();
        assert!(unheard.is_empty(), "no manifest of {kind:?} violates: {unheard:#?}");
    }
}

#[tokio::test]
async fn objects_are_stored_as_sent_and_a_second_apply_changes_nothing() {
    for kind in Kind::ALL {
        let (api, table) = (Api::new(kind, "accepted").await, table(kind));
        let mut wrong = Vec::new();
        for Accepted { it, spec } in &table.accepted {
            let manifest = api.manifest(Some(spec));
            let stored = match api.apply(&manifest).await {
                Ok(stored) => stored,
                Err(error) => {
                    wrong.push(format!("a manifest that {it} is refused: {error}"));
                    continue;
                }
            };
            let (sent, kept) = (spec.to_string(), stored["spec"].to_string());
            if kept != sent {
                wrong.push(format!("a manifest that {it} is stored as {kept}"));
            }
            api.apply(&manifest).await.expect("the same once more");
            if api.get().await != stored {
                wrong.push(format!("a manifest that {it} is changed by a second apply"));
            }
            if let Err(error) = follow(kind, &stored) {
                wrong.push(format!("a manifest that {it} cannot be followed: {error}"));
            }
            api.delete().await;
        }
        report(wrong, table.accepted.len());
    }
}

#[tokio::test]
async fn wrong_units_times_and_names_are_explained_in_one_sentence() {
    let api = Api::new(Kind::PersonalAccessToken, "sentences").await;
    let duration = "must be a duration greater than zero: whole weeks";
    let time = "must be a date, a time and Z or an offset";
    let name = "must be 1 to 128 characters, without line breaks and other control characters";
    let scope = "must be 1 to 128 visible ASCII characters";
    let mut cases = Vec::new();
    for text in
        ["5", "5y", "30 days", "P1D", "0.5h", "", "forever and ever, until the end of time", "99999999999999999999d"]
    {
        cases.extend([
            (json!({"gracePeriod": text}), duration),
            (json!({"expiry": {"after": text}}), duration),
            (json!({"accessTokenValidity": text}), duration),
            (json!({"rotation": {"interval": text}, "gracePeriod": "1h"}), duration),
        ]);
    }
    for text in [
        "tomorrow",
        "2030-12-31",
        "2030-02-30T00:00:00Z",
        "2030-12-31T23:59:60Z",
        "",
        "2030-12-31 23:59:59 in the evening, by the clock of the town hall",
    ] {
        cases.extend([(json!({"expiry": {"at": text}}), time), (json!({"revokeIfIssuedBefore": text}), time)]);
    }
    for text in ["a\nb", "a\0b", "", "\u{85}", &"é".repeat(129), &"x".repeat(129)] {
        cases.push((json!({"displayName": text}), name));
    }
    cases.extend([(json!({"scopes": ["x".repeat(129)]}), scope), (json!({"scopes": [""]}), scope)]);
    for (spec, sentence) in cases {
        let Err(kube::Error::Api(status)) = api.try_create(&api.manifest(Some(&spec))).await else {
            panic!("{spec} is accepted")
        };
        // The API server repeats an invalid value.
        let message = status.message.replace("until the end of time", "");
        assert!(
            message.contains(sentence) && !message.contains("<nil>") && !message.contains("bytes"),
            "{spec}: {message}"
        );
    }
    for text in ["é".repeat(128), "Ada's token: \"ci\" 🔑".to_owned()] {
        api.try_create(&api.manifest(Some(&json!({"displayName": text})))).await.expect("a name is accepted");
    }
}

/// Reads an object as the operator does.
fn follow(kind: Kind, stored: &Value) -> Result<(), String> {
    if kind == Kind::TokenOwner {
        let owner: StoredOwner = serde_json::from_value(stored.clone()).map_err(|error| error.to_string())?;
        return owner.spec.map(drop);
    }
    let pat: StoredPat = serde_json::from_value(stored.clone()).map_err(|error| error.to_string())?;
    let (spec, status) = (pat.spec.clone()?, pat.status.clone()?);
    let intent = Intent::read(&pat, &spec, &status).map_err(|error| error.to_string())?;
    intent.layout.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_explicit_null_equals_an_absent_field() {
    let api = Api::new(Kind::PersonalAccessToken, "nulls").await;
    let schema = spec_schema(Kind::PersonalAccessToken);
    let nothing = |of: &Value| -> Value {
        let fields = of["properties"].as_object().expect("fields").keys();
        fields.map(|field| (field.clone(), Value::Null)).collect()
    };
    let mut spec = nothing(&schema);
    assert_eq!(api.create(&api.manifest(Some(&spec))).await["spec"], json!({}));
    api.delete().await;
    spec["secret"] = nothing(&schema["properties"]["secret"]);
    assert_eq!(api.create(&api.manifest(Some(&spec))).await["spec"], json!({"secret": {}}));
}

// ---- what the schema says

/// One constraint of the schema.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    /// Path of the field, with `*` for items and keys.
    path: String,
    /// Message of the API server for a value that violates the constraint.
    says: String,
}

impl Bound {
    fn breaks(&self, error: &FieldError) -> bool {
        let field = error.field.replace('[', ".").replace(']', "");
        let mut names = field.split('.');
        let same = self.path.split('.').all(|name| names.next().is_some_and(|other| name == "*" || name == other));
        same && names.next().is_none() && error.message.contains(&self.says)
    }
}

fn spec_schema(kind: Kind) -> Value {
    root_schema(kind)["properties"]["spec"].clone()
}

fn root_schema(kind: Kind) -> Value {
    let crd = serde_json::to_value(kind.crd()).expect("plain data");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn bounds(kind: Kind) -> BTreeSet<Bound> {
    let mut bounds = BTreeSet::new();
    rules("", &root_schema(kind), &mut bounds);
    collect("spec", &spec_schema(kind), &mut bounds);
    bounds
}

fn rules(path: &str, schema: &Value, bounds: &mut BTreeSet<Bound>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let path = format!("{path}{}", rule["fieldPath"].as_str().unwrap_or_default());
        let says = rule["message"].as_str().expect("every rule has a message").to_owned();
        bounds.insert(Bound { path: path.trim_start_matches('.').to_owned(), says });
    }
}

fn collect(path: &str, schema: &Value, bounds: &mut BTreeSet<Bound>) {
    rules(path, schema, bounds);
    let mut add = |path: &str, says: String| bounds.insert(Bound { path: path.to_owned(), says });
    for (keyword, value) in schema.as_object().expect("a schema") {
        match keyword.as_str() {
            // The width of a number adds nothing to its type.
            "format" if value == "int64" => continue,
            "x-kubernetes-list-type" if value == "atomic" => continue,
            "enum" => add(path, "Unsupported value".into()),
            "format" => add(path, format!("must be of type {}", value.as_str().expect("a format"))),
            // It only bounds the cost of the rules, which have the limit.
            "maxLength" if schema["x-kubernetes-validations"].is_array() => continue,
            "maxItems" | "maxProperties" => add(path, format!("must have at most {value} items")),
            "maxLength" => add(path, format!("may not be more than {value} bytes")),
            "minimum" => add(path, format!("should be greater than or equal to {}", value.as_f64().expect("a number"))),
            "minLength" => add(path, format!("should be at least {value} chars long")),
            "minProperties" => add(path, format!("should have at least {value} properties")),
            "pattern" => add(path, format!("should match '{}'", value.as_str().expect("a pattern"))),
            "x-kubernetes-list-type" => add(&format!("{path}.*"), "Duplicate value".into()),
            "required" => {
                for field in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    add(&format!("{path}.{field}"), "Required value".into());
                }
                continue;
            }
            "additionalProperties" | "description" | "items" | "properties" | "type" | "x-kubernetes-validations" => {
                continue;
            }
            other => panic!("{path}: this test does not support {other}"),
        };
    }
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        collect(&format!("{path}.{field}"), schema, bounds);
    }
    for each in ["items", "additionalProperties"] {
        if schema[each].is_object() {
            collect(&format!("{path}.*"), &schema[each], bounds);
        }
    }
}
