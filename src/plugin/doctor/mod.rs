//! `kubectl pat doctor`: what is wrong with the installation and with the person's rights; each finding has its fix.
//!
//! It only reads. What may not be read is said to be unknown, never to be well.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
    },
    jiff::SignedDuration,
};
use kube::{Api, api::ListParams};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{
    cli::DoctorArgs,
    failure::{Answer, Exit, Failure},
    phrase,
    session::{Session, in_time},
    state::{coming, state},
    terminal::{Tone, plain},
};
use crate::{
    api::{GROUP, Time, VERSION, crd},
    runtime::{preflight::Question, tls::validity},
};

/// The oldest API server that has all that the resource needs.
const OLDEST_MINOR: u32 = 31;

/// A clock that is off by more makes times in specs and status confusing.
const SKEW_NOTICE: SignedDuration = SignedDuration::from_secs(5);

/// A clock that is off by more lets tokens live longer, or die sooner, than they say.
const SKEW_BAD: SignedDuration = SignedDuration::from_secs(60);

/// A certificate that ends sooner should have been renewed.
const RENEWAL: SignedDuration = SignedDuration::from_hours(14 * 24);

/// One thing that was looked at.
struct Finding {
    tone: Tone,
    what: String,
    fix: String,
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, tone: Tone, what: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Finding { tone, what: what.into(), fix: fix.into() });
    }

    fn good(&mut self, what: impl Into<String>) {
        self.add(Tone::Good, what, "");
    }
}

/// Runs it.
pub async fn run(session: &Session, args: &DoctorArgs) -> Result<Answer, Failure> {
    let mut findings = Findings(Vec::new());
    api_server(session, &mut findings).await?;
    clock(session, &mut findings).await?;
    let is_served = definitions(session, &mut findings).await?;
    rights(session, &mut findings).await?;
    let namespace = lease(session, args, &mut findings).await?;
    if let Some(namespace) = args.operator_namespace.clone().or(namespace) {
        certificates(session, &namespace, &mut findings).await?;
    }
    if is_served {
        tokens(session, &mut findings).await?;
    }
    Ok(page(session, &findings.0))
}

fn page(session: &Session, findings: &[Finding]) -> Answer {
    let mut text = String::new();
    for Finding { tone, what, fix } in findings {
        let word = match tone {
            Tone::Good => "ok     ",
            Tone::Bad => "broken ",
            Tone::Quiet => "unknown",
            _ => "warning",
        };
        text.push_str(&format!("{}  {}\n", session.paint.tint(*tone, word), plain(what)));
        if !fix.is_empty() {
            text.push_str(&format!("         fix: {}\n", plain(fix)));
        }
    }
    let count = |tone| findings.iter().filter(|finding| finding.tone == tone).count();
    let (broken, warnings) = (count(Tone::Bad), count(Tone::Notice));
    text.push_str(&format!("\n{broken} broken, {warnings} warnings, {} fine\n", count(Tone::Good)));
    Answer::with(text, if broken > 0 { Exit::Failed } else { Exit::Good })
}

/// A request that may be forbidden: `None` if it is.
fn allowed<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Err(Failure::Api(kube::Error::Api(status))) if status.code == 403 => Ok(None),
        answer => answer.map(Some),
    }
}

async fn api_server(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let version = in_time(session.client.apiserver_version()).await?;
    let what = format!("the API server at {} is {}", session.url, version.git_version);
    let minor: u32 = version.minor.trim_end_matches('+').parse().unwrap_or_default();
    if version.major == "1" && minor < OLDEST_MINOR {
        findings.add(
            Tone::Bad,
            what,
            format!("upgrade the cluster to 1.{OLDEST_MINOR} or newer: older ones lack rules that the resource has"),
        );
    } else {
        findings.good(what);
    }
    Ok(())
}

async fn clock(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let Some(skew) = session.skew().await? else {
        findings.add(Tone::Quiet, "the API server does not tell its time", "");
        return Ok(());
    };
    let side = if skew.is_negative() { "behind" } else { "ahead of" };
    let what = format!("the API server's clock is {} {side} this machine's", phrase::span(skew));
    let fix = "set both clocks by NTP (timedatectl, chronyc tracking): tokens live by the operator's and the verifiers' clocks";
    match skew.abs() {
        skew if skew > SKEW_BAD => findings.add(Tone::Bad, what, fix),
        skew if skew > SKEW_NOTICE => findings.add(Tone::Notice, what, fix),
        _ => findings.good("the API server's clock and this machine's agree"),
    }
    Ok(())
}

