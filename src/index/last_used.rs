//! Writes when tokens were last used to `status.lastUsedAt` and `status.usage`.
//!
//! The index records uses in memory, and [`LastUsedWriter`] writes them periodically. Decisions never wait for it.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::SignedDuration;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Index, IndexedCredential, IndexedPat, PatUid};
use crate::{
    api::{StoredPat, Time},
    service::{Clock, clock::uptime, explain_api_error},
};

/// The field manager of these writes.
pub const FIELD_MANAGER: &str = crate::api::VERIFIER_FIELD_MANAGER;

/// The shortest time between two writes. A status write costs an API server 2 ms of CPU time, so ten writes a second cost 2 % of a core.
/// At this rate, 100,000 tokens in use are written within three hours.
const PACE: Duration = Duration::from_millis(100);

/// The longest time between two scans of the index.
const SCAN_EVERY: Duration = Duration::from_secs(10);

/// The maximum number of tokens of one scan: those that can be written before the next.
const BATCH: usize = 100;

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest pause after a failed write.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The timeout of the last flush, and the number of its concurrent writes.
const LAST_FLUSH: Duration = Duration::from_secs(3);
const LAST_FLUSH_WIDTH: usize = 4;

/// Counts successful and failed writes of last uses. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct LastUsedCounters {
    written: Counter,
    failed: Counter,
}

impl LastUsedCounters {
    /// Registers the counters.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("last_used_writes", "Last uses written to status", self.written.clone());
        registry.register("last_used_errors", "Failed writes of last uses; they are retried", self.failed.clone());
    }
}

/// Writes last uses of the tokens in an index.
pub struct LastUsedWriter {
    index: Arc<Index>,
    client: Client,
    clock: Clock,
    counters: LastUsedCounters,
    every: SignedDuration,
    /// Differs among replicas, so that they do not all write the same token at once.
    salt: u64,
    /// When this process last wrote each token: at most once per interval, even if the watch lags.
    written: HashMap<PatUid, Duration>,
}

impl LastUsedWriter {
    /// Creates a writer that writes each token's uses at most once per `every`.
    pub fn new(
        index: Arc<Index>,
        client: Client,
        clock: Clock,
        counters: LastUsedCounters,
        every: SignedDuration,
    ) -> Self {
        let salt = uptime().as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(32);
        Self { index, client, clock, counters, every, salt, written: HashMap::new() }
    }

    /// Writes until cancelled, and then once more, within a few seconds.
    pub async fn run(mut self, stopping: CancellationToken) {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.keep_writing() => {}
        }
        self.flush().await;
    }

    async fn keep_writing(&mut self) {
        let scan_every = (self.every() / 20).clamp(PACE, SCAN_EVERY);
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        loop {
            sleep(scan_every).await;
            for uid in self.due(true) {
                pace.tick().await;
                match self.write(uid).await {
                    Ok(()) => failures = 0,
                    Err(why) => {
                        if failures == 0 {
                            warn!(why, "cannot write when tokens were last used, trying again");
                        }
                        let pause = PACE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
                        failures += 1;
                        sleep(pause).await;
                        break;
                    }
                }
            }
            let (now, every) = (uptime(), self.every());
            self.written.retain(|_, at| now.saturating_sub(*at) < every);
        }
    }

    /// Writes the uses that would be lost when this process ends, except those of tokens that were written within the
    /// interval.
    async fn flush(&mut self) {
        let due = self.due(false);
        let count = due.len();
        let this = &*self;
        let writing = stream::iter(due).for_each_concurrent(LAST_FLUSH_WIDTH, |uid| async move {
            if let Err(why) = this.patch(uid).await {
                debug!(%why, "cannot write a last use before shutdown");
            }
        });
        if timeout(LAST_FLUSH, writing).await.is_err() {
            warn!(count, "not all times of last use could be written before shutdown");
        }
    }

    /// Returns the tokens whose use is due to be written, longest waiting first.
    fn due(&self, spread: bool) -> Vec<PatUid> {
        let now = self.clock.now().into();
        let mut due = Vec::new();
        self.index.for_each(|pat| {
            if self.written.contains_key(&pat.uid) {
                return;
            }
            let wait = if spread { self.every + self.spread(pat.uid) } else { self.every };
            if let Some(since) = due_since(pat, wait, now) {
                due.push((since, pat.uid));
            }
        });
        due.sort_unstable();
        if spread {
            due.truncate(BATCH);
        }
        due.into_iter().map(|(_, uid)| uid).collect()
    }

    /// Returns a delay of up to a tenth of the interval that differs by token and replica. It spreads writes, and a replica usually sees
    /// another replica's write before its own is due.
    fn spread(&self, uid: PatUid) -> SignedDuration {
        let part = (uid.mixed() ^ self.salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        SignedDuration::try_from(self.every().mul_f64(part as f64 / f64::from(u16::MAX) / 10.0)).unwrap_or_default()
    }

    fn every(&self) -> Duration {
        self.every.unsigned_abs()
    }

    async fn write(&mut self, uid: PatUid) -> Result<(), String> {
        match self.patch(uid).await {
            Ok(false) => {}
            Ok(true) => drop(self.written.insert(uid, uptime())),
            // A refusal of one object, as by an admission policy, must not delay the others.
            Err(LastUsedError::Refused(why)) => {
                debug!(why, "the API server refuses the last use of a token");
                self.written.insert(uid, uptime());
            }
            Err(LastUsedError::Unavailable(why)) => return Err(why),
        }
        Ok(())
    }

    /// Writes the new uses of this token. Returns false if there are none.
    async fn patch(&self, uid: PatUid) -> Result<bool, LastUsedError> {
        let Some(pat) = self.index.pat(uid) else { return Ok(false) };
        let Some(patch) = patch(&pat) else { return Ok(false) };
        let api: Api<StoredPat> = Api::namespaced(self.client.clone(), pat.namespace());
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let why = match timeout(WRITE_TIMEOUT, api.patch_status(pat.name(), &params, &Patch::Merge(&patch))).await {
            Ok(Ok(_)) => {
                self.counters.written.inc();
                return Ok(true);
            }
            // The object was deleted, or another one has its name; the watch will show it.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => return Ok(false),
            Ok(Err(error)) => LastUsedError::of(&error),
            Err(_) => LastUsedError::Unavailable(format!("no answer within {} seconds", WRITE_TIMEOUT.as_secs())),
        };
        self.counters.failed.inc();
        Err(why)
    }
}

