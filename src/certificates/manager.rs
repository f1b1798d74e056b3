//! Keeps serving certificates while this instance leads: read, plan, renew, write, publish.
//!
//! Each check starts from the stored objects. If a check is interrupted, the next one continues its work.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    future::Future,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
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
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode_registry},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::{debug, info, warn};

use super::{
    bundle::{CertificateBundle, TRUSTED, wipe},
    objects,
    plan::{RenewalPlan, RenewalReason, plan},
    request::CertificateRequest,
};
use crate::service::{Clock, LeaseHandle, explain_api_error};

/// The interval between checks, because a Secret can be deleted, and a wall clock can jump.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// The first delay after a failure; each further one is twice as long, up to [`CHECK_EVERY`].
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The timeout of one request. After it the outcome is unknown, and the next check reads the objects again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

const FIELD_MANAGER: &str = "pat-operator";

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalOutcome {
    /// The certificate is good until this time of renewal.
    Kept(Timestamp),
    /// A certificate was issued.
    Renewed,
    /// This instance does not lead any more.
    Standby,
}

/// Issues and renews serving certificates in one namespace.
pub struct CertificateManager {
    client: Client,
    namespace: String,
    requests: Vec<CertificateRequest>,
    clock: Clock,
    lease: LeaseHandle,
    metrics: Metrics,
    recorder: Recorder,
    /// When each certificate expires, as last read, by Secret.
    expirations: Mutex<BTreeMap<String, Timestamp>>,
}

