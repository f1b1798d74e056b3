//! The sources of time: [`Clock`] is the wall clock, real or driven by a test, and [`uptime`] measures durations.
//!
//! `tokio::time` alone does not suffice: it has no wall clock, and it stops while the machine is suspended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::server_time::ServerTime;

/// A wall clock with microseconds, the resolution of Kubernetes' `MicroTime`. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    source: ClockSource,
    correction: Option<Correction>,
}

/// The correction of a clock by the API server's.
#[derive(Clone, Debug)]
struct Correction {
    server: ServerTime,
    /// A larger skew is not corrected: it cannot be known which of the two clocks is wrong.
    max: SignedDuration,
}

#[derive(Clone, Debug, Default)]
enum ClockSource {
    #[default]
    System,
    Driven(Arc<AtomicI64>),
}

impl Clock {
    /// Returns the clock of the machine.
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns a clock that stands still at `start` until the hand moves it.
    pub fn driven(start: Timestamp) -> (Self, ClockHand) {
        let micros = Arc::new(AtomicI64::new(start.as_microsecond()));
        (Self { source: ClockSource::Driven(Arc::clone(&micros)), ..Self::default() }, ClockHand(micros))
    }

    /// Returns a clock that shows the same time, corrected by that of the API server, if they differ by at most `max`.
    #[must_use]
    pub fn corrected_by(self, server: ServerTime, max: SignedDuration) -> Self {
        Self { correction: Some(Correction { server, max }), ..self }
    }

    /// Returns the current time. With a correction, it is the time nearest to the clock's that the API server's clock can show.
    pub fn now(&self) -> Timestamp {
        let own = self.uncorrected();
        let Some(Correction { server, max }) = &self.correction else { return own };
        match server.now() {
            Some(server) if server.skew_of(own).abs() <= *max => from_micros(server.nearest(own).as_microsecond()),
            _ => own,
        }
    }

    /// Returns how far the clock, uncorrected, is ahead of the API server's, or behind if negative; `None` without a correction, and
    /// before it is measured.
    pub fn skew(&self) -> Option<SignedDuration> {
        Some(self.correction.as_ref()?.server.now()?.skew_of(self.uncorrected()))
    }

    fn uncorrected(&self) -> Timestamp {
        match &self.source {
            ClockSource::System => from_micros(Timestamp::now().as_microsecond()),
            ClockSource::Driven(micros) => from_micros(micros.load(Ordering::SeqCst)),
        }
    }
}

/// Moves a driven [`Clock`].
#[derive(Clone, Debug)]
pub struct ClockHand(Arc<AtomicI64>);

impl ClockHand {
    /// Sets the time, also backwards, as a correction of a real clock does.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_microsecond(), Ordering::SeqCst);
    }

    /// Moves the time by `by`, back if negative; stops at the limits of the calendar.
    pub fn advance(&self, by: SignedDuration) {
        let by = i64::try_from(by.as_micros()).unwrap_or(if by.is_negative() { i64::MIN } else { i64::MAX });
        let moved = |micros: i64| Some(from_micros(micros.saturating_add(by)).as_microsecond());
        let _always_some = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved);
    }
}

/// Returns the uptime of the machine. It never jumps, and it includes the time while the process is stopped. On Linux, unlike
/// `std::time::Instant`, it also includes the time while the machine is suspended.
pub fn uptime() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    // The kernel's clocks that count from boot are never negative.
    Duration::try_from(rustix::time::clock_gettime(CLOCK)).unwrap_or_default()
}

fn from_micros(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driven_clock_moves_only_when_set() {
        let start: Timestamp = "2026-01-01T00:00:00.123456789Z".parse().unwrap();
        let (clock, hand) = Clock::driven(start);
        let clone = clock.clone();
        assert_eq!(clock.now().to_string(), "2026-01-01T00:00:00.123456Z");
        hand.advance(SignedDuration::from_hours(24));
        assert_eq!(clone.now().to_string(), "2026-01-02T00:00:00.123456Z");
        hand.advance(SignedDuration::from_secs(-1));
        assert_eq!(clone.now().to_string(), "2026-01-01T23:59:59.123456Z");
        hand.set(start);
        assert_eq!(clone.now(), clock.now());
    }

    #[tokio::test]
    async fn a_clock_is_corrected_by_the_api_server() {
        let server = ServerTime::default();
        let date: Timestamp = "2027-01-15T08:00:00Z".parse().unwrap();
        let (clock, hand) = Clock::driven(date);
        let clock = clock.corrected_by(server.clone(), SignedDuration::from_mins(5));
        assert_eq!((clock.now(), clock.skew()), (date, None));
        let response = hyper::Response::builder().header("Date", "Fri, 15 Jan 2027 08:00:00 GMT").body(()).unwrap();
        server.observe(async { Ok::<_, std::convert::Infallible>(response) }).await.unwrap();
        for (seconds, is_corrected) in [(200, true), (-200, true), (1_000, false), (-1_000, false)] {
            hand.set(date);
            hand.advance(SignedDuration::from_secs(seconds));
            // The machine's uptime passes meanwhile.
            let (skew, off) = (clock.skew().expect("it is measured"), clock.now().duration_since(date));
            assert!((skew.as_secs() - seconds).abs() < 60, "{skew:?}");
            if is_corrected {
                assert!(off.as_secs() < 60 && !off.is_negative(), "{off:?}");
            } else {
                assert_eq!(off.as_secs(), seconds, "it cannot be known which clock is wrong");
            }
        }
    }

    #[test]
    fn a_driven_clock_stops_at_the_limits_of_the_calendar() {
        let (clock, hand) = Clock::driven(Timestamp::MAX);
        hand.advance(SignedDuration::MAX);
        assert_eq!(clock.now().as_second(), Timestamp::MAX.as_second());
        hand.advance(SignedDuration::MIN);
        hand.advance(SignedDuration::MIN);
        assert_eq!(clock.now(), Timestamp::MIN);
    }

    #[test]
    fn the_system_clock_has_microseconds() {
        assert_eq!(Clock::system().now().subsec_nanosecond() % 1_000, 0);
    }

    #[test]
    fn uptime_grows() {
        let before = uptime();
        std::thread::sleep(Duration::from_millis(2));
        assert!(uptime() - before >= Duration::from_millis(2));
    }
}
