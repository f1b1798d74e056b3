//! `kubectl pat plan`: shows what the operator would do with a manifest or an object. It simulates the controller and writes nothing.

use std::path::{Path, PathBuf};

use clap::Args;
use k8s_openapi::{
    api::core::v1::Secret,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, ValidationDirective},
};
use serde_json::{Value, json};

use super::{
    FIELD_MANAGER,
    cli::{ClusterArgs, parse_time},
    error::Error,
    forecast::forecast,
    issuer::{IssuerObject, find_issuer},
    manifest::{self, Manifest},
    output::{CommandOutput, Exit},
    pat::PatObject,
    session::{Session, with_timeout},
    state::upcoming_events,
    terminal::{Paint, Tone, plain},
    time_format,
};
use crate::{
    api::{self, ConditionType, IssuerKind, Reason, Time},
    cli::subdomain,
    controller::stores::conflicting_pat,
    planner::{
        intent::ControllerConfig,
        remote::IssuerView,
        simulate::{SimulatedIssuer, SimulatedRemoteToken, Simulator},
    },
    service,
    token::Token,
};

/// Flags of `plan`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("what").args(["name", "file"]).required(true))]
#[command(after_long_help = "\
With a file, the command does not contact a cluster and plans a new object. With --live, it plans a change of the existing object. \
Unknown and duplicate fields and invalid specs are errors, with exit code 1, so the command also checks manifests in CI. Without a \
cluster, it cannot check the validation rules of the API server, admission policies and quotas; --server-dry-run checks these too.

A token of another system (spec.issuerRef) is planned with the TokenIssuer or ClusterTokenIssuer of the same file, or of the cluster. The \
command contacts no issuer.

Examples:
  kubectl pat plan -f ci.yaml
  kubectl pat create ci --rotate-every 7d | kubectl pat plan -f -
  kubectl pat plan -f ci.yaml --server-dry-run
  kubectl pat plan -f ci.yaml --live
  cat issuer.yaml token.yaml | kubectl pat plan -f -
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

    /// Also send the manifest to the API server, as a dry run that saves nothing
    #[arg(long, requires = "file")]
    pub server_dry_run: bool,

    /// Time to plan for; defaults to now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub at: Option<Time>,

    /// The --default-lifetime of the operator
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = api::duration::parse)]
    pub default_lifetime: SignedDuration,
}

/// What all plans of one run have in common.
struct PlanSettings {
    now: Time,
    config: ControllerConfig,
    paint: Paint,
}

/// Runs the command.
pub async fn run(cluster: &ClusterArgs, args: &PlanArgs) -> Result<CommandOutput, Error> {
    let settings = PlanSettings {
        now: args.at.unwrap_or_else(|| Timestamp::now().into()),
        config: ControllerConfig { default_lifetime: args.default_lifetime, ..ControllerConfig::default() },
        paint: Paint::stdout(cluster.color),
    };
    let mut output = CommandOutput::success("");
    match (&args.file, &args.name) {
        (Some(file), _) => plan_file(cluster, args, file, &settings, &mut output).await?,
        (None, Some(name)) => {
            let session = Session::open(cluster).await?;
            let pat = session.get_pat(name).await?;
            let problem = match issuer_view(Some(&session), &[], &pat).await? {
                Ok(issuer) => {
                    let simulator = with_surroundings(&session, pat, &settings).await?;
                    add_page(&mut output, with_issuer(simulator, issuer), settings.paint)?
                }
                Err(problem) => Some(problem),
            };
            output.errors.extend(problem.map(|problem| format!("{}/{name}: {problem}", session.namespace)));
        }
        (None, None) => return Err(Error::Usage("pass the name of a token, or a manifest with -f".into())),
    }
    if !output.errors.is_empty() {
        output.exit = Exit::Failed;
    }
    Ok(output)
}

