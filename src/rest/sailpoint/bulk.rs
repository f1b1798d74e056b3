//! The request that changes the end of many tokens at once. Pure.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    json,
    patch::{BULK_PATHS, Operation, TokenPatch},
};
use crate::rest::failure::Failure;

/// The most tokens that one request may change.
const MAX_IDS: usize = 25;

/// Tokens, and what is to be changed of each.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SailpointBulkUpdate)]
pub struct BulkBody {
    /// The ids of 1 to 25 tokens, none of them twice.
    #[schema(value_type = Vec<String>, required, min_items = 1, max_items = 25)]
    ids: Option<Value>,
    /// What is done to each: a JSON patch of `/expirationDate` and `/userAwareTokenNeverExpires`.
    #[schema(value_type = Vec<Operation>, required, min_items = 1)]
    patch: Option<Vec<Operation>>,
    #[serde(flatten)]
    #[schema(ignore)]
    _no_list: json::OnlyObjects,
}

/// Reads a request.
///
/// # Errors
/// `Invalid`.
pub fn read(body: &[u8]) -> Result<(Vec<String>, TokenPatch), Failure> {
    const IDS: &str = "ids";
    const PATCH: &str = "patch";
    let body: BulkBody = json::read(body, "an object with ids and patch, which is a list of operations")?;
    let Some(Value::Array(ids)) = body.ids else { return Err(Failure::invalid(IDS, "must be a list of ids")) };
    if !(1..=MAX_IDS).contains(&ids.len()) {
        return Err(Failure::invalid(IDS, format!("must have 1 to {MAX_IDS} ids")));
    }
    let mut seen = HashSet::new();
    for (at, id) in ids.iter().enumerate() {
        let place = format!("{IDS}[{at}]");
        if !seen.insert(json::text(&place, Some(id))?) {
            return Err(Failure::invalid(place, "is there twice"));
        }
    }
    let ids = ids.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let operations = body.patch.filter(|operations| !operations.is_empty());
    let operations = operations.ok_or_else(|| Failure::invalid(PATCH, "must have at least one operation"))?;
    Ok((ids, TokenPatch::of(operations, PATCH, BULK_PATHS)?))
}
