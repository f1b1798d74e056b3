//! Parameters of the list: page, limit, sort, search, and filters such as `createdAt[gte]=…`.
//!
//! Unknown parameters are errors, because an ignored filter would show too much. axum's `Query` extractor knows no brackets, and
//! `serde_qs` neither rejects unknown operators nor names the parameter in its errors.

use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema, Type,
        schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType},
    },
};

use crate::{
    api::{Owner, Time},
    index::PatUid,
    rest::{
        body,
        error::RestError,
        query::{Comparison, Operand, OwnerSelector, SortKey, TokenField, TokenFilter, TokenQuery},
        timestamp,
    },
};

/// The maximum page number: clients use 32-bit integers.
const MAX_PAGE: usize = i32::MAX as usize;

/// The maximum and default number of tokens on a page.
const MAX_LIMIT: usize = 100;

/// The maximum length of a search text.
const MAX_SEARCH: usize = 256;

/// The maximum number of values of `in` and `nin`.
const MAX_VALUES: usize = 100;

/// All fields of an item. All items of a list have the same user.
const SORT_FIELDS: [(&str, TokenField); 11] = [
    ("createdAt", TokenField::CreatedAt),
    ("updatedAt", TokenField::UpdatedAt),
    ("expiresAt", TokenField::ExpiresAt),
    ("lastUsedAt", TokenField::LastUsedAt),
    ("lastRotatedAt", TokenField::LastRotatedAt),
    ("name", TokenField::Name),
    ("revoked", TokenField::Revoked),
    ("scopes", TokenField::Scopes),
    ("userId", TokenField::Owner),
    ("user", TokenField::Owner),
    ("id", TokenField::Id),
];

const SORT_ERROR: &str = "must be createdAt, updatedAt, expiresAt, lastUsedAt, lastRotatedAt, name, revoked, scopes, userId, user or id, with a \
    leading - for descending order";

const FILTERS: [(&str, TokenField); 3] =
    [("id", TokenField::Id), ("createdAt", TokenField::CreatedAt), ("updatedAt", TokenField::UpdatedAt)];

/// The parameters of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the query, which is parsed by hand")]
pub struct CryptlexListParameters {
    /// The page number.
    #[param(minimum = 1, maximum = 2_147_483_647, default = 1, required = false)]
    page: u32,
    /// The number of tokens on a page.
    #[param(minimum = 1, maximum = 100, default = 100, required = false)]
    limit: u32,
    /// The field to sort by, with a leading `-` for descending order. Ties are broken by the id. Missing values come last.
    #[param(value_type = String, pattern = "^-?(createdAt|updatedAt|expiresAt|lastUsedAt|lastRotatedAt|name|revoked|scopes|userId|user|id)$", default = "createdAt", required = false)]
    sort: String,
    /// Text in the name or description, ignoring case.
    #[param(max_length = 256, required = false)]
    search: String,
    /// An alias of `search`. Set only one of them.
    #[param(max_length = 256, required = false)]
    query: String,
    /// A filter by id, such as `id[sw]=0e02`; `id=…` is the same as `id[eq]=…`.
    #[param(style = DeepObject, explode, value_type = CryptlexIdFilter, required = false)]
    id: CryptlexIdFilter,
    /// A filter by the time of creation, such as `createdAt[gte]=2030-01-01T00:00:00Z`; `createdAt=…` is the same as `createdAt[eq]=…`.
    #[param(style = DeepObject, explode, value_type = CryptlexTimeFilter, required = false)]
    created_at: CryptlexTimeFilter,
    /// A filter by the time of the last change other than a use.
    #[param(style = DeepObject, explode, value_type = CryptlexTimeFilter, required = false)]
    updated_at: CryptlexTimeFilter,
}

/// The operators of all filters, with the description of each.
const OPERATORS: [(&str, &str); 6] = [
    ("eq", "Equal to"),
    ("ne", "Not equal to"),
    ("gt", "Greater than"),
    ("gte", "Greater than or equal to"),
    ("lt", "Less than"),
    ("lte", "Less than or equal to"),
];

