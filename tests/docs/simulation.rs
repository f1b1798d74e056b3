//! Plays the stories of a PAT in the planner's simulator: changes by users, and the passing of time.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use pat_operator::{
    api::{Condition, Credential, IssuerSystem, Time, duration},
    planner::{
        EventToPublish, Step,
        intent::ControllerConfig,
        observed::{WriteRefusal, WriteRefusalKind},
        remote::IssuerView,
        simulate::{Performed, SimulatedIssuer, Simulator},
    },
    token::Token,
};
use serde_json::{Value, json};

/// Returns a spec that names the issuer of [`Simulation::remote`].
pub fn with_issuer(mut spec: Value) -> Value {
    spec["issuerRef"] = json!({"kind": "ClusterTokenIssuer", "name": "vendor"});
    spec
}

const UID: &str = "3b241101-e2bb-4255-8caf-4136c566a962";

/// A simulation, and what it records for the documentation.
pub struct Simulation {
    simulator: Simulator,
    /// How the API server refuses each write to a Secret.
    pub refuses: Option<WriteRefusalKind>,
    events: Vec<EventToPublish>,
    frames: Vec<Frame>,
    wake_at: Option<Time>,
}

/// The state after one write.
#[derive(Clone, Debug)]
pub struct Frame {
    pub at: Time,
    /// What was written: `status` or `Secret`.
    pub what: &'static str,
    pub credentials: Vec<Credential>,
    /// The ids of the tokens in the Secret `app`, by key.
    pub secret: BTreeMap<String, String>,
}

impl Deref for Simulation {
    type Target = Simulator;

    fn deref(&self) -> &Simulator {
        &self.simulator
    }
}

impl DerefMut for Simulation {
    fn deref_mut(&mut self) -> &mut Simulator {
        &mut self.simulator
    }
}

impl Simulation {
    /// A new PAT that the operator has not seen yet.
    pub fn new(spec: Value) -> Self {
        let metadata = json!({"name": "app", "namespace": "shop", "uid": UID, "resourceVersion": "1", "generation": 1});
        let pat = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a PAT");
        let now = "2030-01-01T00:00:00Z".parse().expect("a time");
        Self {
            simulator: Simulator::new(pat, ControllerConfig::default(), now, Box::new(Token::mint)),
            refuses: None,
            events: Vec::new(),
            frames: Vec::new(),
            wake_at: None,
        }
    }

    /// The same, after the operator has done everything it can.
    pub fn settled(spec: Value) -> Self {
        let mut simulation = Self::new(spec);
        simulation.run();
        simulation.events();
        simulation
    }

    /// A new PAT of an issuer of another system, without a policy.
    pub fn remote(spec: Value) -> Self {
        let mut simulation = Self::new(with_issuer(spec));
        simulation.issuer = Some(SimulatedIssuer::new(IssuerView {
            title: "ClusterTokenIssuer \"vendor\"".into(),
            uid: "issuer".into(),
            system: IssuerSystem::Cryptlex,
            mark: "k3v7q2zj".into(),
            policy: None,
            deleting: false,
            problem: None,
        }));
        simulation
    }

    /// The controller lists the tokens at the issuer.
    pub fn poll(&mut self) {
        let now = self.now;
        self.issuer.as_mut().expect("an issuer").poll(now);
    }

    /// An administrator revokes every token at the issuer, and two lists show it.
    pub fn revoke_at_the_issuer(&mut self) {
        self.issuer.as_mut().expect("an issuer").tokens.clear();
        for _ in 0..2 {
            self.advance("5m");
            self.poll();
        }
    }

    /// A user replaces the spec.
    pub fn edit(&mut self, spec: Value) {
        self.pat.spec = Ok(serde_json::from_value(spec).expect("a spec"));
        self.pat.metadata.generation = self.pat.metadata.generation.map(|generation| generation + 1);
    }

