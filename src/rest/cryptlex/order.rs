//! The bodies that are sent: a new token, and the change of one. Pure but for reading them.
//!
//! Fields that are not known are passed over, as the clients may send more; those that are known have to be right.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    api::{Expiry, Time},
    rest::{
        body,
        caller::Caller,
        failure::Failure,
        item::Item,
        order::{Change, Create},
        when,
    },
};

/// A token to be made.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is only described")]
pub struct CryptlexCreate {
    /// Its name. The caller's other tokens have other names.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// `true` is refused: a token that is made is not revoked.
    #[schema(value_type = Option<bool>, required = false)]
    revoked: Option<bool>,
    /// When it ends, as RFC 3339; `null`, or nothing: never. Without a zone it is UTC, and a date alone is its first instant.
    #[schema(value_type = Option<String>, format = DateTime, required = false)]
    expires_at: Option<String>,
    /// What it may do: only what the caller's token may do. `null`, or nothing: no rights at all.
    #[schema(required = false, max_items = 64)]
    scopes: Option<Vec<String>>,
}

/// The change of a token.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
pub struct CryptlexChange {
    /// `true` revokes it. `false` leaves it as it is, and is refused for one that is revoked.
    revoked: bool,
}

/// The fields of both. A field that is there twice is refused by serde.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    name: Option<Value>,
    revoked: Option<Value>,
    expires_at: Option<Value>,
    scopes: Option<Value>,
}

/// The token that a body asks for.
///
/// # Errors
/// `Invalid`, with the field's name.
pub fn create(body: &[u8], caller: &Caller, now: Time) -> Result<Create, Failure> {
    let fields = body::object::<Fields>(body)?;
    let name = match fields.name {
        Some(Value::String(name)) => name,
        None => return Err(Failure::invalid("name", "is missing: give the token a name")),
        Some(_) => return Err(Failure::invalid("name", "must be a string")),
    };
    if revoked(fields.revoked)? == Some(true) {
        return Err(Failure::invalid("revoked", "must be false, or left out: a token that is made is not revoked"));
    }
    let scopes = match fields.scopes {
        None => Vec::new(),
        Some(Value::Array(scopes)) => scopes.into_iter().enumerate().map(scope).collect::<Result<_, _>>()?,
        Some(_) => return Err(Failure::invalid("scopes", "must be a list of strings")),
    };
    Ok(Create {
        owner: caller.owner.clone(),
        display_name: name,
        description: None,
        scopes,
        expiry: expiry(fields.expires_at, now)?,
        access_token_validity: None,
        permissions: Vec::new(),
        token_prefix: None,
    })
}

/// The change that a body asks for; `None` if that is how the token is.
///
/// # Errors
/// `Invalid`, with the field's name.
pub fn change(body: &[u8], item: &Item) -> Result<Option<Change>, Failure> {
    let Some(wanted) = revoked(body::object::<Fields>(body)?.revoked)? else {
        return Err(Failure::invalid("revoked", "is missing: true revokes the token"));
    };
    match (item.revoked, wanted) {
        (false, true) => Ok(Some(Change { revoked: Some(true), ..Change::default() })),
        // Nobody would get the token that this would issue.
        (true, false) => Err(Failure::invalid("revoked", "a token stays revoked: create another one")),
        _ => Ok(None),
    }
}

/// A failure of the service, with the fields' names as this dialect has them.
pub fn in_these_words(failure: Failure) -> Failure {
    failure.with_fields_named(named)
}

fn named(field: &str) -> String {
    const NAMES: [(&str, &str); 4] = [
        ("spec.displayName", "name"),
        ("spec.scopes", "scopes"),
        ("spec.expiry", "expiresAt"),
        ("spec.revoked", "revoked"),
    ];
    // What follows may be a part of it, such as `[2]`; a part of an expiry means nothing here.
    let rest = |theirs: &str, ours: &str| {
        let rest = field.strip_prefix(theirs).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))?;
        Some(format!("{ours}{}", if rest.starts_with('[') { rest } else { "" }))
    };
    NAMES.iter().find_map(|(theirs, ours)| rest(theirs, ours)).unwrap_or_else(|| field.to_owned())
}

fn revoked(value: Option<Value>) -> Result<Option<bool>, Failure> {
    match value {
        None => Ok(None),
        Some(Value::Bool(revoked)) => Ok(Some(revoked)),
        Some(_) => Err(Failure::invalid("revoked", "must be true or false")),
    }
}

fn scope((index, value): (usize, Value)) -> Result<String, Failure> {
    match value {
        Value::String(scope) => Ok(scope),
        _ => Err(Failure::invalid(format!("scopes[{index}]"), "must be a string")),
    }
}

