//! Recognizes the controller's own writes when the watches deliver them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    namespaced_name::NamespacedName,
    stores::{Stores, WatchedKind, version},
};

/// The versions that the controller's last writes gave to objects, until the watches deliver them.
///
/// Such an event needs no reconcile of the PAT that the object was written for: its reconcile has already planned on the response
/// to the write.
#[derive(Default)]
pub struct OwnWrites(Mutex<HashMap<(WatchedKind, NamespacedName), OwnWrite>>);

struct OwnWrite {
    version: u64,
    pat: NamespacedName,
}

impl OwnWrites {
    /// Records a version that the controller wrote for this PAT, until the watch delivers it.
    pub fn expect(
        &self,
        stores: &Stores,
        kind: WatchedKind,
        object: NamespacedName,
        resource_version: &str,
        pat: &NamespacedName,
    ) {
        // A version that is not a number counts as 0, so every event is new.
        let version = version(Some(resource_version));
        // The event may have arrived before the response.
        if version > stores.progress(kind, object.namespace()).version {
            self.lock().insert((kind, object), OwnWrite { version, pat: pat.clone() });
        }
    }

    /// Returns the PAT for which the controller wrote this version of an object, or a newer one.
    pub fn recognize(&self, kind: WatchedKind, object: NamespacedName, version: u64) -> Option<NamespacedName> {
        let entry = (kind, object);
        let mut writes = self.lock();
        let own = writes.get(&entry)?;
        if version < own.version {
            return Some(own.pat.clone());
        }
        let own = writes.remove(&entry)?;
        (version == own.version).then_some(own.pat)
    }

    /// Forgets an object that no longer exists.
    pub fn forget(&self, kind: WatchedKind, object: NamespacedName) {
        self.lock().remove(&(kind, object));
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(WatchedKind, NamespacedName), OwnWrite>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_up_to_the_last_own_write_are_recognized() {
        let (writes, stores) = (OwnWrites::default(), Stores::default());
        let (pat, secret) = (NamespacedName::new("ns", "pat"), NamespacedName::new("ns", "secret"));
        let recognize = |version| writes.recognize(WatchedKind::Secret, secret.clone(), version);
        assert_eq!(recognize(5), None);
        writes.expect(&stores, WatchedKind::Secret, secret.clone(), "10", &pat);
        assert_eq!(writes.recognize(WatchedKind::Pat, secret.clone(), 10), None, "another object");
        assert_eq!((recognize(9), recognize(10), recognize(10)), (Some(pat.clone()), Some(pat.clone()), None));
        writes.expect(&stores, WatchedKind::Secret, secret.clone(), "20", &pat);
        assert_eq!((recognize(21), recognize(20)), (None, None), "another client wrote after the controller");
        writes.expect(&stores, WatchedKind::Secret, secret.clone(), "opaque", &pat);
        assert_eq!(recognize(0), None);
        writes.expect(&stores, WatchedKind::Secret, secret.clone(), "30", &pat);
        writes.forget(WatchedKind::Secret, secret.clone());
        assert_eq!(recognize(30), None);
        stores.advance(WatchedKind::Secret, None, 40);
        writes.expect(&stores, WatchedKind::Secret, secret.clone(), "40", &pat);
        assert_eq!(recognize(40), None, "the event came before the answer");
    }
}
