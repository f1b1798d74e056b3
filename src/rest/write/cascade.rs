//! Revokes the tokens whose parent is revoked: those that its holder created or regenerated, and in turn theirs.
//!
//! Every replica does so. A second revocation changes nothing.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Writer, delivery::DeliveryBackoff};
use crate::rest::{
    error::RestError,
    model::{ChangeToken, TokenItem},
};

/// The number of tokens that are revoked concurrently.
const CONCURRENT_REVOCATIONS: usize = 16;

/// The shortest time between two passes over the parents, as every status update changes the store.
const PASS_INTERVAL: Duration = Duration::from_secs(1);

impl Writer {
    /// Revokes the tokens whose parent is revoked, now and after each change of the store. Never ends.
    pub(in crate::rest) async fn cascade_revocations(&self) {
        let mut changes = self.store.changes();
        let mut backoff = DeliveryBackoff::default();
        loop {
            changes.mark_unchanged();
            let children = self.store.children_of_revoked();
            if self.revoke_children(children).await {
                backoff = DeliveryBackoff::default();
                sleep(PASS_INTERVAL).await;
                // The store outlives this task, so the channel is never closed.
                let _ = changes.changed().await;
            } else {
                sleep(backoff.next(&self.stopping)).await;
            }
        }
    }

    /// Returns whether all of them are revoked.
    async fn revoke_children(&self, children: Vec<Arc<TokenItem>>) -> bool {
        let revoking = stream::iter(children).map(async |child| self.revoke_child(&child).await);
        revoking.buffer_unordered(CONCURRENT_REVOCATIONS).fold(true, async |all, revoked| all && revoked).await
    }

    async fn revoke_child(&self, child: &TokenItem) -> bool {
        let revoked = self.change(child, &ChangeToken { revoked: Some(true), ..ChangeToken::default() }).await;
        let (name, parent) = (&child.name, child.parent.map(|parent| parent.hyphenated()));
        match revoked {
            Ok(_) => info!(name, parent, "revoked a token because its parent is revoked"),
            Err(RestError::NotFound) => {}
            Err(error) => {
                warn!(name, parent, %error, "cannot revoke a token whose parent is revoked yet");
                return false;
            }
        }
        true
    }
}
