//! The life of credentials: their deadlines, who has died, what comes next and when.
//!
//! Pure arithmetic on times. It must not know Secrets.

use k8s_openapi::jiff::SignedDuration;
use sha2::{Digest, Sha256};

use super::{BREAKER_WINDOW, handover::closes_at, report::Notice};
use crate::planner::{
    intent::{Intent, Settings},
    view::Held,
};
use crate::{
    api::{Credential, CredentialState, Parsed, PersonalAccessTokenSpec, PersonalAccessTokenStatus, Time},
    auth::verdict::Verdict,
};

/// Rotation comes at most this early: a twentieth of the interval, and never more than 12 hours.
const JITTER_SHARE: i32 = 20;
const JITTER_MOST: SignedDuration = SignedDuration::from_hours(12);

/// A warning comes this long before the end, or a fifth of the life before it if that is less.
const WARNING_MOST: SignedDuration = SignedDuration::from_hours(7 * 24);
const WARNING_SHARE: i32 = 5;

/// A credential that has died, and of what.
#[derive(Clone, Debug)]
pub struct Burial {
    /// The credential as it was.
    pub credential: Credential,
    /// Why it is dead.
    pub verdict: Verdict,
}

impl Burial {
    /// What to tell people, where it is not the object's condition that tells it.
    pub fn notice(&self, intent: &Intent) -> Option<Notice> {
        let id = self.credential.id.as_str();
        match self.verdict {
            Verdict::Valid | Verdict::Deleted | Verdict::Revoked | Verdict::TokenExpired => None,
            Verdict::RevokedByTime => Some(Notice::revoked(id, "it was issued before spec.revokeIfIssuedBefore")),
            Verdict::RevokedById => Some(Notice::revoked(id, "spec.revokedCredentials names it")),
            Verdict::CredentialExpired
                if self.credential.state == CredentialState::Active && intent.rotation.is_some() =>
            {
                Some(Notice::lapsed(id))
            }
            Verdict::CredentialExpired => None,
        }
    }
}

/// Fixes what is fixed once: the first issue, and the end that the default lifetime gives when it is first needed.
pub fn fix_starting_points(
    base: &mut PersonalAccessTokenStatus,
    spec: &PersonalAccessTokenSpec,
    held: Option<&Held>,
    settings: &Settings,
    now: Time,
) {
    let delivered = |credential: &Credential| credential.state != CredentialState::Pending;
    if base.secret_name.is_none()
        && base.last_issued_at.is_none()
        && !base.credentials.iter().any(delivered)
        && (held.is_some() || base.credentials.is_empty())
    {
        // A token that nobody ever got costs nothing of the lifetime: the first issue is yet to come.
        base.first_issued_at = None;
        base.default_expires_at = None;
    }
    if spec.rotation.is_some() || spec.expiry.is_some() {
        // Should these be removed one day, the default lifetime counts from then: an end from before could be long past.
        base.default_expires_at = None;
    }
    let first_issue = base.first_issued_at.is_none();
    if first_issue {
        base.first_issued_at = held.map(|held| held.issued_at);
    }
    if spec.expiry.is_none() && spec.rotation.is_none() && base.default_expires_at.is_none() {
        let from = if first_issue { base.first_issued_at } else { Some(now) };
        base.default_expires_at = from.map(|from| from.plus(settings.default_lifetime).ceil_second());
    }
}

/// Parts the living from the dead. What is dead by its recorded deadline is dead for good; only then are deadlines moved.
pub fn sort(intent: &Intent, credentials: &[Credential], now: Time) -> (Vec<Credential>, Vec<Burial>) {
    let mut live = Vec::new();
    let mut buried = Vec::new();
    for credential in credentials {
        let verdict = intent.terms.judge(credential, now);
        if verdict.is_valid() {
            let mut credential = credential.clone();
            credential.expires_at = deadline(intent, &credential, now);
            live.push(credential);
        } else {
            buried.push(Burial { credential: credential.clone(), verdict });
        }
    }
    (live, buried)
}

/// When a live credential ends.
///
/// A grace period is a promise: it only ever gets shorter by the end of the whole token. A credential under rotation
/// outlives its interval by one more, so that the operator may be down for that long; a change of `rotation` does not
/// bring the end nearer than one grace period from now.
fn deadline(intent: &Intent, credential: &Credential, now: Time) -> Option<Time> {
    let token_end = intent.terms.end();
    let own_end = if credential.state == CredentialState::Grace {
        credential.expires_at
    } else {
        let by_rotation = intent.rotation.map(|interval| outage_end(credential.issued_at, interval));
        let floor = now.plus(intent.grace).ceil_second();
        match (by_rotation, credential.expires_at) {
            (Some(end), Some(present)) if end < present => Some(end.max(present.min(floor))),
            (Some(end), None) => Some(end.max(floor)),
            (end, _) => end,
        }
    };
    own_end.into_iter().chain(token_end).min()
}

fn outage_end(issued_at: Time, interval: SignedDuration) -> Time {
    issued_at.plus(interval.saturating_mul(2)).ceil_second()
}

