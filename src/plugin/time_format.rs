//! Times and durations in a short form for people.

use k8s_openapi::jiff::SignedDuration;

use crate::api::Time;

/// Formats a duration in one unit, or in two where the first number would be small: `59s`, `12m`, `3h20m`, `36h`, `12d`, `2y30d`.
pub fn format_duration(length: SignedDuration) -> String {
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

/// Formats a time relative to now: `in 3d` or `5m ago`.
pub fn format_relative(time: Time, now: Time) -> String {
    let length = time.since(now);
    let duration = format_duration(length);
    if length.is_negative() { format!("{duration} ago") } else { format!("in {duration}") }
}

/// Formats a time to the second, followed by its relative form.
pub fn format_time(time: Time, now: Time) -> String {
    format!("{} ({})", time.floor_second(), format_relative(time, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_and_times_are_relative() {
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
            assert_eq!(format_duration(SignedDuration::from_secs(seconds)), text);
        }
        let now: Time = "2030-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(format_relative(now.plus(SignedDuration::from_hours(72)), now), "in 3d");
        assert_eq!(format_time(now.minus(SignedDuration::from_secs(5)), now), "2029-12-31T23:59:55Z (5s ago)");
    }
}
