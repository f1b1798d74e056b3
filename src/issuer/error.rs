//! Why a call failed, in words that are safe to show: of what a server says, only known fields, cleaned, shortened, and without secrets.

use std::time::Duration;

use serde_json::Value;

use crate::api::Time;

/// The maximum length of what a server says, in characters.
const MAX_MESSAGE: usize = 256;

/// What replaces a word with a secret in it.
const REDACTED: &str = "[redacted]";

/// A word that has this many bytes of a secret in a row is redacted. Servers quote shortened tokens.
const WINDOW: usize = 6;

/// Why a call failed. Messages of the server are cleaned, and hold no credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server refused the request for another reason than those below. Nothing was created.
    #[error("the issuer refused the request with HTTP status {status}{}", quoted(.message))]
    Refused {
        /// The status.
        status: u16,
        /// The server's message; may be empty.
        message: String,
    },
    /// The server does not accept the credential.
    #[error("the issuer does not accept the credential (HTTP status 401){}", quoted(.message))]
    Unauthorized {
        /// The server's message; may be empty.
        message: String,
    },
    /// The credential has no right to this.
    #[error("the credential has no right to this at the issuer (HTTP status 403){}", quoted(.message))]
    Forbidden {
        /// The server's message; may be empty.
        message: String,
    },
    /// The target or the token does not exist, or the credential may not see it.
    #[error("the issuer does not know the target, or the credential may not see it (HTTP status 404){}", quoted(.message))]
    NotFound {
        /// The server's message; may be empty.
        message: String,
    },
    /// The name is taken.
    #[error("the name is taken at the issuer (HTTP status {status}){}", quoted(.message))]
    Conflict {
        /// The status.
        status: u16,
        /// The server's message; may be empty.
        message: String,
    },
    /// The server limits the rate of requests.
    #[error("the issuer limits the rate of requests (HTTP status 429)")]
    RateLimited {
        /// When to try again, if the server says so.
        retry_after: Option<Duration>,
    },
    /// The request was not sent, because it exceeds the budget of calls.
    #[error("the budget of calls to the issuer is exhausted")]
    OverBudget {
        /// When to try again.
        retry_after: Duration,
    },
    /// The address of the server is not allowed. Nothing was sent.
    #[error("the name of the issuer resolves to an address that is not allowed")]
    AddressRefused,
    /// There is no connection. Nothing was sent.
    #[error("no connection to the issuer{}", quoted(.reason))]
    Unreachable {
        /// Why; may name what the server's certificate is for.
        reason: String,
    },
    /// The connection broke, or the server failed, after the request was sent.
    #[error("the issuer failed: {reason}{}", quoted(.message))]
    Unavailable {
        /// What happened.
        reason: String,
        /// The server's message; may be empty.
        message: String,
    },
    /// There was no complete response in time.
    #[error("the issuer did not answer in time")]
    TimedOut,
    /// The server answered with a redirect. None is followed, because it would get the credential.
    #[error("the issuer redirects (HTTP status {status}); set the URL that it redirects to")]
    Redirected {
        /// The status.
        status: u16,
    },
    /// The server answered with success and something that it does not document.
    #[error("the answer of the issuer is not what its API documents: {problem}")]
    Malformed {
        /// What is wrong. It quotes nothing of the response.
        problem: String,
    },
    /// The response is larger than the limit.
    #[error("the answer of the issuer is larger than {} bytes", super::client::MAX_BODY)]
    TooLarge,
    /// The token was created, but ends too soon to be of use.
    #[error(
        "the issuer created a token that ends at {ends_at}, long before the requested end; check the issuer's clock and its maximum token lifetime"
    )]
    ShortLived {
        /// When it ends.
        ends_at: Time,
    },
    /// The list changed while its pages were read.
    #[error("the list of tokens changed while it was read")]
    ListChanged,
    /// The credential lacks a right, by what the system tells of it.
    #[error("the credential lacks a right: {0}")]
    MissingRight(&'static str),
    /// The request cannot be expressed in the system's API. Nothing was sent.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl CallError {
    /// Returns the name of this error in metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "Refused",
            Self::Unauthorized { .. } => "Unauthorized",
            Self::Forbidden { .. } | Self::MissingRight(_) => "Forbidden",
            Self::NotFound { .. } => "NotFound",
            Self::Conflict { .. } => "Conflict",
            Self::RateLimited { .. } => "RateLimited",
            Self::OverBudget { .. } => "OverBudget",
            Self::AddressRefused => "AddressRefused",
            Self::Unreachable { .. } => "Unreachable",
            Self::Unavailable { .. } => "Unavailable",
            Self::TimedOut => "TimedOut",
            Self::Redirected { .. } => "Redirected",
            Self::Malformed { .. } => "Malformed",
            Self::TooLarge => "TooLarge",
            Self::ShortLived { .. } => "ShortLived",
            Self::ListChanged => "ListChanged",
            Self::Unsupported(_) => "Unsupported",
        }
    }

    /// All categories of the errors of drivers.
    pub const CATEGORIES: &'static [&'static str] = &[
        "Refused",
        "Unauthorized",
        "Forbidden",
        "NotFound",
        "Conflict",
        "RateLimited",
        "OverBudget",
        "AddressRefused",
        "Unreachable",
        "Unavailable",
        "TimedOut",
        "Redirected",
        "Malformed",
        "TooLarge",
        "ListChanged",
        "Unsupported",
    ];

    /// Whether the server may have done what was requested.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::TimedOut
            | Self::Redirected { .. }
            | Self::Malformed { .. }
            | Self::TooLarge
            | Self::ShortLived { .. }
            | Self::ListChanged => true,
            Self::Refused { .. }
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::RateLimited { .. }
            | Self::OverBudget { .. }
            | Self::AddressRefused
            | Self::Unreachable { .. }
            | Self::MissingRight(_)
            | Self::Unsupported(_) => false,
        }
    }

    /// Returns when to try again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => *retry_after,
            Self::OverBudget { retry_after } => Some(*retry_after),
            // Each try leaves a token, and with GitLab a user.
            Self::ShortLived { .. } => Some(Duration::from_secs(60 * 60)),
            _ => None,
        }
    }

    /// Returns this error without what the server said. For people who chose the server: its messages could carry data out of it.
    #[must_use]
    pub fn without_message(&self) -> Self {
        let mut error = self.clone();
        match &mut error {
            Self::Refused { message, .. }
            | Self::Unauthorized { message }
            | Self::Forbidden { message }
            | Self::NotFound { message }
            | Self::Conflict { message, .. }
            | Self::Unreachable { reason: message }
            | Self::Unavailable { message, .. } => message.clear(),
            Self::RateLimited { .. }
            | Self::OverBudget { .. }
            | Self::AddressRefused
            | Self::TimedOut
            | Self::Redirected { .. }
            | Self::Malformed { .. }
            | Self::TooLarge
            | Self::ShortLived { .. }
            | Self::ListChanged
            | Self::MissingRight(_)
            | Self::Unsupported(_) => {}
        }
        error
    }
}

