//! A small map that is written once and read often: a sorted slice. A B-tree would take ten times the room for the one or two
//! entries that there are here.

use std::borrow::Borrow;

/// Keys in order, each with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<V>(Box<[(Box<str>, V)]>);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<V> Table<V> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The value of a key, and the key as it is kept here.
    pub fn get_key_value(&self, key: &str) -> Option<(&str, &V)> {
        let position = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        self.0.get(position).map(|(key, value)| (key.borrow(), value))
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.0.iter().map(|(key, value)| (key.borrow(), value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<Box<str>>, V> FromIterator<(K, V)> for Table<V> {
    /// Of entries with the same key the first stays.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(Box<str>, V)> = entries.into_iter().map(|(key, value)| (key.into(), value)).collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.dedup_by(|(b, _), (a, _)| a == b);
        Self(entries.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there_and_nothing_else() {
        let table: Table<u8> = [("b", 2), ("a", 1), ("b", 3), ("c", 4)].into_iter().collect();
        assert_eq!(table.iter().collect::<Vec<_>>(), [("a", &1), ("b", &2), ("c", &4)]);
        assert_eq!((table.get("b"), table.get("bb"), table.len()), (Some(&2), None, 3));
        assert!(Table::<u8>::default().is_empty());
    }
}