impl CertificateManager {
    /// Creates a manager that works only while `lease` leads.
    pub fn new(
        client: Client,
        namespace: String,
        requests: Vec<CertificateRequest>,
        clock: Clock,
        lease: LeaseHandle,
        instance: String,
    ) -> Arc<Self> {
        let reporter = Reporter { controller: "pat-operator.io/controller".into(), instance: Some(instance) };
        Arc::new(Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            namespace,
            requests,
            clock,
            lease,
            metrics: Metrics::new(),
            expirations: Mutex::default(),
        })
    }

    /// The namespace of the certificates.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The metrics in OpenMetrics text, without the end mark.
    pub fn metrics_text(&self) -> String {
        let expirations = self.expirations.lock().unwrap_or_else(PoisonError::into_inner);
        // A standby does not learn of renewals.
        let nearest = expirations.values().min().filter(|_| self.lease.is_leading());
        let now = self.clock.now();
        self.metrics.text(nearest.map_or(f64::INFINITY, |end| end.duration_since(now).as_secs_f64()))
    }

    /// Checks all certificates periodically, and never returns.
    pub async fn run(self: Arc<Self>) {
        let mut failures: HashMap<&str, (u32, String)> = HashMap::new();
        loop {
            self.lease.leading().await;
            let mut again = CHECK_EVERY;
            for request in &self.requests {
                match self.check(request).await {
                    Ok(_) => drop(failures.remove(request.secret())),
                    Err(error) => {
                        self.metrics.failed(&error);
                        let (count, logged) = failures.entry(request.secret()).or_default();
                        *count += 1;
                        again = again.min(RETRY_FIRST * 2u32.pow((*count - 1).min(6)));
                        let text = error.to_string();
                        // The same error is logged once.
                        if *logged != text {
                            warn!(secret = request.secret(), category = error.category(), "{text}");
                            if matches!(error, Error::NotOurs { .. }) {
                                self.publish_event(request, EventType::Warning, "CertificateNotOurs", &text).await;
                            }
                            *logged = text;
                        }
                    }
                }
            }
            tokio::time::sleep(again).await;
        }
    }

    /// Checks one certificate and renews it if it is due.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn check(&self, request: &CertificateRequest) -> Result<RenewalOutcome, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = request.secret();
        let mut read = with_timeout(|| format!("get Secret {}/{name}", self.namespace), secrets.get_opt(name)).await?;
        if let Some(problem) = read.as_ref().and_then(objects::not_ours) {
            return Err(self.not_ours("Secret", name, problem));
        }
        let names = read.as_ref().and_then(objects::names);
        let mut data = read.as_mut().and_then(|secret| secret.data.take()).unwrap_or_default();
        let bundle = CertificateBundle::read(&data);
        wipe(&mut data);
        let now = self.clock.now();
        let failed = |error| Error::Making { secret: name.to_owned(), error };
        let plan = plan(&bundle.state(names), request.names(), now);
        let (bundle, what) = match plan {
            RenewalPlan::Keep(until) => {
                self.record_expiration(request, &bundle);
                let published = self.publish(request, &bundle).await?;
                return Ok(if published { RenewalOutcome::Kept(until) } else { RenewalOutcome::Standby });
            }
            RenewalPlan::Certificate(why) => {
                (bundle.with_certificate(request.names(), now).map_err(failed)?, (false, why))
            }
            RenewalPlan::CertificateAuthority(why) => {
                (bundle.with_authority(request.names(), now).map_err(failed)?, (true, why))
            }
        };
        let is_first = read.is_none();
        let mut secret = objects::secret(read.as_ref(), request, bundle.write());
        let written = self.write(&secrets, &secret).await;
        secret.data.iter_mut().for_each(wipe);
        if !written? {
            return Ok(RenewalOutcome::Standby);
        }
        self.record_expiration(request, &bundle);
        self.metrics.renewed();
        self.report(request, &bundle, what, is_first).await;
        Ok(if self.publish(request, &bundle).await? { RenewalOutcome::Renewed } else { RenewalOutcome::Standby })
    }

    /// Publishes the trust bundle in the ConfigMap. Returns `false` if this instance does not lead any more.
    async fn publish(&self, request: &CertificateRequest, bundle: &CertificateBundle) -> Result<bool, Error> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = request.config_map();
        let read = with_timeout(|| format!("get ConfigMap {}/{name}", self.namespace), maps.get_opt(&name)).await?;
        if let Some(problem) = read.as_ref().and_then(|map| objects::map_not_ours(map, request.secret())) {
            return Err(self.not_ours("ConfigMap", &name, problem));
        }
        let trusted = bundle.trusted();
        let published = read.as_ref().and_then(|map| map.data.as_ref()).and_then(|data| data.get(TRUSTED));
        if published == Some(&trusted) {
            return Ok(true);
        }
        self.write(&maps, &objects::config_map(read.as_ref(), request, trusted)).await
    }

    /// Creates an object that has no resourceVersion, or updates one that still has its resourceVersion. Returns `false` if this instance
    /// does not lead any more.
    async fn write<K>(&self, api: &Api<K>, object: &K) -> Result<bool, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    {
        // A process that was paused past its lease can get here before its elector stops leading.
        if !self.lease.is_leading() {
            return Ok(false);
        }
        let name = object.meta().name.as_deref().unwrap_or_default();
        let what = |verb: &str| format!("{verb} {} {}/{name}", K::kind(&()), self.namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        match object.meta().resource_version {
            None => with_timeout(|| what("create"), api.create(&params, object)).await?,
            Some(_) => with_timeout(|| what("update"), api.replace(name, &params, object)).await?,
        };
        Ok(true)
    }

    fn record_expiration(&self, request: &CertificateRequest, bundle: &CertificateBundle) {
        let mut expirations = self.expirations.lock().unwrap_or_else(PoisonError::into_inner);
        expirations.extend(bundle.expires_at().map(|end| (request.secret().to_owned(), end)));
    }

    fn not_ours(&self, kind: &'static str, name: &str, problem: String) -> Error {
        Error::NotOurs { kind, namespace: self.namespace.clone(), name: name.to_owned(), problem }
    }

    /// Logs a renewal and publishes it as an event of the Secret.
    async fn report(
        &self,
        request: &CertificateRequest,
        bundle: &CertificateBundle,
        (authority, why): (bool, RenewalReason),
        is_first: bool,
    ) {
        let until = bundle.expires_at().map(|end| format!(", valid until {end}")).unwrap_or_default();
        let (reason, note) = match (is_first, authority) {
            (true, _) => {
                ("CertificateIssued", format!("issued an authority and a certificate for {}{until}", request.names()))
            }
            (false, true) => (
                "AuthorityReplaced",
                format!(
                    "replaced the authority, because {why}, and issued a certificate{until}; update copies of {TRUSTED} from ConfigMap {}: an old copy \
                     works until the old authority expires",
                    request.config_map()
                ),
            ),
            (false, false) => ("CertificateRenewed", format!("renewed the certificate, because {why}{until}")),
        };
        info!(namespace = self.namespace, secret = request.secret(), reason, "{note}");
        self.publish_event(request, EventType::Normal, reason, &note).await;
    }

    /// Publishes an event of the Secret; a failure is only logged.
    async fn publish_event(&self, request: &CertificateRequest, type_: EventType, reason: &str, note: &str) {
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Secret".into()),
            namespace: Some(self.namespace.clone()),
            name: Some(request.secret().to_owned()),
            ..ObjectReference::default()
        };
        let note = Some(note.chars().take(1024).collect());
        let event = Event { type_, reason: reason.into(), note, action: "KeepCertificate".into(), secondary: None };
        let published = tokio::time::timeout(REQUEST_TIMEOUT, self.recorder.publish(&event, &about)).await;
        if !matches!(published, Ok(Ok(()))) {
            debug!(reason, "cannot publish an event");
        }
    }
}

