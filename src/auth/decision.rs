//! Whether a presented token is accepted for one request. [`decide`] is the entry point.

use super::verdict::Verdict;
use crate::{
    api::Time,
    token::{ParseError, Presented, TokenHash},
};

/// The lookups that a decision needs. The index implements them.
pub trait CredentialLookup {
    /// A live credential together with its PAT.
    type Credential: KnownCredential;

    /// Returns the live credential with this hash; if several PATs claim the hash, that of any of them.
    fn find(&self, hash: &TokenHash) -> Option<Self::Credential>;

    /// Returns the credentials of all PATs that claim this hash, oldest PAT first, if more than one does. Otherwise returns none.
    fn conflicting(&self, hash: &TokenHash) -> Vec<Self::Credential>;

    /// Reports whether a credential with this hash was known and has been removed.
    fn was_removed(&self, hash: &TokenHash) -> bool;

    /// Reports whether the owner of this credential is disabled.
    fn is_owner_disabled(&self, credential: &Self::Credential) -> bool;
}

/// What a decision reads of a credential and its PAT.
pub trait KnownCredential: Clone {
    /// Returns the hash of the token.
    fn hash(&self) -> &TokenHash;

    /// Returns whether the credential is valid at the time `now`.
    fn verdict(&self, now: Time) -> Verdict;

    /// Returns the audiences of the PAT.
    fn audiences(&self) -> impl Iterator<Item = &str>;

    /// Reports whether the PAT has this scope.
    fn has_scope(&self, scope: &str) -> bool;
}

/// How current the index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The first full list has not arrived yet.
    Starting,
    /// The index is up to date, except for the lag of its watches.
    Fresh,
    /// No event has arrived for a while: an unknown token may be new.
    Stale,
    /// No event has arrived for too long: a revocation may have been missed.
    Lost,
}

/// Requirements that a relying party places on a token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requirements<'a> {
    /// Scopes that the token must have, all of them.
    pub scopes: &'a [&'a str],
    /// Audience that the token must be for.
    pub audience: Audience<'a>,
}

/// The audience that a token must be for.
#[derive(Clone, Copy, Debug, Default)]
pub enum Audience<'a> {
    /// The relying party states none, so the token must not be limited to an audience.
    #[default]
    Unspecified,
    /// The token must list at least one of these.
    OneOf(&'a [&'a str]),
    /// Any audience is accepted. Only for callers that get the audiences and check them themselves.
    Any,
}

/// The result of a decision; `C` is the credential of a known token.
#[derive(Clone, Debug)]
pub enum Decision<C> {
    /// The token is valid and meets the requirements.
    Allow(C),
    /// The token is not valid or does not meet the requirements.
    Deny(Denial<C>),
    /// The index is not current enough for a decision.
    Unavailable(Unavailable),
}

/// Why a token is denied.
#[derive(Clone, Debug)]
pub enum Denial<C> {
    /// The text is not a token.
    Malformed(ParseError),
    /// No live credential has its hash.
    Unknown {
        /// Whether the credential was known and has been removed.
        removed: bool,
    },
    /// The credential is expired or revoked.
    Inactive(C, Verdict),
    /// The owner of the token is disabled.
    OwnerDisabled(C),
    /// The token is not for the required audience.
    WrongAudience(C),
    /// The token lacks a required scope.
    InsufficientScope(C),
}

impl<C> Denial<C> {
    /// Returns the credential of the token, if it is known.
    pub fn credential(&self) -> Option<&C> {
        match self {
            Self::Inactive(credential, _)
            | Self::OwnerDisabled(credential)
            | Self::WrongAudience(credential)
            | Self::InsufficientScope(credential) => Some(credential),
            Self::Malformed(_) | Self::Unknown { .. } => None,
        }
    }
}

/// Why no decision is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The first full list has not arrived yet.
    Starting,
    /// The token is well-formed but unknown, and the index is stale.
    UnknownWhileStale,
    /// The index is too old to be trusted.
    Lost,
}

