//! Terms of leadership on a simulated API server: what runs, how many reconciles at a time, and how a term ends.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use http_body_util::BodyExt;
use hyper::{Request, Response};
use kube::{client::Body, runtime::watcher::Event};
use serde_json::json;
use tower::service_fn;

use super::*;
use crate::service::{LeaderElector, LeaseSettings};

/// What the simulated API server does with a request.
#[derive(Clone, Copy)]
enum Answer {
    /// Fails it after a delay.
    Fails(Duration),
    /// Refuses it with 403 Forbidden.
    Forbids,
    /// Never answers.
    Hangs,
    /// Panics in the client, for objects with this name.
    Panics(&'static str),
}

/// A simulated API server, and what it has received.
#[derive(Default)]
struct Server {
    requests: Mutex<Vec<String>>,
    open: AtomicUsize,
    most: AtomicUsize,
}

impl Server {
    fn client(self: &Arc<Self>, answer: Answer) -> Client {
        let server = self.clone();
        let serve = move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let path = request.uri().path().to_owned();
                let _ = request.into_body().collect().await;
                server.serve(&path, answer).await;
                let code = if matches!(answer, Answer::Forbids) { 403 } else { 500 };
                let failure = json!({"kind": "Status", "status": "Failure", "message": "out of order", "code": code});
                let response = Response::builder().status(code).header("Content-Type", "application/json");
                Ok::<_, std::convert::Infallible>(response.body(Body::from(failure.to_string().into_bytes())).unwrap())
            }
        };
        Client::new(service_fn(serve), "default")
    }

    async fn serve(&self, path: &str, answer: Answer) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(open, Ordering::SeqCst);
        match answer {
            Answer::Fails(after) => sleep(after).await,
            Answer::Hangs => std::future::pending().await,
            Answer::Panics(name) if path.contains(name) => panic!("{name} panics"),
            Answer::Panics(_) | Answer::Forbids => {}
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// The number of requests for each PAT, by name.
    fn requests(&self) -> std::collections::BTreeMap<String, usize> {
        let mut names = std::collections::BTreeMap::new();
        for path in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let name = path.split('/').rev().find(|part| *part != "status").unwrap_or_default();
            *names.entry(name.to_owned()).or_default() += 1;
        }
        names
    }
}

fn controller(client: Client, lease: LeaseHandle, names: &[&str]) -> PatController {
    let options = ControllerOptions {
        namespaces: Vec::new(),
        label_selector: None,
        concurrency: 2,
        config: ControllerConfig::default(),
        instance: None,
        issuers: IssuerSettings::default(),
    };
    let controller = PatController::new(client, options, Clock::system(), lease, ReadinessGate::closed("caches", ""));
    names.iter().for_each(|name| deliver(&controller, Event::Apply(pat(name))));
    controller
}

