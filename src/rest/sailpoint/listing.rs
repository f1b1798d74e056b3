//! The parameters of a list. Pure.

use super::{access::OwnerId, filters};
use crate::rest::{failure::Failure, filter::Filter};

/// What a list asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Whose tokens.
    pub owner: OwnerId,
    /// Which of them.
    pub filter: Option<Filter>,
}

/// The names of the parameters.
const OWNER_ID: &str = "owner-id";
const FILTERS: &str = "filters";

/// The value of [`OWNER_ID`] that means the caller.
const ME: &str = "me";

impl Listing {
    /// Reads a query string. There are no other parameters: a list has no pages, and whoever asks for one would believe that there
    /// is no more.
    ///
    /// # Errors
    /// `Invalid`: a parameter that is there twice or is none of these, and a filter that cannot be read.
    pub fn read(query: &str) -> Result<Self, Failure> {
        let (mut owner, mut filter) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                OWNER_ID => &mut owner,
                FILTERS => &mut filter,
                _ => {
                    let name: String = name.chars().take(40).collect();
                    return Err(Failure::invalid(name, "is not a parameter of this list: it has owner-id and filters"));
                }
            };
            if place.replace(value).is_some() {
                return Err(Failure::invalid(name, "must be there only once"));
            }
        }
        let filter = filters::parse(filter.as_deref().unwrap_or_default());
        Ok(Self {
            owner: match owner.as_deref() {
                None | Some("") => OwnerId::Everybody,
                Some(ME) => OwnerId::Me,
                Some(id) => OwnerId::Id(id.to_owned()),
            },
            filter: filter.map_err(|error| Failure::invalid(FILTERS, error.to_string()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::filter::{Field, Test};

    fn read(query: &str) -> Result<Listing, String> {
        Listing::read(query).map_err(|failure| failure.to_string())
    }

    #[test]
    fn owner_id_may_be_absent_or_empty_or_me_or_an_id() {
        for (query, owner) in [
            ("", OwnerId::Everybody),
            ("owner-id=", OwnerId::Everybody),
            ("owner-id", OwnerId::Everybody),
            ("owner-id=me", OwnerId::Me),
            ("owner-id=ME", OwnerId::Id("ME".into())),
            ("owner-id=jane%40example.com", OwnerId::Id("jane@example.com".into())),
            ("filters=&owner-id=me", OwnerId::Me),
        ] {
            assert_eq!(read(query), Ok(Listing { owner, filter: None }), "{query}");
        }
    }

    #[test]
    fn spaces_of_a_filter_arrive_in_either_form() {
        for query in ["filters=lastUsed%20isnull", "filters=lastUsed+isnull"] {
            let filter = Filter::Test(Field::LastUsedAt, Test::IsNull);
            assert_eq!(read(query).unwrap().filter, Some(filter), "{query}");
        }
        for query in
            ["filters=lastUsed%20le%202023-02-05T10:59:27%2B01:00", "filters=lastUsed+le+2023-02-05T10:59:27+01:00"]
        {
            let Some(Filter::Test(_, Test::Le(value))) = read(query).unwrap().filter else { panic!("{query}") };
            assert_eq!(value, crate::rest::filter::Value::Time("2023-02-05T09:59:27Z".parse().unwrap()));
        }
    }

    #[test]
    fn a_parameter_that_is_there_twice_or_unknown_is_refused_by_name() {
        for (query, words) in [
            ("owner-id=me&owner-id=me", "owner-id: must be there only once"),
            ("owner-id=&owner-id=me", "owner-id: must be there only once"),
            ("filters=&filters=lastUsed+isnull", "filters: must be there only once"),
            ("limit=1000000000", "limit: is not a parameter of this list: it has owner-id and filters"),
            ("Owner-Id=me", "Owner-Id: is not a parameter of this list: it has owner-id and filters"),
            ("filters=name+isnull", "filters: at character 1: \"name\" is not a field to filter by: write lastUsed"),
        ] {
            assert_eq!(read(query), Err(words.into()), "{query}");
        }
    }
}
