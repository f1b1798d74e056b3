//! A question's bytes, for which room is taken in the verifier's memory before they are gathered.
//!
//! gRPC says in front of a message how long it is, and whoever reads it makes that much room at once. It must not know what a
//! question says.

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

use super::MAX_QUESTION;
use crate::service::http::{Budget, Share};

/// A message without anything in it: not compressed, no bytes.
const EMPTY: &[u8] = &[0; 5];

/// See the module. Where there is no room an empty question is read, which is then not answered by what stands in it.
pub(super) struct Charged {
    body: Body,
    share: Share,
    state: State,
    full: Arc<AtomicBool>,
}

#[derive(PartialEq)]
enum State {
    /// Nothing has come yet.
    Begins,
    /// Room has been made for all of it.
    GoesOn,
    /// There was none.
    Ended,
}

/// Tells whether there was no room.
#[derive(Clone)]
pub(super) struct Full(Arc<AtomicBool>);

impl Charged {
    /// Takes room for a header at once.
    pub(super) fn new(headers: &HeaderMap, body: Body, budget: &Arc<Budget>) -> (Self, Full) {
        let head = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let mut share = budget.share();
        let full = Arc::new(AtomicBool::new(share.take(head).is_err()));
        (Self { body, share, state: State::Begins, full: full.clone() }, Full(full))
    }

    fn make_room(&mut self, first: &Bytes) -> bool {
        let announced = first.get(1..5).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
        // What is longer than allowed is refused as soon as its length is read.
        let length = announced.map_or(MAX_QUESTION, |length| (length as usize).min(MAX_QUESTION));
        !self.full.load(Ordering::Relaxed) && self.share.take(length).is_ok()
    }
}

impl Full {
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl HttpBody for Charged {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.state == State::Ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.state == State::Begins
            && let Some(Ok(first)) = &frame
            && let Some(data) = first.data_ref()
        {
            let data = data.clone();
            if !self.make_room(&data) {
                self.full.store(true, Ordering::Relaxed);
                self.state = State::Ended;
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(EMPTY)))));
            }
            self.state = State::GoesOn;
        }
        Poll::Ready(frame)
    }
}
