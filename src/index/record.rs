//! The data that the index keeps of one PAT: only what a verifier needs, in two allocations.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::{Serialize, Serializer};

use super::{owners::VIRTUAL_ACCOUNT, uid::PatUid};
use crate::{
    api::{CredentialState, Owner, OwnerKind, StoredPat, Time},
    auth::verdict::Terms,
    token::{TokenHash, TokenId},
};

/// The value for a credential that was never used.
const NEVER: u32 = 0;

/// The value for a time of use that was moved to a newer copy of the credential.
const MOVED: u32 = u32::MAX;

// Positions of a PAT's texts.
const NAMESPACE: usize = 0;
const NAME: usize = 1;
const SUBJECT: usize = 2;
const SCOPES: usize = 3;
const AUDIENCES: usize = 4;
const DEAD_USAGE: usize = 5;

/// One PAT, shared by all its credentials.
pub struct IndexedPat {
    /// Its uid.
    pub uid: PatUid,
    /// The rules that decide how long its credentials live.
    pub terms: Terms,
    /// Its live credentials, newest first.
    pub credentials: IndexedCredentials,
    text: Box<str>,
    ends: TextOffsets<6>,
    /// `status.lastUsedAt`, in seconds.
    reported: u32,
}

/// The live credentials of a PAT. The first, usually the only one, is stored in the PAT itself, which saves an
/// indirection.
#[derive(Debug, Default)]
pub struct IndexedCredentials {
    first: Option<IndexedCredential>,
    others: Box<[IndexedCredential]>,
}

/// One live credential.
#[derive(Debug)]
pub struct IndexedCredential {
    /// The SHA-256 of the token.
    pub hash: TokenHash,
    /// Its public id.
    pub id: TokenId,
    /// Pending, active or in grace; all three are accepted.
    pub state: CredentialState,
    /// When it was minted.
    pub issued_at: Time,
    /// When it expires; the PAT may expire earlier.
    pub expires_at: Option<Time>,
    /// When this process last accepted the credential, in seconds.
    used: AtomicU32,
    /// Its entry in `status.usage`, in seconds.
    reported: u32,
}

impl IndexedCredentials {
    fn new(mut all: impl ExactSizeIterator<Item = Option<IndexedCredential>>) -> Self {
        // Allocated at its final size: shrinking a list later fragments memory.
        let first = all.by_ref().flatten().next();
        let mut others = Vec::with_capacity(all.len());
        others.extend(all.flatten().take(usize::from(u8::MAX)));
        Self { first, others: others.into() }
    }

    /// Returns the credential at this position.
    pub fn get(&self, position: u8) -> Option<&IndexedCredential> {
        match position.checked_sub(1) {
            None => self.first.as_ref(),
            Some(position) => self.others.get(usize::from(position)),
        }
    }

    /// Returns all credentials.
    pub fn iter(&self) -> impl Iterator<Item = &IndexedCredential> {
        self.first.iter().chain(&self.others)
    }

    /// Returns the credential with this hash.
    pub(super) fn with(&self, hash: &TokenHash) -> Option<&IndexedCredential> {
        self.iter().find(|one| one.hash == *hash)
    }
}

impl IndexedCredential {
    /// Records a use, to the second; the newest time wins. Returns false if a newer copy must record it instead.
    pub(super) fn mark_used(&self, now: Time) -> bool {
        let now = seconds(now);
        // The field is shared by all processors, so it is written at most once a second.
        let before = self.used.load(Ordering::Relaxed);
        if before != MOVED && now <= before {
            return true;
        }
        self.used.fetch_max(now, Ordering::AcqRel) != MOVED
    }

    /// Takes over the time of use from an older copy, which then refers to this one.
    pub(super) fn take_over(&self, before: &Self) {
        let used = before.used.swap(MOVED, Ordering::AcqRel);
        if used != MOVED {
            self.used.fetch_max(used, Ordering::AcqRel);
        }
    }

    /// Returns when this process last accepted the credential.
    pub fn last_used(&self) -> Option<Time> {
        time(self.used.load(Ordering::Relaxed))
    }

    /// Returns when a verifier last accepted the credential, according to the status.
    pub fn reported_use(&self) -> Option<Time> {
        time(self.reported)
    }
}

