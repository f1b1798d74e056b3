//! What the watches have brought: every PAT, every Secret of ours as names and hashes, and who claims which Secret.
//!
//! It answers from memory and must not call the API server, nor hold any Secret's value.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, RwLock},
};

use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;

use super::stored_secret::StoredSecret;
use crate::api::StoredPat;
use crate::planner::{
    intent::secret_name,
    view::{Controller, SecretView},
};

/// A namespace and a name. Clones share one text: there are many of them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of the object with this name in this namespace; neither may hold a slash, and none in a cluster does.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
    /// Who asks for a Secret that does not have its own name.
    claims: RwLock<HashMap<Key, Vec<Key>>>,
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
    /// The Secrets of a PAT that do not have its name.
    elsewhere: HashMap<Key, Vec<Key>>,
}

/// What takes in the events of one watch.
pub trait Feed {
    /// What is watched.
    type Object;

    /// Takes in one event.
    fn take(&mut self, event: Event<Self::Object>) -> Taken;
}

/// What an event meant.
#[derive(Debug, Default)]
pub struct Taken {
    /// The PATs that it may matter to.
    pub concerned: Vec<Key>,
    /// The object, if it is there, and its version: the process that wrote it knows it already.
    pub object: Option<(Kind, Key, u64)>,
    /// A list is complete.
    pub listed: bool,
}

impl Taken {
    fn concerns(concerned: Vec<Key>) -> Self {
        Self { concerned, ..Self::default() }
    }
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
        read(&self.secrets).by_key.get(&Key::new(namespace, name)).cloned()
    }

    /// The Secrets that a PAT controls.
    pub fn controlled_by(&self, pat: &StoredPat) -> Vec<Arc<SecretView>> {
        let key = Key::new(pat.namespace(), pat.name());
        let secrets = read(&self.secrets);
        let elsewhere = secrets.elsewhere.get(&key).into_iter().flatten();
        std::iter::once(&key)
            .chain(elsewhere)
            .filter_map(|key| secrets.by_key.get(key))
            .filter(|secret| secret.is_controlled_by(pat.uid()))
            .cloned()
            .collect()
    }

    /// Every Secret in the cache.
    pub fn secret_count(&self) -> usize {
        read(&self.secrets).by_key.len()
    }

    /// The name of a PAT with a better claim to this Secret than the one given: the older one, then the one with the smaller uid.
    pub fn rival(&self, pat: &StoredPat, secret: &str) -> Option<String> {
        let others = self.claimants(&Key::new(pat.namespace(), secret));
        let best = others.iter().filter_map(|key| self.pat(key)).min_by(|a, b| rank(a).cmp(&rank(b)))?;
        (best.uid() != pat.uid() && rank(&best) < rank(pat)).then(|| best.name().to_owned())
    }

    /// The PATs that ask for this Secret.
    pub fn claimants(&self, secret: &Key) -> Vec<Key> {
        let mut claimants = read(&self.claims).get(secret).cloned().unwrap_or_default();
        let pats = read(&self.pats);
        if let Some((key, pat)) = pats.get_key_value(secret)
            && claim(pat).is_some_and(|claim| claim == *secret)
        {
            claimants.push(key.clone());
        }
        claimants
    }

    /// A key that shares its text with what is here.
    fn intern(&self, namespace: &str, name: &str) -> Key {
        let key = Key::new(namespace, name);
        if let Some((known, _)) = read(&self.pats).get_key_value(&key) {
            return known.clone();
        }
        match read(&self.secrets).by_key.get_key_value(&key) {
            Some((known, _)) => known.clone(),
            None => key,
        }
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

    fn take(&mut self, event: Event<StoredPat>) -> Taken {
        match event {
            Event::Init => {
                self.seen.clear();
                self.cache.begin_anew(Kind::Pat, self.scope.as_ref());
                Taken::default()
            }
            Event::InitApply(pat) => {
                let taken = self.put(pat);
                self.seen.extend(taken.object.as_ref().map(|(_, key, _)| key.clone()));
                taken
            }
            Event::Apply(pat) => self.put(pat),
            Event::Delete(pat) => {
                let concerned = self.remove(&Key::new(pat.namespace(), pat.name()));
                let version = version(pat.metadata.resource_version.as_deref());
                self.cache.advance(Kind::Pat, self.scope.as_ref(), version);
                Taken::concerns(concerned)
            }
            Event::InitDone => {
                let gone = unseen(self.cache.keys(), self.scope.as_ref(), &self.seen);
                self.seen = HashSet::new();
                Taken { concerned: gone.iter().flat_map(|key| self.remove(key)).collect(), listed: true, object: None }
            }
        }
    }
}

impl PatFeed {
    /// A feed for the watch of one namespace, or of all.
    pub fn new(cache: Arc<Cache>, scope: Option<String>) -> Self {
        Self { cache, scope, seen: HashSet::new() }
    }

    fn put(&self, pat: StoredPat) -> Taken {
        let version = version(pat.metadata.resource_version.as_deref());
        let key = self.cache.intern(pat.namespace(), pat.name());
        let new = claim(&pat);
        let old =
            write(&self.cache.pats).insert(key.clone(), Arc::new(pat.shrunk_to_fit())).and_then(|old| claim(&old));
        let mut concerned = self.claim(&key, old, new);
        self.cache.advance(Kind::Pat, self.scope.as_ref(), version);
        concerned.push(key.clone());
        Taken { concerned, object: Some((Kind::Pat, key, version)), listed: false }
    }

