//! Queries: which tokens a list contains, in which order, and which page.
//!
//! Pages are stable while tokens change: the order is total, because ties are broken by the id. Missing values come last in both
//! directions.

use std::{cmp::Ordering, sync::Arc};

use memchr::{memchr2_iter, memmem::Finder};

use super::model::TokenItem;
use crate::{
    api::{Owner, Time},
    index::PatUid,
};

/// The maximum nesting that a dialect's parser may accept, so that recursion is bounded.
pub const MAX_DEPTH: usize = 32;

/// A query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenQuery {
    /// Whose tokens.
    pub owner: OwnerSelector,
    /// The filter; `None` for all.
    pub filter: Option<TokenFilter>,
    /// Text in the display name or description, ignoring case; `None` or empty for all.
    pub search: Option<String>,
    /// The order; by creation if empty.
    pub sort: Vec<SortKey>,
    /// The number of tokens to skip.
    pub offset: usize,
    /// The maximum number of tokens; `None` for all.
    pub limit: Option<usize>,
}

/// Selects tokens by owner.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OwnerSelector {
    /// Every owner's tokens.
    #[default]
    All,
    /// One owner's tokens.
    Owner(Owner),
    /// One owner's tokens that are marked as managed.
    Managed(Owner),
}

/// One key of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// The field.
    pub by: TokenField,
    /// Whether the largest value comes first.
    pub descending: bool,
}

/// A token, with copies of what lists filter and sort by: a page may look at a hundred thousand rows, and each pointer that misses the
/// cache costs more than the comparison.
#[derive(Clone, Debug)]
pub struct TokenRow {
    item: Arc<TokenItem>,
    id: PatUid,
    created_at: Time,
    updated_at: Time,
    last_used_at: Option<Time>,
    expires_at: Option<Time>,
    managed: bool,
    /// The display name followed by the description, in lower case.
    text: Arc<str>,
    name_ends: usize,
}

