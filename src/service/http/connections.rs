//! The connections of a process: their number, how much each may hold, and which one makes room for another.
//!
//! Limits per connection and the number of connections, multiplied, allow more memory than a container has. So the bounds of a new
//! connection fall with the number of open ones. Once all slots are taken, a new connection closes the oldest one that waits for its client,
//! as nginx does with idle connections: clients that connect and send nothing do not keep others out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::activity::{ConnectionActivity, Waiting};

/// The maximum number of connections of a process that serves requests.
const MAX_CONNECTIONS: usize = 1536;

/// File descriptors for everything else: the API server, the health endpoint, files and the runtime.
const OTHER_DESCRIPTORS: usize = 256;

/// The minimum number of connections, for a process with hardly any file descriptors.
const MIN_CONNECTIONS: usize = 16;

/// The bytes of headers that the open connections share equally, between the bounds of one connection.
const SHARED_HEADS: usize = 8 * 1024 * 1024;

/// The minimum size of a request's header, in bytes. Clients and proxies send longer ones than servers with 8 KiB accept.
const MIN_HEAD: usize = 16 * 1024;

/// The concurrent HTTP/2 requests that the open connections share equally, between the bounds of one connection.
const SHARED_STREAMS: usize = 2048;

/// The minimum number of concurrent requests on an HTTP/2 connection.
const MIN_STREAMS: usize = 8;

/// How often a connection without a slot closes another one.
const EVICT_EVERY: Duration = Duration::from_millis(100);

/// The connection slots that the servers of a process share.
#[derive(Debug)]
pub struct ConnectionSlots {
    free: Arc<Semaphore>,
    total: usize,
    /// In the order in which they were accepted, and some that have ended.
    open: Mutex<VecDeque<OpenConnection>>,
}

#[derive(Debug)]
struct OpenConnection {
    activity: Weak<ConnectionActivity>,
    stop: CancellationToken,
}

/// The slot of one connection, free again on drop.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    _permit: OwnedSemaphorePermit,
    /// The number of open connections, with this one.
    open: usize,
}

impl ConnectionSlots {
    /// Creates this many slots, at least one.
    pub fn new(total: usize) -> Self {
        let total = total.max(1);
        Self { free: Arc::new(Semaphore::new(total)), total, open: Mutex::default() }
    }

