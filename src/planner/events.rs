//! The events to publish: transitions that concern people, with what to do next, if anything.

use std::fmt;

use super::{
    conditions::{Conditions, clipped},
    delivery::OneTimeDelivery,
    drift,
    inputs::MintReason,
    lifecycle::{Promotion, RetiredCredential},
    observed::SecretRecord,
    rules::Action,
    situation::Situation,
    step::{SecretContent, SecretVersion, SecretWrite, TokenSource},
};
use crate::{
    api::{Condition, ConditionType, Credential, CredentialState, Reason},
    auth::verdict::Verdict,
};

/// Returns the events of a write to the status.
pub(super) fn of_status(s: &Situation<'_>, action: &Action, conditions: &Conditions) -> Vec<EventToPublish> {
    let mut events = Vec::new();
    if s.restored {
        events.push(EventToPublish::restored(s.secret_name));
    }
    if s.corrected {
        events.push(EventToPublish::corrected());
    }
    events.extend(s.retired.iter().filter_map(|retired| EventToPublish::retired(s, retired)));
    if let Some(promotion) = s.promotion.as_ref().filter(|_| s.delivery != OneTimeDelivery::Missed)
        && !s.base.unplanned_mints.contains(&promotion.arrived.issued_at)
    {
        events.push(EventToPublish::arrived(s, promotion));
    }
    if let Some(active) = s.active.as_ref().filter(|_| s.delivery == OneTimeDelivery::Received) {
        events.push(EventToPublish::delivered(active));
    }
    events.extend(s.gone.iter().filter_map(|gone| EventToPublish::lost_at_issuer(s, gone)));
    if let Action::Publish(MintReason::Repair, _) = action {
        events.push(EventToPublish::repaired_by_mint(s));
    }
    events.extend(conditions.events(&s.stored.conditions));
    events
}

impl Conditions {
    /// Returns the events for the transitions that concern people.
    pub fn events(&self, present: &[Condition]) -> Vec<EventToPublish> {
        let is_routine = |reason: Reason| {
            matches!(reason, Reason::Issued | Reason::Issuing | Reason::Suspended | Reason::PreviousCredentialLive)
        };
        // The deletion of an immutable Secret has an event of its own.
        let is_routine = |type_: ConditionType, reason: Reason| {
            is_routine(reason) || (type_, reason) == (ConditionType::SecretNotCleared, Reason::SecretImmutable)
        };
        let is_new = |type_: ConditionType, reason: Reason| {
            let before = present.iter().find(|condition| condition.type_ == type_.as_str());
            before.is_none_or(|before| !before.is_true() || before.reason != reason.as_str())
        };
        self.abnormal
            .iter()
            .filter(|(type_, reason, _)| is_new(*type_, *reason) && !is_routine(*type_, *reason))
            .map(|(_, reason, message)| EventToPublish {
                warning: !matches!(reason, Reason::Revoked | Reason::OwnerDisabled),
                reason: EventReason::Condition(*reason),
                note: clipped(message),
            })
            .collect()
    }
}

/// Returns the events of a write to the Secret.
pub(super) fn of_write(s: &Situation<'_>, write: &SecretWrite) -> Vec<EventToPublish> {
    let source = match &write.content {
        SecretContent::Token { token, .. } => Some(token),
        SecretContent::MetadataOnly { .. } | SecretContent::Cleared { .. } => None,
    };
    if s.ownership.ours().is_none() {
        let moved = matches!(source, Some(TokenSource::Secret { .. }));
        return if moved { vec![EventToPublish::moved(s.secret_name)] } else { Vec::new() };
    }
    let is_mint = matches!(source, Some(TokenSource::Held { .. }));
    if is_mint || s.restored || !s.observed.uncached || !repairs_damage(s, write) {
        return Vec::new();
    }
    vec![EventToPublish::repaired(s.secret_name, &s.last_editor())]
}

/// Returns the events of the deletion of a Secret that is no longer needed: none for the former one of a rename.
pub(super) fn of_deletion(s: &Situation<'_>, deleted: &SecretVersion) -> Vec<EventToPublish> {
    let was_renamed = s.stored.secret_name.as_ref() == Some(&deleted.name) && deleted.name != s.secret_name;
    if was_renamed { Vec::new() } else { vec![EventToPublish::copy_deleted(&deleted.name, s.secret_name)] }
}

/// Returns the events of the end of a PAT whose tokens are not confirmed to be revoked.
pub(super) fn of_release(s: &Situation<'_>) -> Vec<EventToPublish> {
    let left = s.stored.remote_credentials.iter().filter_map(|one| one.remote.as_ref());
    let left: Vec<_> = left.map(|remote| remote.name.as_str()).collect();
    if left.is_empty() {
        return Vec::new();
    }
    let note = format!(
        "the controller could not revoke these tokens within 10 minutes, or must not, because it did not issue them or another object records \
         them; the object is removed, and they may still work at the issuer: {}",
        left.join(", ")
    );
    vec![EventToPublish::warning(EventReason::TokensLeftAtIssuer, clipped(&note))]
}

