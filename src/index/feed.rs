//! Feeds an index with the PATs, and the owners, that a watch brings.
//!
//! A relist never empties the index: what is listed replaces what was known, and only at the end of the list goes what was
//! not in it. It must not know how a watch works.

use std::{collections::HashSet, sync::Arc};

use tracing::warn;

use super::{owners::Description, record::Pat, store::Index, uid::PatUid};
use crate::api::{StoredOwner, StoredPat};
use crate::service::watch::Sink;

/// PATs of a list are put into the index in batches of so many: each copies every shard, and with a hundred thousand in the index
/// that takes a millisecond.
const BATCH: usize = 4096;

/// Feeds the PATs of one namespace, or of all.
pub struct PatFeed {
    index: Arc<Index>,
    namespace: Option<String>,
    batch: Vec<Pat>,
    /// Which PATs the list has had so far; `None` if there are no others that would have to go.
    seen: Option<HashSet<PatUid>>,
}

impl PatFeed {
    /// Feeds this index with the PATs of this namespace; `None` for all.
    pub fn new(index: Arc<Index>, namespace: Option<String>) -> Self {
        Self { index, namespace, batch: Vec::new(), seen: None }
    }

    fn read(&self, stored: &StoredPat) -> Option<Pat> {
        let pat = Pat::read(stored);
        if pat.is_none() {
            let (namespace, name) = (stored.namespace(), stored.name());
            let why = [stored.spec.as_ref().err(), stored.status.as_ref().err()].into_iter().flatten().next();
            let why = why.map_or("its fields are not what admission would let in", String::as_str);
            warn!(namespace, name, why, "a PersonalAccessToken cannot be read: none of its tokens is accepted");
        }
        pat
    }

    fn put_batch(&mut self) {
        self.index.put_all(self.batch.drain(..));
    }
}

impl Sink for PatFeed {
    type Object = StoredPat;

    fn list_begins(&mut self) {
        self.batch.clear();
        self.seen = (self.index.pats() > 0).then(HashSet::new);
    }

    fn listed(&mut self, stored: StoredPat) {
        let Some(pat) = self.read(&stored) else { return };
        if let Some(seen) = &mut self.seen {
            seen.insert(pat.uid);
        }
        self.batch.push(pat);
        if self.batch.len() >= BATCH {
            self.put_batch();
        }
    }

    fn list_ends(&mut self) {
        self.put_batch();
        self.batch = Vec::new();
        let Some(seen) = self.seen.take() else { return };
        let is_elsewhere = |pat: &Pat| self.namespace.as_ref().is_some_and(|namespace| namespace != pat.namespace());
        self.index.retain(|pat| is_elsewhere(pat) || seen.contains(&pat.uid));
    }

    fn changed(&mut self, stored: StoredPat) {
        match self.read(&stored) {
            Some(pat) => self.index.put(pat),
            None => self.deleted(stored),
        }
    }

    fn deleted(&mut self, stored: StoredPat) {
        if let Ok(uid) = stored.uid().parse() {
            self.batch.retain(|pat| pat.uid != uid);
            self.index.remove(uid);
        }
    }
}

/// Feeds the `TokenOwner`s.
pub struct OwnerFeed {
    index: Arc<Index>,
    batch: Vec<Description>,
    /// Names of the objects that the list has had so far.
    seen: HashSet<String>,
}

impl OwnerFeed {
    /// Feeds this index.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, batch: Vec::new(), seen: HashSet::new() }
    }

    fn read(stored: &StoredOwner) -> Option<Description> {
        let description = Description::read(stored);
        if description.is_none() {
            let why = stored.spec.as_ref().err();
            let why = why.map_or("its subject is not what admission would let in", String::as_str);
            warn!(name = stored.name(), why, "a TokenOwner cannot be read: what it said before still holds");
        }
        description
    }

    fn put_batch(&mut self) {
        self.index.owners().put_all(self.batch.drain(..));
    }
}

impl Sink for OwnerFeed {
    type Object = StoredOwner;

    fn list_begins(&mut self) {
        self.batch.clear();
        self.seen.clear();
    }

