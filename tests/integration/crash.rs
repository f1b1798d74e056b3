//! Crash matrix: a fault hits each request of the operator in turn. The invariants hold at every observed moment, and a fresh process
//! completes the work.

use std::{
    collections::BTreeSet,
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::support::{
    faults::{Fault, Faults, RETRY_AFTER},
    process::place::{Place, eventually, in_seconds, is_ready},
    recorder::{Recorder, Story, canary},
    stage::Stage,
    workers::run_cases,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::StreamExt;
use k8s_openapi::{
    api::{core::v1::Secret, events::v1::Event},
    jiff::SignedDuration,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use pat_operator::{
    api::{CredentialState, PersonalAccessTokenStatus},
    controller::gate::ReconcileGate,
    service::Clock,
    token::{Presented, Token},
};
use serde_json::{Value, json};

/// Number of namespaces in which the test runs concurrently.
const WORKERS: usize = 8;

/// The operation that a fault interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    FirstMint,
    Rotation,
    RotationInGrace,
    RepairAfterDeletion,
    RepairAfterEdit,
    RepairOfLabel,
    Revoked,
    RevokeIfIssuedBefore,
    RevokedCredential,
    Rename,
    RenameOntoForeign,
    GraceEnd,
    Expiry,
    Delivered,
    NotDelivered,
    DeliveredAgain,
}

impl Scenario {
    const ALL: [Self; 16] = [
        Self::FirstMint,
        Self::Rotation,
        Self::RotationInGrace,
        Self::RepairAfterDeletion,
        Self::RepairAfterEdit,
        Self::RepairOfLabel,
        Self::Revoked,
        Self::RevokeIfIssuedBefore,
        Self::RevokedCredential,
        Self::Rename,
        Self::RenameOntoForeign,
        Self::GraceEnd,
        Self::Expiry,
        Self::Delivered,
        Self::NotDelivered,
        Self::DeliveredAgain,
    ];

    fn spec(self) -> Value {
        match self {
            Self::FirstMint => json!({}),
            Self::Expiry => json!({"expiry": {"after": "1h"}}),
            Self::Delivered | Self::NotDelivered | Self::DeliveredAgain => json!({"secret": {"delivery": "Once"}}),
            _ => json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "old"}}),
        }
    }

    /// Sets up the state before the fault.
    async fn prepare(self, scene: &CrashStage, name: &str) {
        if self == Self::FirstMint {
            return;
        }
        scene.stage.apply(name, self.spec()).await;
        scene.settle(name).await;
        if matches!(self, Self::GraceEnd | Self::RotationInGrace) {
            scene.advance(SignedDuration::from_hours(30 * 24)).await;
            scene.settle(name).await;
        }
        if self == Self::DeliveredAgain {
            scene.stage.secrets().delete(name, &Default::default()).await.expect("the token is taken");
            scene.settle(name).await;
        }
    }

    /// Triggers the operation.
    async fn begin(self, scene: &CrashStage, name: &str) {
        let stage = &scene.stage;
        let mut spec = self.spec();
        match self {
            Self::FirstMint => {}
            Self::Rotation => return scene.advance(SignedDuration::from_hours(30 * 24)).await,
            Self::GraceEnd => return scene.advance(SignedDuration::from_hours(24)).await,
            Self::Expiry => return scene.advance(SignedDuration::from_hours(1)).await,
            Self::RotationInGrace => {
                scene.advance(SignedDuration::from_secs(60)).await;
                spec["rotateIfIssuedBefore"] = json!(stage.now());
            }
            Self::NotDelivered => return scene.advance(SignedDuration::from_mins(10)).await,
            Self::DeliveredAgain => {
                scene.advance(SignedDuration::from_secs(60)).await;
                spec["rotateIfIssuedBefore"] = json!(stage.now());
            }
            Self::RepairAfterDeletion | Self::Delivered => {
                stage.secrets().delete(name, &Default::default()).await.expect("the Secret is deleted");
                return;
            }
            Self::RepairAfterEdit => {
                let edit = json!({"data": {"token": "b29wcw=="}});
                let patched = stage.secrets().patch(name, &PatchParams::default(), &Patch::Merge(edit)).await;
                patched.expect("the Secret is edited");
                return;
            }
            Self::RepairOfLabel => {
                let strip = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}});
                let patched = stage.secrets().patch(name, &PatchParams::default(), &Patch::Merge(strip)).await;
                patched.expect("the label is removed");
                return;
            }
            Self::Revoked => spec["revoked"] = json!(true),
            Self::RevokeIfIssuedBefore => {
                scene.advance(SignedDuration::from_secs(60)).await;
                spec["revokeIfIssuedBefore"] = json!(stage.now());
            }
            Self::RevokedCredential => {
                let id = stage.status(name).await.credentials[0].id.clone();
                spec["revokedCredentials"] = json!([id]);
            }
            Self::Rename => spec["secret"]["name"] = json!(format!("{name}-new")),
            Self::RenameOntoForeign => spec["secret"]["name"] = json!("foreign"),
        }
        stage.apply(name, spec).await;
    }

    /// Checks the final state. `before` is the token that was in use.
    async fn check_end(self, scene: &CrashStage, name: &str, before: &str) -> Result<(), String> {
        let stage = &scene.stage;
        let (status, reason) = stage.ready(name).await;
        let expected = match self {
            Self::Revoked => ("False", "Revoked"),
            Self::Expiry => ("False", "Expired"),
            Self::RenameOntoForeign => ("False", "SecretConflict"),
            Self::NotDelivered => ("False", "NotDelivered"),
            _ => ("True", "Issued"),
        };
        ensure((&*status, &*reason) == expected, || format!("Ready is {status} ({reason})"))?;
        let home = if self == Self::Rename { format!("{name}-new") } else { name.to_owned() };
        let data = stage.data(&home).await;
        let tokens: Vec<_> = data.values().filter(|value| Presented::parse(value.as_str()).is_ok()).collect();
        let credentials = stage.status(name).await.credentials;
        if self == Self::Delivered {
            ensure(stage.accepts(name, before).await, || "the delivered token is not accepted".into())?;
        }
        if matches!(self, Self::Delivered | Self::NotDelivered) {
            let live = usize::from(self == Self::Delivered);
            ensure(credentials.len() == live, || format!("{} credentials are live", credentials.len()))?;
            return ensure(stage.secret(name).await.is_none(), || "a Secret exists".into());
        }
        if matches!(self, Self::Revoked | Self::Expiry) {
            ensure(tokens.is_empty(), || "an invalid token is in the Secret".into())?;
            return ensure(credentials.is_empty(), || format!("{} credentials are left", credentials.len()));
        }
        let token = data.get("token").ok_or("there is no token")?.clone();
        ensure(stage.accepts(name, &token).await, || "the token is not accepted".into())?;
        let keeps = matches!(self, Self::Rename | Self::RenameOntoForeign | Self::GraceEnd | Self::RepairOfLabel);
        if self == Self::DeliveredAgain {
            let states: Vec<_> = credentials.iter().map(|credential| credential.state).collect();
            let right = states == [CredentialState::Active, CredentialState::Grace];
            return ensure(right, || format!("{states:?} are live"));
        }
        if self != Self::FirstMint {
            ensure((token == before) == keeps, || format!("the token is {}", if keeps { "new" } else { "old" }))?;
        }
        if self == Self::Rename {
            ensure(stage.secret(name).await.is_none(), || "the old Secret is left".into())?;
        }
        let old_is_valid = match self {
            // A client that read the damaged Secret can still use its token.
            Self::Rotation | Self::RotationInGrace | Self::RepairAfterDeletion | Self::RepairAfterEdit => true,
            Self::RevokeIfIssuedBefore | Self::RevokedCredential => false,
            _ => return Ok(()),
        };
        ensure(stage.accepts(name, before).await == old_is_valid, || {
            format!("the old token is valid: {}", !old_is_valid)
        })?;
        if matches!(self, Self::Rotation | Self::RotationInGrace) {
            ensure(data.get("old").map(String::as_str) == Some(before), || {
                "the old token is not in the Secret".into()
            })?;
        }
        Ok(())
    }
}

