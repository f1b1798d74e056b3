//! The planner: what is the next step for one token? Pure, synchronous, total; every rule of the product lives here.
//!
//! A plan is **one** step and what to do after it. The caller performs the step, sees what came of it, and asks again; so
//! whatever happens between two steps (a crash, another writer, a paused process), the next plan starts from what really is
//! there. The planner must not read a clock, draw a random number or speak to anybody.
//!
//! Files: this one decides; `step` is what it can decide for; `life` keeps deadlines, `place` says whose the Secret is, `mint` and
//! `content` know the way of a token into it, `handover` what becomes of one that is taken once, `report` words conditions and events.

mod content;
mod handover;
pub mod intent;
mod life;
mod mint;
mod place;
mod report;
mod step;
pub mod table;
#[cfg(test)]
mod tests;
pub mod view;

pub use handover::DELIVERY_WINDOW;
pub use report::{EventReason, Notice};
pub use step::{Content, Facts, SecretWrite, Source, Step, Target};

use self::{
    handover::Handover,
    life::Burial,
    mint::Minting,
    place::Place,
    report::{Blocked, Outcome},
};
use crate::api::{Credential, CredentialState, InvalidField, PersonalAccessTokenStatus, Reason, Time};
use crate::planner::{
    intent::{Intent, Settings, secret_name},
    view::{Held, RefusalKind, SecretView, View},
};
use k8s_openapi::jiff::SignedDuration;

/// At most this many unplanned mints within [`BREAKER_WINDOW`].
pub const BREAKER_MINTS: usize = 3;

/// See [`BREAKER_MINTS`].
pub const BREAKER_WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// One step, and what belongs to it.
#[derive(Debug)]
pub struct Plan {
    /// What to do now.
    pub step: Step,
    /// What to tell people once the step has succeeded.
    pub events: Vec<Notice>,
    /// When to plan again even if nothing happens; meaningful with [`Step::Rest`].
    pub wake_at: Option<Time>,
    /// Whether the token that waits in memory is still wanted.
    pub keep_held: bool,
}

impl Plan {
    fn new(step: Step) -> Self {
        Self { step, events: Vec::new(), wake_at: None, keep_held: false }
    }
}

/// Plans the next step for one token at one instant.
pub fn plan(view: &View<'_>, settings: &Settings, now: Time) -> Plan {
    let (Ok(stored), None) = (&view.pat.status, &view.pat.metadata.deletion_timestamp) else {
        // Being deleted: the garbage collector takes the Secret. An unreadable status: touching it could lose what it holds.
        return Plan::new(Step::Rest);
    };
    let spec = match &view.pat.spec {
        Ok(spec) => spec,
        Err(problem) => return invalid(view, stored, now, &InvalidField::new("spec", problem.clone())),
    };
    let mut base = stored.clone();
    let restored = place::restore(view, settings, &mut base);
    life::fix_starting_points(&mut base, spec, view.held.as_ref(), settings, now);
    match Intent::read(view.pat, spec, &base) {
        Err(problem) => invalid(view, stored, now, &problem),
        Ok(intent) => {
            let name = secret_name(view.pat, spec);
            Planner { view, settings, now, stored, base, restored, intent: &intent, name }.plan()
        }
    }
}

/// The life of the token cannot even be read: say so, keep everything as it is.
fn invalid(view: &View<'_>, stored: &PersonalAccessTokenStatus, now: Time, problem: &InvalidField) -> Plan {
    let mut status = stored.clone();
    status.observed_generation = view.pat.metadata.generation;
    let outcome = Outcome::stuck(Reason::InvalidSpec, problem.to_string());
    status.conditions = outcome.conditions(&stored.conditions, view.pat.metadata.generation, now);
    let mut plan = Plan::new(Step::Rest);
    if status != *stored {
        plan.events = outcome.events(&stored.conditions);
        plan.step = Step::WriteStatus(Box::new(status));
    }
    plan
}

struct Planner<'a> {
    view: &'a View<'a>,
    settings: &'a Settings,
    now: Time,
    /// The status as it is.
    stored: &'a PersonalAccessTokenStatus,
    /// The status to start from: the stored one, or one rebuilt from the Secret.
    base: PersonalAccessTokenStatus,
    /// It was rebuilt.
    restored: bool,
    intent: &'a Intent,
    /// The Secret's name by the spec.
    name: &'a str,
}

