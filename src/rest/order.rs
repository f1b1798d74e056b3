//! What a dialect orders: a new token, or a change to one. Values are checked by the service as the resource's own rules have
//! them; `field` names in errors are the resource's, and dialects give them their own.

use k8s_openapi::jiff::SignedDuration;

use super::{item::Item, receipt::Receipt};
use crate::{
    api::{Expiry, Owner, Permission, Time},
    token::{Token, TokenPrefix},
};
use std::sync::Arc;

/// A token to be made. The service refuses scopes that the caller does not have.
#[derive(Clone, Debug)]
pub struct Create {
    /// Whose it will be.
    pub owner: Owner,
    /// Its name, as people see it; unique among the owner's.
    pub display_name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it ends. Dialects always say.
    pub expiry: Expiry,
    /// How long access tokens of it live.
    pub access_token_validity: Option<SignedDuration>,
    /// What the product that asks keeps with it.
    pub permissions: Vec<Permission>,
    /// What the token's text begins with; `None` for the default.
    pub token_prefix: Option<TokenPrefix>,
}

/// A token that was made: this is the only time that its text can be had. Whoever drops it has it taken back.
#[derive(Debug)]
pub struct Created {
    /// What it is.
    pub item: Arc<Item>,
    /// The token, wiped on drop.
    pub token: Token,
    /// To be signed when it has reached whoever asked for it.
    pub receipt: Receipt,
}

/// A change; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// A new name.
    pub display_name: Option<String>,
    /// Other scopes.
    pub scopes: Option<Vec<String>>,
    /// Another end.
    pub expiry: Option<Expiry>,
    /// Other access tokens; `Some(None)` takes the value away.
    pub access_token_validity: Option<Option<SignedDuration>>,
    /// `spec.revoked`.
    pub revoked: Option<bool>,
    /// One more id for `spec.revokedCredentials`.
    pub revoke_credential: Option<crate::token::TokenId>,
    /// `spec.revokeIfIssuedBefore`: all that was issued before is dead.
    pub revoke_if_issued_before: Option<Time>,
}
