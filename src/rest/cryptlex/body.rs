//! Request bodies: a new token, and a change of one. Unknown fields are ignored, as clients may send more.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    api::Time,
    rest::{
        body,
        caller::RestCaller,
        error::RestError,
        model::{ChangeToken, CreateToken, TokenItem},
    },
};

/// A token to create.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexCreate {
    /// The name, unique among the caller's tokens.
    #[schema(value_type = String, required, min_length = 1, max_length = 128)]
    name: Option<Value>,
    /// Must not be `true`.
    #[schema(value_type = Option<bool>)]
    revoked: Option<Value>,
    /// The expiry as RFC 3339. `null` or absent: never. Without a zone it is UTC, and a date is its first instant.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Value>,
    /// The scopes, which the caller's token must have. `null` or absent: none.
    #[schema(value_type = Option<Vec<String>>, max_items = 64)]
    scopes: Option<Value>,
}

/// A change of a token.
#[derive(Deserialize, ToSchema)]
pub struct CryptlexChange {
    /// `true` revokes the token. `false` changes nothing, and is refused for a revoked token.
    #[schema(value_type = bool, required)]
    revoked: Option<Value>,
}

/// Parses a request to create a token.
pub fn create(body: &[u8], caller: &RestCaller, now: Time) -> Result<CreateToken, RestError> {
    let fields = body::object::<CryptlexCreate>(body)?;
    let name = match fields.name {
        Some(Value::String(name)) => name,
        None => return Err(RestError::invalid("name", "is required")),
        Some(_) => return Err(RestError::invalid("name", "must be a string")),
    };
    if revoked(fields.revoked)? == Some(true) {
        return Err(RestError::invalid("revoked", "must be false or absent for a new token"));
    }
    let scopes = match fields.scopes {
        None => Vec::new(),
        Some(Value::Array(scopes)) => scopes.into_iter().enumerate().map(scope).collect::<Result<_, _>>()?,
        Some(_) => return Err(RestError::invalid("scopes", "must be a list of strings")),
    };
    Ok(CreateToken {
        owner: caller.owner.clone(),
        display_name: name,
        description: None,
        scopes,
        expiry: body::expiry("expiresAt", fields.expires_at, now)?,
        access_token_validity: None,
        permissions: Vec::new(),
        token_prefix: None,
    })
}

/// Parses a change; `None` if it changes nothing.
pub fn change(body: &[u8], item: &TokenItem) -> Result<Option<ChangeToken>, RestError> {
    let Some(wanted) = revoked(body::object::<CryptlexChange>(body)?.revoked)? else {
        return Err(RestError::invalid("revoked", "is required: true revokes the token"));
    };
    match (item.revoked, wanted) {
        (false, true) => Ok(Some(ChangeToken { revoked: Some(true), ..ChangeToken::default() })),
        // A restored token would be issued without a recipient.
        (true, false) => Err(RestError::invalid("revoked", "a revoked token cannot be restored: create another one")),
        _ => Ok(None),
    }
}

fn revoked(value: Option<Value>) -> Result<Option<bool>, RestError> {
    match value {
        None => Ok(None),
        Some(Value::Bool(revoked)) => Ok(Some(revoked)),
        Some(_) => Err(RestError::invalid("revoked", "must be true or false")),
    }
}

fn scope((index, value): (usize, Value)) -> Result<String, RestError> {
    match value {
        Value::String(scope) => Ok(scope),
        _ => Err(RestError::invalid(format!("scopes[{index}]"), "must be a string")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rest::fixture::{NOW, RestFixture, at};

    async fn parse(body: &str) -> Result<CreateToken, RestError> {
        let mut fixture = RestFixture::new();
        let ada = fixture.user("ada", "laptop", &["a"]);
        let caller = fixture.service().caller(&ada.headers()).await.unwrap();
        create(body.as_bytes(), &caller, at(NOW))
    }

    #[tokio::test]
    async fn new_token_belongs_to_the_caller() {
        let request =
            parse(r#"{"name": "ci", "scopes": ["a", "b"], "expiresAt": "2030-01-01T01:00:00+01:00", "more": {}}"#);
        let request = request.await.unwrap();
        assert_eq!((request.owner.text(), &*request.display_name), ("ada".to_owned(), "ci"));
        assert_eq!(request.scopes, ["a", "b"]);
        assert_eq!(request.expiry.at, Some(at("2030-01-01T00:00:00Z")));
    }

    #[tokio::test]
    async fn null_or_absent_means_no_expiry_and_no_scopes() {
        for body in [
            json!({"name": "ci"}),
            json!({"name": "ci", "revoked": null, "expiresAt": null, "scopes": null}),
            json!({"name": "ci", "revoked": false, "expiresAt": "9999-12-31T23:59:59.999Z", "scopes": []}),
        ] {
            let request = parse(&body.to_string()).await.unwrap();
            assert_eq!(
                (request.expiry.never, request.expiry.at, request.scopes.len()),
                (Some(true), None, 0),
                "{body}"
            );
        }
    }

    #[tokio::test]
    async fn invalid_field_is_named() {
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
            let error = parse(body).await.unwrap_err();
            assert!(matches!(&error, RestError::Invalid { field: named, .. } if named == field), "{body}: {error:?}");
        }
        let deep = format!("{{\"more\": {}", "[".repeat(10_000));
        assert!(matches!(parse(&deep).await.unwrap_err(), RestError::Invalid { field, .. } if field == "body"));
    }

    #[tokio::test]
    async fn error_does_not_quote_the_body() {
        for body in [r#""kpat_secret""#, r#"{"name": {"kpat_secret": 1}}"#, r#"{"kpat_secret"}"#] {
            assert!(!parse(body).await.unwrap_err().to_string().contains("kpat_secret"), "{body}");
        }
    }

    #[test]
    fn token_can_be_revoked_but_not_restored() {
        let mut fixture = RestFixture::new();
        let live = fixture.user("ada", "live", &[]).id;
        let dead = fixture.pat(json!({"owner": {"kind": "User", "name": "ada"}, "revoked": true}), json!({})).id;
        let service = fixture.service();
        let parse = |id, body: &str| change(body.as_bytes(), &service.item(id).unwrap());
        let revoked = |change: Option<ChangeToken>| change.map(|change| change.revoked);
        assert_eq!(parse(live, r#"{"revoked": true}"#).map(revoked), Ok(Some(Some(true))));
        assert_eq!(parse(live, r#"{"revoked": false, "more": 1}"#).map(revoked), Ok(None));
        assert_eq!(parse(dead, r#"{"revoked": true}"#).map(revoked), Ok(None));
        for (id, body) in
            [(dead, r#"{"revoked": false}"#), (live, "{}"), (live, r#"{"revoked": null}"#), (live, r#"{"revoked": 1}"#)]
        {
            let error = parse(id, body).map(revoked).unwrap_err();
            assert!(matches!(&error, RestError::Invalid { field, .. } if field == "revoked"), "{body}: {error:?}");
        }
    }
}