fn pat(name: &str) -> StoredPat {
    let metadata =
        json!({"namespace": "ns", "name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "generation": 1});
    serde_json::from_value(json!({"metadata": metadata, "spec": {}})).expect("a PAT")
}

/// A watch delivers an event.
fn deliver(controller: &PatController, event: Event<StoredPat>) {
    let context = &controller.context;
    context.dispatch(PatHandler::new(context.stores.clone(), None).handle(event));
}

/// Serves a term until `meanwhile` is over, then shuts down. The term must not end by itself.
async fn serve_while(controller: &PatController, meanwhile: impl Future<Output = ()>) {
    let shutdown = CancellationToken::new();
    let stop = async {
        meanwhile.await;
        shutdown.cancel();
    };
    let (result, ()) = tokio::join!(controller.serve_term(&shutdown), stop);
    result.expect("it ends only when asked");
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[tokio::test(start_paused = true)]
async fn every_pat_is_tried_again_and_no_more_than_the_limit_at_a_time() {
    let server = Arc::new(Server::default());
    let client = server.client(Answer::Fails(Duration::from_millis(100)));
    let controller = controller(client, LeaseHandle::always(), &NAMES);
    serve_while(&controller, sleep(Duration::from_secs(5))).await;
    let requests = server.requests();
    assert_eq!(requests.keys().collect::<Vec<_>>(), NAMES.iter().collect::<Vec<_>>());
    assert!(requests.values().all(|count| (2..=12).contains(count)), "with backoff: {requests:?}");
    assert_eq!(server.most.load(Ordering::SeqCst), 2);
    assert_eq!((controller.context.gate.depth(), controller.context.gate.running()), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn what_runs_at_shutdown_is_finished_and_nothing_else_starts() {
    let server = Arc::new(Server::default());
    let controller = controller(server.client(Answer::Fails(Duration::from_secs(3))), LeaseHandle::always(), &NAMES);
    let started = tokio::time::Instant::now();
    serve_while(&controller, sleep(Duration::from_secs(1))).await;
    assert_eq!((server.requests().len(), server.open.load(Ordering::SeqCst)), (2, 0));
    assert_eq!(started.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_ever() {
    let server = Arc::new(Server::default());
    let controller = controller(server.client(Answer::Hangs), LeaseHandle::always(), &NAMES);
    let started = tokio::time::Instant::now();
    serve_while(&controller, sleep(Duration::from_secs(1))).await;
    assert_eq!(server.open.load(Ordering::SeqCst), 2, "they hang");
    assert_eq!(started.elapsed().as_secs(), 1 + FINISH_LIMIT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn panic_affects_no_other_pat() {
    let server = Arc::new(Server::default());
    let controller = controller(server.client(Answer::Panics("/b")), LeaseHandle::always(), &NAMES);
    serve_while(&controller, sleep(Duration::from_secs(3))).await;
    let requests = server.requests();
    assert!(requests.len() == 6 && requests.values().all(|count| *count > 1), "{requests:?}");
    let metrics = controller.metrics_text()();
    let panicked = metrics.lines().find(|line| line.contains(r#"category="Panicked""#)).expect("it is counted");
    assert!(!panicked.ends_with(" 0"), "{panicked}");
}

#[tokio::test(start_paused = true)]
async fn refused_read_is_tried_again_with_backoff_and_is_no_refused_write() {
    let server = Arc::new(Server::default());
    let controller = controller(server.client(Answer::Forbids), LeaseHandle::always(), &[]);
    // The planner reads the Secret before it plans again after an error of the API server.
    let failed = json!([{
        "type": "Ready", "status": "False", "reason": "ApiError", "message": "m", "lastTransitionTime": "2030-01-01T00:00:00Z",
    }]);
    let mut stored = pat("a");
    stored.status = serde_json::from_value(json!({"conditions": failed, "observedGeneration": 1}))
        .map_err(|error| error.to_string());
    deliver(&controller, Event::Apply(stored));
    serve_while(&controller, sleep(Duration::from_secs(3))).await;
    let requests = server.requests();
    assert!(requests.len() == 1 && (2..=6).contains(&requests["a"]), "one read in each reconcile: {requests:?}");
    let metrics = controller.metrics_text()();
    let value = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!(value("pat_operator_refused_writes_total"), Some("0"), "{metrics}");
    assert!(!metrics.contains("Restless\"} 1"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn deleted_pat_is_forgotten() {
    let server = Arc::new(Server::default());
    let controller =
        controller(server.client(Answer::Fails(Duration::from_millis(10))), LeaseHandle::always(), &["a", "b"]);
    let context = controller.context.clone();
    serve_while(&controller, async {
        sleep(Duration::from_secs(2)).await;
        assert_eq!((context.reconciler.remembered(), context.gate.depth().0), (2, 2), "a failed request is remembered");
        deliver(&controller, Event::Delete(pat("a")));
        assert_eq!((context.reconciler.remembered(), context.gate.depth().0), (1, 1));
        let before = server.requests();
        sleep(Duration::from_secs(10)).await;
        let after = server.requests();
        assert!(after["a"] == before["a"] && after["b"] > before["b"], "{before:?} {after:?}");
        assert_eq!((context.reconciler.remembered(), context.gate.depth().0), (1, 1));
    })
    .await;
    assert_eq!(context.reconciler.remembered(), 0, "the next term starts without state");
}

#[tokio::test(start_paused = true)]
async fn change_is_reconciled_at_once_and_standby_collects_nothing() {
    let server = Arc::new(Server::default());
    let controller = controller(server.client(Answer::Hangs), LeaseHandle::always(), &["a"]);
    assert_eq!(controller.context.gate.depth(), (0, 0));
    serve_while(&controller, async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(server.requests().len(), 1);
        deliver(&controller, Event::Apply(pat("new")));
        sleep(Duration::from_millis(10)).await;
        assert_eq!(server.requests().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn process_without_lease_reconciles_nothing() {
    let server = Arc::new(Server::default());
    let client = server.client(Answer::Hangs);
    let elector = LeaderElector::new(client.clone(), LeaseSettings::new("ns".to_owned(), "lease"));
    let controller = controller(client, elector.watch(), &["a"]);
    let context = controller.context.clone();
    let _triggers = context.gate.open();
    let stored = context.stores.pat(&NamespacedName::new("ns", "a")).expect("it is stored");
    let action = reconcile(stored, context.clone()).await.expect("it is no error");
    assert_eq!(action, Action::await_change());
    assert_eq!((server.requests().len(), context.gate.running()), (0, 0));
}
