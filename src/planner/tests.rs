//! Random histories of the planner, with real tokens, real rendering and injected faults. The simulator performs them, and each is checked
//! for broken invariants.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::{Deref, DerefMut},
};

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::SignedDuration,
};
use proptest::{collection::vec, prelude::*, test_runner::RngSeed};
use rand::SeedableRng;
use serde_json::json;

use super::{
    intent::{Intent, secret_name},
    observed::*,
    simulate::{self, SimulatedToken, Simulator},
    *,
};
use crate::{
    api::{
        ConditionType, Credential, CredentialState, DeliveryState, MAX_LIVE_CREDENTIALS, PersonalAccessTokenSpec,
        StoredPat,
    },
    auth::verdict::{Terms, Verdict},
    token::{Token, TokenHash},
};

const START: i64 = 1_800_000_000;

pub(super) fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// A PAT with this spec that no controller has seen yet. Its tokens are the same in each run.
pub(super) fn simulator(spec: serde_json::Value) -> Simulator {
    let pat = json!({
        "metadata": {"name": "t", "namespace": "ns", "uid": "uid-1", "resourceVersion": "1", "generation": 1},
        "spec": spec,
    });
    let pat = serde_json::from_value(pat).unwrap();
    let now = Time::from_micros(START * 1_000_000);
    let mut rng = rand::rngs::ChaCha8Rng::seed_from_u64(7);
    let mint = Box::new(move |prefix: &_| Token::mint_with(&mut rng, prefix));
    Simulator::new(pat, ControllerConfig::default(), now, mint)
}

/// A simulation, the faults in it, and what the checks remember.
struct World {
    simulator: Simulator,
    /// The token that the operator held when it was interrupted.
    interrupted: Option<SimulatedToken>,
    // The state of the checks.
    minted: BTreeMap<TokenHash, String>,
    retired: HashSet<String>,
    ever_bad: HashSet<String>,
    repair_mints: Vec<Time>,
    writes: usize,
    /// What another client does to the Secret after each write.
    undo: Option<Change>,
    /// The Secret to which the API server refuses each write.
    refused: Option<&'static str>,
    events: Vec<EventToPublish>,
    /// Writes that a paused process can still send.
    late: Vec<LateWrite>,
    /// Secrets that a paused process created. A create carries no version, so only the next reconcile repairs them.
    created_late: HashSet<String>,
    /// The tokens that were taken by deleting the Secret, with `delivery: Once`.
    taken: HashSet<String>,
    /// The tokens that a program took for a client and has not acknowledged yet.
    in_flight: HashSet<String>,
    /// The tokens in Secrets that were deleted before the status said that they wait: the client that deleted one may have read it.
    deleted_early: HashSet<String>,
    /// When the newest token that could be taken was issued; `None` again once `spec.revoked` has been recorded.
    offered: Option<Time>,
}

enum LateWrite {
    /// It has read the PAT, and reads the Secret next.
    Reading(Box<StoredPat>, Option<SimulatedToken>),
    Status(u64, Box<PersonalAccessTokenStatus>),
    Secret(String, Option<(String, u64)>, Box<Secret>),
}

impl Deref for World {
    type Target = Simulator;

    fn deref(&self) -> &Simulator {
        &self.simulator
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Simulator {
        &mut self.simulator
    }
}

impl World {
    fn new(spec: serde_json::Value) -> Self {
        Self {
            simulator: simulator(spec),
            interrupted: None,
            minted: BTreeMap::new(),
            retired: HashSet::new(),
            ever_bad: HashSet::new(),
            repair_mints: Vec::new(),
            writes: 0,
            undo: None,
            refused: None,
            events: Vec::new(),
            late: Vec::new(),
            created_late: HashSet::new(),
            taken: HashSet::new(),
            in_flight: HashSet::new(),
            deleted_early: HashSet::new(),
            offered: None,
        }
    }

    fn once(&self) -> bool {
        let secret = self.pat.spec.as_ref().unwrap().secret.as_ref();
        secret.is_some_and(|secret| secret.delivery.is_some())
    }

    fn active(&self) -> Option<&Credential> {
        self.status().credentials.iter().find(|credential| credential.state == CredentialState::Active)
    }

    /// A holder takes the token, as the REST server does: only the active one, by deleting the Secret.
    fn take(&mut self) -> bool {
        let name = self.secret_name();
        let waiting = self.status().delivery == Some(DeliveryState::Waiting);
        let Some(active) = self.active().filter(|_| waiting).map(|active| active.sha256.to_string()) else {
            return false;
        };
        if self.token(&name).is_none_or(|token| hash(token.as_bytes()).to_string() != active) {
            return false;
        }
        self.secrets.remove(&name);
        self.note_taken();
        true
    }

    /// Records that the active token was taken out of its Secret.
    fn note_taken(&mut self) {
        let Some(active) = self.active() else { return };
        let for_another = self.pat.unacknowledged.as_deref() == Some(active.id.as_str());
        let sha256 = active.sha256.to_string();
        if for_another {
            self.in_flight.insert(sha256)
        } else {
            self.taken.insert(sha256)
        };
    }

    fn annotate(&mut self, unacknowledged: Option<Box<str>>) {
        let version = self.next_version();
        self.pat.metadata.resource_version = Some(version);
        self.pat.unacknowledged = unacknowledged;
    }

    /// A program that has read the Secret announces that it takes the token for a client.
    fn announce(&mut self) {
        let waiting =
            self.status().delivery == Some(DeliveryState::Waiting) && self.token(&self.secret_name()).is_some();
        if let Some(id) = self.active().filter(|_| waiting).map(|active| active.id.as_str().into()) {
            self.annotate(Some(id));
        }
    }

    /// The program acknowledges that the client has received the token.
    fn acknowledge(&mut self) {
        let Some(id) = self.pat.unacknowledged.take() else { return };
        self.annotate(None);
        let named = self.status().credentials.iter().find(|credential| credential.id.as_str() == &*id);
        let arrived = named.map(|credential| credential.sha256.to_string());
        self.taken.extend(arrived.filter(|sha256| self.in_flight.remove(sha256)));
    }

    fn spec(&mut self) -> &mut PersonalAccessTokenSpec {
        let version = self.next_version();
        self.pat.metadata.resource_version = Some(version);
        *self.pat.metadata.generation.as_mut().unwrap() += 1;
        self.pat.spec.as_mut().unwrap()
    }

    fn status(&self) -> &PersonalAccessTokenStatus {
        self.pat.status.as_ref().unwrap()
    }

    fn condition(&self, type_: ConditionType) -> Option<(String, String)> {
        let condition = self.status().conditions.iter().find(|condition| condition.type_ == type_.as_str())?;
        Some((condition.status.to_string(), condition.reason.to_string()))
    }

    fn ready(&self) -> (String, String) {
        self.condition(ConditionType::Ready).expect("Ready is always there")
    }

    fn secret_name(&self) -> String {
        secret_name(&self.pat, self.pat.spec.as_ref().unwrap()).to_owned()
    }

    fn token(&self, name: &str) -> Option<String> {
        let key = self.pat.spec.as_ref().unwrap().secret.as_ref().and_then(|secret| secret.key.clone());
        let value = self.secrets.get(name)?.data.as_ref()?.get(key.as_deref().unwrap_or("token"))?;
        Some(String::from_utf8(value.0.clone()).unwrap())
    }

    fn advance(&mut self, by: SignedDuration) {
        self.now = self.now.plus(by);
        self.note_the_bad();
    }

    /// Records every credential that has expired or was revoked, whether or not the status shows it.
    fn note_the_bad(&mut self) {
        let spec = self.pat.spec.as_ref().unwrap();
        let terms = Terms::read(spec, self.status(), false).unwrap();
        let now = self.now;
        let bad = self.status().credentials.iter().filter(|credential| !terms.judge(credential, now).is_valid());
        let bad: Vec<_> = bad.map(|credential| credential.sha256.to_string()).collect();
        self.ever_bad.extend(bad);
    }

    fn restart(&mut self) {
        self.held = None;
        self.refusals.clear();
        self.repairs = None;
    }

