//! The variables and filters of template placeholders.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::buffer::{Buffer, TooLarge};
use crate::api::{PersonalAccessTokenSpec, Time};

/// The public facts of a token that templates may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateFacts<'a> {
    /// The id of the token.
    pub id: &'a str,
    /// The id of the replaced token, if [`Layout::render`](super::Layout::render) gets one.
    pub previous_id: Option<&'a str>,
    /// When the token was issued.
    pub issued_at: Time,
    /// When the whole token expires, across all rotations; `None` if never.
    pub expires_at: Option<Time>,
    /// The ID of the token at its issuer, if that is another system.
    pub remote_id: Option<&'a str>,
}

/// The facts of the object that templates may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    owner: String,
    display_name: String,
    namespace: String,
    name: String,
    scopes: String,
    audiences: String,
}

impl Subject {
    pub(super) fn read(namespace: &str, name: &str, owner_text: &str, spec: &PersonalAccessTokenSpec) -> Self {
        Self {
            owner: owner_text.to_owned(),
            display_name: spec.display_name.as_deref().unwrap_or(name).to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            scopes: spec.scopes.join(" "),
            audiences: spec.audiences.join(" "),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TemplateVariable {
    Token,
    PreviousToken,
    Id,
    PreviousId,
    Owner,
    Username,
    DisplayName,
    Namespace,
    Name,
    Scopes,
    Audiences,
    IssuedAt,
    ExpiresAt,
    RemoteId,
}

impl TemplateVariable {
    pub(super) const ALL: &'static [Self] = &[
        Self::Token,
        Self::PreviousToken,
        Self::Id,
        Self::PreviousId,
        Self::Owner,
        Self::Username,
        Self::DisplayName,
        Self::Namespace,
        Self::Name,
        Self::Scopes,
        Self::Audiences,
        Self::IssuedAt,
        Self::ExpiresAt,
        Self::RemoteId,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::PreviousToken => "previousToken",
            Self::Id => "id",
            Self::PreviousId => "previousId",
            Self::Owner => "owner",
            Self::Username => "username",
            Self::DisplayName => "displayName",
            Self::Namespace => "namespace",
            Self::Name => "name",
            Self::Scopes => "scopes",
            Self::Audiences => "audiences",
            Self::IssuedAt => "issuedAt",
            Self::ExpiresAt => "expiresAt",
            Self::RemoteId => "remoteId",
        }
    }

    /// Whether its value depends on the previous token.
    pub(super) fn is_previous(self) -> bool {
        matches!(self, Self::PreviousToken | Self::PreviousId)
    }

    /// Returns the value, empty if there is none; `None` for the two secret variables.
    pub(super) fn public<'a>(self, subject: &'a Subject, facts: &TemplateFacts<'a>) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::Token | Self::PreviousToken => return None,
            Self::Id => facts.id.into(),
            Self::PreviousId => facts.previous_id.unwrap_or_default().into(),
            Self::Owner | Self::Username => (&subject.owner).into(),
            Self::DisplayName => (&subject.display_name).into(),
            Self::Namespace => (&subject.namespace).into(),
            Self::Name => (&subject.name).into(),
            Self::Scopes => (&subject.scopes).into(),
            Self::Audiences => (&subject.audiences).into(),
            Self::IssuedAt => facts.issued_at.to_string().into(),
            Self::RemoteId => facts.remote_id.unwrap_or_default().into(),
            Self::ExpiresAt => facts.expires_at.map(|time| time.to_string()).unwrap_or_default().into(),
        })
    }
}

/// All characters except the unreserved ones of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The filters of templates. No filter shortens its input, so the limit of the output bounds every intermediate text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TemplateFilter {
    /// Base64 with padding, in the standard alphabet (RFC 4648, section 4).
    B64encode,
    /// A JSON string, quotes included.
    Tojson,
    /// Percent-encoding of all but the unreserved characters of RFC 3986.
    Urlencode,
}

impl TemplateFilter {
    pub(super) const ALL: &'static [Self] = &[Self::B64encode, Self::Tojson, Self::Urlencode];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::B64encode => "b64encode",
            Self::Tojson => "tojson",
            Self::Urlencode => "urlencode",
        }
    }

    /// Applies the filter to `text`.
    pub(super) fn apply(self, text: &str, limit: usize) -> Result<Buffer, TooLarge> {
        let mut output = Buffer::new(limit);
        match self {
            Self::B64encode => base64(text, &mut output)?,
            Self::Tojson => json(text, &mut output)?,
            Self::Urlencode => percent_encode(text.as_bytes(), RESERVED).try_for_each(|part| output.push(part))?,
        }
        Ok(output)
    }
}

fn base64(text: &str, output: &mut Buffer) -> Result<(), TooLarge> {
    output.push(&Zeroizing::new(STANDARD.encode(text)))
}

/// Appends `value` as JSON. Only texts and maps of texts are serialised, so the one possible failure is the limit.
pub(super) fn json(value: &(impl serde::Serialize + ?Sized), output: &mut Buffer) -> Result<(), TooLarge> {
    serde_json::to_writer(output, value).map_err(|_| TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::MAX_DATA;

    fn apply(filter: TemplateFilter, text: &str) -> String {
        filter.apply(text, MAX_DATA).unwrap().as_str().to_owned()
    }

    #[test]
    fn filters_follow_their_standards() {
        for (filter, text, output) in [
            (TemplateFilter::B64encode, "", ""),
            (TemplateFilter::B64encode, "f", "Zg=="),
            (TemplateFilter::B64encode, "foobar", "Zm9vYmFy"),
            (TemplateFilter::B64encode, "\u{7ff}\u{ff}~", "37/Dv34="),
            (TemplateFilter::Tojson, "", r#""""#),
            (TemplateFilter::Tojson, "a\"\\\n\u{1}é", r#""a\"\\\n\u0001é""#),
            (TemplateFilter::Urlencode, "AZaz09-._~", "AZaz09-._~"),
            (TemplateFilter::Urlencode, "a b+c/d:e@é%", "a%20b%2Bc%2Fd%3Ae%40%C3%A9%25"),
        ] {
            assert_eq!(apply(filter, text), output, "{filter:?} of {text:?}");
        }
    }

    #[test]
    fn filter_stops_at_the_limit() {
        for &filter in TemplateFilter::ALL {
            assert!(filter.apply("%%%%", 3).is_err(), "{filter:?}");
        }
    }

    proptest! {
        #[test]
        fn filtered_text_reads_back_and_is_never_shorter(text in "\\PC*|[\\x00-\\x7f]*") {
            prop_assert_eq!(&serde_json::from_str::<String>(&apply(TemplateFilter::Tojson, &text)).unwrap(), &text);
            prop_assert_eq!(&STANDARD.decode(apply(TemplateFilter::B64encode, &text)).unwrap(), text.as_bytes());
            let encoded = apply(TemplateFilter::Urlencode, &text);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
            prop_assert_eq!(percent_encoding::percent_decode_str(&encoded).decode_utf8().unwrap(), text.as_str());
            for &filter in TemplateFilter::ALL {
                prop_assert!(apply(filter, &text).len() >= text.len());
            }
        }
    }
}
