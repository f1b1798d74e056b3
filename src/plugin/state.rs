//! What a token's state is, in one word, and what comes next, with its time.
//!
//! Pure, over spec, status and the present. Revocation and expiry are judged here, as a verifier judges them, so that the answer is
//! right also while no operator runs.

use k8s_openapi::jiff::SignedDuration;

use super::{pat::Pat, terminal::Tone};
use crate::{
    api::{Condition, ConditionType, CredentialState, DeliveryState, Reason, Time},
    auth::verdict::Terms,
    planner::DELIVERY_WINDOW,
};

/// For how long after its time something may be about to be done.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// A token's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// In one word.
    pub word: String,
    /// How to take it.
    pub tone: Tone,
    /// In a sentence, with what to do; empty if there is nothing to say.
    pub message: String,
}

impl State {
    fn new(word: &str, tone: Tone, message: impl Into<String>) -> Self {
        Self { word: word.to_owned(), tone, message: message.into() }
    }
}

/// The terms that decide over the life of a token's credentials; `None` if the spec cannot be read.
pub fn terms(pat: &Pat) -> Option<Terms> {
    let spec = pat.stored.spec.as_ref().ok()?;
    Terms::read(spec, &pat.status(), pat.stored.metadata.deletion_timestamp.is_some()).ok()
}

/// One of its conditions.
pub fn condition(pat: &Pat, type_: ConditionType) -> Option<Condition> {
    pat.status().conditions.into_iter().find(|one| one.type_ == type_.as_str())
}

/// The state of a token at one instant.
pub fn state(pat: &Pat, now: Time) -> State {
    if pat.stored.metadata.deletion_timestamp.is_some() {
        return State::new("Deleting", Tone::Quiet, "it is being deleted: none of its tokens works any more");
    }
    if let Err(problem) = &pat.stored.spec {
        return State::new("Unreadable", Tone::Bad, format!("spec: {problem}"));
    }
    let spec = pat.spec();
    if spec.revoked == Some(true) {
        let message = "spec.revoked is true: every token is dead; kubectl pat revoke --undo for a new one";
        return State::new(Reason::Revoked.as_str(), Tone::Quiet, message);
    }
    if let Some(end) = terms(pat).and_then(|terms| terms.end()).filter(|end| *end <= now) {
        let message = format!("the token ended at {end}; kubectl pat extend for a new one");
        return State::new(Reason::Expired.as_str(), Tone::Bad, message);
    }
    let Some(ready) = condition(pat, ConditionType::Ready) else {
        return State::new("New", Tone::Notice, "no operator has looked at it yet; is one running? kubectl pat doctor");
    };
    let observed = pat.status().observed_generation;
    if observed.is_some() && pat.stored.metadata.generation > observed {
        return State::new("Changed", Tone::Notice, "its spec is newer than its status: the operator has yet to look");
    }
    match (&*ready.status, &*ready.reason) {
        ("False", reason) => State::new(reason, Tone::Bad, ready.message),
        ("Unknown", reason) => State::new(reason, Tone::Notice, ready.message),
        _ => working(pat, &ready),
    }
}

/// The token works; what else is there to say?
fn working(pat: &Pat, ready: &Condition) -> State {
    let true_ = |type_| condition(pat, type_).filter(Condition::is_true);
    if let Some(stalled) = true_(ConditionType::Stalled) {
        return State::new(&stalled.reason, Tone::Bad, stalled.message);
    }
    if let Some(ending) = true_(ConditionType::ExpiringSoon) {
        return State::new("Expiring", Tone::Notice, ending.message);
    }
    if let Some(working) = true_(ConditionType::Reconciling) {
        return State::new(&working.reason, Tone::Notice, working.message);
    }
    if ready.reason == Reason::Suspended.as_str() {
        return State::new(Reason::Suspended.as_str(), Tone::Notice, ready.message.clone());
    }
    match pat.status().delivery {
        Some(DeliveryState::Waiting) => State::new("Waiting", Tone::Notice, ready.message.clone()),
        Some(DeliveryState::Delivered) => State::new("Delivered", Tone::Good, ready.message.clone()),
        _ => match true_(ConditionType::InGracePeriod) {
            Some(grace) => State::new("InGrace", Tone::Good, grace.message),
            None => State::new("Ready", Tone::Good, ready.message.clone()),
        },
    }
}

/// Something that comes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coming {
    /// When.
    pub at: Time,
    /// What, in a word for a list: `rotates`.
    pub word: &'static str,
    /// What, in a sentence.
    pub what: String,
    /// It should have happened by now.
    pub overdue: bool,
}