fn ensure(right: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if right { Ok(()) } else { Err(what()) }
}

/// The fault that hits one request of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultCase {
    DieBefore,
    DieAfter,
    Conflict,
    TooMany,
    Internal,
    Outage,
    LostBefore,
    LostAfter,
    /// The write arrives later, among those of the same process.
    LateToItself,
    /// The write arrives later, among those of the process that took over.
    LateToSuccessor,
}

impl FaultCase {
    const ALL: [Self; 10] = [
        Self::DieBefore,
        Self::DieAfter,
        Self::Conflict,
        Self::TooMany,
        Self::Internal,
        Self::Outage,
        Self::LostBefore,
        Self::LostAfter,
        Self::LateToItself,
        Self::LateToSuccessor,
    ];

    fn fault(self, after: usize) -> Fault {
        match self {
            Self::DieBefore => Fault::DieBefore,
            Self::DieAfter => Fault::DieAfter,
            Self::Conflict => Fault::Conflict,
            Self::TooMany => Fault::TooMany,
            Self::Internal => Fault::Internal,
            Self::Outage => Fault::Outage,
            Self::LostBefore => Fault::LostBefore,
            Self::LostAfter => Fault::LostAfter,
            Self::LateToItself => Fault::Late(after),
            Self::LateToSuccessor => Fault::Freeze,
        }
    }

