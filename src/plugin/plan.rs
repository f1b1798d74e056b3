//! `kubectl pat plan`: shows what the operator would do with a manifest or an object. It simulates the controller and writes nothing.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use k8s_openapi::{
    api::core::v1::Secret,
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, api::DynamicObject};
use serde_json::{Value, json};

use super::{
    cli::{ClusterArgs, parse_time},
    error::Error,
    forecast::forecast,
    output::CommandOutput,
    pat::PatObject,
    session::{Session, with_timeout},
    state::upcoming_events,
    terminal::{Paint, Tone, plain},
    time_format,
};
use crate::{
    api::{self, GROUP, Time},
    cli::subdomain,
    controller::stores::conflicting_pat,
    planner::{intent::ControllerConfig, simulate::Simulator},
    token::Token,
};

/// Flags of `plan`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("what").args(["name", "file"]).required(true))]
#[command(after_long_help = "\
With a file, the command does not contact a cluster and plans a new object. With --live, it plans a change of the existing object. \
A plan does not show what the API server refuses (validation rules, policies, quotas). Use kubectl apply --dry-run=server for that.

Examples:
  kubectl pat plan -f ci.yaml
  kubectl pat create ci --rotate-every 7d | kubectl pat plan -f -
  kubectl pat plan -f ci.yaml --live
  kubectl pat plan ci
  kubectl pat plan ci --at 2030-12-31T23:59:59Z")]
pub struct PlanArgs {
    /// Name of an existing token
    #[arg(value_parser = subdomain)]
    pub name: Option<String>,

    /// Manifest to plan; - reads stdin
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Plan the change from the existing object to the manifest
    #[arg(long, requires = "file")]
    pub live: bool,

    /// Time to plan for; defaults to now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub at: Option<Time>,

    /// The --default-lifetime of the operator
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = api::duration::parse)]
    pub default_lifetime: SignedDuration,
}

/// Runs the command.
pub async fn run(cluster: &ClusterArgs, args: &PlanArgs) -> Result<CommandOutput, Error> {
    let now = args.at.unwrap_or_else(|| Timestamp::now().into());
    let config = ControllerConfig { default_lifetime: args.default_lifetime, ..ControllerConfig::default() };
    let paint = Paint::stdout(cluster.color);
    let mut text = String::new();
    match (&args.file, &args.name) {
        (Some(file), _) => {
            let session = if args.live { Some(Session::open(cluster).await?) } else { None };
            for manifest in read(file)? {
                let namespace = session.as_ref().map_or(cluster.namespace(), |session| Some(&session.namespace));
                let pat = complete_manifest(manifest, namespace.unwrap_or("default"), now)?;
                let simulator = match &session {
                    Some(session) => with_stored_object(session, pat, config.clone(), now).await?,
                    None => simulator(pat, config.clone(), now),
                };
                text.push_str(&page(simulator, paint)?);
            }
        }
        (None, Some(name)) => {
            let session = Session::open(cluster).await?;
            let pat = session.get_pat(name).await?;
            text = page(with_surroundings(&session, pat, config, now).await?, paint)?;
        }
        (None, None) => return Err(Error::Usage("pass the name of a token, or a manifest with -f".into())),
    }
    Ok(CommandOutput::success(text))
}

/// Reads the PersonalAccessTokens of a file, and ignores other objects.
fn read(file: &Path) -> Result<Vec<Value>, Error> {
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().read_to_string(&mut text).map_err(Error::io("stdin"))?;
    } else {
        text = fs::read_to_string(file).map_err(Error::io(file.display().to_string()))?;
    }
    let not_yaml = |error: serde_yaml::Error| {
        // Further lines quote the file, which may contain Secrets.
        let line = error.to_string().lines().next().unwrap_or_default().to_owned();
        Error::Usage(format!("{}: invalid YAML: {line}", file.display()))
    };
    let documents: Vec<Value> = serde_yaml::from_multiple(&text).map_err(not_yaml)?;
    let parts = documents.into_iter().flat_map(|document| match &document["items"] {
        Value::Array(items) if document["kind"] == "List" => items.clone(),
        _ => vec![document],
    });
    let ours = |value: &Value| {
        let group = value["apiVersion"].as_str().and_then(|version| version.split('/').next());
        value["kind"] == "PersonalAccessToken" && group == Some(GROUP)
    };
    let found: Vec<_> = parts.filter(ours).collect();
    if found.is_empty() {
        return Err(Error::Usage(format!(
            "{}: no PersonalAccessToken of {GROUP} found; print one with `kubectl pat create NAME`",
            file.display()
        )));
    }
    Ok(found)
}

