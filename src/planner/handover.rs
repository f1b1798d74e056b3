//! `delivery: Once`: whether the token waits to be taken, was taken, or never will be.
//!
//! Whoever takes the token deletes the Secret, in the version that it was read in, before anybody is told the token; so an absent
//! Secret is the receipt, and nothing else is. Whoever takes it for somebody else may say beforehand that its arrival is still to be
//! acknowledged: then it dies with its time, unless that is taken back. What ends a delivery from our side therefore empties the Secret
//! and does not delete it until that is recorded. It must not mint, nor decide over the life of what was handed over.

use k8s_openapi::jiff::SignedDuration;

use super::{Planner, Step, content, life, place::Place};
use crate::api::{Credential, CredentialState, DeliveryState, Time};

/// What is not taken this long after it was issued is dead.
pub const DELIVERY_WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// A token that has waited in memory for longer would leave too little of [`DELIVERY_WINDOW`]: another is minted instead.
const FRESH: SignedDuration = SignedDuration::from_mins(5);

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Handover {
    /// What the status is to say.
    pub state: Option<DeliveryState>,
    /// The active token was not taken in time, or cannot be any more: it dies now.
    pub missed: bool,
    /// The Secret is gone: somebody has taken the token since the status was written.
    pub received: bool,
}

impl Handover {
    fn at(state: Option<DeliveryState>) -> Self {
        Self { state, ..Self::default() }
    }

    /// The active token is in its holder's hands.
    pub fn is_delivered(self) -> bool {
        self.state == Some(DeliveryState::Delivered)
    }

    /// The Secret is to be there.
    pub fn is_waiting(self) -> bool {
        self.state == Some(DeliveryState::Waiting)
    }
}

/// Until when a token may be taken.
pub(super) fn closes_at(issued_at: Time) -> Time {
    issued_at.plus(DELIVERY_WINDOW)
}

impl Planner<'_> {
    /// Where the delivery stands; `None`: that cannot be said before a look at the Secret.
    pub(super) fn handover(&self, promoted: bool, active: Option<&Credential>, holds: bool) -> Option<Handover> {
        if !self.intent.once || self.intent.revoked {
            return Some(Handover::default());
        }
        let told = if promoted { Some(DeliveryState::Waiting) } else { self.base.delivery };
        let Some(active) = active else {
            let over = |state| if state == DeliveryState::Waiting { DeliveryState::NotDelivered } else { state };
            return Some(Handover::at(told.map(over)));
        };
        let missed = Handover { missed: true, ..Handover::at(Some(DeliveryState::NotDelivered)) };
        let lost = self.is_unacknowledged(active) && closes_at(active.issued_at) <= self.now;
        if told == Some(DeliveryState::Delivered) {
            return Some(if lost { missed } else { Handover::at(told) });
        }
        if holds {
            // Asked for another before this one was taken: first it dies. Overwritten alive, it would be taken for taken by whoever
            // deletes the Secret then.
            let due = life::rotation_due(self.view.pat.uid(), self.intent, active).is_some_and(|due| due <= self.now);
            let open = self.now < closes_at(active.issued_at) && (!due || self.intent.suspended);
            return Some(if open { Handover::at(Some(DeliveryState::Waiting)) } else { missed });
        }
        if !self.view.live {
            return None;
        }
        // Somebody changed it before it was taken: what was to be handed over is not there any more, and who has read it is unknown.
        let receipt = Handover { received: true, ..Handover::at(Some(DeliveryState::Delivered)) };
        Some(if self.is_taken(active) && !lost { receipt } else { missed })
    }

    /// Whoever has taken this token, or is about to, has not said yet that it reached whom it is for.
    fn is_unacknowledged(&self, active: &Credential) -> bool {
        self.view.pat.unacknowledged.as_deref() == Some(active.id.as_str())
    }

    /// The Secret that held this token is gone. One that was written for an older token, and late, never held it.
    fn is_taken(&self, active: &Credential) -> bool {
        self.view.secret.is_none_or(|secret| {
            let never_held = secret.record.as_ref().is_some_and(|record| record.ledger.revision < active.revision);
            secret.deleting || !secret.is_of(self.view.pat.uid()) || never_held
        })
    }

    /// Whether somebody asks for a token although there was one: it is newer than that one.
    pub(super) fn is_asked_for(&self) -> bool {
        let last = self.base.last_issued_at.unwrap_or(Time::MIN);
        let lines = [self.intent.rotate_if_issued_before, self.intent.revoke_if_issued_before];
        lines.into_iter().flatten().any(|line| last < line && line <= self.now)
    }

    /// Whether a token that was minted into memory is still worth handing over.
    pub(super) fn is_fresh(&self, issued_at: Time) -> bool {
        !self.intent.once || self.now < issued_at.plus(FRESH)
    }

    /// Whether a token that was found in the Secret may still be taken. What nobody could take because nobody said that it is there,
    /// the operator having been away, is replaced like one that never got there.
    pub(super) fn is_in_time(&self, credential: &Credential) -> bool {
        !self.intent.once || self.now < closes_at(credential.issued_at)
    }

    /// The active credential makes room for another. One that has reached nobody has nobody whom a grace period would serve.
    pub(super) fn retire(&self, live: &mut Vec<Credential>) -> Option<Credential> {
        let active = live.iter().find(|credential| credential.state == CredentialState::Active);
        let arrived = self.base.delivery == Some(DeliveryState::Delivered)
            && active.is_none_or(|active| !self.is_unacknowledged(active));
        if self.intent.once && !arrived {
            live.retain(|credential| credential.state != CredentialState::Active);
            return None;
        }
        life::retire_active(live, self.intent.grace, self.now)
    }

    /// A Secret that holds nothing to be taken does not stay: it is what a late write or an ended delivery left.
    pub(super) fn discard(&self, place: &Place<'_>) -> Option<Step> {
        let Place::Ours(secret) = place else { return None };
        Some(if self.view.live { Step::DeleteSecret(content::target(secret)) } else { Step::Look })
    }
}
