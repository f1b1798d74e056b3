//! Request bodies: a new token, and a bulk update. They are parsed field by field, so that an error names the field.

use std::collections::HashSet;

use k8s_openapi::jiff::SignedDuration;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, error::Category};
use utoipa::ToSchema;

use super::{
    expiry::{ExpiryPolicy, RequestedExpiry},
    patch::{BULK_PATHS, SailpointPatch, SailpointPatchOperation},
    token::{MAX_VALIDITY, MIN_VALIDITY},
};
use crate::{
    api::Time,
    rest::{caller::RestCaller, error::RestError, model::CreateToken},
};

/// `spec.displayName`.
pub const NAME: &str = "name";
/// `spec.scopes`.
pub const SCOPE: &str = "scope";
/// `spec.accessTokenValidity`, in seconds.
pub const VALIDITY: &str = "accessTokenValiditySeconds";
/// `spec.expiry.at`.
pub const EXPIRATION_DATE: &str = "expirationDate";
/// Acknowledges that a token never expires.
pub const NEVER_EXPIRES: &str = "userAwareTokenNeverExpires";

/// The resource's fields and their names in this dialect.
pub const FIELD_NAMES: [(&str, &str); 4] = [
    ("spec.displayName", NAME),
    ("spec.scopes", SCOPE),
    ("spec.accessTokenValidity", VALIDITY),
    ("spec.expiry", EXPIRATION_DATE),
];

/// The scope that stands for all scopes of the caller.
const ALL_SCOPES: &str = "sp:scopes:all";

/// The maximum number of scopes.
const MAX_SCOPES: usize = 64;

/// The maximum number of tokens in a bulk update.
const MAX_IDS: usize = 25;

/// A token to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SailpointCreateToken {
    /// The name, unique among the owner's tokens. 1 to 128 characters.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = r"\S", required)]
    name: Option<Value>,
    /// The scopes, which the caller's token must have. Null, absent, or a list with `sp:scopes:all`: all scopes of the caller's token.
    #[schema(value_type = Option<Vec<String>>, max_items = 64)]
    scope: Option<Value>,
    /// The lifetime of access tokens in seconds. Default: 43200.
    #[schema(value_type = Option<i64>, minimum = 15, maximum = 43200)]
    access_token_validity_seconds: Option<Value>,
    /// The expiry as RFC 3339. A time without a zone is UTC. Under `/beta`, `/v3`, `/v2024` and `/v2025` at most 6 months after the
    /// creation, which is also the default. Under `/personal-access-tokens/v1` null or absent means never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expiration_date: Option<Value>,
    /// Must be true for a token that never expires. Only under `/personal-access-tokens/v1`.
    #[schema(value_type = Option<bool>)]
    user_aware_token_never_expires: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    _only_objects: OnlyObjects,
}

/// Tokens and the change of each.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SailpointBulkUpdate {
    /// The ids of 1 to 25 different tokens.
    #[schema(value_type = Vec<String>, required, min_items = 1, max_items = 25)]
    ids: Option<Value>,
    /// A JSON patch of `/expirationDate` and `/userAwareTokenNeverExpires` for each token.
    #[schema(value_type = Vec<SailpointPatchOperation>, required, min_items = 1)]
    patch: Option<Vec<SailpointPatchOperation>>,
    #[serde(flatten)]
    #[schema(ignore)]
    _only_objects: OnlyObjects,
}

/// A flattened field that makes serde refuse a list of the fields' values.
#[derive(Debug, Deserialize)]
pub struct OnlyObjects {}

/// Parses a request to create a token of the caller.
pub fn create(body: &[u8], caller: &RestCaller, policy: ExpiryPolicy, now: Time) -> Result<CreateToken, RestError> {
    let body: SailpointCreateToken = parse(body, "an object such as {\"name\": \"ci\"}")?;
    let name = text(NAME, body.name.as_ref())?;
    let date = optional_text(EXPIRATION_DATE, body.expiration_date.as_ref())?;
    let acknowledged = flag(NEVER_EXPIRES, body.user_aware_token_never_expires.as_ref())?;
    let scopes = scopes(body.scope.as_ref(), caller)?;
    let validity = validity(body.access_token_validity_seconds.as_ref())?;
    Ok(CreateToken {
        owner: caller.owner.clone(),
        display_name: name.to_owned(),
        description: None,
        scopes,
        expiry: policy.expiry(RequestedExpiry { date, acknowledged }, now, now)?,
        access_token_validity: validity.or(Some(SignedDuration::from_secs(MAX_VALIDITY))),
        permissions: Vec::new(),
        token_prefix: None,
    })
}

