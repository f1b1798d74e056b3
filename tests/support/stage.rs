//! A stage: a namespace on the real API server, an operator in this process, and a driven clock.
//!
//! The test calls the reconciler itself, instead of kube's `Controller`, when the stores have caught up with the API server. So a test
//! covers a year in seconds, and never sleeps in the hope that something happens.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use control_plane::{Access, Namespace};
use futures::channel::mpsc::UnboundedReceiver;
use k8s_openapi::{
    api::{core::v1::Secret, events::v1::Event},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    client::{Body, ClientBuilder},
    runtime::watcher,
};
use pat_operator::{
    api::{
        Condition, ConditionType, MANAGED_BY, MANAGED_BY_LABEL, PersonalAccessToken, PersonalAccessTokenStatus,
        StoredTokenIssuer, Time,
    },
    controller::{
        cluster::ClusterClient,
        error::Error,
        event_handlers::{EventHandler, IssuerHandler, PatHandler, SecretHandler},
        gate::ReconcileGate,
        issuers::{IssuerSettings, Issuers},
        metrics::Metrics,
        namespaced_name::NamespacedName,
        reconciler::Reconciler,
        stored_secret::StoredSecret,
        stores::Stores,
        watches::watch,
    },
    planner::intent::ControllerConfig,
    service::{Clock, ClockHand, scoped},
};
use serde_json::Value;
use tokio::task::JoinSet;
use tower::util::MapRequestLayer;

use super::recorder::canary;

/// The limit for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(30);

/// A namespace with an operator and a driven clock.
pub struct Stage {
    pub access: Access,
    pub namespace: Namespace,
    /// The test's client, with an administrator's rights and without faults.
    pub client: Client,
    /// The operator's clock.
    pub clock: Clock,
    pub hand: ClockHand,
    pub settings: ControllerConfig,
    /// What the operator knows of issuers from its flags. It serves the TokenIssuers of its namespace.
    pub issuers: IssuerSettings,
    operator: Operator,
}

/// An operator in this process: stores, watches and reconciler.
pub struct Operator {
    pub stores: Arc<Stores>,
    pub reconciler: Arc<Reconciler>,
    pub metrics: Arc<Metrics>,
    /// The issuers of other systems, if they are on. The test polls them.
    pub issuers: Option<Arc<Issuers>>,
    /// The PATs for which calls at an issuer have ended, or that a poll concerns.
    triggers: Mutex<UnboundedReceiver<NamespacedName>>,
    _watches: JoinSet<()>,
}

impl Operator {
    /// Starts an operator for one namespace. `client` is for its requests and may inject faults. `watching` is for its watches.
    pub fn start(client: Client, watching: &Client, namespace: &str, settings: ControllerConfig, clock: Clock) -> Self {
        Self::start_with(client, watching, namespace, settings, clock, &IssuerSettings::default())
    }

    /// The same with the issuers of other systems.
    fn start_with(
        client: Client,
        watching: &Client,
        namespace: &str,
        settings: ControllerConfig,
        clock: Clock,
        of_issuers: &IssuerSettings,
    ) -> Self {
        let stores = Arc::new(Stores::default());
        let metrics = Arc::new(Metrics::new());
        let cluster = ClusterClient::new(client.clone(), Some("test".into()));
        let gate = Arc::new(ReconcileGate::new(1));
        let triggers = Mutex::new(gate.open());
        let issuers = of_issuers
            .is_enabled()
            .then(|| Arc::new(Issuers::new(client, stores.clone(), gate, clock.clone(), of_issuers.clone())));
        let reconciler = Reconciler::new(cluster, stores.clone(), settings, clock, metrics.clone());
        let reconciler = Arc::new(reconciler.with_issuers(issuers.clone()));
        let mut watches = JoinSet::new();
        if let Some(issuers) = &issuers {
            let handler = IssuerHandler::<StoredTokenIssuer>::new(issuers.clone());
            let api = scoped(watching, Some(namespace));
            watches.spawn(async move { watch(api, None, handler, drop).await });
        }
        let scope = Some(namespace.to_owned());
        let pats = PatHandler::new(stores.clone(), scope.clone());
        let secrets = SecretHandler::new(stores.clone(), scope.clone());
        let api = scoped(watching, scope.as_deref());
        watches.spawn(async move { watch(api, None, pats, drop).await });
        let ours = format!("{MANAGED_BY_LABEL}={MANAGED_BY}");
        let api = scoped(watching, scope.as_deref());
        watches.spawn(async move { watch(api, Some(&ours), secrets, drop).await });
        Self { stores, reconciler, metrics, issuers, triggers, _watches: watches }
    }