/// Whether a write repairs a change by another writer, rather than following a changed spec.
fn repairs_damage(s: &Situation<'_>, write: &SecretWrite) -> bool {
    let Some(secret) = s.ownership.ours() else { return false };
    let is_own = |record: &&SecretRecord| record.is_of(s.uid());
    let own = secret.record.as_ref().filter(is_own);
    let was_ours = own.is_some() || secret.is_controlled_by(s.uid());
    let damaged = own.is_none_or(|record| {
        record.data_hash != secret.data_hash() || drift::ledger_is_forged(s, record, &write.ledger.live)
    }) || s.intent.layout.as_ref().is_ok_and(|layout| drift::metadata_differs(secret, layout, s.uid()));
    let same_spec = match (&write.content, &secret.record) {
        (SecretContent::Token { layout, facts, .. }, Some(record)) => {
            record.render_hash == layout.render_hash(&facts.borrow())
        }
        _ => true,
    };
    was_ours && damaged && same_spec
}

/// Why an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// A token was issued that replaced none.
    Issued,
    /// A one-time token was taken.
    Delivered,
    /// A new token replaced another, which stays valid for its grace period.
    Rotated,
    /// A credential was revoked.
    CredentialRevoked,
    /// A credential was not rotated in time and ended.
    Lapsed,
    /// The Secret was damaged and has been repaired.
    Repaired,
    /// The token moved to a Secret of another name.
    Moved,
    /// A copy of the Secret was deleted.
    CopyDeleted,
    /// An immutable Secret without a valid token was deleted.
    SecretDeleted,
    /// A lost status was rebuilt from the Secret.
    Restored,
    /// A status held values that the controller never writes, and was corrected.
    Corrected,
    /// The issuer of another system no longer has a token that had not ended.
    LostAtIssuer,
    /// The object was deleted, and its tokens may still work at their issuer.
    TokensLeftAtIssuer,
    /// A condition became true.
    Condition(Reason),
}

impl EventReason {
    /// All reasons that are not the reason of a condition.
    pub const ALL: &'static [Self] = &[
        Self::Issued,
        Self::Delivered,
        Self::Rotated,
        Self::CredentialRevoked,
        Self::Lapsed,
        Self::Repaired,
        Self::Moved,
        Self::CopyDeleted,
        Self::SecretDeleted,
        Self::Restored,
        Self::Corrected,
        Self::LostAtIssuer,
        Self::TokensLeftAtIssuer,
    ];

    /// Returns the name in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "Issued",
            Self::Delivered => "Delivered",
            Self::Rotated => "Rotated",
            Self::CredentialRevoked => "CredentialRevoked",
            Self::Lapsed => "Lapsed",
            Self::Repaired => "Repaired",
            Self::Moved => "Moved",
            Self::CopyDeleted => "CopyDeleted",
            Self::SecretDeleted => "SecretDeleted",
            Self::Restored => "Restored",
            Self::Corrected => "Corrected",
            Self::LostAtIssuer => "LostAtIssuer",
            Self::TokensLeftAtIssuer => "TokensLeftAtIssuer",
            Self::Condition(reason) => reason.as_str(),
        }
    }

    /// Whether nothing is unusual about it, so that its event is published only with `--issue-events`. It is always logged.
    pub fn is_routine(self) -> bool {
        matches!(self, Self::Issued | Self::Delivered)
    }

    /// Returns the meaning, as the documentation states it.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Issued => {
                "A token was issued that replaces none: the first one, or one after every other has ended. Published only with `--issue-events`."
            }
            Self::Delivered => {
                "With `delivery: Once`, the holder took the token. Published only with `--issue-events`."
            }
            Self::Rotated => {
                "A new token replaced the previous one, which keeps working until the end of its grace period."
            }
            Self::CredentialRevoked => {
                "One credential was revoked by `spec.revokeIfIssuedBefore` or `spec.revokedCredentials`."
            }
            Self::Lapsed => {
                "A credential was not rotated for a whole interval after it was due, and expired. A new one is issued."
            }
            Self::Repaired => {
                "The Secret was changed or deleted, and has been repaired. The note names the field manager that changed it, if Kubernetes records one."
            }
            Self::Moved => "The token moved to a Secret of another name.",
            Self::CopyDeleted => {
                "A copy of the Secret, with its label and owner reference, was found under another name and deleted."
            }
            Self::SecretDeleted => {
                "An immutable Secret without a valid token was deleted, because the old token could not be removed from it."
            }
            Self::Restored => "A lost status was rebuilt from the Secret's annotations.",
            Self::Corrected => {
                "The status held a revision or credentials that the controller never writes. They were corrected or removed."
            }
            Self::LostAtIssuer => {
                "A token that had not expired is no longer at the issuer: someone revoked it there. It is replaced, unless this is the second time within a day."
            }
            Self::TokensLeftAtIssuer => {
                "The object was deleted, and the controller could not or must not revoke its tokens at the issuer. The message names those that may still work there."
            }
            Self::Condition(reason) => reason.meaning(),
        }
    }
}