/// Plans the PersonalAccessTokens of a file.
async fn plan_file(
    cluster: &ClusterArgs,
    args: &PlanArgs,
    file: &Path,
    settings: &PlanSettings,
    output: &mut CommandOutput,
) -> Result<(), Error> {
    let session = if args.live || args.server_dry_run { Some(Session::open(cluster).await?) } else { None };
    let namespace = match &session {
        Some(session) => session.namespace.clone(),
        None => offline_namespace(cluster)?,
    };
    let (issuers, pats): (Vec<_>, Vec<_>) =
        manifest::read(file)?.into_iter().partition(|manifest| manifest.issuer_kind().is_some());
    let issuers = read_issuers(issuers, &namespace, output)?;
    for manifest in pats {
        let name = manifest.object["metadata"]["name"].as_str().unwrap_or("(no name)").to_owned();
        let namespace = manifest.object["metadata"]["namespace"].as_str().unwrap_or(&namespace).to_owned();
        let mut problems = manifest.problems;
        problems.extend(check_namespace(cluster, &namespace));
        if let Some(session) = session.as_ref().filter(|_| args.server_dry_run && problems.is_empty()) {
            problems.extend(dry_run(session, &namespace, &name, &manifest.object).await?);
        }
        if problems.is_empty() {
            let pat = complete_manifest(manifest.object, &namespace, settings.now)?;
            match issuer_view(session.as_ref(), &issuers, &pat).await? {
                Ok(issuer) => {
                    let simulator = match session.as_ref().filter(|_| args.live) {
                        Some(session) => with_stored_object(session, pat, settings).await?,
                        None => simulator(pat, settings),
                    };
                    problems.extend(add_page(output, with_issuer(simulator, issuer), settings.paint)?);
                }
                Err(problem) => problems.push(problem),
            }
        }
        output.errors.extend(problems.iter().map(|problem| format!("{namespace}/{name}: {problem}")));
    }
    Ok(())
}

/// Reads the issuers of a file. Their problems are errors of the output.
fn read_issuers(
    manifests: Vec<Manifest>,
    namespace: &str,
    output: &mut CommandOutput,
) -> Result<Vec<IssuerObject>, Error> {
    let mut issuers = Vec::new();
    for manifest in manifests {
        let Some(kind) = manifest.issuer_kind() else { continue };
        let mut object = manifest.object;
        if kind == IssuerKind::TokenIssuer && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = namespace.into();
        }
        let issuer = IssuerObject::parse(kind, dynamic_object(object)?)?;
        let unreadable = issuer.stored.spec.as_ref().err().map(|problem| format!("spec: {problem}"));
        let problems = manifest.problems.into_iter().chain(unreadable);
        output.errors.extend(problems.map(|problem| format!("{}: {problem}", issuer.title())));
        issuers.push(issuer);
    }
    Ok(issuers)
}

/// Returns the issuer of a PersonalAccessToken as the planner sees it: that of the same file, or else that of the cluster. `None` if it needs
/// none, or if the cluster has no such issuer. The inner error says why it is not known.
async fn issuer_view(
    session: Option<&Session>,
    issuers: &[IssuerObject],
    pat: &PatObject,
) -> Result<Result<Option<IssuerView>, String>, Error> {
    let Some(reference) = pat.spec().issuer_ref else { return Ok(Ok(None)) };
    let in_file = find_issuer(issuers, pat);
    let Some(session) = session else {
        let unknown = || {
            format!(
                "spec.issuerRef: {} is not in the file: put its manifest into the same file, or use --live to read it from the cluster",
                reference.title()
            )
        };
        return Ok(in_file.map(|issuer| Some(issuer.view(None))).ok_or_else(unknown));
    };
    let stored = match session.issuer_of(pat).await {
        Err(error) if error.is_api_status(403) && in_file.is_none() => {
            return Ok(Err(format!("spec.issuerRef: {error}")));
        }
        Err(error) if error.is_api_status(403) || error.is_api_status(404) => None,
        stored => stored?,
    };
    let planned = in_file.map(|issuer| {
        let uid = stored.as_ref().map(|stored| stored.view(None).uid);
        let view = issuer.view(None);
        IssuerView { uid: uid.unwrap_or(view.uid.clone()), ..view }
    });
    Ok(Ok(planned.or_else(|| stored.map(|issuer| issuer.view(issuer.problem())))))
}

/// Adds an issuer to a simulation, with the tokens that the status records.
fn with_issuer(mut simulator: Simulator, view: Option<IssuerView>) -> Simulator {
    simulator.issuer = view.map(|view| {
        let mut issuer = SimulatedIssuer::new(view);
        let recorded = simulator.pat.status.iter().flat_map(|status| &status.remote_credentials);
        for (credential, remote) in recorded.filter_map(|one| Some((one, one.remote.as_ref()?))) {
            issuer.target = remote.target.clone();
            if let (Some(id), Some(sha256)) = (&remote.id, credential.sha256.value()) {
                let token = SimulatedRemoteToken {
                    id: id.clone(),
                    sha256: *sha256,
                    expires_at: credential.expires_at,
                    last_used_at: None,
                };
                issuer.tokens.insert(remote.name.clone(), token);
            }
        }
        issuer
    });
    simulator
}

/// Returns the namespace of the flags or of the context, or `default`. It opens no connection, because a credential plugin could
/// read the manifest from stdin.
fn offline_namespace(cluster: &ClusterArgs) -> Result<String, Error> {
    let named = cluster.namespace().map(str::to_owned);
    let namespace =
        named.map_or_else(|| service::client::context_namespace(&cluster.overrides()), |name| Ok(Some(name)))?;
    Ok(namespace.unwrap_or_else(|| "default".to_owned()))
}

