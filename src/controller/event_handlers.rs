//! The handlers of watch events. Each event updates the stores and then the progress of its watch, and returns the PATs to
//! reconcile.

use std::{collections::HashSet, fmt::Debug, marker::PhantomData, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, runtime::watcher::Event};
use serde::de::DeserializeOwned;

use super::{
    issuers::{IssuerKey, Issuers},
    namespaced_name::NamespacedName,
    secret_index::controlling_pat,
    stored_secret::StoredSecret,
    stores::{Stores, WatchedKind, version},
};
use crate::{
    api::{Owner, StoredClusterTokenIssuer, StoredIssuer, StoredOwner, StoredPat, StoredTokenIssuer},
    planner::observed::SecretView,
};

/// Handles the events of one watch.
pub trait EventHandler: Send {
    /// The type of the watched objects.
    type Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static;

    /// Applies one event to the stores.
    fn handle(&mut self, event: Event<Self::Object>) -> Triggers;
}

/// The consequences of a watch event.
#[derive(Debug, Default)]
pub struct Triggers {
    /// The PATs to reconcile.
    pub pats: Vec<NamespacedName>,
    /// The object that was created or changed, and its version.
    pub applied: Option<(WatchedKind, NamespacedName, u64)>,
    /// The objects that no longer exist.
    pub deleted: Vec<(WatchedKind, NamespacedName)>,
    /// Whether the event completes a list.
    pub list_complete: bool,
}

impl Triggers {
    fn merge(mut self, other: Self) -> Self {
        self.pats.extend(other.pats);
        self.deleted.extend(other.deleted);
        self
    }
}

/// Applies the events of a PAT watch to the stores.
pub struct PatHandler {
    stores: Arc<Stores>,
    scope: Option<String>,
    /// The PATs of the list that is being received.
    listed: HashSet<NamespacedName>,
}

impl PatHandler {
    /// Creates a handler for the watch of one namespace, or of all.
    pub fn new(stores: Arc<Stores>, scope: Option<String>) -> Self {
        Self { stores, scope, listed: HashSet::new() }
    }

    fn apply(&self, pat: StoredPat) -> Triggers {
        let version = version(pat.metadata.resource_version.as_deref());
        let key = self.stores.key_of(&pat);
        let mut pats = self.stores.apply_pat(&key, pat);
        self.stores.advance(WatchedKind::Pat, self.scope.as_ref(), version);
        pats.push(key.clone());
        Triggers { pats, applied: Some((WatchedKind::Pat, key, version)), ..Triggers::default() }
    }

    fn delete(&self, key: NamespacedName) -> Triggers {
        let pats = self.stores.remove_pat(&key);
        Triggers { pats, deleted: vec![(WatchedKind::Pat, key)], ..Triggers::default() }
    }
}

impl EventHandler for PatHandler {
    type Object = StoredPat;

    fn handle(&mut self, event: Event<StoredPat>) -> Triggers {
        match event {
            Event::Init => {
                self.listed.clear();
                self.stores.start_epoch(WatchedKind::Pat, self.scope.as_ref());
                Triggers::default()
            }
            Event::InitApply(pat) => {
                let triggers = self.apply(pat);
                self.listed.extend(triggers.applied.as_ref().map(|(_, key, _)| key.clone()));
                triggers
            }
            Event::Apply(pat) => self.apply(pat),
            Event::Delete(pat) => {
                let triggers = self.delete(NamespacedName::new(pat.namespace(), pat.name()));
                let version = version(pat.metadata.resource_version.as_deref());
                self.stores.advance(WatchedKind::Pat, self.scope.as_ref(), version);
                triggers
            }
            Event::InitDone => {
                let gone = missing(self.stores.keys(), self.scope.as_ref(), &self.listed);
                self.listed = HashSet::new();
                let done = Triggers { list_complete: true, ..Triggers::default() };
                gone.into_iter().fold(done, |all, key| all.merge(self.delete(key)))
            }
        }
    }
}

/// Applies the events of a Secret watch to the stores.
pub struct SecretHandler {
    stores: Arc<Stores>,
    scope: Option<String>,
    /// The Secrets of the list that is being received.
    listed: HashSet<NamespacedName>,
}

impl SecretHandler {
    /// Creates a handler for the watch of one namespace, or of all.
    pub fn new(stores: Arc<Stores>, scope: Option<String>) -> Self {
        Self { stores, scope, listed: HashSet::new() }
    }

