//! What stands in the Secret: the live token rendered anew, drift put right, what is dead wiped.
//!
//! Nothing here mints; it must not decide over the life of a token.

use super::{
    Content, Facts, Notice, Planner, SecretWrite, Source, Step, Target,
    place::{self, Place},
};
use crate::api::{Credential, CredentialState, Time};
use crate::{
    planner::view::{Ledger, Record, SecretView, hash},
    secret::blank,
};

impl Planner<'_> {
    /// The newest replaced token that is still good, wanted and there.
    pub(super) fn previous(&self, place: &Place<'_>, live: &[Credential]) -> Option<(String, Source)> {
        let layout = self.intent.layout.as_ref().ok()?;
        if !layout.wants_previous() {
            return None;
        }
        let newest = live
            .iter()
            .filter(|credential| credential.state == CredentialState::Grace)
            .max_by_key(|credential| credential.revision)?;
        let here = match place {
            Place::Ours(secret) => self.key_of(secret, newest).map(|key| (*secret, key)),
            _ => None,
        };
        let (secret, key) = here.or_else(|| self.former_with(newest))?;
        Some((newest.id.to_string(), source(secret, key, newest)))
    }

    pub(super) fn facts(&self, id: &str, previous_id: Option<String>) -> Facts {
        self.facts_at(id, previous_id, self.now)
    }

    pub(super) fn facts_at(&self, id: &str, previous_id: Option<String>, issued_at: Time) -> Facts {
        Facts { id: id.to_owned(), previous_id, issued_at, expires_at: self.intent.terms.end() }
    }

    fn ledger(&self, live: &[Credential]) -> Ledger {
        Ledger {
            revision: self.base.revision.unwrap_or_default(),
            first_issued_at: self.base.first_issued_at,
            default_expires_at: self.base.default_expires_at,
            live: live.iter().filter(|credential| credential.state != CredentialState::Pending).cloned().collect(),
        }
    }

    pub(super) fn secret_write(&self, place: &Place<'_>, content: Content, live: &[Credential]) -> SecretWrite {
        let present = match place {
            Place::Ours(secret) => Some(*secret),
            _ => None,
        };
        SecretWrite {
            name: self.name.to_owned(),
            base: present.map(target),
            content,
            ledger: self.ledger(live),
            present: present
                .map(|secret| secret.data.iter().map(|(key, _)| key.to_owned()).collect())
                .unwrap_or_default(),
            stale: present
                .and_then(|secret| secret.record.as_ref())
                .map(|record| record.owned.clone())
                .unwrap_or_default(),
            own: present.is_none_or(|secret| !secret.is_controlled_by(self.view.pat.uid())),
        }
    }

    /// The live token as it is, rendered anew.
    pub(super) fn copy(&self, place: &Place<'_>, active: &Credential, live: &[Credential]) -> Option<Step> {
        let layout = self.intent.layout.as_ref().ok()?;
        let here = match place {
            Place::Ours(secret) => self.key_of(secret, active).map(|key| (*secret, key)),
            _ => None,
        };
        let (secret, key) = here.or_else(|| self.former_with(active))?;
        let previous = self.previous(place, live);
        let facts = self.facts_at(active.id.as_str(), previous.as_ref().map(|(id, _)| id.clone()), active.issued_at);
        let content = Content::Token {
            token: source(secret, key, active),
            previous: previous.map(|(_, source)| source),
            facts,
            layout: layout.clone(),
        };
        Some(Step::WriteSecret(Box::new(self.secret_write(place, content, live))))
    }

    /// The token is in the Secret: is everything else as it should be?
    pub(super) fn tend(&self, secret: &SecretView, active: &Credential, live: &[Credential]) -> Option<Step> {
        let layout = self.intent.layout.as_ref().ok()?;
        let place = Place::Ours(secret);
        let previous = self.previous(&place, live);
        let facts = self.facts_at(active.id.as_str(), previous.map(|(id, _)| id), active.issued_at);
        let render_hash = layout.render_hash(&facts.borrow());
        let Some(record) = secret.record.as_ref().filter(|record| record.is_of(self.view.pat.uid())) else {
            return if self.view.live { self.copy(&place, active, live) } else { Some(Step::Look) };
        };
        if record.render_hash != render_hash {
            return self.copy(&place, active, live);
        }
        let drifted = secret.data_hash() != record.data_hash;
        let changed =
            place::metadata_drifted(secret, layout, self.view.pat.uid()) || self.ledger_is_forged(record, live);
        if (drifted || changed) && !self.view.live {
            return Some(Step::Look);
        }
        if drifted {
            return self.copy(&place, active, live);
        }
        if changed || self.ledger_is_behind(record, live) {
            let content =
                Content::MetadataOnly { data_hash: record.data_hash, render_hash, layout: Some(layout.clone()) };
            return Some(Step::WriteSecret(Box::new(self.secret_write(&place, content, live))));
        }
        None
    }

    /// The annotations may name a credential that has come to its own end since; nothing else.
    fn ledger_is_behind(&self, record: &Record, live: &[Credential]) -> bool {
        let dead = |old: &Credential| {
            let known = live.iter().any(|credential| credential.id == old.id);
            !known && old.expires_at.is_none_or(|end| end > self.now)
        };
        // Nothing is being minted here, so nobody holds a token that is still pending; raising the ledger's revision ends it.
        let orphan = |credential: &Credential| {
            credential.state == CredentialState::Pending && credential.revision > record.ledger.revision
        };
        record.ledger.live.iter().any(dead)
            || live.iter().any(orphan)
            || record.ledger.default_expires_at != self.base.default_expires_at
    }

    /// What the annotations say of the living is not what we wrote. A status that is lost would be rebuilt from it.
    fn ledger_is_forged(&self, record: &Record, live: &[Credential]) -> bool {
        let told = |credential: &Credential| {
            let same = |old: &Credential| {
                (&old.id, &old.sha256, old.revision, old.issued_at)
                    == (&credential.id, &credential.sha256, credential.revision, credential.issued_at)
            };
            credential.state == CredentialState::Pending || record.ledger.live.iter().any(same)
        };
        record.ledger.revision > self.base.revision.unwrap_or_default()
            || record.ledger.first_issued_at != self.base.first_issued_at
            || !live.iter().all(told)
    }

    /// No token is live: none may stand in the Secret.
    pub(super) fn blank(&self, place: &Place<'_>) -> Option<Step> {
        let Place::Ours(secret) = place else { return None };
        let clean = blank(&secret.type_);
        let is_clean = secret.data.len() == clean.iter().count()
            && clean.iter().all(|(key, value)| secret.data.get(key) == Some(&hash(value)));
        let ledger_is_empty = secret.record.as_ref().is_none_or(|record| {
            record.ledger.live.iter().all(|old| old.expires_at.is_some_and(|end| end <= self.now))
        });
        if is_clean && ledger_is_empty {
            return None;
        }
        let content = Content::Blank { type_: secret.type_.to_string() };
        Some(Step::WriteSecret(Box::new(self.secret_write(place, content, &[]))))
    }

    /// What a rename left, once it is not the only place where the token still is. What holds nothing that lives is of no use at
    /// any time: unless it tells of a mint that we do not know.
    pub(super) fn remove_former(&self, unneeded: bool, live: &[Credential]) -> Option<Step> {
        let useless = |secret: &SecretView| {
            !live.iter().any(|credential| self.key_of(secret, credential).is_some()) && !self.is_ahead(secret)
        };
        let former = self.view.former.iter().find(|secret| !secret.deleting && (unneeded || useless(secret)))?;
        Some(Step::DeleteSecret(target(former)))
    }

    pub(super) fn secret_events(&self, write: &SecretWrite, place: &Place<'_>) -> Vec<Notice> {
        let Place::Ours(secret) = place else {
            let moved = matches!(&write.content, Content::Token { token: Source::Secret { .. }, .. });
            return if moved { vec![Notice::moved(self.name)] } else { Vec::new() };
        };
        let ours = |record: &Record| record.is_of(self.view.pat.uid());
        let adopted = !secret.record.as_ref().is_some_and(ours) && !secret.is_controlled_by(self.view.pat.uid());
        let drifted = secret.record.as_ref().is_none_or(|record| {
            record.data_hash != secret.data_hash() || !ours(record) || self.ledger_is_forged(record, &write.ledger.live)
        }) || self
            .intent
            .layout
            .as_ref()
            .is_ok_and(|layout| place::metadata_drifted(secret, layout, self.view.pat.uid()));
        let copied =
            !matches!(&write.content, Content::Token { token: Source::Held { .. }, .. } | Content::Blank { .. });
        let same_spec = match (&write.content, &secret.record) {
            (Content::Token { layout, facts, .. }, Some(record)) => {
                record.render_hash == layout.render_hash(&facts.borrow())
            }
            _ => true,
        };
        if drifted && copied && same_spec && self.view.live && !self.restored && !adopted {
            vec![Notice::repaired(self.name, &self.editor())]
        } else {
            Vec::new()
        }
    }
}

pub(super) fn target(secret: &SecretView) -> Target {
    Target { name: secret.name.to_string(), uid: secret.uid.clone(), resource_version: secret.resource_version.clone() }
}

fn source(secret: &SecretView, key: &str, credential: &Credential) -> Source {
    Source::Secret { target: target(secret), key: key.to_owned(), sha256: credential.sha256.clone() }
}
