//! `delivery: Once`: whether the token waits to be taken, was taken, or never will be.
//!
//! A holder takes the token by deleting the Secret, in the version that they read, before the token is used or passed on. An absent
//! Secret is therefore the receipt, and nothing else is. A program that takes the token for someone else, such as the REST API, may
//! annotate the PAT beforehand: its arrival is then to be acknowledged by removing the annotation, or the token ends after
//! [`DELIVERY_WINDOW`]. When the controller itself ends a delivery, it clears the Secret and deletes it only after that is recorded.

use k8s_openapi::jiff::SignedDuration;

use super::inputs::{Inputs, MintReason, Need};
use crate::api::{Credential, CredentialState, DeliveryState, Time};

/// A token that is not taken this long after it was issued ends.
pub const DELIVERY_WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// A token held in memory for longer than this leaves too little of [`DELIVERY_WINDOW`]: another is minted instead.
const FRESH: SignedDuration = SignedDuration::from_mins(5);

/// How far a one-time delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OneTimeDelivery {
    /// There is none: the token stays in its Secret, or none has been issued.
    None,
    /// Only a live read of the Secret can tell.
    Unknown,
    /// The Secret holds the token until it is taken.
    Waiting,
    /// The token was taken since the status was written.
    Received,
    /// The token was taken, and the status says so.
    Delivered,
    /// The active token was not taken in time, or no longer can be: it ends now.
    Missed,
    /// The token was not taken and has ended.
    NotDelivered,
}

impl OneTimeDelivery {
    /// What the status says of it.
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

    /// Whether the Secret has to be there.
    pub fn is_waiting(self) -> bool {
        self == Self::Waiting
    }
}

/// Until when a token may be taken.
pub(super) fn closes_at(issued_at: Time) -> Time {
    issued_at.plus(DELIVERY_WINDOW)
}

/// Finds how far the delivery has come. `promoted`: the active token has just reached the Secret. `held`: the Secret holds it.
pub(super) fn find(inputs: &Inputs<'_>, promoted: bool, active: Option<&Credential>, held: bool) -> OneTimeDelivery {
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
    if held {
        // If another is requested before this one is taken, this one ends first. Overwritten alive, it would count as taken once the
        // Secret with the other is deleted.
        let replaced = inputs.is_rotation_due(active) && !inputs.intent.suspended;
        return if closed || replaced { OneTimeDelivery::Missed } else { OneTimeDelivery::Waiting };
    }
    if !inputs.observed.live {
        return OneTimeDelivery::Unknown;
    }
    // A Secret that was changed before the token was taken no longer holds it, and it is unknown who has read it.
    if was_taken(inputs, active) && !lost_on_the_way { OneTimeDelivery::Received } else { OneTimeDelivery::Missed }
}

/// Whether the program that takes this token for someone else has not yet acknowledged its arrival.
fn is_unacknowledged(inputs: &Inputs<'_>, active: &Credential) -> bool {
    inputs.observed.pat.unacknowledged.as_deref() == Some(active.id.as_str())
}

/// Whether the Secret that held this token is gone. A late write of an older token leaves a Secret that never held it.
fn was_taken(inputs: &Inputs<'_>, active: &Credential) -> bool {
    inputs.observed.secret.is_none_or(|secret| {
        let never_held = secret.record.as_ref().is_some_and(|record| record.ledger.revision < active.revision);
        secret.deleting || !secret.is_of(inputs.uid()) || never_held
    })
}

/// What has to happen to a one-time token: after the first, one is issued only on request.
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

/// Whether a token that was found in the Secret may still be taken. If the operator was down meanwhile, no holder was told of it, and it
/// is replaced as if it had never arrived.
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
