//! The spec of one token, with defaults filled in and texts parsed, so that later stages cannot fail on it.

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{
        InvalidField, Owner, OwnerKind, PersonalAccessTokenSpec, PersonalAccessTokenStatus, SecretDelivery, StoredPat,
        Time,
    },
    auth::verdict::Terms,
    secret::Layout,
    token::TokenPrefix,
};

/// The part of the controller's configuration that plans and their events depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerConfig {
    /// The lifetime of a token whose spec has neither `expiry` nor `rotation`.
    pub default_lifetime: SignedDuration,
    /// How long a hash is published before a rotation writes its token into the Secret.
    pub publish_lead: SignedDuration,
    /// After a restore, a PAT takes over Secrets that a PAT with another uid wrote, if their credentials were issued before this time.
    pub restore_issued_before: Option<Time>,
    /// Whether to publish events that are routine (`EventReason::is_routine`).
    pub issue_events: bool,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            default_lifetime: SignedDuration::from_hours(90 * 24),
            publish_lead: SignedDuration::from_secs(2),
            restore_issued_before: None,
            issue_events: false,
        }
    }
}

/// The desired state that a spec describes.
#[derive(Debug)]
pub struct Intent {
    /// The owner of the token.
    pub owner: Owner,
    /// The prefix of the token.
    pub prefix: TokenPrefix,
    /// The interval of rotation.
    pub rotation: Option<SignedDuration>,
    /// How long a replaced credential stays valid.
    pub grace: SignedDuration,
    /// Credentials issued before this time are replaced.
    pub rotate_if_issued_before: Option<Time>,
    /// `delivery: Once`: the holder takes the token and deletes the Secret.
    pub once: bool,
    /// `spec.suspend`: no token is minted or rotated.
    pub suspended: bool,
    /// `spec.revoked`.
    pub revoked: bool,
    /// Credentials issued before this time are revoked.
    pub revoke_if_issued_before: Option<Time>,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// The hash of the parameters of a token of another system.
    pub remote_parameters: Option<String>,
    /// The terms of validity of the credentials.
    pub terms: Terms,
    /// The layout of the Secret. An error here does not end a token.
    pub layout: Result<Layout, InvalidField>,
}

impl Intent {
    /// Reads the spec of an object; relative times count from what its status records.
    ///
    /// # Errors
    /// The first invalid field, and what to write instead.
    pub fn read(
        pat: &StoredPat,
        spec: &PersonalAccessTokenSpec,
        status: &PersonalAccessTokenStatus,
    ) -> Result<Self, InvalidField> {
        let owner = owner(pat, spec);
        let rotation = match &spec.rotation {
            Some(rotation) => Some(
                rotation
                    .interval
                    .parse()
                    .map_err(|error| InvalidField::new("spec.rotation.interval", error.to_string()))?,
            ),
            None => None,
        };
        let once = spec.secret.as_ref().is_some_and(|secret| secret.delivery == Some(SecretDelivery::Once));
        if once && rotation.is_some() {
            return Err(InvalidField::new(
                "spec.secret.delivery",
                "Once excludes spec.rotation: set only one of the two",
            ));
        }
        let grace = match &spec.grace_period {
            Some(grace) => grace.parse().map_err(|error| InvalidField::new("spec.gracePeriod", error.to_string()))?,
            None => default_grace(rotation),
        };
        let prefix = match &spec.token_prefix {
            Some(prefix) => {
                prefix.parse().map_err(|error| InvalidField::new("spec.tokenPrefix", format!("{error}")))?
            }
            None => TokenPrefix::default(),
        };
        let terms = Terms::read(spec, status, pat.metadata.deletion_timestamp.is_some())
            .map_err(|error| InvalidField::new("spec.expiry.after", error.to_string()))?;
        let layout = Layout::read(pat.namespace(), pat.name(), &owner.text(), spec);
        Ok(Self {
            owner,
            prefix,
            rotation,
            grace,
            rotate_if_issued_before: spec.rotate_if_issued_before,
            once,
            suspended: spec.suspend.unwrap_or_default(),
            revoked: spec.revoked.unwrap_or_default(),
            revoke_if_issued_before: spec.revoke_if_issued_before,
            deleting: pat.metadata.deletion_timestamp.is_some(),
            remote_parameters: None,
            terms,
            layout,
        })
    }

    /// Whether there should be a token.
    pub(super) fn wants_token(&self, now: Time) -> bool {
        !self.revoked && !self.deleting && !self.terms.expired(now)
    }
}

/// Returns the default grace period: one day, or half of the interval if that is shorter.
fn default_grace(rotation: Option<SignedDuration>) -> SignedDuration {
    let day = SignedDuration::from_hours(24);
    rotation.map_or(day, |interval| day.min(interval / 2))
}

/// Returns the owner in a spec; by default the virtual account of the object.
pub fn owner(pat: &StoredPat, spec: &PersonalAccessTokenSpec) -> Owner {
    spec.owner.clone().unwrap_or_else(|| Owner {
        kind: OwnerKind::VirtualAccount,
        name: format!("{}/{}", pat.namespace(), pat.name()),
    })
}

/// Returns the name of the Secret according to a spec.
pub fn secret_name<'a>(pat: &'a StoredPat, spec: &'a PersonalAccessTokenSpec) -> &'a str {
    spec.secret.as_ref().and_then(|secret| secret.name.as_deref()).unwrap_or_else(|| pat.name())
}