    fn is_late(self) -> bool {
        matches!(self, Self::LateToItself | Self::LateToSuccessor)
    }
}

/// One run of the matrix.
#[derive(Clone, Copy)]
struct Run {
    scenario: Scenario,
    fault_case: FaultCase,
    /// Index of the request that the fault hits, from 0.
    at: usize,
    /// Number of further requests after which a late write arrives.
    after: usize,
}

impl Run {
    fn name(self) -> String {
        format!("{:?}.{:?}.{:02}.{:02}", self.scenario, self.fault_case, self.at, self.after).to_lowercase()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} × {:?} at request {}", self.scenario, self.fault_case, self.at)?;
        if self.fault_case.is_late() { write!(f, ", arriving after {}", self.after) } else { Ok(()) }
    }
}

/// Result of a run.
struct RunResult {
    /// The fault was injected.
    hit: bool,
    /// The late write arrived before the operator was idle.
    landed: bool,
    requests: usize,
    moments: usize,
}

/// A stage with a recorder and two foreign Secrets.
struct CrashStage {
    stage: Stage,
    recorder: Recorder,
    foreign: Vec<String>,
    tokens: BTreeSet<String>,
}

impl CrashStage {
    async fn new(prefix: &str) -> Self {
        canary::listen_to_logs();
        let stage = Stage::new(prefix).await;
        let recorder = Recorder::start(&stage.client, stage.namespace.name(), &stage.clock).await;
        for (name, labels) in
            [("foreign", json!({})), ("labelled", json!({"app.kubernetes.io/managed-by": "pat-operator"}))]
        {
            let secret = json!({"metadata": {"name": name, "labels": labels}, "stringData": {"token": "theirs"}});
            let secret: Secret = serde_json::from_value(secret).expect("a Secret");
            stage.secrets().create(&PostParams::default(), &secret).await.expect("the Secret is created");
        }
        let mut scene = Self { stage, recorder, foreign: Vec::new(), tokens: BTreeSet::new() };
        scene.foreign = scene.foreign_versions().await;
        scene
    }

