//! Leader election against a real API server.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::http::{Method, Request, Response};
use control_plane::{Access, Identity, Namespace};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    client::{Body, ClientBuilder},
};
use pat_operator::service::{LeaderElector, LeaseError, LeaseHandle, LeaseSettings};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};

const NAME: &str = "lease";
const DEFAULT: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_secs(3);

/// A namespace with its own Lease for each test.
struct LeaseStage {
    access: Access,
    namespace: Namespace,
}

impl LeaseStage {
    async fn new(prefix: &str) -> Self {
        let access = control_plane::shared().await.unwrap();
        let namespace = access.namespace(prefix).await.unwrap();
        Self { access, namespace }
    }

    fn settings(&self, identity: &str, duration: Duration) -> LeaseSettings {
        let settings = LeaseSettings::new(self.namespace.name(), NAME);
        LeaseSettings { identity: identity.to_owned(), duration, ..settings }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.access.client().unwrap(), self.namespace.name())
    }

    async fn record(&self) -> LeaseSpec {
        self.leases().get(NAME).await.unwrap().spec.unwrap()
    }

    async fn holder(&self) -> Option<String> {
        self.record().await.holder_identity
    }

    /// Writes the lease by another hand than an elector's.
    async fn patch(&self, change: serde_json::Value) {
        let patch = Patch::Merge(change);
        self.leases().patch(NAME, &PatchParams::default(), &patch).await.unwrap();
    }

    /// A lease whose holder never renews it, and says that it did so in the far future.
    async fn plant(&self, holder: Option<&str>, seconds: i32) {
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        let spec = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime("2100-01-01T00:00:00Z".parse().unwrap())),
            ..LeaseSpec::default()
        };
        let lease = Lease { metadata, spec: Some(spec) };
        self.leases().create(&PostParams::default(), &lease).await.unwrap();
    }

    fn start(&self, identity: &str, duration: Duration) -> Instance {
        self.start_with(self.access.client().unwrap(), identity, duration)
    }

    fn start_with(&self, client: Client, identity: &str, duration: Duration) -> Instance {
        let elector = LeaderElector::new(client, self.settings(identity, duration));
        let (handle, stop) = (elector.watch(), CancellationToken::new());
        let task = tokio::spawn(elector.run(stop.clone()));
        Instance { identity: identity.to_owned(), handle, stop, task }
    }

    /// Runs an elector that is expected to give up.
    async fn refusal(&self, client: Client, settings: LeaseSettings) -> LeaseError {
        let running = LeaderElector::new(client, settings).run(CancellationToken::new());
        tokio::time::timeout(Duration::from_secs(10), running).await.expect("gives up").unwrap_err()
    }
}

/// One running elector; dropping it stands for `kill -9`.
struct Instance {
    identity: String,
    handle: LeaseHandle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), LeaseError>>,
}

impl Instance {
    async fn leads_within(&self, limit: Duration) -> Duration {
        let start = Instant::now();
        let leading = tokio::time::timeout(limit, self.handle.leading()).await;
        leading
            .unwrap_or_else(|_| panic!("{} does not lead within {limit:?}: {}", self.identity, self.handle.describe()));
        start.elapsed()
    }

    async fn stands_by(&self, leader: &str) {
        let said = format!("standby: {leader} leads");
        eventually(&said, || self.handle.describe() == said).await;
        assert!(!self.handle.is_leading());
    }

    async fn shut_down(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), &mut self.task).await;
        ended.expect("ends").unwrap().unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reads all handles about a thousand times a second from a thread of its own.
struct Observer {
    stop: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<usize>,
}

