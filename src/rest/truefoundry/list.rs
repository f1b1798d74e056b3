//! What is asked for by a list: which part of it, and a text in the names. Pure.

use std::borrow::Cow;

use crate::{
    api::Owner,
    rest::{
        failure::Failure,
        filter::{Field, Filter, Test},
        query::{Query, Whose},
    },
};

/// How many there are on a page that says nothing else.
const LIMIT: usize = 100;

/// The most that a page may have.
const MAX_LIMIT: usize = 1000;

/// The largest whole number that every reader of JSON reads as it stands.
const MAX_OFFSET: usize = 9_007_199_254_740_991;

/// The parameters of a list.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "it is only described")]
pub struct TruefoundryListParameters {
    /// How many tokens at most.
    #[param(required = false, default = 100, minimum = 1, maximum = 1000)]
    limit: u16,
    /// How many tokens to skip. At and past the end there are none, and that is no error.
    #[param(required = false, default = 0, minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    offset: u64,
    /// Only tokens that have this in their name, in any case.
    #[param(required = false)]
    name_search_query: String,
}

/// A part of a list.
#[derive(Debug, PartialEq)]
pub struct Part {
    /// How many at most.
    pub limit: usize,
    /// How many to skip.
    pub offset: usize,
    /// What the names have in them.
    pub name: Option<String>,
}

impl Part {
    /// Reads the parameters.
    ///
    /// # Errors
    /// `Invalid` for a number out of its range, for what is given twice, and for a parameter that there is not.
    pub fn read(query: &str) -> Result<Self, Failure> {
        let (mut limit, mut offset, mut name) = (None, None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*key {
                "limit" => &mut limit,
                "offset" => &mut offset,
                "nameSearchQuery" => &mut name,
                _ => return Err(Failure::invalid(short(&key), "there are limit, offset and nameSearchQuery")),
            };
            if place.replace(value).is_some() {
                return Err(Failure::invalid(key, "must be given once"));
            }
        }
        Ok(Self {
            limit: number("limit", limit, LIMIT, 1, MAX_LIMIT)?,
            offset: number("offset", offset, 0, 0, MAX_OFFSET)?,
            name: name.map(Cow::into_owned),
        })
    }

    /// The query for this part of an owner's tokens.
    pub fn of(&self, owner: Owner) -> Query {
        Query {
            whose: Whose::Owner(owner),
            filter: self.name.clone().map(|name| Filter::Test(Field::Name, Test::Contains(name))),
            offset: self.offset,
            limit: Some(self.limit),
            ..Query::default()
        }
    }
}

fn number(field: &str, text: Option<Cow<'_, str>>, default: usize, min: usize, max: usize) -> Result<usize, Failure> {
    let Some(text) = text else { return Ok(default) };
    // `parse` would take a plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && (min..=max).contains(number));
    number.ok_or_else(|| Failure::invalid(field, format!("must be a whole number from {min} to {max}")))
}

/// The beginning of a name that somebody made up.
fn short(name: &str) -> String {
    name.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_its_defaults_and_its_bounds() {
        let part = |limit, offset, name: Option<&str>| Ok(Part { limit, offset, name: name.map(str::to_owned) });
        for (query, read) in [
            ("", part(100, 0, None)),
            ("limit=1", part(1, 0, None)),
            ("limit=1000&offset=0", part(1000, 0, None)),
            ("offset=007", part(100, 7, None)),
            ("offset=9007199254740991", part(100, MAX_OFFSET, None)),
            ("nameSearchQuery=", part(100, 0, Some(""))),
            ("nameSearchQuery=a+b%20c%26d", part(100, 0, Some("a b c&d"))),
            ("%6cimit=5", part(5, 0, None)),
        ] {
            assert_eq!(Part::read(query), read, "{query}");
        }
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=-1", "limit"),
            ("limit=%2B5", "limit"),
            ("limit=1e9", "limit"),
            ("limit=10.0", "limit"),
            ("limit=", "limit"),
            ("limit=1&limit=1", "limit"),
            ("limit=99999999999999999999999", "limit"),
            ("limit=%D9%A1", "limit"),
            ("offset=-1", "offset"),
            ("offset=1e9", "offset"),
            ("offset=9007199254740992", "offset"),
            ("offset=0&limit=1&offset=0", "offset"),
            ("nameSearchQuery=a&nameSearchQuery=b", "nameSearchQuery"),
            ("Limit=1", "Limit"),
            ("page=1", "page"),
        ] {
            let Err(Failure::Invalid { field: named, .. }) = Part::read(query) else { panic!("{query} is taken") };
            assert_eq!(named, field, "{query}");
        }
    }
}
