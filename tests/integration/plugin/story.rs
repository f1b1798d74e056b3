//! A token's life by `kubectl pat` alone, from its manifest to its end.

use serde_json::Value;

use super::hand::Hand;
use crate::support::process::place::hash;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lives_its_whole_life_by_these_commands_alone() {
    let (hand, _operator) = Hand::with_operator("pat-story").await;
    let flags = "create ci --scope packages:write --after 90d --rotate-every 7d --previous-key previous";
    let manifest = hand.pat(flags).good();
    assert!(manifest.contains("kind: PersonalAccessToken") && manifest.contains("interval: 7d"), "{manifest}");
    assert!(hand.place.pats().get_opt("ci").await.unwrap().is_none(), "without --apply nothing is sent");
    let dry = hand.pat(&format!("{flags} --apply --dry-run")).good();
    assert!(dry.contains("ci created (dry run)") && hand.place.pats().get_opt("ci").await.unwrap().is_none(), "{dry}");
    assert!(hand.pat(&format!("{flags} --apply")).good().contains("ci created"));
    assert!(hand.pat("wait ci --timeout 60s").good().starts_with("ci is ready: "));
    assert!(hand.pat(&format!("{flags} --apply")).good().contains("ci unchanged"));

    let first = hand.pat("reveal ci --force").good();
    assert_eq!(first, hand.place.token("ci").await, "exactly the token, without an end of line");
    let page = hand.pat("show ci").good();
    for part in ["State:", "Ready", "Scopes:        packages:write", "revision 1", "a new token takes the place"] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }

    let rotated = hand.pat("rotate ci --wait --timeout 60s").good();
    assert!(rotated.contains("ci is rotated: "), "{rotated}");
    let second = hand.place.token("ci").await;
    assert_ne!(first, second);
    assert_eq!(hand.pat("reveal ci --previous --force").good(), first);
    assert!(hand.piped("verify", &first).good().contains("State:      Grace"), "nobody breaks");
    let events = hand.pat("show ci").good();
    assert!(events.contains("Rotated: token ") && events.contains("the replaced token "), "{events}");

    let refused = hand.pat("revoke ci").failed(2);
    assert!(refused.contains("add --yes"), "{refused}");
    assert_eq!(hand.place.status("ci").await.credentials.len(), 2, "nothing was changed");
    hand.pat("revoke ci --reissue --yes").good();
    // Dead from the moment it is written, whether or not the controller has buried it yet.
    hand.piped("verify", &second).failed(3);
    let third = loop {
        hand.pat("wait ci --timeout 60s").good();
        let token = hand.place.token("ci").await;
        if token != second {
            break token;
        }
    };
    assert!(hand.piped("verify", &third).good().starts_with("good "));
    let buried = hand.piped("verify", &second).failed(3);
    assert!(
        buried.contains("/ci: token ")
            && buried.contains("was revoked: it was issued before spec.revokeIfIssuedBefore"),
        "{buried}"
    );

    hand.pat("revoke ci --yes").good();
    hand.piped("verify", &third).failed(3);
    hand.pat("wait ci --for dead --timeout 60s").good();
    let refused = hand.pat("reveal ci --force");
    assert!(refused.code == 3 && refused.out.is_empty() && refused.err.contains("--undo"), "{refused:?}");
    let dead = hand.piped("verify", &third).failed(3);
    assert!(dead.contains("it was never issued there, or it is dead"), "{dead}");
    let listed = hand.pat("list").good();
    assert!(listed.contains("Revoked"), "{listed}");
    hand.pat("revoke ci --undo").good();
    hand.pat("wait ci --timeout 60s").good();
    let fourth = hand.pat("reveal ci --force").good();
    assert!(hand.piped("verify", &fourth).good().starts_with("good "));

    for text in [
        page,
        events,
        listed,
        hand.pat("list -o json").good(),
        hand.pat("plan ci").good(),
        hand.pat("show ci -o yaml").good(),
    ] {
        for token in [&first, &second, &third, &fourth] {
            assert!(!text.contains(token.as_str()), "a token is shown");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_credential_is_revoked_by_its_id_and_the_token_is_replaced() {
    let (hand, _operator) = Hand::with_operator("pat-id").await;
    hand.pat("create ci --apply").good();
    hand.pat("wait ci --timeout 60s").good();
    let token = hand.place.token("ci").await;
    let id = hand.place.status("ci").await.credentials[0].id.clone();
    let unknown = hand.pat("revoke ci --yes --id 000000000000").failed(1);
    assert!(unknown.contains(&format!("it has: {id}")), "{unknown}");
    hand.pat(&format!("revoke ci --yes --id {id}")).good();
    let verdict = hand.piped("verify -o json", &token);
    let told: Value = serde_json::from_str(&verdict.out).unwrap();
    // The controller may have buried it already.
    assert_eq!((verdict.code, &told["valid"], &told["id"]), (3, &Value::Bool(false), &Value::from(id.as_str())));
    let spent = hash(&token);
    hand.place
        .until("ci", "reissued", |status| {
            status.credentials.iter().any(|one| one.sha256.to_string() != spent)
                && status.credentials.iter().all(|one| one.sha256.to_string() != spent)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_handed_over_once_is_told_so() {
    let (hand, _operator) = Hand::with_operator("pat-once").await;
    hand.pat("create setup --once --apply").good();
    hand.place.until("setup", "waiting", |status| status.delivery.is_some()).await;
    let listed = hand.pat("list").good();
    assert!(listed.contains("Waiting") && listed.contains("must be taken in "), "{listed}");
    let token = hand.pat("reveal setup --force").good();
    hand.place.secrets().delete("setup", &Default::default()).await.unwrap();
    hand.place.until("setup", "taken", |status| status.secret_name.is_none()).await;
    let refused = hand.pat("reveal setup --force").failed(3);
    assert!(refused.contains("somebody has taken it") && refused.contains("kubectl pat rotate setup"), "{refused}");
    assert!(hand.piped("verify", &token).good().starts_with("good "));
}
