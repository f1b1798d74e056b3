//! Crash matrix of the calls at an issuer: a fault hits each call in turn, and each request to the API server. The issuer accepts the token
//! in the Secret at every observed moment, and at the end it has exactly the tokens that the status lists.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use pat_operator::{
    api::{Credential, CredentialState, PersonalAccessToken},
    planner::remote::LATEST_REQUEST,
};
use serde_json::{Value, json};

use crate::support::{
    faults::{Fault, Faults, Recorded},
    remote_stage::RemoteStage,
    vendor::faulty::{PlannedFault, RemoteCall, RemoteFault},
    workers::run_cases,
};

/// Number of namespaces in which the test runs concurrently.
const WORKERS: usize = 6;

/// The tokens of other clients in the same project: by hand, and of another installation.
const FOREIGN: [&str; 3] = ["deploy", "po-aaaaaaaa-bbbbbbbbbbbbbbbbbbbb", "renovate"];

/// How the clock moves while a controller works: quickly at first, then past the deadline of a create, and past the longest delay.
const STEPS: [i64; 14] = [0, 5, 15, 30, 45, 60, 60, 60, 60, 120, 120, 300, 300, 300];

/// The operation that a fault interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    FirstMint,
    /// A first mint whose answer was lost. The fault hits what follows.
    Recovery,
    Rotation,
    RepairAfterDeletion,
    RepairAfterEdit,
    GraceEnd,
    RevokedCredential,
    /// A person revokes the token at the issuer.
    RevokedThere,
    Deletion,
}

impl Scenario {
    const ALL: [Self; 9] = [
        Self::FirstMint,
        Self::Recovery,
        Self::Rotation,
        Self::RepairAfterDeletion,
        Self::RepairAfterEdit,
        Self::GraceEnd,
        Self::RevokedCredential,
        Self::RevokedThere,
        Self::Deletion,
    ];

    /// The kinds of calls that matter in this scenario.
    fn calls(self) -> &'static [RemoteCall] {
        use RemoteCall::{Check, Create, Delete, Page};
        match self {
            Self::FirstMint => &[Create, Check],
            Self::Recovery => &[Create, Delete, Page],
            Self::Rotation | Self::RepairAfterDeletion | Self::RepairAfterEdit => &[Create],
            Self::GraceEnd => &[Delete, Page],
            Self::RevokedCredential => &[Delete],
            Self::RevokedThere => &[Create, Page],
            Self::Deletion => &[Delete, Page, Check],
        }
    }

    /// Faults that happen besides the one of the run.
    fn own_faults(self) -> Vec<PlannedFault> {
        match self {
            Self::Recovery => vec![(RemoteCall::Create, 0, RemoteFault::LostAfter)],
            _ => Vec::new(),
        }
    }

    fn is_first_mint(self) -> bool {
        matches!(self, Self::FirstMint | Self::Recovery)
    }

    /// Sets up the state before the fault.
    async fn prepare(self, scene: &Scene, name: &str) {
        if self.is_first_mint() {
            return;
        }
        scene.remote.apply(name, json!({})).await;
        scene.settle(name).await;
        if matches!(self, Self::GraceEnd | Self::RevokedCredential) {
            scene.advance(SignedDuration::from_hours(30 * 24)).await;
            scene.settle(name).await;
        }
        // Lists are conclusive from now on.
        scene.advance(SignedDuration::from_mins(5)).await;
    }

    /// Triggers the operation.
    async fn begin(self, scene: &Scene, name: &str) {
        let (stage, secrets) = (&scene.remote.stage, scene.remote.stage.secrets());
        match self {
            Self::FirstMint | Self::Recovery => drop(scene.remote.apply(name, json!({})).await),
            Self::Rotation => scene.advance(SignedDuration::from_hours(30 * 24)).await,
            Self::GraceEnd => scene.advance(SignedDuration::from_hours(25)).await,
            Self::RepairAfterDeletion => {
                secrets.delete(name, &Default::default()).await.expect("the Secret is deleted");
            }
            Self::RepairAfterEdit => {
                let edit = json!({"data": {"token": "b29wcw=="}});
                let patched = secrets.patch(name, &PatchParams::default(), &Patch::Merge(edit)).await;
                patched.expect("the Secret is edited");
            }
            Self::RevokedCredential => {
                let all = stage.status(name).await.remote_credentials;
                let one = all.into_iter().find(|one| one.state == CredentialState::Grace).expect("one in grace");
                scene.remote.apply(name, json!({"revokedCredentials": [one.id]})).await;
            }
            Self::RevokedThere => {
                let token = stage.value(name, "token").await;
                scene.remote.gitlab.with(|gitlab| gitlab.revoke(&token));
            }
            Self::Deletion => drop(stage.pats().delete(name, &Default::default()).await.expect("it is deleted")),
        }
    }

    /// Whether the operation is complete.
    fn is_complete(self, pat: Option<&PersonalAccessToken>) -> bool {
        let Some(pat) = pat else { return self == Self::Deletion };
        let Some(status) = &pat.status else { return false };
        let is_ready = status.conditions.iter().any(|one| one.type_ == "Ready" && one.is_true());
        let all = &status.remote_credentials;
        let count = |state| all.iter().filter(|one| one.state == state).count();
        let (active, grace) = (count(CredentialState::Active), count(CredentialState::Grace));
        let right = match self {
            Self::FirstMint | Self::Recovery => (active, grace) == (1, 0),
            Self::Rotation | Self::RepairAfterDeletion | Self::RepairAfterEdit => (active, grace) == (1, 1),
            Self::GraceEnd | Self::RevokedCredential => (active, grace) == (1, 0),
            Self::RevokedThere => (active, grace) == (1, 0) && status.revoked_remotely_at.len() == 1,
            Self::Deletion => false,
        };
        is_ready && right && all.len() == active + grace
    }
}

