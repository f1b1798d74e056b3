//! The metrics of issuers. Gauges are computed from the stores at each scrape, and the calls are counted in the issuer itself, so the series
//! of an issuer end with it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

use async_trait::async_trait;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{counter::ConstCounter, family::Family, gauge::ConstGauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{Issuer, IssuerKey, Issuers};
use crate::{
    api::{CredentialState, IssuerSystem, Time},
    issuer::{CallError, CreatedToken, Driver, IssuerTarget, NewToken, RemoteToken, ServerInfo},
};

/// The result of a call that succeeded.
const OK: &str = "Ok";

/// The result of a call that ended without an answer: it took too long, or the issuer was removed, or this process no longer leads.
const CANCELLED: &str = "Cancelled";

/// The states of credentials at an issuer.
const STATES: [CredentialState; 4] =
    [CredentialState::Pending, CredentialState::Active, CredentialState::Grace, CredentialState::Revoking];

/// An operation of a [`Driver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A check of the credential.
    Check,
    /// The creation of a token.
    Create,
    /// The revocation of a token.
    Delete,
    /// A list of all tokens.
    List,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 4] = [Self::Check, Self::Create, Self::Delete, Self::List];

    /// Returns the value of the label `operation`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

/// How many calls of each operation had which result.
pub(super) struct CallCounts(Mutex<BTreeMap<(Operation, &'static str), u64>>);

impl Default for CallCounts {
    fn default() -> Self {
        Self(Mutex::new(Operation::ALL.map(|operation| ((operation, OK), 0)).into()))
    }
}

impl CallCounts {
    fn add(&self, operation: Operation, result: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((operation, result)).or_default() += 1;
    }

    fn all(&self) -> BTreeMap<(Operation, &'static str), u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    system: &'static str,
    operation: &'static str,
}

impl CallLabels {
    fn new(system: IssuerSystem, operation: Operation) -> Self {
        Self { system: system.as_str(), operation: operation.as_str() }
    }
}

type Durations = Family<CallLabels, Histogram, fn() -> Histogram>;

/// What the metrics of all issuers have in common.
pub(super) struct IssuerMetrics {
    durations: Durations,
    /// When each token that is being revoked was first seen in that state, by its name at the issuer.
    revoking_since: Mutex<HashMap<String, Time>>,
}

impl Default for IssuerMetrics {
    fn default() -> Self {
        let histogram = || Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);
        Self { durations: Durations::new_with_constructor(histogram), revoking_since: Mutex::default() }
    }
}

/// A driver whose calls are counted and timed.
pub(super) struct ObservedDriver {
    driver: Arc<dyn Driver>,
    system: IssuerSystem,
    counts: Arc<CallCounts>,
    durations: Durations,
}

/// A call that is under way. It is counted when it is dropped.
struct RunningCall<'a> {
    driver: &'a ObservedDriver,
    operation: Operation,
    began: Instant,
    result: &'static str,
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        let Self { driver, operation, began, result } = self;
        driver.counts.add(*operation, result);
        let labels = CallLabels::new(driver.system, *operation);
        driver.durations.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
    }
}

impl ObservedDriver {
    async fn observe<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let mut running = RunningCall { driver: self, operation, began: Instant::now(), result: CANCELLED };
        let result = call.await;
        running.result = result.as_ref().map_or_else(CallError::category, |_| OK);
        result
    }
}

#[async_trait]
impl Driver for ObservedDriver {
    async fn check(&self) -> Result<ServerInfo, CallError> {
        self.observe(Operation::Check, self.driver.check()).await
    }

    async fn create(&self, target: &IssuerTarget, request: &NewToken) -> Result<CreatedToken, CallError> {
        self.observe(Operation::Create, self.driver.create(target, request)).await
    }

    async fn delete(&self, target: &IssuerTarget, id: &str) -> Result<(), CallError> {
        self.observe(Operation::Delete, self.driver.delete(target, id)).await
    }

    async fn list(&self, target: &IssuerTarget) -> Result<Vec<RemoteToken>, CallError> {
        self.observe(Operation::List, self.driver.list(target)).await
    }
}

/// The labels of an issuer. Prometheus itself sets the label `namespace`, to that of the controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct IssuerLabels {
    kind: &'static str,
    issuer_namespace: String,
    issuer: String,
}

