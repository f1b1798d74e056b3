//! The planner: decides the next step for one token. Pure, synchronous and total; it reads no clock, draws no random number and does no I/O.
//!
//! [`plan`] returns **one** step. The caller performs it, observes the result and plans again. Whatever happens between two steps (a
//! crash, another writer, a paused process), the next plan starts from the observed state.
//!
//! ```text
//! observed + spec + status                                            intent.rs, observed.rs
//!   -> correction: values that the controller never writes            correction.rs
//!   -> lifecycle: which credentials are live, which have ended        lifecycle.rs
//!   -> ownership: may the Secret be written?                          ownership.rs, rename.rs
//!   -> delivery:  has a one-time token been taken?                    delivery.rs
//!   -> need and what blocks it                                        situation.rs, blocked.rs
//!   -> the first rule that applies                                    rules.rs
//!   -> status, conditions, events                                     status.rs, conditions.rs, events.rs
//! ```
//!
//! To find out why something happens, start with the list in `rules.rs`. `content.rs` builds the writes to the Secret, `drift.rs`
//! compares the Secret with what was written, [`damage`] says what differs, [`repairs`] delays repairs that something undoes, [`remote`]
//! has what differs for tokens of other systems, and [`simulate`] performs plans in memory.

mod blocked;
mod conditions;
mod content;
mod correction;
pub mod damage;
mod delivery;
mod drift;
mod events;
mod inputs;
pub mod intent;
mod lifecycle;
mod minting;
pub mod observed;
pub mod orphans;
mod ownership;
pub mod remote;
#[cfg(test)]
mod remote_tests;
mod rename;
pub mod repairs;
mod rules;
pub mod simulate;
mod situation;
pub mod sorted_map;
mod status;
mod step;
#[cfg(test)]
mod tests;

pub use delivery::DELIVERY_WINDOW;
pub use events::{EventReason, EventToPublish};
pub use step::{
    RemoteDeletion, RemoteRequest, SecretContent, SecretVersion, SecretWrite, Step, TokenFacts, TokenSource,
};

use k8s_openapi::jiff::SignedDuration;

use self::{
    conditions::Conditions,
    inputs::Inputs,
    intent::ControllerConfig,
    observed::Observed,
    rules::Action,
    situation::{Situation, Unplannable},
};
use crate::api::{InvalidField, PersonalAccessTokenStatus, Reason, Time};

/// The maximum number of unplanned mints within [`BREAKER_WINDOW`].
pub const BREAKER_MINTS: usize = 3;

/// See [`BREAKER_MINTS`].
pub const BREAKER_WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// With a larger difference between the clocks of the controller and the API server, no token is issued.
pub const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// One step, with its events and the time of the next plan.
#[derive(Debug)]
pub struct Plan {
    /// What to do now.
    pub step: Step,
    /// The events to publish once the step has succeeded.
    pub events: Vec<EventToPublish>,
    /// When to plan again even if nothing changes; meaningful with [`Step::Rest`].
    pub wake_at: Option<Time>,
    /// Whether the token held in memory is still needed.
    pub keep_held: bool,
}

impl Plan {
    fn new(step: Step) -> Self {
        Self { step, events: Vec::new(), wake_at: None, keep_held: false }
    }
}

/// Plans the next step for one token at one instant.
pub fn plan(observed: &Observed<'_>, config: &ControllerConfig, now: Time) -> Plan {
    match Inputs::read(observed, config, now) {
        Ok(inputs) => {
            let situation = Situation::derive(inputs);
            let action = rules::first_that_applies(&situation);
            conclude(&situation, action)
        }
        Err(Unplannable::LeaveAlone) => Plan::new(Step::Rest),
        Err(Unplannable::InvalidSpec(stored, problem)) => report_invalid_spec(observed, stored, now, &problem),
    }
}

/// Turns an action into a step: decides whether the status is written before or after the Secret, and which events go with it.
fn conclude(situation: &Situation<'_>, action: Action) -> Plan {
    let keep_held = situation.needs_held_token();
    let action = match action.into_preparation(keep_held) {
        Ok(plan) => return plan,
        Err(action) => action,
    };
    let (status, conditions) = status::next(situation, &action);
    let changed = status != *situation.stored;
    let record_first = changed && situation.must_record_first();
    let plan = |step, events| Plan { step, events, wake_at: None, keep_held };
    match action {
        Action::WriteSecret(write) if !record_first => {
            let events = events::of_write(situation, &write);
            plan(Step::WriteSecret(write), events)
        }
        // The Secret is cleared before the end of the token is recorded. After it, nothing would show that the token is
        // still in the Secret.
        Action::ClearSecret(write) => plan(Step::WriteSecret(write), Vec::new()),
        Action::DeleteSecret(version) if !record_first => {
            let events = events::of_deletion(situation, &version);
            plan(Step::DeleteSecret(version), events)
        }
        Action::DeleteDeliveredSecret(version) if !changed => plan(Step::DeleteSecret(version), Vec::new()),
        Action::DeleteImmutableSecret(version) if !changed => {
            let events = vec![EventToPublish::immutable_deleted(situation, &version)];
            plan(Step::DeleteSecret(version), events)
        }
        Action::RemoveFinalizer if !changed => {
            let events = events::of_release(situation);
            plan(Step::RemoveFinalizer(Vec::new()), events)
        }
        action if changed => {
            let events = events::of_status(situation, &action, &conditions);
            plan(Step::WriteStatus(Box::new(status)), events)
        }
        action => {
            let is_blocked = situation.blocked.is_some();
            let due = lifecycle::next_wake(situation, &status, is_blocked, conditions.blocked_until());
            let wake_at = due.into_iter().chain(action.wait_until()).min();
            Plan { step: Step::Rest, events: Vec::new(), wake_at, keep_held }
        }
    }
}

/// Reports an invalid spec, and changes nothing else.
fn report_invalid_spec(
    observed: &Observed<'_>,
    stored: &PersonalAccessTokenStatus,
    now: Time,
    problem: &InvalidField,
) -> Plan {
    let mut status = stored.clone();
    status.observed_generation = observed.pat.metadata.generation;
    let conditions = Conditions::stalled(Reason::InvalidSpec, problem.to_string());
    status.conditions = conditions.list(&stored.conditions, observed.pat.metadata.generation, now);
    if status == *stored {
        return Plan::new(Step::Rest);
    }
    let events = conditions.events(&stored.conditions);
    Plan { events, ..Plan::new(Step::WriteStatus(Box::new(status))) }
}
