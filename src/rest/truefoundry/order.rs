//! The bodies that are sent: a new token for oneself or a user, whose tokens to revoke, and how long a replaced token goes on.
//!
//! Fields that are not known are passed over, as newer clients send more; those that are known have to be right, and may be `null`
//! where they may be left out. Pure but for reading them.

use k8s_openapi::jiff::SignedDuration;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    api::{Expiry, Time},
    rest::{body, failure::Failure, when},
};

/// How many characters a name may have.
const NAME: std::ops::RangeInclusive<usize> = 3..=36;

/// What a name has to look like, in words.
const NAME_WORDS: &str =
    "must have 3 to 36 small letters, digits and '-', begin with a letter and end with a letter or digit";

/// The longest that a replaced token may go on: a year.
const MAX_GRACE_MINUTES: f64 = 525_600.0;

/// A token to be made for the caller.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is only described")]
pub struct TruefoundryCreate {
    /// Its name. The caller's other tokens have other names.
    #[schema(min_length = 3, max_length = 36, pattern = "^[a-z][a-z0-9-]*[a-z0-9]$")]
    name: String,
    /// When it ends, such as `2030-01-01`, `2030-01-01T12:00` or RFC 3339; `null`, or nothing: never. Without a zone it is UTC, and a date
    /// alone is its first instant.
    #[schema(value_type = Option<String>, required = false)]
    expiration_date: Option<String>,
    /// The account that it is for. There is one on this server, with the tenant's name.
    #[schema(value_type = Option<String>, required = false)]
    account_name: Option<String>,
    /// A team that its owner is in.
    #[schema(value_type = Option<String>, required = false)]
    team_name: Option<String>,
    /// What kind of token is wished for. Tokens of this server are opaque; `jwt` is a wish that is passed over.
    #[schema(value_type = Option<TruefoundryTokenType>, required = false)]
    token_type: Option<TruefoundryTokenType>,
}

/// A kind of token.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it is only described")]
pub enum TruefoundryTokenType {
    /// One that speaks for itself.
    Jwt,
    /// One that has to be asked about.
    Opaque,
}

/// A token to be made for a user.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is only described")]
pub struct TruefoundryCreateForUser {
    /// Its name. The user's other tokens have other names.
    #[schema(min_length = 3, max_length = 36, pattern = "^[a-z][a-z0-9-]*[a-z0-9]$")]
    name: String,
    /// Whose it will be.
    user_email: String,
    /// When it ends; see the token for oneself.
    #[schema(value_type = Option<String>, required = false)]
    expiration_date: Option<String>,
    /// A team that the user is in.
    #[schema(value_type = Option<String>, required = false)]
    team_name: Option<String>,
}

/// Whose tokens are to be revoked.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
pub struct TruefoundryRevokeAll {
    /// The owner's email.
    email: String,
}

/// How a token is to be replaced.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is only described")]
pub struct TruefoundryRegenerate {
    /// How long the replaced token goes on, in minutes; 0: it is dead at once.
    #[schema(minimum = 0, maximum = 525_600)]
    grace_period_in_minutes: f64,
}

/// A token that is asked for, as far as the body says.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Whose it will be, if that is said.
    pub user_email: Option<String>,
    /// When it ends.
    pub expiry: Expiry,
    /// The account that it is for, if that is said.
    pub account: Option<String>,
    /// A team that its owner has to be in, if that is said.
    pub team: Option<String>,
}

/// All fields. One that is there twice is refused by serde.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    name: Option<Value>,
    user_email: Option<Value>,
    expiration_date: Option<Value>,
    account_name: Option<Value>,
    team_name: Option<Value>,
    token_type: Option<Value>,
    email: Option<Value>,
    grace_period_in_minutes: Option<Value>,
}

/// The token that a body asks for, for the caller.
///
/// # Errors
/// `Invalid`, with the field's name.
pub fn create(body: &[u8], now: Time) -> Result<Wanted, Failure> {
    let fields = body::object::<Fields>(body)?;
    let account = text("accountName", fields.account_name)?;
    match text("tokenType", fields.token_type)?.as_deref() {
        None | Some("jwt" | "opaque") => {}
        Some(_) => return Err(Failure::invalid("tokenType", "must be jwt or opaque")),
    }
    Ok(Wanted {
        name: name(fields.name)?,
        user_email: None,
        expiry: expiry(fields.expiration_date, now)?,
        account,
        team: text("teamName", fields.team_name)?,
    })
}

