//! What is left unread of a request's body, read before the answer goes out.
//!
//! hyper ends a connection that has an unread body on it without saying so in the answer: whoever sends the next request there finds
//! it closed. It must not know what is in a body, nor keep any of it.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
};
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

/// A body, lent to whoever answers.
struct Lent<B>(Arc<Mutex<B>>);

/// What has been lent, to be looked at after the answer.
pub(super) struct Leftover<B>(Arc<Mutex<B>>);

/// Lends a body.
pub(super) fn lend<B>(body: B) -> (Body, Leftover<B>)
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let body = Arc::new(Mutex::new(body));
    (Body::new(Lent(body.clone())), Leftover(body))
}

impl<B: HttpBody + Unpin> Leftover<B> {
    /// Reads what is left, within the body's own bounds and for so long at most; false if the connection cannot go on after it.
    pub(super) async fn read(self, within: Duration) -> bool {
        // Whoever still has it will read it, or end the connection.
        let Some(body) = Arc::into_inner(self.0) else { return true };
        let mut body = body.into_inner().unwrap_or_else(PoisonError::into_inner);
        let to_its_end = poll_fn(|context| {
            loop {
                match ready!(Pin::new(&mut body).poll_frame(context)) {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return Poll::Ready(false),
                    None => return Poll::Ready(true),
                }
            }
        });
        timeout(within, to_its_end).await.unwrap_or(false)
    }
}

impl<B: HttpBody + Unpin> Lent<B> {
    fn with<T>(&self, ask: impl FnOnce(&mut B) -> T) -> T {
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<B: HttpBody + Unpin> HttpBody for Lent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.with(|body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}
