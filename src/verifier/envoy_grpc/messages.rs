//! The messages and fields of Envoy's external authorization API (v3) that the verifier uses.
//!
//! Field numbers are those of `envoy/service/auth/v3/external_auth.proto` and its imports. Other fields are ignored. The crate
//! `envoy-types` has all messages, but it reads text as `String`. A client's header that is not UTF-8 would then make the whole
//! message unreadable, so text from Envoy is read as bytes here. A map is read as on the wire: a list of entries.

use prost::{Message, bytes::Bytes};

/// The request of Envoy.
#[derive(Clone, PartialEq, Message)]
pub struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributeContext>,
}

/// The attributes of the request.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeContext {
    #[prost(message, optional, tag = "4")]
    pub request: Option<AttributeRequest>,
    /// The `context_extensions` in the configuration of the route.
    #[prost(message, repeated, tag = "10")]
    pub context_extensions: Vec<MapEntry>,
}

/// The request of the client.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeRequest {
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

/// The HTTP request of the client.
#[derive(Clone, PartialEq, Message)]
pub struct HttpRequest {
    /// One entry per name. Envoy joins several values of a name with commas.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<MapEntry>,
    /// Replaces `headers` if Envoy is configured to `encode_raw_headers`.
    #[prost(message, optional, tag = "13")]
    pub header_map: Option<RawHeaders>,
}

/// An entry of a protobuf map.
#[derive(Clone, PartialEq, Message)]
pub struct MapEntry {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// Raw headers.
#[derive(Clone, PartialEq, Message)]
pub struct RawHeaders {
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<RawHeader>,
}

/// A raw header.
#[derive(Clone, PartialEq, Message)]
pub struct RawHeader {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: Bytes,
}

/// The response to Envoy.
#[derive(Clone, PartialEq, Message)]
pub struct CheckResponse {
    /// Code 0 lets the request pass.
    #[prost(message, optional, tag = "1")]
    pub status: Option<RpcStatus>,
    #[prost(oneof = "HttpResponse", tags = "2, 3")]
    pub http_response: Option<HttpResponse>,
    #[prost(message, optional, tag = "4")]
    pub dynamic_metadata: Option<Struct>,
}

/// The response for an HTTP request.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum HttpResponse {
    #[prost(message, tag = "2")]
    Denied(DeniedHttpResponse),
    #[prost(message, tag = "3")]
    Ok(OkHttpResponse),
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// The response that the client gets if the request is denied.
#[derive(Clone, PartialEq, Message)]
pub struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    pub body: String,
}

/// `envoy.type.v3.HttpStatus`, whose numbers are those of HTTP.
#[derive(Clone, PartialEq, Message)]
pub struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// The changes to the request before Envoy forwards it.
#[derive(Clone, PartialEq, Message)]
pub struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    pub headers_to_remove: Vec<String>,
}

/// A header to set.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    #[prost(int32, tag = "3")]
    pub append_action: i32,
    #[prost(bool, tag = "4")]
    pub keep_empty_value: bool,
}

/// The name and value of a header.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    #[prost(message, repeated, tag = "1")]
    pub fields: Vec<StructField>,
}

/// An entry of a [`Struct`].
#[derive(Clone, PartialEq, Message)]
pub struct StructField {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Value>,
}

/// `google.protobuf.Value`, limited to the kinds that are used.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(oneof = "ValueKind", tags = "3, 6")]
    pub kind: Option<ValueKind>,
}

/// The kind of a [`Value`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ValueKind {
    #[prost(string, tag = "3")]
    String(String),
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, Message)]
pub struct ListValue {
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

/// `HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD`: replaces the values of the client.
pub const OVERWRITE_IF_EXISTS_OR_ADD: i32 = 2;

impl HeaderValueOption {
    /// Sets a header, replacing the values of the client. The value may be empty.
    pub fn set(name: &str, value: &str) -> Self {
        Self {
            header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned() }),
            append_action: OVERWRITE_IF_EXISTS_OR_ADD,
            keep_empty_value: true,
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self { kind: Some(ValueKind::String(text)) }
    }
}

impl FromIterator<String> for Value {
    fn from_iter<I: IntoIterator<Item = String>>(texts: I) -> Self {
        let values = texts.into_iter().map(Self::from).collect();
        Self { kind: Some(ValueKind::List(ListValue { values })) }
    }
}

impl<const N: usize> From<[(&str, Value); N]> for Struct {
    fn from(fields: [(&str, Value); N]) -> Self {
        let field = |(key, value): (&str, Value)| StructField { key: key.to_owned(), value: Some(value) };
        Self { fields: fields.map(field).into() }
    }
}
