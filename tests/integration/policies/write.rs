//! Every kind of write request, and the message of a refusal.

use kube::{
    Api, Client, Error,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

/// PersonalAccessTokens of a namespace, as untyped objects.
pub fn pats(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &kind("pat-operator.io", "v1alpha1", "PersonalAccessToken"))
}

/// Secrets of a namespace, as untyped objects.
pub fn secrets(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &kind("", "v1", "Secret"))
}

fn kind(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// The manifest of a PersonalAccessToken.
pub fn pat(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": name}, "spec": spec,
    })
}

/// The result of a write: the error is the message of the policy that refused it.
pub type Outcome = Result<(), String>;

/// A request that creates an object.
#[derive(Clone, Copy, Debug)]
pub enum Create {
    Post,
    Apply,
}

impl Create {
    pub const ALL: [Self; 2] = [Self::Post, Self::Apply];

    /// Sends the request as a dry run.
    pub async fn dry_run(self, api: &Api<DynamicObject>, manifest: &Value) -> Outcome {
        let name = manifest["metadata"]["name"].as_str().expect("a name");
        let answer = match self {
            Self::Post => {
                let object = serde_json::from_value(manifest.clone()).expect("an object");
                api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await
            }
            Self::Apply => {
                let params = PatchParams { dry_run: true, ..PatchParams::apply("other") };
                api.patch(name, &params, &Patch::Apply(manifest)).await
            }
        };
        outcome(answer)
    }
}

/// A request that changes an object.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Put,
    MergePatch,
    JsonPatch,
    Apply,
    /// Sent by `kubectl edit`, `annotate` and `apply`. The API server accepts it only for built-in kinds.
    StrategicMergePatch,
}

impl Change {
    /// The requests that every kind accepts.
    pub const ALL: [Self; 4] = [Self::Put, Self::MergePatch, Self::JsonPatch, Self::Apply];

    /// The requests that Secrets accept.
    pub const OF_SECRETS: [Self; 5] =
        [Self::Put, Self::MergePatch, Self::JsonPatch, Self::Apply, Self::StrategicMergePatch];

    /// Sends the request as a dry run. `patch` is a merge patch.
    pub async fn dry_run(self, api: &Api<DynamicObject>, name: &str, patch: &Value) -> Outcome {
        self.write(api, name, patch, true).await
    }

    /// Sends the request and changes the object.
    pub async fn send(self, api: &Api<DynamicObject>, name: &str, patch: &Value) -> Outcome {
        self.write(api, name, patch, false).await
    }

    async fn write(self, api: &Api<DynamicObject>, name: &str, patch: &Value, dry_run: bool) -> Outcome {
        let params = PatchParams { dry_run, ..PatchParams::default() };
        let answer = match self {
            Self::Put => {
                let mut object =
                    serde_json::to_value(api.get(name).await.expect("the object exists")).expect("an object");
                merge(&mut object, patch);
                let object = serde_json::from_value(object).expect("an object");
                api.replace(name, &PostParams { dry_run, ..PostParams::default() }, &object).await
            }
            Self::MergePatch => api.patch(name, &params, &Patch::Merge(patch)).await,
            Self::StrategicMergePatch => api.patch(name, &params, &Patch::Strategic(patch)).await,
            Self::JsonPatch => {
                let object = serde_json::to_value(api.get(name).await.expect("the object exists")).expect("an object");
                let mut operations = Vec::new();
                to_json_patch(&object, patch, "", &mut operations);
                let operations = serde_json::from_value(json!(operations)).expect("a JSON patch");
                api.patch(name, &params, &Patch::Json::<()>(operations)).await
            }
            Self::Apply => {
                // Contains only fields to set, because an apply cannot remove fields of other managers.
                let mut manifest = json!({"metadata": {"name": name}});
                merge(&mut manifest, patch);
                let now = api.get(name).await.expect("the object exists").types.expect("a kind");
                manifest["apiVersion"] = json!(now.api_version);
                manifest["kind"] = json!(now.kind);
                let params = PatchParams { dry_run, ..PatchParams::apply("other").force() };
                api.patch(name, &params, &Patch::Apply(&manifest)).await
            }
        };
        outcome(answer)
    }
}

/// Returns the message after `denied request:`, or the whole message if it is not from a policy.
pub fn outcome<T>(answer: kube::Result<T>) -> Outcome {
    match answer {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) => {
            let message = status.message.clone();
            let reason = message.split_once(" denied request: ").map(|(_, reason)| reason.to_owned());
            let judged = reason.as_ref().is_some_and(|reason| !reason.starts_with("failed to configure binding"));
            assert!(!judged || status.code == 403, "a policy refusal has status 403: {status:?}");
            Err(reason.unwrap_or(message))
        }
        Err(error) => panic!("no response: {error}"),
    }
}

/// Applies a merge patch (RFC 7386).
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
            Value::Null => drop(into.as_object_mut().expect("an object").remove(key)),
            value => merge(&mut into[key], value),
        }
    }
}

/// Converts a merge patch to JSON patch operations (RFC 6902).
fn to_json_patch(object: &Value, patch: &Value, path: &str, operations: &mut Vec<Value>) {
    for (key, value) in patch.as_object().expect("a map") {
        let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        match (value, object.get(key)) {
            (Value::Null, _) => operations.push(json!({"op": "remove", "path": path})),
            (Value::Object(_), Some(Value::Object(_))) => to_json_patch(&object[key], value, &path, operations),
            _ => operations.push(json!({"op": "add", "path": path, "value": value})),
        }
    }
}
