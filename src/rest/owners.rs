//! What TokenOwners say of owners of tokens: by owner, by id and by email.
//!
//! Several objects may speak of one owner: the oldest is the one that is told. It must not judge who is disabled; that is the
//! decision's.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    api::{Owner, OwnerKind, StoredOwner, Time, TokenOwnerSpec},
    index::PatUid,
};

/// What is known of an owner, whether or not a TokenOwner names it.
#[derive(Clone, Debug)]
pub struct OwnerEntry {
    /// Its id in every dialect: the TokenOwner's uid as 32 hexadecimal digits, or, where there is none, the owner in one string.
    pub id: String,
    /// Who it is.
    pub owner: Owner,
    /// When the TokenOwner was created and last changed; `None` where there is none.
    pub times: Option<(Time, Time)>,
    /// What the TokenOwner says; empty but for the subject where there is none.
    pub spec: Arc<TokenOwnerSpec>,
}

/// One object.
#[derive(Clone, Debug)]
struct Described {
    created_at: Time,
    updated_at: Time,
    spec: Arc<TokenOwnerSpec>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Owners {
    by_uid: HashMap<PatUid, Described>,
    /// The oldest first.
    by_subject: HashMap<Owner, BTreeSet<(Time, PatUid)>>,
    by_email: HashMap<String, BTreeSet<PatUid>>,
}

impl Owners {
    /// What is known of an owner; every owner has an entry.
    pub fn entry(&self, owner: &Owner) -> OwnerEntry {
        let first = self.by_subject.get(owner).and_then(|objects| objects.first());
        match first.and_then(|(_, uid)| Some((uid, self.by_uid.get(uid)?))) {
            Some((uid, described)) => OwnerEntry {
                id: uid.to_string(),
                owner: owner.clone(),
                times: Some((described.created_at, described.updated_at)),
                spec: described.spec.clone(),
            },
            None => {
                OwnerEntry { id: owner.text(), owner: owner.clone(), times: None, spec: Arc::new(bare(owner.clone())) }
            }
        }
    }

    /// The owner whom the TokenOwner of this id describes.
    pub fn by_id(&self, id: &str) -> Option<OwnerEntry> {
        // One text for one id: with dashes or in capital letters it is another.
        let uid: PatUid = id.parse().ok().filter(|uid: &PatUid| uid.to_string() == id)?;
        Some(self.entry(&self.by_uid.get(&uid)?.spec.subject))
    }

    /// The one owner with this email, in any case; `None` if there are none or several.
    pub fn by_email(&self, email: &str) -> Option<OwnerEntry> {
        let uids = self.by_email.get(&email.to_lowercase())?.iter();
        let mut subjects = uids.filter_map(|uid| Some(&self.by_uid.get(uid)?.spec.subject));
        let first = subjects.next()?;
        subjects.all(|other| other == first).then(|| self.entry(first))
    }

    /// Takes in an object, in place of what it was before; one that cannot be read is none.
    pub fn put(&mut self, stored: &StoredOwner) {
        self.remove(stored);
        let (Ok(uid), Ok(spec)) = (stored.uid().parse::<PatUid>(), &stored.spec) else { return };
        let Some(created_at) = stored.metadata.creation_timestamp.as_ref().map(|time| time.0.into()) else { return };
        self.by_subject.entry(spec.subject.clone()).or_default().insert((created_at, uid));
        if let Some(email) = &spec.email {
            self.by_email.entry(email.to_lowercase()).or_default().insert(uid);
        }
        let updated_at = stored.updated_at.unwrap_or(created_at);
        self.by_uid.insert(uid, Described { created_at, updated_at, spec: Arc::new(spec.clone()) });
    }

    /// Forgets an object.
    pub fn remove(&mut self, stored: &StoredOwner) {
        if let Ok(uid) = stored.uid().parse() {
            self.forget(uid);
        }
    }

    /// Forgets every object that is not to be kept.
    pub fn retain(&mut self, keep: impl Fn(PatUid) -> bool) {
        let gone: Vec<PatUid> = self.by_uid.keys().copied().filter(|uid| !keep(*uid)).collect();
        gone.into_iter().for_each(|uid| self.forget(uid));
    }

    fn forget(&mut self, uid: PatUid) {
        let Some(old) = self.by_uid.remove(&uid) else { return };
        if let Some(objects) = self.by_subject.get_mut(&old.spec.subject) {
            objects.remove(&(old.created_at, uid));
            if objects.is_empty() {
                self.by_subject.remove(&old.spec.subject);
            }
        }
        let Some(email) = old.spec.email.as_ref().map(|email| email.to_lowercase()) else { return };
        if let Some(objects) = self.by_email.get_mut(&email) {
            objects.remove(&uid);
            if objects.is_empty() {
                self.by_email.remove(&email);
            }
        }
    }
}

/// The owner that [`Owner::text`] wrote.
pub fn of_text(text: &str) -> Owner {
    match text.strip_prefix("va:") {
        Some(name) => Owner { kind: OwnerKind::VirtualAccount, name: name.to_owned() },
        None => Owner { kind: OwnerKind::User, name: text.to_owned() },
    }
}

/// A TokenOwner that says nothing but whom it is about.
fn bare(subject: Owner) -> TokenOwnerSpec {
    TokenOwnerSpec {
        subject,
        display_name: None,
        email: None,
        first_name: None,
        last_name: None,
        company: None,
        groups: Vec::new(),
        roles: Vec::new(),
        role: None,
        disabled: None,
        two_factor_enabled: None,
        google_sso_enabled: None,
        last_login_at: None,
        last_seen_at: None,
        allow_customer_portal_access: None,
        organization_id: None,
        organization: None,
        reseller_id: None,
        reseller: None,
        metadata: Vec::new(),
        tags: Vec::new(),
        email_preference: None,
    }
}
