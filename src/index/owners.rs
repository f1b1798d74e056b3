//! Owners: whether they are disabled, their mail address and their groups.
//!
//! Several `TokenOwner`s may describe one owner. As in the index of tokens, shards are replaced and readers never wait. While no owner is
//! disabled, a check costs one atomic read.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::api::{OwnerKind, StoredOwner};

/// The number of shards. A write copies one shard: with 100,000 owners, a hundred of them.
const SHARDS: usize = 1024;

/// The prefix of a VirtualAccount in a subject. No user may have it.
pub(super) const VIRTUAL_ACCOUNT: &str = "va:";

/// The content of one `TokenOwner`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerDescription {
    /// The object's name.
    object: Box<str>,
    /// When it was created, in seconds; the oldest of several describes the owner.
    created: i64,
    /// The owner as one string: `jane@example.com` or `va:<namespace>/<name>`.
    subject: Box<str>,
    profile: OwnerProfile,
}

/// The details of an owner in addition to its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerProfile {
    /// Whether the owner's tokens are refused.
    pub disabled: bool,
    /// The email address.
    pub email: Option<Box<str>>,
    /// The owner's groups.
    pub groups: Box<[Box<str>]>,
}

/// The owners that `TokenOwner`s describe, by subject.
pub struct OwnerIndex {
    by_subject: Box<[ArcSwap<OwnerShard>]>,
    random: RandomState,
    /// The number of described owners, and of disabled ones.
    described: AtomicUsize,
    disabled: AtomicUsize,
    /// The subject of each object. The lock serializes writers.
    objects: Mutex<HashMap<Box<str>, Box<str>>>,
}

type OwnerShard = HashMap<Arc<str>, Arc<IndexedOwner>>;

/// An owner and the objects that describe it.
struct IndexedOwner {
    profile: Arc<OwnerProfile>,
    /// The objects, oldest first.
    by: Vec<OwnerDescription>,
}

impl OwnerDescription {
    /// Reads a stored object; `None` if it cannot be read or its subject is impossible.
    pub fn read(stored: &StoredOwner) -> Option<Self> {
        let spec = stored.spec.as_ref().ok()?;
        // A user with such a name could impersonate a VirtualAccount.
        if spec.subject.kind == OwnerKind::User && spec.subject.name.starts_with(VIRTUAL_ACCOUNT) {
            return None;
        }
        let created = stored.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let profile = OwnerProfile {
            disabled: spec.disabled.unwrap_or_default(),
            email: spec.email.as_deref().map(Into::into),
            groups: spec.groups.iter().map(|group| group.as_str().into()).collect(),
        };
        Some(Self { object: stored.name().into(), created, subject: spec.subject.text().into(), profile })
    }

    /// The object's name.
    pub fn object(&self) -> &str {
        &self.object
    }
}

impl IndexedOwner {
    /// Any object can disable the owner; everything else comes from the oldest.
    fn new(mut by: Vec<OwnerDescription>) -> Option<Self> {
        by.sort_by(|one, other| (one.created, &one.object).cmp(&(other.created, &other.object)));
        let disabled = by.iter().any(|one| one.profile.disabled);
        let profile = Arc::new(OwnerProfile { disabled, ..by.first()?.profile.clone() });
        Some(Self { profile, by })
    }
}

impl Default for OwnerIndex {
    fn default() -> Self {
        Self {
            by_subject: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            random: RandomState::new(),
            described: AtomicUsize::new(0),
            disabled: AtomicUsize::new(0),
            objects: Mutex::default(),
        }
    }
}

impl OwnerIndex {
    /// Whether the owner is disabled.
    pub fn is_disabled(&self, subject: &str) -> bool {
        self.disabled.load(Ordering::Relaxed) > 0 && self.get(subject).is_some_and(|profile| profile.disabled)
    }

    /// The owner's profile, if a `TokenOwner` describes it.
    pub fn get(&self, subject: &str) -> Option<Arc<OwnerProfile>> {
        if self.is_empty() {
            return None;
        }
        self.by_subject[self.shard_of(subject)].load().get(subject).map(|described| described.profile.clone())
    }

