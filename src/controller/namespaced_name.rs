//! The key of a namespaced object.

use std::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use kube::runtime::reflector::ObjectRef;

use crate::api::StoredPat;

/// The namespace and name of an object. Clones share one text.
///
/// The long-lived indexes use it instead of kube's [`ObjectRef`], which owns four strings in each clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName(Arc<str>);

impl NamespacedName {
    /// Returns the key of the object with this name in this namespace. Neither contains a slash.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }

    /// Returns a number from 0 to 1 that is stable for each object, to spread the delays of many objects.
    pub fn jitter(&self) -> f64 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(self);
        (hash >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns the reference by which kube's `Controller` and `Store` know the PAT with this key.
    pub fn pat_ref(&self) -> ObjectRef<StoredPat> {
        ObjectRef::new(self.name()).within(self.namespace())
    }
}

impl Borrow<str> for NamespacedName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
