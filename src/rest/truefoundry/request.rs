//! Request parameters and bodies: the page of a list, a new token, the owner whose tokens are revoked, and a grace period.
//!
//! Unknown parameters are errors. Unknown fields of a body are ignored, as newer clients send more. axum's `Query` extractor accepts
//! duplicates and a leading plus sign, and does not name the parameter in its errors.

use std::borrow::Cow;

use k8s_openapi::jiff::SignedDuration;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    api::{Expiry, Owner, Time},
    rest::{
        body,
        error::RestError,
        query::{Comparison, OwnerSelector, TokenField, TokenFilter, TokenQuery},
    },
};

/// The default number of tokens on a page.
const DEFAULT_LIMIT: usize = 100;

/// The maximum number of tokens on a page.
const MAX_LIMIT: usize = 1000;

/// The maximum offset: the largest integer that every JSON parser represents exactly.
const MAX_OFFSET: usize = 9_007_199_254_740_991;

/// The parameters of the list.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the query, which is parsed by hand")]
pub struct TruefoundryListParameters {
    /// The maximum number of tokens.
    #[param(required = false, default = 100, minimum = 1, maximum = 1000)]
    limit: u16,
    /// The number of tokens to skip. An offset past the end returns no tokens.
    #[param(required = false, default = 0, minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    offset: u64,
    /// Text in the name, ignoring case.
    #[param(required = false)]
    name_search_query: String,
}

/// The requested page of a list.
#[derive(Debug, PartialEq)]
pub struct TruefoundryListQuery {
    /// The maximum number of tokens.
    pub limit: usize,
    /// The number of tokens to skip.
    pub offset: usize,
    /// Text in the name.
    pub name: Option<String>,
}

impl TruefoundryListQuery {
    /// Parses a query string.
    pub fn parse(query: &str) -> Result<Self, RestError> {
        let (mut limit, mut offset, mut name) = (None, None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*key {
                "limit" => &mut limit,
                "offset" => &mut offset,
                "nameSearchQuery" => &mut name,
                _ => {
                    let key: String = key.chars().take(40).collect();
                    let problem = "unknown parameter: supported are limit, offset and nameSearchQuery";
                    return Err(RestError::invalid(key, problem));
                }
            };
            if place.replace(value).is_some() {
                return Err(RestError::invalid(key, "must not be set more than once"));
            }
        }
        Ok(Self {
            limit: limit.map_or(Ok(DEFAULT_LIMIT), |text| body::number("limit", &text, 1..=MAX_LIMIT))?,
            offset: offset.map_or(Ok(0), |text| body::number("offset", &text, 0..=MAX_OFFSET))?,
            name: name.map(Cow::into_owned),
        })
    }

    /// Returns the query for this page of an owner's tokens.
    pub fn of(&self, owner: Owner) -> TokenQuery {
        let name = self.name.clone().map(Comparison::Contains);
        TokenQuery {
            owner: OwnerSelector::Owner(owner),
            filter: name.map(|comparison| TokenFilter::Compare(TokenField::Name, comparison)),
            offset: self.offset,
            limit: Some(self.limit),
            ..TokenQuery::default()
        }
    }
}

const NAME_LENGTH: std::ops::RangeInclusive<usize> = 3..=36;

/// The error for any other name.
const NAME_ERROR: &str =
    "must have 3 to 36 lowercase letters, digits and '-', start with a letter and end with a letter or digit";

/// The maximum grace period: a year.
const MAX_GRACE_MINUTES: f64 = 525_600.0;

/// The minutes of a day.
const MINUTES_PER_DAY: f64 = 1_440.0;

/// A token to create for the caller.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TruefoundryCreate {
    /// The name, unique among the caller's tokens.
    #[schema(value_type = String, required, min_length = 3, max_length = 36, pattern = "^[a-z][a-z0-9-]*[a-z0-9]$")]
    name: Option<Value>,
    /// The expiry, such as `2030-01-01`, `2030-01-01T12:00` or RFC 3339. `null` or absent: never. Without a zone it is UTC, and a date is its
    /// first instant.
    #[schema(value_type = Option<String>)]
    expiration_date: Option<Value>,
    /// The account. This server has one, with the tenant's name.
    #[schema(value_type = Option<String>)]
    account_name: Option<Value>,
    /// A team of the owner.
    #[schema(value_type = Option<String>)]
    team_name: Option<Value>,
    /// The requested kind of token. Tokens of this server are always opaque.
    #[schema(value_type = Option<TruefoundryTokenType>)]
    token_type: Option<Value>,
}

