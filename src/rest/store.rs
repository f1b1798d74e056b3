//! The store: all tokens and owners of one namespace in memory, filled by two watches. All lists are answered from it.
//!
//! kube's reflector `Store` has no secondary index, so each list would sort and filter every object.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tokio::sync::watch;

use super::{
    model::TokenItem,
    query::{OwnerSelector, TokenPage, TokenQuery, TokenRow},
};
use crate::{
    api::{Owner, OwnerKind, StoredOwner, StoredPat, Time, TokenOwnerSpec},
    index::{
        PatUid,
        events::{OwnerEventHandler, PatEventHandler},
    },
    service::watch::WatchHandler,
};

/// Tokens in order of creation and by owner, and the owners themselves.
#[derive(Debug)]
pub struct TokenStore {
    state: RwLock<StoreState>,
    /// Changes with every write, to notify waiters.
    version: watch::Sender<u64>,
}

type RowsByCreation = BTreeMap<(Time, PatUid), TokenRow>;

#[derive(Debug, Default)]
struct StoreState {
    items: HashMap<PatUid, Arc<TokenItem>>,
    by_creation: RowsByCreation,
    by_owner: HashMap<Owner, RowsByCreation>,
    /// The tokens with a parent, by the parent.
    by_parent: HashMap<PatUid, BTreeSet<PatUid>>,
    owners: OwnerDirectory,
}

impl Default for TokenStore {
    fn default() -> Self {
        Self { state: RwLock::default(), version: watch::Sender::new(0) }
    }
}

impl TokenStore {
    /// Runs a query.
    pub fn list(&self, query: &TokenQuery) -> TokenPage {
        let state = self.read();
        match &query.owner {
            OwnerSelector::All => query.run(state.by_creation.values()),
            OwnerSelector::Owner(owner) | OwnerSelector::Managed(owner) => match state.by_owner.get(owner) {
                Some(items) => query.run(items.values()),
                None => TokenPage { items: Vec::new(), total: 0 },
            },
        }
    }

    /// Returns the token with this id.
    pub fn item(&self, id: PatUid) -> Option<Arc<TokenItem>> {
        self.read().items.get(&id).cloned()
    }

    /// Returns the owner's token with this display name.
    pub fn named(&self, owner: &Owner, display_name: &str) -> Option<Arc<TokenItem>> {
        let state = self.read();
        let mut items = state.by_owner.get(owner)?.values().map(TokenRow::item);
        items.find(|item| item.display_name == display_name).cloned()
    }

    /// Returns the tokens that are not revoked, but their parent is.
    pub fn children_of_revoked(&self) -> Vec<Arc<TokenItem>> {
        let state = self.read();
        let is_revoked = |id: &PatUid| state.items.get(id).is_some_and(|item| item.revoked);
        let parents = state.by_parent.iter().filter(|(parent, _)| is_revoked(parent));
        let children = parents.flat_map(|(_, children)| children).filter(|child| !is_revoked(child));
        children.filter_map(|child| state.items.get(child).cloned()).collect()
    }

    /// Returns what is known of an owner.
    pub fn owner(&self, owner: &Owner) -> OwnerEntry {
        self.read().owners.entry(owner)
    }

    /// Returns the owner with this id: of a TokenOwner, or, without one, of some token.
    pub fn owner_by_id(&self, id: &str) -> Option<OwnerEntry> {
        let state = self.read();
        if let Some(entry) = state.owners.by_id(id) {
            return Some(entry);
        }
        let owner = owner_from_text(id);
        let entry = state.owners.entry(&owner);
        (entry.times.is_none() && state.by_owner.contains_key(&owner)).then_some(entry)
    }

    /// Returns the only owner with this email.
    pub fn owner_by_email(&self, email: &str) -> Option<OwnerEntry> {
        self.read().owners.by_email(email)
    }

    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.read().items.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a receiver that is notified of each further change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Inserts or replaces tokens.
    pub fn put(&self, items: impl IntoIterator<Item = TokenItem>) {
        self.write(|state| items.into_iter().for_each(|item| state.put(item)));
    }

    /// Removes a token.
    pub fn remove(&self, id: PatUid) {
        self.write(|state| state.remove(id));
    }

    /// Removes all tokens but those to keep.
    pub fn retain(&self, keep: impl Fn(PatUid) -> bool) {
        self.write(|state| {
            let gone: Vec<PatUid> = state.items.keys().copied().filter(|id| !keep(*id)).collect();
            gone.into_iter().for_each(|id| state.remove(id));
        });
    }

