//! `kubectl pat revoke`: dead at once, all of it or one credential, with a new token or without.

use serde_json::json;

use super::{
    change::{Wish, change, suffix, tell},
    cli::RevokeArgs,
    failure::{Answer, Failure},
    pat::Pat,
    session::Session,
    terminal,
};
use crate::api::Time;

/// As many ids as spec.revokedCredentials takes.
const MOST_IDS: usize = 8;

/// Runs it.
pub async fn run(session: &Session, args: &RevokeArgs) -> Result<Answer, Failure> {
    let now = session.cluster_now().await?;
    if !args.undo && !args.yes && !args.change.dry_run {
        ask(session, args).await?;
    }
    let mut text = String::new();
    for name in &args.names {
        let (pat, wish, notes) = change(session, name, args.change, |pat| wish(args, pat, now)).await?;
        tell(&notes);
        let what = match () {
            () if args.undo => "is not revoked any more: a new token is issued",
            () if args.reissue => "is revoked: every token of before is dead, and a new one is issued",
            () if !args.id.is_empty() => "lost the credential that was named: it is dead",
            () => "is revoked: every token is dead, and none is issued",
        };
        let late = if args.undo || wish.field != "revoked" || pat.spec().suspend != Some(true) {
            ""
        } else {
            " (it was suspended as well)"
        };
        text.push_str(&format!("{name} {what}{late}{}\n", suffix(args.change)));
    }
    Ok(Answer::good(text))
}

/// What is revoked breaks somebody; whoever is not there to be asked says so by a flag.
async fn ask(session: &Session, args: &RevokeArgs) -> Result<(), Failure> {
    let names = args.names.join(", ");
    if !terminal::can_ask() {
        return Err(Failure::Usage(format!("whoever uses {names} breaks at once: add --yes if that is wanted")));
    }
    let question = format!("Whoever uses {names} in namespace {} breaks at once. Revoke?", session.namespace);
    match terminal::confirm(&question) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Refused("nothing was changed".into())),
        Err(error) => Err(Failure::io("the terminal")(error)),
    }
}

fn wish(args: &RevokeArgs, pat: &Pat, now: Time) -> Result<Wish, Failure> {
    if args.undo {
        // Nothing is the same as false, and leaves nothing behind that would differ from Git.
        return Ok(Wish { field: "revoked", spec: json!({"revoked": null}), words: "no spec.revoked".into() });
    }
    if args.reissue {
        let words = format!("revokeIfIssuedBefore: {now}");
        return Ok(Wish { field: "revokeIfIssuedBefore", spec: json!({"revokeIfIssuedBefore": now}), words });
    }
    if args.id.is_empty() {
        return Ok(Wish { field: "revoked", spec: json!({"revoked": true}), words: "revoked: true".into() });
    }
    let live: Vec<String> = pat.status().credentials.into_iter().map(|one| one.id.to_string()).collect();
    let mut ids = pat.spec().revoked_credentials;
    for id in &args.id {
        if !live.iter().any(|one| one == id.as_str()) {
            return Err(Failure::NotFound(format!(
                "{} has no live credential {id}; it has: {}",
                pat.name(),
                if live.is_empty() { "none".to_owned() } else { live.join(", ") }
            )));
        }
        if !ids.iter().any(|one| one == id.as_str()) {
            ids.push(id.to_string());
        }
    }
    // What is dead for good needs no entry any more.
    while ids.len() > MOST_IDS {
        let Some(gone) = ids.iter().position(|id| !live.contains(id)) else { break };
        ids.remove(gone);
    }
    let words = format!("revokedCredentials: [{}]", ids.join(", "));
    Ok(Wish { field: "revokedCredentials", spec: json!({"revokedCredentials": ids}), words })
}
