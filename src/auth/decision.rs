//! The one decision on a token, by which the verifier judges, and whoever else takes tokens.
//!
//! No I/O, no clock, no logging: everything it takes is an argument. It knows the index and must not know any protocol.

pub use crate::index::Freshness;
use crate::{
    api::Time,
    auth::verdict::Verdict,
    index::{CredentialRef, Index, OwnerIndex},
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
    Allow(CredentialRef),
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
    Dead(CredentialRef, Verdict),
    /// It is known and alive, and its owner disabled.
    OwnerDisabled(CredentialRef),
    /// It is good, but not for this audience.
    Audience(CredentialRef),
    /// It is good, but lacks a scope.
    Scope(CredentialRef),
}

impl Denial {
    /// The token that was presented, if it is known.
    pub fn record(&self) -> Option<&CredentialRef> {
        match self {
            Self::Dead(record, _) | Self::OwnerDisabled(record) | Self::Audience(record) | Self::Scope(record) => {
                Some(record)
            }
            Self::Malformed(_) | Self::Unknown { .. } => None,
        }
    }
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
pub fn decide<'t>(
    index: &Index,
    freshness: Freshness,
    token: impl TryInto<Presented<'t>, Error: Into<ParseError>>,
    demand: &Demand<'_>,
    now: Time,
) -> Decision {
    let token: Presented<'t> = match token.try_into() {
        Ok(token) => token,
        Err(error) => return Decision::Deny(Denial::Malformed(error.into())),
    };
    match freshness {
        Freshness::Starting => return Decision::Unavailable(Unavailable::Starting),
        Freshness::Lost => return Decision::Unavailable(Unavailable::Lost),
        Freshness::Fresh | Freshness::Stale => {}
    }
    let hash = token.hash();
    let Some(record) = index.get(&hash) else {
        let gone = index.was_removed(&hash);
        return if freshness == Freshness::Stale && !gone {
            Decision::Unavailable(Unavailable::UnknownWhileStale)
        } else {
            Decision::Deny(Denial::Unknown { gone })
        };
    };
    decide_known(index, record, demand, now)
}

/// Decides on a credential that is known otherwise than by its token, such as by an access token that names it.
pub fn decide_on(
    index: &Index,
    freshness: Freshness,
    record: CredentialRef,
    demand: &Demand<'_>,
    now: Time,
) -> Decision {
    match freshness {
        Freshness::Starting => Decision::Unavailable(Unavailable::Starting),
        Freshness::Lost => Decision::Unavailable(Unavailable::Lost),
        Freshness::Fresh | Freshness::Stale => decide_known(index, record, demand, now),
    }
}

fn decide_known(index: &Index, record: CredentialRef, demand: &Demand<'_>, now: Time) -> Decision {
    // A restored PAT may claim the token of its former self, or of one that was restored elsewhere. Taking it back in either place
    // takes it back, so that every one of them has to let it in; then it is the eldest's.
    let rivals = index.conflicting(&record.credential().hash);
    let Some((eldest, younger)) = rivals.split_first() else { return judge(record, index.owners(), demand, now) };
    let decision = judge(eldest.clone(), index.owners(), demand, now);
    let refusal = |rival: &CredentialRef| match judge(rival.clone(), index.owners(), demand, now) {
        Decision::Allow(_) => None,
        refusal => Some(refusal),
    };
    match decision {
        Decision::Allow(_) => younger.iter().find_map(refusal).unwrap_or(decision),
        refusal => refusal,
    }
}

