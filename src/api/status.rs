//! What the controller answers: the status of a `PersonalAccessToken`.
//!
//! Everything here may be read by anybody who may read the object: no token, only hashes.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Condition, Owner, Parsed, Time};
use crate::token::{TokenHash, TokenId};

/// What is known of a token. Conditions and all else come from the controller; `lastUsedAt` and `usage` from the verifier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersonalAccessTokenStatus {
    /// The metadata.generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, and while they are true: Reconciling, Stalled, InGracePeriod, ExpiringSoon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Whom the token speaks for, defaults filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "status_owner_schema")]
    pub owner: Option<Owner>,

    /// The Secret that holds the token. With delivery: Once it is told only until the token is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub secret_name: Option<String>,

    /// With delivery: Once: what became of the newest token. Absent while none has been issued yet, or none since spec.revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryState>,

    /// How many tokens have been issued, the present one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub revision: Option<i64>,

    /// When the first token was issued; `expiry.after` counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_issued_at: Option<Time>,

    /// When the newest token that anybody could get was issued, also while none is live any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_issued_at: Option<Time>,

    /// The end that the installation's default lifetime gave; fixed when it was first needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_expires_at: Option<Time>,

    /// The end of the whole token; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,

    /// When the token will be replaced next; absent if it will not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_at: Option<Time>,

    /// When tokens had to be issued because somebody damaged or deleted the Secret, in the last hour: at most 3 are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub unplanned_mints: Vec<Time>,

    /// Every live credential, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub credentials: Vec<Credential>,

    /// When a verifier last accepted the token, to some minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,

    /// The same for each credential, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "usage_schema")]
    pub usage: BTreeMap<String, Time>,
}

/// What became of a token that is handed over once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeliveryState {
    /// The Secret holds it until it is taken.
    Waiting,
    /// It was taken: the Secret was deleted.
    Delivered,
    /// It was not taken and is dead.
    NotDelivered,
}

/// One issued token, known by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// The public id: the 12 characters after the token's underscore.
    #[schemars(length(max = 12))]
    pub id: Parsed<TokenId>,
    /// The how-manieth token of this object it is, from 1.
    pub revision: i64,
    /// SHA-256 of the whole token, 64 lower-case hexadecimal digits.
    #[schemars(length(max = 64))]
    pub sha256: Parsed<TokenHash>,
    /// Where in its life it is.
    pub state: CredentialState,
    /// When it was issued.
    pub issued_at: Time,
    /// When it ends; absent if it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// The states of a live credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CredentialState {
    /// Its hash is published and accepted; the Secret does not hold it yet.
    Pending,
    /// The Secret holds it.
    Active,
    /// It was replaced and still works until its end.
    Grace,
}

impl CredentialState {
    /// The name as it stands in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Active => "Active",
            Self::Grace => "Grace",
        }
    }
}

// Without the rules of the spec: an object must not become unwritable because its status, which nobody types, breaks a rule.
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
            "name": {"type": "string", "maxLength": 512, "description": "The owner's name."},
        },
    })
}

fn usage_schema(generator: &mut SchemaGenerator) -> Schema {
    let time = Time::json_schema(generator);
    json_schema!({"type": "object", "maxProperties": 16, "additionalProperties": time})
}
