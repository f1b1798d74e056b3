//! The one name of each decision, for metrics and logs.
//!
//! It must not know who asked, nor how an answer is sent.

use crate::{
    auth::{
        decision::{Decision, Denial, Unavailable},
        verdict::Verdict,
    },
    token::ParseError,
};

/// Why a token was let in, refused or could not be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is good for what was asked.
    Good,
    /// It is no token of ours.
    Malformed,
    /// It is well-formed, but not what anybody minted or wrote down in full.
    Checksum,
    /// No live credential has its hash.
    Unknown,
    /// The same, but one had.
    Gone,
    /// Its resource is being deleted.
    Deleted,
    /// It was taken back.
    Revoked,
    /// It is past its end.
    Expired,
    /// Its owner is disabled.
    OwnerDisabled,
    /// It is for somebody else.
    Audience,
    /// It lacks a scope.
    Scope,
    /// Its owner or its scopes cannot stand in a header.
    Unprintable,
    /// The name or a group that it stands for is reserved to Kubernetes.
    Reserved,
    /// It is not the token of the client whose id came with it.
    Client,
    /// The index is not full yet.
    Starting,
    /// It may be new, and the index is stale.
    Stale,
    /// The index is too old.
    Lost,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It was let in.
    Allow,
    /// It was refused.
    Deny,
    /// Nobody could tell.
    Unavailable,
}

impl Reason {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 17] = [
        Self::Good,
        Self::Malformed,
        Self::Checksum,
        Self::Unknown,
        Self::Gone,
        Self::Deleted,
        Self::Revoked,
        Self::Expired,
        Self::OwnerDisabled,
        Self::Audience,
        Self::Scope,
        Self::Unprintable,
        Self::Reserved,
        Self::Client,
        Self::Starting,
        Self::Stale,
        Self::Lost,
    ];

    /// The reason of a decision, before whoever asked for it has had a say.
    pub fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Allow(_) => Self::Good,
            Decision::Deny(Denial::Malformed(ParseError::Checksum)) => Self::Checksum,
            Decision::Deny(Denial::Malformed(_)) => Self::Malformed,
            Decision::Deny(Denial::Unknown { gone: false }) => Self::Unknown,
            Decision::Deny(Denial::Unknown { gone: true }) => Self::Gone,
            Decision::Deny(Denial::Dead(_, verdict)) => match verdict {
                Verdict::Deleted => Self::Deleted,
                Verdict::Revoked | Verdict::RevokedByTime | Verdict::RevokedById => Self::Revoked,
                // A dead credential is never good.
                Verdict::TokenExpired | Verdict::CredentialExpired | Verdict::Good => Self::Expired,
            },
            Decision::Deny(Denial::OwnerDisabled(_)) => Self::OwnerDisabled,
            Decision::Deny(Denial::Audience(_)) => Self::Audience,
            Decision::Deny(Denial::Scope(_)) => Self::Scope,
            Decision::Unavailable(Unavailable::Starting) => Self::Starting,
            Decision::Unavailable(Unavailable::UnknownWhileStale) => Self::Stale,
            Decision::Unavailable(Unavailable::Lost) => Self::Lost,
        }
    }

    /// What comes of it.
    pub fn answer(self) -> Answer {
        match self {
            Self::Good => Answer::Allow,
            Self::Starting | Self::Stale | Self::Lost => Answer::Unavailable,
            _ => Answer::Deny,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "Good",
            Self::Malformed => "Malformed",
            Self::Checksum => "Checksum",
            Self::Unknown => "Unknown",
            Self::Gone => "Gone",
            Self::Deleted => "Deleted",
            Self::Revoked => "Revoked",
            Self::Expired => "Expired",
            Self::OwnerDisabled => "OwnerDisabled",
            Self::Audience => "Audience",
            Self::Scope => "Scope",
            Self::Unprintable => "Unprintable",
            Self::Reserved => "Reserved",
            Self::Client => "Client",
            Self::Starting => "Starting",
            Self::Stale => "Stale",
            Self::Lost => "Lost",
        }
    }
}

impl Answer {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Unavailable => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_stands_at_its_number_and_has_a_name_of_its_own() {
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
    }
}