/// A kind of token.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes the values")]
pub enum TruefoundryTokenType {
    /// A JSON web token.
    Jwt,
    /// An opaque token.
    Opaque,
}

/// A token to create for a user.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TruefoundryCreateForUser {
    /// The name, unique among the user's tokens.
    #[schema(value_type = String, required, min_length = 3, max_length = 36, pattern = "^[a-z][a-z0-9-]*[a-z0-9]$")]
    name: Option<Value>,
    /// The email of the owner.
    #[schema(value_type = String, required)]
    user_email: Option<Value>,
    /// The expiry; see `TruefoundryCreate`.
    #[schema(value_type = Option<String>)]
    expiration_date: Option<Value>,
    /// A team of the user.
    #[schema(value_type = Option<String>)]
    team_name: Option<Value>,
}

/// The owner whose tokens are revoked.
#[derive(Deserialize, ToSchema)]
pub struct TruefoundryRevokeAll {
    /// The email of the owner.
    #[schema(value_type = String, required)]
    email: Option<Value>,
}

/// How a token is regenerated. One of the two fields is required.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TruefoundryRegenerate {
    /// The grace period of the previous token in minutes. 0 revokes it at once.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 525_600)]
    grace_period_in_minutes: Option<Value>,
    /// The grace period in days, as older clients send it.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 365)]
    grace_period_in_days: Option<Value>,
}

/// A parsed request for a new token.
#[derive(Debug, PartialEq)]
pub struct TruefoundryNewToken {
    /// The name.
    pub name: String,
    /// The email of the owner, if given.
    pub user_email: Option<String>,
    /// The expiry.
    pub expiry: Expiry,
    /// The account, if given.
    pub account: Option<String>,
    /// A team of the owner, if given.
    pub team: Option<String>,
}

/// Parses a request for a token of the caller.
pub fn create(body: &[u8], now: Time) -> Result<TruefoundryNewToken, RestError> {
    let fields = body::object::<TruefoundryCreate>(body)?;
    let account = text("accountName", fields.account_name)?;
    match text("tokenType", fields.token_type)?.as_deref() {
        None | Some("jwt" | "opaque") => {}
        Some(_) => return Err(RestError::invalid("tokenType", "must be jwt or opaque")),
    }
    Ok(TruefoundryNewToken {
        name: name(fields.name)?,
        user_email: None,
        expiry: body::expiry("expirationDate", fields.expiration_date, now)?,
        account,
        team: text("teamName", fields.team_name)?,
    })
}

/// Returns the request for a token of the caller with this name, which never expires.
pub fn by_name(name: String) -> Result<TruefoundryNewToken, RestError> {
    Ok(TruefoundryNewToken {
        name: self::name(Some(Value::String(name)))?,
        user_email: None,
        expiry: Expiry { never: Some(true), ..Expiry::default() },
        account: None,
        team: None,
    })
}

/// Parses a request for a token of a user.
pub fn create_for_user(body: &[u8], now: Time) -> Result<TruefoundryNewToken, RestError> {
    let fields = body::object::<TruefoundryCreateForUser>(body)?;
    Ok(TruefoundryNewToken {
        name: name(fields.name)?,
        user_email: Some(required("userEmail", fields.user_email)?),
        expiry: body::expiry("expirationDate", fields.expiration_date, now)?,
        account: None,
        team: text("teamName", fields.team_name)?,
    })
}

/// Parses the email of the owner whose tokens are revoked.
pub fn revoke_all(body: &[u8]) -> Result<String, RestError> {
    required("email", body::object::<TruefoundryRevokeAll>(body)?.email)
}

/// Parses a grace period.
pub fn grace(body: &[u8]) -> Result<SignedDuration, RestError> {
    const MINUTES: &str = "gracePeriodInMinutes";
    const DAYS: &str = "gracePeriodInDays";
    let fields = body::object::<TruefoundryRegenerate>(body)?;
    let (field, value, unit) = match (fields.grace_period_in_minutes, fields.grace_period_in_days) {
        (Some(minutes), None) => (MINUTES, minutes, 1.0),
        (None, Some(days)) => (DAYS, days, MINUTES_PER_DAY),
        (None, None) => return Err(RestError::invalid(MINUTES, format!("is required, or {DAYS}"))),
        (Some(_), Some(_)) => return Err(RestError::invalid(DAYS, format!("must not be set with {MINUTES}"))),
    };
    let max = MAX_GRACE_MINUTES / unit;
    let number = value.as_f64().filter(|number| (0.0..=max).contains(number));
    let number = number.ok_or_else(|| RestError::invalid(field, format!("must be a number from 0 to {max}")))?;
    // Rounded up to whole seconds.
    Ok(SignedDuration::from_secs((number * unit * 60.0).ceil() as i64))
}

