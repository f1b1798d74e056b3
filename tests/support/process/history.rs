//! Records each version of the PATs and Secrets of a namespace, in the order of the API server's writes.
//!
//! The resource version increases with each write to any object, so that one order holds for both kinds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use pat_operator::{
    api::{CredentialState, PersonalAccessToken, PersonalAccessTokenStatus, StoredPat},
    token::Token,
};
use tokio::task::JoinSet;

/// One version of one object.
#[derive(Clone, Debug)]
pub enum Version {
    /// A version of a PAT, with its status.
    Pat { name: String, uid: String, status: Box<PersonalAccessTokenStatus> },
    /// A version of a Secret, with the hash of its token. `None` if its key `token` holds no token.
    Secret { name: String, sha256: Option<String> },
    /// A PAT or Secret was deleted.
    Gone { secret: bool, name: String },
}

#[derive(Default)]
struct Recording {
    versions: BTreeMap<u64, Version>,
    /// Ranges of resource versions that may be incomplete, because a restarted API server no longer had them.
    gaps: Vec<(u64, u64)>,
}

/// A recording. It ends when dropped.
pub struct History {
    recording: Arc<Mutex<Recording>>,
    client: Client,
    namespace: String,
    _watches: JoinSet<()>,
}

impl History {
    /// Starts to record.
    pub async fn of(client: &Client, namespace: &str) -> Self {
        let recording: Arc<Mutex<Recording>> = Arc::default();
        let mut watches = JoinSet::new();
        let pats: Api<StoredPat> = Api::namespaced(client.clone(), namespace);
        let begin = pats.list(&ListParams::default()).await.expect("PATs are listed").metadata.resource_version;
        let begin = begin.expect("a list has a version");
        let record = recording.clone();
        watches.spawn(follow(pats, begin.clone(), recording.clone(), move |pat, gone| {
            let name = pat.name_any();
            let version = if gone {
                Version::Gone { secret: false, name }
            } else {
                let status = pat.status.clone().expect("the status is readable");
                Version::Pat { name, uid: pat.uid().to_owned(), status: Box::new(status) }
            };
            record.lock().unwrap().versions.insert(number(&pat), version);
        }));
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let record = recording.clone();
        watches.spawn(follow(secrets, begin, recording.clone(), move |secret, gone| {
            let name = secret.name_any();
            let version = if gone {
                Version::Gone { secret: true, name }
            } else {
                let token = secret.data.as_ref().and_then(|data| data.get("token"));
                let token = token.and_then(|token| Token::parse(str::from_utf8(&token.0).ok()?).ok());
                Version::Secret { name, sha256: token.map(|token| token.hash().to_string()) }
            };
            record.lock().unwrap().versions.insert(number(&secret), version);
        }));
        Self { recording, client: client.clone(), namespace: namespace.to_owned(), _watches: watches }
    }

    /// The recording so far, oldest first.
    pub fn versions(&self) -> Vec<Version> {
        self.recording.lock().unwrap().versions.values().cloned().collect()
    }

    /// Waits until the recording has caught up with the API server. Then checks the invariants for each version: a removed hash never comes
    /// back, at most one credential is active, and the token in a PAT's Secret of the same name is published.
    pub async fn assert_invariants(&self) {
        self.catch_up().await;
        let mut live: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut dead: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut held: BTreeMap<String, String> = BTreeMap::new();
        let recording = self.recording.lock().unwrap();
        for (number, version) in &recording.versions {
            let concerned = match version {
                Version::Pat { name, uid, status } => {
                    let now: BTreeSet<_> = status.credentials.iter().map(|one| one.sha256.to_string()).collect();
                    let dead = dead.entry(uid.clone()).or_default();
                    let risen: Vec<_> = now.intersection(dead).collect();
                    assert!(risen.is_empty(), "@{number}: removed hashes of {name} came back: {risen:?}");
                    let active = status.credentials.iter().filter(|one| one.state == CredentialState::Active).count();
                    assert!(active <= 1, "@{number}: {name} has {active} active credentials");
                    dead.extend(live.remove(name).unwrap_or_default().difference(&now).cloned());
                    live.insert(name.clone(), now);
                    name
                }
                Version::Secret { name, sha256 } => {
                    match sha256 {
                        Some(sha256) => held.insert(name.clone(), sha256.clone()),
                        None => held.remove(name),
                    };
                    name
                }
                Version::Gone { secret: true, name } => {
                    held.remove(name);
                    name
                }
                Version::Gone { secret: false, name } => {
                    live.remove(name);
                    name
                }
            };
            if recording.gaps.iter().any(|(from, to)| (from..=to).contains(&number)) {
                continue;
            }
            if let (Some(live), Some(held)) = (live.get(concerned), held.get(concerned)) {
                assert!(live.contains(held), "@{number}: the token in Secret {concerned} is not in the status");
            }
        }
    }

    /// Each hash that was ever published for the PAT of this name, oldest first.
    pub fn hashes(&self, pat: &str) -> Vec<String> {
        let mut hashes = Vec::new();
        for version in self.versions() {
            if let Version::Pat { name, status, .. } = version
                && name == pat
            {
                for credential in status.credentials.iter().rev() {
                    if !hashes.contains(&credential.sha256.to_string()) {
                        hashes.push(credential.sha256.to_string());
                    }
                }
            }
        }
        hashes
    }

    async fn catch_up(&self) {
        let pats: Api<PersonalAccessToken> = Api::namespaced(self.client.clone(), &self.namespace);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let pats = pats.list(&ListParams::default()).await.expect("PATs are listed").items;
        let secrets = secrets.list(&ListParams::default()).await.expect("Secrets are listed").items;
        let newest = pats.iter().map(number).chain(secrets.iter().map(number)).max().unwrap_or(0);
        let deadline = Instant::now() + super::SOON;
        while self.recording.lock().unwrap().versions.last_key_value().is_none_or(|(last, _)| *last < newest) {
            assert!(Instant::now() < deadline, "the recording does not catch up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Passes on each version after `begin`. An interrupted watch resumes where it was, if the API server allows it.
async fn follow<K>(api: Api<K>, begin: String, recording: Arc<Mutex<Recording>>, mut take: impl FnMut(K, bool))
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut last = begin;
    loop {
        let mut events = match api.watch(&WatchParams::default(), &last).await {
            Ok(events) => events.boxed(),
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while let Some(Ok(event)) = events.next().await {
            let (object, gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(_) => {
                    let Ok(list) = api.list(&ListParams::default()).await else { break };
                    let (from, to) = (read(Some(&last)), read(list.metadata.resource_version.as_deref()));
                    recording.lock().unwrap().gaps.push((from, to));
                    last = to.to_string();
                    list.items.into_iter().for_each(|object| take(object, false));
                    break;
                }
            };
            last = object.meta().resource_version.clone().expect("a resource version");
            take(object, gone);
        }
    }
}

fn read(version: Option<&str>) -> u64 {
    version.and_then(|version| version.parse().ok()).expect("resource versions are numbers")
}

fn number<K: Resource>(object: &K) -> u64 {
    read(object.meta().resource_version.as_deref())
}
