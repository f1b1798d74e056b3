//! What the watches have brought: every PAT, every Secret of ours as names and hashes, and who claims which Secret.
//!
//! It answers from memory and must not call the API server, nor hold any Secret's value.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, RwLock},
};

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Event;

use super::{
    intent::secret_name,
    view::{Controller, SecretView},
};
use crate::api::StoredPat;

/// A namespace and a name.
pub type Key = (String, String);

/// How far a watch has come. Resource versions of one API server are numbers that can be compared
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The newest resource version seen.
    pub version: u64,
    /// How many times the watch began anew.
    pub epoch: u64,
}

/// Reads a resource version as a number; 0 if it is none.
pub fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// All caches of one controller.
#[derive(Default)]
pub struct Cache {
    pats: RwLock<HashMap<Key, Arc<StoredPat>>>,
    secrets: RwLock<Secrets>,
    claims: RwLock<Claims>,
    progress: RwLock<HashMap<(Kind, Option<String>), Progress>>,
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `PersonalAccessToken`
    Pat,
    /// `Secret`
    Secret,
}

#[derive(Default)]
struct Secrets {
    by_key: HashMap<Key, Arc<SecretView>>,
    by_owner: HashMap<String, BTreeSet<Key>>,
}

#[derive(Default)]
struct Claims {
    of: HashMap<Key, Claim>,
    on: HashMap<Key, BTreeSet<Claim>>,
}

/// One PAT's wish for one Secret. The order is that of the better claim: the older one, then the smaller uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    since: String,
    uid: String,
    pat: String,
    secret: String,
}

/// What takes in the events of one watch.
pub trait Feed {
    /// What is watched.
    type Object;

    /// Takes in one event, and tells which PATs it may matter to. The second value says that a list is complete.
    fn take(&mut self, event: Event<Self::Object>) -> (Vec<Key>, bool);
}

/// Feeds the PATs of one watch into the cache.
pub struct PatFeed {
    cache: Arc<Cache>,
    scope: Option<String>,
    seen: HashSet<Key>,
}

/// Feeds the Secrets of one watch into the cache.
pub struct SecretFeed {
    cache: Arc<Cache>,
    scope: Option<String>,
    seen: HashSet<Key>,
}

impl Cache {
    /// One PAT.
    pub fn pat(&self, key: &Key) -> Option<Arc<StoredPat>> {
        read(&self.pats).get(key).cloned()
    }

    /// The keys of all PATs.
    pub fn keys(&self) -> Vec<Key> {
        read(&self.pats).keys().cloned().collect()
    }

    /// Looks at every PAT, without copying any. For figures at scrape time; `look` must be quick.
    pub fn for_each_pat(&self, mut look: impl FnMut(&StoredPat)) {
        read(&self.pats).values().for_each(|pat| look(pat));
    }

    /// One Secret.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Arc<SecretView>> {
        read(&self.secrets).by_key.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The Secrets that the PAT with this uid controls.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<SecretView>> {
        let secrets = read(&self.secrets);
        let keys = secrets.by_owner.get(uid).into_iter().flatten();
        keys.filter_map(|key| secrets.by_key.get(key).cloned()).collect()
    }

    /// Every Secret in the cache.
    pub fn secret_count(&self) -> usize {
        read(&self.secrets).by_key.len()
    }

    /// The name of a PAT with a better claim to this Secret than the one given.
    pub fn rival(&self, pat: &StoredPat, secret: &str) -> Option<String> {
        let claims = read(&self.claims);
        let best = claims.on.get(&(pat.namespace().to_owned(), secret.to_owned()))?.first()?;
        let own = Claim::of(pat, secret);
        (best.uid != own.uid && *best < own).then(|| best.pat.clone())
    }

    /// The PATs that ask for this Secret.
    pub fn claimants(&self, namespace: &str, secret: &str) -> Vec<Key> {
        let claims = read(&self.claims);
        let on = claims.on.get(&(namespace.to_owned(), secret.to_owned()));
        on.into_iter().flatten().map(|claim| (namespace.to_owned(), claim.pat.clone())).collect()
    }

