//! The owners that `TokenOwner`s disable. Those that none disables, which are nearly all, are not kept.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{PoisonError, RwLock},
};

use crate::api::{Owner, StoredOwner};

/// The disabled owners, and the objects that disable them.
#[derive(Default)]
pub struct DisabledOwners(RwLock<Disabled>);

#[derive(Default)]
struct Disabled {
    /// The owner that an object disables, by the object's name.
    by_object: HashMap<String, Owner>,
    /// The objects that disable an owner. Any of them suffices.
    by_owner: HashMap<Owner, BTreeSet<String>>,
}

impl DisabledOwners {
    /// Whether no owner is disabled.
    pub fn is_empty(&self) -> bool {
        self.read().by_owner.is_empty()
    }

    /// Returns the name of the object that disables an owner; the first by name if several do.
    pub fn disabled_by(&self, owner: &Owner) -> Option<String> {
        self.read().by_owner.get(owner)?.first().cloned()
    }

    /// Records a created or changed object, and returns the owners whose state changes. If its spec cannot be read, its former content
    /// still applies, as in the verifier.
    pub fn apply(&self, object: &StoredOwner) -> HashSet<Owner> {
        let Ok(spec) = &object.spec else { return HashSet::new() };
        let subject = spec.disabled.unwrap_or_default().then(|| spec.subject.clone());
        self.write().set(object.name(), subject)
    }

    /// Records a deleted object, and returns the owners whose state changes.
    pub fn remove(&self, object: &str) -> HashSet<Owner> {
        self.write().set(object, None)
    }

    /// Removes every object whose name `keep` rejects, and returns the owners whose state changes.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) -> HashSet<Owner> {
        let mut disabled = self.write();
        let gone: Vec<_> = disabled.by_object.keys().filter(|object| !keep(object)).cloned().collect();
        gone.iter().flat_map(|object| disabled.set(object, None)).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Disabled> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Disabled> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disabled {
    /// Sets the owner that an object disables. Returns the owners that it disables now or disabled before, if they differ.
    fn set(&mut self, object: &str, owner: Option<Owner>) -> HashSet<Owner> {
        let before = match owner.clone() {
            Some(owner) => self.by_object.insert(object.to_owned(), owner),
            None => self.by_object.remove(object),
        };
        if before == owner {
            return HashSet::new();
        }
        if let Some(before) = &before
            && let Some(objects) = self.by_owner.get_mut(before)
        {
            objects.remove(object);
            if objects.is_empty() {
                self.by_owner.remove(before);
            }
        }
        if let Some(owner) = &owner {
            self.by_owner.entry(owner.clone()).or_default().insert(object.to_owned());
        }
        before.into_iter().chain(owner).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn owner(name: &str) -> Owner {
        serde_json::from_value(json!({"kind": "User", "name": name})).expect("an owner")
    }

    fn object(name: &str, spec: Value) -> StoredOwner {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a TokenOwner")
    }

    fn of(subject: &str, disabled: bool) -> Value {
        json!({"subject": {"kind": "User", "name": subject}, "disabled": disabled})
    }

    #[test]
    fn owner_is_disabled_while_any_object_disables_it() {
        let owners = DisabledOwners::default();
        let jane = HashSet::from([owner("jane")]);
        assert_eq!(owners.apply(&object("a", of("jane", false))), HashSet::new());
        assert!(owners.is_empty());
        assert_eq!(owners.apply(&object("b", of("jane", true))), jane);
        assert_eq!(owners.apply(&object("b", of("jane", true))), HashSet::new(), "nothing changes");
        assert_eq!(owners.apply(&object("a", of("jane", true))), jane);
        assert_eq!(owners.disabled_by(&owner("jane")).as_deref(), Some("a"));
        assert_eq!(owners.disabled_by(&owner("bob")), None);
        assert_eq!(owners.remove("a"), jane);
        assert_eq!(owners.disabled_by(&owner("jane")).as_deref(), Some("b"));
        assert_eq!(owners.apply(&object("b", json!({"subject": 7}))), HashSet::new(), "the former content applies");
        assert_eq!(owners.disabled_by(&owner("jane")).as_deref(), Some("b"));
        assert_eq!(owners.retain(|object| object != "b"), jane);
        assert!(owners.is_empty());
    }

    #[test]
    fn recreated_object_disables_only_its_new_subject() {
        let owners = DisabledOwners::default();
        owners.apply(&object("a", of("jane", true)));
        assert_eq!(owners.apply(&object("a", of("bob", true))), HashSet::from([owner("jane"), owner("bob")]));
        assert_eq!(owners.disabled_by(&owner("jane")), None);
        assert_eq!(owners.disabled_by(&owner("bob")).as_deref(), Some("a"));
    }
}
