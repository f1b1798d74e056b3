//! Request bodies: read within limits of size and time and within a memory budget that all requests share, and zeroed afterwards.
//!
//! `axum::body::to_bytes` and `http_body_util::Limited` limit the size only, and leave copies of a token in memory. A tokio `Semaphore`
//! could be the budget, but takes a lock whenever a request gives its bytes back.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    http::StatusCode,
};
use futures::StreamExt;
use zeroize::Zeroizing;

use super::timeout;

/// The maximum size of a body. A token has 77 bytes; that of a ServiceAccount, some thousand.
pub const MAX_BODY: usize = 64 * 1024;

/// The maximum memory that is reserved before data arrives, so that an announced length alone takes no memory from
/// other requests.
const INITIAL_CAPACITY: usize = 1024;

/// The time limit of a body.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The default budget: a thousand bodies of the verifier's maximum size at once.
const DEFAULT_BUDGET: usize = 64 * 1024 * 1024;

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is larger than [`MAX_BODY`].
    #[error("the body is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// It did not arrive in time.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The connection broke.
    #[error("the body ended early")]
    Broken,
    /// The memory budget is exhausted.
    #[error(transparent)]
    NoMemory(BudgetExhausted),
}

impl BodyError {
    /// Returns the HTTP status of this error.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::NoMemory(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A complete body, which may hold a token: dropping it zeroes it and gives its memory back to the budget.
#[derive(Debug)]
pub struct RequestBody {
    bytes: Zeroizing<Vec<u8>>,
    reservation: MemoryReservation,
}

impl Deref for RequestBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl RequestBody {
    fn new(memory: &Arc<MemoryBudget>, capacity: usize) -> Result<Self, BodyError> {
        let mut reservation = memory.reservation();
        reservation.grow(capacity).map_err(BodyError::NoMemory)?;
        Ok(Self { bytes: Zeroizing::new(Vec::with_capacity(capacity)), reservation })
    }

    fn push(&mut self, part: &[u8]) -> Result<(), BodyError> {
        let length = self.bytes.len() + part.len();
        if length > MAX_BODY {
            return Err(BodyError::TooLarge);
        }
        let capacity = self.bytes.capacity();
        if capacity < length {
            let larger = length.max(2 * capacity).min(MAX_BODY);
            self.reservation.grow(larger - capacity).map_err(BodyError::NoMemory)?;
            // A new vector: one that grows leaves a copy behind.
            let mut bytes = Zeroizing::new(Vec::with_capacity(larger));
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }
}

/// Reads a body within the shared memory budget.
pub async fn read(body: Body, memory: &Arc<MemoryBudget>) -> Result<RequestBody, BodyError> {
    timeout(TIMEOUT, collect(body, memory)).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(body: Body, memory: &Arc<MemoryBudget>) -> Result<RequestBody, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_BODY {
        return Err(BodyError::TooLarge);
    }
    let mut complete = RequestBody::new(memory, announced.min(INITIAL_CAPACITY))?;
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        complete.push(&part.map_err(|_| BodyError::Broken)?)?;
    }
    Ok(complete)
}

/// The memory that all requests of a process share. Limits per request and connection alone could add up to more than a machine
/// has.
#[derive(Debug)]
pub struct MemoryBudget {
    left: AtomicUsize,
}

/// The part of a [`MemoryBudget`] that one request uses; given back on drop.
#[derive(Debug)]
pub struct MemoryReservation {
    budget: Arc<MemoryBudget>,
    taken: usize,
}

/// The memory budget is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are in progress: try again")]
pub struct BudgetExhausted;

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::of(DEFAULT_BUDGET)
    }
}

impl MemoryBudget {
    /// Creates a budget of this many bytes.
    pub fn of(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    /// Creates an empty reservation.
    pub fn reservation(self: &Arc<Self>) -> MemoryReservation {
        MemoryReservation { budget: self.clone(), taken: 0 }
    }

    /// Returns the number of bytes left.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

impl MemoryReservation {
    /// Reserves this many more bytes, or none if there are too few left.
    pub fn grow(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        let rest = |left: usize| left.checked_sub(bytes);
        self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).map_err(|_| BudgetExhausted)?;
        self.taken += bytes;
        Ok(())
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.taken, Ordering::Relaxed);
    }
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
    async fn body_is_read_up_to_its_limit_with_or_without_an_announced_length() {
        let memory = Arc::new(MemoryBudget::default());
        let all = memory.left();
        assert!(read(Body::empty(), &memory).await.unwrap().is_empty());
        assert_eq!(read(Body::from(vec![7; MAX_BODY]), &memory).await.unwrap().len(), MAX_BODY);
        assert_eq!(read(Body::from(vec![7; MAX_BODY + 1]), &memory).await.unwrap_err(), BodyError::TooLarge);
        assert_eq!(*read(parts(64, 1024), &memory).await.unwrap(), *vec![7; MAX_BODY]);
        assert_eq!(read(parts(65, 1024), &memory).await.unwrap_err(), BodyError::TooLarge);
        let broken = stream::iter([Ok(Bytes::from("a")), Err(std::io::Error::other("cut off"))]);
        assert_eq!(read(Body::from_stream(broken), &memory).await.unwrap_err(), BodyError::Broken);
        assert_eq!(memory.left(), all, "all memory is given back");
    }

    #[tokio::test]
    async fn body_beyond_the_memory_budget_is_refused_with_or_without_an_announced_length() {
        let memory = Arc::new(MemoryBudget::of(10_000));
        let held = read(Body::from(vec![7; 6_000]), &memory).await.unwrap();
        for too_much in [Body::from(vec![7; 4_001]), parts(5, 1024)] {
            assert_eq!(read(too_much, &memory).await.unwrap_err(), BodyError::NoMemory(BudgetExhausted));
        }
        assert_eq!(memory.left(), 4_000);
        drop(held);
        assert_eq!(read(parts(5, 1024), &memory).await.unwrap().len(), 5_120);
    }

    #[tokio::test(start_paused = true)]
    async fn endless_body_times_out() {
        let slow = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(slow, &Arc::default()).await.unwrap_err(), BodyError::TooSlow);
    }

    #[test]
    fn reservations_never_exceed_the_budget_and_are_given_back() {
        let budget = Arc::new(MemoryBudget::of(100));
        let (mut one, mut other) = (budget.reservation(), budget.reservation());
        one.grow(60).unwrap();
        assert_eq!(other.grow(41), Err(BudgetExhausted));
        other.grow(40).unwrap();
        assert_eq!((budget.left(), one.grow(1)), (0, Err(BudgetExhausted)));
        drop(one);
        assert_eq!(budget.left(), 60);
        other.grow(60).unwrap();
        drop(other);
        assert_eq!(budget.left(), 100);
    }
}
