//! Looks after certificates while this instance leads: reads, plans, makes, writes, tells.
//!
//! Each look starts from what is there and may end after any request: the next one goes on. It must not know what is served.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{ConfigMap, ObjectReference, Secret},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::PostParams,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::{debug, info, warn};

use super::{
    Error, Wanted,
    material::{Material, TRUSTED, wipe},
    metrics::Metrics,
    plan::{Plan, Why, plan},
    stored,
};
use crate::service::{Clock, LeaseHandle};

/// How often it is looked at what is there. Somebody may delete it, and a wall clock can jump.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// After a failure it is tried again after this long, twice as long each time, and at most [`LOOK_EVERY`].
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// How long one request may take. Then its outcome is unknown and looked up.
const LIMIT: Duration = Duration::from_secs(15);

/// Who writes, for `managedFields` and events.
const MANAGER: &str = "pat-operator";

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// All is as it should be, and there is nothing to do before this time.
    Kept(Timestamp),
    /// A certificate was made.
    Made,
    /// This instance does not lead any more, and leaves it to another.
    Standby,
}

/// Looks after certificates in one namespace.
pub struct Keeper {
    client: Client,
    namespace: String,
    wanted: Vec<Wanted>,
    clock: Clock,
    lease: LeaseHandle,
    metrics: Metrics,
    recorder: Recorder,
    /// When each ends, as it was last seen.
    ends: Mutex<BTreeMap<String, Timestamp>>,
}