    fn apply(&self, secret: StoredSecret) -> Triggers {
        let mut secret = SecretView::of(secret.0);
        // Only an uncached read shows who changed the Secret.
        secret.last_editor = None;
        let version = version(Some(&secret.resource_version));
        let key = self.stores.key(&secret.namespace, &secret.name);
        let controller = controlling_pat(&secret).map(|(namespace, name)| self.stores.key(namespace, name));
        let mut pats = self.stores.pats_wanting(&key);
        pats.extend(self.stores.secrets.apply(&key, secret, controller.as_ref()));
        pats.extend(controller);
        self.stores.advance(WatchedKind::Secret, self.scope.as_ref(), version);
        Triggers { pats, applied: Some((WatchedKind::Secret, key, version)), ..Triggers::default() }
    }

    fn delete(&self, key: NamespacedName) -> Triggers {
        let mut pats = self.stores.pats_wanting(&key);
        pats.extend(self.stores.secrets.remove(&key));
        Triggers { pats, deleted: vec![(WatchedKind::Secret, key)], ..Triggers::default() }
    }
}

impl EventHandler for SecretHandler {
    type Object = StoredSecret;

    fn handle(&mut self, event: Event<StoredSecret>) -> Triggers {
        match event {
            Event::Init => {
                self.listed.clear();
                self.stores.start_epoch(WatchedKind::Secret, self.scope.as_ref());
                Triggers::default()
            }
            Event::InitApply(secret) => {
                let triggers = self.apply(secret);
                self.listed.extend(triggers.applied.as_ref().map(|(_, key, _)| key.clone()));
                triggers
            }
            Event::Apply(secret) => self.apply(secret),
            Event::Delete(StoredSecret(secret)) => {
                let metadata = &secret.metadata;
                let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
                let key = NamespacedName::new(namespace.unwrap_or_default(), name.unwrap_or_default());
                let triggers = self.delete(key);
                let version = version(metadata.resource_version.as_deref());
                self.stores.advance(WatchedKind::Secret, self.scope.as_ref(), version);
                triggers
            }
            Event::InitDone => {
                let gone = missing(self.stores.secrets.keys(), self.scope.as_ref(), &self.listed);
                self.listed = HashSet::new();
                let done = Triggers { list_complete: true, ..Triggers::default() };
                gone.into_iter().fold(done, |all, key| all.merge(self.delete(key)))
            }
        }
    }
}

/// Applies the events of the `TokenOwner` watch to the stores.
pub struct OwnerHandler {
    stores: Arc<Stores>,
    /// The objects of the list that is being received, and the owners that it disables or enables.
    listed: HashSet<String>,
    changed: HashSet<Owner>,
}

impl OwnerHandler {
    /// Creates a handler.
    pub fn new(stores: Arc<Stores>) -> Self {
        Self { stores, listed: HashSet::new(), changed: HashSet::new() }
    }
}

impl EventHandler for OwnerHandler {
    type Object = StoredOwner;

    fn handle(&mut self, event: Event<StoredOwner>) -> Triggers {
        let owners = &self.stores.disabled_owners;
        let (changed, list_complete) = match event {
            Event::Init => {
                self.listed.clear();
                return Triggers::default();
            }
            Event::InitApply(object) => {
                self.changed.extend(owners.apply(&object));
                self.listed.insert(object.name().to_owned());
                return Triggers::default();
            }
            Event::Apply(object) => (owners.apply(&object), false),
            Event::Delete(object) => (owners.remove(object.name()), false),
            // A list with many changes costs one pass over the PATs.
            Event::InitDone => {
                self.changed.extend(owners.retain(|object| self.listed.contains(object)));
                self.listed = HashSet::new();
                (std::mem::take(&mut self.changed), true)
            }
        };
        Triggers { pats: self.stores.pats_of(&changed), list_complete, ..Triggers::default() }
    }
}

/// Applies the events of a watch of issuers to the issuers. `K` is one of the two kinds.
pub struct IssuerHandler<K> {
    issuers: Arc<Issuers>,
    /// The issuers of the list that is being received.
    listed: HashSet<IssuerKey>,
    kind: PhantomData<fn() -> K>,
}

/// One of the two kinds of issuer.
pub trait WatchedIssuer: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {
    /// Whether it is namespaced.
    const NAMESPACED: bool;

    /// Returns what both kinds have in common.
    fn into_stored(self) -> StoredIssuer;
}