    /// Changes the owners.
    pub fn change_owners(&self, change: impl FnOnce(&mut OwnerDirectory)) {
        self.write(|state| change(&mut state.owners));
    }

    fn read(&self) -> RwLockReadGuard<'_, StoreState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut StoreState)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }
}

impl StoreState {
    fn put(&mut self, item: TokenItem) {
        let (id, key, item) = (item.id, (item.created_at, item.id), Arc::new(item));
        let row = TokenRow::from(item.clone());
        if let Some(old) = self.items.insert(id, item.clone()) {
            // These are immutable, but a parent may be set later. If they change, the old entry must be removed.
            if (old.created_at, &old.owner, old.parent) != (item.created_at, &item.owner, item.parent) {
                self.forget(&old);
            }
        }
        if let Some(parent) = item.parent {
            self.by_parent.entry(parent).or_default().insert(id);
        }
        if let Some(items) = self.by_owner.get_mut(&item.owner) {
            items.insert(key, row.clone());
        } else {
            self.by_owner.insert(item.owner.clone(), RowsByCreation::from([(key, row.clone())]));
        }
        self.by_creation.insert(key, row);
    }

    fn remove(&mut self, id: PatUid) {
        if let Some(old) = self.items.remove(&id) {
            self.forget(&old);
        }
    }

    fn forget(&mut self, old: &TokenItem) {
        let key = (old.created_at, old.id);
        self.by_creation.remove(&key);
        if let Some(parent) = old.parent
            && let Some(children) = self.by_parent.get_mut(&parent)
        {
            children.remove(&old.id);
            if children.is_empty() {
                self.by_parent.remove(&parent);
            }
        }
        if let Some(items) = self.by_owner.get_mut(&old.owner) {
            items.remove(&key);
            if items.is_empty() {
                self.by_owner.remove(&old.owner);
            }
        }
    }
}

/// What is known of an owner, with or without a TokenOwner.
#[derive(Clone, Debug)]
pub struct OwnerEntry {
    /// Its id in every dialect: the TokenOwner's uid as 32 hexadecimal digits, or, without one, the owner as text.
    pub id: String,
    /// The owner.
    pub owner: Owner,
    /// When the TokenOwner was created and last changed, if there is one.
    pub times: Option<(Time, Time)>,
    /// The TokenOwner's spec; only the subject is set if there is none.
    pub spec: Arc<TokenOwnerSpec>,
}

#[derive(Clone, Debug)]
struct OwnerRecord {
    created_at: Time,
    updated_at: Time,
    spec: Arc<TokenOwnerSpec>,
}

/// TokenOwners by owner, id and email. If several describe one owner, the oldest is used.
#[derive(Debug, Default)]
pub struct OwnerDirectory {
    by_uid: HashMap<PatUid, OwnerRecord>,
    /// Oldest first.
    by_subject: HashMap<Owner, BTreeSet<(Time, PatUid)>>,
    by_email: HashMap<String, BTreeSet<PatUid>>,
}

impl OwnerDirectory {
    fn entry(&self, owner: &Owner) -> OwnerEntry {
        let first = self.by_subject.get(owner).and_then(|objects| objects.first());
        match first.and_then(|(_, uid)| Some((uid, self.by_uid.get(uid)?))) {
            Some((uid, record)) => OwnerEntry {
                id: uid.to_string(),
                owner: owner.clone(),
                times: Some((record.created_at, record.updated_at)),
                spec: record.spec.clone(),
            },
            None => {
                let spec = Arc::new(empty_spec(owner.clone()));
                OwnerEntry { id: owner.text(), owner: owner.clone(), times: None, spec }
            }
        }
    }

    fn by_id(&self, id: &str) -> Option<OwnerEntry> {
        // Only the canonical text is an id, without dashes and in lower case.
        let uid: PatUid = id.parse().ok().filter(|uid: &PatUid| uid.to_string() == id)?;
        Some(self.entry(&self.by_uid.get(&uid)?.spec.subject))
    }

    /// Returns the only owner with this email, ignoring case; `None` if there are none or several.
    fn by_email(&self, email: &str) -> Option<OwnerEntry> {
        let uids = self.by_email.get(&email.to_lowercase())?.iter();
        let mut subjects = uids.filter_map(|uid| Some(&self.by_uid.get(uid)?.spec.subject));
        let first = subjects.next()?;
        subjects.all(|other| other == first).then(|| self.entry(first))
    }

