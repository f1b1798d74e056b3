//! The error for a spec that asks for something impossible: which field, and what would be right.
//!
//! It must not carry a token or any Secret's content: it goes into status, events and logs.

/// A field of a spec that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// The field's path, such as `spec.secret.template.data[config.ini]`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl InvalidField {
    /// Names the field and says what is wrong with it.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
