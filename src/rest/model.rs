//! The model that all dialects share: a token, requests to create or change one, and a newly issued token.

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;

use super::response::DeliveryReceipt;
use crate::{
    api::{
        Credential, Expiry, LengthOfTime, NotificationTarget, Owner, OwnerKind, Permission, PersonalAccessTokenStatus,
        StoredPat, Time, with_revoked,
    },
    auth::verdict::Terms,
    index::PatUid,
    token::{Token, TokenId, TokenPrefix},
};

/// A token with everything that any dialect shows, parsed once when it enters the store.
#[derive(Clone, Debug)]
pub struct TokenItem {
    /// The PAT's uid: `id` and `client_id` in every dialect, as 32 hexadecimal digits. Rotations do not change it.
    pub id: PatUid,
    /// The object's name.
    pub name: String,
    /// The version that a change must be based on.
    pub resource_version: String,
    /// `metadata.generation`: grows with every change of the spec.
    pub generation: i64,
    /// `spec.displayName`, or the object's name.
    pub display_name: String,
    /// `spec.description`.
    pub description: Option<String>,
    /// `spec.owner`, or the default.
    pub owner: Owner,
    /// `spec.scopes`.
    pub scopes: Vec<String>,
    /// `spec.audiences`.
    pub audiences: Vec<String>,
    /// The time of the object's creation.
    pub created_at: Time,
    /// The time of the last change other than a use: the newest time in `managedFields`.
    pub updated_at: Time,
    /// The time of the last use.
    pub last_used_at: Option<Time>,
    /// `status.firstIssuedAt`.
    pub first_issued_at: Option<Time>,
    /// When the newest credential was issued, even if none is live any more.
    pub last_issued_at: Option<Time>,
    /// `status.nextRotationAt`.
    pub next_rotation_at: Option<Time>,
    /// `spec.revoked`.
    pub revoked: bool,
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.managed`.
    pub managed: bool,
    /// `spec.accessTokenValidity`: the lifetime of access tokens.
    pub access_token_validity: Option<SignedDuration>,
    /// `spec.permissions`.
    pub permissions: Vec<Permission>,
    /// `spec.rotation.interval`.
    pub rotation_interval: Option<SignedDuration>,
    /// `spec.gracePeriod`.
    pub grace_period: Option<SignedDuration>,
    /// `spec.notificationTarget`.
    pub notification_target: Option<NotificationTarget>,
    /// The Secret that permanently holds the token, if any.
    pub secret_name: Option<String>,
    /// Whether the token is delivered once and then stored nowhere.
    pub once: bool,
    /// The Secret that the token is written to, permanent or not; `None` until the controller has set it.
    pub secret: Option<String>,
    /// `spec.revokedCredentials`.
    pub revoked_credentials: Vec<String>,
    /// The uid in `spec.parent`.
    pub parent: Option<PatUid>,
    /// The live credentials, newest first.
    pub credentials: Vec<TokenItemCredential>,
    /// What the verdict needs.
    pub terms: Terms,
}

/// A live credential of a [`TokenItem`].
#[derive(Clone, Debug)]
pub struct TokenItemCredential {
    /// Its public id.
    pub id: TokenId,
    /// When it was issued.
    pub issued_at: Time,
    /// When it expires; the whole token may expire earlier.
    pub expires_at: Option<Time>,
}

impl TokenItem {
    /// Parses a stored object. Returns `None` if it is malformed or being deleted.
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
            Some(TokenItemCredential { id, issued_at, expires_at })
        };
        let default_owner =
            || Owner { kind: OwnerKind::VirtualAccount, name: format!("{}/{}", stored.namespace(), stored.name()) };
        Some(Self {
            id: stored.uid().parse().ok()?,
            name: stored.name().to_owned(),
            resource_version: stored.resource_version().to_owned(),
            generation: stored.metadata.generation.unwrap_or_default(),
            display_name: spec.display_name.clone().unwrap_or_else(|| stored.name().to_owned()),
            description: spec.description.clone(),
            owner: spec.owner.clone().unwrap_or_else(default_owner),
            scopes: spec.scopes.clone(),
            audiences: spec.audiences.clone(),
            created_at,
            updated_at: stored.updated_at.unwrap_or(created_at),
            last_used_at: status.last_used_at,
            first_issued_at: status.first_issued_at,
            last_issued_at: status.last_issued_at.or_else(|| newest_issue(status)),
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
            parent: spec.parent.as_ref().and_then(|parent| parent.uid.parse().ok()),
            credentials: status.credentials.iter().filter_map(credential).collect(),
            terms: Terms::read(spec, status, false).ok()?,
        })
    }

    /// Returns `spec.revokedCredentials` with more IDs of live credentials.
    pub fn with_revoked<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let is_live = |id: &str| self.credentials.iter().any(|live| live.id.as_str() == id);
        with_revoked(&self.revoked_credentials, more, is_live)
    }

    /// Returns the expiry of the whole token.
    pub fn expires_at(&self) -> Option<Time> {
        self.terms.end()
    }

    /// Returns the time of the last rotation. The first issue is not a rotation.
    pub fn last_rotated_at(&self) -> Option<Time> {
        self.last_issued_at.filter(|last| self.first_issued_at.is_some_and(|first| first < *last))
    }

    /// Whether the token has expired.
    pub fn is_expired(&self, now: Time) -> bool {
        self.terms.expired(now)
    }
}

fn newest_issue(status: &PersonalAccessTokenStatus) -> Option<Time> {
    status.credentials.iter().map(|one| one.issued_at).max()
}

/// A request to create a token.
#[derive(Clone, Debug)]
pub struct CreateToken {
    /// The owner.
    pub owner: Owner,
    /// The display name, unique among the owner's tokens.
    pub display_name: String,
    /// The description.
    pub description: Option<String>,
    /// The scopes. The service refuses those that the caller does not have.
    pub scopes: Vec<String>,
    /// The expiry. Dialects always set it.
    pub expiry: Expiry,
    /// The lifetime of access tokens.
    pub access_token_validity: Option<SignedDuration>,
    /// Permissions that the product stores with the token.
    pub permissions: Vec<Permission>,
    /// The prefix of the token; `None` for the default.
    pub token_prefix: Option<TokenPrefix>,
}

/// A newly issued token, which cannot be read again. It is taken back unless its receipt is confirmed.
#[derive(Debug)]
pub struct IssuedToken {
    /// The PAT.
    pub item: Arc<TokenItem>,
    /// The token, zeroed on drop.
    pub token: Token,
    /// To be confirmed when the token is delivered.
    pub receipt: DeliveryReceipt,
    /// When the token ends, if this is earlier than requested, or than before: it must not outlive the caller's PAT.
    pub limited_to: Option<Time>,
}

/// A request to change a token; `None` leaves a field unchanged. Errors name the resource's fields, and dialects translate them.
#[derive(Clone, Debug, Default)]
pub struct ChangeToken {
    /// `spec.displayName`.
    pub display_name: Option<String>,
    /// `spec.scopes`.
    pub scopes: Option<Vec<String>>,
    /// `spec.expiry`.
    pub expiry: Option<Expiry>,
    /// `spec.accessTokenValidity`; `Some(None)` removes it.
    pub access_token_validity: Option<Option<SignedDuration>>,
    /// `spec.revoked`.
    pub revoked: Option<bool>,
    /// An id to add to `spec.revokedCredentials`.
    pub revoke_credential: Option<TokenId>,
    /// `spec.revokeIfIssuedBefore`.
    pub revoke_if_issued_before: Option<Time>,
}
