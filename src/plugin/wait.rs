//! `kubectl pat wait`: until a token is ready, rotated or dead; or cannot become so any more.

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::{Instant, interval_at, timeout_at};

use super::{
    cli::{Goal, WaitArgs},
    failure::{Answer, Failure},
    pat::Pat,
    session::Session,
    state::{coming, state, terms},
    terminal::{Tone, plain},
};
use crate::{
    api::{ConditionType, CredentialState, Time},
    service::explain_api_error,
};

/// After so long without news a person wants to hear that it goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs it.
pub async fn run(session: &Session, args: &WaitArgs) -> Result<Answer, Failure> {
    until(session, args, None).await
}

/// The same. A rotation is one after `revision`; without it, after what is there first.
pub async fn until(session: &Session, args: &WaitArgs, mut revision: Option<i64>) -> Result<Answer, Failure> {
    let began = Instant::now();
    let limit = Duration::try_from(args.timeout).unwrap_or(PATIENCE);
    // A refusal would be tried again for ever by the watch.
    let first = session.pat_opt(&args.name).await?;
    if args.goal == Goal::Rotation && revision.is_none() {
        revision = Some(first.as_ref().map_or(0, |pat| pat.status().revision.unwrap_or_default()));
    }
    let watch = watcher::watch_object(session.pats(Some(&session.namespace)), &args.name).default_backoff();
    pin_mut!(watch);
    let mut progress = interval_at(began + PATIENCE, PATIENCE);
    let mut seen = String::from("nothing has been seen yet");
    let mut told = String::new();
    let waiting = async {
        loop {
            tokio::select! {
                Some(news) = watch.next() => match news {
                    Ok(object) => {
                        let pat = object.map(Pat::of).transpose()?;
                        let now = session.now();
                        if let Some(text) = reached(args, pat.as_ref(), revision, now)? {
                            return Ok(text);
                        }
                        seen = describe(pat.as_ref(), now);
                    }
                    Err(watcher::Error::WatchFailed(error) | watcher::Error::WatchStartFailed(error) | watcher::Error::InitialListFailed(error)) => {
                        seen = explain_api_error(&error);
                    }
                    Err(error) => seen = error.to_string(),
                },
                _ = progress.tick() => if told != seen {
                    eprintln!("waiting for {} to be {}: {}", args.name, words(args.goal), plain(&seen));
                    told.clone_from(&seen);
                },
            }
        }
    };
    let end = timeout_at(began + limit, waiting).await;
    match end {
        Ok(result) => result.map(|text| Answer::good(format!("{text}\n"))),
        Err(_) => Err(Failure::TimedOut(format!(
            "{} is not {} after {}: {}; kubectl pat show {} tells more, kubectl pat doctor looks at the operator",
            args.name,
            words(args.goal),
            crate::api::duration::format(args.timeout),
            plain(&seen),
            args.name
        ))),
    }
}

fn words(goal: Goal) -> &'static str {
    match goal {
        Goal::Ready => "ready",
        Goal::Rotation => "rotated",
        Goal::Dead => "dead",
    }
}

fn describe(pat: Option<&Pat>, now: Time) -> String {
    let Some(pat) = pat else { return "it does not exist".to_owned() };
    let state = state(pat, now);
    let next = coming(pat, now).into_iter().find(|next| next.word == "rotates");
    let next = next.map_or_else(String::new, |next| format!("; it rotates {}", super::phrase::relative(next.at, now)));
    format!("{}: {}{next}", state.word, state.message)
}

/// What to print if the goal is reached; an error if it cannot be any more.
fn reached(args: &WaitArgs, pat: Option<&Pat>, revision: Option<i64>, now: Time) -> Result<Option<String>, Failure> {
    let name = &args.name;
    let Some(pat) = pat else {
        return Ok((args.goal == Goal::Dead).then(|| format!("{name} is gone")));
    };
    let (status, state) = (pat.status(), state(pat, now));
    let is = |type_: ConditionType| status.conditions.iter().any(|one| one.type_ == type_.as_str() && one.is_true());
    let is_current = status.observed_generation == pat.stored.metadata.generation;
    let is_pending = status.credentials.iter().any(|one| one.state == CredentialState::Pending);
    let rests = is_current && is(ConditionType::Ready) && !is(ConditionType::Reconciling) && !is_pending;
    let active = pat.active().map_or_else(String::new, |active| active.id.to_string());
    match args.goal {
        Goal::Dead => {
            let terms = terms(pat);
            let lives = |one| terms.as_ref().is_some_and(|terms| terms.judge(one, now).is_valid());
            return Ok((!status.credentials.iter().any(lives) && status.revision.is_some())
                .then(|| format!("{name} is dead: {}", state.message)));
        }
        Goal::Ready if rests && state.tone != Tone::Bad && state.tone != Tone::Quiet => {
            return Ok(Some(format!("{name} is ready: {active}")));
        }
        Goal::Rotation if rests && status.revision > revision => {
            return Ok(Some(format!("{name} is rotated: {active}")));
        }
        _ => {}
    }
    // A person has to act first: waiting on would only take the time of whoever waits.
    let ended = matches!(state.tone, Tone::Quiet);
    if ended || (is_current && is(ConditionType::Stalled)) {
        return Err(Failure::Refused(format!(
            "{name} will not be {} by itself: {}: {}",
            words(args.goal),
            state.word,
            plain(&state.message)
        )));
    }
    Ok(None)
}
