//! Changes to a token as a JSON patch (RFC 6902): applied to what can be changed of it, all or nothing. Pure.
//!
//! A client's library leaves out `value` where it is null, so a missing one is null.

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
    create,
    family::{Asked, Family},
    json,
    names::{EXPIRATION_DATE, NAME, NEVER_EXPIRES, SCOPE, VALIDITY},
    token,
};
use crate::{
    api::{Expiry, Time},
    rest::{caller::Caller, failure::Failure, item::Item, order::Change, when},
};

/// What can be changed of one token.
pub const PATHS: &[&str] = &[NAME, SCOPE, VALIDITY, EXPIRATION_DATE, NEVER_EXPIRES];

/// What can be changed of many at once.
pub const BULK_PATHS: &[&str] = &[EXPIRATION_DATE, NEVER_EXPIRES];

/// The most bytes that the texts of a token may have on the way, and the most entries of a list: copies of copies grow fast.
const MAX_BYTES: usize = 64 * 1024;
const MAX_ENTRIES: usize = 256;

/// One operation of a JSON patch.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SailpointPatchOperation)]
pub struct Operation {
    /// `add`, `remove`, `replace`, `move`, `copy` or `test`.
    #[schema(value_type = String, required, pattern = "^(add|remove|replace|move|copy|test)$")]
    op: Option<Value>,
    /// What it is about: `/name`, `/scope`, `/accessTokenValiditySeconds`, `/expirationDate` or `/userAwareTokenNeverExpires`; a single
    /// scope as `/scope/0` or `/scope/-`.
    #[schema(value_type = String, required)]
    path: Option<Value>,
    /// Where `move` and `copy` take the value from.
    #[schema(value_type = Option<String>)]
    from: Option<Value>,
    /// The value of `add`, `replace` and `test`. Not there is null.
    #[schema(value_type = Option<Value>)]
    value: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    _no_list: json::OnlyObjects,
}

/// A patch whose operations are well formed and keep to what may be changed.
#[derive(Clone, Debug)]
pub struct TokenPatch {
    operations: Vec<PatchOperation>,
    /// What errors call the list of operations.
    place: &'static str,
}

impl TokenPatch {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn read(body: &[u8]) -> Result<Self, Failure> {
        let operations: Vec<Operation> = json::read(
            body,
            "a list of operations such as {\"op\": \"replace\", \"path\": \"/name\", \"value\": \"ci\"}",
        )?;
        Self::of(operations, "", PATHS)
    }

    /// Takes operations that keep to these paths. `place` is what errors call the list of them.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn of(operations: Vec<Operation>, place: &'static str, paths: &[&str]) -> Result<Self, Failure> {
        let operations = operations.into_iter().enumerate();
        let checked = operations.map(|(at, operation)| operation.check(&format!("{place}[{at}]"), paths));
        Ok(Self { operations: checked.collect::<Result<_, _>>()?, place })
    }

    /// What this patch changes of a token.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn change(&self, item: &Item, caller: &Caller, family: Family, now: Time) -> Result<Change, Failure> {
        let patched = self.apply(view(item))?;
        let touched = self.touched();
        let name = json::text(NAME, patched.get(NAME))?;
        let aware = json::flag(NEVER_EXPIRES, patched.get(NEVER_EXPIRES))?;
        let scopes = match patched.get(SCOPE) {
            None | Some(Value::Null) => {
                return Err(Failure::invalid(SCOPE, "must be a list: an empty one is for a token that may do nothing"));
            }
            some => create::scopes(some, caller)?,
        };
        let validity = create::validity(patched.get(VALIDITY))?;
        let date = json::optional_text(EXPIRATION_DATE, patched.get(EXPIRATION_DATE))?;
        Ok(Change {
            display_name: (name != item.display_name).then(|| name.to_owned()),
            scopes: (touched.contains(SCOPE) && scopes != item.scopes).then_some(scopes),
            access_token_validity: (touched.contains(VALIDITY) && validity != item.access_token_validity)
                .then_some(validity),
            expiry: expiry(&touched, date, aware, item, family, now)?,
            ..Change::default()
        })
    }

    /// The operations one by one. In between a value may be away, but nothing may grow beyond what a token can be.
    fn apply(&self, mut view: Value) -> Result<Value, Failure> {
        for (at, operation) in self.operations.iter().enumerate() {
            let place = format!("{}[{at}]", self.place);
            json_patch::patch(&mut view, std::slice::from_ref(operation)).map_err(|error| {
                Failure::invalid(
                    &*place,
                    match error.kind {
                        PatchErrorKind::TestFailed => format!("the value at {} is another one", operation.path()),
                        PatchErrorKind::InvalidFromPointer => "there is nothing at from".to_owned(),
                        _ => format!("there is nothing at {}", operation.path()),
                    },
                )
            })?;
            if !is_bounded(&view) {
                return Err(Failure::invalid(
                    place,
                    "must leave texts, numbers, true, false, null, and a list of texts",
                ));
            }
        }
        Ok(view)
    }

    /// The fields that are written to, be it with the value they have.
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

