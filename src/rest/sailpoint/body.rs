//! Request bodies: a new token, a JSON patch (RFC 6902) and a bulk update.
//!
//! They are parsed field by field, so that an error names the field. A patch is applied as a whole, or not at all. SailPoint's client
//! library omits a `value` that is null, so a missing one is null. `json_patch` refuses it, so operations are parsed here and applied there.

use std::collections::{BTreeSet, HashSet};

use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchErrorKind, PatchOperation, RemoveOperation, ReplaceOperation,
    TestOperation,
    jsonptr::{Pointer, PointerBuf},
};
use k8s_openapi::jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    expiry::{EXPIRATION_DATE, ExpiryPolicy, NEVER_EXPIRES, RequestedExpiry},
    token::{self, MAX_VALIDITY, MIN_VALIDITY},
};
use crate::{
    api::{Expiry, Time},
    rest::{
        body::parse,
        caller::RestCaller,
        error::RestError,
        model::{ChangeToken, CreateToken, TokenItem},
        timestamp,
    },
};

/// `spec.displayName`.
pub const NAME: &str = "name";
/// `spec.scopes`.
pub const SCOPE: &str = "scope";
/// `spec.accessTokenValidity`, in seconds.
pub const VALIDITY: &str = "accessTokenValiditySeconds";

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

/// The fields that a patch of one token may change.
const PATHS: &[&str] = &[NAME, SCOPE, VALIDITY, EXPIRATION_DATE, NEVER_EXPIRES];

/// The fields that a bulk update may change.
const BULK_PATHS: &[&str] = &[EXPIRATION_DATE, NEVER_EXPIRES];

/// The maximum size of all strings, and the maximum length of a list, after each operation: copies of copies grow fast.
const MAX_BYTES: usize = 64 * 1024;
const MAX_ENTRIES: usize = 256;

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

/// One operation of a JSON patch.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SailpointPatchOperation {
    /// `add`, `remove`, `replace`, `move`, `copy` or `test`.
    #[schema(value_type = String, required, pattern = "^(add|remove|replace|move|copy|test)$")]
    op: Option<Value>,
    /// The target: `/name`, `/scope`, `/accessTokenValiditySeconds`, `/expirationDate` or `/userAwareTokenNeverExpires`; a single scope is
    /// `/scope/0` or `/scope/-`.
    #[schema(value_type = String, required)]
    path: Option<Value>,
    /// The source of `move` and `copy`.
    #[schema(value_type = Option<String>)]
    from: Option<Value>,
    /// The value of `add`, `replace` and `test`. Absent is null.
    #[schema(value_type = Option<Value>)]
    value: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    _only_objects: OnlyObjects,
}

/// A patch whose operations are well formed and limited to certain fields.
#[derive(Clone, Debug)]
pub struct SailpointPatch {
    operations: Vec<PatchOperation>,
    /// The name of the list of operations in errors.
    place: &'static str,
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

impl SailpointPatch {
    /// Parses a request body.
    pub fn parse(body: &[u8]) -> Result<Self, RestError> {
        let operations: Vec<SailpointPatchOperation> =
            parse(body, "a list of operations such as {\"op\": \"replace\", \"path\": \"/name\", \"value\": \"ci\"}")?;
        Self::of(operations, "", PATHS)
    }

    /// Checks operations against the allowed paths. `place` is the name of the list in errors.
    pub fn of(
        operations: Vec<SailpointPatchOperation>,
        place: &'static str,
        paths: &[&str],
    ) -> Result<Self, RestError> {
        let operations = operations.into_iter().enumerate();
        let checked = operations.map(|(at, operation)| operation.check(&format!("{place}[{at}]"), paths));
        Ok(Self { operations: checked.collect::<Result<_, _>>()?, place })
    }

    /// Returns what this patch changes of a token.
    pub fn apply(
        &self,
        item: &TokenItem,
        caller: &RestCaller,
        policy: ExpiryPolicy,
        now: Time,
    ) -> Result<ChangeToken, RestError> {
        let patched = self.patched(view(item))?;
        let touched = self.touched();
        let name = text(NAME, patched.get(NAME))?;
        let acknowledged = flag(NEVER_EXPIRES, patched.get(NEVER_EXPIRES))?;
        let scopes = match patched.get(SCOPE) {
            None | Some(Value::Null) => {
                return Err(RestError::invalid(SCOPE, "must be a list; it may be empty"));
            }
            some => scopes(some, caller)?,
        };
        let validity = validity(patched.get(VALIDITY))?;
        let date = optional_text(EXPIRATION_DATE, patched.get(EXPIRATION_DATE))?;
        Ok(ChangeToken {
            display_name: (name != item.display_name).then(|| name.to_owned()),
            scopes: (touched.contains(SCOPE) && scopes != item.scopes).then_some(scopes),
            access_token_validity: (touched.contains(VALIDITY) && validity != item.access_token_validity)
                .then_some(validity),
            expiry: expiry(&touched, date, acknowledged, item, policy, now)?,
            ..ChangeToken::default()
        })
    }

