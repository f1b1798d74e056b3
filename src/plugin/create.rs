//! `kubectl pat create`: a manifest made of flags, to be looked at, put into Git, or applied.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    FIELD_MANAGER,
    cli::{ClusterArgs, Format},
    expiry::End,
    failure::{Answer, Failure},
    list::{json_text, yaml_text},
    pat::Pat,
    session::{Session, in_time},
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
Without --apply nothing is sent anywhere: redirect what is printed into your repository. With it, the manifest is applied server-side, \
as field manager kubectl-pat, to the same object also a second time.

Examples:
  kubectl pat create ci --scope packages:write --after 90d --rotate-every 7d
  kubectl pat create pull --preset docker-config-json --host registry.example.com --username ci > pull.yaml
  kubectl pat create bob --owner bob@example.com --scope repo:read --until 2030-12-31T23:59:59Z --apply
  kubectl pat create setup --once --apply")]
pub struct CreateArgs {
    /// The token's name
    #[arg(value_parser = subdomain)]
    pub name: String,

    /// What it may do, such as packages:write; may be given several times
    #[arg(short, long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,

    /// Who may accept it; may be given several times
    #[arg(long = "audience", value_name = "AUDIENCE")]
    pub audiences: Vec<String>,

    /// Whom it speaks for: a user's name, or va:NAMESPACE/NAME for a program; without it va:<namespace>/<name>
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<String>,

    /// The end.
    #[command(flatten)]
    pub end: End,

    /// Replace it so often, such as 30d
    #[arg(long, value_name = "DURATION", conflicts_with = "once")]
    pub rotate_every: Option<LengthOfTime>,

    /// How long a replaced token works on, such as 1d; less than --rotate-every
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<LengthOfTime>,

    /// The Secret's name; without it the token's
    #[arg(long, value_name = "NAME", value_parser = subdomain)]
    pub secret: Option<String>,

    /// The key of the Secret that holds the token; without it `token`
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,

    /// The key that keeps a replaced token while it still works
    #[arg(long, value_name = "KEY", conflicts_with = "once")]
    pub previous_key: Option<String>,

    /// A form that a program reads
    #[arg(long, value_name = "FORM")]
    pub preset: Option<Preset>,

    /// The host that the form is for, such as registry.example.com
    #[arg(long, value_name = "HOST", requires = "preset")]
    pub host: Option<String>,

    /// The user name in the form; without it the owner
    #[arg(long, value_name = "NAME", requires = "preset")]
    pub username: Option<String>,

    /// Hand it over once: whoever takes it deletes the Secret
    #[arg(long)]
    pub once: bool,

    /// A name for people
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,

    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,

    /// What its text starts with; without it kpat
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<TokenPrefix>,

    /// A label of the object, such as team=shop; may be given several times
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,

    /// Apply it
    #[arg(long)]
    pub apply: bool,

    /// With --apply: have the API server check it, and change nothing
    #[arg(long, requires = "apply")]
    pub dry_run: bool,

    /// How it is printed; without --apply as YAML
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// A form that a program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// username and password, as kubernetes.io/basic-auth
    BasicAuth,
    /// .dockerconfigjson, for pulling images
    DockerConfigJson,
    /// .netrc, as curl and git read it
    Netrc,
    /// .npmrc
    Npmrc,
    /// .git-credentials
    GitCredentials,
}

