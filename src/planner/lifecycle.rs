//! The lifecycle of credentials (pending, active, in grace, ended) and its deadlines.

use k8s_openapi::jiff::SignedDuration;
use sha2::{Digest, Sha256};

use super::{
    BREAKER_WINDOW, delivery,
    inputs::Inputs,
    intent::{ControllerConfig, Intent},
    observed::{HeldCredential, SecretView},
    ownership::SecretOwnership,
    remote,
    repairs::Repairs,
};
use crate::{
    api::{Credential, CredentialState, Parsed, PersonalAccessTokenSpec, PersonalAccessTokenStatus, RemoteFacts, Time},
    auth::verdict::Verdict,
};

/// A rotation happens up to a twentieth of the interval early, and at most 12 hours.
const JITTER_SHARE: i32 = 20;
const MAX_JITTER: SignedDuration = SignedDuration::from_hours(12);

/// A warning is shown from 7 days before the end, or from a fifth of the lifetime before it if that is shorter.
const MAX_WARNING: SignedDuration = SignedDuration::from_hours(7 * 24);
const WARNING_SHARE: i32 = 5;

/// A time that is later than now by more than this lies in the future. Clocks are compared by headers with whole seconds.
const FUTURE_TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// A credential that has ended, and why.
#[derive(Clone, Debug)]
pub(super) struct RetiredCredential {
    /// The credential as the status has it.
    pub credential: Credential,
    /// Why it has ended.
    pub verdict: Verdict,
}

/// A pending token that has reached the Secret and is now active.
pub(super) struct Promotion {
    /// The token that has arrived.
    pub arrived: Credential,
    /// The token that it replaced, if that one is still valid.
    pub replaced: Option<Credential>,
}

/// Sets the fields that are set only once: the time of the first issue, and the expiry from the default lifetime.
pub(super) fn fix_starting_points(
    base: &mut PersonalAccessTokenStatus,
    spec: &PersonalAccessTokenSpec,
    held: Option<&HeldCredential>,
    config: &ControllerConfig,
    now: Time,
) {
    let was_available = |credential: &Credential| credential.state != CredentialState::Pending;
    if base.secret_name.is_none()
        && base.last_issued_at.is_none()
        && !base.credentials.iter().any(was_available)
        && (held.is_some() || base.credentials.is_empty())
    {
        // No token was ever available: the lifetime has not begun.
        base.first_issued_at = None;
        base.default_expires_at = None;
    }
    if spec.rotation.is_some() || spec.expiry.is_some() {
        // If these fields are removed later, the default lifetime counts from that time: an earlier end could be long
        // past.
        base.default_expires_at = None;
    }
    let is_first_issue = base.first_issued_at.is_none();
    if is_first_issue {
        base.first_issued_at = held.map(|held| held.issued_at);
    }
    if spec.expiry.is_none() && spec.rotation.is_none() && base.default_expires_at.is_none() {
        let from = if is_first_issue { base.first_issued_at } else { Some(now) };
        base.default_expires_at = from.map(|from| from.plus(config.default_lifetime).ceil_second());
    }
}

/// Separates live credentials from those that have ended, and then updates the deadlines of the live ones. A credential that has
/// reached its recorded deadline stays ended.
pub(super) fn separate_retired(
    intent: &Intent,
    credentials: &[Credential],
    now: Time,
) -> (Vec<Credential>, Vec<RetiredCredential>) {
    let mut live = Vec::new();
    let mut retired = Vec::new();
    for credential in credentials {
        let verdict = intent.terms.judge(credential, now);
        if verdict.is_valid() {
            let expires_at = deadline(intent, credential, now);
            live.push(Credential { expires_at, ..credential.clone() });
        } else {
            retired.push(RetiredCredential { credential: credential.clone(), verdict });
        }
    }
    (live, retired)
}

