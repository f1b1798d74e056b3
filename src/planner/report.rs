//! What people are told: conditions and events, in words that end with what to do next.
//!
//! It must not decide anything about tokens; it only says what has been decided. No message changes with the passing
//! of time, for a message that does would be written for ever.

use std::fmt;

use super::{handover::closes_at, life};
use crate::api::{
    Condition, ConditionType, Credential, CredentialState, DeliveryState, PersonalAccessTokenStatus, Reason, Time,
};
use crate::planner::intent::Intent;

/// Why the token cannot be brought to where the spec wants it, for now or until a person acts.
#[derive(Clone, Debug)]
pub struct Blocked {
    reason: Reason,
    message: String,
    until: Option<Time>,
}

impl Blocked {
    /// Names the reason, says what to do, and when it will be looked at again by itself.
    pub fn new(reason: Reason, message: String, until: Option<Time>) -> Self {
        Self { reason, message, until }
    }

    /// Whether the Secret may still be kept in order: it is only minting that has to wait.
    pub fn lets_secret_be_written(&self) -> bool {
        matches!(self.reason, Reason::TooManyLive | Reason::MintLoop)
    }
}

/// All that the conditions depend on.
pub struct Situation<'a> {
    /// The present.
    pub now: Time,
    /// What is wanted.
    pub intent: &'a Intent,
    /// The Secret's name by the spec.
    pub secret_name: &'a str,
    /// The status that is about to be written.
    pub status: &'a PersonalAccessTokenStatus,
    /// The active credential.
    pub active: Option<&'a Credential>,
    /// The Secret holds it.
    pub holds: bool,
    /// Not the Secret of the spec's name, but a former one, holds it.
    pub safe_elsewhere: bool,
    /// With `delivery: Once`: none is live and none will be by itself.
    pub ended: bool,
    /// What is in the way.
    pub blocked: Option<Blocked>,
}

impl Situation<'_> {
    /// The token works in the hands of whoever took it.
    fn delivered(&self) -> bool {
        self.active.is_some() && self.status.delivery == Some(DeliveryState::Delivered)
    }

    /// Where the token is.
    fn issued(&self) -> String {
        if self.delivered() {
            return "the token was taken and works".into();
        }
        let place = if self.holds { Some(self.secret_name) } else { self.status.secret_name.as_deref() };
        let issued = format!("Secret {:?} holds a token that works", place.unwrap_or(self.secret_name));
        match self.active.filter(|_| self.status.delivery == Some(DeliveryState::Waiting)) {
            Some(active) => {
                let end = closes_at(active.issued_at).floor_second();
                format!("{issued} and waits to be taken until {end}: whoever takes it deletes the Secret")
            }
            None => issued,
        }
    }
}

