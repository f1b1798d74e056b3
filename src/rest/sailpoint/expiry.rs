//! The expiry rules of the older and the newer versions.
//!
//! In the older versions (`/beta`, `/v3`, `/v2024`, `/v2025`) every token expires, at most six months after its creation. The newer version
//! (`/v1`) has no such limit, and a token that never expires must be acknowledged.

use k8s_openapi::jiff::{ToSpan, tz::TimeZone};

use crate::{
    api::{Expiry, Time},
    rest::{error::RestError, timestamp},
};

/// The field of the expiry: `spec.expiry.at`.
pub const EXPIRATION_DATE: &str = "expirationDate";
/// The field that acknowledges that a token never expires.
pub const NEVER_EXPIRES: &str = "userAwareTokenNeverExpires";

/// The expiry rules of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryPolicy {
    /// Every token expires within six months.
    SixMonths,
    /// A token may never expire, if that is acknowledged.
    NeverIfAcknowledged,
}

/// The expiry in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestedExpiry<'a> {
    /// `expirationDate`; `None` for `null` or absent.
    pub date: Option<&'a str>,
    /// `userAwareTokenNeverExpires`.
    pub acknowledged: bool,
}

impl ExpiryPolicy {
    /// Returns the expiry of a token with this time of creation.
    pub fn expiry(self, requested: RequestedExpiry<'_>, created: Time, now: Time) -> Result<Expiry, RestError> {
        let date = match requested.date {
            None => None,
            Some(text) => {
                Some(timestamp::parse(text).map_err(|error| RestError::invalid(EXPIRATION_DATE, error.to_string()))?)
            }
        };
        match self {
            Self::SixMonths => {
                let latest = six_months_after(created);
                match date {
                    // The default expiry is a whole second.
                    None => future(latest.floor_second(), now),
                    Some(date) if date > latest => {
                        let problem = format!(
                            "must be at most 6 months after the token's creation, which is {}",
                            timestamp::millis(latest)
                        );
                        Err(RestError::invalid(EXPIRATION_DATE, problem))
                    }
                    Some(date) => future(date, now),
                }
            }
            Self::NeverIfAcknowledged => match date.filter(|date| !timestamp::is_never(*date)) {
                Some(date) => future(date, now),
                None if requested.acknowledged => Ok(Expiry { never: Some(true), ..Expiry::default() }),
                None => {
                    let problem = format!("is required, unless {NEVER_EXPIRES} is true for a token that never expires");
                    Err(RestError::invalid(EXPIRATION_DATE, problem))
                }
            },
        }
    }

    /// Whether tokens show the acknowledgement.
    pub fn shows_acknowledgement(self) -> bool {
        self == Self::NeverIfAcknowledged
    }
}

fn future(date: Time, now: Time) -> Result<Expiry, RestError> {
    if date > now {
        return Ok(Expiry { at: Some(date), ..Expiry::default() });
    }
    Err(RestError::invalid(EXPIRATION_DATE, "must be in the future"))
}

/// Returns the same day of the month, or the last one of the month.
fn six_months_after(time: Time) -> Time {
    let zoned = time.timestamp().to_zoned(TimeZone::UTC);
    // Only a time at the end of the calendar has none.
    zoned.checked_add(6.months()).map_or(time, |later| later.timestamp().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str = "2026-06-01T12:00:00Z";
    const LATEST: &str = "2026-12-01T12:00:00Z";

    fn expiry(policy: ExpiryPolicy, date: Option<&str>, acknowledged: bool) -> Result<Option<String>, String> {
        expiry_of(policy, date, acknowledged, CREATED, CREATED)
    }

    fn expiry_of(
        policy: ExpiryPolicy,
        date: Option<&str>,
        acknowledged: bool,
        created: &str,
        now: &str,
    ) -> Result<Option<String>, String> {
        let expiry =
            policy.expiry(RequestedExpiry { date, acknowledged }, created.parse().unwrap(), now.parse().unwrap());
        expiry
            .map(|expiry| {
                assert!(expiry.after.is_none() && expiry.at.is_none() == (expiry.never == Some(true)));
                expiry.at.map(|at| at.to_string())
            })
            .map_err(|error| error.to_string())
    }

    fn at(text: &str) -> Result<Option<String>, String> {
        Ok(Some(text.to_owned()))
    }

    #[test]
    fn older_versions_limit_expiry_to_six_months() {
        for acknowledged in [false, true] {
            assert_eq!(expiry(ExpiryPolicy::SixMonths, None, acknowledged), at(LATEST));
            assert_eq!(expiry(ExpiryPolicy::SixMonths, Some(LATEST), acknowledged), at(LATEST));
            assert_eq!(
                expiry(ExpiryPolicy::SixMonths, Some("2026-06-01T12:00:00.001Z"), acknowledged),
                at("2026-06-01T12:00:00.001Z")
            );
            for late in ["2026-12-01T12:00:00.001Z", timestamp::NEVER] {
                let problem = "expirationDate: must be at most 6 months after the token's creation, which is 2026-12-01T12:00:00.000Z";
                assert_eq!(expiry(ExpiryPolicy::SixMonths, Some(late), acknowledged), Err(problem.into()));
            }
        }
    }

    #[test]
    fn six_months_after_the_last_of_august_is_the_last_of_february() {
        let created = "2026-08-31T00:00:00Z";
        assert_eq!(expiry_of(ExpiryPolicy::SixMonths, None, false, created, created), at("2027-02-28T00:00:00Z"));
    }

    #[test]
    fn older_versions_refuse_six_months_that_are_over() {
        let now = "2027-01-01T00:00:00Z";
        let problem = Err("expirationDate: must be in the future".to_owned());
        assert_eq!(expiry_of(ExpiryPolicy::SixMonths, None, false, CREATED, now), problem);
        assert!(expiry_of(ExpiryPolicy::SixMonths, Some("2027-02-01"), false, CREATED, now).is_err());
        assert_eq!(
            expiry_of(ExpiryPolicy::NeverIfAcknowledged, Some("2027-02-01"), false, CREATED, now),
            at("2027-02-01T00:00:00Z")
        );
    }

    #[test]
    fn newer_version_requires_acknowledgement_of_never_and_has_no_limit() {
        let problem =
            "expirationDate: is required, unless userAwareTokenNeverExpires is true for a token that never expires";
        for never in [None, Some(timestamp::NEVER)] {
            assert_eq!(expiry(ExpiryPolicy::NeverIfAcknowledged, never, false), Err(problem.into()));
            assert_eq!(expiry(ExpiryPolicy::NeverIfAcknowledged, never, true), Ok(None));
        }
        for acknowledged in [false, true] {
            assert_eq!(
                expiry(ExpiryPolicy::NeverIfAcknowledged, Some("2099-01-01"), acknowledged),
                at("2099-01-01T00:00:00Z")
            );
        }
    }

    #[test]
    fn invalid_or_past_expiry_is_refused_in_all_versions() {
        for policy in [ExpiryPolicy::SixMonths, ExpiryPolicy::NeverIfAcknowledged] {
            for (date, problem) in [
                ("2026-06-01T12:00:00Z", "expirationDate: must be in the future".to_owned()),
                ("1999-01-01", "expirationDate: must be in the future".to_owned()),
                ("", format!("expirationDate: {}", timestamp::EXPECTED)),
                ("soon", format!("expirationDate: {}", timestamp::EXPECTED)),
            ] {
                assert_eq!(expiry(policy, Some(date), true), Err(problem), "{date}");
            }
        }
    }
}