    /// Creates the slots of this process: 1,536, or fewer if it may not open that many files. It first raises the soft limit of open files
    /// to the hard one, as Go does: <https://go.dev/issue/46279>.
    pub fn of_process() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: maximum, maximum };
        let limit = if setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
        let total = slots_within(limit);
        if total < MAX_CONNECTIONS {
            warn!(
                connections = total,
                open_files = limit,
                "the limit of open files allows fewer connections: raise `ulimit -n`"
            );
        }
        Self::new(total)
    }

    /// Waits for a free slot. While there is none, it closes the oldest connection that has sent no complete request, and without such a one
    /// the oldest idle one. Connections with a request in progress stay.
    pub(super) async fn acquire(&self) -> ConnectionSlot {
        loop {
            let free = self.free.clone();
            let permit = match free.clone().try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => {
                    self.evict();
                    match tokio::time::timeout(EVICT_EVERY, free.acquire_owned()).await {
                        Ok(Ok(permit)) => permit,
                        // The semaphore is never closed.
                        Ok(Err(_)) | Err(_) => continue,
                    }
                }
            };
            return ConnectionSlot { _permit: permit, open: self.total - self.free.available_permits() };
        }
    }

    /// Records an open connection, which ends when `stop` is cancelled.
    pub(super) fn register(&self, activity: &Arc<ConnectionActivity>, stop: CancellationToken) {
        let mut open = self.lock();
        if open.len() >= 2 * self.total {
            open.retain(OpenConnection::is_open);
        }
        open.push_back(OpenConnection { activity: Arc::downgrade(activity), stop });
    }

    fn evict(&self) {
        let mut open = self.lock();
        open.retain(OpenConnection::is_open);
        let oldest = |what| open.iter().position(|connection| connection.waiting() == Some(what));
        let Some(at) = oldest(Waiting::ForRequest).or_else(|| oldest(Waiting::Idle)) else { return };
        let Some(OpenConnection { activity, stop }) = open.remove(at) else { return };
        if let Some(activity) = activity.upgrade() {
            activity.evict();
        }
        stop.cancel();
        debug!("closed a waiting connection to make room for another");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<OpenConnection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnection {
    fn is_open(&self) -> bool {
        self.activity.strong_count() > 0
    }

    fn waiting(&self) -> Option<Waiting> {
        self.activity.upgrade()?.waiting()
    }
}

impl ConnectionSlot {
    /// Returns the maximum size of a request's header on this connection, in bytes: at most `limit`.
    pub(super) fn head(&self, limit: usize) -> usize {
        share(SHARED_HEADS, self.open, MIN_HEAD, limit)
    }

    /// Returns the maximum number of concurrent requests, if this is an HTTP/2 connection: at most `limit`.
    pub(super) fn streams(&self, limit: u32) -> u32 {
        let streams = share(SHARED_STREAMS, self.open, MIN_STREAMS, usize::try_from(limit).unwrap_or(usize::MAX));
        u32::try_from(streams).unwrap_or(limit)
    }
}

/// Returns an equal share, at least `least` and at most `most`.
fn share(total: usize, among: usize, least: usize, most: usize) -> usize {
    (total / among.max(1)).max(least).min(most)
}

/// Returns the number of connections within this limit of open files; `None` is unlimited.
fn slots_within(open_files: Option<u64>) -> usize {
    let files = open_files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    files.saturating_sub(OTHER_DESCRIPTORS).clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use hyper::Version;

    use super::*;

    const LIMIT: usize = 64 * 1024;

    fn bounds(open: usize) -> (usize, u32) {
        let slot = ConnectionSlot { _permit: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(), open };
        (slot.head(LIMIT), slot.streams(128))
    }

    #[test]
    fn bounds_fall_with_the_number_of_connections() {
        assert_eq!(bounds(1), (LIMIT, 128));
        assert_eq!(bounds(128), (LIMIT, 16));
        assert_eq!(bounds(256), (LIMIT / 2, 8));
        assert_eq!(bounds(MAX_CONNECTIONS), (16 * 1024, 8));
    }

    #[test]
    fn all_connections_together_are_within_the_memory_of_the_process() {
        // However connections come and go, the one that was accepted as the n-th of those still open had at least n beside it.
        let (mut heads, mut streams) = (0, 0);
        for open in 1..=MAX_CONNECTIONS {
            let (head, requests) = bounds(open);
            heads += head;
            streams += requests;
        }
        assert!(heads <= 40 * 1024 * 1024, "{heads} bytes of headers");
        assert!(streams <= 20_000, "{streams} requests");
    }

    #[test]
    fn connections_leave_file_descriptors_for_everything_else() {
        for (files, slots) in
            [(None, 1536), (Some(1 << 20), 1536), (Some(1792), 1536), (Some(1024), 768), (Some(64), MIN_CONNECTIONS)]
        {
            assert_eq!(slots_within(files), slots, "{files:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_slot_closes_the_oldest_that_waits() {
        let slots = Arc::new(ConnectionSlots::new(4));
        let connect = async || {
            let slot = slots.acquire().await;
            let (activity, stop) = (Arc::new(ConnectionActivity::default()), CancellationToken::new());
            slots.register(&activity, stop.clone());
            (slot, activity, stop)
        };
        let (busy, idle, stalled, newer) = (connect().await, connect().await, connect().await, connect().await);
        let in_progress = busy.1.begin(Version::HTTP_11);
        drop(idle.1.begin(Version::HTTP_11));
        drop(newer.1.begin(Version::HTTP_11));

        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.acquire().await }
        });
        stalled.2.cancelled().await;
        assert!(stalled.1.is_evicted() && !idle.2.is_cancelled(), "one that has sent no complete request goes first");
        drop(stalled);
        let _third = waiting.await.unwrap();
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.acquire().await }
        });
        idle.2.cancelled().await;
        assert!(!newer.2.is_cancelled() && !busy.2.is_cancelled());
        newer.2.cancelled().await;
        drop((idle, newer));
        let _fourth = waiting.await.unwrap();
        let waiting = tokio::spawn(async move { slots.acquire().await });
        let _fifth = waiting.await.unwrap();
        assert!(!busy.2.is_cancelled(), "a request in progress stays");
        drop(in_progress);
    }
}
