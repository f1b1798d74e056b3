//! The watch against an API server that follows a script. Time is paused: what would take minutes takes none.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use axum::body::Body;
use futures::stream;
use kube::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::{
    api::StoredPat,
    index::{Freshness, Index, Pulse, feed::PatFeed},
};

/// What the API server does with one request.
enum Act {
    /// Sends these lines and ends the answer.
    Ends(Vec<Value>),
    /// Sends these lines and then nothing more.
    Hangs(Vec<Value>),
    /// Answers by this status.
    Refuses(u16, &'static str),
    /// Answers by a whole object.
    Answers(Value),
}

/// An index that is fed by a watch on such an API server.
struct World {
    index: Arc<Index>,
    pulse: Arc<Pulse>,
    asked: Arc<Mutex<Vec<String>>>,
    news: Arc<Mutex<Vec<String>>>,
    watch: JoinHandle<()>,
}

impl World {
    /// The acts are for one request after the other; further requests hang.
    fn of(acts: Vec<Act>) -> Self {
        let (asked, news) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (noted, acts) = (asked.clone(), Arc::new(Mutex::new(acts.into_iter())));
        let service = tower::service_fn(move |request: hyper::Request<kube::client::Body>| {
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(summary(request.uri()));
            let act = acts.lock().unwrap_or_else(PoisonError::into_inner).next();
            async move { Ok::<_, Infallible>(answer(act)) }
        });
        let index = Arc::new(Index::default());
        let pulse = Pulse::new(1, Duration::from_secs(300));
        let api: Api<StoredPat> = Api::all(Client::new(service, "default"));
        let told = news.clone();
        let tell = move |news| {
            let text = match news {
                News::Listed => "listed".to_owned(),
                News::Interrupted { interruption, failures } => format!("{failures}: {interruption}"),
                News::LeftOut(_) => "left out".to_owned(),
            };
            told.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        };
        let watch = tokio::spawn(follow(api, PatFeed::new(index.clone(), None), pulse.beat(0), tell));
        Self { index, pulse, asked, news, watch }
    }

    /// Waits until so many requests were made, and all that they bring is taken in.
    async fn after(&self, requests: usize) -> Vec<String> {
        while self.asked.lock().unwrap().len() < requests {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(1)).await;
        self.asked.lock().unwrap().clone()
    }

    fn news(&self) -> Vec<String> {
        self.news.lock().unwrap().clone()
    }

