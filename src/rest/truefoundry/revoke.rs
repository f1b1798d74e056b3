//! Revokes all tokens of an owner.
//!
//! It must not leave off half-way because of one token, nor miss one that is made meanwhile: who makes one with a token that is revoked here
//! is either seen by the last look, or judged again before the new one is handed out. Both come by the one watch, in one order.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};

use crate::{
    api::Owner,
    rest::{
        caller::Caller,
        failure::{Conflict, Failure},
        item::Item,
        query::{Query, Whose},
        service::Service,
    },
};

/// How many are revoked at a time.
const AT_A_TIME: usize = 16;

/// How often it is looked whether any are left.
const LOOKS: usize = 5;

/// How long the watch gets to bring what somebody else has changed.
const PAUSE: Duration = Duration::from_millis(200);

/// Revokes all of them, the caller's own token last, so that whatever fails can be tried again with it.
///
/// # Errors
/// The first failure, when all others have been revoked.
pub async fn all(service: &Service, caller: &Caller, owner: Owner) -> Result<(), Failure> {
    let mut failed = Failure::Conflict(Conflict::Changed);
    for _ in 0..LOOKS {
        let (own, others): (Vec<_>, Vec<_>) = left(service, &owner).into_iter().partition(|item| item.id == caller.id);
        if own.is_empty() && others.is_empty() {
            return Ok(());
        }
        let mut failures = revoke(service, others).await;
        if failures.is_empty() {
            failures = revoke(service, own).await;
        }
        // One that was changed by somebody else meanwhile is looked at anew.
        let changed = !failures.is_empty();
        if let Some(lasting) = failures.into_iter().find(|one| *one != Failure::Conflict(Conflict::Changed)) {
            failed = lasting;
            break;
        }
        if changed {
            tokio::time::sleep(PAUSE).await;
        }
    }
    if left(service, &owner).is_empty() { Ok(()) } else { Err(failed) }
}

/// Those that are not revoked.
fn left(service: &Service, owner: &Owner) -> Vec<Arc<Item>> {
    let query = Query { whose: Whose::Owner(owner.clone()), ..Query::default() };
    let mut items = service.list(&query).items;
    items.retain(|item| !item.revoked);
    items
}

/// Revokes these, whatever happens to one of them, and tells what went wrong. What is gone meanwhile is as good as revoked.
async fn revoke(service: &Service, items: Vec<Arc<Item>>) -> Vec<Failure> {
    stream::iter(items)
        .map(async |item| service.revoke(&item).await.err())
        .buffer_unordered(AT_A_TIME)
        .filter_map(async |failure| failure.filter(|failure| *failure != Failure::NotFound))
        .collect()
        .await
}
