//! One token in a world of paper: the controller's own planner plans, and each step is performed on a copy.
//!
//! Nothing is sent anywhere. Tokens that the planner wants are minted for the copy alone and forgotten. It must not decide anything: the
//! planner does.

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{Condition, ConditionType, Credential, CredentialState, MANAGED_BY, MANAGED_BY_LABEL, StoredPat, Time},
    planner::{
        Content, Notice, Plan, SecretWrite, Source, Step,
        intent::{Settings, secret_name},
        plan,
        view::{Controller, Held, Owned, Record, SecretView, View, hash},
    },
    secret::{OPAQUE, blank, data_hash},
    token::{MintError, Token, TokenHash, TokenPrefix},
};

/// The longest honest way of a token has a dozen steps.
const MOST_STEPS: usize = 40;

/// A wait that belongs to the work at hand: the lead of a published hash.
const SHORT: SignedDuration = SignedDuration::from_mins(2);

/// See the module.
pub struct World {
    /// The object.
    pub pat: StoredPat,
    /// The Secret of its name, and those that it had before.
    pub secrets: Vec<SecretView>,
    /// A PAT with a better claim to the Secret's name.
    pub rival: Option<String>,
    /// What the installation decides.
    pub settings: Settings,
    /// The present.
    pub now: Time,
    held: Option<InMemory>,
    live: bool,
    rehearsed: bool,
    version: u64,
}

/// A token that has been minted, and what is known of its way.
struct InMemory {
    token: Token,
    issued_at: Time,
    /// When its hash came into the status, and over which version of the Secret.
    published: Option<(Time, u64)>,
}

/// What came of it.
#[derive(Debug)]
pub struct Story {
    /// Each thing that is done, in order, with the time at which.
    pub acts: Vec<Act>,
    /// When it is looked at next even if nothing happens.
    pub wake_at: Option<Time>,
}

/// One thing that is done.
#[derive(Debug)]
pub struct Act {
    /// When.
    pub at: Time,
    /// What, as people say it.
    pub what: String,
    /// What is told by an event.
    pub events: Vec<String>,
}

impl World {
    /// A world with this object in it.
    pub fn new(pat: StoredPat, settings: Settings, now: Time) -> Self {
        Self {
            pat,
            secrets: Vec::new(),
            rival: None,
            settings,
            now,
            held: None,
            live: true,
            rehearsed: false,
            version: 1 << 62,
        }
    }

    /// Everything that is done until there is nothing to do but wait.
    pub fn play(&mut self) -> Result<Story, MintError> {
        let mut acts = Vec::new();
        for _ in 0..MOST_STEPS {
            let Plan { step, events, wake_at, keep_held } = self.plan();
            if !keep_held {
                self.held = None;
            }
            let at = self.now;
            let what = match step {
                Step::Rest => match wake_at.filter(|at| keep_held && at.since(self.now) <= SHORT) {
                    Some(at) => {
                        self.now = at.max(self.now);
                        continue;
                    }
                    None => return Ok(Story { acts, wake_at }),
                },
                Step::Look => {
                    self.live = true;
                    continue;
                }
                Step::Mint(prefix) => {
                    self.held = Some(InMemory { token: Token::mint(&prefix)?, issued_at: self.now, published: None });
                    format!("mint a token {prefix}_… in memory")
                }
                Step::Rehearse(write) => {
                    self.rehearsed = true;
                    format!("ask the API server by a dry run whether it takes Secret {}", write.name)
                }
                Step::WriteStatus(status) => {
                    let what = self.tell_status(&status.credentials, &status.conditions);
                    self.pat.status = Ok(*status);
                    self.version += 1;
                    self.note_publication();
                    what
                }
                Step::WriteSecret(write) => {
                    let what = tell_secret(&write);
                    self.write(*write)?;
                    what
                }
                Step::DeleteSecret(target) => {
                    self.secrets.retain(|secret| *secret.name != *target.name);
                    format!("delete Secret {}, which is no longer wanted", target.name)
                }
            };
            acts.push(Act { at, what, events: events.into_iter().map(told).collect() });
        }
        Ok(Story { acts, wake_at: None })
    }

    fn plan(&self) -> Plan {
        let wanted = self.wanted();
        let seen = self.secrets.iter().find(|secret| *secret.name == *wanted);
        let uid = self.pat.uid();
        let former: Vec<_> =
            self.secrets.iter().filter(|one| *one.name != *wanted && one.is_controlled_by(uid)).cloned().collect();
        let held = self.held.as_ref().map(|held| Held {
            id: held.token.id(),
            hash: held.token.hash(),
            issued_at: held.issued_at,
            published_at: held.published.map(|(at, _)| at),
            published_over: held.published.map(|(_, over)| over),
        });
        let view = View {
            pat: &self.pat,
            secret: seen,
            live: self.live,
            former: &former,
            rival: self.rival.as_deref(),
            held,
            refusal: None,
            rehearsed: self.rehearsed,
        };
        plan(&view, &self.settings, self.now)
    }

    fn wanted(&self) -> String {
        self.pat.spec.as_ref().map_or("", |spec| secret_name(&self.pat, spec)).to_owned()
    }