    /// Whether a call at an issuer has ended, or a poll found something, since the last time.
    pub fn take_triggers(&self) -> bool {
        let mut triggers = self.triggers.lock().expect("the lock is not poisoned");
        std::iter::from_fn(|| triggers.try_recv().ok()).count() > 0
    }

    /// Waits until the stores have what the API server has.
    pub async fn catch_up(&self, client: &Client, namespace: &str) {
        let label = format!("{MANAGED_BY_LABEL}={MANAGED_BY}");
        let deadline = Instant::now() + SOON;
        loop {
            let pats: Api<PersonalAccessToken> = Api::namespaced(client.clone(), namespace);
            let pats = pats.list(&ListParams::default()).await.expect("PATs are listed");
            let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
            let secrets = secrets.list(&ListParams::default().labels(&label)).await.expect("Secrets are listed");
            let mut keys = self.stores.keys();
            keys.sort();
            let mut names: Vec<_> = pats.iter().map(|pat| NamespacedName::new(namespace, &pat.name_any())).collect();
            names.sort();
            let same = keys == names
                && self.stores.secret_count() == secrets.items.len()
                && pats.iter().all(|pat| {
                    let cached = self.stores.pat(&NamespacedName::new(namespace, &pat.name_any()));
                    cached.is_some_and(|cached| cached.metadata.resource_version == pat.metadata.resource_version)
                })
                && secrets.iter().all(|secret| {
                    let cached = self.stores.secret(namespace, &secret.name_any());
                    cached.is_some_and(|cached| {
                        Some(&cached.resource_version) == secret.metadata.resource_version.as_ref()
                    })
                });
            if same {
                return;
            }
            assert!(Instant::now() < deadline, "the stores do not catch up with the API server");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

/// An operator whose stores change only when the test delivers an event.
pub struct ManualOperator {
    reconciler: Reconciler,
    pats: PatHandler,
    secrets: SecretHandler,
    namespace: String,
}

impl ManualOperator {
    /// Delivers a watch event with a PAT.
    pub fn show(&mut self, pat: PersonalAccessToken) {
        self.pats.handle(watcher::Event::Apply(pat.into()));
    }

    /// Delivers a watch event with a Secret.
    pub fn show_secret(&mut self, secret: Secret) {
        self.secrets.handle(watcher::Event::Apply(StoredSecret(secret)));
    }

    /// Reconciles one PAT once.
    pub async fn reconcile(&self, name: &str) -> Result<Option<Time>, Error> {
        self.reconciler.reconcile(&NamespacedName::new(&self.namespace, name)).await
    }
}

/// Recorded requests as `METHOD /path?query`, oldest first.
#[derive(Clone, Default)]
pub struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().expect("the lock is not poisoned")
    }

    /// Takes all requests since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock())
    }

    /// Takes the writes since the last call, without those of events.
    pub fn writes(&self) -> Vec<String> {
        let writes = |request: &String| !request.starts_with("GET ") && !request.contains("/events");
        self.take().into_iter().filter(writes).collect()
    }
}

impl Stage {
    /// Creates a namespace whose name starts with `prefix`, and an operator in it. The clock starts at the real time.
    pub async fn new(prefix: &str) -> Self {
        Self::with(prefix, ControllerConfig::default()).await
    }

    /// The same with a configuration.
    pub async fn with(prefix: &str, settings: ControllerConfig) -> Self {
        let access = control_plane::shared().await.expect("a control plane");
        let client = access.client().expect("an administrator's client");
        super::crd::install_on_shared(&client).await;
        Self::with_crds(access, client, prefix, settings).await
    }

    /// The same on another control plane.
    pub async fn on(access: Access, prefix: &str, settings: ControllerConfig) -> Self {
        let client = access.client().expect("an administrator's client");
        super::crd::install_crds(&client).await;
        Self::with_crds(access, client, prefix, settings).await
    }

    async fn with_crds(access: Access, client: Client, prefix: &str, settings: ControllerConfig) -> Self {
        let namespace = access.namespace(prefix).await.expect("a namespace");
        let (clock, hand) = Clock::driven(Timestamp::now());
        let operator = Operator::start(client.clone(), &client, namespace.name(), settings.clone(), clock.clone());
        let issuers = IssuerSettings::default();
        Self { access, namespace, client, clock, hand, settings, issuers, operator }
    }

    /// The operator.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Replaces the operator by a new one without state in memory.
    pub fn restart(&mut self) {
        self.restart_with(self.client.clone());
    }

