//! Tokens that are the same in each process, and their PATs as an API server stores them.
//!
//! The first token may introspect and has no audience. All others are typical tokens.

use anyhow::Context;
use pat_operator::{
    api::{GROUP, VERSION},
    token::{Token, TokenId, TokenPrefix},
};
use serde_json::{Value, json};

/// The namespace.
pub const NAMESPACE: &str = "bench-verify";

/// The scopes of each token.
pub const SCOPES: [&str; 2] = ["deploy:staging", "registry:read"];
/// The audience of each token.
pub const AUDIENCE: &str = "https://registry.example.com";

/// The time at which all tokens were issued.
const ISSUED_AT: &str = "2026-01-01T00:00:00Z";

/// The token with this number. Its secret part is not random.
pub fn token(number: u32) -> anyhow::Result<Token> {
    let id: TokenId = format!("{number:012}").parse().ok().context("the number does not fit in a token id")?;
    let mut secret = [0x5a; 32];
    secret[28..].copy_from_slice(&number.to_be_bytes());
    Ok(Token::from_parts(&TokenPrefix::default(), id, &secret))
}

/// metadata.name. All names have the same length.
pub fn name(number: u32) -> String {
    format!("pat-{number:07}")
}

/// spec.
pub fn spec(number: u32) -> Value {
    if number == 0 {
        return json!({"description": "Asks about tokens.", "scopes": ["introspect"]});
    }
    json!({
        "description": "Deploys from the pipeline.",
        "scopes": SCOPES,
        "audiences": [AUDIENCE],
        "rotation": {"interval": "30d"},
    })
}

/// The status after a first mint.
pub fn status(number: u32) -> anyhow::Result<Value> {
    let token = token(number)?;
    Ok(json!({
        "observedGeneration": 1,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Issued", "message": "The token is in its Secret.",
            "lastTransitionTime": ISSUED_AT, "observedGeneration": 1,
        }],
        "owner": {"kind": "VirtualAccount", "name": format!("{NAMESPACE}/{}", name(number))},
        "secretName": name(number),
        "revision": 1,
        "firstIssuedAt": ISSUED_AT,
        "defaultExpiresAt": "2099-01-01T00:00:00Z",
        "credentials": [{
            "id": token.id().as_str(), "revision": 1, "sha256": token.hash().to_string(), "state": "Active",
            "issuedAt": ISSUED_AT, "expiresAt": "2099-01-01T00:00:00Z",
        }],
    }))
}

/// The complete PAT.
pub fn resource(number: u32) -> anyhow::Result<Value> {
    Ok(json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "PersonalAccessToken",
        "metadata": {
            "namespace": NAMESPACE,
            "name": name(number),
            "uid": format!("{:08x}-0000-4000-8000-{number:012x}", number.wrapping_mul(0x9e37_79b9)),
            "resourceVersion": number.to_string(),
            "generation": 1,
            "creationTimestamp": ISSUED_AT,
        },
        "spec": spec(number),
        "status": status(number)?,
    }))
}