fn text(field: &str, value: Option<Value>) -> Result<Option<String>, RestError> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(RestError::invalid(field, "must be a string")),
    }
}

fn required(field: &str, value: Option<Value>) -> Result<String, RestError> {
    text(field, value)?.ok_or_else(|| RestError::invalid(field, "is required"))
}

fn name(value: Option<Value>) -> Result<String, RestError> {
    let name = required("name", value)?;
    let letter = |byte: &u8| byte.is_ascii_lowercase();
    let letter_or_digit = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let valid = NAME_LENGTH.contains(&bytes.len())
        && bytes.first().is_some_and(letter)
        && bytes.last().is_some_and(letter_or_digit)
        && bytes.iter().all(|byte| *byte == b'-' || letter_or_digit(byte));
    if valid { Ok(name) } else { Err(RestError::invalid("name", NAME_ERROR)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rest::timestamp;

    fn now() -> Time {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    fn wanted(body: Value) -> Result<TruefoundryNewToken, RestError> {
        create(body.to_string().as_bytes(), now())
    }

    fn named<T: std::fmt::Debug>(result: Result<T, RestError>) -> String {
        match result {
            Err(RestError::Invalid { field, .. }) => field,
            other => panic!("{other:?} is not an invalid field"),
        }
    }

    #[test]
    fn name_has_3_to_36_lowercase_letters_digits_and_dashes() {
        let longest = format!("a{}z", "-".repeat(34));
        for name in ["abc", "a-1", "a--b", "ci0", &longest] {
            assert_eq!(wanted(json!({"name": name})).unwrap().name, name);
        }
        let too_long = format!("a{}z", "b".repeat(35));
        for name in ["", "ab", "1ab", "-ab", "ab-", "aBc", "a b", "a_b", "abc\n", "äbc", "ab\u{e9}", &too_long] {
            assert_eq!(named(wanted(json!({"name": name}))), "name", "{name}");
        }
        for name in [json!(null), json!(5), json!(["abc"]), json!({"name": "abc"})] {
            assert_eq!(named(wanted(json!({"name": name}))), "name", "{name}");
        }
    }

    #[test]
    fn expiry_is_a_timestamp_and_absent_means_never() {
        let never = Expiry { never: Some(true), ..Expiry::default() };
        let at = |text: &str| Expiry { at: Some(text.parse().unwrap()), ..Expiry::default() };
        for (text, expiry) in [
            (json!(null), never.clone()),
            (json!("2030-01-01"), at("2030-01-01T00:00:00Z")),
            (json!("2027-08-01T12:00"), at("2027-08-01T12:00:00Z")),
            (json!("2027-08-01T12:00:00+02:00"), at("2027-08-01T10:00:00Z")),
            (json!("2026-06-01T12:00:01Z"), at("2026-06-01T12:00:01Z")),
            (json!(timestamp::NEVER), never.clone()),
        ] {
            let read = wanted(json!({"name": "abc", "expirationDate": text})).unwrap();
            assert_eq!(read.expiry, expiry, "{text}");
        }
        assert_eq!(wanted(json!({"name": "abc"})).unwrap().expiry, never);
        for text in [json!(""), json!("soon"), json!(1_900_000_000), json!("2026-06-01T12:00:00Z"), json!("2020-01-01")]
        {
            assert_eq!(named(wanted(json!({"name": "abc", "expirationDate": text}))), "expirationDate", "{text}");
        }
    }

    #[test]
    fn known_fields_are_validated_and_unknown_ones_ignored() {
        let all = json!({
            "name": "abc", "expirationDate": null, "accountName": "team", "teamName": "core", "tokenType": "jwt", "more": {},
        });
        let read = wanted(all).unwrap();
        assert_eq!(
            (read.account.as_deref(), read.team.as_deref(), read.user_email),
            (Some("team"), Some("core"), None)
        );
        for field in ["accountName", "teamName", "tokenType", "expirationDate"] {
            assert_eq!(named(wanted(json!({"name": "abc", (field): 5}))), field);
        }
        assert_eq!(named(wanted(json!({"name": "abc", "tokenType": "JWT"}))), "tokenType");
        assert_eq!(named(create_for_user(br#"{"name": "abc"}"#, now())), "userEmail");
        assert_eq!(named(create_for_user(br#"{"name": "abc", "userEmail": 1}"#, now())), "userEmail");
        let read = create_for_user(br#"{"name": "abc", "userEmail": "a@b.c"}"#, now()).unwrap();
        assert_eq!(read.user_email.as_deref(), Some("a@b.c"));
        assert_eq!(revoke_all(br#"{"email": "a@b.c"}"#), Ok("a@b.c".to_owned()));
        assert_eq!(named(revoke_all(b"{}")), "email");
    }

    #[test]
    fn malformed_body_is_not_quoted() {
        for (body, field) in [
            ("", "body"),
            ("kpat_secret", "body"),
            ("{\"name\": kpat_secret}", "body"),
            ("\"kpat_secret\"", "body"),
            ("[\"kpat_secret\"]", "body"),
            ("null", "body"),
            ("{\"name\": \"abc\", \"name\": \"kpat_secret\"}", "name"),
            ("{\"name\": \"abc\"} kpat_secret", "body"),
            (&"[".repeat(60_000), "body"),
        ] {
            let error = create(body.as_bytes(), now()).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
            assert_eq!(named::<()>(Err(error)), field, "{body:.40}");
        }
    }

    #[test]
    fn grace_period_in_minutes_becomes_whole_seconds() {
        let read = |value: Value| grace(json!({"gracePeriodInMinutes": value}).to_string().as_bytes());
        for (minutes, seconds) in [
            (json!(0), 0),
            (json!(0.0), 0),
            (json!(1), 60),
            (json!(0.5), 30),
            (json!(0.001), 1),
            (json!(525_600), 31_536_000),
        ] {
            assert_eq!(read(minutes.clone()).unwrap().as_secs(), seconds, "{minutes}");
        }
        for minutes in
            [json!(-1), json!(-0.1), json!(525_600.1), json!(1e300), json!("5"), json!(null), json!([1]), json!(true)]
        {
            assert_eq!(named(read(minutes.clone())), "gracePeriodInMinutes", "{minutes}");
        }
        assert_eq!(named(grace(b"{}")), "gracePeriodInMinutes");
    }

    #[test]
    fn grace_period_may_be_in_days() {
        let read = |value: Value| grace(value.to_string().as_bytes());
        for (days, seconds) in [(json!(0), 0), (json!(1), 86_400), (json!(0.5), 43_200), (json!(365), 31_536_000)] {
            assert_eq!(read(json!({"gracePeriodInDays": days})).unwrap().as_secs(), seconds, "{days}");
        }
        let both = json!({"gracePeriodInDays": 1, "gracePeriodInMinutes": null});
        assert_eq!(read(both).unwrap().as_secs(), 86_400, "null means absent");
        for days in [json!(-1), json!(365.1), json!("1"), json!([1])] {
            assert_eq!(named(read(json!({"gracePeriodInDays": days.clone()}))), "gracePeriodInDays", "{days}");
        }
        assert_eq!(named(read(json!({"gracePeriodInDays": 1, "gracePeriodInMinutes": 1}))), "gracePeriodInDays");
    }

    #[test]
    fn page_has_defaults_and_limits() {
        let page = |limit, offset, name: Option<&str>| {
            Ok(TruefoundryListQuery { limit, offset, name: name.map(str::to_owned) })
        };
        for (query, parsed) in [
            ("", page(100, 0, None)),
            ("limit=1", page(1, 0, None)),
            ("limit=1000&offset=0", page(1000, 0, None)),
            ("offset=007", page(100, 7, None)),
            ("offset=9007199254740991", page(100, MAX_OFFSET, None)),
            ("nameSearchQuery=", page(100, 0, Some(""))),
            ("nameSearchQuery=a+b%20c%26d", page(100, 0, Some("a b c&d"))),
            ("%6cimit=5", page(5, 0, None)),
        ] {
            assert_eq!(TruefoundryListQuery::parse(query), parsed, "{query}");
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
            let Err(RestError::Invalid { field: named, .. }) = TruefoundryListQuery::parse(query) else {
                panic!("{query} is accepted")
            };
            assert_eq!(named, field, "{query}");
        }
    }
}
