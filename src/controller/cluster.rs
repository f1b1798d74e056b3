//! The requests that a step needs, each bounded in time, each carrying the version that it was decided on.
//!
//! It must not decide anything: it says what the API server said.

use std::{future::Future, time::Duration};

use k8s_openapi::api::{core::v1::ObjectReference, core::v1::Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::{Value, json};

use super::{
    error::Error,
    plan::{Notice, Target},
};
use crate::api::{FIELD_MANAGER, GROUP, PersonalAccessTokenStatus, StoredPat, VERSION};

/// How long one request may take. Then its outcome is unknown and looked up.
const LIMIT: Duration = Duration::from_secs(15);

/// The API server, as one controller uses it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    recorder: Recorder,
}

impl Cluster {
    /// Uses this client; `instance` names this process in events.
    pub fn new(client: Client, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: GROUP.into(), instance };
        Self { recorder: Recorder::new(client.clone(), reporter), client }
    }

    /// Reads one PAT.
    pub async fn pat(&self, namespace: &str, name: &str) -> Result<Option<StoredPat>, Error> {
        let what = format!("get PersonalAccessToken {namespace}/{name}");
        let mut pat = bounded(&what, self.pats(namespace).get_opt(name)).await?;
        if let Some(pat) = &mut pat {
            pat.slim();
        }
        Ok(pat)
    }

    /// Reads one Secret, values and all.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
        let what = format!("get Secret {namespace}/{name}");
        bounded(&what, self.secrets(namespace).get_opt(name)).await
    }

    /// Writes everything of a status that is ours, if the object is still at the version that `pat` has.
    pub async fn write_status(&self, pat: &StoredPat, status: &PersonalAccessTokenStatus) -> Result<StoredPat, Error> {
        let what = format!("patch status of PersonalAccessToken {}/{}", pat.namespace(), pat.name());
        // The verifier's part is not ours to write.
        let ours = PersonalAccessTokenStatus { last_used_at: None, usage: Default::default(), ..status.clone() };
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "PersonalAccessToken",
            "metadata": {"name": pat.name(), "uid": pat.uid(), "resourceVersion": pat.resource_version()},
            "status": ours,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.pats(pat.namespace());
        let mut written = bounded(&what, api.patch_status(pat.name(), &params, &Patch::Apply(&body))).await?;
        written.slim();
        Ok(written)
    }

    /// Creates a Secret; one that is there is never touched.
    pub async fn create_secret(&self, namespace: &str, secret: &Secret, dry_run: bool) -> Result<Secret, Error> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let what = format!("create Secret {namespace}/{name}");
        let params = PostParams { dry_run, field_manager: Some(FIELD_MANAGER.into()) };
        bounded(&what, self.secrets(namespace).create(&params, secret)).await
    }

    /// Changes a Secret by a JSON merge patch that must carry uid and resourceVersion.
    pub async fn patch_secret(
        &self,
        namespace: &str,
        name: &str,
        body: &Value,
        dry_run: bool,
    ) -> Result<Secret, Error> {
        let what = format!("patch Secret {namespace}/{name}");
        let params = PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        bounded(&what, self.secrets(namespace).patch(name, &params, &Patch::Merge(body))).await
    }

    /// Deletes exactly this version of a Secret; that it is gone already is a success.
    pub async fn delete_secret(&self, namespace: &str, target: &Target) -> Result<(), Error> {
        let what = format!("delete Secret {namespace}/{}", target.name);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(target.uid.clone()),
                resource_version: Some(target.resource_version.clone()),
            }),
            ..Default::default()
        };
        match bounded(&what, self.secrets(namespace).delete(&target.name, &params)).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells people. An event that cannot be published is logged and no reason to stop.
    pub async fn tell(&self, pat: &StoredPat, notice: &Notice) {
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.as_str().into(),
            note: Some(notice.note.clone()),
            action: "Reconcile".into(),
            secondary: None,
        };
        let about = ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some("PersonalAccessToken".into()),
            namespace: Some(pat.namespace().into()),
            name: Some(pat.name().into()),
            uid: Some(pat.uid().into()),
            ..Default::default()
        };
        let published = tokio::time::timeout(LIMIT, self.recorder.publish(&event, &about)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::debug!(reason = %notice.reason, "an event could not be published");
        }
    }

    fn pats(&self, namespace: &str) -> Api<StoredPat> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

async fn bounded<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error::of(what, error)),
        Err(_) => Err(Error::Timeout { what: what.to_owned(), limit: LIMIT }),
    }
}
