//! `kubectl pat extend`: changes when a token expires. It does not issue or rotate a token.

use clap::Args;
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    cli::{ChangeArgs, parse_time},
    error::Error,
    output::CommandOutput,
    pat::PatObject,
    session::Session,
    spec_change::{SpecChange, apply_change, dry_run_suffix, print_notes, refuse_if_deleted},
    state::read_terms,
    targets::Target,
    time_format,
};
use crate::{
    api::{self, LengthOfTime, Time, duration},
    cli::subdomain,
};

/// The flags that set an expiry. At most one is allowed.
#[derive(Clone, Debug, Default, Args)]
#[group(multiple = false)]
pub struct ExpiryArgs {
    /// Expire this long after the first token is issued, such as 90d; rotations do not change it
    #[arg(long, value_name = "DURATION")]
    pub after: Option<LengthOfTime>,

    /// Expire at this time, such as 2030-12-31T23:59:59Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<Time>,

    /// Never expire
    #[arg(long)]
    pub never: bool,
}

impl ExpiryArgs {
    /// Returns the value of `spec.expiry`, or `None` if no flag was given.
    pub fn expiry(&self) -> Option<Value> {
        match self {
            Self { after: Some(after), .. } => Some(json!({"after": after})),
            Self { until: Some(until), .. } => Some(json!({"at": until})),
            Self { never: true, .. } => Some(json!({"never": true})),
            _ => None,
        }
    }
}

/// Flags of `extend`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("how").args(["by", "after", "until", "never"]).required(true))]
#[command(after_long_help = "\
Sets spec.expiry. The token itself does not change. An expired token stays invalid; if you extend it, a new token is issued.

Examples:
  kubectl pat extend ci --by 30d
  kubectl pat extend ci --until 2030-12-31T23:59:59Z
  kubectl pat extend ci --after 180d --dry-run
  kubectl pat extend ci --never")]
pub struct ExtendArgs {
    /// Name of the token
    #[arg(value_parser = subdomain)]
    pub name: String,

    /// Expire this much later than now planned, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = api::duration::parse)]
    pub by: Option<SignedDuration>,

    /// The other flags that set an expiry.
    #[command(flatten)]
    pub expiry: ExpiryArgs,

    /// The shared flags.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Runs the command.
pub async fn run(session: &Session, args: &ExtendArgs) -> Result<CommandOutput, Error> {
    let now = session.now();
    let target = Target::named(session, &args.name);
    let changed = apply_change(session, &target, args.change, |pat| {
        refuse_if_deleted(pat)?;
        let expiry = match (args.expiry.expiry(), args.by) {
            (Some(expiry), _) => expiry,
            (None, Some(by)) => extended(pat, by)?,
            (None, None) => return Err(Error::Usage("pass one of --by, --after, --until and --never".into())),
        };
        Ok(SpecChange { field: "expiry", manifest: expiry_line(&expiry), patch: expiry_patch(expiry) })
    })
    .await?;
    print_notes(&changed.notes);
    let name = &args.name;
    let end = read_terms(&changed.pat).and_then(|terms| terms.end());
    let result = match end {
        Some(end) if end <= now => {
            format!("{name} expired at {}; choose an expiry in the future", time_format::format_time(end, now))
        }
        Some(end) => format!("{name} expires at {}", time_format::format_time(end, now)),
        None if args.expiry.after.is_some() => format!("{name} expires that long after its first token is issued"),
        None => format!("{name} never expires"),
    };
    Ok(CommandOutput::success(format!("{result}{}\n", dry_run_suffix(args.change))))
}

/// Returns the current expiry plus `by`. It keeps the kind of the expiry, so that the same line of the manifest changes.
fn extended(pat: &PatObject, by: SignedDuration) -> Result<Value, Error> {
    let expiry = pat.spec().expiry.unwrap_or_default();
    let invalid = |error: duration::InvalidDuration| Error::Refused(format!("spec.expiry.after: {error}"));
    if let Some(after) = expiry.after {
        let sum = after.parse().map_err(invalid)?.saturating_add(by);
        return Ok(json!({"after": duration::format(sum)}));
    }
    let end: Option<Time> = expiry.at.or_else(|| read_terms(pat)?.end());
    let end = end.ok_or_else(|| {
        Error::Refused(format!(
            "{}: no expiry to extend, because the token never expires or is not issued yet; set one with --until or --after",
            pat.name()
        ))
    })?;
    Ok(json!({"at": end.plus(by)}))
}

/// Returns a merge patch that sets this expiry and removes every other kind.
fn expiry_patch(mut expiry: Value) -> Value {
    for kind in ["at", "after", "never"] {
        if expiry.get(kind).is_none() {
            expiry[kind] = Value::Null;
        }
    }
    json!({"expiry": expiry})
}

/// Formats an expiry as a line of a manifest.
fn expiry_line(expiry: &Value) -> String {
    let field = expiry.as_object().and_then(|fields| fields.iter().find(|(_, value)| !value.is_null()));
    field.map_or_else(String::new, |(kind, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), |text| format!("{text:?}"));
        format!("expiry: {{{kind}: {value}}}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pat(spec: Value, status: Value) -> PatObject {
        let object = json!({
            "apiVersion": "pat-operator.io/v1alpha1",
            "kind": "PersonalAccessToken",
            "metadata": {"name": "ci", "namespace": "shop"},
            "spec": spec,
            "status": status,
        });
        PatObject::parse(serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn expiry_is_extended_in_the_field_that_sets_it() {
        let by = duration::parse("30d").unwrap();
        for (spec, status, expiry) in [
            (json!({"expiry": {"after": "90d"}}), json!({}), json!({"after": "120d"})),
            (json!({"expiry": {"at": "2030-01-01T00:00:00Z"}}), json!({}), json!({"at": "2030-01-31T00:00:00Z"})),
            (json!({}), json!({"defaultExpiresAt": "2030-01-01T00:00:00Z"}), json!({"at": "2030-01-31T00:00:00Z"})),
        ] {
            assert_eq!(extended(&pat(spec.clone(), status), by).unwrap(), expiry, "{spec}");
        }
        for spec in [json!({"expiry": {"never": true}}), json!({"rotation": {"interval": "1d"}})] {
            let error = extended(&pat(spec, json!({})), by).unwrap_err().to_string();
            assert!(error.contains("no expiry to extend") && error.contains("--until"), "{error}");
        }
    }

    #[test]
    fn new_kind_of_expiry_replaces_the_old_one() {
        let patch = expiry_patch(json!({"after": "9d"}));
        assert_eq!(patch, json!({"expiry": {"at": null, "after": "9d", "never": null}}));
        assert_eq!(expiry_line(&patch["expiry"]), "expiry: {after: \"9d\"}");
    }
}