    async fn foreign_versions(&self) -> Vec<String> {
        let mut versions = Vec::new();
        for name in ["foreign", "labelled"] {
            let secret = self.stage.secret(name).await;
            versions.push(secret.and_then(|secret| secret.metadata.resource_version).unwrap_or_default());
        }
        versions
    }

    async fn advance(&self, by: SignedDuration) {
        self.recorder.time_moves(self.stage.now().plus(by)).await;
        self.stage.hand.advance(by);
    }

    /// As [`Stage::settle`], and keeps the recorder's clock in step.
    async fn settle(&self, name: &str) {
        self.drive(name, &Faults::none(&self.stage.client), None).await.expect("the runs succeed");
    }

    /// Reconciles one token until the operator is idle or dead, and follows its requeue times.
    async fn drive(&self, name: &str, faults: &Faults, fault_case: Option<FaultCase>) -> Result<(), String> {
        let mut failures = 0;
        for _ in 0..30 {
            let wait = match self.stage.reconcile(name).await {
                _ if faults.is_dead() => return Ok(()),
                Ok(Some(at)) if at.since(self.stage.now()) <= SignedDuration::from_secs(10) => {
                    at.since(self.stage.now()).max(SignedDuration::from_millis(1))
                }
                Ok(_) => return Ok(()),
                Err(error) => {
                    canary::collect("an error", &format!("{error} {error:?} {}", error.category()));
                    failures += 1;
                    if faults.hit().is_none() {
                        return Err(format!("fails without a fault: {error}"));
                    }
                    if fault_case == Some(FaultCase::Outage) && failures == 3 {
                        faults.heal();
                    }
                    let asked = error.retry_after();
                    if fault_case == Some(FaultCase::TooMany) {
                        ensure(asked == Some(Duration::from_secs(RETRY_AFTER)), || "Retry-After is lost".into())?;
                    }
                    SignedDuration::try_from(asked.unwrap_or(Duration::from_secs(1))).expect("a short time")
                }
            };
            self.advance(wait).await;
        }
        Err("does not become idle".into())
    }

    /// Records everything that was sent and must not contain a token.
    fn collect(&mut self, faults: &Faults) {
        for request in faults.sent() {
            canary::collect("a request", &request.public_text());
            self.tokens.extend(request.secret_values().into_iter().filter(|value| Presented::parse(value).is_ok()));
        }
        let operator = self.stage.operator();
        let metrics = operator.metrics.text(&operator.stores, &ReconcileGate::new(1), true, self.stage.now());
        canary::collect("the metrics", &metrics);
    }

    /// Checks that a fresh process sends nothing for an idle token.
    async fn check_idle(&mut self, name: &str, may_read: bool) -> Result<(), String> {
        let faults = Faults::none(&self.stage.client);
        self.stage.restart_with(faults.client());
        let result = self.stage.reconcile(name).await;
        result.map_err(|error| format!("a fresh process fails for an idle token: {error}"))?;
        let sent: Vec<_> =
            faults.sent().into_iter().filter(|request| !may_read || request.is_write()).map(|r| r.summary()).collect();
        ensure(sent.is_empty(), || format!("invariant 4: a fresh process sends for an idle token: {sent:?}"))
    }