    /// How far the watch that covers a namespace has come. What it has come to is in the cache: ask for the progress first,
    /// then for the object, and the object is at least as new.
    pub fn progress(&self, kind: Kind, namespace: &str) -> Progress {
        let progress = read(&self.progress);
        let scoped = progress.get(&(kind, Some(namespace.to_owned())));
        scoped.or_else(|| progress.get(&(kind, None))).copied().unwrap_or_default()
    }

    fn advance(&self, kind: Kind, scope: Option<&String>, to: u64) {
        let mut progress = write(&self.progress);
        let entry = progress.entry((kind, scope.cloned())).or_default();
        entry.version = entry.version.max(to);
    }

    fn begin_anew(&self, kind: Kind, scope: Option<&String>) {
        write(&self.progress).entry((kind, scope.cloned())).or_default().epoch += 1;
    }
}

impl Feed for PatFeed {
    type Object = StoredPat;

    fn take(&mut self, event: Event<StoredPat>) -> (Vec<Key>, bool) {
        match event {
            Event::Init => {
                self.seen.clear();
                self.cache.begin_anew(Kind::Pat, self.scope.as_ref());
                (Vec::new(), false)
            }
            Event::InitApply(pat) => {
                self.seen.insert(key_of(&pat));
                (self.put(pat), false)
            }
            Event::Apply(pat) => (self.put(pat), false),
            Event::Delete(pat) => {
                let concerned = self.remove(&key_of(&pat));
                let version = version(pat.metadata.resource_version.as_deref());
                self.cache.advance(Kind::Pat, self.scope.as_ref(), version);
                (concerned, false)
            }
            Event::InitDone => {
                let gone = unseen(self.cache.keys(), self.scope.as_ref(), &self.seen);
                self.seen = HashSet::new();
                (gone.iter().flat_map(|key| self.remove(key)).collect(), true)
            }
        }
    }
}

impl PatFeed {
    /// A feed for the watch of one namespace, or of all.
    pub fn new(cache: Arc<Cache>, scope: Option<String>) -> Self {
        Self { cache, scope, seen: HashSet::new() }
    }

    fn put(&self, mut pat: StoredPat) -> Vec<Key> {
        pat.slim();
        let version = version(pat.metadata.resource_version.as_deref());
        let key = key_of(&pat);
        let mut concerned = self.claim(&key, (pat.metadata.deletion_timestamp.is_none()).then_some(&pat));
        write(&self.cache.pats).insert(key.clone(), Arc::new(pat));
        self.cache.advance(Kind::Pat, self.scope.as_ref(), version);
        concerned.push(key);
        concerned
    }

    fn remove(&self, key: &Key) -> Vec<Key> {
        let mut concerned = self.claim(key, None);
        write(&self.cache.pats).remove(key);
        // Whoever reconciles it finds it gone, and forgets what was held for it.
        concerned.push(key.clone());
        concerned
    }

    /// Records what a PAT claims now, and tells whom a claim that it gave up may matter to.
    fn claim(&self, key: &Key, pat: Option<&StoredPat>) -> Vec<Key> {
        let new = pat.and_then(|pat| {
            let spec = pat.spec.as_ref().ok()?;
            Some(Claim::of(pat, secret_name(pat, spec)))
        });
        let mut claims = write(&self.cache.claims);
        let old = match &new {
            Some(new) => claims.of.insert(key.clone(), new.clone()),
            None => claims.of.remove(key),
        };
        if old == new {
            return Vec::new();
        }
        let mut concerned = Vec::new();
        if let Some(old) = old {
            let secret = (key.0.clone(), old.secret.clone());
            if let Some(others) = claims.on.get_mut(&secret) {
                others.remove(&old);
                concerned.extend(others.iter().map(|claim| (key.0.clone(), claim.pat.clone())));
                if others.is_empty() {
                    claims.on.remove(&secret);
                }
            }
        }
        if let Some(new) = new {
            claims.on.entry((key.0.clone(), new.secret.clone())).or_default().insert(new);
        }
        concerned
    }
}

