//! The request for a new token. Pure.

use k8s_openapi::jiff::SignedDuration;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    family::{Asked, Family},
    json,
    names::{EXPIRATION_DATE, NAME, NEVER_EXPIRES, SCOPE, VALIDITY},
    token::{DEFAULT_VALIDITY, MIN_VALIDITY},
};
use crate::{
    api::Time,
    rest::{caller::Caller, failure::Failure, order::Create},
};

/// The scope that stands for all that its owner may do.
const EVERYTHING: &str = "sp:scopes:all";

/// A token to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SailpointCreateToken)]
pub struct CreateBody {
    /// The token's name: no other token of its owner has it. 1 to 128 characters.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = r"\S", required)]
    name: Option<Value>,
    /// What the token may do, at most what the caller's own token may. Null, not there, or `sp:scopes:all` among them: all that the
    /// caller's own token may.
    #[schema(value_type = Option<Vec<String>>, max_items = 64)]
    scope: Option<Value>,
    /// How many seconds an access token lives that is got by this token. Default: 43200.
    #[schema(value_type = Option<i64>, minimum = 15, maximum = 43200)]
    access_token_validity_seconds: Option<Value>,
    /// When it ends: RFC 3339; a time without a zone is UTC. Under `/beta`, `/v3`, `/v2024` and `/v2025` at most 6 months after the
    /// creation, which is also the default. Under `/personal-access-tokens/v1` null or not there is for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expiration_date: Option<Value>,
    /// Has to be true for a token that never ends. Only under `/personal-access-tokens/v1`.
    #[schema(value_type = Option<bool>)]
    user_aware_token_never_expires: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    _no_list: json::OnlyObjects,
}

/// Reads a request and makes an order of it, for the caller.
///
/// # Errors
/// `Invalid`.
pub fn order(body: &[u8], caller: &Caller, family: Family, now: Time) -> Result<Create, Failure> {
    let body: CreateBody = json::read(body, "an object such as {\"name\": \"ci\"}")?;
    let name = json::text(NAME, body.name.as_ref())?;
    let date = json::optional_text(EXPIRATION_DATE, body.expiration_date.as_ref())?;
    let aware = json::flag(NEVER_EXPIRES, body.user_aware_token_never_expires.as_ref())?;
    let scopes = scopes(body.scope.as_ref(), caller)?;
    let validity = validity(body.access_token_validity_seconds.as_ref())?;
    Ok(Create {
        owner: caller.owner.clone(),
        display_name: name.to_owned(),
        description: None,
        scopes,
        expiry: family.end(Asked { date, aware }, now, now)?,
        access_token_validity: validity.or(Some(LONGEST)),
        permissions: Vec::new(),
        token_prefix: None,
    })
}

const LONGEST: SignedDuration = SignedDuration::from_secs(DEFAULT_VALIDITY);

/// Reads how long access tokens live.
///
/// # Errors
/// `Invalid`.
pub fn validity(value: Option<&Value>) -> Result<Option<SignedDuration>, Failure> {
    let seconds = json::number(VALIDITY, value, MIN_VALIDITY..=DEFAULT_VALIDITY)?;
    Ok(seconds.map(SignedDuration::from_secs))
}

/// Reads scopes. None given, or the one that stands for everything: all that the caller has.
///
/// # Errors
/// `Invalid`.
pub fn scopes(value: Option<&Value>, caller: &Caller) -> Result<Vec<String>, Failure> {
    let scopes = match value {
        None | Some(Value::Null) => return Ok(caller.scopes.clone()),
        Some(value) => json::texts(SCOPE, value)?,
    };
    Ok(if scopes.iter().any(|scope| scope == EVERYTHING) { caller.scopes.clone() } else { scopes })
}
