//! Random histories of tokens of another system, with a model of that system whose answers get lost.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::{
    observed::hash,
    remote::{IssuerCalls, IssuerProblem, IssuerView, ListProblem, RemoteList},
    simulate::{RemoteAnswer, SimulatedIssuer, SimulatedRemoteToken, SimulatedToken, Simulator},
    tests::{histories, seconds, simulator},
    *,
};
use crate::{
    api::{CredentialState, IssuerSystem, RemoteTarget},
    token::TokenHash,
};

/// A PAT, its issuer, and what the checks remember.
struct RemoteWorld {
    simulator: Simulator,
    /// Every name under which a token was requested.
    requested: HashSet<String>,
    /// Tokens that an administrator removed at the issuer.
    removed_there: HashSet<TokenHash>,
    /// Writes to the Secret that a paused process can still send, with the token that it holds.
    paused: Vec<(Box<SecretWrite>, Option<SimulatedToken>)>,
    events: Vec<EventToPublish>,
    calls: usize,
}

impl RemoteWorld {
    fn new(system: IssuerSystem, spec: Value) -> Self {
        let mut spec = spec;
        spec["issuerRef"] = json!({"kind": "ClusterTokenIssuer", "name": "them"});
        let mut simulator = simulator(spec);
        let mut issuer = SimulatedIssuer::new(IssuerView {
            title: "ClusterTokenIssuer \"them\"".into(),
            uid: "issuer-1".into(),
            system,
            mark: "abcdefgh".into(),
            policy: None,
            deleting: false,
            problem: None,
        });
        let foreign = SimulatedRemoteToken {
            id: "foreign".into(),
            sha256: hash(b"foreign"),
            expires_at: None,
            last_used_at: None,
        };
        issuer.tokens.insert("foreign".into(), foreign);
        simulator.issuer = Some(issuer);
        Self {
            simulator,
            requested: HashSet::new(),
            removed_there: HashSet::new(),
            paused: Vec::new(),
            events: Vec::new(),
            calls: 0,
        }
    }

    fn issuer(&mut self) -> &mut SimulatedIssuer {
        self.simulator.issuer.as_mut().unwrap()
    }

    fn status(&self) -> &PersonalAccessTokenStatus {
        self.simulator.pat.status.as_ref().unwrap()
    }

    /// Changes the spec, as its owner does.
    fn change(&mut self, change: impl FnOnce(&mut crate::api::PersonalAccessTokenSpec)) {
        change(self.simulator.pat.spec.as_mut().unwrap());
        let metadata = &mut self.simulator.pat.metadata;
        metadata.generation = metadata.generation.map(|generation| generation + 1);
    }

    /// Reconciles until the plan rests, or until so many steps are done. Returns whether it rests.
    fn reconcile(&mut self, steps: usize) -> bool {
        if self.simulator.released {
            return true;
        }
        self.simulator.begin_reconcile();
        for done in 0..40 {
            if done >= steps || self.simulator.released {
                return self.simulator.released;
            }
            let plan = self.simulator.next_plan();
            if matches!(plan.step, Step::Rest) {
                return true;
            }
            self.perform(plan.step);
            self.events.extend(plan.events);
            self.check();
        }
        panic!("no rest after 40 steps: {:?}", self.status());
    }

    fn perform(&mut self, step: Step) {
        match &step {
            Step::CreateRemote(request) => {
                self.calls += 1;
                assert!(request.name.starts_with("po-abcdefgh-"), "{}", request.name);
                let is_retry = self.issuer().calls.failed.is_some();
                assert!(
                    self.requested.insert(request.name.clone()) || is_retry,
                    "{} was requested before",
                    request.name
                );
                assert!(self.simulator.pat.has_finalizer(), "a token is requested without the finalizer");
            }
            Step::DeleteRemote(deletion) => {
                self.calls += 1;
                assert!(self.requested.contains(&deletion.name), "{} is not ours", deletion.name);
                let all = &self.status().remote_credentials;
                let remote = |one: &crate::api::Credential| one.remote.as_ref().map(|remote| remote.name.clone());
                let credential = all.iter().find(|one| remote(one).as_ref() == Some(&deletion.name)).unwrap();
                assert_eq!(credential.state, CredentialState::Revoking, "{} is live", deletion.name);
            }
            _ => {}
        }
        self.simulator.perform(step).expect("the step can be performed");
    }

