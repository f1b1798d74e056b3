//! Builds the status for a situation and its action.

use super::{
    conditions::{self, Conditions},
    inputs::MintReason,
    lifecycle, remote,
    rules::Action,
    situation::Situation,
};
use crate::api::{Credential, DeliveryState, PersonalAccessTokenStatus, Time};

/// Returns the new status and its conditions.
pub(super) fn next(s: &Situation<'_>, action: &Action) -> (PersonalAccessTokenStatus, Conditions) {
    let mut status = PersonalAccessTokenStatus {
        observed_generation: s.observed.pat.metadata.generation,
        owner: Some(s.intent.owner.clone()),
        delivery: s.delivery.state(),
        credentials: credentials(s, action),
        ..s.base.clone()
    };
    if s.remote.is_some() {
        let live = std::mem::take(&mut status.credentials);
        status.remote_credentials = remote::next_credentials(s, live);
        status.revoked_remotely_at = remote::revoked_remotely_at(s, &s.gone);
    }
    status.secret_name = secret_name(s, status.delivery);
    status.last_issued_at = last_issued_at(s);
    if let Action::Publish(reason, credential) = action {
        status.revision = Some(credential.revision);
        if *reason == MintReason::Repair {
            status.unplanned_mints = lifecycle::recent(&s.base.unplanned_mints, s.now);
            status.unplanned_mints.push(credential.issued_at);
        }
    }
    if status.revision.is_none() {
        status.first_issued_at = None;
        status.default_expires_at = None;
    }
    status.expires_at = s.intent.terms.end().filter(|_| status.revision.is_some());
    status.next_rotation_at = s
        .active
        .as_ref()
        .filter(|_| !s.intent.suspended)
        .and_then(|active| lifecycle::rotation_due(s.uid(), &s.intent, active));
    let conditions = conditions::find(s, &status);
    status.conditions = conditions.list(&s.stored.conditions, status.observed_generation, s.now);
    (status, conditions)
}

fn credentials(s: &Situation<'_>, action: &Action) -> Vec<Credential> {
    match action {
        Action::Record(created) => {
            let is_created = |one: &Credential| one.id == created.id;
            s.live.iter().map(|one| if is_created(one) { created } else { one }).cloned().collect()
        }
        Action::Publish(_, new) => {
            let mut credentials = s.live.clone();
            credentials.push(new.clone());
            credentials.sort_by_key(|credential| std::cmp::Reverse(credential.revision));
            credentials
        }
        _ => s.live.clone(),
    }
}

/// Returns the Secret that holds the token: the one with the name in the spec, but not while the active token is only
/// in a former one.
fn secret_name(s: &Situation<'_>, delivery: Option<DeliveryState>) -> Option<String> {
    if s.intent.once && delivery != Some(DeliveryState::Waiting) {
        return None;
    }
    match s.ownership.ours().filter(|_| !s.is_safe_elsewhere()) {
        Some(secret) => Some(secret.name.to_string()),
        None => s.base.secret_name.clone(),
    }
}

/// Returns when the newest token that was available to its holder was issued.
fn last_issued_at(s: &Situation<'_>) -> Option<Time> {
    let arrived = s.promotion.as_ref().map(|promotion| &promotion.arrived);
    let available = s.active.iter().chain(arrived).map(|credential| credential.issued_at);
    available.chain(s.base.last_issued_at).max()
}