impl fmt::Display for EventReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventToPublish {
    /// Whether it is a warning rather than a normal event.
    pub warning: bool,
    /// Why.
    pub reason: EventReason,
    /// The message.
    pub note: String,
}

impl EventToPublish {
    fn normal(reason: EventReason, note: String) -> Self {
        Self { warning: false, reason, note }
    }

    fn warning(reason: EventReason, note: String) -> Self {
        Self { warning: true, reason, note }
    }

    /// Reports a token that has reached the Secret.
    fn arrived(s: &Situation<'_>, promotion: &Promotion) -> Self {
        let arrived = &promotion.arrived;
        let Some(replaced) = &promotion.replaced else {
            let note = format!(
                "token {} (revision {}) was issued to Secret {:?}",
                arrived.id, arrived.revision, s.secret_name
            );
            return Self::normal(EventReason::Issued, note);
        };
        let until = replaced.expires_at.map_or_else(String::new, |end| format!(" until {end}"));
        let note = format!(
            "token {} (revision {}) replaced {}, which keeps working{until}",
            arrived.id, arrived.revision, replaced.id
        );
        Self::normal(EventReason::Rotated, note)
    }

    /// Reports that the holder of a one-time token has taken it.
    fn delivered(active: &Credential) -> Self {
        let note = format!("token {} was delivered: its holder deleted the Secret", active.id);
        Self::normal(EventReason::Delivered, note)
    }

    /// Reports the end of a credential, unless a condition reports it.
    fn retired(s: &Situation<'_>, retired: &RetiredCredential) -> Option<Self> {
        let id = retired.credential.id.as_str();
        let revoked =
            |why: &str| Self::normal(EventReason::CredentialRevoked, format!("token {id} was revoked: {why}"));
        let missed_rotation = retired.credential.state == CredentialState::Active && s.intent.rotation.is_some();
        match retired.verdict {
            Verdict::RevokedByTime => Some(revoked("it was issued before spec.revokeIfIssuedBefore")),
            Verdict::RevokedById => Some(revoked("spec.revokedCredentials lists it")),
            Verdict::CredentialExpired if missed_rotation => Some(Self::warning(
                EventReason::Lapsed,
                format!(
                    "token {id} expired because it was not rotated for a whole interval after it was due: check that the operator is running"
                ),
            )),
            Verdict::Valid
            | Verdict::Deleted
            | Verdict::Revoked
            | Verdict::TokenExpired
            | Verdict::CredentialExpired => None,
        }
    }

    /// Reports that the Secret lost the token and a new one is issued.
    fn repaired_by_mint(s: &Situation<'_>) -> Self {
        let what = if s.observed.secret.is_some() { "no longer held the token" } else { "was deleted" };
        let note = format!(
            "Secret {:?} {what}{}: a new token is issued; the previous one keeps working for its grace period",
            s.secret_name,
            s.last_editor()
        );
        Self::warning(EventReason::Repaired, note)
    }

    /// Reports a repair of the Secret without a new token.
    fn repaired(secret: &str, editor: &str) -> Self {
        let note = format!("Secret {secret:?} was changed{editor} and has been repaired; the token is the same");
        Self::warning(EventReason::Repaired, note)
    }

    fn moved(secret: &str) -> Self {
        Self::normal(EventReason::Moved, format!("the token moved to Secret {secret:?}"))
    }

    fn copy_deleted(copy: &str, secret: &str) -> Self {
        let note = format!(
            "Secret {copy:?} was deleted: it has the label and owner reference of the operator, but only Secret {secret:?} belongs to this \
             PersonalAccessToken; to keep a copy, remove its ownerReferences, labels and annotations"
        );
        Self::warning(EventReason::CopyDeleted, note)
    }

    /// Reports the deletion of an immutable Secret.
    pub(super) fn immutable_deleted(s: &Situation<'_>, deleted: &SecretVersion) -> Self {
        let then = if s.needs_mint() { "; it is created again with a new token" } else { "" };
        let note = format!(
            "Secret {:?} was deleted: it held no valid token, and is immutable, so that its data could not be changed{then}",
            deleted.name
        );
        Self::warning(EventReason::SecretDeleted, note)
    }

    /// Reports a token that was revoked at its issuer; `None` for one in its grace period.
    fn lost_at_issuer(s: &Situation<'_>, gone: &Credential) -> Option<Self> {
        let issuer = s.observed.issuer.filter(|_| gone.state == CredentialState::Active)?;
        let name = &gone.remote.as_deref()?.name;
        let note = format!(
            "{} no longer has token {name} (ID {}), although it had not expired: someone revoked it there; find out who",
            issuer.title, gone.id
        );
        Some(Self::warning(EventReason::LostAtIssuer, note))
    }

    fn corrected() -> Self {
        let note = "another client wrote values to status.revision or status.credentials that the controller never writes: they were \
                    corrected or removed; find out who may write personalaccesstokens/status";
        Self::warning(EventReason::Corrected, note.into())
    }

    fn restored(secret: &str) -> Self {
        let note = format!("the status was lost and has been rebuilt from Secret {secret:?}");
        Self::warning(EventReason::Restored, note)
    }
}
