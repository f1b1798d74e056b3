//! The watch against a scripted API server. Time is paused, so minutes pass at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use axum::body::Body;
use futures::stream;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;

/// The API server's response to one request.
enum Reply {
    /// Sends these lines and ends the response.
    Ends(Vec<Value>),
    /// Sends these lines and ends the response after this time.
    EndsAfter(Duration, Vec<Value>),
    /// Sends these lines and then nothing more.
    Hangs(Vec<Value>),
    /// Fails with this status.
    Fails(u16, &'static str),
    /// Sends a whole object.
    Object(Value),
}

type Known = Arc<Mutex<BTreeMap<String, String>>>;

/// Keeps a value of each object by name, and forgets missing objects at the end of a list.
#[derive(Default)]
struct Collector {
    known: Known,
    listed: BTreeSet<String>,
}

impl WatchHandler for Collector {
    type Object = ConfigMap;

    fn init(&mut self) {
        self.listed.clear();
    }

    fn init_apply(&mut self, object: ConfigMap) {
        self.listed.insert(object.name_any());
        self.apply(object);
    }

    fn init_done(&mut self) {
        self.known.lock().unwrap().retain(|name, _| self.listed.contains(name));
    }

    fn apply(&mut self, object: ConfigMap) {
        self.known.lock().unwrap().insert(object.name_any(), object.data.unwrap()["value"].clone());
    }

    fn delete(&mut self, object: ConfigMap) {
        self.known.lock().unwrap().remove(&object.name_any());
    }
}

/// A watch on a scripted API server.
struct WatchStage {
    known: Known,
    heartbeat: WatchHeartbeat,
    requests: Arc<Mutex<Vec<String>>>,
    reports: Arc<Mutex<Vec<String>>>,
    watch: JoinHandle<()>,
}

impl WatchStage {
    /// Each reply is for one request; further requests hang.
    fn new(replies: Vec<Reply>) -> Self {
        let (requests, reports) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (noted, replies) = (requests.clone(), Arc::new(Mutex::new(replies.into_iter())));
        let service = tower::service_fn(move |request: hyper::Request<kube::client::Body>| {
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(summary(request.uri()));
            let reply = replies.lock().unwrap_or_else(PoisonError::into_inner).next();
            async move { Ok::<_, Infallible>(answer(reply)) }
        });
        let (handler, heartbeat) = (Collector::default(), WatchHeartbeat::default());
        let api: Api<ConfigMap> = Api::all(Client::new(service, "default"));
        let written = reports.clone();
        let report = move |status| {
            let text = match status {
                WatchStatus::Listed => "listed".to_owned(),
                WatchStatus::Interrupted { interruption, failures } => format!("{failures}: {interruption}"),
                WatchStatus::Undecodable(_) => "undecodable".to_owned(),
            };
            written.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        };
        let known = handler.known.clone();
        let watch = tokio::spawn(follow(api, handler, heartbeat.clone(), report));
        Self { known, heartbeat, requests, reports, watch }
    }

    /// Waits until this many requests were made and their events taken.
    async fn after(&self, requests: usize) -> Vec<String> {
        while self.requests.lock().unwrap().len() < requests {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(1)).await;
        self.requests.lock().unwrap().clone()
    }

    fn reports(&self) -> Vec<String> {
        self.reports.lock().unwrap().clone()
    }

