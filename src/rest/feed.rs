//! Feeds index and store with what two watches bring: the PATs of one namespace, and TokenOwners.
//!
//! The index first: whoever sees a change in the store finds it there. It must not know how a watch works.

use std::{collections::HashSet, sync::Arc};

use super::{item::Item, store::Store};
use crate::{
    api::{StoredOwner, StoredPat},
    index::{
        PatUid,
        events::{OwnerEventHandler, PatEventHandler},
    },
    service::watch::WatchHandler,
};

/// PATs of a list are put into the store in batches of so many.
const BATCH: usize = 4096;

/// Feeds both with PATs.
pub struct TokenFeed {
    index: PatEventHandler,
    store: Arc<Store>,
    batch: Vec<Item>,
    seen: HashSet<PatUid>,
}

impl TokenFeed {
    /// What `index` feeds, and this store.
    pub fn new(index: PatEventHandler, store: Arc<Store>) -> Self {
        Self { index, store, batch: Vec::new(), seen: HashSet::new() }
    }

    fn put_batch(&mut self) {
        self.store.put(self.batch.drain(..));
    }
}

impl WatchHandler for TokenFeed {
    type Object = StoredPat;

    fn init(&mut self) {
        self.batch.clear();
        self.seen.clear();
        self.index.init();
    }

    fn init_apply(&mut self, stored: StoredPat) {
        if let Some(item) = Item::read(&stored) {
            self.seen.insert(item.id);
            self.batch.push(item);
        }
        self.index.init_apply(stored);
        if self.batch.len() >= BATCH {
            self.put_batch();
        }
    }

    fn init_done(&mut self) {
        self.index.init_done();
        self.put_batch();
        self.batch = Vec::new();
        let seen = std::mem::take(&mut self.seen);
        self.store.retain(|id| seen.contains(&id));
    }

    fn apply(&mut self, stored: StoredPat) {
        let (item, id) = (Item::read(&stored), stored.uid().parse());
        self.index.apply(stored);
        match (item, id) {
            (Some(item), _) => self.store.put([item]),
            (None, Ok(id)) => self.store.remove(id),
            (None, Err(_)) => {}
        }
    }

    fn delete(&mut self, stored: StoredPat) {
        let id = stored.uid().parse();
        self.index.delete(stored);
        if let Ok(id) = id {
            self.batch.retain(|item| item.id != id);
            self.store.remove(id);
        }
    }
}

/// Feeds both with TokenOwners.
pub struct OwnerFeed {
    index: OwnerEventHandler,
    store: Arc<Store>,
    batch: Vec<StoredOwner>,
}

impl OwnerFeed {
    /// What `index` feeds, and this store.
    pub fn new(index: OwnerEventHandler, store: Arc<Store>) -> Self {
        Self { index, store, batch: Vec::new() }
    }
}

impl WatchHandler for OwnerFeed {
    type Object = StoredOwner;

    fn init(&mut self) {
        self.batch.clear();
        self.index.init();
    }

    fn init_apply(&mut self, stored: StoredOwner) {
        self.batch.push(stored.clone());
        self.index.init_apply(stored);
    }

    fn init_done(&mut self) {
        self.index.init_done();
        let batch = std::mem::take(&mut self.batch);
        let seen: HashSet<PatUid> = batch.iter().filter_map(|stored| stored.uid().parse().ok()).collect();
        self.store.change_owners(|owners| {
            batch.iter().for_each(|stored| owners.put(stored));
            owners.retain(|uid| seen.contains(&uid));
        });
    }

    fn apply(&mut self, stored: StoredOwner) {
        self.index.apply(stored.clone());
        self.store.change_owners(|owners| owners.put(&stored));
    }

    fn delete(&mut self, stored: StoredOwner) {
        let uid = stored.uid().parse::<PatUid>().ok();
        self.batch.retain(|one| one.uid().parse().ok() != uid);
        self.index.delete(stored.clone());
        self.store.change_owners(|owners| owners.remove(&stored));
    }
}
