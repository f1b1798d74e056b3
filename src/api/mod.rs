//! The API types: what a person writes, what the controller answers, and the one pure judgement on a credential.
//!
//! Everything here is data and arithmetic on it. It must not know a Kubernetes client, a clock or any other module of this
//! crate but what names a token: its id and its hash.

pub mod claims;
pub mod condition;
pub mod crd;
pub mod duration;
pub mod invalid;
pub mod owner;
pub mod parsed;
pub mod spec;
pub mod status;
pub mod stored;
pub mod time;

pub use claims::{NotificationTarget, NotificationType, Permission};
pub use condition::{Condition, ConditionType, Reason};
pub use duration::{InvalidDuration, LengthOfTime};
pub use invalid::InvalidField;
pub use owner::{Address, EmailPreference, Organization, OwnerMetadata, Reseller, TokenOwner, TokenOwnerSpec};
pub use parsed::Parsed;
pub use spec::{
    Expiry, Owner, OwnerKind, PersonalAccessToken, PersonalAccessTokenSpec, Preset, Rotation, SecretDelivery,
    SecretSpec, SecretTemplate,
};
pub use status::{Credential, CredentialState, DeliveryState, PersonalAccessTokenStatus};
pub use stored::{StoredOwner, StoredPat};
pub use time::Time;

/// The API group of everything this project defines, and the prefix of its annotations.
pub const GROUP: &str = "pat-operator.io";

/// The served and stored version of the group.
pub const VERSION: &str = "v1alpha1";

/// The field manager of everything the controller writes
/// (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers>).
pub const FIELD_MANAGER: &str = "pat-operator";

/// The field manager of what the verifier writes: when tokens were last used, and nothing else.
pub const VERIFIER_FIELD_MANAGER: &str = "pat-operator-verifier";

/// The prefix of labels and annotations that only the controller may set.
pub const RESERVED_PREFIX: &str = "pat-operator.io/";

/// The annotation of a `PersonalAccessToken` with `delivery: Once` by which whoever takes a token for somebody else says whose arrival is
/// still to be acknowledged: the id of a credential. As long as it stands, the absent Secret alone is no receipt, and the credential dies
/// with its 10 minutes. It is set before the Secret is deleted, and removed once the token has gone out.
pub const UNACKNOWLEDGED: &str = "pat-operator.io/unacknowledged";

/// The recommended label that says which program manages an object
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>); Secrets are watched by it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY_LABEL`] on every Secret of ours.
pub const MANAGED_BY: &str = "pat-operator";

/// The largest number of live credentials that one token may have.
pub const MAX_LIVE_CREDENTIALS: usize = 8;
