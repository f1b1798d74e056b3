//! The variables of templates, and where each takes its value from.
//!
//! It must not hold a token: whoever renders puts those two in, everybody else sees only what is public.

use std::borrow::Cow;

use crate::api::{PersonalAccessTokenSpec, Time};

/// What changes from token to token and is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The id of the token.
    pub id: &'a str,
    /// The id of the replaced token that [`Layout::render`](super::Layout::render) is given; `None` if it is given none.
    pub previous_id: Option<&'a str>,
    /// When the token was issued.
    pub issued_at: Time,
    /// The end of the whole token, over all rotations; `None` if it has none.
    pub expires_at: Option<Time>,
}

/// What the object itself says, as text.
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

/// What a template may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
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
}

impl Variable {
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
    ];

    /// The name that it has in a template.
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
        }
    }

    /// Whether it speaks of the token that was replaced last.
    pub(super) fn is_previous(self) -> bool {
        matches!(self, Self::PreviousToken | Self::PreviousId)
    }

    /// Its value, empty where there is none; `None` for the two that are secret.
    pub(super) fn public<'a>(self, subject: &'a Subject, facts: &Facts<'a>) -> Option<Cow<'a, str>> {
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
            Self::ExpiresAt => facts.expires_at.map(|time| time.to_string()).unwrap_or_default().into(),
        })
    }
}