    /// The same with another client for requests, such as one that injects faults.
    pub fn restart_with(&mut self, client: Client) {
        self.restart_watching(client, &self.client.clone());
    }

    /// The same with another client for watches too.
    pub fn restart_watching(&mut self, client: Client, watching: &Client) {
        let (settings, clock) = (self.settings.clone(), self.clock.clone());
        let namespace = self.namespace.name();
        self.operator = Operator::start_with(client, watching, namespace, settings, clock, &self.issuers);
    }

    /// A client that records its requests, for an operator.
    pub fn recording(&self) -> (Client, Requests) {
        let config = self.access.config_for(&control_plane::Identity::admin()).expect("a configuration");
        let requests = Requests::default();
        let seen = requests.clone();
        let layer = MapRequestLayer::new(move |request: hyper::Request<Body>| {
            seen.lock().push(format!("{} {}", request.method(), request.uri()));
            request
        });
        (ClientBuilder::try_from(config).expect("a client").with_layer(&layer).build(), requests)
    }

    /// An operator that sees only what the test delivers. `client` is for its requests.
    pub fn manual_operator(&self, client: Client) -> ManualOperator {
        let stores = Arc::new(Stores::default());
        let metrics = Arc::new(Metrics::new());
        let cluster = ClusterClient::new(client, Some("test".into()));
        let reconciler = Reconciler::new(cluster, stores.clone(), self.settings.clone(), self.clock.clone(), metrics);
        let namespace = self.namespace.name().to_owned();
        ManualOperator {
            reconciler,
            pats: PatHandler::new(stores.clone(), Some(namespace.clone())),
            secrets: SecretHandler::new(stores, Some(namespace.clone())),
            namespace,
        }
    }

    /// The time of the driven clock.
    pub fn now(&self) -> Time {
        self.clock.now().into()
    }

    /// Advances the clock by a duration such as `30d` or `1h30m`.
    pub fn advance(&self, by: &str) {
        self.hand.advance(pat_operator::api::duration::parse(by).expect("a duration"));
    }

    /// Applies a spec to the PAT of this name, like `kubectl apply --server-side`.
    pub async fn apply(&self, name: &str, spec: Value) -> PersonalAccessToken {
        self.try_apply(name, spec).await.expect("the API server accepts the manifest")
    }

    /// The same. Returns the API server's answer.
    pub async fn try_apply(&self, name: &str, spec: Value) -> kube::Result<PersonalAccessToken> {
        let manifest = serde_json::json!({
            "apiVersion": "pat-operator.io/v1alpha1",
            "kind": "PersonalAccessToken",
            "metadata": {"name": name},
            "spec": spec,
        });
        self.pats().patch(name, &PatchParams::apply("person").force(), &Patch::Apply(&manifest)).await
    }

    /// Waits until the stores have caught up, and reconciles one PAT once. Returns when the operator wants to reconcile it again.
    pub async fn reconcile(&self, name: &str) -> Result<Option<Time>, Error> {
        self.operator.catch_up(&self.client, self.namespace.name()).await;
        self.operator.reconciler.reconcile(&NamespacedName::new(self.namespace.name(), name)).await
    }

    /// Reconciles a PAT until nothing is left to do. Advances the clock for waits of up to 10 s.
    pub async fn settle(&self, name: &str) -> Option<Time> {
        for _ in 0..20 {
            let wake = self.reconcile(name).await.expect("the run succeeds");
            match wake {
                Some(at) if at.since(self.now()) <= SignedDuration::from_secs(10) => {
                    let wait = at.since(self.now()).max(SignedDuration::from_millis(1));
                    self.hand.advance(wait);
                }
                other => {
                    self.operator.catch_up(&self.client, self.namespace.name()).await;
                    self.assert_no_token_leaks().await;
                    return other;
                }
            }
        }
        panic!("PersonalAccessToken {name} does not come to rest");
    }

    /// Asserts that no status, event, metadata of a Secret or metric contains a token.
    async fn assert_no_token_leaks(&self) {
        let events: Api<Event> = Api::namespaced(self.client.clone(), self.namespace.name());
        let events = events.list(&ListParams::default()).await.expect("events are listed").items;
        let pats = self.pats().list(&ListParams::default()).await.expect("PATs are listed").items;
        let secrets = self.secrets().list_metadata(&ListParams::default()).await.expect("Secrets are listed").items;
        let statuses: Vec<_> = pats.into_iter().map(|pat| pat.status).collect();
        let secrets: Vec<_> = secrets.into_iter().map(|secret| secret.metadata).collect();
        let metrics = self.operator.metrics.text(&self.operator.stores, &ReconcileGate::new(1), true, self.now());
        let texts = serde_json::json!({"events": events, "statuses": statuses, "secrets": secrets, "metrics": metrics});
        let tokens = canary::tokens_in(&texts.to_string());
        assert!(tokens.is_empty(), "tokens outside Secrets: {tokens:?}");
    }

