//! `kubectl pat doctor`: checks the installation, the tokens and the user's permissions, and suggests fixes.
//!
//! It only reads. A check that the user may not make is reported as unknown, never as ok.

mod cluster;
mod issuers;
mod operator;

use std::collections::BTreeSet;

use super::{
    cli::DoctorArgs,
    error::Error,
    output::{CommandOutput, Exit},
    pat::PatObject,
    session::{Session, with_timeout},
    state::{token_state, upcoming_events},
    terminal::{Tone, plain},
    time_format,
};
use crate::{
    api::{GROUP, Time, crd},
    service::preflight::AccessCheck,
};

/// The result of one check.
#[derive(Debug)]
struct Finding {
    tone: Tone,
    what: String,
    /// What to do. Only a check that is ok has none.
    fix: String,
}

impl Finding {
    fn new(tone: Tone, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { tone, what: what.into(), fix: fix.into() }
    }

    fn ok(what: impl Into<String>) -> Self {
        Self::new(Tone::Good, what, "")
    }
}

/// The results of all checks.
#[derive(Default)]
struct Report(Vec<Finding>);

impl Report {
    fn push(&mut self, check: Finding) {
        self.0.push(check);
    }

    fn add(&mut self, tone: Tone, what: impl Into<String>, fix: impl Into<String>) {
        self.push(Finding::new(tone, what, fix));
    }

    fn extend(&mut self, checks: impl IntoIterator<Item = Finding>) {
        self.0.extend(checks);
    }

    fn ok(&mut self, what: impl Into<String>) {
        self.push(Finding::ok(what));
    }

    fn render(&self, session: &Session) -> CommandOutput {
        let mut text = String::new();
        for Finding { tone, what, fix } in &self.0 {
            let word = match tone {
                Tone::Good => "ok     ",
                Tone::Bad => "broken ",
                Tone::Muted => "unknown",
                _ => "warning",
            };
            text.push_str(&format!("{}  {}\n", session.paint.tint(*tone, word), plain(what)));
            if !fix.is_empty() {
                text.push_str(&format!("         fix: {}\n", plain(fix)));
            }
        }
        let count = |tone| self.0.iter().filter(|check| check.tone == tone).count();
        let (broken, warnings) = (count(Tone::Bad), count(Tone::Warning));
        let (unknown, ok) = (count(Tone::Muted), count(Tone::Good));
        text.push_str(&format!("\n{broken} broken, {warnings} warnings, {unknown} unknown, {ok} ok\n"));
        CommandOutput::with_exit(text, if broken > 0 { Exit::Failed } else { Exit::Success })
    }
}

/// Runs the command.
pub async fn run(session: &Session, args: &DoctorArgs) -> Result<CommandOutput, Error> {
    let mut report = Report::default();
    let version = with_timeout(session.client.apiserver_version()).await?;
    report.push(cluster::check_api_server(&session.url, &version));
    report.push(cluster::check_clock(session.clock_skew().await?));
    let is_served = cluster::check_crds(session, &mut report).await?;
    check_own_permissions(session, &mut report).await?;
    let found = operator::check_lease(session, args, &mut report).await?;
    let named = args.operator_namespace.clone().map(|namespace| BTreeSet::from([namespace]));
    let namespaces = named.unwrap_or_else(|| found.namespaces.clone());
    if namespaces.is_empty() {
        report.add(
            Tone::Muted,
            "version, permissions and certificates of the operator: its namespace is not known",
            "pass the namespace of the operator with --operator-namespace",
        );
    }
    let mut programs = Vec::new();
    for namespace in &namespaces {
        programs.extend(operator::check_deployments(session, namespace, &mut report).await?);
        operator::check_certificates(session, namespace, &mut report).await?;
    }
    let controllers: Vec<_> = programs.iter().filter(|program| program.is_controller()).cloned().collect();
    operator::check_common_lease(session, args, &found, programs, &mut report).await?;
    if is_served {
        let (namespace, pats) = check_tokens(session, &mut report).await?;
        let known = issuers::OperatorPrograms { controllers: &controllers, namespaces: &namespaces };
        issuers::check_issuers(session, namespace, &pats, &known, &mut report).await?;
    }
    Ok(report.render(session))
}

