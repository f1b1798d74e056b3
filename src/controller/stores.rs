//! The stores that the watches fill: every PAT, every Secret of the operator as names and hashes, which PAT wants which Secret, and the
//! disabled owners.
//!
//! They send no requests and hold no value of a Secret.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use k8s_openapi::jiff::Timestamp;
use kube::runtime::{
    reflector::{self, Store, store::Writer},
    watcher::Event,
};

use super::{disabled_owners::DisabledOwners, namespaced_name::NamespacedName, secret_index::SecretIndex};
pub use crate::planner::observed::version;
use crate::{
    api::{Owner, StoredPat},
    planner::{
        intent::{owner, secret_name},
        observed::SecretView,
    },
};

/// The kinds of object that the controller watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchedKind {
    /// `PersonalAccessToken`
    Pat,
    /// `Secret`
    Secret,
    /// `TokenOwner`
    Owner,
    /// `TokenIssuer`
    Issuer,
    /// `ClusterTokenIssuer`
    ClusterIssuer,
}

impl WatchedKind {
    /// The kind as logs and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pat => "PersonalAccessToken",
            Self::Secret => "Secret",
            Self::Owner => "TokenOwner",
            Self::Issuer => "TokenIssuer",
            Self::ClusterIssuer => "ClusterTokenIssuer",
        }
    }
}

/// The progress of a watch. Resource versions of one API server are comparable numbers
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchProgress {
    /// The newest resource version seen.
    pub version: u64,
    /// How many times the watch has started with a list.
    pub epoch: u64,
}

/// All stores of one controller.
pub struct Stores {
    pats: Store<StoredPat>,
    /// All watches of PATs write to one store, because kube's `Controller` reads a single one.
    pat_writer: Mutex<Writer<StoredPat>>,
    pub(super) secrets: SecretIndex,
    pub(super) disabled_owners: DisabledOwners,
    /// The PATs that want a Secret whose name differs from theirs, by that Secret.
    pats_by_secret: RwLock<HashMap<NamespacedName, Vec<NamespacedName>>>,
    /// The progress of each watch by kind and namespace; no namespace means all of them.
    progress: RwLock<HashMap<(WatchedKind, Option<String>), WatchProgress>>,
}

impl Default for Stores {
    fn default() -> Self {
        let (pats, mut writer) = reflector::store();
        // This makes the store ready and empty. A later `InitDone` would replace the whole store, including the PATs of
        // other namespaces.
        writer.apply_watcher_event(&Event::InitDone);
        Self {
            pats,
            pat_writer: Mutex::new(writer),
            secrets: SecretIndex::default(),
            disabled_owners: DisabledOwners::default(),
            pats_by_secret: RwLock::default(),
            progress: RwLock::default(),
        }
    }
}

impl Stores {
    /// Returns the store of PATs, for kube's `Controller`.
    pub fn pats(&self) -> Store<StoredPat> {
        self.pats.clone()
    }

    /// Returns one PAT.
    pub fn pat(&self, key: &NamespacedName) -> Option<Arc<StoredPat>> {
        self.pats.get(&key.pat_ref())
    }

    /// Returns the keys of all PATs.
    pub fn keys(&self) -> Vec<NamespacedName> {
        self.pats.state().iter().map(|pat| self.key_of(pat)).collect()
    }

