//! `kubectl pat wait`: waits until a token is ready, rotated or dead, or until it cannot reach that state.

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::{Instant, interval_at, timeout_at};

use super::{
    cli::{WaitArgs, WaitGoal},
    error::Error,
    output::CommandOutput,
    pat::PatObject,
    session::Session,
    state::{read_terms, token_state, upcoming_events},
    terminal::{Tone, plain},
    time_format,
};
use crate::{
    api::{ConditionType, CredentialState, Time},
    service::explain_api_error,
};

const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Runs the command.
pub async fn run(session: &Session, args: &WaitArgs) -> Result<CommandOutput, Error> {
    wait_until(session, args, None).await
}

/// Waits for a state. A rotation must be newer than `revision`, or than the current token if there is none.
pub async fn wait_until(session: &Session, args: &WaitArgs, mut revision: Option<i64>) -> Result<CommandOutput, Error> {
    let began = Instant::now();
    let limit = Duration::try_from(args.timeout).unwrap_or(PROGRESS_INTERVAL);
    // The watch would retry a refused request forever.
    let first = session.find_pat(&args.name).await?;
    if args.goal == WaitGoal::Rotation && revision.is_none() {
        revision = Some(first.as_ref().map_or(0, |pat| pat.status().revision.unwrap_or_default()));
    }
    let watch = watcher::watch_object(session.pats(Some(&session.namespace)), &args.name).default_backoff();
    pin_mut!(watch);
    let mut progress = interval_at(began + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    let mut seen = String::from("the API server has not responded yet");
    let mut reported = String::new();
    let waiting = async {
        loop {
            tokio::select! {
                Some(event) = watch.next() => match event {
                    Ok(object) => {
                        let pat = object.map(PatObject::parse).transpose()?;
                        let now = session.now();
                        if let Some(text) = check_goal(args, pat.as_ref(), revision, now)? {
                            return Ok(text);
                        }
                        seen = describe(pat.as_ref(), now);
                    }
                    Err(watcher::Error::WatchFailed(error) | watcher::Error::WatchStartFailed(error) | watcher::Error::InitialListFailed(error)) => {
                        seen = explain_api_error(&error);
                    }
                    Err(error) => seen = error.to_string(),
                },
                _ = progress.tick() => if reported != seen {
                    eprintln!("waiting for {} to be {}: {}", args.name, adjective(args.goal), plain(&seen));
                    reported.clone_from(&seen);
                },
            }
        }
    };
    let end = timeout_at(began + limit, waiting).await;
    match end {
        Ok(result) => result.map(|text| CommandOutput::success(format!("{text}\n"))),
        Err(_) => Err(Error::TimedOut(format!(
            "{} is not {} after {}: {}. Run `kubectl pat show {}` for details, or `kubectl pat doctor` to check the operator.",
            args.name,
            adjective(args.goal),
            crate::api::duration::format(args.timeout),
            plain(&seen),
            args.name
        ))),
    }
}

fn adjective(goal: WaitGoal) -> &'static str {
    match goal {
        WaitGoal::Ready => "ready",
        WaitGoal::Rotation => "rotated",
        WaitGoal::Dead => "dead",
    }
}

fn describe(pat: Option<&PatObject>, now: Time) -> String {
    let Some(pat) = pat else { return "it does not exist".to_owned() };
    let state = token_state(pat, now);
    let next = upcoming_events(pat, now).into_iter().find(|next| next.verb == "rotates");
    let next =
        next.map_or_else(String::new, |next| format!("; rotates {}", time_format::format_relative(next.at, now)));
    format!("{}: {}{next}", state.word, state.message)
}

/// Returns the output if the state is reached, or an error if the token cannot reach it without a change by a user.
fn check_goal(
    args: &WaitArgs,
    pat: Option<&PatObject>,
    revision: Option<i64>,
    now: Time,
) -> Result<Option<String>, Error> {
    let name = &args.name;
    let Some(pat) = pat else {
        return Ok((args.goal == WaitGoal::Dead).then(|| format!("{name} does not exist")));
    };
    let (status, state) = (pat.status(), token_state(pat, now));
    let is = |type_: ConditionType| status.conditions.iter().any(|one| one.type_ == type_.as_str() && one.is_true());
    let is_current = status.observed_generation == pat.stored.metadata.generation;
    let is_pending = status.credentials.iter().any(|one| one.state == CredentialState::Pending);
    let is_settled = is_current && is(ConditionType::Ready) && !is(ConditionType::Reconciling) && !is_pending;
    let active = pat.active().map_or_else(String::new, |active| active.id.to_string());
    match args.goal {
        WaitGoal::Dead => {
            let terms = read_terms(pat);
            let is_valid = |one| terms.as_ref().is_some_and(|terms| terms.judge(one, now).is_valid());
            // A token at an issuer may work until the issuer confirms that it is revoked.
            let is_dead = !status.credentials.iter().any(is_valid) && pat.tokens_at_issuer() == 0;
            return Ok((is_dead && status.revision.is_some()).then(|| format!("{name} is dead: {}", state.message)));
        }
        WaitGoal::Ready if is_settled && state.tone != Tone::Bad && state.tone != Tone::Muted => {
            return Ok(Some(format!("{name} is ready: {active}")));
        }
        WaitGoal::Rotation if is_settled && status.revision > revision => {
            return Ok(Some(format!("{name} is rotated: {active}")));
        }
        _ => {}
    }
    // Only a user can change this, so the command does not wait.
    let is_final = state.tone == Tone::Muted;
    if is_final || (is_current && is(ConditionType::Stalled)) {
        return Err(Error::Refused(format!(
            "{name} cannot become {} without a change by you: {}: {}",
            adjective(args.goal),
            state.word,
            plain(&state.message)
        )));
    }
    Ok(None)
}