impl From<&IssuerKey> for IssuerLabels {
    fn from(key: &IssuerKey) -> Self {
        Self {
            kind: key.kind().as_str(),
            issuer_namespace: key.namespace.clone().unwrap_or_default(),
            issuer: key.name.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCall {
    #[prometheus(flatten)]
    issuer: IssuerLabels,
    operation: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    #[prometheus(flatten)]
    issuer: IssuerLabels,
    state: &'static str,
}

/// The tokens of the PATs that name one issuer.
#[derive(Clone, Default)]
struct TokenCounts {
    by_state: [i64; STATES.len()],
    oldest_revoking: Option<Time>,
}

impl Issuers {
    /// Returns the driver of an issuer with its calls counted and timed.
    pub(super) fn observed(&self, issuer: &Issuer, system: IssuerSystem, driver: Arc<dyn Driver>) -> Arc<dyn Driver> {
        let (counts, durations) = (issuer.calls.clone(), self.metrics.durations.clone());
        Arc::new(ObservedDriver { driver, system, counts, durations })
    }

    /// Registers the metrics of issuers.
    pub fn register_metrics(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(IssuerCollector(self.clone())));
    }

    /// Counts the tokens of each issuer.
    fn token_counts(&self, now: Time) -> HashMap<IssuerKey, TokenCounts> {
        let mut counts: HashMap<IssuerKey, TokenCounts> = HashMap::new();
        let mut known = self.metrics.revoking_since.lock().unwrap_or_else(PoisonError::into_inner);
        let mut revoking = HashMap::new();
        for pat in self.stores.pats().state() {
            let (Some(key), Ok(status)) = (IssuerKey::of(&pat), &pat.status) else { continue };
            let of_issuer = counts.entry(key).or_default();
            for credential in &status.remote_credentials {
                of_issuer.by_state[credential.state as usize] += 1;
                let remote = credential.remote.as_ref();
                let Some(remote) = remote.filter(|_| credential.state == CredentialState::Revoking) else { continue };
                let since = known.get(&remote.name).copied().unwrap_or(now);
                of_issuer.oldest_revoking = Some(of_issuer.oldest_revoking.map_or(since, |oldest| oldest.min(since)));
                revoking.insert(remote.name.clone(), since);
            }
        }
        *known = revoking;
        counts
    }
}

impl Issuer {
    /// Whether the status of the issuer says that it is ready.
    fn is_ready(&self) -> bool {
        let object = self.state().object.clone();
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.is_true())
    }

    /// Returns the system, unless it is this operator or the spec names none.
    fn remote_system(&self) -> Option<IssuerSystem> {
        let object = self.state().object.clone();
        let (system, _) = object.spec.as_ref().ok()?.system()?;
        Some(system).filter(|system| *system != IssuerSystem::Local)
    }

    /// Returns when all tokens were last listed, or before the first list, when the issuer was created.
    fn listed_at(&self) -> Option<Time> {
        let object = self.state().object.clone();
        let created = object.metadata.creation_timestamp.as_ref().map(|time| Time::from(time.0));
        object.status.as_ref().ok().and_then(|status| status.last_polled_at).or(created)
    }
}

/// Encodes what is known of each issuer at a scrape.
struct IssuerCollector(Arc<Issuers>);

impl fmt::Debug for IssuerCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("IssuerCollector").finish_non_exhaustive()
    }
}

impl Collector for IssuerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(issuers) = self;
        let now = Time::from(issuers.clock.now());
        let mut counts = issuers.token_counts(now);
        let mut all: Vec<(IssuerLabels, Arc<Issuer>, TokenCounts)> = {
            let all = issuers.issuers.read().unwrap_or_else(PoisonError::into_inner);
            all.iter()
                .map(|(key, issuer)| (key.into(), issuer.clone(), counts.remove(key).unwrap_or_default()))
                .collect()
        };
        all.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let ready =
            all.iter().map(|(labels, issuer, _)| (labels.clone(), ConstGauge::new(i64::from(issuer.is_ready()))));
        family(&mut encoder, ("issuer_ready", "1 if the issuer is ready", None), ready)?;

        let with_system = all.into_iter().filter_map(|(labels, issuer, tokens)| {
            Some(IssuerRow { labels, system: issuer.remote_system()?, issuer, tokens })
        });
        let rows: Vec<_> = with_system.collect();
        encode_calls(&rows, &issuers.metrics.durations, &mut encoder)?;
        encode_tokens(&rows, now, &mut encoder)?;
        encode_polls(&rows, &mut encoder)?;
        encode_budgets(&rows, &mut encoder)
    }
}

