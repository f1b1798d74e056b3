//! The one query behind every list: whose tokens, which of them, in which order, which part. Pure.
//!
//! Paging is stable while things change: the order is total, because ties are broken by the id, and what has no value comes last,
//! in either direction.

use std::{cmp::Ordering, sync::Arc};

use super::{
    filter::{Field, Filter, Seen},
    item::Item,
    row::{Row, Search},
};
use crate::api::Owner;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Whose.
    pub whose: Whose,
    /// Which of them; `None` for all.
    pub filter: Option<Filter>,
    /// Only those that have this in their name or description, in any case; `None` or empty for all.
    pub search: Option<String>,
    /// In which order; by creation if it is empty.
    pub sort: Vec<Sort>,
    /// How many to skip.
    pub offset: usize,
    /// How many at most; `None` for all.
    pub limit: Option<usize>,
}

/// Whose tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Whose {
    /// Everybody's.
    #[default]
    All,
    /// One owner's.
    Owner(Owner),
    /// One owner's, as far as they are marked as managed.
    Managed(Owner),
}

/// One key of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub by: Field,
    /// The largest first.
    pub descending: bool,
}

/// What comes of it.
#[derive(Clone, Debug)]
pub struct Page {
    /// The items of this part, in order.
    pub items: Vec<Arc<Item>>,
    /// How many there are in all.
    pub total: usize,
}

/// In which order items are handed to [`Query::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// In none.
    Unordered,
    /// By creation, then by id.
    ByCreation,
}

impl Query {
    /// Whether one of the owner's belongs to the answer, whatever the part.
    pub fn wants(&self) -> impl Fn(&Row) -> bool {
        let search = Search::of(self.search.as_deref());
        let only_managed = matches!(self.whose, Whose::Managed(_));
        move |row| {
            (!only_managed || row.managed)
                && self.filter.as_ref().is_none_or(|filter| filter.passes(row))
                && search.as_ref().is_none_or(|text| row.has(text))
        }
    }

    /// The order of two; never equal for two different ones.
    pub fn order(&self, one: &Row, other: &Row) -> Ordering {
        let by_keys = self.keys().iter().map(|key| compare(*key, key.by.of(one), key.by.of(other)));
        by_keys.fold(Ordering::Equal, Ordering::then).then_with(|| one.id.cmp(&other.id))
    }

    fn keys(&self) -> &[Sort] {
        const BY_CREATION: &[Sort] = &[Sort { by: Field::CreatedAt, descending: false }];
        if self.sort.is_empty() { BY_CREATION } else { &self.sort }
    }

    /// Answers, from everything that there is of whoever's it is to be.
    pub fn run<'r>(&self, rows: impl IntoIterator<Item = &'r Row>, given: Given) -> Page {
        let wants = self.wants();
        let wanted = rows.into_iter().filter(|row| wants(row));
        let in_order = matches!(self.keys(), [Sort { by: Field::CreatedAt, descending: false }, ..]);
        if given == Given::ByCreation && in_order && self.keys().len() == 1 {
            return self.cut(wanted);
        }
        // The first key beside each: what is compared most does not have to be fetched.
        let first = self.keys()[0];
        let mut wanted: Vec<_> = wanted.map(|row| (first.by.of(row), row)).collect();
        let order = |(one_key, one): &(Option<Seen<'_>>, &Row), (other_key, other): &(Option<Seen<'_>>, &Row)| {
            compare(first, *one_key, *other_key).then_with(|| self.order(one, other))
        };
        let total = wanted.len();
        let (start, end) = self.part(total);
        // Only the part that is asked for has to be in order.
        if end < total && end > 0 {
            wanted.select_nth_unstable_by(end - 1, order);
            wanted.truncate(end);
        }
        if start > 0 && start < wanted.len() {
            wanted.select_nth_unstable_by(start, order);
        }
        let mut part = wanted.split_off(start.min(wanted.len()));
        part.truncate(end - start);
        part.sort_unstable_by(order);
        Page { items: part.into_iter().map(|(_, row)| row.item().clone()).collect(), total }
    }

    /// The part of what comes in order.
    fn cut<'r>(&self, wanted: impl Iterator<Item = &'r Row>) -> Page {
        let (mut items, mut total) = (Vec::new(), 0);
        let end = self.limit.map_or(usize::MAX, |limit| self.offset.saturating_add(limit));
        for row in wanted {
            if (self.offset..end).contains(&total) {
                items.push(row.item().clone());
            }
            total += 1;
        }
        Page { items, total }
    }

    /// Where the part that is asked for begins and ends.
    fn part(&self, total: usize) -> (usize, usize) {
        let end = self.limit.map_or(total, |limit| self.offset.saturating_add(limit).min(total));
        (self.offset.min(end), end)
    }
}

fn compare(key: Sort, one: Option<Seen<'_>>, other: Option<Seen<'_>>) -> Ordering {
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
