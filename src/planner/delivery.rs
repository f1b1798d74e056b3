//! `delivery: Once`: whether the token is waiting to be taken, was taken, or was not taken in time.
//!
//! A holder takes the token by deleting the Secret in the version that it read, before it uses the token or passes it on. The
//! deletion is the receipt. A program that takes the token for a client, such as the REST API, annotates the PAT first. It then
//! acknowledges the receipt by removing the annotation, or the token is revoked after [`DELIVERY_WINDOW`]. When the controller
//! itself ends a delivery, it first clears the Secret, then records the end, and then deletes the Secret. A Secret that cannot be cleared is
//! deleted after the end is recorded.

use k8s_openapi::jiff::SignedDuration;

use super::inputs::{Inputs, MintReason, Need};
use crate::api::{Credential, CredentialState, DeliveryState, Time};

/// A token that is not taken within this time after its issue is revoked.
pub const DELIVERY_WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// A token that was held in memory for longer than this is replaced, because too little of [`DELIVERY_WINDOW`] is left.
const FRESH: SignedDuration = SignedDuration::from_mins(5);

/// The progress of a one-time delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OneTimeDelivery {
    /// There is none: the token stays in its Secret, or none has been issued.
    None,
    /// Not known without an uncached read of the Secret.
    Unknown,
    /// The Secret holds the token until it is taken.
    Waiting,
    /// The token was taken since the status was written.
    Received,
    /// The token was taken, and the status says so.
    Delivered,
    /// The active token was not taken in time, or can no longer be taken: it ends now.
    Missed,
    /// The token was not taken and has ended.
    NotDelivered,
}

impl OneTimeDelivery {
    /// Returns the state that the status shows.
    pub fn state(self) -> Option<DeliveryState> {
        match self {
            Self::None | Self::Unknown => None,
            Self::Waiting => Some(DeliveryState::Waiting),
            Self::Received | Self::Delivered => Some(DeliveryState::Delivered),
            Self::Missed | Self::NotDelivered => Some(DeliveryState::NotDelivered),
        }
    }

    /// Whether the active token has reached its holder.
    pub fn is_delivered(self) -> bool {
        self.state() == Some(DeliveryState::Delivered)
    }
}

/// Returns until when a token may be taken.
pub(super) fn closes_at(issued_at: Time) -> Time {
    issued_at.plus(DELIVERY_WINDOW)
}

/// Finds the progress of the delivery. `promoted`: the active token has just reached the Secret. `in_secret`: the Secret holds it.
pub(super) fn find(
    inputs: &Inputs<'_>,
    promoted: bool,
    active: Option<&Credential>,
    in_secret: bool,
) -> OneTimeDelivery {
    if !inputs.intent.once || inputs.intent.revoked {
        return OneTimeDelivery::None;
    }
    let recorded = if promoted { Some(DeliveryState::Waiting) } else { inputs.base.delivery };
    let Some(active) = active else {
        return match recorded {
            None => OneTimeDelivery::None,
            Some(DeliveryState::Delivered) => OneTimeDelivery::Delivered,
            Some(DeliveryState::Waiting | DeliveryState::NotDelivered) => OneTimeDelivery::NotDelivered,
        };
    };
    let closed = closes_at(active.issued_at) <= inputs.now;
    let lost_on_the_way = is_unacknowledged(inputs, active) && closed;
    if recorded == Some(DeliveryState::Delivered) {
        return if lost_on_the_way { OneTimeDelivery::Missed } else { OneTimeDelivery::Delivered };
    }
    if in_secret {
        // If a new token is requested before this one is taken, this one ends first. If it were overwritten while live, it would
        // count as taken when the Secret with the new token is deleted.
        let replaced = inputs.is_rotation_due(active) && !inputs.intent.suspended;
        return if closed || replaced { OneTimeDelivery::Missed } else { OneTimeDelivery::Waiting };
    }
    if !inputs.observed.uncached {
        return OneTimeDelivery::Unknown;
    }
    // If the Secret was changed and no longer holds the token, it is unknown who has read the token.
    if was_taken(inputs, active) && !lost_on_the_way { OneTimeDelivery::Received } else { OneTimeDelivery::Missed }
}

/// Whether the program that takes this token for a client has not yet acknowledged the receipt.
fn is_unacknowledged(inputs: &Inputs<'_>, active: &Credential) -> bool {
    inputs.observed.pat.unacknowledged.as_deref() == Some(active.id.as_str())
}

/// Whether the Secret that held this token is gone. A late write of an older token can leave a Secret that never held
/// this one.
fn was_taken(inputs: &Inputs<'_>, active: &Credential) -> bool {
    inputs.observed.secret.is_none_or(|secret| {
        let never_held = secret.record.as_ref().is_some_and(|record| record.ledger.revision < active.revision);
        secret.deleting || !secret.is_of(inputs.uid()) || never_held
    })
}

/// Returns what must happen to a one-time token. After the first, tokens are issued only on request.
pub(super) fn need(inputs: &Inputs<'_>, active: Option<&Credential>, delivery: OneTimeDelivery) -> Need {
    let intent = &inputs.intent;
    if !intent.wants_token(inputs.now) || intent.suspended {
        return Need::Nothing;
    }
    match active {
        Some(active) if inputs.is_rotation_due(active) => Need::Mint(MintReason::Rotation),
        None if delivery.state().is_none() || is_requested(inputs) => Need::Mint(MintReason::Issue),
        _ => Need::Nothing,
    }
}

/// Whether the spec requests a token that is newer than the last one.
fn is_requested(inputs: &Inputs<'_>) -> bool {
    let last = inputs.base.last_issued_at.unwrap_or(Time::MIN);
    let lines = [inputs.intent.rotate_if_issued_before, inputs.intent.revoke_if_issued_before];
    lines.into_iter().flatten().any(|line| last < line && line <= inputs.now)
}

/// Whether a token held in memory leaves enough time to be taken.
pub(super) fn is_fresh(inputs: &Inputs<'_>, issued_at: Time) -> bool {
    !inputs.intent.once || inputs.now < issued_at.plus(FRESH)
}

/// Whether a token that was found in the Secret may still be taken. If the operator was down and the status never showed the token, it
/// is replaced.
pub(super) fn is_in_time(inputs: &Inputs<'_>, credential: &Credential) -> bool {
    !inputs.intent.once || inputs.now < closes_at(credential.issued_at)
}

/// Whether the active token is a one-time token that has not reached its holder.
pub(super) fn active_is_undelivered(inputs: &Inputs<'_>, live: &[Credential]) -> bool {
    let active = live.iter().find(|credential| credential.state == CredentialState::Active);
    let has_arrived = inputs.base.delivery == Some(DeliveryState::Delivered)
        && active.is_none_or(|active| !is_unacknowledged(inputs, active));
    inputs.intent.once && !has_arrived
}
