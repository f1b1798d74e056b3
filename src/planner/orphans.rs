//! Tokens at an issuer that no PersonalAccessToken knows: the status of the object was lost with its Secret, or its finalizer was removed by
//! hand. They are revoked, but late: only after lists have shown them for [`UNKNOWN_FOR`], and after another look at all objects.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::jiff::SignedDuration;

use super::{
    remote::{RemoteList, name_prefix},
    step::RemoteDeletion,
};
use crate::api::{RemoteTarget, StoredPat, Time};

/// How long a token must have been unknown before it is revoked.
pub const UNKNOWN_FOR: SignedDuration = SignedDuration::from_mins(10);

/// The tokens of one issuer that no PAT knows.
#[derive(Debug, Default)]
pub struct UnknownTokens {
    /// For each target and name, when the list began that showed it first.
    since: HashMap<RemoteTarget, BTreeMap<String, Time>>,
}

impl UnknownTokens {
    /// Records a complete list, and returns the tokens to revoke. `mark` is the one of the issuer, and `is_known` tells whether a PAT has a
    /// token with this name.
    pub fn note(&mut self, list: &RemoteList, mark: &str, is_known: impl Fn(&str) -> bool) -> Vec<RemoteDeletion> {
        let prefix = name_prefix(mark);
        let before = self.since.remove(&list.target).unwrap_or_default();
        let is_unknown = |name: &&String| name.starts_with(&prefix) && !is_known(name);
        let since = |name: &String| (name.clone(), before.get(name).copied().unwrap_or(list.begun_at));
        let unknown: BTreeMap<_, _> = list.live.keys().filter(is_unknown).map(since).collect();
        let is_due = |since: &Time| list.begun_at.since(*since) >= UNKNOWN_FOR;
        let due = unknown.iter().filter(|(_, since)| is_due(since)).filter_map(|(name, _)| {
            let id = list.live.get(name)?.id.clone();
            Some(RemoteDeletion { name: name.clone(), id, target: list.target.clone() })
        });
        let due = due.collect();
        if !unknown.is_empty() {
            self.since.insert(list.target.clone(), unknown);
        }
        due
    }
}

/// Returns the names of the tokens that PATs have at issuers. `is_of_issuer` tells whether a PAT whose spec decodes names the issuer.
///
/// # Errors
/// A PAT of the issuer that does not show its tokens: its status does not decode, or was lost and is not yet rebuilt from the Secret.
pub fn known_tokens<'a>(
    pats: impl IntoIterator<Item = &'a StoredPat>,
    is_of_issuer: impl Fn(&StoredPat) -> bool,
) -> Result<HashSet<&'a str>, &'a StoredPat> {
    let mut names = HashSet::new();
    for pat in pats {
        let may_be_of_issuer = pat.spec.is_err() || is_of_issuer(pat);
        let status = match pat.readable_status() {
            Some(status) => status,
            None if may_be_of_issuer => return Err(pat),
            None => continue,
        };
        names.extend(status.all_credentials().filter_map(|one| Some(one.remote.as_ref()?.name.as_str())));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use proptest::{collection::vec, prelude::*};
    use serde_json::json;

    use super::*;
    use crate::planner::remote::ListedToken;

    const MARK: &str = "abcdefgh";

    fn list(begun_at: Time, names: &BTreeSet<String>) -> RemoteList {
        let live =
            names.iter().map(|name| (name.clone(), ListedToken { id: format!("id-{name}"), last_used_at: None }));
        RemoteList { target: RemoteTarget::default(), begun_at, live: live.collect() }
    }

    fn at(minutes: i64) -> Time {
        let start: Time = "2026-01-01T00:00:00Z".parse().expect("a time");
        start.plus(SignedDuration::from_mins(minutes))
    }

    #[test]
    fn only_tokens_with_the_mark_are_revoked() {
        let names = ["po-abcdefgh-a", "po-abcdefgi-a", "po-abcdefgh", "deploy", "xpo-abcdefgh-a"];
        let names = names.into_iter().map(str::to_owned).collect();
        let mut tokens = UnknownTokens::default();
        assert!(tokens.note(&list(at(0), &names), MARK, |_| false).is_empty());
        let due = tokens.note(&list(at(10), &names), MARK, |_| false);
        let expected = RemoteDeletion {
            name: "po-abcdefgh-a".into(),
            id: "id-po-abcdefgh-a".into(),
            target: RemoteTarget::default(),
        };
        assert_eq!(due, [expected]);
    }

    #[test]
    fn unreadable_status_suspends_revocation() {
        let pat = |status| {
            let pat = json!({
                "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "spec": {}, "status": status,
                "metadata": {"name": "a", "namespace": "b", "uid": "c", "finalizers": ["pat-operator.io/remote-tokens"]},
            });
            Arc::new(serde_json::from_value::<StoredPat>(pat).expect("a PAT"))
        };
        let remote = json!({"name": "po-abcdefgh-a", "issuerUID": "x", "parameters": ""});
        let credential = json!({
            "id": "0123456789Ab", "revision": 1, "sha256": "", "state": "Revoking", "issuedAt": "2026-01-01T00:00:00Z",
            "remote": remote,
        });
        let known = pat(json!({"revision": 1, "remoteCredentials": [credential]}));
        let names = known_tokens([&*known], |_| true).expect("known");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["po-abcdefgh-a"]);
        for (status, what) in [(json!({}), "is lost"), (json!({"revision": "x"}), "does not decode")] {
            let other = pat(status);
            assert!(known_tokens([&*known, &*other], |_| true).is_err(), "a status that {what}");
            let names = known_tokens([&*known, &*other], |_| false);
            assert_eq!(names.map(|names| names.len()).ok(), Some(1), "of another issuer");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Each step is a list: which of six tokens it shows, which of them PATs know, and how many minutes later it began.
        #[test]
        fn token_is_due_once_lists_of_ten_minutes_show_it_unknown(
            steps in vec((0u8..64, 0u8..64, 0i64..8), 1..40),
        ) {
            let mut tokens = UnknownTokens::default();
            let mut unknown_since = [None; 6];
            let mut minutes = 0;
            for (shown, known, later) in steps {
                minutes += later;
                let name = |index: usize| format!("po-{MARK}-{index}");
                let has = |set: u8, index: usize| set & (1 << index) != 0;
                let names = (0..6).filter(|index| has(shown, *index)).map(name).collect();
                let is_known = |text: &str| (0..6).any(|index| text == name(index) && has(known, index));
                let due = tokens.note(&list(at(minutes), &names), MARK, is_known);
                for (index, since) in unknown_since.iter_mut().enumerate() {
                    *since = (has(shown, index) && !has(known, index)).then(|| since.unwrap_or(minutes));
                    let expected = since.is_some_and(|since| minutes - since >= 10);
                    prop_assert_eq!(due.iter().any(|one| one.name == name(index)), expected);
                }
            }
        }
    }
}