/// All that comes by itself, the soonest first.
pub fn coming(pat: &Pat, now: Time) -> Vec<Coming> {
    let (spec, status) = (pat.spec(), pat.status());
    let Some(terms) = terms(pat) else { return Vec::new() };
    let mut all = Vec::new();
    let mut add = |at: Time, word: &'static str, what: String| {
        all.push(Coming { at, word, what, overdue: at.plus(SLACK) < now });
    };
    let live = status.credentials.iter().filter(|one| terms.judge(one, now).is_valid());
    for credential in live {
        match (credential.state, credential.expires_at) {
            (CredentialState::Grace, Some(end)) => {
                add(end, "grace ends", format!("the replaced token {} stops working", credential.id));
            }
            (CredentialState::Active, Some(end)) if terms.end() != Some(end) && status.next_rotation_at.is_none() => {
                add(end, "ends", format!("token {} ends, and is not rotated before", credential.id));
            }
            (CredentialState::Active, _) if status.delivery == Some(DeliveryState::Waiting) => {
                let end = credential.issued_at.plus(DELIVERY_WINDOW);
                add(end, "must be taken", "the token dies if nobody has taken it".to_owned());
            }
            _ => {}
        }
    }
    let ended = spec.revoked == Some(true) || terms.expired(now);
    if let Some(at) = status.next_rotation_at.filter(|_| !ended) {
        let grace = spec.grace_period.as_ref().map_or_else(|| "its grace period".to_owned(), |grace| grace.to_string());
        add(at, "rotates", format!("a new token takes the place of the present one, which works on for {grace}"));
    }
    let issued = pat.active().map(|active| active.issued_at);
    let ahead = |line: Option<Time>| line.filter(|line| *line > now && issued.is_some_and(|at| at < *line) && !ended);
    if let Some(at) = ahead(spec.rotate_if_issued_before) {
        add(at, "rotates", "a new token is issued, as spec.rotateIfIssuedBefore says".to_owned());
    }
    if let Some(at) = ahead(spec.revoke_if_issued_before) {
        add(at, "is revoked", "every token of before is dead, as spec.revokeIfIssuedBefore says".to_owned());
    }
    if let Some(end) = terms.end().filter(|end| *end > now && spec.revoked != Some(true)) {
        add(end, "expires", "the whole token ends: spec.expiry, or the default lifetime".to_owned());
    }
    all.sort_by_key(|one| one.at);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2030-01-10T00:00:00Z";

    fn pat(spec: Value, status: Value) -> Pat {
        let object = json!({
            "apiVersion": "pat-operator.io/v1alpha1",
            "kind": "PersonalAccessToken",
            "metadata": {"name": "ci", "namespace": "shop", "uid": "u", "generation": 1},
            "spec": spec,
            "status": status,
        });
        Pat::of(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn ready(status: &str, reason: &str) -> Value {
        json!([{"type": "Ready", "status": status, "reason": reason, "message": "m", "lastTransitionTime": NOW}])
    }

    #[test]
    fn the_state_is_what_a_verifier_would_say_whatever_the_status_says() {
        let now = NOW.parse().unwrap();
        let issued = json!({"conditions": ready("True", "Issued"), "observedGeneration": 1});
        for (spec, status, word, tone) in [
            (json!({}), json!({}), "New", Tone::Notice),
            (json!({}), issued.clone(), "Ready", Tone::Good),
            (json!({"revoked": true}), issued.clone(), "Revoked", Tone::Quiet),
            (json!({"expiry": {"at": "2030-01-01T00:00:00Z"}}), issued.clone(), "Expired", Tone::Bad),
            (json!({"scopes": 7}), issued, "Unreadable", Tone::Bad),
            (json!({}), json!({"conditions": ready("False", "SecretConflict")}), "SecretConflict", Tone::Bad),
            (json!({}), json!({"conditions": ready("Unknown", "Issuing")}), "Issuing", Tone::Notice),
            (json!({}), json!({"conditions": ready("True", "Suspended")}), "Suspended", Tone::Notice),
            (
                json!({}),
                json!({"conditions": ready("True", "Issued"), "observedGeneration": 0}),
                "Changed",
                Tone::Notice,
            ),
            (
                json!({"secret": {"delivery": "Once"}}),
                json!({"conditions": ready("True", "Issued"), "delivery": "Waiting"}),
                "Waiting",
                Tone::Notice,
            ),
        ] {
            let state = state(&pat(spec.clone(), status), now);
            assert_eq!((&*state.word, state.tone), (word, tone), "{spec}");
        }
    }

    #[test]
    fn what_comes_next_is_in_order_and_what_is_late_says_so() {
        let hash = "0".repeat(64);
        let credential = |id: &str, state: &str, end: &str| json!({"id": id, "revision": 1, "sha256": hash, "state": state, "issuedAt": "2030-01-01T00:00:00Z", "expiresAt": end});
        let status = json!({
            "conditions": ready("True", "Issued"),
            "nextRotationAt": "2030-01-09T00:00:00Z",
            "credentials": [
                credential("AAAAAAAAAAAA", "Active", "2030-03-01T00:00:00Z"),
                credential("BBBBBBBBBBBB", "Grace", "2030-01-11T00:00:00Z"),
                credential("CCCCCCCCCCCC", "Grace", "2030-01-02T00:00:00Z"),
            ],
        });
        let now = NOW.parse().unwrap();
        let told = |spec: Value| {
            let coming = coming(&pat(spec, status.clone()), now);
            coming.into_iter().map(|one| (one.word, one.overdue)).collect::<Vec<_>>()
        };
        let spec = json!({"rotation": {"interval": "8d"}, "expiry": {"at": "2031-01-01T00:00:00Z"}});
        assert_eq!(told(spec), [("rotates", true), ("grace ends", false), ("expires", false)]);
        assert_eq!(told(json!({"revoked": true})), []);
        let later = json!({"rotateIfIssuedBefore": "2030-01-10T06:00:00Z", "expiry": {"never": true}});
        assert_eq!(told(later), [("rotates", true), ("rotates", false), ("grace ends", false)]);
    }
}
