//! `kubectl pat plan`: what the operator would do with a manifest or an object now, told by its own planner, and nothing is done.

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
    pat::Pat,
    phrase,
    session::{Session, in_time},
    state::coming,
    terminal::{Paint, Tone, plain},
    world::World,
};
use crate::{
    api::{self, GROUP, Time},
    cli::subdomain,
    controller::stores::conflicting_pat,
    planner::{
        intent::{Settings, secret_name},
        view::SecretView,
    },
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
    let settings = Settings { default_lifetime: args.default_lifetime, ..Settings::default() };
    let paint = Paint::stdout(cluster.color);
    let mut text = String::new();
    match (&args.file, &args.name) {
        (Some(file), _) => {
            let session = if args.live { Some(Session::open(cluster).await?) } else { None };
            for manifest in read(file)? {
                let namespace =
                    session.as_ref().map_or(cluster.namespace.as_deref(), |session| Some(&session.namespace));
                let pat = imagined(manifest, namespace.unwrap_or("default"), now)?;
                let world = match &session {
                    Some(session) => against(session, pat, settings.clone(), now).await?,
                    None => World::new(pat.stored, settings.clone(), now),
                };
                text.push_str(&page(world, paint)?);
            }
        }
        (None, Some(name)) => {
            let session = Session::open(cluster).await?;
            let pat = session.pat(name).await?;
            text = page(populated(&session, pat, settings, now).await?, paint)?;
        }
        (None, None) => return Err(Failure::Usage("name a token, or a manifest with -f".into())),
    }
    Ok(Answer::good(text))
}

/// The PersonalAccessTokens of a file; other objects in it are nobody's business here.
fn read(file: &Path) -> Result<Vec<Value>, Failure> {
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().read_to_string(&mut text).map_err(Failure::io("stdin"))?;
    } else {
        text = fs::read_to_string(file).map_err(Failure::io(file.display().to_string()))?;
    }
    let not_yaml = |error: serde_yaml::Error| {
        // Further lines show the place, and what stands there is nobody's business.
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

/// A manifest as the API server would have it the moment it is created.
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

/// The spec of a manifest, held against the object that is there.
async fn against(session: &Session, pat: Pat, settings: Settings, now: Time) -> Result<World, Failure> {
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
            populated(&there, live, settings, now).await
        }
        None => populated(&there, pat, settings, now).await,
    }
}

/// The object in its surroundings: its Secrets, and who else wants their names.
async fn populated(session: &Session, pat: Pat, settings: Settings, now: Time) -> Result<World, Failure> {
    let mut world = World::new(pat.stored, settings, now);
    let Ok(spec) = world.pat.spec.clone() else { return Ok(world) };
    let wanted = secret_name(&world.pat, &spec).to_owned();
    let last = world.pat.status.as_ref().ok().and_then(|status| status.secret_name.clone());
    let api: Api<Secret> = Api::namespaced(session.client.clone(), world.pat.namespace());
    let mut names = vec![wanted.clone()];
    names.extend(last.filter(|last| *last != wanted));
    for name in names {
        world.secrets.extend(in_time(api.get_opt(&name)).await?.map(SecretView::of));
    }
    let others = session.list(Some(world.pat.namespace()), None).await?;
    let rival = conflicting_pat(&world.pat, &wanted, others.iter().map(|other| &other.stored));
    world.rival = rival.map(|rival| rival.name().to_owned());
    Ok(world)
}

fn page(mut world: World, paint: Paint) -> Result<String, Failure> {
    let began = world.now;
    let story = world.play().map_err(|error| Failure::Refused(error.to_string()))?;
    let mut text = format!("{}\n", paint.tint(Tone::Title, format!("{}/{}", world.pat.namespace(), world.pat.name())));
    for (number, act) in story.acts.iter().enumerate() {
        let wait = act.at.since(began);
        let when = if wait.is_zero() { String::new() } else { format!(" (after {})", phrase::span(wait)) };
        text.push_str(&format!("  {}. {}{when}\n", number + 1, plain(&act.what)));
        for event in &act.events {
            text.push_str(&format!("     event {}\n", paint.tint(Tone::Notice, event)));
        }
    }
    if story.acts.is_empty() {
        text.push_str("  nothing is to be done\n");
    }
    let object = json!({"apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {}});
    let object = serde_json::from_value(object).map_err(|error| Failure::Refused(error.to_string()))?;
    let then = Pat { object, stored: world.pat.clone() };
    text.push_str("  then:\n");
    let ahead = coming(&then, world.now);
    for next in &ahead {
        text.push_str(&format!("     {}  {}\n", phrase::both(next.at, began), plain(&next.what)));
    }
    match story.wake_at {
        None if ahead.is_empty() => text.push_str("     nothing happens by itself\n"),
        Some(at) if ahead.iter().all(|next| next.at != at) => {
            text.push_str(&format!("     {}  it is looked at again\n", phrase::both(at, began)));
        }
        _ => {}
    }
    Ok(text)
}
