//! The progress of a new token: minted into memory, its hash published in the status, the token written to the Secret.

use super::{
    delivery,
    inputs::Inputs,
    lifecycle::{self, is_pending},
    observed::HeldCredential,
};
use crate::api::{Credential, CredentialState};

/// The progress of a token that is being minted.
#[derive(Clone, Copy, Debug)]
pub(super) struct MintProgress {
    /// The token held in memory, if it can still be used.
    pub held: Option<HeldCredential>,
    /// Whether its hash is in the status.
    pub published: bool,
    /// Whether the status has pending credentials whose tokens no process holds.
    pub abandoned: bool,
    /// Whether the last token that was minted to replace a lost one, or that was lost itself, has never arrived in the Secret.
    pub lost: bool,
}

impl MintProgress {
    pub fn find(inputs: &Inputs<'_>, live: &[Credential]) -> Self {
        let held = inputs.observed.held.filter(|held| is_usable(inputs, live, held));
        let pending = |credential: &&Credential| credential.state == CredentialState::Pending;
        Self {
            held,
            published: held.is_some_and(|held| is_pending(live, &held)),
            abandoned: live.iter().filter(pending).any(|one| held.is_none_or(|held| one.id != held.id)),
            lost: newest_was_lost(inputs, live),
        }
    }
}

/// Whether the newest unplanned mint was lost: no token as new as that has arrived, and none is on its way.
fn newest_was_lost(inputs: &Inputs<'_>, live: &[Credential]) -> bool {
    let Some(newest) = inputs.base.unplanned_mints.iter().max() else { return false };
    inputs.base.last_issued_at.is_none_or(|last| last < *newest) && live.iter().all(|one| one.issued_at < *newest)
}

fn is_usable(inputs: &Inputs<'_>, live: &[Credential], held: &HeldCredential) -> bool {
    // A published token that is no longer pending has reached the Secret or has ended, so it must not be published
    // again.
    let used_up = held.published_at.is_some() && !is_pending(live, held);
    let credential = lifecycle::credential(&inputs.intent, held, 0);
    !used_up
        && delivery::is_fresh(inputs, held.issued_at)
        && inputs.intent.terms.judge(&credential, inputs.now).is_valid()
}
