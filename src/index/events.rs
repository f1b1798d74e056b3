//! Event handlers that keep an index up to date with `PersonalAccessToken`s and `TokenOwner`s.
//!
//! A new list never empties the index: each listed object replaces the known one, and at the end of the list the others are
//! removed.

use std::{collections::HashSet, sync::Arc};

use tracing::warn;

use super::{owners::OwnerDescription, record::IndexedPat, store::Index, uid::PatUid};
use crate::api::{StoredOwner, StoredPat};
use crate::service::watch::WatchHandler;

/// The batch size while a list is received. A batch copies every shard, which takes a millisecond with 100,000 objects.
const BATCH: usize = 4096;

/// Applies the events of PATs in one namespace, or in all, to the index.
pub struct PatEventHandler {
    index: Arc<Index>,
    namespace: Option<String>,
    batch: Vec<IndexedPat>,
    /// The PATs of the list so far; `None` if the index had none before it.
    seen: Option<HashSet<PatUid>>,
}

impl PatEventHandler {
    /// Creates a handler for this namespace; `None` for all.
    pub fn new(index: Arc<Index>, namespace: Option<String>) -> Self {
        Self { index, namespace, batch: Vec::new(), seen: None }
    }

    fn read(&self, stored: &StoredPat) -> Option<IndexedPat> {
        let pat = IndexedPat::read(stored);
        if pat.is_none() {
            let (namespace, name) = (stored.namespace(), stored.name());
            let why = [stored.spec.as_ref().err(), stored.status.as_ref().err()].into_iter().flatten().next();
            let why = why.map_or("a field has a value that admission refuses", String::as_str);
            warn!(namespace, name, why, "cannot read a PersonalAccessToken, so its tokens are refused");
        }
        pat
    }

    fn put_batch(&mut self) {
        self.index.put_all(self.batch.drain(..));
    }
}

impl WatchHandler for PatEventHandler {
    type Object = StoredPat;

    fn init(&mut self) {
        self.batch.clear();
        self.seen = (self.index.pats() > 0).then(HashSet::new);
    }

    fn init_apply(&mut self, stored: StoredPat) {
        let Some(pat) = self.read(&stored) else { return };
        if let Some(seen) = &mut self.seen {
            seen.insert(pat.uid);
        }
        self.batch.push(pat);
        if self.batch.len() >= BATCH {
            self.put_batch();
        }
    }

    fn init_done(&mut self) {
        self.put_batch();
        self.batch = Vec::new();
        let Some(seen) = self.seen.take() else { return };
        let is_elsewhere =
            |pat: &IndexedPat| self.namespace.as_ref().is_some_and(|namespace| namespace != pat.namespace());
        self.index.retain(|pat| is_elsewhere(pat) || seen.contains(&pat.uid));
    }

    fn apply(&mut self, stored: StoredPat) {
        match self.read(&stored) {
            Some(pat) => self.index.put(pat),
            None => self.delete(stored),
        }
    }

    fn delete(&mut self, stored: StoredPat) {
        if let Ok(uid) = stored.uid().parse() {
            self.batch.retain(|pat| pat.uid != uid);
            self.index.remove(uid);
        }
    }
}

/// Applies the events of `TokenOwner`s to the index.
pub struct OwnerEventHandler {
    index: Arc<Index>,
    batch: Vec<OwnerDescription>,
    /// The names of the objects of the list so far.
    seen: HashSet<String>,
}

impl OwnerEventHandler {
    /// Creates a handler.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, batch: Vec::new(), seen: HashSet::new() }
    }

    fn read(stored: &StoredOwner) -> Option<OwnerDescription> {
        let description = OwnerDescription::read(stored);
        if description.is_none() {
            let why = stored.spec.as_ref().err();
            let why = why.map_or("its subject has a value that admission refuses", String::as_str);
            warn!(name = stored.name(), why, "cannot read a TokenOwner, so its former content still applies");
        }
        description
    }

    fn put_batch(&mut self) {
        self.index.owners().put_all(self.batch.drain(..));
    }
}

impl WatchHandler for OwnerEventHandler {
    type Object = StoredOwner;

    fn init(&mut self) {
        self.batch.clear();
        self.seen.clear();
    }

    fn init_apply(&mut self, stored: StoredOwner) {
        // An unreadable object still exists: an owner that it disabled stays disabled.
        self.seen.insert(stored.name().to_owned());
        self.batch.extend(Self::read(&stored));
        if self.batch.len() >= BATCH {
            self.put_batch();
        }
    }