    /// The hash of the token in memory stands in the status: remember since when, and what the Secret was before.
    fn note_publication(&mut self) {
        let wanted = self.wanted();
        let over = self.secrets.iter().find(|secret| *secret.name == *wanted).map_or(0, SecretView::version);
        let (Some(held), Ok(status)) = (&mut self.held, &self.pat.status) else { return };
        if held.published.is_none() && status.credentials.iter().any(|one| one.id == held.token.id()) {
            held.published = Some((self.now, over));
        }
    }

    /// The Secret as it would be. Values that are made of a token that nobody gave us stand there as those of another; the token's
    /// own hash is the right one.
    fn write(&mut self, write: SecretWrite) -> Result<(), MintError> {
        let old = self.secrets.iter().find(|secret| *secret.name == *write.name).cloned();
        let uid: Arc<str> = self.pat.uid().into();
        let mut data: Vec<(String, TokenHash)> = Vec::new();
        let (data_digest, render_hash, layout, type_) = match write.content {
            Content::Token { token, previous, facts, layout } => {
                let stand_in = Token::mint(&TokenPrefix::default())?;
                let rendered =
                    layout.render(stand_in.expose(), previous.as_ref().map(|_| stand_in.expose()), &facts.borrow());
                for (key, value) in rendered.iter().flat_map(|rendered| rendered.iter()) {
                    let source = match key {
                        key if key == layout.key => Some(&token),
                        key if layout.previous_key.as_deref() == Some(key) => previous.as_ref(),
                        _ => None,
                    };
                    let known = source.and_then(known_hash);
                    data.push((key.to_owned(), known.unwrap_or_else(|| hash(value))));
                }
                let render_hash = layout.render_hash(&facts.borrow());
                let type_ = layout.type_.clone();
                (digest(&data), render_hash, Some(layout), type_)
            }
            Content::MetadataOnly { data_hash, render_hash, layout } => {
                let old = old.as_ref();
                data.extend(old.iter().flat_map(|old| old.data.iter()).map(|(key, hash)| (key.to_owned(), *hash)));
                (data_hash, render_hash, layout, old.map_or_else(|| OPAQUE.to_owned(), |old| old.type_.to_string()))
            }
            Content::Blank { type_ } => {
                data.extend(blank(&type_).iter().map(|(key, value)| (key.to_owned(), hash(value))));
                (digest(&data), Default::default(), None, type_)
            }
        };
        let owned = layout.as_ref().map_or_else(Owned::default, |layout| Owned {
            labels: layout.labels.keys().cloned().collect(),
            annotations: layout.annotations.keys().cloned().collect(),
        });
        let layout_labels = layout.as_ref().map(|layout| layout.labels.clone()).unwrap_or_default();
        let layout_annotations = layout.as_ref().map(|layout| layout.annotations.clone()).unwrap_or_default();
        let label = [(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())];
        let small = |(key, value): (String, String)| (key, value.into_boxed_str());
        self.version += 1;
        let view = SecretView {
            namespace: self.pat.namespace().to_owned(),
            name: write.name.as_str().into(),
            uid: old.as_ref().map_or_else(|| "to-be".to_owned(), |old| old.uid.clone()),
            resource_version: self.version.to_string(),
            deleting: false,
            type_: type_.into(),
            controller: Controller::Pat { uid: uid.clone(), name: self.pat.name().into() },
            labels: label.into_iter().chain(layout_labels).map(small).collect(),
            annotations: layout_annotations.into_iter().map(small).collect(),
            data: data.into_iter().collect(),
            record: Some(Record { pat_uid: uid, ledger: write.ledger, data_hash: data_digest, render_hash, owned }),
            last_editor: None,
        };
        self.secrets.retain(|secret| *secret.name != *write.name);
        self.secrets.push(view);
        Ok(())
    }

    fn tell_status(&self, after: &[Credential], conditions: &[Condition]) -> String {
        let before = self.pat.status.as_ref().map(|status| status.credentials.clone()).unwrap_or_default();
        let mut parts = Vec::new();
        for one in after {
            let was = before.iter().find(|old| old.id == one.id);
            match (was.map(|old| old.state), one.state) {
                (None, CredentialState::Pending) => {
                    parts.push(format!(
                        "publish the hash of a new token (revision {}): verifiers take it from here on",
                        one.revision
                    ));
                }
                (Some(CredentialState::Pending) | None, CredentialState::Active) => {
                    parts.push(format!("the token of revision {} is active", one.revision));
                }
                (Some(CredentialState::Active), CredentialState::Grace) => {
                    let end = one.expires_at.map_or_else(String::new, |end| format!(" until {}", end.floor_second()));
                    parts.push(format!("token {} is replaced and works on{end}", one.id));
                }
                _ if was.is_some_and(|old| old.expires_at != one.expires_at) => {
                    let end =
                        one.expires_at.map_or_else(|| "never".to_owned(), |end| format!("at {}", end.floor_second()));
                    parts.push(format!("token {} now ends {end}", one.id));
                }
                _ => {}
            }
        }
        for gone in before.iter().filter(|old| after.iter().all(|one| one.id != old.id)) {
            parts.push(format!("token {} is dead and leaves the status", gone.id));
        }
        let ready = |conditions: &[Condition]| {
            let ready = conditions.iter().find(|one| one.type_ == ConditionType::Ready.as_str());
            ready.map(|ready| format!("Ready={} {}: {}", ready.status, ready.reason, ready.message))
        };
        let present = self.pat.status.as_ref().ok().and_then(|status| ready(&status.conditions));
        if let Some(then) = ready(conditions).filter(|then| parts.is_empty() || Some(then) != present.as_ref()) {
            parts.push(then);
        }
        format!("write the status: {}", parts.join("; "))
    }
}

