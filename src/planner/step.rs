//! The steps that a plan can ask for, and all that the one who performs them needs to know.
//!
//! Data alone, and no plain token in it: only where to take it from.

use crate::{
    api::{Parsed, PersonalAccessTokenStatus, Time},
    token::{TokenHash, TokenPrefix},
};
use crate::{
    planner::view::{Ledger, Owned},
    secret::{self, Digest, Layout},
};

/// What can be done next.
#[derive(Debug)]
pub enum Step {
    /// Nothing until the next wake-up or change.
    Rest,
    /// Read the Secret from the API server, then plan again.
    Look,
    /// Mint a token into memory, then plan again.
    Mint(TokenPrefix),
    /// Ask the API server whether it would take this write, then plan again.
    Rehearse(Box<SecretWrite>),
    /// Write the status.
    WriteStatus(Box<PersonalAccessTokenStatus>),
    /// Write the Secret.
    WriteSecret(Box<SecretWrite>),
    /// Delete a Secret that is ours and no longer wanted.
    DeleteSecret(Target),
}

/// One exact version of one Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The version that the decision was made on.
    pub resource_version: String,
}

/// A write to a Secret, without any plain token: where to take it from.
#[derive(Debug)]
pub struct SecretWrite {
    /// The Secret's name.
    pub name: String,
    /// The version to change; `None` creates.
    pub base: Option<Target>,
    /// What to put in.
    pub content: Content,
    /// What the annotations will say.
    pub ledger: Ledger,
    /// Keys of the data that is there now.
    pub present: Vec<String>,
    /// Labels and annotations that an earlier write put there and that may have to go.
    pub stale: Owned,
    /// The owner reference has to be set: it is missing, or that of a PAT that is no more.
    pub own: bool,
}

/// What a write puts into a Secret.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is nearly always the large one")]
pub enum Content {
    /// The token, and everything that is made of it.
    Token {
        /// Where the token is.
        token: Source,
        /// Where the previous one is, if it is wanted and there.
        previous: Option<Source>,
        /// What templates may show.
        facts: Facts,
        /// How it looks.
        layout: Layout,
    },
    /// Nothing but labels, annotations and the owner.
    MetadataOnly {
        /// The hash of the data that is there.
        data_hash: Digest,
        /// The hash of what it was rendered from.
        render_hash: Digest,
        /// How it looks; `None` leaves labels and annotations as they are.
        layout: Option<Layout>,
    },
    /// No token: what the type requires, empty.
    Blank {
        /// The Secret's type.
        type_: String,
    },
}

/// Where a plain token is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In memory.
    Held {
        /// Its hash, to be certain.
        sha256: TokenHash,
    },
    /// In a Secret, in exactly this version.
    Secret {
        /// The Secret.
        target: Target,
        /// Its key.
        key: String,
        /// Its hash, to be certain.
        sha256: Parsed<TokenHash>,
    },
    /// A token that is made for a rehearsal and thrown away.
    Throwaway,
}

/// The public facts that a template may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The id of the token.
    pub id: String,
    /// The id of the previous token, if it is shown.
    pub previous_id: Option<String>,
    /// When the token was issued.
    pub issued_at: Time,
    /// The end of the whole token.
    pub expires_at: Option<Time>,
}

impl Facts {
    /// The same for the renderer.
    pub fn borrow(&self) -> secret::Facts<'_> {
        secret::Facts {
            id: &self.id,
            previous_id: self.previous_id.as_deref(),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
        }
    }
}
