//! What is owed to whoever waits for a token: it is taken back, unless all of it goes out to them.
//!
//! It must not know what is taken back or acknowledged, nor how.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// Whoever drops it unsigned has the token taken back.
pub struct Receipt(Option<Box<dyn FnOnce(bool) + Send + Sync>>);

impl Receipt {
    /// A receipt for something that `settle` undoes, or acknowledges if it is told that it has arrived.
    pub fn new(settle: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(settle)))
    }

    /// One for something that may stay where it is.
    pub fn none() -> Self {
        Self(None)
    }

    /// It has reached whom it is for.
    pub fn sign(mut self) {
        self.settle(true);
    }

    fn settle(&mut self, arrived: bool) {
        if let Some(settle) = self.0.take() {
            settle(arrived);
        }
    }

    /// These bytes as a body: it signs when the last of them is taken to be sent, and not if it is dropped before.
    pub fn with(self, bytes: Bytes) -> Body {
        Body::new(Sent { bytes, receipt: Some(self), stage: Stage::Begins })
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.settle(false);
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("owed", &self.0.is_some()).finish()
    }
}

/// A body in two parts. Between them the server gets to send the first, and so to find out that nobody is there any more.
struct Sent {
    bytes: Bytes,
    receipt: Option<Receipt>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begins,
    Waits,
    Ends,
    Over,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.stage {
            Stage::Begins if self.bytes.len() > 1 => {
                self.stage = Stage::Waits;
                let all_but_one = self.bytes.len() - 1;
                Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(all_but_one)))))
            }
            Stage::Waits => {
                self.stage = Stage::Ends;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Stage::Begins | Stage::Ends => {
                self.stage = Stage::Over;
                if let Some(receipt) = self.receipt.take() {
                    receipt.sign();
                }
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))))
            }
            Stage::Over => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Over
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use http_body_util::BodyExt;

    use super::*;

    fn receipt() -> (Receipt, Arc<AtomicBool>) {
        let taken_back = Arc::new(AtomicBool::new(false));
        let told = taken_back.clone();
        (Receipt::new(move |arrived| told.store(!arrived, Ordering::SeqCst)), taken_back)
    }

    #[test]
    fn what_is_dropped_unsigned_is_taken_back() {
        let (dropped, taken_back) = receipt();
        assert!(!taken_back.load(Ordering::SeqCst));
        drop(dropped);
        assert!(taken_back.load(Ordering::SeqCst));
        let (signed, taken_back) = receipt();
        signed.sign();
        assert!(!taken_back.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_body_signs_with_its_last_byte_and_not_before() {
        for (parts, signed) in [(0, false), (1, false), (2, true)] {
            let (receipt, taken_back) = receipt();
            let mut body = receipt.with("a token".into());
            assert_eq!(body.size_hint().exact(), Some(7));
            let mut text = Vec::new();
            for _ in 0..parts {
                text.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
            }
            assert_eq!(body.is_end_stream(), signed);
            assert!(!signed || text == b"a token");
            drop(body);
            assert_eq!(taken_back.load(Ordering::SeqCst), !signed, "{parts} parts were taken");
        }
        let (receipt, taken_back) = receipt();
        assert_eq!(receipt.with("x".into()).collect().await.unwrap().to_bytes(), "x");
        assert!(!taken_back.load(Ordering::SeqCst));
    }
}
