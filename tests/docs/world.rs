//! A world of one token in memory: the planner plans, this performs each step as the API server would.
//!
//! It must not know what is documented.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use pat_operator::{
    api::{Condition, Credential, GROUP, MANAGED_BY, MANAGED_BY_LABEL, StoredPat, Time, VERSION, duration},
    planner::{
        Content, Notice, Plan, SecretWrite, Source, Step,
        intent::{Settings, secret_name},
        plan,
        view::{Held, Owned, Record, Refusal, RefusalKind, SecretView, View},
    },
    secret::{Rendered, blank},
    token::{Token, TokenPrefix},
};
use serde_json::{Value, json};

const UID: &str = "3b241101-e2bb-4255-8caf-4136c566a962";

/// See the module.
pub struct World {
    now: Time,
    version: u64,
    pat: StoredPat,
    secrets: BTreeMap<String, Secret>,
    /// A PAT with a better claim to the Secret.
    pub rival: Option<&'static str>,
    /// How the API server refuses every write to a Secret.
    pub refuses: Option<RefusalKind>,
    refusal: Option<Refusal>,
    held: Option<(Token, Time, Option<Time>)>,
    notices: Vec<Notice>,
    frames: Vec<Frame>,
    wake_at: Option<Time>,
}

/// How things stand after one write.
#[derive(Clone, Debug)]
pub struct Frame {
    pub at: Time,
    /// What was written: `status` or `Secret`.
    pub what: &'static str,
    pub credentials: Vec<Credential>,
    /// The ids of the tokens that the Secret `app` holds, by its keys.
    pub secret: BTreeMap<String, String>,
}

impl World {
    /// One object, just created, that nobody has looked at yet.
    pub fn new(spec: Value) -> Self {
        let metadata = json!({"name": "app", "namespace": "shop", "uid": UID, "resourceVersion": "1", "generation": 1});
        Self {
            now: "2030-01-01T00:00:00Z".parse().expect("a time"),
            version: 1,
            pat: serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a PAT"),
            secrets: BTreeMap::new(),
            rival: None,
            refuses: None,
            refusal: None,
            held: None,
            notices: Vec::new(),
            frames: Vec::new(),
            wake_at: None,
        }
    }

    /// The same, and the operator has done all it can.
    pub fn settled(spec: Value) -> Self {
        let mut world = Self::new(spec);
        world.run();
        world.events();
        world
    }

    /// Somebody writes another spec.
    pub fn edit(&mut self, spec: Value) {
        self.pat.spec = Ok(serde_json::from_value(spec).expect("a spec"));
        self.pat.metadata.generation = self.pat.metadata.generation.map(|generation| generation + 1);
    }

    /// Somebody makes a Secret of that name that is not ours.
    pub fn add_foreign(&mut self, name: &str) {
        let metadata = ObjectMeta { name: Some(name.into()), ..self.stamp("foreign") };
        self.secrets.insert(name.into(), Secret { metadata, ..Default::default() });
    }

    /// Somebody deletes a Secret.
    pub fn delete(&mut self, name: &str) {
        self.secrets.remove(name).expect("it is there");
    }

    /// Somebody writes something else under a key of a Secret.
    pub fn tamper(&mut self, name: &str, key: &str) {
        let version = self.next_version();
        let secret = self.secrets.get_mut(name).expect("it is there");
        secret.metadata.resource_version = Some(version);
        secret.data.get_or_insert_default().insert(key.into(), ByteString(b"something else".to_vec()));
    }

    /// Somebody takes the status away.
    pub fn lose_status(&mut self) {
        self.pat.status = Ok(Default::default());
        self.note("status");
    }

    /// Time passes, and nobody looks.
    pub fn pass(&mut self, length: &str) {
        self.now = self.now.plus(duration::parse(length).expect("a length of time"));
    }

    /// The present, as it stands in a spec.
    pub fn now(&self) -> String {
        self.now.to_string()
    }

    /// The credentials as the status has them.
    pub fn credentials(&self) -> &[Credential] {
        &self.pat.status.as_ref().expect("a status").credentials
    }

    /// The conditions as the status has them.
    pub fn conditions(&self) -> &[Condition] {
        &self.pat.status.as_ref().expect("a status").conditions
    }

    /// How things stood after each write so far.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Time passes until the operator wants to look again.
    pub fn pass_until_woken(&mut self) {
        self.now = self.wake_at.expect("it wants to look again").max(self.now);
    }

