//! What is kept of one PAT: as little as a verifier needs.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use crate::{
    api::{CredentialState, Owner, OwnerKind, StoredPat, Time, verdict::Terms},
    token::{TokenHash, TokenId},
};

/// The uid of a PAT; a UUID, shown as 32 hex digits: the `client_id` of every protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatUid(u128);

/// Text that is not a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a UUID has 32 hexadecimal digits, with or without dashes")]
pub struct InvalidUid;

impl FromStr for PatUid {
    type Err = InvalidUid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: String = text.chars().filter(|digit| *digit != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(InvalidUid);
        }
        u128::from_str_radix(&digits, 16).map(Self).map_err(|_| InvalidUid)
    }
}

impl fmt::Display for PatUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for PatUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One PAT, as far as its tokens are concerned. Shared by all its credentials.
#[derive(Debug)]
pub struct Pat {
    /// Its uid.
    pub uid: PatUid,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Whose it is.
    pub owner: Owner,
    /// What it may do; no space in any of them.
    pub scopes: Box<[Box<str>]>,
    /// Who may accept it; empty: whoever asks for no audience.
    pub audiences: Box<[Box<str>]>,
    /// How long it may live.
    pub terms: Terms,
    /// Its live credentials.
    pub credentials: Box<[Credential]>,
}

/// One live credential.
#[derive(Debug)]
pub struct Credential {
    /// The SHA-256 of the token.
    pub hash: TokenHash,
    /// Its id, which may be told.
    pub id: TokenId,
    /// When it was minted.
    pub issued_at: Time,
    /// Its own end.
    pub expires_at: Option<Time>,
    /// Pending, active or in grace: all of them work.
    pub state: CredentialState,
    /// When a verifier here last let it in, in microseconds since the epoch; 0: never.
    last_used: AtomicI64,
}

impl Credential {
    /// Notes that it was let in. The newest time wins.
    pub fn mark_used(&self, now: Time) {
        self.last_used.fetch_max(now.as_micros(), Ordering::Relaxed);
    }

    /// When it was last let in here.
    pub fn last_used(&self) -> Option<Time> {
        let micros = self.last_used.load(Ordering::Relaxed);
        (micros > 0).then(|| Time::from_micros(micros))
    }
}

/// What a look-up finds: a PAT, and which of its credentials it is.
#[derive(Clone, Debug)]
pub struct Record {
    /// The PAT.
    pub pat: Arc<Pat>,
    position: u8,
}

impl Pat {
    /// Reads a stored object; `None` if spec, status or uid cannot be read: then nothing of it is accepted.
    pub fn read(stored: &StoredPat) -> Option<Self> {
        let (Ok(spec), Ok(status)) = (&stored.spec, &stored.status) else { return None };
        let deleted = stored.metadata.deletion_timestamp.is_some();
        let owner = spec.owner.clone().unwrap_or_else(|| Owner {
            kind: OwnerKind::VirtualAccount,
            name: format!("{}/{}", stored.namespace(), stored.name()),
        });
        let boxed = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        let credential = |one: &crate::api::Credential| {
            Some(Credential {
                hash: one.sha256.parse().ok()?,
                id: one.id.parse().ok()?,
                issued_at: one.issued_at,
                expires_at: one.expires_at,
                state: one.state,
                last_used: AtomicI64::new(0),
            })
        };
        Some(Self {
            uid: stored.uid().parse().ok()?,
            namespace: stored.namespace().into(),
            name: stored.name().into(),
            owner,
            scopes: boxed(&spec.scopes),
            audiences: boxed(&spec.audiences),
            terms: Terms::read(spec, status, deleted).ok()?,
            credentials: status.credentials.iter().filter_map(credential).collect(),
        })
    }

    /// The owner where one string must do: `jane@example.com`, `va:<namespace>/<name>`.
    pub fn subject(&self) -> String {
        match self.owner.kind {
            OwnerKind::User => self.owner.name.clone(),
            OwnerKind::VirtualAccount => format!("va:{}", self.owner.name),
        }
    }
}

impl Record {
    /// The credential at this position of a PAT.
    pub(super) fn new(pat: Arc<Pat>, position: u8) -> Self {
        Self { pat, position }
    }

    /// The credential whose token was presented.
    pub fn credential(&self) -> &Credential {
        &self.pat.credentials[usize::from(self.position)]
    }
}
