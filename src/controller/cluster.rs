//! The reconciler's requests to the API server. Each has a timeout, and each write carries the resourceVersion that it was decided on.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    mem::take,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Secret},
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::Request,
};
use serde::{Serialize, de::IgnoredAny};
use serde_json::{Map, Value, json};

use super::{error::Error, stored_secret::StoredSecret};
use crate::api::{
    Credential, FIELD_MANAGER, GROUP, PersonalAccessTokenStatus, REMOTE_TOKENS, StoredPat, Time, VERSION,
};
use crate::planner::{EventReason, EventToPublish, SecretVersion};

/// The timeout of one request. After it the outcome is unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Within this time the same repair increases the count of its event instead of creating another.
const SERIES: SignedDuration = SignedDuration::from_mins(6);

/// Returns a merge patch that adds or removes a finalizer, if the object still has the version of `metadata`.
pub(super) fn finalizer_patch(metadata: &ObjectMeta, finalizer: &str, present: bool) -> Value {
    let others = metadata.finalizers.iter().flatten().map(String::as_str).filter(|other| *other != finalizer);
    let finalizers: Vec<_> = others.chain(present.then_some(finalizer)).collect();
    json!({"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": finalizers}})
}

/// A client of the API server with the requests of the reconciler.
#[derive(Clone)]
pub struct ClusterClient {
    client: Client,
    instance: String,
    repairs: Arc<Mutex<HashMap<(String, String), Repair>>>,
}

/// The published event of a repair. Only repairs repeat, when another client keeps writing the Secret.
struct Repair {
    event: String,
    count: i32,
    at: Timestamp,
}

impl ClusterClient {
    /// Creates a cluster client. `instance` names this process in events.
    pub fn new(client: Client, instance: Option<String>) -> Self {
        Self { client, instance: instance.unwrap_or_else(|| GROUP.into()), repairs: Arc::default() }
    }

    /// Reads one PAT.
    pub async fn pat(&self, namespace: &str, name: &str) -> Result<Option<StoredPat>, Error> {
        let what = format!("get PersonalAccessToken {namespace}/{name}");
        with_timeout(&what, self.pats(namespace).get_opt(name)).await
    }

    /// Reads one Secret with its values.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
        let what = format!("get Secret {namespace}/{name}");
        with_timeout(&what, self.secrets(namespace).get_opt(name)).await
    }

    /// Writes the controller's part of a status, if the object still has the version of `pat`.
    pub async fn write_status(&self, pat: &StoredPat, status: PersonalAccessTokenStatus) -> Result<StoredPat, Error> {
        let what = format!("patch status of PersonalAccessToken {}/{}", pat.namespace(), pat.name());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.pats(pat.namespace());
        let body = StatusBody::of(pat, status);
        let written = with_timeout(&what, api.patch_status(pat.name(), &params, &Patch::Apply(&body))).await?;
        let Some(whole) = body.status.with_nulls_for_stale_fields(&written) else { return Ok(written) };
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let body = json!({"metadata": StatusPrecondition::of(&written), "status": whole});
        with_timeout(&what, api.patch_status(pat.name(), &params, &Patch::Merge(&body))).await
    }

    /// Adds or removes the finalizer of a PAT, if the object still has the version of `pat`. Returns `None` if the object is gone after that.
    pub async fn set_finalizer(&self, pat: &StoredPat, present: bool) -> Result<Option<StoredPat>, Error> {
        let what = format!("patch finalizers of PersonalAccessToken {}/{}", pat.namespace(), pat.name());
        let body = finalizer_patch(&pat.metadata, REMOTE_TOKENS, present);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let api = self.pats(pat.namespace());
        match with_timeout(&what, api.patch(pat.name(), &params, &Patch::Merge(&body))).await {
            Ok(written) => Ok(Some(written)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a Secret. An existing one is never touched.
    pub async fn create_secret(&self, namespace: &str, secret: Secret, dry_run: bool) -> Result<Secret, Error> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let what = format!("create Secret {namespace}/{name}");
        let params = PostParams { dry_run, field_manager: Some(FIELD_MANAGER.into()) };
        let api: Api<StoredSecret> = Api::namespaced(self.client.clone(), namespace);
        Ok(with_timeout(&what, api.create(&params, &StoredSecret(secret))).await?.0)
    }

    /// Changes a Secret by a JSON merge patch, which must contain uid and resourceVersion.
    pub async fn patch_secret(
        &self,
        namespace: &str,
        name: &str,
        body: &Value,
        dry_run: bool,
    ) -> Result<Secret, Error> {
        let what = format!("patch Secret {namespace}/{name}");
        let params = PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let api: Api<StoredSecret> = Api::namespaced(self.client.clone(), namespace);
        Ok(with_timeout(&what, api.patch(name, &params, &Patch::Merge(body))).await?.0)
    }

    /// Deletes exactly this version of a Secret. If it no longer exists, that is a success.
    pub async fn delete_secret(&self, namespace: &str, target: &SecretVersion) -> Result<(), Error> {
        let what = format!("delete Secret {namespace}/{}", target.name);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(target.uid.clone()),
                resource_version: Some(target.resource_version.clone()),
            }),
            ..Default::default()
        };
        match with_timeout(&what, self.secrets(namespace).delete(&target.name, &params)).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Publishes an event. If that fails, it is only logged.
    pub async fn publish_event(&self, pat: &StoredPat, event: &EventToPublish) {
        let api: Api<Event> = Api::namespaced(self.client.clone(), pat.namespace());
        let object = self.event_object(pat, event);
        let name = object.metadata.name.clone().unwrap_or_default();
        let now = object.event_time.clone().unwrap_or(MicroTime(Timestamp::UNIX_EPOCH));
        let repeats = event.reason == EventReason::Repaired;
        let again = repeats.then(|| self.count_repair(pat, event, name, now.0)).flatten();
        let published = match again {
            Some((name, count)) => {
                let series = EventSeries { count, last_observed_time: now };
                let patch = Patch::Merge(json!({"series": series}));
                with_timeout("patch Event", api.patch(&name, &PatchParams::default(), &patch)).await.map(drop)
            }
            None => with_timeout("create Event", self.create_event(pat.namespace(), &object)).await,
        };
        if let Err(error) = published {
            tracing::debug!(reason = %event.reason, %error, "an event could not be published");
        }
    }

    /// Creates an event. The response only repeats it, so it is not decoded.
    async fn create_event(&self, namespace: &str, event: &Event) -> kube::Result<()> {
        let body = serde_json::to_vec(event).map_err(kube::Error::SerdeError)?;
        let request = Request::new(Event::url_path(&(), Some(namespace))).create(&PostParams::default(), body);
        let request = request.map_err(kube::Error::BuildRequest)?;
        self.client.request::<IgnoredAny>(request).await.map(drop)
    }

    fn event_object(&self, pat: &StoredPat, event: &EventToPublish) -> Event {
        let now = Timestamp::now();
        // With the time appended, the name stays within the maximum length.
        let prefix: String = pat.name().chars().take(200).collect();
        Event {
            action: Some("Reconcile".into()),
            event_time: Some(MicroTime(now)),
            metadata: ObjectMeta {
                namespace: Some(pat.namespace().into()),
                name: Some(format!("{}.{:x}", prefix.trim_end_matches(['.', '-']), now.as_nanosecond())),
                ..Default::default()
            },
            note: Some(event.note.clone()),
            reason: Some(event.reason.as_str().into()),
            regarding: Some(ObjectReference {
                api_version: Some(format!("{GROUP}/{VERSION}")),
                kind: Some("PersonalAccessToken".into()),
                namespace: Some(pat.namespace().into()),
                name: Some(pat.name().into()),
                uid: Some(pat.uid().into()),
                ..Default::default()
            }),
            reporting_controller: Some(GROUP.into()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if event.warning { "Warning" } else { "Normal" }.into()),
            ..Default::default()
        }
    }

    /// Counts a repair. If the same one has an event already, returns that event's name and the count.
    fn count_repair(
        &self,
        pat: &StoredPat,
        event: &EventToPublish,
        name: String,
        now: Timestamp,
    ) -> Option<(String, i32)> {
        let mut repairs = self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
        repairs.retain(|_, repair| now.duration_since(repair.at) < SERIES);
        let repair = repairs
            .entry((pat.uid().to_owned(), event.note.clone()))
            .and_modify(|repair| (repair.count, repair.at) = (repair.count + 1, now))
            .or_insert(Repair { event: name, count: 1, at: now });
        (repair.count > 1).then(|| (repair.event.clone(), repair.count))
    }

    fn pats(&self, namespace: &str) -> Api<StoredPat> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// The body of a write of status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusBody<'a> {
    api_version: String,
    kind: &'static str,
    metadata: StatusPrecondition<'a>,
    status: ControllerStatus,
}

