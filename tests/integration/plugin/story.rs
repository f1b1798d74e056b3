//! The life of a token with `kubectl pat` only, from its manifest to its revocation.

use serde_json::Value;

use super::runner::PluginRunner;
use crate::support::process::place::hash;

#[tokio::test(flavor = "multi_thread")]
async fn plugin_covers_the_life_of_a_token() {
    let (runner, _operator) = PluginRunner::with_operator("pat-story").await;
    let (first, page) = create(&runner).await;
    let (second, events) = rotate(&runner, &first).await;
    let third = revoke_and_reissue(&runner, &second).await;
    let (fourth, listed) = revoke_and_undo(&runner, &third).await;

    for text in [
        page,
        events,
        listed,
        runner.pat("list -o json").success(),
        runner.pat("plan ci").success(),
        runner.pat("show ci -o yaml").success(),
    ] {
        for token in [&first, &second, &third, &fourth] {
            assert!(!text.contains(token.as_str()), "a token is printed");
        }
    }
}

/// Creates a token. Returns the token and the output of `show`.
async fn create(runner: &PluginRunner) -> (String, String) {
    let flags = "create ci --scope packages:write --after 90d --rotate-every 7d --previous-key previous";
    let manifest = runner.pat(flags).success();
    assert!(manifest.contains("kind: PersonalAccessToken") && manifest.contains("interval: 7d"), "{manifest}");
    assert!(runner.place.pats().get_opt("ci").await.unwrap().is_none(), "without --apply, no request is sent");
    let dry = runner.pat(&format!("{flags} --apply --dry-run")).success();
    assert!(
        dry.contains("ci created (dry run)") && runner.place.pats().get_opt("ci").await.unwrap().is_none(),
        "{dry}"
    );
    assert!(runner.pat(&format!("{flags} --apply")).success().contains("ci created"));
    assert!(runner.pat("wait ci --timeout 60s").success().starts_with("ci is ready: "));
    assert!(runner.pat(&format!("{flags} --apply")).success().contains("ci unchanged"));

    let first = runner.pat("reveal ci --force").success();
    assert_eq!(first, runner.place.token("ci").await, "the token without a newline");
    let page = runner.pat("show ci").success();
    for part in
        ["State:", "Ready", "Scopes:        packages:write", "revision 1", "a new token replaces the current one"]
    {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
    (first, page)
}

/// Rotates the token. Returns the new token and the output of `show`.
async fn rotate(runner: &PluginRunner, first: &str) -> (String, String) {
    let rotated = runner.pat("rotate ci --wait --timeout 60s").success();
    assert!(rotated.contains("ci is rotated: "), "{rotated}");
    let second = runner.place.token("ci").await;
    assert_ne!(first, second);
    assert_eq!(runner.pat("reveal ci --previous --force").success(), first);
    assert!(runner.piped("verify", first).success().contains("State:      Grace"), "the old token stays valid");
    let events = runner.pat("show ci").success();
    assert!(events.contains("Rotated: token ") && events.contains("the replaced token "), "{events}");
    (second, events)
}

/// Revokes the token, and returns the new one.
async fn revoke_and_reissue(runner: &PluginRunner, second: &str) -> String {
    let refused = runner.pat("revoke ci").failed(2);
    assert!(refused.contains("use --yes"), "{refused}");
    assert_eq!(runner.place.status("ci").await.credentials.len(), 2, "nothing was changed");
    runner.pat("revoke ci --reissue --yes").success();
    // The revocation takes effect when it is saved, even before the controller removes the credential.
    runner.piped("verify", second).failed(3);
    let third = loop {
        runner.pat("wait ci --timeout 60s").success();
        let token = runner.place.token("ci").await;
        if token != second {
            break token;
        }
    };
    assert!(runner.piped("verify", &third).success().starts_with("valid "));
    let revoked = runner.piped("verify", second).failed(3);
    assert!(
        revoked.contains("/ci: token ")
            && revoked.contains("was revoked: it was issued before spec.revokeIfIssuedBefore"),
        "{revoked}"
    );
    third
}

/// Revokes the token without a new one, and undoes that. Returns the new token and the output of `list`.
async fn revoke_and_undo(runner: &PluginRunner, third: &str) -> (String, String) {
    runner.pat("revoke ci --yes").success();
    runner.piped("verify", third).failed(3);
    runner.pat("wait ci --for dead --timeout 60s").success();
    let refused = runner.pat("reveal ci --force");
    assert!(refused.code == 3 && refused.out.is_empty() && refused.err.contains("--undo"), "{refused:?}");
    let unknown = runner.piped("verify", third).failed(3);
    assert!(unknown.contains("it was never issued there, or it was revoked"), "{unknown}");
    let listed = runner.pat("list").success();
    assert!(listed.contains("Revoked"), "{listed}");
    runner.pat("revoke ci --undo").success();
    runner.pat("wait ci --timeout 60s").success();
    let fourth = runner.pat("reveal ci --force").success();
    assert!(runner.piped("verify", &fourth).success().starts_with("valid "));
    (fourth, listed)
}

#[tokio::test(flavor = "multi_thread")]
async fn credential_is_revoked_by_id() {
    let (runner, _operator) = PluginRunner::with_operator("pat-id").await;
    runner.pat("create ci --apply").success();
    runner.pat("wait ci --timeout 60s").success();
    let token = runner.place.token("ci").await;
    let id = runner.place.status("ci").await.credentials[0].id.clone();
    let unknown = runner.pat("revoke ci --yes --id 000000000000").failed(1);
    assert!(unknown.contains(&format!("valid credentials: {id}")), "{unknown}");
    runner.pat(&format!("revoke ci --yes --id {id}")).success();
    let output = runner.piped("verify -o json", &token);
    let result: Value = serde_json::from_str(&output.out).unwrap();
    // The controller may have removed the credential already.
    assert_eq!((output.code, &result["valid"], &result["id"]), (3, &Value::Bool(false), &Value::from(id.as_str())));
    let revoked = hash(&token);
    runner
        .place
        .until("ci", "reissued", |status| {
            status.credentials.iter().any(|one| one.sha256.to_string() != revoked)
                && status.credentials.iter().all(|one| one.sha256.to_string() != revoked)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_once_is_reported() {
    let (runner, _operator) = PluginRunner::with_operator("pat-once").await;
    runner.pat("create setup --once --apply").success();
    runner.place.until("setup", "waiting", |status| status.delivery.is_some()).await;
    let listed = runner.pat("list").success();
    assert!(listed.contains("Waiting") && listed.contains("must be taken in "), "{listed}");
    assert!(runner.pat("reveal setup").failed(1).contains("use --force"));
    let token = runner.pat("reveal setup --force").success();
    let taken = runner.pat("reveal setup --force --take");
    assert_eq!((taken.code, &taken.out), (0, &token), "{taken:?}");
    assert!(taken.err.contains("note: Secret setup was deleted"), "{taken:?}");
    runner.place.until("setup", "taken", |status| status.secret_name.is_none()).await;
    let refused = runner.pat("reveal setup --force").failed(3);
    assert!(
        refused.contains("already taken from Secret setup") && refused.contains("kubectl pat rotate setup"),
        "{refused}"
    );
    assert!(runner.piped("verify", &token).success().starts_with("valid "));
    let page = runner.pat("show setup").success();
    assert!(page.contains("setup (key token; deleted when the token was taken)"), "{page}");

    runner.pat("create ci --apply").success();
    runner.pat("wait ci --timeout 60s").success();
    let refused = runner.pat("reveal ci --force --take");
    assert!(refused.code == 1 && refused.out.is_empty() && refused.err.contains("delivery: Once"), "{refused:?}");
    assert!(!runner.place.token("ci").await.is_empty(), "the Secret stays");
}
