//! A token in the store, and beside it what lists are decided by: a hundred thousand are looked at for one page, and each step to a
//! place that is in no cache costs more than what is done there.
//!
//! It must not know what anybody asks for.

use std::sync::Arc;

use memchr::memmem::Finder;

use super::item::Item;
use crate::{api::Time, index::PatUid};

/// See the module. What is beside the item is the item's.
#[derive(Clone, Debug)]
pub struct Row {
    item: Arc<Item>,
    pub(super) id: PatUid,
    pub(super) created_at: Time,
    pub(super) updated_at: Time,
    pub(super) last_used_at: Option<Time>,
    pub(super) expires_at: Option<Time>,
    pub(super) managed: bool,
    /// The name that people see and the description, one after the other, in small letters.
    words: Arc<str>,
    name_ends: usize,
}

/// A text to look for in names and descriptions.
pub(super) struct Search(Finder<'static>);

impl From<Arc<Item>> for Row {
    fn from(item: Arc<Item>) -> Self {
        let mut words = item.display_name.to_lowercase();
        let name_ends = words.len();
        words.push_str(&item.description.as_deref().unwrap_or_default().to_lowercase());
        Self {
            id: item.id,
            created_at: item.created_at,
            updated_at: item.updated_at,
            last_used_at: item.last_used_at,
            expires_at: item.expires_at(),
            managed: item.managed,
            words: words.into(),
            name_ends,
            item,
        }
    }
}

impl Row {
    /// The token itself.
    pub fn item(&self) -> &Arc<Item> {
        &self.item
    }

    /// Whether the text is in the name or in the description.
    pub(super) fn has(&self, Search(text): &Search) -> bool {
        let words = self.words.as_bytes();
        let Some(start) = text.find(words) else { return false };
        let (name, description) = words.split_at(self.name_ends);
        let is_within_one = start >= name.len() || start + text.needle().len() <= name.len();
        is_within_one || text.find(name).is_some() || text.find(description).is_some()
    }
}

impl Search {
    /// In any case; `None` if there is nothing to look for.
    pub(super) fn of(text: Option<&str>) -> Option<Self> {
        let text = text.filter(|text| !text.is_empty())?;
        Some(Self(Finder::new(&text.to_lowercase()).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::StoredPat;

    fn row(name: &str, description: Option<&str>) -> Row {
        let stored: StoredPat = serde_json::from_value(json!({
            "metadata": {
                "namespace": "team", "name": "app", "uid": "00000000-0000-0000-0000-000000000001",
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"displayName": name, "description": description},
        }))
        .unwrap();
        Arc::new(Item::read(&stored).unwrap()).into()
    }

    proptest! {
        /// Never across the end of one and the beginning of the other.
        #[test]
        fn a_text_is_looked_for_in_each_of_the_two_in_any_case(
            name in "[abAB ä]{0,5}", description in prop::option::of("[abAB ä]{0,5}"), text in "[abAB ä]{1,3}",
        ) {
            let small = text.to_lowercase();
            let has = |place: &str| place.to_lowercase().contains(&small);
            let found = row(&name, description.as_deref()).has(&Search::of(Some(&text)).unwrap());
            prop_assert_eq!(found, has(&name) || description.as_deref().is_some_and(has));
        }
    }

    #[test]
    fn nothing_to_look_for_is_no_search() {
        assert!(Search::of(None).is_none() && Search::of(Some("")).is_none());
    }
}
