//! The parameters of the list: page, limit, sort, search, and filters such as `createdAt[gte]=…`. Pure.
//!
//! Strict: what is not understood is refused by its name, since a filter that is passed over would show too much.

use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{Owner, Time},
    index::PatUid,
    rest::{
        failure::Failure,
        filter::{Field, Filter, Test, Value},
        query::{Query, Sort, Whose},
        when,
    },
};

/// The largest page number: that of the clients' 32-bit integers.
const MAX_PAGE: usize = i32::MAX as usize;

/// The largest number of tokens in a page, and how many there are if nobody says: who does not ask for pages sees the most.
const MAX_LIMIT: usize = 100;

/// The longest text to search for.
const MAX_SEARCH: usize = 256;

/// The most values of `in` and `nin`.
const MAX_VALUES: usize = 100;

/// By what a list may be sorted, as the items' fields are called.
const SORTABLE: [(&str, Field); 6] = [
    ("createdAt", Field::CreatedAt),
    ("updatedAt", Field::UpdatedAt),
    ("expiresAt", Field::ExpiresAt),
    ("lastUsedAt", Field::LastUsedAt),
    ("name", Field::Name),
    ("id", Field::Id),
];

const SORT_WORDS: &str =
    "must be one of createdAt, updatedAt, expiresAt, lastUsedAt, name and id, with - in front for the largest first";

/// What can be filtered by.
const FILTERS: [(&str, Field); 3] =
    [("id", Field::Id), ("createdAt", Field::CreatedAt), ("updatedAt", Field::UpdatedAt)];

/// What a list may be asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "it is only described")]
pub struct CryptlexListParameters {
    /// The number of the page.
    #[param(minimum = 1, maximum = 2_147_483_647, default = 1, required = false)]
    page: u32,
    /// How many tokens a page has.
    #[param(minimum = 1, maximum = 100, default = 100, required = false)]
    limit: u32,
    /// In which order: the name of a field, with `-` in front for the largest first. Ties are broken by the id, and what has no
    /// value comes last.
    #[param(value_type = String, pattern = "^-?(createdAt|updatedAt|expiresAt|lastUsedAt|name|id)$", default = "createdAt", required = false)]
    sort: String,
    /// Only tokens that have this in their name or description, in any case.
    #[param(max_length = 256, required = false)]
    search: String,
    /// The same as `search`; give one of them.
    #[param(max_length = 256, required = false)]
    query: String,
    /// Only tokens whose id passes all of these, such as `id[sw]=0e02`; `id=…` is `id[eq]=…`.
    #[param(style = DeepObject, explode, value_type = CryptlexIdFilter, required = false)]
    id: CryptlexIdFilter,
    /// Only tokens whose creation passes all of these, such as `createdAt[gte]=2030-01-01T00:00:00Z`; `createdAt=…` is
    /// `createdAt[eq]=…`.
    #[param(style = DeepObject, explode, value_type = CryptlexTimeFilter, required = false)]
    created_at: CryptlexTimeFilter,
    /// Only tokens whose last change, uses aside, passes all of these.
    #[param(style = DeepObject, explode, value_type = CryptlexTimeFilter, required = false)]
    updated_at: CryptlexTimeFilter,
}

/// Comparisons with a text.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
pub struct CryptlexIdFilter {
    /// It is this.
    eq: Option<String>,
    /// It is anything else.
    ne: Option<String>,
    /// It is more.
    gt: Option<String>,
    /// It is more or this.
    gte: Option<String>,
    /// It is less.
    lt: Option<String>,
    /// It is less or this.
    lte: Option<String>,
    /// It starts with this.
    sw: Option<String>,
    /// It ends with this.
    ew: Option<String>,
    /// It has this in it.
    cn: Option<String>,
    /// It does not.
    nc: Option<String>,
    /// It is one of these, separated by commas.
    #[schema(rename = "in")]
    in_: Option<String>,
    /// It is none of these, separated by commas.
    nin: Option<String>,
}

