//! The steps that a plan can ask for, and all that their executor needs to know. No plain token is in them: only where to find it.

use super::observed::{Ledger, OwnedMetadata, SecretView};
use crate::{
    api::{Parsed, PersonalAccessTokenStatus, Time},
    secret::{self, Digest, Layout},
    token::{TokenHash, TokenPrefix},
};

/// One step.
#[derive(Debug)]
pub enum Step {
    /// Nothing until the next wake-up or change.
    Rest,
    /// Read the Secret, then the PAT, from the API server and plan again.
    ReadLive,
    /// Mint a token into memory and plan again.
    Mint(TokenPrefix),
    /// Ask the API server by a dry run whether it would accept this write, and plan again.
    DryRun(Box<SecretWrite>),
    /// Write the status.
    WriteStatus(Box<PersonalAccessTokenStatus>),
    /// Write the Secret.
    WriteSecret(Box<SecretWrite>),
    /// Delete a Secret that is ours and no longer wanted.
    DeleteSecret(SecretVersion),
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
    /// The version that was observed.
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
    /// What to put in.
    pub content: SecretContent,
    /// What the annotations will say of credentials.
    pub ledger: Ledger,
    /// The keys of the present data.
    pub present: Vec<String>,
    /// The labels and annotations of an earlier write, which may have to be removed.
    pub stale: OwnedMetadata,
    /// Whether to set the owner reference: it is missing, or that of a PAT that no longer exists.
    pub own: bool,
}

/// What a write puts into a Secret.
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
        /// The layout of the Secret; `None` leaves labels and annotations as they are.
        layout: Option<Layout>,
    },
    /// No token: the keys that the type requires, empty.
    Cleared {
        /// The Secret's type.
        type_: String,
    },
}

/// Where a plain token is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// In memory.
    Held {
        /// Its hash, to be compared.
        sha256: TokenHash,
    },
    /// In a Secret, in exactly this version.
    Secret {
        /// The Secret.
        target: SecretVersion,
        /// The key.
        key: String,
        /// Its hash, to be compared.
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
    /// The end of the whole token.
    pub expires_at: Option<Time>,
}

impl TokenFacts {
    /// The same for the renderer.
    pub fn borrow(&self) -> secret::TemplateFacts<'_> {
        secret::TemplateFacts {
            id: &self.id,
            previous_id: self.previous_id.as_deref(),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
        }
    }
}