/// Returns `None` if the API server forbids the request.
fn unless_forbidden<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(error) if error.is_api_status(403) => Ok(None),
        result => result.map(Some),
    }
}

/// Permissions of the plugin: API group, resource, verb, and what does not work without it.
const PERMISSIONS: [(&str, &str, &str, &str); 7] = [
    (GROUP, crd::PLURAL, "get", "show, wait, reveal, rotate, revoke and extend fail"),
    (GROUP, crd::PLURAL, "list", "list, verify and completion fail"),
    (GROUP, crd::PLURAL, "watch", "wait fails"),
    (GROUP, crd::PLURAL, "create", "create --apply fails for a new token"),
    (GROUP, crd::PLURAL, "patch", "create --apply, rotate, revoke and extend fail"),
    ("", "secrets", "get", "reveal fails, and plan fails for an existing token"),
    ("events.k8s.io", "events", "list", "show prints no events"),
];

async fn check_own_permissions(session: &Session, report: &mut Report) -> Result<(), Error> {
    let namespace = &session.namespace;
    let mut has_all = true;
    for (group, resource, verb, consequence) in PERMISSIONS {
        let check = AccessCheck { namespace, group, resource, subresource: "", verb, name: "" };
        if with_timeout(check.is_allowed(&session.client)).await? {
            continue;
        }
        has_all = false;
        let dot = if group.is_empty() { String::new() } else { format!(".{group}") };
        report.add(
            Tone::Warning,
            format!("you may not {}: {consequence}", check.words()),
            format!(
                "get the permission with `kubectl create role pat-{verb}-{resource} -n {namespace} --verb={verb} --resource={resource}{dot}` and a RoleBinding; check with `kubectl auth can-i {verb} {resource}{dot} -n {namespace}`"
            ),
        );
    }
    if has_all {
        report.ok(format!("you have all permissions that the plugin uses in namespace {namespace}"));
    }
    Ok(())
}

/// Checks the state of each token, and whether an event is overdue. Returns the tokens, and the namespace that they are of, or `None` for the
/// whole cluster.
async fn check_tokens<'s>(
    session: &'s Session,
    report: &mut Report,
) -> Result<(Option<&'s str>, Vec<PatObject>), Error> {
    let everywhere =
        if session.namespace_is_named { None } else { unless_forbidden(session.list_pats(None, None).await)? };
    let namespace = everywhere.is_none().then_some(&*session.namespace);
    let (pats, scope) = match everywhere {
        Some(pats) => (pats, "in this cluster".to_owned()),
        None => match unless_forbidden(session.list_pats(Some(&session.namespace), None).await)? {
            Some(pats) => (pats, format!("in namespace {}", session.namespace)),
            None => {
                let what = format!("state of the tokens: you may not list them in namespace {}", session.namespace);
                report.add(Tone::Muted, what, "use -n for another namespace, or get the permission as above");
                return Ok((namespace, Vec::new()));
            }
        },
    };
    let now = session.now();
    let problems: Vec<_> = pats.iter().filter_map(|pat| token_problem(pat, now)).collect();
    let count = pats.len() - problems.len();
    problems.into_iter().for_each(|problem| report.push(problem));
    if count > 0 || pats.is_empty() {
        report.ok(format!("{count} of {} tokens {scope} need no action", pats.len()));
    }
    Ok((namespace, pats))
}

/// Returns the problem of a token, or `None` if it needs no action.
fn token_problem(pat: &PatObject, now: Time) -> Option<Finding> {
    let name = format!("{}/{}", pat.namespace(), pat.name());
    let state = token_state(pat, now);
    if state.tone == Tone::Bad {
        let fix = if state.message.is_empty() {
            format!("run `kubectl pat show {} -n {}` for details", pat.name(), pat.namespace())
        } else {
            state.message
        };
        return Some(Finding::new(Tone::Warning, format!("token {name} is in state {}", state.word), fix));
    }
    let overdue = upcoming_events(pat, now).into_iter().find(|event| event.is_overdue)?;
    Some(Finding::new(
        Tone::Bad,
        format!("token {name} is overdue: {} (due {})", overdue.what, time_format::format_relative(overdue.at, now)),
        "check that the controller is running and watches the namespace",
    ))
}
