//! What is found out about a request while it is answered, for its log line: who called.
//!
//! It goes along with the task that answers. It must not know what is asked, and never sees a token.

use std::sync::{Arc, OnceLock};

use crate::token::TokenId;

tokio::task_local! {
    static CURRENT: Arc<Context>;
}

/// See the module.
#[derive(Debug, Default)]
pub struct Context {
    caller: OnceLock<(String, TokenId)>,
}

impl Context {
    /// Answers a request; what it finds out comes here.
    pub async fn scope<T>(self: &Arc<Self>, answering: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), answering).await
    }

    /// Who called, as far as it is known: the owner, and the credential's id.
    pub fn caller(&self) -> Option<(&str, &TokenId)> {
        self.caller.get().map(|(owner, credential)| (owner.as_str(), credential))
    }
}

/// Notes who called; outside of a request it does nothing.
pub fn note_caller(owner: &str, credential: TokenId) {
    let _only_the_first = CURRENT.try_with(|context| context.caller.set((owner.to_owned(), credential)).is_ok());
}
