//! The state of a token and its upcoming events, computed from spec, status and the current time.
//!
//! Revocation and expiry are evaluated here as in a verifier, so that the state is correct even while no operator runs.

use k8s_openapi::jiff::SignedDuration;

use super::{pat::PatObject, terminal::Tone, time_format};
use crate::{
    api::{Condition, ConditionType, Credential, CredentialState, DeletionPolicy, DeliveryState, Expiry, Reason, Time},
    auth::verdict::{Terms, Verdict},
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

/// Returns when a token expires. Without an expiry, or if its token is already dead for another reason, it is `None`.
pub fn end(pat: &PatObject) -> Option<Time> {
    let is_dead = pat.is_deleted() || pat.spec().revoked == Some(true);
    read_terms(pat).filter(|_| !is_dead)?.end()
}

/// Describes when a token expires, also if that is not decided yet. Empty if its token is already dead for another reason.
pub fn describe_end(pat: &PatObject, now: Time) -> String {
    let spec = pat.spec();
    if pat.is_deleted() || spec.revoked == Some(true) {
        return String::new();
    }
    let Some(terms) = read_terms(pat) else { return "unknown, because the spec is invalid".to_owned() };
    match (terms.end(), &spec.expiry) {
        (Some(end), _) => time_format::format_time(end, now),
        (None, Some(Expiry { after: Some(after), .. })) => format!("{after} after the first token is issued"),
        (None, None) if spec.rotation.is_none() => {
            "after the default lifetime of the installation, which begins with the first token".to_owned()
        }
        (None, _) => "never".to_owned(),
    }
}

/// Returns the state of one credential: its state in the status, or why it is not valid.
pub fn credential_state(terms: Option<&Terms>, credential: &Credential, now: Time) -> (Tone, String) {
    match (terms.map(|terms| terms.judge(credential, now)), credential.state) {
        // It has ended here, and may work at the issuer.
        (_, CredentialState::Revoking) => (Tone::Warning, credential.state.as_str().to_owned()),
        (Some(verdict), _) if !verdict.is_valid() => (Tone::Bad, format!("{verdict:?}")),
        (_, CredentialState::Active) => (Tone::Good, credential.state.as_str().to_owned()),
        _ => (Tone::Warning, credential.state.as_str().to_owned()),
    }
}

fn find_condition(pat: &PatObject, type_: ConditionType) -> Option<Condition> {
    pat.status().conditions.into_iter().find(|one| one.type_ == type_.as_str())
}

/// Returns the state of a token at `now`.
pub fn token_state(pat: &PatObject, now: Time) -> TokenState {
    if pat.is_deleted() {
        let message = match (pat.tokens_at_issuer(), pat.spec().deletion_policy) {
            (0, _) => "the object is being deleted; its tokens are no longer valid".to_owned(),
            (count, Some(DeletionPolicy::Orphan)) => {
                format!(
                    "the object is being deleted; its tokens at the issuer ({count}) stay valid (deletionPolicy: Orphan)"
                )
            }
            (count, _) => format!("the object is being deleted; {}", may_work(count)),
        };
        return TokenState::new("Deleting", Tone::Muted, message);
    }
    if let Err(problem) = &pat.stored.spec {
        return TokenState::new("Unreadable", Tone::Bad, format!("spec: {problem}"));
    }
    let spec = pat.spec();
    if spec.revoked == Some(true) && pat.tokens_at_issuer() > 0 {
        let message = format!("spec.revoked is true, and {}", may_work(pat.tokens_at_issuer()));
        return TokenState::new(Reason::Revoking.as_str(), Tone::Warning, message);
    }
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
    let is_outdated = observed.is_some() && pat.stored.metadata.generation > observed;
    if let Some(refused) = refused_state(pat, now).filter(|_| is_outdated || ready.is_true()) {
        return refused;
    }
    if is_outdated {
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

fn may_work(count: usize) -> String {
    format!("{count} of its tokens may work until the issuer confirms that they are revoked")
}

/// Returns the state of a token that verifiers refuse, but that the operator has not replaced yet; `None` if it is valid.
fn refused_state(pat: &PatObject, now: Time) -> Option<TokenState> {
    let terms = read_terms(pat)?;
    let credentials = pat.status().credentials;
    let verdict = |one| terms.judge(one, now);
    let active = credentials.iter().find(|one| one.state == CredentialState::Active);
    let refused = active.filter(|active| !verdict(active).is_valid());
    let none_is_valid = credentials.iter().all(|one| !verdict(one).is_valid());
    let refused = refused.or_else(|| credentials.first().filter(|_| none_is_valid))?;
    let (reason, why) = match verdict(refused) {
        Verdict::RevokedByTime => (Reason::Revoked, "is revoked by spec.revokeIfIssuedBefore".to_owned()),
        Verdict::RevokedById => (Reason::Revoked, "is revoked by spec.revokedCredentials".to_owned()),
        _ => {
            let end = refused.expires_at.map_or_else(String::new, |end| format!(" at {end}"));
            (Reason::Expired, format!("expired{end}"))
        }
    };
    let message = format!(
        "token {} {why}, and the operator has not replaced it yet; check the operator with `kubectl pat doctor`",
        refused.id
    );
    Some(TokenState::new(reason.as_str(), Tone::Bad, message))
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
    let Some(terms) = read_terms(pat).filter(|_| !pat.is_deleted()) else { return Vec::new() };
    let live: Vec<_> = status.credentials.iter().filter(|one| terms.judge(one, now).is_valid()).collect();
    if live.is_empty() && status.delivery == Some(DeliveryState::NotDelivered) {
        return Vec::new();
    }
    let mut all = Vec::new();
    let mut add = |at: Time, verb: &'static str, what: String| {
        all.push(UpcomingEvent { at, verb, what, is_overdue: at.plus(OVERDUE_AFTER) < now });
    };
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
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

    fn credential(id: &str, state: &str, end: &str) -> Value {
        let hash = "0".repeat(64);
        json!({"id": id, "revision": 1, "sha256": hash, "state": state, "issuedAt": "2030-01-01T00:00:00Z", "expiresAt": end})
    }

    #[test]
    fn token_that_verifiers_refuse_is_not_shown_as_changed_or_ready() {
        let now = NOW.parse().unwrap();
        let (late, past) = ("2030-03-01T00:00:00Z", "2030-01-09T00:00:00Z");
        let active = credential("AAAAAAAAAAAA", "Active", late);
        let ended = credential("AAAAAAAAAAAA", "Active", past);
        let grace = credential("BBBBBBBBBBBB", "Grace", late);
        for (spec, credentials, observed, word) in [
            (json!({"revokeIfIssuedBefore": NOW}), json!([active]), 0, "Revoked"),
            (json!({"revokedCredentials": ["AAAAAAAAAAAA"]}), json!([active]), 0, "Revoked"),
            (json!({"revokedCredentials": ["AAAAAAAAAAAA"]}), json!([active, grace]), 0, "Revoked"),
            (json!({"revokedCredentials": ["BBBBBBBBBBBB"]}), json!([active, grace]), 0, "Changed"),
            (json!({"revokeIfIssuedBefore": late}), json!([active]), 0, "Changed"),
            (json!({"revokeIfIssuedBefore": NOW}), json!([grace]), 0, "Revoked"),
            (json!({}), json!([ended]), 1, "Expired"),
            (json!({}), json!([ended, grace]), 0, "Expired"),
            (json!({}), json!([active]), 1, "Ready"),
            (json!({}), json!([active]), 0, "Changed"),
        ] {
            let case = format!("{spec} {credentials}");
            let status = json!({"conditions": ready("True", "Issued"), "observedGeneration": observed, "credentials": credentials});
            let state = token_state(&pat(spec, status), now);
            assert_eq!(state.word, word, "{case}");
            assert_eq!(state.message.contains("doctor"), matches!(word, "Revoked" | "Expired"), "{state:?}");
        }
        // The operator's own reason is better than what follows from the credentials.
        let status =
            json!({"conditions": ready("False", "SecretConflict"), "observedGeneration": 1, "credentials": [ended]});
        assert_eq!(token_state(&pat(json!({}), status), now).word, "SecretConflict");
    }

    #[test]
    fn tokens_at_an_issuer_may_work_until_they_are_revoked_there() {
        let now = NOW.parse().unwrap();
        let mut left = credential("AAAAAAAAAAAA", "Revoking", "2030-03-01T00:00:00Z");
        left["remote"] = json!({"name": "po-a", "issuerUID": "u", "parameters": ""});
        let status = json!({"remoteCredentials": [left], "conditions": ready("False", "Revoking")});
        let revoked = token_state(&pat(json!({"revoked": true}), status.clone()), now);
        assert_eq!((&*revoked.word, revoked.tone), ("Revoking", Tone::Warning));
        assert!(revoked.message.contains("1 of its tokens may work"), "{revoked:?}");
        for (spec, part) in [
            (json!({}), "1 of its tokens may work until the issuer confirms"),
            (json!({"deletionPolicy": "Orphan"}), "its tokens at the issuer (1) stay valid"),
        ] {
            let mut deleted = pat(spec, status.clone());
            deleted.stored.metadata.deletion_timestamp = Some(ApiTime(now.timestamp()));
            let state = token_state(&deleted, now);
            assert!(state.word == "Deleting" && state.message.contains(part), "{state:?}");
        }
    }

    #[test]
    fn end_of_a_token_is_described_before_it_is_decided() {
        let now = NOW.parse().unwrap();
        let tomorrow = "2030-01-11T00:00:00Z (in 24h)";
        for (spec, status, text) in [
            (json!({"expiry": {"after": "90d"}}), json!({}), "90d after the first token is issued"),
            (json!({"expiry": {"after": "9d"}}), json!({"firstIssuedAt": "2030-01-02T00:00:00Z"}), tomorrow),
            (json!({}), json!({}), "after the default lifetime of the installation, which begins with the first token"),
            (json!({}), json!({"defaultExpiresAt": "2030-01-11T00:00:00Z"}), tomorrow),
            (json!({"rotation": {"interval": "1d"}}), json!({}), "never"),
            (json!({"expiry": {"never": true}}), json!({}), "never"),
            (json!({"expiry": {"at": "2030-01-11T00:00:00Z"}}), json!({}), tomorrow),
            (json!({"expiry": {"at": "2030-01-11T00:00:00Z"}, "revoked": true}), json!({}), ""),
            (json!({"expiry": {"after": "never"}}), json!({}), "unknown, because the spec is invalid"),
        ] {
            assert_eq!(describe_end(&pat(spec.clone(), status), now), text, "{spec}");
        }
    }

    #[test]
    fn dead_token_has_no_upcoming_events() {
        let now: Time = NOW.parse().unwrap();
        let spec = json!({"expiry": {"at": "2031-01-01T00:00:00Z"}});
        let credentials = [credential("AAAAAAAAAAAA", "Active", "2031-01-01T00:00:00Z")];
        let status = json!({"nextRotationAt": "2030-01-11T00:00:00Z", "credentials": credentials});
        let mut deleted = pat(spec.clone(), status);
        assert_eq!(upcoming_events(&deleted, now).len(), 2);
        deleted.stored.metadata.deletion_timestamp = Some(ApiTime(now.timestamp()));
        assert_eq!((upcoming_events(&deleted, now), end(&deleted)), (vec![], None));
        let missed = json!({"delivery": "NotDelivered"});
        assert_eq!(upcoming_events(&pat(spec, missed), now), []);
    }

    #[test]
    fn upcoming_events_are_sorted_and_marked_overdue() {
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