/// Makes a pending token active if the Secret holds it, and drops older pending tokens, which can no longer be written. Also returns those
/// of the dropped ones that were written, but that the Secret does not hold.
pub(super) fn promote(
    inputs: &Inputs<'_>,
    mut live: Vec<Credential>,
    ownership: &SecretOwnership<'_>,
) -> (Vec<Credential>, Option<Promotion>, Vec<Credential>) {
    // If the Secret was renamed between the write and this plan, a former one holds it.
    let secrets: Vec<&SecretView> = ownership.ours().into_iter().chain(inputs.observed.former).collect();
    let is_there = |credential: &Credential| secrets.iter().any(|secret| inputs.key_of(secret, credential).is_some());
    let arrived = live
        .iter()
        .filter(|one| one.state == CredentialState::Pending && delivery::is_in_time(inputs, one))
        .find(|one| is_there(one))
        .map(|one| one.id.clone());
    let promotion = arrived.and_then(|id| {
        let replaced = retire_active(inputs, &mut live);
        let credential = live.iter_mut().find(|credential| credential.id == id)?;
        credential.state = CredentialState::Active;
        Some(Promotion { arrived: credential.clone(), replaced })
    });
    let written = newest_revision_written(inputs, &secrets);
    let can_arrive = |one: &Credential| one.state != CredentialState::Pending || one.revision > written;
    let (live, dropped): (Vec<_>, Vec<_>) = live.into_iter().partition(can_arrive);
    let was_written = |one: &Credential| {
        let records = secrets.iter().filter_map(|secret| secret.record.as_ref());
        records
            .filter(|record| record.is_of(inputs.uid()))
            .any(|record| record.ledger.live.iter().any(|old| old.id == one.id))
    };
    let lost = dropped.into_iter().filter(|one| was_written(one) && !is_there(one)).collect();
    (live, promotion, lost)
}

/// Counts the mints whose tokens did not arrive as unplanned.
pub(super) fn count_lost_mints(inputs: &mut Inputs<'_>, lost: &[Credential]) {
    for mint in lost.iter().map(|credential| credential.issued_at) {
        if !inputs.base.unplanned_mints.contains(&mint) {
            let mut mints = recent(&inputs.base.unplanned_mints, inputs.now);
            mints.push(mint);
            inputs.base.unplanned_mints = mints;
        }
    }
}

/// Returns the newest revision that the annotations of our Secrets record. A pending token of this revision or an older one can no
/// longer be written.
fn newest_revision_written(inputs: &Inputs<'_>, secrets: &[&SecretView]) -> i64 {
    secrets
        .iter()
        .filter_map(|secret| secret.record.as_ref())
        .filter(|record| record.is_of(inputs.uid()))
        .map(|record| record.ledger.revision)
        // A revision that the status never reached cannot have been written: the annotation is forged.
        .filter(|revision| *revision <= inputs.base.revision.unwrap_or_default())
        .max()
        .unwrap_or(0)
}

/// Returns when a live credential ends.
///
/// Only the end of the whole token shortens a grace period. A rotated credential lives for two intervals, so that the operator may be
/// down for one. A change of `spec.rotation` never moves the end closer than one grace period from now.
fn deadline(intent: &Intent, credential: &Credential, now: Time) -> Option<Time> {
    if credential.remote.is_some() {
        // Its issuer has fixed it.
        return credential.expires_at;
    }
    let token_end = intent.terms.end();
    let own_end = if credential.state == CredentialState::Grace {
        credential.expires_at
    } else {
        let by_rotation = intent.rotation.map(|interval| missed_rotation_end(credential.issued_at, interval));
        let floor = now.plus(intent.grace).ceil_second();
        match (by_rotation, credential.expires_at) {
            (Some(end), Some(present)) if end < present => Some(end.max(present.min(floor))),
            (Some(end), None) => Some(end.max(floor)),
            (end, _) => end,
        }
    };
    own_end.into_iter().chain(token_end).min()
}

/// Returns when a credential ends if it is never rotated.
fn missed_rotation_end(issued_at: Time, interval: SignedDuration) -> Time {
    issued_at.plus(interval.saturating_mul(2)).ceil_second()
}

/// Moves the active credential to its grace period, which never extends its life. A one-time token that has not reached its holder ends
/// without a grace period.
pub(super) fn retire_active(inputs: &Inputs<'_>, live: &mut Vec<Credential>) -> Option<Credential> {
    if delivery::active_is_undelivered(inputs, live) {
        live.retain(|credential| credential.state != CredentialState::Active);
        return None;
    }
    let active = live.iter_mut().find(|credential| credential.state == CredentialState::Active)?;
    let end = inputs.now.plus(inputs.intent.grace).ceil_second();
    active.state = CredentialState::Grace;
    active.expires_at = Some(active.expires_at.map_or(end, |own| own.min(end)));
    Some(active.clone())
}