/// A server's message at the end of a sentence.
fn quoted(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// Returns the message of an error response: the first known field that has a text. The fields are those of the systems' documented errors,
/// and of OAuth (RFC 6749, 5.2).
pub(super) fn message(body: &[u8], secrets: &[&str]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let nested = |list: &str| body.pointer(&format!("/{list}/0/text")).cloned();
    let fields = [
        nested("causes"),
        body.get("message").cloned(),
        body.get("error_description").cloned(),
        body.get("error").cloned(),
        nested("messages"),
    ];
    let found = fields.into_iter().flatten().map(|field| texts(&field, 0)).find(|text| !text.trim().is_empty());
    clean(&found.unwrap_or_default(), secrets)
}

/// The texts in a field. GitLab has `{"message": {"expires_at": ["must be …"]}}`.
fn texts(field: &Value, depth: usize) -> String {
    match field {
        Value::String(text) => text.clone(),
        Value::Array(list) if depth < 3 => list.iter().map(|one| texts(one, depth + 1)).collect::<Vec<_>>().join(", "),
        Value::Object(fields) if depth < 3 => {
            fields.iter().map(|(name, one)| format!("{name}: {}", texts(one, depth + 1))).collect::<Vec<_>>().join("; ")
        }
        _ => String::new(),
    }
}

/// Makes one line of visible characters, without words that hold a part of a secret, and shortens it.
pub(super) fn clean(text: &str, secrets: &[&str]) -> String {
    let visible: String = text.chars().map(|one| if is_visible(one) { one } else { ' ' }).collect();
    // A secret of several words is found as a whole only.
    let whole = secrets.iter().filter(|secret| !secret.is_empty());
    let visible = whole.fold(visible, |text, secret| text.replace(secret, REDACTED));
    let words = visible.split_whitespace().map(|word| if holds(word, secrets) { REDACTED } else { word });
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_MESSAGE) {
        Some(_) => line.chars().take(MAX_MESSAGE - 1).chain(['…']).collect(),
        None => line,
    }
}