impl Operation {
    fn check(self, place: &str, paths: &[&str]) -> Result<PatchOperation, Failure> {
        let pointer = |name: &str, value: Option<&Value>| {
            let name = format!("{place}.{name}");
            let text = json::text(&name, value)?;
            let pointer = PointerBuf::parse(text).ok();
            let allowed = pointer.filter(|pointer| field(pointer).is_some_and(|field| paths.contains(&&*field)));
            allowed.ok_or_else(|| Failure::invalid(name, format!("must be one of /{}", paths.join(", /"))))
        };
        let path = pointer("path", self.path.as_ref())?;
        let from = || pointer("from", self.from.as_ref());
        let name = format!("{place}.op");
        Ok(match json::text(&name, self.op.as_ref())? {
            "add" => PatchOperation::Add(AddOperation { path, value: self.value.unwrap_or_default() }),
            "remove" => PatchOperation::Remove(RemoveOperation { path }),
            "replace" => PatchOperation::Replace(ReplaceOperation { path, value: self.value.unwrap_or_default() }),
            "move" => PatchOperation::Move(MoveOperation { from: from()?, path }),
            "copy" => PatchOperation::Copy(CopyOperation { from: from()?, path }),
            "test" => PatchOperation::Test(TestOperation { path, value: self.value.unwrap_or_default() }),
            _ => return Err(Failure::invalid(name, "must be add, remove, replace, move, copy or test")),
        })
    }
}

/// What can be changed of a token, as a client sees it.
fn view(item: &Item) -> Value {
    let end = item.expires_at();
    json!({
        NAME: item.display_name,
        SCOPE: item.scopes,
        VALIDITY: token::validity(item),
        EXPIRATION_DATE: end.map(when::millis),
        NEVER_EXPIRES: end.is_none(),
    })
}

/// The end that is asked for, if it is another one.
fn expiry(
    touched: &BTreeSet<String>,
    date: Option<&str>,
    aware: bool,
    item: &Item,
    family: Family,
    now: Time,
) -> Result<Option<Expiry>, Failure> {
    let end = item.expires_at();
    let acknowledges = touched.contains(NEVER_EXPIRES);
    // What an acknowledgement is taken back from needs an end.
    let takes_back = family.tells_acknowledgement() && acknowledges && !aware && end.is_none();
    if !(touched.contains(EXPIRATION_DATE) || takes_back) || date.is_some() && date == end.map(when::millis).as_deref()
    {
        return Ok(None);
    }
    let expiry = family.end(Asked { date, aware: acknowledges && aware }, item.created_at, now)?;
    Ok((expiry.at != end).then_some(expiry))
}

/// The field that a pointer leads to or into.
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
