//! The operator's own Deployments: which version each is, and whether the controller may do what it needs.
//!
//! It must not know what the controller needs: that is asked of its own list.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Container};
use kube::{Api, ResourceExt, api::ListParams};

use super::{
    super::{
        failure::Failure,
        session::{Session, in_time},
        terminal::Tone,
    },
    Findings, allowed, judge,
};
use crate::{
    certificates::{self, CertificateRequest},
    cli::LEASE_NAME,
    controller::preflight,
    service::preflight::ServiceAccount,
};

/// The programs that are deployed, as the label of each calls it and its command line begins.
const COMPONENTS: [&str; 3] = ["controller", "verifier", "api"];

/// The label that says which of them a Deployment is.
const COMPONENT: &str = "app.kubernetes.io/component";

/// The label that says which version it is.
const VERSION: &str = "app.kubernetes.io/version";

/// One of our programs, as it is deployed.
struct Program {
    name: String,
    component: String,
    version: Option<String>,
    account: String,
    container: Container,
}

impl Program {
    /// `None` if it is somebody else's: that others have a controller too is nothing special.
    fn read(deployment: Deployment) -> Option<Self> {
        let name = deployment.name_any();
        let component = deployment.labels().get(COMPONENT)?.clone();
        let version = deployment.labels().get(VERSION).cloned();
        let pod = deployment.spec?.template.spec?;
        let account = pod.service_account_name.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
        let is_it = |one: &Container| one.args.iter().flatten().next() == Some(&component);
        let container = pod.containers.into_iter().find(is_it)?;
        Some(Self { name, component, version, account, container })
    }

    /// What it is started with, by a flag or by the variable that stands for it.
    fn flag(&self, name: &str) -> Option<&str> {
        self.flags(name).into_iter().next()
    }

    /// The same of a flag that may be given several times; the variable stands for none of them if there is one.
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

    /// The serving certificates that it makes. What is not one it refuses itself, when it starts.
    fn certificates(&self) -> Vec<CertificateRequest> {
        let given = self.flags("serving-certificate").into_iter().flat_map(|text| text.split(';'));
        given.filter_map(|one| one.parse().ok()).collect()
    }
}

/// Looks at those in one namespace.
pub async fn look(session: &Session, namespace: &str, findings: &mut Findings) -> Result<(), Failure> {
    let api: Api<Deployment> = Api::namespaced(session.client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("{COMPONENT} in ({})", COMPONENTS.join(",")));
    let what = "which version the operator is, and what it may do";
    let Some(found) = allowed(in_time(api.list(&ours)).await)? else {
        findings.add(
            Tone::Quiet,
            format!("{what}: you may not list deployments.apps in namespace {namespace}"),
            format!("kubectl create role pat-list-deployments -n {namespace} --verb=list --resource=deployments.apps, and a RoleBinding to you; or ask somebody who may to run kubectl pat doctor"),
        );
        return Ok(());
    };
    let programs: Vec<_> = found.items.into_iter().filter_map(Program::read).collect();
    if programs.is_empty() {
        findings.add(
            Tone::Quiet,
            format!("{what}: namespace {namespace} has no Deployment of it (label {COMPONENT})"),
            "--operator-namespace names where it runs; one that runs elsewhere logs both when it starts",
        );
    }
    for program in &programs {
        let name = format!("{namespace}/{}", program.name);
        findings.push(judge::version(&name, program.version.as_deref(), env!("CARGO_PKG_VERSION")));
    }
    for controller in programs.iter().filter(|program| program.component == "controller") {
        rights(session, namespace, controller, findings).await?;
    }
    Ok(())
}