/// What is encoded of an issuer of another system.
struct IssuerRow {
    labels: IssuerLabels,
    system: IssuerSystem,
    issuer: Arc<Issuer>,
    tokens: TokenCounts,
}

fn encode_calls(rows: &[IssuerRow], durations: &Durations, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let calls = rows.iter().flat_map(|row| {
        row.issuer.calls.all().into_iter().map(|((operation, result), count)| {
            let labels = ByCall { issuer: row.labels.clone(), operation: operation.as_str(), result };
            (labels, ConstCounter::new(count))
        })
    });
    family(encoder, ("issuer_calls", "Calls at the issuer, by their result", None), calls)?;
    for (row, operation) in rows.iter().flat_map(|row| Operation::ALL.map(|operation| (row, operation))) {
        let _ = durations.get_or_create(&CallLabels::new(row.system, operation));
    }
    if EncodeMetric::is_empty(durations) {
        return Ok(());
    }
    let (name, help) = ("issuer_call_duration", "Duration of calls by system; a list includes all its pages.");
    durations.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), durations.metric_type())?)
}

fn encode_tokens(rows: &[IssuerRow], now: Time, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let by_state = rows.iter().flat_map(|row| {
        STATES.map(|state| {
            let labels = ByState { issuer: row.labels.clone(), state: state.as_str() };
            (labels, ConstGauge::new(row.tokens.by_state[state as usize]))
        })
    });
    let help = "Tokens at the issuer by state, of all PersonalAccessTokens that name it";
    family(encoder, ("issuer_credentials", help, None), by_state)?;
    let oldest = rows.iter().map(|row| {
        let age = row.tokens.oldest_revoking.map_or(0.0, |since| now.since(since).as_secs_f64());
        (row.labels.clone(), ConstGauge::new(age))
    });
    let help = "Seconds since this instance first saw the oldest token in the state Revoking; 0 if there is none";
    family(encoder, ("issuer_oldest_revoking", help, Some(&Unit::Seconds)), oldest)
}

fn encode_polls(rows: &[IssuerRow], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let listed = rows
        .iter()
        .filter_map(|row| Some((row.labels.clone(), ConstGauge::new(row.issuer.listed_at()?.timestamp().as_second()))));
    let help = "Unix time of the last complete list of the tokens at the issuer, or before the first one, of the issuer's creation";
    family(encoder, ("issuer_last_list_timestamp", help, Some(&Unit::Seconds)), listed)?;
    let interval = rows.iter().map(|row| (row.labels.clone(), ConstGauge::new(row.issuer.interval().as_secs_f64())));
    family(encoder, ("issuer_poll_interval", "Time between two lists", Some(&Unit::Seconds)), interval)
}

fn encode_budgets(rows: &[IssuerRow], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let used = rows.iter().map(|row| (row.labels.clone(), ConstGauge::new(row.issuer.budget.used())));
    let help = "Used fraction of the calls per minute; 1 while the controller pauses because the issuer asked for it";
    family(encoder, ("issuer_budget_used_ratio", help, None), used)?;
    let orphans = rows
        .iter()
        .map(|row| (row.labels.clone(), ConstCounter::new(row.issuer.orphans_revoked.load(Ordering::Relaxed))));
    let help = "Tokens at the issuer that no PersonalAccessToken recorded and that the controller revoked; not those that deletionPolicy Orphan left";
    family(encoder, ("issuer_orphans_revoked", help, None), orphans)
}

/// Encodes one metric: its name, help and unit, and each series. A metric without series is left out.
fn family<L: EncodeLabelSet, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    series: impl Iterator<Item = (L, M)>,
) -> fmt::Result {
    let mut series = series.peekable();
    let Some((_, first)) = series.peek() else { return Ok(()) };
    let mut metric = encoder.encode_descriptor(name, &format!("{help}."), unit, first.metric_type())?;
    series.try_for_each(|(labels, value)| value.encode(metric.encode_family(&labels)?))
}

