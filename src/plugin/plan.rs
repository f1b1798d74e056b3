//! `kubectl pat plan`: what the operator would do now with a manifest or an object, found by its own planner in a simulation.

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
    cli::{ClusterArgs, time},
    failure::{Answer, Failure},
    forecast::forecast,
    pat::Pat,
    phrase,
    session::{Session, in_time},
    state::coming,
    terminal::{Paint, Tone, plain},
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
From a file nothing is asked of a cluster: it is taken for a new object. With --live its spec is held against what is there. Tokens \
that a plan mints are made for it alone and forgotten. What the API server itself would refuse (rules, policies, quotas) shows \
kubectl apply --dry-run=server.

Examples:
  kubectl pat plan -f ci.yaml
  kubectl pat create ci --rotate-every 7d | kubectl pat plan -f -
  kubectl pat plan -f ci.yaml --live
  kubectl pat plan ci
  kubectl pat plan ci --at 2030-12-31T23:59:59Z")]
pub struct PlanArgs {
    /// The name of a token that is there
    #[arg(value_parser = subdomain)]
    pub name: Option<String>,

    /// A manifest; - for stdin
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// With a manifest: against the object of that name, if there is one
    #[arg(long, requires = "file")]
    pub live: bool,

    /// At this time, instead of now
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<Time>,

    /// The operator's --default-lifetime
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = api::duration::parse)]
    pub default_lifetime: SignedDuration,
}

/// Runs it.
pub async fn run(cluster: &ClusterArgs, args: &PlanArgs) -> Result<Answer, Failure> {
    let now = args.at.unwrap_or_else(|| Timestamp::now().into());
    let config = ControllerConfig { default_lifetime: args.default_lifetime, ..ControllerConfig::default() };
    let paint = Paint::stdout(cluster.color);
    let mut text = String::new();
    match (&args.file, &args.name) {
        (Some(file), _) => {
            let session = if args.live { Some(Session::open(cluster).await?) } else { None };
            for manifest in read(file)? {
                let namespace =
                    session.as_ref().map_or(cluster.namespace.as_deref(), |session| Some(&session.namespace));
                let pat = imagined(manifest, namespace.unwrap_or("default"), now)?;
                let simulator = match &session {
                    Some(session) => with_stored_object(session, pat, config.clone(), now).await?,
                    None => simulator(pat, config.clone(), now),
                };
                text.push_str(&page(simulator, paint)?);
            }
        }
        (None, Some(name)) => {
            let session = Session::open(cluster).await?;
            let pat = session.pat(name).await?;
            text = page(with_surroundings(&session, pat, config, now).await?, paint)?;
        }
        (None, None) => return Err(Failure::Usage("name a token, or a manifest with -f".into())),
    }
    Ok(Answer::good(text))
}

/// The PersonalAccessTokens of a file; other objects in it are ignored.
fn read(file: &Path) -> Result<Vec<Value>, Failure> {
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().read_to_string(&mut text).map_err(Failure::io("stdin"))?;
    } else {
        text = fs::read_to_string(file).map_err(Failure::io(file.display().to_string()))?;
    }
    let not_yaml = |error: serde_yaml::Error| {
        // Further lines quote the file, which may contain Secrets.
        let line = error.to_string().lines().next().unwrap_or_default().to_owned();
        Failure::Usage(format!("{} is not YAML: {line}", file.display()))
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
        return Err(Failure::Usage(format!(
            "there is no PersonalAccessToken of {GROUP} in {}; kubectl pat create prints one",
            file.display()
        )));
    }
    Ok(found)
}

/// A manifest as the API server would store it on creation.
fn imagined(mut manifest: Value, namespace: &str, now: Time) -> Result<Pat, Failure> {
    let metadata = &mut manifest["metadata"];
    if metadata["name"].as_str().is_none_or(str::is_empty) {
        return Err(Failure::Usage("metadata.name is missing in the manifest".into()));
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
        .map_err(|error| Failure::Usage(format!("the manifest is no Kubernetes object: {error}")))?;
    Pat::of(object)
}

/// A simulation of the stored object with the spec of a manifest.
async fn with_stored_object(
    session: &Session,
    pat: Pat,
    config: ControllerConfig,
    now: Time,
) -> Result<Simulator, Failure> {
    let there = Session {
        namespace: pat.namespace().to_owned(),
        client: session.client.clone(),
        url: session.url.clone(),
        ..*session
    };
    match there.pat_opt(pat.name()).await? {
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

/// A simulation of an object with its Secrets and the other PATs of its namespace.
async fn with_surroundings(
    session: &Session,
    pat: Pat,
    config: ControllerConfig,
    now: Time,
) -> Result<Simulator, Failure> {
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
        simulator.secrets.extend(in_time(api.get_opt(&name)).await?.map(|secret| (name, secret)));
    }
    let others = session.list(Some(simulator.pat.namespace()), None).await?;
    let older = conflicting_pat(&simulator.pat, &wanted, others.iter().map(|other| &other.stored));
    simulator.conflicting_pat = older.map(|older| older.name().to_owned());
    Ok(simulator)
}

fn simulator(pat: Pat, config: ControllerConfig, now: Time) -> Simulator {
    Simulator::new(pat.stored, config, now, Box::new(Token::mint))
}

fn page(mut simulator: Simulator, paint: Paint) -> Result<String, Failure> {
    let began = simulator.now;
    let found = forecast(&mut simulator).map_err(|error| Failure::Refused(error.to_string()))?;
    let pat = &simulator.pat;
    let mut text = format!("{}\n", paint.tint(Tone::Title, format!("{}/{}", pat.namespace(), pat.name())));
    for (number, step) in found.steps.iter().enumerate() {
        let wait = step.at.since(began);
        let when = if wait.is_zero() { String::new() } else { format!(" (after {})", phrase::span(wait)) };
        text.push_str(&format!("  {}. {}{when}\n", number + 1, plain(&step.what)));
        for event in &step.events {
            text.push_str(&format!("     event {}\n", paint.tint(Tone::Notice, event)));
        }
    }
    if found.steps.is_empty() {
        text.push_str("  nothing to do\n");
    }
    let object = json!({"apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {}});
    let object = serde_json::from_value(object).map_err(|error| Failure::Refused(error.to_string()))?;
    let then = Pat { object, stored: pat.clone() };
    text.push_str("  then:\n");
    let ahead = coming(&then, simulator.now);
    for next in &ahead {
        text.push_str(&format!("     {}  {}\n", phrase::both(next.at, began), plain(&next.what)));
    }
    match found.wake_at {
        None if ahead.is_empty() => text.push_str("     no further step until something changes\n"),
        Some(at) if ahead.iter().all(|next| next.at != at) => {
            text.push_str(&format!("     {}  the operator checks it again\n", phrase::both(at, began)));
        }
        _ => {}
    }
    Ok(text)
}