/// Returns a problem if the namespace of a manifest is not the one of `--namespace`, which kubectl refuses too.
fn check_namespace(cluster: &ClusterArgs, namespace: &str) -> Option<String> {
    let other = cluster.namespace().filter(|named| *named != namespace)?;
    Some(format!("metadata.namespace: must be {other}, as in --namespace"))
}

/// Applies a manifest as a dry run. Returns what the API server refuses, one line for each field.
async fn dry_run(session: &Session, namespace: &str, name: &str, object: &Value) -> Result<Vec<String>, Error> {
    // Fields of other field managers are no reason to refuse a manifest.
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    let params = PatchParams { dry_run: true, field_validation: Some(ValidationDirective::Strict), ..apply };
    let api = session.pats(Some(namespace));
    let error = match with_timeout(api.patch(name, &params, &Patch::Apply(object))).await {
        Ok(_) => return Ok(Vec::new()),
        Err(error) => error,
    };
    match &error {
        Error::Api(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 404 | 409 | 422) => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            // A cause without a field only says that others are missing.
            let causes = causes.filter(|cause| !matches!(&*cause.field, "" | "<nil>"));
            let lines: Vec<_> = causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
            Ok(if lines.is_empty() { vec![error.to_string()] } else { lines })
        }
        _ => Err(error),
    }
}

/// Completes a manifest as the API server does when it creates the object.
fn complete_manifest(mut manifest: Value, namespace: &str, now: Time) -> Result<PatObject, Error> {
    let metadata = &mut manifest["metadata"];
    metadata["namespace"] = namespace.into();
    metadata["uid"] = "to-be".into();
    metadata["resourceVersion"] = "1".into();
    metadata["generation"] = 1.into();
    metadata["creationTimestamp"] = json!(now.floor_second());
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove("status");
    }
    PatObject::parse(dynamic_object(manifest)?)
}

fn dynamic_object(manifest: Value) -> Result<DynamicObject, Error> {
    serde_json::from_value(manifest)
        .map_err(|error| Error::Usage(format!("the manifest is not a Kubernetes object: {error}")))
}

/// Creates a simulation of the stored object with the spec of a manifest.
async fn with_stored_object(session: &Session, pat: PatObject, settings: &PlanSettings) -> Result<Simulator, Error> {
    let there = session.in_namespace(pat.namespace());
    match there.find_pat(pat.name()).await? {
        Some(mut live) => {
            if live.stored.spec != pat.stored.spec {
                live.stored.metadata.generation = live.stored.metadata.generation.map(|generation| generation + 1);
            }
            live.stored.spec = pat.stored.spec;
            with_surroundings(&there, live, settings).await
        }
        None => with_surroundings(&there, pat, settings).await,
    }
}

/// Creates a simulation of an object with its Secrets and the other PATs of its namespace.
async fn with_surroundings(session: &Session, pat: PatObject, settings: &PlanSettings) -> Result<Simulator, Error> {
    let mut simulator = simulator(pat, settings);
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

fn simulator(pat: PatObject, settings: &PlanSettings) -> Simulator {
    Simulator::new(pat.stored, settings.config.clone(), settings.now, Box::new(Token::mint))
}

/// Adds the plan to the output. Returns why the spec is invalid, if it is.
fn add_page(output: &mut CommandOutput, mut simulator: Simulator, paint: Paint) -> Result<Option<String>, Error> {
    let began = simulator.now;
    let found = forecast(&mut simulator).map_err(|error| Error::Refused(error.to_string()))?;
    let pat = &simulator.pat;
    let text = &mut output.text;
    text.push_str(&format!("{}\n", paint.tint(Tone::Title, format!("{}/{}", pat.namespace(), pat.name()))));
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
    let mut ahead: Vec<_> =
        upcoming_events(&then, simulator.now).into_iter().map(|next| (next.at, next.what)).collect();
    let wake = found.wake_at.filter(|wake| ahead.iter().all(|(at, _)| at != wake));
    ahead.extend(wake.map(|at| (at, "the operator checks the token again".to_owned())));
    ahead.sort_by_key(|(at, _)| *at);
    for (at, what) in &ahead {
        text.push_str(&format!("     {}  {}\n", time_format::format_time(*at, began), plain(what)));
    }
    if ahead.is_empty() {
        text.push_str("     no scheduled events\n");
    }
    Ok(invalid_spec(&then))
}

/// Returns why the spec is invalid, if it is.
fn invalid_spec(pat: &PatObject) -> Option<String> {
    let conditions = pat.status().conditions.into_iter();
    let mut invalid = conditions.filter(|one| one.reason == Reason::InvalidSpec.as_str());
    invalid.find(|one| one.type_ == ConditionType::Stalled.as_str()).map(|one| one.message)
}