fn ensure(right: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if right { Ok(()) } else { Err(what()) }
}

/// One run of the matrix.
#[derive(Clone, Copy)]
struct Run {
    scenario: Scenario,
    hit: Hit,
}

/// What a fault hits.
#[derive(Clone, Copy)]
enum Hit {
    /// A call at the issuer.
    Call(PlannedFault),
    /// A write of the PAT or the Secret, counted from 0.
    Write(usize, Fault),
    /// The leader is paused before a write of the Secret, which arrives just before the nth request of its successor.
    Paused(usize, usize),
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} × ", self.scenario)?;
        match self.hit {
            Hit::Call((call, nth, fault)) => write!(f, "{fault:?} at {call:?} {nth}"),
            Hit::Write(at, fault) => write!(f, "{fault:?} at write {at}"),
            Hit::Paused(at, after) => write!(f, "paused at write {at} of the Secret, which arrives after {after}"),
        }
    }
}

impl Run {
    fn plan(self) -> Vec<PlannedFault> {
        let mut plan = self.scenario.own_faults();
        if let Hit::Call(fault) = self.hit {
            plan.push(fault);
        }
        plan
    }

    /// Plans the fault for the requests to the API server from now on.
    fn arm(self, faults: &Faults) {
        match self.hit {
            Hit::Call(_) => {}
            Hit::Write(at, fault) => faults.plan(is_write, at, fault),
            Hit::Paused(at, _) => faults.plan(Recorded::is_secret_write, at, Fault::Freeze),
        }
    }

    /// Whether the run also checks that a fresh controller has nothing to do.
    fn checks_idle(self) -> bool {
        let is_chosen = match self.hit {
            Hit::Call((.., fault)) => fault == RemoteFault::LostAfter,
            Hit::Write(_, fault) => fault == Fault::LostAfter,
            Hit::Paused(_, after) => after == 1,
        };
        is_chosen && self.scenario != Scenario::Deletion
    }
}

/// Whether a request writes the PAT or the Secret.
fn is_write(request: &Recorded) -> bool {
    request.is_write() && (request.is_secret_write() || request.uri.path().contains("/personalaccesstokens/"))
}

/// The result of a run.
struct RunResult {
    /// Whether the fault hit something.
    hit: bool,
    /// Whether the write of the paused leader arrived while its successor worked.
    landed: bool,
    moments: usize,
    calls: usize,
}