    /// The number of described owners.
    pub fn len(&self) -> usize {
        self.described.load(Ordering::Relaxed)
    }

    /// Whether no owner is described.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of disabled owners.
    pub fn disabled(&self) -> usize {
        self.disabled.load(Ordering::Relaxed)
    }

    /// Adds a description, or replaces that of the same object.
    pub fn put(&self, description: OwnerDescription) {
        self.put_all([description]);
    }

    /// Adds or replaces many descriptions; each shard is copied at most once.
    pub fn put_all(&self, descriptions: impl IntoIterator<Item = OwnerDescription>) {
        self.write(|objects, changes| {
            for description in descriptions {
                let before = objects.insert(description.object.clone(), description.subject.clone());
                // A subject is immutable, but a new object may have the same name.
                if let Some(before) = before.filter(|before| *before != description.subject) {
                    changes.push((before, OwnerChange::Remove(description.object.clone())));
                }
                changes.push((description.subject.clone(), OwnerChange::Put(description)));
            }
        });
    }

    /// Removes the object with this name.
    pub fn remove(&self, object: &str) {
        self.write(|objects, changes| {
            changes.extend(objects.remove(object).map(|subject| (subject, OwnerChange::Remove(object.into()))));
        });
    }

    /// Removes every object whose name `keep` rejects.
    pub fn retain(&self, mut keep: impl FnMut(&str) -> bool) {
        self.write(|objects, changes| {
            objects.retain(|object, subject| {
                let kept = keep(object);
                if !kept {
                    changes.push((subject.clone(), OwnerChange::Remove(object.clone())));
                }
                kept
            });
        });
    }

    fn shard_of(&self, subject: &str) -> usize {
        self.random.hash_one(subject) as usize % self.by_subject.len()
    }

    fn write(&self, collect: impl FnOnce(&mut HashMap<Box<str>, Box<str>>, &mut Vec<(Box<str>, OwnerChange)>)) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        collect(&mut objects, &mut changes);
        let mut changes: Vec<_> =
            changes.into_iter().map(|(subject, change)| (self.shard_of(&subject), subject, change)).collect();
        // A stable sort keeps the order of changes to the same entry.
        changes.sort_by_key(|(shard, ..)| *shard);
        let mut changes = changes.into_iter().peekable();
        while let Some(&(shard, ..)) = changes.peek() {
            let current = &self.by_subject[shard];
            let old = current.load_full();
            let mut new = OwnerShard::clone(&old);
            while let Some((_, subject, change)) = changes.next_if(|(one, ..)| *one == shard) {
                change.apply(&mut new, &subject);
            }
            let (before, after) = (count(&old), count(&new));
            // The total must never be below the real number, or `is_disabled` would skip an owner that was just
            // disabled.
            add(&self.described, before.0, after.0);
            if after.1 > before.1 {
                add(&self.disabled, before.1, after.1);
                current.store(Arc::new(new));
            } else {
                current.store(Arc::new(new));
                add(&self.disabled, before.1, after.1);
            }
        }
    }
}

enum OwnerChange {
    Put(OwnerDescription),
    Remove(Box<str>),
}

impl OwnerChange {
    fn apply(self, shard: &mut OwnerShard, subject: &str) {
        let mut by = shard.get(subject).map(|described| described.by.clone()).unwrap_or_default();
        match self {
            Self::Put(description) => {
                by.retain(|one| one.object != description.object);
                by.push(description);
            }
            Self::Remove(object) => by.retain(|one| one.object != object),
        }
        match IndexedOwner::new(by) {
            Some(described) => drop(shard.insert(subject.into(), Arc::new(described))),
            None => drop(shard.remove(subject)),
        }
    }
}

/// The number of described owners, and of disabled ones.
fn count(shard: &OwnerShard) -> (usize, usize) {
    (shard.len(), shard.values().filter(|described| described.profile.disabled).count())
}