/// Why a last use could not be written.
#[derive(Debug)]
enum LastUsedError {
    /// The API server refuses this write, and a retry would not help.
    Refused(String),
    /// No use can be written at present.
    Unavailable(String),
}

impl LastUsedError {
    fn of(error: &kube::Error) -> Self {
        let why = explain_api_error(error);
        match error {
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 413 | 422) => Self::Refused(why),
            _ => Self::Unavailable(why),
        }
    }
}

impl fmt::Display for LastUsedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(why) | Self::Unavailable(why)) = self;
        f.write_str(why)
    }
}

/// Returns when a credential was used, if the status does not show this use.
fn used(credential: &IndexedCredential) -> Option<Time> {
    let used = credential.last_used()?;
    credential.reported_use().is_none_or(|reported| reported < used).then_some(used)
}

/// Returns since when a use has been due; `None` if there is no new use, or the last write was less than `wait` ago.
fn due_since(pat: &IndexedPat, wait: SignedDuration, now: Time) -> Option<Time> {
    let newest = pat.credentials.iter().filter_map(used).max()?;
    let reported = pat.credentials.iter().filter_map(|one| one.reported_use()).chain(pat.reported_use()).max();
    let since = reported.map_or(newest, |reported| reported.plus(wait));
    (since <= now).then_some(since)
}