/// A stage with an issuer, and what the checks remember.
struct Scene {
    remote: RemoteStage,
    foreign: Vec<Value>,
    moments: AtomicUsize,
    /// Tokens that the issuer need not accept, because a person revoked them there.
    excused: Mutex<BTreeSet<String>>,
}

impl Scene {
    async fn new(prefix: &str) -> Self {
        let remote = RemoteStage::new(prefix).await;
        FOREIGN.iter().for_each(|name| remote.gitlab.with(|gitlab| gitlab.add_foreign(name)));
        let foreign = remote.gitlab.with(|gitlab| gitlab.live());
        Self { remote, foreign, moments: AtomicUsize::new(0), excused: Mutex::default() }
    }

    /// Moves the clock. A late call takes effect within the time that the planner allows for.
    async fn advance(&self, by: SignedDuration) {
        let to = self.remote.stage.now().plus(by);
        if self.remote.gitlab.late_since().is_some_and(|sent_at| to > sent_at.plus(LATEST_REQUEST)) {
            self.remote.gitlab.land().await;
        }
        self.remote.stage.hand.advance(by);
    }

    async fn settle(&self, name: &str) {
        self.remote.settle(name).await;
    }

    /// Checks what must hold at every moment.
    async fn look(&self, name: &str) -> Result<(), String> {
        self.moments.fetch_add(1, Ordering::Relaxed);
        let stage = &self.remote.stage;
        let pat = stage.pats().get_opt(name).await.expect("the API server answers");
        let status = pat.as_ref().and_then(|pat| pat.status.clone()).unwrap_or_default();
        let text = serde_json::to_string(&status).expect("JSON");
        ensure(!text.contains("glpat-"), || format!("a token is in the status: {text}"))?;
        ensure(status.credentials.is_empty(), || "verifiers would accept a token of another system".into())?;
        ensure(status.remote_credentials.len() <= 8, || format!("{} credentials", status.remote_credentials.len()))?;
        let lives = pat.is_some_and(|pat| pat.metadata.deletion_timestamp.is_none());
        let token = stage.data(name).await.remove("token").filter(|token| lives && token.starts_with("glpat-"));
        let Some(token) = token else { return Ok(()) };
        let is_excused = self.excused.lock().expect("no panic").contains(&token);
        let accepted = self.remote.gitlab.with(|gitlab| gitlab.accepts(&token));
        ensure(accepted || is_excused, || format!("the issuer does not accept the token in the Secret: {token}"))
    }

    /// Lets a controller work until the operation is complete or the controller is dead.
    async fn drive(&self, name: &str, scenario: Scenario, faults: &Faults) -> Result<(), String> {
        let stage = &self.remote.stage;
        for step in STEPS {
            self.advance(SignedDuration::from_secs(step)).await;
            self.remote.poll().await;
            if faults.is_dead() {
                return Ok(());
            }
            let result = self.remote.act(name, async || self.look(name).await).await?;
            if faults.is_dead() {
                return Ok(());
            }
            if let Err(error) = result {
                ensure(faults.hit().is_some(), || format!("fails without a fault: {error}"))?;
            }
            let pat = stage.pats().get_opt(name).await.expect("the API server answers");
            if scenario.is_complete(pat.as_ref()) {
                return Ok(());
            }
        }
        let pat = stage.pats().get_opt(name).await.expect("the API server answers");
        Err(format!("does not complete: {:#?}", pat.and_then(|pat| pat.status)))
    }

