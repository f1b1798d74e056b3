//! The API types: the custom resources, their conditions, durations and times.
//!
//! Everything here is data and arithmetic on data: no I/O and no clock. To add a field, edit `spec.rs`, `status.rs` or
//! `owner.rs` and run `make generate`; to add a condition type or reason, edit `condition.rs`.

pub mod claims;
pub mod condition;
pub mod crd;
pub mod duration;
pub mod invalid;
pub mod issuer;
pub mod owner;
pub mod parsed;
pub mod remote;
pub mod spec;
pub mod status;
pub mod stored;
pub mod time;

pub use claims::{NotificationTarget, NotificationType, Permission};
pub use condition::{Condition, ConditionType, Reason};
pub use duration::{InvalidDuration, LengthOfTime};
pub use invalid::InvalidField;
pub use issuer::{
    ClusterTokenIssuer, ClusterTokenIssuerSpec, ISSUER_AUTH_TYPE, IssuerAuth, IssuerLimits, IssuerPolicy, IssuerStatus,
    IssuerSystem, LocalIssuer, ObjectName, PolicyRule, RemoteSystem, TokenIssuer, TokenIssuerSpec,
};
pub use owner::{Address, EmailPreference, Organization, OwnerMetadata, Reseller, TokenOwner, TokenOwnerSpec};
pub use parsed::Parsed;
pub use remote::{
    ArgoCdTarget, DeletionPolicy, GitLabAccessLevel, GitLabTarget, IssuerKind, IssuerReference, RemoteFacts,
    RemoteTarget, TrueFoundryTarget, TrueFoundryTokenType,
};
pub use spec::{
    Expiry, Owner, OwnerKind, ParentToken, PersonalAccessToken, PersonalAccessTokenSpec, Preset, Rotation,
    SecretDelivery, SecretSpec, SecretTemplate, with_revoked,
};
pub use status::{Credential, CredentialState, DeliveryState, PersonalAccessTokenStatus};
pub use stored::{StoredClusterTokenIssuer, StoredIssuer, StoredOwner, StoredPat, StoredTokenIssuer};
pub use time::Time;

/// API group of all resources of this project, and the prefix of its annotations.
pub const GROUP: &str = "pat-operator.io";

/// Served and stored version of the API group.
pub const VERSION: &str = "v1alpha1";

/// Field manager of all writes of the controller
/// (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers>).
pub const FIELD_MANAGER: &str = "pat-operator";

/// Field manager of the verifier, which writes only when tokens were last used.
pub const VERIFIER_FIELD_MANAGER: &str = "pat-operator-verifier";

/// Prefix of labels and annotations that only the controller may set.
pub const RESERVED_PREFIX: &str = "pat-operator.io/";

/// Annotation of a `PersonalAccessToken` with `delivery: Once`: the ID of a credential whose receipt is not acknowledged yet.
///
/// A program that takes a token on behalf of a client sets it before it deletes the Secret, and removes it once the client has
/// the token. While it is set, a missing Secret does not acknowledge receipt, and the credential is revoked after 10 minutes.
pub const UNACKNOWLEDGED: &str = "pat-operator.io/unacknowledged";

/// Finalizer of a `PersonalAccessToken` with tokens of another system: the object stays until they are revoked there. A TokenIssuer has it
/// while tokens use it.
pub const REMOTE_TOKENS: &str = "pat-operator.io/remote-tokens";

/// Finalizer of an issuer: the operator removes it when no PersonalAccessToken has tokens of the issuer.
pub const ISSUER_PROTECTION: &str = "pat-operator.io/issuer-protection";

/// Recommended label that names the program that manages an object
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>).
/// The controller watches Secrets by it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Value of [`MANAGED_BY_LABEL`] on every Secret of this operator.
pub const MANAGED_BY: &str = "pat-operator";

/// Maximum number of live credentials per `PersonalAccessToken`.
pub const MAX_LIVE_CREDENTIALS: usize = 8;
