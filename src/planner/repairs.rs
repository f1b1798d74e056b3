//! Repairs of a Secret in a row, which something undoes each time: when the next one is made, and for how long this is reported.

use k8s_openapi::jiff::SignedDuration;

use super::{damage::Damage, step::SecretWrite};
use crate::{api::Time, secret::Digest};

/// This many repairs in a row are made at once. Each further one waits.
const AT_ONCE: u32 = 5;

/// The wait before the first repair that waits. It doubles with each further one, up to [`MAX_WAIT`].
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(10);
const MAX_WAIT: SignedDuration = SignedDuration::from_mins(5);

/// Repairs that are further apart are not in a row. Longer than [`MAX_WAIT`].
const MAX_GAP: SignedDuration = SignedDuration::from_mins(10);

/// The repairs in a row of one Secret, which are all to the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repairs {
    /// The hash of what the data was rendered from. After a change of the spec or a rotation, repairs are counted anew.
    intended: Digest,
    count: u32,
    last: Time,
    /// What the last write repaired, or what admission changed in it.
    damage: Damage,
    /// Whether admission changed the last write.
    by_admission: bool,
}

impl Repairs {
    /// Returns the repairs in a row after a write to the Secret; `None` if there are none. `altered`: what admission changed in it.
    pub fn after(before: Option<Self>, write: &SecretWrite, altered: Option<&Damage>, now: Time) -> Option<Self> {
        let intended = write.render_hash();
        let before = before.filter(|before| before.intended == intended && !before.is_over(now));
        let count = before.as_ref().map_or(0, |before| before.count);
        let was_by_admission = before.as_ref().is_some_and(|before| before.by_admission);
        let (damage, count) = match (altered, &write.repairs) {
            // The next write would be changed as well, so it waits.
            (Some(damage), _) => (damage, count.max(AT_ONCE - 1) + 1),
            // Admission does not change the Secret any more.
            (None, _) if was_by_admission => return None,
            (None, Some(damage)) => (damage, count + 1),
            (None, None) => return before,
        };
        let by_admission = altered.is_some();
        Some(Self { intended, count: count.min(AT_ONCE + 16), last: now, damage: damage.clone(), by_admission })
    }

    /// Whether the last repair is so long ago that the next one is not in a row with it.
    pub fn is_over(&self, now: Time) -> bool {
        // After a small step of the clock back, the last repair lies in the future. After a large one, its time means nothing.
        self.last.since(now) > MAX_WAIT || self.ends_at() <= now
    }

    /// Returns when [`Repairs::is_over`] becomes true.
    pub fn ends_at(&self) -> Time {
        self.last.plus(MAX_GAP)
    }

    /// Returns the damage, if it was done so often that repairs wait.
    pub(super) fn undone(&self, now: Time) -> Option<&Damage> {
        (self.count >= AT_ONCE && !self.is_over(now)).then_some(&self.damage)
    }

    /// Returns until when a repair to this content waits; `None` if it need not wait.
    pub(super) fn wait_until(&self, intended: Digest, now: Time) -> Option<Time> {
        self.undone(now).filter(|_| self.intended == intended)?;
        let wait = FIRST_WAIT.saturating_mul(1 << (self.count - AT_ONCE).min(16)).min(MAX_WAIT);
        Some(self.last.plus(wait)).filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_step_of_the_clock_back_does_not_end_repairs_in_a_row() {
        let last: Time = "2026-01-01T00:00:00Z".parse().unwrap();
        let damage = Damage { message: String::new(), lost_data: false };
        let repairs = Repairs { intended: Digest::default(), count: AT_ONCE, last, damage, by_admission: false };
        for (seconds, is_over) in [(-301, true), (-300, false), (-1, false), (0, false), (599, false), (600, true)] {
            let now = last.plus(SignedDuration::from_secs(seconds));
            assert_eq!(repairs.is_over(now), is_over, "{seconds}");
            assert_eq!(repairs.wait_until(Digest::default(), now).is_some(), !is_over && seconds < 10, "{seconds}");
        }
    }
}
