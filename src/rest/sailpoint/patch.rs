//! Changes to a token as a JSON patch (RFC 6902): either all of it is applied, or nothing.
//!
//! SailPoint's client library omits a `value` that is null, so a missing one is null. `json_patch` refuses it, so operations are parsed
//! here and applied there.

use std::collections::BTreeSet;

use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchErrorKind, PatchOperation, RemoveOperation, ReplaceOperation,
    TestOperation,
    jsonptr::{Pointer, PointerBuf},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    body::{self, EXPIRATION_DATE, NAME, NEVER_EXPIRES, OnlyObjects, SCOPE, VALIDITY, flag, optional_text, text},
    expiry::{ExpiryPolicy, RequestedExpiry},
    token,
};
use crate::{
    api::{Expiry, Time},
    rest::{
        caller::RestCaller,
        error::RestError,
        model::{ChangeToken, TokenItem},
        timestamp,
    },
};

/// The fields that a patch of one token may change.
pub const PATHS: &[&str] = &[NAME, SCOPE, VALIDITY, EXPIRATION_DATE, NEVER_EXPIRES];

/// The fields that a bulk update may change.
pub const BULK_PATHS: &[&str] = &[EXPIRATION_DATE, NEVER_EXPIRES];

/// The maximum size of all strings, and the maximum length of a list, after each operation: copies of copies grow fast.
const MAX_BYTES: usize = 64 * 1024;
const MAX_ENTRIES: usize = 256;

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

impl SailpointPatch {
    /// Parses a request body.
    pub fn parse(body: &[u8]) -> Result<Self, RestError> {
        let operations: Vec<SailpointPatchOperation> = body::parse(
            body,
            "a list of operations such as {\"op\": \"replace\", \"path\": \"/name\", \"value\": \"ci\"}",
        )?;
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
            some => body::scopes(some, caller)?,
        };
        let validity = body::validity(patched.get(VALIDITY))?;
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
