//! Checks of the operator: its Lease, the versions and permissions of its Deployments, and its certificates.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{Container, Secret},
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, ResourceExt, api::ListParams};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{
    super::{
        cli::DoctorArgs,
        error::Error,
        session::{Session, with_timeout},
        terminal::Tone,
        time_format,
    },
    Finding, Report, unless_forbidden,
};
use crate::{
    api::Time,
    certificates::{self, CertificateRequest},
    cli::LEASE_NAME,
    controller::{context::SKEW_WARNING as CLOCK_SKEW_WARNING, preflight},
    planner::MAX_CLOCK_SKEW,
    service::{
        preflight::{AccessCheck, ServiceAccount},
        server_time::TimeRange,
        tls::validity,
    },
};

/// The time that the renewal of a Lease takes at most, from the holder's clock to the API server's.
const RENEWAL: Duration = Duration::from_secs(5);

/// A certificate should be renewed before it has less time left.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The programs of the operator: the value of the component label and the first argument of the container.
const COMPONENTS: [&str; 3] = ["controller", "verifier", "api"];

/// The label with the program of a Deployment.
const COMPONENT: &str = "app.kubernetes.io/component";

/// The label with the version of a Deployment.
const VERSION: &str = "app.kubernetes.io/version";

/// A Deployment of one program of the operator.
#[derive(Clone)]
pub struct DeployedProgram {
    namespace: String,
    name: String,
    replicas: i32,
    component: String,
    version: Option<String>,
    account: String,
    container: Container,
}

impl DeployedProgram {
    /// Reads a Deployment; `None` if it does not run a program of the operator.
    fn read(deployment: Deployment) -> Option<Self> {
        let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
        let component = deployment.labels().get(COMPONENT)?.clone();
        let version = deployment.labels().get(VERSION).cloned();
        let spec = deployment.spec?;
        let (replicas, pod) = (spec.replicas.unwrap_or(1), spec.template.spec?);
        let account = pod.service_account_name.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
        let runs_component = |one: &Container| one.args.iter().flatten().next() == Some(&component);
        let container = pod.containers.into_iter().find(runs_component)?;
        Some(Self { namespace, name, replicas, component, version, account, container })
    }

    /// The value of a flag, or of its environment variable. The last one counts.
    fn flag(&self, name: &str) -> Option<&str> {
        self.flags(name).into_iter().next_back()
    }

    /// The namespace and the name of the Lease that it shares with other controllers; `None` without leader election.
    fn lease(&self) -> Option<(&str, &str)> {
        let lease =
            (self.flag("lease-namespace").unwrap_or(&self.namespace), self.flag("lease-name").unwrap_or(LEASE_NAME));
        (self.flag("leader-elect") != Some("false")).then_some(lease)
    }

    /// Whether it is a controller.
    pub fn is_controller(&self) -> bool {
        self.component == "controller"
    }

    /// The kinds of issuers that it serves: `cluster`, `namespaced`.
    pub fn issuers(&self) -> Vec<&str> {
        self.flags("issuers").into_iter().flat_map(|kinds| kinds.split(',')).map(str::trim).collect()
    }

    /// The namespace of the Secrets of ClusterTokenIssuers.
    pub fn issuer_namespace(&self) -> &str {
        self.flag("issuer-namespace").unwrap_or(&self.namespace)
    }

    /// The namespaces that it manages; all if there is none.
    fn namespaces(&self) -> Vec<&str> {
        let names = self.flag("namespaces").unwrap_or_default().split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).collect()
    }

    /// Whether it manages objects that another controller manages, too. Different label selectors are meant to share the objects out.
    fn overlaps(&self, other: &Self) -> bool {
        let (own, others) = (self.namespaces(), other.namespaces());
        let shares_a_namespace = own.is_empty() || others.is_empty() || own.iter().any(|name| others.contains(name));
        let selector = |one: &Self| one.flag("label-selector").unwrap_or_default().to_owned();
        let (own, others) = (selector(self), selector(other));
        shares_a_namespace && (own.is_empty() || others.is_empty() || own == others)
    }

    /// All values of a flag that can be repeated. The environment variable counts only if the flag is absent.
    fn flags(&self, name: &str) -> Vec<&str> {
        let mut given = Vec::new();
        let mut words = self.container.args.iter().flatten().map(String::as_str);
        while let Some(word) = words.next() {
            match word.strip_prefix("--").and_then(|word| word.strip_prefix(name)) {
                Some("") => given.extend(words.next()),
                Some(rest) if rest.starts_with('=') => given.push(&rest[1..]),
                _ => {}
            }
        }
        if given.is_empty() {
            let variable = format!("PAT_OPERATOR_{}", name.to_ascii_uppercase().replace('-', "_"));
            let set = self.container.env.iter().flatten().find(|one| one.name == variable);
            given.extend(set.and_then(|one| one.value.as_deref()));
        }
        given
    }

    /// The serving certificates that it manages. The program itself refuses invalid values when it starts.
    fn certificates(&self) -> Vec<CertificateRequest> {
        let given = self.flags("serving-certificate").into_iter().flat_map(|text| text.split(';'));
        given.filter_map(|one| one.parse().ok()).collect()
    }
}