/// Further operators of text.
const TEXT_OPERATORS: [(&str, &str); 6] = [
    ("sw", "Starts with, ignoring case"),
    ("ew", "Ends with, ignoring case"),
    ("cn", "Contains, ignoring case"),
    ("nc", "Does not contain, ignoring case"),
    ("in", "Equal to one of these, separated by commas"),
    ("nin", "Equal to none of these, separated by commas"),
];

/// The description of a filter by id.
pub struct CryptlexIdFilter;

/// The description of a filter by time.
pub struct CryptlexTimeFilter;

impl ToSchema for CryptlexIdFilter {}

impl PartialSchema for CryptlexIdFilter {
    fn schema() -> RefOr<Schema> {
        filter_schema("Comparisons with text", OPERATORS.iter().chain(&TEXT_OPERATORS), None)
    }
}

impl ToSchema for CryptlexTimeFilter {}

impl PartialSchema for CryptlexTimeFilter {
    fn schema() -> RefOr<Schema> {
        let description =
            "Comparisons with a time as RFC 3339. Without a zone it is UTC, and a date is its first instant";
        filter_schema(description, &OPERATORS, Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
    }
}

fn filter_schema<'a>(
    description: &str,
    operators: impl IntoIterator<Item = &'a (&'a str, &'a str)>,
    format: Option<SchemaFormat>,
) -> RefOr<Schema> {
    let object = ObjectBuilder::new().description(Some(description));
    let with_operators = operators.into_iter().fold(object, |object, (operator, description)| {
        let text = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .format(format.clone())
            .description(Some(*description));
        object.property(*operator, text)
    });
    with_operators.into()
}

/// Parses a query string into a query for this owner's tokens.
pub fn parse(text: &str, owner: Owner) -> Result<TokenQuery, RestError> {
    let (mut page, mut limit, mut sort, mut search) = (None, None, None, None);
    let mut filters = Vec::new();
    let mut seen = Vec::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        if seen.contains(&name) {
            return Err(RestError::invalid(name, "must not be set more than once"));
        }
        match &*name {
            "page" => page = Some(body::number(&name, &value, 1..=MAX_PAGE)?),
            "limit" => limit = Some(body::number(&name, &value, 1..=MAX_LIMIT)?),
            "sort" => sort = Some(order(&value)?),
            "search" | "query" => {
                if search.is_some() {
                    return Err(RestError::invalid(name, "is the same as the other of search and query: set only one"));
                }
                if value.chars().count() > MAX_SEARCH {
                    return Err(RestError::invalid(name, format!("must have at most {MAX_SEARCH} characters")));
                }
                search = Some(value.into_owned());
            }
            _ => filters.push(filter(&name, &value)?),
        }
        seen.push(name);
    }
    let limit = limit.unwrap_or(MAX_LIMIT);
    Ok(TokenQuery {
        owner: OwnerSelector::Owner(owner),
        filter: (!filters.is_empty()).then_some(TokenFilter::All(filters)),
        search,
        sort: sort.into_iter().collect(),
        offset: (page.unwrap_or(1) - 1).saturating_mul(limit),
        limit: Some(limit),
    })
}

fn order(value: &str) -> Result<SortKey, RestError> {
    let (descending, field) = value.strip_prefix('-').map_or((false, value), |field| (true, field));
    let by = SORT_FIELDS.iter().find(|(name, _)| *name == field).map(|(_, by)| *by);
    by.map(|by| SortKey { by, descending }).ok_or_else(|| RestError::invalid("sort", SORT_ERROR))
}

fn filter(name: &str, value: &str) -> Result<TokenFilter, RestError> {
    let (field, operator) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
        Some((field, operator)) => (field, operator),
        None => (name, "eq"),
    };
    let Some((_, field)) = FILTERS.iter().find(|(name, _)| *name == field) else {
        return Err(RestError::invalid(
            name,
            "unknown parameter: supported are page, limit, sort, search, query, id, createdAt and updatedAt",
        ));
    };
    let comparison = match field {
        TokenField::Id => compare_text(name, operator, value)?,
        _ => compare_time(name, operator, value)?,
    };
    Ok(TokenFilter::Compare(*field, comparison))
}

