//! The status of a `PersonalAccessToken`. `kubectl explain` prints the doc comments.
//!
//! Everyone who may read the object may read its status, so it holds hashes of tokens and never a token.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Condition, Owner, Parsed, RemoteFacts, Time};
use crate::token::{TokenHash, TokenId};

/// Observed state of a token. The verifier writes `lastUsedAt` and `usage`; the controller writes everything else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersonalAccessTokenStatus {
    /// The metadata.generation that the controller last processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions of the token: Ready, which is always present, and Reconciling, Stalled, InGracePeriod, ExpiringSoon,
    /// ExpiryNotEnforced, RevocationIncomplete and SecretNotCleared, which are present while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The owner of the token, with defaults applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "status_owner_schema")]
    pub owner: Option<Owner>,

    /// Name of the Secret that holds the token. With delivery: Once, it is set only until the token is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub secret_name: Option<String>,

    /// With delivery: Once, the delivery state of the newest token. Absent until the first token is issued, and after
    /// spec.revoked until the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryState>,

    /// Number of tokens issued so far, including the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub revision: Option<i64>,

    /// When the first token was issued. `expiry.after` counts from this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_issued_at: Option<Time>,

    /// When the newest token that reached the Secret was issued. It stays set after that token expires or is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_issued_at: Option<Time>,

    /// Expiry from the default lifetime of the installation. Fixed when it is first applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_expires_at: Option<Time>,

    /// When the token expires, across all rotations. Absent if it never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,

    /// When the token is rotated next. Absent if no rotation is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_at: Option<Time>,

    /// When tokens were issued in the last hour because the Secret was damaged or deleted, or did not keep a token that
    /// was written to it. At most 3 are issued per hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub unplanned_mints: Vec<Time>,

    /// All live credentials, newest first: the active token, replaced tokens in their grace period, and a token that
    /// is being issued.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub credentials: Vec<Credential>,

    /// With an issuer of another system, all tokens there that are or may be live, newest first. No verifier of this
    /// operator accepts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub remote_credentials: Vec<Credential>,

    /// Times within the last day at which the controller found that its token had been revoked at the issuer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub revoked_remotely_at: Vec<Time>,

    /// When a verifier last accepted a token of this object, accurate to a few minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,

    /// When a verifier last accepted each credential, by credential ID, accurate to a few minutes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "usage_schema")]
    pub usage: BTreeMap<String, Time>,
}

impl PersonalAccessTokenStatus {
    /// Returns all recorded credentials, whatever system issued them.
    pub fn all_credentials(&self) -> impl Iterator<Item = &Credential> {
        self.credentials.iter().chain(&self.remote_credentials)
    }

    /// Returns the live ones of them.
    pub fn live(&self) -> impl Iterator<Item = &Credential> {
        self.all_credentials().filter(|credential| credential.state != CredentialState::Revoking)
    }
}

/// Delivery state of a token with `delivery: Once`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeliveryState {
    /// The Secret holds the token until it is taken.
    Waiting,
    /// The token was taken: its holder deleted the Secret.
    Delivered,
    /// The token was not taken in time and is revoked.
    NotDelivered,
}

/// One issued token, identified by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// Public ID: the first 12 characters after the underscore of the token.
    #[schemars(length(max = 12))]
    pub id: Parsed<TokenId>,
    /// Number of this credential, counted from 1 for the first token issued for this object.
    pub revision: i64,
    /// SHA-256 of the whole token, as 64 lower-case hexadecimal digits.
    #[schemars(length(max = 64))]
    pub sha256: Parsed<TokenHash>,
    /// State of the credential: Pending, Active, Grace or, at the issuer, Revoking.
    pub state: CredentialState,
    /// When the credential was issued.
    pub issued_at: Time,
    /// When the credential expires. Absent if it never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Details of a token of another system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Box<RemoteFacts>>,
}

/// State of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CredentialState {
    /// Verifiers accept the credential, but the Secret does not hold it yet.
    Pending,
    /// The Secret holds the credential.
    Active,
    /// The credential was replaced and stays valid until its grace period ends.
    Grace,
    /// A token of another system that has ended here and is being revoked there.
    Revoking,
}

impl CredentialState {
    /// Returns the name as it appears in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Active => "Active",
            Self::Grace => "Grace",
            Self::Revoking => "Revoking",
        }
    }
}

// Without the validation rules of the spec: an object must stay writable even if its status breaks a rule.
fn status_owner_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["kind", "name"],
        "properties": {
            "kind": {
                "type": "string",
                "enum": ["User", "VirtualAccount"],
                "description": "`User` for a person, `VirtualAccount` for a program.",
            },
            "name": {"type": "string", "maxLength": 512, "description": "Name of the owner."},
        },
    })
}

fn usage_schema(generator: &mut SchemaGenerator) -> Schema {
    let time = Time::json_schema(generator);
    json_schema!({"type": "object", "maxProperties": 16, "additionalProperties": time})
}