    /// The hash of the token in the Secret.
    fn in_secret(&self) -> Option<TokenHash> {
        let secret = self.simulator.secrets.get("t")?;
        let value = secret.data.as_ref()?.get("token").filter(|value| !value.0.is_empty())?;
        Some(hash(&value.0))
    }

    /// Checks what must hold at every moment.
    fn check(&mut self) {
        let status = self.status().clone();
        assert!(status.credentials.is_empty(), "verifiers would accept a token of another system");
        assert!(status.remote_credentials.len() <= 8);
        let now = self.simulator.now;
        // Invariant 9: the issuer accepts the token in the Secret while it is wanted.
        let active = status.remote_credentials.iter().find(|one| one.state == CredentialState::Active);
        if let (Some(active), Some(token)) = (active, self.in_secret())
            && active.sha256 == token
            && active.expires_at.is_none_or(|end| now < end)
            && !self.removed_there.contains(&token)
        {
            let tokens = &self.simulator.issuer.as_ref().unwrap().tokens;
            assert!(
                tokens.values().any(|there| there.sha256 == token),
                "the issuer does not accept the token in the Secret"
            );
        }
    }

    /// Lets time pass and reconciles, with polls, until nothing changes any more.
    fn come_to_rest(&mut self) {
        self.issuer().view.problem = None;
        self.issuer().next_answer = RemoteAnswer::Success;
        for _ in 0..12 {
            self.simulator.now = self.simulator.now.plus(seconds(130));
            let now = self.simulator.now;
            self.issuer().poll(now);
            self.reconcile(usize::MAX);
        }
    }

    /// Checks what must hold at rest.
    fn check_at_rest(&mut self) {
        let status = self.status().clone();
        let released = self.simulator.released;
        let now = self.simulator.now;
        let issuer = self.issuer();
        assert!(issuer.tokens.contains_key("foreign"), "a token of others was deleted");
        let live: BTreeMap<_, _> = issuer
            .tokens
            .iter()
            .filter(|(name, token)| *name != "foreign" && token.expires_at.is_none_or(|end| now < end))
            .map(|(name, token)| (name.clone(), token.sha256))
            .collect();
        if released {
            assert!(live.is_empty(), "the object is gone, and these tokens live: {live:?}");
            return;
        }
        // One that has just ended is deleted, and a later list will confirm it.
        let known: BTreeMap<_, _> = status
            .remote_credentials
            .iter()
            .filter(|one| one.state != CredentialState::Revoking)
            .filter_map(|one| Some((one.remote.as_ref()?.name.clone(), *one.sha256.value()?)))
            .collect();
        assert_eq!(live, known, "{:#?}", status.remote_credentials);
        let states: Vec<_> = status.remote_credentials.iter().map(|one| one.state).collect();
        assert!(!states.contains(&CredentialState::Pending), "{states:?}");
        assert!(states.iter().filter(|state| **state == CredentialState::Active).count() <= 1);
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Wait(i64),
    Reconcile,
    /// The process ends after so many steps, and another one takes over.
    DieAfter(usize),
    /// The process is paused before it writes the Secret, and another one takes over.
    PauseBeforeWrite,
    /// A paused process goes on.
    LetGo,
    Answer(RemoteAnswer),
    Poll,
    IssuerDown(bool),
    /// An administrator removes a token at the issuer.
    RevokeThere,
    RotateNow,
    RevokeNow,
    Revoked(bool),
    Suspend(bool),
    Scopes(u8),
    DeleteSecret,
    EditSecret,
    Delete,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    const LOST: &[RemoteAnswer] =
        &[RemoteAnswer::Refusal, RemoteAnswer::LostAfter, RemoteAnswer::LostBefore, RemoteAnswer::LostLate];
    prop_oneof![
        6 => (1i64..100_000).prop_map(Wait),
        4 => (1i64..300).prop_map(Wait),
        8 => Just(Reconcile),
        5 => (0usize..14).prop_map(DieAfter),
        3 => Just(PauseBeforeWrite),
        3 => Just(LetGo),
        6 => prop::sample::select(LOST).prop_map(Answer),
        6 => Just(Poll),
        2 => any::<bool>().prop_map(IssuerDown),
        2 => Just(RevokeThere),
        3 => Just(RotateNow),
        1 => Just(RevokeNow),
        1 => any::<bool>().prop_map(Revoked),
        1 => any::<bool>().prop_map(Suspend),
        2 => (0u8..3).prop_map(Scopes),
        2 => Just(DeleteSecret),
        1 => Just(EditSecret),
        1 => Just(Delete),
    ]
}

fn die(world: &mut RemoteWorld) {
    world.simulator.held = None;
    world.issuer().calls = IssuerCalls::default();
    world.issuer().created = None;
}

fn happen(world: &mut RemoteWorld, happening: &Happening) {
    let now = world.simulator.now;
    match happening {
        Happening::Wait(by) => world.simulator.now = now.plus(seconds(*by)),
        Happening::Reconcile => drop(world.reconcile(usize::MAX)),
        Happening::DieAfter(steps) => {
            world.reconcile(*steps);
            die(world);
        }
        Happening::PauseBeforeWrite => pause_before_write(world),
        Happening::LetGo => let_go(world),
        Happening::Answer(answer) => world.issuer().next_answer = *answer,
        Happening::Poll => world.issuer().poll(now),
        Happening::IssuerDown(down) => {
            let message = "it does not answer".to_owned();
            let problem = IssuerProblem { reason: Reason::IssuerUnavailable, message, since: Time::MIN };
            world.issuer().view.problem = down.then_some(problem);
        }
        Happening::RevokeThere => {
            let issuer = world.issuer();
            let name = issuer.tokens.keys().find(|name| *name != "foreign").cloned();
            if let Some(token) = name.and_then(|name| issuer.tokens.remove(&name)) {
                world.removed_there.insert(token.sha256);
            }
        }
        Happening::RotateNow => world.change(|spec| spec.rotate_if_issued_before = Some(now)),
        Happening::RevokeNow => world.change(|spec| spec.revoke_if_issued_before = Some(now)),
        Happening::Revoked(revoked) => {
            // The API server refuses to take it back before it is recorded.
            let is_recorded = world.status().live().next().is_none();
            if *revoked || is_recorded {
                world.change(|spec| spec.revoked = Some(*revoked));
            }
        }
        Happening::Suspend(suspend) => world.change(|spec| spec.suspend = Some(*suspend)),
        Happening::Scopes(scopes) => {
            let scopes = (0..*scopes).map(|scope| format!("scope-{scope}")).collect();
            world.change(|spec| spec.scopes = scopes);
        }
        Happening::DeleteSecret => drop(world.simulator.secrets.remove("t")),
        Happening::EditSecret => {
            let version = world.simulator.next_version();
            if let Some(secret) = world.simulator.secrets.get_mut("t") {
                secret.data.get_or_insert_default().remove("token");
                secret.metadata.resource_version = Some(version);
            }
        }
        Happening::Delete => {
            let deleted = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now.timestamp());
            world.simulator.pat.metadata.deletion_timestamp.get_or_insert(deleted);
            if !world.simulator.pat.has_finalizer() {
                world.simulator.released = true;
            }
        }
    }
}

