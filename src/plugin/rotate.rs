//! `kubectl pat rotate`: issues a new token now. The old token stays valid for its grace period.

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::{
    cli::{RotateArgs, WaitArgs, WaitGoal},
    error::Error,
    output::{CommandOutput, Exit},
    pat::PatObject,
    session::Session,
    spec_change::{SpecChange, apply_change, dry_run_suffix, print_notes},
    state::token_state,
    wait,
};
use crate::api::Time;

/// A token issued up to this long after the cluster's time, which is known to the second, was issued just now.
const JUST_NOW: SignedDuration = SignedDuration::from_secs(5);

/// Runs the command.
pub async fn run(session: &Session, args: &RotateArgs) -> Result<CommandOutput, Error> {
    let now = session.cluster_now().await?;
    let mut text = String::new();
    let mut revisions = Vec::new();
    for name in &args.names {
        let changed = apply_change(session, name, args.change, |pat| rotation(pat, now)).await?;
        print_notes(&changed.notes);
        let suspended = if changed.pat.spec().suspend == Some(true) {
            "; no token is issued while spec.suspend is true"
        } else {
            ""
        };
        text.push_str(&format!("{name} rotation requested{}{suspended}\n", dry_run_suffix(args.change)));
        revisions.push((name, changed.pat.status().revision.unwrap_or_default()));
    }
    if !args.wait {
        return Ok(CommandOutput::success(text));
    }
    for (name, revision) in revisions {
        let args = WaitArgs { name: name.clone(), goal: WaitGoal::Rotation, timeout: args.timeout };
        let output = wait::wait_until(session, &args, Some(revision)).await?;
        text.push_str(&output.text);
        if output.exit != Exit::Success {
            return Ok(CommandOutput::with_exit(text, output.exit));
        }
    }
    Ok(CommandOutput::success(text))
}

fn rotation(pat: &PatObject, now: Time) -> Result<SpecChange, Error> {
    let name = pat.name();
    if pat.spec().revoked == Some(true) || pat.stored.metadata.deletion_timestamp.is_some() {
        return Err(Error::Refused(format!("{name}: cannot be rotated: {}", token_state(pat, now).message)));
    }
    if let Some(active) = pat.active().filter(|active| active.issued_at >= now) {
        return Err(Error::Refused(if active.issued_at.since(now) < JUST_NOW {
            format!("{name}: token {} was issued just now, so there is no older token to rotate", active.id)
        } else {
            format!(
                "{name}: the issue of token {} lies in the future ({}), because a clock was ahead, so its rotation cannot be requested by time; replace it at once with `kubectl pat revoke {name} --reissue`",
                active.id, active.issued_at
            )
        }));
    }
    Ok(SpecChange {
        field: "rotateIfIssuedBefore",
        patch: json!({"rotateIfIssuedBefore": now}),
        manifest: format!("rotateIfIssuedBefore: {now}"),
    })
}