/// Returns the pending credential of a held token.
pub(super) fn credential(inputs: &Inputs<'_>, held: &HeldCredential, revision: i64) -> Credential {
    let intent = &inputs.intent;
    let by_rotation = intent.rotation.map(|interval| missed_rotation_end(held.issued_at, interval));
    let remote = inputs.remote_intent();
    Credential {
        id: Parsed::Value(held.id),
        revision,
        sha256: held.hash.map_or_else(|| Parsed::Text("".into()), Parsed::Value),
        state: CredentialState::Pending,
        issued_at: held.issued_at,
        expires_at: match remote {
            Some(remote) => remote.end(held.issued_at, intent.rotation, intent.terms.end()),
            None => by_rotation.into_iter().chain(intent.terms.end()).min(),
        },
        remote: remote.map(|remote| Box::new(remote.record(inputs.uid(), revision, held.id.as_str()))),
    }
}

/// Whether the hash of a held token is in the status, but the token is not yet in the Secret.
pub(super) fn is_pending(live: &[Credential], held: &HeldCredential) -> bool {
    live.iter().any(|credential| credential.state == CredentialState::Pending && credential.id == held.id)
}

/// Returns when the active credential is due for replacement; `None` if it will not be replaced.
///
/// A token of another system is replaced when half of its life there is over, if that is earlier, and when its parameters change.
pub(super) fn rotation_due(uid: &str, intent: &Intent, active: &Credential) -> Option<Time> {
    let by_interval = intent
        .rotation
        .map(|interval| active.issued_at.plus(interval - jitter(uid, active.revision, interval)).floor_second());
    let on_request = intent.rotate_if_issued_before.filter(|line| active.issued_at < *line);
    let remote = active.remote.as_deref();
    let half_life = active.expires_at.filter(|_| remote.is_some() && intent.rotation.is_some());
    let half_life = half_life.map(|end| active.issued_at.plus(end.since(active.issued_at) / 2).floor_second());
    let is_outdated =
        |remote: &RemoteFacts| intent.remote_parameters.as_ref().is_some_and(|now| *now != remote.parameters);
    by_interval
        .into_iter()
        .chain(on_request)
        .chain(half_life)
        .chain(remote.filter(|remote| is_outdated(remote)).map(|_| active.issued_at))
        .min()
        // A rotation does not extend the token, so there is none at or after its end.
        .filter(|due| intent.terms.end().is_none_or(|end| *due < end))
}

/// Returns how early a rotation happens: stable for each credential, and spread evenly over many.
pub(super) fn jitter(uid: &str, revision: i64, interval: SignedDuration) -> SignedDuration {
    let max = (interval / JITTER_SHARE).min(MAX_JITTER);
    let share = stable_number(uid, revision, 1 << 32);
    let micros = (max.as_micros() * i128::from(share)) >> 32;
    SignedDuration::from_micros(i64::try_from(micros).unwrap_or(0))
}

/// Returns a number less than `below` that depends only on the object and a counter.
fn stable_number(uid: &str, counter: i64, below: u64) -> u64 {
    let digest = Sha256::new().chain_update(uid).chain_update(counter.to_be_bytes()).finalize();
    let bytes: [u8; 8] = digest[..8].try_into().expect("SHA-256 has 32 bytes");
    u64::from_be_bytes(bytes) % below
}

/// Returns when a conflict over a Secret is checked again: after 1 to 10 minutes.
pub(super) fn conflict_retry(uid: &str, now: Time) -> Time {
    let minute = now.as_micros().div_euclid(60_000_000);
    let seconds = 60 + stable_number(uid, minute, 540);
    now.plus(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(600)))
}

/// Returns the unplanned mints within [`BREAKER_WINDOW`], oldest first.
pub(super) fn recent(mints: &[Time], now: Time) -> Vec<Time> {
    let mut recent: Vec<_> = mints.iter().copied().filter(|mint| now.since(*mint) < BREAKER_WINDOW).collect();
    recent.sort_unstable();
    recent
}

/// Returns the end that no rotation postpones, and when to start warning of it. `is_blocked`: no token can be issued for now.
pub(super) fn warning(
    intent: &Intent,
    status: &PersonalAccessTokenStatus,
    active: &Credential,
    is_blocked: bool,
) -> Option<(Time, Time)> {
    let end = final_end(intent, active, is_blocked)?;
    let is_own_end = is_blocked && intent.terms.end() != Some(end);
    let start = status.first_issued_at.filter(|_| !is_own_end).unwrap_or(active.issued_at);
    Some((end, warning_from(start, end)))
}