    /// What has been told since the last call.
    pub fn events(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The operator does all that can be done now.
    pub fn run(&mut self) {
        self.run_for(usize::MAX);
    }

    /// The same, through a wait that is as long as the publish lead.
    pub fn run_on(&mut self) {
        self.run();
        self.pass("2s");
        self.run();
    }

    /// The operator makes so many writes at most.
    pub fn run_for(&mut self, writes: usize) {
        let (mut live, mut rehearsed, mut written) = (false, false, 0);
        for _ in 0..40 {
            let plan = self.plan(live, rehearsed);
            if !plan.keep_held {
                self.held = None;
            }
            match plan.step {
                Step::Rest => {
                    self.wake_at = plan.wake_at;
                    return;
                }
                Step::Look => live = true,
                Step::Mint(prefix) => {
                    self.held = Some((Token::mint(&prefix).expect("randomness"), self.now, None));
                }
                Step::Rehearse(_) if self.refuse() => {}
                Step::Rehearse(_) => (rehearsed, self.refusal) = (true, None),
                _ if written == writes => return,
                Step::WriteStatus(status) => {
                    written += 1;
                    self.notices.extend(plan.events);
                    self.pat.metadata.resource_version = Some(self.next_version());
                    self.pat.status = Ok(*status);
                    self.note("status");
                }
                // It was not in the watch, and the API server says that it is there.
                Step::WriteSecret(write) if write.base.is_none() && self.secrets.contains_key(&write.name) => {
                    live = true;
                }
                Step::WriteSecret(_) if self.refuse() => {}
                Step::WriteSecret(write) => {
                    written += 1;
                    live = true;
                    self.notices.extend(plan.events);
                    self.write(&write);
                    self.note("Secret");
                }
                Step::DeleteSecret(target) => {
                    written += 1;
                    self.secrets.remove(&target.name);
                    self.note("Secret");
                }
            }
        }
        panic!("no rest after 40 steps: {:?}", self.plan(live, rehearsed));
    }

    fn plan(&mut self, live: bool, rehearsed: bool) -> Plan {
        let name = self.secret_name();
        let views: Vec<_> = self.secrets.values().cloned().map(SecretView::of).collect();
        let seen = views.iter().find(|secret| *secret.name == *name && (live || secret.is_labelled()));
        let former: Vec<_> =
            views.iter().filter(|secret| *secret.name != *name && secret.is_controlled_by(UID)).cloned().collect();
        let held = self.held.as_mut().map(|(token, issued_at, published_at)| {
            let id = token.id();
            let credentials = self.pat.status.as_ref().map_or(&[][..], |status| &status.credentials);
            if published_at.is_none() && credentials.iter().any(|credential| credential.id == id) {
                *published_at = Some(self.now);
            }
            let published_over = published_at.map(|_| seen.map_or(0, SecretView::version));
            Held { id, hash: token.hash(), issued_at: *issued_at, published_at: *published_at, published_over }
        });
        let view = View {
            pat: &self.pat,
            secret: seen,
            live,
            former: &former,
            rival: self.rival,
            held,
            refusal: self.refusal.as_ref(),
            rehearsed,
        };
        plan(&view, &Settings::default(), self.now)
    }

    fn note(&mut self, what: &'static str) {
        let data = self.secrets.get("app").and_then(|secret| secret.data.as_ref());
        let token = |value: &ByteString| Token::parse(std::str::from_utf8(&value.0).ok()?).ok();
        let ids =
            data.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), token(value)?.id().to_string())));
        let frame = Frame { at: self.now, what, credentials: self.credentials().to_vec(), secret: ids.collect() };
        self.frames.push(frame);
    }

    /// Whether the API server refuses the write at hand.
    fn refuse(&mut self) -> bool {
        self.refusal = self.refuses.map(|kind| {
            let message = "secrets \"app\" is forbidden: exceeded quota".into();
            Refusal { kind, message, retry_at: self.now.plus(duration::parse("10s").expect("a length of time")) }
        });
        self.refusal.is_some()
    }

    fn write(&mut self, write: &SecretWrite) {
        let old = self.secrets.get(&write.name).cloned().unwrap_or_default();
        let bytes = |rendered: &Rendered| {
            rendered.iter().map(|(key, value)| (key.to_owned(), ByteString(value.to_vec()))).collect()
        };
        let (data, data_hash, render_hash, layout, type_) = match &write.content {
            Content::Token { token, previous, facts, layout } => {
                let (token, previous) = (self.fetch(token), previous.as_ref().map(|source| self.fetch(source)));
                let rendered = layout.render(&token, previous.as_deref(), &facts.borrow()).expect("it renders");
                let render_hash = layout.render_hash(&facts.borrow());
                (bytes(&rendered), rendered.hash(), render_hash, Some(layout), Some(layout.type_.clone()))
            }
            Content::MetadataOnly { data_hash, render_hash, layout } => {
                let data = old.data.unwrap_or_default();
                (data, *data_hash, *render_hash, layout.as_ref(), old.type_)
            }
            Content::Blank { type_ } => {
                let rendered = blank(type_);
                (bytes(&rendered), rendered.hash(), Default::default(), None, Some(type_.clone()))
            }
        };
        let owned = layout.map_or_else(Owned::default, |layout| Owned {
            labels: layout.labels.keys().cloned().collect(),
            annotations: layout.annotations.keys().cloned().collect(),
        });
        let record = Record { pat_uid: UID.into(), ledger: write.ledger.clone(), data_hash, render_hash, owned };
        let metadata = ObjectMeta {
            name: Some(write.name.clone()),
            labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
            annotations: Some(record.annotations()),
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{GROUP}/{VERSION}"),
                kind: "PersonalAccessToken".into(),
                name: "app".into(),
                uid: UID.into(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..self.stamp("ours")
        };
        self.secrets.insert(write.name.clone(), Secret { metadata, type_, data: Some(data), ..Default::default() });
        self.refusal = None;
    }

    fn fetch(&self, source: &Source) -> String {
        match source {
            Source::Held { .. } => self.held.as_ref().expect("a token in memory").0.expose().to_owned(),
            Source::Secret { target, key, .. } => {
                let value = &self.secrets[&target.name].data.as_ref().expect("data")[key];
                String::from_utf8(value.0.clone()).expect("text")
            }
            Source::Throwaway => Token::mint(&TokenPrefix::default()).expect("randomness").expose().to_owned(),
        }
    }

    fn secret_name(&self) -> String {
        self.pat.spec.as_ref().map_or("", |spec| secret_name(&self.pat, spec)).to_owned()
    }

    fn stamp(&mut self, uid: &str) -> ObjectMeta {
        ObjectMeta { uid: Some(uid.into()), resource_version: Some(self.next_version()), ..Default::default() }
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }
}