    async fn run(&mut self, run: Run) -> Result<RunResult, String> {
        let name = run.name();
        run.scenario.prepare(self, &name).await;
        let before = self.stage.data(&name).await.get("token").cloned().unwrap_or_default();
        let faults = Faults::at(&self.stage.client, run.at, run.fault_case.fault(run.after));
        self.stage.restart_with(faults.client());
        run.scenario.begin(self, &name).await;
        let result = self.drive(&name, &faults, Some(run.fault_case)).await;
        self.collect(&faults);
        result.map_err(|what| self.explain(&what, &[&faults], None))?;

        let mut processes = vec![faults.clone()];
        if faults.is_dead() {
            let successor = match (run.fault_case, faults.hit()) {
                (FaultCase::LateToSuccessor, Some(late)) if late.is_write() => {
                    Faults::landing(&self.stage.client, run.after, late)
                }
                _ => Faults::none(&self.stage.client),
            };
            self.stage.restart_with(successor.client());
            let result = self.drive(&name, &successor, None).await;
            self.collect(&successor);
            result.map_err(|what| self.explain(&what, &[&faults, &successor], None))?;
            processes.push(successor);
        }
        let last = processes.last().expect("at least one process");
        let landed = last.has_landed();
        let result = self.check_outcome(run, &name, &before, last).await;
        let late = SignedDuration::from_secs(if run.fault_case.is_late() { 60 } else { 0 });
        let story = self.recorder.judge(&name, late).await;
        let all: Vec<_> = processes.iter().collect();
        result.map_err(|what| self.explain(&what, &all, Some(&story)))?;
        ensure(story.orphans == 0, || self.explain("an orphaned Secret was left", &all, Some(&story)))?;
        if let Some(what) = story.violations.iter().chain(&story.leftovers).next() {
            return Err(self.explain(what, &all, Some(&story)));
        }
        let requests = processes.iter().map(|faults| faults.sent().len()).sum();
        Ok(RunResult { hit: faults.hit().is_some(), landed, requests, moments: story.moments })
    }

    async fn check_outcome(&mut self, run: Run, name: &str, before: &str, last: &Faults) -> Result<(), String> {
        run.scenario.check_end(self, name, before).await?;
        if !last.has_landed() {
            let versions = self.stage.versions().await;
            if let Some((late, answer)) = last.land().await {
                let refused = answer.is_client_error() || late.is_event();
                ensure(refused, || format!("fencing: {} was accepted ({answer})", late.summary()))?;
                ensure(versions == self.stage.versions().await, || "fencing: a late write changed something".into())?;
            }
        }
        self.check_idle(name, run.scenario == Scenario::RenameOntoForeign).await
    }

    fn explain(&self, what: &str, faults: &[&Faults], story: Option<&Story>) -> String {
        let mut text = format!("{what}\n");
        for (index, faults) in faults.iter().enumerate() {
            let hit = faults.hit().map_or_else(String::new, |hit| format!(", fault at {}", hit.summary()));
            text += &format!("  process {index}{hit}:\n");
            faults.sent().iter().for_each(|request| text += &format!("    {}\n", request.summary()));
        }
        story.into_iter().flat_map(|story| &story.lines).for_each(|line| text += &format!("  {line}\n"));
        text
    }

    /// Deletes the objects of a run, so that lists stay short.
    async fn clear(&self, name: &str) {
        let deleted = self.stage.pats().delete(name, &Default::default()).await;
        deleted.expect("the PAT is deleted");
        for secret in [name.to_owned(), format!("{name}-new")] {
            // The Secret may not exist.
            let _ = self.stage.secrets().delete(&secret, &Default::default()).await;
        }
    }

    /// Records the events, and checks that the foreign Secrets are untouched.
    async fn close(mut self) -> Result<BTreeSet<String>, String> {
        let events: Api<Event> = Api::namespaced(self.stage.client.clone(), self.stage.namespace.name());
        for event in events.list(&ListParams::default()).await.expect("events are listed") {
            canary::collect("an event", &serde_json::to_string(&event).expect("JSON"));
        }
        ensure(self.foreign == self.foreign_versions().await, || "invariant 5: a foreign Secret was touched".into())?;
        self.tokens.extend(self.recorder.tokens());
        // Dropping a namespace blocks the thread.
        tokio::task::spawn_blocking(move || drop(self.stage));
        Ok(self.tokens)
    }
}

#[derive(Default)]
struct Totals {
    runs: AtomicUsize,
    requests: AtomicUsize,
    moments: AtomicUsize,
    last_request: AtomicUsize,
}