    fn known(&self) -> Vec<String> {
        self.known.lock().unwrap().iter().map(|(name, value)| format!("{name} {value}")).collect()
    }
}

impl Drop for WatchStage {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// The relevant query parameters of a request.
fn summary(uri: &hyper::Uri) -> String {
    let query = uri.query().unwrap_or_default();
    let wanted = ["watch", "resourceVersion", "sendInitialEvents", "limit", "continue", "allowWatchBookmarks"];
    let pairs = query.split('&').filter(|pair| wanted.contains(&pair.split('=').next().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(" ")
}

fn answer(reply: Option<Reply>) -> hyper::Response<Body> {
    let (lines, ends) = match reply {
        Some(Reply::Ends(lines)) => (lines, Some(Duration::ZERO)),
        Some(Reply::EndsAfter(time, lines)) => (lines, Some(time)),
        Some(Reply::Hangs(lines)) => (lines, None),
        Some(Reply::Object(object)) => return hyper::Response::new(Body::from(object.to_string().into_bytes())),
        Some(Reply::Fails(code, message)) => {
            let status = json!({"kind": "Status", "status": "Failure", "message": message, "reason": "", "code": code});
            let mut response = hyper::Response::new(Body::from(status.to_string().into_bytes()));
            *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap();
            return response;
        }
        None => (Vec::new(), None),
    };
    // The type first, as an API server writes it.
    let text = |line: Value| format!("{{\"type\":{},\"object\":{}}}\n", line["type"], line["object"]);
    let chunks = lines.into_iter().map(move |line| Ok::<_, Infallible>(hyper::body::Bytes::from(text(line))));
    let rest = stream::once(async move {
        match ends {
            Some(Duration::ZERO) => {}
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    });
    let rest = rest.filter_map(async |()| None);
    hyper::Response::new(Body::from_stream(stream::iter(chunks).chain(rest)))
}

fn object(name: &str, version: u32, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"value": value},
        "metadata": {"name": name, "namespace": "team", "resourceVersion": version.to_string()},
    })
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(version: u32, ends_list: bool) -> Value {
    let annotations = if ends_list { json!({LIST_ENDS: "true"}) } else { json!({}) };
    event(
        "BOOKMARK",
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"resourceVersion": version.to_string(), "annotations": annotations},
        }),
    )
}

fn gone() -> Value {
    event(
        "ERROR",
        json!({"kind": "Status", "status": "Failure", "message": "too old", "reason": "Expired", "code": 410}),
    )
}

const STREAMED: &str = "watch=true sendInitialEvents=true allowWatchBookmarks=true resourceVersion=";

fn from(version: u32) -> String {
    format!("watch=true allowWatchBookmarks=true resourceVersion={version}")
}

fn sorted(text: &str) -> Vec<&str> {
    let mut words: Vec<_> = text.split(' ').collect();
    words.sort_unstable();
    words
}

fn assert_asked(asked: &[String], expected: &[&str]) {
    let words = |all: &[String]| all.iter().map(|one| sorted(one).join(" ")).collect::<Vec<_>>();
    let expected: Vec<_> = expected.iter().map(|one| (*one).to_owned()).collect();
    assert_eq!(words(asked), words(&expected));
}