/// The namespaces that contain a Lease of the controller.
#[derive(Default)]
pub struct FoundLeases {
    /// All of them.
    pub namespaces: BTreeSet<String>,
    /// Those whose Lease is held at the moment.
    pub held: BTreeSet<String>,
}

/// Checks the Lease of the controller.
pub async fn check_lease(session: &Session, args: &DoctorArgs, report: &mut Report) -> Result<FoundLeases, Error> {
    let Some(leases) = find_leases(session, args).await? else {
        report.add(
            Tone::Muted,
            format!("leader of the operator: you may not list leases.coordination.k8s.io to find Lease {}", args.lease_name),
            "pass the namespace of the operator with --operator-namespace, or ask an administrator to run `kubectl pat doctor`",
        );
        return Ok(FoundLeases::default());
    };
    if leases.is_empty() {
        report.add(
            Tone::Bad,
            format!("Lease {} not found: no controller with leader election has run there", args.lease_name),
            "install the operator with `helm install`, or pass the name of its Lease with --lease-name; a controller with --leader-elect=false has no Lease",
        );
    }
    let now = session.cluster_now().await?;
    let mut found = FoundLeases::default();
    for lease in leases {
        let renewed = renewal_by_server(&lease);
        let namespace = lease.metadata.namespace.unwrap_or_default();
        let name = format!("{namespace}/{}", args.lease_name);
        let spec = lease.spec.unwrap_or_default();
        let by_holder = spec.renew_time.as_ref().map(|time| time.0);
        let skew =
            renewed.zip(by_holder).map(|(server, holder)| TimeRange::of_seconds(server, RENEWAL).skew_of(holder));
        report.0.extend(skew.and_then(|skew| rate_clock(&name, skew)));
        let finding = rate_lease(&name, &namespace, spec, renewed.or(by_holder).map(Time::from), now);
        if finding.tone == Tone::Good {
            found.held.insert(namespace.clone());
        }
        report.push(finding);
        found.namespaces.insert(namespace);
    }
    Ok(found)
}

/// Checks that controllers that manage the same objects have a common Lease. Without one, each undoes the work of the other.
pub async fn check_common_lease(
    session: &Session,
    args: &DoctorArgs,
    leases: &FoundLeases,
    known: Vec<DeployedProgram>,
    report: &mut Report,
) -> Result<(), Error> {
    let mut programs = known;
    // A controller with another Lease may run in any namespace.
    if args.operator_namespace.is_none() {
        let api: Api<Deployment> = Api::all(session.client.clone());
        let labelled = ListParams::default().labels(&format!("{COMPONENT}=controller"));
        if let Some(all) = unless_forbidden(with_timeout(api.list(&labelled)).await)? {
            programs = all.items.into_iter().filter_map(DeployedProgram::read).collect();
        }
    }
    programs.retain(|program| program.component == "controller" && program.replicas > 0);
    let findings = rate_common_lease(&programs, &leases.held, &args.lease_name);
    if findings.is_empty() && programs.len() > 1 {
        report
            .ok(format!("no two of the {} controllers manage the same objects without a common Lease", programs.len()));
    }
    findings.into_iter().for_each(|finding| report.push(finding));
    Ok(())
}

