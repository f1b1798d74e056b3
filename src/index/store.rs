//! The index: sharded hash tables that are replaced, never changed, so that readers never wait.
//!
//! A write copies the shards that it touches, changes the copies and swaps them in. A reader sees a shard before or after a write, and a
//! token that stays live is in both.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use hashbrown::HashTable;

use super::{
    owners::{OwnerIndex, add},
    record::{CredentialRef, IndexedPat},
    uid::PatUid,
};
use crate::{api::Time, token::TokenHash};

/// The number of shards: with 100,000 tokens a write copies two kilobytes, and empty shards take little memory.
const SHARDS: usize = 1024;

/// The number of removed hashes that a shard remembers; 65,536 in all.
const REMEMBERED: usize = 64;

/// The maximum number of attempts to record a use. An attempt fails only if the PAT is updated in between.
const MOVES: usize = 8;

/// The live credentials by hash, the PATs by uid, and the owners.
pub struct Index {
    by_hash: Box<[ArcSwap<TokenShard>]>,
    by_uid: Box<[ArcSwap<PatShard>]>,
    credentials: AtomicUsize,
    pats: AtomicUsize,
    /// The number of claims to hashes that more than one PAT claims, without the first claim to each.
    contested: AtomicUsize,
    owners: OwnerIndex,
    /// Serializes writers.
    writer: Mutex<()>,
}

/// A shard of credentials. The keys are the hashes inside the PATs, so they are not stored again.
#[derive(Default)]
struct TokenShard {
    live: CredentialTable,
    /// The number of claims to a hash that another entry has already.
    contested: usize,
    /// The first half of each removed hash, oldest first; 128 bits of SHA-256 suffice.
    removed: Arc<[u128]>,
}

#[derive(Clone, Default)]
struct PatShard(HashTable<Arc<IndexedPat>>);

impl Default for Index {
    fn default() -> Self {
        Self::with_shards(SHARDS)
    }
}

impl Index {
    fn with_shards(shards: usize) -> Self {
        Self {
            by_hash: (0..shards).map(|_| ArcSwap::default()).collect(),
            by_uid: (0..shards).map(|_| ArcSwap::default()).collect(),
            credentials: AtomicUsize::new(0),
            pats: AtomicUsize::new(0),
            contested: AtomicUsize::new(0),
            owners: OwnerIndex::default(),
            writer: Mutex::new(()),
        }
    }

    /// Returns the live credential with this hash; any of them, if several PATs claim it.
    pub fn get(&self, hash: &TokenHash) -> Option<CredentialRef> {
        self.by_hash[self.shard_of_hash(hash)].load().live.find(hash)
    }

    /// Returns all live credentials with this hash, the oldest PAT's first, if more than one PAT claims it, as after a restore from a
    /// backup. Otherwise returns none. While no hash is claimed twice, this costs one atomic read.
    pub fn conflicting(&self, hash: &TokenHash) -> Vec<CredentialRef> {
        if self.contested.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let shard = self.by_hash[self.shard_of_hash(hash)].load();
        let mut claims: Vec<CredentialRef> = shard.live.all(hash).collect();
        claims.sort_by_cached_key(|claim| claim.pat.seniority());
        if claims.len() > 1 { claims } else { Vec::new() }
    }

    /// Returns the PAT with this uid.
    pub fn pat(&self, uid: PatUid) -> Option<Arc<IndexedPat>> {
        self.by_uid[self.shard_of_uid(uid)].load().find(uid).cloned()
    }

    /// Whether a token with this hash was removed recently, because it was revoked, expired or deleted.
    pub fn was_removed(&self, hash: &TokenHash) -> bool {
        let shard = self.by_hash[self.shard_of_hash(hash)].load();
        shard.removed.contains(&half(hash)) && shard.live.find(hash).is_none()
    }

    /// Returns the number of live credentials.
    pub fn len(&self) -> usize {
        self.credentials.load(Ordering::Relaxed)
    }