    fn listed(&mut self, stored: StoredOwner) {
        // Also what cannot be read is there: somebody whom it disabled is not enabled by that.
        self.seen.insert(stored.name().to_owned());
        self.batch.extend(Self::read(&stored));
        if self.batch.len() >= BATCH {
            self.put_batch();
        }
    }

    fn list_ends(&mut self) {
        self.put_batch();
        self.batch = Vec::new();
        let seen = std::mem::take(&mut self.seen);
        self.index.owners().retain(|object| seen.contains(object));
    }

    fn changed(&mut self, stored: StoredOwner) {
        if let Some(description) = Self::read(&stored) {
            self.index.owners().put(description);
        }
    }

    fn deleted(&mut self, stored: StoredOwner) {
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
    fn a_relist_never_empties_the_index_and_forgets_only_what_is_its_own() {
        let index = Arc::new(Index::default());
        let (mut a, mut b) =
            (PatFeed::new(index.clone(), Some("a".into())), PatFeed::new(index.clone(), Some("b".into())));
        for (feed, namespace, uids) in [(&mut a, "a", [1, 2]), (&mut b, "b", [3, 4])] {
            feed.list_begins();
            uids.iter().for_each(|uid| feed.listed(stored(namespace, *uid, json!({}))));
            feed.list_ends();
        }
        assert_eq!(known(&index), ["a/1", "a/2", "b/3", "b/4"]);
        // A list that breaks off takes nothing away, and does not make the next one forget what it brought.
        a.list_begins();
        a.listed(stored("a", 5, json!({})));
        a.list_begins();
        assert_eq!(index.len(), 4);
        a.listed(stored("a", 2, json!({})));
        a.listed(stored("a", 6, json!({})));
        a.list_ends();
        assert_eq!(known(&index), ["a/2", "a/6", "b/3", "b/4"]);
    }

    #[test]
    fn a_long_list_is_visible_in_batches_and_complete_at_its_end() {
        let index = Arc::new(Index::default());
        let mut feed = PatFeed::new(index.clone(), None);
        feed.list_begins();
        (1..=10_000).for_each(|uid| feed.listed(stored("a", uid, json!({}))));
        assert_eq!(index.pats(), 2 * BATCH);
        feed.list_ends();
        assert_eq!((index.pats(), index.len()), (10_000, 10_000));
    }

    #[test]
    fn what_can_no_longer_be_read_is_no_longer_accepted() {
        let index = Arc::new(Index::default());
        let mut feed = PatFeed::new(index.clone(), None);
        feed.changed(stored("a", 1, json!({})));
        assert_eq!(index.len(), 1);
        feed.changed(stored("a", 1, json!({"scopes": 7})));
        assert_eq!(index.len(), 0);
        feed.changed(stored("a", 1, json!({})));
        feed.deleted(stored("a", 1, json!({})));
        assert_eq!(index.len(), 0);
    }

    fn owner(object: &str, spec: Value) -> StoredOwner {
        serde_json::from_value(json!({"metadata": {"name": object}, "spec": spec})).unwrap()
    }

    #[test]
    fn an_owner_that_is_listed_no_more_is_forgotten_and_one_that_cannot_be_read_stays_what_it_was() {
        let index = Arc::new(Index::default());
        let mut feed = OwnerFeed::new(index.clone());
        let spec = |name: &str| json!({"subject": {"kind": "User", "name": name}, "disabled": true});
        let disabled = |name: &str| index.owners().is_disabled(name);
        feed.list_begins();
        ["a", "b", "c"].iter().for_each(|name| feed.listed(owner(name, spec(name))));
        feed.list_ends();
        assert!(disabled("a") && disabled("b") && disabled("c"));
        feed.list_begins();
        feed.listed(owner("a", spec("a")));
        feed.listed(owner("b", json!({"subject": 7})));
        assert!(disabled("c"), "nothing is forgotten before the end of the list");
        feed.list_ends();
        assert!(disabled("a") && disabled("b") && !disabled("c"));
        feed.changed(owner("a", json!({"subject": {"kind": "User", "name": "va:x/y"}})));
        assert!(disabled("a"));
        feed.changed(owner("a", json!({"subject": {"kind": "User", "name": "a"}})));
        assert!(!disabled("a"));
        feed.deleted(owner("b", json!(null)));
        assert!(!disabled("b"));
    }
}
