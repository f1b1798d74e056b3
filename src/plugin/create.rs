//! `kubectl pat create`: prints or applies the manifest of a token.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    FIELD_MANAGER,
    cli::{ClusterArgs, OutputFormat},
    error::Error,
    extend::ExpiryArgs,
    output::{CommandOutput, json_text, yaml_text},
    pat::PatObject,
    session::{Session, with_timeout},
    spec_change::refuse_if_deleted,
};
use crate::{
    api::{GROUP, LengthOfTime, OwnerKind, PersonalAccessTokenSpec, VERSION},
    cli::subdomain,
    planner::intent::Intent,
    token::TokenPrefix,
};

/// Flags of `create`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
Without --apply, the command prints the manifest and sends no request. With --apply, it applies the manifest server-side with the field \
manager kubectl-pat. You can apply the same object again to change it.

Examples:
  kubectl pat create ci --scope packages:write --after 90d --rotate-every 7d
  kubectl pat create pull --preset docker-config-json --host registry.example.com --username ci > pull.yaml
  kubectl pat create bob --owner bob@example.com --scope repo:read --until 2030-12-31T23:59:59Z --apply
  kubectl pat create setup --once --apply")]
pub struct CreateArgs {
    /// Name of the token
    #[arg(value_parser = subdomain)]
    pub name: String,

    /// Scope of the token, such as packages:write; can be repeated
    #[arg(short, long = "scope", value_name = "SCOPE", value_parser = parse_one)]
    pub scopes: Vec<String>,

    /// Service that accepts the token; can be repeated
    #[arg(long = "audience", value_name = "AUDIENCE", value_parser = parse_one)]
    pub audiences: Vec<String>,

    /// Owner of the token: a user name, or va:NAMESPACE/NAME for a program; defaults to va:<namespace>/<name>
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<String>,

    /// The flags that set the expiry.
    #[command(flatten)]
    pub expiry: ExpiryArgs,

    /// Rotate the token at this interval, such as 30d
    #[arg(long, value_name = "DURATION", conflicts_with = "once")]
    pub rotate_every: Option<LengthOfTime>,

    /// Keep a replaced token valid for this long, such as 1d; must be shorter than --rotate-every
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<LengthOfTime>,

    /// Name of the Secret; defaults to the name of the token
    #[arg(long, value_name = "NAME", value_parser = subdomain)]
    pub secret: Option<String>,

    /// Key of the Secret for the token; defaults to `token`
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,

    /// Key of the Secret for the replaced token while it is still valid
    #[arg(long, value_name = "KEY", conflicts_with = "once")]
    pub previous_key: Option<String>,

    /// Format of the Secret for a specific program
    #[arg(long, value_name = "FORM")]
    pub preset: Option<PresetArg>,

    /// Host for the preset, such as registry.example.com
    #[arg(long, value_name = "HOST", requires = "preset")]
    pub host: Option<String>,

    /// User name for the preset; defaults to the owner
    #[arg(long, value_name = "NAME", requires = "preset")]
    pub username: Option<String>,

    /// Deliver the token once: the consumer deletes the Secret after reading it
    #[arg(long)]
    pub once: bool,

    /// Human-readable name
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,

    /// Purpose of the token
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,

    /// Prefix of the token; defaults to kpat
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<TokenPrefix>,

    /// Label of the object, such as team=shop; can be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,

    /// Apply the manifest instead of printing it
    #[arg(long)]
    pub apply: bool,

    /// Validate the manifest on the API server, but do not save it; requires --apply
    #[arg(long, requires = "apply")]
    pub dry_run: bool,

    /// Output format; defaults to yaml without --apply
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// The values of `--preset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PresetArg {
    /// Keys username and password, as in kubernetes.io/basic-auth
    BasicAuth,
    /// .dockerconfigjson, to pull images
    DockerConfigJson,
    /// .netrc, for curl and git
    Netrc,
    /// .npmrc, for npm
    Npmrc,
    /// .git-credentials, for git
    GitCredentials,
}

impl From<PresetArg> for crate::api::Preset {
    fn from(preset: PresetArg) -> Self {
        match preset {
            PresetArg::BasicAuth => Self::BasicAuth,
            PresetArg::DockerConfigJson => Self::DockerConfigJson,
            PresetArg::Netrc => Self::Netrc,
            PresetArg::Npmrc => Self::Npmrc,
            PresetArg::GitCredentials => Self::GitCredentials,
        }
    }
}