    /// Whether there is no live credential.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of PATs, including those without a live credential.
    pub fn pats(&self) -> usize {
        self.pats.load(Ordering::Relaxed)
    }

    /// Calls `visit` for every PAT, in no particular order. A PAT that changes meanwhile is visited in its old or its
    /// new state.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<IndexedPat>)) {
        for shard in &self.by_uid {
            shard.load_full().0.iter().for_each(&mut visit);
        }
    }

    /// Returns the owners.
    pub fn owners(&self) -> &OwnerIndex {
        &self.owners
    }

    /// Records that a credential was accepted.
    pub fn mark_used(&self, record: &CredentialRef, now: Time) {
        if record.credential().mark_used(now) {
            return;
        }
        // The PAT was updated since the lookup.
        let hash = record.credential().hash;
        for _ in 0..MOVES {
            let Some(newer) = self.get(&hash) else { return };
            if newer.credential().mark_used(now) {
                return;
            }
        }
    }

    /// Adds or replaces a PAT.
    pub fn put(&self, pat: IndexedPat) {
        self.put_all([pat]);
    }

    /// Adds or replaces many PATs; each shard is copied at most once.
    pub fn put_all(&self, pats: impl IntoIterator<Item = IndexedPat>) {
        self.write(|changes| pats.into_iter().for_each(|pat| changes.put(pat)));
    }

    /// Removes a PAT.
    pub fn remove(&self, uid: PatUid) {
        self.write(|changes| changes.remove(uid));
    }

    /// Removes every PAT that `keep` rejects.
    pub fn retain(&self, mut keep: impl FnMut(&IndexedPat) -> bool) {
        let mut gone = Vec::new();
        self.for_each(|pat| {
            if !keep(pat) {
                gone.push(pat.uid);
            }
        });
        self.write(|changes| gone.into_iter().for_each(|uid| changes.remove(uid)));
    }

    fn write(&self, change: impl FnOnce(&mut IndexChanges<'_>)) {
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, pats, latest, replaced) = Default::default();
        let mut changes = IndexChanges { index: self, tokens, pats, latest, replaced };
        change(&mut changes);
        changes.publish();
    }

    fn shard_of_hash(&self, hash: &TokenHash) -> usize {
        let [first, second, third, ..] = *hash.as_bytes();
        u32::from_be_bytes([0, first, second, third]) as usize % self.by_hash.len()
    }

    fn shard_of_uid(&self, uid: PatUid) -> usize {
        (uid.mixed() >> 32) as usize % self.by_uid.len()
    }
}

impl TokenShard {
    /// Returns a copy with these changes.
    fn with<'c>(&self, changes: impl Iterator<Item = &'c TokenChange>) -> Self {
        let (mut live, mut contested, mut removed) = (self.live.to_vec(), self.contested, self.removed.clone());
        for change in changes {
            match change {
                TokenChange::Put(slot) => match live.iter_mut().find(|one| one.is_same(slot)) {
                    Some(place) => *place = slot.clone(),
                    // After a restore two PATs may claim one hash; each has its own entry.
                    None => {
                        contested += usize::from(live.iter().any(|one| one.conflicts_with(slot)));
                        live.push(slot.clone());
                    }
                },
                TokenChange::Remove(hash, uid) => {
                    let Some(place) = live.iter().position(|one| one.is(hash, *uid)) else { continue };
                    live.swap_remove(place);
                    contested -= usize::from(live.iter().any(|one| one.has(hash)));
                    let forgotten = (removed.len() + 1).saturating_sub(REMEMBERED);
                    let gone = half(hash);
                    removed = removed[forgotten..].iter().copied().filter(|one| *one != gone).chain([gone]).collect();
                }
            }
        }
        Self { live: live.into(), contested, removed }
    }
}

impl PatShard {
    fn find(&self, uid: PatUid) -> Option<&Arc<IndexedPat>> {
        self.0.find(uid.mixed(), |pat| pat.uid == uid)
    }

