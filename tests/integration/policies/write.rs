//! Every way in which a client writes, and the sentence that a refusal has.

use kube::{
    Api, Client, Error,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

/// PersonalAccessTokens of a namespace, as plain data.
pub fn pats(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &kind("pat-operator.io", "v1alpha1", "PersonalAccessToken"))
}

/// Secrets of a namespace, as plain data.
pub fn secrets(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &kind("", "v1", "Secret"))
}

fn kind(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// A PersonalAccessToken to be.
pub fn pat(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": name}, "spec": spec,
    })
}

/// What came of a write: the sentence of the policy that refused it.
pub type Outcome = Result<(), String>;

/// A way to make an object.
#[derive(Clone, Copy, Debug)]
pub enum Create {
    Post,
    Apply,
}

impl Create {
    pub const ALL: [Self; 2] = [Self::Post, Self::Apply];

    /// Asks whether the object may be made, which leaves nothing behind.
    pub async fn try_out(self, api: &Api<DynamicObject>, manifest: &Value) -> Outcome {
        let name = manifest["metadata"]["name"].as_str().expect("a name");
        let answer = match self {
            Self::Post => {
                let object = serde_json::from_value(manifest.clone()).expect("an object");
                api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await
            }
            Self::Apply => {
                let params = PatchParams { dry_run: true, ..PatchParams::apply("somebody") };
                api.patch(name, &params, &Patch::Apply(manifest)).await
            }
        };
        outcome(answer)
    }
}

/// A way to change an object.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Put,
    MergePatch,
    JsonPatch,
    Apply,
    /// What `kubectl edit`, `annotate` and `apply` send. The API server takes it for its own kinds only.
    StrategicMergePatch,
}

impl Change {
    /// Those that every kind takes.
    pub const ALL: [Self; 4] = [Self::Put, Self::MergePatch, Self::JsonPatch, Self::Apply];

    /// Those that Secrets take.
    pub const OF_SECRETS: [Self; 5] =
        [Self::Put, Self::MergePatch, Self::JsonPatch, Self::Apply, Self::StrategicMergePatch];

    /// Asks whether the object may be changed so, which changes nothing. `patch` is a merge patch.
    pub async fn try_out(self, api: &Api<DynamicObject>, name: &str, patch: &Value) -> Outcome {
        self.write(api, name, patch, true).await
    }

    /// Changes the object.
    pub async fn really(self, api: &Api<DynamicObject>, name: &str, patch: &Value) -> Outcome {
        self.write(api, name, patch, false).await
    }

    async fn write(self, api: &Api<DynamicObject>, name: &str, patch: &Value, dry_run: bool) -> Outcome {
        let params = PatchParams { dry_run, ..PatchParams::default() };
        let answer = match self {
            Self::Put => {
                let mut object = serde_json::to_value(api.get(name).await.expect("it is there")).expect("an object");
                merge(&mut object, patch);
                let object = serde_json::from_value(object).expect("an object");
                api.replace(name, &PostParams { dry_run, ..PostParams::default() }, &object).await
            }
            Self::MergePatch => api.patch(name, &params, &Patch::Merge(patch)).await,
            Self::StrategicMergePatch => api.patch(name, &params, &Patch::Strategic(patch)).await,
            Self::JsonPatch => {
                let object = serde_json::to_value(api.get(name).await.expect("it is there")).expect("an object");
                let mut operations = Vec::new();
                describe(&object, patch, "", &mut operations);
                let operations = serde_json::from_value(json!(operations)).expect("a JSON patch");
                api.patch(name, &params, &Patch::Json::<()>(operations)).await
            }
            Self::Apply => {
                // Only what is set: an apply takes nothing away that it never had.
                let mut manifest = json!({"metadata": {"name": name}});
                merge(&mut manifest, patch);
                let now = api.get(name).await.expect("it is there").types.expect("a kind");
                manifest["apiVersion"] = json!(now.api_version);
                manifest["kind"] = json!(now.kind);
                let params = PatchParams { dry_run, ..PatchParams::apply("somebody").force() };
                api.patch(name, &params, &Patch::Apply(&manifest)).await
            }
        };
        outcome(answer)
    }
}

/// The sentence after `denied request:`, or the whole message if no policy said it.
pub fn outcome<T>(answer: kube::Result<T>) -> Outcome {
    match answer {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) => {
            let message = status.message.clone();
            let sentence = message.split_once(" denied request: ").map(|(_, sentence)| sentence.to_owned());
            let judged = sentence.as_ref().is_some_and(|sentence| !sentence.starts_with("failed to configure binding"));
            assert!(!judged || status.code == 403, "403 says that it is a matter of rights: {status:?}");
            Err(sentence.unwrap_or(message))
        }
        Err(error) => panic!("no answer: {error}"),
    }
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(into.as_object_mut().expect("it is one").remove(key)),
            value => merge(&mut into[key], value),
        }
    }
}

/// The same change as RFC 6902 writes it.
fn describe(object: &Value, patch: &Value, path: &str, operations: &mut Vec<Value>) {
    for (key, value) in patch.as_object().expect("a map") {
        let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        match (value, object.get(key)) {
            (Value::Null, _) => operations.push(json!({"op": "remove", "path": path})),
            (Value::Object(_), Some(Value::Object(_))) => describe(&object[key], value, &path, operations),
            _ => operations.push(json!({"op": "add", "path": path, "value": value})),
        }
    }
}
