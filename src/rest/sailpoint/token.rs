//! A token as this dialect shows it: in a list, after a change, and, with its secret, after it was created.

use serde::Serialize;
use utoipa::ToSchema;

use super::family::Family;
use crate::rest::{item::Item, owners::OwnerEntry, when};

/// How many seconds an access token lives of a token that says nothing about it; also the most.
pub const DEFAULT_VALIDITY: i64 = 43_200;

/// The fewest seconds.
pub const MIN_VALIDITY: i64 = 15;

/// A personal access token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SailpointToken)]
pub struct TokenView<'a> {
    /// The token's id, which is also the client id for `/oauth/token`: 32 hexadecimal digits. The same over rotations.
    id: String,
    /// The token's name.
    name: &'a str,
    /// What the token may do.
    #[schema(nullable)]
    scope: &'a [String],
    /// Whose it is.
    owner: OwnerView,
    /// When it was created.
    #[schema(format = DateTime)]
    created: String,
    /// When it was last used.
    #[schema(required, format = DateTime)]
    last_used: Option<String>,
    /// Whether it is marked as managed by a program.
    managed: bool,
    /// How many seconds an access token lives that is got by this token.
    access_token_validity_seconds: i64,
    /// When it ends; null if it never does.
    #[schema(required, format = DateTime)]
    expiration_date: Option<String>,
    /// Whether it never ends, which somebody has acknowledged. Only under `/personal-access-tokens/v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    user_aware_token_never_expires: Option<bool>,
}

/// The owner of a token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SailpointOwner)]
pub struct OwnerView {
    /// Always `IDENTITY`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The owner's id, as `owner-id` takes it.
    id: String,
    /// The owner's name for people.
    name: String,
}

/// A personal access token that has just been created.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SailpointCreatedToken)]
pub struct CreatedView<'a> {
    /// The token's id, which is also the client id for `/oauth/token`: 32 hexadecimal digits. The same over rotations.
    id: String,
    /// The token itself, which is also the client secret for `/oauth/token`. It is never shown again.
    secret: &'a str,
    /// What the token may do.
    #[schema(nullable)]
    scope: &'a [String],
    /// The token's name.
    name: &'a str,
    /// Whose it is.
    owner: OwnerView,
    /// When it was created.
    #[schema(format = DateTime)]
    created: String,
    /// How many seconds an access token lives that is got by this token.
    access_token_validity_seconds: i64,
    /// When it ends; `9999-12-31T23:59:59.999Z` if it never does.
    #[schema(format = DateTime)]
    expiration_date: String,
}

impl<'a> TokenView<'a> {
    /// Shows a token of this owner.
    pub fn of(item: &'a Item, owner: OwnerEntry, family: Family) -> Self {
        let end = item.expires_at();
        Self {
            id: item.id.to_string(),
            name: &item.display_name,
            scope: &item.scopes,
            owner: OwnerView::of(owner),
            created: when::millis(item.created_at),
            last_used: item.last_used_at.map(when::millis),
            managed: item.managed,
            access_token_validity_seconds: validity(item),
            expiration_date: end.map(when::millis),
            user_aware_token_never_expires: family.tells_acknowledgement().then_some(end.is_none()),
        }
    }
}

impl<'a> CreatedView<'a> {
    /// Shows a token and its secret.
    pub fn of(item: &'a Item, owner: OwnerEntry, secret: &'a str) -> Self {
        Self {
            id: item.id.to_string(),
            secret,
            scope: &item.scopes,
            name: &item.display_name,
            owner: OwnerView::of(owner),
            created: when::millis(item.created_at),
            access_token_validity_seconds: validity(item),
            expiration_date: item.expires_at().map_or(when::NEVER.to_owned(), when::millis),
        }
    }
}

impl OwnerView {
    fn of(entry: OwnerEntry) -> Self {
        let name = entry.spec.display_name.clone().unwrap_or(entry.owner.name);
        Self { kind: "IDENTITY", id: entry.id, name }
    }
}

/// How many seconds an access token of this token lives.
pub fn validity(item: &Item) -> i64 {
    item.access_token_validity.map_or(DEFAULT_VALIDITY, |length| length.as_secs())
}