impl Observer {
    fn of(handles: Vec<LeaseHandle>) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut looks = 0;
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(1)) {
                looks += 1;
                for (i, one) in handles.iter().enumerate() {
                    // A look takes time, so only who leads before and after another one does leads together with it.
                    for other in handles.iter().skip(i + 1) {
                        assert!(!(one.is_leading() && other.is_leading() && one.is_leading()), "two lead");
                    }
                }
            }
            looks
        });
        Self { stop, thread }
    }

    fn never_saw_two_leaders(self) {
        self.stop.send(()).ok();
        assert!(self.thread.join().expect("never two leaders") > 100, "hardly looked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_hands_over_at_once() {
    let stage = LeaseStage::new("lease-release").await;
    let a = stage.start("a", DEFAULT);
    a.leads_within(Duration::from_secs(5)).await;
    assert!(a.handle.describe().starts_with("leading since 20"), "{}", a.handle.describe());
    let b = stage.start("b", DEFAULT);
    b.stands_by("a").await;

    let record = stage.record().await;
    assert_eq!((record.lease_duration_seconds, record.lease_transitions), (Some(10), Some(0)));
    assert!(record.acquire_time.is_some() && record.renew_time >= record.acquire_time);

    a.shut_down().await;
    let took = b.leads_within(Duration::from_secs(3)).await;
    let record = stage.record().await;
    assert_eq!((record.holder_identity.as_deref(), record.lease_transitions), (Some("b"), Some(1)));
    b.shut_down().await;
    assert_eq!(stage.holder().await, None);
    eprintln!("hand-over after a release: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn never_two_of_many_lead() {
    let stage = LeaseStage::new("lease-race").await;
    let mut instances: Vec<_> = (0..5).map(|n| stage.start(&format!("i{n}"), SHORT)).collect();
    let observer = Observer::of(instances.iter().map(|instance| instance.handle.clone()).collect());
    while !instances.is_empty() {
        eventually("one leads", || instances.iter().any(|instance| instance.handle.is_leading())).await;
        let leader = instances.iter().position(|instance| instance.handle.is_leading());
        let leader = instances.remove(leader.expect("still leads"));
        // Every other one goes by kill -9 and is followed when its lease is stale.
        if instances.len() % 2 == 0 { leader.shut_down().await } else { drop(leader) }
    }
    observer.never_saw_two_leaders();
    assert_eq!(stage.record().await.lease_transitions, Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_is_replaced_within_15_seconds() {
    let stage = LeaseStage::new("lease-death").await;
    let a = stage.start("a", DEFAULT);
    a.leads_within(Duration::from_secs(5)).await;
    let b = stage.start("b", DEFAULT);
    b.stands_by("a").await;
    drop(a);
    let took = b.leads_within(Duration::from_secs(15)).await;
    eprintln!("hand-over after a death: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_record_is_taken_over_after_its_duration() {
    let stage = LeaseStage::new("lease-stale").await;
    stage.plant(Some("dead"), 2).await;
    let a = stage.start("a", DEFAULT);
    let took = a.leads_within(Duration::from_secs(10)).await;
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(stage.record().await.lease_transitions, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_with_an_outdated_resource_version_loses() {
    let stage = LeaseStage::new("lease-fence").await;
    stage.plant(None, 1).await;
    let wires = Wires::held();
    let a = stage.start_with(wires.client(&stage), "a", DEFAULT);
    wires.one_waits().await;
    // a has seen a free lease and is about to take it; somebody else is faster.
    stage.patch(serde_json::json!({"spec": {"holderIdentity": "rival", "leaseDurationSeconds": 3600}})).await;
    wires.release_held();
    a.stands_by("rival").await;
    assert_eq!(wires.put_answers(), [409]);
    assert_eq!(stage.holder().await.as_deref(), Some("rival"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_puts_on_a_free_lease_wins() {
    let stage = LeaseStage::new("lease-tie").await;
    stage.plant(None, 1).await;
    let (one, two) = (Wires::held(), Wires::held());
    let a = stage.start_with(one.client(&stage), "a", DEFAULT);
    let b = stage.start_with(two.client(&stage), "b", DEFAULT);
    tokio::join!(one.one_waits(), two.one_waits());
    let observer = Observer::of(vec![a.handle.clone(), b.handle.clone()]);
    one.release_held();
    two.release_held();
    eventually("both have an answer", || !one.put_answers().is_empty() && !two.put_answers().is_empty()).await;
    let mut first = [one.put_answers()[0], two.put_answers()[0]];
    first.sort();
    assert_eq!(first, [200, 409]);
    let (winner, loser) = if one.put_answers()[0] == 200 { (a, b) } else { (b, a) };
    loser.stands_by(&winner.identity).await;
    assert!(winner.handle.is_leading());
    observer.never_saw_two_leaders();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_tolerates_foreign_fields() {
    let stage = LeaseStage::new("lease-annotated").await;
    let wires = Wires::open();
    let a = stage.start_with(wires.client(&stage), "a", SHORT);
    a.leads_within(Duration::from_secs(5)).await;
    let lost = a.handle.lost();
    tokio::pin!(lost);
    stage.patch(serde_json::json!({"metadata": {"annotations": {"example.org/note": "kept"}}})).await;
    let renewed_again = eventually("a conflict and two renewals after it", || {
        let answers = wires.put_answers();
        answers.iter().position(|&code| code == 409).is_some_and(|at| answers[at..].len() > 2)
    });
    tokio::select! {
        () = renewed_again => {}
        () = &mut lost => panic!("an annotation cost the lease"),
    }
    let annotations = stage.leases().get(NAME).await.unwrap().metadata.annotations.unwrap();
    assert_eq!(annotations["example.org/note"], "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_leader_does_not_release_the_lease() {
    let stage = LeaseStage::new("lease-robbed").await;
    let a = stage.start("a", DEFAULT);
    a.leads_within(Duration::from_secs(5)).await;
    stage.patch(serde_json::json!({"spec": {"holderIdentity": "rival"}})).await;
    a.shut_down().await;
    assert_eq!(stage.holder().await.as_deref(), Some("rival"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_lease_is_created_again() {
    let stage = LeaseStage::new("lease-deleted").await;
    let a = stage.start("a", SHORT);
    a.leads_within(Duration::from_secs(5)).await;
    stage.leases().delete(NAME, &Default::default()).await.unwrap();
    let leases = stage.leases();
    let deadline = Instant::now() + Duration::from_secs(10);
    while leases.get_opt(NAME).await.unwrap().is_none() {
        assert!(Instant::now() < deadline, "nobody made the lease again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    a.leads_within(Duration::from_secs(5)).await;
    assert_eq!(stage.holder().await.as_deref(), Some("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_stops_leading() {
    let stage = LeaseStage::new("lease-paused").await;
    // A runtime with one thread stands still as a whole when a task on it blocks, as a stopped process does.
    let (pause, paused) = mpsc::channel::<mpsc::Receiver<()>>();
    let (handles, handle) = mpsc::channel();
    let (config, settings) = (stage.access.config_for(&Identity::admin()).unwrap(), stage.settings("a", SHORT));
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let elector = LeaderElector::new(Client::try_from(config).unwrap(), settings);
            handles.send(elector.watch()).unwrap();
            let pauses = tokio::spawn(async move {
                loop {
                    if let Ok(until) = paused.try_recv() {
                        until.recv().ok();
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            elector.run(stopped).await.unwrap();
            pauses.abort();
        });
    });
    let a = handle.recv().unwrap();
    tokio::time::timeout(Duration::from_secs(10), a.leading()).await.unwrap();
    let b = stage.start("b", SHORT);
    b.stands_by("a").await;
    let observer = Observer::of(vec![a.clone(), b.handle.clone()]);

    let (resume, until) = mpsc::channel();
    pause.send(until).unwrap();
    eventually("a's lease has run out while a stands still", || !a.is_leading()).await;
    b.leads_within(Duration::from_secs(10)).await;
    assert_eq!(a.describe(), "standby: the lease could not be renewed in time");
    resume.send(()).unwrap();
    eventually("a has noticed", || a.describe() == "standby: b leads").await;
    assert!(b.handle.is_leading());

    observer.never_saw_two_leaders();
    stop.cancel();
    thread.join().unwrap();
    assert_eq!(stage.holder().await.as_deref(), Some("b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_errors_end_with_one_line() {
    let stage = LeaseStage::new("lease-refused").await;
    let namespace = stage.namespace.name();
    let nobody = Identity::service_account(namespace, "nobody");
    let client = stage.access.client_for(&nobody).unwrap();
    let error = stage.refusal(client, stage.settings("a", DEFAULT)).await;
    assert_eq!(error.category(), "LeaseRefused");
    let user = format!("system:serviceaccount:{namespace}:nobody");
    assert_eq!(
        error.to_string(),
        format!(
            "leader election on Lease {namespace}/lease is refused: no permission: {user} may not get \
             leases.coordination.k8s.io in namespace {namespace}; allow it with a Role or ClusterRole bound to that \
             user, and check with: kubectl auth can-i get leases.coordination.k8s.io --namespace={namespace} --as={user}"
        )
    );

    let client = stage.access.client().unwrap();
    let nowhere = LeaseSettings { namespace: "nowhere".to_owned(), ..stage.settings("a", DEFAULT) };
    let error = stage.refusal(client.clone(), nowhere).await;
    assert_eq!(error.category(), "LeaseNamespaceMissing");
    assert!(error.to_string().contains("create it or set --lease-namespace"), "{error}");

    let nameless = LeaseSettings { name: "No_Name".to_owned(), ..stage.settings("a", DEFAULT) };
    let error = stage.refusal(client, nameless).await;
    assert_eq!(error.category(), "LeaseInvalid");
    assert!(error.to_string().contains("metadata.name"), "{error}");
}

/// Holds PUTs of a client back and records their responses.
#[derive(Clone)]
struct Wires(Arc<WiresState>);

struct WiresState {
    held: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
    answers: Mutex<Vec<u16>>,
}

impl Wires {
    fn new(held: bool) -> Self {
        let (held, waiting) = (watch::Sender::new(held), watch::Sender::new(0));
        Self(Arc::new(WiresState { held, waiting, answers: Mutex::default() }))
    }

    fn open() -> Self {
        Self::new(false)
    }

    fn held() -> Self {
        Self::new(true)
    }

    fn client(&self, stage: &LeaseStage) -> Client {
        let config = stage.access.config_for(&Identity::admin()).unwrap();
        ClientBuilder::try_from(config).unwrap().with_layer(self).build()
    }

    async fn one_waits(&self) {
        let mut waiting = self.0.waiting.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(10), waiting.wait_for(|&count| count > 0)).await;
        waited.expect("a PUT").unwrap();
    }

    fn release_held(&self) {
        self.0.held.send_replace(false);
    }

    fn put_answers(&self) -> Vec<u16> {
        self.0.answers.lock().unwrap().clone()
    }
}

impl<S> Layer<S> for Wires {
    type Service = Wired<S>;

    fn layer(&self, inner: S) -> Wired<S> {
        Wired { wires: self.clone(), inner }
    }
}

struct Wired<S> {
    wires: Wires,
    inner: S,
}

impl<S, B> Service<Request<Body>> for Wired<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_put = request.method() == Method::PUT;
        // Nothing is sent before this future is polled.
        let answer = self.inner.call(request);
        if !is_put {
            return Box::pin(answer);
        }
        let wires = self.wires.clone();
        Box::pin(async move {
            wires.0.waiting.send_modify(|count| *count += 1);
            wires.0.held.subscribe().wait_for(|held| !held).await.expect("the sender lives in the same state");
            let answer = answer.await;
            if let Ok(answer) = &answer {
                wires.0.answers.lock().unwrap().push(answer.status().as_u16());
            }
            answer
        })
    }
}