impl Totals {
    fn add(&self, run: Run, result: &RunResult) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(result.requests, Ordering::Relaxed);
        self.moments.fetch_add(result.moments, Ordering::Relaxed);
        self.last_request.fetch_max(run.at, Ordering::Relaxed);
    }
}

/// Runs a scenario with one kind of fault at every request. A late write arrives before each of the later requests in turn.
async fn run_all(scene: &mut CrashStage, scenario: Scenario, fault_case: FaultCase, totals: &Totals) -> Vec<String> {
    let mut failures = Vec::new();
    'requests: for at in 0..40 {
        for after in 1..40 {
            let run = Run { scenario, fault_case, at, after };
            let result = scene.run(run).await;
            scene.clear(&run.name()).await;
            match result {
                Ok(result) => {
                    totals.add(run, &result);
                    if !result.hit {
                        break 'requests;
                    }
                    if !fault_case.is_late() || !result.landed {
                        break;
                    }
                }
                Err(what) => {
                    failures.push(format!("{run}: {what}"));
                    break;
                }
            }
        }
    }
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn invariants_hold_after_a_fault_at_any_request() {
    let began = Instant::now();
    let totals = Totals::default();
    let only = std::env::var("CRASH_ONLY").unwrap_or_default();
    let mut cases: Vec<_> = Scenario::ALL
        .into_iter()
        .flat_map(|scenario| FaultCase::ALL.map(|fault_case| (scenario, fault_case)))
        .filter(|(scenario, fault_case)| format!("{scenario:?} {fault_case:?}").contains(&only))
        .collect();
    // The longest cases first, so that none of them runs alone at the end.
    cases.sort_by_key(|(_, fault_case)| fault_case.is_late());
    let open = async |number: usize| CrashStage::new(&format!("crash-{number}")).await;
    let run =
        async |scene: &mut CrashStage, (scenario, fault_case)| run_all(scene, scenario, fault_case, &totals).await;
    let (mut failures, ends) = run_cases(WORKERS, cases, open, run, CrashStage::close).await;
    let mut tokens = BTreeSet::new();
    for end in ends {
        match end {
            Ok(seen) => tokens.extend(seen),
            Err(what) => failures.push(what),
        }
    }
    println!(
        "crash matrix: {} runs ({} scenarios × {} faults, each at every request, at most {}), {} requests, {} moments judged, {} tokens, {} MiB of logs, {:.0} s",
        totals.runs.load(Ordering::Relaxed),
        Scenario::ALL.len(),
        FaultCase::ALL.len(),
        totals.last_request.load(Ordering::Relaxed),
        totals.requests.load(Ordering::Relaxed),
        totals.moments.load(Ordering::Relaxed),
        tokens.len(),
        canary::logged_bytes() >> 20,
        began.elapsed().as_secs_f64(),
    );
    assert!(failures.is_empty(), "{} runs failed:\n{}", failures.len(), failures.join("\n"));
    canary::assert_no_token_leaked(&tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_with_stalled_watches_does_no_damage() {
    let mut tokens = BTreeSet::new();
    for scenario in Scenario::ALL {
        for successor_first in [false, true] {
            let mut scene = CrashStage::new(&format!("{scenario:?}-blind").to_lowercase()).await;
            let name = "app";
            scenario.prepare(&scene, name).await;
            let before = scene.stage.data(name).await.get("token").cloned().unwrap_or_default();
            let faults = Faults::none(&scene.stage.client);
            let mut blind = scene.stage.manual_operator(faults.client());
            if scenario != Scenario::FirstMint {
                blind.show(scene.stage.pat(name).await);
                // A delivered token has no Secret.
                scene.stage.secret(name).await.into_iter().for_each(|secret| blind.show_secret(secret));
            }
            scenario.begin(&scene, name).await;
            if scenario == Scenario::FirstMint {
                blind.show(scene.stage.pat(name).await);
            }
            let mut at_rest = None;
            if successor_first {
                scene.settle(name).await;
                at_rest = Some(scene.stage.versions().await);
            }
            for _ in 0..4 {
                // An error is allowed, damage is not.
                if let Err(error) = blind.reconcile(name).await {
                    canary::collect("an error", &format!("{error} {error:?}"));
                }
                scene.advance(SignedDuration::from_secs(3)).await;
            }
            if let Some(versions) = at_rest {
                assert_eq!(versions, scene.stage.versions().await, "{scenario:?}: a blind operator wrote something");
            }
            scene.stage.restart();
            scene.settle(name).await;
            scene.collect(&faults);
            let story = scene.recorder.judge(name, SignedDuration::ZERO).await;
            let end = scenario.check_end(&scene, name, &before).await;
            let wrong = (end.err(), &story.violations, &story.leftovers, story.orphans);
            assert_eq!(wrong, (None, &vec![], &vec![], 0), "{scenario:?}, {successor_first}: {:#?}", story.lines);
            let idle = scene.check_idle(name, scenario == Scenario::RenameOntoForeign).await;
            idle.unwrap_or_else(|what| panic!("{scenario:?}: {what}"));
            tokens.extend(scene.close().await.unwrap_or_else(|what| panic!("{scenario:?}: {what}")));
        }
    }
    canary::assert_no_token_leaked(&tokens);
}

#[test]
fn leak_check_finds_plain_hex_and_base64_tokens() {
    type Leak = fn(&str) -> String;
    let leaks: [(&str, Leak); 6] = [
        ("plain", |text| format!("error: bad token {text}!")),
        ("its tail", |text| format!("token=\"{}\"", &text[17..])),
        ("hex", |text| text.bytes().map(|byte| format!("{byte:02x}")).collect()),
        ("base64", |text| BASE64_STANDARD.encode(text)),
        ("base64 of a pair", |text| BASE64_STANDARD.encode(format!("u:{text}"))),
        ("base64 of JSON", |text| BASE64_STANDARD.encode(format!("{{\"a\":\"{text}\"}}"))),
    ];
    let mint = || Token::mint(&"kpat".parse().expect("a prefix")).expect("a token");
    for (origin, leak) in leaks {
        let token = mint().expose().to_owned();
        canary::collect(origin, &leak(&token));
        // An unknown token is recognized only if it is complete.
        let whole = if origin == "its tail" { 0 } else { 1 };
        assert_eq!(canary::tokens_in(&leak(&token)).len(), whole, "{origin}");
        assert_eq!(canary::leaks(&[token].into()).len(), 1, "{origin}");
    }
    let token = mint();
    assert!(canary::tokens_in(&format!("{} {} {token:?}", token.id(), token.hash())).is_empty());
    canary::collect("harmless", &format!("{} {} {token:?}", token.id(), token.hash()));
    canary::assert_no_token_leaked(&[token.expose().to_owned()].into());
}

/// The state of the work at which a real process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KillPoint {
    AtOnce,
    Published,
    InSecret,
    Active,
}

impl KillPoint {
    /// Waits until this point is reached. `before` is the token to be replaced.
    async fn wait(self, place: &Place, before: Option<&str>) {
        let revision = if before.is_some() { 2 } else { 1 };
        let is_there = |status: &PersonalAccessTokenStatus, state: Option<CredentialState>| {
            let is = |state_of| state.is_none_or(|state| state == state_of);
            status.credentials.iter().any(|one| one.revision == revision && is(one.state))
        };
        match self {
            Self::AtOnce => {}
            // A first mint may already be further when this is seen.
            Self::Published => drop(place.until("app", "published", |status| is_there(status, None)).await),
            Self::InSecret => {
                eventually("the Secret has the new token", async || {
                    let token = place.value("app", "token").await;
                    token.is_some_and(|token| Presented::parse(&token).is_ok() && Some(&*token) != before)
                })
                .await;
            }
            Self::Active => {
                let active = Some(CredentialState::Active);
                drop(place.until("app", "active", |status| is_there(status, active)).await);
            }
        }
    }
}

/// What the process does when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    FirstMint,
    Rotation,
    Repair,
}