    /// Mints a token into memory. No two are minted at the same instant.
    fn mint(&mut self, step: Step) {
        self.advance(SignedDuration::from_micros(1));
        self.perform(step).unwrap();
        let token = &self.held.as_ref().unwrap().token;
        let (hash, text) = (token.hash(), token.expose().to_owned());
        self.minted.insert(hash, text);
    }

    /// Runs the operator until it rests, or until it has made `limit` writes and crashes.
    fn settle(&mut self, limit: usize) -> Option<Time> {
        self.begin_reconcile();
        let until = self.writes + limit;
        for _ in 0..if self.undo.is_some() { 80 } else { 40 } {
            let plan = self.next_plan();
            match plan.step {
                Step::Rest => {
                    if self.refusals.iter().all(|refusal| refusal.retry_at <= self.now) {
                        self.created_late.clear();
                    }
                    return plan.wake_at;
                }
                Step::Mint(_) => self.mint(plan.step),
                Step::DryRun(write) | Step::WriteSecret(write) if self.refused == Some(write.name.as_str()) => {
                    self.refuse_write(&write.name);
                }
                step @ (Step::ReadUncached | Step::DryRun(_)) => {
                    self.perform(step).unwrap();
                }
                _ if self.writes == until => {
                    self.interrupted = self.held.take();
                    self.restart();
                    return None;
                }
                Step::WriteStatus(status) => {
                    self.events.extend(plan.events);
                    self.write_status(*status);
                }
                Step::WriteSecret(write) => {
                    self.events.extend(plan.events);
                    self.write_secret(write);
                }
                Step::DeleteSecret(target) => {
                    self.writes += 1;
                    self.events.extend(plan.events);
                    assert_eq!(
                        self.secrets[&target.name].metadata.resource_version.as_ref(),
                        Some(&target.resource_version)
                    );
                    self.perform(Step::DeleteSecret(target)).unwrap();
                }
                step => unreachable!("no token is of another system: {step:?}"),
            }
            self.check();
            self.events.clear();
        }
        panic!("no rest: {:?}", self.plan().step);
    }

    /// Runs the operator until nothing is due within `max_wait`.
    fn converge(&mut self, max_wait: SignedDuration) {
        let end = self.now.plus(max_wait);
        for _ in 0..100 {
            match self.settle(usize::MAX >> 1) {
                Some(wake) if wake <= end => {
                    let wait = wake.since(self.now);
                    self.advance(wait);
                }
                _ => return,
            }
        }
        panic!("still busy after 100 wake-ups: {:#?}", self.status());
    }

    fn write_status(&mut self, status: PersonalAccessTokenStatus) {
        self.writes += 1;
        let before: Vec<_> = self.status().credentials.clone();
        for old in &before {
            let new = status.credentials.iter().find(|new| new.id == old.id);
            if new.is_none() {
                self.retired.insert(old.sha256.to_string());
            }
            // Invariant 2: a token is replaced only by one that is in the Secret, and keeps its grace period.
            if old.state == CredentialState::Active && new.is_some_and(|new| new.state == CredentialState::Grace) {
                let active =
                    status.credentials.iter().find(|new| new.state == CredentialState::Active).expect("a successor");
                let placed = self.secrets.values().any(|secret| {
                    let view = SecretView::of(secret.clone());
                    view.key_of(&active.sha256, "token").is_some()
                });
                assert!(placed, "{} retired before {} was in the Secret", old.id, active.id);
                let grace = Intent::read(&self.pat, self.pat.spec.as_ref().unwrap(), &status).unwrap();
                let promised = [Some(self.now.plus(grace.grace)), old.expires_at, grace.terms.end()];
                let promised = promised.into_iter().flatten().min();
                assert!(
                    new.unwrap().expires_at >= promised,
                    "grace cut short: {:?} < {promised:?}",
                    new.unwrap().expires_at
                );
            }
        }
        // The planner moves mints that lie in the future to now, which can be when the new token was minted.
        let mut known = self.status().clone();
        lifecycle::correct_unplanned_mints(&mut known, self.now);
        let known = known.unplanned_mints;
        let at = |mints: &[Time], time: Time| mints.iter().filter(|mint| **mint == time).count();
        for new in &status.credentials {
            assert!(!self.retired.contains(&new.sha256.to_string()), "{} was retired and is live again", new.id);
            if !before.iter().any(|old| old.id == new.id)
                && at(&status.unplanned_mints, new.issued_at) > at(&known, new.issued_at)
            {
                self.repair_mints.push(new.issued_at);
            }
        }
        if self.once() {
            self.check_issue(&before, &status);
        }
        self.perform(Step::WriteStatus(Box::new(status))).unwrap();
        self.note_the_bad();
    }

    /// A one-time token is issued only if none could be taken yet, or on request.
    fn check_issue(&mut self, before: &[Credential], status: &PersonalAccessTokenStatus) {
        let spec = self.pat.spec.as_ref().unwrap();
        let new = status.credentials.iter().any(|new| !before.iter().any(|old| old.id == new.id));
        if let (Some(last), true) = (self.offered, new) {
            let lines = [spec.rotate_if_issued_before, spec.revoke_if_issued_before];
            let asked = lines.into_iter().flatten().any(|line| last < line && line <= self.now);
            assert!(asked, "a second token without a request: {status:#?}");
        }
        if spec.revoked == Some(true) {
            self.offered = None;
        }
        if let Some(active) = status.credentials.iter().find(|new| new.state == CredentialState::Active) {
            self.offered = Some(active.issued_at);
        }
    }

    fn write_secret(&mut self, write: Box<SecretWrite>) {
        self.writes += 1;
        match (&write.base, self.secrets.get(&write.name).cloned().map(SecretView::of)) {
            (None, None) => {}
            (Some(base), Some(view)) => {
                assert_eq!(view.resource_version, base.resource_version);
                let known = self.minted.keys().any(|hash| view.data.iter().any(|(_, value)| value == hash));
                assert!(view.is_controlled_by("uid-1") || known, "a foreign Secret was touched");
            }
            // The watch does not show the Secret. The API server answers that it exists, and the operator reads from the API server.
            (None, Some(view)) if !view.is_labelled() => {}
            _ => panic!("the plan was made for another Secret"),
        }
        let before = self.secrets.get(&write.name).cloned();
        let name = write.name.clone();
        self.perform(Step::WriteSecret(write)).unwrap();
        let is_frozen = before.as_ref().is_some_and(|before| before.immutable == Some(true));
        if is_frozen && self.secrets.get(&name) == before.as_ref() {
            self.writes -= 1;
            return;
        }
        if let Some(undo) = self.undo {
            self.tamper(|secret| undo(secret, None));
        }
    }

    /// The API server refuses a write to this Secret.
    fn refuse_write(&mut self, secret: &str) {
        let (kind, message, retry_at) = (WriteRefusalKind::Other, "exceeded quota".into(), self.now.plus(seconds(30)));
        self.refuse(secret, Some(WriteRefusal { secret: secret.to_owned(), kind, message, retry_at }));
    }

    /// The operator runs for this many days, and looks once a day.
    fn run_for_days(&mut self, days: usize) {
        for _ in 0..days {
            self.advance(seconds(86_400 - 10));
            self.run_for(seconds(10));
        }
    }

    /// Ends everything that keeps the operator from coming to rest.
    fn remove_obstacles(&mut self) {
        (self.undo, self.admission, self.repairs) = (None, None, None);
        self.refusals.clear();
    }

    /// The operator runs while this time passes.
    fn run_for(&mut self, time: SignedDuration) {
        let end = self.now.plus(time);
        for _ in 0..60 {
            match self.settle(usize::MAX >> 1) {
                Some(wake) if wake <= end => self.advance(wake.since(self.now)),
                _ => break,
            }
        }
        if self.now < end {
            self.advance(end.since(self.now));
        }
    }

    /// The status is lost. Information that only the status had is lost too, so the checks of retired tokens start again.
    fn lose_status(&mut self) {
        let version = self.next_version();
        self.pat.metadata.resource_version = Some(version);
        let lost = std::mem::take(self.pat.status.as_mut().unwrap());
        self.ever_bad.extend(lost.credentials.into_iter().map(|credential| credential.sha256.to_string()));
        self.retired.clear();
        self.repair_mints.clear();
        self.offered = None;
        self.late.clear();
        self.restart();
    }

