//! The reason of each decision, as metrics and the audit log name it.

use crate::{
    auth::{
        decision::{Decision, Denial, Unavailable},
        verdict::Verdict,
    },
    token::ParseError,
};

/// Why a token was accepted or denied, or why no decision was possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecisionReason {
    /// The token is valid and meets the requirements.
    Good,
    /// The text is not a token.
    Malformed,
    /// The checksum of the token does not match.
    Checksum,
    /// No live credential has the hash of the token.
    Unknown,
    /// No live credential has the hash of the token, but one had it.
    Gone,
    /// The PAT is being deleted.
    Deleted,
    /// The credential is revoked.
    Revoked,
    /// The credential or its PAT has expired.
    Expired,
    /// The owner is disabled.
    OwnerDisabled,
    /// The token is not for the required audience.
    Audience,
    /// The token lacks a required scope.
    Scope,
    /// The owner or the scopes contain characters that a header cannot hold.
    Unprintable,
    /// The user name or a group is reserved for Kubernetes.
    Reserved,
    /// The token does not belong to the client whose ID came with it.
    Client,
    /// The first full list has not arrived yet.
    Starting,
    /// The token is unknown, and the index is stale.
    Stale,
    /// The index is too old to be trusted.
    Lost,
}

/// The answer that follows from a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecisionAnswer {
    /// The token is accepted.
    Allow,
    /// The token is denied.
    Deny,
    /// No decision was possible.
    Unavailable,
}

impl DecisionReason {
    /// All reasons, in the order of their discriminants.
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

    /// Returns the reason of a decision, before the protocol's own conditions.
    pub fn of<C>(decision: &Decision<C>) -> Self {
        match decision {
            Decision::Allow(_) => Self::Good,
            Decision::Deny(Denial::Malformed(ParseError::Checksum)) => Self::Checksum,
            Decision::Deny(Denial::Malformed(_)) => Self::Malformed,
            Decision::Deny(Denial::Unknown { removed: false }) => Self::Unknown,
            Decision::Deny(Denial::Unknown { removed: true }) => Self::Gone,
            Decision::Deny(Denial::Inactive(_, verdict)) => match verdict {
                Verdict::Deleted => Self::Deleted,
                Verdict::Revoked | Verdict::RevokedByTime | Verdict::RevokedById => Self::Revoked,
                // An inactive credential is never valid.
                Verdict::TokenExpired | Verdict::CredentialExpired | Verdict::Valid => Self::Expired,
            },
            Decision::Deny(Denial::OwnerDisabled(_)) => Self::OwnerDisabled,
            Decision::Deny(Denial::WrongAudience(_)) => Self::Audience,
            Decision::Deny(Denial::InsufficientScope(_)) => Self::Scope,
            Decision::Unavailable(Unavailable::Starting) => Self::Starting,
            Decision::Unavailable(Unavailable::UnknownWhileStale) => Self::Stale,
            Decision::Unavailable(Unavailable::Lost) => Self::Lost,
        }
    }

    /// Returns the answer that follows from this reason.
    pub fn answer(self) -> DecisionAnswer {
        match self {
            Self::Good => DecisionAnswer::Allow,
            Self::Starting | Self::Stale | Self::Lost => DecisionAnswer::Unavailable,
            _ => DecisionAnswer::Deny,
        }
    }

    /// Returns the name in metrics and logs.
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

impl DecisionAnswer {
    /// Returns the name in metrics and logs.
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
    fn reasons_are_in_order_and_their_names_are_unique() {
        let names: HashSet<_> = DecisionReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), DecisionReason::ALL.len());
        for (number, reason) in DecisionReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
    }
}
