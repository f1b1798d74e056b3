//! One token as the REST API knows it: everything that any dialect shows, read once, when it enters the store.
//!
//! It must not know how a dialect writes it.

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{
        Credential, LengthOfTime, NotificationTarget, Owner, OwnerKind, Permission, PersonalAccessTokenStatus,
        StoredPat, Time,
    },
    auth::verdict::Terms,
    index::PatUid,
    token::TokenId,
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Item {
    /// The PAT's uid: the `id` and `client_id` of every dialect, as 32 hexadecimal digits. The same over rotations.
    pub id: PatUid,
    /// The object's name.
    pub name: String,
    /// The version that a change must be based on.
    pub resource_version: String,
    /// metadata.generation: goes up with every change of the spec.
    pub generation: i64,
    /// The name that people see: `spec.displayName`, else the object's.
    pub display_name: String,
    /// `spec.description`.
    pub description: Option<String>,
    /// Whose it is; the default filled in.
    pub owner: Owner,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Who may accept it.
    pub audiences: Vec<String>,
    /// When the object was created.
    pub created_at: Time,
    /// When anything of it but a last use was last changed: the newest time in managedFields.
    pub updated_at: Time,
    /// When a verifier last let it in.
    pub last_used_at: Option<Time>,
    /// When its first credential was issued; `status.firstIssuedAt`.
    pub first_issued_at: Option<Time>,
    /// When its newest credential was issued, also while none is live any more.
    pub last_issued_at: Option<Time>,
    /// When it will be replaced next; `status.nextRotationAt`.
    pub next_rotation_at: Option<Time>,
    /// `spec.revoked`.
    pub revoked: bool,
    /// `spec.suspend`: nothing is issued.
    pub suspended: bool,
    /// `spec.managed`.
    pub managed: bool,
    /// `spec.accessTokenValidity`: how long an access token that it is exchanged for lives; `None` if it says nothing.
    pub access_token_validity: Option<SignedDuration>,
    /// `spec.permissions`.
    pub permissions: Vec<Permission>,
    /// `spec.rotation.interval`.
    pub rotation_interval: Option<SignedDuration>,
    /// `spec.gracePeriod`.
    pub grace_period: Option<SignedDuration>,
    /// `spec.notificationTarget`.
    pub notification_target: Option<NotificationTarget>,
    /// The Secret that holds the token, if there is one for good.
    pub secret_name: Option<String>,
    /// Whether it is delivered once and kept nowhere.
    pub once: bool,
    /// The Secret that the token is put into, whether or not it stays; `None` until the controller has said so.
    pub secret: Option<String>,
    /// `spec.revokedCredentials`.
    pub revoked_credentials: Vec<String>,
    /// The live credentials, newest first.
    pub credentials: Vec<ItemCredential>,
    /// How long it may live, for the verdict.
    pub terms: Terms,
}

/// One live credential of it.
#[derive(Clone, Debug)]
pub struct ItemCredential {
    /// Its id, which may be told.
    pub id: TokenId,
    /// When it was issued.
    pub issued_at: Time,
    /// When it ends by itself; the whole token may end earlier.
    pub expires_at: Option<Time>,
}

impl Item {
    /// Reads a stored object; `None` if something in it cannot be read, or it is being deleted: then it is not there for anybody.
    pub fn read(stored: &StoredPat) -> Option<Self> {
        let (Ok(spec), Ok(status)) = (&stored.spec, &stored.status) else { return None };
        if stored.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let created_at: Time = stored.metadata.creation_timestamp.as_ref().map(|time| time.0.into())?;
        let length = |text: &LengthOfTime| text.parse().ok();
        let secret = spec.secret.as_deref();
        let once = secret.is_some_and(|secret| secret.delivery.is_some());
        let credential = |one: &Credential| {
            let (id, issued_at, expires_at) = (*one.id.value()?, one.issued_at, one.expires_at);
            Some(ItemCredential { id, issued_at, expires_at })
        };
        let own =
            || Owner { kind: OwnerKind::VirtualAccount, name: format!("{}/{}", stored.namespace(), stored.name()) };
        Some(Self {
            id: stored.uid().parse().ok()?,
            name: stored.name().to_owned(),
            resource_version: stored.resource_version().to_owned(),
            generation: stored.metadata.generation.unwrap_or_default(),
            display_name: spec.display_name.clone().unwrap_or_else(|| stored.name().to_owned()),
            description: spec.description.clone(),
            owner: spec.owner.clone().unwrap_or_else(own),
            scopes: spec.scopes.clone(),
            audiences: spec.audiences.clone(),
            created_at,
            updated_at: stored.updated_at.unwrap_or(created_at),
            last_used_at: status.last_used_at,
            first_issued_at: status.first_issued_at,
            last_issued_at: status.last_issued_at.or_else(|| newest(status)),
            next_rotation_at: status.next_rotation_at,
            revoked: spec.revoked.unwrap_or_default(),
            suspended: spec.suspend.unwrap_or_default(),
            managed: spec.managed.unwrap_or_default(),
            access_token_validity: spec.access_token_validity.as_ref().and_then(length),
            permissions: spec.permissions.clone(),
            rotation_interval: spec.rotation.as_ref().and_then(|rotation| length(&rotation.interval)),
            grace_period: spec.grace_period.as_ref().and_then(length),
            notification_target: spec.notification_target.as_deref().cloned(),
            secret_name: status.secret_name.clone().filter(|_| !once),
            once,
            secret: status.secret_name.clone(),
            revoked_credentials: spec.revoked_credentials.clone(),
            credentials: status.credentials.iter().filter_map(credential).collect(),
            terms: Terms::read(spec, status, false).ok()?,
        })
    }

    /// The end of the whole token.
    pub fn expires_at(&self) -> Option<Time> {
        self.terms.end()
    }

    /// Whether it is past its end.
    pub fn is_expired(&self, now: Time) -> bool {
        self.terms.expired(now)
    }
}

fn newest(status: &PersonalAccessTokenStatus) -> Option<Time> {
    status.credentials.iter().map(|one| one.issued_at).max()
}