    /// Checks what must hold at the end. `before` is the token that was in use.
    async fn check_end(&self, name: &str, scenario: Scenario, before: &str) -> Result<(), String> {
        let stage = &self.remote.stage;
        let live = self.remote.gitlab.with(|gitlab| gitlab.live());
        let (foreign, ours): (Vec<_>, Vec<_>) =
            live.into_iter().partition(|token| FOREIGN.contains(&token["name"].as_str().unwrap_or_default()));
        ensure(foreign == self.foreign, || format!("the tokens of others were touched: {foreign:#?}"))?;
        let violations = self.remote.gitlab.violations();
        ensure(violations.is_empty(), || violations.join("; "))?;
        let pat = stage.pats().get_opt(name).await.expect("the API server answers");
        let listed = pat.and_then(|pat| pat.status).unwrap_or_default().remote_credentials;
        let at_issuer: BTreeSet<_> = ours.iter().map(|one| (text(&one["name"]), one["id"].to_string())).collect();
        let in_status: BTreeSet<_> = listed.iter().filter_map(recorded).collect();
        ensure(at_issuer.len() == ours.len(), || format!("two tokens have the same name: {ours:#?}"))?;
        ensure(at_issuer == in_status, || format!("the issuer has {at_issuer:?}, and the status {in_status:?}"))?;
        let data = stage.data(name).await;
        let tokens: Vec<_> = data.values().filter(|value| value.starts_with("glpat-")).collect();
        if scenario == Scenario::Deletion {
            return Ok(());
        }
        let [token] = tokens[..] else { return Err(format!("{} tokens are in the Secret", tokens.len())) };
        ensure(self.remote.gitlab.with(|gitlab| gitlab.accepts(token)), || "the token does not work".into())?;
        let keeps = matches!(scenario, Scenario::GraceEnd | Scenario::RevokedCredential);
        ensure(scenario.is_first_mint() || (token == before) == keeps, || "the wrong token is in the Secret".into())?;
        let overlaps =
            matches!(scenario, Scenario::Rotation | Scenario::RepairAfterDeletion | Scenario::RepairAfterEdit);
        let works = self.remote.gitlab.with(|gitlab| gitlab.accepts(before));
        ensure(!overlaps || works, || "the old token does not work in its grace period".into())
    }

    /// Checks that a fresh controller writes nothing and creates and revokes nothing.
    async fn check_idle(&mut self, name: &str) -> Result<(), String> {
        let faults = Faults::none(&self.remote.stage.client);
        self.remote.gitlab.arm(Vec::new(), &faults, None);
        self.remote.restart_with(faults.client()).await;
        self.remote.poll().await;
        let result = self.remote.act(name, async || self.look(name).await).await?;
        result.map_err(|error| format!("a fresh controller fails: {error}"))?;
        let written: Vec<_> = faults.sent().iter().filter(|one| is_write(one)).map(Recorded::summary).collect();
        let calls = self.remote.gitlab.calls();
        let changes: Vec<_> =
            calls.iter().filter(|call| call.contains(" POST ") || call.contains(" DELETE ")).collect();
        ensure(written.is_empty() && changes.is_empty(), || format!("a fresh controller acts: {written:?} {changes:?}"))
    }

    async fn run(&mut self, run: Run, name: &str) -> Result<RunResult, String> {
        let faults = Faults::none(&self.remote.stage.client);
        self.remote.stage.hand.set(Timestamp::now());
        self.remote.gitlab.arm(Vec::new(), &faults, None);
        self.remote.restart_with(faults.client()).await;
        run.scenario.prepare(self, name).await;
        let before = self.remote.stage.data(name).await.get("token").cloned().unwrap_or_default();
        if run.scenario == Scenario::RevokedThere {
            self.excused.lock().expect("no panic").insert(before.clone());
        }

        let guarded = (run.scenario != Scenario::Deletion).then(|| self.remote.secret_of(name));
        self.remote.gitlab.arm(run.plan(), &faults, guarded);
        run.arm(&faults);
        run.scenario.begin(self, name).await;
        let mut processes = vec![faults.clone()];
        let mut result = self.drive(name, run.scenario, &faults).await;
        if result.is_ok() && faults.is_dead() {
            let successor = match (run.hit, faults.hit()) {
                (Hit::Paused(_, after), Some(late)) => Faults::landing(&self.remote.stage.client, after, late),
                _ => Faults::none(&self.remote.stage.client),
            };
            self.remote.gitlab.serve(&successor);
            self.remote.restart_with(successor.client()).await;
            result = self.drive(name, run.scenario, &successor).await;
            processes.push(successor);
        }
        let last = processes.last().expect("a process").clone();
        let landed = last.has_landed();
        self.remote.gitlab.land().await;
        if result.is_ok() {
            last.land().await;
            result = self.check_end(name, run.scenario, &before).await;
        }
        let hit = match run.hit {
            Hit::Call(_) => self.remote.gitlab.hits() == run.plan().len(),
            Hit::Write(..) | Hit::Paused(..) => faults.hit().is_some(),
        };
        let calls = self.remote.gitlab.calls();
        let explain = |what: String| explain(&what, &calls, &processes);
        result.map_err(explain)?;
        if run.checks_idle() {
            self.check_idle(name).await.map_err(explain)?;
        }
        let moments = self.moments.swap(0, Ordering::Relaxed);
        Ok(RunResult { hit, landed, moments, calls: calls.len() })
    }