    fn remove(&self, key: &Key) -> Vec<Key> {
        let old = write(&self.cache.pats).remove(key).and_then(|old| claim(&old));
        let mut concerned = self.claim(key, old, None);
        // Whoever reconciles it finds it gone, and forgets what was held for it.
        concerned.push(key.clone());
        concerned
    }

    /// Records what a PAT claims now, and tells whom a claim that it gave up may matter to.
    fn claim(&self, key: &Key, old: Option<Key>, new: Option<Key>) -> Vec<Key> {
        if old == new {
            return Vec::new();
        }
        let mut claims = write(&self.cache.claims);
        if let Some(others) = old.as_ref().and_then(|old| claims.get_mut(old)) {
            others.retain(|other| other != key);
            if others.is_empty() {
                claims.remove(old.as_ref().unwrap_or(key));
            }
        }
        if let Some(new) = new.filter(|new| new != key) {
            claims.entry(new).or_insert_with(|| Vec::with_capacity(1)).push(key.clone());
        }
        drop(claims);
        old.map(|old| self.cache.claimants(&old)).unwrap_or_default()
    }
}

impl Feed for SecretFeed {
    type Object = StoredSecret;

    fn take(&mut self, event: Event<StoredSecret>) -> Taken {
        match event {
            Event::Init => {
                self.seen.clear();
                self.cache.begin_anew(Kind::Secret, self.scope.as_ref());
                Taken::default()
            }
            Event::InitApply(StoredSecret(secret)) => {
                let secret = SecretView::of(secret);
                self.seen.insert(self.cache.intern(&secret.namespace, &secret.name));
                self.put(secret)
            }
            Event::Apply(StoredSecret(secret)) => self.put(SecretView::of(secret)),
            Event::Delete(StoredSecret(secret)) => {
                let secret = SecretView::of(secret);
                let version = version(Some(&secret.resource_version));
                let concerned = self.remove(&Key::new(&secret.namespace, &secret.name));
                self.cache.advance(Kind::Secret, self.scope.as_ref(), version);
                Taken::concerns(concerned)
            }
            Event::InitDone => {
                let keys = read(&self.cache.secrets).by_key.keys().cloned().collect();
                let gone = unseen(keys, self.scope.as_ref(), &self.seen);
                self.seen = HashSet::new();
                Taken { concerned: gone.iter().flat_map(|key| self.remove(key)).collect(), listed: true, object: None }
            }
        }
    }
}

impl SecretFeed {
    /// A feed for the watch of one namespace, or of all.
    pub fn new(cache: Arc<Cache>, scope: Option<String>) -> Self {
        Self { cache, scope, seen: HashSet::new() }
    }

    fn put(&self, mut secret: SecretView) -> Taken {
        // Only a live reading is asked who changed it.
        secret.last_editor = None;
        let version = version(Some(&secret.resource_version));
        let key = self.cache.intern(&secret.namespace, &secret.name);
        let owner = owner(&secret).map(|(namespace, name)| self.cache.intern(namespace, name));
        let mut concerned = self.cache.claimants(&key);
        let mut secrets = write(&self.cache.secrets);
        concerned.extend(secrets.disown(&key));
        if let Some(owner) = owner {
            if owner != key {
                secrets.elsewhere.entry(owner.clone()).or_insert_with(|| Vec::with_capacity(1)).push(key.clone());
            }
            concerned.push(owner);
        }
        secrets.by_key.insert(key.clone(), Arc::new(secret));
        drop(secrets);
        self.cache.advance(Kind::Secret, self.scope.as_ref(), version);
        Taken { concerned, object: Some((Kind::Secret, key, version)), listed: false }
    }

    fn remove(&self, key: &Key) -> Vec<Key> {
        let mut concerned = self.cache.claimants(key);
        let mut secrets = write(&self.cache.secrets);
        concerned.extend(secrets.disown(key));
        secrets.by_key.remove(key);
        concerned
    }
}

impl Secrets {
    /// Forgets the owner of a Secret, and tells who that was.
    fn disown(&mut self, key: &Key) -> Option<Key> {
        let (namespace, name) = owner(self.by_key.get(key)?)?;
        let owner = Key::new(namespace, name);
        if let Some(keys) = self.elsewhere.get_mut(&owner) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.elsewhere.remove(&owner);
            }
        }
        Some(owner)
    }
}

/// The Secret that a PAT asks for; one that is being deleted asks for none.
fn claim(pat: &StoredPat) -> Option<Key> {
    let spec = pat.spec.as_ref().ok().filter(|_| pat.metadata.deletion_timestamp.is_none())?;
    Some(Key::new(pat.namespace(), secret_name(pat, spec)))
}

/// The order of claims on one Secret: the best comes first.
fn rank(pat: &StoredPat) -> (Option<Timestamp>, &str) {
    (pat.metadata.creation_timestamp.as_ref().map(|time| time.0), pat.uid())
}

/// Namespace and name of the PAT that a Secret says it belongs to.
fn owner(secret: &SecretView) -> Option<(&str, &str)> {
    match &secret.controller {
        Controller::Pat { name, .. } => Some((&secret.namespace, name)),
        _ => None,
    }
}

/// The keys that one watch is responsible for and that its list did not bring.
fn unseen(keys: Vec<Key>, scope: Option<&String>, seen: &HashSet<Key>) -> Vec<Key> {
    keys.into_iter().filter(|key| scope.is_none_or(|scope| scope == key.namespace()) && !seen.contains(key)).collect()
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