/// Text to search for in names and descriptions.
struct SearchText(Finder<'static>);

impl From<Arc<TokenItem>> for TokenRow {
    fn from(item: Arc<TokenItem>) -> Self {
        let mut text = item.display_name.to_lowercase();
        let name_ends = text.len();
        text.push_str(&item.description.as_deref().unwrap_or_default().to_lowercase());
        Self {
            id: item.id,
            created_at: item.created_at,
            updated_at: item.updated_at,
            last_used_at: item.last_used_at,
            expires_at: item.expires_at(),
            managed: item.managed,
            text: text.into(),
            name_ends,
            item,
        }
    }
}

impl TokenRow {
    /// Returns the token.
    pub fn item(&self) -> &Arc<TokenItem> {
        &self.item
    }

    /// Whether the name or the description contains the text.
    fn contains(&self, SearchText(search): &SearchText) -> bool {
        let text = self.text.as_bytes();
        let Some(start) = search.find(text) else { return false };
        let (name, description) = text.split_at(self.name_ends);
        let is_within_one = start >= name.len() || start + search.needle().len() <= name.len();
        is_within_one || search.find(name).is_some() || search.find(description).is_some()
    }
}

impl SearchText {
    /// Prepares a search that ignores case; `None` for no text.
    fn of(text: Option<&str>) -> Option<Self> {
        let text = text.filter(|text| !text.is_empty())?;
        Some(Self(Finder::new(&text.to_lowercase()).into_owned()))
    }
}

/// A page of tokens.
#[derive(Clone, Debug)]
pub struct TokenPage {
    /// The tokens of this page, in order.
    pub items: Vec<Arc<TokenItem>>,
    /// The number of tokens on all pages.
    pub total: usize,
}

impl TokenQuery {
    /// Returns whether a token of the selected owner belongs to the result, on whatever page.
    pub fn matcher(&self) -> impl Fn(&TokenRow) -> bool {
        let search = SearchText::of(self.search.as_deref());
        let only_managed = matches!(self.owner, OwnerSelector::Managed(_));
        move |row| {
            (!only_managed || row.managed)
                && self.filter.as_ref().is_none_or(|filter| filter.matches(row))
                && search.as_ref().is_none_or(|text| row.contains(text))
        }
    }

    /// Compares two tokens. The result is `Equal` only for the same token.
    pub fn order(&self, one: &TokenRow, other: &TokenRow) -> Ordering {
        let by_keys = self.keys().iter().map(|key| compare(*key, key.by.of(one), key.by.of(other)));
        by_keys.fold(Ordering::Equal, Ordering::then).then_with(|| one.id.cmp(&other.id))
    }

    fn keys(&self) -> &[SortKey] {
        const BY_CREATION: &[SortKey] = &[SortKey { by: TokenField::CreatedAt, descending: false }];
        if self.sort.is_empty() { BY_CREATION } else { &self.sort }
    }

    /// Runs the query over all tokens of the selected owner, in order of creation.
    pub fn run<'r>(&self, rows: impl IntoIterator<Item = &'r TokenRow>) -> TokenPage {
        let matches = self.matcher();
        let matching = rows.into_iter().filter(|row| matches(row));
        if matches!(self.keys(), [SortKey { by: TokenField::CreatedAt, descending: false }]) {
            return self.cut(matching);
        }
        // The first key is stored with each row, so that most comparisons need no other memory.
        let first = self.keys()[0];
        let mut matching: Vec<_> = matching.map(|row| (first.by.of(row), row)).collect();
        let order = |(one_key, one): &(Option<FieldValue<'_>>, &TokenRow),
                     (other_key, other): &(Option<FieldValue<'_>>, &TokenRow)| {
            compare(first, *one_key, *other_key).then_with(|| self.order(one, other))
        };
        let total = matching.len();
        let (start, end) = self.range(total);
        // Only the requested page has to be sorted.
        if end < total && end > 0 {
            matching.select_nth_unstable_by(end - 1, order);
            matching.truncate(end);
        }
        if start > 0 && start < matching.len() {
            matching.select_nth_unstable_by(start, order);
        }
        let mut page = matching.split_off(start.min(matching.len()));
        page.truncate(end - start);
        page.sort_unstable_by(order);
        TokenPage { items: page.into_iter().map(|(_, row)| row.item().clone()).collect(), total }
    }

    /// Cuts the page out of sorted rows.
    fn cut<'r>(&self, matching: impl Iterator<Item = &'r TokenRow>) -> TokenPage {
        let (mut items, mut total) = (Vec::new(), 0);
        let end = self.limit.map_or(usize::MAX, |limit| self.offset.saturating_add(limit));
        for row in matching {
            if (self.offset..end).contains(&total) {
                items.push(row.item().clone());
            }
            total += 1;
        }
        TokenPage { items, total }
    }

    /// Returns start and end of the page.
    fn range(&self, total: usize) -> (usize, usize) {
        let end = self.limit.map_or(total, |limit| self.offset.saturating_add(limit).min(total));
        (self.offset.min(end), end)
    }
}

fn compare(key: SortKey, one: Option<FieldValue<'_>>, other: Option<FieldValue<'_>>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => {
            let order = one.order(other);
            if key.descending { order.reverse() } else { order }
        }
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// A filter.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenFilter {
    /// All of these must match; none at all match everything.
    All(Vec<TokenFilter>),
    /// One of these must match; none at all match nothing.
    Any(Vec<TokenFilter>),
    /// This must not match.
    Not(Box<TokenFilter>),
    /// The comparison must hold.
    Compare(TokenField, Comparison),
}

/// A field of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenField {
    /// The id: 32 hexadecimal digits.
    Id,
    /// The display name.
    Name,
    /// The time of creation.
    CreatedAt,
    /// The time of the last change other than a use.
    UpdatedAt,
    /// The time of the last use, if any.
    LastUsedAt,
    /// The expiry, if any.
    ExpiresAt,
    /// The time of the last rotation, if any.
    LastRotatedAt,
    /// Whether the token is revoked; `false` comes first.
    Revoked,
    /// The scopes, compared one after another.
    Scopes,
    /// The owner's name.
    Owner,
}