/// Parses a bulk update: ids and the patch for each.
pub fn bulk_update(body: &[u8]) -> Result<(Vec<String>, SailpointPatch), RestError> {
    const IDS: &str = "ids";
    const PATCH: &str = "patch";
    let body: SailpointBulkUpdate = parse(body, "an object with ids and patch, which is a list of operations")?;
    let Some(Value::Array(ids)) = body.ids else { return Err(RestError::invalid(IDS, "must be a list of ids")) };
    if !(1..=MAX_IDS).contains(&ids.len()) {
        return Err(RestError::invalid(IDS, format!("must have 1 to {MAX_IDS} ids")));
    }
    let mut seen = HashSet::new();
    for (at, id) in ids.iter().enumerate() {
        let place = format!("{IDS}[{at}]");
        if !seen.insert(text(&place, Some(id))?) {
            return Err(RestError::invalid(place, "is a duplicate"));
        }
    }
    let ids = ids.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let operations = body.patch.filter(|operations| !operations.is_empty());
    let operations = operations.ok_or_else(|| RestError::invalid(PATCH, "must have at least one operation"))?;
    Ok((ids, SailpointPatch::of(operations, PATCH, BULK_PATHS)?))
}

/// Parses the lifetime of access tokens.
pub fn validity(value: Option<&Value>) -> Result<Option<SignedDuration>, RestError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64().filter(|seconds| (MIN_VALIDITY..=MAX_VALIDITY).contains(seconds)) {
            Some(seconds) => Ok(Some(SignedDuration::from_secs(seconds))),
            None => {
                let problem = format!("must be a whole number from {MIN_VALIDITY} to {MAX_VALIDITY}");
                Err(RestError::invalid(VALIDITY, problem))
            }
        },
    }
}

/// Parses scopes without duplicates. None, or the scope for all, means all scopes of the caller.
pub fn scopes(value: Option<&Value>, caller: &RestCaller) -> Result<Vec<String>, RestError> {
    let items = match value {
        None | Some(Value::Null) => return Ok(caller.scopes.clone()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(RestError::invalid(SCOPE, "must be a list of strings")),
    };
    if items.len() > MAX_SCOPES {
        return Err(RestError::invalid(SCOPE, format!("must have at most {MAX_SCOPES} entries")));
    }
    let mut scopes: Vec<String> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let Value::String(scope) = item else {
            return Err(RestError::invalid(format!("{SCOPE}[{at}]"), "must be a string"));
        };
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
    Ok(if scopes.iter().any(|scope| scope == ALL_SCOPES) { caller.scopes.clone() } else { scopes })
}

/// Parses a body whose fields are any JSON. `shape` is what the body must be. A duplicate field is an error.
pub fn parse<T: DeserializeOwned>(body: &[u8], shape: &str) -> Result<T, RestError> {
    serde_json::from_slice(body).map_err(|error| {
        let message = error.to_string();
        let problem = match error.classify() {
            Category::Data if message.starts_with("duplicate field") || message.starts_with("missing field") => message,
            Category::Data => format!("must be {shape}"),
            Category::Syntax | Category::Eof | Category::Io => {
                format!("invalid JSON at line {}, column {}", error.line(), error.column())
            }
        };
        RestError::invalid("body", problem)
    })
}

/// Parses a string that is not blank.
pub fn text<'v>(field: &str, value: Option<&'v Value>) -> Result<&'v str, RestError> {
    match value {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text),
        None | Some(Value::Null) => Err(RestError::invalid(field, "is required")),
        Some(_) => Err(RestError::invalid(field, "must be a string that is not blank")),
    }
}

/// Parses an optional string.
pub fn optional_text<'v>(field: &str, value: Option<&'v Value>) -> Result<Option<&'v str>, RestError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(RestError::invalid(field, "must be a string or null")),
    }
}

/// Parses an optional boolean; the default is `false`.
pub fn flag(field: &str, value: Option<&Value>) -> Result<bool, RestError> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(RestError::invalid(field, "must be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_fields_have_the_dialects_names() {
        for (theirs, ours) in [
            ("spec.displayName", "name"),
            ("spec.scopes[3]", "scope[3]"),
            ("spec.scopes", "scope"),
            ("spec.expiry.at", "expirationDate"),
            ("spec.accessTokenValidity", "accessTokenValiditySeconds"),
            ("filters", "filters"),
            ("spec", "spec"),
        ] {
            let error = RestError::invalid(theirs, "x").with_field_names(&FIELD_NAMES);
            assert_eq!(error, RestError::invalid(ours, "x"));
        }
    }
}
