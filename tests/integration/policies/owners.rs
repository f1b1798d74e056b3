//! Who may have tokens issued for whom.

use control_plane::Identity;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    guard::Guard,
    people,
    write::{Change, Create, Outcome, outcome, pat, pats},
};
use crate::support::process::place::{Place, eventually};

const JANE: &str = "jane@example.com";
const BOB: &str = "bob@example.com";

fn user(name: &str) -> Value {
    json!({"owner": {"kind": "User", "name": name}})
}

fn account(name: &str) -> Value {
    json!({"owner": {"kind": "VirtualAccount", "name": name}})
}

/// What somebody is told who needs the right.
fn ask(place: &Place, who: &str, kind: &str, owner: &str) -> Outcome {
    let resource = if kind == "User" { "users" } else { "virtualaccounts" };
    Err(format!(
        "spec.owner: {who} may not issue tokens for the {kind} {owner}: ask a cluster administrator for a ClusterRole \
         and a ClusterRoleBinding that grant the verb issue-for on {resource}.pat-operator.io with the resource name {owner}; \
         otherwise omit spec.owner, or name a VirtualAccount {}/<name>",
        place.name()
    ))
}

/// What callers of the REST API are told.
fn ask_for_rest(kind: &str, owner: &str) -> Outcome {
    let (resource, helm) = match kind {
        "User" => ("users", " (with Helm: the value api.issueForUsers)"),
        _ => ("virtualaccounts", ""),
    };
    Err(format!(
        "the REST API may not issue tokens for the {kind} {owner}: ask the administrator of pat-operator to grant its ServiceAccount the verb \
         issue-for on {resource}.pat-operator.io with the resource name {owner}{helm}"
    ))
}

fn never(place: &Place, owner: &str) -> Outcome {
    Err(format!(
        "spec.owner: {owner} cannot own a token: names that begin with system: are reserved for Kubernetes; omit spec.owner, or \
         name a VirtualAccount {}/<name>",
        place.name()
    ))
}