/// Returns the problems of these controllers. `held` are the namespaces whose Lease of the name `lease_name` is held.
fn rate_common_lease(controllers: &[DeployedProgram], held: &BTreeSet<String>, lease_name: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let label = |one: &DeployedProgram| {
        let lease = one
            .lease()
            .map_or_else(|| "no leader election".to_owned(), |(namespace, name)| format!("Lease {namespace}/{name}"));
        format!("{}/{} ({lease})", one.namespace, one.name)
    };
    for (index, one) in controllers.iter().enumerate() {
        if one.replicas > 1 && one.lease().is_none() {
            findings.push(Finding::new(
                Tone::Bad,
                format!(
                    "Deployment {}/{} runs {} controllers without leader election",
                    one.namespace, one.name, one.replicas
                ),
                "remove --leader-elect=false, or set replicas to 1",
            ));
        }
        let rivals = controllers[index + 1..].iter().filter(|other| one.overlaps(other));
        for other in rivals.filter(|other| one.lease().is_none() || one.lease() != other.lease()) {
            findings.push(Finding::new(
                Tone::Bad,
                format!(
                    "Deployments {} and {} manage the same objects without a common Lease, so each undoes the work of the other",
                    label(one),
                    label(other)
                ),
                "uninstall one of them, set --lease-namespace and --lease-name of both to the same Lease, or give them different --namespaces",
            ));
        }
    }
    let is_known =
        |namespace: &&String| controllers.iter().any(|one| one.lease() == Some((namespace.as_str(), lease_name)));
    if held.len() > 1 && !held.iter().all(|namespace| is_known(&namespace)) {
        let names: Vec<_> = held.iter().map(|namespace| format!("{namespace}/{lease_name}")).collect();
        findings.push(Finding::new(
            Tone::Warning,
            format!("several controllers hold a Lease of their own: {}", names.join(", ")),
            "check that their --namespaces differ; otherwise uninstall all but one, or give them a common Lease",
        ));
    }
    findings
}

/// Lists the Leases with the name of the controller's Lease; `None` if the user may not list Leases.
async fn find_leases(session: &Session, args: &DoctorArgs) -> Result<Option<Vec<Lease>>, Error> {
    let named = ListParams::default().fields(&format!("metadata.name={}", args.lease_name));
    let list = async |namespace: Option<&str>| {
        let api: Api<Lease> = match namespace {
            Some(namespace) => Api::namespaced(session.client.clone(), namespace),
            None => Api::all(session.client.clone()),
        };
        unless_forbidden(with_timeout(api.list(&named)).await)
    };
    let mut found = list(args.operator_namespace.as_deref()).await?;
    if found.is_none() && args.operator_namespace.is_none() {
        found = list(Some(&session.namespace)).await?;
    }
    Ok(found.map(|list| list.items))
}

/// Returns when the Lease was last written, by the clock of the API server, in whole seconds. Its `renewTime` is by the clock of its holder.
fn renewal_by_server(lease: &Lease) -> Option<Timestamp> {
    let entries = lease.metadata.managed_fields.iter().flatten();
    entries.filter_map(|entry| entry.time.as_ref().map(|time| time.0)).max()
}

/// Rates how far the clock of the controller is ahead of the API server's; `None` if they agree.
fn rate_clock(lease: &str, skew: SignedDuration) -> Option<Finding> {
    let (tone, effect) = match skew.abs() {
        skew if skew > MAX_CLOCK_SKEW => (Tone::Bad, "no token is issued"),
        skew if skew > CLOCK_SKEW_WARNING => (Tone::Warning, "the controller corrects its time"),
        _ => return None,
    };
    let side = if skew.is_negative() { "behind" } else { "ahead of" };
    Some(Finding::new(
        tone,
        format!(
            "the clock of the controller that holds Lease {lease} is {} {side} the API server's: {effect}",
            time_format::format_duration(skew)
        ),
        "synchronise the clocks of their nodes with NTP (timedatectl, chronyc tracking)",
    ))
}