    /// Removes everything that a run left.
    async fn clear(&self, name: &str) {
        let (pats, secrets) = (self.remote.stage.pats(), self.remote.stage.secrets());
        if pats.get_opt(name).await.expect("the API server answers").is_some() {
            let free = json!({"metadata": {"finalizers": null}});
            pats.patch(name, &PatchParams::default(), &Patch::Merge(free)).await.expect("no finalizers");
            // It may have been deleted by the run.
            let _ = pats.delete(name, &Default::default()).await;
        }
        // The Secret may not exist.
        let _ = secrets.delete(name, &Default::default()).await;
        let foreign = self.foreign.clone();
        self.remote.gitlab.with(|gitlab| gitlab.retain(|token| foreign.contains(token)));
    }

    async fn close(self) {
        // Dropping a namespace blocks the thread.
        tokio::task::spawn_blocking(move || drop(self.remote)).await.expect("no panic");
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The name and the ID of a credential that the issuer accepts.
fn recorded(one: &Credential) -> Option<(String, String)> {
    let remote = one.remote.as_ref().filter(|_| one.state != CredentialState::Revoking)?;
    Some((remote.name.clone(), remote.id.clone().unwrap_or_default()))
}

fn explain(what: &str, calls: &[String], processes: &[Faults]) -> String {
    let mut text = format!("{what}\n  calls:\n");
    calls.iter().for_each(|call| text += &format!("    {call}\n"));
    for (index, faults) in processes.iter().enumerate() {
        let hit = faults.hit().map_or_else(String::new, |hit| format!(", fault at {}", hit.summary()));
        text += &format!("  process {index}{hit}:\n");
        faults.sent().iter().for_each(|request| text += &format!("    {}\n", request.summary()));
    }
    text
}

/// The faults of each kind of call: all of them where a kind comes first, and elsewhere those that lead to different states.
fn faults_of(scenario: Scenario, call: RemoteCall) -> Vec<RemoteFault> {
    use RemoteFault::{DieAfter, DieBefore, DieLate, Garbage, Late, LostAfter, LostBefore, Refused};
    let reads = [DieBefore, LostBefore, Refused(401), Refused(404), Refused(429), Refused(500), Garbage];
    let changes =
        [DieAfter, LostAfter, Refused(403), Refused(409), Refused(422), Late(1), Late(3), DieLate(2), DieLate(5)];
    match (call, scenario) {
        (RemoteCall::Check, Scenario::FirstMint) | (RemoteCall::Page, Scenario::GraceEnd) => reads.to_vec(),
        (RemoteCall::Check | RemoteCall::Page, _) => vec![DieBefore, Refused(401), Garbage],
        (RemoteCall::Create, Scenario::FirstMint) | (RemoteCall::Delete, Scenario::GraceEnd) => {
            reads.into_iter().chain(changes).collect()
        }
        (RemoteCall::Create | RemoteCall::Delete, _) => vec![DieAfter, LostAfter, DieLate(3), Refused(500)],
    }
}

/// Some runs that differ only in the number of the call or write that is hit.
#[derive(Clone, Copy, Debug)]
enum Case {
    Calls(Scenario, RemoteCall, RemoteFault),
    Writes(Scenario, Fault),
    Paused(Scenario),
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for scenario in Scenario::ALL {
            for call in scenario.calls() {
                cases.extend(faults_of(scenario, *call).into_iter().map(|fault| Self::Calls(scenario, *call, fault)));
            }
            // They write what others write.
            let is_like_another =
                matches!(scenario, Scenario::RepairAfterEdit | Scenario::RevokedCredential | Scenario::Recovery);
            if is_like_another {
                continue;
            }
            cases.extend([Fault::DieAfter, Fault::LostAfter].map(|fault| Self::Writes(scenario, fault)));
            // In the other ones, no token is written to the Secret.
            if scenario.calls().contains(&RemoteCall::Create) {
                cases.push(Self::Paused(scenario));
            }
        }
        cases
    }

    fn scenario(self) -> Scenario {
        match self {
            Self::Calls(scenario, ..) | Self::Writes(scenario, _) | Self::Paused(scenario) => scenario,
        }
    }

    /// What is hit in the run with these numbers.
    fn hit(self, at: usize, after: usize) -> Hit {
        match self {
            Self::Calls(_, call, fault) => Hit::Call((call, at, fault)),
            Self::Writes(_, fault) => Hit::Write(at, fault),
            Self::Paused(_) => Hit::Paused(at, after),
        }
    }

    /// The numbers of the calls that are hit; `None`: all of them, as many as there are.
    fn numbers(self) -> Option<&'static [usize]> {
        match self {
            // The first is lost anyway.
            Self::Calls(Scenario::Recovery, RemoteCall::Create, _) => Some(&[1]),
            // The two pages of the list that finds the token, and of the one that confirms its end.
            Self::Calls(Scenario::Recovery, RemoteCall::Page, _) => Some(&[0, 1, 2, 3]),
            Self::Calls(_, RemoteCall::Check | RemoteCall::Page, _) => Some(&[0, 1]),
            Self::Calls(..) => Some(&[0]),
            Self::Writes(..) | Self::Paused(_) => None,
        }
    }
}

