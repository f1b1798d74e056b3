//! The progress of a new token: minted into memory, its hash published in the status, the token written to the Secret.

use super::{
    delivery,
    inputs::Inputs,
    lifecycle::{self, is_pending},
    observed::HeldCredential,
    remote,
};
use crate::api::{Credential, CredentialState};

/// The progress of a token that is being minted.
#[derive(Clone, Copy, Debug)]
pub(super) struct MintProgress {
    /// The token held in memory, if it can still be used.
    pub held: Option<HeldCredential>,
    /// Whether its hash is in the status or, before an issuer of another system has created it, its name.
    pub published: bool,
    /// Whether the issuer of another system has not created it yet.
    pub to_be_created: bool,
    /// Whether the issuer has created it, and its hash is not in the status yet.
    pub unrecorded: bool,
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
            to_be_created: held.is_some_and(|held| held.hash.is_none()),
            unrecorded: held.is_some_and(|held| remote::is_unrecorded(live, &held)),
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
    let credential = lifecycle::credential(inputs, held, 0);
    // A later request could take effect after a list has shown that there is no such token.
    let too_late = held.hash.is_none() && inputs.now > held.issued_at.plus(remote::LATEST_REQUEST);
    // What was permitted for other parameters must not be requested with these.
    let recorded = live.iter().find(|credential| credential.id == held.id).and_then(|one| one.remote.as_deref());
    let is_outdated = held.hash.is_none()
        && recorded.is_some_and(|remote| Some(&remote.parameters) != inputs.intent.remote_parameters.as_ref());
    !used_up
        && !is_outdated
        && !too_late
        && delivery::is_fresh(inputs, held.issued_at)
        && inputs.intent.terms.judge(&credential, inputs.now).is_valid()
}