impl WatchedIssuer for StoredTokenIssuer {
    const NAMESPACED: bool = true;

    fn into_stored(self) -> StoredIssuer {
        self.0
    }
}

impl WatchedIssuer for StoredClusterTokenIssuer {
    const NAMESPACED: bool = false;

    fn into_stored(self) -> StoredIssuer {
        self.0
    }
}

impl<K> IssuerHandler<K> {
    /// Creates a handler.
    pub fn new(issuers: Arc<Issuers>) -> Self {
        Self { issuers, listed: HashSet::new(), kind: PhantomData }
    }
}

impl<K: WatchedIssuer> EventHandler for IssuerHandler<K> {
    type Object = K;

    fn handle(&mut self, event: Event<K>) -> Triggers {
        let key = |metadata: &ObjectMeta| IssuerKey {
            namespace: metadata.namespace.clone().filter(|_| K::NAMESPACED),
            name: metadata.name.clone().unwrap_or_default(),
        };
        let (pats, list_complete) = match event {
            Event::Init => {
                self.listed.clear();
                return Triggers::default();
            }
            Event::InitApply(issuer) => {
                let issuer = issuer.into_stored();
                let key = key(&issuer.metadata);
                self.listed.insert(key.clone());
                (self.issuers.apply(key, issuer), false)
            }
            Event::Apply(issuer) => {
                let issuer = issuer.into_stored();
                (self.issuers.apply(key(&issuer.metadata), issuer), false)
            }
            Event::Delete(issuer) => (self.issuers.remove(&key(issuer.meta())), false),
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let gone = self.issuers.keys(K::NAMESPACED).into_iter().filter(|key| !listed.contains(key));
                (gone.flat_map(|key| self.issuers.remove(&key)).collect(), true)
            }
        };
        Triggers { pats, list_complete, ..Triggers::default() }
    }
}

