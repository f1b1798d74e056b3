//! The steps of a plan, with everything that their executor needs. They hold no plain token, only where to find it.

use super::{
    damage::Damage,
    observed::{Ledger, OwnedMetadata, SecretView},
};
use crate::{
    api::{Parsed, Permission, PersonalAccessTokenStatus, RemoteTarget, Time},
    secret::{self, Digest, Layout},
    token::{TokenHash, TokenPrefix},
};

/// One step.
#[derive(Debug)]
pub enum Step {
    /// Do nothing until the next wake-up or change.
    Rest,
    /// Read the Secret, then the PAT, from the API server and plan again.
    ReadUncached,
    /// Mint a token into memory and plan again.
    Mint(TokenPrefix),
    /// Ask the API server by a dry run whether it would accept this write, and plan again.
    DryRun(Box<SecretWrite>),
    /// Write the status.
    WriteStatus(Box<PersonalAccessTokenStatus>),
    /// Write the Secret.
    WriteSecret(Box<SecretWrite>),
    /// Delete a Secret that is ours and no longer needed.
    DeleteSecret(SecretVersion),
    /// Draw the ID of a token of another system into memory and plan again.
    Reserve,
    /// Add the finalizer [`REMOTE_TOKENS`](crate::api::REMOTE_TOKENS) to the PAT.
    AddFinalizer,
    /// Remove it. The names of the tokens that stay at the issuer are recorded there first.
    RemoveFinalizer(Vec<String>),
    /// Create the held token at its issuer. The step is done when the call begins; plan again when it ends.
    CreateRemote(Box<RemoteRequest>),
    /// Revoke a token at its issuer, in the same way.
    DeleteRemote(Box<RemoteDeletion>),
}

impl Step {
    /// Returns the name of the Secret that it writes or deletes.
    pub fn secret(&self) -> Option<&str> {
        match self {
            Self::DryRun(write) | Self::WriteSecret(write) => Some(&write.name),
            Self::DeleteSecret(version) => Some(&version.name),
            Self::Rest
            | Self::ReadUncached
            | Self::Mint(_)
            | Self::WriteStatus(_)
            | Self::Reserve
            | Self::AddFinalizer
            | Self::RemoveFinalizer(_)
            | Self::CreateRemote(_)
            | Self::DeleteRemote(_) => None,
        }
    }
}

/// What is requested from an issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteRequest {
    /// The name of the token, unique for all time.
    pub name: String,
    /// What the token is for.
    pub target: RemoteTarget,
    /// Its scopes at the issuer.
    pub scopes: Vec<String>,
    /// Its permissions at the issuer.
    pub permissions: Vec<Permission>,
    /// When it is to end.
    pub expires_at: Option<Time>,
    /// The request must not be sent after this time.
    pub latest: Time,
}

/// A token to revoke at its issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDeletion {
    /// Its name.
    pub name: String,
    /// Its ID.
    pub id: String,
    /// What it is for.
    pub target: RemoteTarget,
}

/// One exact version of one Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretVersion {
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
    /// The metadata.resourceVersion that the decision was made on.
    pub resource_version: String,
}

impl SecretVersion {
    /// Returns the observed version of a Secret.
    pub(super) fn of(secret: &SecretView) -> Self {
        Self {
            name: secret.name.to_string(),
            uid: secret.uid.clone(),
            resource_version: secret.resource_version.clone(),
        }
    }
}

/// A write to a Secret.
#[derive(Debug)]
pub struct SecretWrite {
    /// The Secret's name.
    pub name: String,
    /// The version to change; `None` creates.
    pub base: Option<SecretVersion>,
    /// The content to write.
    pub content: SecretContent,
    /// The credentials that the annotations record.
    pub ledger: Ledger,
    /// The keys of the present data.
    pub existing_keys: Vec<String>,
    /// The labels and annotations of an earlier write, which the write removes if the layout does not have them.
    pub previously_owned: OwnedMetadata,
    /// Whether to set the owner reference, because it is missing or names a PAT that no longer exists.
    pub set_owner: bool,
    /// What another client did to the Secret, if this write repairs it.
    pub repairs: Option<Damage>,
}

impl SecretWrite {
    /// Returns the hash of what the data is rendered from after this write.
    pub fn render_hash(&self) -> Digest {
        match &self.content {
            SecretContent::Token { facts, layout, .. } => layout.render_hash(&facts.borrow()),
            SecretContent::MetadataOnly { render_hash, .. } => *render_hash,
            SecretContent::Cleared { .. } => Digest::default(),
        }
    }
}

/// The content of a write to a Secret.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is nearly always the large one")]
pub enum SecretContent {
    /// The token, and everything that is rendered from it.
    Token {
        /// Where the token is.
        token: TokenSource,
        /// Where the previous token is, if the Secret is to hold it.
        previous: Option<TokenSource>,
        /// What templates may show.
        facts: TokenFacts,
        /// The layout of the Secret.
        layout: Layout,
    },
    /// Only labels, annotations and the owner.
    MetadataOnly {
        /// The hash of the data that is there.
        data_hash: Digest,
        /// The hash of what it was rendered from.
        render_hash: Digest,
        /// The layout of the Secret; `None` keeps labels and annotations unchanged.
        layout: Option<Layout>,
    },
    /// No token: the keys that the type requires, empty.
    Cleared {
        /// The Secret's type.
        type_: String,
    },
}

/// The place of a plain token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// In memory.
    Held {
        /// Its hash, to verify it.
        sha256: TokenHash,
    },
    /// In a Secret, in exactly this version.
    Secret {
        /// The Secret.
        target: SecretVersion,
        /// The key.
        key: String,
        /// Its hash, to verify it.
        sha256: Parsed<TokenHash>,
    },
    /// A token that is minted for a dry run and thrown away.
    Throwaway,
}

/// The public facts of a token that a template may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFacts {
    /// The id of the token.
    pub id: String,
    /// The id of the previous token, if the Secret holds it.
    pub previous_id: Option<String>,
    /// When the token was issued.
    pub issued_at: Time,
    /// When the whole token expires.
    pub expires_at: Option<Time>,
    /// The ID of the token at its issuer, if that is another system.
    pub remote_id: Option<String>,
}

impl TokenFacts {
    /// Borrows the facts for the renderer.
    pub fn borrow(&self) -> secret::TemplateFacts<'_> {
        secret::TemplateFacts {
            id: &self.id,
            previous_id: self.previous_id.as_deref(),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            remote_id: self.remote_id.as_deref(),
        }
    }
}