fn rate_lease(name: &str, namespace: &str, spec: LeaseSpec, renewed: Option<Time>, now: Time) -> Finding {
    let age = renewed.map(|time| now.since(time));
    let limit = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds.unwrap_or(15)) + 5);
    let ago = |age| format!("{} ago", time_format::format_duration(age));
    match (spec.holder_identity.filter(|holder| !holder.is_empty()), age) {
        (Some(holder), Some(age)) if age <= limit => {
            Finding::ok(format!("Lease {name} is held by {holder}, renewed {}", ago(age)))
        }
        (holder, age) => {
            let last = age.map_or_else(String::new, |age| format!(" (last renewed {})", ago(age)));
            let state = holder
                .map_or_else(|| "has no holder".to_owned(), |holder| format!("was not renewed by its holder {holder}"));
            Finding::new(
                Tone::Bad,
                format!("Lease {name} {state}{last}: no controller is running, so no token is issued or rotated"),
                format!("run `kubectl -n {namespace} get pods`, and read the log of the controller"),
            )
        }
    }
}

/// Checks the Deployments of the operator in one namespace, and returns them.
pub async fn check_deployments(
    session: &Session,
    namespace: &str,
    report: &mut Report,
) -> Result<Vec<DeployedProgram>, Error> {
    let api: Api<Deployment> = Api::namespaced(session.client.clone(), namespace);
    let labelled = ListParams::default().labels(&format!("{COMPONENT} in ({})", COMPONENTS.join(",")));
    let what = "version and permissions of the operator";
    let Some(found) = unless_forbidden(with_timeout(api.list(&labelled)).await)? else {
        report.add(
            Tone::Muted,
            format!("{what}: you may not list deployments.apps in namespace {namespace}"),
            format!("get the permission with `kubectl create role pat-list-deployments -n {namespace} --verb=list --resource=deployments.apps` and a RoleBinding, or ask an administrator to run `kubectl pat doctor`"),
        );
        return Ok(Vec::new());
    };
    let programs: Vec<_> = found.items.into_iter().filter_map(DeployedProgram::read).collect();
    if programs.is_empty() {
        report.add(
            Tone::Muted,
            format!("{what}: no Deployment of the operator (label {COMPONENT}) in namespace {namespace}"),
            "pass its namespace with --operator-namespace; an operator outside the cluster logs its version and missing permissions when it starts",
        );
    }
    for program in &programs {
        let name = format!("{namespace}/{}", program.name);
        report.push(check_version(&name, program.version.as_deref(), env!("CARGO_PKG_VERSION")));
    }
    for controller in programs.iter().filter(|program| program.component == "controller") {
        check_permissions(session, namespace, controller, report).await?;
    }
    Ok(programs)
}

/// Compares the version label of a Deployment with the version of the plugin.
fn check_version(deployment: &str, deployed: Option<&str>, plugin: &str) -> Finding {
    match deployed {
        None => Finding::new(
            Tone::Muted,
            format!("version of Deployment {deployment}: it has no label app.kubernetes.io/version"),
            "look at the tag of its image, or add the label; the Helm chart sets it",
        ),
        Some(deployed) if deployed == plugin => {
            Finding::ok(format!("Deployment {deployment} has version {deployed}, the same as this plugin"))
        }
        Some(deployed) => Finding::new(
            Tone::Warning,
            format!("Deployment {deployment} has version {deployed}, but this plugin has version {plugin}"),
            format!("install kubectl-pat {deployed}, or upgrade the operator to {plugin} with `helm upgrade`"),
        ),
    }
}

/// Checks the permissions of the controller's ServiceAccount: the same list that the controller checks when it starts.
async fn check_permissions(
    session: &Session,
    namespace: &str,
    controller: &DeployedProgram,
    report: &mut Report,
) -> Result<(), Error> {
    let certificate_names = certificates::preflight::names(&controller.certificates());
    let certificate_namespace = controller.flag("serving-certificate-namespace").unwrap_or(namespace);
    let namespaces: Vec<_> = controller.namespaces().into_iter().map(str::to_owned).collect();
    let mut checks = preflight::questions(&namespaces, controller.lease());
    checks.extend(certificates::preflight::questions(certificate_namespace, &certificate_names));
    if !controller.issuers().is_empty() {
        checks.extend(preflight::issuer_questions(controller.issuers().contains(&"namespaced")));
    }
    let account = ServiceAccount { namespace, name: &controller.account };
    if namespaces.is_empty() {
        check_owner_permissions(session, &account, report).await?;
    }
    let who = format!("the controller (ServiceAccount {namespace}/{})", account.name);
    let Some(missing) = missing_permissions(session, &account, checks).await? else {
        report.add(
            Tone::Muted,
            format!("permissions of {who}: you may not create subjectaccessreviews.authorization.k8s.io"),
            "ask an administrator to run `kubectl pat doctor`, or read the log of the controller, which checks its permissions when it starts",
        );
        return Ok(());
    };
    if missing.is_empty() {
        report.ok(format!("{who} has all required permissions"));
        return Ok(());
    }
    let certificates = if certificate_names.is_empty() {
        String::new()
    } else {
        format!("; for --serving-certificate, create a Role in namespace {certificate_namespace}")
    };
    report.add(
        Tone::Bad,
        format!("{who} may not {}", missing.join(", ")),
        format!(
            "run `helm upgrade` to update its roles, or without Helm apply those in docs/running.md{certificates}; check with `kubectl auth can-i --list --as {}`",
            account.user()
        ),
    );
    Ok(())
}

