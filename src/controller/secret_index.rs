//! The operator's Secrets, reduced to names and hashes, by key and by the PAT that controls them.
//!
//! kube's reflector store would keep whole Secrets. Here each value is hashed before it is stored.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::namespaced_name::NamespacedName;
use crate::planner::observed::{SecretController, SecretView};

/// An index of Secrets without their values.
#[derive(Default)]
pub struct SecretIndex(RwLock<Entries>);

#[derive(Default)]
struct Entries {
    by_key: HashMap<NamespacedName, Arc<SecretView>>,
    /// The Secrets whose name differs from that of the PAT that controls them, by that PAT.
    by_pat: HashMap<NamespacedName, Vec<NamespacedName>>,
}

impl SecretIndex {
    /// Returns one Secret.
    pub fn get(&self, key: &NamespacedName) -> Option<Arc<SecretView>> {
        self.read().by_key.get(key).cloned()
    }

    /// Returns the number of Secrets.
    pub fn len(&self) -> usize {
        self.read().by_key.len()
    }

    /// Returns the keys of all Secrets.
    pub fn keys(&self) -> Vec<NamespacedName> {
        self.read().by_key.keys().cloned().collect()
    }

    /// Returns the stored copy of a key, which shares its text.
    pub fn stored_key(&self, key: &NamespacedName) -> Option<NamespacedName> {
        self.read().by_key.get_key_value(key).map(|(key, _)| key.clone())
    }

    /// Returns the Secrets that the PAT with this key and uid controls.
    pub fn controlled_by(&self, pat: &NamespacedName, uid: &str) -> Vec<Arc<SecretView>> {
        let entries = self.read();
        let others = entries.by_pat.get(pat).into_iter().flatten();
        std::iter::once(pat)
            .chain(others)
            .filter_map(|key| entries.by_key.get(key))
            .filter(|secret| secret.is_controlled_by(uid))
            .cloned()
            .collect()
    }

    /// Adds or replaces a Secret that this PAT controls, and returns the PAT that controlled it before.
    pub fn apply(
        &self,
        key: &NamespacedName,
        secret: SecretView,
        pat: Option<&NamespacedName>,
    ) -> Option<NamespacedName> {
        let mut entries = self.write();
        let former = entries.unlink(key);
        if let Some(pat) = pat.filter(|pat| *pat != key) {
            entries.by_pat.entry(pat.clone()).or_insert_with(|| Vec::with_capacity(1)).push(key.clone());
        }
        entries.by_key.insert(key.clone(), Arc::new(secret));
        former
    }

    /// Removes a Secret, and returns the PAT that controlled it.
    pub fn remove(&self, key: &NamespacedName) -> Option<NamespacedName> {
        let mut entries = self.write();
        let former = entries.unlink(key);
        entries.by_key.remove(key);
        former
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Forgets which PAT controls a Secret, and returns that PAT.
    fn unlink(&mut self, key: &NamespacedName) -> Option<NamespacedName> {
        let (namespace, name) = controlling_pat(self.by_key.get(key)?)?;
        let pat = NamespacedName::new(namespace, name);
        if let Some(keys) = self.by_pat.get_mut(&pat) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_pat.remove(&pat);
            }
        }
        Some(pat)
    }
}

/// The namespace and name of the PAT that controls a Secret, according to its owner reference.
pub fn controlling_pat(secret: &SecretView) -> Option<(&str, &str)> {
    match &secret.controller {
        SecretController::Pat { name, .. } => Some((&secret.namespace, name)),
        _ => None,
    }
}
