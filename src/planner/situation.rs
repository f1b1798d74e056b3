//! The situation of one token: what was observed, and the facts that follow from it. Rules read it and never change it.

use std::ops::Deref;

use super::{
    blocked::{self, Blocked},
    correction,
    delivery::{self, OneTimeDelivery},
    inputs::{Inputs, MintReason, Need},
    intent::{ControllerConfig, Intent, secret_name},
    lifecycle::{self, Promotion, RetiredCredential},
    minting::MintProgress,
    observed::{HeldCredential, Observed},
    ownership::{self, SecretOwnership},
    remote::{self, Remote},
    rename,
};
use crate::api::{Credential, CredentialState, InvalidField, PersonalAccessTokenStatus, Time};

/// Why there is nothing to plan.
pub(super) enum Unplannable<'a> {
    /// The object is being deleted, and the garbage collector deletes the Secret; or its status cannot be parsed, and a write could
    /// lose data.
    LeaveAlone,
    /// The spec is invalid.
    InvalidSpec(&'a PersonalAccessTokenStatus, InvalidField),
}

impl<'a> Inputs<'a> {
    /// Reads spec and status, and rebuilds a status that was lost.
    pub fn read(observed: &'a Observed<'a>, config: &'a ControllerConfig, now: Time) -> Result<Self, Unplannable<'a>> {
        let pat = observed.pat;
        let Ok(stored) = &pat.status else { return Err(Unplannable::LeaveAlone) };
        // The finalizer is there until the tokens are revoked at their issuer.
        if pat.metadata.deletion_timestamp.is_some() && !pat.has_finalizer() {
            return Err(Unplannable::LeaveAlone);
        }
        let invalid = |problem| Unplannable::InvalidSpec(stored, problem);
        let spec = pat.spec.as_ref().map_err(|problem| invalid(InvalidField::new("spec", problem.clone())))?;
        let restored = ownership::restored_status(observed, config, stored);
        let was_restored = restored.is_some();
        let mut base = restored.unwrap_or_else(|| stored.clone());
        let remote = Remote::read(observed, spec, &mut base);
        let corrected = correction::correct(&mut base, observed);
        lifecycle::correct_unplanned_mints(&mut base, now);
        lifecycle::fix_starting_points(&mut base, spec, observed.held.as_ref(), config, now);
        let mut intent = Intent::read(pat, spec, &base).map_err(invalid)?;
        intent.remote_parameters = remote.as_ref().and_then(|remote| Some(remote.intent.as_ref()?.parameters.clone()));
        let secret_name = secret_name(pat, spec);
        Ok(Self {
            observed,
            config,
            now,
            stored,
            base,
            restored: was_restored,
            corrected,
            intent,
            remote,
            spec,
            secret_name,
        })
    }

    /// Whether the active credential is due for replacement.
    pub fn is_rotation_due(&self, active: &Credential) -> bool {
        lifecycle::rotation_due(self.uid(), &self.intent, active).is_some_and(|due| due <= self.now)
    }
}

/// The inputs and the facts that follow from them.
pub(super) struct Situation<'a> {
    inputs: Inputs<'a>,
    /// The live credentials, the newest first.
    pub live: Vec<Credential>,
    /// The credentials that have ended since the status was written.
    pub retired: Vec<RetiredCredential>,
    /// The tokens that their issuer no longer has, although they have not ended.
    pub gone: Vec<Credential>,
    pub ownership: SecretOwnership<'a>,
    /// The pending token that has reached the Secret since the status was written.
    pub promotion: Option<Promotion>,
    /// Whether a token was written since then that the Secret does not hold.
    pub has_lost_token: bool,
    pub active: Option<Credential>,
    /// Whether the Secret with the name in the spec holds the active token.
    pub secret_holds_active: bool,
    pub delivery: OneTimeDelivery,
    pub need: Need,
    pub minting: MintProgress,
    /// Why the Secret with the name in the spec cannot be written, if the token stays in a former one.
    pub rename_blocked: Option<Blocked>,
    /// Why `need` cannot be met for now.
    pub blocked: Option<Blocked>,
}

impl<'a> Deref for Situation<'a> {
    type Target = Inputs<'a>;

    fn deref(&self) -> &Inputs<'a> {
        &self.inputs
    }
}