/// Runs a request with a timeout.
async fn with_timeout<T>(
    what: impl FnOnce() -> String,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error::of(what(), error)),
        Err(_) => Err(Error::Timeout { what: what(), seconds: REQUEST_TIMEOUT.as_secs() }),
    }
}

/// Why a certificate could not be issued or renewed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object with this name exists and does not belong to the operator.
    #[error(
        "{kind} {name} in namespace {namespace} is not a serving certificate of this operator: {problem}; delete it if nothing else needs it, or \
         choose another name with --serving-certificate"
    )]
    NotOurs {
        /// Its kind.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The object changed since it was read.
    #[error("{what}: it has changed since it was read")]
    Conflict {
        /// The request.
        what: String,
    },
    /// The API server refused the request, or cannot be reached.
    #[error("{what}: {}", explain_api_error(.error))]
    Api {
        /// The request.
        what: String,
        /// The error of the client.
        error: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("{what}: no answer within {seconds} s")]
    Timeout {
        /// The request.
        what: String,
        /// The timeout.
        seconds: u64,
    },
    /// A key or certificate could not be generated.
    #[error("cannot issue a certificate for Secret {secret}: {error}")]
    Making {
        /// The Secret of the certificate.
        secret: String,
        /// The error of rcgen.
        error: rcgen::Error,
    },
}

impl Error {
    /// Every category.
    pub const CATEGORIES: [&'static str; 5] =
        ["CertificateNotOurs", "Conflict", "ApiError", "Timeout", "CertificateNotMade"];

    /// The name of this error in metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotOurs { .. } => "CertificateNotOurs",
            Self::Conflict { .. } => "Conflict",
            Self::Api { .. } => "ApiError",
            Self::Timeout { .. } => "Timeout",
            Self::Making { .. } => "CertificateNotMade",
        }
    }

    pub(super) fn of(what: String, error: kube::Error) -> Self {
        match error {
            // The object exists already, or has another version.
            kube::Error::Api(status) if status.code == 409 => Self::Conflict { what },
            error => Self::Api { what, error: Box::new(error) },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorCategory {
    category: &'static str,
}

struct Metrics {
    registry: Registry,
    renewals: Counter,
    errors: Family<ErrorCategory, Counter>,
    nearest: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Creates all metrics at zero.
    fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pat_operator"),
            renewals: Counter::default(),
            errors: Family::default(),
            nearest: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "serving_certificate_renewals",
            "Serving certificates issued by this instance",
            metrics.renewals.clone(),
        );
        registry.register(
            "serving_certificate_errors",
            "Failed checks of serving certificates, by category",
            metrics.errors.clone(),
        );
        registry.register_with_unit(
            "nearest_serving_certificate_expiry",
            "Time until the first serving certificate of this instance expires; +Inf if there is none",
            Unit::Seconds,
            metrics.nearest.clone(),
        );
        for category in Error::CATEGORIES {
            let _ = metrics.errors.get_or_create(&ErrorCategory { category });
        }
        metrics
    }

    fn renewed(&self) {
        self.renewals.inc();
    }

    fn failed(&self, error: &Error) {
        self.errors.get_or_create(&ErrorCategory { category: error.category() }).inc();
    }

    /// The metrics in OpenMetrics text, without the end mark, because others follow.
    fn text(&self, nearest: f64) -> String {
        self.nearest.set(nearest);
        let mut text = String::new();
        if encode_registry(&mut text, &self.registry).is_err() {
            tracing::warn!("cannot render metrics");
        }
        text
    }
}