/// Returns the stored objects in the scope of a watch that its list does not contain.
fn missing(
    stored: Vec<NamespacedName>,
    scope: Option<&String>,
    listed: &HashSet<NamespacedName>,
) -> Vec<NamespacedName> {
    let in_scope = |key: &NamespacedName| scope.is_none_or(|scope| scope == key.namespace());
    stored.into_iter().filter(|key| in_scope(key) && !listed.contains(key)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::stores::WatchProgress, *};

    fn pat(namespace: &str, name: &str, version: u64, spec: Value) -> StoredPat {
        let metadata = json!({"namespace": namespace, "name": name, "uid": format!("uid-{name}"), "resourceVersion": version.to_string()});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a PAT")
    }

    fn secret(name: &str, version: u64, owner: &str) -> StoredSecret {
        let owner = json!({
            "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "name": owner, "uid": format!("uid-{owner}"),
            "controller": true,
        });
        let metadata =
            json!({"namespace": "a", "name": name, "resourceVersion": version.to_string(), "ownerReferences": [owner]});
        serde_json::from_value(json!({"metadata": metadata, "type": "Opaque"})).expect("a Secret")
    }

    fn texts(keys: &[NamespacedName]) -> Vec<String> {
        let mut texts: Vec<_> = keys.iter().map(ToString::to_string).collect();
        texts.sort();
        texts
    }

    #[test]
    fn list_of_one_namespace_removes_only_what_it_misses_there() {
        let stores = Arc::new(Stores::default());
        let mut a = PatHandler::new(stores.clone(), Some("a".into()));
        let mut b = PatHandler::new(stores.clone(), Some("b".into()));
        for handler in [&mut a, &mut b] {
            let namespace = handler.scope.clone().unwrap();
            handler.handle(Event::Init);
            handler.handle(Event::InitApply(pat(&namespace, "stays", 1, json!({}))));
            handler.handle(Event::InitApply(pat(&namespace, "goes", 2, json!({}))));
            assert!(handler.handle(Event::InitDone).list_complete);
        }
        assert_eq!(stores.keys().len(), 4);
        a.handle(Event::Init);
        a.handle(Event::InitApply(pat("a", "stays", 1, json!({}))));
        let triggers = a.handle(Event::InitDone);
        assert_eq!(triggers.deleted, [(WatchedKind::Pat, NamespacedName::new("a", "goes"))]);
        assert_eq!(texts(&stores.keys()), ["a/stays", "b/goes", "b/stays"]);
        assert_eq!(stores.progress(WatchedKind::Pat, "a"), WatchProgress { version: 2, epoch: 2 });
        assert_eq!(stores.progress(WatchedKind::Pat, "b"), WatchProgress { version: 2, epoch: 1 });
    }

    #[test]
    fn pats_of_an_owner_are_triggered_when_it_is_disabled_or_enabled() {
        let stores = Arc::new(Stores::default());
        let mut pats = PatHandler::new(stores.clone(), None);
        let mut owners = OwnerHandler::new(stores.clone());
        let janes = json!({"owner": {"kind": "User", "name": "jane"}});
        pats.handle(Event::Apply(pat("a", "one", 1, janes.clone())));
        pats.handle(Event::Apply(pat("b", "two", 2, janes)));
        pats.handle(Event::Apply(pat("a", "own", 3, json!({}))));
        let owner = |name: &str, kind: &str, subject: &str, disabled: bool| -> StoredOwner {
            let spec = json!({"subject": {"kind": kind, "name": subject}, "disabled": disabled});
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a TokenOwner")
        };
        let jane = |disabled| owner("jane", "User", "jane", disabled);
        let account = |disabled| owner("own", "VirtualAccount", "a/own", disabled);
        assert_eq!(texts(&owners.handle(Event::Apply(jane(false))).pats), [""; 0], "nothing changes");
        assert_eq!(texts(&owners.handle(Event::Apply(jane(true))).pats), ["a/one", "b/two"]);
        let one = stores.pat(&NamespacedName::new("a", "one")).expect("it is stored");
        assert_eq!(stores.disabled_by(&one).as_deref(), Some("jane"));
        assert_eq!(texts(&owners.handle(Event::Delete(jane(true))).pats), ["a/one", "b/two"]);
        assert_eq!(stores.disabled_by(&one), None);

        // A list triggers once, when it is complete, and only the PATs whose owner it disables or enables.
        owners.handle(Event::Apply(account(true)));
        owners.handle(Event::Init);
        assert_eq!(texts(&owners.handle(Event::InitApply(jane(true))).pats), [""; 0]);
        let triggers = owners.handle(Event::InitDone);
        assert_eq!((texts(&triggers.pats), triggers.list_complete), (texts(&stores.keys()), true));
        owners.handle(Event::Init);
        owners.handle(Event::InitApply(jane(true)));
        assert_eq!(texts(&owners.handle(Event::InitDone).pats), [""; 0], "a list without a change");
    }

    #[test]
    fn pats_that_want_a_secret_are_triggered_when_another_gives_it_up_or_it_changes() {
        let stores = Arc::new(Stores::default());
        let mut pats = PatHandler::new(stores.clone(), None);
        let mut secrets = SecretHandler::new(stores.clone(), None);
        let shared = json!({"secret": {"name": "shared"}});
        pats.handle(Event::Apply(pat("a", "first", 1, shared.clone())));
        pats.handle(Event::Apply(pat("a", "second", 2, shared.clone())));
        pats.handle(Event::Apply(pat("a", "other", 3, json!({}))));
        let second = stores.pat(&NamespacedName::new("a", "second")).expect("it is stored");
        assert_eq!(stores.conflicting_pat(&second, "shared").as_deref(), Some("first"));

        let triggers = secrets.handle(Event::Apply(secret("shared", 4, "other")));
        assert_eq!(texts(&triggers.pats), ["a/first", "a/other", "a/second"]);
        assert_eq!(stores.controlled_by(&pat("a", "other", 3, json!({}))).len(), 1);
        let triggers = secrets.handle(Event::Apply(secret("shared", 5, "first")));
        assert_eq!(texts(&triggers.pats), ["a/first", "a/first", "a/other", "a/second"], "its former controller too");

        let triggers = pats.handle(Event::Apply(pat("a", "first", 6, json!({}))));
        assert_eq!(texts(&triggers.pats), ["a/first", "a/second"]);
        assert_eq!(stores.conflicting_pat(&second, "shared"), None);
        pats.handle(Event::Apply(pat("a", "first", 7, shared)));
        let triggers = pats.handle(Event::Delete(pat("a", "first", 8, json!({}))));
        assert_eq!((texts(&triggers.pats), triggers.deleted.len()), (vec!["a/second".to_owned()], 1));
        let triggers = secrets.handle(Event::Delete(secret("shared", 9, "first")));
        assert_eq!(texts(&triggers.pats), ["a/first", "a/second"]);
        assert_eq!((stores.secret_count(), stores.progress(WatchedKind::Secret, "a").version), (0, 9));
    }
}
