//! Revokes tokens at an issuer that no PAT knows. `planner::orphans` decides which.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use kube::{Api, api::ListParams};
use tokio::time::timeout;

use super::{Issuer, Issuers, MAX_ORPHANED, issuer_target};
use crate::{
    api::StoredPat,
    issuer::Driver,
    planner::{RemoteDeletion, orphans::known_tokens, remote::RemoteList},
    service,
};

/// The time for the revocations after one poll. The others follow after the next ones.
const LIMIT: Duration = Duration::from_secs(60);

impl Issuers {
    /// Revokes the tokens in complete lists that no PAT has known for a while. Before that, it reads all PATs from the API server, because
    /// those in the store can be old.
    pub(super) async fn revoke_unknown(&self, issuer: &Issuer, driver: &dyn Driver, lists: &[Arc<RemoteList>]) {
        let due = self.unknown(issuer, lists);
        if due.is_empty() {
            return;
        }
        let title = issuer.key.title();
        let pats = match self.read_pats().await {
            Ok(pats) => pats,
            Err(error) => {
                let why = service::explain_api_error(&error);
                tracing::warn!(issuer = %title, "the PersonalAccessTokens cannot be read, so no unknown token is revoked: {why}");
                return;
            }
        };
        let Ok(known) = known_tokens(&pats, |pat| issuer.key.is_named_by(pat)) else { return };
        let due = due.into_iter().filter(|one| !known.contains(&*one.name));
        // After a timeout, the next poll finds the others.
        let _ = timeout(LIMIT, self.revoke(issuer, driver, due)).await;
    }

    async fn revoke(&self, issuer: &Issuer, driver: &dyn Driver, due: impl Iterator<Item = RemoteDeletion>) {
        let title = issuer.key.title();
        for RemoteDeletion { name, id, target } in due {
            match driver.delete(&issuer_target(&target), &id).await {
                Ok(()) => {
                    tracing::info!(issuer = %title, token = name, "revoked a token that no PersonalAccessToken knows");
                    let mut state = issuer.state.write().unwrap_or_else(PoisonError::into_inner);
                    state.unknown_revoked.entry(target).or_default().insert(name);
                }
                Err(error) => {
                    let why = issuer.shown(error);
                    tracing::warn!(issuer = %title, token = name, "a token that no PersonalAccessToken knows cannot be revoked: {why}");
                }
            }
        }
    }

    /// Records the lists, and returns the tokens to revoke according to the store.
    fn unknown(&self, issuer: &Issuer, lists: &[Arc<RemoteList>]) -> Vec<RemoteDeletion> {
        let pats = self.stores.pats().state();
        let mut state = issuer.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        for list in lists {
            let revoked = state.unknown_revoked.remove(&list.target).unwrap_or_default();
            let (listed, gone): (HashSet<_>, HashSet<_>) =
                revoked.into_iter().partition(|name| list.live.contains_key(name));
            issuer.orphans_revoked.fetch_add(gone.len() as u64, Ordering::Relaxed);
            if !listed.is_empty() {
                state.unknown_revoked.insert(list.target.clone(), listed);
            }
        }
        let known = known_tokens(pats.iter().map(Arc::as_ref), |pat| issuer.key.is_named_by(pat));
        let known = match known {
            Ok(known) if state.object.status.is_ok() => known,
            Ok(_) => return Vec::new(),
            Err(pat) => {
                let pat = self.stores.key_of(pat);
                let title = issuer.key.title();
                tracing::warn!(issuer = %title, "no unknown token is revoked, because the status of PersonalAccessToken {pat} cannot be read");
                return Vec::new();
            }
        };
        // The names of tokens that were left earlier are no longer known.
        let left = state.orphaned();
        if left.len() >= MAX_ORPHANED {
            tracing::warn!(issuer = %issuer.key.title(), "no unknown token is revoked, because {MAX_ORPHANED} tokens were left on purpose");
            return Vec::new();
        }
        let is_known = |name: &str| known.contains(name) || left.iter().any(|one| one == name);
        lists.iter().flat_map(|list| state.unknown.note(list, &state.view.mark, is_known)).collect()
    }

    /// Reads all PATs from the API server.
    pub(super) async fn read_pats(&self) -> kube::Result<Vec<StoredPat>> {
        let api = &Api::<StoredPat>::all(self.client.clone());
        service::list_pages(ListParams::default(), |params| async move { api.list(&params).await }).await
    }
}
