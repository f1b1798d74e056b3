//! Reads the JSON of a request field by field, so that an error names the field and says what would be right.
//!
//! It must not know what the fields mean.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, error::Category};

use crate::rest::failure::Failure;

/// What errors call the whole.
const BODY: &str = "body";

/// The most texts in a list: as many as a token may have scopes.
const MAX_TEXTS: usize = 64;

/// What a structure is flattened with that is read from objects alone: serde takes lists as well, field by field.
#[derive(Debug, Deserialize)]
pub struct OnlyObjects {}

/// Reads a body into a structure whose fields are still any JSON. A field that is there twice is refused.
///
/// # Errors
/// `Invalid`; `shape` says what the body must be.
pub fn read<T: DeserializeOwned>(body: &[u8], shape: &str) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let words = error.to_string();
        Failure::invalid(
            BODY,
            match error.classify() {
                Category::Data if words.starts_with("duplicate field") || words.starts_with("missing field") => words,
                Category::Data => format!("must be {shape}"),
                Category::Syntax | Category::Eof | Category::Io => format!("must be JSON, which it is not at {place}"),
            },
        )
    })
}

/// A text that is more than spaces.
///
/// # Errors
/// `Invalid`.
pub fn text<'v>(field: &str, value: Option<&'v Value>) -> Result<&'v str, Failure> {
    match value {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text),
        None | Some(Value::Null) => Err(Failure::invalid(field, "is required")),
        Some(_) => Err(Failure::invalid(field, "must be a text that is not empty")),
    }
}

/// A text, or nothing.
///
/// # Errors
/// `Invalid`.
pub fn optional_text<'v>(field: &str, value: Option<&'v Value>) -> Result<Option<&'v str>, Failure> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Failure::invalid(field, "must be a text, or null")),
    }
}

/// `true`, `false`, or nothing, which is `false`.
///
/// # Errors
/// `Invalid`.
pub fn flag(field: &str, value: Option<&Value>) -> Result<bool, Failure> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Failure::invalid(field, "must be true or false")),
    }
}

/// A list of texts; what is in it twice counts once.
///
/// # Errors
/// `Invalid`.
pub fn texts(field: &str, value: &Value) -> Result<Vec<String>, Failure> {
    let Value::Array(items) = value else { return Err(Failure::invalid(field, "must be a list of texts")) };
    if items.len() > MAX_TEXTS {
        return Err(Failure::invalid(field, format!("must have at most {MAX_TEXTS} entries")));
    }
    let mut texts: Vec<String> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let Value::String(text) = item else {
            return Err(Failure::invalid(format!("{field}[{at}]"), "must be a text"));
        };
        if !texts.contains(text) {
            texts.push(text.clone());
        }
    }
    Ok(texts)
}

/// A whole number within bounds, or nothing.
///
/// # Errors
/// `Invalid`.
pub fn number(
    field: &str,
    value: Option<&Value>,
    bounds: std::ops::RangeInclusive<i64>,
) -> Result<Option<i64>, Failure> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64().filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let problem = format!("must be a whole number from {} to {}", bounds.start(), bounds.end());
                Err(Failure::invalid(field, problem))
            }
        },
    }
}