fn digest(data: &[(String, TokenHash)]) -> crate::secret::Digest {
    data_hash(data.iter().map(|(key, hash)| (key.as_str(), *hash.as_bytes())))
}

fn known_hash(source: &Source) -> Option<TokenHash> {
    match source {
        Source::Held { sha256 } => Some(*sha256),
        Source::Secret { sha256, .. } => sha256.value().copied(),
        Source::Throwaway => None,
    }
}

fn tell_secret(write: &SecretWrite) -> String {
    let verb = if write.base.is_some() { "change" } else { "create" };
    let name = &write.name;
    match &write.content {
        Content::Token { token, layout, previous, .. } => {
            let what = match token {
                Source::Held { .. } => "the new token",
                _ => "the token that is live",
            };
            let beside = match (&layout.previous_key, previous) {
                (Some(key), Some(_)) => format!(", the replaced one under {key}"),
                _ => String::new(),
            };
            format!("{verb} Secret {name} ({}): {what} under the key {}{beside}", layout.type_, layout.key)
        }
        Content::MetadataOnly { .. } => format!("{verb} labels and annotations of Secret {name}; its data stays"),
        Content::Blank { .. } => format!("take the token out of Secret {name}"),
    }
}

fn told(notice: Notice) -> String {
    format!("{}: {}", notice.reason, notice.note)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::duration;

    const NOW: &str = "2030-01-01T00:00:00Z";

    fn world(spec: Value) -> World {
        let metadata = json!({"name": "ci", "namespace": "shop", "uid": "u", "resourceVersion": "1", "generation": 1});
        let pat = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        World::new(pat, Settings::default(), NOW.parse().unwrap())
    }

    fn whats(story: &Story) -> Vec<&str> {
        story.acts.iter().map(|act| act.what.split([':', ' ']).next().unwrap()).collect()
    }

    fn is_at_rest(world: &mut World) {
        let again = world.play().unwrap();
        assert!(again.acts.is_empty(), "{again:?}");
    }

    #[test]
    fn a_first_token_takes_a_mint_and_three_writes() {
        for spec in [
            json!({}),
            json!({"secret": {"template": {"preset": "DockerConfigJson", "host": "registry.example.com"}}}),
            json!({"secret": {"labels": {"a": "b"}, "template": {"data": {"env": "TOKEN={{ token }} {{ id }}"}}}}),
        ] {
            let mut world = world(spec);
            let story = world.play().unwrap();
            assert_eq!(whats(&story), ["mint", "write", "create", "write"], "{story:?}");
            let end = "2030-04-01T00:00:00Z".parse::<Time>().unwrap();
            assert_eq!(world.pat.status.as_ref().unwrap().expires_at, Some(end));
            is_at_rest(&mut world);
        }
    }

    #[test]
    fn a_rotation_waits_for_verifiers_and_keeps_the_old_token() {
        let mut world = world(json!({"rotation": {"interval": "10d"}, "secret": {"previousKey": "old"}}));
        world.play().unwrap();
        world.now = world.now.plus(duration::parse("11d").unwrap());
        let story = world.play().unwrap();
        assert_eq!(whats(&story), ["mint", "write", "change", "write"], "{story:?}");
        assert_eq!(story.acts[2].at.since(story.acts[1].at), SignedDuration::from_secs(2));
        assert!(story.acts[2].what.contains("the replaced one under old"), "{story:?}");
        assert!(story.acts[3].events.iter().any(|event| event.starts_with("Rotated: ")), "{story:?}");
        is_at_rest(&mut world);
    }

    #[test]
    fn a_revocation_takes_the_token_out_of_the_secret() {
        let mut world = world(json!({}));
        world.play().unwrap();
        world.pat.spec.as_mut().unwrap().revoked = Some(true);
        let story = world.play().unwrap();
        assert!(story.acts.iter().any(|act| act.what.starts_with("take the token out of Secret ci")), "{story:?}");
        is_at_rest(&mut world);
    }

    #[test]
    fn what_cannot_be_followed_is_said_in_the_status() {
        let story = world(json!({"secret": {"template": {"data": {"a": "{{ nonsense }}"}}}})).play().unwrap();
        assert!(story.acts.iter().any(|act| act.what.contains("InvalidSpec")), "{story:?}");
        assert!(!whats(&story).contains(&"create"), "{story:?}");
    }
}