    /// Another writer edits the Secret.
    fn tamper(&mut self, edit: impl FnOnce(&mut Secret)) {
        let name = self.secret_name();
        let version = self.next_version();
        if let Some(secret) = self.secrets.get_mut(&name).filter(|_| name != "foreign") {
            let before = secret.clone();
            edit(secret);
            secret.metadata.resource_version = Some(version);
            if before.immutable == Some(true) {
                (secret.immutable, secret.data) = (before.immutable, before.data);
            }
        }
    }

    /// A process pauses before its next write, which it may still send.
    fn pause_before_next_write(&mut self) {
        self.begin_reconcile();
        for _ in 0..8 {
            let plan = self.plan();
            match plan.step {
                step @ (Step::ReadUncached | Step::DryRun(_)) => {
                    self.perform(step).unwrap();
                }
                Step::Mint(_) => self.mint(plan.step),
                Step::WriteStatus(status) => {
                    let version = self.pat.resource_version().parse().unwrap();
                    self.late.push(LateWrite::Status(version, status));
                    break;
                }
                Step::WriteSecret(write) => {
                    let base =
                        write.base.as_ref().map(|base| (base.uid.clone(), base.resource_version.parse().unwrap()));
                    let secret = self.secret_after(&write).unwrap();
                    self.late.push(LateWrite::Secret(write.name, base, Box::new(secret)));
                    break;
                }
                Step::Rest | Step::DeleteSecret(_) => break,
                step => unreachable!("no token is of another system: {step:?}"),
            }
        }
        self.restart();
    }

    /// Pauses the operator after this many writes, when it has read the PAT but not yet the Secret.
    fn pause_while_reading(&mut self, writes: usize) {
        self.interrupted = None;
        self.settle(writes);
        let held = self.interrupted.take();
        self.late.push(LateWrite::Reading(Box::new(self.pat.clone()), held));
    }

    /// Resumes it with the PAT that it has read and with the current Secret.
    fn read_on(&mut self, pat: StoredPat, held: Option<SimulatedToken>) {
        let present = std::mem::replace(&mut self.pat, pat);
        let in_work = std::mem::replace(&mut self.held, held);
        let refusals = std::mem::take(&mut self.refusals);
        self.begin_reconcile();
        let mut status = None;
        for _ in 0..8 {
            let plan = self.plan();
            match plan.step {
                Step::DryRun(_) => {
                    self.perform(plan.step).unwrap();
                }
                Step::Mint(_) => {
                    self.now = self.now.plus(SignedDuration::from_micros(1));
                    self.perform(plan.step).unwrap();
                    let token = &self.held.as_ref().unwrap().token;
                    let (hash, text) = (token.hash(), token.expose().to_owned());
                    self.minted.insert(hash, text);
                }
                Step::WriteStatus(next) => {
                    status = (self.pat.resource_version() == present.resource_version()).then_some(next);
                    break;
                }
                Step::WriteSecret(write) => {
                    let there = self.secrets.get(&write.name);
                    let version = there.and_then(|secret| secret.metadata.resource_version.as_ref());
                    if write.base.as_ref().map(|base| &base.resource_version) == version {
                        let is_new = there.is_none();
                        self.created_late.extend(is_new.then(|| write.name.clone()));
                        self.perform(Step::WriteSecret(write)).unwrap();
                    }
                    break;
                }
                Step::ReadUncached | Step::Rest | Step::DeleteSecret(_) => break,
                step => unreachable!("no token is of another system: {step:?}"),
            }
        }
        (self.pat, self.held, self.refusals) = (present, in_work, refusals);
        if let Some(status) = status {
            self.write_status(*status);
        }
    }

    /// Resumes the paused process: the API server accepts or rejects its writes.
    fn let_go(&mut self) {
        for write in std::mem::take(&mut self.late) {
            match write {
                LateWrite::Reading(pat, held) => self.read_on(*pat, held),
                LateWrite::Status(version, status) => {
                    if self.pat.resource_version() == version.to_string() {
                        self.write_status(*status);
                    }
                }
                LateWrite::Secret(name, base, mut secret) => {
                    let there = self.secrets.get(&name).map(|secret| {
                        (secret.metadata.uid.clone().unwrap(), secret.metadata.resource_version.clone().unwrap())
                    });
                    let fits = match (&base, &there) {
                        (None, None) => true,
                        (Some((uid, version)), Some(there)) => *uid == there.0 && version.to_string() == there.1,
                        _ => false,
                    };
                    if fits {
                        let version = self.next_version();
                        let is_frozen = |there: &Secret| there.immutable == Some(true) && there.data != secret.data;
                        if self.secrets.get(&name).is_some_and(is_frozen) {
                            continue;
                        }
                        secret.metadata.resource_version = Some(version);
                        self.created_late.extend(there.is_none().then(|| name.clone()));
                        self.secrets.insert(name, *secret);
                    }
                }
            }
        }
    }

    /// The invariants that hold at every moment.
    fn check(&self) {
        let spec = self.pat.spec.as_ref().unwrap();
        let status = self.status();
        let terms = Terms::read(spec, status, false).unwrap();
        // 1: a token in our Secret is accepted, unless it has expired or was revoked.
        for secret in self.secrets.values() {
            let view = SecretView::of(secret.clone());
            if !view.is_controlled_by("uid-1") {
                continue;
            }
            let key = spec.secret.as_ref().and_then(|secret| secret.key.as_deref()).unwrap_or("token");
            let Some(hash) = view.data.get(key).filter(|hash| self.minted.contains_key(hash)) else { continue };
            let sha256 = hash.to_string();
            let accepted = status.credentials.iter().any(|credential| {
                credential.sha256.to_string() == sha256 && terms.judge(credential, self.now).is_valid()
            });
            // A token that was abandoned before it was accepted must never be in a Secret. A one-time token that can no
            // longer be taken need not be accepted: it is about to be removed.
            let offered = !self.once() || status.delivery == Some(DeliveryState::Waiting);
            let ended = !offered
                || self.ever_bad.contains(&sha256)
                || self.created_late.contains(&*view.name)
                || terms.expired(self.now);
            assert!(accepted || ended, "the token in Secret {} is not accepted: {status:#?}", view.name);
        }
        // A token that was taken stays valid for its whole time.
        for sha256 in self.taken.difference(&self.ever_bad) {
            let credential = status.credentials.iter().find(|credential| credential.sha256.to_string() == *sha256);
            let good = credential.is_some_and(|credential| terms.judge(credential, self.now).is_valid());
            assert!(good || terms.expired(self.now), "a taken token no longer works: {status:#?}");
        }
        // 6: no plain token outside the Secret.
        let mut shown = serde_json::to_string(status).unwrap();
        for event in &self.events {
            shown += &event.note;
        }
        for secret in self.secrets.values() {
            shown += &serde_json::to_string(&secret.metadata).unwrap();
        }
        assert!(!holds_a_token(&shown), "{shown}");
        // 7: the breaker, and the bound on live credentials.
        let within_hour = |mint: &Time| {
            self.repair_mints.iter().filter(|other| **other >= *mint && other.since(*mint) < BREAKER_WINDOW).count()
        };
        assert!(self.repair_mints.iter().all(|mint| within_hour(mint) <= BREAKER_MINTS), "{:?}", self.repair_mints);
        assert!(status.credentials.len() <= MAX_LIVE_CREDENTIALS);
        let actives =
            status.credentials.iter().filter(|credential| credential.state == CredentialState::Active).count();
        assert!(actives <= 1);
        let ids: BTreeSet<_> = status.credentials.iter().map(|credential| &credential.id).collect();
        assert_eq!(ids.len(), status.credentials.len(), "{status:#?}");
        let revisions: Vec<_> = status.credentials.iter().map(|credential| credential.revision).collect();
        assert!(revisions.is_sorted_by(|a, b| a > b), "newest first: {revisions:?}");
    }

