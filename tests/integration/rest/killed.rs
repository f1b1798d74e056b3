//! A create that meets an accident at each of its requests: no live token is left that nobody holds.

use futures::{StreamExt, stream};
use kube::ResourceExt;
use pat_operator::{
    api::{CredentialState, UNACKNOWLEDGED},
    rest::{error::RestError, model::IssuedToken},
};

use super::inside::{Inside, hire, left, order};
use crate::support::{
    faults::{Fault, Faults},
    process::place::{Place, eventually, hash, is_ready},
};

/// POST of the object, GET of the Secret, PATCH by which the token is on its way, DELETE of the Secret, and, once the answer is out, PATCH by
/// which it has arrived.
const REQUESTS: usize = 5;

const DELETES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn fault_at_any_request_leaves_no_live_undelivered_token() {
    let place = Place::new("rest-killed").await;
    let _operator = place.operator().start();
    hire(&place).await;
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
    stream::iter(cases).for_each_concurrent(4, |(at, fault)| accident(&place, at, fault)).await;
}

async fn accident(place: &Place, at: usize, fault: Fault) {
    let faults = Faults::at(&place.client, at, fault);
    let inside = Inside::new(place, faults.client()).await;
    let name = format!("accident {at} {fault:?}");
    let made = inside.service.create(&inside.caller(place).await, order(&name)).await;
    match made {
        Ok(IssuedToken { item, token, receipt }) => {
            receipt.confirm();
            eventually(&format!("{name} happens"), async || faults.hit().is_some()).await;
            // One that is dead says nothing more: then the token dies with its time, though somebody holds it.
            eventually(&format!("{name}: the arrival is acknowledged"), async || {
                faults.is_dead() || unacknowledged(place, &item.name).await.is_none()
            })
            .await;
            assert!(inside.lets_in(&token).await, "{name}");
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
            // The server lives on and takes back what it made; one that is dead leaves the Secret, whose time runs out.
            eventually(&format!("nothing is left of {name}"), async || {
                let prefix = format!("accident-{at}-{}", format!("{fault:?}").to_lowercase());
                let (pats, secrets) = left(place).await;
                let Some(pat) = pats.iter().find(|pat| pat.starts_with(&format!("{prefix}-"))) else { return true };
                if !faults.is_dead() {
                    return false;
                }
                let status = place.status(pat).await;
                let active = status.credentials.iter().find(|one| one.state == CredentialState::Active);
                let is_there = secrets.contains(pat);
                match active {
                    None => false,
                    // Killed after the deletion and before the answer: the controller lets it die with its time.
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

/// The credential of which the object says that it is on its way.
async fn unacknowledged(place: &Place, pat: &str) -> Option<String> {
    place.pats().get(pat).await.expect("the PAT is there").annotations().get(UNACKNOWLEDGED).cloned()
}
