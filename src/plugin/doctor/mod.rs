//! `kubectl pat doctor`: what is wrong with the installation and with the person's rights; each finding has its fix.
//!
//! It only reads. What may not be read is said to be unknown, never to be well.

mod certificates;
mod definitions;
mod judge;
mod lease;
mod operator;

use std::collections::BTreeSet;

use super::{
    cli::DoctorArgs,
    failure::{Answer, Exit, Failure},
    phrase,
    session::{Session, in_time},
    state::{coming, state},
    terminal::{Tone, plain},
};
use crate::{
    api::{GROUP, crd},
    service::preflight::AccessCheck,
};

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    tone: Tone,
    what: String,
    /// What to do; empty only of what is well.
    fix: String,
}

impl Finding {
    fn new(tone: Tone, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { tone, what: what.into(), fix: fix.into() }
    }

    fn good(what: impl Into<String>) -> Self {
        Self::new(Tone::Good, what, "")
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    fn add(&mut self, tone: Tone, what: impl Into<String>, fix: impl Into<String>) {
        self.push(Finding::new(tone, what, fix));
    }

    fn good(&mut self, what: impl Into<String>) {
        self.push(Finding::good(what));
    }
}

/// Runs it.
pub async fn run(session: &Session, args: &DoctorArgs) -> Result<Answer, Failure> {
    let mut findings = Findings(Vec::new());
    let version = in_time(session.client.apiserver_version()).await?;
    findings.push(judge::api_server(&session.url, &version));
    findings.push(judge::clock(session.skew().await?));
    let is_served = definitions::look(session, &mut findings).await?;
    rights(session, &mut findings).await?;
    let found = lease::look(session, args, &mut findings).await?;
    let places = args.operator_namespace.clone().map_or(found, |named| BTreeSet::from([named]));
    if places.is_empty() {
        findings.add(
            Tone::Quiet,
            "which version the operator is, what it may do, and how long certificates are good: where it runs is not known",
            "--operator-namespace names where it runs",
        );
    }
    for namespace in &places {
        operator::look(session, namespace, &mut findings).await?;
        certificates::look(session, namespace, &mut findings).await?;
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

/// What the commands of this plugin need, and what does not work without.
const RIGHTS: [(&str, &str, &str, &str); 7] = [
    (GROUP, crd::PLURAL, "get", "show, wait, reveal, and whatever changes a token"),
    (GROUP, crd::PLURAL, "list", "list, verify, and completion"),
    (GROUP, crd::PLURAL, "watch", "wait"),
    (GROUP, crd::PLURAL, "create", "create --apply of a new token"),
    (GROUP, crd::PLURAL, "patch", "create --apply, rotate, revoke and extend"),
    ("", "secrets", "get", "reveal, and plan of what is there"),
    ("events.k8s.io", "events", "list", "the events in show"),
];

async fn rights(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let mut all = true;
    for (group, resource, verb, commands) in RIGHTS {
        let question = AccessCheck { namespace: &session.namespace, group, resource, subresource: "", verb, name: "" };
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

/// The tokens themselves: those that need a person, and those that should have changed by now.
async fn tokens(session: &Session, findings: &mut Findings) -> Result<(), Failure> {
    let everywhere = if session.namespace_is_named { None } else { allowed(session.list(None, None).await)? };
    let (pats, place) = match everywhere {
        Some(pats) => (pats, "in this cluster".to_owned()),
        None => match allowed(session.list(Some(&session.namespace), None).await)? {
            Some(pats) => (pats, format!("in namespace {}", session.namespace)),
            None => {
                let what = format!("how the tokens are: you may not list any in namespace {}", session.namespace);
                findings.add(Tone::Quiet, what, "-n names a namespace where you may, or get the right as above");
                return Ok(());
            }
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
                let show = || format!("kubectl pat show {} -n {}", pat.name(), pat.namespace());
                let fix = if state.message.is_empty() { show() } else { state.message };
                findings.add(Tone::Notice, format!("{name} is {}", state.word), fix);
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