#[derive(Default)]
struct Totals {
    runs: AtomicUsize,
    moments: AtomicUsize,
    calls: AtomicUsize,
}

impl Totals {
    fn add(&self, result: &RunResult) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.moments.fetch_add(result.moments, Ordering::Relaxed);
        self.calls.fetch_add(result.calls, Ordering::Relaxed);
    }
}

/// Runs a case with each call or write in turn. The write of a paused leader arrives before every third of the later
/// requests in turn.
async fn run_all(scene: &mut Scene, case: Case, number: usize, totals: &Totals) -> Vec<String> {
    let mut failures = Vec::new();
    let all: Vec<_> = (0..20).collect();
    'hits: for at in case.numbers().unwrap_or(&all) {
        for after in (1..30).step_by(3) {
            let run = Run { scenario: case.scenario(), hit: case.hit(*at, after) };
            let name = format!("run-{number}-{at}-{after}");
            let result = scene.run(run, &name).await;
            scene.clear(&name).await;
            match result {
                Ok(result) if !result.hit && case.numbers().is_some() => {
                    failures.push(format!("{run}: there is no such call"));
                    break;
                }
                Ok(result) if !result.hit => break 'hits,
                Ok(result) => {
                    totals.add(&result);
                    if !result.landed {
                        break;
                    }
                }
                Err(what) => {
                    eprintln!("{run}: {what}");
                    failures.push(format!("{run}: {what}"));
                    break;
                }
            }
        }
    }
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_leaks_or_loses_a_token() {
    let began = Instant::now();
    let totals = Totals::default();
    let only = std::env::var("CRASH_ONLY").unwrap_or_default();
    let cases = Case::all().into_iter().enumerate().filter(|(_, case)| format!("{case:?}").contains(&only));
    let open = async |number: usize| Scene::new(&format!("issuer-faults-{number}")).await;
    let run = async |scene: &mut Scene, (number, case)| run_all(scene, case, number, &totals).await;
    let (failures, _) = run_cases(WORKERS, cases.collect(), open, run, Scene::close).await;
    println!(
        "crash matrix of an issuer: {} runs, {} calls, {} moments judged, {:.0} s",
        totals.runs.load(Ordering::Relaxed),
        totals.calls.load(Ordering::Relaxed),
        totals.moments.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64(),
    );
    assert!(failures.is_empty(), "{} runs failed:\n{}", failures.len(), failures.join("\n"));
}