    /// The invariants that hold once the operator rests and nothing blocks it.
    fn check_at_rest(&mut self) {
        // 4: without a change nothing is written, not even after a restart. (With a token in memory it only waits.)
        if self.held.is_none() {
            let writes = self.writes;
            self.settle(usize::MAX >> 1);
            self.restart();
            self.settle(usize::MAX >> 1);
            assert_eq!(self.writes, writes, "a second look wrote something: {:#?}", self.status());
        }
        let status = self.status();
        let (ready, reason) = self.ready();
        let spec = self.pat.spec.as_ref().unwrap();
        let terms = Terms::read(spec, status, false).unwrap();
        let active = status.credentials.iter().find(|credential| credential.state == CredentialState::Active);
        let token = self.token(&self.secret_name());
        // A person must delete an immutable Secret. It can lack what the spec asks for.
        let is_refused = status.conditions.iter().any(|one| ["SecretImmutable", "ApiError"].contains(&&*one.reason));
        let is_frozen = is_refused && self.secrets.values().any(|secret| secret.immutable == Some(true));
        match ready.as_str() {
            "True" if status.delivery == Some(DeliveryState::Delivered) => {
                let sha256 = active.expect("a token that works").sha256.to_string();
                assert!([&self.taken, &self.in_flight, &self.deleted_early].iter().any(|held| held.contains(&sha256)));
            }
            "True" if is_frozen => {
                let active = active.expect("a token that works");
                assert_eq!(terms.judge(active, self.now), Verdict::Valid);
                let views: Vec<_> = self.secrets.values().cloned().map(SecretView::of).collect();
                let place = views.iter().find(|secret| secret.key_of(&active.sha256, "token").is_some());
                assert_eq!(place.map(|secret| &*secret.name), status.secret_name.as_deref());
            }
            "True" => {
                let active = active.expect("a token that works");
                assert_eq!(terms.judge(active, self.now), Verdict::Valid);
                let token = token.expect("it is in the Secret");
                assert_eq!(active.sha256, hash(token.as_bytes()));
            }
            "False" => assert!(
                ["Revoked", "Expired", "Suspended", "MintLoop", "TooManyLive", "SecretConflict", "NotDelivered"]
                    .contains(&reason.as_str())
                    || is_frozen && ["SecretImmutable", "ApiError"].contains(&reason.as_str()),
                "{reason}"
            ),
            other => panic!("Ready is {other} ({reason}) at rest"),
        }
        let over = ["Revoked", "Expired"].contains(&reason.as_str());
        if over && (!self.once() || spec.revoked == Some(true)) {
            assert!(status.credentials.is_empty());
            for secret in self.secrets.values().filter(|secret| secret.metadata.owner_references.is_some()) {
                let data = secret.data.clone().unwrap_or_default();
                assert!(
                    data.values().all(|value| !holds_a_token(&String::from_utf8_lossy(&value.0))),
                    "{}",
                    secret.metadata.name.clone().unwrap()
                );
            }
        }
        let is_live = |credential: &Credential| terms.judge(credential, self.now).is_valid();
        assert!(status.credentials.iter().all(is_live), "a credential that has ended is listed: {status:#?}");
        let others = self.secrets.values().cloned().map(SecretView::of);
        let others =
            others.filter(|secret| secret.is_controlled_by("uid-1") && *secret.name != *self.secret_name()).count();
        if ready == "True" && !is_frozen || ["Revoked", "Expired"].contains(&reason.as_str()) {
            assert_eq!(others, 0, "a former Secret was left behind");
        }
        if self.once() {
            self.check_delivery_at_rest();
        }
    }

    /// With `delivery: Once`: every live token was taken, or has been in the Secret or in flight for at most 10
    /// minutes.
    fn check_delivery_at_rest(&mut self) {
        let status = self.status().clone();
        let waiting = status.delivery == Some(DeliveryState::Waiting);
        let secret = self.secrets.get(&self.secret_name()).cloned().map(SecretView::of);
        for credential in &status.credentials {
            let holds_it = |secret: &SecretView| secret.key_of(&credential.sha256, "token").is_some();
            let in_secret = waiting && secret.as_ref().is_some_and(holds_it);
            // It is in flight to its holder, for at most 10 minutes.
            let in_flight = self.pat.unacknowledged.as_deref() == Some(credential.id.as_str())
                && self.in_flight.contains(&credential.sha256.to_string())
                && self.now < credential.issued_at.plus(DELIVERY_WINDOW);
            let sha256 = credential.sha256.to_string();
            let held = in_secret || in_flight || self.taken.contains(&sha256) || self.deleted_early.contains(&sha256);
            assert!(held, "no one holds it: {status:#?}");
        }
        if waiting {
            let active = self.active().expect("what waits is active");
            assert!(self.now < active.issued_at.plus(DELIVERY_WINDOW), "it waits too long: {status:#?}");
        } else if self.ready().1 != "MintLoop" {
            let ours = |secret: &SecretView| secret.is_controlled_by("uid-1") && secret.is_labelled();
            let left = self.secrets.values().cloned().map(SecretView::of).find(ours);
            assert!(left.is_none(), "a Secret stayed: {left:#?} {status:#?}");
            // A Secret that is no longer ours is read from the API server each time.
            let there = self.secrets.contains_key(&self.secret_name());
            self.begin_reconcile();
            let step = self.plan().step;
            assert!(there || matches!(step, Step::Rest), "it does not rest: {step:?}");
        }
    }
}

/// Whether a text contains a token. Every token here has the default prefix.
fn holds_a_token(text: &str) -> bool {
    text.match_indices("kpat_").any(|(at, _)| Token::parse(text[at..].get(..66).unwrap_or_default()).is_ok())
}

fn foreign(name: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            uid: Some("foreign-uid".into()),
            resource_version: Some("1".into()),
            ..Default::default()
        },
        data: Some(BTreeMap::from([("token".to_owned(), ByteString(b"theirs".to_vec()))])),
        ..Default::default()
    }
}

/// One event of a history.
#[derive(Clone, Debug)]
enum Happening {
    Wait(i64),
    ClockBack(i64),
    RotateNow,
    RotateAt(i64),
    RevokeNow,
    RevokeAt(i64),
    RevokeNth(usize),
    Revoked(bool),
    Suspend(bool),
    Rotation(Option<i64>),
    Grace(Option<i64>),
    ExpiryAt(i64),
    ExpiryAfter(i64),
    ExpiryNever,
    ExpiryNone,
    Key(u8),
    PreviousKey(Option<u8>),
    Label(u8),
    Rename(u8),
    Template(bool),
    DefaultLifetime(i64),
    DeleteSecret,
    EditToken,
    EditOther,
    StripLabel,
    StripOwner,
    Freeze,
    Take,
    Announce,
    Acknowledge,
    StatusLost,
    Restart,
    DieAfter(usize),
    PauseBeforeWrite,
    PauseWhileReading(usize),
    LetGo,
    Refuse,
    Reconcile,
    Outage(i64),
    Admission(Option<usize>),
    Undo(Option<usize>),
}

/// A change to a Secret before it is stored; the second one is the present Secret, if there is one.
type Change = fn(&mut Secret, Option<&Secret>);

/// Changes that defeat a write of a token: the Secret does not hold it.
const DEFEATS: [Change; 4] = [
    |secret, _| drop(secret.data.get_or_insert_default().remove("token")),
    |secret, _| secret.data.iter_mut().flatten().for_each(|(_, value)| value.0.push(b'\n')),
    |secret, _| drop(secret.data.get_or_insert_default().insert("token".into(), ByteString(b"junk".to_vec()))),
    |secret, present| secret.data = present.map_or_else(|| secret.data.clone(), |present| present.data.clone()),
];

/// Changes with which the Secret holds the token.
const OTHER_CHANGES: [Change; 5] = [
    |secret, _| drop(secret.data.get_or_insert_default().insert("added".into(), ByteString(b"x".to_vec()))),
    |secret, _| secret.metadata.labels = None,
    |secret, _| secret.metadata.annotations = None,
    |secret, _| secret.metadata.owner_references = None,
    |secret, present| {
        if let Some(present) = present {
            secret.metadata.annotations.clone_from(&present.metadata.annotations);
        }
    },
];