/// Decides whether a presented token is accepted.
///
/// Cheap checks come first. A malformed token is denied before anything is hashed or looked up, however current the index is.
pub fn decide<'t, L: CredentialLookup>(
    index: &L,
    freshness: Freshness,
    token: impl TryInto<Presented<'t>, Error: Into<ParseError>>,
    requirements: &Requirements<'_>,
    now: Time,
) -> Decision<L::Credential> {
    let token: Presented<'t> = match token.try_into() {
        Ok(token) => token,
        Err(error) => return Decision::Deny(Denial::Malformed(error.into())),
    };
    if let Some(why) = unavailable(freshness) {
        return Decision::Unavailable(why);
    }
    let hash = token.hash();
    let Some(credential) = index.find(&hash) else {
        let removed = index.was_removed(&hash);
        return if freshness == Freshness::Stale && !removed {
            Decision::Unavailable(Unavailable::UnknownWhileStale)
        } else {
            Decision::Deny(Denial::Unknown { removed })
        };
    };
    check_all_claims(index, credential, requirements, now)
}

/// Decides on a credential that was found without its token, such as by an access token that refers to it.
pub fn decide_known<L: CredentialLookup>(
    index: &L,
    freshness: Freshness,
    credential: L::Credential,
    requirements: &Requirements<'_>,
    now: Time,
) -> Decision<L::Credential> {
    match unavailable(freshness) {
        Some(why) => Decision::Unavailable(why),
        None => check_all_claims(index, credential, requirements, now),
    }
}

fn unavailable(freshness: Freshness) -> Option<Unavailable> {
    match freshness {
        Freshness::Starting => Some(Unavailable::Starting),
        Freshness::Lost => Some(Unavailable::Lost),
        Freshness::Fresh | Freshness::Stale => None,
    }
}

/// Checks the credential and every other PAT that claims the same token.
///
/// A PAT restored from a backup may claim the token of its original. A revocation of either must take effect, so all of them have
/// to allow the token; it then belongs to the oldest.
fn check_all_claims<L: CredentialLookup>(
    index: &L,
    credential: L::Credential,
    requirements: &Requirements<'_>,
    now: Time,
) -> Decision<L::Credential> {
    let claims = index.conflicting(credential.hash());
    let Some((oldest, others)) = claims.split_first() else { return check(index, credential, requirements, now) };
    let decision = check(index, oldest.clone(), requirements, now);
    if !matches!(decision, Decision::Allow(_)) {
        return decision;
    }
    let denial = |other: &L::Credential| match check(index, other.clone(), requirements, now) {
        Decision::Allow(_) => None,
        denial => Some(denial),
    };
    others.iter().find_map(denial).unwrap_or(decision)
}

