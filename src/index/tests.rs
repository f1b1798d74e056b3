//! Compares the index with a plain map, and changes it while threads read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{OwnerKind, StoredPat, Time},
    token::TokenHash,
};

fn hash(number: u32) -> TokenHash {
    // Some share a shard, and some share half of their bytes.
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&((number % 7) as u16).to_be_bytes());
    bytes[8..12].copy_from_slice(&(number / 3).to_be_bytes());
    bytes[28..].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}

fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

fn uid(number: u32) -> PatUid {
    u128::from(number).into()
}

fn stored(number: u32, spec: Value, credentials: &[u32], usage: Value) -> StoredPat {
    let credential = |one: &u32| {
        json!({
            "id": format!("{one:012}"), "revision": 1, "sha256": hash(*one).to_string(), "state": "Active",
            "issuedAt": "2026-01-01T00:00:00Z",
        })
    };
    let credentials: Vec<_> = credentials.iter().map(credential).collect();
    serde_json::from_value(json!({
        "metadata": {"namespace": "team", "name": "app", "uid": uid(number).to_string()},
        "spec": spec,
        "status": {"credentials": credentials, "usage": usage},
    }))
    .expect("it decodes")
}

fn pat(number: u32, version: u32, credentials: &[u32]) -> IndexedPat {
    let spec = json!({"scopes": [format!("v{version}"), format!("same{version}")]});
    IndexedPat::read(&stored(number, spec, credentials, json!({}))).expect("it is read")
}

#[test]
fn a_pat_is_read_for_the_verifier() {
    let spec = json!({
        "owner": {"kind": "User", "name": "jane@example.com"}, "scopes": ["repo:read", "repo:write"], "audiences": ["registry"],
    });
    let usage = json!({"000000000001": "2026-01-02T00:00:00Z", "000000000009": "2026-01-02T00:00:00Z", "no id": "2026-01-02T00:00:00Z"});
    let pat = IndexedPat::read(&stored(7, spec, &[1, 2], usage)).unwrap();
    assert_eq!((pat.namespace(), pat.name(), pat.subject()), ("team", "app", "jane@example.com"));
    assert_eq!((pat.owner().name.as_str(), pat.owner_kind()), ("jane@example.com", OwnerKind::User));
    assert_eq!((pat.scopes().joined(), pat.audiences().joined()), ("repo:read repo:write", "registry"));
    let reported: Vec<_> = pat.credentials.iter().map(|one| one.reported_use().map(|time| time.to_string())).collect();
    assert_eq!(reported, [Some("2026-01-02T00:00:00Z".to_owned()), None]);
    assert_eq!(pat.dead_usage().joined(), "000000000009");

    let account = IndexedPat::read(&stored(7, json!({}), &[], json!({}))).unwrap();
    assert_eq!((account.subject(), account.owner().name.as_str()), ("va:team/app", "team/app"));
    assert_eq!((account.namespace(), account.name()), ("team", "app"));
    let other = json!({"owner": {"kind": "VirtualAccount", "name": "ci"}});
    let other = IndexedPat::read(&stored(7, other, &[], json!({}))).unwrap();
    assert_eq!((other.namespace(), other.name(), other.subject()), ("team", "app", "va:ci"));
    assert_eq!((other.owner().name.as_str(), other.owner_kind()), ("ci", OwnerKind::VirtualAccount));
    let liar = json!({"owner": {"kind": "User", "name": "va:team/app"}});
    assert!(IndexedPat::read(&stored(7, liar, &[1], json!({}))).is_none(), "a user never passes for a VirtualAccount");
    let broken = json!({"scopes": ["repo:read admin"]});
    assert!(IndexedPat::read(&stored(7, broken, &[1], json!({}))).is_none(), "one scope never becomes two");
}

#[derive(Clone, Debug)]
enum IndexStep {
    Put { pat: u32, credentials: Vec<u32> },
    PutAll(Vec<(u32, Vec<u32>)>),
    Remove { pat: u32 },
    Retain { below: u32 },
}