fn expiry(value: Option<Value>, now: Time) -> Result<Expiry, Failure> {
    let never = Expiry { never: Some(true), ..Expiry::default() };
    let text = match value {
        None => return Ok(never),
        Some(Value::String(text)) => text,
        Some(_) => return Err(Failure::invalid("expiresAt", "must be a string or null")),
    };
    let at = when::read(&text).map_err(|error| Failure::invalid("expiresAt", error.to_string()))?;
    if at <= now {
        return Err(Failure::invalid("expiresAt", "must be in the future"));
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
    use crate::rest::{
        failure::Conflict,
        world::{NOW, World, at},
    };

    async fn asked(body: &str) -> Result<Create, Failure> {
        let mut world = World::new();
        let ada = world.user("ada", "laptop", &["a"]);
        let caller = world.service().caller(&ada.headers()).await.unwrap();
        create(body.as_bytes(), &caller, at(NOW))
    }

    #[tokio::test]
    async fn a_token_that_is_asked_for_belongs_to_the_caller() {
        let order =
            asked(r#"{"name": "ci", "scopes": ["a", "b"], "expiresAt": "2030-01-01T01:00:00+01:00", "more": {}}"#);
        let order = order.await.unwrap();
        assert_eq!((order.owner.text(), &*order.display_name), ("ada".to_owned(), "ci"));
        assert_eq!(order.scopes, ["a", "b"]);
        assert_eq!(order.expiry.at, Some(at("2030-01-01T00:00:00Z")));
    }

    #[tokio::test]
    async fn what_is_null_or_left_out_is_no_end_and_no_rights() {
        for body in [
            json!({"name": "ci"}),
            json!({"name": "ci", "revoked": null, "expiresAt": null, "scopes": null}),
            json!({"name": "ci", "revoked": false, "expiresAt": "9999-12-31T23:59:59.999Z", "scopes": []}),
        ] {
            let order = asked(&body.to_string()).await.unwrap();
            assert_eq!((order.expiry.never, order.expiry.at, order.scopes.len()), (Some(true), None, 0), "{body}");
        }
    }

    #[tokio::test]
    async fn a_field_that_is_wrong_is_refused_by_its_name() {
        for (body, field) in [
            (r#"{}"#, "name"),
            (r#"{"name": null}"#, "name"),
            (r#"{"name": 5}"#, "name"),
            (r#"{"name": ["x"]}"#, "name"),
            (r#"{"name": "x", "name": "y"}"#, "name"),
            (r#"{"name": "x", "scopes": ["a"], "scopes": []}"#, "scopes"),
            (r#"{"name": "x", "scopes": "a"}"#, "scopes"),
            (r#"{"name": "x", "scopes": {"a": 1}}"#, "scopes"),
            (r#"{"name": "x", "scopes": ["a", 1]}"#, "scopes[1]"),
            (r#"{"name": "x", "revoked": true}"#, "revoked"),
            (r#"{"name": "x", "revoked": "false"}"#, "revoked"),
            (r#"{"name": "x", "expiresAt": 5}"#, "expiresAt"),
            (r#"{"name": "x", "expiresAt": ""}"#, "expiresAt"),
            (r#"{"name": "x", "expiresAt": "tomorrow"}"#, "expiresAt"),
            (r#"{"name": "x", "expiresAt": "2026-06-01T12:00:00Z"}"#, "expiresAt"),
            (r#"["x"]"#, "body"),
            (r#""x""#, "body"),
            (r#" null"#, "body"),
            (r#"{"name": "x""#, "body"),
            (r#"{"name": "x"} {}"#, "body"),
            ("", "body"),
            ("\u{feff}{}", "body"),
        ] {
            let failure = asked(body).await.unwrap_err();
            assert!(matches!(&failure, Failure::Invalid { field: named, .. } if named == field), "{body}: {failure:?}");
        }
        let deep = format!("{{\"more\": {}", "[".repeat(10_000));
        assert!(matches!(asked(&deep).await.unwrap_err(), Failure::Invalid { field, .. } if field == "body"));
    }

    #[tokio::test]
    async fn an_error_does_not_quote_what_was_sent() {
        for body in [r#""kpat_secret""#, r#"{"name": {"kpat_secret": 1}}"#, r#"{"kpat_secret"}"#] {
            assert!(!asked(body).await.unwrap_err().to_string().contains("kpat_secret"), "{body}");
        }
    }

    #[test]
    fn a_token_can_be_revoked_and_not_the_other_way_round() {
        let mut world = World::new();
        let live = world.user("ada", "live", &[]).id;
        let dead = world.pat(json!({"owner": {"kind": "User", "name": "ada"}, "revoked": true}), json!({})).id;
        let service = world.service();
        let asked = |id, body: &str| change(body.as_bytes(), &service.item(id).unwrap());
        let revoked = |change: Option<Change>| change.map(|change| change.revoked);
        assert_eq!(asked(live, r#"{"revoked": true}"#).map(revoked), Ok(Some(Some(true))));
        assert_eq!(asked(live, r#"{"revoked": false, "more": 1}"#).map(revoked), Ok(None));
        assert_eq!(asked(dead, r#"{"revoked": true}"#).map(revoked), Ok(None));
        for (id, body) in
            [(dead, r#"{"revoked": false}"#), (live, "{}"), (live, r#"{"revoked": null}"#), (live, r#"{"revoked": 1}"#)]
        {
            let failure = asked(id, body).map(revoked).unwrap_err();
            assert!(matches!(&failure, Failure::Invalid { field, .. } if field == "revoked"), "{body}: {failure:?}");
        }
    }

    #[test]
    fn fields_of_the_resource_have_this_dialects_names() {
        for (theirs, ours) in [
            ("spec.displayName", "name"),
            ("spec.scopes", "scopes"),
            ("spec.scopes[2]", "scopes[2]"),
            ("spec.expiry", "expiresAt"),
            ("spec.expiry.at", "expiresAt"),
            ("spec.revoked", "revoked"),
            ("spec.revokedCredentials", "spec.revokedCredentials"),
            ("metadata.name", "metadata.name"),
        ] {
            assert_eq!(in_these_words(Failure::invalid(theirs, "x")), Failure::invalid(ours, "x"));
            let managed =
                |field: &str| Failure::Conflict(Conflict::Managed { field: field.into(), manager: "flux".into() });
            assert_eq!(in_these_words(managed(theirs)), managed(ours));
        }
        assert_eq!(in_these_words(Failure::NotFound), Failure::NotFound);
    }
}
