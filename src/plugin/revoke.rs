//! `kubectl pat revoke`: ends all tokens of an object or one credential at once, and issues a new token on request.

use std::time::Duration;

use kube::{api::DynamicObject, runtime::wait::await_condition};
use serde_json::json;
use tokio::time::timeout;

use super::{
    cli::RevokeArgs,
    error::Error,
    output::CommandOutput,
    pat::PatObject,
    session::Session,
    spec_change::{ChangedPat, SpecChange, apply_change, dry_run_suffix, print_notes, refuse_if_deleted},
    state::read_terms,
    targets::{self, Action, Outcomes, Target, TargetArgs},
    terminal,
};
use crate::api::{Time, with_revoked};

/// How long `--undo` waits until the controller has recorded the revocation. Until then, the API server refuses to take it back.
const RECORD_LIMIT: Duration = Duration::from_secs(10);

/// Runs the command.
pub async fn run(session: &Session, args: &RevokeArgs) -> Result<CommandOutput, Error> {
    let now = session.cluster_now().await?;
    let TargetArgs { names, yes, .. } = &args.targets;
    if !names.is_empty() && !args.undo && !yes && !args.change.dry_run {
        confirm(session, names)?;
    }
    let targets = targets::find(session, &args.targets, args.change.dry_run, action(args)).await?;
    let revoke = async |session: &Session, target: &Target| {
        if args.undo {
            wait_until_recorded(session, &target.name).await;
        }
        let changed = apply_change(session, target, args.change, |pat| revocation(args, pat, now)).await?;
        print_notes(&changed.notes);
        Ok(format!("{}{}", describe_result(args, &changed, now), dry_run_suffix(args.change)))
    };
    let outcomes = Outcomes::of(session, targets, revoke).await;
    outcomes.describe(&args.targets, session.paint, if args.undo { "changed" } else { "revoked" })
}

/// What the command does to tokens that a selector finds.
fn action(args: &RevokeArgs) -> &'static Action {
    const REVOKE: Action = Action {
        verb: "Revoke",
        consequence: "Programs that use these tokens stop working at once. ",
        applies: |pat| pat.spec().revoked != Some(true),
    };
    const UNDO: Action = Action {
        verb: "Undo the revocation of",
        consequence: "New tokens are issued. ",
        applies: |pat| pat.spec().revoked == Some(true),
    };
    if args.undo { &UNDO } else { &REVOKE }
}

/// Describes the result, in the state of the object after the change.
fn describe_result(args: &RevokeArgs, changed: &ChangedPat, now: Time) -> String {
    let spec = changed.pat.spec();
    let issued = match () {
        () if spec.revoked == Some(true) => "no new token is issued while spec.revoked is true",
        () if spec.suspend == Some(true) => "no new token is issued while spec.suspend is true",
        () if read_terms(&changed.pat).is_some_and(|terms| terms.expired(now)) => {
            "no new token is issued, because the token expired; change that with kubectl pat extend"
        }
        () => "a new token is issued",
    };
    match () {
        () if args.undo && !changed.is_changed => "was not revoked; nothing was changed".to_owned(),
        () if args.undo => format!("is no longer revoked; {issued}"),
        () if args.reissue => format!("revoked; {issued}"),
        () if !args.id.is_empty() => "credential revoked".to_owned(),
        () if spec.suspend == Some(true) => "revoked; no new token is issued (the token was also suspended)".to_owned(),
        () => "revoked; no new token is issued".to_owned(),
    }
}

/// Waits until the controller has recorded the revocation. If that takes too long or the user may not watch, the API server says why it
/// refuses the change.
async fn wait_until_recorded(session: &Session, name: &str) {
    let is_recorded = |pat: Option<&DynamicObject>| {
        pat.is_none_or(|pat| {
            pat.data["spec"]["revoked"] != true
                || pat.data["status"]["credentials"].as_array().is_none_or(|list| list.is_empty())
        })
    };
    let recorded = await_condition(session.pats(Some(&session.namespace)), name, is_recorded);
    let _either_way = timeout(RECORD_LIMIT, recorded).await;
}

/// Asks the user to confirm. Without a terminal, `--yes` is required.
fn confirm(session: &Session, names: &[String]) -> Result<(), Error> {
    let names = names.join(", ");
    let question =
        format!("Programs that use {names} in namespace {} stop working at once. Revoke?", session.namespace);
    terminal::confirm(&question, || {
        format!("programs that use {names} stop working at once; use --yes to confirm the revocation")
    })
}