#[tokio::test(start_paused = true)]
async fn each_watch_resumes_where_the_last_one_ended() {
    let stage = WatchStage::new(vec![Reply::Hangs(vec![
        event("ADDED", object("a", 3, "old")),
        event("ADDED", object("b", 5, "old")),
        bookmark(7, true),
    ])]);
    stage.after(1).await;
    assert_eq!((stage.known(), stage.reports()), (vec!["a old".into(), "b old".into()], vec!["listed".into()]));
    assert_eq!((stage.heartbeat.is_stale(), stage.heartbeat.down_since()), (false, None));

    let stage = WatchStage::new(vec![
        Reply::Ends(vec![
            event("ADDED", object("a", 3, "old")),
            bookmark(7, true),
            event("MODIFIED", object("a", 8, "new")),
        ]),
        Reply::Ends(vec![event("ADDED", object("c", 9, "new")), bookmark(12, false)]),
        Reply::Hangs(vec![event("DELETED", object("a", 13, "new"))]),
    ]);
    let asked = stage.after(3).await;
    assert_asked(&asked, &[STREAMED, &from(8), &from(12)]);
    assert_eq!(stage.known(), ["c new"]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_version_leads_to_a_new_list() {
    let stage = WatchStage::new(vec![
        Reply::Ends(vec![
            event("ADDED", object("a", 3, "old")),
            event("ADDED", object("b", 4, "old")),
            bookmark(7, true),
            gone(),
        ]),
        // This list is interrupted.
        Reply::Ends(vec![event("ADDED", object("b", 9, "new"))]),
        Reply::Hangs(vec![event("ADDED", object("b", 9, "new")), event("ADDED", object("c", 8, "new"))]),
    ]);
    let asked = stage.after(3).await;
    assert_asked(&asked, &[STREAMED; 3]);
    assert_eq!(stage.known(), ["a old", "b new", "c new"], "nothing is forgotten while lists are incomplete");
    assert_eq!(
        stage.reports(),
        ["listed", "0: too old (410)", "1: the API server ended the watch too soon"].map(str::to_owned)
    );

    let stage = WatchStage::new(vec![
        Reply::Ends(vec![
            event("ADDED", object("a", 3, "old")),
            event("ADDED", object("b", 4, "old")),
            bookmark(7, true),
            gone(),
        ]),
        Reply::Hangs(vec![
            event("ADDED", object("b", 9, "new")),
            event("ADDED", object("c", 8, "new")),
            bookmark(10, true),
        ]),
    ]);
    stage.after(2).await;
    assert_eq!(stage.known(), ["b new", "c new"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_followed_by_another_within_20_seconds() {
    let stage = WatchStage::new(vec![
        Reply::Hangs(vec![event("ADDED", object("a", 3, "old")), bookmark(7, true)]),
        Reply::Hangs(vec![]),
        Reply::Hangs(vec![event("MODIFIED", object("a", 8, "new"))]),
    ]);
    stage.after(2).await;
    let began = Instant::now();
    // Until the deadline, nothing tells it from an idle watch.
    sleep(DEADLINE - Duration::from_millis(100)).await;
    assert_eq!((stage.reports().len(), stage.heartbeat.down_since()), (1, None));
    sleep(Duration::from_millis(100)).await;
    assert!(stage.heartbeat.down_since().is_some());
    assert_eq!(stage.reports()[1], "0: no answer within 20 seconds");
    let asked = stage.after(3).await;
    assert!(began.elapsed() < DEADLINE + 2 * FIRST_DELAY);
    assert_asked(&asked, &[STREAMED, &from(7), &from(7)]);
    assert_eq!((stage.known(), stage.heartbeat.down_since()), (vec!["a new".into()], None));
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_bookmarks_is_followed_by_a_new_list() {
    let stage = WatchStage::new(vec![Reply::Hangs(vec![event("ADDED", object("a", 3, "old")), bookmark(7, true)])]);
    let began = Instant::now();
    let mut asked = stage.after(2).await;
    while sorted(asked.last().unwrap()) != sorted(STREAMED) {
        asked = stage.after(asked.len() + 1).await;
    }
    let took = began.elapsed();
    assert!(took >= QUIET && took < QUIET + DEADLINE + LONGEST_DELAY, "{took:?}");
    assert_eq!(stage.known(), ["a old"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_watch_that_the_api_server_ends_stays_up_to_date() {
    let turn = || Reply::EndsAfter(Duration::from_secs(TURN.into()), vec![bookmark(7, false)]);
    let mut replies = vec![Reply::Hangs(vec![event("ADDED", object("a", 3, "old")), bookmark(7, true)])];
    replies.extend((0..40).map(|_| turn()));
    let stage = WatchStage::new(replies);
    let asked = stage.after(41).await;
    assert_asked(&asked[..1], &[STREAMED]);
    assert!(asked[1..].iter().all(|one| sorted(one) == sorted(&from(7))), "{asked:?}");
    assert_eq!(stage.reports(), ["listed"]);
}

#[tokio::test(start_paused = true)]
async fn lists_are_paginated_if_the_api_server_cannot_stream_them() {
    let list = |name: &str, token: &str| {
        let items = [object(name, 5, "old")];
        Reply::Object(json!({
            "apiVersion": "v1", "kind": "ConfigMapList", "items": items,
            "metadata": {"resourceVersion": "9", "continue": token},
        }))
    };
    // One returns an error; an older one treats the request as a plain watch and sends a plain bookmark.
    for first in [
        Reply::Fails(422, "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"),
        Reply::Hangs(vec![event("ADDED", object("a", 3, "old")), bookmark(7, false)]),
    ] {
        let stage = WatchStage::new(vec![
            first,
            list("a", "next"),
            list("b", ""),
            Reply::Hangs(vec![event("ADDED", object("c", 10, "new"))]),
        ]);
        let asked = stage.after(4).await;
        assert_asked(&asked, &[STREAMED, "limit=500", "limit=500 continue=next", &from(9)]);
        assert_eq!(stage.known(), ["a old", "b old", "c new"]);
    }
}

#[tokio::test(start_paused = true)]
async fn repeated_failures_back_off_and_keep_the_position() {
    let mut replies = vec![Reply::Ends(vec![event("ADDED", object("a", 3, "old")), bookmark(7, true)])];
    replies.extend((0..10).map(|_| Reply::Fails(503, "starting")));
    let stage = WatchStage::new(replies);
    let began = Instant::now();
    let asked = stage.after(12).await;
    let took = began.elapsed();
    assert_asked(&asked[..1], &[STREAMED]);
    assert!(asked[1..].iter().all(|one| sorted(one) == sorted(&from(7))), "{asked:?}");
    // Ten waits, four of them the longest, each between half and all of it.
    assert!(took > Duration::from_secs(13) && took < Duration::from_secs(28), "{took:?}");
    assert_eq!(stage.known(), ["a old"]);
}

#[tokio::test(start_paused = true)]
async fn undecodable_objects_are_left_out_and_older_states_rejected() {
    let stage = WatchStage::new(vec![
        Reply::Ends(vec![
            event("ADDED", json!({"metadata": {"name": 7}})),
            event("ADDED", object("a", 3, "old")),
            bookmark(70, true),
            bookmark(8, false),
        ]),
        Reply::Hangs(vec![event("ADDED", object("a", 3, "restored")), bookmark(8, true)]),
    ]);
    let asked = stage.after(2).await;
    assert_asked(&asked, &[STREAMED; 2]);
    assert_eq!(stage.reports()[..2], ["undecodable", "listed"]);
    assert_eq!(stage.reports()[2], "0: the API server went back to an older state");
    assert_eq!(stage.known(), ["a restored"]);
}

#[test]
fn backoff_grows_to_five_seconds_with_jitter() {
    assert_eq!(backoff(0, 1.0), FIRST_DELAY);
    assert_eq!(backoff(0, 0.0), FIRST_DELAY / 2);
    assert_eq!(backoff(3, 1.0), 8 * FIRST_DELAY);
    for failures in [6, 10, 31, 32, u32::MAX] {
        assert_eq!((backoff(failures, 1.0), backoff(failures, 0.0)), (LONGEST_DELAY, LONGEST_DELAY / 2));
    }
    assert!((0.0..=1.0).contains(&jitter()));
}

#[test]
fn only_some_interruptions_need_a_new_list() {
    let api = |code, message: &str| Status::failure(message, "").with_code(code).boxed();
    for (interruption, loses) in [
        (Interruption::Ended(api(410, "too old resource version")), true),
        (Interruption::Failed(Error::Api(api(410, "Expired"))), true),
        (Interruption::Failed(Error::Api(api(504, "Too large resource version: 9, current: 5"))), true),
        (Interruption::Failed(Error::Api(api(504, "gateway timeout"))), false),
        (Interruption::Failed(Error::Api(api(403, "forbidden"))), false),
        (Interruption::Ended(api(500, "etcd")), false),
        (Interruption::Silent(QUIET), true),
        (Interruption::Unanswered(DEADLINE), false),
        (Interruption::TooShort, false),
        (Interruption::Backwards, true),
    ] {
        assert_eq!(interruption.needs_list(), loses, "{interruption}");
    }
}