/// Reconciles up to a write of a token to the Secret, which a paused process will send later.
fn pause_before_write(world: &mut RemoteWorld) {
    if world.simulator.released {
        return;
    }
    world.simulator.begin_reconcile();
    for _ in 0..40 {
        if world.simulator.released {
            return;
        }
        let plan = world.simulator.next_plan();
        match plan.step {
            Step::Rest => return,
            Step::WriteSecret(write) if matches!(write.content, SecretContent::Token { .. }) => {
                let held = world.simulator.held.take();
                world.paused.push((write, held));
                die(world);
                return;
            }
            step => {
                world.perform(step);
                world.check();
            }
        }
    }
}

/// Sends the writes of paused processes. The API server refuses those that were decided on another version.
fn let_go(world: &mut RemoteWorld) {
    for (write, held) in std::mem::take(&mut world.paused) {
        let own = std::mem::replace(&mut world.simulator.held, held);
        // A token that the write copies may no longer be there.
        let _ = world.simulator.perform(Step::WriteSecret(write));
        world.simulator.held = own;
    }
}

fn live_through(system: IssuerSystem, rotation: Option<i64>, history: &[Happening]) {
    let spec = match rotation {
        Some(interval) => json!({"rotation": {"interval": format!("{interval}s")}}),
        None => json!({}),
    };
    let spec = match system {
        IssuerSystem::GitLab => {
            let mut spec = spec;
            spec["gitLab"] = json!({"project": "shop/web"});
            spec
        }
        _ => spec,
    };
    let mut world = RemoteWorld::new(system, spec);
    if system == IssuerSystem::GitLab {
        let git_lab = Some(serde_json::from_value(json!({"project": "shop/web"})).unwrap());
        world.issuer().target = RemoteTarget { git_lab, ..RemoteTarget::default() };
    }
    for event in history {
        happen(&mut world, event);
    }
    let_go(&mut world);
    world.come_to_rest();
    world.check_at_rest();
}

