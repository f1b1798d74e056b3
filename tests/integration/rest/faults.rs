//! A fault at each request of a create: no live token is left that nobody holds.

use futures::{StreamExt, stream};
use kube::ResourceExt;
use pat_operator::{
    api::{CredentialState, UNACKNOWLEDGED},
    rest::{error::RestError, model::IssuedToken},
};

use super::in_process::{InProcessApi, mint_caller, new_token, remaining};
use crate::support::{
    faults::{Fault, Faults},
    process::place::{Place, eventually, hash, is_ready},
};

/// POST of the object, GET of the Secret, PATCH that marks the token as in flight, DELETE of the Secret, and PATCH that acknowledges the
/// delivery.
const REQUESTS: usize = 5;

const DELETES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn fault_at_any_request_leaves_no_live_undelivered_token() {
    let place = Place::new("rest-killed").await;
    let _operator = place.operator().start();
    mint_caller(&place).await;
    let faults = [
        Fault::DieBefore,
        Fault::DieAfter,
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::Conflict,
        Fault::TooMany,
        Fault::Internal,
    ];
    let cases = (0..REQUESTS).flat_map(|at| faults.map(|fault| (at, fault)));
    stream::iter(cases).for_each_concurrent(4, |(at, fault)| fault_at(&place, at, fault)).await;
}

async fn fault_at(place: &Place, at: usize, fault: Fault) {
    let faults = Faults::at(&place.client, at, fault);
    let api = InProcessApi::new(place, faults.client()).await;
    let name = format!("fault_at {at} {fault:?}");
    let made = api.service.create(&api.caller(place).await, new_token(&name)).await;
    match made {
        Ok(IssuedToken { item, token, receipt, .. }) => {
            receipt.confirm();
            eventually(&format!("{name} happens"), async || faults.hit().is_some()).await;
            // A dead server does not acknowledge: the token expires, though it was delivered.
            eventually(&format!("{name}: the delivery is acknowledged"), async || {
                faults.is_dead() || unacknowledged(place, &item.name).await.is_none()
            })
            .await;
            assert!(api.accepts(&token).await, "{name}");
            let status = place.until(&item.name, "ready", is_ready).await;
            let hashes: Vec<_> = status.credentials.iter().map(|one| one.sha256.to_string()).collect();
            assert_eq!(hashes, [token.hash().to_string()], "{name}: the one that is held, and no other");
        }
        Err(failure) => {
            assert!(faults.hit().is_some(), "{name}: there are fewer requests");
            assert!(
                matches!(failure, RestError::Unavailable { .. } | RestError::NotFound | RestError::Conflict(_)),
                "{name}: {failure}"
            );
            // A live server takes the token back; a dead one leaves the Secret, which expires.
            eventually(&format!("nothing is left of {name}"), async || {
                let prefix = format!("fault_at-{at}-{}", format!("{fault:?}").to_lowercase());
                let (pats, secrets) = remaining(place).await;
                let Some(pat) = pats.iter().find(|pat| pat.starts_with(&format!("{prefix}-"))) else { return true };
                if !faults.is_dead() {
                    return false;
                }
                let status = place.status(pat).await;
                let active = status.credentials.iter().find(|one| one.state == CredentialState::Active);
                let is_there = secrets.contains(pat);
                match active {
                    None => false,
                    // Killed between deletion and response: the controller lets the token expire.
                    Some(active) if at == DELETES && fault == Fault::DieAfter => {
                        !is_there && unacknowledged(place, pat).await.as_deref() == Some(active.id.as_str())
                    }
                    Some(active) => is_there && active.sha256.to_string() == hash(&place.token(pat).await),
                }
            })
            .await;
        }
    }
}

/// Returns the credential that is marked as in flight.
async fn unacknowledged(place: &Place, pat: &str) -> Option<String> {
    place.pats().get(pat).await.expect("the PAT is there").annotations().get(UNACKNOWLEDGED).cloned()
}