/// The rule that grants it, for these names, or for all.
fn issue_for(resource: &str, names: &[&str]) -> Value {
    json!([{"apiGroups": ["pat-operator.io"], "resources": [resource], "resourceNames": names, "verbs": ["issue-for"]}])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_issued_for_oneself_and_for_the_namespace_s_own_accounts_and_for_others_only_with_the_right_to() {
    let place = Place::new("owners").await;
    let home = place.name();
    let guard = Guard::apply("owners", &place, &[&place]).await;

    let (jane, jane_s) = people::administrator_of(&place, JANE).await;
    let (desk, desk_s) = people::administrator_of(&place, "desk").await;
    people::grant_in_cluster(&place, &desk, &issue_for("users", &[JANE])).await;
    let (issuer, issuer_s) = people::administrator_of(&place, "issuer").await;
    let all =
        json!([{"apiGroups": ["pat-operator.io"], "resources": ["users", "virtualaccounts"], "verbs": ["issue-for"]}]);
    people::grant_in_cluster(&place, &issuer, &all).await;
    // All that a namespace can give, and that by name: not enough.
    let (local, local_s) = people::administrator_of(&place, "local").await;
    people::grant_in_namespace(&place, &local, "issue-for", &issue_for("users", &[JANE, BOB])).await;
    let bot = Identity::service_account(home, "bot");
    let bot_s = people::make_administrator(&place, &bot).await;
    let rest = Identity::service_account(home, "pat-operator-api");
    let rest_s = people::make_administrator(&place, &rest).await;
    let root_s = place.access.client_for(&Identity::admin()).expect("a client");

    let probe = pats(&local_s, home);
    eventually("the policy is in force", async || Create::Post.try_out(&probe, &pat("x", user(BOB))).await.is_err())
        .await;
    let granted = [(&desk_s, user(JANE)), (&issuer_s, user(BOB)), (&issuer_s, account("elsewhere/ci"))];
    for (client, spec) in granted {
        let api = pats(client, home);
        eventually("the right is in force", async || Create::Post.try_out(&api, &pat("x", spec.clone())).await.is_ok())
            .await;
    }

    let own = format!("{home}/ci");
    let beginning = &home[..home.len() - 1];
    let longer = format!("{home}-2/ci");
    let cases: Vec<(&kube::Client, &str, Value, Outcome)> = vec![
        // Nobody named.
        (&jane_s, JANE, json!({}), Ok(())),
        (&bot_s, bot.name(), json!({}), Ok(())),
        // Oneself.
        (&jane_s, JANE, user(JANE), Ok(())),
        (&local_s, "local", user("local"), Ok(())),
        // The namespace's own accounts, and nearly its own.
        (&jane_s, JANE, account(&own), Ok(())),
        (&bot_s, bot.name(), account(&own), Ok(())),
        (&jane_s, JANE, account("elsewhere/ci"), ask(&place, JANE, "VirtualAccount", "elsewhere/ci")),
        (&jane_s, JANE, account(&longer), ask(&place, JANE, "VirtualAccount", &longer)),
        (&jane_s, JANE, account(beginning), ask(&place, JANE, "VirtualAccount", beginning)),
        (&jane_s, JANE, account(home), ask(&place, JANE, "VirtualAccount", home)),
        // One's own name is a User's, not an account's, and the other way round.
        (&jane_s, JANE, account(JANE), ask(&place, JANE, "VirtualAccount", JANE)),
        (&jane_s, JANE, user(&own), ask(&place, JANE, "User", &own)),
        // Somebody else, by name, in all, in this namespace only, not at all.
        (&desk_s, "desk", user(JANE), Ok(())),
        (&desk_s, "desk", user(BOB), ask(&place, "desk", "User", BOB)),
        (&desk_s, "desk", account(JANE), ask(&place, "desk", "VirtualAccount", JANE)),
        (&issuer_s, "issuer", user(BOB), Ok(())),
        (&issuer_s, "issuer", account("elsewhere/ci"), Ok(())),
        (&local_s, "local", user(JANE), ask(&place, "local", "User", JANE)),
        (&jane_s, JANE, user(BOB), ask(&place, JANE, "User", BOB)),
        (&jane_s, JANE, user("JANE@example.com"), ask(&place, JANE, "User", "JANE@example.com")),
        (&bot_s, bot.name(), user(JANE), ask(&place, bot.name(), "User", JANE)),
        // For its callers, who are told whom to ask.
        (&rest_s, "the REST API", account(&own), Ok(())),
        (&rest_s, "the REST API", user(BOB), ask_for_rest("User", BOB)),
        (&rest_s, "the REST API", account("elsewhere/ci"), ask_for_rest("VirtualAccount", "elsewhere/ci")),
        (&root_s, "admin", user(BOB), Ok(())),
        (&root_s, "admin", account("elsewhere/ci"), Ok(())),
        // Never, whoever asks.
        (&jane_s, JANE, account("system:admin"), never(&place, "system:admin")),
        (&issuer_s, "issuer", account("system:node:one"), never(&place, "system:node:one")),
        (&root_s, "admin", account("system:masters"), never(&place, "system:masters")),
    ];
    for (client, who, spec, expected) in cases {
        for create in Create::ALL {
            let found = create.try_out(&pats(client, home), &pat("app", spec.clone())).await;
            assert_eq!(found, expected, "{who} by {create:?}: {spec}");
        }
    }
    // For Users the resource itself says so, before any policy: also of one's own name.
    for (client, name) in [(&bot_s, bot.name()), (&root_s, "system:admin"), (&issuer_s, "system:admin")] {
        for create in Create::ALL {
            let found = create.try_out(&pats(client, home), &pat("app", user(name))).await.expect_err(name);
            assert!(
                found.contains("these prefixes are reserved for virtual accounts and for Kubernetes"),
                "{name}: {found}"
            );
        }
    }
    // With a name that the API server makes up.
    let generated = serde_json::from_value(json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"generateName": "app-"}, "spec": user(BOB),
    }));
    let made = pats(&jane_s, home).create(&Default::default(), &generated.unwrap()).await;
    assert_eq!(outcome(made), ask(&place, JANE, "User", BOB));
    // By somebody who acts as another: it is the other who counts.
    let mut config = place.access.config_for(&Identity::admin()).expect("a configuration");
    config.auth_info.impersonate = Some(jane.name().to_owned());
    let as_jane = kube::Client::try_from(config).expect("a client");
    for (spec, expected) in [(user(JANE), Ok(())), (user(BOB), ask(&place, JANE, "User", BOB))] {
        assert_eq!(Create::Post.try_out(&pats(&as_jane, home), &pat("app", spec)).await, expected);
    }
    people::revoke_grants(&place).await;
    guard.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_s_token_is_changed_only_with_the_right_to_issue_it_and_anybody_may_revoke_or_delete_it() {
    let place = Place::new("owners-change").await;
    let home = place.name();
    let guard = Guard::apply("owners", &place, &[&place]).await;
    let (_, jane_s) = people::administrator_of(&place, JANE).await;
    let (_, bob_s) = people::administrator_of(&place, BOB).await;
    let (jane, bob) = (pats(&jane_s, home), pats(&bob_s, home));
    for (name, spec) in [("bobs", user(BOB)), ("own", json!({})), ("dead", user(BOB))] {
        place.apply(name, spec).await;
    }
    place.apply("dead", json!({"owner": {"kind": "User", "name": BOB}, "revoked": true})).await;
    let longer = json!({"spec": {"expiry": {"never": true}}});
    eventually("the policy is in force", async || Change::MergePatch.try_out(&jane, "bobs", &longer).await.is_err())
        .await;

    let refused = || ask(&place, JANE, "User", BOB);
    let cases: Vec<(&str, Value, Outcome)> = vec![
        // What is issued.
        ("bobs", json!({"spec": {"scopes": ["everything"]}}), refused()),
        ("bobs", longer.clone(), refused()),
        ("bobs", json!({"spec": {"displayName": "x"}}), refused()),
        ("bobs", json!({"spec": {"revoked": false}}), refused()),
        ("bobs", json!({"spec": {"suspend": true}}), refused()),
        ("bobs", json!({"spec": {"secret": {"name": "elsewhere"}}}), refused()),
        ("dead", json!({"spec": {"revoked": false}}), refused()),
        // The emergency brake.
        ("bobs", json!({"spec": {"revoked": true}}), Ok(())),
        ("dead", json!({"spec": {"revoked": true, "description": "leaked on Monday"}}), Ok(())),
        // What is not about the token.
        ("bobs", json!({"metadata": {"labels": {"team": "a"}}}), Ok(())),
        ("bobs", json!({"metadata": {"annotations": {"example.com/note": "x"}}}), Ok(())),
        ("bobs", json!({"metadata": {"finalizers": ["example.com/wait"]}}), Ok(())),
        // The namespace's own.
        ("own", json!({"spec": {"scopes": ["everything"]}}), Ok(())),
    ];
    for (name, patch, expected) in cases {
        for change in Change::ALL {
            assert_eq!(change.try_out(&jane, name, &patch).await, expected, "{name} by {change:?}: {patch}");
        }
        // Whoever it speaks for may change it.
        assert_eq!(Change::MergePatch.try_out(&bob, name, &patch).await, Ok(()), "{name}: {patch}");
    }
    // What an apply cannot do: take it off the revocation by removing the field.
    for change in [Change::Put, Change::MergePatch, Change::JsonPatch] {
        assert_eq!(change.try_out(&jane, "dead", &json!({"spec": {"revoked": null}})).await, refused(), "{change:?}");
    }
    // An apply of what is there already changes nothing.
    assert_eq!(Change::Apply.try_out(&jane, "bobs", &json!({"spec": user(BOB)})).await, Ok(()));
    // Status is not this policy's.
    let status = json!({"status": {"revision": 1}});
    outcome(jane.patch_status("bobs", &PatchParams::default(), &Patch::Merge(status)).await).expect("a Role grants it");
    // Who may delete tokens may delete these.
    jane.delete("dead", &DeleteParams::default()).await.expect("one of them");
    jane.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("all of them");
    eventually("they are gone", async || jane.list(&ListParams::default()).await.unwrap().items.is_empty()).await;
    guard.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_the_binding_leaves_out_is_free() {
    let (bound, free) = (Place::new("owners-bound").await, Place::new("owners-free").await);
    let guard = Guard::apply("owners", &bound, &[&bound]).await;
    let jane = Identity::user(JANE, &[]);
    let (in_bound, in_free) =
        (people::make_administrator(&bound, &jane).await, people::make_administrator(&free, &jane).await);
    let (in_bound, in_free) = (pats(&in_bound, bound.name()), pats(&in_free, free.name()));
    eventually("the policy is in force", async || Create::Post.try_out(&in_bound, &pat("x", user(BOB))).await.is_err())
        .await;
    assert_eq!(Create::Post.try_out(&in_free, &pat("x", user(BOB))).await, Ok(()));
    guard.end().await;
}