/// Checks the permissions without which the controller works, but does not show disabled owners. If the user may not ask, the check of the
/// other permissions says so.
async fn check_owner_permissions(
    session: &Session,
    account: &ServiceAccount<'_>,
    report: &mut Report,
) -> Result<(), Error> {
    let missing = missing_permissions(session, account, preflight::owner_questions()).await?.unwrap_or_default();
    if !missing.is_empty() {
        report.add(
            Tone::Warning,
            format!(
                "the controller (ServiceAccount {}/{}) may not {}: the state of a token does not show that its owner is disabled",
                account.namespace,
                account.name,
                missing.join(", ")
            ),
            "run `helm upgrade` to update its roles, or without Helm apply those in docs/running.md; then restart the controller",
        );
    }
    Ok(())
}

/// Asks the API server for each permission. Returns those that are missing, or `None` if the user may not ask.
async fn missing_permissions(
    session: &Session,
    account: &ServiceAccount<'_>,
    checks: Vec<AccessCheck<'_>>,
) -> Result<Option<Vec<String>>, Error> {
    let asked = stream::iter(checks).map(|check| async move {
        let is_allowed = check.is_allowed_to(&session.client, account.user_info()).await?;
        Ok((!is_allowed).then(|| check.words()))
    });
    let answers = with_timeout(asked.buffer_unordered(8).try_collect::<Vec<_>>()).await;
    let missing = unless_forbidden(answers)?.map(|answers| answers.into_iter().flatten().collect::<BTreeSet<_>>());
    Ok(missing.map(|missing| missing.into_iter().collect()))
}

/// Checks the expiry of the certificates in the TLS Secrets of a namespace.
pub async fn check_certificates(session: &Session, namespace: &str, report: &mut Report) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(session.client.clone(), namespace);
    let of_type = ListParams::default().fields("type=kubernetes.io/tls");
    let Some(secrets) = unless_forbidden(with_timeout(api.list(&of_type)).await)? else {
        report.add(
            Tone::Muted,
            format!("expiry of the certificates: you may not list secrets in namespace {namespace}"),
            "ask an administrator to run `kubectl pat doctor`; do not request this permission for yourself",
        );
        return Ok(());
    };
    for secret in secrets.items {
        let name = format!("{namespace}/{}", secret.metadata.name.as_deref().unwrap_or_default());
        report.push(rate_certificate(&name, &secret, session.now()));
    }
    Ok(())
}

