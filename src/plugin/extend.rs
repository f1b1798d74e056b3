//! `kubectl pat extend`: another end for a token. No token is issued or replaced by it.

use clap::Args;
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    change::{Wish, change, suffix, tell},
    cli::ChangeArgs,
    expiry::{End, patch, words},
    failure::{Answer, Failure},
    pat::Pat,
    phrase,
    session::Session,
    state::terms,
};
use crate::{
    api::{self, Time, duration},
    cli::subdomain,
};

/// Flags of `extend`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("how").args(["by", "after", "until", "never"]).required(true))]
#[command(after_long_help = "\
It sets spec.expiry; the token stays the same. One that has ended already stays dead: a new one is issued then.

Examples:
  kubectl pat extend ci --by 30d
  kubectl pat extend ci --until 2030-12-31T23:59:59Z
  kubectl pat extend ci --after 180d --dry-run
  kubectl pat extend ci --never")]
pub struct ExtendArgs {
    /// The token's name
    #[arg(value_parser = subdomain)]
    pub name: String,

    /// It ends so much later than now planned, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = api::duration::parse)]
    pub by: Option<SignedDuration>,

    /// The end itself.
    #[command(flatten)]
    pub end: End,

    /// What all changes have.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Runs it.
pub async fn run(session: &Session, args: &ExtendArgs) -> Result<Answer, Failure> {
    let now = session.now();
    let (pat, _, notes) = change(session, &args.name, args.change, |pat| {
        let expiry = match (args.end.expiry(), args.by) {
            (Some(expiry), _) => expiry,
            (None, Some(by)) => later(pat, by)?,
            (None, None) => return Err(Failure::Usage("say which end: --by, --after, --until or --never".into())),
        };
        Ok(Wish { field: "expiry", words: words(&expiry), spec: patch(expiry) })
    })
    .await?;
    tell(&notes);
    let end = terms(&pat).and_then(|terms| terms.end());
    let told = match end {
        Some(end) if end <= now => {
            format!("{} ended at {} and stays dead: that end is in the past", args.name, phrase::both(end, now))
        }
        Some(end) => format!("{} ends at {}", args.name, phrase::both(end, now)),
        None if args.end.after.is_some() => {
            format!("{} ends so long after its first issue, which is yet to come", args.name)
        }
        None => format!("{} has no end", args.name),
    };
    Ok(Answer::good(format!("{told}{}\n", suffix(args.change))))
}

/// The end that is there, moved on; in the words in which it is written, so that a manifest changes in one place.
fn later(pat: &Pat, by: SignedDuration) -> Result<Value, Failure> {
    let expiry = pat.spec().expiry.unwrap_or_default();
    let unreadable = |error: duration::InvalidDuration| Failure::Refused(format!("spec.expiry.after: {error}"));
    if let Some(after) = expiry.after {
        let sum = after.parse().map_err(unreadable)?.saturating_add(by);
        return Ok(json!({"after": duration::format(sum)}));
    }
    let end: Option<Time> = expiry.at.or_else(|| terms(pat)?.end());
    let end = end.ok_or_else(|| {
        Failure::Refused(format!(
            "{} has no end that could be moved (spec.rotation alone has none, nor has one that never was issued); --until or --after sets one",
            pat.name()
        ))
    })?;
    Ok(json!({"at": end.plus(by)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pat(spec: Value, status: Value) -> Pat {
        let object = json!({
            "apiVersion": "pat-operator.io/v1alpha1",
            "kind": "PersonalAccessToken",
            "metadata": {"name": "ci", "namespace": "shop"},
            "spec": spec,
            "status": status,
        });
        Pat::of(serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn an_end_moves_in_the_words_in_which_it_is_written() {
        let by = duration::parse("30d").unwrap();
        for (spec, status, expiry) in [
            (json!({"expiry": {"after": "90d"}}), json!({}), json!({"after": "120d"})),
            (json!({"expiry": {"at": "2030-01-01T00:00:00Z"}}), json!({}), json!({"at": "2030-01-31T00:00:00Z"})),
            (json!({}), json!({"defaultExpiresAt": "2030-01-01T00:00:00Z"}), json!({"at": "2030-01-31T00:00:00Z"})),
        ] {
            assert_eq!(later(&pat(spec.clone(), status), by).unwrap(), expiry, "{spec}");
        }
        for spec in [json!({"expiry": {"never": true}}), json!({"rotation": {"interval": "1d"}})] {
            let error = later(&pat(spec, json!({})), by).unwrap_err().to_string();
            assert!(error.contains("no end that could be moved") && error.contains("--until"), "{error}");
        }
    }

    #[test]
    fn another_kind_of_end_leaves_nothing_of_the_first() {
        let patch = patch(json!({"after": "9d"}));
        assert_eq!(patch, json!({"expiry": {"at": null, "after": "9d", "never": null}}));
        assert_eq!(words(&patch["expiry"]), "expiry: {after: \"9d\"}");
    }
}
