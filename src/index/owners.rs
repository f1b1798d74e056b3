//! What is known of owners beside their names: whether they are disabled, their address, their groups.
//!
//! From `TokenOwner`s, of which an owner may have none, one or several. Tables that are only ever replaced, as those of tokens
//! are: a reader never waits, and where nobody is disabled, asking costs one read of a number. It must not know any token.

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

/// A write copies one of them: with 100,000 owners it has a hundred.
const SHARDS: usize = 1024;

/// How the name of a program begins, so that no person's may.
const VIRTUAL_ACCOUNT: &str = "va:";

/// One `TokenOwner`, as far as its tokens are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The object's name.
    object: Box<str>,
    /// When it was created, in seconds; of several the oldest describes.
    created: i64,
    /// Whom it describes, where one string must do: `jane@example.com`, `va:<namespace>/<name>`.
    subject: Box<str>,
    profile: Profile,
}

/// What is told of an owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// None of the owner's tokens is accepted.
    pub disabled: bool,
    /// The mail address.
    pub email: Option<Box<str>>,
    /// The groups that the owner is in.
    pub groups: Box<[Box<str>]>,
}

/// See the module.
pub struct Owners {
    by_subject: Box<[ArcSwap<Shard>]>,
    random: RandomState,
    /// Owners that are described, and those of them that are disabled.
    described: AtomicUsize,
    disabled: AtomicUsize,
    /// Which subject each object describes. Writers take turns.
    objects: Mutex<HashMap<Box<str>, Box<str>>>,
}

type Shard = HashMap<Arc<str>, Arc<Described>>;

/// An owner and everything that describes it.
struct Described {
    /// What they say together.
    profile: Arc<Profile>,
    /// Oldest first.
    by: Vec<Description>,
}