fn revocation(args: &RevokeArgs, pat: &PatObject, now: Time) -> Result<SpecChange, Error> {
    if args.undo || args.reissue {
        refuse_if_deleted(pat)?;
    }
    if args.undo {
        // An absent field means the same as false, and leaves no difference to the manifest in Git.
        return Ok(SpecChange { field: "revoked", patch: json!({"revoked": null}), manifest: "revoked: false".into() });
    }
    if args.reissue {
        return Ok(reissue(pat, now));
    }
    if args.id.is_empty() {
        return Ok(SpecChange { field: "revoked", patch: json!({"revoked": true}), manifest: "revoked: true".into() });
    }
    let ids = revoked_ids(args, pat)?;
    let manifest = format!("revokedCredentials: [{}]", ids.join(", "));
    Ok(SpecChange { field: "revokedCredentials", patch: json!({"revokedCredentials": ids}), manifest })
}

/// Revokes every token issued until now. A token whose issue lies in the future, because a clock was ahead, is named too: that needs no
/// clock.
fn reissue(pat: &PatObject, now: Time) -> SpecChange {
    let mut patch = json!({"revokeIfIssuedBefore": now});
    let mut manifest = format!("revokeIfIssuedBefore: {now}");
    let live = pat.status().credentials;
    let spared: Vec<_> = live.iter().filter(|one| one.issued_at >= now).map(|one| one.id.as_str()).collect();
    if !spared.is_empty() {
        let ids = with_ids(pat, &spared);
        manifest.push_str(&format!(", revokedCredentials: [{}]", ids.join(", ")));
        patch["revokedCredentials"] = json!(ids);
    }
    SpecChange { field: "revokeIfIssuedBefore", patch, manifest }
}

/// Returns spec.revokedCredentials with the given IDs added.
fn revoked_ids(args: &RevokeArgs, pat: &PatObject) -> Result<Vec<String>, Error> {
    let live = live_ids(pat);
    for id in &args.id {
        if !live.iter().any(|one| one == id.as_str()) {
            return Err(Error::NotFound(format!(
                "{}: no valid credential {id}; valid credentials: {}",
                pat.name(),
                if live.is_empty() { "none".to_owned() } else { live.join(", ") }
            )));
        }
    }
    Ok(with_ids(pat, &args.id.iter().map(AsRef::as_ref).collect::<Vec<_>>()))
}

fn live_ids(pat: &PatObject) -> Vec<String> {
    pat.status().credentials.into_iter().map(|one| one.id.to_string()).collect()
}

fn with_ids(pat: &PatObject, more: &[&str]) -> Vec<String> {
    let (listed, live) = (pat.spec().revoked_credentials, live_ids(pat));
    let ids = with_revoked(&listed, more, |id| live.iter().any(|live| live == id));
    ids.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::api::MAX_LIVE_CREDENTIALS;

    #[test]
    fn reissue_names_tokens_whose_issue_lies_in_the_future() {
        let change = |issued_at: &str, listed: Value| {
            let credential = json!({
                "id": "aaaaaaaaaaaa", "revision": 1, "sha256": "0".repeat(64), "state": "Active", "issuedAt": issued_at,
            });
            let object = json!({
                "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": "ci"},
                "spec": {"revokedCredentials": listed}, "status": {"credentials": [credential]},
            });
            let pat = PatObject::parse(serde_json::from_value(object).unwrap()).unwrap();
            reissue(&pat, "2030-01-01T00:00:00Z".parse().unwrap())
        };
        let past = change("2029-12-31T23:59:59Z", json!([]));
        assert_eq!(past.patch, json!({"revokeIfIssuedBefore": "2030-01-01T00:00:00Z"}));
        let full: Vec<_> = (0..8).map(|number| format!("bbbbbbbbbbb{number}")).collect();
        for (issued_at, listed) in [("2030-01-01T00:00:20Z", json!([])), ("2030-01-03T00:00:00Z", json!(full))] {
            let future = change(issued_at, listed);
            let ids = future.patch["revokedCredentials"].as_array().expect("it names tokens");
            assert!(ids.len() <= MAX_LIVE_CREDENTIALS && ids.contains(&json!("aaaaaaaaaaaa")), "{ids:?}");
            assert!(future.manifest.contains("revokedCredentials: ["), "{}", future.manifest);
        }
    }
}