/// Comparisons with a time: RFC 3339; without a zone it is UTC, and a date alone is its first instant.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
pub struct CryptlexTimeFilter {
    /// It is then.
    #[schema(format = DateTime)]
    eq: Option<String>,
    /// It is at any other time.
    #[schema(format = DateTime)]
    ne: Option<String>,
    /// It is later.
    #[schema(format = DateTime)]
    gt: Option<String>,
    /// It is later or then.
    #[schema(format = DateTime)]
    gte: Option<String>,
    /// It is earlier.
    #[schema(format = DateTime)]
    lt: Option<String>,
    /// It is earlier or then.
    #[schema(format = DateTime)]
    lte: Option<String>,
}

/// Reads the part of a URL after `?`; the list is one of this owner's tokens.
///
/// # Errors
/// `Invalid`, with the parameter's name.
pub fn read(text: &str, owner: Owner) -> Result<Query, Failure> {
    let (mut page, mut limit, mut sort, mut search) = (None, None, None, None);
    let mut filters = Vec::new();
    let mut seen = Vec::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        if seen.contains(&name) {
            return Err(Failure::invalid(name, "is given more than once"));
        }
        match &*name {
            "page" => page = Some(number(&name, &value, MAX_PAGE)?),
            "limit" => limit = Some(number(&name, &value, MAX_LIMIT)?),
            "sort" => sort = Some(order(&value)?),
            "search" | "query" => {
                if search.is_some() {
                    return Err(Failure::invalid(name, "search and query are the same: give one of them"));
                }
                if value.chars().count() > MAX_SEARCH {
                    return Err(Failure::invalid(name, format!("has at most {MAX_SEARCH} characters")));
                }
                search = Some(value.into_owned());
            }
            _ => filters.push(filter(&name, &value)?),
        }
        seen.push(name);
    }
    let limit = limit.unwrap_or(MAX_LIMIT);
    Ok(Query {
        whose: Whose::Owner(owner),
        filter: (!filters.is_empty()).then_some(Filter::Every(filters)),
        search,
        sort: sort.into_iter().collect(),
        offset: (page.unwrap_or(1) - 1).saturating_mul(limit),
        limit: Some(limit),
    })
}

fn number(name: &str, value: &str, max: usize) -> Result<usize, Failure> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| digits && (1..=max).contains(number));
    number.ok_or_else(|| Failure::invalid(name, format!("must be a whole number from 1 to {max}")))
}

fn order(value: &str) -> Result<Sort, Failure> {
    let (descending, field) = value.strip_prefix('-').map_or((false, value), |field| (true, field));
    let by = SORTABLE.iter().find(|(name, _)| *name == field).map(|(_, by)| *by);
    by.map(|by| Sort { by, descending }).ok_or_else(|| Failure::invalid("sort", SORT_WORDS))
}

fn filter(name: &str, value: &str) -> Result<Filter, Failure> {
    let (field, operator) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
        Some((field, operator)) => (field, operator),
        None => (name, "eq"),
    };
    let Some((_, field)) = FILTERS.iter().find(|(name, _)| *name == field) else {
        return Err(Failure::invalid(
            name,
            "there is no such parameter: there are page, limit, sort, search, id, createdAt and updatedAt",
        ));
    };
    let test = match field {
        Field::Id => text_test(name, operator, value)?,
        _ => time_test(name, operator, value)?,
    };
    Ok(Filter::Test(*field, test))
}

fn time_test(name: &str, operator: &str, value: &str) -> Result<Test, Failure> {
    compared(operator, || time(name, value).map(Value::Time))
        .unwrap_or_else(|| Err(Failure::invalid(name, "a time is compared by eq, ne, gt, gte, lt or lte")))
}