impl Description {
    /// Reads a stored object; `None` if it cannot be read, or describes somebody who cannot be.
    pub fn read(stored: &StoredOwner) -> Option<Self> {
        let spec = stored.spec.as_ref().ok()?;
        // A person's name that reads as a program's would be taken for it.
        if spec.subject.kind == OwnerKind::User && spec.subject.name.starts_with(VIRTUAL_ACCOUNT) {
            return None;
        }
        let created = stored.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let profile = Profile {
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

impl Described {
    /// Any of them can disable; all else is what the oldest says.
    fn new(mut by: Vec<Description>) -> Option<Self> {
        by.sort_by(|one, other| (one.created, &one.object).cmp(&(other.created, &other.object)));
        let disabled = by.iter().any(|one| one.profile.disabled);
        let profile = Arc::new(Profile { disabled, ..by.first()?.profile.clone() });
        Some(Self { profile, by })
    }
}

impl Default for Owners {
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

impl Owners {
    /// Whether this owner is disabled.
    pub fn is_disabled(&self, subject: &str) -> bool {
        self.disabled.load(Ordering::Relaxed) > 0 && self.get(subject).is_some_and(|profile| profile.disabled)
    }

    /// What is known of this owner; `None` where there is nothing but the name.
    pub fn get(&self, subject: &str) -> Option<Arc<Profile>> {
        if self.is_empty() {
            return None;
        }
        self.by_subject[self.shard_of(subject)].load().get(subject).map(|described| described.profile.clone())
    }

    /// How many owners are described.
    pub fn len(&self) -> usize {
        self.described.load(Ordering::Relaxed)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them are disabled.
    pub fn disabled(&self) -> usize {
        self.disabled.load(Ordering::Relaxed)
    }

    /// Takes in a description, in place of what the object said before.
    pub fn put(&self, description: Description) {
        self.put_all([description]);
    }

    /// Takes in many; each shard is copied once for all of them.
    pub fn put_all(&self, descriptions: impl IntoIterator<Item = Description>) {
        self.write(|objects, changes| {
            for description in descriptions {
                let before = objects.insert(description.object.clone(), description.subject.clone());
                // A subject never changes, but an object may be gone and another one have its name.
                if let Some(before) = before.filter(|before| *before != description.subject) {
                    changes.push((before, Change::Remove(description.object.clone())));
                }
                changes.push((description.subject.clone(), Change::Put(description)));
            }
        });
    }

    /// Forgets what the object of this name said.
    pub fn remove(&self, object: &str) {
        self.write(|objects, changes| {
            changes.extend(objects.remove(object).map(|subject| (subject, Change::Remove(object.into()))));
        });
    }

    /// Forgets every object that is not to be kept, by its name.
    pub fn retain(&self, mut keep: impl FnMut(&str) -> bool) {
        self.write(|objects, changes| {
            objects.retain(|object, subject| {
                let kept = keep(object);
                if !kept {
                    changes.push((subject.clone(), Change::Remove(object.clone())));
                }
                kept
            });
        });
    }

    fn shard_of(&self, subject: &str) -> usize {
        self.random.hash_one(subject) as usize % self.by_subject.len()
    }

    fn write(&self, collect: impl FnOnce(&mut HashMap<Box<str>, Box<str>>, &mut Vec<(Box<str>, Change)>)) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        collect(&mut objects, &mut changes);
        let mut changes: Vec<_> =
            changes.into_iter().map(|(subject, change)| (self.shard_of(&subject), subject, change)).collect();
        // Stable: of two changes to the same, the later one is the last.
        changes.sort_by_key(|(shard, ..)| *shard);
        let mut changes = changes.into_iter().peekable();
        while let Some(&(shard, ..)) = changes.peek() {
            let place = &self.by_subject[shard];
            let old = place.load_full();
            let mut new = Shard::clone(&old);
            while let Some((_, subject, change)) = changes.next_if(|(one, ..)| *one == shard) {
                change.apply(&mut new, &subject);
            }
            let (before, after) = (count(&old), count(&new));
            // Whoever is disabled by this is from the moment that the table is in: not before it is counted, so that asking is
            // never skipped.
            add(&self.described, before.0, after.0);
            if after.1 > before.1 {
                add(&self.disabled, before.1, after.1);
                place.store(Arc::new(new));
            } else {
                place.store(Arc::new(new));
                add(&self.disabled, before.1, after.1);
            }
        }
    }
}

enum Change {
    Put(Description),
    Remove(Box<str>),
}

impl Change {
    fn apply(self, shard: &mut Shard, subject: &str) {
        let mut by = shard.get(subject).map(|described| described.by.clone()).unwrap_or_default();
        match self {
            Self::Put(description) => {
                by.retain(|one| one.object != description.object);
                by.push(description);
            }
            Self::Remove(object) => by.retain(|one| one.object != object),
        }
        match Described::new(by) {
            Some(described) => drop(shard.insert(subject.into(), Arc::new(described))),
            None => drop(shard.remove(subject)),
        }
    }
}

/// How many are described, and how many of these disabled.
fn count(shard: &Shard) -> (usize, usize) {
    (shard.len(), shard.values().filter(|described| described.profile.disabled).count())
}

fn add(total: &AtomicUsize, before: usize, after: usize) {
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

    fn described(object: u8, created: u8, subject: u8, disabled: bool) -> Description {
        Description::read(&stored(object, created, subject, disabled)).expect("it is read")
    }

    #[test]
    fn any_of_several_disables_and_the_oldest_describes() {
        let owners = Owners::default();
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
    fn a_program_is_described_under_its_own_name_and_a_person_never_is_one() {
        let read = |kind: &str, name: &str| {
            let subject = json!({"kind": kind, "name": name});
            let owner = json!({"metadata": {"name": "one"}, "spec": {"subject": subject, "disabled": true}});
            Description::read(&serde_json::from_value(owner).expect("it decodes"))
        };
        let owners = Owners::default();
        owners.put(read("VirtualAccount", "shop/ci").unwrap());
        assert!(owners.is_disabled("va:shop/ci") && !owners.is_disabled("shop/ci"));
        assert_eq!(read("User", "va:shop/ci"), None);
    }

    proptest! {
        /// Whatever comes and goes, in whatever batches, it shows what a plain map would.
        #[test]
        fn it_shows_what_a_plain_map_would(
            batches in prop::collection::vec(
                prop::collection::vec((0u8..6, 0u8..4, 0u8..3, any::<bool>(), any::<bool>()), 1..5), 0..20),
        ) {
            let owners = Owners::default();
            let mut model: BTreeMap<String, Description> = BTreeMap::new();
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
                    let wanted = Described::new(all).map(|described| described.profile);
                    prop_assert_eq!(owners.is_disabled(&subject), wanted.as_ref().is_some_and(|one| one.disabled));
                    prop_assert_eq!(owners.get(&subject), wanted);
                }
                let subjects: std::collections::BTreeSet<_> = model.values().map(|one| &one.subject).collect();
                prop_assert_eq!(owners.len(), subjects.len());
            }
        }
    }
}
