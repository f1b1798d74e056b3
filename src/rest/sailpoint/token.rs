//! A token in SailPoint's format: in a list, after a change, and, with its secret, after its creation.

use serde::Serialize;
use utoipa::ToSchema;

use super::expiry::ExpiryPolicy;
use crate::rest::{model::TokenItem, store::OwnerEntry, timestamp};

/// The default and maximum lifetime of access tokens in seconds.
pub const MAX_VALIDITY: i64 = 43_200;

/// The minimum lifetime of access tokens in seconds.
pub const MIN_VALIDITY: i64 = 15;

/// A personal access token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SailpointToken<'a> {
    /// The id, which is also the client id for `/oauth/token`: 32 hexadecimal digits. Rotations do not change it.
    id: String,
    /// The name.
    name: &'a str,
    /// The scopes.
    #[schema(nullable)]
    scope: &'a [String],
    /// The owner.
    owner: SailpointOwner,
    /// The time of creation.
    #[schema(format = DateTime)]
    created: String,
    /// The time of the last use.
    #[schema(required, format = DateTime)]
    last_used: Option<String>,
    /// Whether the token is marked as managed by a program.
    managed: bool,
    /// The lifetime of access tokens in seconds.
    access_token_validity_seconds: i64,
    /// The expiry; null for never.
    #[schema(required, format = DateTime)]
    expiration_date: Option<String>,
    /// Whether the token never expires, which was acknowledged. Only under `/personal-access-tokens/v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    user_aware_token_never_expires: Option<bool>,
}

/// The owner of a token.
#[derive(Debug, Serialize, ToSchema)]
pub struct SailpointOwner {
    /// Always `IDENTITY`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The id, as in `owner-id`.
    id: String,
    /// The display name.
    name: String,
}

/// A new personal access token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SailpointCreatedToken<'a> {
    /// The id, which is also the client id for `/oauth/token`: 32 hexadecimal digits. Rotations do not change it.
    id: String,
    /// The token, which is also the client secret for `/oauth/token`. It is not shown again.
    secret: &'a str,
    /// The scopes.
    #[schema(nullable)]
    scope: &'a [String],
    /// The name.
    name: &'a str,
    /// The owner.
    owner: SailpointOwner,
    /// The time of creation.
    #[schema(format = DateTime)]
    created: String,
    /// The lifetime of access tokens in seconds.
    access_token_validity_seconds: i64,
    /// The expiry; `9999-12-31T23:59:59.999Z` for never.
    #[schema(format = DateTime)]
    expiration_date: String,
}

impl<'a> SailpointToken<'a> {
    /// Shows a token of this owner.
    pub fn of(item: &'a TokenItem, owner: OwnerEntry, policy: ExpiryPolicy) -> Self {
        let expiry = item.expires_at();
        Self {
            id: item.id.to_string(),
            name: &item.display_name,
            scope: &item.scopes,
            owner: SailpointOwner::of(owner),
            created: timestamp::millis(item.created_at),
            last_used: item.last_used_at.map(timestamp::millis),
            managed: item.managed,
            access_token_validity_seconds: validity(item),
            expiration_date: expiry.map(timestamp::millis),
            user_aware_token_never_expires: policy.shows_acknowledgement().then_some(expiry.is_none()),
        }
    }
}

impl<'a> SailpointCreatedToken<'a> {
    /// Shows a token and its secret.
    pub fn of(item: &'a TokenItem, owner: OwnerEntry, secret: &'a str) -> Self {
        Self {
            id: item.id.to_string(),
            secret,
            scope: &item.scopes,
            name: &item.display_name,
            owner: SailpointOwner::of(owner),
            created: timestamp::millis(item.created_at),
            access_token_validity_seconds: validity(item),
            expiration_date: item.expires_at().map_or(timestamp::NEVER.to_owned(), timestamp::millis),
        }
    }
}

impl SailpointOwner {
    fn of(entry: OwnerEntry) -> Self {
        let name = entry.spec.display_name.clone().unwrap_or(entry.owner.name);
        Self { kind: "IDENTITY", id: entry.id, name }
    }
}

/// Returns the lifetime of a token's access tokens in seconds.
pub fn validity(item: &TokenItem) -> i64 {
    item.access_token_validity.map_or(MAX_VALIDITY, |length| length.as_secs())
}