/// Neither a control character nor one that changes the direction of text or has no width.
fn is_visible(character: char) -> bool {
    !(character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'))
}

fn holds(word: &str, secrets: &[&str]) -> bool {
    secrets.iter().any(|secret| {
        let (word, secret) = (word.as_bytes(), secret.as_bytes());
        let length = secret.len().min(WINDOW);
        length > 0 && secret.windows(length).any(|part| memchr::memmem::find(word, part).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_fields_of_each_system_are_read() {
        for (body, expected) in [
            (r#"{"message":"401 Unauthorized"}"#, "401 Unauthorized"),
            (
                r#"{"message":{"expires_at":["must be before 2027-01-01"],"scopes":["a","b"]}}"#,
                "expires_at: must be before 2027-01-01; scopes: a, b",
            ),
            (r#"{"error":"insufficient_scope","error_description":"needs api","scope":"api"}"#, "needs api"),
            (r#"{"error":"invalid_client"}"#, "invalid_client"),
            (
                r#"{"detailCode":"400.1","messages":[{"text":"general"}],"causes":[{"text":"name is taken"}]}"#,
                "name is taken",
            ),
            (r#"{"messages":[{"text":"general"}],"causes":[]}"#, "general"),
            (r#"{"error":"no session","code":16,"message":""}"#, "no session"),
            (r#"{"secret":"x","token":"y"}"#, ""),
            (r#"["x"]"#, ""),
            ("<html>", ""),
            ("", ""),
        ] {
            assert_eq!(message(body.as_bytes(), &[]), expected, "{body}");
        }
    }

    #[test]
    fn messages_are_clean_and_short() {
        let body = serde_json::json!({"message": format!("a\u{1b}[31m\n\u{202e}b {}", "é".repeat(300))}).to_string();
        let text = message(body.as_bytes(), &[]);
        assert!(text.starts_with("a [31m b é") && text.ends_with('…'), "{text}");
        assert_eq!(text.chars().count(), MAX_MESSAGE);
    }

    #[test]
    fn words_with_a_part_of_a_secret_are_redacted() {
        let secrets = ["glpat-0123456789abcdef", "pw", "a b c"];
        for (text, expected) in [
            ("token glpat-0123456789abcdef is unknown", "token [redacted] is unknown"),
            ("token=\"glpat-01…\" is unknown", "[redacted] is unknown"),
            ("ends in 9abcdef.", "ends in [redacted]"),
            ("user:pw@host", "user:[redacted]@host"),
            ("the phrase a b c", "the phrase [redacted]"),
            ("abcde is too short", "abcde is too short"),
        ] {
            assert_eq!(clean(text, &secrets), expected, "{text}");
        }
    }

    #[test]
    fn only_definite_answers_are_known_outcomes() {
        let text = String::new;
        assert!(!CallError::Refused { status: 422, message: text() }.is_outcome_unknown());
        assert!(!CallError::Unreachable { reason: text() }.is_outcome_unknown());
        assert!(CallError::Unavailable { reason: text(), message: text() }.is_outcome_unknown());
        assert!(CallError::Redirected { status: 303 }.is_outcome_unknown());
        assert!(CallError::TimedOut.is_outcome_unknown());
    }

    #[test]
    fn a_message_can_be_left_out() {
        let error = CallError::Forbidden { message: "internal data".to_owned() };
        assert!(error.to_string().ends_with("(HTTP status 403): internal data"));
        assert!(error.without_message().to_string().ends_with("(HTTP status 403)"));
        let error = CallError::Unreachable { reason: "certificate for internal.example.com".to_owned() };
        assert_eq!(error.without_message().to_string(), "no connection to the issuer");
    }
}
