//! The two families of versions, and what each has for the end of a token. Pure.
//!
//! In the older one (`/beta`, `/v3`, `/v2024`, `/v2025`) every token ends, six months after it was created at the latest. In the newer
//! one (`/v1`) there is no such limit, and a token without an end has to be asked for in so many words.

use k8s_openapi::jiff::{ToSpan, tz::TimeZone};

use super::names::{EXPIRATION_DATE, NEVER_EXPIRES};
use crate::{
    api::{Expiry, Time},
    rest::{failure::Failure, when},
};

/// Which family a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Every token ends within six months.
    HalfYear,
    /// A token without an end has to be acknowledged.
    Acknowledged,
}

/// What a request says about the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// `expirationDate`; `None` where it is `null` or not there.
    pub date: Option<&'a str>,
    /// `userAwareTokenNeverExpires`.
    pub aware: bool,
}

impl Family {
    /// The end of a token that was or will be created at this time.
    ///
    /// # Errors
    /// `Invalid`, for what this family does not have.
    pub fn end(self, asked: Asked<'_>, created: Time, now: Time) -> Result<Expiry, Failure> {
        let date = match asked.date {
            None => None,
            Some(text) => Some(when::read(text).map_err(|error| Failure::invalid(EXPIRATION_DATE, error.to_string()))?),
        };
        match self {
            Self::HalfYear => {
                let latest = half_a_year_after(created);
                match date {
                    // What nobody has chosen is a whole second.
                    None => ahead(latest.floor_second(), now),
                    Some(date) if date > latest => {
                        let problem = format!(
                            "must be at most 6 months after the token's creation, which is {}",
                            when::millis(latest)
                        );
                        Err(Failure::invalid(EXPIRATION_DATE, problem))
                    }
                    Some(date) => ahead(date, now),
                }
            }
            Self::Acknowledged => match date.filter(|date| !when::is_never(*date)) {
                Some(date) => ahead(date, now),
                None if asked.aware => Ok(Expiry { never: Some(true), ..Expiry::default() }),
                None => {
                    let problem = format!(
                        "is required; for a token that never expires leave it out and set {NEVER_EXPIRES} to true"
                    );
                    Err(Failure::invalid(EXPIRATION_DATE, problem))
                }
            },
        }
    }

    /// Whether items tell that somebody has acknowledged that they have no end.
    pub fn tells_acknowledgement(self) -> bool {
        self == Self::Acknowledged
    }
}

fn ahead(date: Time, now: Time) -> Result<Expiry, Failure> {
    if date > now {
        return Ok(Expiry { at: Some(date), ..Expiry::default() });
    }
    Err(Failure::invalid(EXPIRATION_DATE, "must be in the future"))
}

/// The same day of the month, or the last there is.
fn half_a_year_after(time: Time) -> Time {
    let zoned = time.timestamp().to_zoned(TimeZone::UTC);
    // There is no later time than the end of the calendar.
    zoned.checked_add(6.months()).map_or(time, |later| later.timestamp().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str = "2026-06-01T12:00:00Z";
    const LATEST: &str = "2026-12-01T12:00:00Z";

    fn end(family: Family, date: Option<&str>, aware: bool) -> Result<Option<String>, String> {
        end_of(family, date, aware, CREATED, CREATED)
    }

    fn end_of(
        family: Family,
        date: Option<&str>,
        aware: bool,
        created: &str,
        now: &str,
    ) -> Result<Option<String>, String> {
        let end = family.end(Asked { date, aware }, created.parse().unwrap(), now.parse().unwrap());
        end.map(|end| {
            assert!(end.after.is_none() && end.at.is_none() == (end.never == Some(true)));
            end.at.map(|at| at.to_string())
        })
        .map_err(|failure| failure.to_string())
    }

    fn at(text: &str) -> Result<Option<String>, String> {
        Ok(Some(text.to_owned()))
    }

    #[test]
    fn in_the_older_family_a_token_ends_after_six_months_at_the_latest_whatever_is_acknowledged() {
        for aware in [false, true] {
            assert_eq!(end(Family::HalfYear, None, aware), at(LATEST));
            assert_eq!(end(Family::HalfYear, Some(LATEST), aware), at(LATEST));
            assert_eq!(end(Family::HalfYear, Some("2026-06-01T12:00:00.001Z"), aware), at("2026-06-01T12:00:00.001Z"));
            for late in ["2026-12-01T12:00:00.001Z", when::NEVER] {
                let problem = "expirationDate: must be at most 6 months after the token's creation, which is 2026-12-01T12:00:00.000Z";
                assert_eq!(end(Family::HalfYear, Some(late), aware), Err(problem.into()));
            }
        }
    }

    #[test]
    fn six_months_after_the_last_of_august_is_the_last_of_february() {
        let created = "2026-08-31T00:00:00Z";
        assert_eq!(end_of(Family::HalfYear, None, false, created, created), at("2027-02-28T00:00:00Z"));
    }

    #[test]
    fn an_old_token_cannot_get_half_a_year_that_is_over() {
        let now = "2027-01-01T00:00:00Z";
        let problem = Err("expirationDate: must be in the future".to_owned());
        assert_eq!(end_of(Family::HalfYear, None, false, CREATED, now), problem);
        assert!(end_of(Family::HalfYear, Some("2027-02-01"), false, CREATED, now).is_err());
        assert_eq!(end_of(Family::Acknowledged, Some("2027-02-01"), false, CREATED, now), at("2027-02-01T00:00:00Z"));
    }

    #[test]
    fn in_the_newer_family_never_has_to_be_acknowledged_and_there_is_no_latest_end() {
        let problem = "expirationDate: is required; for a token that never expires leave it out and set \
             userAwareTokenNeverExpires to true";
        for never in [None, Some(when::NEVER)] {
            assert_eq!(end(Family::Acknowledged, never, false), Err(problem.into()));
            assert_eq!(end(Family::Acknowledged, never, true), Ok(None));
        }
        for aware in [false, true] {
            assert_eq!(end(Family::Acknowledged, Some("2099-01-01"), aware), at("2099-01-01T00:00:00Z"));
        }
    }

    #[test]
    fn an_end_that_is_no_time_or_over_is_refused_in_both() {
        for family in [Family::HalfYear, Family::Acknowledged] {
            for (date, problem) in [
                ("2026-06-01T12:00:00Z", "expirationDate: must be in the future".to_owned()),
                ("1999-01-01", "expirationDate: must be in the future".to_owned()),
                ("", format!("expirationDate: {}", when::WORDS)),
                ("soon", format!("expirationDate: {}", when::WORDS)),
            ] {
                assert_eq!(end(family, Some(date), true), Err(problem), "{date}");
            }
        }
    }
}