/// The token that a body asks for, for a user.
///
/// # Errors
/// `Invalid`, with the field's name.
pub fn create_for_user(body: &[u8], now: Time) -> Result<Wanted, Failure> {
    let fields = body::object::<Fields>(body)?;
    Ok(Wanted {
        name: name(fields.name)?,
        user_email: Some(needed("userEmail", fields.user_email)?),
        expiry: expiry(fields.expiration_date, now)?,
        account: None,
        team: text("teamName", fields.team_name)?,
    })
}

/// Whose tokens are to be revoked.
///
/// # Errors
/// `Invalid`, with the field's name.
pub fn revoke_all(body: &[u8]) -> Result<String, Failure> {
    needed("email", body::object::<Fields>(body)?.email)
}

/// How long a replaced token goes on.
///
/// # Errors
/// `Invalid`, with the field's name.
pub fn grace(body: &[u8]) -> Result<SignedDuration, Failure> {
    const FIELD: &str = "gracePeriodInMinutes";
    let wrong = || Failure::invalid(FIELD, format!("must be a number from 0 to {MAX_GRACE_MINUTES}"));
    let Some(value) = body::object::<Fields>(body)?.grace_period_in_minutes else {
        return Err(Failure::invalid(FIELD, "is missing: say how long the replaced token goes on"));
    };
    let minutes = value.as_f64().filter(|minutes| (0.0..=MAX_GRACE_MINUTES).contains(minutes)).ok_or_else(wrong)?;
    // Whole seconds, never fewer than were asked for.
    Ok(SignedDuration::from_secs((minutes * 60.0).ceil() as i64))
}

fn text(field: &str, value: Option<Value>) -> Result<Option<String>, Failure> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Failure::invalid(field, "must be a string")),
    }
}

fn needed(field: &str, value: Option<Value>) -> Result<String, Failure> {
    text(field, value)?.ok_or_else(|| Failure::invalid(field, "is missing"))
}

fn name(value: Option<Value>) -> Result<String, Failure> {
    let name = needed("name", value)?;
    let small = |byte: &u8| byte.is_ascii_lowercase();
    let small_or_digit = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let fits = NAME.contains(&bytes.len())
        && bytes.first().is_some_and(small)
        && bytes.last().is_some_and(small_or_digit)
        && bytes.iter().all(|byte| *byte == b'-' || small_or_digit(byte));
    if fits { Ok(name) } else { Err(Failure::invalid("name", NAME_WORDS)) }
}

fn expiry(value: Option<Value>, now: Time) -> Result<Expiry, Failure> {
    const FIELD: &str = "expirationDate";
    let never = Expiry { never: Some(true), ..Expiry::default() };
    let Some(text) = text(FIELD, value)? else { return Ok(never) };
    let at = when::read(&text).map_err(|error| Failure::invalid(FIELD, error.to_string()))?;
    if at <= now {
        return Err(Failure::invalid(FIELD, "must be in the future"));
    }
    if when::is_never(at) {
        return Ok(never);
    }
    Ok(Expiry { at: Some(at), ..Expiry::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Time {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    fn wanted(body: Value) -> Result<Wanted, Failure> {
        create(body.to_string().as_bytes(), now())
    }

    fn named<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
        match result {
            Err(Failure::Invalid { field, .. }) => field,
            other => panic!("{other:?} is no wrong field"),
        }
    }

    #[test]
    fn a_name_has_3_to_36_small_letters_digits_and_dashes() {
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
    fn an_end_is_any_of_the_usual_texts_and_without_one_there_is_none() {
        let never = Expiry { never: Some(true), ..Expiry::default() };
        let at = |text: &str| Expiry { at: Some(text.parse().unwrap()), ..Expiry::default() };
        for (text, expiry) in [
            (json!(null), never.clone()),
            (json!("2030-01-01"), at("2030-01-01T00:00:00Z")),
            (json!("2027-08-01T12:00"), at("2027-08-01T12:00:00Z")),
            (json!("2027-08-01T12:00:00+02:00"), at("2027-08-01T10:00:00Z")),
            (json!("2026-06-01T12:00:01Z"), at("2026-06-01T12:00:01Z")),
            (json!(when::NEVER), never.clone()),
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
    fn fields_that_are_known_have_to_be_right_and_others_are_passed_over() {
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
    fn a_body_that_cannot_be_read_is_told_without_being_quoted() {
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
            let failure = create(body.as_bytes(), now()).unwrap_err();
            assert!(!failure.to_string().contains("secret"), "{failure}");
            assert_eq!(named::<()>(Err(failure)), field, "{body:.40}");
        }
    }

    #[test]
    fn a_grace_is_in_minutes_and_becomes_whole_seconds() {
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
}