/// The conditions to be, and when what blocks is looked at again.
#[derive(Debug)]
pub struct Outcome {
    ready: (&'static str, Reason, String),
    abnormal: Vec<(ConditionType, Reason, String)>,
    blocked_until: Option<Time>,
}

/// Words what has been decided.
pub fn outcome(situation: &Situation<'_>) -> Outcome {
    let mut outcome = readiness(situation);
    outcome.blocked_until = situation.blocked.as_ref().and_then(|blocked| blocked.until);
    let grace_ends: Vec<_> = situation
        .status
        .credentials
        .iter()
        .filter(|credential| credential.state == CredentialState::Grace)
        .filter_map(|credential| credential.expires_at)
        .collect();
    if let Some(last) = grace_ends.iter().max() {
        let many = if grace_ends.len() == 1 {
            "1 replaced token works".into()
        } else {
            format!("{} replaced tokens work", grace_ends.len())
        };
        let message = format!("{many} beside the present one, the last until {last}");
        outcome.abnormal.push((ConditionType::InGracePeriod, Reason::PreviousCredentialLive, message));
    }
    if let Some(active) = situation.active
        && let Some(end) = life::final_end(situation.intent, active)
        && situation.now >= life::warning_from(situation.status.first_issued_at.unwrap_or(active.issued_at), end)
    {
        let message = if situation.intent.terms.end() == Some(end) {
            format!("the token ends at {end}: set a later spec.expiry to keep it")
        } else if situation.intent.suspended {
            format!("the token ends at {end} because it is not rotated: set spec.suspend to false")
        } else {
            format!("the token ends at {end} because it cannot be rotated: mend what the condition Ready names")
        };
        outcome.abnormal.push((ConditionType::ExpiringSoon, Reason::ExpiryNear, message));
    }
    outcome
}

fn readiness(situation: &Situation<'_>) -> Outcome {
    let Situation { intent, secret_name, status, active, holds, .. } = situation;
    if intent.revoked {
        return Outcome::stuck(
            Reason::Revoked,
            "spec.revoked is true: every token is dead, none is issued; set it to false for a new one".into(),
        );
    }
    if intent.terms.expired(situation.now) {
        let end = intent.terms.end().expect("what has expired has an end");
        return Outcome::stuck(
            Reason::Expired,
            format!("the token ended at {end}: set a later spec.expiry for a new one"),
        );
    }
    let there = *holds || situation.safe_elsewhere || situation.delivered();
    if let Some(blocked) = &situation.blocked {
        let works = there && !matches!(blocked.reason, Reason::SecretConflict | Reason::InvalidSpec);
        let waits = matches!(blocked.reason, Reason::ApiError) || works;
        let kind = if waits { ConditionType::Reconciling } else { ConditionType::Stalled };
        let ready = if works {
            ("True", Reason::Issued, situation.issued())
        } else {
            ("False", blocked.reason, blocked.message.clone())
        };
        return Outcome { ready, abnormal: vec![(kind, blocked.reason, blocked.message.clone())], blocked_until: None };
    }
    if situation.ended {
        let (reason, what) = match status.delivery {
            Some(DeliveryState::NotDelivered) => (
                Reason::NotDelivered,
                "the token was not taken in time, or its arrival was not acknowledged, and it is dead",
            ),
            _ => (Reason::Revoked, "the token that was handed over is dead"),
        };
        let advice =
            "with delivery: Once none is issued by itself; set spec.rotateIfIssuedBefore to the present for another";
        return Outcome::stuck(reason, format!("{what}; {advice}"));
    }
    if intent.suspended {
        let works = *holds || situation.delivered();
        let message = match active {
            Some(active) if works => {
                let end = active.expires_at.map_or_else(String::new, |end| format!(" and ends at {end}"));
                format!("the token works{end}; spec.suspend is true: it is not rotated")
            }
            _ => "spec.suspend is true: no token is issued; set it to false for one".into(),
        };
        return if works {
            Outcome { ready: ("True", Reason::Suspended, message), abnormal: Vec::new(), blocked_until: None }
        } else {
            Outcome::stuck(Reason::Suspended, message)
        };
    }
    if there {
        return Outcome {
            ready: ("True", Reason::Issued, situation.issued()),
            abnormal: Vec::new(),
            blocked_until: None,
        };
    }
    let message = format!("a token is being issued into Secret {secret_name:?}");
    Outcome {
        ready: ("Unknown", Reason::Issuing, message.clone()),
        abnormal: vec![(ConditionType::Reconciling, Reason::Issuing, message)],
        blocked_until: None,
    }
}

impl Outcome {
    /// Ready=False and Stalled=True: a person has to act.
    pub fn stuck(reason: Reason, message: String) -> Self {
        Self {
            ready: ("False", reason, message.clone()),
            abnormal: vec![(ConditionType::Stalled, reason, message)],
            blocked_until: None,
        }
    }

    /// When what blocks is to be looked at again.
    pub fn wake_at(&self) -> Option<Time> {
        self.blocked_until
    }

    /// The list of conditions; `lastTransitionTime` moves only with a condition's status.
    pub fn conditions(&self, present: &[Condition], generation: Option<i64>, now: Time) -> Vec<Condition> {
        let (status, reason, message) = &self.ready;
        let ready = (ConditionType::Ready, *status, *reason, message.as_str());
        let rest = self.abnormal.iter().map(|(type_, reason, message)| (*type_, "True", *reason, message.as_str()));
        let mut conditions: Vec<_> = std::iter::once(ready)
            .chain(rest)
            .map(|(type_, status, reason, message)| {
                let before = present.iter().find(|condition| condition.type_ == type_.as_str());
                Condition {
                    type_: type_.as_str().into(),
                    status: status.into(),
                    reason: reason.as_str().into(),
                    message: clipped(message),
                    last_transition_time: before
                        .filter(|before| before.status == status)
                        .map_or_else(|| now.floor_second(), |before| before.last_transition_time),
                    observed_generation: generation,
                }
            })
            .collect();
        conditions
            .sort_by_key(|condition| ConditionType::ALL.iter().position(|type_| type_.as_str() == condition.type_));
        conditions
    }