/// The active credential makes room for another: it lives on for the grace period, but not longer than it would have.
pub fn retire_active(live: &mut [Credential], grace: SignedDuration, now: Time) -> Option<Credential> {
    let active = live.iter_mut().find(|credential| credential.state == CredentialState::Active)?;
    let end = now.plus(grace).ceil_second();
    active.state = CredentialState::Grace;
    active.expires_at = Some(active.expires_at.map_or(end, |own| own.min(end)));
    Some(active.clone())
}

/// The credential that a held token becomes.
pub fn credential(intent: &Intent, held: &Held, revision: i64) -> Credential {
    let by_rotation = intent.rotation.map(|interval| outage_end(held.issued_at, interval));
    Credential {
        id: Parsed::Value(held.id),
        revision,
        sha256: Parsed::Value(held.hash),
        state: CredentialState::Pending,
        issued_at: held.issued_at,
        expires_at: by_rotation.into_iter().chain(intent.terms.end()).min(),
    }
}

/// When the active credential is to be replaced; `None` if it will not be.
pub fn rotation_due(uid: &str, intent: &Intent, active: &Credential) -> Option<Time> {
    let by_interval = intent
        .rotation
        .map(|interval| active.issued_at.plus(interval - jitter(uid, active.revision, interval)).floor_second());
    let by_statement = intent.rotate_if_issued_before.filter(|line| active.issued_at < *line);
    by_interval
        .into_iter()
        .chain(by_statement)
        .min()
        // A rotation does not extend the token: at its end there is nothing left to replace.
        .filter(|due| intent.terms.end().is_none_or(|end| *due < end))
}

/// How much earlier than its interval a rotation comes: the same for the same credential, spread evenly over a fleet.
pub fn jitter(uid: &str, revision: i64, interval: SignedDuration) -> SignedDuration {
    let most = (interval / JITTER_SHARE).min(JITTER_MOST);
    let share = draw(uid, revision, 1 << 32);
    let micros = (most.as_micros() * i128::from(share)) >> 32;
    SignedDuration::from_micros(i64::try_from(micros).unwrap_or(0))
}

/// A number below `below` that depends on nothing but the object and a counter.
fn draw(uid: &str, counter: i64, below: u64) -> u64 {
    let digest = Sha256::new().chain_update(uid).chain_update(counter.to_be_bytes()).finalize();
    let bytes: [u8; 8] = digest[..8].try_into().expect("SHA-256 has 32 bytes");
    u64::from_be_bytes(bytes) % below
}

/// When a conflict over a Secret is looked at again: after 1 to 10 minutes.
pub fn conflict_retry(uid: &str, now: Time) -> Time {
    let minute = now.as_micros().div_euclid(60_000_000);
    let seconds = 60 + draw(uid, minute, 540);
    now.plus(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(600)))
}

/// The unplanned mints that still count, oldest first.
pub fn recent(mints: &[Time], now: Time) -> Vec<Time> {
    let mut recent: Vec<_> = mints.iter().copied().filter(|mint| now.since(*mint) < BREAKER_WINDOW).collect();
    recent.sort_unstable();
    recent
}

/// When to warn of an end.
pub fn warning_from(start: Time, end: Time) -> Time {
    let share = (end.since(start) / WARNING_SHARE).max(SignedDuration::ZERO);
    end.minus(share.min(WARNING_MOST)).floor_second()
}

/// The end that no rotation will put off: that of the whole token or, where nothing will be rotated, of the active credential.
pub fn final_end(intent: &Intent, active: &Credential) -> Option<Time> {
    let rotates = intent.rotation.is_some() && !intent.suspended && intent.layout.is_ok();
    let own = if rotates { None } else { active.expires_at };
    own.into_iter().chain(intent.terms.end()).min()
}

/// The next instant at which anything can be different without anybody having done anything.
pub fn next_wake(
    intent: &Intent,
    status: &PersonalAccessTokenStatus,
    now: Time,
    blocked_until: Option<Time>,
    uid: &str,
) -> Option<Time> {
    let active = status.credentials.iter().find(|credential| credential.state == CredentialState::Active);
    let rotation = active.filter(|_| !intent.suspended).and_then(|active| rotation_due(uid, intent, active));
    let statement = intent
        .revoke_if_issued_before
        .filter(|line| status.credentials.iter().any(|credential| credential.issued_at < *line));
    let warning = active.and_then(|active| {
        Some(warning_from(status.first_issued_at.unwrap_or(active.issued_at), final_end(intent, active)?))
    });
    // What is handed over once is issued again only when somebody asks; and it waits only so long.
    let last = status.last_issued_at.unwrap_or(Time::MIN);
    let asked = [intent.rotate_if_issued_before, intent.revoke_if_issued_before];
    let asked = asked.into_iter().flatten().filter(|line| intent.once && last < *line);
    // A token that was taken, too: it may be that nobody says that it has arrived.
    let closing = active.filter(|_| intent.once);
    let closing = closing.map(|active| closes_at(active.issued_at));
    let ends = status.credentials.iter().filter_map(|credential| credential.expires_at);
    // The end of the whole token is told also where no credential is live.
    let end = intent.terms.end();
    // A rotation that is overdue waits for what blocks it, and then for that alone.
    ends.chain(end)
        .chain(rotation)
        .chain(statement)
        .chain(warning)
        .chain(blocked_until)
        .chain(asked)
        .chain(closing)
        .filter(|time| *time > now)
        .min()
}