/// Asks what the controller itself asks when it starts, of its ServiceAccount.
async fn rights(
    session: &Session,
    namespace: &str,
    controller: &Program,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let names = controller.flag("namespaces").unwrap_or_default().split(',').map(str::trim);
    let namespaces: Vec<_> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let lease =
        (controller.flag("lease-namespace").unwrap_or(namespace), controller.flag("lease-name").unwrap_or(LEASE_NAME));
    let is_elected = controller.flag("leader-elect") != Some("false");
    let mut questions = preflight::questions(&namespaces, is_elected.then_some(lease));
    let home = controller.flag("serving-certificate-namespace").unwrap_or(namespace);
    let kept = certificates::preflight::names(&controller.certificates());
    questions.extend(certificates::preflight::questions(home, &kept));
    let account = ServiceAccount { namespace, name: &controller.account };
    let asked = stream::iter(questions).map(|question| async move {
        let is_allowed = question.is_allowed_to(&session.client, account.user_info()).await?;
        Ok((!is_allowed).then(|| question.words()))
    });
    let answers = in_time(asked.buffer_unordered(8).try_collect::<Vec<_>>()).await;
    let who = format!("the controller (ServiceAccount {namespace}/{})", account.name);
    let Some(answers) = allowed(answers)? else {
        findings.add(
            Tone::Quiet,
            format!("what {who} may do: you may not create subjectaccessreviews.authorization.k8s.io"),
            "ask an administrator to run kubectl pat doctor, or see its log: it asks for itself when it starts",
        );
        return Ok(());
    };
    let mut missing: Vec<_> = answers.into_iter().flatten().collect();
    missing.sort_unstable();
    // Two parts of it may need the same.
    missing.dedup();
    if missing.is_empty() {
        findings.good(format!("{who} may do all that it needs"));
    } else {
        let certificates = if kept.is_empty() {
            String::new()
        } else {
            format!(" (for --serving-certificate grant what is missing by a Role in namespace {home})")
        };
        findings.add(
            Tone::Bad,
            format!("{who} may not {}", missing.join(", ")),
            format!(
                "helm upgrade puts its roles right; without Helm docs/running.md has them{certificates}; check with kubectl auth can-i --list --as {}",
                account.user()
            ),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn program(labels: Value, container: Value) -> Option<Program> {
        let deployment = json!({
            "metadata": {"name": "c", "labels": labels},
            "spec": {"selector": {}, "template": {"spec": {"containers": [container]}}},
        });
        Program::read(serde_json::from_value(deployment).expect("a Deployment"))
    }

    #[test]
    fn only_what_is_labelled_and_started_as_one_of_ours_is_ours() {
        let ours =
            program(json!({COMPONENT: "controller", VERSION: "1.2.3"}), json!({"name": "c", "args": ["controller"]}));
        let ours = ours.expect("it is ours");
        assert_eq!((ours.account.as_str(), ours.version.as_deref()), ("default", Some("1.2.3")));
        for (labels, args) in [
            (json!({COMPONENT: "controller"}), json!(["--v=2"])),
            (json!({COMPONENT: "controller"}), Value::Null),
            (json!({}), json!(["controller"])),
        ] {
            assert!(program(labels.clone(), json!({"name": "c", "args": args})).is_none(), "{labels} {args}");
        }
    }

    #[test]
    fn a_flag_is_read_as_the_program_reads_it() {
        let container = json!({
            "name": "c", "args": ["controller", "--namespaces=a,b", "--lease-name", "mine", "--lease-namespaces=not-this"],
            "env": [{"name": "PAT_OPERATOR_LEASE_NAMESPACE", "value": "there"}, {"name": "PAT_OPERATOR_NAMESPACES", "value": "c"}],
        });
        let program = program(json!({COMPONENT: "controller"}), container).expect("it is ours");
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
    fn every_certificate_is_read_wherever_it_is_given() {
        let secrets = |container| {
            let program = program(json!({COMPONENT: "controller"}), container).expect("it is ours");
            program.certificates().iter().map(|one| one.secret().to_owned()).collect::<Vec<_>>()
        };
        let variable = json!([{"name": "PAT_OPERATOR_SERVING_CERTIFICATE", "value": "c:c.svc;d:d.svc"}]);
        let given = ["controller", "--serving-certificate=a:a.svc,a.example.com", "--serving-certificate", "b:b.svc"];
        assert_eq!(secrets(json!({"name": "c", "args": given, "env": variable})), ["a", "b"]);
        assert_eq!(secrets(json!({"name": "c", "args": ["controller"], "env": variable})), ["c", "d"]);
        let none = ["controller", "--serving-certificate-namespace=e"];
        assert!(secrets(json!({"name": "c", "args": none})).is_empty());
    }
}