/// Checks one credential: validity, owner, audience, scopes, in this order.
fn check<L: CredentialLookup>(
    index: &L,
    credential: L::Credential,
    requirements: &Requirements<'_>,
    now: Time,
) -> Decision<L::Credential> {
    let verdict = credential.verdict(now);
    if !verdict.is_valid() {
        return Decision::Deny(Denial::Inactive(credential, verdict));
    }
    if index.is_owner_disabled(&credential) {
        return Decision::Deny(Denial::OwnerDisabled(credential));
    }
    let audience_matches = match requirements.audience {
        Audience::Any => true,
        Audience::Unspecified => credential.audiences().next().is_none(),
        Audience::OneOf(accepted) => credential.audiences().any(|audience| accepted.contains(&audience)),
    };
    if !audience_matches {
        return Decision::Deny(Denial::WrongAudience(credential));
    }
    if !requirements.scopes.iter().all(|scope| credential.has_scope(scope)) {
        return Decision::Deny(Denial::InsufficientScope(credential));
    }
    Decision::Allow(credential)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    /// One credential, and what an index says about it.
    #[derive(Clone)]
    struct OneCredential {
        hash: TokenHash,
        verdict: Verdict,
        audience: &'static str,
        scope: &'static str,
        owner_disabled: bool,
        removed: bool,
    }

    impl KnownCredential for OneCredential {
        fn hash(&self) -> &TokenHash {
            &self.hash
        }

        fn verdict(&self, _: Time) -> Verdict {
            self.verdict
        }

        fn audiences(&self) -> impl Iterator<Item = &str> {
            [self.audience].into_iter()
        }

        fn has_scope(&self, scope: &str) -> bool {
            self.scope == scope
        }
    }

    impl CredentialLookup for OneCredential {
        type Credential = Self;

        fn find(&self, hash: &TokenHash) -> Option<Self> {
            (self.hash == *hash && !self.removed).then(|| self.clone())
        }

        fn conflicting(&self, _: &TokenHash) -> Vec<Self> {
            Vec::new()
        }

        fn was_removed(&self, hash: &TokenHash) -> bool {
            self.hash == *hash && self.removed
        }

        fn is_owner_disabled(&self, credential: &Self) -> bool {
            credential.owner_disabled
        }
    }

    fn token(number: u8) -> Token {
        Token::from_parts(&Default::default(), "accessor0001".parse().unwrap(), &[number; 32])
    }

    fn credential() -> OneCredential {
        OneCredential {
            hash: token(1).hash(),
            verdict: Verdict::Valid,
            audience: "shop",
            scope: "read",
            owner_disabled: false,
            removed: false,
        }
    }

    fn decision(index: &OneCredential, freshness: Freshness, token: &[u8]) -> Decision<OneCredential> {
        let requirements = Requirements { scopes: &["read"], audience: Audience::OneOf(&["till", "shop"]) };
        decide(index, freshness, token, &requirements, Time::from_micros(0))
    }

    #[test]
    fn checks_run_in_order_validity_owner_audience_scopes() {
        let decided = |index: &OneCredential| decision(index, Freshness::Fresh, token(1).expose().as_bytes());
        let mut index = OneCredential {
            verdict: Verdict::Revoked,
            audience: "bank",
            scope: "write",
            owner_disabled: true,
            ..credential()
        };
        assert!(matches!(decided(&index), Decision::Deny(Denial::Inactive(_, Verdict::Revoked))));
        index.verdict = Verdict::Valid;
        assert!(matches!(decided(&index), Decision::Deny(Denial::OwnerDisabled(_))));
        index.owner_disabled = false;
        assert!(matches!(decided(&index), Decision::Deny(Denial::WrongAudience(_))));
        index.audience = "shop";
        assert!(matches!(decided(&index), Decision::Deny(Denial::InsufficientScope(_))));
        index.scope = "read";
        assert!(matches!(decided(&index), Decision::Allow(_)));
    }

    #[test]
    fn a_stale_index_decides_only_on_known_and_removed_tokens() {
        let removed = OneCredential { removed: true, ..credential() };
        let known = credential();
        let (first, second) = (token(1), token(2));
        let decided = |index, freshness, token: &Token| decision(index, freshness, token.expose().as_bytes());
        assert!(matches!(decided(&known, Freshness::Stale, &first), Decision::Allow(_)));
        let denied = decided(&removed, Freshness::Stale, &first);
        assert!(matches!(denied, Decision::Deny(Denial::Unknown { removed: true })));
        let unavailable = decided(&known, Freshness::Stale, &second);
        assert!(matches!(unavailable, Decision::Unavailable(Unavailable::UnknownWhileStale)));
        let denied = decided(&known, Freshness::Fresh, &second);
        assert!(matches!(denied, Decision::Deny(Denial::Unknown { removed: false })));
        for (freshness, why) in [(Freshness::Starting, Unavailable::Starting), (Freshness::Lost, Unavailable::Lost)] {
            assert!(matches!(decided(&known, freshness, &first), Decision::Unavailable(reason) if reason == why));
            let malformed = decision(&known, freshness, b"junk");
            assert!(matches!(malformed, Decision::Deny(Denial::Malformed(_))));
        }
    }
}