/// Moves unplanned mints that lie in the future to now, because a clock was ahead when they were recorded. Otherwise they would count for
/// longer than [`BREAKER_WINDOW`].
pub(super) fn correct_unplanned_mints(base: &mut PersonalAccessTokenStatus, now: Time) {
    base.unplanned_mints.iter_mut().filter(|mint| lies_in_the_future(**mint, now)).for_each(|mint| *mint = now);
}

/// Returns the live credential that `spec.revokeIfIssuedBefore` spares although it takes effect, because the credential was issued by a clock
/// that was ahead: its issue lies in the future.
pub(super) fn spared_by_clock<'c>(
    intent: &Intent,
    mut live: impl Iterator<Item = &'c Credential>,
    now: Time,
) -> Option<&'c Credential> {
    let line = intent.revoke_if_issued_before.filter(|line| *line <= now)?;
    live.find(|one| one.issued_at >= line && lies_in_the_future(one.issued_at, now))
}

fn lies_in_the_future(time: Time, now: Time) -> bool {
    time.since(now) > FUTURE_TOLERANCE
}

/// Returns when to start warning of an end.
fn warning_from(start: Time, end: Time) -> Time {
    let share = (end.since(start) / WARNING_SHARE).max(SignedDuration::ZERO);
    end.minus(share.min(MAX_WARNING)).floor_second()
}

/// Returns the end that no rotation postpones: that of the whole token or, without further rotations, that of the active
/// credential.
fn final_end(intent: &Intent, active: &Credential, is_blocked: bool) -> Option<Time> {
    let rotates = intent.rotation.is_some() && !intent.suspended && intent.layout.is_ok() && !is_blocked;
    let own = if rotates { None } else { active.expires_at };
    own.into_iter().chain(intent.terms.end()).min()
}

/// Returns the next time at which the plan can change without an event.
pub(super) fn next_wake(
    inputs: &Inputs<'_>,
    status: &PersonalAccessTokenStatus,
    is_blocked: bool,
    blocked_until: Option<Time>,
) -> Option<Time> {
    let intent = &inputs.intent;
    let active = status.live().find(|credential| credential.state == CredentialState::Active);
    let rotation = active.filter(|_| !intent.suspended).and_then(|active| rotation_due(inputs.uid(), intent, active));
    let revocation =
        intent.revoke_if_issued_before.filter(|line| status.live().any(|credential| credential.issued_at < *line));
    let warning = active.and_then(|active| warning(intent, status, active, is_blocked)).map(|(_, from)| from);
    let undone = inputs.observed.repairs.filter(|repairs| repairs.undone(inputs.now).is_some()).map(Repairs::ends_at);
    let retries = inputs.observed.refusals.iter().map(|refusal| refusal.retry_at);
    let calls = inputs.observed.calls;
    let retries = retries.chain(calls.failed.iter().chain(&calls.failed_deletion).map(|failed| failed.retry_at));
    let unwanted = remote::unwanted_until(inputs);
    // A one-time token is issued again only on request.
    let last = status.last_issued_at.unwrap_or(Time::MIN);
    let requests = [intent.rotate_if_issued_before, intent.revoke_if_issued_before];
    let requests = requests.into_iter().flatten().filter(|line| intent.once && last < *line);
    // This includes a token that was taken, because its receipt may never be acknowledged.
    let delivery_end = active.filter(|_| intent.once).map(|active| delivery::closes_at(active.issued_at));
    let ends = status.live().filter_map(|credential| credential.expires_at);
    let spared = spared_by_clock(intent, status.live(), inputs.now).map(|spared| spared.issued_at);
    // Times that have passed are left out, so an overdue rotation waits only for `blocked_until`.
    ends.chain(intent.terms.end())
        .chain(rotation)
        .chain(revocation)
        .chain(warning)
        .chain(retries)
        .chain(blocked_until)
        .chain(requests)
        .chain(delivery_end)
        .chain(undone)
        .chain(spared)
        .chain(unwanted)
        .chain(remote::release_at(inputs))
        .filter(|time| *time > inputs.now)
        .min()
}