/// The version that a write of status is decided on.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusPrecondition<'a> {
    name: &'a str,
    uid: &'a str,
    resource_version: &'a str,
}

/// A status without the verifier's part.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ControllerStatus {
    // Empty lists are serialized: if they were left out, a field that another manager also owns would keep its value.
    credentials: Vec<Credential>,
    unplanned_mints: Vec<Time>,
    #[serde(flatten)]
    rest: PersonalAccessTokenStatus,
}

impl<'a> StatusBody<'a> {
    fn of(pat: &'a StoredPat, status: PersonalAccessTokenStatus) -> Self {
        Self {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "PersonalAccessToken",
            metadata: StatusPrecondition::of(pat),
            status: ControllerStatus::of(status),
        }
    }
}

impl<'a> StatusPrecondition<'a> {
    fn of(pat: &'a StoredPat) -> Self {
        Self { name: pat.name(), uid: pat.uid(), resource_version: pat.resource_version() }
    }
}

impl ControllerStatus {
    fn of(mut status: PersonalAccessTokenStatus) -> Self {
        let (credentials, unplanned_mints) = (take(&mut status.credentials), take(&mut status.unplanned_mints));
        let rest = PersonalAccessTokenStatus { last_used_at: None, usage: BTreeMap::new(), ..status };
        Self { credentials, unplanned_mints, rest }
    }

    /// Returns a merge patch of the whole status, with nulls for fields that an apply should have removed but did not.
    ///
    /// An apply removes only fields that `managedFields` attributes to the controller. Others can overwrite `managedFields`: Velero
    /// restores those of its backup just after the object itself.
    fn with_nulls_for_stale_fields(&self, written: &StoredPat) -> Option<Map<String, Value>> {
        let held = Self::of(written.status.as_ref().ok()?.clone());
        if held == *self {
            return None;
        }
        let (Ok(Value::Object(held)), Ok(Value::Object(wanted))) =
            (serde_json::to_value(held), serde_json::to_value(self))
        else {
            return None;
        };
        Some(held.into_iter().map(|(field, _)| (field, Value::Null)).chain(wanted).collect())
    }
}

async fn with_timeout<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error::of(what, error)),
        Err(_) => Err(Error::Timeout { what: what.to_owned(), limit: REQUEST_TIMEOUT }),
    }
}