    fn put(&mut self, pat: Arc<IndexedPat>) {
        match self.0.find_mut(pat.uid.mixed(), |one| one.uid == pat.uid) {
            Some(place) => *place = pat,
            None => {
                self.0.insert_unique(pat.uid.mixed(), pat, |one| one.uid.mixed());
            }
        }
    }

    fn remove(&mut self, uid: PatUid) {
        if let Ok(entry) = self.0.find_entry(uid.mixed(), |pat| pat.uid == uid) {
            entry.remove();
        }
    }
}

/// The changes of one write. They are collected first; then the shards are copied, changed and swapped in one by one, so that only one of
/// them exists twice.
struct IndexChanges<'i> {
    index: &'i Index,
    tokens: Vec<(usize, TokenChange)>,
    pats: Vec<(usize, PatChange)>,
    /// The PATs after these changes.
    latest: HashMap<PatUid, Option<Arc<IndexedPat>>>,
    replaced: Vec<(Arc<IndexedPat>, Arc<IndexedPat>)>,
}

enum TokenChange {
    Put(CredentialSlot),
    Remove(TokenHash, PatUid),
}

enum PatChange {
    Put(Arc<IndexedPat>),
    Remove(PatUid),
}

impl IndexChanges<'_> {
    fn put(&mut self, pat: IndexedPat) {
        let (uid, pat) = (pat.uid, Arc::new(pat));
        for (position, credential) in (0..=u8::MAX).zip(pat.credentials.iter()) {
            let shard = self.index.shard_of_hash(&credential.hash);
            self.tokens.extend(CredentialSlot::new(pat.clone(), position).map(|slot| (shard, TokenChange::Put(slot))));
        }
        if let Some(old) = self.latest(uid) {
            for gone in old.credentials.iter().filter(|one| pat.credentials.with(&one.hash).is_none()) {
                self.remove_credential(gone.hash, uid);
            }
            self.replaced.push((old, pat.clone()));
        }
        self.latest.insert(uid, Some(pat.clone()));
        self.pats.push((self.index.shard_of_uid(uid), PatChange::Put(pat)));
    }

    fn remove(&mut self, uid: PatUid) {
        let Some(old) = self.latest(uid) else { return };
        for gone in old.credentials.iter() {
            self.remove_credential(gone.hash, uid);
        }
        self.latest.insert(uid, None);
        self.pats.push((self.index.shard_of_uid(uid), PatChange::Remove(uid)));
    }

    fn remove_credential(&mut self, hash: TokenHash, uid: PatUid) {
        self.tokens.push((self.index.shard_of_hash(&hash), TokenChange::Remove(hash, uid)));
    }

    fn latest(&self, uid: PatUid) -> Option<Arc<IndexedPat>> {
        self.latest.get(&uid).cloned().unwrap_or_else(|| self.index.pat(uid))
    }

    fn publish(self) {
        let Self { index, mut tokens, mut pats, replaced, .. } = self;
        // A stable sort keeps the order of changes to the same entry.
        tokens.sort_by_key(|(shard, _)| *shard);
        for changes in tokens.chunk_by(|(one, _), (other, _)| one == other) {
            let shard = &index.by_hash[changes[0].0];
            let new = shard.load().with(changes.iter().map(|(_, change)| change));
            let after = (new.live.len(), new.contested);
            let before = shard.swap(Arc::new(new));
            add(&index.credentials, before.live.len(), after.0);
            add(&index.contested, before.contested, after.1);
        }
        pats.sort_by_key(|(shard, _)| *shard);
        for changes in pats.chunk_by(|(one, _), (other, _)| one == other) {
            let shard = &index.by_uid[changes[0].0];
            let mut new = PatShard::clone(&shard.load());
            for (_, change) in changes {
                match change {
                    PatChange::Put(pat) => new.put(pat.clone()),
                    PatChange::Remove(uid) => new.remove(*uid),
                }
            }
            let after = new.0.len();
            add(&index.pats, shard.swap(Arc::new(new)).0.len(), after);
        }
        // This comes after the swap, because a reader with an old copy must find the new one.
        for (old, new) in replaced {
            for credential in new.credentials.iter() {
                if let Some(before) = old.credentials.with(&credential.hash) {
                    credential.take_over(before);
                }
            }
        }
    }
}