/// The result of a lookup: a PAT and the position of one of its credentials.
#[derive(Clone, Debug)]
pub struct CredentialRef {
    /// The PAT.
    pub pat: Arc<IndexedPat>,
    position: u8,
}

impl IndexedPat {
    /// Reads a stored object. Returns `None` if a field is unreadable or has a value that admission refuses; then none of its tokens is
    /// accepted.
    pub fn read(stored: &StoredPat) -> Option<Self> {
        let (Ok(spec), Ok(status)) = (&stored.spec, &stored.status) else { return None };
        let deleted = stored.metadata.deletion_timestamp.is_some();
        let subject = match &spec.owner {
            // A user with such a name could impersonate a VirtualAccount.
            Some(Owner { kind: OwnerKind::User, name }) if name.starts_with(VIRTUAL_ACCOUNT) => return None,
            Some(Owner { kind: OwnerKind::User, name }) => name.clone(),
            Some(Owner { kind: OwnerKind::VirtualAccount, name }) => format!("{VIRTUAL_ACCOUNT}{name}"),
            None => format!("{VIRTUAL_ACCOUNT}{}/{}", stored.namespace(), stored.name()),
        };
        let credential = |one: &crate::api::Credential| {
            Some(IndexedCredential {
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
        // This includes keys that were never an ID: otherwise foreign entries would fill the map.
        let is_word = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
        let dead: Vec<String> = status.usage.keys().filter(|id| is_word(id) && !is_live(id)).cloned().collect();
        // If the owner is named after the object, the name is stored once.
        let own_name = [stored.namespace(), stored.name()];
        let is_own =
            subject.strip_prefix(VIRTUAL_ACCOUNT).and_then(|name| name.split_once('/')) == Some(own_name.into());
        let [namespace, name] = if is_own { [""; 2] } else { own_name };
        let (text, ends) = TextOffsets::pack([
            namespace,
            name,
            &subject,
            &join(&spec.scopes)?,
            &join(&spec.audiences)?,
            &join(&dead)?,
        ])?;
        let created = stored.metadata.creation_timestamp.as_ref().map_or(NEVER, |time| seconds(time.0.into()));
        Some(Self {
            uid: stored.uid().parse().ok()?,
            terms: Terms::read(spec, status, deleted).ok()?.of_object_created_at(created),
            credentials: IndexedCredentials::new(status.credentials.iter().map(credential)),
            text,
            ends,
            reported: status.last_used_at.map_or(NEVER, seconds),
        })
    }

    fn text(&self, position: usize) -> &str {
        self.ends.get(&self.text, position)
    }

    /// Returns namespace and name, if only the subject holds them.
    fn own_name(&self) -> Option<(&str, &str)> {
        let is_own = self.text(NAMESPACE).is_empty() && self.text(NAME).is_empty();
        self.subject().strip_prefix(VIRTUAL_ACCOUNT).filter(|_| is_own)?.split_once('/')
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &str {
        self.own_name().map_or_else(|| self.text(NAMESPACE), |(namespace, _)| namespace)
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        self.own_name().map_or_else(|| self.text(NAME), |(_, name)| name)
    }

    /// Returns the order among PATs that claim the same token: by creation, then by uid.
    pub fn seniority(&self) -> impl Ord + use<> {
        (self.terms.created(), self.uid)
    }

    /// Returns the kind of the owner.
    pub fn owner_kind(&self) -> OwnerKind {
        if self.subject().starts_with(VIRTUAL_ACCOUNT) { OwnerKind::VirtualAccount } else { OwnerKind::User }
    }

    /// Returns the owner.
    pub fn owner(&self) -> Owner {
        let subject = self.subject();
        let name = subject.strip_prefix(VIRTUAL_ACCOUNT).unwrap_or(subject);
        Owner { kind: self.owner_kind(), name: name.to_owned() }
    }

    /// Returns the owner as one string: `jane@example.com` or `va:<namespace>/<name>`.
    pub fn subject(&self) -> &str {
        self.text(SUBJECT)
    }

    /// Returns the scopes.
    pub fn scopes(&self) -> WordList<'_> {
        WordList::new(self.text(SCOPES))
    }

    /// Returns the audiences; if there are none, every verifier that requires no audience accepts the tokens.
    pub fn audiences(&self) -> WordList<'_> {
        WordList::new(self.text(AUDIENCES))
    }

    /// Returns when a verifier last accepted one of its tokens, according to the status.
    pub fn reported_use(&self) -> Option<Time> {
        time(self.reported)
    }

    /// Returns the keys of `status.usage` that belong to no live credential.
    pub fn dead_usage(&self) -> WordList<'_> {
        WordList::new(self.text(DEAD_USAGE))
    }
}

impl fmt::Debug for IndexedPat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexedPat")
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

/// A time of use in seconds since the Unix epoch, until the year 2106.
fn seconds(time: Time) -> u32 {
    let seconds = time.as_micros().div_euclid(1_000_000);
    seconds.clamp(i64::from(NEVER) + 1, i64::from(MOVED) - 1) as u32
}

fn time(seconds: u32) -> Option<Time> {
    (seconds != NEVER && seconds != MOVED).then(|| Time::from_micros(i64::from(seconds) * 1_000_000))
}

impl CredentialRef {
    /// Refers to the credential at this position, which must exist.
    pub(super) fn new(pat: Arc<IndexedPat>, position: u8) -> Self {
        Self { pat, position }
    }

