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
    spec_change::{SpecChange, apply_change, dry_run_suffix, print_notes},
    terminal,
};
use crate::api::Time;

/// The maximum number of items in spec.revokedCredentials.
const MAX_IDS: usize = 8;

/// How long `--undo` waits until the controller has recorded the revocation. Until then, the API server refuses to take it back.
const RECORD_LIMIT: Duration = Duration::from_secs(10);

/// Runs the command.
pub async fn run(session: &Session, args: &RevokeArgs) -> Result<CommandOutput, Error> {
    let now = session.cluster_now().await?;
    if !args.undo && !args.yes && !args.change.dry_run {
        confirm(session, args)?;
    }
    let mut text = String::new();
    for name in &args.names {
        if args.undo {
            wait_until_recorded(session, name).await;
        }
        let changed = apply_change(session, name, args.change, |pat| revocation(args, pat, now)).await?;
        print_notes(&changed.notes);
        let result = match () {
            () if args.undo => "is no longer revoked; a new token is issued",
            () if args.reissue => "revoked; a new token is issued",
            () if !args.id.is_empty() => "credential revoked",
            () => "revoked; no new token is issued",
        };
        let is_full = !args.undo && changed.change.field == "revoked";
        let suspended =
            if is_full && changed.pat.spec().suspend == Some(true) { " (the token was also suspended)" } else { "" };
        text.push_str(&format!("{name} {result}{suspended}{}\n", dry_run_suffix(args.change)));
    }
    Ok(CommandOutput::success(text))
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
fn confirm(session: &Session, args: &RevokeArgs) -> Result<(), Error> {
    let names = args.names.join(", ");
    if !terminal::can_ask() {
        return Err(Error::Usage(format!(
            "programs that use {names} stop working at once; use --yes to confirm the revocation"
        )));
    }
    let question =
        format!("Programs that use {names} in namespace {} stop working at once. Revoke?", session.namespace);
    match terminal::confirm(&question) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Refused("revocation not confirmed, nothing was changed".into())),
        Err(error) => Err(Error::io("terminal")(error)),
    }
}

fn revocation(args: &RevokeArgs, pat: &PatObject, now: Time) -> Result<SpecChange, Error> {
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
    let spared: Vec<_> = live.iter().filter(|one| one.issued_at >= now).map(|one| one.id.to_string()).collect();
    if !spared.is_empty() {
        let ids = with_ids(pat, spared);
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
    Ok(with_ids(pat, args.id.iter().map(|id| id.to_string())))
}

fn live_ids(pat: &PatObject) -> Vec<String> {
    pat.status().credentials.into_iter().map(|one| one.id.to_string()).collect()
}

fn with_ids(pat: &PatObject, more: impl IntoIterator<Item = String>) -> Vec<String> {
    let (live, mut ids) = (live_ids(pat), pat.spec().revoked_credentials);
    for id in more {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    // Entries of credentials that no longer exist have no effect.
    while ids.len() > MAX_IDS {
        let Some(stale) = ids.iter().position(|id| !live.contains(id)) else { break };
        ids.remove(stale);
    }
    ids
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

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
            assert!(ids.len() <= MAX_IDS && ids.contains(&json!("aaaaaaaaaaaa")), "{ids:?}");
            assert!(future.manifest.contains("revokedCredentials: ["), "{}", future.manifest);
        }
    }
}