proptest! {
    #![proptest_config(histories(10_000))]

    #[test]
    fn no_history_leaves_a_token_that_nobody_holds(
        system in prop::sample::select(&[IssuerSystem::Cryptlex, IssuerSystem::GitLab, IssuerSystem::Gitea][..]),
        rotation in proptest::option::of(30i64..200_000),
        history in vec(happening(), 1..24),
    ) {
        live_through(system, rotation, &history);
    }
}

/// Returns a world with a token, and the steps of its first issue.
fn issued(system: IssuerSystem, spec: Value) -> RemoteWorld {
    let mut world = RemoteWorld::new(system, spec);
    assert!(world.reconcile(usize::MAX));
    assert!(is_ready(&world), "{:?}", world.status());
    world
}

fn poll(world: &mut RemoteWorld) {
    let now = world.simulator.now;
    world.issuer().poll(now);
}

fn is_ready(world: &RemoteWorld) -> bool {
    world.status().conditions.iter().any(|one| one.type_ == "Ready" && one.is_true())
}

#[test]
fn first_token_is_named_before_it_is_requested_and_recorded_before_it_is_written() {
    let mut world = RemoteWorld::new(IssuerSystem::Cryptlex, json!({"scopes": ["read"]}));
    world.simulator.begin_reconcile();
    let mut steps = Vec::new();
    loop {
        let plan = world.simulator.next_plan();
        let step = match &plan.step {
            Step::Rest => break,
            Step::WriteStatus(status) => {
                let one = &status.remote_credentials[0];
                let has_id = one.remote.as_ref().is_some_and(|remote| remote.id.is_some());
                format!("status {} {has_id}", one.state.as_str())
            }
            Step::WriteSecret(_) => "secret".into(),
            Step::CreateRemote(request) => format!("create {:?}", request.scopes),
            step => format!("{step:?}"),
        };
        steps.push(step);
        world.perform(plan.step);
    }
    let expected = [
        "AddFinalizer",
        "Reserve",
        "status Pending false",
        "create [\"read\"]",
        "status Pending true",
        "secret",
        "status Active true",
    ];
    assert_eq!(steps, expected);
    assert_eq!(world.in_secret(), world.status().remote_credentials[0].sha256.value().copied());
}

#[test]
fn rotation_overlaps_and_the_old_token_is_revoked_after_its_grace() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({"rotation": {"interval": "10d"}, "gracePeriod": "1d"}));
    let first = world.in_secret().unwrap();
    world.simulator.now = world.simulator.now.plus(seconds(10 * 86_400));
    world.reconcile(usize::MAX);
    let second = world.in_secret().unwrap();
    assert_ne!(first, second);
    let there = |world: &mut RemoteWorld, token| world.issuer().tokens.values().any(|one| one.sha256 == token);
    assert!(there(&mut world, first) && there(&mut world, second));
    world.simulator.now = world.simulator.now.plus(seconds(86_401));
    poll(&mut world);
    world.reconcile(usize::MAX);
    assert!(!there(&mut world, first) && there(&mut world, second));
    let revoking = |world: &RemoteWorld| {
        world.status().remote_credentials.iter().any(|one| one.state == CredentialState::Revoking)
    };
    assert!(revoking(&world), "no list has confirmed it");
    let later = world.simulator.now.plus(seconds(300));
    world.simulator.now = later;
    world.issuer().poll(later);
    world.reconcile(usize::MAX);
    assert!(!revoking(&world) && is_ready(&world));
}

#[test]
fn changed_scopes_rotate() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({"scopes": ["a", "b"]}));
    let first = world.in_secret();
    world.change(|spec| spec.scopes = vec!["b".into(), "a".into()]);
    world.reconcile(usize::MAX);
    assert_eq!(world.in_secret(), first, "the order does not matter");
    world.change(|spec| spec.scopes = vec!["a".into()]);
    world.reconcile(usize::MAX);
    assert_ne!(world.in_secret(), first);
}