impl Feed for SecretFeed {
    type Object = Secret;

    fn take(&mut self, event: Event<Secret>) -> (Vec<Key>, bool) {
        match event {
            Event::Init => {
                self.seen.clear();
                self.cache.begin_anew(Kind::Secret, self.scope.as_ref());
                (Vec::new(), false)
            }
            Event::InitApply(secret) => {
                let secret = SecretView::of(secret);
                self.seen.insert((secret.namespace.clone(), secret.name.clone()));
                (self.put(secret), false)
            }
            Event::Apply(secret) => (self.put(SecretView::of(secret)), false),
            Event::Delete(secret) => {
                let secret = SecretView::of(secret);
                let version = version(Some(&secret.resource_version));
                let concerned = self.remove(&(secret.namespace, secret.name));
                self.cache.advance(Kind::Secret, self.scope.as_ref(), version);
                (concerned, false)
            }
            Event::InitDone => {
                let keys = read(&self.cache.secrets).by_key.keys().cloned().collect();
                let gone = unseen(keys, self.scope.as_ref(), &self.seen);
                self.seen = HashSet::new();
                (gone.iter().flat_map(|key| self.remove(key)).collect(), true)
            }
        }
    }
}

impl SecretFeed {
    /// A feed for the watch of one namespace, or of all.
    pub fn new(cache: Arc<Cache>, scope: Option<String>) -> Self {
        Self { cache, scope, seen: HashSet::new() }
    }

    fn put(&self, mut secret: SecretView) -> Vec<Key> {
        // Only a live reading is asked who changed it.
        secret.last_editor = None;
        let version = version(Some(&secret.resource_version));
        let key = (secret.namespace.clone(), secret.name.clone());
        let mut concerned = self.cache.claimants(&key.0, &key.1);
        let mut secrets = write(&self.cache.secrets);
        concerned.extend(secrets.disown(&key));
        if let Controller::Pat { uid, name } = &secret.controller {
            secrets.by_owner.entry(uid.clone()).or_default().insert(key.clone());
            concerned.push((key.0.clone(), name.clone()));
        }
        secrets.by_key.insert(key, Arc::new(secret));
        drop(secrets);
        self.cache.advance(Kind::Secret, self.scope.as_ref(), version);
        concerned
    }

    fn remove(&self, key: &Key) -> Vec<Key> {
        let mut concerned = self.cache.claimants(&key.0, &key.1);
        let mut secrets = write(&self.cache.secrets);
        concerned.extend(secrets.disown(key));
        secrets.by_key.remove(key);
        concerned
    }
}

impl Secrets {
    /// Forgets the owner of a Secret, and tells who that was.
    fn disown(&mut self, key: &Key) -> Option<Key> {
        let Controller::Pat { uid, name } = &self.by_key.get(key)?.controller else { return None };
        let (uid, name) = (uid.clone(), name.clone());
        if let Some(keys) = self.by_owner.get_mut(&uid) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_owner.remove(&uid);
            }
        }
        Some((key.0.clone(), name))
    }
}

impl Claim {
    fn of(pat: &StoredPat, secret: &str) -> Self {
        let since = pat.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
        Self { since, uid: pat.uid().to_owned(), pat: pat.name().to_owned(), secret: secret.to_owned() }
    }
}

fn key_of(pat: &StoredPat) -> Key {
    (pat.namespace().to_owned(), pat.name().to_owned())
}

/// The keys that one watch is responsible for and that its list did not bring.
fn unseen(keys: Vec<Key>, scope: Option<&String>, seen: &HashSet<Key>) -> Vec<Key> {
    keys.into_iter().filter(|key| scope.is_none_or(|scope| *scope == key.0) && !seen.contains(key)).collect()
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
