//! What the access log needs to know of a request: its id and its caller.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use rand::{TryRng, rngs::SysRng};

use crate::token::TokenId;

/// The id of a request: 32 hexadecimal digits, in the request's extensions. It appears in the log, in the header `x-request-id` and in
/// errors. An id that the client sends is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    /// Creates a random id. It is not a secret: without randomness it is all zeros.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        let _no_secret = SysRng.try_fill_bytes(&mut bytes);
        Self(format!("{:032x}", u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The authenticated caller of a request, once it is known: owner and credential id.
pub(super) type CallerCell = Arc<OnceLock<(String, TokenId)>>;

tokio::task_local! {
    /// The authenticated caller of the current request.
    pub(super) static CALLER: CallerCell;
}

/// Records the caller for the access log. Outside of a request, it does nothing.
pub(super) fn record_caller(owner: &str, credential: TokenId) {
    let _only_the_first = CALLER.try_with(|caller| caller.set((owner.to_owned(), credential)).is_ok());
}
