//! The one decision behind every protocol. No I/O, no clock, no logging: everything it takes is an argument.

pub use crate::index::Freshness;
use crate::{
    api::{Time, verdict::Verdict},
    index::{Index, Record},
    token::{ParseError, Presented},
};

/// What whoever protects something asks of a token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand<'a> {
    /// Every one of these scopes.
    pub scopes: &'a [&'a str],
    /// For whom the token must be.
    pub audience: Audience<'a>,
}

/// For whom a token must be.
#[derive(Clone, Copy, Debug, Default)]
pub enum Audience<'a> {
    /// The verifier asks for none: only tokens that name none are for it.
    #[default]
    Unnamed,
    /// The token must list at least one of these itself.
    OneOf(&'a [&'a str]),
    /// Whoever it is for. Only for those who are told the audience and judge it themselves.
    Any,
}

/// The answer.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The token is good for what is asked.
    Allow(Record),
    /// It is not.
    Deny(Denial),
    /// Nobody can tell at the moment.
    Unavailable(Unavailable),
}

/// Why a token is refused.
#[derive(Clone, Debug)]
pub enum Denial {
    /// It is no token of ours at all.
    Malformed(ParseError),
    /// No live credential has its hash.
    Unknown {
        /// It was known and is gone: not merely unseen.
        gone: bool,
    },
    /// It is known, and no longer good.
    Dead(Record, Verdict),
    /// It is good, but not for this audience.
    Audience(Record),
    /// It is good, but lacks a scope.
    Scope(Record),
}

/// Why nobody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The first full list is not in yet.
    Starting,
    /// The token is well-formed and unknown, and the index stale.
    UnknownWhileStale,
    /// The index is too old to be trusted at all.
    Lost,
}

/// Decides. Cheap checks come first; junk is refused by its checksum before anything is hashed or looked up, whatever the state
/// of the index.
pub fn decide(index: &Index, freshness: Freshness, token: &[u8], demand: &Demand<'_>, now: Time) -> Decision {
    let token = match Presented::parse(token) {
        Ok(token) => token,
        Err(error) => return Decision::Deny(Denial::Malformed(error)),
    };
    match freshness {
        Freshness::Starting => return Decision::Unavailable(Unavailable::Starting),
        Freshness::Lost => return Decision::Unavailable(Unavailable::Lost),
        Freshness::Fresh | Freshness::Stale => {}
    }
    let hash = token.hash();
    let Some(record) = index.get(&hash) else {
        let gone = index.has_left(&hash);
        return if freshness == Freshness::Stale && !gone {
            Decision::Unavailable(Unavailable::UnknownWhileStale)
        } else {
            Decision::Deny(Denial::Unknown { gone })
        };
    };
    let credential = record.credential();
    let verdict = record.pat.terms.judge_life(credential.id.as_str(), credential.issued_at, credential.expires_at, now);
    if !verdict.is_good() {
        return Decision::Deny(Denial::Dead(record, verdict));
    }
    let audiences = record.pat.audiences();
    let for_us = match demand.audience {
        Audience::Any => true,
        Audience::Unnamed => audiences.is_empty(),
        Audience::OneOf(wanted) => audiences.iter().any(|one| wanted.contains(&one)),
    };
    if !for_us {
        return Decision::Deny(Denial::Audience(record));
    }
    if !demand.scopes.iter().all(|wanted| record.pat.scopes().contains(wanted)) {
        return Decision::Deny(Denial::Scope(record));
    }
    Decision::Allow(record)
}
