//! How far a new token has come: minted into memory, its hash published in the status, the token written into the Secret.

use k8s_openapi::jiff::SignedDuration;

use super::{
    delivery,
    lifecycle::{self, is_pending},
    observed::HeldCredential,
    situation::{Inputs, MintReason, Situation},
};
use crate::api::{Credential, CredentialState, Time};

/// What there is of a token that is being minted.
#[derive(Clone, Copy, Debug)]
pub(super) struct MintProgress {
    /// The token held in memory, if it can still be used.
    pub held: Option<HeldCredential>,
    /// Whether its hash is in the status.
    pub published: bool,
    /// Whether the status has pending credentials whose tokens no process holds.
    pub abandoned: bool,
}

impl MintProgress {
    pub fn find(inputs: &Inputs<'_>, live: &[Credential]) -> Self {
        let held = inputs.observed.held.filter(|held| is_usable(inputs, live, held));
        let pending = |credential: &&Credential| credential.state == CredentialState::Pending;
        Self {
            held,
            published: held.is_some_and(|held| is_pending(live, &held)),
            abandoned: live.iter().filter(pending).any(|one| held.is_none_or(|held| one.id != held.id)),
        }
    }
}

fn is_usable(inputs: &Inputs<'_>, live: &[Credential], held: &HeldCredential) -> bool {
    // A published token that is no longer pending has reached the Secret or has ended: it must not be published again.
    let used_up = held.published_at.is_some() && !is_pending(live, held);
    let credential = lifecycle::credential(&inputs.intent, held, 0);
    !used_up
        && delivery::is_fresh(inputs, held.issued_at)
        && inputs.intent.terms.judge(&credential, inputs.now).is_valid()
}

impl Situation<'_> {
    /// The published token, if it may go into the Secret now.
    pub fn token_to_write(&self) -> Option<HeldCredential> {
        self.mint_reason()?;
        let held = self.minting.held.filter(|_| self.minting.published)?;
        self.verifiers_ready_at().is_none().then_some(held)
    }

    /// When verifiers will have seen the published hash; `None` if there is no need to wait. Only a rotation waits: without a token in
    /// the Secret, the first that arrives is better than none.
    pub fn verifiers_ready_at(&self) -> Option<Time> {
        let rotating = self.secret_holds_active && self.mint_reason() == Some(MintReason::Rotation);
        let held = self.minting.held.filter(|_| rotating && self.minting.published)?;
        let lead: SignedDuration = self.config.publish_lead;
        let ready_at = held.published_at.unwrap_or(self.now).plus(lead);
        (self.now < ready_at).then_some(ready_at)
    }
}
