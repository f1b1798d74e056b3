//! Compares the documentation with the code.
//!
//! `make generate` generates `docs/conditions.md`, `docs/reference.md`, `docs/metrics.md` and the pictures from the code. The states in them come
//! from stories, which the planner plays in a simulation.

#[path = "../support/checked_in.rs"]
mod checked_in;
#[path = "../support/crd.rs"]
mod crd;
mod demo;
mod dialects;
mod examples;
#[allow(dead_code, reason = "each test binary uses only some of it")]
#[path = "../support/fences.rs"]
mod fences;
mod generated;
mod metrics;
#[allow(dead_code, reason = "each test binary uses only some of it")]
#[path = "../support/process/metrics.rs"]
mod openmetrics;
mod pictures;
mod reference;
mod simulation;
mod stories;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::api::rbac::v1::ClusterRole;
use pat_operator::{
    api::{ConditionType, PersonalAccessToken, Reason},
    controller::preflight,
    planner::EventReason,
    service::preflight::RequiredAccess,
    verifier,
};

use self::stories::{PublishedEvent, STATES, StoryEnd, TRANSITIONS};

const PAGE: &str = include_str!("conditions.md.in");

#[test]
fn conditions_page_matches_the_code() {
    checked_in::compare("docs/conditions.md", &page());
}

#[test]
fn documented_controller_role_matches_its_requests() {
    let asked = wanted(preflight::NEEDS).into_iter().chain(wanted(preflight::OWNER_NEEDS)).collect();
    assert_eq!(granted("docs/running.md"), asked);
}

#[test]
fn documented_verifier_role_matches_its_requests() {
    let mut asked = wanted(verifier::preflight::NEEDS);
    asked.extend(wanted(verifier::preflight::OWNER_NEEDS));
    // Another part of the verifier makes these requests, when an API server checks the callers of introspection.
    for (group, resource) in
        [("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews")]
    {
        asked.insert(format!("create {resource} {group}"));
    }
    assert_eq!(
        granted("docs/verifier.md"),
        asked.clone().into_iter().chain(["introspect personalaccesstokens pat-operator.io".into()]).collect()
    );
    let tested = fs::read_to_string(file("tests/data/rbac-verifier.yaml")).expect("the file exists");
    let role = tested.split("\n---\n").find(|one| one.contains("\nkind: ClusterRole\n")).expect("a ClusterRole");
    assert_eq!(rules(role), asked);
}

/// The verb, resource and API group of each request that a program makes.
fn wanted(needs: &[RequiredAccess]) -> BTreeSet<String> {
    let each = needs.iter().flat_map(|(group, resource, subresource, verbs)| {
        let resource =
            if subresource.is_empty() { (*resource).to_owned() } else { format!("{resource}/{subresource}") };
        verbs.iter().map(move |verb| format!("{verb} {resource} {group}"))
    });
    each.collect()
}

/// The rules of the ClusterRoles on a page.
fn granted(page: &str) -> BTreeSet<String> {
    let roles = manifests(page, "ClusterRole");
    assert!(!roles.is_empty(), "{page} has no ClusterRole");
    roles.iter().flat_map(|role| rules(role)).collect()
}

fn rules(role: &str) -> BTreeSet<String> {
    let role: ClusterRole = serde_yaml::from_str(role).expect("a ClusterRole");
    let mut granted = BTreeSet::new();
    for rule in role.rules.unwrap_or_default() {
        for group in rule.api_groups.unwrap_or_default() {
            for resource in rule.resources.iter().flatten() {
                granted.extend(rule.verbs.iter().map(|verb| format!("{verb} {resource} {group}")));
            }
        }
    }
    granted
}

