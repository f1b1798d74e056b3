//! The store itself: tables that are never changed, only replaced, so that a reader never waits.
//!
//! Both tables are split into many shards. A write copies the few shards that it touches, changes the copies and swaps them
//! in, each at once: a reader sees a shard before or after, and a token that stays live is in both.

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
    owners::Owners,
    record::{Pat, Record},
    slots::{Slot, Slots},
    uid::PatUid,
};
use crate::{api::Time, token::TokenHash};

/// With 100,000 tokens a shard has a hundred: a write copies two kilobytes, and empty shards are little memory.
const SHARDS: usize = 1024;

/// How many hashes a shard remembers that have left it: 65,536 in all.
const REMEMBERED: usize = 64;

/// How often a use is told again to a newer copy; each time takes another update of that PAT in between.
const MOVES: usize = 8;

/// See the module above.
pub struct Index {
    by_hash: Box<[ArcSwap<Tokens>]>,
    by_uid: Box<[ArcSwap<Pats>]>,
    credentials: AtomicUsize,
    pats: AtomicUsize,
    /// How many times a hash is claimed by one more PAT than it should be.
    contested: AtomicUsize,
    owners: Owners,
    /// Writers take turns.
    writer: Mutex<()>,
}

/// A shard of tokens. Keys are the hashes that the PATs have: they are not stored again.
#[derive(Default)]
struct Tokens {
    live: Slots,
    /// How many of them have a hash that another one has already.
    contested: usize,
    /// The first half of each hash that left, oldest first; 128 bits of SHA-256 are as unique as all of it.
    left: Arc<[u128]>,
}