/// Why a token is minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// None is live.
    Issue,
    /// The live one is due.
    Rotation,
    /// The live one is no longer in the Secret.
    Repair,
}

/// What has to happen to the token.
enum Need {
    /// Nothing: it is where it belongs, or none is wanted.
    Nothing,
    /// It has to be copied to where it belongs.
    Move,
    /// A new one has to be made.
    Mint(Cause),
}

impl Planner<'_> {
    fn plan(&self) -> Plan {
        let (mut live, buried) = life::sort(self.intent, &self.base.credentials, self.now);
        let place = place::find(self.view, self.settings, self.intent, self.name, &live);
        let promoted = self.promote(&mut live, &place);
        if matches!(place, Place::Conflict(_)) {
            // Nobody holds these, and nothing can put them into a Secret that is not ours.
            live.retain(|credential| credential.state != CredentialState::Pending);
        }
        let mut active = live.iter().find(|credential| credential.state == CredentialState::Active).cloned();
        let mut holds =
            matches!((&place, &active), (Place::Ours(secret), Some(active)) if self.key_of(secret, active).is_some());
        let wanted = !self.intent.revoked && !self.intent.terms.expired(self.now);

        let Some(mut handover) = self.handover(promoted.is_some(), active.as_ref(), holds) else {
            return self.then(Step::Look, true);
        };
        if handover.missed {
            active = None;
            holds = false;
            live.retain(|credential| credential.state != CredentialState::Active);
        }
        let need = if self.intent.once {
            self.need_once(active.as_ref(), wanted, handover)
        } else {
            self.need(&place, active.as_ref(), holds, wanted)
        };
        if self.must_look(&place, &need, active.is_none()) {
            return self.then(Step::Look, true);
        }
        let mut blocked = self.blocked(&place, &need, &live);
        let mut publishing = false;
        let mut secret_step = None;
        let mut wait_until = None;
        let mut keep_held = false;
        let mut cause = None;

        if let (Need::Mint(why), None) = (&need, &blocked) {
            cause = Some(*why);
            match self.mint(&place, *why, holds, &mut live) {
                Minting::First(step) => return self.then(step, true),
                Minting::Publish => (publishing, keep_held) = (true, true),
                Minting::Wait(until) => (wait_until, keep_held) = (Some(until), true),
                Minting::Write(step) => (secret_step, keep_held) = (Some(step), true),
                Minting::Full => blocked = Some(self.too_many(&live)),
            }
        } else if let (Need::Mint(_), Some(_)) = (&need, &blocked) {
            keep_held = self.view.held.is_some_and(|held| self.is_pending(&live, &held));
        }
        if self.intent.once && !holds && !matches!(need, Need::Mint(_)) {
            // Nothing is under way that could bring these to anybody, and there is no Secret in which they could arrive unseen.
            live.retain(|credential| credential.state != CredentialState::Pending);
        }
        live.sort_by_key(|credential| std::cmp::Reverse(credential.revision));

        if secret_step.is_none() && blocked.as_ref().is_none_or(Blocked::lets_secret_be_written) {
            secret_step = match (&need, &place, &active) {
                (Need::Move, _, Some(active)) => self.copy(&place, active, &live),
                (Need::Nothing, Place::Ours(secret), Some(active)) if holds => match self.tend(secret, active, &live) {
                    Some(Step::Look) => return self.then(Step::Look, keep_held),
                    step => step,
                },
                _ => None,
            };
        }
        let minting = keep_held && blocked.is_none();
        let wipe = if secret_step.is_none() && active.is_none() && !minting { self.blank(&place) } else { None };
        let mut buried = buried;
        let mut discarding = false;
        if self.refused() {
            if wipe.is_some() {
                // As long as the dead token stands in the Secret, its death is not recorded: that is what reminds us to wipe it.
                live = self.base.credentials.clone();
                handover.state = self.base.delivery;
                buried.clear();
            }
        } else if secret_step.is_none() {
            let unneeded = active.is_none() || holds || handover.is_delivered();
            secret_step = wipe.or_else(|| self.remove_former(unneeded, &live));
            if secret_step.is_none() && self.intent.once && !handover.is_waiting() && !matches!(need, Need::Mint(_)) {
                match self.discard(&place) {
                    Some(Step::Look) => return self.then(Step::Look, keep_held),
                    step => (discarding, secret_step) = (step.is_some(), step),
                }
            }
        }

        let status = self.status(Standing {
            place: &place,
            live: &live,
            active: active.as_ref(),
            promoted: promoted.as_ref(),
            publishing: cause.filter(|_| publishing),
            handover,
        });
        let ended = self.intent.once && active.is_none() && handover.state.is_some() && !matches!(need, Need::Mint(_));
        let outcome = self.outcome(&status, active.as_ref(), holds, ended, blocked);
        self.finish(Draft {
            status,
            outcome,
            buried,
            promoted,
            publishing,
            status_first: handover.received || handover.missed || discarding,
            missed: handover.missed,
            cause,
            secret_step,
            wait_until,
            keep_held,
            place,
        })
    }

    fn then(&self, step: Step, keep_held: bool) -> Plan {
        Plan { keep_held, ..Plan::new(step) }
    }

    fn key_of<'s>(&self, secret: &'s SecretView, credential: &Credential) -> Option<&'s str> {
        let preferred = self.intent.layout.as_ref().map_or("token", |layout| layout.key.as_str());
        secret.key_of(&credential.sha256, preferred)
    }

    /// The Secret holds a pending token: it is the active one now. What was pending before it can never get there.
    fn promote(&self, live: &mut Vec<Credential>, place: &Place<'_>) -> Option<Promotion> {
        let here = match place {
            Place::Ours(secret) => Some(*secret),
            _ => None,
        };
        // A rename may have come between the write and this plan: then a former Secret holds it.
        let ours: Vec<&SecretView> = here.into_iter().chain(self.view.former).collect();
        let arrived = live
            .iter()
            .filter(|credential| credential.state == CredentialState::Pending && self.is_in_time(credential))
            .find(|credential| ours.iter().any(|secret| self.key_of(secret, credential).is_some()))
            .map(|credential| credential.id.clone());
        let promotion = arrived.and_then(|id| {
            let replaced = self.retire(live);
            let credential = live.iter_mut().find(|credential| credential.id == id)?;
            credential.state = CredentialState::Active;
            Some(Promotion { arrived: credential.clone(), replaced })
        });
        let floor = ours
            .iter()
            .filter_map(|secret| secret.record.as_ref())
            .filter(|record| record.is_of(self.view.pat.uid()))
            .map(|record| record.ledger.revision)
            // What was never begun cannot have been written: somebody else's word.
            .filter(|revision| *revision <= self.base.revision.unwrap_or_default())
            .max()
            .unwrap_or(0);
        live.retain(|credential| credential.state != CredentialState::Pending || credential.revision > floor);
        promotion
    }

    fn refused(&self) -> bool {
        self.view.refusal.is_some_and(|refusal| self.now < refusal.retry_at)
    }

    fn need(&self, place: &Place<'_>, active: Option<&Credential>, holds: bool, wanted: bool) -> Need {
        if !wanted || matches!(place, Place::Conflict(_)) {
            return Need::Nothing;
        }
        match active {
            Some(active) if holds => {
                if !self.intent.suspended
                    && life::rotation_due(self.view.pat.uid(), self.intent, active).is_some_and(|due| due <= self.now)
                {
                    Need::Mint(Cause::Rotation)
                } else {
                    Need::Nothing
                }
            }
            Some(active) if self.former_with(active).is_some() => Need::Move,
            _ if self.intent.suspended => Need::Nothing,
            Some(_) => Need::Mint(Cause::Repair),
            None => Need::Mint(Cause::Issue),
        }
    }

    /// The same for a token that is handed over once: what was issued is not issued again unless somebody asks.
    fn need_once(&self, active: Option<&Credential>, wanted: bool, handover: Handover) -> Need {
        if !wanted || self.intent.suspended {
            return Need::Nothing;
        }
        let uid = self.view.pat.uid();
        match active {
            Some(active) if life::rotation_due(uid, self.intent, active).is_some_and(|due| due <= self.now) => {
                Need::Mint(Cause::Rotation)
            }
            Some(_) => Need::Nothing,
            None if handover.state.is_none() || self.is_asked_for() => Need::Mint(Cause::Issue),
            None => Need::Nothing,
        }
    }

    fn former_with(&self, credential: &Credential) -> Option<(&SecretView, &str)> {
        self.view.former.iter().find_map(|secret| Some((secret, self.key_of(secret, credential)?)))
    }

    /// A cache may be behind: before a mint that a glance at the Secret could save, look.
    fn must_look(&self, place: &Place<'_>, need: &Need, none_active: bool) -> bool {
        if self.view.live {
            return false;
        }
        if self.view.secret.is_some_and(|secret| self.is_ahead(secret)) {
            return true;
        }
        let stumbled = || {
            let ready = self.stored.conditions.iter().find(|condition| condition.type_ == "Ready");
            ready.is_some_and(|ready| {
                [Reason::SecretConflict, Reason::ApiError, Reason::NamespaceTerminating]
                    .iter()
                    .any(|reason| ready.reason == reason.as_str())
            })
        };
        let absent = matches!(place, Place::Absent);
        match need {
            Need::Mint(Cause::Repair) => true,
            // The last one has just died, or nothing is known yet: a Secret that lost its label must be wiped all the same.
            Need::Nothing if none_active => {
                // Of what is handed over once, those in grace never go back into a Secret.
                let gone = |credential: &Credential| self.intent.once && credential.state == CredentialState::Grace;
                let known = !self.stored.credentials.iter().all(gone);
                absent && (stumbled() || known || self.stored.conditions.is_empty())
            }
            _ => absent && stumbled(),
        }
    }

    /// The Secret tells of a mint that the PAT does not know: it is newer, or it lies.
    fn is_ahead(&self, secret: &SecretView) -> bool {
        secret.record.as_ref().is_some_and(|record| {
            record.is_of(self.view.pat.uid()) && record.ledger.revision > self.base.revision.unwrap_or_default()
        })
    }

    fn blocked(&self, place: &Place<'_>, need: &Need, live: &[Credential]) -> Option<Blocked> {
        // A name that is not needed may be anybody's.
        let needed = !self.intent.once || matches!(need, Need::Mint(_));
        if let (Place::Conflict(message), true) = (place, needed) {
            return Some(Blocked::new(
                Reason::SecretConflict,
                message.clone(),
                Some(life::conflict_retry(self.view.pat.uid(), self.now)),
            ));
        }
        if let Err(problem) = &self.intent.layout {
            return Some(Blocked::new(Reason::InvalidSpec, problem.to_string(), None));
        }
        if let Some(refusal) = self.view.refusal
            && self.refused()
        {
            let reason = match refusal.kind {
                RefusalKind::NamespaceTerminating => Reason::NamespaceTerminating,
                RefusalKind::Other => Reason::ApiError,
            };
            return Some(Blocked::new(reason, refusal.message.clone(), Some(refusal.retry_at)));
        }
        if matches!(need, Need::Mint(Cause::Repair)) && !self.view.held.is_some_and(|held| self.is_pending(live, &held))
        {
            let recent = life::recent(&self.base.unplanned_mints, self.now);
            if recent.len() >= BREAKER_MINTS {
                let until = recent[recent.len() - BREAKER_MINTS].plus(BREAKER_WINDOW);
                let editor = self.editor();
                return Some(Blocked::new(
                    Reason::MintLoop,
                    format!(
                        "something keeps damaging Secret {:?}{editor}: {BREAKER_MINTS} tokens had to be issued within an hour; find out what writes it; issuing goes on at {}",
                        self.name,
                        until.ceil_second(),
                    ),
                    Some(until),
                ));
            }
        }
        None
    }

    fn editor(&self) -> String {
        match self.view.secret.and_then(|secret| secret.last_editor.as_deref()) {
            Some(editor) => format!(" (last changed by {editor:?})"),
            None => String::new(),
        }
    }

    fn is_pending(&self, live: &[Credential], held: &Held) -> bool {
        live.iter().any(|credential| credential.state == CredentialState::Pending && credential.id == held.id)
    }

    fn status(&self, standing: Standing<'_>) -> PersonalAccessTokenStatus {
        let Standing { place, live, active, promoted, publishing, handover } = standing;
        let mut status = self.base.clone();
        status.observed_generation = self.view.pat.metadata.generation;
        status.owner = Some(self.intent.owner.clone());
        if let Place::Ours(secret) = place
            && active.is_none_or(|active| self.key_of(secret, active).is_some() || self.former_with(active).is_none())
        {
            status.secret_name = Some(secret.name.to_string());
        }
        if self.intent.once && !handover.is_waiting() {
            status.secret_name = None;
        }
        status.delivery = handover.state;
        let obtainable = active.into_iter().chain(promoted.map(|promotion| &promotion.arrived));
        status.last_issued_at = obtainable.map(|credential| credential.issued_at).chain(self.base.last_issued_at).max();
        if publishing.is_some() {
            status.revision = Some(self.base.revision.unwrap_or_default() + 1);
        }
        if status.revision.is_none() {
            status.first_issued_at = None;
            status.default_expires_at = None;
        }
        if let (Some(Cause::Repair), Some(held)) = (publishing, self.view.held) {
            let mut mints = life::recent(&self.base.unplanned_mints, self.now);
            mints.push(held.issued_at);
            status.unplanned_mints = mints;
        }
        status.expires_at = self.intent.terms.end().filter(|_| status.revision.is_some());
        status.next_rotation_at = active
            .filter(|_| !self.intent.suspended)
            .and_then(|active| life::rotation_due(self.view.pat.uid(), self.intent, active));
        status.credentials = live.to_vec();
        status
    }

    fn outcome(
        &self,
        status: &PersonalAccessTokenStatus,
        active: Option<&Credential>,
        holds: bool,
        ended: bool,
        blocked: Option<Blocked>,
    ) -> Outcome {
        report::outcome(&report::Situation {
            now: self.now,
            intent: self.intent,
            secret_name: self.name,
            status,
            active,
            holds,
            safe_elsewhere: !holds && active.is_some_and(|active| self.former_with(active).is_some()),
            ended,
            blocked,
        })
    }

    fn finish(&self, draft: Draft<'_>) -> Plan {
        let Draft {
            mut status,
            outcome,
            buried,
            promoted,
            publishing,
            status_first,
            missed,
            cause,
            secret_step,
            wait_until,
            keep_held,
            place,
        } = draft;
        status.conditions = outcome.conditions(&self.stored.conditions, self.view.pat.metadata.generation, self.now);
        let changed = status != *self.stored;
        let status_first = status_first || publishing || promoted.is_some() || !buried.is_empty() || self.restored;
        // Wiping comes before everything: once the status says that it is over, nothing would remind us of it.
        let wiping =
            matches!(&secret_step, Some(Step::WriteSecret(write)) if matches!(write.content, Content::Blank { .. }));
        match secret_step {
            Some(step) if wiping || !(changed && status_first) => {
                let events = match &step {
                    Step::WriteSecret(write) => self.secret_events(write, &place),
                    _ => Vec::new(),
                };
                Plan { step, events, wake_at: None, keep_held }
            }
            _ if changed => {
                let mut events = Vec::new();
                if self.restored {
                    events.push(Notice::restored(self.name));
                }
                events.extend(buried.iter().filter_map(|burial| burial.notice(self.intent)));
                if let Some(promotion) = promoted.as_ref().filter(|_| !missed)
                    && !self.base.unplanned_mints.contains(&promotion.arrived.issued_at)
                {
                    events.extend(Notice::rotated(&promotion.arrived, promotion.replaced.as_ref()));
                }
                if publishing && cause == Some(Cause::Repair) {
                    events.push(Notice::repaired_by_mint(self.name, self.view.secret.is_some(), &self.editor()));
                }
                events.extend(outcome.events(&self.stored.conditions));
                Plan { step: Step::WriteStatus(Box::new(status)), events, wake_at: None, keep_held }
            }
            _ => {
                let wake_at = life::next_wake(self.intent, &status, self.now, outcome.wake_at(), self.view.pat.uid());
                Plan { step: Step::Rest, events: Vec::new(), wake_at: earliest(wake_at, wait_until), keep_held }
            }
        }
    }
}

struct Promotion {
    arrived: Credential,
    replaced: Option<Credential>,
}

/// All that a status is made from.
struct Standing<'a> {
    place: &'a Place<'a>,
    live: &'a [Credential],
    active: Option<&'a Credential>,
    promoted: Option<&'a Promotion>,
    publishing: Option<Cause>,
    handover: Handover,
}

struct Draft<'a> {
    status: PersonalAccessTokenStatus,
    outcome: Outcome,
    buried: Vec<Burial>,
    promoted: Option<Promotion>,
    publishing: bool,
    /// The Secret waits until the status is written.
    status_first: bool,
    /// The token was not taken.
    missed: bool,
    cause: Option<Cause>,
    secret_step: Option<Step>,
    wait_until: Option<Time>,
    keep_held: bool,
    place: Place<'a>,
}

fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    a.into_iter().chain(b).min()
}