#[test]
fn token_that_is_revoked_there_is_replaced_once_a_day() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({"expiry": {"never": true}}));
    let revoke_there = |world: &mut RemoteWorld| {
        happen(world, &Happening::RevokeThere);
        for _ in 0..2 {
            let later = world.simulator.now.plus(seconds(300));
            world.simulator.now = later;
            world.issuer().poll(later);
            world.reconcile(usize::MAX);
        }
    };
    let first = world.in_secret();
    revoke_there(&mut world);
    let second = world.in_secret();
    assert!(is_ready(&world) && second != first);
    assert!(world.events.iter().any(|event| event.reason == EventReason::LostAtIssuer));
    revoke_there(&mut world);
    let reason = |world: &RemoteWorld| world.status().conditions[0].reason.clone();
    assert_eq!(reason(&world), "RevokedRemotely");
    let later = world.simulator.now.plus(seconds(60));
    world.simulator.now = later;
    world.change(|spec| spec.rotate_if_issued_before = Some(later));
    world.reconcile(usize::MAX);
    assert!(is_ready(&world), "{:?}", world.status().conditions);
}

#[test]
fn deletion_waits_until_the_tokens_are_gone() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({}));
    happen(&mut world, &Happening::Delete);
    world.issuer().next_answer = RemoteAnswer::Refusal;
    world.reconcile(usize::MAX);
    assert!(!world.simulator.released && world.in_secret().is_none());
    assert_eq!(world.status().conditions[0].reason, "Revoking");
    world.come_to_rest();
    assert!(world.simulator.released);
    world.check_at_rest();
}

#[test]
fn deletion_gives_up_after_ten_minutes_if_the_issuer_is_gone_and_orphans_at_once() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({}));
    happen(&mut world, &Happening::Delete);
    // The problem begins a minute after the deletion.
    let since = world.simulator.now.plus(seconds(60));
    let problem = IssuerProblem { reason: Reason::IssuerNotReady, message: "its Secret does not exist".into(), since };
    world.issuer().view.problem = Some(problem);
    world.reconcile(usize::MAX);
    world.simulator.now = world.simulator.now.plus(seconds(659));
    world.reconcile(usize::MAX);
    assert!(!world.simulator.released);
    world.simulator.now = world.simulator.now.plus(seconds(1));
    world.reconcile(usize::MAX);
    assert!(world.simulator.released);
    let event = world.events.iter().find(|event| event.reason == EventReason::TokensLeftAtIssuer).unwrap();
    assert!(event.note.contains("may still work at the issuer: po-abcdefgh-"), "{}", event.note);

    let mut world = issued(IssuerSystem::Cryptlex, json!({"deletionPolicy": "Orphan"}));
    happen(&mut world, &Happening::Delete);
    world.reconcile(usize::MAX);
    assert!(world.simulator.released && world.issuer().tokens.len() == 2);
}

#[test]
fn an_issuer_that_is_being_deleted_revokes_and_issues_no_more() {
    let mut world = RemoteWorld::new(IssuerSystem::Cryptlex, json!({}));
    world.issuer().view.deleting = true;
    world.reconcile(usize::MAX);
    let ready = &world.status().conditions[0];
    assert_eq!((&*ready.status, &*ready.reason), ("False", "IssuerNotReady"));
    assert!(ready.message.contains("is being deleted"), "{}", ready.message);
    assert_eq!(world.calls, 0);

    let mut world = issued(IssuerSystem::Cryptlex, json!({}));
    world.issuer().view.deleting = true;
    world.reconcile(usize::MAX);
    assert_eq!(world.status().conditions[0].status, "True", "a token that works is not affected");
    happen(&mut world, &Happening::Delete);
    world.come_to_rest();
    assert!(world.simulator.released && !world.issuer().tokens.keys().any(|name| name.starts_with("po-")));
}

#[test]
fn a_target_that_cannot_be_listed_is_reported_and_keeps_no_object() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({}));
    let problem =
        IssuerProblem { reason: Reason::IssuerNotReady, message: "404 Project Not Found".into(), since: Time::MIN };
    let target = world.issuer().target.clone();
    world.issuer().list_problems = vec![ListProblem { target, problem }];
    world.issuer().lists.clear();
    world.reconcile(usize::MAX);
    let conditions = world.status().conditions.clone();
    assert_eq!(conditions[0].status, "True");
    let told = conditions.iter().find(|one| one.type_ == "Reconciling").expect("a condition");
    assert_eq!(told.reason, "IssuerNotReady");
    assert!(told.message.contains("404 Project Not Found"), "{}", told.message);

    happen(&mut world, &Happening::Delete);
    world.reconcile(usize::MAX);
    assert!(!world.simulator.released);
    assert!(world.status().conditions[0].message.ends_with("last problem: 404 Project Not Found"));
    world.simulator.now = world.simulator.now.plus(seconds(600));
    world.reconcile(usize::MAX);
    assert!(world.simulator.released);
}