fn parse_label(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE, such as team=shop")?;
    if value.contains([',', '=', ' ']) {
        return Err("must be one label; repeat the flag for each label, as in -l team=shop -l tier=web");
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Parses one scope or audience. It may contain a comma, but a comma on the command line is meant to separate two.
fn parse_one(text: &str) -> Result<String, &'static str> {
    match text.contains([',', ' ']) {
        false => Ok(text.to_owned()),
        true => Err(
            "contains a comma or a space; repeat the flag for each value, as in --scope repo:read --scope repo:write. For a value that has \
             a comma, write the manifest yourself.",
        ),
    }
}

/// Runs the command.
pub async fn run(cluster: &ClusterArgs, args: &CreateArgs) -> Result<CommandOutput, Error> {
    if !args.apply {
        let manifest = build_manifest(args, cluster.namespace());
        validate(&manifest)?;
        return Ok(CommandOutput::success(format_manifest(&manifest, args.output)));
    }
    let session = Session::open(cluster).await?;
    let manifest = build_manifest(args, Some(&session.namespace));
    validate(&manifest)?;
    let before = session.find_pat(&args.name).await?;
    before.as_ref().map_or(Ok(()), refuse_if_deleted)?;
    let params = PatchParams { dry_run: args.dry_run, ..PatchParams::apply(FIELD_MANAGER) };
    let api = session.pats(Some(&session.namespace));
    let object: DynamicObject = with_timeout(api.patch(&args.name, &params, &Patch::Apply(&manifest))).await?;
    if args.output.is_some() {
        return Ok(CommandOutput::success(format_manifest(&PatObject::parse(object)?.printable(), args.output)));
    }
    let what = match before {
        None => "created",
        Some(before) if before.stored.metadata.generation == object.metadata.generation => "unchanged",
        Some(_) => "configured",
    };
    let dry = if args.dry_run { " (dry run)" } else { "" };
    if what == "created" && !args.dry_run {
        eprintln!(
            "note: wait for the token with `kubectl pat wait {0}`, then print it with `kubectl pat reveal {0}`",
            args.name
        );
    }
    Ok(CommandOutput::success(format!("{} {what}{dry}\n", args.name)))
}

fn format_manifest(manifest: &Value, format: Option<OutputFormat>) -> String {
    match format {
        Some(OutputFormat::Json) => json_text(manifest),
        None | Some(OutputFormat::Yaml) => yaml_text(manifest),
    }
}

/// Builds the manifest. It contains only the fields that the flags set.
fn build_manifest(args: &CreateArgs, namespace: Option<&str>) -> Value {
    let mut secret = json!({});
    set_field(&mut secret, "name", &args.secret);
    set_field(&mut secret, "key", &args.key);
    set_field(&mut secret, "previousKey", &args.previous_key);
    set_field(&mut secret, "delivery", &args.once.then_some("Once"));
    if let Some(preset) = args.preset {
        secret["template"] = json!({"preset": crate::api::Preset::from(preset)});
        set_field(&mut secret["template"], "host", &args.host);
        set_field(&mut secret["template"], "username", &args.username);
    }
    let mut spec = json!({});
    set_field(&mut spec, "displayName", &args.display_name);
    set_field(&mut spec, "description", &args.description);
    set_field(&mut spec, "owner", &args.owner.as_deref().map(parse_owner));
    set_field(&mut spec, "scopes", &Some(&args.scopes).filter(|all| !all.is_empty()));
    set_field(&mut spec, "audiences", &Some(&args.audiences).filter(|all| !all.is_empty()));
    set_field(&mut spec, "tokenPrefix", &args.prefix.as_ref().map(ToString::to_string));
    set_field(&mut spec, "expiry", &args.expiry.expiry());
    set_field(&mut spec, "rotation", &args.rotate_every.as_ref().map(|interval| json!({"interval": interval})));
    set_field(&mut spec, "gracePeriod", &args.grace);
    set_field(
        &mut spec,
        "secret",
        &Some(&secret).filter(|secret| secret.as_object().is_some_and(|fields| !fields.is_empty())),
    );
    let mut metadata = json!({"name": args.name});
    set_field(&mut metadata, "namespace", &namespace);
    let labels: BTreeMap<_, _> = args.labels.iter().cloned().collect();
    set_field(&mut metadata, "labels", &Some(labels).filter(|labels| !labels.is_empty()));
    json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "PersonalAccessToken", "metadata": metadata, "spec": spec})
}