fn rate_certificate(name: &str, secret: &Secret, now: Time) -> Finding {
    let pem = secret.data.as_ref().and_then(|data| data.get("tls.crt"));
    let pem = pem.map(|value| value.0.as_slice()).unwrap_or_default();
    let first = CertificateDer::pem_slice_iter(pem).next().and_then(Result::ok);
    let Some(validity) = first.and_then(|certificate| validity::read(&certificate)) else {
        return Finding::new(
            Tone::Warning,
            format!("Secret {name} has no certificate under tls.crt"),
            "check what creates the Secret; for cert-manager, run `kubectl get certificates`",
        );
    };
    let until = Time::from(validity.until);
    let when = time_format::format_time(until, now);
    let fix = "renew it: with cert-manager, run `kubectl get certificates`; otherwise replace it in the Secret, and the operator reloads it";
    match until.since(now) {
        left if left.is_negative() => {
            Finding::new(Tone::Bad, format!("the certificate in Secret {name} expired {when}"), fix)
        }
        left if left < RENEW_BEFORE => {
            Finding::new(Tone::Warning, format!("the certificate in Secret {name} expires {when}"), fix)
        }
        _ => Finding::ok(format!("the certificate in Secret {name} is valid until {when}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn program(labels: Value, container: Value) -> Option<DeployedProgram> {
        let deployment = json!({
            "metadata": {"name": "c", "labels": labels},
            "spec": {"selector": {}, "template": {"spec": {"containers": [container]}}},
        });
        DeployedProgram::read(serde_json::from_value(deployment).expect("a Deployment"))
    }

    #[test]
    fn only_programs_of_the_operator_are_read() {
        let deployed =
            program(json!({COMPONENT: "controller", VERSION: "1.2.3"}), json!({"name": "c", "args": ["controller"]}));
        let deployed = deployed.expect("a program of the operator");
        assert_eq!((deployed.account.as_str(), deployed.version.as_deref()), ("default", Some("1.2.3")));
        for (labels, args) in [
            (json!({COMPONENT: "controller"}), json!(["--v=2"])),
            (json!({COMPONENT: "controller"}), Value::Null),
            (json!({}), json!(["controller"])),
        ] {
            assert!(program(labels.clone(), json!({"name": "c", "args": args})).is_none(), "{labels} {args}");
        }
    }

    #[test]
    fn flags_are_read_as_by_the_program() {
        let container = json!({
            "name": "c", "args": ["controller", "--namespaces=a,b", "--lease-name", "mine", "--lease-namespaces=not-this"],
            "env": [{"name": "PAT_OPERATOR_LEASE_NAMESPACE", "value": "there"}, {"name": "PAT_OPERATOR_NAMESPACES", "value": "c"}],
        });
        let program = program(json!({COMPONENT: "controller"}), container).expect("a program of the operator");
        for (flag, value) in [
            ("namespaces", Some("a,b")),
            ("lease-name", Some("mine")),
            ("lease-namespace", Some("there")),
            ("leader-elect", None),
        ] {
            assert_eq!(program.flag(flag), value, "{flag}");
        }
    }

    #[test]
    fn kinds_of_issuers_are_read_from_flags_and_environment() {
        let read = |container| program(json!({COMPONENT: "controller"}), container).expect("a program of the operator");
        let flags = ["controller", "--issuers=cluster,namespaced", "--issuer-namespace=vault"];
        let program = read(json!({"name": "c", "args": flags}));
        assert_eq!((program.issuers(), program.issuer_namespace()), (vec!["cluster", "namespaced"], "vault"));
        let variable = json!([{"name": "PAT_OPERATOR_ISSUERS", "value": "cluster"}]);
        assert_eq!(read(json!({"name": "c", "args": ["controller"], "env": variable})).issuers(), ["cluster"]);
        assert!(read(json!({"name": "c", "args": ["controller"]})).issuers().is_empty());
    }

    fn controller(name: &str, replicas: i32, args: &[&str]) -> DeployedProgram {
        let args: Vec<_> = ["controller"].iter().chain(args).collect();
        let container = json!({"name": "c", "args": args});
        let program = program(json!({COMPONENT: "controller"}), container).expect("a program of the operator");
        DeployedProgram { namespace: name.to_owned(), replicas, ..program }
    }

    #[test]
    fn controllers_without_a_common_lease_are_broken_if_they_manage_the_same_objects() {
        let common = ["--lease-namespace=x", "--lease-name=y"];
        for (one, two, problems) in [
            (&[][..], &[][..], 1),
            (&common, &common, 0),
            (&common, &["--lease-namespace=x"], 1),
            (&["--namespaces=a,b"], &["--namespaces=c"], 0),
            (&["--namespaces=a,b"], &["--namespaces", "b, c"], 1),
            (&["--namespaces=a"], &[], 1),
            (&["--label-selector=shard=1"], &["--label-selector=shard=2"], 0),
            (&["--label-selector=shard=1"], &[], 1),
            (&["--lease-namespace=x", "--lease-name=y", "--leader-elect=false"], &common, 1),
        ] {
            let controllers = [controller("one", 2, one), controller("two", 1, two)];
            let found = rate_common_lease(&controllers, &BTreeSet::new(), LEASE_NAME);
            let rivals = found.iter().filter(|finding| finding.what.contains("without a common Lease")).count();
            assert_eq!(rivals, problems, "{one:?} {two:?}: {found:?}");
            let alone = found.len() - rivals;
            assert_eq!(alone, usize::from(one.contains(&"--leader-elect=false")), "{one:?}: {found:?}");
            assert!(found.iter().all(|finding| finding.tone == Tone::Bad && !finding.fix.is_empty()));
        }
    }

    #[test]
    fn held_leases_of_unknown_controllers_are_a_warning() {
        let held = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let known = [controller("one", 1, &["--namespaces=a"]), controller("two", 1, &["--namespaces=b"])];
        for (names, warnings) in [(&["one"][..], 0), (&["one", "two"], 0), (&["one", "three"], 1), (&["three"], 0)] {
            let found = rate_common_lease(&known, &held(names), LEASE_NAME);
            assert_eq!(found.len(), warnings, "{names:?}: {found:?}");
        }
    }

    #[test]
    fn certificates_are_read_from_flags_and_environment() {
        let secrets = |container| {
            let program = program(json!({COMPONENT: "controller"}), container).expect("a program of the operator");
            program.certificates().iter().map(|one| one.secret().to_owned()).collect::<Vec<_>>()
        };
        let variable = json!([{"name": "PAT_OPERATOR_SERVING_CERTIFICATE", "value": "c:c.svc;d:d.svc"}]);
        let given = ["controller", "--serving-certificate=a:a.svc,a.example.com", "--serving-certificate", "b:b.svc"];
        assert_eq!(secrets(json!({"name": "c", "args": given, "env": variable})), ["a", "b"]);
        assert_eq!(secrets(json!({"name": "c", "args": ["controller"], "env": variable})), ["c", "d"]);
        let none = ["controller", "--serving-certificate-namespace=e"];
        assert!(secrets(json!({"name": "c", "args": none})).is_empty());
    }

    #[test]
    fn clock_of_the_controller_is_rated_by_its_lease() {
        let lease = |renewed: &str, written: &str| -> Lease {
            let entry = json!({"manager": "pat-operator", "operation": "Update", "time": written});
            let metadata = json!({"name": "l", "namespace": "n", "managedFields": [entry]});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"renewTime": renewed}})).expect("a Lease")
        };
        for (renewed, tone, part) in [
            ("2030-01-01T00:00:00.000000Z", None, ""),
            ("2029-12-31T23:59:52.000000Z", None, ""),
            (
                "2030-01-01T00:00:20.000000Z",
                Some(Tone::Warning),
                "14s ahead of the API server's: the controller corrects",
            ),
            ("2029-12-31T23:59:40.000000Z", Some(Tone::Warning), "20s behind the API server's"),
            ("2030-01-03T00:00:10.000000Z", Some(Tone::Bad), "ahead of the API server's: no token is issued"),
        ] {
            let lease = lease(renewed, "2030-01-01T00:00:00Z");
            let server = renewal_by_server(&lease).expect("it was written");
            let holder = lease.spec.and_then(|spec| spec.renew_time).expect("it was renewed").0;
            let rated = rate_clock("n/l", TimeRange::of_seconds(server, RENEWAL).skew_of(holder));
            assert_eq!(rated.as_ref().map(|found| found.tone), tone, "{renewed}");
            assert!(rated.is_none_or(|found| found.what.contains(part) && !found.fix.is_empty()), "{renewed}");
        }
    }

    #[test]
    fn version_of_a_deployment_is_compared_with_the_plugin() {
        for (deployed, tone, part) in [
            (Some("0.2.0"), Tone::Good, "0.2.0, the same as this plugin"),
            (Some("0.1.9"), Tone::Warning, "0.1.9, but this plugin has version 0.2.0"),
            (Some("0.2.1"), Tone::Warning, "0.2.1, but this plugin has version 0.2.0"),
            (Some(""), Tone::Warning, "this plugin has version 0.2.0"),
            (None, Tone::Muted, "no label"),
        ] {
            let check = check_version("pat-operator/controller", deployed, "0.2.0");
            assert!(check.tone == tone && check.what.contains(part), "{deployed:?}: {check:?}");
            assert_eq!(check.fix.is_empty(), check.tone == Tone::Good, "a fix unless it is ok: {check:?}");
        }
    }
}
