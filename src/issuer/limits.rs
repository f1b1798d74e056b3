//! What the systems can do, for decisions without a call.

use k8s_openapi::jiff::{SignedDuration, tz::TimeZone};

use super::{IssuerTarget, SystemKind};
use crate::api::Time;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What a system does with the expiry and the name of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerLimits {
    /// Whether tokens expire by themselves.
    pub expires: bool,
    /// Whether a token must expire.
    pub requires_expiry: bool,
    /// Whether tokens expire at midnight UTC only.
    pub whole_days: bool,
    /// The longest life that the system allows, where that is the same for all its servers.
    pub max_lifetime: Option<SignedDuration>,
    /// Whether the id of a token is the name that it was created with.
    pub id_is_name: bool,
    /// Whether the new token has a client id of its own.
    pub has_client_id: bool,
}

/// Returns what a system does with tokens of this target.
pub fn limits(kind: SystemKind, target: &IssuerTarget) -> IssuerLimits {
    let usual = IssuerLimits {
        expires: true,
        requires_expiry: false,
        whole_days: false,
        max_lifetime: None,
        id_is_name: false,
        has_client_id: false,
    };
    match kind {
        // 6 months is the maximum and the default (the description of `expirationDate` in the API document). The shortest 6 months have 181 days.
        SystemKind::SailPoint => IssuerLimits { max_lifetime: Some(DAY * 181), has_client_id: true, ..usual },
        // 365 days is the maximum of GitLab.com, and of servers without another setting; an administrator of a server can allow 400
        // (https://docs.gitlab.com/user/profile/personal_access_tokens/#access-token-expiration). Without an expiry the server sets the maximum.
        SystemKind::GitLab => {
            IssuerLimits { requires_expiry: true, whole_days: true, max_lifetime: Some(DAY * 365), ..usual }
        }
        SystemKind::Gitea => IssuerLimits { expires: false, ..usual },
        SystemKind::ArgoCd => IssuerLimits { id_is_name: true, ..usual },
        // `expiration_date` of a virtual account's manifest is a date.
        SystemKind::TrueFoundry => {
            IssuerLimits { whole_days: *target == IssuerTarget::TrueFoundryVirtualAccount, ..usual }
        }
        SystemKind::Cryptlex => usual,
    }
}

impl IssuerLimits {
    /// Returns the expiry that a token created now gets for a wanted one: rounded up to a whole day where the system knows no other, but never
    /// past the maximum. `None` if tokens of the system do not expire.
    pub fn expiry(&self, wanted: Time, now: Time) -> Option<Time> {
        if !self.expires {
            return None;
        }
        let latest = self.max_lifetime.map(|lifetime| now.plus(lifetime));
        let rounded = if self.whole_days { ceil_day(wanted) } else { wanted };
        Some(match latest {
            Some(latest) if rounded > latest => {
                if self.whole_days {
                    floor_day(latest)
                } else {
                    latest
                }
            }
            _ => rounded,
        })
    }
}

/// The midnight at or before a time.
fn floor_day(time: Time) -> Time {
    let date = TimeZone::UTC.to_datetime(time.timestamp()).date();
    date.to_zoned(TimeZone::UTC).map_or(time, |midnight| midnight.timestamp().into())
}

/// The midnight at or after a time.
fn ceil_day(time: Time) -> Time {
    let floor = floor_day(time);
    if floor == time { time } else { floor.plus(DAY) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    #[test]
    fn gitlab_expires_at_midnight_and_never_past_the_maximum() {
        let target =
            IssuerTarget::GitLab { owner: super::super::GitLabOwner::Project("1".to_owned()), access_level: None };
        let (limits, now) = (limits(SystemKind::GitLab, &target), time("2026-01-01T12:00:00Z"));
        for (wanted, expiry) in [
            ("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("2026-01-02T00:00:01Z", "2026-01-03T00:00:00Z"),
            ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2027-01-01T00:00:01Z", "2027-01-01T00:00:00Z"),
            ("2099-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(limits.expiry(time(wanted), now), Some(time(expiry)), "{wanted}");
        }
    }

    #[test]
    fn others_expire_as_wanted_or_never() {
        let (wanted, now) = (time("2026-01-02T03:04:05Z"), time("2026-01-01T12:00:00Z"));
        let of = |kind| limits(kind, &IssuerTarget::Account);
        assert_eq!(of(SystemKind::Gitea).expiry(wanted, now), None);
        assert_eq!(of(SystemKind::Cryptlex).expiry(wanted, now), Some(wanted));
        let (far, latest) = (time("2030-01-01T00:00:00Z"), time("2026-07-01T12:00:00Z"));
        assert_eq!(of(SystemKind::SailPoint).expiry(far, now), Some(latest));
    }
}