    fn init_done(&mut self) {
        self.put_batch();
        self.batch = Vec::new();
        let seen = std::mem::take(&mut self.seen);
        self.index.owners().retain(|object| seen.contains(object));
    }

    fn apply(&mut self, stored: StoredOwner) {
        if let Some(description) = Self::read(&stored) {
            self.index.owners().put(description);
        }
    }

    fn delete(&mut self, stored: StoredOwner) {
        self.batch.retain(|one| one.object() != stored.name());
        self.index.owners().remove(stored.name());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn stored(namespace: &str, uid: u32, spec: Value) -> StoredPat {
        let hash = format!("{uid:064}");
        let credential = json!({
            "id": "000000000001", "revision": 1, "sha256": hash, "state": "Active", "issuedAt": "2026-01-01T00:00:00Z",
        });
        let metadata = json!({"namespace": namespace, "name": "app", "uid": format!("{uid:032}")});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": {"credentials": [credential]}}))
            .unwrap()
    }

    fn known(index: &Index) -> Vec<String> {
        let mut known = Vec::new();
        index
            .for_each(|pat| known.push(format!("{}/{}", pat.namespace(), pat.uid.to_string().trim_start_matches('0'))));
        known.sort();
        known
    }

    #[test]
    fn a_relist_never_empties_the_index() {
        let index = Arc::new(Index::default());
        let (mut a, mut b) = (
            PatEventHandler::new(index.clone(), Some("a".into())),
            PatEventHandler::new(index.clone(), Some("b".into())),
        );
        for (handler, namespace, uids) in [(&mut a, "a", [1, 2]), (&mut b, "b", [3, 4])] {
            handler.init();
            uids.iter().for_each(|uid| handler.init_apply(stored(namespace, *uid, json!({}))));
            handler.init_done();
        }
        assert_eq!(known(&index), ["a/1", "a/2", "b/3", "b/4"]);
        // A list that breaks off removes nothing, and what it added stays known to the next one.
        a.init();
        a.init_apply(stored("a", 5, json!({})));
        a.init();
        assert_eq!(index.len(), 4);
        a.init_apply(stored("a", 2, json!({})));
        a.init_apply(stored("a", 6, json!({})));
        a.init_done();
        assert_eq!(known(&index), ["a/2", "a/6", "b/3", "b/4"]);
    }

    #[test]
    fn a_long_list_comes_in_batches() {
        let index = Arc::new(Index::default());
        let mut handler = PatEventHandler::new(index.clone(), None);
        handler.init();
        (1..=10_000).for_each(|uid| handler.init_apply(stored("a", uid, json!({}))));
        assert_eq!(index.pats(), 2 * BATCH);
        handler.init_done();
        assert_eq!((index.pats(), index.len()), (10_000, 10_000));
    }

    #[test]
    fn an_unreadable_pat_is_removed() {
        let index = Arc::new(Index::default());
        let mut handler = PatEventHandler::new(index.clone(), None);
        handler.apply(stored("a", 1, json!({})));
        assert_eq!(index.len(), 1);
        handler.apply(stored("a", 1, json!({"scopes": 7})));
        assert_eq!(index.len(), 0);
        handler.apply(stored("a", 1, json!({})));
        handler.delete(stored("a", 1, json!({})));
        assert_eq!(index.len(), 0);
    }

    fn owner(object: &str, spec: Value) -> StoredOwner {
        serde_json::from_value(json!({"metadata": {"name": object}, "spec": spec})).unwrap()
    }

    #[test]
    fn an_unreadable_owner_keeps_its_former_content() {
        let index = Arc::new(Index::default());
        let mut handler = OwnerEventHandler::new(index.clone());
        let spec = |name: &str| json!({"subject": {"kind": "User", "name": name}, "disabled": true});
        let disabled = |name: &str| index.owners().is_disabled(name);
        handler.init();
        ["a", "b", "c"].iter().for_each(|name| handler.init_apply(owner(name, spec(name))));
        handler.init_done();
        assert!(disabled("a") && disabled("b") && disabled("c"));
        handler.init();
        handler.init_apply(owner("a", spec("a")));
        handler.init_apply(owner("b", json!({"subject": 7})));
        assert!(disabled("c"), "nothing is forgotten before the end of the list");
        handler.init_done();
        assert!(disabled("a") && disabled("b") && !disabled("c"));
        handler.apply(owner("a", json!({"subject": {"kind": "User", "name": "va:x/y"}})));
        assert!(disabled("a"));
        handler.apply(owner("a", json!({"subject": {"kind": "User", "name": "a"}})));
        assert!(!disabled("a"));
        handler.delete(owner("b", json!(null)));
        assert!(!disabled("b"));
    }
}
