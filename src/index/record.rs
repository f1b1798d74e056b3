//! What is kept of one PAT: as little as a verifier needs, in two allocations.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    text::{Ends, Words, join},
    uid::PatUid,
};
use crate::{
    api::{CredentialState, Owner, OwnerKind, StoredPat, Time},
    auth::verdict::Terms,
    token::{TokenHash, TokenId},
};

/// In place of a time of use: there is none.
const NEVER: u32 = 0;

/// In place of a time of use: this credential has been replaced by a newer copy, which has the time now.
const MOVED: u32 = u32::MAX;

/// Places of a PAT's texts.
const NAMESPACE: usize = 0;
const NAME: usize = 1;
const SUBJECT: usize = 2;
const SCOPES: usize = 3;
const AUDIENCES: usize = 4;
const DEAD_USAGE: usize = 5;

/// Before the name of a VirtualAccount, where one string must say who it is.
const VIRTUAL_ACCOUNT: &str = "va:";

/// One PAT, as far as its tokens are concerned. Shared by all its credentials.
pub struct Pat {
    /// Its uid.
    pub uid: PatUid,
    /// How long it may live.
    pub terms: Terms,
    /// Its live credentials, the newest first.
    pub credentials: Credentials,
    text: Box<str>,
    ends: Ends<6>,
    /// `status.lastUsedAt`, in seconds.
    reported: u32,
}

/// The live credentials of a PAT. Most have one, which stands in the PAT itself: a look-up has one step less to go.
#[derive(Debug, Default)]
pub struct Credentials {
    first: Option<Credential>,
    others: Box<[Credential]>,
}

/// One live credential.
#[derive(Debug)]
pub struct Credential {
    /// The SHA-256 of the token.
    pub hash: TokenHash,
    /// Its id, which may be told.
    pub id: TokenId,
    /// Pending, active or in grace: all of them work.
    pub state: CredentialState,
    /// When it was minted.
    pub issued_at: Time,
    /// Its own end.
    pub expires_at: Option<Time>,
    /// When a verifier here last let it in, in seconds: what is shown has minutes.
    used: AtomicU32,
    /// `status.usage` of it, in seconds.
    reported: u32,
}

impl Credentials {
    fn new(mut all: impl ExactSizeIterator<Item = Option<Credential>>) -> Self {
        // Of the right size from the start: a list that is cut to size leaves a hole behind.
        let first = all.by_ref().flatten().next();
        let mut others = Vec::with_capacity(all.len());
        others.extend(all.flatten().take(usize::from(u8::MAX)));
        Self { first, others: others.into() }
    }