    /// Returns the credential whose token was presented.
    pub fn credential(&self) -> &IndexedCredential {
        self.pat.credentials.get(self.position).expect("a CredentialRef is only made for a position that exists")
    }
}

/// The end offsets of several texts in one allocation.
#[derive(Clone, Copy)]
pub(super) struct TextOffsets<const N: usize>([u16; N]);

impl<const N: usize> TextOffsets<N> {
    /// Packs these texts. Returns `None` if they are longer than admission allows.
    pub fn pack(parts: [&str; N]) -> Option<(Box<str>, Self)> {
        let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        let mut ends = [0; N];
        for (part, end) in parts.iter().zip(&mut ends) {
            text.push_str(part);
            *end = u16::try_from(text.len()).ok()?;
        }
        Some((text.into(), Self(ends)))
    }

    /// Returns the text at this position.
    pub fn get(self, text: &str, position: usize) -> &str {
        let start = position.checked_sub(1).map_or(0, |before| self.0[before]);
        &text[usize::from(start)..usize::from(self.0[position])]
    }
}

/// A list of words, such as scopes, joined by spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WordList<'a>(&'a str);

impl<'a> WordList<'a> {
    /// Reads the output of [`join`].
    pub(super) fn new(joined: &'a str) -> Self {
        Self(joined)
    }

    /// Returns the words.
    pub fn iter(self) -> impl Iterator<Item = &'a str> + Clone {
        self.0.split(' ').filter(|word| !word.is_empty())
    }

    /// Whether the list is empty.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether the list contains this word.
    pub fn contains(self, word: &str) -> bool {
        self.iter().any(|one| one == word)
    }

    /// Returns the words joined by spaces, as in OAuth.
    pub fn joined(self) -> &'a str {
        self.0
    }
}

impl Serialize for WordList<'_> {
    /// Serializes as a list, as in the resource.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Joins words by spaces. Returns `None` if a word is empty or contains a space, because it would read as another list.
pub(super) fn join(words: &[String]) -> Option<String> {
    words.iter().all(|word| !word.is_empty() && !word.contains(' ')).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_texts_are_read_back() {
        let (text, ends) = TextOffsets::pack(["", "namespace", "", "näme"]).unwrap();
        assert_eq!([0, 1, 2, 3].map(|position| ends.get(&text, position)), ["", "namespace", "", "näme"]);
        assert!(TextOffsets::pack(["a", &"b".repeat(65_535)]).is_none());
    }

    #[test]
    fn a_word_with_a_space_is_refused() {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(join(&owned(&["repo:read", "admin all"])), None);
        assert_eq!(join(&owned(&["repo:read", ""])), None);
        for words in [&[][..], &["one"], &["one", "two"]] {
            let joined = join(&owned(words)).unwrap();
            let read = WordList::new(&joined);
            assert_eq!(read.iter().collect::<Vec<_>>(), words);
            assert_eq!((read.is_empty(), read.contains("two")), (words.is_empty(), words.contains(&"two")));
            assert!(!read.contains("") && !read.contains("one two") && !read.contains("on"));
        }
    }
}
