//! gRPC framing of `Check` with a memory budget.
//!
//! tonic's own codec (`tonic-prost`) answers an unreadable message with a gRPC error, which Envoy treats as a fault and may let
//! pass. This codec returns `None` instead, which is answered with a denial.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    http::HeaderMap,
};
use hyper::body::Frame;
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::{
    MAX_MESSAGE,
    messages::{CheckRequest, CheckResponse},
};
use crate::service::http::{MemoryBudget, MemoryReservation};

/// An empty message: not compressed, zero bytes.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// The codec of one exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CheckCodec;

/// A request, or `None` if it is unreadable.
pub(super) type DecodedRequest = Option<CheckRequest>;

impl Codec for CheckCodec {
    type Encode = CheckResponse;
    type Decode = DecodedRequest;
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

    fn encode(&mut self, response: CheckResponse, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        response.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for CheckCodec {
    type Item = DecodedRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DecodedRequest>, Status> {
        Ok(Some(CheckRequest::decode(buffer).ok()))
    }
}

/// A request body that takes its share of the memory budget before it is buffered.
///
/// gRPC sends the length of a message before the message, and tonic allocates that much at once. If the budget does not suffice,
/// the body is replaced by an empty message, and [`BudgetExceeded`] says so.
pub(super) struct BudgetedBody {
    body: Body,
    share: MemoryReservation,
    progress: BodyProgress,
    exceeded: Arc<AtomicBool>,
}

#[derive(PartialEq)]
enum BodyProgress {
    /// No data has arrived yet.
    NotStarted,
    /// The memory for the whole message is reserved.
    Reserved,
    /// The budget did not suffice, and an empty message was returned.
    Replaced,
}

/// Reports whether the budget did not suffice for a body.
#[derive(Clone)]
pub(super) struct BudgetExceeded(Arc<AtomicBool>);

impl BudgetedBody {
    /// Wraps a body and reserves the memory of the request's headers.
    pub(super) fn new(headers: &HeaderMap, body: Body, budget: &Arc<MemoryBudget>) -> (Self, BudgetExceeded) {
        let head = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let mut share = budget.reservation();
        let exceeded = Arc::new(AtomicBool::new(share.grow(head).is_err()));
        (Self { body, share, progress: BodyProgress::NotStarted, exceeded: exceeded.clone() }, BudgetExceeded(exceeded))
    }

    /// Reserves the memory for the message that starts with `first`.
    fn reserve(&mut self, first: &Bytes) -> bool {
        let announced = first.get(1..5).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
        // A longer message is refused as soon as its length is read.
        let length = announced.map_or(MAX_MESSAGE, |length| (length as usize).min(MAX_MESSAGE));
        !self.exceeded.load(Ordering::Relaxed) && self.share.grow(length).is_ok()
    }
}

impl BudgetExceeded {
    /// Reports whether the budget did not suffice.
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl HttpBody for BudgetedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.progress == BodyProgress::Replaced {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.progress == BodyProgress::NotStarted
            && let Some(Ok(first)) = &frame
            && let Some(data) = first.data_ref()
        {
            let data = data.clone();
            if !self.reserve(&data) {
                self.exceeded.store(true, Ordering::Relaxed);
                self.progress = BodyProgress::Replaced;
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(EMPTY_MESSAGE)))));
            }
            self.progress = BodyProgress::Reserved;
        }
        Poll::Ready(frame)
    }
}