pub(super) fn add(total: &AtomicUsize, before: usize, after: usize) {
    // Wrapping, so that a difference may be negative.
    total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn stored(object: u8, created: u8, subject: u8, disabled: bool) -> StoredOwner {
        let created = format!("2026-01-01T00:00:{created:02}Z");
        serde_json::from_value(json!({
            "metadata": {"name": format!("object{object}"), "uid": "u", "creationTimestamp": created},
            "spec": {
                "subject": {"kind": "User", "name": format!("user{subject}")},
                "email": format!("{object}@example.com"),
                "groups": ["staff"],
                "disabled": disabled,
            },
        }))
        .expect("it decodes")
    }

    fn described(object: u8, created: u8, subject: u8, disabled: bool) -> OwnerDescription {
        OwnerDescription::read(&stored(object, created, subject, disabled)).expect("it is read")
    }

    #[test]
    fn any_object_disables_and_the_oldest_describes() {
        let owners = OwnerIndex::default();
        assert!(!owners.is_disabled("user1") && owners.get("user1").is_none());
        owners.put(described(1, 20, 1, false));
        owners.put(described(2, 10, 1, false));
        owners.put(described(3, 30, 1, true));
        owners.put(described(4, 0, 2, false));
        assert!(owners.is_disabled("user1") && !owners.is_disabled("user2") && !owners.is_disabled("user3"));
        assert_eq!((owners.len(), owners.disabled()), (2, 1));
        assert_eq!(owners.get("user1").unwrap().email.as_deref(), Some("2@example.com"));
        owners.put(described(3, 30, 1, false));
        assert!(!owners.is_disabled("user1"));
        owners.put(described(3, 30, 1, true));
        owners.remove("object3");
        assert!(!owners.is_disabled("user1"));
        owners.remove("object2");
        assert_eq!(owners.get("user1").unwrap().email.as_deref(), Some("1@example.com"));
        owners.retain(|object| object == "object4");
        assert!(owners.get("user1").is_none() && owners.get("user2").is_some());
    }

    #[test]
    fn a_user_never_passes_for_a_virtual_account() {
        let read = |kind: &str, name: &str| {
            let subject = json!({"kind": kind, "name": name});
            let owner = json!({"metadata": {"name": "one"}, "spec": {"subject": subject, "disabled": true}});
            OwnerDescription::read(&serde_json::from_value(owner).expect("it decodes"))
        };
        let owners = OwnerIndex::default();
        owners.put(read("VirtualAccount", "shop/ci").unwrap());
        assert!(owners.is_disabled("va:shop/ci") && !owners.is_disabled("shop/ci"));
        assert_eq!(read("User", "va:shop/ci"), None);
    }

    proptest! {
        /// Under any changes in any batches it equals a plain map.
        #[test]
        fn owners_equal_a_plain_map(
            batches in prop::collection::vec(
                prop::collection::vec((0u8..6, 0u8..4, 0u8..3, any::<bool>(), any::<bool>()), 1..5), 0..20),
        ) {
            let owners = OwnerIndex::default();
            let mut model: BTreeMap<String, OwnerDescription> = BTreeMap::new();
            for batch in batches {
                let puts: Vec<_> = batch.iter().filter(|one| one.4).map(|one| described(one.0, one.1, one.2, one.3)).collect();
                model.extend(puts.iter().map(|one| (one.object().to_owned(), one.clone())));
                owners.put_all(puts);
                for (object, ..) in batch.iter().filter(|one| !one.4) {
                    model.remove(&format!("object{object}"));
                    owners.remove(&format!("object{object}"));
                }
                for subject in (0..3).map(|subject| format!("user{subject}")) {
                    let all: Vec<_> = model.values().filter(|one| *one.subject == *subject).cloned().collect();
                    let wanted = IndexedOwner::new(all).map(|described| described.profile);
                    prop_assert_eq!(owners.is_disabled(&subject), wanted.as_ref().is_some_and(|one| one.disabled));
                    prop_assert_eq!(owners.get(&subject), wanted);
                }
                let subjects: std::collections::BTreeSet<_> = model.values().map(|one| &one.subject).collect();
                prop_assert_eq!(owners.len(), subjects.len());
            }
        }
    }
}
