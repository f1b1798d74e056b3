//! A spec, read once: defaults filled in, texts parsed. What comes after cannot fail for these reasons any more.
//!
//! It must not look at anything but the object and the installation's settings.

use k8s_openapi::jiff::SignedDuration;

use crate::secret::Layout;
use crate::{
    api::{InvalidField, Owner, OwnerKind, PersonalAccessTokenSpec, SecretDelivery, StoredPat, Time},
    auth::verdict::Terms,
    token::TokenPrefix,
};

/// What the installation decides, from flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The lifetime of a token whose spec names no expiry and no rotation.
    pub default_lifetime: SignedDuration,
    /// How long a hash is published before a rotation puts its token into the Secret.
    pub publish_lead: SignedDuration,
    /// Secrets of a backup are adopted by a PAT with another uid if their credentials were issued before this time.
    pub restore_issued_before: Option<Time>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_lifetime: SignedDuration::from_hours(90 * 24),
            publish_lead: SignedDuration::from_secs(2),
            restore_issued_before: None,
        }
    }
}

/// What a person wants of one token.
#[derive(Debug)]
pub struct Intent {
    /// Whom the token speaks for.
    pub owner: Owner,
    /// What its text starts with.
    pub prefix: TokenPrefix,
    /// The interval of rotation.
    pub rotation: Option<SignedDuration>,
    /// How long a replaced credential lives on.
    pub grace: SignedDuration,
    /// Replace what was issued before.
    pub rotate_if_issued_before: Option<Time>,
    /// The token is handed over once: whoever takes it deletes the Secret.
    pub once: bool,
    /// Mint and rotate nothing.
    pub suspended: bool,
    /// `spec.revoked`.
    pub revoked: bool,
    /// Kill what was issued before.
    pub revoke_if_issued_before: Option<Time>,
    /// What decides over the life of all credentials.
    pub terms: Terms,
    /// How the Secret looks; an error here never touches the life of the token.
    pub layout: Result<Layout, InvalidField>,
}

impl Intent {
    /// Reads the spec of an object together with the status it has.
    ///
    /// # Errors
    /// The first field that cannot be followed, and what would be right.
    pub fn read(
        pat: &StoredPat,
        spec: &PersonalAccessTokenSpec,
        status: &crate::api::PersonalAccessTokenStatus,
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
                "Once excludes spec.rotation: leave one of them out",
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
            terms,
            layout,
        })
    }
}

/// One day, or half of the interval if that is less.
fn default_grace(rotation: Option<SignedDuration>) -> SignedDuration {
    let day = SignedDuration::from_hours(24);
    rotation.map_or(day, |interval| day.min(interval / 2))
}

/// The owner that a spec names, or the virtual account that every object has.
pub fn owner(pat: &StoredPat, spec: &PersonalAccessTokenSpec) -> Owner {
    spec.owner.clone().unwrap_or_else(|| Owner {
        kind: OwnerKind::VirtualAccount,
        name: format!("{}/{}", pat.namespace(), pat.name()),
    })
}

/// The name of the Secret that a spec asks for.
pub fn secret_name<'a>(pat: &'a StoredPat, spec: &'a PersonalAccessTokenSpec) -> &'a str {
    spec.secret.as_ref().and_then(|secret| secret.name.as_deref()).unwrap_or_else(|| pat.name())
}
