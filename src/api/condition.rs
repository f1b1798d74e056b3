//! Condition types and reasons: API, listed once here and once in `docs/conditions.md`, which a test compares.
//!
//! It must not decide when a condition holds; that is the planner's.

use std::{borrow::Cow, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Visitor};

use super::Time;

/// One condition, as Kubernetes' API conventions define it
/// (<https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it speaks of.
    #[serde(rename = "type", deserialize_with = "word")]
    #[schemars(length(max = 64))]
    pub type_: Cow<'static, str>,
    /// `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "word")]
    #[schemars(length(max = 16))]
    pub status: Cow<'static, str>,
    /// Why, in one word.
    #[serde(deserialize_with = "word")]
    #[schemars(length(max = 64))]
    pub reason: Cow<'static, str>,
    /// Why, for people, with what to do next.
    #[schemars(length(max = 4096))]
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// The metadata.generation that the condition speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Reads a word; one that is known here takes no room of its own. Thousands of objects have the same few.
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
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name as it stands in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }

            /// What it means, in the words of the documentation.
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
    /// The condition types. All but `Ready` are abnormal-true: present while they hold, absent else.
    ConditionType {
        /// `True`: the Secret holds a token that works. `False`: it does not, or a person has to mend something. `Unknown`: the first token is on its way.
        Ready,
        /// The controller is at work and will go on by itself.
        Reconciling,
        /// A person should look: nothing goes on until something is changed, or until a time that the message names.
        Stalled,
        /// A replaced token still works beside the new one.
        InGracePeriod,
        /// The token will end soon and no rotation will save it.
        ExpiringSoon,
    }
}

names! {
    /// The reasons of conditions, and of the events that tell of them.
    Reason {
        /// The Secret holds a token that works.
        Issued,
        /// A token is being issued for the first time, or anew after all before it died.
        Issuing,
        /// The token has reached its end. A later `spec.expiry` issues a new one.
        Expired,
        /// `spec.revoked` is true, or the token that `delivery: Once` handed over has died: nothing that was issued last works any more.
        Revoked,
        /// With `delivery: Once`: the token was not taken within 10 minutes, or could not be any more, or its arrival was not acknowledged, and it is dead. None is issued by itself.
        NotDelivered,
        /// `spec.suspend` is true: nothing is issued or rotated.
        Suspended,
        /// The Secret's name is taken by something that is not this object's. It is never touched.
        SecretConflict,
        /// The spec asks for something that cannot be done; the message names the field.
        InvalidSpec,
        /// Something keeps damaging the Secret: 3 tokens had to be issued within an hour, and no more are until the hour has passed.
        MintLoop,
        /// 8 credentials are live; another is issued only when one has ended.
        TooManyLive,
        /// The namespace is being deleted and takes no new Secret.
        NamespaceTerminating,
        /// The API server refused a write; the message says why, and it is tried again.
        ApiError,
        /// The end of the token is within 7 days, or the last fifth of its life if that is less.
        ExpiryNear,
        /// A replaced credential is live; the message says until when.
        PreviousCredentialLive,
    }
}

impl Condition {
    /// `True`, and nothing else.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}
