//! The inputs of a plan, and what must happen to the token.

use super::{
    intent::{ControllerConfig, Intent},
    observed::{Observed, SecretView, WriteRefusal},
    remote::{Remote, RemoteIntent},
};
use crate::api::{Credential, PersonalAccessTokenSpec, PersonalAccessTokenStatus, Time};

/// The inputs of a plan, parsed.
pub(super) struct Inputs<'a> {
    pub observed: &'a Observed<'a>,
    pub config: &'a ControllerConfig,
    pub now: Time,
    /// The status as stored.
    pub stored: &'a PersonalAccessTokenStatus,
    /// The status to start from: the stored one, or one that was rebuilt from the Secret.
    pub base: PersonalAccessTokenStatus,
    /// Whether `base` was rebuilt.
    pub restored: bool,
    /// Whether `base` was corrected: the status held values that the controller never writes.
    pub corrected: bool,
    pub spec: &'a PersonalAccessTokenSpec,
    pub intent: Intent,
    /// What only tokens of other systems have.
    pub remote: Option<Remote<'a>>,
    /// The name of the Secret that holds the token: the one in the spec, or a former one if the rename is postponed.
    pub secret_name: &'a str,
}

impl<'a> Inputs<'a> {
    /// Returns the uid of the PAT.
    pub fn uid(&self) -> &'a str {
        self.observed.pat.uid()
    }

    /// Returns what is requested from the issuer of another system.
    pub fn remote_intent(&self) -> Option<&RemoteIntent<'a>> {
        self.remote.as_ref()?.intent.as_ref()
    }

    /// Returns the credentials that have ended and are being revoked at the issuer.
    pub fn revoking(&self) -> &[Credential] {
        self.remote.as_ref().map_or(&[], |remote| &remote.revoking)
    }

    /// Returns the key under which a Secret holds a credential's token.
    pub fn key_of<'s>(&self, secret: &'s SecretView, credential: &Credential) -> Option<&'s str> {
        let preferred = self.intent.layout.as_ref().map_or("token", |layout| layout.key.as_str());
        secret.key_of(&credential.sha256, preferred)
    }

    /// Returns the former Secret that holds a credential's token, and the key there.
    pub fn former_with(&self, credential: &Credential) -> Option<(&'a SecretView, &'a str)> {
        self.observed.former.iter().find_map(|secret| Some((secret, self.key_of(secret, credential)?)))
    }

    /// Returns the last write to the Secret that the API server refused.
    pub fn refusal(&self) -> Option<&'a WriteRefusal> {
        self.observed.refusals.iter().find(|refusal| refusal.secret == self.secret_name)
    }

    /// Whether the API server has refused a write to the Secret, and it is too early to try again.
    pub fn is_refused(&self) -> bool {
        self.refuses(self.secret_name)
    }

    /// The same for a Secret of any name.
    pub fn refuses(&self, secret: &str) -> bool {
        self.observed.refusals.iter().any(|refusal| refusal.secret == secret && self.now < refusal.retry_at)
    }

    /// Whether a Secret records a mint that the status does not: the cached PAT is outdated, or the annotations are
    /// forged.
    pub fn is_ahead(&self, secret: &SecretView) -> bool {
        secret.record.as_ref().is_some_and(|record| {
            record.is_of(self.uid()) && record.ledger.revision > self.base.revision.unwrap_or_default()
        })
    }

    /// Returns who changed the Secret last, as a part of a message.
    pub fn last_editor(&self) -> String {
        match self.observed.secret.and_then(|secret| secret.last_editor.as_deref()) {
            Some(editor) => format!(" (last changed by {editor:?})"),
            None => String::new(),
        }
    }
}

/// Why a token is minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MintReason {
    /// No credential is active.
    Issue,
    /// The active credential is due for replacement.
    Rotation,
    /// The Secret lost the active token.
    Repair,
}

/// What must happen to the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: the token is where it belongs, or none is wanted.
    Nothing,
    /// The active token must be copied from a former Secret.
    Move,
    /// A new token must be minted.
    Mint(MintReason),
}
