//! Times and lengths of time, in the few letters that a person reads at a glance.
//!
//! Pure. It must not read a clock.

use k8s_openapi::jiff::SignedDuration;

use crate::api::Time;

/// A length of time in one unit, or two where the first would be small: `59s`, `12m`, `3h20m`, `36h`, `12d`, `2y30d`.
pub fn span(length: SignedDuration) -> String {
    let seconds = length.as_secs().unsigned_abs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |first: u64, unit: &str, rest: u64, small: &str| match rest {
        0 => format!("{first}{unit}"),
        rest => format!("{first}{unit}{rest}{small}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () => two(days / 365, "y", days % 365, "d"),
    }
}

/// `in 3d`, or `5m ago`.
pub fn relative(time: Time, now: Time) -> String {
    let length = time.since(now);
    if length.is_negative() { format!("{} ago", span(length)) } else { format!("in {}", span(length)) }
}

/// The time itself, to the second, and how far that is.
pub fn both(time: Time, now: Time) -> String {
    format!("{} ({})", time.floor_second(), relative(time, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_short_and_times_tell_their_side() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (345, "5m45s"),
            (7_200, "120m"),
            (12_000, "3h20m"),
            (36 * 3_600, "36h"),
            (50 * 3_600, "2d2h"),
            (30 * 86_400, "30d"),
            (800 * 86_400, "2y70d"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text);
        }
        let now: Time = "2030-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(relative(now.plus(SignedDuration::from_hours(72)), now), "in 3d");
        assert_eq!(both(now.minus(SignedDuration::from_secs(5)), now), "2029-12-31T23:59:55Z (5s ago)");
    }
}
