//! Reads questions and writes answers in gRPC's framing.
//!
//! A question that cannot be read is handed on as such, so that it is answered like any other: with a denial. gRPC's own
//! errors mean a fault to Envoy. It must not know what is answered.

use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::wire::{CheckRequest, CheckResponse};

/// For one exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CheckCodec;

/// A question; `None` if it cannot be read.
pub(super) type Question = Option<CheckRequest>;

impl Codec for CheckCodec {
    type Encode = CheckResponse;
    type Decode = Question;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for CheckCodec {
    type Item = CheckResponse;
    type Error = Status;

    fn encode(&mut self, answer: CheckResponse, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        answer.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for CheckCodec {
    type Item = Question;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Question>, Status> {
        Ok(Some(CheckRequest::decode(buffer).ok()))
    }
}