    /// Inserts or replaces an object. A malformed one is removed.
    pub fn put(&mut self, stored: &StoredOwner) {
        self.remove(stored);
        let (Ok(uid), Ok(spec)) = (stored.uid().parse::<PatUid>(), &stored.spec) else { return };
        let Some(created_at) = stored.metadata.creation_timestamp.as_ref().map(|time| time.0.into()) else { return };
        self.by_subject.entry(spec.subject.clone()).or_default().insert((created_at, uid));
        if let Some(email) = &spec.email {
            self.by_email.entry(email.to_lowercase()).or_default().insert(uid);
        }
        let updated_at = stored.updated_at.unwrap_or(created_at);
        self.by_uid.insert(uid, OwnerRecord { created_at, updated_at, spec: Arc::new(spec.clone()) });
    }

    /// Removes an object.
    pub fn remove(&mut self, stored: &StoredOwner) {
        if let Ok(uid) = stored.uid().parse() {
            self.forget(uid);
        }
    }

    /// Removes all objects but those to keep.
    pub fn retain(&mut self, keep: impl Fn(PatUid) -> bool) {
        let gone: Vec<PatUid> = self.by_uid.keys().copied().filter(|uid| !keep(*uid)).collect();
        gone.into_iter().for_each(|uid| self.forget(uid));
    }

    fn forget(&mut self, uid: PatUid) {
        let Some(old) = self.by_uid.remove(&uid) else { return };
        if let Some(objects) = self.by_subject.get_mut(&old.spec.subject) {
            objects.remove(&(old.created_at, uid));
            if objects.is_empty() {
                self.by_subject.remove(&old.spec.subject);
            }
        }
        let Some(email) = old.spec.email.as_ref().map(|email| email.to_lowercase()) else { return };
        if let Some(objects) = self.by_email.get_mut(&email) {
            objects.remove(&uid);
            if objects.is_empty() {
                self.by_email.remove(&email);
            }
        }
    }
}

/// The inverse of [`Owner::text`].
fn owner_from_text(text: &str) -> Owner {
    match text.strip_prefix("va:") {
        Some(name) => Owner { kind: OwnerKind::VirtualAccount, name: name.to_owned() },
        None => Owner { kind: OwnerKind::User, name: text.to_owned() },
    }
}

fn empty_spec(subject: Owner) -> TokenOwnerSpec {
    TokenOwnerSpec {
        subject,
        display_name: None,
        email: None,
        first_name: None,
        last_name: None,
        company: None,
        groups: Vec::new(),
        roles: Vec::new(),
        role: None,
        disabled: None,
        two_factor_enabled: None,
        google_sso_enabled: None,
        last_login_at: None,
        last_seen_at: None,
        allow_customer_portal_access: None,
        organization_id: None,
        organization: None,
        reseller_id: None,
        reseller: None,
        metadata: Vec::new(),
        tags: Vec::new(),
        email_preference: None,
    }
}

/// The batch size in which a list of PATs enters the store.
const BATCH: usize = 4096;

/// Applies watch events of PATs to the index, then to the store: a change that is visible in the store is in the index.
pub struct TokenStoreHandler {
    index: PatEventHandler,
    store: Arc<TokenStore>,
    batch: Vec<TokenItem>,
    seen: HashSet<PatUid>,
}

impl TokenStoreHandler {
    /// Creates a handler.
    pub fn new(index: PatEventHandler, store: Arc<TokenStore>) -> Self {
        Self { index, store, batch: Vec::new(), seen: HashSet::new() }
    }

    fn put_batch(&mut self) {
        self.store.put(self.batch.drain(..));
    }
}

impl WatchHandler for TokenStoreHandler {
    type Object = StoredPat;

    fn init(&mut self) {
        self.batch.clear();
        self.seen.clear();
        self.index.init();
    }

    fn init_apply(&mut self, stored: StoredPat) {
        if let Some(item) = TokenItem::read(&stored) {
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
        let (item, id) = (TokenItem::read(&stored), stored.uid().parse());
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

/// Applies watch events of TokenOwners to the index and the store.
pub struct OwnerStoreHandler {
    index: OwnerEventHandler,
    store: Arc<TokenStore>,
    batch: Vec<StoredOwner>,
}

impl OwnerStoreHandler {
    /// Creates a handler.
    pub fn new(index: OwnerEventHandler, store: Arc<TokenStore>) -> Self {
        Self { index, store, batch: Vec::new() }
    }
}

impl WatchHandler for OwnerStoreHandler {
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
