//! The bytes of the requests, by protocol.

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::tokens::{AUDIENCE, SCOPES, token};

/// A measured protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// RFC 7662, by a caller with its own token: two decisions per request.
    Introspection,
    /// The request of nginx.
    ForwardAuth,
    /// The request of Envoy.
    Grpc,
}

/// The path of introspection.
pub const INTROSPECT: &str = "/oauth2/introspect";
/// The path of forward authentication.
pub const FORWARD: &str = "/auth/forward";
/// Envoy's gRPC service.
pub const SERVICE: &str = "envoy.service.auth.v3.Authorization";
/// The path of its one method.
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

impl Protocol {
    /// All protocols, in the order of the measurements.
    pub const ALL: [Self; 3] = [Self::Introspection, Self::ForwardAuth, Self::Grpc];

    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Introspection => "introspection",
            Self::ForwardAuth => "forward authentication",
            Self::Grpc => "gRPC Check",
        }
    }

    /// A text that only an answer that accepts the token contains.
    pub fn proof(self) -> &'static [u8] {
        match self {
            Self::Introspection => b"\"active\":true",
            Self::ForwardAuth | Self::Grpc => b"x-auth-request-user",
        }
    }

    /// The request about a token: complete for HTTP/1.1, the framed message for gRPC.
    pub fn request(self, number: u32) -> anyhow::Result<Vec<u8>> {
        let token = token(number)?;
        let token = token.expose();
        Ok(match self {
            Self::Introspection => {
                let (caller, body) = (self::token(0)?, format!("token={token}&token_type_hint=access_token"));
                let (caller, length) = (caller.expose(), body.len());
                format!(
                    "POST {INTROSPECT} HTTP/1.1\r\nhost: pat-operator\r\naccept: application/json\r\n\
                     content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\
                     authorization: Bearer {caller}\r\n\r\n{body}"
                )
                .into_bytes()
            }
            Self::ForwardAuth => {
                let [one, two] = SCOPES;
                let headers: String = client().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                format!(
                    "GET {FORWARD}?scope={one}&scope={two}&audience={AUDIENCE} HTTP/1.1\r\nhost: pat-operator\r\n\
                     {headers}authorization: Bearer {token}\r\n\r\n"
                )
                .into_bytes()
            }
            Self::Grpc => framed(&question(token)),
        })
    }
}

/// Further headers that a client sends and a proxy passes on.
fn client() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        ("accept", "application/vnd.docker.distribution.manifest.v2+json, */*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("user-agent", "docker/29.1.0 go/go1.26 kernel/6.12 os/linux arch/amd64"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "registry.example.com"),
        ("x-forwarded-uri", "/v2/team/app/manifests/latest"),
        ("x-forwarded-method", "GET"),
        ("x-request-id", "5f0c4a3e-7d4c-4d66-9a57-2f1f4c8d9b10"),
    ]
    .into_iter()
}

/// A `CheckRequest` like Envoy's: both peers, the request, and the `context_extensions` of the route.
fn question(token: &str) -> Vec<u8> {
    let text = |tag, text: &str| field(tag, text.as_bytes());
    let entry = |tag, key: &str, value: &str| field(tag, &[text(1, key), text(2, value)].concat());
    let peer = |tag, address: &str| field(tag, &field(1, &field(1, &text(2, address))));
    let fixed =
        [(":authority", "registry.example.com"), (":path", "/v2/team/app/manifests/latest"), (":method", "GET")];
    let mut http = [text(1, "5139381093219411402"), text(2, "GET")].concat();
    for (name, value) in fixed.into_iter().chain(client()) {
        http.extend(entry(3, name, value));
    }
    http.extend(entry(3, "authorization", &format!("Bearer {token}")));
    http.extend(
        [text(4, "/v2/team/app/manifests/latest"), text(5, "registry.example.com"), text(10, "HTTP/1.1")].concat(),
    );
    let attributes = [
        peer(1, "192.0.2.7"),
        peer(2, "198.51.100.3"),
        field(4, &field(2, &http)),
        entry(10, "scope", &SCOPES.join(" ")),
        entry(10, "audience", AUDIENCE),
    ];
    field(1, &attributes.concat())
}

/// A length-delimited protobuf field.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(content);
    bytes
}

/// A message in a gRPC frame.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// The message in a gRPC frame.
pub fn unframed(frame: &[u8]) -> anyhow::Result<&[u8]> {
    let (head, message) = frame.split_at_checked(5).context("not a gRPC frame")?;
    anyhow::ensure!(head[1..] == (message.len() as u32).to_be_bytes(), "not one complete gRPC frame");
    Ok(message)
}