#[test]
fn parameters_that_do_not_fit_the_issuer_are_refused() {
    let cases = [
        (IssuerSystem::Cryptlex, json!({"gitLab": {"project": "a"}}), "spec.gitLab"),
        (IssuerSystem::GitLab, json!({}), "spec.gitLab"),
        (IssuerSystem::ArgoCd, json!({}), "spec.argoCD"),
        (IssuerSystem::Cryptlex, json!({"tokenPrefix": "abc"}), "spec.tokenPrefix"),
        (IssuerSystem::Cryptlex, json!({"audiences": ["a"]}), "spec.audiences"),
        (IssuerSystem::SailPoint, json!({"rotation": {"interval": "100d"}}), "spec.rotation.interval"),
        (IssuerSystem::SailPoint, json!({"expiry": {"never": true}}), "spec.expiry"),
    ];
    for (system, spec, field) in cases {
        let mut world = RemoteWorld::new(system, spec);
        world.reconcile(usize::MAX);
        let ready = &world.status().conditions[0];
        assert_eq!(ready.reason, "InvalidSpec", "{field}");
        assert!(ready.message.starts_with(field), "{}", ready.message);
        assert_eq!(world.calls, 0);
    }
}

#[test]
fn policy_refuses_what_no_rule_permits() {
    let cases = [
        (json!({"namespaces": ["other"]}), "namespace"),
        (json!({"targets": ["group/*"]}), "project/shop/web"),
        (json!({"maxAccessLevel": "Reporter"}), "Reporter"),
        (json!({"scopes": ["read_*"]}), "api"),
        (json!({"requireRotation": true}), "spec.rotation"),
        (json!({"maxLifetime": "30d"}), "30d"),
    ];
    for (rule, part) in cases {
        let spec = json!({"gitLab": {"project": "shop/web"}, "scopes": ["api"]});
        let mut world = RemoteWorld::new(IssuerSystem::GitLab, spec);
        world.issuer().view.policy = Some(serde_json::from_value(json!({"rules": [rule]})).unwrap());
        world.reconcile(usize::MAX);
        let ready = &world.status().conditions[0];
        assert_eq!(ready.reason, "IssuerPolicy", "{part}");
        assert!(ready.message.contains(part), "{}", ready.message);
        assert_eq!(world.calls, 0);
    }
    // A policy that is withdrawn stops rotations, and the token works on.
    let mut world = issued(IssuerSystem::Cryptlex, json!({"rotation": {"interval": "10d"}}));
    world.issuer().view.policy = Some(serde_json::from_value(json!({"rules": [{"namespaces": ["x"]}]})).unwrap());
    world.simulator.now = world.simulator.now.plus(seconds(10 * 86_400));
    world.reconcile(usize::MAX);
    assert!(is_ready(&world) && world.issuer().tokens.len() == 2);
    assert!(world.status().conditions.iter().any(|one| one.reason == "IssuerPolicy"));
}

#[test]
fn lists_of_another_target_or_issuer_prove_nothing() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({}));
    let token = world.in_secret();
    let git_lab = Some(serde_json::from_value(json!({"project": "a"})).unwrap());
    let other = RemoteTarget { git_lab, ..RemoteTarget::default() };
    for (target, uid) in [(other, "issuer-1"), (RemoteTarget::default(), "issuer-2")] {
        world.simulator.now = world.simulator.now.plus(seconds(600));
        let list = Arc::new(RemoteList { target, begun_at: world.simulator.now, live: BTreeMap::new() });
        world.issuer().lists = vec![list.clone(), list];
        world.issuer().view.uid = uid.into();
        world.reconcile(usize::MAX);
        assert!(is_ready(&world) && world.in_secret() == token && world.issuer().tokens.len() == 2);
    }
}

#[test]
fn spec_that_does_not_fit_does_not_stop_a_revocation() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({}));
    world.change(|spec| (spec.audiences, spec.revoked) = (vec!["a".into()], Some(true)));
    poll(&mut world);
    world.reconcile(usize::MAX);
    assert_eq!(world.issuer().tokens.len(), 1, "only that of others");
}

