//! The id of one request: in its log line, in the header `x-request-id` of its answer, and in errors that a dialect writes.
//!
//! Always made here: one that a client sends could be anything. It must not know what is asked.

use std::fmt;

use rand::{TryRng, rngs::SysRng};

/// 32 hexadecimal digits. Stands in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    /// A new one. It is no secret: should there be no randomness, it is all zeros, and the request is answered.
    pub fn new() -> Self {
        let mut bytes = [0; 16];
        let _no_secret = SysRng.try_fill_bytes(&mut bytes);
        Self(format!("{:032x}", u128::from_be_bytes(bytes)))
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