/// The CustomResourceDefinitions; whether tokens are served.
async fn definitions(session: &Session, findings: &mut Findings) -> Result<bool, Failure> {
    let version = format!("{GROUP}/{VERSION}");
    let served = match in_time(session.client.list_api_group_resources(&version)).await {
        Ok(found) => found.resources.into_iter().map(|one| one.name).collect(),
        Err(Failure::Api(kube::Error::Api(status))) if matches!(status.code, 404 | 503) => BTreeSet::new(),
        Err(failure) => return Err(failure),
    };
    let api: Api<CustomResourceDefinition> = Api::all(session.client.clone());
    for (_, ours) in crd::all() {
        let name = ours.metadata.name.clone().unwrap_or_default();
        if !served.contains(&ours.spec.names.plural) {
            let tone = if name == crd::NAME { Tone::Bad } else { Tone::Notice };
            findings.add(tone, format!("{name} {VERSION} is not served"), crd::how_to_install(&name));
            continue;
        }
        let Some(theirs) = allowed(in_time(api.get(&name)).await)? else {
            findings.good(format!("{name} {VERSION} is served (whether all its fields are there, you may not read)"));
            continue;
        };
        let (ours, theirs) = (fields(&ours), fields(&theirs));
        let missing: Vec<_> = ours.difference(&theirs).cloned().collect();
        let extra = theirs.difference(&ours).count();
        match (missing.is_empty(), extra) {
            (true, 0) => findings.good(format!("{name} {VERSION} is installed, with every field that this version ({}) knows", env!("CARGO_PKG_VERSION"))),
            (true, extra) => findings.add(
                Tone::Notice,
                format!("{name} has {extra} fields that this version ({}) does not know", env!("CARGO_PKG_VERSION")),
                "install the kubectl-pat that belongs to the operator",
            ),
            (false, _) => findings.add(
                Tone::Notice,
                format!("{name} is older than this version ({}): it lacks {}", env!("CARGO_PKG_VERSION"), missing.join(", ")),
                "kubectl apply --server-side -f crds/ of the release that the operator has, or helm upgrade with crds.enabled",
            ),
        }
    }
    Ok(served.contains(crd::PLURAL))
}

/// The paths of all fields that a definition has in our version.
fn fields(crd: &CustomResourceDefinition) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let versions = crd.spec.versions.iter().filter(|version| version.name == VERSION);
    for schema in versions.filter_map(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref()) {
        for part in ["spec", "status"] {
            let properties = schema.properties.as_ref().and_then(|properties| properties.get(part));
            properties.into_iter().for_each(|property| walk(property, part, &mut paths));
        }
    }
    paths
}

fn walk(schema: &JSONSchemaProps, path: &str, paths: &mut BTreeSet<String>) {
    for (name, property) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        walk(property, &path, paths);
        paths.insert(path);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        walk(item, path, paths);
    }
}

/// What the commands of this plugin need, and what does not work without.
const RIGHTS: [(&str, &str, &str, &str); 5] = [
    (GROUP, crd::PLURAL, "list", "list, verify, and completion"),
    (GROUP, crd::PLURAL, "watch", "wait"),
    (GROUP, crd::PLURAL, "patch", "create --apply, rotate, revoke and extend"),
    ("", "secrets", "get", "reveal, and plan of what is there"),
    ("events.k8s.io", "events", "list", "the events in show"),
];

async fn rights(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let mut all = true;
    for (group, resource, verb, commands) in RIGHTS {
        let question = Question { namespace: &session.namespace, group, resource, subresource: "", verb, name: "" };
        if in_time(question.is_allowed(&session.client)).await? {
            continue;
        }
        all = false;
        let dot = if group.is_empty() { String::new() } else { format!(".{group}") };
        findings.add(
            Tone::Notice,
            format!("you may not {}: {commands} do not work for you there", question.words()),
            format!("kubectl create role pat-{verb}-{resource} -n {0} --verb={verb} --resource={resource}{dot}, and a RoleBinding to you; check with kubectl auth can-i {verb} {resource}{dot} -n {0}", session.namespace),
        );
    }
    if all {
        findings.good(format!("you may do all that this plugin does in namespace {}", session.namespace));
    }
    Ok(())
}