fn steps() -> impl Strategy<Value = Vec<IndexStep>> {
    let credentials = || proptest::collection::vec(0..40u32, 0..5);
    let step = prop_oneof![
        4 => (0..12u32, credentials()).prop_map(|(pat, credentials)| IndexStep::Put { pat, credentials }),
        2 => proptest::collection::vec((0..12u32, credentials()), 0..6).prop_map(IndexStep::PutAll),
        2 => (0..12u32).prop_map(|pat| IndexStep::Remove { pat }),
        1 => (0..14u32).prop_map(|below| IndexStep::Retain { below }),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn the_index_equals_a_plain_map(steps in steps()) {
        let (index, mut model) = (Index::default(), BTreeMap::<u32, (u32, Vec<u32>)>::new());
        let mut ever = BTreeSet::<u32>::new();
        let mut version = 0;
        for step in steps {
            let mut put = |number: u32, mut credentials: Vec<u32>| {
                version += 1;
                credentials.sort_unstable();
                credentials.dedup();
                ever.extend(&credentials);
                model.insert(number, (version, credentials.clone()));
                pat(number, version, &credentials)
            };
            match step {
                IndexStep::Put { pat, credentials } => index.put(put(pat, credentials)),
                IndexStep::PutAll(many) => index.put_all(many.into_iter().map(|(pat, credentials)| put(pat, credentials)).collect::<Vec<_>>()),
                IndexStep::Remove { pat } => {
                    model.remove(&pat);
                    index.remove(uid(pat));
                }
                IndexStep::Retain { below } => {
                    model.retain(|number, _| *number < below);
                    index.retain(|pat| pat.uid < uid(below));
                }
            }
        }
        prop_assert_eq!(index.pats(), model.len());
        prop_assert_eq!(index.len(), model.values().map(|(_, credentials)| credentials.len()).sum::<usize>());
        let mut shown = Vec::new();
        index.for_each(|pat| shown.push(pat.uid));
        shown.sort_unstable();
        prop_assert_eq!(shown, model.keys().map(|number| uid(*number)).collect::<Vec<_>>());
        for number in 0..12 {
            let scopes = index.pat(uid(number)).map(|pat| pat.scopes().joined().to_owned());
            prop_assert_eq!(scopes, model.get(&number).map(|(version, _)| format!("v{version} same{version}")));
        }
        for one in 0..40 {
            let holders: Vec<_> = model.iter().filter(|(_, (_, has))| has.contains(&one)).map(|(number, _)| uid(*number)).collect();
            let found = index.get(&hash(one));
            prop_assert_eq!(found.is_some(), !holders.is_empty());
            prop_assert_eq!(index.was_removed(&hash(one)), holders.is_empty() && ever.contains(&one));
            if let Some(record) = found {
                prop_assert!(holders.contains(&record.pat.uid));
                prop_assert_eq!(record.credential().hash, hash(one));
                prop_assert!(Arc::ptr_eq(&record.pat, &index.pat(record.pat.uid).unwrap()), "it is the present one");
            }
        }
    }
}

#[test]
fn only_the_last_removed_hashes_are_remembered() {
    let index = Index::default();
    // All in one shard.
    let credentials: Vec<_> = (0..100).map(|n| n * 7).collect();
    for one in &credentials {
        index.put(pat(1, 1, &[*one]));
    }
    index.remove(uid(1));
    let remembered: Vec<_> = credentials.iter().filter(|one| index.was_removed(&hash(**one))).copied().collect();
    assert_eq!(remembered, credentials[36..]);
    index.put(pat(2, 1, &[0, 693]));
    assert!(!index.was_removed(&hash(693)), "it is back");
}

#[test]
fn a_use_survives_updates() {
    let index = Index::default();
    index.put(pat(1, 1, &[1, 2]));
    let early = index.get(&hash(1)).unwrap();
    index.mark_used(&early, at(100));
    index.mark_used(&early, at(90));
    index.put(pat(1, 2, &[1, 3]));
    let used = |one| index.get(&hash(one)).unwrap().credential().last_used();
    assert_eq!((used(1), used(3)), (Some(at(100)), None));
    // A reader that looked it up before the update.
    index.mark_used(&early, at(110));
    assert_eq!(used(1), Some(at(110)));
    index.put_all([pat(1, 3, &[1]), pat(1, 4, &[1])]);
    assert_eq!(used(1), Some(at(110)), "twice in one batch");
    index.mark_used(&early, at(120));
    assert_eq!(used(1), Some(at(120)));
    index.remove(uid(1));
    index.mark_used(&early, at(130));
}

#[test]
fn readers_never_miss_a_live_credential_during_updates() {
    const ROUNDS: u32 = 3_000;
    let index = Index::default();
    // Credential 1 stays, and the others are added and removed. All change the tables of shards, and two share the
    // shard of credential 1.
    index.put(pat(1, 0, &[1]));
    let (done, uses) = (AtomicBool::new(false), AtomicU64::new(0));
    let used = thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (mut seen, mut newest) = (0, 0);
                    while !done.load(Ordering::Relaxed) {
                        let record = index.get(&hash(1)).expect("it is live all the time");
                        assert_eq!((record.credential().hash, record.pat.uid), (hash(1), uid(1)));
                        let scopes: Vec<_> = record.pat.scopes().iter().collect();
                        let version: u32 = scopes[0].strip_prefix('v').unwrap().parse().unwrap();
                        assert_eq!(scopes[1], format!("same{version}"), "all of one version");
                        assert!(version >= seen, "time does not go back");
                        seen = version;
                        newest = uses.fetch_add(1, Ordering::Relaxed) as i64 * 2;
                        index.mark_used(&record, at(newest));
                    }
                    newest
                })
            })
            .collect();
        for version in 1..ROUNDS {
            let others: Vec<_> = (0..version % 4).map(|n| 1 + 7 * (1 + n + version % 50)).collect();
            index.put(pat(1, version, &[&[1][..], &others].concat()));
            index.put(pat(2, version, &[8 + 7 * (version % 9)]));
            if version % 3 == 0 {
                index.remove(uid(2));
            }
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().expect("no reader fails")).max()
    });
    let last = index.get(&hash(1)).unwrap().credential().last_used();
    assert_eq!(last, used.filter(|used| *used > 0).map(at), "no use is lost to an update");
}
