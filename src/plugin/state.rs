//! The state of a token and its upcoming events, computed from spec, status and the current time.
//!
//! Revocation and expiry are evaluated here as in a verifier, so that the state is correct even while no operator runs.

use k8s_openapi::jiff::SignedDuration;

use super::{pat::PatObject, terminal::Tone};
use crate::{
    api::{Condition, ConditionType, CredentialState, DeliveryState, Reason, Time},
    auth::verdict::Terms,
    planner::DELIVERY_WINDOW,
};

/// An event is overdue this long after its time.
const OVERDUE_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// The state of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenState {
    /// The state in one word.
    pub word: String,
    /// The severity of the state.
    pub tone: Tone,
    /// An explanation with the next step; may be empty.
    pub message: String,
}

impl TokenState {
    fn new(word: &str, tone: Tone, message: impl Into<String>) -> Self {
        Self { word: word.to_owned(), tone, message: message.into() }
    }
}

/// Reads the rules for the validity of the credentials; `None` if the spec is invalid.
pub fn read_terms(pat: &PatObject) -> Option<Terms> {
    let spec = pat.stored.spec.as_ref().ok()?;
    Terms::read(spec, &pat.status(), pat.stored.metadata.deletion_timestamp.is_some()).ok()
}

/// Whether the condition `Ready` says that the owner of the token is disabled. Unlike TokenOwners, every user of the token can read it.
pub fn is_owner_disabled(pat: &PatObject) -> bool {
    find_condition(pat, ConditionType::Ready).is_some_and(|ready| ready.reason == Reason::OwnerDisabled.as_str())
}

fn find_condition(pat: &PatObject, type_: ConditionType) -> Option<Condition> {
    pat.status().conditions.into_iter().find(|one| one.type_ == type_.as_str())
}

/// Returns the state of a token at `now`.
pub fn token_state(pat: &PatObject, now: Time) -> TokenState {
    if pat.stored.metadata.deletion_timestamp.is_some() {
        return TokenState::new("Deleting", Tone::Muted, "the object is being deleted; its tokens are no longer valid");
    }
    if let Err(problem) = &pat.stored.spec {
        return TokenState::new("Unreadable", Tone::Bad, format!("spec: {problem}"));
    }
    let spec = pat.spec();
    if spec.revoked == Some(true) {
        let message = format!(
            "spec.revoked is true: no token is valid; issue a new one with `kubectl pat revoke {} --undo`",
            pat.name()
        );
        return TokenState::new(Reason::Revoked.as_str(), Tone::Muted, message);
    }
    if let Some(end) = read_terms(pat).and_then(|terms| terms.end()).filter(|end| *end <= now) {
        let message = format!("the token expired at {end}; get a new one with `kubectl pat extend {}`", pat.name());
        return TokenState::new(Reason::Expired.as_str(), Tone::Bad, message);
    }
    let Some(ready) = find_condition(pat, ConditionType::Ready) else {
        return TokenState::new(
            "New",
            Tone::Warning,
            "no operator has processed the object yet; check the operator with `kubectl pat doctor`",
        );
    };
    let observed = pat.status().observed_generation;
    if observed.is_some() && pat.stored.metadata.generation > observed {
        return TokenState::new(
            "Changed",
            Tone::Warning,
            "the operator has not processed the latest change of the spec yet",
        );
    }
    match (&*ready.status, &*ready.reason) {
        ("False", reason) => TokenState::new(reason, Tone::Bad, ready.message),
        ("Unknown", reason) => TokenState::new(reason, Tone::Warning, ready.message),
        _ => ready_state(pat, &ready),
    }
}

/// Returns the state of a token that is valid.
fn ready_state(pat: &PatObject, ready: &Condition) -> TokenState {
    let find_true = |type_| find_condition(pat, type_).filter(Condition::is_true);
    if let Some(stalled) = find_true(ConditionType::Stalled) {
        return TokenState::new(&stalled.reason, Tone::Bad, stalled.message);
    }
    if let Some(ending) = find_true(ConditionType::ExpiringSoon) {
        return TokenState::new("Expiring", Tone::Warning, ending.message);
    }
    if let Some(working) = find_true(ConditionType::Reconciling) {
        return TokenState::new(&working.reason, Tone::Warning, working.message);
    }
    if ready.reason == Reason::Suspended.as_str() {
        return TokenState::new(Reason::Suspended.as_str(), Tone::Warning, ready.message.clone());
    }
    match pat.status().delivery {
        Some(DeliveryState::Waiting) => TokenState::new("Waiting", Tone::Warning, ready.message.clone()),
        Some(DeliveryState::Delivered) => TokenState::new("Delivered", Tone::Good, ready.message.clone()),
        _ => match find_true(ConditionType::InGracePeriod) {
            Some(grace) => TokenState::new("InGrace", Tone::Good, grace.message),
            None => TokenState::new("Ready", Tone::Good, ready.message.clone()),
        },
    }
}

/// A scheduled event in the life of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpcomingEvent {
    /// The time of the event.
    pub at: Time,
    /// A short verb for lists, such as `rotates`.
    pub verb: &'static str,
    /// A description.
    pub what: String,
    /// Whether it should have happened by now.
    pub is_overdue: bool,
}

