//! The planner: what is the next step for one token? Pure, synchronous, total; every rule of the product lives here.
//!
//! A plan is **one** step and what to do after it. The caller performs the step, sees what came of it, and asks again; so
//! whatever happens between two steps (a crash, another writer, a paused process), the next plan starts from what really is
//! there. The planner must not read a clock, draw a random number or speak to anybody.
//!
//! Files: this one decides; `life` keeps deadlines, `place` says whose the Secret is, `report` words conditions and events.

mod life;
mod place;
mod report;
#[cfg(test)]
mod tests;

pub use report::{EventReason, Notice};

use self::{
    life::Burial,
    place::Place,
    report::{Blocked, Outcome},
};
use super::{
    intent::{Intent, Settings, secret_name},
    secret::Layout,
    view::{Held, Ledger, RefusalKind, SecretView, View},
};
use crate::{
    api::{Credential, CredentialState, InvalidField, MAX_LIVE_CREDENTIALS, PersonalAccessTokenStatus, Reason, Time},
    token::TokenPrefix,
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

/// What can be done next.
#[derive(Debug)]
pub enum Step {
    /// Nothing until the next wake-up or change.
    Rest,
    /// Read the Secret from the API server, then plan again.
    Look,
    /// Mint a token into memory, then plan again.
    Mint(TokenPrefix),
    /// Ask the API server whether it would take this write, then plan again.
    Rehearse(Box<SecretWrite>),
    /// Write the status.
    WriteStatus(Box<PersonalAccessTokenStatus>),
    /// Write the Secret.
    WriteSecret(Box<SecretWrite>),
    /// Delete a Secret that is ours and no longer wanted.
    DeleteSecret(Target),
}

/// One exact version of one Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The version that the decision was made on.
    pub resource_version: String,
}

/// A write to a Secret, without any plain token: where to take it from.
#[derive(Debug)]
pub struct SecretWrite {
    /// The Secret's name.
    pub name: String,
    /// The version to change; `None` creates.
    pub base: Option<Target>,
    /// What to put in.
    pub content: Content,
    /// What the annotations will say.
    pub ledger: Ledger,
    /// Keys of the data that is there now.
    pub present: Vec<String>,
    /// Labels and annotations that an earlier write put there and that may have to go.
    pub stale: super::view::Owned,
    /// The owner reference has to be set: it is missing, or that of a PAT that is no more.
    pub own: bool,
}

/// What a write puts into a Secret.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is nearly always the large one")]
pub enum Content {
    /// The token, and everything that is made of it.
    Token {
        /// Where the token is.
        token: Source,
        /// Where the previous one is, if it is wanted and there.
        previous: Option<Source>,
        /// What templates may show.
        facts: Facts,
        /// How it looks.
        layout: Layout,
    },
    /// Nothing but labels, annotations and the owner.
    MetadataOnly {
        /// The hash of the data that is there.
        data_hash: String,
        /// The hash of what it was rendered from.
        render_hash: String,
        /// How it looks; `None` leaves labels and annotations as they are.
        layout: Option<Layout>,
    },
    /// No token: what the type requires, empty.
    Blank {
        /// The Secret's type.
        type_: String,
    },
}

/// Where a plain token is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In memory.
    Held {
        /// Its hash, to be certain.
        sha256: String,
    },
    /// In a Secret, in exactly this version.
    Secret {
        /// The Secret.
        target: Target,
        /// Its key.
        key: String,
        /// Its hash, to be certain.
        sha256: String,
    },
    /// A token that is made for a rehearsal and thrown away.
    Throwaway,
}

/// The public facts that a template may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The id of the token.
    pub id: String,
    /// The id of the previous token, if it is shown.
    pub previous_id: Option<String>,
    /// When the token was issued.
    pub issued_at: Time,
    /// The end of the whole token.
    pub expires_at: Option<Time>,
}