fn text_test(name: &str, operator: &str, value: &str) -> Result<Test, Failure> {
    let many = || {
        let values: Vec<Value> = value.split(',').map(id).collect();
        if values.len() <= MAX_VALUES {
            return Ok(values);
        }
        Err(Failure::invalid(name, format!("takes at most {MAX_VALUES} values")))
    };
    match operator {
        "sw" => Ok(Test::StartsWith(value.to_owned())),
        "ew" => Ok(Test::EndsWith(value.to_owned())),
        "cn" => Ok(Test::Contains(value.to_owned())),
        "nc" => Ok(Test::NotContains(value.to_owned())),
        "in" => many().map(Test::In),
        "nin" => many().map(Test::NotIn),
        _ => compared(operator, || Ok(id(value))).unwrap_or_else(|| {
            let words = "a text is compared by eq, ne, gt, gte, lt, lte, sw, ew, cn, nc, in or nin";
            Err(Failure::invalid(name, words))
        }),
    }
}

/// The comparison of what has an order; `None` if it is another.
fn compared(operator: &str, value: impl FnOnce() -> Result<Value, Failure>) -> Option<Result<Test, Failure>> {
    let test = match operator {
        "eq" => Test::Eq,
        "ne" => Test::Ne,
        "gt" => Test::Gt,
        "gte" => Test::Ge,
        "lt" => Test::Lt,
        "lte" => Test::Le,
        _ => return None,
    };
    Some(value().map(test))
}

/// An id in any spelling of a UUID is the id; anything else is only text.
fn id(value: &str) -> Value {
    Value::Text(value.parse().map_or_else(|_| value.to_owned(), |uid: PatUid| uid.to_string()))
}

