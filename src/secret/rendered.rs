//! The data of a Secret, ready to be written, and wiped when it has been.
//!
//! It must not print a value, and it does not know where the data goes.

use std::{collections::BTreeMap, fmt};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    MAX_DATA,
    buffer::{Buffer, TooLarge},
    data_hash,
    hash::Digest,
};

/// The data of a Secret: at most [`MAX_DATA`] bytes, wiped when dropped. `Debug` shows the keys only.
#[derive(Default, PartialEq, Eq)]
pub struct Rendered(pub(super) BTreeMap<String, Zeroizing<Vec<u8>>>);

impl Rendered {
    /// Every key with its value, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// Every key, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(|value| value.as_slice())
    }

    /// The [`data_hash`] of this data.
    pub fn hash(&self) -> Digest {
        data_hash(self.iter().map(|(key, value)| (key, Sha256::digest(value).into())))
    }

    /// How many more bytes fit in.
    pub(super) fn room(&self) -> usize {
        MAX_DATA.saturating_sub(self.0.values().map(|value| value.len()).sum())
    }

    /// Adds or replaces a value, if it could be made and fits in.
    pub(super) fn put(&mut self, key: &str, value: Result<Buffer, TooLarge>) -> Result<(), TooLarge> {
        let value = value?;
        if value.as_str().len() > self.room() {
            return Err(TooLarge);
        }
        self.0.insert(key.to_owned(), value.into_bytes());
        Ok(())
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rendered")?;
        f.debug_set().entries(self.keys()).finish()
    }
}