impl Facts {
    /// The same for the renderer.
    pub fn borrow(&self) -> super::secret::Facts<'_> {
        super::secret::Facts {
            id: &self.id,
            previous_id: self.previous_id.as_deref(),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
        }
    }
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
        let active = live.iter().find(|credential| credential.state == CredentialState::Active).cloned();
        let holds =
            matches!((&place, &active), (Place::Ours(secret), Some(active)) if self.key_of(secret, active).is_some());
        let wanted = !self.intent.revoked && !self.intent.terms.expired(self.now);

        let need = self.need(&place, active.as_ref(), holds, wanted);
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
        if self.refused() {
            if wipe.is_some() {
                // As long as the dead token stands in the Secret, its death is not recorded: that is what reminds us to wipe it.
                live = self.base.credentials.clone();
                buried.clear();
            }
        } else if secret_step.is_none() {
            secret_step = wipe.or_else(|| self.remove_former(active.is_none() || holds));
        }

        let status = self.status(&place, &live, active.as_ref(), cause.filter(|_| publishing));
        let outcome = self.outcome(&status, active.as_ref(), holds, blocked);
        self.finish(Draft {
            status,
            outcome,
            buried,
            promoted,
            publishing,
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
            .filter(|credential| credential.state == CredentialState::Pending)
            .find(|credential| ours.iter().any(|secret| self.key_of(secret, credential).is_some()))
            .map(|credential| credential.id.clone());
        let promotion = arrived.and_then(|id| {
            let replaced = life::retire_active(live, self.intent.grace, self.now);
            let credential = live.iter_mut().find(|credential| credential.id == id)?;
            credential.state = CredentialState::Active;
            Some(Promotion { arrived: credential.clone(), replaced })
        });
        let floor = ours
            .iter()
            .filter_map(|secret| secret.record.as_ref())
            .filter(|record| record.pat_uid == self.view.pat.uid())
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

    fn former_with(&self, credential: &Credential) -> Option<(&SecretView, &str)> {
        self.view.former.iter().find_map(|secret| Some((secret, self.key_of(secret, credential)?)))
    }

    /// A cache may be behind: before a mint that a glance at the Secret could save, look.
    fn must_look(&self, place: &Place<'_>, need: &Need, none_active: bool) -> bool {
        if self.view.live {
            return false;
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
                absent && (stumbled() || !self.stored.credentials.is_empty() || self.stored.conditions.is_empty())
            }
            _ => absent && stumbled(),
        }
    }

    fn blocked(&self, place: &Place<'_>, need: &Need, live: &[Credential]) -> Option<Blocked> {
        if let Place::Conflict(message) = place {
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
        live.iter().any(|credential| credential.state == CredentialState::Pending && credential.id == held.id.as_str())
    }

    fn mint(&self, place: &Place<'_>, cause: Cause, holds: bool, live: &mut Vec<Credential>) -> Minting {
        let Ok(layout) = &self.intent.layout else { return Minting::Full };
        let usable = self.view.held.filter(|held| {
            let credential = life::credential(self.intent, held, 0);
            // One whose hash was published and is pending no more has arrived, or is dead: it is not published again.
            let used_up = held.published_at.is_some() && !self.is_pending(live, held);
            !used_up && self.intent.terms.judge(&credential, self.now).is_good()
        });
        let orphans = live
            .iter()
            .filter(|credential| credential.state == CredentialState::Pending)
            .any(|credential| usable.is_none_or(|held| held.id.as_str() != credential.id));
        let published = usable.filter(|held| self.is_pending(live, held));
        if published.is_none() && live.len() >= MAX_LIVE_CREDENTIALS {
            // Pending tokens that nobody holds can be dropped once no write for them can land any more.
            return if orphans { Minting::First(self.fence(place)) } else { Minting::Full };
        }
        let Some(held) = usable else {
            if (orphans || self.view.refusal.is_some()) && !self.view.rehearsed {
                let facts = self.facts("000000000000", None);
                let content =
                    Content::Token { token: Source::Throwaway, previous: None, facts, layout: layout.clone() };
                return Minting::First(Step::Rehearse(Box::new(self.secret_write(place, content, live))));
            }
            return Minting::First(Step::Mint(self.intent.prefix.clone()));
        };
        let Some(held) = published else {
            let revision = self.base.revision.unwrap_or_default() + 1;
            live.push(life::credential(self.intent, &held, revision));
            return Minting::Publish;
        };
        let visible_from = held.published_at.unwrap_or(self.now).plus(self.settings.publish_lead);
        if holds && cause == Cause::Rotation && self.now < visible_from {
            return Minting::Wait(visible_from);
        }
        // The Secret's annotations tell how things will be once it is written.
        let mut then = live.clone();
        life::retire_active(&mut then, self.intent.grace, self.now);
        if let Some(arriving) = then.iter_mut().find(|credential| credential.id == held.id.as_str()) {
            arriving.state = CredentialState::Active;
        }
        then.retain(|credential| credential.state != CredentialState::Pending);
        let previous = self.previous(place, &then);
        let facts = self.facts_at(held.id.as_str(), previous.as_ref().map(|(id, _)| id.clone()), held.issued_at);
        let content = Content::Token {
            token: Source::Held { sha256: held.hash.to_string() },
            previous: previous.map(|(_, source)| source),
            facts,
            layout: layout.clone(),
        };
        Minting::Write(Step::WriteSecret(Box::new(self.secret_write(place, content, &then))))
    }

    /// A write that changes nothing but the version, so that no older write can land: then what it would have brought is dead.
    fn fence(&self, place: &Place<'_>) -> Step {
        let content = match place {
            Place::Ours(secret) => {
                let record = secret.record.as_ref();
                Content::MetadataOnly {
                    data_hash: record.map_or_else(|| secret.data_hash(), |record| record.data_hash.clone()),
                    render_hash: record.map(|record| record.render_hash.clone()).unwrap_or_default(),
                    layout: None,
                }
            }
            _ => Content::Blank {
                type_: self.intent.layout.as_ref().map_or("Opaque", |layout| layout.type_.as_str()).to_owned(),
            },
        };
        let live: Vec<_> = self
            .base
            .credentials
            .iter()
            .filter(|credential| credential.state != CredentialState::Pending)
            .cloned()
            .collect();
        Step::WriteSecret(Box::new(self.secret_write(place, content, &live)))
    }

    fn too_many(&self, live: &[Credential]) -> Blocked {
        let next = live.iter().filter_map(|credential| credential.expires_at).min();
        let when = next.map_or_else(String::new, |end| format!(", the next one at {}", end.ceil_second()));
        Blocked::new(
            Reason::TooManyLive,
            format!(
                "{} credentials are live, as many as may be: the next token is issued when one of them has ended{when}; \
                 spec.revokedCredentials ends one at once, a longer rotation.interval or a shorter gracePeriod keeps it from happening",
                live.len()
            ),
            next,
        )
    }

    /// The newest replaced token that is still good, wanted and there.
    fn previous(&self, place: &Place<'_>, live: &[Credential]) -> Option<(String, Source)> {
        let layout = self.intent.layout.as_ref().ok()?;
        if !layout.wants_previous() {
            return None;
        }
        let newest = live
            .iter()
            .filter(|credential| credential.state == CredentialState::Grace)
            .max_by_key(|credential| credential.revision)?;
        let here = match place {
            Place::Ours(secret) => self.key_of(secret, newest).map(|key| (*secret, key)),
            _ => None,
        };
        let (secret, key) = here.or_else(|| self.former_with(newest))?;
        Some((newest.id.clone(), source(secret, key, newest)))
    }

    fn facts(&self, id: &str, previous_id: Option<String>) -> Facts {
        self.facts_at(id, previous_id, self.now)
    }

    fn facts_at(&self, id: &str, previous_id: Option<String>, issued_at: Time) -> Facts {
        Facts { id: id.to_owned(), previous_id, issued_at, expires_at: self.intent.terms.end() }
    }

    fn ledger(&self, live: &[Credential]) -> Ledger {
        Ledger {
            revision: self.base.revision.unwrap_or_default(),
            first_issued_at: self.base.first_issued_at,
            default_expires_at: self.base.default_expires_at,
            live: live.iter().filter(|credential| credential.state != CredentialState::Pending).cloned().collect(),
        }
    }

    fn secret_write(&self, place: &Place<'_>, content: Content, live: &[Credential]) -> SecretWrite {
        let present = match place {
            Place::Ours(secret) => Some(*secret),
            _ => None,
        };
        SecretWrite {
            name: self.name.to_owned(),
            base: present.map(target),
            content,
            ledger: self.ledger(live),
            present: present.map(|secret| secret.data.keys().cloned().collect()).unwrap_or_default(),
            stale: present
                .and_then(|secret| secret.record.as_ref())
                .map(|record| record.owned.clone())
                .unwrap_or_default(),
            own: present.is_none_or(|secret| !secret.is_controlled_by(self.view.pat.uid())),
        }
    }

    /// The live token as it is, rendered anew.
    fn copy(&self, place: &Place<'_>, active: &Credential, live: &[Credential]) -> Option<Step> {
        let layout = self.intent.layout.as_ref().ok()?;
        let here = match place {
            Place::Ours(secret) => self.key_of(secret, active).map(|key| (*secret, key)),
            _ => None,
        };
        let (secret, key) = here.or_else(|| self.former_with(active))?;
        let previous = self.previous(place, live);
        let facts = self.facts_at(&active.id, previous.as_ref().map(|(id, _)| id.clone()), active.issued_at);
        let content = Content::Token {
            token: source(secret, key, active),
            previous: previous.map(|(_, source)| source),
            facts,
            layout: layout.clone(),
        };
        Some(Step::WriteSecret(Box::new(self.secret_write(place, content, live))))
    }

    /// The token is in the Secret: is everything else as it should be?
    fn tend(&self, secret: &SecretView, active: &Credential, live: &[Credential]) -> Option<Step> {
        let layout = self.intent.layout.as_ref().ok()?;
        let place = Place::Ours(secret);
        let previous = self.previous(&place, live);
        let facts = self.facts_at(&active.id, previous.map(|(id, _)| id), active.issued_at);
        let render_hash = layout.render_hash(&facts.borrow());
        let Some(record) = secret.record.as_ref().filter(|record| record.pat_uid == self.view.pat.uid()) else {
            return if self.view.live { self.copy(&place, active, live) } else { Some(Step::Look) };
        };
        if record.render_hash != render_hash {
            return self.copy(&place, active, live);
        }
        let drifted = secret.data_hash() != record.data_hash;
        let changed =
            place::metadata_drifted(secret, layout, self.view.pat.uid()) || self.ledger_is_forged(record, live);
        if (drifted || changed) && !self.view.live {
            return Some(Step::Look);
        }
        if drifted {
            return self.copy(&place, active, live);
        }
        if changed || self.ledger_is_behind(record, live) {
            let content = Content::MetadataOnly {
                data_hash: record.data_hash.clone(),
                render_hash,
                layout: Some(layout.clone()),
            };
            return Some(Step::WriteSecret(Box::new(self.secret_write(&place, content, live))));
        }
        None
    }

    /// The annotations may name a credential that has come to its own end since; nothing else.
    fn ledger_is_behind(&self, record: &super::view::Record, live: &[Credential]) -> bool {
        let dead = |old: &Credential| {
            let known = live.iter().any(|credential| credential.id == old.id);
            !known && old.expires_at.is_none_or(|end| end > self.now)
        };
        // Nothing is being minted here, so nobody holds a token that is still pending; raising the ledger's revision ends it.
        let orphan = |credential: &Credential| {
            credential.state == CredentialState::Pending && credential.revision > record.ledger.revision
        };
        record.ledger.live.iter().any(dead)
            || live.iter().any(orphan)
            || record.ledger.default_expires_at != self.base.default_expires_at
    }

    /// What the annotations say of the living is not what we wrote. A status that is lost would be rebuilt from it.
    fn ledger_is_forged(&self, record: &super::view::Record, live: &[Credential]) -> bool {
        let told = |credential: &Credential| {
            let same = |old: &Credential| {
                (&old.id, &old.sha256, old.revision, old.issued_at)
                    == (&credential.id, &credential.sha256, credential.revision, credential.issued_at)
            };
            credential.state == CredentialState::Pending || record.ledger.live.iter().any(same)
        };
        record.ledger.revision > self.base.revision.unwrap_or_default()
            || record.ledger.first_issued_at != self.base.first_issued_at
            || !live.iter().all(told)
    }

    /// No token is live: none may stand in the Secret.
    fn blank(&self, place: &Place<'_>) -> Option<Step> {
        let Place::Ours(secret) = place else { return None };
        let clean = super::secret::blank(&secret.type_);
        let is_clean = secret.data.len() == clean.iter().count()
            && clean.iter().all(|(key, value)| secret.data.get(key) == Some(&super::view::hash(value)));
        let ledger_is_empty = secret.record.as_ref().is_none_or(|record| {
            record.ledger.live.iter().all(|old| old.expires_at.is_some_and(|end| end <= self.now))
        });
        if is_clean && ledger_is_empty {
            return None;
        }
        let content = Content::Blank { type_: secret.type_.clone() };
        Some(Step::WriteSecret(Box::new(self.secret_write(place, content, &[]))))
    }

    /// What a rename left, once it is not the only place where the token still is.
    fn remove_former(&self, unneeded: bool) -> Option<Step> {
        let former = self.view.former.iter().find(|secret| unneeded && !secret.deleting)?;
        Some(Step::DeleteSecret(target(former)))
    }

    fn status(
        &self,
        place: &Place<'_>,
        live: &[Credential],
        active: Option<&Credential>,
        publishing: Option<Cause>,
    ) -> PersonalAccessTokenStatus {
        let mut status = self.base.clone();
        status.observed_generation = self.view.pat.metadata.generation;
        status.owner = Some(self.intent.owner.clone());
        if let Place::Ours(secret) = place
            && active.is_none_or(|active| self.key_of(secret, active).is_some() || self.former_with(active).is_none())
        {
            status.secret_name = Some(secret.name.clone());
        }
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
            cause,
            secret_step,
            wait_until,
            keep_held,
            place,
        } = draft;
        status.conditions = outcome.conditions(&self.stored.conditions, self.view.pat.metadata.generation, self.now);
        let changed = status != *self.stored;
        let status_first = publishing || promoted.is_some() || !buried.is_empty() || self.restored;
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
                if let Some(promotion) = &promoted
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

    fn secret_events(&self, write: &SecretWrite, place: &Place<'_>) -> Vec<Notice> {
        let Place::Ours(secret) = place else {
            let moved = matches!(&write.content, Content::Token { token: Source::Secret { .. }, .. });
            return if moved { vec![Notice::moved(self.name)] } else { Vec::new() };
        };
        let ours = |record: &super::view::Record| record.pat_uid == self.view.pat.uid();
        let adopted = !secret.record.as_ref().is_some_and(ours) && !secret.is_controlled_by(self.view.pat.uid());
        let drifted = secret.record.as_ref().is_none_or(|record| {
            record.data_hash != secret.data_hash() || !ours(record) || self.ledger_is_forged(record, &write.ledger.live)
        }) || self
            .intent
            .layout
            .as_ref()
            .is_ok_and(|layout| place::metadata_drifted(secret, layout, self.view.pat.uid()));
        let copied =
            !matches!(&write.content, Content::Token { token: Source::Held { .. }, .. } | Content::Blank { .. });
        let same_spec = match (&write.content, &secret.record) {
            (Content::Token { layout, facts, .. }, Some(record)) => {
                record.render_hash == layout.render_hash(&facts.borrow())
            }
            _ => true,
        };
        if drifted && copied && same_spec && self.view.live && !self.restored && !adopted {
            vec![Notice::repaired(self.name, &self.editor())]
        } else {
            Vec::new()
        }
    }
}

/// What minting asks for next.
enum Minting {
    /// This, before anything else.
    First(Step),
    /// The status is to be written, with the new hash.
    Publish,
    /// The hash is published; come back then.
    Wait(Time),
    /// The token goes into the Secret.
    Write(Step),
    /// There is no room.
    Full,
}

struct Promotion {
    arrived: Credential,
    replaced: Option<Credential>,
}

struct Draft<'a> {
    status: PersonalAccessTokenStatus,
    outcome: Outcome,
    buried: Vec<Burial>,
    promoted: Option<Promotion>,
    publishing: bool,
    cause: Option<Cause>,
    secret_step: Option<Step>,
    wait_until: Option<Time>,
    keep_held: bool,
    place: Place<'a>,
}

fn target(secret: &SecretView) -> Target {
    Target { name: secret.name.clone(), uid: secret.uid.clone(), resource_version: secret.resource_version.clone() }
}

fn source(secret: &SecretView, key: &str, credential: &Credential) -> Source {
    Source::Secret { target: target(secret), key: key.to_owned(), sha256: credential.sha256.clone() }
}

fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    a.into_iter().chain(b).min()
}