#[cfg(test)]
mod tests {
    use kube::{Client, client::Body, runtime::watcher::Event};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        controller::{
            event_handlers::{EventHandler, PatHandler},
            gate::ReconcileGate,
            issuers::IssuerSettings,
            metrics::Metrics,
            stores::Stores,
        },
        service::Clock,
    };

    struct Scene {
        stores: Arc<Stores>,
        gate: Arc<ReconcileGate>,
        issuers: Arc<Issuers>,
        metrics: Metrics,
        clock: Clock,
    }

    impl Scene {
        fn new() -> Self {
            let silent = tower::service_fn(|_: hyper::Request<Body>| {
                std::future::pending::<Result<hyper::Response<Body>, std::convert::Infallible>>()
            });
            let (stores, gate) = (Arc::new(Stores::default()), Arc::new(ReconcileGate::new(1)));
            let clock = Clock::system();
            let client = Client::new(silent, "default");
            let settings = IssuerSettings { cluster: true, namespaced: true, ..IssuerSettings::default() };
            let issuers = Arc::new(Issuers::new(client, stores.clone(), gate.clone(), clock.clone(), settings));
            let metrics = Metrics::new().with_issuers(Some(&issuers));
            Self { stores, gate, issuers, metrics, clock }
        }

        fn put_issuer(&self, key: &IssuerKey, status: Value) {
            let metadata = json!({"name": key.name, "namespace": key.namespace, "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"});
            let spec = json!({"gitLab": {"url": "https://gitlab.example.com"}, "pollInterval": "10m"});
            let issuer = serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status}));
            self.issuers.apply(key.clone(), issuer.expect("an issuer"));
        }

        fn put_pat(&self, issuer: &IssuerKey, states: &[&str]) {
            let kind = issuer.kind().as_str();
            let credential = |(number, state): (usize, &&str)| {
                json!({
                    "id": format!("{number:012}"), "revision": number, "sha256": "a".repeat(64), "state": state,
                    "issuedAt": "2026-01-01T00:00:00Z",
                    "remote": {"name": format!("po-{number}"), "issuerUID": "u", "parameters": ""},
                })
            };
            let credentials: Vec<_> = states.iter().enumerate().map(credential).collect();
            let pat = json!({
                "metadata": {"name": "app", "namespace": "shop", "uid": "p", "resourceVersion": "1"},
                "spec": {"issuerRef": {"kind": kind, "name": issuer.name}},
                "status": {"remoteCredentials": credentials},
            });
            let pat = serde_json::from_value(pat).expect("a PAT");
            PatHandler::new(self.stores.clone(), None).handle(Event::Apply(pat));
        }

        /// An issuer without a status, and its driver, whose lists fail.
        fn failing(&self, key: &IssuerKey) -> Arc<dyn Driver> {
            self.put_issuer(key, json!({}));
            let issuer = self.issuers.get(key).expect("the issuer");
            self.issuers.observed(&issuer, IssuerSystem::GitLab, Arc::new(Failing))
        }

        fn text(&self) -> String {
            self.metrics.text(&self.stores, &self.gate, true, self.clock.now().into())
        }

        /// The value of a series of an issuer.
        fn value(&self, metric: &str, key: &IssuerKey, more: &str) -> Option<f64> {
            let IssuerLabels { kind, issuer_namespace, issuer } = key.into();
            let labels = format!("kind=\"{kind}\",issuer_namespace=\"{issuer_namespace}\",issuer=\"{issuer}\"{more}");
            let series = format!("pat_operator_issuer_{metric}{{{labels}}} ");
            self.text().lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
        }
    }

    fn cluster(name: &str) -> IssuerKey {
        IssuerKey { namespace: None, name: name.to_owned() }
    }

    /// Answers a list with an error, and nothing else.
    struct Failing;

    #[async_trait]
    impl Driver for Failing {
        async fn check(&self) -> Result<ServerInfo, CallError> {
            Ok(ServerInfo::default())
        }

        async fn create(&self, _: &IssuerTarget, _: &NewToken) -> Result<CreatedToken, CallError> {
            std::future::pending().await
        }

        async fn delete(&self, _: &IssuerTarget, _: &str) -> Result<(), CallError> {
            Ok(())
        }

        async fn list(&self, _: &IssuerTarget) -> Result<Vec<RemoteToken>, CallError> {
            Err(CallError::RateLimited { retry_after: None })
        }
    }

    #[tokio::test]
    async fn calls_are_counted_by_result_and_timed_by_system() {
        let (scene, key) = (Scene::new(), cluster("gitlab"));
        let driver = scene.failing(&key);
        driver.check().await.expect("it answers");
        driver.delete(&IssuerTarget::Account, "1").await.expect("it answers");
        driver.list(&IssuerTarget::Account).await.expect_err("it fails");
        let request = NewToken { name: "n".into(), scopes: vec![], permissions: vec![], expires_at: None };
        let create = driver.create(&IssuerTarget::Account, &request);
        tokio::time::timeout(std::time::Duration::from_millis(1), create).await.expect_err("it takes too long");
        for (operation, result, count) in [
            ("check", "Ok", Some(1.0)),
            ("create", "Ok", Some(0.0)),
            ("create", "Cancelled", Some(1.0)),
            ("delete", "Ok", Some(1.0)),
            ("list", "Ok", Some(0.0)),
            ("list", "RateLimited", Some(1.0)),
            ("list", "Forbidden", None),
        ] {
            let labels = format!(",operation=\"{operation}\",result=\"{result}\"");
            assert_eq!(scene.value("calls_total", &key, &labels), count, "{operation} {result}");
        }
        let timed = r#"pat_operator_issuer_call_duration_seconds_count{system="GitLab",operation="list"} 1"#;
        assert!(scene.text().contains(timed), "{}", scene.text());
    }

    #[tokio::test]
    async fn gauges_show_the_state_of_the_issuer_and_its_tokens() {
        let (scene, key) = (Scene::new(), cluster("gitlab"));
        let other = IssuerKey { namespace: Some("shop".into()), name: "gitlab".into() };
        scene.put_issuer(&other, json!({}));
        let ready = json!([{"type": "Ready", "status": "True", "reason": "Available", "message": "", "lastTransitionTime": "2026-01-02T00:00:00Z"}]);
        scene.put_issuer(&key, json!({"conditions": ready, "lastPolledAt": "2026-01-02T00:00:00Z"}));
        scene.put_pat(&key, &["Active", "Grace", "Revoking", "Revoking"]);
        for (metric, labels, value) in [
            ("ready", "", 1.0),
            ("last_list_timestamp_seconds", "", 1_767_312_000.0),
            ("poll_interval_seconds", "", 600.0),
            ("budget_used_ratio", "", 0.0),
            ("orphans_revoked_total", "", 0.0),
            ("credentials", ",state=\"Pending\"", 0.0),
            ("credentials", ",state=\"Active\"", 1.0),
            ("credentials", ",state=\"Grace\"", 1.0),
            ("credentials", ",state=\"Revoking\"", 2.0),
        ] {
            assert_eq!(scene.value(metric, &key, labels), Some(value), "{metric}{labels}");
        }
        assert_eq!(scene.value("ready", &other, ""), Some(0.0));
        let created = scene.value("last_list_timestamp_seconds", &other, "");
        assert_eq!(created, Some(1_767_225_600.0), "the creation, before the first list");

        let age = || scene.value("oldest_revoking_seconds", &key, "").expect("a series");
        let first = age();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(age() >= first + 0.02, "{first} {}", age());
        scene.put_pat(&key, &["Active"]);
        assert_eq!(age(), 0.0, "all are revoked");
    }

    #[tokio::test]
    async fn series_of_a_removed_issuer_vanish_even_if_a_call_still_runs() {
        let (scene, key) = (Scene::new(), cluster("gitlab"));
        let driver = scene.failing(&key);
        assert!(scene.text().contains("issuer=\"gitlab\""));
        scene.issuers.remove(&key);
        driver.check().await.expect("it answers");
        assert!(!scene.text().contains("issuer=\"gitlab\""), "{}", scene.text());
    }

    #[tokio::test]
    async fn issuer_of_the_operator_itself_reports_only_whether_it_is_ready() {
        let (scene, key) = (Scene::new(), cluster("policy"));
        let issuer = json!({"metadata": {"name": "policy", "uid": "u"}, "spec": {"local": {}}});
        scene.issuers.apply(key.clone(), serde_json::from_value(issuer).expect("an issuer"));
        assert_eq!(scene.value("ready", &key, ""), Some(0.0));
        assert_eq!(scene.text().matches("issuer=\"policy\"").count(), 1, "{}", scene.text());
    }

    #[test]
    fn controller_without_issuers_serves_no_metrics_of_them() {
        let metrics = Metrics::new().with_issuers(None);
        let text =
            metrics.text(&Stores::default(), &ReconcileGate::new(1), true, "2026-01-01T00:00:00Z".parse().unwrap());
        assert!(!text.contains("issuer"), "{text}");
    }
}