impl Keeper {
    /// One that has not been started. It works only while `lease` leads.
    pub fn new(
        client: Client,
        namespace: String,
        wanted: Vec<Wanted>,
        clock: Clock,
        lease: LeaseHandle,
        instance: String,
    ) -> Arc<Self> {
        let reporter = Reporter { controller: "pat-operator.io/controller".into(), instance: Some(instance) };
        Arc::new(Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            namespace,
            wanted,
            clock,
            lease,
            metrics: Metrics::new(),
            ends: Mutex::default(),
        })
    }

    /// The families for `/metrics`, without the mark of the end.
    pub fn metrics_text(&self) -> String {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever stands by does not hear of renewals.
        let nearest = ends.values().min().filter(|_| self.lease.is_leading());
        let now = self.clock.now();
        self.metrics.text(nearest.map_or(f64::INFINITY, |end| end.duration_since(now).as_secs_f64()))
    }

    /// Looks again and again; never ends by itself.
    pub async fn run(self: Arc<Self>) {
        let mut failures: HashMap<&str, (u32, String)> = HashMap::new();
        loop {
            self.lease.leading().await;
            let mut again = LOOK_EVERY;
            for wanted in &self.wanted {
                match self.look(wanted).await {
                    Ok(_) => drop(failures.remove(wanted.secret())),
                    Err(error) => {
                        self.metrics.failed(&error);
                        let (count, told) = failures.entry(wanted.secret()).or_default();
                        *count += 1;
                        again = again.min(RETRY_FIRST * 2u32.pow((*count - 1).min(6)));
                        let text = error.to_string();
                        // Told once, as long as it is the same.
                        if *told != text {
                            warn!(secret = wanted.secret(), category = error.category(), "{text}");
                            if matches!(error, Error::NotOurs { .. }) {
                                self.tell(wanted, EventType::Warning, "CertificateNotOurs", &text).await;
                            }
                            *told = text;
                        }
                    }
                }
            }
            tokio::time::sleep(again).await;
        }
    }

    /// Looks at one certificate, and makes what is due.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn look(&self, wanted: &Wanted) -> Result<Looked, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = wanted.secret();
        let mut read = bounded(|| format!("get Secret {}/{name}", self.namespace), secrets.get_opt(name)).await?;
        if let Some(problem) = read.as_ref().and_then(stored::not_ours) {
            return Err(self.not_ours("Secret", name, problem));
        }
        let names = read.as_ref().and_then(stored::names);
        let mut data = read.as_mut().and_then(|secret| secret.data.take()).unwrap_or_default();
        let material = Material::read(&data);
        wipe(&mut data);
        let now = self.clock.now();
        let failed = |error| Error::Making { secret: name.to_owned(), error };
        let plan = plan(&material.held(names), wanted.names(), now);
        let (material, what) = match plan {
            Plan::Keep(until) => {
                self.note(wanted, &material);
                let published = self.publish(wanted, &material).await?;
                return Ok(if published { Looked::Kept(until) } else { Looked::Standby });
            }
            Plan::Certificate(why) => (material.with_certificate(wanted.names(), now).map_err(failed)?, (false, why)),
            Plan::Authority(why) => (material.with_authority(wanted.names(), now).map_err(failed)?, (true, why)),
        };
        let is_first = read.is_none();
        let mut secret = stored::secret(read.as_ref(), wanted, material.write());
        let written = self.write(&secrets, &secret).await;
        secret.data.iter_mut().for_each(wipe);
        if !written? {
            return Ok(Looked::Standby);
        }
        self.note(wanted, &material);
        self.metrics.renewed();
        self.made(wanted, &material, what, is_first).await;
        Ok(if self.publish(wanted, &material).await? { Looked::Made } else { Looked::Standby })
    }

    /// Keeps the ConfigMap in step; `false` if this instance may not write any more.
    async fn publish(&self, wanted: &Wanted, material: &Material) -> Result<bool, Error> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = wanted.config_map();
        let read = bounded(|| format!("get ConfigMap {}/{name}", self.namespace), maps.get_opt(&name)).await?;
        if let Some(problem) = read.as_ref().and_then(|map| stored::map_not_ours(map, wanted.secret())) {
            return Err(self.not_ours("ConfigMap", &name, problem));
        }
        let trusted = material.trusted();
        let published = read.as_ref().and_then(|map| map.data.as_ref()).and_then(|data| data.get(TRUSTED));
        if published == Some(&trusted) {
            return Ok(true);
        }
        self.write(&maps, &stored::config_map(read.as_ref(), wanted, trusted)).await
    }

    /// Creates what has no version, and updates what has one, if it is still at that. `false` if this instance may not write any more.
    async fn write<K>(&self, api: &Api<K>, object: &K) -> Result<bool, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    {
        // A process that was paused past its lease may get here before anybody has noticed.
        if !self.lease.is_leading() {
            return Ok(false);
        }
        let name = object.meta().name.as_deref().unwrap_or_default();
        let what = |verb: &str| format!("{verb} {} {}/{name}", K::kind(&()), self.namespace);
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match object.meta().resource_version {
            None => bounded(|| what("create"), api.create(&params, object)).await?,
            Some(_) => bounded(|| what("update"), api.replace(name, &params, object)).await?,
        };
        Ok(true)
    }

    fn note(&self, wanted: &Wanted, material: &Material) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.extend(material.ends_at().map(|end| (wanted.secret().to_owned(), end)));
    }

    fn not_ours(&self, kind: &'static str, name: &str, problem: String) -> Error {
        Error::NotOurs { kind, namespace: self.namespace.clone(), name: name.to_owned(), problem }
    }

    /// Says what was made, in the log and to whoever asks for the events of the Secret.
    async fn made(&self, wanted: &Wanted, material: &Material, (authority, why): (bool, Why), is_first: bool) {
        let until = material.ends_at().map(|end| format!(", good until {end}")).unwrap_or_default();
        let (reason, note) = match (is_first, authority) {
            (true, _) => {
                ("CertificateIssued", format!("made an authority and a certificate for {}{until}", wanted.names()))
            }
            (false, true) => (
                "AuthorityReplaced",
                format!(
                    "a new authority, because of the old one {why}, and a certificate by it{until}; take the new {TRUSTED} from ConfigMap {} to \
                     wherever it was copied: what has the old one goes on until that ends",
                    wanted.config_map()
                ),
            ),
            (false, false) => ("CertificateRenewed", format!("a new certificate, because of the old one {why}{until}")),
        };
        info!(namespace = self.namespace, secret = wanted.secret(), reason, "{note}");
        self.tell(wanted, EventType::Normal, reason, &note).await;
    }

    /// An event that cannot be published is no reason to stop.
    async fn tell(&self, wanted: &Wanted, type_: EventType, reason: &str, note: &str) {
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Secret".into()),
            namespace: Some(self.namespace.clone()),
            name: Some(wanted.secret().to_owned()),
            ..ObjectReference::default()
        };
        let note = Some(note.chars().take(1024).collect());
        let event = Event { type_, reason: reason.into(), note, action: "KeepCertificate".into(), secondary: None };
        let published = tokio::time::timeout(LIMIT, self.recorder.publish(&event, &about)).await;
        if !matches!(published, Ok(Ok(()))) {
            debug!(reason, "an event could not be published");
        }
    }
}

/// A request that ends in time.
async fn bounded<T>(what: impl FnOnce() -> String, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error::of(what(), error)),
        Err(_) => Err(Error::Timeout { what: what(), seconds: LIMIT.as_secs() }),
    }
}