/// The Lease and its holder; the namespace in which it is.
async fn lease(session: &Session, args: &DoctorArgs, findings: &mut Findings) -> Result<Option<String>, Failure> {
    let named = ListParams::default().fields(&format!("metadata.name={}", args.lease_name));
    let list = async |namespace: Option<&str>| {
        let api: Api<Lease> = match namespace {
            Some(namespace) => Api::namespaced(session.client.clone(), namespace),
            None => Api::all(session.client.clone()),
        };
        allowed(in_time(api.list(&named)).await)
    };
    let mut found = list(args.operator_namespace.as_deref()).await?;
    if found.is_none() && args.operator_namespace.is_none() {
        found = list(Some(&session.namespace)).await?;
    }
    let Some(found) = found else {
        findings.add(
            Tone::Quiet,
            format!(
                "whether an operator leads: you may not list leases.coordination.k8s.io where Lease {} may be",
                args.lease_name
            ),
            "--operator-namespace names where it runs, or ask somebody who may",
        );
        return Ok(None);
    };
    if found.items.is_empty() {
        findings.add(
            Tone::Bad,
            format!("there is no Lease {}: no controller with leader election has ever run there", args.lease_name),
            "install the operator (helm install, see its README), or name its Lease with --lease-name; one with --leader-elect=false has none",
        );
    }
    let now = session.cluster_now().await?;
    let mut place = None;
    for lease in found.items {
        let namespace = lease.metadata.namespace.unwrap_or_default();
        let spec = lease.spec.unwrap_or_default();
        let what = format!("Lease {namespace}/{}", args.lease_name);
        let renewed = spec.renew_time.as_ref().map(|time| Time::from(time.0));
        let age = renewed.map(|renewed| now.since(renewed));
        let limit = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds.unwrap_or(15)) + 5);
        match (spec.holder_identity.filter(|holder| !holder.is_empty()), age) {
            (Some(holder), Some(age)) if age <= limit => {
                findings.good(format!("{what} is held by {holder}, renewed {} ago", phrase::span(age)));
            }
            (holder, age) => {
                let last = age.map_or_else(String::new, |age| format!(", last renewed {} ago", phrase::span(age)));
                let who = holder.map_or_else(|| "nobody".to_owned(), |holder| format!("{holder}, who is gone"));
                findings.add(
                    Tone::Bad,
                    format!("{what} is held by {who}{last}: no controller works, so that nothing is issued or rotated"),
                    format!("kubectl -n {namespace} get pods, and the log of the controller's"),
                );
            }
        }
        place = Some(namespace);
    }
    Ok(place)
}

/// The certificates that stand in TLS Secrets where the operator runs.
async fn certificates(session: &Session, namespace: &str, findings: &mut Findings) -> Result<(), Failure> {
    let api: Api<Secret> = Api::namespaced(session.client.clone(), namespace);
    let of_type = ListParams::default().fields("type=kubernetes.io/tls");
    let Some(secrets) = allowed(in_time(api.list(&of_type)).await)? else {
        findings.add(
            Tone::Quiet,
            format!("how long certificates are good: you may not list secrets in namespace {namespace}"),
            "",
        );
        return Ok(());
    };
    let now = session.now();
    for secret in secrets.items {
        let name = format!("{namespace}/{}", secret.metadata.name.as_deref().unwrap_or_default());
        let pem = secret
            .data
            .as_ref()
            .and_then(|data| data.get("tls.crt"))
            .map(|value| value.0.as_slice())
            .unwrap_or_default();
        let first = CertificateDer::pem_slice_iter(pem).next().and_then(Result::ok);
        let Some(validity) = first.and_then(|certificate| validity::read(&certificate)) else {
            findings.add(
                Tone::Notice,
                format!("Secret {name} has no certificate under tls.crt"),
                "whoever makes it (cert-manager?) knows more: kubectl get certificates",
            );
            continue;
        };
        let until = Time::from(validity.until);
        let fix = "renew it: with cert-manager see kubectl get certificates, else put a new one into that Secret; it is read again by itself";
        match until.since(now) {
            left if left.is_negative() => findings.add(
                Tone::Bad,
                format!("the certificate in Secret {name} ended {}", phrase::both(until, now)),
                fix,
            ),
            left if left < RENEWAL => findings.add(
                Tone::Notice,
                format!("the certificate in Secret {name} ends {}", phrase::both(until, now)),
                fix,
            ),
            _ => findings.good(format!("the certificate in Secret {name} is good until {}", phrase::both(until, now))),
        }
    }
    Ok(())
}

/// The tokens themselves: those that need a person, and those that should have changed by now.
async fn tokens(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let everywhere = if session.namespace_is_named { None } else { allowed(session.list(None, None).await)? };
    let (pats, place) = match everywhere {
        Some(pats) => (pats, "in this cluster".to_owned()),
        None => match allowed(session.list(Some(&session.namespace), None).await)? {
            Some(pats) => (pats, format!("in namespace {}", session.namespace)),
            None => return Ok(()),
        },
    };
    let now = session.now();
    let mut well = 0;
    for pat in &pats {
        let name = format!("{}/{}", pat.namespace(), pat.name());
        let state = state(pat, now);
        let late = coming(pat, now).into_iter().find(|next| next.overdue);
        match late {
            _ if state.tone == Tone::Bad => {
                findings.add(Tone::Notice, format!("{name} is {}", state.word), state.message);
            }
            Some(next) => findings.add(
                Tone::Bad,
                format!("{name} is overdue: {} was to happen {}", next.what, phrase::relative(next.at, now)),
                "see that the controller runs, and that it watches that namespace",
            ),
            None => well += 1,
        }
    }
    if well > 0 || pats.is_empty() {
        findings.good(format!("{well} of {} tokens {place} need nobody", pats.len()));
    }
    Ok(())
}