fn set_field<T: serde::Serialize>(object: &mut Value, field: &str, value: &Option<T>) {
    if let Some(value) = value {
        object[field] = serde_json::to_value(value).unwrap_or_default();
    }
}

fn parse_owner(text: &str) -> Value {
    let (kind, name) = match text.strip_prefix("va:") {
        Some(name) => (OwnerKind::VirtualAccount, name),
        None => (OwnerKind::User, text),
    };
    json!({"kind": kind, "name": name})
}

/// Checks the manifest as the operator does, before anything is sent. The API server checks the rest.
fn validate(manifest: &Value) -> Result<(), Error> {
    let object: DynamicObject =
        serde_json::from_value(manifest.clone()).map_err(|error| Error::Usage(error.to_string()))?;
    let pat = PatObject::parse(object)?;
    let spec: &PersonalAccessTokenSpec =
        pat.stored.spec.as_ref().map_err(|problem| Error::Usage(format!("spec: {problem}")))?;
    let intent = Intent::read(&pat.stored, spec, &pat.status()).map_err(|error| Error::Usage(error.to_string()))?;
    if intent.rotation.is_some_and(|interval| intent.grace >= interval) {
        return Err(Error::Usage("--grace: must be shorter than --rotate-every".into()));
    }
    intent.layout.map(drop).map_err(|error| Error::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CreateLine {
        #[command(flatten)]
        create: CreateArgs,
    }

    fn manifest_of(line: &str) -> Result<Value, String> {
        let args = CreateLine::try_parse_from(["create"].into_iter().chain(line.split(' ')))
            .map_err(|error| error.to_string())?;
        let manifest = build_manifest(&args.create, Some("shop"));
        validate(&manifest).map_err(|error| error.to_string())?;
        Ok(manifest)
    }

    #[test]
    fn manifest_contains_only_requested_fields() {
        assert_eq!(manifest_of("ci").unwrap()["spec"], json!({}));
        let line = "ci --scope a --scope b --audience https://x --owner va:shop/bot --after 90d --rotate-every 7d --grace 1d --preset npmrc \
                    --host npm.example.com --username bot --previous-key old --label team=shop --prefix shop";
        assert_eq!(
            manifest_of(&line.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap(),
            json!({
                "apiVersion": "pat-operator.io/v1alpha1",
                "kind": "PersonalAccessToken",
                "metadata": {"name": "ci", "namespace": "shop", "labels": {"team": "shop"}},
                "spec": {
                    "owner": {"kind": "VirtualAccount", "name": "shop/bot"},
                    "scopes": ["a", "b"],
                    "audiences": ["https://x"],
                    "tokenPrefix": "shop",
                    "expiry": {"after": "90d"},
                    "rotation": {"interval": "7d"},
                    "gracePeriod": "1d",
                    "secret": {"previousKey": "old", "template": {"preset": "Npmrc", "host": "npm.example.com", "username": "bot"}},
                },
            })
        );
        assert_eq!(manifest_of("ci --owner bob").unwrap()["spec"]["owner"], json!({"kind": "User", "name": "bob"}));
    }

    #[test]
    fn invalid_manifest_is_refused_before_it_is_sent() {
        for (line, part) in [
            ("ci --preset netrc --host a:1", "spec.secret.template"),
            ("ci --preset npmrc", "host"),
            ("ci --rotate-every 1d --grace 1d", "--grace: must be shorter"),
            ("ci --rotate-every 1.5d", "such as 30d"),
            ("ci --once --rotate-every 1d", "cannot be used with"),
            ("ci --label team", "KEY=VALUE"),
            ("ci --label team=shop,tier=web", "repeat the flag for each label"),
            ("ci --scope a,b", "repeat the flag for each value, as in --scope repo:read --scope repo:write"),
            ("ci --audience https://a,https://b", "repeat the flag for each value"),
            ("ci --prefix Kpat", "lower-case"),
        ] {
            let error = manifest_of(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
