//! The error for an invalid spec: the field, what is wrong with it, and what is valid.
//!
//! It appears in status, events and logs, so it never carries a token or the content of a Secret.

/// An invalid field of a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// Path of the field, such as `spec.secret.template.data[config.ini]`.
    pub field: String,
    /// What is wrong and what is valid.
    pub message: String,
}

impl InvalidField {
    /// Creates an error for `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
