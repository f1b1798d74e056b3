//! The one judgement on a credential: is it good now, by what its owner wrote and by its own deadlines?
//!
//! Pure. The planner uses it to bury the dead, the verifier at each request, so that a revocation works from the moment it is
//! written even while no controller runs. It must not know how a token looks or where it is kept.

use crate::api::{Credential, InvalidDuration, PersonalAccessTokenSpec, PersonalAccessTokenStatus, Time};

/// What a spec and a status say about the life of all credentials of one token, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    revoked: bool,
    deleted: bool,
    created: u32,
    revoke_if_issued_before: Option<Time>,
    revoked_credentials: Box<[String]>,
    end: Option<Time>,
}

/// The judgement on one credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It works.
    Good,
    /// The object is being deleted.
    Deleted,
    /// `spec.revoked`.
    Revoked,
    /// `spec.revokeIfIssuedBefore` has come and covers it.
    RevokedByTime,
    /// `spec.revokedCredentials` names it.
    RevokedById,
    /// The whole token has reached its end.
    TokenExpired,
    /// This credential has reached its own end.
    CredentialExpired,
}

impl Verdict {
    /// Whether the credential works.
    pub fn is_good(self) -> bool {
        self == Self::Good
    }

    /// Whether somebody took the credential back, rather than time.
    pub fn is_revocation(self) -> bool {
        matches!(self, Self::Deleted | Self::Revoked | Self::RevokedByTime | Self::RevokedById)
    }
}

impl Terms {
    /// Reads the terms. `deleted` says whether the object has a deletionTimestamp.
    ///
    /// # Errors
    /// `expiry.after` that is not a length of time.
    pub fn read(
        spec: &PersonalAccessTokenSpec,
        status: &PersonalAccessTokenStatus,
        deleted: bool,
    ) -> Result<Self, InvalidDuration> {
        Ok(Self {
            revoked: spec.revoked.unwrap_or_default(),
            deleted,
            created: 0,
            revoke_if_issued_before: spec.revoke_if_issued_before,
            revoked_credentials: spec.revoked_credentials.as_slice().into(),
            end: end(spec, status)?,
        })
    }

    /// The same, of an object that was created so many seconds after the Unix epoch.
    #[must_use]
    pub fn of_object_created_at(self, created: u32) -> Self {
        Self { created, ..self }
    }

    /// When the object was created, in seconds since the Unix epoch: of two that claim one token, the elder's it is. 0 if nobody
    /// has said. No verdict depends on it.
    pub fn created(&self) -> u32 {
        self.created
    }

    /// The end of the whole token; `None` if it has none, or if it counts from an issue that has not happened.
    pub fn end(&self) -> Option<Time> {
        self.end
    }

    /// Whether the whole token is past its end.
    pub fn expired(&self, now: Time) -> bool {
        self.end.is_some_and(|end| end <= now)
    }

    /// Judges one credential at one instant. Revocation is told before expiry: it is what somebody wanted.
    pub fn judge(&self, credential: &Credential, now: Time) -> Verdict {
        self.judge_life(credential.id.as_str(), credential.issued_at, credential.expires_at, now)
    }

    /// Judges one credential by what an index keeps of it.
    pub fn judge_life(&self, id: &str, issued_at: Time, expires_at: Option<Time>, now: Time) -> Verdict {
        if self.deleted {
            return Verdict::Deleted;
        }
        if self.revoked {
            return Verdict::Revoked;
        }
        if self.revoke_if_issued_before.is_some_and(|line| issued_at < line && line <= now) {
            return Verdict::RevokedByTime;
        }
        if self.revoked_credentials.iter().any(|revoked| revoked == id) {
            return Verdict::RevokedById;
        }
        if self.expired(now) {
            return Verdict::TokenExpired;
        }
        if expires_at.is_some_and(|end| end <= now) {
            return Verdict::CredentialExpired;
        }
        Verdict::Good
    }
}

/// The end of the whole token, as spec and status give it.
///
/// # Errors
/// `expiry.after` that is not a length of time.
pub fn end(
    spec: &PersonalAccessTokenSpec,
    status: &PersonalAccessTokenStatus,
) -> Result<Option<Time>, InvalidDuration> {
    let Some(expiry) = &spec.expiry else {
        return Ok(if spec.rotation.is_some() { None } else { status.default_expires_at });
    };
    if let Some(after) = &expiry.after {
        let after = after.parse()?;
        return Ok(status.first_issued_at.map(|first| first.plus(after).ceil_second()));
    }
    Ok(expiry.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CredentialState, Expiry, Rotation};

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn credential(issued: i64, ends: Option<i64>) -> Credential {
        Credential {
            id: "000000000001".into(),
            revision: 1,
            sha256: "".into(),
            state: CredentialState::Active,
            issued_at: at(issued),
            expires_at: ends.map(at),
        }
    }

    fn judge(spec: PersonalAccessTokenSpec, credential: &Credential, now: i64) -> Verdict {
        let status = PersonalAccessTokenStatus { first_issued_at: Some(at(0)), ..Default::default() };
        Terms::read(&spec, &status, false).unwrap().judge(credential, at(now))
    }

    #[test]
    fn a_statement_acts_only_once_its_time_has_come_and_only_on_what_is_older() {
        let spec = PersonalAccessTokenSpec { revoke_if_issued_before: Some(at(100)), ..Default::default() };
        assert_eq!(judge(spec.clone(), &credential(50, None), 99), Verdict::Good);
        assert_eq!(judge(spec.clone(), &credential(50, None), 100), Verdict::RevokedByTime);
        assert_eq!(judge(spec, &credential(100, None), 200), Verdict::Good);
    }

    #[test]
    fn an_end_is_the_first_instant_at_which_it_no_longer_works() {
        assert_eq!(judge(Default::default(), &credential(0, Some(10)), 9), Verdict::Good);
        assert_eq!(judge(Default::default(), &credential(0, Some(10)), 10), Verdict::CredentialExpired);
        let spec = PersonalAccessTokenSpec {
            expiry: Some(Expiry { at: Some(at(10)), ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(judge(spec, &credential(0, None), 10), Verdict::TokenExpired);
    }

    #[test]
    fn after_counts_from_the_first_issue_and_the_default_only_without_rotation() {
        let mut spec = PersonalAccessTokenSpec {
            expiry: Some(Expiry { after: Some("1h".into()), ..Default::default() }),
            ..Default::default()
        };
        let mut status = PersonalAccessTokenStatus { default_expires_at: Some(at(7)), ..Default::default() };
        assert_eq!(end(&spec, &status), Ok(None));
        status.first_issued_at = Some(at(5));
        assert_eq!(end(&spec, &status), Ok(Some(at(3_605))));
        spec.expiry = None;
        assert_eq!(end(&spec, &status), Ok(Some(at(7))));
        spec.rotation = Some(Rotation { interval: "1h".into() });
        assert_eq!(end(&spec, &status), Ok(None));
    }
}
