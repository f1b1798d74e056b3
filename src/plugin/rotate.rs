//! `kubectl pat rotate`: a new token now, and the old one works on for its grace period.

use serde_json::json;

use super::{
    change::{Wish, change, suffix, tell},
    cli::{Goal, RotateArgs, WaitArgs},
    failure::{Answer, Exit, Failure},
    session::Session,
    state::state,
    wait,
};

/// Runs it.
pub async fn run(session: &Session, args: &RotateArgs) -> Result<Answer, Failure> {
    let now = session.cluster_now().await?;
    let mut text = String::new();
    let mut before = Vec::new();
    for name in &args.names {
        let (pat, _, notes) = change(session, name, args.change, |pat| {
            let state = state(pat, now);
            if pat.spec().revoked == Some(true) || pat.stored.metadata.deletion_timestamp.is_some() {
                return Err(Failure::Refused(format!("{name} cannot be rotated: {}", state.message)));
            }
            if let Some(active) = pat.active().filter(|active| active.issued_at >= now) {
                return Err(Failure::Refused(format!(
                    "token {} of {name} was issued just now: there is nothing to replace",
                    active.id
                )));
            }
            let words = format!("rotateIfIssuedBefore: {now}");
            Ok(Wish { field: "rotateIfIssuedBefore", spec: json!({"rotateIfIssuedBefore": now}), words })
        })
        .await?;
        tell(&notes);
        let then = if pat.spec().suspend == Some(true) {
            "; spec.suspend is true: nothing is issued until it is false"
        } else {
            ""
        };
        text.push_str(&format!("{name} is to be rotated{}{then}\n", suffix(args.change)));
        before.push((name, pat.status().revision.unwrap_or_default()));
    }
    if !args.wait {
        return Ok(Answer::good(text));
    }
    for (name, revision) in before {
        let args = WaitArgs { name: name.clone(), goal: Goal::Rotation, timeout: args.timeout };
        let answer = wait::until(session, &args, Some(revision)).await?;
        text.push_str(&answer.text);
        if answer.exit != Exit::Good {
            return Ok(Answer::with(text, answer.exit));
        }
    }
    Ok(Answer::good(text))
}
