//! Filters as every dialect asks for them, and whether an item passes. Pure; how they are written is up to the dialects.
//!
//! A comparison with something that has no value is false, whatever the comparison but `IsNull`, `Ne`, `NotIn` and `NotContains`.

use std::cmp::Ordering;

use memchr::memchr2_iter;

use super::row::Row;
use crate::{api::Time, index::PatUid};

/// The deepest nesting that a dialect may accept: a parser refuses more, so that nothing here recurses without end.
pub const MAX_DEPTH: usize = 32;

/// Which items are wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Those that pass each of these; all, if there are none.
    Every(Vec<Filter>),
    /// Those that pass one of these; none, if there are none.
    Any(Vec<Filter>),
    /// Those that do not pass.
    Not(Box<Filter>),
    /// Those of which this is true.
    Test(Field, Test),
}

/// What of an item is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Its id: 32 hexadecimal digits.
    Id,
    /// Its name, as people see it.
    Name,
    /// When it was created.
    CreatedAt,
    /// When it was last changed, uses aside.
    UpdatedAt,
    /// When it was last used; may have no value.
    LastUsedAt,
    /// When it ends; may have no value.
    ExpiresAt,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// It has no value.
    IsNull,
    /// It is this.
    Eq(Value),
    /// It is anything else.
    Ne(Value),
    /// It is less.
    Lt(Value),
    /// It is less or this.
    Le(Value),
    /// It is more.
    Gt(Value),
    /// It is more or this.
    Ge(Value),
    /// It is one of these.
    In(Vec<Value>),
    /// It is none of these.
    NotIn(Vec<Value>),
    /// It starts with this, in any case.
    StartsWith(String),
    /// It ends with this, in any case.
    EndsWith(String),
    /// It has this in it, in any case.
    Contains(String),
    /// It does not.
    NotContains(String),
}

/// What is compared with. Of two that are not of one kind none is less, and they are not equal.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A time.
    Time(Time),
}

/// What an item has, without a copy: a hundred thousand are looked at for one page.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen<'a> {
    /// A text.
    Text(&'a str),
    /// An id, which is text to whoever asks.
    Id(PatUid),
    /// A time.
    Time(Time),
}

impl Filter {
    /// Whether the item passes.
    pub fn passes(&self, row: &Row) -> bool {
        match self {
            Self::Every(filters) => filters.iter().all(|filter| filter.passes(row)),
            Self::Any(filters) => filters.iter().any(|filter| filter.passes(row)),
            Self::Not(filter) => !filter.passes(row),
            Self::Test(field, test) => match field.of(row) {
                Some(Seen::Id(id)) => test.is_true_of(str::from_utf8(&id.digits()).ok().map(Seen::Text)),
                seen => test.is_true_of(seen),
            },
        }
    }
}

impl Field {
    /// The field's value.
    pub(super) fn of(self, row: &Row) -> Option<Seen<'_>> {
        match self {
            Self::Id => Some(Seen::Id(row.id)),
            Self::Name => Some(Seen::Text(&row.item().display_name)),
            Self::CreatedAt => Some(Seen::Time(row.created_at)),
            Self::UpdatedAt => Some(Seen::Time(row.updated_at)),
            Self::LastUsedAt => row.last_used_at.map(Seen::Time),
            Self::ExpiresAt => row.expires_at.map(Seen::Time),
        }
    }
}

impl Seen<'_> {
    /// The order of two values of one field.
    pub(super) fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            (Self::Id(one), Self::Id(other)) => one.cmp(&other),
            (Self::Time(one), Self::Time(other)) => one.cmp(&other),
            // Not of one field.
            _ => Ordering::Equal,
        }
    }

    /// The order of a value and what it is compared with; `None` if they are not of one kind.
    fn against(self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(one), Value::Text(other)) => Some(one.cmp(other)),
            (Self::Time(one), Value::Time(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }
}

impl Test {
    fn is_true_of(&self, value: Option<Seen<'_>>) -> bool {
        let order = |other: &Value| value.and_then(|value| value.against(other));
        let equal = |other: &Value| order(other).is_some_and(Ordering::is_eq);
        let text = |test: &dyn Fn(&str) -> bool| matches!(value, Some(Seen::Text(text)) if test(text));
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

/// Whether `part` is in `text`, in any case. What is ASCII, as nearly everything is, is compared where it stands.
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

    use super::*;

    proptest! {
        /// What is compared where it stands comes to what small letters would.
        #[test]
        fn a_part_is_found_in_any_case(text in "[abAB@ ä]{0,8}", part in "[abAB@ ä]{0,3}") {
            let (small, small_part) = (text.to_lowercase(), part.to_lowercase());
            prop_assert_eq!(contains(&text, &part), small.contains(&small_part));
            prop_assert_eq!(starts_with(&text, &part), small.starts_with(&small_part));
            prop_assert_eq!(ends_with(&text, &part), small.ends_with(&small_part));
        }
    }
}