    /// The one at this position.
    pub fn get(&self, position: u8) -> Option<&Credential> {
        match position.checked_sub(1) {
            None => self.first.as_ref(),
            Some(place) => self.others.get(usize::from(place)),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Credential> {
        self.first.iter().chain(&self.others)
    }

    /// The one with this hash.
    pub(super) fn with(&self, hash: &TokenHash) -> Option<&Credential> {
        self.iter().find(|one| one.hash == *hash)
    }
}

impl Credential {
    /// Notes that it was let in, to the second; the newest time wins. False if a newer copy of it should be told instead.
    pub(super) fn mark_used(&self, now: Time) -> bool {
        let now = seconds(now);
        // A note is shared by all processors: made once a second, it costs them little.
        let before = self.used.load(Ordering::Relaxed);
        if before != MOVED && now <= before {
            return true;
        }
        self.used.fetch_max(now, Ordering::AcqRel) != MOVED
    }

    /// Takes over what the copy before it knew, and leaves it that all else is to be told to this one.
    pub(super) fn take_over(&self, before: &Self) {
        let used = before.used.swap(MOVED, Ordering::AcqRel);
        if used != MOVED {
            self.used.fetch_max(used, Ordering::AcqRel);
        }
    }

    /// When it was last let in here.
    pub fn last_used(&self) -> Option<Time> {
        time(self.used.load(Ordering::Relaxed))
    }

    /// When a verifier last let it in, as far as the resource's status knows.
    pub fn reported_use(&self) -> Option<Time> {
        time(self.reported)
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
    /// Reads a stored object; `None` if something in it cannot be read, or is what admission never lets in: then nothing of it
    /// is accepted.
    pub fn read(stored: &StoredPat) -> Option<Self> {
        let (Ok(spec), Ok(status)) = (&stored.spec, &stored.status) else { return None };
        let deleted = stored.metadata.deletion_timestamp.is_some();
        let subject = match &spec.owner {
            // A person's name that reads as a program's would be taken for it.
            Some(Owner { kind: OwnerKind::User, name }) if name.starts_with(VIRTUAL_ACCOUNT) => return None,
            Some(Owner { kind: OwnerKind::User, name }) => name.clone(),
            Some(Owner { kind: OwnerKind::VirtualAccount, name }) => format!("{VIRTUAL_ACCOUNT}{name}"),
            None => format!("{VIRTUAL_ACCOUNT}{}/{}", stored.namespace(), stored.name()),
        };
        let credential = |one: &crate::api::Credential| {
            Some(Credential {
                hash: *one.sha256.value()?,
                id: *one.id.value()?,
                state: one.state,
                issued_at: one.issued_at,
                expires_at: one.expires_at,
                used: AtomicU32::new(NEVER),
                reported: status.usage.get(one.id.as_str()).copied().map_or(NEVER, seconds),
            })
        };
        let is_live = |id: &str| status.credentials.iter().any(|one| one.id.as_str() == id);
        // Also what was never an id: somebody else's entries would fill the map.
        let is_word = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
        let dead: Vec<String> = status.usage.keys().filter(|id| is_word(id) && !is_live(id)).cloned().collect();
        // Where the owner is the object itself, its name is not written down twice.
        let own_name = [stored.namespace(), stored.name()];
        let is_own =
            subject.strip_prefix(VIRTUAL_ACCOUNT).and_then(|name| name.split_once('/')) == Some(own_name.into());
        let [namespace, name] = if is_own { [""; 2] } else { own_name };
        let (text, ends) =
            Ends::pack([namespace, name, &subject, &join(&spec.scopes)?, &join(&spec.audiences)?, &join(&dead)?])?;
        let created = stored.metadata.creation_timestamp.as_ref().map_or(NEVER, |time| seconds(time.0.into()));
        Some(Self {
            uid: stored.uid().parse().ok()?,
            terms: Terms::read(spec, status, deleted).ok()?.of_object_created_at(created),
            credentials: Credentials::new(status.credentials.iter().map(credential)),
            text,
            ends,
            reported: status.last_used_at.map_or(NEVER, seconds),
        })
    }

    fn text(&self, place: usize) -> &str {
        self.ends.get(&self.text, place)
    }

    /// Namespace and name, if they stand in the subject only.
    fn own_name(&self) -> Option<(&str, &str)> {
        let is_own = self.text(NAMESPACE).is_empty() && self.text(NAME).is_empty();
        self.subject().strip_prefix(VIRTUAL_ACCOUNT).filter(|_| is_own)?.split_once('/')
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.own_name().map_or_else(|| self.text(NAMESPACE), |(namespace, _)| namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.own_name().map_or_else(|| self.text(NAME), |(_, name)| name)
    }

    /// Which of two that claim the same token is the elder: by when they were created, then by uid.
    pub fn seniority(&self) -> impl Ord + use<> {
        (self.terms.created(), self.uid)
    }

    /// Whether its owner is a person or a program.
    pub fn owner_kind(&self) -> OwnerKind {
        if self.subject().starts_with(VIRTUAL_ACCOUNT) { OwnerKind::VirtualAccount } else { OwnerKind::User }
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        let subject = self.subject();
        let name = subject.strip_prefix(VIRTUAL_ACCOUNT).unwrap_or(subject);
        Owner { kind: self.owner_kind(), name: name.to_owned() }
    }

    /// The owner where one string must do: `jane@example.com`, `va:<namespace>/<name>`.
    pub fn subject(&self) -> &str {
        self.text(SUBJECT)
    }

    /// What it may do.
    pub fn scopes(&self) -> Words<'_> {
        Words::new(self.text(SCOPES))
    }

    /// Who may accept it; empty: whoever asks for no audience.
    pub fn audiences(&self) -> Words<'_> {
        Words::new(self.text(AUDIENCES))
    }

    /// When a verifier last let one of its tokens in, as far as the resource's status knows.
    pub fn reported_use(&self) -> Option<Time> {
        time(self.reported)
    }

    /// The ids that `status.usage` still has, of credentials that are no longer live.
    pub fn dead_usage(&self) -> Words<'_> {
        Words::new(self.text(DEAD_USAGE))
    }
}

impl fmt::Debug for Pat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pat")
            .field("uid", &self.uid)
            .field("namespace", &self.namespace())
            .field("name", &self.name())
            .field("subject", &self.subject())
            .field("scopes", &self.scopes())
            .field("audiences", &self.audiences())
            .field("terms", &self.terms)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// A time of use, in whole seconds since the Unix epoch, until the year 2106.
fn seconds(time: Time) -> u32 {
    let seconds = time.as_micros().div_euclid(1_000_000);
    seconds.clamp(i64::from(NEVER) + 1, i64::from(MOVED) - 1) as u32
}

fn time(seconds: u32) -> Option<Time> {
    (seconds != NEVER && seconds != MOVED).then(|| Time::from_micros(i64::from(seconds) * 1_000_000))
}

impl Record {
    /// The credential at this position of a PAT, which must have it.
    pub(super) fn new(pat: Arc<Pat>, position: u8) -> Self {
        Self { pat, position }
    }

    /// The credential whose token was presented.
    pub fn credential(&self) -> &Credential {
        self.pat.credentials.get(self.position).expect("whoever made this record has seen the credential")
    }
}
