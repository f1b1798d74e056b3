//! Decisions over a real index.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    api::CredentialState,
    auth::{
        decision::{Audience, Decision, Denial, Freshness, Requirements, decide},
        verdict::Verdict,
    },
    index::{CredentialRef, Index, IndexedPat},
    token::Token,
};

const NOW: &str = "2026-01-02T00:00:00Z";

fn token() -> Token {
    Token::from_parts(&Default::default(), "accessor0001".parse().unwrap(), &[7; 32])
}

/// Returns a PAT that claims the token, created at this second.
fn claim(number: u8, second: u8, spec: Value) -> IndexedPat {
    claim_in_state(CredentialState::Active, number, second, spec)
}

/// Returns the same PAT with its credential in this state.
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

fn ask(index: &Index) -> Result<String, Denial<CredentialRef>> {
    let requirements = Requirements { scopes: &["a"], audience: Audience::Unspecified };
    match decide(index, Freshness::Fresh, token().expose().as_bytes(), &requirements, NOW.parse().unwrap()) {
        Decision::Allow(record) => Ok(record.pat.subject().to_owned()),
        Decision::Deny(denial) => Err(denial),
        Decision::Unavailable(why) => panic!("{why:?}"),
    }
}

#[test]
fn pending_active_and_grace_credentials_are_accepted() {
    for state in [CredentialState::Pending, CredentialState::Active, CredentialState::Grace] {
        let index = Index::default();
        index.put(claim_in_state(state, 1, 0, json!({"scopes": ["a"]})));
        assert_eq!(ask(&index).ok().as_deref(), Some("va:n1/app"), "{state:?}");
        index.put(claim_in_state(state, 1, 0, json!({"scopes": ["a"], "revoked": true})));
        assert!(matches!(ask(&index), Err(Denial::Inactive(_, Verdict::Revoked))), "{state:?}");
    }
}

#[test]
fn a_token_of_several_pats_belongs_to_the_oldest_unless_one_denies_it() {
    let index = Index::default();
    let good = || json!({"scopes": ["a", "b"]});
    index.put(claim(2, 30, good()));
    assert_eq!(ask(&index).unwrap(), "va:n2/app");
    index.put(claim(3, 10, good()));
    assert_eq!(ask(&index).unwrap(), "va:n3/app");
    index.put(claim(1, 10, good()));
    assert_eq!(ask(&index).unwrap(), "va:n1/app", "with equal creation times, the smaller uid wins");
    index.put(claim(2, 30, json!({"scopes": ["a"], "revoked": true})));
    assert!(matches!(ask(&index), Err(Denial::Inactive(record, Verdict::Revoked)) if record.pat.namespace() == "n2"));
    index.put(claim(2, 30, json!({"scopes": ["b"]})));
    assert!(matches!(ask(&index), Err(Denial::InsufficientScope(_))));
    index.put(claim(2, 30, json!({"scopes": ["a"], "audiences": ["x"]})));
    assert!(matches!(ask(&index), Err(Denial::WrongAudience(_))));
    index.remove(format!("{:032}", 2).parse().unwrap());
    assert_eq!(ask(&index).unwrap(), "va:n1/app");
    index.remove(format!("{:032}", 1).parse().unwrap());
    index.remove(format!("{:032}", 3).parse().unwrap());
    assert!(matches!(ask(&index), Err(Denial::Unknown { removed: true })));
}

proptest! {
    #[test]
    fn the_decision_does_not_depend_on_the_order_of_events(
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
        let oldest = last.iter().min_by_key(|(number, (second, _))| (*second, **number));
        let expected = oldest.filter(|_| last.values().all(|(_, good)| *good)).map(|(number, _)| format!("va:n{number}/app"));
        prop_assert_eq!(ask(&one).ok(), expected.clone());
        prop_assert_eq!(ask(&other).ok(), expected);
    }
}