fn compare_time(name: &str, operator: &str, value: &str) -> Result<Comparison, RestError> {
    ordered_comparison(operator, || time(name, value).map(Operand::Time))
        .unwrap_or_else(|| Err(RestError::invalid(name, "unknown operator: supported are eq, ne, gt, gte, lt and lte")))
}

fn compare_text(name: &str, operator: &str, value: &str) -> Result<Comparison, RestError> {
    let many = || {
        let values: Vec<Operand> = value.split(',').map(id).collect();
        if values.len() <= MAX_VALUES {
            return Ok(values);
        }
        Err(RestError::invalid(name, format!("must have at most {MAX_VALUES} values")))
    };
    match operator {
        "sw" => Ok(Comparison::StartsWith(value.to_owned())),
        "ew" => Ok(Comparison::EndsWith(value.to_owned())),
        "cn" => Ok(Comparison::Contains(value.to_owned())),
        "nc" => Ok(Comparison::NotContains(value.to_owned())),
        "in" => many().map(Comparison::In),
        "nin" => many().map(Comparison::NotIn),
        _ => ordered_comparison(operator, || Ok(id(value))).unwrap_or_else(|| {
            let problem = "unknown operator: supported are eq, ne, gt, gte, lt, lte, sw, ew, cn, nc, in and nin";
            Err(RestError::invalid(name, problem))
        }),
    }
}

/// Returns the comparison for an operator of all filters; `None` for any other.
fn ordered_comparison(
    operator: &str,
    value: impl FnOnce() -> Result<Operand, RestError>,
) -> Option<Result<Comparison, RestError>> {
    let comparison = match operator {
        "eq" => Comparison::Eq,
        "ne" => Comparison::Ne,
        "gt" => Comparison::Gt,
        "gte" => Comparison::Ge,
        "lt" => Comparison::Lt,
        "lte" => Comparison::Le,
        _ => return None,
    };
    Some(value().map(comparison))
}

/// A UUID with or without dashes, in any case, is an id; anything else is text.
fn id(value: &str) -> Operand {
    Operand::Text(value.parse().map_or_else(|_| value.to_owned(), |uid: PatUid| uid.to_string()))
}