fn time(name: &str, value: &str) -> Result<Time, Failure> {
    /// Where a space may stand in place of `T`.
    const DATE: usize = "2030-01-01".len();
    // `+02:00` that was not encoded arrives as ` 02:00`.
    let repaired = match value.rfind(' ') {
        Some(place) if place > DATE => format!("{}+{}", &value[..place], &value[place + 1..]),
        _ => value.to_owned(),
    };
    when::read(&repaired).map_err(|error| Failure::invalid(name, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::OwnerKind;

    fn ada() -> Owner {
        Owner { kind: OwnerKind::User, name: "ada".into() }
    }

    fn at(text: &str) -> Value {
        Value::Time(text.parse().unwrap())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn without_parameters_it_is_the_first_hundred_by_creation() {
        let query = Query { whose: Whose::Owner(ada()), limit: Some(100), ..Query::default() };
        assert_eq!(read("", ada()), Ok(query.clone()));
        assert_eq!(read("page=1&limit=100", ada()), Ok(query));
    }

    #[test]
    fn page_and_limit_say_which_part() {
        for (given, offset, limit) in [
            ("page=2", 100, 100),
            ("limit=1", 0, 1),
            ("page=3&limit=7", 14, 7),
            ("limit=7&page=3", 14, 7),
            ("page=2147483647&limit=100", 214_748_364_600, 100),
        ] {
            let query = read(given, ada()).unwrap();
            assert_eq!((query.offset, query.limit), (offset, Some(limit)), "{given}");
        }
    }

    #[test]
    fn sort_takes_the_fields_of_an_item_in_both_directions() {
        for (name, by) in SORTABLE {
            for (sign, descending) in [("", false), ("-", true)] {
                let query = read(&format!("sort={sign}{name}"), ada()).unwrap();
                assert_eq!(query.sort, [Sort { by, descending }], "{name}");
            }
        }
    }

    #[test]
    fn search_and_query_are_the_same() {
        for given in ["search=my+token", "query=my%20token"] {
            assert_eq!(read(given, ada()).unwrap().search.as_deref(), Some("my token"), "{given}");
        }
    }

    #[test]
    fn every_operator_is_known_with_its_brackets_encoded_or_not() {
        let time = || at("2030-01-01T00:00:00Z");
        for (given, field, test) in [
            ("createdAt=2030-01-01", Field::CreatedAt, Test::Eq(time())),
            ("createdAt[eq]=2030-01-01T00:00:00Z", Field::CreatedAt, Test::Eq(time())),
            ("createdAt[ne]=2030-01-01T01:00:00%2B01:00", Field::CreatedAt, Test::Ne(time())),
            ("createdAt[gt]=2030-01-01T01:00:00+01:00", Field::CreatedAt, Test::Gt(time())),
            ("createdAt%5Bgte%5D=2030-01-01+00:00", Field::CreatedAt, Test::Ge(time())),
            ("updatedAt[lt]=2030-01-01T00:00", Field::UpdatedAt, Test::Lt(time())),
            ("updatedAt%5blte%5d=2029-12-31T23:00:00-01:00", Field::UpdatedAt, Test::Le(time())),
            ("id=0E02B2C3-58cc-4372-a567-0e02b2c3d479", Field::Id, Test::Eq(text("0e02b2c358cc4372a5670e02b2c3d479"))),
            ("id[eq]=x", Field::Id, Test::Eq(text("x"))),
            ("id[ne]=x", Field::Id, Test::Ne(text("x"))),
            ("id[gt]=x", Field::Id, Test::Gt(text("x"))),
            ("id[gte]=x", Field::Id, Test::Ge(text("x"))),
            ("id[lt]=x", Field::Id, Test::Lt(text("x"))),
            ("id[lte]=x", Field::Id, Test::Le(text("x"))),
            ("id[sw]=0e", Field::Id, Test::StartsWith("0e".into())),
            ("id[ew]=79", Field::Id, Test::EndsWith("79".into())),
            ("id[cn]=b2", Field::Id, Test::Contains("b2".into())),
            ("id[nc]=b2", Field::Id, Test::NotContains("b2".into())),
            ("id[in]=x,y", Field::Id, Test::In(vec![text("x"), text("y")])),
            ("id[nin]=x", Field::Id, Test::NotIn(vec![text("x")])),
        ] {
            let query = read(given, ada()).unwrap();
            assert_eq!(query.filter, Some(Filter::Every(vec![Filter::Test(field, test)])), "{given}");
        }
        let both = read("createdAt[gte]=2030-01-01&createdAt[lt]=2030-01-01&id=x", ada()).unwrap().filter;
        assert!(matches!(both, Some(Filter::Every(tests)) if tests.len() == 3));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_name() {
        let long = "x".repeat(MAX_SEARCH + 1);
        let many = vec!["x"; MAX_VALUES + 1].join(",");
        for (given, field) in [
            ("page=0", "page"),
            ("page=-1", "page"),
            ("page=+1", "page"),
            ("page=", "page"),
            ("page=1.0", "page"),
            ("page=2147483648", "page"),
            ("page=99999999999999999999999", "page"),
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=1e9", "limit"),
            ("limit=ten", "limit"),
            ("sort=", "sort"),
            ("sort=-", "sort"),
            ("sort=--createdAt", "sort"),
            ("sort=created", "sort"),
            ("sort=createdAt,name", "sort"),
            ("sort=revoked", "sort"),
            ("page=1&page=1", "page"),
            ("search=a&query=a", "query"),
            ("createdAt[gte]=2030-01-01&createdAt%5Bgte%5D=2030-01-02", "createdAt[gte]"),
            ("createdAt=yesterday", "createdAt"),
            ("createdAt[gte]=", "createdAt[gte]"),
            ("createdAt[gte]=2030-13-01", "createdAt[gte]"),
            ("createdAt[sw]=2030", "createdAt[sw]"),
            ("createdAt[in]=2030-01-01", "createdAt[in]"),
            ("createdAt[]=2030-01-01", "createdAt[]"),
            ("createdAt[gte]x=2030-01-01", "createdAt[gte]x"),
            ("createdAt[gte][lt]=2030-01-01", "createdAt[gte][lt]"),
            ("id[GT]=x", "id[GT]"),
            ("id[like]=x", "id[like]"),
            ("name=x", "name"),
            ("Page=1", "Page"),
            ("[gte]=2030-01-01", "[gte]"),
            ("=", ""),
            (&format!("search={long}"), "search"),
            (&format!("id[in]={many}"), "id[in]"),
        ] {
            match read(given, ada()) {
                Err(Failure::Invalid { field: named, problem }) => {
                    assert_eq!(named, field, "{given}");
                    assert!(!problem.is_empty());
                }
                other => panic!("{given}: {other:?}"),
            }
        }
    }
}
