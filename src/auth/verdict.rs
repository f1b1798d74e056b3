//! Whether one credential is valid at a given time.
//!
//! The planner uses it to retire credentials. The verifier uses it for every request, so that a revocation takes effect as soon
//! as it is written, even while no controller runs.

use crate::api::{Credential, InvalidDuration, PersonalAccessTokenSpec, PersonalAccessTokenStatus, Time};

/// The terms of validity of all credentials of one PAT, read once from its spec and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    revoked: bool,
    deleted: bool,
    created: u32,
    revoke_if_issued_before: Option<Time>,
    revoked_credentials: Box<[String]>,
    end: Option<Time>,
}

/// Whether a credential is valid, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The credential is valid.
    Valid,
    /// The PAT is being deleted.
    Deleted,
    /// `spec.revoked` is true.
    Revoked,
    /// `spec.revokeIfIssuedBefore` is reached, and the credential was issued before it.
    RevokedByTime,
    /// `spec.revokedCredentials` lists the credential.
    RevokedById,
    /// The PAT has expired.
    TokenExpired,
    /// The credential has expired, but not its PAT.
    CredentialExpired,
}

impl Verdict {
    /// Reports whether the credential is valid.
    pub fn is_valid(self) -> bool {
        self == Self::Valid
    }
}

impl Terms {
    /// Reads the terms. `deleted` is whether the PAT has a deletionTimestamp.
    ///
    /// # Errors
    /// Returns an error if `expiry.after` is not a duration.
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

    /// Sets when the PAT was created, in seconds since the Unix epoch.
    #[must_use]
    pub fn of_object_created_at(self, created: u32) -> Self {
        Self { created, ..self }
    }

    /// Returns when the PAT was created, in seconds since the Unix epoch, or 0 if unknown. If two PATs claim a token, it belongs
    /// to the older one. No verdict depends on it.
    pub fn created(&self) -> u32 {
        self.created
    }

    /// Returns when the PAT expires; `None` if never, or if the expiry counts from a first issue that has not happened yet.
    pub fn end(&self) -> Option<Time> {
        self.end
    }

    /// Reports whether the PAT has expired.
    pub fn expired(&self, now: Time) -> bool {
        self.end.is_some_and(|end| end <= now)
    }

    /// Judges a credential at the time `now`. Revocation takes precedence over expiry, because it is intended.
    pub fn judge(&self, credential: &Credential, now: Time) -> Verdict {
        self.judge_fields(credential.id.as_str(), credential.issued_at, credential.expires_at, now)
    }

    /// Judges a credential by its fields, for callers that do not keep an API object.
    pub fn judge_fields(&self, id: &str, issued_at: Time, expires_at: Option<Time>, now: Time) -> Verdict {
        if self.deleted {
            return Verdict::Deleted;
        }
        if self.revoked {
            return Verdict::Revoked;
        }
        if self.revoke_if_issued_before.is_some_and(|before| issued_at < before && before <= now) {
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
        Verdict::Valid
    }
}

/// Returns when a PAT expires, from its spec and status.
///
/// # Errors
/// Returns an error if `expiry.after` is not a duration.
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
            remote: None,
        }
    }

    fn judge(spec: PersonalAccessTokenSpec, credential: &Credential, now: i64) -> Verdict {
        let status = PersonalAccessTokenStatus { first_issued_at: Some(at(0)), ..Default::default() };
        Terms::read(&spec, &status, false).unwrap().judge(credential, at(now))
    }

    #[test]
    fn revoke_if_issued_before_acts_when_reached_and_only_on_older_credentials() {
        let spec = PersonalAccessTokenSpec { revoke_if_issued_before: Some(at(100)), ..Default::default() };
        assert_eq!(judge(spec.clone(), &credential(50, None), 99), Verdict::Valid);
        assert_eq!(judge(spec.clone(), &credential(50, None), 100), Verdict::RevokedByTime);
        assert_eq!(judge(spec, &credential(100, None), 200), Verdict::Valid);
    }

    #[test]
    fn a_credential_is_invalid_from_the_instant_of_its_expiry() {
        assert_eq!(judge(Default::default(), &credential(0, Some(10)), 9), Verdict::Valid);
        assert_eq!(judge(Default::default(), &credential(0, Some(10)), 10), Verdict::CredentialExpired);
        let spec = PersonalAccessTokenSpec {
            expiry: Some(Expiry { at: Some(at(10)), ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(judge(spec, &credential(0, None), 10), Verdict::TokenExpired);
    }

    #[test]
    fn after_counts_from_the_first_issue_and_the_default_applies_only_without_rotation() {
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
