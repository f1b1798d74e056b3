//! The two hashes that the annotations of a Secret record: of what its data was rendered from, and of the data itself.
//!
//! A change of their format rewrites every Secret. Their inputs are public values and hashes of values, never tokens.

use std::{collections::BTreeMap, fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::token::{InvalidHash, TokenHash};

/// SHA-256 over a sequence of parts, each preceded by its length, so that different sequences have different bytes.
pub(super) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Begins a hash. `format` separates hashes of different kinds and versions.
    pub(super) fn new(format: &str) -> Self {
        let mut fingerprint = Self(Sha256::new());
        fingerprint.text(format);
        fingerprint
    }

    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        self.0.update((count as u64).to_be_bytes());
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.count(text.len());
        self.0.update(text);
        self
    }

    pub(super) fn optional(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.count(1).text(text),
            None => self.count(0),
        }
    }

    pub(super) fn map(&mut self, map: &BTreeMap<String, String>) -> &mut Self {
        self.count(map.len());
        map.iter().fold(self, |hash, (key, value)| hash.text(key).text(value))
    }

    pub(super) fn digest(self) -> Digest {
        Digest(Some(self.0.finalize().into()))
    }
}

/// One of the two hashes, or none. Its text is 64 lower-case hexadecimal digits, or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(Option<[u8; 32]>);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().flatten().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|hash: TokenHash| Self(Some(*hash.as_bytes())))
    }
}

/// The hash of a Secret's data, from each key and the SHA-256 of its value, in any order.
///
/// [`Rendered::hash`](super::Rendered::hash) gives the same for data to be written. So a cache that keeps only hashes of values can
/// detect changes of a Secret.
pub fn data_hash<'a>(entries: impl Iterator<Item = (&'a str, [u8; 32])>) -> Digest {
    let entries: BTreeMap<_, _> = entries.collect();
    let mut hash = Fingerprint::new("pat-operator data 1");
    hash.count(entries.len());
    for (key, value) in entries {
        hash.text(key).0.update(value);
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn data_hash_depends_on_everything_but_the_order() {
        let hash = |entries: &[(&str, [u8; 32])]| data_hash(entries.iter().copied());
        let hashes = [
            hash(&[]),
            hash(&[("", [0; 32])]),
            hash(&[("a", [0; 32])]),
            hash(&[("a", [1; 32])]),
            hash(&[("a", [0; 32]), ("b", [1; 32])]),
            hash(&[("a", [1; 32]), ("b", [0; 32])]),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "{index}");
        }
        assert_eq!(hashes[4], hash(&[("b", [1; 32]), ("a", [0; 32])]));
    }

    #[test]
    fn data_hash_format_is_unchanged() {
        assert_eq!(
            data_hash([("token", [7; 32])].into_iter()).to_string(),
            "5670026aaa3f7161f2f6117d69e09038ebc8f85e7c2d23e8c72e5ad60aeafce0"
        );
    }

    proptest! {
        #[test]
        fn different_sequences_have_different_hashes(a in "[ab]{0,3}(,[ab]{0,3}){0,3}", b in "[ab]{0,3}(,[ab]{0,3}){0,3}") {
            let hash = |parts: &str| {
                let mut hash = Fingerprint::new("test");
                parts.split(',').for_each(|part| { hash.text(part); });
                hash.digest()
            };
            prop_assert_eq!(a == b, hash(&a) == hash(&b));
        }
    }
}