/// A comparison. If the field has no value, only `IsNull`, `Ne`, `NotIn` and `NotContains` hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// There is no value.
    IsNull,
    /// Equal.
    Eq(Operand),
    /// Not equal.
    Ne(Operand),
    /// Less than.
    Lt(Operand),
    /// Less than or equal.
    Le(Operand),
    /// Greater than.
    Gt(Operand),
    /// Greater than or equal.
    Ge(Operand),
    /// Equal to one of these.
    In(Vec<Operand>),
    /// Equal to none of these.
    NotIn(Vec<Operand>),
    /// Starts with this, ignoring case.
    StartsWith(String),
    /// Ends with this, ignoring case.
    EndsWith(String),
    /// Contains this, ignoring case.
    Contains(String),
    /// Does not contain this, ignoring case.
    NotContains(String),
}

/// The right-hand side of a comparison. Values of different kinds are neither equal nor ordered.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// Text.
    Text(String),
    /// A time.
    Time(Time),
}

/// A field's value, borrowed: one page may look at a hundred thousand tokens.
#[derive(Clone, Copy, Debug)]
enum FieldValue<'a> {
    /// Text.
    Text(&'a str),
    /// An id, which is compared as text.
    Id(PatUid),
    /// A time.
    Time(Time),
    /// A flag, which can only be sorted by.
    Flag(bool),
    /// Texts, which can only be sorted by.
    Texts(&'a [String]),
}

impl TokenFilter {
    /// Whether the token matches.
    pub fn matches(&self, row: &TokenRow) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.matches(row)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(row)),
            Self::Not(filter) => !filter.matches(row),
            Self::Compare(field, comparison) => match field.of(row) {
                Some(FieldValue::Id(id)) => comparison.holds(str::from_utf8(&id.digits()).ok().map(FieldValue::Text)),
                value => comparison.holds(value),
            },
        }
    }
}

impl TokenField {
    /// Returns the field's value.
    fn of(self, row: &TokenRow) -> Option<FieldValue<'_>> {
        match self {
            Self::Id => Some(FieldValue::Id(row.id)),
            Self::Name => Some(FieldValue::Text(&row.item().display_name)),
            Self::CreatedAt => Some(FieldValue::Time(row.created_at)),
            Self::UpdatedAt => Some(FieldValue::Time(row.updated_at)),
            Self::LastUsedAt => row.last_used_at.map(FieldValue::Time),
            Self::ExpiresAt => row.expires_at.map(FieldValue::Time),
            Self::LastRotatedAt => row.item().last_rotated_at().map(FieldValue::Time),
            Self::Revoked => Some(FieldValue::Flag(row.item().revoked)),
            Self::Scopes => Some(FieldValue::Texts(&row.item().scopes)),
            Self::Owner => Some(FieldValue::Text(&row.item().owner.name)),
        }
    }
}

impl FieldValue<'_> {
    /// Compares two values of one field.
    fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            (Self::Id(one), Self::Id(other)) => one.cmp(&other),
            (Self::Time(one), Self::Time(other)) => one.cmp(&other),
            (Self::Flag(one), Self::Flag(other)) => one.cmp(&other),
            (Self::Texts(one), Self::Texts(other)) => one.cmp(other),
            // Values of different fields.
            _ => Ordering::Equal,
        }
    }

    /// Compares a value with an operand; `None` if they are of different kinds.
    fn compare(self, other: &Operand) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(one), Operand::Text(other)) => Some(one.cmp(other)),
            (Self::Time(one), Operand::Time(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }
}