    /// Returns one Secret.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Arc<SecretView>> {
        self.secrets.get(&NamespacedName::new(namespace, name))
    }

    /// Returns the number of Secrets.
    pub fn secret_count(&self) -> usize {
        self.secrets.len()
    }

    /// Returns the Secrets that a PAT controls.
    pub fn controlled_by(&self, pat: &StoredPat) -> Vec<Arc<SecretView>> {
        self.secrets.controlled_by(&NamespacedName::new(pat.namespace(), pat.name()), pat.uid())
    }

    /// Returns the name of the PAT that has a better claim to this Secret than the one given.
    pub fn conflicting_pat(&self, pat: &StoredPat, secret: &str) -> Option<String> {
        let others = self.pats_wanting(&NamespacedName::new(pat.namespace(), secret));
        let others: Vec<_> = others.iter().filter_map(|key| self.pat(key)).collect();
        let other = conflicting_pat(pat, secret, others.iter().map(Arc::as_ref))?;
        Some(other.name().to_owned())
    }

    /// Returns the name of a TokenOwner that disables the owner of a PAT.
    pub fn disabled_by(&self, pat: &StoredPat) -> Option<String> {
        // Most installations disable no owner.
        let spec = pat.spec.as_ref().ok().filter(|_| !self.disabled_owners.is_empty())?;
        self.disabled_owners.disabled_by(&owner(pat, spec))
    }

    /// Returns the PATs of these owners.
    pub(super) fn pats_of(&self, owners: &HashSet<Owner>) -> Vec<NamespacedName> {
        if owners.is_empty() {
            return Vec::new();
        }
        let is_theirs = |pat: &&Arc<StoredPat>| pat.spec.as_ref().is_ok_and(|spec| owners.contains(&owner(pat, spec)));
        self.pats.state().iter().filter(is_theirs).map(|pat| self.key_of(pat)).collect()
    }

    /// Returns the PATs that want this Secret.
    pub fn pats_wanting(&self, secret: &NamespacedName) -> Vec<NamespacedName> {
        let mut pats = read(&self.pats_by_secret).get(secret).cloned().unwrap_or_default();
        if self.pat(secret).is_some_and(|pat| wanted_secret(&pat) == Some(secret.name())) {
            pats.push(self.key(secret.namespace(), secret.name()));
        }
        pats
    }

    /// Returns the progress of the watch that covers a namespace. The stores are updated before the progress: an object that
    /// is read after it is at least as new.
    pub fn progress(&self, kind: WatchedKind, namespace: &str) -> WatchProgress {
        let progress = read(&self.progress);
        let scoped = progress.get(&(kind, Some(namespace.to_owned())));
        scoped.or_else(|| progress.get(&(kind, None))).copied().unwrap_or_default()
    }

    /// Returns the key of a PAT.
    pub fn key_of(&self, pat: &StoredPat) -> NamespacedName {
        self.key(pat.namespace(), pat.name())
    }

    /// Returns a key that shares its text with the key of a Secret, if there is one. Most Secrets have the name of their PAT, so
    /// this saves memory.
    pub(super) fn key(&self, namespace: &str, name: &str) -> NamespacedName {
        let key = NamespacedName::new(namespace, name);
        self.secrets.stored_key(&key).unwrap_or(key)
    }

    /// Stores a PAT and returns the PATs for which a change of its wanted Secret matters.
    pub(super) fn apply_pat(&self, key: &NamespacedName, pat: StoredPat) -> Vec<NamespacedName> {
        let old = self.pat(key).and_then(|old| wanted_secret(&old).map(str::to_owned));
        let new = wanted_secret(&pat).map(str::to_owned);
        self.pat_writer().apply_watcher_event(&Event::Apply(pat));
        self.index(key, old.as_deref(), new.as_deref())
    }

    /// Removes a PAT and returns the PATs that wanted the same Secret.
    pub(super) fn remove_pat(&self, key: &NamespacedName) -> Vec<NamespacedName> {
        let Some(old) = self.pat(key) else { return Vec::new() };
        self.pat_writer().apply_watcher_event(&Event::Delete(StoredPat::clone(&old)));
        self.index(key, wanted_secret(&old), None)
    }

    /// Indexes a PAT by the Secret that it wants now, and returns the PATs that want the Secret that it gave up.
    fn index(&self, key: &NamespacedName, old: Option<&str>, new: Option<&str>) -> Vec<NamespacedName> {
        if old == new {
            return Vec::new();
        }
        let old = old.map(|name| NamespacedName::new(key.namespace(), name));
        let new = new.map(|name| NamespacedName::new(key.namespace(), name));
        let mut pats_by_secret = write(&self.pats_by_secret);
        if let Some(old) = &old
            && let Some(pats) = pats_by_secret.get_mut(old)
        {
            pats.retain(|pat| pat != key);
            if pats.is_empty() {
                pats_by_secret.remove(old);
            }
        }
        if let Some(new) = new.filter(|new| new != key) {
            pats_by_secret.entry(new).or_insert_with(|| Vec::with_capacity(1)).push(key.clone());
        }
        drop(pats_by_secret);
        old.map(|old| self.pats_wanting(&old)).unwrap_or_default()
    }

    /// Records that a watch has delivered everything up to this version.
    pub(super) fn advance(&self, kind: WatchedKind, scope: Option<&String>, version: u64) {
        let mut progress = write(&self.progress);
        let entry = progress.entry((kind, scope.cloned())).or_default();
        entry.version = entry.version.max(version);
    }

    /// Records that a watch starts with a new list.
    pub(super) fn start_epoch(&self, kind: WatchedKind, scope: Option<&String>) {
        write(&self.progress).entry((kind, scope.cloned())).or_default().epoch += 1;
    }

    fn pat_writer(&self) -> MutexGuard<'_, Writer<StoredPat>> {
        self.pat_writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the one of these PATs that has a better claim to this Secret than `pat`: the older one, then the one with the smaller
/// uid.
pub fn conflicting_pat<'a>(
    pat: &StoredPat,
    secret: &str,
    others: impl IntoIterator<Item = &'a StoredPat>,
) -> Option<&'a StoredPat> {
    let wants = |other: &&StoredPat| other.namespace() == pat.namespace() && wanted_secret(other) == Some(secret);
    let best = others.into_iter().filter(wants).min_by(|a, b| rank(a).cmp(&rank(b)))?;
    (best.uid() != pat.uid() && rank(best) < rank(pat)).then_some(best)
}

/// The order of claims on one Secret; the best comes first.
fn rank(pat: &StoredPat) -> (Option<Timestamp>, &str) {
    (pat.metadata.creation_timestamp.as_ref().map(|time| time.0), pat.uid())
}

/// Returns the name of the Secret that a PAT wants; `None` for a PAT that is being deleted.
fn wanted_secret(pat: &StoredPat) -> Option<&str> {
    let spec = pat.spec.as_ref().ok().filter(|_| pat.metadata.deletion_timestamp.is_none())?;
    Some(secret_name(pat, spec))
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