/// Returns the JSON merge patch that adds new uses and removes those of dead credentials; `None` if there are no new
/// uses.
///
/// It has no precondition: the API server ignores a uid in a patch of status, and a resourceVersion would conflict with every other
/// write. If another object has just taken the name, its next use removes the foreign entry.
fn patch(pat: &IndexedPat) -> Option<Value> {
    let mut usage = Map::new();
    let mut newest = None;
    for credential in pat.credentials.iter() {
        if let Some(used) = used(credential) {
            usage.insert(credential.id.to_string(), json!(used));
            newest = newest.max(Some(used));
        }
    }
    let newest = newest?;
    usage.extend(pat.dead_usage().iter().map(|id| (id.to_owned(), Value::Null)));
    let mut status = json!({ "usage": usage });
    if pat.reported_use().is_none_or(|known| known < newest) {
        status["lastUsedAt"] = json!(newest);
    }
    Some(json!({ "status": status }))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, convert::Infallible, future::ready, sync::Mutex};

    use tokio::time::Instant;

    use super::*;

    const LIVE: [&str; 2] = ["000000000001", "000000000002"];

    fn at(seconds: i64) -> Time {
        Time::from_micros(1_800_000_000_000_000 + seconds * 1_000_000 + 123_456)
    }

    fn shown(seconds: i64) -> String {
        at(seconds).floor_second().to_string()
    }

    /// An index with one PAT of this status, whose credentials were used when `uses` says.
    fn index(last_used_at: Option<i64>, usage: &[(&str, i64)], uses: &[(usize, i64)]) -> (Index, PatUid) {
        let hash = |number: usize| format!("{:064x}", number + 1);
        let credential = |number: usize| {
            json!({
                "id": LIVE[number], "revision": 1, "sha256": hash(number), "state": "Active",
                "issuedAt": "2026-01-01T00:00:00Z",
            })
        };
        let usage: Map<_, _> = usage.iter().map(|(id, when)| ((*id).to_owned(), json!(shown(*when)))).collect();
        let stored: StoredPat = serde_json::from_value(json!({
            "metadata": {"namespace": "team", "name": "app", "uid": format!("{:032x}", 7)},
            "spec": {},
            "status": {
                "credentials": [credential(0), credential(1)], "usage": usage, "lastUsedAt": last_used_at.map(shown),
            },
        }))
        .unwrap();
        let index = Index::default();
        index.put(IndexedPat::read(&stored).unwrap());
        for (number, when) in uses {
            index.mark_used(&index.get(&hash(*number).parse().unwrap()).unwrap(), at(*when));
        }
        (index, 7.into())
    }

    fn patch_of(last_used_at: Option<i64>, usage: &[(&str, i64)], uses: &[(usize, i64)]) -> Option<Value> {
        let (index, uid) = index(last_used_at, usage, uses);
        let patch = patch(&index.pat(uid).unwrap())?;
        assert_eq!(patch.as_object().unwrap().len(), 1, "nothing but status: {patch}");
        Some(patch["status"].clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_uses_is_written_once_each_at_the_pace() {
        const TOKENS: u64 = 60;
        let index = Arc::new(Index::default());
        for number in 1..=TOKENS {
            let hash = format!("{number:064x}");
            let stored: StoredPat = serde_json::from_value(json!({
                "metadata": {"namespace": "team", "name": format!("app-{number}"), "uid": format!("{number:032x}")},
                "spec": {},
                "status": {"credentials": [{
                    "id": format!("{number:012}"), "revision": 1, "sha256": hash, "state": "Active",
                    "issuedAt": "2026-01-01T00:00:00Z",
                }]},
            }))
            .unwrap();
            index.put(IndexedPat::read(&stored).unwrap());
            index.mark_used(&index.get(&hash.parse().unwrap()).unwrap(), at(0));
        }
        let writes: Arc<Mutex<Vec<(String, Instant)>>> = Arc::default();
        let seen = writes.clone();
        let service = tower::service_fn(move |request: hyper::Request<kube::client::Body>| {
            assert_eq!(request.method(), hyper::Method::PATCH);
            seen.lock().unwrap().push((request.uri().path().to_owned(), Instant::now()));
            let written = json!({"metadata": {"name": "app"}, "spec": {}}).to_string();
            ready(Ok::<_, Infallible>(hyper::Response::new(axum::body::Body::from(written))))
        });
        let (clock, _hand) = Clock::driven(at(0).timestamp());
        let client = Client::new(service, "team");
        let usage =
            LastUsedWriter::new(index, client, clock, LastUsedCounters::default(), SignedDuration::from_mins(10));
        let stopping = CancellationToken::new();
        let running = tokio::spawn(usage.run(stopping.clone()));
        // Time is paused: what would take a minute takes none.
        sleep(Duration::from_mins(1)).await;
        stopping.cancel();
        running.await.unwrap();

        let writes = writes.lock().unwrap();
        let tokens: BTreeSet<_> = writes.iter().map(|(path, _)| path).collect();
        assert_eq!(
            (writes.len(), tokens.len()),
            (TOKENS as usize, TOKENS as usize),
            "each once, none by the last flush"
        );
        let gaps = writes.windows(2).map(|pair| pair[1].1 - pair[0].1);
        assert_eq!(gaps.min(), Some(PACE), "as fast as it may, and no faster");
    }

    #[test]
    fn new_uses_are_written_and_dead_ones_removed() {
        assert_eq!(patch_of(None, &[], &[]), None);
        assert_eq!(
            patch_of(None, &[], &[(0, 10)]),
            Some(json!({"lastUsedAt": shown(10), "usage": {LIVE[0]: shown(10)}}))
        );
        assert_eq!(
            patch_of(Some(5), &[(LIVE[0], 5), (LIVE[1], 3), ("deaddeaddead", 1)], &[(0, 5), (1, 20)]),
            Some(json!({"lastUsedAt": shown(20), "usage": {LIVE[1]: shown(20), "deaddeaddead": null}}))
        );
    }

    #[test]
    fn an_older_use_never_replaces_a_newer_one() {
        assert_eq!(patch_of(Some(30), &[(LIVE[0], 30)], &[(0, 20)]), None);
        assert_eq!(patch_of(Some(30), &[(LIVE[0], 30)], &[(0, 30)]), None);
        // Only the other credential's use is newer than what is recorded.
        let status = json!({"usage": {LIVE[1]: shown(20)}});
        assert_eq!(patch_of(Some(30), &[(LIVE[0], 30)], &[(1, 20)]), Some(status));
    }

    #[test]
    fn a_token_is_due_at_its_first_use_and_then_once_an_interval() {
        let wait = SignedDuration::from_secs(600);
        let due = |last_used_at, usage: &[_], uses: &[_], now| {
            let (index, uid) = index(last_used_at, usage, uses);
            due_since(&index.pat(uid).unwrap(), wait, at(now)).map(|since| since.floor_second().to_string())
        };
        assert_eq!(due(None, &[], &[], 0), None);
        assert_eq!(due(None, &[], &[(0, 10)], 10), Some(shown(10)));
        let reported = [(LIVE[0], 0)];
        assert_eq!(due(Some(0), &reported, &[(0, 599)], 599), None);
        assert_eq!(due(Some(0), &reported, &[(0, 599)], 600), Some(shown(600)));
        assert_eq!(due(Some(0), &reported, &[(1, 5)], 599), None, "another credential of the same token");
        assert_eq!(due(Some(0), &reported, &[(0, 0)], 10_000), None, "nothing is new");
    }
}
