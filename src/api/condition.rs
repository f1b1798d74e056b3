//! Condition types and reasons. They are part of the API; a test compares them with `docs/conditions.md`.
//!
//! The planner decides when a condition holds.

use std::{borrow::Cow, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Visitor};

use super::Time;

/// One condition, as defined by the Kubernetes API conventions
/// (<https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition.
    #[serde(rename = "type", deserialize_with = "word")]
    #[schemars(length(max = 64))]
    pub type_: Cow<'static, str>,
    /// `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "word")]
    #[schemars(length(max = 16))]
    pub status: Cow<'static, str>,
    /// Reason for the status, as one word in CamelCase.
    #[serde(deserialize_with = "word")]
    #[schemars(length(max = 64))]
    pub reason: Cow<'static, str>,
    /// Explanation for people, with what to do next.
    #[schemars(length(max = 4096))]
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// The metadata.generation that the condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Reads a word. Well-known words are borrowed, because thousands of objects repeat the same few.
fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'static, str>, D::Error> {
    struct Word;

    impl Visitor<'_> for Word {
        type Value = Cow<'static, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E>(self, word: &str) -> Result<Self::Value, E> {
            let types = ConditionType::ALL.iter().map(|type_| type_.as_str());
            let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
            let mut known = ["True", "False", "Unknown"].into_iter().chain(types).chain(reasons);
            Ok(known.find(|known| *known == word).map_or_else(|| word.to_owned().into(), Cow::Borrowed))
        }
    }

    deserializer.deserialize_str(Word)
}

macro_rules! names {
    ($(#[$about:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $doc])+ $variant),+ }

        impl $name {
            /// All values, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the name that the API uses.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }

            /// Returns the meaning, as the documentation states it.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names! {
    /// The condition types. `Ready` is always present; all others have abnormal-true polarity and are present only while true.
    ConditionType {
        /// `True`: the Secret holds a valid token. `False`: it does not, or verifiers refuse the token, or a person must fix something. `Unknown`: the first token is being issued.
        Ready,
        /// The controller is working towards the desired state and continues without help.
        Reconciling,
        /// A person must act: nothing happens until something is changed, or until a time that the message states.
        Stalled,
        /// A replaced token is still valid alongside the new one.
        InGracePeriod,
        /// The token expires soon, and no rotation is planned before that.
        ExpiringSoon,
        /// Tokens of the issuer have no expiry: the token works there until the controller revokes it.
        ExpiryNotEnforced,
        /// `spec.revokeIfIssuedBefore` has taken effect, but a credential that it may have been meant for is still valid.
        RevocationIncomplete,
        /// The Secret still holds a token that is no longer valid, because it could not be removed. Verifiers refuse the token.
        SecretNotCleared,
    }
}

names! {
    /// The reasons of conditions and of the related events.
    Reason {
        /// The Secret holds a valid token.
        Issued,
        /// A token is being issued: the first one, or a new one because none is valid any more.
        Issuing,
        /// The token has expired. A later `spec.expiry` issues a new one.
        Expired,
        /// `spec.revoked` is true, or the token that was delivered with `delivery: Once` is revoked or expired. The token issued last is not valid.
        Revoked,
        /// With `delivery: Once`: the token was not taken within 10 minutes, could not be taken, or was not acknowledged, and is revoked. No new token is issued automatically.
        NotDelivered,
        /// `spec.suspend` is true: no token is issued or rotated.
        Suspended,
        /// A TokenOwner with `spec.disabled` disables the owner, so verifiers refuse the token. It is valid again once the owner is enabled.
        OwnerDisabled,
        /// A Secret with this name exists and does not belong to this object, or an older PersonalAccessToken claims the name. The operator never changes that Secret.
        SecretConflict,
        /// The spec is invalid; the message names the field.
        InvalidSpec,
        /// The Secret is damaged or deleted repeatedly: 3 tokens were issued within an hour to repair it, and no more are issued until the hour has passed.
        MintLoop,
        /// The Secret does not keep what the controller writes: an admission policy, a webhook or another client changes it each time. The message says what differs. The controller tries again, with a delay of up to 5 minutes.
        SecretAltered,
        /// The Secret is immutable, so Kubernetes refuses every change of its data. Delete it: the controller creates it again with a new token. Once its token is no longer valid, the controller deletes it.
        SecretImmutable,
        /// 8 credentials are live; another is issued only after one of them expires.
        TooManyLive,
        /// The namespace is being deleted, so no Secret can be created in it.
        NamespaceTerminating,
        /// The clocks of the controller and the API server differ by more than 5 minutes: no token is issued. The controller checks again every minute.
        ClockSkew,
        /// The API server rejected a write; the message says why. The controller retries.
        ApiError,
        /// The issuer does not exist, cannot be used, or cannot list the tokens of the target; the message says what to fix. Issued tokens work until they expire, and are not rotated.
        IssuerNotReady,
        /// A call to the issuer failed; the message says why. The controller retries.
        IssuerUnavailable,
        /// The policy of the issuer does not permit the token. A token issued before works until it expires, and is not rotated.
        IssuerPolicy,
        /// The token was revoked at the issuer twice within a day, so no other is issued until 24 hours after the first revocation. `spec.rotateIfIssuedBefore` issues one earlier.
        RevokedRemotely,
        /// The tokens are revoked, expired or no longer wanted, and the controller is revoking them at the issuer. They may work until the revocation is confirmed.
        Revoking,
        /// Tokens of this system have no expiry. The controller revokes them when they end.
        RemoteExpiryUnknown,
        /// The token expires within 7 days, or within the last fifth of its lifetime if that is shorter.
        ExpiryNear,
        /// A replaced credential is still valid; the message says until when.
        PreviousCredentialLive,
        /// `issuedAt` of a live credential lies in the future, so `spec.revokeIfIssuedBefore` spares it. `spec.revokedCredentials` revokes it.
        IssuedInFuture,
    }
}

impl Condition {
    /// Returns the condition that follows the present ones: `lastTransitionTime` changes only with the status of a condition.
    #[must_use]
    pub fn following(self, present: &[Self]) -> Self {
        let before = present.iter().find(|before| before.type_ == self.type_ && before.status == self.status);
        let last_transition_time = before.map_or(self.last_transition_time, |before| before.last_transition_time);
        Self { last_transition_time, ..self }
    }

    /// Reports whether the status is `True`.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}