/// Returns the upcoming events of a token, the next one first.
pub fn upcoming_events(pat: &PatObject, now: Time) -> Vec<UpcomingEvent> {
    let (spec, status) = (pat.spec(), pat.status());
    let Some(terms) = read_terms(pat) else { return Vec::new() };
    let mut all = Vec::new();
    let mut add = |at: Time, verb: &'static str, what: String| {
        all.push(UpcomingEvent { at, verb, what, is_overdue: at.plus(OVERDUE_AFTER) < now });
    };
    let live = status.credentials.iter().filter(|one| terms.judge(one, now).is_valid());
    for credential in live {
        match (credential.state, credential.expires_at) {
            (CredentialState::Grace, Some(end)) => {
                add(end, "grace ends", format!("the replaced token {} expires", credential.id));
            }
            (CredentialState::Active, Some(end)) if terms.end() != Some(end) && status.next_rotation_at.is_none() => {
                add(end, "ends", format!("token {} expires without a rotation", credential.id));
            }
            (CredentialState::Active, _) if status.delivery == Some(DeliveryState::Waiting) => {
                let end = credential.issued_at.plus(DELIVERY_WINDOW);
                add(end, "must be taken", "the token expires if it was not taken from the Secret".to_owned());
            }
            _ => {}
        }
    }
    let ended = spec.revoked == Some(true) || terms.expired(now);
    if let Some(at) = status.next_rotation_at.filter(|_| !ended) {
        let grace = spec.grace_period.as_ref().map_or_else(|| "its grace period".to_owned(), |grace| grace.to_string());
        add(at, "rotates", format!("a new token replaces the current one, which stays valid for {grace}"));
    }
    let issued = pat.active().map(|active| active.issued_at);
    let ahead = |line: Option<Time>| line.filter(|line| *line > now && issued.is_some_and(|at| at < *line) && !ended);
    if let Some(at) = ahead(spec.rotate_if_issued_before) {
        add(at, "rotates", "a new token replaces the current one (spec.rotateIfIssuedBefore)".to_owned());
    }
    if let Some(at) = ahead(spec.revoke_if_issued_before) {
        add(at, "is revoked", "every token issued before is revoked (spec.revokeIfIssuedBefore)".to_owned());
    }
    if let Some(end) = terms.end().filter(|end| *end > now && spec.revoked != Some(true)) {
        add(end, "expires", "the token expires (spec.expiry or the default lifetime)".to_owned());
    }
    all.sort_by_key(|one| one.at);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2030-01-10T00:00:00Z";

    fn pat(spec: Value, status: Value) -> PatObject {
        let object = json!({
            "apiVersion": "pat-operator.io/v1alpha1",
            "kind": "PersonalAccessToken",
            "metadata": {"name": "ci", "namespace": "shop", "uid": "u", "generation": 1},
            "spec": spec,
            "status": status,
        });
        PatObject::parse(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn ready(status: &str, reason: &str) -> Value {
        json!([{"type": "Ready", "status": status, "reason": reason, "message": "m", "lastTransitionTime": NOW}])
    }

    #[test]
    fn state_agrees_with_a_verifier() {
        let now = NOW.parse().unwrap();
        let issued = json!({"conditions": ready("True", "Issued"), "observedGeneration": 1});
        for (spec, status, word, tone) in [
            (json!({}), json!({}), "New", Tone::Warning),
            (json!({}), issued.clone(), "Ready", Tone::Good),
            (json!({"revoked": true}), issued.clone(), "Revoked", Tone::Muted),
            (json!({"expiry": {"at": "2030-01-01T00:00:00Z"}}), issued.clone(), "Expired", Tone::Bad),
            (json!({"scopes": 7}), issued, "Unreadable", Tone::Bad),
            (json!({}), json!({"conditions": ready("False", "SecretConflict")}), "SecretConflict", Tone::Bad),
            (json!({}), json!({"conditions": ready("Unknown", "Issuing")}), "Issuing", Tone::Warning),
            (json!({}), json!({"conditions": ready("True", "Suspended")}), "Suspended", Tone::Warning),
            (
                json!({}),
                json!({"conditions": ready("True", "Issued"), "observedGeneration": 0}),
                "Changed",
                Tone::Warning,
            ),
            (
                json!({"secret": {"delivery": "Once"}}),
                json!({"conditions": ready("True", "Issued"), "delivery": "Waiting"}),
                "Waiting",
                Tone::Warning,
            ),
        ] {
            let state = token_state(&pat(spec.clone(), status), now);
            assert_eq!((&*state.word, state.tone), (word, tone), "{spec}");
        }
    }

    #[test]
    fn upcoming_events_are_sorted_and_marked_overdue() {
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
        let events_of = |spec: Value| {
            let events = upcoming_events(&pat(spec, status.clone()), now);
            events.into_iter().map(|one| (one.verb, one.is_overdue)).collect::<Vec<_>>()
        };
        let spec = json!({"rotation": {"interval": "8d"}, "expiry": {"at": "2031-01-01T00:00:00Z"}});
        assert_eq!(events_of(spec), [("rotates", true), ("grace ends", false), ("expires", false)]);
        assert_eq!(events_of(json!({"revoked": true})), []);
        let later = json!({"rotateIfIssuedBefore": "2030-01-10T06:00:00Z", "expiry": {"never": true}});
        assert_eq!(events_of(later), [("rotates", true), ("rotates", false), ("grace ends", false)]);
    }
}
