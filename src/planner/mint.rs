//! Minting, one step at a time: into memory, its hash into the status, the token into the Secret.
//!
//! It must not decide whether a token is needed.

use super::{Cause, Content, Planner, Source, Step, life, place::Place, report::Blocked};
use crate::api::{Credential, CredentialState, MAX_LIVE_CREDENTIALS, Reason, Time};
use crate::planner::view::SecretView;

/// What minting asks for next.
pub(super) enum Minting {
    /// This, before anything else.
    First(Step),
    /// The status is to be written, with the new hash.
    Publish,
    /// The hash is published; come back then.
    Wait(Time),
    /// The token goes into the Secret.
    Write(Step),
    /// There is no room.
    Full,
}

impl Planner<'_> {
    pub(super) fn mint(&self, place: &Place<'_>, cause: Cause, holds: bool, live: &mut Vec<Credential>) -> Minting {
        let Ok(layout) = &self.intent.layout else { return Minting::Full };
        let usable = self.view.held.filter(|held| {
            let credential = life::credential(self.intent, held, 0);
            // One whose hash was published and is pending no more has arrived, or is dead: it is not published again.
            let used_up = held.published_at.is_some() && !self.is_pending(live, held);
            !used_up && self.is_fresh(held.issued_at) && self.intent.terms.judge(&credential, self.now).is_valid()
        });
        let orphans = live
            .iter()
            .filter(|credential| credential.state == CredentialState::Pending)
            .any(|credential| usable.is_none_or(|held| credential.id != held.id));
        let published = usable.filter(|held| self.is_pending(live, held));
        if published.is_none() && live.len() >= MAX_LIVE_CREDENTIALS {
            // Pending tokens that nobody holds can be dropped once no write for them can land any more.
            return if orphans { Minting::First(self.fence(place)) } else { Minting::Full };
        }
        let Some(held) = usable else {
            if (orphans || self.view.refusal.is_some()) && !self.view.rehearsed {
                let facts = self.facts("000000000000", None);
                let content =
                    Content::Token { token: Source::Throwaway, previous: None, facts, layout: layout.clone() };
                return Minting::First(Step::Rehearse(Box::new(self.secret_write(place, content, live))));
            }
            return Minting::First(Step::Mint(self.intent.prefix.clone()));
        };
        let Some(held) = published else {
            let revision = self.base.revision.unwrap_or_default() + 1;
            live.push(life::credential(self.intent, &held, revision));
            return Minting::Publish;
        };
        let visible_from = held.published_at.unwrap_or(self.now).plus(self.settings.publish_lead);
        if holds && cause == Cause::Rotation && self.now < visible_from {
            return Minting::Wait(visible_from);
        }
        // Whoever has changed the Secret since may be a leader who knows of a newer status; then this token may be dead.
        if !self.view.live && held.published_over != Some(self.view.secret.map_or(0, SecretView::version)) {
            return Minting::First(Step::Look);
        }
        // The Secret's annotations tell how things will be once it is written.
        let mut then = live.clone();
        self.retire(&mut then);
        if let Some(arriving) = then.iter_mut().find(|credential| credential.id == held.id) {
            arriving.state = CredentialState::Active;
        }
        then.retain(|credential| credential.state != CredentialState::Pending);
        let previous = self.previous(place, &then);
        let facts = self.facts_at(held.id.as_str(), previous.as_ref().map(|(id, _)| id.clone()), held.issued_at);
        let content = Content::Token {
            token: Source::Held { sha256: held.hash },
            previous: previous.map(|(_, source)| source),
            facts,
            layout: layout.clone(),
        };
        Minting::Write(Step::WriteSecret(Box::new(self.secret_write(place, content, &then))))
    }

    /// A write that changes nothing but the version, so that no older write can land: then what it would have brought is dead.
    pub(super) fn fence(&self, place: &Place<'_>) -> Step {
        let content = match place {
            Place::Ours(secret) => {
                let record = secret.record.as_ref();
                Content::MetadataOnly {
                    data_hash: record.map_or_else(|| secret.data_hash(), |record| record.data_hash),
                    render_hash: record.map(|record| record.render_hash).unwrap_or_default(),
                    layout: None,
                }
            }
            _ => Content::Blank {
                type_: self.intent.layout.as_ref().map_or("Opaque", |layout| layout.type_.as_str()).to_owned(),
            },
        };
        let live: Vec<_> = self
            .base
            .credentials
            .iter()
            .filter(|credential| credential.state != CredentialState::Pending)
            .cloned()
            .collect();
        Step::WriteSecret(Box::new(self.secret_write(place, content, &live)))
    }

    pub(super) fn too_many(&self, live: &[Credential]) -> Blocked {
        let next = live.iter().filter_map(|credential| credential.expires_at).min();
        let when = next.map_or_else(String::new, |end| format!(", the next one at {}", end.ceil_second()));
        Blocked::new(
            Reason::TooManyLive,
            format!(
                "{} credentials are live, as many as may be: the next token is issued when one of them has ended{when}; \
                 spec.revokedCredentials ends one at once, a longer rotation.interval or a shorter gracePeriod keeps it from happening",
                live.len()
            ),
            next,
        )
    }
}