fn change(n: usize) -> Change {
    *DEFEATS.iter().chain(&OTHER_CHANGES).nth(n).expect("a change")
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let long = prop_oneof![1i64..120, 60i64..7_200, 3_600i64..400_000, 86_400i64..9_000_000];
    prop_oneof![
        8 => long.clone().prop_map(Wait),
        1 => (1i64..100_000).prop_map(ClockBack),
        3 => Just(RotateNow),
        1 => (1i64..10_000).prop_map(RotateAt),
        2 => Just(RevokeNow),
        1 => (1i64..10_000).prop_map(RevokeAt),
        2 => (0usize..3).prop_map(RevokeNth),
        2 => any::<bool>().prop_map(Revoked),
        2 => any::<bool>().prop_map(Suspend),
        3 => proptest::option::of(30i64..200_000).prop_map(Rotation),
        1 => proptest::option::of(10i64..100_000).prop_map(Grace),
        2 => (-1_000i64..1_000_000).prop_map(ExpiryAt),
        1 => (10i64..1_000_000).prop_map(ExpiryAfter),
        1 => Just(ExpiryNever),
        1 => Just(ExpiryNone),
        1 => (0u8..3).prop_map(Key),
        2 => proptest::option::of(0u8..3).prop_map(PreviousKey),
        1 => (0u8..3).prop_map(Label),
        2 => (0u8..4).prop_map(Rename),
        1 => any::<bool>().prop_map(Template),
        1 => (100i64..1_000_000).prop_map(DefaultLifetime),
        2 => Just(DeleteSecret),
        2 => Just(EditToken),
        1 => Just(EditOther),
        1 => Just(StripLabel),
        1 => Just(StripOwner),
        1 => Just(Freeze),
        1 => Just(StatusLost),
        2 => Just(Restart),
        6 => (0usize..4).prop_map(DieAfter),
        3 => Just(PauseBeforeWrite),
        3 => (0usize..4).prop_map(PauseWhileReading),
        3 => Just(LetGo),
        1 => Just(Refuse),
        10 => Just(Reconcile),
        2 => long.prop_map(Outage),
    ]
}

/// The same, and changes of the Secret on each write.
fn happening_with_changes() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => proptest::option::of(0usize..9).prop_map(Happening::Admission),
        2 => proptest::option::of(0usize..9).prop_map(Happening::Undo),
        80 => happening(),
    ]
}

/// The events that admission allows for a one-time token: no rotation, no other name, no key for the previous token.
fn happening_once() -> impl Strategy<Value = Happening> {
    let fits =
        |event: &Happening| !matches!(event, Happening::Rotation(_) | Happening::Rename(_) | Happening::PreviousKey(_));
    prop_oneof![
        6 => Just(Happening::Take),
        4 => Just(Happening::Announce),
        3 => Just(Happening::Acknowledge),
        2 => (1i64..700).prop_map(Happening::Wait),
        40 => happening().prop_filter("admitted", fits),
    ]
}

fn happen(world: &mut World, happening: &Happening) {
    if !edit_spec(world, happening) && !edit_secret(world, happening) {
        run_operator(world, happening);
    }
    world.note_the_bad();
    world.check();
}

/// A user edits the spec; `false` if the event is another one.
fn edit_spec(world: &mut World, happening: &Happening) -> bool {
    use Happening::*;
    let now = world.now;
    let later = |by: i64| now.plus(seconds(by));
    match happening {
        RotateNow => world.spec().rotate_if_issued_before = Some(now),
        RotateAt(by) => world.spec().rotate_if_issued_before = Some(later(*by)),
        RevokeNow => world.spec().revoke_if_issued_before = Some(now),
        RevokeAt(by) => world.spec().revoke_if_issued_before = Some(later(*by)),
        RevokeNth(nth) => {
            let id = world.status().credentials.get(*nth).map(|credential| credential.id.to_string());
            if let Some(id) = id {
                world.spec().revoked_credentials = vec![id];
            }
        }
        Revoked(on) => world.spec().revoked = Some(*on),
        Suspend(on) => world.spec().suspend = Some(*on),
        Rotation(interval) => {
            let rotation = interval.map(|interval| crate::api::Rotation { interval: length(interval) });
            let spec = world.spec();
            spec.rotation = rotation;
            spec.grace_period = None;
        }
        Grace(grace) => world.spec().grace_period = grace.map(length),
        ExpiryAt(by) => world.spec().expiry = Some(crate::api::Expiry { at: Some(later(*by)), ..Default::default() }),
        ExpiryAfter(after) => {
            world.spec().expiry = Some(crate::api::Expiry { after: Some(length(*after)), ..Default::default() });
        }
        ExpiryNever => world.spec().expiry = Some(crate::api::Expiry { never: Some(true), ..Default::default() }),
        ExpiryNone => world.spec().expiry = None,
        Key(_) | PreviousKey(_) | Label(_) | Rename(_) | Template(_) => edit_layout(world, happening),
        _ => return false,
    }
    true
}

/// A user edits `spec.secret`.
fn edit_layout(world: &mut World, happening: &Happening) {
    use Happening::*;
    let secret = world.spec().secret.get_or_insert_default();
    match happening {
        Key(n) => secret.key = Some(format!("key{n}")),
        PreviousKey(n) => secret.previous_key = n.map(|n| format!("previous{n}")),
        Label(n) => secret.labels = BTreeMap::from([(format!("label{n}"), "x".to_owned())]),
        Rename(0) => secret.name = Some("foreign".into()),
        Rename(n) => secret.name = Some(format!("name{n}")),
        Template(on) => {
            let text = "t={{ token }} until={{ expiresAt }}".to_owned();
            secret.template = on.then(|| crate::api::SecretTemplate {
                data: Some(BTreeMap::from([("config".to_owned(), text)])),
                ..Default::default()
            });
        }
        other => unreachable!("{other:?} is no edit of spec.secret"),
    }
}

/// Another client edits or deletes the Secret, or a holder takes the token; `false` if the event is another one.
fn edit_secret(world: &mut World, happening: &Happening) -> bool {
    use Happening::*;
    match happening {
        DeleteSecret => {
            let name = world.secret_name();
            if let Some(secret) = (name != "foreign").then(|| world.secrets.remove(&name)).flatten() {
                // Deleting a waiting Secret means that its token was taken.
                if world.status().delivery == Some(DeliveryState::Waiting) {
                    world.note_taken();
                }
                world.deleted_early.extend(SecretView::of(secret).data.iter().map(|(_, hash)| hash.to_string()));
            }
        }
        Take => {
            world.take();
        }
        Announce => world.announce(),
        Acknowledge => world.acknowledge(),
        EditToken => world.tamper(|secret| {
            if let Some(data) = &mut secret.data
                && secret.metadata.owner_references.is_some()
            {
                data.values_mut().for_each(|value| *value = ByteString(b"junk".to_vec()));
            }
        }),
        EditOther => world.tamper(|secret| {
            secret.data.get_or_insert_default().insert("added".into(), ByteString(b"x".to_vec()));
        }),
        StripLabel => world.tamper(|secret| secret.metadata.labels = None),
        StripOwner => world.tamper(|secret| secret.metadata.owner_references = None),
        Freeze => world.tamper(|secret| secret.immutable = Some(true)),
        // Only one of the two: the other client would change the Secret before the operator sees the answer to its write.
        Admission(n) => {
            world.undo = None;
            world.admission = n.map(|n| Box::new(change(n)) as simulate::Admission);
        }
        Undo(n) => {
            world.admission = None;
            world.undo = n.map(change);
        }
        _ => return false,
    }
    true
}

/// The operator runs, stops, pauses or loses its status, and time passes.
fn run_operator(world: &mut World, happening: &Happening) {
    use Happening::*;
    match happening {
        Wait(by) => world.run_for(seconds(*by)),
        Outage(by) => {
            world.restart();
            world.advance(seconds(*by));
        }
        ClockBack(by) => {
            world.now = world.now.minus(seconds(*by));
            // The time between two mints stays the same.
            world.repair_mints.iter_mut().for_each(|mint| *mint = mint.minus(seconds(*by)));
        }
        DefaultLifetime(lifetime) => world.config.default_lifetime = seconds(*lifetime),
        StatusLost => world.lose_status(),
        Restart => world.restart(),
        DieAfter(writes) => {
            world.settle(*writes);
            world.restart();
        }
        PauseBeforeWrite => world.pause_before_next_write(),
        PauseWhileReading(writes) => world.pause_while_reading(*writes),
        LetGo => world.let_go(),
        Refuse => {
            let secret = world.secret_name();
            world.refuse_write(&secret);
        }
        Reconcile => {
            world.settle(usize::MAX >> 1);
        }
        other => unreachable!("{other:?} is handled before"),
    }
}