/// Judges what was found.
fn judge(record: CredentialRef, owners: &OwnerIndex, demand: &Demand<'_>, now: Time) -> Decision {
    let credential = record.credential();
    let verdict = record.pat.terms.judge_life(credential.id.as_str(), credential.issued_at, credential.expires_at, now);
    if !verdict.is_good() {
        return Decision::Deny(Denial::Dead(record, verdict));
    }
    if owners.is_disabled(record.pat.subject()) {
        return Decision::Deny(Denial::OwnerDisabled(record));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{api::CredentialState, index::IndexedPat, token::Token};

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn token() -> Token {
        Token::from_parts(&Default::default(), "accessor0001".parse().unwrap(), &[7; 32])
    }

    /// A PAT of this number that claims the token, created at this second.
    fn claim(number: u8, second: u8, spec: Value) -> IndexedPat {
        claim_in_state(CredentialState::Active, number, second, spec)
    }

    /// The same, with its credential in this state.
    fn claim_in_state(state: CredentialState, number: u8, second: u8, spec: Value) -> IndexedPat {
        let stored = json!({
            "metadata": {
                "namespace": format!("n{number}"), "name": "app", "uid": format!("{number:032}"),
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            },
            "spec": spec,
            "status": {"credentials": [{
                "id": "accessor0001", "revision": 1, "sha256": token().hash().to_string(), "state": state,
                "issuedAt": "2026-01-01T00:00:00Z",
            }]},
        });
        IndexedPat::read(&serde_json::from_value(stored).unwrap()).expect("a PAT")
    }

    fn ask(index: &Index) -> Result<String, Denial> {
        let demand = Demand { scopes: &["a"], audience: Audience::Unnamed };
        match decide(index, Freshness::Fresh, token().expose().as_bytes(), &demand, NOW.parse().unwrap()) {
            Decision::Allow(record) => Ok(record.pat.subject().to_owned()),
            Decision::Deny(denial) => Err(denial),
            Decision::Unavailable(why) => panic!("{why:?}"),
        }
    }

    #[test]
    fn a_credential_is_good_from_its_publication_to_the_end_of_its_grace() {
        for state in [CredentialState::Pending, CredentialState::Active, CredentialState::Grace] {
            let index = Index::default();
            index.put(claim_in_state(state, 1, 0, json!({"scopes": ["a"]})));
            assert_eq!(ask(&index).ok().as_deref(), Some("va:n1/app"), "{state:?}");
            index.put(claim_in_state(state, 1, 0, json!({"scopes": ["a"], "revoked": true})));
            assert!(matches!(ask(&index), Err(Denial::Dead(_, Verdict::Revoked))), "{state:?}");
        }
    }

    #[test]
    fn of_pats_that_claim_one_token_the_eldest_answers_as_long_as_none_refuses() {
        let index = Index::default();
        let good = || json!({"scopes": ["a", "b"]});
        index.put(claim(2, 30, good()));
        assert_eq!(ask(&index).unwrap(), "va:n2/app");
        index.put(claim(3, 10, good()));
        assert_eq!(ask(&index).unwrap(), "va:n3/app");
        index.put(claim(1, 10, good()));
        assert_eq!(ask(&index).unwrap(), "va:n1/app", "of two of one second, the smaller uid");
        index.put(claim(2, 30, json!({"scopes": ["a"], "revoked": true})));
        assert!(matches!(ask(&index), Err(Denial::Dead(record, Verdict::Revoked)) if record.pat.namespace() == "n2"));
        index.put(claim(2, 30, json!({"scopes": ["b"]})));
        assert!(matches!(ask(&index), Err(Denial::Scope(_))));
        index.put(claim(2, 30, json!({"scopes": ["a"], "audiences": ["x"]})));
        assert!(matches!(ask(&index), Err(Denial::Audience(_))));
        index.remove(format!("{:032}", 2).parse().unwrap());
        assert_eq!(ask(&index).unwrap(), "va:n1/app");
        index.remove(format!("{:032}", 1).parse().unwrap());
        index.remove(format!("{:032}", 3).parse().unwrap());
        assert!(matches!(ask(&index), Err(Denial::Unknown { gone: true })));
    }

    proptest! {
        /// In whatever order they come and change, the answer is that of what is there in the end.
        #[test]
        fn the_answer_does_not_depend_on_the_order_in_which_claims_came(
            steps in prop::collection::vec((0u8..4, 0u8..3, any::<bool>(), any::<bool>()), 1..20),
        ) {
            let (one, other) = (Index::default(), Index::default());
            let mut last = std::collections::BTreeMap::new();
            for (number, second, good, there) in steps {
                let spec = || if good { json!({"scopes": ["a"]}) } else { json!({"revoked": true}) };
                if there {
                    one.put(claim(number, second, spec()));
                    last.insert(number, (second, good));
                } else {
                    one.remove(format!("{number:032}").parse().unwrap());
                    last.remove(&number);
                }
            }
            for (number, (second, good)) in last.iter().rev() {
                let spec = if *good { json!({"scopes": ["a"]}) } else { json!({"revoked": true}) };
                other.put(claim(*number, *second, spec));
            }
            let eldest = last.iter().min_by_key(|(number, (second, _))| (*second, **number));
            let wanted = eldest.filter(|_| last.values().all(|(_, good)| *good)).map(|(number, _)| format!("va:n{number}/app"));
            prop_assert_eq!(ask(&one).ok(), wanted.clone());
            prop_assert_eq!(ask(&other).ok(), wanted);
        }
    }
}