impl From<Preset> for crate::api::Preset {
    fn from(preset: Preset) -> Self {
        match preset {
            Preset::BasicAuth => Self::BasicAuth,
            Preset::DockerConfigJson => Self::DockerConfigJson,
            Preset::Netrc => Self::Netrc,
            Preset::Npmrc => Self::Npmrc,
            Preset::GitCredentials => Self::GitCredentials,
        }
    }
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE, such as team=shop")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs it.
pub async fn run(cluster: &ClusterArgs, args: &CreateArgs) -> Result<Answer, Failure> {
    if !args.apply {
        let manifest = manifest(args, cluster.namespace.as_deref());
        check(&manifest)?;
        return Ok(Answer::good(print(&manifest, args.output)));
    }
    let session = Session::open(cluster).await?;
    let manifest = manifest(args, Some(&session.namespace));
    check(&manifest)?;
    let before = session.pat_opt(&args.name).await?;
    let params = PatchParams { dry_run: args.dry_run, ..PatchParams::apply(FIELD_MANAGER) };
    let api = session.pats(Some(&session.namespace));
    let object: DynamicObject = in_time(api.patch(&args.name, &params, &Patch::Apply(&manifest))).await?;
    if args.output.is_some() {
        return Ok(Answer::good(print(&Pat::of(object)?.printable(), args.output)));
    }
    let what = match before {
        None => "created",
        Some(before) if before.stored.metadata.generation == object.metadata.generation => "unchanged",
        Some(_) => "configured",
    };
    let dry = if args.dry_run { " (dry run)" } else { "" };
    if what == "created" && !args.dry_run {
        eprintln!(
            "note: kubectl pat wait {0} returns when the token is there, kubectl pat reveal {0} shows it",
            args.name
        );
    }
    Ok(Answer::good(format!("{} {what}{dry}\n", args.name)))
}

fn print(manifest: &Value, format: Option<Format>) -> String {
    match format {
        Some(Format::Json) => json_text(manifest),
        None | Some(Format::Yaml) => yaml_text(manifest),
    }
}

/// Only what was asked for stands in the manifest.
fn manifest(args: &CreateArgs, namespace: Option<&str>) -> Value {
    let mut secret = json!({});
    put(&mut secret, "name", &args.secret);
    put(&mut secret, "key", &args.key);
    put(&mut secret, "previousKey", &args.previous_key);
    put(&mut secret, "delivery", &args.once.then_some("Once"));
    if let Some(preset) = args.preset {
        secret["template"] = json!({"preset": crate::api::Preset::from(preset)});
        put(&mut secret["template"], "host", &args.host);
        put(&mut secret["template"], "username", &args.username);
    }
    let mut spec = json!({});
    put(&mut spec, "displayName", &args.display_name);
    put(&mut spec, "description", &args.description);
    put(&mut spec, "owner", &args.owner.as_deref().map(owner));
    put(&mut spec, "scopes", &Some(&args.scopes).filter(|all| !all.is_empty()));
    put(&mut spec, "audiences", &Some(&args.audiences).filter(|all| !all.is_empty()));
    put(&mut spec, "tokenPrefix", &args.prefix.as_ref().map(ToString::to_string));
    put(&mut spec, "expiry", &args.end.expiry());
    put(&mut spec, "rotation", &args.rotate_every.as_ref().map(|interval| json!({"interval": interval})));
    put(&mut spec, "gracePeriod", &args.grace);
    put(
        &mut spec,
        "secret",
        &Some(&secret).filter(|secret| secret.as_object().is_some_and(|fields| !fields.is_empty())),
    );
    let mut metadata = json!({"name": args.name});
    put(&mut metadata, "namespace", &namespace);
    let labels: BTreeMap<_, _> = args.labels.iter().cloned().collect();
    put(&mut metadata, "labels", &Some(labels).filter(|labels| !labels.is_empty()));
    json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "PersonalAccessToken", "metadata": metadata, "spec": spec})
}

fn put<T: serde::Serialize>(object: &mut Value, field: &str, value: &Option<T>) {
    if let Some(value) = value {
        object[field] = serde_json::to_value(value).unwrap_or_default();
    }
}

/// One string, as everywhere where one must do.
fn owner(text: &str) -> Value {
    let (kind, name) = match text.strip_prefix("va:") {
        Some(name) => (OwnerKind::VirtualAccount, name),
        None => (OwnerKind::User, text),
    };
    json!({"kind": kind, "name": name})
}

/// What the operator could not follow is found before anything is sent; the API server knows the rest.
fn check(manifest: &Value) -> Result<(), Failure> {
    let object: DynamicObject =
        serde_json::from_value(manifest.clone()).map_err(|error| Failure::Usage(error.to_string()))?;
    let pat = Pat::of(object)?;
    let spec: &PersonalAccessTokenSpec =
        pat.stored.spec.as_ref().map_err(|problem| Failure::Usage(format!("spec: {problem}")))?;
    let intent = Intent::read(&pat.stored, spec, &pat.status()).map_err(|error| Failure::Usage(error.to_string()))?;
    if intent.rotation.is_some_and(|interval| intent.grace >= interval) {
        return Err(Failure::Usage("--grace must be shorter than --rotate-every".into()));
    }
    intent.layout.map(drop).map_err(|error| Failure::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: CreateArgs,
    }

    fn made(line: &str) -> Result<Value, String> {
        let args =
            Line::try_parse_from(["create"].into_iter().chain(line.split(' '))).map_err(|error| error.to_string())?;
        let manifest = manifest(&args.create, Some("shop"));
        check(&manifest).map_err(|failure| failure.to_string())?;
        Ok(manifest)
    }

    #[test]
    fn a_manifest_has_what_was_asked_for_and_nothing_else() {
        assert_eq!(made("ci").unwrap()["spec"], json!({}));
        let line = "ci --scope a --scope b --audience https://x --owner va:shop/bot --after 90d --rotate-every 7d --grace 1d --preset npmrc \
                    --host npm.example.com --username bot --previous-key old --label team=shop --prefix shop";
        assert_eq!(
            made(&line.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap(),
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
        assert_eq!(made("ci --owner bob").unwrap()["spec"]["owner"], json!({"kind": "User", "name": "bob"}));
    }

    #[test]
    fn what_the_operator_could_not_follow_is_refused_before_it_is_sent() {
        for (line, part) in [
            ("ci --preset netrc --host a:1", "spec.secret.template"),
            ("ci --preset npmrc", "host"),
            ("ci --rotate-every 1d --grace 1d", "--grace must be shorter"),
            ("ci --rotate-every 1.5d", "such as 30d"),
            ("ci --once --rotate-every 1d", "cannot be used with"),
            ("ci --label team", "KEY=VALUE"),
            ("ci --prefix Kpat", "lower-case"),
        ] {
            let error = made(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
