//! The API server's time, measured by the `Date` header of its responses
//! (<https://www.rfc-editor.org/rfc/rfc9110#name-date>), and the skew of a clock against it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{
    HeaderMap, Response,
    header::{AGE, DATE, HeaderValue},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp, fmt::rfc2822};

use super::clock::uptime;

/// The header is truncated to whole seconds.
const RESOLUTION: SignedDuration = SignedDuration::from_secs(1);

/// A response that takes longer says too little about the time.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(5);

/// What the responses of an API server tell about its time. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ServerTime(Arc<Mutex<Option<Measurement>>>);

#[derive(Clone, Copy, Debug)]
struct Measurement {
    range: TimeRange,
    /// The uptime of this machine at that time.
    uptime: Duration,
}

/// A time that is known only to lie between two bounds, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// The lower bound.
    pub earliest: Timestamp,
    /// The upper bound; not before `earliest`.
    pub latest: Timestamp,
}

impl TimeRange {
    /// Returns the range that a time in whole seconds stands for, when `since` has passed after it was read at the earliest.
    pub fn of_seconds(time: Timestamp, since: Duration) -> Self {
        Self { earliest: time, latest: later(later(time, RESOLUTION), signed(since)) }
    }

    /// Returns how far a clock that shows `time` is ahead, or behind if negative. Only a difference that is certain counts: it is zero
    /// within the range.
    pub fn skew_of(self, time: Timestamp) -> SignedDuration {
        time.duration_since(self.nearest(time))
    }

    /// Returns the time in the range that is nearest to `time`.
    pub fn nearest(self, time: Timestamp) -> Timestamp {
        time.max(self.earliest).min(self.latest)
    }

    /// Returns the range after some time has passed.
    fn after(self, passed: Duration) -> Self {
        let passed = signed(passed);
        Self { earliest: later(self.earliest, passed), latest: later(self.latest, passed) }
    }

    /// Returns the range that both agree on; `newer` if they contradict each other, because a clock was set.
    fn narrowed_by(self, newer: Self) -> Self {
        let both = Self { earliest: self.earliest.max(newer.earliest), latest: self.latest.min(newer.latest) };
        if both.earliest <= both.latest { both } else { newer }
    }
}

impl ServerTime {
    /// Sends a request by polling `response`, and measures the time that its answer tells.
    ///
    /// # Errors
    /// That of the request.
    pub async fn observe<B, E>(self, response: impl Future<Output = Result<Response<B>, E>>) -> Result<Response<B>, E> {
        let sent = uptime();
        let response = response.await?;
        // An answer from a cache, or an error that a proxy made, does not tell the API server's time.
        if response.status().is_success() && !response.headers().contains_key(AGE) {
            self.record(response.headers(), sent, uptime());
        }
        Ok(response)
    }

    /// Returns the present time of the API server; `None` before the first response with a usable `Date` header.
    pub fn now(&self) -> Option<TimeRange> {
        let measured = *self.lock();
        measured.map(|measured| measured.range.after(uptime().saturating_sub(measured.uptime)))
    }

    /// Records the headers of a response. Both times are uptimes of this machine.
    fn record(&self, headers: &HeaderMap, sent: Duration, received: Duration) {
        let round_trip = received.saturating_sub(sent);
        let Some(date) = headers.get(DATE).and_then(parse).filter(|_| round_trip <= MAX_ROUND_TRIP) else { return };
        let range = TimeRange::of_seconds(date, round_trip);
        let mut measured = self.lock();
        let range = match *measured {
            Some(before) => before.range.after(received.saturating_sub(before.uptime)).narrowed_by(range),
            None => range,
        };
        *measured = Some(Measurement { range, uptime: received });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Measurement>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a `Date` header in the preferred format, which all servers send.
fn parse(date: &HeaderValue) -> Option<Timestamp> {
    rfc2822::parse(&date.to_str().ok()?.replace("GMT", "+0000")).ok().map(|date| date.timestamp())
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).expect("a time")
    }

    fn range(earliest: i64, latest: i64) -> TimeRange {
        TimeRange { earliest: at(earliest), latest: at(latest) }
    }

    #[test]
    fn only_a_certain_difference_is_skew() {
        let range = TimeRange::of_seconds(at(0), Duration::from_millis(300));
        assert_eq!(range.latest, at(1_300));
        for (time, skew) in [(-20_000, -20_000), (-1, -1), (0, 0), (1_300, 0), (1_301, 1), (21_300, 20_000)] {
            assert_eq!(range.skew_of(at(time)), SignedDuration::from_millis(skew), "{time}");
            assert_eq!(range.nearest(at(time)), at(time - skew), "{time}");
        }
    }

    #[test]
    fn measurements_narrow_the_range_unless_a_clock_was_set() {
        assert_eq!(range(0, 1_000).narrowed_by(range(600, 1_600)), range(600, 1_000));
        assert_eq!(range(600, 1_000).narrowed_by(range(0, 1_900)), range(600, 1_000));
        assert_eq!(range(600, 1_000).narrowed_by(range(5_000, 6_000)), range(5_000, 6_000));
        assert_eq!(range(5_000, 6_000).narrowed_by(range(0, 1_000)), range(0, 1_000));
    }

    #[test]
    fn responses_are_measured_by_their_date() {
        let headers = |date: &str| HeaderMap::from_iter([(DATE, HeaderValue::from_str(date).expect("a header"))]);
        let seconds = Duration::from_secs;
        let server = ServerTime::default();
        assert_eq!(server.now(), None);
        server.record(&HeaderMap::new(), seconds(1), seconds(1));
        server.record(&headers("yesterday"), seconds(1), seconds(1));
        server.record(&headers("Fri, 15 Jan 2027 08:00:00 GMT"), seconds(1), seconds(7));
        assert_eq!(server.now(), None, "no header, no date, and too slow");
        let ranges: Vec<_> = [(0, 10, 11), (10, 20, 20), (3_600, 25, 25)]
            .map(|(second, sent, received)| {
                let date = format!("Fri, 15 Jan 2027 {:02}:00:{:02} GMT", 8 + second / 3_600, second % 3_600);
                server.record(&headers(&date), seconds(sent), seconds(received));
                server.lock().expect("a measurement").range
            })
            .into();
        // Between the first two responses 9 s pass by the uptime, and 10 s by the header.
        assert_eq!(ranges, [range(0, 2_000), range(10_000, 11_000), range(3_600_000, 3_601_000)]);
    }
}