    /// Applies the operations one by one. A value may be missing in between, but none may grow beyond the limits.
    fn patched(&self, mut view: Value) -> Result<Value, RestError> {
        for (at, operation) in self.operations.iter().enumerate() {
            let place = format!("{}[{at}]", self.place);
            json_patch::patch(&mut view, std::slice::from_ref(operation)).map_err(|error| {
                RestError::invalid(
                    &*place,
                    match error.kind {
                        PatchErrorKind::TestFailed => format!("the value at {} differs", operation.path()),
                        PatchErrorKind::InvalidFromPointer => "no value at from".to_owned(),
                        _ => format!("no value at {}", operation.path()),
                    },
                )
            })?;
            if !is_bounded(&view) {
                return Err(RestError::invalid(
                    place,
                    "must result in strings, numbers, booleans, null and a list of strings within the size limits",
                ));
            }
        }
        Ok(view)
    }

    /// Returns the fields that are written, even if the value stays the same.
    fn touched(&self) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        for operation in &self.operations {
            match operation {
                PatchOperation::Test(_) => continue,
                PatchOperation::Move(moved) => touched.extend(field(&moved.from)),
                _ => {}
            }
            touched.extend(field(operation.path()));
        }
        touched
    }
}

impl SailpointPatchOperation {
    fn check(self, place: &str, paths: &[&str]) -> Result<PatchOperation, RestError> {
        let pointer = |name: &str, value: Option<&Value>| {
            let name = format!("{place}.{name}");
            let text = text(&name, value)?;
            let pointer = PointerBuf::parse(text).ok();
            let allowed = pointer.filter(|pointer| field(pointer).is_some_and(|field| paths.contains(&&*field)));
            allowed.ok_or_else(|| RestError::invalid(name, format!("must be one of /{}", paths.join(", /"))))
        };
        let path = pointer("path", self.path.as_ref())?;
        let from = || pointer("from", self.from.as_ref());
        let name = format!("{place}.op");
        Ok(match text(&name, self.op.as_ref())? {
            "add" => PatchOperation::Add(AddOperation { path, value: self.value.unwrap_or_default() }),
            "remove" => PatchOperation::Remove(RemoveOperation { path }),
            "replace" => PatchOperation::Replace(ReplaceOperation { path, value: self.value.unwrap_or_default() }),
            "move" => PatchOperation::Move(MoveOperation { from: from()?, path }),
            "copy" => PatchOperation::Copy(CopyOperation { from: from()?, path }),
            "test" => PatchOperation::Test(TestOperation { path, value: self.value.unwrap_or_default() }),
            _ => return Err(RestError::invalid(name, "must be add, remove, replace, move, copy or test")),
        })
    }
}

/// Returns the fields of a token that can be changed.
fn view(item: &TokenItem) -> Value {
    let end = item.expires_at();
    json!({
        NAME: item.display_name,
        SCOPE: item.scopes,
        VALIDITY: token::validity(item),
        EXPIRATION_DATE: end.map(timestamp::millis),
        NEVER_EXPIRES: end.is_none(),
    })
}

/// Returns the requested expiry, if it differs.
fn expiry(
    touched: &BTreeSet<String>,
    date: Option<&str>,
    acknowledged: bool,
    item: &TokenItem,
    policy: ExpiryPolicy,
    now: Time,
) -> Result<Option<Expiry>, RestError> {
    let end = item.expires_at();
    let acknowledges = touched.contains(NEVER_EXPIRES);
    // A token whose acknowledgement is withdrawn needs an expiry.
    let withdraws = policy.shows_acknowledgement() && acknowledges && !acknowledged && end.is_none();
    if !(touched.contains(EXPIRATION_DATE) || withdraws)
        || date.is_some() && date == end.map(timestamp::millis).as_deref()
    {
        return Ok(None);
    }
    let expiry =
        policy.expiry(RequestedExpiry { date, acknowledged: acknowledges && acknowledged }, item.created_at, now)?;
    Ok((expiry.at != end).then_some(expiry))
}

/// Returns the field that a pointer leads to or into.
fn field(pointer: &Pointer) -> Option<String> {
    pointer.tokens().next().map(|token| token.decoded().into_owned())
}

fn is_bounded(view: &Value) -> bool {
    let Value::Object(fields) = view else { return false };
    let mut bytes = 0;
    let mut is_plain = |value: &Value| {
        bytes += value.as_str().map_or(0, str::len);
        !(value.is_object() || value.is_array()) && bytes <= MAX_BYTES
    };
    fields.values().all(|value| match value {
        Value::Array(items) => items.len() <= MAX_ENTRIES && items.iter().all(&mut is_plain),
        value => is_plain(value),
    })
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
