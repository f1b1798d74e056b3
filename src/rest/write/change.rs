//! Changes a token: a merge patch of what differs, based on the version that it was decided on.
//!
//! It must not take a field from another manager.

use std::sync::Arc;

use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{FIELD_MANAGER, SHOWN, Writer, call, fields::Fields, may_be_tried_again};
use crate::{
    api::StoredPat,
    rest::{
        failure::{Conflict, Failure},
        item::Item,
        order::Change,
    },
};

impl Writer {
    /// Changes a token, and waits until the store shows it.
    pub(in crate::rest) async fn change(&self, item: &Item, change: &Change) -> Result<Arc<Item>, Failure> {
        if let Some(name) = &change.display_name {
            let other = self.store.named(&item.owner, name);
            if other.is_some_and(|other| other.id != item.id) {
                return Err(Failure::Conflict(Conflict::NameTaken(name.clone())));
            }
        }
        let fields = Fields::of(change, item)?;
        let object = self.patch(item, &fields).await?;
        let generation = object.metadata.generation.unwrap_or_default();
        let shown = || self.store.item(item.id).filter(|shown| shown.generation >= generation);
        if let Some(shown) = self.until(Instant::now() + SHOWN, shown).await {
            return Ok(shown);
        }
        // The watch is slow: what the API server has answered is as good.
        read(&object).map(Arc::new).ok_or(Failure::Internal)
    }

    /// Sets these fields of the spec, if nobody else has changed the spec since `item`, and they are nobody else's.
    pub(super) async fn patch(&self, item: &Item, fields: &Fields) -> Result<DynamicObject, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let object = self.present(item).await?;
            if object.metadata.generation.unwrap_or_default() != item.generation {
                return Err(Failure::Conflict(Conflict::Changed));
            }
            let fields = fields.clone().that_differ_from(&object);
            if fields.0.is_empty() {
                return Ok(object);
            }
            fields.check_managers(&object)?;
            let version = object.metadata.resource_version.as_deref().unwrap_or_default();
            match self.merge(item, version, Value::Object(fields.0)).await {
                Ok(patched) => return Ok(patched),
                Err(trouble) => may_be_tried_again(trouble, tries, "change a token")?,
            }
        }
    }

    /// The object as the API server has it now, if it still is the one.
    pub(super) async fn present(&self, item: &Item) -> Result<DynamicObject, Failure> {
        let object = call(self.pats().get(&item.name)).await.map_err(|trouble| trouble.into_failure("read a token"))?;
        let is_it = object.metadata.uid.as_deref() == Some(&*item.id.hyphenated());
        if is_it { Ok(object) } else { Err(Failure::NotFound) }
    }

    pub(super) async fn merge(&self, item: &Item, version: &str, spec: Value) -> Result<DynamicObject, super::Trouble> {
        let metadata = json!({"uid": item.id.hyphenated(), "resourceVersion": version});
        let patch = json!({"metadata": metadata, "spec": spec});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        call(self.pats().patch(&item.name, &params, &Patch::Merge(patch))).await
    }
}

/// A token as the API server has it; `None` if it cannot be read, or is being deleted.
pub(super) fn read(object: &DynamicObject) -> Option<Item> {
    let stored: StoredPat = serde_json::to_value(object).and_then(serde_json::from_value).ok()?;
    Item::read(&stored)
}