fn length(seconds: i64) -> crate::api::LengthOfTime {
    crate::api::LengthOfTime(format!("{seconds}s"))
}

/// The histories are the same each time, so that a failure is due to a change. `PROPTEST_RNG_SEED=<number>` runs others, and
/// `PROPTEST_CASES=<number>` another number of them. Add a failing one to the table below.
pub(super) fn histories(cases: u32) -> ProptestConfig {
    let mut config =
        ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

/// Lives through a history, and then comes to rest.
fn live_through(rotation: Option<i64>, history: &[Happening]) {
    let spec = match rotation {
        Some(interval) => json!({"rotation": {"interval": format!("{interval}s")}}),
        None => json!({}),
    };
    let mut world = World::new(spec);
    world.secrets.insert("foreign".into(), foreign("foreign"));
    for event in history {
        happen(&mut world, event);
    }
    world.let_go();
    world.remove_obstacles();
    world.converge(seconds(60));
    world.check_at_rest();
    assert_eq!(world.secrets["foreign"], foreign("foreign"));
}

proptest! {
    #![proptest_config(histories(10_000))]

    #[test]
    fn no_history_breaks_an_invariant(rotation in proptest::option::of(30i64..200_000), history in vec(happening(), 1..24)) {
        live_through(rotation, &history);
    }
}

proptest! {
    #![proptest_config(histories(4_000))]

    #[test]
    fn no_history_of_changed_writes_breaks_an_invariant(rotation in proptest::option::of(30i64..200_000), history in vec(happening_with_changes(), 1..24)) {
        live_through(rotation, &history);
    }
}

proptest! {
    #![proptest_config(histories(5_000))]

    #[test]
    fn no_history_of_a_one_time_token_breaks_an_invariant(history in vec(happening_once(), 1..24)) {
        let mut world = World::new(json!({"secret": {"delivery": "Once"}}));
        for event in &history {
            happen(&mut world, event);
        }
        world.let_go();
        world.remove_obstacles();
        world.converge(seconds(60));
        world.check_at_rest();
    }
}

/// Histories that once broke an invariant, each in its shortest form.
#[test]
fn past_failures_stay_fixed() {
    use Happening::*;
    let histories: &[(Option<i64>, &[Happening])] = &[
        // (In the simulator, the dry run of a creation did not show that the Secret exists.)
        (None, &[Reconcile, Freeze, StatusLost, StripLabel, PauseBeforeWrite]),
        // (The test itself moved mints closer together when the clock went back.)
        (Some(17_893), &[Reconcile, Undo(Some(0)), Wait(21_389), Admission(None), ClockBack(1)]),
        // A token that was removed from the Secret with the new name was copied to it without end.
        (None, &[Wait(1), Rename(1), Undo(Some(0)), Reconcile]),
        // (The test itself ignored that time passes while a token is minted.)
        (None, &[RotateNow, DieAfter(0), RevokeNow, ClockBack(1), Wait(1)]),
        // A revoked token stayed in a Secret without the label.
        (None, &[DieAfter(2), Revoked(true), StripLabel]),
        (None, &[Reconcile, StripLabel, Refuse, Revoked(true), Wait(1)]),
        (None, &[Reconcile, StripLabel, StatusLost, Revoked(true)]),
        // A token that had just reached the Secret was published a second time.
        (Some(126_081), &[RevokeAt(1), Wait(2_574_060)]),
        // A rename to a foreign Secret was tried again each time, with another message.
        (None, &[Wait(1), Rename(0)]),
        (Some(10_939), &[Wait(1), Suspend(true), Rename(0), Wait(21_817)]),
        // A lost status was rebuilt only from a labelled Secret of the present name.
        (Some(30), &[Wait(488), Rename(0), StatusLost]),
        (Some(30), &[Wait(488), StripLabel, StatusLost, Wait(1)]),
        // A leader that read the PAT before a pause and the Secret after it overwrote another leader's token.
        (None, &[PauseWhileReading(1), Wait(1), LetGo]),
        (None, &[PreviousKey(Some(0)), Wait(1), RotateNow, PauseWhileReading(1), Wait(1), LetGo]),
        // A retired token that was written late stayed in a former Secret while the new name was taken.
        (None, &[PauseWhileReading(1), Rename(1), Reconcile, Rename(0), LetGo]),
    ];
    for (rotation, history) in histories {
        let spec =
            rotation.map_or_else(|| json!({}), |interval| json!({"rotation": {"interval": format!("{interval}s")}}));
        let mut world = World::new(spec);
        world.secrets.insert("foreign".into(), foreign("foreign"));
        for event in *history {
            happen(&mut world, event);
        }
        world.remove_obstacles();
        world.converge(seconds(60));
        world.check_at_rest();
    }
}

/// A story of a write: what happens before the Secret is changed on its way, and what makes the operator write it.
type WriteStory = (&'static str, fn(&mut World), fn(&mut World));

const WRITES: [WriteStory; 3] = [
    ("the first token", |_| {}, |_| {}),
    (
        "a rotation",
        |world| world.run_for(seconds(60)),
        |world| world.spec().rotate_if_issued_before = Some(world.now.plus(seconds(1))),
    ),
    ("a repair", |world| world.run_for(seconds(60)), |world| world.secrets.clear()),
];

/// Runs a story for six hours and returns how many tokens were minted and how many writes were made.
fn play(spec: serde_json::Value, (_, before, write): WriteStory, change: Change) -> (World, usize, usize) {
    let mut world = World::new(spec);
    before(&mut world);
    world.admission = Some(Box::new(change));
    let (minted, writes) = (world.minted.len(), world.writes);
    write(&mut world);
    world.run_for(seconds(6 * 3600));
    let counts = (world.minted.len() - minted, world.writes - writes);
    (world, counts.0, counts.1)
}

#[test]
fn token_that_admission_removes_is_minted_once_and_reported() {
    for spec in [json!({}), json!({"secret": {"previousKey": "old"}})] {
        for (n, change) in DEFEATS.into_iter().enumerate() {
            for story in WRITES {
                let what = format!("{}, change {n}, {spec}", story.0);
                // A first Secret has nothing to be frozen to.
                let is_frozen = n == 3;
                if is_frozen && story.0 != "a rotation" {
                    continue;
                }
                let (mut world, minted, _) = play(spec.clone(), story, change);
                assert_eq!(minted, 1, "{what}: dry runs show that another token would be lost too");
                let (ready, reason) = world.ready();
                // A frozen Secret still holds the former token.
                assert_eq!(
                    (ready == "True", ready == "False" && reason == "SecretAltered"),
                    (is_frozen, !is_frozen),
                    "{what}"
                );
                let told =
                    world.status().conditions.iter().find(|one| one.reason == "SecretAltered").expect("it is reported");
                assert!(told.message.contains("data.token") && told.message.contains("pat-operator"), "{told:?}");
                assert_eq!(world.status().unplanned_mints.len(), 1, "{what}: it counts as unplanned");

                world.restart();
                let minted = world.minted.len();
                world.run_for(seconds(600));
                assert_eq!(world.minted.len(), minted, "{what}: a fresh process sends a dry run first");

                world.admission = None;
                world.run_for(seconds(600));
                assert_eq!(world.ready(), ("True".into(), "Issued".into()), "{what}");
                assert_eq!(world.condition(ConditionType::Reconciling), None, "{what}");
                world.remove_obstacles();
                world.check_at_rest();
            }
        }
    }
}

#[test]
fn token_that_admission_removes_except_in_dry_runs_trips_the_breaker() {
    // Only the annotations of a real write list the new token.
    let change: Change = |secret, _| {
        if secret.metadata.annotations.as_ref().is_some_and(|all| all[CREDENTIALS].contains("Active")) {
            secret.data = None;
        }
    };
    let (mut world, minted, _) = play(json!({}), WRITES[0], change);
    assert!((3 * 4..=3 * 7).contains(&minted), "{minted} tokens in six hours");
    world.restart();
    world.settle(usize::MAX >> 1);
    assert_eq!(world.ready(), ("False".into(), "MintLoop".into()));
    let stalled = world.status().conditions.iter().find(|one| one.type_ == "Stalled").expect("it is reported");
    assert!(stalled.message.contains("data.token"), "{}", stalled.message);
    // A revocation does not get past the breaker.
    let minted = world.minted.len();
    world.spec().revoke_if_issued_before = Some(world.now);
    world.settle(usize::MAX >> 1);
    assert_eq!(world.minted.len(), minted);
}

#[test]
fn what_admission_adds_or_strips_is_repaired_less_and_less_often() {
    for (n, change) in OTHER_CHANGES.into_iter().enumerate() {
        for story in WRITES {
            // A first Secret has no earlier annotations to be frozen to.
            if n == 4 && story.0 != "a rotation" {
                continue;
            }
            let what = format!("{}, change {n}", story.0);
            let (mut world, minted, writes) = play(json!({}), story, change);
            assert_eq!(minted, 1, "{what}");
            assert!(writes <= 6 * 12 + 20, "{what}: {writes} writes in six hours");
            assert_eq!(world.ready(), ("True".into(), "Issued".into()), "{what}");
            assert_eq!(
                world.condition(ConditionType::Reconciling),
                Some(("True".into(), "SecretAltered".into())),
                "{what}"
            );
            assert_eq!(world.status().unplanned_mints.len(), usize::from(story.0 == "a repair"), "{what}");

            // A rotation is not held up.
            world.spec().rotate_if_issued_before = Some(world.now);
            world.run_for(seconds(10));
            assert_eq!(world.minted.len(), 1 + minted + usize::from(story.0 != "the first token"), "{what}");

            world.admission = None;
            world.run_for(seconds(301));
            assert_eq!(world.condition(ConditionType::Reconciling), None, "{what}: it is no longer reported");
            world.check_at_rest();
        }
    }
}

#[test]
fn repairs_that_a_client_undoes_wait_and_are_reported() {
    for (n, undo) in OTHER_CHANGES.into_iter().enumerate().take(4) {
        let mut world = World::new(json!({}));
        world.run_for(seconds(60));
        world.undo = Some(undo);
        world.tamper(|secret| undo(secret, None));
        let writes = world.writes;
        world.run_for(seconds(6 * 3600));
        let writes = world.writes - writes;
        assert!(writes <= 6 * 12 + 20, "change {n}: {writes} writes in six hours");
        assert_eq!(world.minted.len(), 1, "change {n}");
        assert_eq!(world.ready(), ("True".into(), "Issued".into()), "change {n}");
        assert_eq!(
            world.condition(ConditionType::Reconciling),
            Some(("True".into(), "SecretAltered".into())),
            "change {n}"
        );

        world.undo = None;
        world.run_for(seconds(16 * 60));
        assert_eq!(world.condition(ConditionType::Reconciling), None, "change {n}: quiet for ten minutes");
        world.check_at_rest();
    }
}

#[test]
fn values_that_a_client_keeps_changing_make_the_token_unready() {
    let mut world = World::new(json!({"secret": {"template": {"data": {"config": "t={{ token }}"}}}}));
    world.run_for(seconds(60));
    let undo: Change = |secret, _| {
        secret.data.get_or_insert_default().insert("config".into(), ByteString(b"x".to_vec()));
    };
    world.undo = Some(undo);
    world.tamper(|secret| undo(secret, None));
    world.run_for(seconds(3600));
    assert_eq!(world.ready(), ("False".into(), "SecretAltered".into()));
    assert_eq!(world.minted.len(), 1);
    // A change of the spec is written at once, and counts anew.
    let (writes, now) = (world.writes, world.now);
    world.spec().secret.get_or_insert_default().labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    world.settle(usize::MAX >> 1);
    assert!(world.writes > writes && world.now == now);
}

#[test]
fn token_is_rotated_in_its_former_secret_while_a_rename_is_refused() {
    for (name, taken) in [("name1", false), ("foreign", true)] {
        let mut world = World::new(json!({"rotation": {"interval": "30d"}}));
        world.secrets.insert("foreign".into(), foreign("foreign"));
        world.run_for(seconds(60));
        world.refused = Some(name);
        world.spec().secret.get_or_insert_default().name = Some(name.into());
        world.run_for_days(200);

        let active = world.active().expect("a token that works").clone();
        assert!(world.now.since(active.issued_at) < seconds(31 * 86_400), "{name}: rotations go on");
        assert_eq!(active.sha256, hash(world.token("t").expect("the former Secret").as_bytes()), "{name}");
        assert_eq!(world.status().secret_name.as_deref(), Some("t"), "{name}");
        let told =
            world.status().conditions.iter().find(|one| one.type_ != "Ready" && one.message.contains("tries again"));
        let told = told.unwrap_or_else(|| panic!("{name}: {:#?}", world.status().conditions));
        if taken {
            assert_eq!(world.ready(), ("False".into(), "SecretConflict".into()));
            assert_eq!((&*told.type_, &*told.reason), ("Stalled", "SecretConflict"));
            world.secrets.remove(name);
        } else {
            assert_eq!(world.ready(), ("True".into(), "Issued".into()));
            assert_eq!((&*told.type_, &*told.reason), ("Reconciling", "ApiError"));
        }
        world.refused = None;
        world.run_for(seconds(700));
        assert_eq!(world.ready(), ("True".into(), "Issued".into()), "{name}");
        assert!(world.token("t").is_none(), "{name}: the former Secret is deleted");
        world.converge(seconds(60));
        world.check_at_rest();
    }
}

#[test]
fn refused_rotation_is_reported_before_the_token_ends() {
    let mut world = World::new(json!({"rotation": {"interval": "30d"}}));
    world.run_for(seconds(60));
    world.refused = Some("t");
    world.run_for_days(40);
    assert_eq!(world.ready(), ("True".into(), "Issued".into()));
    assert_eq!(world.condition(ConditionType::ExpiringSoon), None);
    world.run_for_days(15);
    assert_eq!(world.condition(ConditionType::ExpiringSoon), Some(("True".into(), "ExpiryNear".into())));
    world.refused = None;
    world.run_for_days(1);
    assert_eq!(world.condition(ConditionType::ExpiringSoon), None);
    world.check_at_rest();
}

fn freeze(world: &mut World) {
    happen(world, &Happening::Freeze);
}

#[test]
fn rotation_into_an_immutable_secret_mints_nothing_until_the_secret_is_deleted() {
    let mut world = World::new(json!({"rotation": {"interval": "30d"}}));
    world.converge(seconds(60));
    freeze(&mut world);
    world.run_for_days(31);
    assert_eq!((world.ready(), world.minted.len()), (("True".into(), "Issued".into()), 1));
    assert_eq!(world.condition(ConditionType::Reconciling), Some(("True".into(), "SecretImmutable".into())));
    assert_eq!(world.condition(ConditionType::ExpiringSoon), None);
    world.check_at_rest();
    world.run_for_days(23);
    assert_eq!(world.condition(ConditionType::ExpiringSoon), Some(("True".into(), "ExpiryNear".into())));
    assert_eq!(world.minted.len(), 1);

    happen(&mut world, &Happening::DeleteSecret);
    world.converge(seconds(10));
    assert_eq!((world.ready(), world.minted.len()), (("True".into(), "Issued".into()), 2));
    assert_eq!(world.condition(ConditionType::Reconciling), None);
    world.check_at_rest();
}

#[test]
fn spec_that_an_immutable_secret_cannot_follow_is_reported() {
    let mut world = World::new(json!({}));
    world.converge(seconds(60));
    freeze(&mut world);
    world.spec().secret.get_or_insert_default().labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    world.converge(seconds(60));
    assert_eq!(world.condition(ConditionType::Reconciling), None, "labels can change");
    happen(&mut world, &Happening::Template(true));
    world.converge(seconds(5));
    assert_eq!((world.ready(), world.minted.len()), (("True".into(), "Issued".into()), 1));
    assert_eq!(world.condition(ConditionType::Reconciling), Some(("True".into(), "SecretImmutable".into())));
    world.check_at_rest();
}

/// How a token ends.
type End = (&'static str, fn(&mut World));

#[test]
fn immutable_secret_is_deleted_when_its_token_ends() {
    let ends: [End; 5] = [
        ("revoked", |world| happen(world, &Happening::Revoked(true))),
        ("expired", |world| happen(world, &Happening::ExpiryAt(-1))),
        ("revoked by time", |world| happen(world, &Happening::RevokeNow)),
        ("suspended until its end", |world| {
            happen(world, &Happening::Suspend(true));
            world.advance(seconds(60 * 86_400));
        }),
        ("not rotated in time", |world| world.advance(seconds(60 * 86_400))),
    ];
    for (what, end) in ends {
        for label in [true, false] {
            let mut world = World::new(json!({"rotation": {"interval": "30d"}}));
            world.converge(seconds(60));
            let token = world.token("t").expect("a token");
            freeze(&mut world);
            if !label {
                happen(&mut world, &Happening::StripLabel);
            }
            world.advance(seconds(1));
            end(&mut world);
            world.begin_reconcile();
            let mut deletions = Vec::new();
            for _ in 0..40 {
                let plan = world.next_plan();
                match plan.step {
                    Step::Rest => break,
                    Step::Mint(_) => world.mint(plan.step),
                    Step::WriteStatus(status) => world.write_status(*status),
                    Step::DeleteSecret(target) => {
                        assert_eq!(plan.events[0].reason, EventReason::SecretDeleted);
                        let is_new = |credential: &Credential| credential.revision > 1;
                        assert!(world.status().credentials.iter().all(is_new), "{what}: the end is recorded first");
                        deletions.push(target.name.clone());
                        world.perform(Step::DeleteSecret(target)).unwrap();
                    }
                    step => drop(world.perform(step).unwrap()),
                }
                world.check();
            }
            assert_eq!(deletions, ["t"], "{what}");
            assert!(world.token("t").is_none_or(|new| new != token), "{what}");
            assert_eq!(world.condition(ConditionType::SecretNotCleared), None, "{what}");
            world.check_at_rest();
        }
    }
}

#[test]
fn dead_token_that_cannot_be_cleared_is_not_listed_and_is_cleared_later() {
    for once in [false, true] {
        let secret = if once { json!({"delivery": "Once"}) } else { json!({}) };
        for end in [Happening::Revoked(true), Happening::ExpiryAt(-1)] {
            let mut world = World::new(json!({"secret": secret}));
            world.converge(seconds(60));
            world.refused = Some("t");
            happen(&mut world, &end);
            world.run_for(seconds(60));
            assert!(world.status().credentials.is_empty(), "{end:?}");
            assert_eq!(world.condition(ConditionType::SecretNotCleared), Some(("True".into(), "ApiError".into())));
            // Neither a restart nor the loss of the label or the status hides it.
            world.restart();
            happen(&mut world, &Happening::StripLabel);
            world.run_for(seconds(60));
            assert!(world.token("t").is_some(), "{end:?}");
            assert_eq!(world.condition(ConditionType::SecretNotCleared), Some(("True".into(), "ApiError".into())));
            world.lose_status();
            world.run_for(seconds(60));
            assert_eq!(world.condition(ConditionType::SecretNotCleared), Some(("True".into(), "ApiError".into())));
            world.refused = None;
            world.restart();
            world.run_for(seconds(60));
            assert!(world.token("t").is_none(), "{end:?}");
            assert_eq!(world.condition(ConditionType::SecretNotCleared), None);
            world.check_at_rest();
        }
    }
}

#[test]
fn copies_of_the_secret_are_deleted_a_few_at_a_time() {
    let mut world = World::new(json!({}));
    world.run_for(seconds(60));
    for n in 0..300 {
        let mut copy = world.secrets["t"].clone();
        let version = world.next_version();
        copy.metadata.name = Some(format!("copy-{n}"));
        copy.metadata.uid = Some(format!("uid-of-copy-{n}"));
        copy.metadata.resource_version = Some(version);
        world.secrets.insert(format!("copy-{n}"), copy);
    }
    let token = world.token("t");
    let plan = world.plan();
    assert!(plan.events.iter().any(|event| event.reason == EventReason::CopyDeleted && event.note.contains("copy-")));
    world.settle(usize::MAX >> 1);
    assert_eq!(world.secrets.len(), 1 + 300 - 8);
    world.run_for(seconds(60));
    assert_eq!(world.secrets.keys().collect::<Vec<_>>(), ["t"]);
    assert_eq!(world.token("t"), token);
    world.check_at_rest();
}

/// A settled world in which something has deleted the Secret until no token is issued any more.
fn in_a_mint_loop() -> World {
    let mut world = World::new(json!({}));
    world.converge(seconds(60));
    for _ in 0..=BREAKER_MINTS {
        world.advance(seconds(60));
        happen(&mut world, &Happening::DeleteSecret);
        world.converge(seconds(10));
    }
    assert_eq!(world.ready(), ("False".into(), "MintLoop".into()));
    world
}

#[test]
fn mints_of_a_clock_that_was_ahead_block_repairs_for_an_hour_at_most() {
    for back in [30, 1_800, 172_800, 40_000_000] {
        let mut world = in_a_mint_loop();
        happen(&mut world, &Happening::ClockBack(back));
        world.converge(seconds(10));
        assert_eq!(world.ready(), ("False".into(), "MintLoop".into()), "{back}");
        world.advance(BREAKER_WINDOW);
        world.advance(seconds(1));
        world.converge(seconds(10));
        assert_eq!(world.ready(), ("True".into(), "Issued".into()), "{back}");
        world.check_at_rest();
    }
}

#[test]
fn no_token_is_issued_while_clocks_differ_by_more_than_five_minutes() {
    for skew in [301, -301] {
        let mut world = World::new(json!({"rotation": {"interval": "1d"}}));
        world.clock_skew = seconds(skew);
        world.converge(seconds(30));
        assert_eq!((world.ready(), world.minted.len()), (("False".into(), "ClockSkew".into()), 0));
        world.clock_skew = seconds(skew / 2);
        world.converge(seconds(60));
        assert_eq!((world.ready(), world.minted.len()), (("True".into(), "Issued".into()), 1));
        // A rotation that is due waits, and what is revoked meanwhile is dead.
        world.clock_skew = seconds(skew);
        world.advance(seconds(86_400));
        world.converge(seconds(30));
        assert_eq!((world.ready(), world.minted.len()), (("True".into(), "Issued".into()), 1));
        assert_eq!(world.condition(ConditionType::Reconciling).expect("it is reported").1, "ClockSkew");
        let now = world.now;
        world.spec().revoke_if_issued_before = Some(now);
        world.converge(seconds(30));
        assert_eq!((world.ready(), world.minted.len()), (("False".into(), "ClockSkew".into()), 1));
        assert!(world.status().credentials.is_empty());
    }
}

#[test]
fn statement_that_spares_a_token_from_the_future_is_told_until_it_ends() {
    let mut world = World::new(json!({}));
    world.converge(seconds(60));
    happen(&mut world, &Happening::ClockBack(3_600));
    happen(&mut world, &Happening::RevokeNow);
    world.converge(seconds(10));
    let told = |world: &World| world.condition(ConditionType::RevocationIncomplete).map(|(_, reason)| reason);
    assert_eq!((world.ready().0.as_str(), told(&world).as_deref()), ("True", Some("IssuedInFuture")));
    world.check_at_rest();
    happen(&mut world, &Happening::RevokeNth(0));
    world.converge(seconds(10));
    assert_eq!((world.ready().0.as_str(), told(&world)), ("True", None), "its successor is not from the future");

    // A token that was issued after the statement is not spared by a clock.
    let mut world = World::new(json!({}));
    happen(&mut world, &Happening::RevokeNow);
    world.advance(seconds(1));
    world.converge(seconds(60));
    assert_eq!(told(&world), None);
}