    fn known(&self) -> Vec<String> {
        let mut known = Vec::new();
        self.index.for_each(|pat| known.push(format!("{} {}", pat.name(), pat.scopes().joined())));
        known.sort();
        known
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// What matters of a request: list or watch, from where, and how.
fn summary(uri: &hyper::Uri) -> String {
    let query = uri.query().unwrap_or_default();
    let wanted = ["watch", "resourceVersion", "sendInitialEvents", "limit", "continue", "allowWatchBookmarks"];
    let pairs = query.split('&').filter(|pair| wanted.contains(&pair.split('=').next().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(" ")
}

fn answer(act: Option<Act>) -> hyper::Response<Body> {
    let (lines, hangs) = match act {
        Some(Act::Ends(lines)) => (lines, false),
        Some(Act::Hangs(lines)) => (lines, true),
        Some(Act::Answers(object)) => return hyper::Response::new(Body::from(object.to_string().into_bytes())),
        Some(Act::Refuses(code, message)) => {
            let status = json!({"kind": "Status", "status": "Failure", "message": message, "reason": "", "code": code});
            let mut response = hyper::Response::new(Body::from(status.to_string().into_bytes()));
            *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap();
            return response;
        }
        None => (Vec::new(), true),
    };
    // The type first, as an API server writes it.
    let text = |line: Value| format!("{{\"type\":{},\"object\":{}}}\n", line["type"], line["object"]);
    let chunks = lines.into_iter().map(move |line| Ok::<_, Infallible>(hyper::body::Bytes::from(text(line))));
    let rest = if hangs { stream::pending().left_stream() } else { stream::empty().right_stream() };
    hyper::Response::new(Body::from_stream(stream::iter(chunks).chain(rest)))
}

fn pat(name: &str, uid: u32, version: u32, scope: &str) -> Value {
    json!({
        "apiVersion": "pat-operator.io/v1alpha1",
        "kind": "PersonalAccessToken",
        "metadata": {
            "name": name, "namespace": "team", "uid": format!("{uid:032}"), "resourceVersion": version.to_string(),
        },
        "spec": {"scopes": [scope]},
        "status": {"credentials": [{
            "id": "000000000001", "revision": 1, "sha256": format!("{uid:064}"), "state": "Active",
            "issuedAt": "2026-01-01T00:00:00Z",
        }]},
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
            "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken",
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
async fn a_streamed_list_becomes_a_watch_and_each_watch_goes_on_where_the_last_one_ended() {
    let world = World::of(vec![Act::Hangs(vec![
        event("ADDED", pat("a", 1, 3, "old")),
        event("ADDED", pat("b", 2, 5, "old")),
        bookmark(7, true),
    ])]);
    world.after(1).await;
    assert_eq!((world.known(), world.news()), (vec!["a old".into(), "b old".into()], vec!["listed".into()]));
    assert_eq!(world.pulse.freshness(), Freshness::Fresh);

    let world = World::of(vec![
        Act::Ends(vec![
            event("ADDED", pat("a", 1, 3, "old")),
            bookmark(7, true),
            event("MODIFIED", pat("a", 1, 8, "new")),
        ]),
        Act::Ends(vec![event("ADDED", pat("c", 3, 9, "new")), bookmark(12, false)]),
        Act::Hangs(vec![event("DELETED", pat("a", 1, 13, "new"))]),
    ]);
    let asked = world.after(3).await;
    assert_asked(&asked, &[STREAMED, &from(8), &from(12)]);
    assert_eq!(world.known(), ["c new"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_gone_leads_to_a_new_list_which_forgets_only_at_its_end() {
    let world = World::of(vec![
        Act::Ends(vec![
            event("ADDED", pat("a", 1, 3, "old")),
            event("ADDED", pat("b", 2, 4, "old")),
            bookmark(7, true),
            gone(),
        ]),
        // This list breaks off.
        Act::Ends(vec![event("ADDED", pat("b", 2, 9, "new"))]),
        Act::Hangs(vec![event("ADDED", pat("b", 2, 9, "new")), event("ADDED", pat("c", 3, 8, "new"))]),
    ]);
    let asked = world.after(3).await;
    assert_asked(&asked, &[STREAMED; 3]);
    assert_eq!(world.known(), ["a old", "b old"], "nothing is lost while lists are incomplete");
    assert_eq!(
        world.news(),
        ["listed", "0: too old (410)", "1: the API server ended the watch too soon"].map(str::to_owned)
    );

    let world = World::of(vec![
        Act::Ends(vec![
            event("ADDED", pat("a", 1, 3, "old")),
            event("ADDED", pat("b", 2, 4, "old")),
            bookmark(7, true),
            gone(),
        ]),
        Act::Hangs(vec![
            event("ADDED", pat("b", 2, 9, "new")),
            event("ADDED", pat("c", 3, 8, "new")),
            bookmark(10, true),
        ]),
    ]);
    world.after(2).await;
    assert_eq!(world.known(), ["b new", "c new"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_dies_without_a_word_is_noticed_and_followed_by_a_new_list() {
    let world = World::of(vec![Act::Hangs(vec![event("ADDED", pat("a", 1, 3, "old")), bookmark(7, true)])]);
    let began = Instant::now();
    let asked = world.after(2).await;
    let took = began.elapsed();
    assert_asked(&asked, &[STREAMED; 2]);
    assert!(took >= QUIET && took < QUIET + LONGEST_WAIT, "{took:?}");
    assert_eq!(world.news()[1], "0: nothing was heard for 150 seconds");
    assert_eq!(world.known(), ["a old"]);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_cannot_stream_lists_is_asked_for_pages() {
    let list = |names: &[(&str, u32)], token: &str| {
        let items: Vec<_> = names.iter().map(|(name, uid)| pat(name, *uid, 5, "old")).collect();
        Act::Answers(json!({
            "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessTokenList", "items": items,
            "metadata": {"resourceVersion": "9", "continue": token},
        }))
    };
    // One says so; an older one takes it for a plain watch and sends a plain bookmark.
    for first in [
        Act::Refuses(422, "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"),
        Act::Hangs(vec![event("ADDED", pat("a", 1, 3, "old")), bookmark(7, false)]),
    ] {
        let world = World::of(vec![
            first,
            list(&[("a", 1)], "next"),
            list(&[("b", 2)], ""),
            Act::Hangs(vec![event("ADDED", pat("c", 3, 10, "new"))]),
        ]);
        let asked = world.after(4).await;
        assert_asked(&asked, &[STREAMED, "limit=500", "limit=500 continue=next", &from(9)]);
        assert_eq!(world.known(), ["a old", "b old", "c new"]);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_followed_by_longer_and_longer_waits_from_the_same_place() {
    let mut acts = vec![Act::Ends(vec![event("ADDED", pat("a", 1, 3, "old")), bookmark(7, true)])];
    acts.extend((0..10).map(|_| Act::Refuses(503, "starting")));
    let world = World::of(acts);
    let began = Instant::now();
    let asked = world.after(12).await;
    let took = began.elapsed();
    assert_asked(&asked[..1], &[STREAMED]);
    assert!(asked[1..].iter().all(|one| sorted(one) == sorted(&from(7))), "{asked:?}");
    // Ten waits, four of them the longest, each between half and all of it.
    assert!(took > Duration::from_secs(13) && took < Duration::from_secs(28), "{took:?}");
    assert_eq!(world.known(), ["a old"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_left_out_and_an_older_state_is_not_believed() {
    let world = World::of(vec![
        Act::Ends(vec![
            event("ADDED", json!({"metadata": {"name": 7}})),
            event("ADDED", pat("a", 1, 3, "old")),
            bookmark(70, true),
            bookmark(8, false),
        ]),
        Act::Hangs(vec![event("ADDED", pat("a", 1, 3, "restored")), bookmark(8, true)]),
    ]);
    let asked = world.after(2).await;
    assert_asked(&asked, &[STREAMED; 2]);
    assert_eq!(world.news()[..2], ["left out", "listed"]);
    assert_eq!(world.news()[2], "0: the API server has gone back to an older state");
    assert_eq!(world.known(), ["a restored"]);
}

#[test]
fn waits_grow_to_five_seconds_and_differ_among_replicas() {
    assert_eq!(patience(0, 1.0), FIRST_WAIT);
    assert_eq!(patience(0, 0.0), FIRST_WAIT / 2);
    assert_eq!(patience(3, 1.0), 8 * FIRST_WAIT);
    for failures in [6, 10, 31, 32, u32::MAX] {
        assert_eq!((patience(failures, 1.0), patience(failures, 0.0)), (LONGEST_WAIT, LONGEST_WAIT / 2));
    }
    assert!((0.0..=1.0).contains(&dice()));
}

#[test]
fn a_new_list_is_asked_for_only_where_going_on_would_not_help() {
    let api = |code, message: &str| Status::failure(message, "").with_code(code).boxed();
    for (interruption, loses) in [
        (Interruption::Ended(api(410, "too old resource version")), true),
        (Interruption::Failed(Error::Api(api(410, "Expired"))), true),
        (Interruption::Failed(Error::Api(api(504, "Too large resource version: 9, current: 5"))), true),
        (Interruption::Failed(Error::Api(api(504, "gateway timeout"))), false),
        (Interruption::Failed(Error::Api(api(403, "forbidden"))), false),
        (Interruption::Ended(api(500, "etcd")), false),
        (Interruption::Silent(QUIET), true),
        (Interruption::TooShort, false),
        (Interruption::Backwards, true),
    ] {
        assert_eq!(interruption.loses_the_place(), loses, "{interruption}");
    }
}