#[test]
fn readme_has_one_manifest_with_rotation() {
    let [manifest] = &manifests("README.md", "PersonalAccessToken")[..] else { panic!("one manifest") };
    let pat: PersonalAccessToken = serde_yaml::from_str(manifest).expect("a PersonalAccessToken");
    assert!(pat.spec.rotation.is_some() && pat.spec.secret.is_some_and(|secret| secret.previous_key.is_some()));
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The manifests of a kind in the YAML blocks of a page.
fn manifests(page: &str, kind: &str) -> Vec<String> {
    let blocks = fences::of(page).into_iter().filter(|fence| fence.language == "yaml");
    let manifests = blocks.flat_map(|block| block.text.split("\n---\n").map(str::to_owned).collect::<Vec<_>>());
    manifests.filter(|manifest| manifest.contains(&format!("\nkind: {kind}\n"))).collect()
}

fn page() -> String {
    let states: Vec<_> = STATES.iter().map(|(name, story)| (*name, story())).collect();
    let transitions: Vec<_> = TRANSITIONS.iter().map(|(name, story)| (*name, story())).collect();
    let ends: Vec<_> = states.iter().chain(&transitions).map(|(_, end)| end).collect();
    PAGE.replace("{{ conditions }}", &conditions())
        .replace("{{ reasons }}", &reasons(&ends))
        .replace("{{ states }}", &state_table(&states))
        .replace("{{ transitions }}", &transition_table(&transitions))
        .replace("{{ events }}", &events(&ends))
}

fn conditions() -> String {
    table(&["type", "meaning"], ConditionType::ALL.iter().map(|type_| vec![code(type_), type_.meaning().into()]))
}

/// Each reason, with the conditions in which the stories have it.
fn reasons(ends: &[&StoryEnd]) -> String {
    let rows = Reason::ALL.iter().map(|reason| {
        let met = |type_: &&ConditionType| {
            let found = ends.iter().filter_map(|end| end.condition(**type_));
            found.into_iter().any(|condition| condition.reason == reason.as_str())
        };
        let types: Vec<_> = ConditionType::ALL.iter().filter(met).map(code).collect();
        assert!(!types.is_empty(), "no story has reason {reason}; add one");
        vec![code(reason), types.join(", "), reason.meaning().into()]
    });
    table(&["reason", "condition", "meaning"], rows)
}

fn state_table(states: &[(&str, StoryEnd)]) -> String {
    let mut head = vec!["state"];
    head.extend(ConditionType::ALL.iter().map(|type_| type_.as_str()));
    let rows = states.iter().map(|(name, end)| {
        let cells = ConditionType::ALL.iter().map(|type_| match end.condition(*type_) {
            None => String::new(),
            Some(condition) if *type_ == ConditionType::Ready => {
                format!("**{}** {}", condition.status, code(&condition.reason))
            }
            Some(condition) => code(&condition.reason),
        });
        std::iter::once((*name).to_owned()).chain(cells).collect()
    });
    table(&head, rows)
}

fn transition_table(transitions: &[(&str, StoryEnd)]) -> String {
    let rows = transitions.iter().map(|(name, end)| {
        let flag = |event: &PublishedEvent| if event.is_routine { " (with `--issue-events`)" } else { "" };
        let events: Vec<_> = end.events.iter().map(|event| format!("{}{}", code(&event.reason), flag(event))).collect();
        let none = || "none".to_owned();
        vec![(*name).to_owned(), if events.is_empty() { none() } else { events.join(", ") }]
    });
    table(&["what happens", "events"], rows)
}

/// Each event reason, and each condition reason that the stories have as an event.
fn events(ends: &[&StoryEnd]) -> String {
    let mut heard: BTreeMap<&str, bool> = BTreeMap::new();
    for event in ends.iter().flat_map(|end| &end.events) {
        let warning = heard.entry(event.reason.as_str()).or_insert(event.warning);
        assert_eq!(*warning, event.warning, "{} is a warning in one story and not in another", event.reason);
    }
    let type_ = |warning: bool| if warning { "Warning" } else { "Normal" }.to_owned();
    let mut rows = Vec::new();
    for reason in EventReason::ALL {
        let warning = heard.get(reason.as_str()).unwrap_or_else(|| panic!("no story has event {reason}; add one"));
        rows.push(vec![code(reason), type_(*warning), reason.meaning().into()]);
    }
    let is_an_event = |reason: &&Reason| EventReason::ALL.iter().any(|event| event.as_str() == reason.as_str());
    for reason in Reason::ALL.iter().filter(|reason| !is_an_event(reason)) {
        if let Some(warning) = heard.get(reason.as_str()) {
            rows.push(vec![
                code(reason),
                type_(*warning),
                "A condition changed to this reason: see [Reasons](#reasons).".into(),
            ]);
        }
    }
    table(&["reason", "type", "meaning"], rows)
}

fn code(word: &impl ToString) -> String {
    format!("`{}`", word.to_string())
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}", head.join(" | "), " --- |".repeat(head.len()));
    for row in rows {
        assert_eq!(row.len(), head.len());
        let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        write!(text, "\n| {} |", cells.join(" | ")).expect("writing to a string succeeds");
    }
    text
}