fn time(name: &str, value: &str) -> Result<Time, RestError> {
    /// The position where a space may replace `T`.
    const DATE: usize = "2030-01-01".len();
    // An unencoded `+02:00` arrives as ` 02:00`.
    let repaired = match value.rfind(' ') {
        Some(place) if place > DATE => format!("{}+{}", &value[..place], &value[place + 1..]),
        _ => value.to_owned(),
    };
    timestamp::parse(&repaired).map_err(|error| RestError::invalid(name, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::OwnerKind;

    fn ada() -> Owner {
        Owner { kind: OwnerKind::User, name: "ada".into() }
    }

    fn at(text: &str) -> Operand {
        Operand::Time(text.parse().unwrap())
    }

    fn text(text: &str) -> Operand {
        Operand::Text(text.into())
    }

    #[test]
    fn default_is_the_first_hundred_by_creation() {
        let query = TokenQuery { owner: OwnerSelector::Owner(ada()), limit: Some(100), ..TokenQuery::default() };
        assert_eq!(parse("", ada()), Ok(query.clone()));
        assert_eq!(parse("page=1&limit=100", ada()), Ok(query));
    }

    #[test]
    fn page_and_limit_select_a_range() {
        for (given, offset, limit) in [
            ("page=2", 100, 100),
            ("limit=1", 0, 1),
            ("page=3&limit=7", 14, 7),
            ("limit=7&page=3", 14, 7),
            ("page=2147483647&limit=100", 214_748_364_600, 100),
        ] {
            let query = parse(given, ada()).unwrap();
            assert_eq!((query.offset, query.limit), (offset, Some(limit)), "{given}");
        }
    }

    #[test]
    fn sort_accepts_all_fields_in_both_directions() {
        for (name, by) in SORT_FIELDS {
            for (sign, descending) in [("", false), ("-", true)] {
                let query = parse(&format!("sort={sign}{name}"), ada()).unwrap();
                assert_eq!(query.sort, [SortKey { by, descending }], "{name}");
            }
        }
    }

    #[test]
    fn query_is_an_alias_of_search() {
        for given in ["search=my+token", "query=my%20token"] {
            assert_eq!(parse(given, ada()).unwrap().search.as_deref(), Some("my token"), "{given}");
        }
    }

    #[test]
    fn every_operator_is_parsed_with_brackets_encoded_or_not() {
        let time = || at("2030-01-01T00:00:00Z");
        for (given, field, test) in [
            ("createdAt=2030-01-01", TokenField::CreatedAt, Comparison::Eq(time())),
            ("createdAt[eq]=2030-01-01T00:00:00Z", TokenField::CreatedAt, Comparison::Eq(time())),
            ("createdAt[ne]=2030-01-01T01:00:00%2B01:00", TokenField::CreatedAt, Comparison::Ne(time())),
            ("createdAt[gt]=2030-01-01T01:00:00+01:00", TokenField::CreatedAt, Comparison::Gt(time())),
            ("createdAt%5Bgte%5D=2030-01-01+00:00", TokenField::CreatedAt, Comparison::Ge(time())),
            ("updatedAt[lt]=2030-01-01T00:00", TokenField::UpdatedAt, Comparison::Lt(time())),
            ("updatedAt%5blte%5d=2029-12-31T23:00:00-01:00", TokenField::UpdatedAt, Comparison::Le(time())),
            (
                "id=0E02B2C3-58cc-4372-a567-0e02b2c3d479",
                TokenField::Id,
                Comparison::Eq(text("0e02b2c358cc4372a5670e02b2c3d479")),
            ),
            ("id[eq]=x", TokenField::Id, Comparison::Eq(text("x"))),
            ("id[ne]=x", TokenField::Id, Comparison::Ne(text("x"))),
            ("id[gt]=x", TokenField::Id, Comparison::Gt(text("x"))),
            ("id[gte]=x", TokenField::Id, Comparison::Ge(text("x"))),
            ("id[lt]=x", TokenField::Id, Comparison::Lt(text("x"))),
            ("id[lte]=x", TokenField::Id, Comparison::Le(text("x"))),
            ("id[sw]=0e", TokenField::Id, Comparison::StartsWith("0e".into())),
            ("id[ew]=79", TokenField::Id, Comparison::EndsWith("79".into())),
            ("id[cn]=b2", TokenField::Id, Comparison::Contains("b2".into())),
            ("id[nc]=b2", TokenField::Id, Comparison::NotContains("b2".into())),
            ("id[in]=x,y", TokenField::Id, Comparison::In(vec![text("x"), text("y")])),
            ("id[nin]=x", TokenField::Id, Comparison::NotIn(vec![text("x")])),
        ] {
            let query = parse(given, ada()).unwrap();
            assert_eq!(query.filter, Some(TokenFilter::All(vec![TokenFilter::Compare(field, test)])), "{given}");
        }
        let both = parse("createdAt[gte]=2030-01-01&createdAt[lt]=2030-01-01&id=x", ada()).unwrap().filter;
        assert!(matches!(both, Some(TokenFilter::All(tests)) if tests.len() == 3));
    }

    #[test]
    fn unknown_or_invalid_parameter_is_named() {
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
            ("sort=owner", "sort"),
            ("sort=user.name", "sort"),
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
            match parse(given, ada()) {
                Err(RestError::Invalid { field: named, problem }) => {
                    assert_eq!(named, field, "{given}");
                    assert!(!problem.is_empty());
                }
                other => panic!("{given}: {other:?}"),
            }
        }
    }
}