#[test]
fn issuer_that_became_local_does_not_replace_the_token() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({"rotation": {"interval": "10d"}}));
    let token = world.in_secret();
    world.issuer().view.system = IssuerSystem::Local;
    world.simulator.now = world.simulator.now.plus(seconds(10 * 86_400));
    world.reconcile(usize::MAX);
    assert!(world.in_secret() == token && world.status().credentials.is_empty());
    assert!(world.status().conditions.iter().any(|one| one.reason == "IssuerNotReady"));
}

#[test]
fn tokens_of_a_restored_object_are_revoked_unless_another_object_has_them() {
    let restored = || {
        let mut world = issued(IssuerSystem::Cryptlex, json!({}));
        world.simulator.pat.metadata.uid = Some("restored".into());
        world.simulator.secrets.clear();
        world
    };
    let name = |world: &RemoteWorld| world.status().remote_credentials[0].remote.clone().unwrap().name;

    let mut world = restored();
    let first = name(&world);
    happen(&mut world, &Happening::Delete);
    world.come_to_rest();
    assert!(world.simulator.released && !world.issuer().tokens.contains_key(&first));

    let mut world = restored();
    let first = name(&world);
    world.issuer().shared_names = vec![first.clone()];
    happen(&mut world, &Happening::Delete);
    world.reconcile(usize::MAX);
    let message = world.status().conditions[0].message.clone();
    assert!(
        message == format!("token {first} is not revoked, because another PersonalAccessToken records it, too"),
        "{message}"
    );
    world.simulator.now = world.simulator.now.plus(seconds(600));
    world.reconcile(usize::MAX);
    assert!(world.simulator.released && world.issuer().tokens.contains_key(&first));
}

#[test]
fn token_of_another_controller_is_forgotten_an_hour_after_its_expiry() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({}));
    world.issuer().view.mark = "another0".into();
    let first = world.status().remote_credentials[0].clone();
    let name = first.remote.as_ref().unwrap().name.clone();
    happen(&mut world, &Happening::Revoked(true));
    world.reconcile(usize::MAX);
    let message = world.status().conditions[0].message.clone();
    assert!(message.contains(&format!("token {name} was issued by another controller")), "{message}");
    world.simulator.now = first.expires_at.unwrap().plus(seconds(3_599));
    world.reconcile(usize::MAX);
    assert_eq!(world.status().remote_credentials.len(), 1);
    assert_eq!(world.calls, 1, "only the creation");
    world.simulator.now = first.expires_at.unwrap().plus(seconds(3_600));
    world.reconcile(usize::MAX);
    assert!(world.status().remote_credentials.is_empty());
    assert!(world.issuer().tokens.contains_key(&name));
}

#[test]
fn last_use_is_recorded_once_a_day() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({}));
    let recorded = |world: &RemoteWorld| world.status().remote_credentials[0].remote.clone().unwrap().last_used_at;
    assert_eq!(recorded(&world), None);
    let (mut told, start) = (Vec::new(), world.simulator.now);
    for hours in [1, 2, 24, 26, 49] {
        let used = start.plus(SignedDuration::from_hours(hours));
        world.simulator.now = used.plus(seconds(60));
        let now = world.simulator.now;
        let issuer = world.issuer();
        issuer.tokens.values_mut().for_each(|token| token.last_used_at = Some(used));
        issuer.poll(now);
        world.reconcile(usize::MAX);
        told.push(recorded(&world).unwrap().since(used).as_hours());
    }
    assert_eq!(told, [0, -1, -23, 0, -23]);
}

#[test]
fn only_an_id_that_a_list_shows_for_the_name_is_revoked() {
    let mut world = issued(IssuerSystem::Cryptlex, json!({}));
    // A client that may write the status puts the ID of another token into it.
    let status = world.simulator.pat.status.as_mut().unwrap();
    status.remote_credentials[0].remote.as_mut().unwrap().id = Some("foreign".into());
    happen(&mut world, &Happening::Revoked(true));
    world.reconcile(usize::MAX);
    assert_eq!(world.issuer().tokens.len(), 2, "no list shows the token yet");
    world.come_to_rest();
    assert_eq!(world.issuer().tokens.keys().collect::<Vec<_>>(), ["foreign"]);
    assert!(world.status().remote_credentials.is_empty());
}