    /// A user creates a Secret with this name.
    pub fn add_foreign(&mut self, name: &str) {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            uid: Some("foreign".into()),
            resource_version: Some(self.next_version()),
            ..Default::default()
        };
        self.secrets.insert(name.into(), Secret { metadata, ..Default::default() });
    }

    /// A user deletes a Secret.
    pub fn delete(&mut self, name: &str) {
        self.secrets.remove(name).expect("the Secret exists");
    }

    /// A user copies a Secret with all its metadata.
    pub fn copy(&mut self, name: &str, copy: &str) {
        let version = self.next_version();
        let mut secret = self.secrets[name].clone();
        secret.metadata.name = Some(copy.into());
        secret.metadata.uid = Some("copy".into());
        secret.metadata.resource_version = Some(version);
        self.secrets.insert(copy.into(), secret);
    }

    /// A user changes a value of a Secret.
    pub fn tamper(&mut self, name: &str, key: &str) {
        let version = self.next_version();
        let secret = self.secrets.get_mut(name).expect("the Secret exists");
        secret.metadata.resource_version = Some(version);
        secret.data.get_or_insert_default().insert(key.into(), ByteString(b"something else".to_vec()));
    }

    /// A user makes a Secret immutable.
    pub fn freeze(&mut self, name: &str) {
        let version = self.next_version();
        let secret = self.secrets.get_mut(name).expect("the Secret exists");
        secret.metadata.resource_version = Some(version);
        secret.immutable = Some(true);
    }

    /// A user removes the status.
    pub fn lose_status(&mut self) {
        self.pat.status = Ok(Default::default());
        self.record("status");
    }

    /// Lets time pass while the operator is down.
    pub fn advance(&mut self, length: &str) {
        self.now = self.now.plus(duration::parse(length).expect("a duration"));
    }

    /// The current time, as in a spec.
    pub fn now(&self) -> String {
        self.now.to_string()
    }

    /// The credentials in the status.
    pub fn credentials(&self) -> &[Credential] {
        &self.pat.status.as_ref().expect("a status").credentials
    }

    /// The conditions in the status.
    pub fn conditions(&self) -> &[Condition] {
        &self.pat.status.as_ref().expect("a status").conditions
    }

    /// The states after each write so far.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Lets time pass until the operator is due to reconcile.
    pub fn advance_until_due(&mut self) {
        self.now = self.wake_at.expect("a time to reconcile").max(self.now);
    }

    /// The events since the last call.
    pub fn events(&mut self) -> Vec<EventToPublish> {
        std::mem::take(&mut self.events)
    }

    /// Lets the operator do everything that it can do now.
    pub fn run(&mut self) {
        self.run_writes(usize::MAX);
    }

    /// The same, including a wait as long as the publish lead.
    pub fn run_on(&mut self) {
        self.run();
        self.advance("2s");
        self.run();
    }

    /// Lets the operator make at most this many writes.
    pub fn run_writes(&mut self, writes: usize) {
        self.begin_reconcile();
        let mut written = 0;
        for _ in 0..40 {
            let plan = self.next_plan();
            let what = match &plan.step {
                Step::Rest => {
                    self.wake_at = plan.wake_at;
                    return;
                }
                Step::DryRun(write) | Step::WriteSecret(write) if self.refuse_write(&write.name) => continue,
                Step::ReadUncached | Step::Mint(_) | Step::DryRun(_) => None,
                Step::WriteStatus(_) => Some("status"),
                Step::WriteSecret(_) | Step::DeleteSecret(_) => Some("Secret"),
                Step::Reserve | Step::AddFinalizer | Step::CreateRemote(_) | Step::DeleteRemote(_) => None,
                Step::RemoveFinalizer(_) => Some("finalizer"),
            };
            if what.is_some() && written == writes {
                return;
            }
            if self.perform(plan.step).expect("a step that can be performed") == Performed::Conflict {
                continue;
            }
            if let Some(what) = what {
                written += 1;
                self.events.extend(plan.events);
                self.record(what);
            }
        }
        panic!("steps remain after 40: {:?}", self.plan());
    }

    fn record(&mut self, what: &'static str) {
        let data = self.secrets.get("app").and_then(|secret| secret.data.as_ref());
        let token = |value: &ByteString| Token::parse(std::str::from_utf8(&value.0).ok()?).ok();
        let ids =
            data.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), token(value)?.id().to_string())));
        let frame = Frame { at: self.now, what, credentials: self.credentials().to_vec(), secret: ids.collect() };
        self.frames.push(frame);
    }

    /// Refuses the next write, if the API server refuses all writes.
    fn refuse_write(&mut self, secret: &str) -> bool {
        let Some(kind) = self.refuses else { return false };
        let message = "secrets \"app\" is forbidden: exceeded quota".into();
        let retry_at = self.now.plus(duration::parse("10s").expect("a duration"));
        self.refuse(secret, Some(WriteRefusal { secret: secret.to_owned(), kind, message, retry_at }));
        true
    }
}