/// A shard of PATs by uid.
#[derive(Clone, Default)]
struct Pats(HashTable<Arc<Pat>>);

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
            owners: Owners::default(),
            writer: Mutex::new(()),
        }
    }

    /// The live credential with this hash; of several, one of them.
    pub fn get(&self, hash: &TokenHash) -> Option<Record> {
        self.by_hash[self.shard_of_hash(hash)].load().live.find(hash)
    }

    /// Every live credential with this hash, the eldest PAT's first, where more than one PAT claims it: a restored one and its
    /// former self. Else none, which costs one read of a number as long as no hash at all is claimed twice.
    pub fn rivals(&self, hash: &TokenHash) -> Vec<Record> {
        if self.contested.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let shard = self.by_hash[self.shard_of_hash(hash)].load();
        let mut claims: Vec<Record> = shard.live.all(hash).collect();
        claims.sort_by_cached_key(|claim| claim.pat.seniority());
        if claims.len() > 1 { claims } else { Vec::new() }
    }

    /// The PAT with this uid.
    pub fn pat(&self, uid: PatUid) -> Option<Arc<Pat>> {
        self.by_uid[self.shard_of_uid(uid)].load().find(uid).cloned()
    }

    /// Whether a token with this hash was known and is gone: revoked, expired or deleted, not merely unseen. Of the many
    /// that have gone, only the last are remembered.
    pub fn has_left(&self, hash: &TokenHash) -> bool {
        let shard = self.by_hash[self.shard_of_hash(hash)].load();
        shard.left.contains(&half(hash)) && shard.live.find(hash).is_none()
    }

    /// How many live credentials there are.
    pub fn len(&self) -> usize {
        self.credentials.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many PATs there are, also those without any live credential.
    pub fn pats(&self) -> usize {
        self.pats.load(Ordering::Relaxed)
    }

    /// Shows every PAT, in no order; those that change meanwhile as they were or as they are.
    pub fn for_each(&self, mut show: impl FnMut(&Arc<Pat>)) {
        for shard in &self.by_uid {
            shard.load_full().0.iter().for_each(&mut show);
        }
    }

    /// What is known of the owners.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Notes that this credential was let in.
    pub fn mark_used(&self, record: &Record, now: Time) {
        if record.credential().mark_used(now) {
            return;
        }
        // Its PAT was updated since the look-up.
        let hash = record.credential().hash;
        for _ in 0..MOVES {
            let Some(newer) = self.get(&hash) else { return };
            if newer.credential().mark_used(now) {
                return;
            }
        }
    }

    /// Takes in a PAT, in place of what it was before.
    pub fn put(&self, pat: Pat) {
        self.put_all([pat]);
    }

    /// Takes in many; each shard is copied once for all of them.
    pub fn put_all(&self, pats: impl IntoIterator<Item = Pat>) {
        self.write(|changes| pats.into_iter().for_each(|pat| changes.put(pat)));
    }

    /// Forgets a PAT.
    pub fn remove(&self, uid: PatUid) {
        self.write(|changes| changes.remove(uid));
    }

    /// Forgets every PAT that is not to be kept.
    pub fn retain(&self, mut keep: impl FnMut(&Pat) -> bool) {
        let mut gone = Vec::new();
        self.for_each(|pat| {
            if !keep(pat) {
                gone.push(pat.uid);
            }
        });
        self.write(|changes| gone.into_iter().for_each(|uid| changes.remove(uid)));
    }

    fn write(&self, change: impl FnOnce(&mut Changes<'_>)) {
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, pats, latest, replaced) = Default::default();
        let mut changes = Changes { index: self, tokens, pats, latest, replaced };
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

impl Tokens {
    /// The same with these changes.
    fn with<'c>(&self, changes: impl Iterator<Item = &'c TokenChange>) -> Self {
        let (mut live, mut contested, mut left) = (self.live.to_vec(), self.contested, self.left.clone());
        for change in changes {
            match change {
                TokenChange::Put(slot) => match live.iter_mut().find(|one| one.is_same(slot)) {
                    Some(place) => *place = slot.clone(),
                    // Two PATs may claim one hash, such as a restored one and its former self: each has its own entry.
                    None => {
                        contested += usize::from(live.iter().any(|one| one.is_rival_of(slot)));
                        live.push(slot.clone());
                    }
                },
                TokenChange::Remove(hash, uid) => {
                    let Some(place) = live.iter().position(|one| one.is(hash, *uid)) else { continue };
                    live.swap_remove(place);
                    contested -= usize::from(live.iter().any(|one| one.has(hash)));
                    let forgotten = (left.len() + 1).saturating_sub(REMEMBERED);
                    let gone = half(hash);
                    left = left[forgotten..].iter().copied().filter(|one| *one != gone).chain([gone]).collect();
                }
            }
        }
        Self { live: live.into(), contested, left }
    }
}

impl Pats {
    fn find(&self, uid: PatUid) -> Option<&Arc<Pat>> {
        self.0.find(uid.mixed(), |pat| pat.uid == uid)
    }

    fn put(&mut self, pat: Arc<Pat>) {
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

/// What is to change, collected first: then one shard after the other is copied, changed and swapped in, so that only one of
/// them is there twice at a time.
struct Changes<'i> {
    index: &'i Index,
    tokens: Vec<(usize, TokenChange)>,
    pats: Vec<(usize, PatChange)>,
    /// PATs as these changes leave them.
    latest: HashMap<PatUid, Option<Arc<Pat>>>,
    replaced: Vec<(Arc<Pat>, Arc<Pat>)>,
}

enum TokenChange {
    Put(Slot),
    Remove(TokenHash, PatUid),
}

enum PatChange {
    Put(Arc<Pat>),
    Remove(PatUid),
}

impl Changes<'_> {
    fn put(&mut self, pat: Pat) {
        let (uid, pat) = (pat.uid, Arc::new(pat));
        for (position, credential) in (0..=u8::MAX).zip(pat.credentials.iter()) {
            let shard = self.index.shard_of_hash(&credential.hash);
            self.tokens.extend(Slot::new(pat.clone(), position).map(|slot| (shard, TokenChange::Put(slot))));
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

    fn latest(&self, uid: PatUid) -> Option<Arc<Pat>> {
        self.latest.get(&uid).cloned().unwrap_or_else(|| self.index.pat(uid))
    }

    fn publish(self) {
        let Self { index, mut tokens, mut pats, replaced, .. } = self;
        // Stable: of two changes to the same, the later one is the last.
        tokens.sort_by_key(|(shard, _)| *shard);
        for changes in tokens.chunk_by(|(one, _), (other, _)| one == other) {
            let shard = &index.by_hash[changes[0].0];
            let new = shard.load().with(changes.iter().map(|(_, change)| change));
            let after = (new.live.len(), new.contested);
            let before = shard.swap(Arc::new(new));
            count(&index.credentials, before.live.len(), after.0);
            count(&index.contested, before.contested, after.1);
        }
        pats.sort_by_key(|(shard, _)| *shard);
        for changes in pats.chunk_by(|(one, _), (other, _)| one == other) {
            let shard = &index.by_uid[changes[0].0];
            let mut new = Pats::clone(&shard.load());
            for (_, change) in changes {
                match change {
                    PatChange::Put(pat) => new.put(pat.clone()),
                    PatChange::Remove(uid) => new.remove(*uid),
                }
            }
            let after = new.0.len();
            count(&index.pats, shard.swap(Arc::new(new)).0.len(), after);
        }
        // Only now: whoever still has an old copy finds the new one when it is told that it moved.
        for (old, new) in replaced {
            for credential in new.credentials.iter() {
                if let Some(before) = old.credentials.with(&credential.hash) {
                    credential.take_over(before);
                }
            }
        }
    }
}

fn count(total: &AtomicUsize, before: usize, after: usize) {
    // Wrapping, so that a difference may be negative.
    total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
}

fn half(hash: &TokenHash) -> u128 {
    let (halves, _) = hash.as_bytes().as_chunks();
    u128::from_be_bytes(halves[0])
}
