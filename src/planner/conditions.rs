//! The conditions of a status. Each message ends with what to do next. No message depends on the current time, because the status would
//! then be written again and again.

use super::{
    MAX_CLOCK_SKEW, blocked,
    blocked::Blocked,
    content,
    damage::Damage,
    delivery::closes_at,
    lifecycle, remote,
    remote::{BlockedRevocation, blocked_revocation},
    situation::Situation,
};
use crate::api::{Condition, ConditionType, CredentialState, DeliveryState, PersonalAccessTokenStatus, Reason, Time};

/// The conditions to write.
#[derive(Debug)]
pub(super) struct Conditions {
    ready: (&'static str, Reason, String),
    pub abnormal: Vec<(ConditionType, Reason, String)>,
    blocked_until: Option<Time>,
}

/// Finds the conditions for a status that is otherwise complete.
pub(super) fn find(s: &Situation<'_>, status: &PersonalAccessTokenStatus) -> Conditions {
    let mut conditions = readiness(s, status);
    if let Some(damage) = s
        .observed
        .repairs
        .and_then(|repairs| repairs.undone(s.now))
        .filter(|_| s.secret_holds_active || s.is_safe_elsewhere())
    {
        conditions.add_undone_repairs(damage);
    }
    if let Some(object) = s.observed.disabled_by.filter(|_| conditions.ready.0 == "True") {
        conditions = owner_disabled(s, object);
    }
    let blocks = s.blocked.iter().chain(&s.rename_blocked);
    conditions.blocked_until = blocks.filter_map(|blocked| blocked.until).min();
    conditions.abnormal.extend(in_grace_period(status));
    conditions.abnormal.extend(expiring_soon(s, status));
    conditions.abnormal.extend(expiry_not_enforced(s));
    if conditions.ready.0 == "True" && !conditions.abnormal.iter().any(|one| one.0 == ConditionType::Reconciling) {
        conditions.abnormal.extend(cannot_be_listed(s));
    }
    conditions.abnormal.extend(revocation_incomplete(s, status));
    conditions.abnormal.extend(secret_not_cleared(s));
    conditions
}

/// Finds `Ready`, and with it `Reconciling` or `Stalled`.
fn readiness(s: &Situation<'_>, status: &PersonalAccessTokenStatus) -> Conditions {
    if let Some(conditions) = remote_revocation(s, status) {
        return conditions;
    }
    if s.intent.revoked {
        let message =
            "spec.revoked is true: every token is revoked and none is issued; set it to false to issue a new one";
        return Conditions::stalled(Reason::Revoked, message.into());
    }
    if let Some(end) = s.intent.terms.end().filter(|end| *end <= s.now) {
        let message = format!("the token expired at {end}: set a later spec.expiry to issue a new one");
        return Conditions::stalled(Reason::Expired, message);
    }
    if let Some(end) = ended_by_server_time(s) {
        let message = format!("{}; by the API server's clock the token expired at {end}", blocked::skew_message(s));
        return Conditions::stalled(Reason::ClockSkew, message);
    }
    // What a person must mend in the spec comes first.
    let conflict = s.rename_blocked.as_ref().filter(|blocked| blocked.reason == Reason::SecretConflict);
    if let Some(blocked) = conflict.or(s.blocked.as_ref()).or(s.rename_blocked.as_ref()) {
        return blocked_readiness(s, status, blocked);
    }
    if s.intent.once && s.active.is_none() && status.delivery.is_some() && !s.needs_mint() {
        return delivery_ended(status);
    }
    if s.intent.suspended {
        return suspended(s, status);
    }
    if is_available(s, status) {
        return Conditions::ready(Reason::Issued, issued(s, status));
    }
    let message = format!("a token is being issued for Secret {:?}", s.secret_name);
    Conditions {
        ready: ("Unknown", Reason::Issuing, message.clone()),
        abnormal: vec![(ConditionType::Reconciling, Reason::Issuing, message)],
        blocked_until: None,
    }
}

/// Reports that tokens of another system are revoked here, but perhaps not yet there.
fn remote_revocation(s: &Situation<'_>, status: &PersonalAccessTokenStatus) -> Option<Conditions> {
    let is_over = s.intent.revoked || s.intent.deleting || s.intent.terms.expired(s.now);
    let message = being_revoked(s, status).filter(|_| is_over)?;
    Some(Conditions {
        ready: ("False", Reason::Revoking, message.clone()),
        abnormal: vec![(ConditionType::Reconciling, Reason::Revoking, message)],
        blocked_until: None,
    })
}

/// Returns the message about tokens that are being revoked at the issuer; `None` if there are none.
fn being_revoked(s: &Situation<'_>, status: &PersonalAccessTokenStatus) -> Option<String> {
    let revoking = status.remote_credentials.iter().filter(|one| one.state == CredentialState::Revoking);
    let tokens =
        revoking.filter_map(|one| Some((blocked_revocation(one, s.observed), one.remote.as_ref()?.name.as_str())));
    let (blocked, ours): (Vec<_>, Vec<_>) = tokens.partition(|(why, _)| why.is_some());
    let title = s.spec.issuer_ref.as_deref()?.title();
    let mut parts = Vec::new();
    if !ours.is_empty() {
        let names: Vec<_> = ours.into_iter().map(|(_, name)| name).collect();
        let problem = revocation_problem(s, &title);
        parts.push(format!(
            "the controller is revoking these tokens at {title}: {}; they may work until the issuer confirms it{problem}",
            names.join(", ")
        ));
    }
    parts.extend(blocked.into_iter().filter_map(|(why, name)| {
        Some(match why? {
            BlockedRevocation::IssuedElsewhere => format!(
                "token {name} was issued by another controller, or for a deleted issuer of the same name, so it is not revoked: revoke it \
                 at {title}, or wait for its expiry"
            ),
            BlockedRevocation::Shared => {
                format!("token {name} is not revoked, because another PersonalAccessToken records it, too")
            }
        })
    }));
    Some(parts.join("; ")).filter(|message| !message.is_empty())
}

/// Returns why the issuer does not confirm revocations, if that is known.
fn revocation_problem(s: &Situation<'_>, title: &str) -> String {
    let Some(issuer) = s.observed.issuer else {
        return format!("; {title} does not exist: create it again, or revoke them at the issuer yourself");
    };
    let listing = s.observed.list_problems.first().map(|one| &one.problem);
    let failed = s.observed.calls.failed_deletion.as_ref().map(|failed| &failed.message);
    let problem = issuer.problem.as_ref().or(listing).map(|problem| &problem.message).or(failed);
    problem.map_or_else(String::new, |problem| format!("; last problem: {problem}"))
}

/// Reports a token that its issuer never ends by itself.
fn expiry_not_enforced(s: &Situation<'_>) -> Option<(ConditionType, Reason, String)> {
    let active = s.active.as_ref()?;
    let target = &active.remote.as_deref()?.target;
    if s.observed.issuer?.system.limits(target).expires {
        return None;
    }
    let message = format!(
        "tokens of this issuer have no expiry: token {} works until the controller revokes it, so keep the controller running",
        active.id
    );
    Some((ConditionType::ExpiryNotEnforced, Reason::RemoteExpiryUnknown, message))
}

/// Reports that the issuer does not tell whether it still has the active token: its target or the right to list its tokens is gone.
fn cannot_be_listed(s: &Situation<'_>) -> Option<(ConditionType, Reason, String)> {
    let target = &s.active.as_ref()?.remote.as_deref()?.target;
    let problem = remote::list_problem(s.observed, target)?;
    let message = format!("it is unknown whether the token still works: {}", problem.message);
    (problem.reason == Reason::IssuerNotReady).then_some((ConditionType::Reconciling, problem.reason, message))
}

/// Returns when the active token expired by the API server's clock, if the controller's clock is too far behind to show it.
fn ended_by_server_time(s: &Situation<'_>) -> Option<Time> {
    let skew = s.observed.clock_skew;
    let end = [s.intent.terms.end(), s.active.as_ref()?.expires_at].into_iter().flatten().min()?;
    (skew < -MAX_CLOCK_SKEW && end.since(s.now) <= -skew).then_some(end)
}

fn blocked_readiness(s: &Situation<'_>, status: &PersonalAccessTokenStatus, blocked: &Blocked) -> Conditions {
    let works = is_available(s, status) && !matches!(blocked.reason, Reason::SecretConflict | Reason::InvalidSpec);
    let retries = matches!(blocked.reason, Reason::ApiError | Reason::IssuerUnavailable) || works;
    let type_ = if retries { ConditionType::Reconciling } else { ConditionType::Stalled };
    let ready = if works {
        ("True", Reason::Issued, issued(s, status))
    } else {
        ("False", blocked.reason, blocked.message.clone())
    };
    Conditions { ready, abnormal: vec![(type_, blocked.reason, blocked.message.clone())], blocked_until: None }
}

fn delivery_ended(status: &PersonalAccessTokenStatus) -> Conditions {
    let (reason, what) = match status.delivery {
        Some(DeliveryState::NotDelivered) => (
            Reason::NotDelivered,
            "the token was not taken in time, or its receipt was not acknowledged, so it is revoked",
        ),
        _ => (Reason::Revoked, "the token was delivered and is no longer valid"),
    };
    let advice =
        "with delivery: Once, a new token is issued only on request: set spec.rotateIfIssuedBefore to the current time";
    Conditions::stalled(reason, format!("{what}; {advice}"))
}

fn suspended(s: &Situation<'_>, status: &PersonalAccessTokenStatus) -> Conditions {
    match s.active.as_ref().filter(|_| s.secret_holds_active || is_delivered(s, status)) {
        Some(active) => {
            let end = active.expires_at.map_or_else(String::new, |end| format!(" until {end}"));
            let message = format!("the token is valid{end}; spec.suspend is true, so it is not rotated");
            Conditions::ready(Reason::Suspended, message)
        }
        None => {
            let message = "spec.suspend is true, so no token is issued; set it to false to issue one";
            Conditions::stalled(Reason::Suspended, message.into())
        }
    }
}

/// Reports that verifiers refuse a token that is otherwise valid. It goes on living, and is rotated, for when its owner is enabled again.
fn owner_disabled(s: &Situation<'_>, object: &str) -> Conditions {
    let owner = s.intent.owner.text();
    let message = format!(
        "TokenOwner {object:?} disables every token of {owner}, so verifiers refuse this token: to enable them again, set its spec.disabled to false"
    );
    Conditions::stalled(Reason::OwnerDisabled, message)
}

fn in_grace_period(status: &PersonalAccessTokenStatus) -> Option<(ConditionType, Reason, String)> {
    let in_grace = status.live().filter(|credential| credential.state == CredentialState::Grace);
    let ends: Vec<_> = in_grace.filter_map(|credential| credential.expires_at).collect();
    let last = ends.iter().max()?;
    let many = match ends.len() {
        1 => "1 replaced token still works".into(),
        many => format!("{many} replaced tokens still work"),
    };
    let message = format!("{many}, the last one until {last}");
    Some((ConditionType::InGracePeriod, Reason::PreviousCredentialLive, message))
}

fn revocation_incomplete(
    s: &Situation<'_>,
    status: &PersonalAccessTokenStatus,
) -> Option<(ConditionType, Reason, String)> {
    let spared = lifecycle::spared_by_clock(&s.intent, status.live(), s.now)?;
    let message = format!(
        "spec.revokeIfIssuedBefore does not revoke token {}, because its issuedAt {} lies in the future: a clock was ahead when it was issued; \
         to revoke it, list it in spec.revokedCredentials",
        spared.id, spared.issued_at
    );
    Some((ConditionType::RevocationIncomplete, Reason::IssuedInFuture, message))
}

/// Reports that a token that has ended stays in the Secret. If the Secret loses its label, only this condition shows that it must still be
/// cleared.
fn secret_not_cleared(s: &Situation<'_>) -> Option<(ConditionType, Reason, String)> {
    let has_ended = s.active.is_none() && !s.needs_mint();
    let secret = s.ownership.ours().filter(|secret| has_ended && !content::is_clear(secret))?;
    let (reason, what) = match s.refusal().map(blocked::of_refusal) {
        Some(refusal) => {
            (refusal.reason, format!("which cannot be removed: {}; the controller tries again", refusal.message))
        }
        None if secret.immutable => {
            (Reason::SecretImmutable, "and is immutable, so the controller deletes it".to_owned())
        }
        None => return None,
    };
    let message = format!("Secret {:?} still holds a token that is no longer valid, {what}", secret.name);
    Some((ConditionType::SecretNotCleared, reason, message))
}

fn expiring_soon(s: &Situation<'_>, status: &PersonalAccessTokenStatus) -> Option<(ConditionType, Reason, String)> {
    let active = s.active.as_ref()?;
    let (end, from) = lifecycle::warning(&s.intent, status, active, s.blocked.is_some())?;
    if s.now < from {
        return None;
    }
    let message = if s.intent.terms.end() == Some(end) {
        format!("the token expires at {end}: set a later spec.expiry to keep it")
    } else if s.intent.suspended {
        format!("the token expires at {end} and is not rotated because spec.suspend is true: set it to false")
    } else {
        format!("the token expires at {end} and cannot be rotated: fix what the other conditions report")
    };
    Some((ConditionType::ExpiringSoon, Reason::ExpiryNear, message))
}

/// Whether the active token is valid, and its holder has it or can get it.
fn is_available(s: &Situation<'_>, status: &PersonalAccessTokenStatus) -> bool {
    is_in_place(s) || s.is_safe_elsewhere() || is_delivered(s, status)
}

/// Whether the Secret holds the active token where the spec says, or where the controller wrote it for an earlier spec.
fn is_in_place(s: &Situation<'_>) -> bool {
    let (Some(secret), Some(active)) = (s.ownership.ours(), &s.active) else { return false };
    let where_the_spec_says =
        s.intent.layout.as_ref().is_ok_and(|layout| s.key_of(secret, active) == Some(layout.key.as_str()));
    let is_as_written = secret.record.as_ref().is_some_and(|record| {
        let current = record.ledger.live.iter().find(|one| one.state == CredentialState::Active);
        record.data_hash == secret.data_hash() && current.is_some_and(|current| current.id == active.id)
    });
    s.secret_holds_active && (where_the_spec_says || is_as_written)
}

/// Whether a one-time token is valid and was taken.
fn is_delivered(s: &Situation<'_>, status: &PersonalAccessTokenStatus) -> bool {
    s.active.is_some() && status.delivery == Some(DeliveryState::Delivered)
}

/// Returns the message of `Ready` for a valid token: where it is.
fn issued(s: &Situation<'_>, status: &PersonalAccessTokenStatus) -> String {
    if is_delivered(s, status) {
        return "the token was delivered and is valid".into();
    }
    let name = if s.secret_holds_active { None } else { status.secret_name.as_deref() };
    let issued = format!("Secret {:?} holds a valid token", name.unwrap_or(s.secret_name));
    match s.active.as_ref().filter(|_| status.delivery == Some(DeliveryState::Waiting)) {
        Some(active) => {
            let end = closes_at(active.issued_at).floor_second();
            format!("{issued}, which can be taken until {end}: read it and delete the Secret")
        }
        None => issued,
    }
}

impl Conditions {
    /// Creates conditions in which `Ready` is `True`.
    fn ready(reason: Reason, message: String) -> Self {
        Self { ready: ("True", reason, message), abnormal: Vec::new(), blocked_until: None }
    }