async fn kill_and_restart(work: Work, kill_point: KillPoint) -> BTreeSet<String> {
    let place = Place::new(&format!("kill-{work:?}-{kill_point:?}").to_lowercase()).await;
    let recorder = Recorder::start(&place.client, place.name(), &Clock::system()).await;
    let launch = || {
        place
            .operator()
            .arg("--leader-elect=false")
            .arg("--publish-lead=1s")
            .arg("--log-level=trace,kube_client=trace,kube_runtime=trace,hyper=debug,hyper_util=debug,tower=trace")
            .start()
    };
    let mut spec = json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "old"}});
    let mut first = launch();
    first.is_ready().await;
    let mut before = None;
    if work != Work::FirstMint {
        place.apply("app", spec.clone()).await;
        before = Some(place.ready("app").await);
    }
    match work {
        Work::FirstMint => place.apply("app", spec).await,
        Work::Rotation => {
            spec["rotateIfIssuedBefore"] = in_seconds(0).into();
            place.apply("app", spec).await;
        }
        Work::Repair => {
            let edit = json!({"data": {"token": "b29wcw=="}});
            place
                .secrets()
                .patch("app", &PatchParams::default(), &Patch::Merge(edit))
                .await
                .expect("the Secret is edited");
        }
    }
    kill_point.wait(&place, before.as_deref()).await;
    first.kill();

    let mut second = launch();
    let wanted = if work == Work::FirstMint { 1 } else { 2 };
    let status = place.until("app", "ready", |status| status.revision >= Some(wanted) && is_ready(status)).await;
    place.assert_active_token_in_secret("app").await;
    // If the first process finished the work, the second one may have logged nothing yet.
    second.is_ready().await;
    assert_eq!(status.credentials.len() as i64, wanted, "{status:#?}");
    let version = place.pats().get("app").await.expect("the PAT exists").metadata.resource_version;
    second.kill();

    let mut third = launch();
    eventually("a run", async || third.metrics().await.value("pat_operator_reconcile_duration_seconds_count") >= 1.0)
        .await;
    let at_rest = place.pats().get("app").await.expect("the PAT exists").metadata.resource_version;
    assert_eq!(version, at_rest, "invariant 4");
    for process in [&first, &second, &third] {
        assert!(process.has_logged(&["hyper_util"]), "the log is complete:\n{process}");
        process.log().iter().for_each(|line| canary::collect("the log of a process", line));
    }
    let metrics = third.metrics().await.text;
    canary::collect("the metrics", &metrics);
    let story = recorder.judge_in_real_time("app").await;
    let wrong = (&story.violations, &story.leftovers, story.orphans);
    assert_eq!(wrong, (&vec![], &vec![], 0), "{work:?}, killed {kill_point:?}: {:#?}", story.lines);
    recorder.tokens()
}

#[tokio::test(flavor = "multi_thread")]
async fn next_process_finishes_after_a_kill_at_any_moment() {
    let began = Instant::now();
    let kill_points = [KillPoint::AtOnce, KillPoint::Published, KillPoint::InSecret, KillPoint::Active];
    let works = [Work::FirstMint, Work::Rotation, Work::Repair];
    let runs = works.into_iter().flat_map(|work| kill_points.map(|kill_point| (work, kill_point)));
    let results = futures::stream::iter(runs).map(|(work, kill_point)| kill_and_restart(work, kill_point));
    let tokens: Vec<_> = results.buffer_unordered(4).collect().await;
    let runs = tokens.len();
    canary::assert_no_token_leaked(&tokens.into_iter().flatten().collect());
    println!("kill -9: {runs} runs, {:.0} s", began.elapsed().as_secs_f64());
}