impl Comparison {
    fn holds(&self, value: Option<FieldValue<'_>>) -> bool {
        let order = |other: &Operand| value.and_then(|value| value.compare(other));
        let equal = |other: &Operand| order(other).is_some_and(Ordering::is_eq);
        let text = |test: &dyn Fn(&str) -> bool| matches!(value, Some(FieldValue::Text(text)) if test(text));
        match self {
            Self::IsNull => value.is_none(),
            Self::Eq(other) => equal(other),
            Self::Ne(other) => !equal(other),
            Self::Lt(other) => order(other).is_some_and(Ordering::is_lt),
            Self::Le(other) => order(other).is_some_and(Ordering::is_le),
            Self::Gt(other) => order(other).is_some_and(Ordering::is_gt),
            Self::Ge(other) => order(other).is_some_and(Ordering::is_ge),
            Self::In(others) => others.iter().any(equal),
            Self::NotIn(others) => !others.iter().any(equal),
            Self::StartsWith(part) => text(&|text| starts_with(text, part)),
            Self::EndsWith(part) => text(&|text| ends_with(text, part)),
            Self::Contains(part) => text(&|text| contains(text, part)),
            Self::NotContains(part) => !text(&|text| contains(text, part)),
        }
    }
}

/// Whether `text` contains `part`, ignoring case. ASCII, which nearly all text is, is compared without a copy.
fn contains(text: &str, part: &str) -> bool {
    if text.is_ascii() && part.is_ascii() {
        let (text, part) = (text.as_bytes(), part.as_bytes());
        let Some(first) = part.first() else { return true };
        let starts = memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), text);
        let mut candidates = starts.map_while(|start| text.get(start..start + part.len()));
        return candidates.any(|candidate| candidate.eq_ignore_ascii_case(part));
    }
    text.to_lowercase().contains(&part.to_lowercase())
}

fn starts_with(text: &str, part: &str) -> bool {
    if text.is_ascii() && part.is_ascii() {
        return text.as_bytes().get(..part.len()).is_some_and(|start| start.eq_ignore_ascii_case(part.as_bytes()));
    }
    text.to_lowercase().starts_with(&part.to_lowercase())
}

fn ends_with(text: &str, part: &str) -> bool {
    if text.is_ascii() && part.is_ascii() {
        let start = text.len().checked_sub(part.len());
        return start.is_some_and(|start| text.as_bytes()[start..].eq_ignore_ascii_case(part.as_bytes()));
    }
    text.to_lowercase().ends_with(&part.to_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::StoredPat;

    proptest! {
        #[test]
        fn comparison_without_a_copy_ignores_case_like_lower_case_copies(text in "[abAB@ ä]{0,8}", part in "[abAB@ ä]{0,3}") {
            let (small, small_part) = (text.to_lowercase(), part.to_lowercase());
            prop_assert_eq!(contains(&text, &part), small.contains(&small_part));
            prop_assert_eq!(starts_with(&text, &part), small.starts_with(&small_part));
            prop_assert_eq!(ends_with(&text, &part), small.ends_with(&small_part));
        }
    }

    fn row(name: &str, description: Option<&str>) -> TokenRow {
        let stored: StoredPat = serde_json::from_value(json!({
            "metadata": {
                "namespace": "team", "name": "app", "uid": "00000000-0000-0000-0000-000000000001",
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"displayName": name, "description": description},
        }))
        .unwrap();
        Arc::new(TokenItem::read(&stored).unwrap()).into()
    }

    proptest! {
        #[test]
        fn search_looks_in_name_and_description_but_not_across_them(
            name in "[abAB ä]{0,5}", description in prop::option::of("[abAB ä]{0,5}"), text in "[abAB ä]{1,3}",
        ) {
            let small = text.to_lowercase();
            let has = |place: &str| place.to_lowercase().contains(&small);
            let found = row(&name, description.as_deref()).contains(&SearchText::of(Some(&text)).unwrap());
            prop_assert_eq!(found, has(&name) || description.as_deref().is_some_and(has));
        }
    }

    #[test]
    fn empty_text_is_no_search() {
        assert!(SearchText::of(None).is_none() && SearchText::of(Some("")).is_none());
    }
}