    /// Creates conditions in which `Ready` is `False` and `Stalled` is `True`: a person must act.
    pub fn stalled(reason: Reason, message: String) -> Self {
        Self {
            ready: ("False", reason, message.clone()),
            abnormal: vec![(ConditionType::Stalled, reason, message)],
            blocked_until: None,
        }
    }

    /// Adds that something undoes each repair of the Secret.
    fn add_undone_repairs(&mut self, damage: &Damage) {
        let is_told = |(type_, ..): &(ConditionType, Reason, String)| {
            matches!(type_, ConditionType::Reconciling | ConditionType::Stalled)
        };
        if self.abnormal.iter().any(is_told) {
            return;
        }
        if damage.lost_data {
            *self = Self::stalled(Reason::SecretAltered, damage.message.clone());
        } else {
            self.abnormal.push((ConditionType::Reconciling, Reason::SecretAltered, damage.message.clone()));
        }
    }

    /// Returns when a blocked change is tried again.
    pub fn blocked_until(&self) -> Option<Time> {
        self.blocked_until
    }

    /// Returns the list of conditions.
    pub fn list(&self, present: &[Condition], generation: Option<i64>, now: Time) -> Vec<Condition> {
        let (status, reason, message) = &self.ready;
        let ready = (ConditionType::Ready, *status, *reason, message.as_str());
        let rest = self.abnormal.iter().map(|(type_, reason, message)| (*type_, "True", *reason, message.as_str()));
        let mut conditions: Vec<_> = std::iter::once(ready)
            .chain(rest)
            .map(|(type_, status, reason, message)| {
                let condition = Condition {
                    type_: type_.as_str().into(),
                    status: status.into(),
                    reason: reason.as_str().into(),
                    message: clipped(message),
                    last_transition_time: now.floor_second(),
                    observed_generation: generation,
                };
                condition.following(present)
            })
            .collect();
        conditions
            .sort_by_key(|condition| ConditionType::ALL.iter().position(|type_| type_.as_str() == condition.type_));
        conditions
    }
}

/// Truncates a message. Messages of the API server have no maximum length, but those of conditions have.
pub(super) fn clipped(message: &str) -> String {
    const MAX: usize = 1000;
    if message.len() <= MAX {
        return message.to_owned();
    }
    let mut end = MAX;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}