impl<'a> Situation<'a> {
    /// Derives the facts: lifecycle, ownership, delivery, need, and what blocks it.
    pub fn derive(mut inputs: Inputs<'a>) -> Self {
        let (mut live, retired) = lifecycle::separate_retired(&inputs.intent, &inputs.base.credentials, inputs.now);
        let gone = remote::take_gone(inputs.observed, &mut live);
        let ownership = ownership::find(&inputs, &live);
        let (mut live, promotion, lost) = lifecycle::promote(&inputs, live, &ownership);
        lifecycle::count_lost_mints(&mut inputs, &lost);
        let find_active = |live: &[Credential]| live.iter().find(|one| one.state == CredentialState::Active).cloned();
        let postponed = rename::find(&inputs, &ownership, &live, find_active(&live).as_ref());
        let ownership = match &postponed {
            Some(postponed) => {
                inputs.secret_name = &postponed.former.name;
                SecretOwnership::Ours(postponed.former)
            }
            None => ownership,
        };
        if matches!(ownership, SecretOwnership::Conflict(_)) {
            // No process holds these tokens, and they cannot go into a Secret that is not ours.
            drop_all(&mut live, CredentialState::Pending);
        }
        let is_held = |active: &Credential| ownership.ours().is_some_and(|s| inputs.key_of(s, active).is_some());
        let active = find_active(&live);
        let held = active.as_ref().is_some_and(is_held);
        let delivery = delivery::find(&inputs, promotion.is_some(), active.as_ref(), held);
        if delivery == OneTimeDelivery::Missed {
            drop_all(&mut live, CredentialState::Active);
        }
        let active = find_active(&live);
        let secret_holds_active = active.as_ref().is_some_and(is_held);
        let need = if inputs.intent.once {
            delivery::need(&inputs, active.as_ref(), delivery)
        } else {
            need(&inputs, &ownership, active.as_ref(), secret_holds_active)
        };
        if inputs.intent.once && !secret_holds_active && !matches!(need, Need::Mint(_)) {
            // Nothing is being minted, so no process will write these tokens to a Secret.
            drop_all(&mut live, CredentialState::Pending);
        }
        live.sort_by_key(|credential| std::cmp::Reverse(credential.revision));
        let minting = MintProgress::find(&inputs, &live);
        let blocked = blocked::find(&inputs, &ownership, need, &minting, &live);
        Self {
            live,
            retired,
            gone,
            ownership,
            promotion,
            has_lost_token: !lost.is_empty(),
            active,
            secret_holds_active,
            delivery,
            need,
            minting,
            rename_blocked: postponed.map(|postponed| postponed.blocked),
            blocked,
            inputs,
        }
    }

    /// Returns why a token is being minted; `None` if none is needed or minting is blocked.
    pub fn mint_reason(&self) -> Option<MintReason> {
        match (self.need, &self.blocked) {
            (Need::Mint(reason), None) => Some(reason),
            _ => None,
        }
    }

    /// Whether a new token is needed, blocked or not.
    pub fn needs_mint(&self) -> bool {
        matches!(self.need, Need::Mint(_))
    }

    /// Whether the token held in memory is still needed.
    pub fn needs_held_token(&self) -> bool {
        let is_pending = |held: HeldCredential| lifecycle::is_pending(&self.live, &held);
        self.needs_mint() && (self.blocked.is_none() || self.observed.held.is_some_and(is_pending))
    }

    /// Returns the published token, if it may be written to the Secret now.
    pub fn token_to_write(&self) -> Option<HeldCredential> {
        self.mint_reason()?;
        let is_ready = self.minting.published && !self.minting.to_be_created && !self.minting.unrecorded;
        let held = self.minting.held.filter(|_| is_ready)?;
        self.verifiers_ready_at().is_none().then_some(held)
    }

    /// Returns when verifiers will have seen the published hash; `None` if there is no need to wait. Only a rotation waits: if the
    /// Secret holds no token, the new one is written at once.
    pub fn verifiers_ready_at(&self) -> Option<Time> {
        let rotating =
            self.remote.is_none() && self.secret_holds_active && self.mint_reason() == Some(MintReason::Rotation);
        let held = self.minting.held.filter(|_| rotating && self.minting.published)?;
        let ready_at = held.published_at.unwrap_or(self.now).plus(self.config.publish_lead);
        (self.now < ready_at).then_some(ready_at)
    }

    /// Whether a change must be recorded in the status before the Secret is written or deleted.
    pub fn must_record_first(&self) -> bool {
        self.restored
            || self.corrected
            || self.promotion.is_some()
            || !self.retired.is_empty()
            || !self.gone.is_empty()
            || matches!(self.delivery, OneTimeDelivery::Received | OneTimeDelivery::Missed)
    }

    /// Whether a former Secret holds the active token, and the Secret with the name in the spec does not.
    pub fn is_safe_elsewhere(&self) -> bool {
        !self.secret_holds_active && self.active.as_ref().is_some_and(|active| self.former_with(active).is_some())
    }
}

fn drop_all(live: &mut Vec<Credential>, state: CredentialState) {
    live.retain(|credential| credential.state != state);
}

/// Returns what must happen to a token that stays in its Secret.
fn need(inputs: &Inputs<'_>, ownership: &SecretOwnership<'_>, active: Option<&Credential>, in_secret: bool) -> Need {
    let intent = &inputs.intent;
    if !intent.wants_token(inputs.now) || matches!(ownership, SecretOwnership::Conflict(_)) {
        return Need::Nothing;
    }
    match active {
        Some(active) if in_secret => {
            let rotate = !intent.suspended && inputs.is_rotation_due(active);
            if rotate { Need::Mint(MintReason::Rotation) } else { Need::Nothing }
        }
        Some(active) if inputs.former_with(active).is_some() => Need::Move,
        _ if intent.suspended => Need::Nothing,
        Some(_) => Need::Mint(MintReason::Repair),
        None => Need::Mint(MintReason::Issue),
    }
}