    /// The transitions in this outcome that a person would want to hear of.
    pub fn events(&self, present: &[Condition]) -> Vec<Notice> {
        let mut notices = Vec::new();
        let telling = |reason: &Reason| {
            !matches!(reason, Reason::Issued | Reason::Issuing | Reason::Suspended | Reason::PreviousCredentialLive)
        };
        for (type_, reason, message) in &self.abnormal {
            let before = present.iter().find(|condition| condition.type_ == type_.as_str());
            let news = before.is_none_or(|before| !before.is_true() || before.reason != reason.as_str());
            if news && telling(reason) {
                notices.push(Notice {
                    warning: *reason != Reason::Revoked,
                    reason: EventReason::Condition(*reason),
                    note: clipped(message),
                });
            }
        }
        notices
    }
}

/// An API server's message has no length limit; a condition's has.
fn clipped(message: &str) -> String {
    const MOST: usize = 1000;
    if message.len() <= MOST {
        return message.to_owned();
    }
    let mut end = MOST;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

/// Why an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// A new token took the place of one that goes on in grace.
    Rotated,
    /// A credential was revoked.
    CredentialRevoked,
    /// A credential was not rotated in time and ended.
    Lapsed,
    /// The Secret was damaged and is as it should be again.
    Repaired,
    /// The token moved to a Secret of another name.
    Moved,
    /// A lost status was rebuilt from the Secret.
    Restored,
    /// A condition became true.
    Condition(Reason),
}

impl EventReason {
    /// All that are not a condition's reason.
    pub const ALL: &'static [Self] =
        &[Self::Rotated, Self::CredentialRevoked, Self::Lapsed, Self::Repaired, Self::Moved, Self::Restored];

    /// The name as it stands in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rotated => "Rotated",
            Self::CredentialRevoked => "CredentialRevoked",
            Self::Lapsed => "Lapsed",
            Self::Repaired => "Repaired",
            Self::Moved => "Moved",
            Self::Restored => "Restored",
            Self::Condition(reason) => reason.as_str(),
        }
    }

    /// What it means, in the words of the documentation.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Rotated => {
                "A new token took the place of one that goes on working until the end of its grace period."
            }
            Self::CredentialRevoked => {
                "One credential was revoked by `spec.revokeIfIssuedBefore` or `spec.revokedCredentials`."
            }
            Self::Lapsed => {
                "The operator could not rotate a credential for a whole interval longer than planned, and it ended. A new one is issued."
            }
            Self::Repaired => {
                "Somebody changed or deleted the Secret; it is as it should be again. The note names the field manager that did it, where Kubernetes tells."
            }
            Self::Moved => "The token moved to a Secret of another name.",
            Self::Restored => "A lost status was rebuilt from the Secret's annotations.",
            Self::Condition(reason) => reason.meaning(),
        }
    }
}

impl fmt::Display for EventReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing to tell people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Something is wrong, rather than just different.
    pub warning: bool,
    /// Why.
    pub reason: EventReason,
    /// The words.
    pub note: String,
}

impl Notice {
    fn new(warning: bool, reason: EventReason, note: String) -> Self {
        Self { warning, reason, note }
    }

    /// A token took the place of another; `None` if there was no other.
    pub fn rotated(arrived: &Credential, replaced: Option<&Credential>) -> Option<Self> {
        let replaced = replaced?;
        let until = replaced.expires_at.map_or_else(String::new, |end| format!(" until {end}"));
        Some(Self::new(
            false,
            EventReason::Rotated,
            format!(
                "token {} (revision {}) took the place of {}, which works on{until}",
                arrived.id, arrived.revision, replaced.id
            ),
        ))
    }

    /// One credential was revoked.
    pub fn revoked(id: &str, why: &str) -> Self {
        Self::new(false, EventReason::CredentialRevoked, format!("token {id} is dead: {why}"))
    }

    /// A credential was not rotated in time.
    pub fn lapsed(id: &str) -> Self {
        Self::new(
            true,
            EventReason::Lapsed,
            format!(
                "token {id} ended because it could not be rotated for one interval longer than planned: see that the operator runs"
            ),
        )
    }

    /// The Secret lost the token: a new one is issued.
    pub fn repaired_by_mint(secret: &str, there: bool, editor: &str) -> Self {
        let what = if there { "no longer held the token" } else { "was gone" };
        Self::new(
            true,
            EventReason::Repaired,
            format!(
                "Secret {secret:?} {what}{editor}: a new token is issued; the former one works on for its grace period"
            ),
        )
    }

    /// Something else in the Secret was changed: it is as it was.
    pub fn repaired(secret: &str, editor: &str) -> Self {
        Self::new(
            true,
            EventReason::Repaired,
            format!("Secret {secret:?} had been changed{editor}: it is as it should be again; the token is the same"),
        )
    }

    /// The token moved.
    pub fn moved(secret: &str) -> Self {
        Self::new(false, EventReason::Moved, format!("the token moved to Secret {secret:?}"))
    }

    /// The status was rebuilt.
    pub fn restored(secret: &str) -> Self {
        Self::new(
            true,
            EventReason::Restored,
            format!("the status was lost and has been rebuilt from Secret {secret:?}"),
        )
    }
}
