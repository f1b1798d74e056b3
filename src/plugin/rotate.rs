//! `kubectl pat rotate`: issues new tokens now. The old tokens stay valid for their grace period.

use std::{cell::RefCell, collections::BTreeMap};

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::{
    cli::{RotateArgs, WaitArgs, WaitGoal},
    error::Error,
    output::CommandOutput,
    pat::PatObject,
    session::Session,
    spec_change::{SpecChange, apply_change, dry_run_suffix, print_notes, refuse_if_deleted},
    state::token_state,
    targets::{self, Action, Outcomes, Target},
    wait,
};
use crate::api::Time;

/// A token issued up to this long after the cluster's time, which is known to the second, was issued just now.
const JUST_NOW: SignedDuration = SignedDuration::from_secs(5);

/// What the command does to tokens that a selector finds. A revoked token has nothing to rotate.
const ACTION: Action = Action {
    verb: "Rotate",
    consequence: "Replaced tokens stay valid for their grace period. ",
    applies: |pat| pat.spec().revoked != Some(true),
};

/// Runs the command.
pub async fn run(session: &Session, args: &RotateArgs) -> Result<CommandOutput, Error> {
    let now = session.cluster_now().await?;
    let targets = targets::find(session, &args.targets, args.change.dry_run, &ACTION).await?;
    let revisions = RefCell::new(BTreeMap::new());
    let request = async |session: &Session, target: &Target| {
        let changed = apply_change(session, target, args.change, |pat| rotation(pat, now)).await?;
        print_notes(&changed.notes);
        let suspended = if changed.pat.spec().suspend == Some(true) {
            "; no token is issued while spec.suspend is true"
        } else {
            ""
        };
        let revision = changed.pat.status().revision.unwrap_or_default();
        revisions.borrow_mut().insert((target.namespace.clone(), target.name.clone()), revision);
        Ok(format!("rotation requested{}{suspended}", dry_run_suffix(args.change)))
    };
    let mut outcomes = Outcomes::of(session, targets, request).await;
    if args.wait {
        let wait = async |session: &Session, target: &Target| {
            let revision = revisions.borrow().get(&(target.namespace.clone(), target.name.clone())).copied();
            let goal = WaitArgs { name: target.name.clone(), goal: WaitGoal::Rotation, timeout: args.timeout };
            let output = wait::wait_until(session, &goal, revision).await?;
            Ok(output.text.trim_start_matches(&*target.name).trim().to_owned())
        };
        outcomes = outcomes.then(session, wait).await;
    }
    outcomes.describe(&args.targets, session.paint, "rotated")
}

fn rotation(pat: &PatObject, now: Time) -> Result<SpecChange, Error> {
    let name = pat.name();
    refuse_if_deleted(pat)?;
    if pat.spec().revoked == Some(true) {
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
