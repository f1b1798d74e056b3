//! The list: its parameters, whose tokens the caller may read, and the response.
//!
//! The response is a JSON array that is never in memory as a whole: it is written in parts, as fast as the client reads. axum-extra's
//! `JsonLines` streams lines and not an array.

use std::{io, sync::Arc, vec};

use axum::body::{Body, Bytes};
use futures::stream;
use serde::Serialize;

use super::filters;
use crate::{
    api::Owner,
    rest::{
        caller::{RestCaller, TokenSet, Verb},
        error::RestError,
        model::TokenItem,
        query::{OwnerSelector, TokenFilter},
    },
};

/// The parameters of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SailpointListQuery {
    /// Whose tokens.
    pub owner: OwnerIdParameter,
    /// The filter.
    pub filter: Option<TokenFilter>,
}

/// The parameter `owner-id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OwnerIdParameter {
    /// Absent or empty: all owners.
    #[default]
    All,
    /// `me`.
    Me,
    /// An owner's id.
    Id(String),
}

const OWNER_ID: &str = "owner-id";
const FILTERS: &str = "filters";

/// The value of [`OWNER_ID`] for the caller.
const ME: &str = "me";

impl SailpointListQuery {
    /// Parses a query string. Unknown parameters are errors: a client that requests a page would treat it as the whole list.
    pub fn parse(query: &str) -> Result<Self, RestError> {
        let (mut owner, mut filter) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                OWNER_ID => &mut owner,
                FILTERS => &mut filter,
                _ => {
                    let name: String = name.chars().take(40).collect();
                    return Err(RestError::invalid(name, "unknown parameter: supported are owner-id and filters"));
                }
            };
            if place.replace(value).is_some() {
                return Err(RestError::invalid(name, "must not be set more than once"));
            }
        }
        let filter = filters::parse(filter.as_deref().unwrap_or_default());
        Ok(Self {
            owner: match owner.as_deref() {
                None | Some("") => OwnerIdParameter::All,
                Some(ME) => OwnerIdParameter::Me,
                Some(id) => OwnerIdParameter::Id(id.to_owned()),
            },
            filter: filter.map_err(|error| RestError::invalid(FILTERS, error.to_string()))?,
        })
    }
}

/// Returns whose tokens the list contains, as far as the caller may read them; `None` if the owner does not exist.
pub fn owner_selector(
    caller: &RestCaller,
    requested: &OwnerIdParameter,
    known: impl FnOnce(&str) -> Option<Owner>,
) -> Result<Option<OwnerSelector>, RestError> {
    let (set, owner) = match requested {
        OwnerIdParameter::All => {
            // Managed tokens are listed only by owner.
            caller.require_one_of(&[(TokenSet::All, Verb::Read)])?;
            return Ok(Some(OwnerSelector::All));
        }
        OwnerIdParameter::Me => (TokenSet::My, Some(caller.owner.clone())),
        OwnerIdParameter::Id(id) => (TokenSet::All, known(id)),
    };
    caller.require_one_of(&[(set, Verb::Read), (TokenSet::Managed, Verb::Read)])?;
    let may_read_all = caller.permissions.allow(set, Verb::Read);
    Ok(owner.map(if may_read_all { OwnerSelector::Owner } else { OwnerSelector::Managed }))
}

/// The approximate size of a part in bytes.
const PART: usize = 32 * 1024;

/// Streams the tokens as a JSON array. `write` appends one token.
pub fn stream(
    items: Vec<Arc<TokenItem>>,
    write: impl Fn(&TokenItem, &mut Vec<u8>) -> io::Result<()> + Send + 'static,
) -> Body {
    let writer = ArrayWriter { items: items.into_iter(), begun: false, write };
    Body::from_stream(stream::unfold(Some(writer), |writer| async {
        let mut writer = writer?;
        match writer.part() {
            Ok((part, true)) => Some((Ok(part), Some(writer))),
            Ok((part, false)) => Some((Ok(part), None)),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// Appends a value as JSON.
pub fn append(value: &impl Serialize, to: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(to, value).map_err(io::Error::from)
}

struct ArrayWriter<W> {
    items: vec::IntoIter<Arc<TokenItem>>,
    begun: bool,
    write: W,
}

impl<W: Fn(&TokenItem, &mut Vec<u8>) -> io::Result<()>> ArrayWriter<W> {
    /// Returns the next part, and whether there are more.
    fn part(&mut self) -> io::Result<(Bytes, bool)> {
        let mut part = Vec::with_capacity(if self.items.len() > 64 { PART + PART / 4 } else { 1024 });
        while part.len() < PART {
            let Some(item) = self.items.next() else {
                part.extend_from_slice(if self.begun { b"]" } else { b"[]" });
                return Ok((part.into(), false));
            };
            part.push(if self.begun { b',' } else { b'[' });
            self.begun = true;
            (self.write)(&item, &mut part)?;
        }
        Ok((part.into(), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::query::{Comparison, Operand, TokenField};

    fn parse(query: &str) -> Result<SailpointListQuery, String> {
        SailpointListQuery::parse(query).map_err(|error| error.to_string())
    }

    #[test]
    fn owner_id_is_absent_or_empty_or_me_or_an_id() {
        for (query, owner) in [
            ("", OwnerIdParameter::All),
            ("owner-id=", OwnerIdParameter::All),
            ("owner-id", OwnerIdParameter::All),
            ("owner-id=me", OwnerIdParameter::Me),
            ("owner-id=ME", OwnerIdParameter::Id("ME".into())),
            ("owner-id=jane%40example.com", OwnerIdParameter::Id("jane@example.com".into())),
            ("filters=&owner-id=me", OwnerIdParameter::Me),
        ] {
            assert_eq!(parse(query), Ok(SailpointListQuery { owner, filter: None }), "{query}");
        }
    }

    #[test]
    fn spaces_of_a_filter_are_accepted_in_both_encodings() {
        for query in ["filters=lastUsed%20isnull", "filters=lastUsed+isnull"] {
            let filter = TokenFilter::Compare(TokenField::LastUsedAt, Comparison::IsNull);
            assert_eq!(parse(query).unwrap().filter, Some(filter), "{query}");
        }
        for query in
            ["filters=lastUsed%20le%202023-02-05T10:59:27%2B01:00", "filters=lastUsed+le+2023-02-05T10:59:27+01:00"]
        {
            let Some(TokenFilter::Compare(_, Comparison::Le(value))) = parse(query).unwrap().filter else {
                panic!("{query}")
            };
            assert_eq!(value, Operand::Time("2023-02-05T09:59:27Z".parse().unwrap()));
        }
    }

    #[test]
    fn duplicate_or_unknown_parameter_is_named() {
        for (query, words) in [
            ("owner-id=me&owner-id=me", "owner-id: must not be set more than once"),
            ("owner-id=&owner-id=me", "owner-id: must not be set more than once"),
            ("filters=&filters=lastUsed+isnull", "filters: must not be set more than once"),
            ("limit=1000000000", "limit: unknown parameter: supported are owner-id and filters"),
            ("Owner-Id=me", "Owner-Id: unknown parameter: supported are owner-id and filters"),
            ("filters=name+isnull", "filters: at character 1: unknown field \"name\": supported is lastUsed"),
        ] {
            assert_eq!(parse(query), Err(words.into()), "{query}");
        }
    }
}
