//! All tokens and owners of one server, as a watch brings them: in memory, in order of creation, and by owner.
//!
//! A list is answered from here alone. It must not know how a watch works, nor judge anything.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tokio::sync::watch;

use super::{
    item::Item,
    owners::{OwnerEntry, Owners, of_text},
    query::{Given, Page, Query, Whose},
    row::Row,
};
use crate::{
    api::{Owner, Time},
    index::PatUid,
};

/// See the module.
#[derive(Debug)]
pub struct Store {
    state: RwLock<State>,
    /// Goes up with every change, for those who wait for one.
    version: watch::Sender<u64>,
}

type Ordered = BTreeMap<(Time, PatUid), Row>;

#[derive(Debug, Default)]
struct State {
    items: HashMap<PatUid, Arc<Item>>,
    by_creation: Ordered,
    by_owner: HashMap<Owner, Ordered>,
    owners: Owners,
}

impl Default for Store {
    fn default() -> Self {
        Self { state: RwLock::default(), version: watch::Sender::new(0) }
    }
}

impl Store {
    /// Answers a query.
    pub fn list(&self, query: &Query) -> Page {
        let state = self.read();
        match &query.whose {
            Whose::All => query.run(state.by_creation.values(), Given::ByCreation),
            Whose::Owner(owner) | Whose::Managed(owner) => match state.by_owner.get(owner) {
                Some(items) => query.run(items.values(), Given::ByCreation),
                None => Page { items: Vec::new(), total: 0 },
            },
        }
    }

    /// The token of this id.
    pub fn item(&self, id: PatUid) -> Option<Arc<Item>> {
        self.read().items.get(&id).cloned()
    }

    /// An owner's token with this name, as people see it.
    pub fn named(&self, owner: &Owner, display_name: &str) -> Option<Arc<Item>> {
        let state = self.read();
        let mut items = state.by_owner.get(owner)?.values().map(Row::item);
        items.find(|item| item.display_name == display_name).cloned()
    }

    /// What is known of an owner.
    pub fn owner(&self, owner: &Owner) -> OwnerEntry {
        self.read().owners.entry(owner)
    }

    /// The owner of this id: a TokenOwner's, or, where none speaks of it, the owner of some token.
    pub fn owner_by_id(&self, id: &str) -> Option<OwnerEntry> {
        let state = self.read();
        if let Some(entry) = state.owners.by_id(id) {
            return Some(entry);
        }
        let owner = of_text(id);
        let entry = state.owners.entry(&owner);
        (entry.times.is_none() && state.by_owner.contains_key(&owner)).then_some(entry)
    }

    /// The one owner with this email.
    pub fn owner_by_email(&self, email: &str) -> Option<OwnerEntry> {
        self.read().owners.by_email(email)
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.read().items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells of each change from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Takes in tokens, each in place of what it was before.
    pub fn put(&self, items: impl IntoIterator<Item = Item>) {
        self.write(|state| items.into_iter().for_each(|item| state.put(item)));
    }

    /// Forgets a token.
    pub fn remove(&self, id: PatUid) {
        self.write(|state| state.remove(id));
    }

    /// Forgets every token that is not to be kept.
    pub fn retain(&self, keep: impl Fn(PatUid) -> bool) {
        self.write(|state| {
            let gone: Vec<PatUid> = state.items.keys().copied().filter(|id| !keep(*id)).collect();
            gone.into_iter().for_each(|id| state.remove(id));
        });
    }

    /// Changes what is known of owners.
    pub fn change_owners(&self, change: impl FnOnce(&mut Owners)) {
        self.write(|state| change(&mut state.owners));
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }
}

impl State {
    fn put(&mut self, item: Item) {
        let (id, key, item) = (item.id, (item.created_at, item.id), Arc::new(item));
        let row = Row::from(item.clone());
        if let Some(old) = self.items.insert(id, item.clone()) {
            // Neither of the two ever changes of one object; should they, nothing of the old one may stay.
            if (old.created_at, &old.owner) != (item.created_at, &item.owner) {
                self.forget(&old);
            }
        }
        if let Some(items) = self.by_owner.get_mut(&item.owner) {
            items.insert(key, row.clone());
        } else {
            self.by_owner.insert(item.owner.clone(), Ordered::from([(key, row.clone())]));
        }
        self.by_creation.insert(key, row);
    }

    fn remove(&mut self, id: PatUid) {
        if let Some(old) = self.items.remove(&id) {
            self.forget(&old);
        }
    }

    fn forget(&mut self, old: &Item) {
        let key = (old.created_at, old.id);
        self.by_creation.remove(&key);
        if let Some(items) = self.by_owner.get_mut(&old.owner) {
            items.remove(&key);
            if items.is_empty() {
                self.by_owner.remove(&old.owner);
            }
        }
    }
}