fn half(hash: &TokenHash) -> u128 {
    let (halves, _) = hash.as_bytes().as_chunks();
    u128::from_be_bytes(halves[0])
}

/// An immutable hash table of credentials with open addressing. A third of it is empty, which keeps searches short.
///
/// `hashbrown` would touch more cache lines: a lookup here touches two, that of the slot and that of the PAT.
#[derive(Default)]
struct CredentialTable {
    slots: Box<[Option<CredentialSlot>]>,
    taken: usize,
}

/// A credential of a PAT, and enough of its hash to skip others.
#[derive(Clone)]
struct CredentialSlot {
    pat: Arc<IndexedPat>,
    tag: u32,
    position: u8,
}

impl CredentialSlot {
    /// Creates the slot of the credential at this position of a PAT, if there is one.
    fn new(pat: Arc<IndexedPat>, position: u8) -> Option<Self> {
        let hash = pat.credentials.get(position)?.hash;
        Some(Self { tag: tag(&hash), pat, position })
    }

    fn hash(&self) -> Option<&TokenHash> {
        self.pat.credentials.get(self.position).map(|credential| &credential.hash)
    }

    /// Whether it has this hash and belongs to this PAT.
    fn is(&self, hash: &TokenHash, uid: PatUid) -> bool {
        self.pat.uid == uid && self.has(hash)
    }

    fn has(&self, hash: &TokenHash) -> bool {
        self.tag == tag(hash) && self.hash() == Some(hash)
    }

    /// Whether it claims the same hash as another slot.
    fn conflicts_with(&self, other: &Self) -> bool {
        other.hash().is_some_and(|hash| self.has(hash))
    }

    /// Whether both are the same credential of the same PAT.
    fn is_same(&self, other: &Self) -> bool {
        self.hash().is_some_and(|hash| other.is(hash, self.pat.uid))
    }
}

impl CredentialTable {
    /// Returns any credential with this hash.
    fn find(&self, hash: &TokenHash) -> Option<CredentialRef> {
        self.all(hash).next()
    }

    /// Returns all credentials with this hash.
    fn all(&self, hash: &TokenHash) -> impl Iterator<Item = CredentialRef> {
        let (before, from) = self.slots.split_at(start(hash, self.slots.len()));
        from.iter()
            .chain(before)
            .map_while(Option::as_ref)
            .filter(|slot| slot.has(hash))
            .map(|slot| CredentialRef::new(slot.pat.clone(), slot.position))
    }

    fn len(&self) -> usize {
        self.taken
    }

    fn to_vec(&self) -> Vec<CredentialSlot> {
        self.slots.iter().flatten().cloned().collect()
    }
}

impl From<Vec<CredentialSlot>> for CredentialTable {
    fn from(all: Vec<CredentialSlot>) -> Self {
        let taken = all.len();
        let room = taken + taken.div_ceil(2);
        let mut slots = vec![None; room].into_boxed_slice();
        for slot in all {
            let Some(hash) = slot.hash() else { continue };
            let (before, from) = slots.split_at_mut(start(hash, room));
            if let Some(free) = from.iter_mut().chain(before).find(|slot| slot.is_none()) {
                *free = Some(slot);
            }
        }
        Self { slots, taken }
    }
}

/// Returns the first slot of the search for a hash, from bytes that do not choose the shard.
fn start(hash: &TokenHash, slots: usize) -> usize {
    let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *hash.as_bytes();
    // This maps the bytes to the range without a division.
    ((u64::from(u32::from_be_bytes([a, b, c, d])) * slots as u64) >> 32) as usize
}

fn tag(hash: &TokenHash) -> u32 {
    let [.., a, b, c, d] = *hash.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_16_bytes() {
        assert_eq!(size_of::<Option<CredentialSlot>>(), 16);
    }
}