/// Completes a manifest as the API server does when it creates the object.
fn complete_manifest(mut manifest: Value, namespace: &str, now: Time) -> Result<PatObject, Error> {
    let metadata = &mut manifest["metadata"];
    if metadata["name"].as_str().is_none_or(str::is_empty) {
        return Err(Error::Usage("metadata.name: required in the manifest".into()));
    }
    if metadata["namespace"].is_null() {
        metadata["namespace"] = namespace.into();
    }
    metadata["uid"] = "to-be".into();
    metadata["resourceVersion"] = "1".into();
    metadata["generation"] = 1.into();
    metadata["creationTimestamp"] = json!(now.floor_second());
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove("status");
    }
    let object: DynamicObject = serde_json::from_value(manifest)
        .map_err(|error| Error::Usage(format!("the manifest is not a Kubernetes object: {error}")))?;
    PatObject::parse(object)
}

/// Creates a simulation of the stored object with the spec of a manifest.
async fn with_stored_object(
    session: &Session,
    pat: PatObject,
    config: ControllerConfig,
    now: Time,
) -> Result<Simulator, Error> {
    let there = Session {
        namespace: pat.namespace().to_owned(),
        client: session.client.clone(),
        url: session.url.clone(),
        ..*session
    };
    match there.find_pat(pat.name()).await? {
        Some(mut live) => {
            if live.stored.spec != pat.stored.spec {
                live.stored.metadata.generation = live.stored.metadata.generation.map(|generation| generation + 1);
            }
            live.stored.spec = pat.stored.spec;
            with_surroundings(&there, live, config, now).await
        }
        None => with_surroundings(&there, pat, config, now).await,
    }
}

/// Creates a simulation of an object with its Secrets and the other PATs of its namespace.
async fn with_surroundings(
    session: &Session,
    pat: PatObject,
    config: ControllerConfig,
    now: Time,
) -> Result<Simulator, Error> {
    let mut simulator = simulator(pat, config, now);
    if simulator.pat.spec.is_err() {
        return Ok(simulator);
    }
    let wanted = simulator.secret_name().to_owned();
    let last = simulator.pat.status.as_ref().ok().and_then(|status| status.secret_name.clone());
    let api: Api<Secret> = Api::namespaced(session.client.clone(), simulator.pat.namespace());
    let mut names = vec![wanted.clone()];
    names.extend(last.filter(|last| *last != wanted));
    for name in names {
        simulator.secrets.extend(with_timeout(api.get_opt(&name)).await?.map(|secret| (name, secret)));
    }
    let others = session.list_pats(Some(simulator.pat.namespace()), None).await?;
    let older = conflicting_pat(&simulator.pat, &wanted, others.iter().map(|other| &other.stored));
    simulator.conflicting_pat = older.map(|older| older.name().to_owned());
    Ok(simulator)
}

fn simulator(pat: PatObject, config: ControllerConfig, now: Time) -> Simulator {
    Simulator::new(pat.stored, config, now, Box::new(Token::mint))
}

fn page(mut simulator: Simulator, paint: Paint) -> Result<String, Error> {
    let began = simulator.now;
    let found = forecast(&mut simulator).map_err(|error| Error::Refused(error.to_string()))?;
    let pat = &simulator.pat;
    let mut text = format!("{}\n", paint.tint(Tone::Title, format!("{}/{}", pat.namespace(), pat.name())));
    for (number, step) in found.steps.iter().enumerate() {
        let wait = step.at.since(began);
        let when =
            if wait.is_zero() { String::new() } else { format!(" (after {})", time_format::format_duration(wait)) };
        text.push_str(&format!("  {}. {}{when}\n", number + 1, plain(&step.what)));
        for event in &step.events {
            text.push_str(&format!("     event {}\n", paint.tint(Tone::Warning, event)));
        }
    }
    if found.steps.is_empty() {
        text.push_str("  nothing to do\n");
    }
    let object = json!({"apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {}});
    let object = serde_json::from_value(object).map_err(|error| Error::Refused(error.to_string()))?;
    let then = PatObject { object, stored: pat.clone() };
    text.push_str("  then:\n");
    let ahead = upcoming_events(&then, simulator.now);
    for next in &ahead {
        text.push_str(&format!("     {}  {}\n", time_format::format_time(next.at, began), plain(&next.what)));
    }
    match found.wake_at {
        None if ahead.is_empty() => text.push_str("     no scheduled events\n"),
        Some(at) if ahead.iter().all(|next| next.at != at) => {
            text.push_str(&format!(
                "     {}  the operator checks the token again\n",
                time_format::format_time(at, began)
            ));
        }
        _ => {}
    }
    Ok(text)
}
