//! A map that is built once and read often, as a sorted slice. With one or two entries, a B-tree takes ten times the memory.

use std::borrow::Borrow;

/// Text keys with their values, sorted by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedMap<V>(Box<[(Box<str>, V)]>);

impl<V> Default for SortedMap<V> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<V> SortedMap<V> {
    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// Returns the value of a key, and the key as stored.
    pub fn get_key_value(&self, key: &str) -> Option<(&str, &V)> {
        let position = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        self.0.get(position).map(|(key, value)| (key.borrow(), value))
    }

    /// Returns all entries, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.0.iter().map(|(key, value)| (key.borrow(), value))
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<Box<str>>, V> FromIterator<(K, V)> for SortedMap<V> {
    /// Of several entries with the same key, the first is kept.
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
    fn finds_present_keys_only() {
        let table: SortedMap<u8> = [("b", 2), ("a", 1), ("b", 3), ("c", 4)].into_iter().collect();
        assert_eq!(table.iter().collect::<Vec<_>>(), [("a", &1), ("b", &2), ("c", &4)]);
        assert_eq!((table.get("b"), table.get("bb"), table.len()), (Some(&2), None, 3));
        assert!(SortedMap::<u8>::default().is_empty());
    }
}
