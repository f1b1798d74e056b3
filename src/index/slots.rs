//! Records by the hash of their token, in a table that is never changed: whoever has something new makes another one.
//!
//! A look-up takes two steps to places that are in no processor's cache: the slot, and the PAT in it. It must not know who
//! reads meanwhile.

use std::sync::Arc;

use super::{
    record::{Pat, Record},
    uid::PatUid,
};
use crate::token::TokenHash;

/// See the module. A third of it is empty, so that a search soon ends.
#[derive(Default)]
pub(super) struct Slots {
    slots: Box<[Option<Slot>]>,
    taken: usize,
}

/// A credential of a PAT, and enough of its hash to pass over others.
#[derive(Clone)]
pub(super) struct Slot {
    pat: Arc<Pat>,
    tag: u32,
    position: u8,
}

impl Slot {
    /// The credential at this position of a PAT; there must be one.
    pub fn new(pat: Arc<Pat>, position: u8) -> Option<Self> {
        let hash = pat.credentials.get(position)?.hash;
        Some(Self { tag: tag(&hash), pat, position })
    }

    fn hash(&self) -> Option<&TokenHash> {
        self.pat.credentials.get(self.position).map(|credential| &credential.hash)
    }

    /// Two PATs may claim one hash, such as a restored one and its former self.
    pub fn is(&self, hash: &TokenHash, uid: PatUid) -> bool {
        self.pat.uid == uid && self.has(hash)
    }

    /// Whether it has this hash.
    pub fn has(&self, hash: &TokenHash) -> bool {
        self.tag == tag(hash) && self.hash() == Some(hash)
    }

    /// Whether it claims the hash of another.
    pub fn is_rival_of(&self, other: &Self) -> bool {
        other.hash().is_some_and(|hash| self.has(hash))
    }

    /// Whether both are the same credential of the same PAT, whatever else of it has changed.
    pub fn is_same(&self, other: &Self) -> bool {
        self.hash().is_some_and(|hash| other.is(hash, self.pat.uid))
    }
}

impl Slots {
    /// The record with this hash; of several, one of them.
    pub fn find(&self, hash: &TokenHash) -> Option<Record> {
        self.all(hash).next()
    }

    /// All records with this hash.
    pub fn all(&self, hash: &TokenHash) -> impl Iterator<Item = Record> {
        let (before, from) = self.slots.split_at(start(hash, self.slots.len()));
        from.iter()
            .chain(before)
            .map_while(Option::as_ref)
            .filter(|slot| slot.has(hash))
            .map(|slot| Record::new(slot.pat.clone(), slot.position))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.taken
    }

    /// All of them.
    pub fn to_vec(&self) -> Vec<Slot> {
        self.slots.iter().flatten().cloned().collect()
    }
}

impl From<Vec<Slot>> for Slots {
    fn from(all: Vec<Slot>) -> Self {
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

/// Where the search for a hash begins. Bytes that do not choose the shard: they are as random as a hash can be.
fn start(hash: &TokenHash, slots: usize) -> usize {
    let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *hash.as_bytes();
    // As evenly as by a remainder, without a division.
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
    fn a_slot_is_as_small_as_it_can_be() {
        assert_eq!(size_of::<Option<Slot>>(), 16);
    }
}
