//! Reads a request's body within bounds of its own and of all of them together, and wipes it.
//!
//! It must not know what is in it.

use std::{ops::Deref, sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody},
    http::StatusCode,
};
use futures::StreamExt;
use zeroize::Zeroizing;

use super::{Budget, NoRoom, budget::Share, within::within};

/// The largest body that is read. A token has 77 bytes; a ServiceAccount's, some thousand.
pub const MAX_BODY: usize = 64 * 1024;

/// What is set aside before anything has come: what is merely announced takes no room from others.
const AT_FIRST: usize = 1024;

/// How long a body may take.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Why a body cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than [`MAX_BODY`].
    #[error("the body is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// It did not come in time.
    #[error("the body did not come in time")]
    TooSlow,
    /// The connection broke.
    #[error("the body ended early")]
    Broken,
    /// There is no room for it at the moment.
    #[error(transparent)]
    NoRoom(NoRoom),
}

impl BodyError {
    /// The status that says so.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A body, which holds a token: it is wiped on drop, and then its room is given back.
#[derive(Debug)]
pub struct Whole {
    bytes: Zeroizing<Vec<u8>>,
    share: Share,
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Whole {
    fn new(memory: &Arc<Budget>, capacity: usize) -> Result<Self, BodyError> {
        let mut share = memory.share();
        share.take(capacity).map_err(BodyError::NoRoom)?;
        Ok(Self { bytes: Zeroizing::new(Vec::with_capacity(capacity)), share })
    }

    fn push(&mut self, part: &[u8]) -> Result<(), BodyError> {
        let length = self.bytes.len() + part.len();
        if length > MAX_BODY {
            return Err(BodyError::TooLarge);
        }
        let capacity = self.bytes.capacity();
        if capacity < length {
            let larger = length.max(2 * capacity).min(MAX_BODY);
            self.share.take(larger - capacity).map_err(BodyError::NoRoom)?;
            // Not by growing, which would leave a copy behind.
            let mut bytes = Zeroizing::new(Vec::with_capacity(larger));
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }
}

/// Reads a body, within the memory that all of them share.
///
/// # Errors
/// When it is too large, too slow, or breaks off, or there is no room.
pub async fn read(body: Body, memory: &Arc<Budget>) -> Result<Whole, BodyError> {
    within(BODY_WITHIN, collect(body, memory)).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(body: Body, memory: &Arc<Budget>) -> Result<Whole, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_BODY {
        return Err(BodyError::TooLarge);
    }
    let mut whole = Whole::new(memory, announced.min(AT_FIRST))?;
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        whole.push(&part.map_err(|_| BodyError::Broken)?)?;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures::stream;

    use super::*;

    fn parts(count: usize, size: usize) -> Body {
        Body::from_stream(stream::iter((0..count).map(move |_| Ok::<_, std::io::Error>(Bytes::from(vec![7; size])))))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_whether_its_length_is_announced_or_not() {
        let memory = Arc::new(Budget::default());
        let all = memory.left();
        assert!(read(Body::empty(), &memory).await.unwrap().is_empty());
        assert_eq!(read(Body::from(vec![7; MAX_BODY]), &memory).await.unwrap().len(), MAX_BODY);
        assert_eq!(read(Body::from(vec![7; MAX_BODY + 1]), &memory).await.unwrap_err(), BodyError::TooLarge);
        assert_eq!(*read(parts(64, 1024), &memory).await.unwrap(), *vec![7; MAX_BODY]);
        assert_eq!(read(parts(65, 1024), &memory).await.unwrap_err(), BodyError::TooLarge);
        let broken = stream::iter([Ok(Bytes::from("a")), Err(std::io::Error::other("cut off"))]);
        assert_eq!(read(Body::from_stream(broken), &memory).await.unwrap_err(), BodyError::Broken);
        assert_eq!(memory.left(), all, "all room is given back");
    }

    #[tokio::test]
    async fn a_body_for_which_there_is_no_room_is_refused_whether_its_length_is_announced_or_not() {
        let memory = Arc::new(Budget::of(10_000));
        let held = read(Body::from(vec![7; 6_000]), &memory).await.unwrap();
        for too_much in [Body::from(vec![7; 4_001]), parts(5, 1024)] {
            assert_eq!(read(too_much, &memory).await.unwrap_err(), BodyError::NoRoom(NoRoom));
        }
        assert_eq!(memory.left(), 4_000);
        drop(held);
        assert_eq!(read(parts(5, 1024), &memory).await.unwrap().len(), 5_120);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let slow = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(slow, &Arc::default()).await.unwrap_err(), BodyError::TooSlow);
    }
}
