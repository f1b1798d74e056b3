//! The policy `scopes`: which scopes the tokens of a namespace can have.

use std::time::Duration;

use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    guard::{Guard, put_parameters},
    people,
    write::{Change, Create, Outcome, pat, pats},
};
use crate::support::process::place::{Place, eventually, eventually_within, in_seconds};

const GRANTS: &str = "pat-operator-scope-grants";

fn scopes(scopes: &[&str]) -> Value {
    json!({ "scopes": scopes })
}

/// The refusal for these scopes.
fn refusal(home: &Place, namespace: &str, which: &str) -> Outcome {
    Err(format!(
        "spec.scopes: namespace {namespace} is not granted {which}: ask the administrator of pat-operator to add them, one per line, under the key \
         {namespace} of the ConfigMap {}/{GRANTS} (with Helm: the value scopeGrants.{namespace})",
        home.name()
    ))
}

/// Writes these grants and waits until they are in force: the first scope is granted, and the second is refused.
async fn grant(home: &Place, grants: Value, api: &Api<DynamicObject>, (given, refused): (Option<&str>, &str)) {
    put_parameters(home, GRANTS, grants).await;
    let dry_run = async |scope: &str| Create::Post.dry_run(api, &pat("probe", scopes(&[scope]))).await;
    // The API server reads parameters again whenever a policy is created or deleted, and many tests have one each.
    eventually_within(Duration::from_secs(180), "the grants are in force", async || {
        let is_given = match given {
            Some(scope) => dry_run(scope).await.is_ok(),
            None => true,
        };
        is_given && dry_run(refused).await.is_err_and(|sentence| sentence.starts_with("spec.scopes: "))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_are_limited_to_the_grants_of_the_namespace() {
    let home = Place::new("scopes-home").await;
    let (named, other) = (Place::new("scopes-named").await, Place::new("scopes-other").await);
    let guard = Guard::apply("scopes", &home, &[&named, &other]).await;
    let (named_client, other_client) =
        (people::administrator_of(&named, "ann").await.1, people::administrator_of(&other, "ann").await.1);
    let (in_named, in_other) = (pats(&named_client, named.name()), pats(&other_client, other.name()));
    let grants = json!({
        "_default": "read:*\nexact\n*-last\nintrospect\nsp:*\nidn:my-personal-access-tokens:read\n",
        named.name(): "\n# for deployments\n  deploy:*  \n\nbuild\r\nintrospect\nsp:my-*\n",
    });
    grant(&home, grants, &in_named, (Some("deploy:x"), "read:x")).await;

    let refused = |place: &Place, which: &str| refusal(&home, place.name(), which);
    let in_named_cases = [
        (vec!["deploy:prod", "deploy:", "build"], Ok(())),
        (vec!["introspect", "sp:my-personal-access-tokens:manage"], Ok(())),
        // The namespace's own key replaces the default.
        (vec!["read:all"], refused(&named, "read:all")),
        (vec!["deploy", "Deploy:x", "build2", "buil", "deploy:x"], refused(&named, "deploy Deploy:x build2 buil")),
        (vec!["sp:all-personal-access-tokens:read"], refused(&named, "sp:all-personal-access-tokens:read")),
        (vec!["idn:my-personal-access-tokens:read"], refused(&named, "idn:my-personal-access-tokens:read")),
        // Comments are not grants.
        (vec!["#", "for"], refused(&named, "# for")),
        (vec!["deploy:*"], Ok(())),
    ];
    let in_other_cases = [
        (vec!["read:all", "read:", "exact"], Ok(())),
        (vec!["deploy:prod"], refused(&other, "deploy:prod")),
        (vec!["is-last"], refused(&other, "is-last")),
        (vec!["introspect"], refused(&other, "introspect")),
        (vec!["sp:my-personal-access-tokens:read"], refused(&other, "sp:my-personal-access-tokens:read")),
        (vec!["idn:my-personal-access-tokens:read"], refused(&other, "idn:my-personal-access-tokens:read")),
        (vec!["sp:"], refused(&other, "sp:")),
    ];
    let cases =
        in_named_cases.map(|case| (&in_named, case)).into_iter().chain(in_other_cases.map(|case| (&in_other, case)));
    for (api, (wanted, expected)) in cases {
        for create in Create::ALL {
            let found = create.dry_run(api, &pat("app", scopes(&wanted))).await;
            assert_eq!(found, expected, "{create:?}: {wanted:?}");
        }
    }
    // Neither `*` nor a shorter prefix grants the scopes of pat-operator itself.
    grant(&home, json!({"_default": "*", named.name(): "*\ns*\nint*"}), &in_named, (Some("anything"), "introspect"))
        .await;
    let own = ["introspect", "sp:all-personal-access-tokens:manage", "idn:x"];
    for (api, place) in [(&in_named, &named), (&in_other, &other)] {
        assert_eq!(Create::Post.dry_run(api, &pat("app", scopes(&["at", "all", "introspective"]))).await, Ok(()));
        assert_eq!(Create::Post.dry_run(api, &pat("app", scopes(&own))).await, refused(place, &own.join(" ")));
    }
    // A token without scopes needs no grant. Without grants every scope is refused, for administrators, too.
    for nothing in [json!({}), json!({named.name(): ""})] {
        grant(&home, nothing, &in_named, (None, "anything")).await;
        for spec in [json!({}), scopes(&[])] {
            assert_eq!(Create::Post.dry_run(&in_named, &pat("app", spec)).await, Ok(()));
        }
        assert_eq!(Create::Post.dry_run(&in_named, &pat("app", scopes(&["x"]))).await, refused(&named, "x"));
        let admin = pats(&home.client, named.name());
        assert_eq!(Create::Post.dry_run(&admin, &pat("app", scopes(&["x"]))).await, refused(&named, "x"));
    }
    guard.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn withdrawn_scope_blocks_changes_but_not_revocation() {
    let home = Place::new("scopes-change").await;
    let guard = Guard::apply("scopes", &home, &[&home]).await;
    let client = people::administrator_of(&home, "ann").await.1;
    let api = pats(&client, home.name());
    grant(&home, json!({"_default": "read\nwrite"}), &api, (Some("write"), "admin")).await;
    // An API server with a new policy may refuse the first request.
    eventually("the PAT is accepted", async || {
        home.try_apply("app", json!({}), scopes(&["read", "write"])).await.is_ok()
    })
    .await;
    grant(&home, json!({"_default": "read"}), &api, (Some("read"), "write")).await;

    let refused = || refusal(&home, home.name(), "write");
    let cases = [
        (json!({"spec": {"expiry": {"never": true}}}), refused()),
        (json!({"spec": {"scopes": ["write"], "description": "x"}}), refused()),
        (json!({"spec": {"rotateIfIssuedBefore": "2026-01-01T00:00:00Z"}}), refused()),
        (json!({"spec": {"scopes": ["read", "admin"]}}), refusal(&home, home.name(), "admin")),
        (json!({"spec": {"scopes": ["read"]}}), Ok(())),
        (json!({"spec": {"revoked": true}}), Ok(())),
        (json!({"metadata": {"labels": {"team": "a"}}}), Ok(())),
        (json!({"metadata": {"finalizers": ["example.com/wait"]}}), Ok(())),
    ];
    for (patch, expected) in cases {
        for change in Change::ALL {
            // An apply adds to the set of scopes, so the refusal names all of them.
            let named = expected.clone().map_err(|sentence| match change {
                Change::Apply => sentence.replace("granted admin:", "granted write admin:"),
                _ => sentence,
            });
            assert_eq!(change.dry_run(&api, "app", &patch).await, named, "{change:?}: {patch}");
        }
    }
    // Without the revocation, the scopes are checked again.
    assert_eq!(Change::MergePatch.send(&api, "app", &json!({"spec": {"revoked": true}})).await, Ok(()));
    assert_eq!(Change::MergePatch.dry_run(&api, "app", &json!({"spec": {"revoked": false}})).await, refused());
    api.delete("app", &DeleteParams::default()).await.expect("deletion is allowed");
    guard.end().await;
}

/// The time this many days from now.
fn in_days(days: i64) -> String {
    in_seconds(days * 24 * 60 * 60)
}

#[tokio::test(flavor = "multi_thread")]
async fn withdrawn_scope_does_not_block_what_only_takes_away() {
    let home = Place::new("scopes-less").await;
    let guard = Guard::apply("scopes", &home, &[&home]).await;
    let client = people::administrator_of(&home, "ann").await.1;
    let api = pats(&client, home.name());
    grant(&home, json!({"_default": "read\nwrite"}), &api, (Some("write"), "admin")).await;
    let both = json!(["read", "write"]);
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    for (name, spec) in [
        ("after", json!({"scopes": both, "expiry": {"after": "30d"}, "revokeIfIssuedBefore": early})),
        ("at", json!({"scopes": both, "expiry": {"at": in_days(30)}, "revokedCredentials": ["000000000001"]})),
        ("never", json!({"scopes": both, "expiry": {"never": true}, "suspend": true})),
        ("rotates", json!({"scopes": both, "rotation": {"interval": "30d"}})),
        ("default", json!({"scopes": both})),
    ] {
        // An API server with a new policy may refuse the first request.
        eventually("the PAT is accepted", async || home.try_apply(name, json!({}), spec.clone()).await.is_ok()).await;
    }
    // `default` ends in 90 days. `after` has a credential that a scheduled revocation concerns.
    let status = |status: Value| Patch::Merge(json!({ "status": status }));
    let ends = json!({"firstIssuedAt": in_days(0), "defaultExpiresAt": in_days(90)});
    home.pats().patch_status("default", &PatchParams::default(), &status(ends)).await.expect("a status");
    grant(&home, json!({"_default": "read"}), &api, (Some("read"), "write")).await;

    let judged = || refusal(&home, home.name(), "write");
    let cases = [
        ("after", json!({"suspend": true}), Ok(())),
        ("after", json!({"revokedCredentials": ["000000000001"]}), Ok(())),
        ("after", json!({"revokeIfIssuedBefore": late}), Ok(())),
        ("after", json!({"revokeIfIssuedBefore": "2025-12-31T23:59:59Z"}), judged()),
        ("after", json!({"revokeIfIssuedBefore": null}), judged()),
        ("after", json!({"expiry": {"after": "29d23h59m59s"}}), Ok(())),
        ("after", json!({"expiry": {"after": "4w1d48h"}}), judged()),
        ("after", json!({"expiry": {"after": "30d1s"}}), judged()),
        ("after", json!({"expiry": {"after": null, "at": in_days(29)}}), Ok(())),
        ("after", json!({"expiry": {"after": null, "at": in_days(31)}}), judged()),
        ("after", json!({"expiry": {"after": null, "never": true}}), judged()),
        ("after", json!({"expiry": null}), judged()),
        ("after", json!({"expiry": {"after": "20d"}, "description": "shorter"}), judged()),
        ("after", json!({"expiry": {"after": "20d"}, "suspend": true, "scopes": ["write"]}), Ok(())),
        ("at", json!({"expiry": {"at": in_days(20)}}), Ok(())),
        ("at", json!({"expiry": {"at": in_days(31)}}), judged()),
        ("at", json!({"expiry": {"at": null, "after": "4w"}}), Ok(())),
        ("at", json!({"expiry": {"at": null, "after": "5w"}}), judged()),
        ("at", json!({"revokedCredentials": ["000000000001", "000000000002"]}), Ok(())),
        ("at", json!({"revokedCredentials": ["000000000002"]}), judged()),
        ("at", json!({"revokedCredentials": null}), judged()),
        ("never", json!({"expiry": {"never": null, "after": "999w"}}), Ok(())),
        ("never", json!({"suspend": false}), judged()),
        ("never", json!({"suspend": null}), judged()),
        ("rotates", json!({"expiry": {"after": "90d"}}), Ok(())),
        ("rotates", json!({"rotation": {"interval": "10d"}}), judged()),
        ("rotates", json!({"rotation": null}), judged()),
        ("default", json!({"expiry": {"after": "89d"}}), Ok(())),
        ("default", json!({"expiry": {"after": "91d"}}), judged()),
        ("default", json!({"expiry": {"never": true}}), judged()),
        ("default", json!({"scopes": ["write"]}), Ok(())),
        ("default", json!({"scopes": ["write"], "audiences": ["a"]}), judged()),
        ("default", json!({"revoked": false}), Ok(())),
    ];
    for (name, spec, expected) in &cases {
        // An apply cannot remove what another manager has set.
        for change in [Change::Put, Change::MergePatch, Change::JsonPatch] {
            let found = change.dry_run(&api, name, &json!({ "spec": spec })).await;
            assert_eq!(found, *expected, "{name} by {change:?}: {spec}");
        }
    }
    // A scheduled revocation that still concerns a credential must not be postponed.
    let credential = json!({
        "id": "000000000001", "revision": 1, "sha256": "a".repeat(64), "state": "Active", "issuedAt": "2025-06-01T00:00:00Z",
    });
    let status = status(json!({"credentials": [credential]}));
    home.pats().patch_status("after", &PatchParams::default(), &status).await.expect("a status");
    let postponed = json!({"spec": {"revokeIfIssuedBefore": late}});
    assert_eq!(Change::MergePatch.dry_run(&api, "after", &postponed).await, judged());
    guard.end().await;
}

/// Match conditions cannot share a variable.
#[test]
fn policies_agree_on_what_only_takes_away() {
    let condition = |policy: &str| {
        let file = format!("{}/charts/pat-operator/policies/{policy}.yaml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).expect("a policy");
        let first: Value = serde_yaml::from_str(text.split("\n---\n").next().expect("a document")).expect("YAML");
        let conditions = first["spec"]["matchConditions"].as_array().expect("conditions").clone();
        conditions.into_iter().find(|one| one["name"] == "does-not-only-take-away").expect("the condition")
    };
    assert_eq!(condition("owners"), condition("scopes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn maximum_scopes_are_checked_against_many_patterns() {
    let home = Place::new("scopes-many").await;
    let guard = Guard::apply("scopes", &home, &[&home]).await;
    let client = people::administrator_of(&home, "ann").await.1;
    let api = pats(&client, home.name());
    let scope = |n: usize| format!("{n:03}:{}", "s".repeat(124));
    let patterns: Vec<String> = (0..200).map(|n| format!("{}*", &scope(n)[..120])).collect();
    let whole: Vec<String> = (200..400).map(scope).collect();
    let grants = json!({"_default": format!("{}\n{}", patterns.join("\n"), whole.join("\n"))});
    grant(&home, grants, &api, (Some(&scope(199)), "other")).await;
    // The last patterns match, and the spec has the maximum size.
    let granted: Vec<String> = (168..232).map(scope).collect();
    for create in Create::ALL {
        assert_eq!(create.dry_run(&api, &pat("app", json!({"scopes": granted}))).await, Ok(()), "{create:?}");
    }
    let not_granted: Vec<String> = (400..464).map(scope).collect();
    let listed = format!("{} and 56 more", not_granted[..8].join(" "));
    let found = Create::Post.dry_run(&api, &pat("app", json!({"scopes": not_granted}))).await;
    assert_eq!(found, refusal(&home, home.name(), &listed));
    guard.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_scopes_are_granted_without_the_config_map() {
    let home = Place::new("scopes-none").await;
    let guard = Guard::apply("scopes", &home, &[&home]).await;
    let client = people::administrator_of(&home, "ann").await.1;
    let api = pats(&client, home.name());
    eventually("the policy is in force", async || {
        let found = Create::Post.dry_run(&api, &pat("app", scopes(&["x"]))).await;
        found.is_err_and(|message| message.contains("no params found"))
    })
    .await;
    guard.end().await;
}