    /// Advances the clock until `end`, and reconciles this PAT whenever it is due.
    pub async fn live_until(&self, name: &str, end: Time) {
        loop {
            let wake = self.reconcile(name).await.expect("the run succeeds");
            match wake {
                Some(at) if at <= end => self.hand.set(at.max(self.now()).timestamp()),
                _ => break,
            }
        }
        if self.now() < end {
            self.hand.set(end.timestamp());
        }
    }

    /// The API of PATs in this namespace, as an administrator.
    pub fn pats(&self) -> Api<PersonalAccessToken> {
        Api::namespaced(self.client.clone(), self.namespace.name())
    }

    /// The API of Secrets in this namespace, as an administrator.
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), self.namespace.name())
    }

    /// The PAT of this name.
    pub async fn pat(&self, name: &str) -> PersonalAccessToken {
        self.pats().get(name).await.expect("the PAT exists")
    }

    /// The status of a PAT. Empty if it has none.
    pub async fn status(&self, name: &str) -> PersonalAccessTokenStatus {
        self.pat(name).await.status.unwrap_or_default()
    }

    /// A condition of a PAT.
    pub async fn condition(&self, name: &str, type_: ConditionType) -> Option<Condition> {
        self.status(name).await.conditions.into_iter().find(|condition| condition.type_ == type_.as_str())
    }

    /// The status and reason of a PAT's Ready condition.
    pub async fn ready(&self, name: &str) -> (String, String) {
        let ready = self.condition(name, ConditionType::Ready).await.expect("the PAT has a Ready condition");
        (ready.status.into(), ready.reason.into())
    }

    /// The Secret of this name, if it exists.
    pub async fn secret(&self, name: &str) -> Option<Secret> {
        self.secrets().get_opt(name).await.expect("the API server answers")
    }

    /// The values of a Secret as text. Empty if it does not exist.
    pub async fn data(&self, name: &str) -> BTreeMap<String, String> {
        let data = self.secret(name).await.and_then(|secret| secret.data).unwrap_or_default();
        data.into_iter().map(|(key, value)| (key, String::from_utf8(value.0).expect("text"))).collect()
    }

    /// A value of a Secret.
    pub async fn value(&self, name: &str, key: &str) -> String {
        self.data(name).await.get(key).cloned().unwrap_or_else(|| panic!("Secret {name} has no key {key}"))
    }

    /// The reason and note of each event about the PAT of this name, oldest first.
    pub async fn events(&self, name: &str) -> Vec<(String, String)> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), self.namespace.name());
        let mut events = api.list(&ListParams::default()).await.expect("events are listed").items;
        events.retain(|event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(name)));
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        let text = |text: Option<String>| text.unwrap_or_default();
        events.into_iter().map(|event| (text(event.reason), text(event.note))).collect()
    }

    /// Whether a verifier would accept this token now, by status and spec.
    pub async fn accepts(&self, name: &str, token: &str) -> bool {
        let pat = self.pat(name).await;
        let status = pat.status.unwrap_or_default();
        let deleted = pat.metadata.deletion_timestamp.is_some();
        let terms = pat_operator::auth::verdict::Terms::read(&pat.spec, &status, deleted).expect("terms");
        let hash = pat_operator::token::Token::parse(token).expect("a token").hash().to_string();
        let found = status.credentials.iter().find(|credential| credential.sha256.to_string() == hash);
        found.is_some_and(|credential| terms.judge(credential, self.now()).is_valid())
    }

    /// The resource versions of all PATs and Secrets. They do not change while nothing is written.
    pub async fn versions(&self) -> Vec<String> {
        let pats = self.pats().list(&ListParams::default()).await.expect("PATs").items;
        let secrets = self.secrets().list(&ListParams::default()).await.expect("Secrets").items;
        let version = |metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            format!("{}@{}", metadata.name.unwrap_or_default(), metadata.resource_version.unwrap_or_default())
        };
        pats.into_iter()
            .map(|pat| version(pat.metadata))
            .chain(secrets.into_iter().map(|secret| version(secret.metadata)))
            .collect()
    }
}
