//! The policy `owners`: which users can have tokens issued for which owners.

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

/// The refusal of a user without the right.
fn refusal(place: &Place, who: &str, kind: &str, owner: &str) -> Outcome {
    let resource = if kind == "User" { "users" } else { "virtualaccounts" };
    Err(format!(
        "spec.owner: {who} may not issue tokens for the {kind} {owner}: ask a cluster administrator for a ClusterRole \
         and a ClusterRoleBinding that grant the verb issue-for on {resource}.pat-operator.io with the resource name {owner}; \
         otherwise omit spec.owner, or name a VirtualAccount {}/<name>",
        place.name()
    ))
}

/// The refusal that callers of the REST API get.
fn refusal_of_rest_api(kind: &str, owner: &str) -> Outcome {
    let (resource, helm) = match kind {
        "User" => ("users", " (with Helm: the value api.issueForUsers)"),
        _ => ("virtualaccounts", ""),
    };
    Err(format!(
        "the REST API may not issue tokens for the {kind} {owner}: ask the administrator of pat-operator to grant its ServiceAccount the verb \
         issue-for on {resource}.pat-operator.io with the resource name {owner}{helm}"
    ))
}

fn refusal_of_system_name(place: &Place, owner: &str) -> Outcome {
    Err(format!(
        "spec.owner: {owner} cannot own a token: names that begin with system: are reserved for Kubernetes; omit spec.owner, or \
         name a VirtualAccount {}/<name>",
        place.name()
    ))
}

/// The RBAC rule that grants `issue-for` for these names.
fn issue_for_rule(resource: &str, names: &[&str]) -> Value {
    json!([{"apiGroups": ["pat-operator.io"], "resources": [resource], "resourceNames": names, "verbs": ["issue-for"]}])
}

#[tokio::test(flavor = "multi_thread")]
async fn issuing_for_others_requires_issue_for() {
    let place = Place::new("owners").await;
    let home = place.name();
    let guard = Guard::apply("owners", &place, &[&place]).await;

    let (jane, jane_client) = people::administrator_of(&place, JANE).await;
    let (desk, desk_client) = people::administrator_of(&place, "desk").await;
    people::grant_in_cluster(&place, &desk, &issue_for_rule("users", &[JANE])).await;
    let (issuer, issuer_client) = people::administrator_of(&place, "issuer").await;
    let all =
        json!([{"apiGroups": ["pat-operator.io"], "resources": ["users", "virtualaccounts"], "verbs": ["issue-for"]}]);
    people::grant_in_cluster(&place, &issuer, &all).await;
    // A Role in the namespace is not sufficient.
    let (local, local_client) = people::administrator_of(&place, "local").await;
    people::grant_in_namespace(&place, &local, "issue-for", &issue_for_rule("users", &[JANE, BOB])).await;
    let bot = Identity::service_account(home, "bot");
    let bot_client = people::make_administrator(&place, &bot).await;
    let rest = Identity::service_account(home, "pat-operator-api");
    let rest_client = people::make_administrator(&place, &rest).await;
    let root_client = place.access.client_for(&Identity::admin()).expect("a client");

    let probe = pats(&local_client, home);
    eventually("the policy is in force", async || Create::Post.dry_run(&probe, &pat("x", user(BOB))).await.is_err())
        .await;
    let granted = [(&desk_client, user(JANE)), (&issuer_client, user(BOB)), (&issuer_client, account("elsewhere/ci"))];
    for (client, spec) in granted {
        let api = pats(client, home);
        eventually("the right is in force", async || Create::Post.dry_run(&api, &pat("x", spec.clone())).await.is_ok())
            .await;
    }

    let own = format!("{home}/ci");
    let prefix = &home[..home.len() - 1];
    let longer = format!("{home}-2/ci");
    let cases: Vec<(&kube::Client, &str, Value, Outcome)> = vec![
        // No owner in the spec.
        (&jane_client, JANE, json!({}), Ok(())),
        (&bot_client, bot.name(), json!({}), Ok(())),
        // The user's own name.
        (&jane_client, JANE, user(JANE), Ok(())),
        (&local_client, "local", user("local"), Ok(())),
        // Virtual accounts of the namespace, and similar names.
        (&jane_client, JANE, account(&own), Ok(())),
        (&bot_client, bot.name(), account(&own), Ok(())),
        (&jane_client, JANE, account("elsewhere/ci"), refusal(&place, JANE, "VirtualAccount", "elsewhere/ci")),
        (&jane_client, JANE, account(&longer), refusal(&place, JANE, "VirtualAccount", &longer)),
        (&jane_client, JANE, account(prefix), refusal(&place, JANE, "VirtualAccount", prefix)),
        (&jane_client, JANE, account(home), refusal(&place, JANE, "VirtualAccount", home)),
        // The same name with the other owner kind.
        (&jane_client, JANE, account(JANE), refusal(&place, JANE, "VirtualAccount", JANE)),
        (&jane_client, JANE, user(&own), refusal(&place, JANE, "User", &own)),
        // Another owner: granted by name, granted for all, granted in this namespace only, and not granted.
        (&desk_client, "desk", user(JANE), Ok(())),
        (&desk_client, "desk", user(BOB), refusal(&place, "desk", "User", BOB)),
        (&desk_client, "desk", account(JANE), refusal(&place, "desk", "VirtualAccount", JANE)),
        (&issuer_client, "issuer", user(BOB), Ok(())),
        (&issuer_client, "issuer", account("elsewhere/ci"), Ok(())),
        (&local_client, "local", user(JANE), refusal(&place, "local", "User", JANE)),
        (&jane_client, JANE, user(BOB), refusal(&place, JANE, "User", BOB)),
        (&jane_client, JANE, user("JANE@example.com"), refusal(&place, JANE, "User", "JANE@example.com")),
        (&bot_client, bot.name(), user(JANE), refusal(&place, bot.name(), "User", JANE)),
        // The REST API, whose refusals tell callers whom to ask.
        (&rest_client, "the REST API", account(&own), Ok(())),
        (&rest_client, "the REST API", user(BOB), refusal_of_rest_api("User", BOB)),
        (&rest_client, "the REST API", account("elsewhere/ci"), refusal_of_rest_api("VirtualAccount", "elsewhere/ci")),
        (&root_client, "admin", user(BOB), Ok(())),
        (&root_client, "admin", account("elsewhere/ci"), Ok(())),
        // Reserved names, for every user.
        (&jane_client, JANE, account("system:admin"), refusal_of_system_name(&place, "system:admin")),
        (&issuer_client, "issuer", account("system:node:one"), refusal_of_system_name(&place, "system:node:one")),
        (&root_client, "admin", account("system:masters"), refusal_of_system_name(&place, "system:masters")),
    ];
    for (client, who, spec, expected) in cases {
        for create in Create::ALL {
            let found = create.dry_run(&pats(client, home), &pat("app", spec.clone())).await;
            assert_eq!(found, expected, "{who} by {create:?}: {spec}");
        }
    }
    // For Users, the CRD refuses reserved names before any policy, even the user's own.
    for (client, name) in [(&bot_client, bot.name()), (&root_client, "system:admin"), (&issuer_client, "system:admin")]
    {
        for create in Create::ALL {
            let found = create.dry_run(&pats(client, home), &pat("app", user(name))).await.expect_err(name);
            assert!(
                found.contains("these prefixes are reserved for virtual accounts and for Kubernetes"),
                "{name}: {found}"
            );
        }
    }
    // With generateName.
    let generated = serde_json::from_value(json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"generateName": "app-"}, "spec": user(BOB),
    }));
    let created = pats(&jane_client, home).create(&Default::default(), &generated.unwrap()).await;
    assert_eq!(outcome(created), refusal(&place, JANE, "User", BOB));
    // With impersonation, the impersonated user counts.
    let mut config = place.access.config_for(&Identity::admin()).expect("a configuration");
    config.auth_info.impersonate = Some(jane.name().to_owned());
    let as_jane = kube::Client::try_from(config).expect("a client");
    for (spec, expected) in [(user(JANE), Ok(())), (user(BOB), refusal(&place, JANE, "User", BOB))] {
        assert_eq!(Create::Post.dry_run(&pats(&as_jane, home), &pat("app", spec)).await, expected);
    }
    people::revoke_grants(&place).await;
    guard.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_a_token_of_others_requires_issue_for() {
    let place = Place::new("owners-change").await;
    let home = place.name();
    let guard = Guard::apply("owners", &place, &[&place]).await;
    let (_, jane_client) = people::administrator_of(&place, JANE).await;
    let (_, bob_client) = people::administrator_of(&place, BOB).await;
    let (jane, bob) = (pats(&jane_client, home), pats(&bob_client, home));
    for (name, spec) in [("bobs", user(BOB)), ("own", json!({})), ("revoked", user(BOB))] {
        place.apply(name, spec).await;
    }
    place.apply("revoked", json!({"owner": {"kind": "User", "name": BOB}, "revoked": true})).await;
    let longer = json!({"spec": {"expiry": {"never": true}}});
    eventually("the policy is in force", async || Change::MergePatch.dry_run(&jane, "bobs", &longer).await.is_err())
        .await;

    let refused = || refusal(&place, JANE, "User", BOB);
    let cases: Vec<(&str, Value, Outcome)> = vec![
        // Fields that affect the token.
        ("bobs", json!({"spec": {"scopes": ["everything"]}}), refused()),
        ("bobs", longer.clone(), refused()),
        ("bobs", json!({"spec": {"displayName": "x"}}), refused()),
        ("bobs", json!({"spec": {"suspend": true, "displayName": "x"}}), refused()),
        ("bobs", json!({"spec": {"secret": {"name": "elsewhere"}}}), refused()),
        ("revoked", json!({"spec": {"revoked": false}}), refused()),
        // What only takes away.
        ("bobs", json!({"spec": {"suspend": true}}), Ok(())),
        ("bobs", json!({"spec": {"revokedCredentials": ["000000000001"]}}), Ok(())),
        // Revocation.
        ("bobs", json!({"spec": {"revoked": true}}), Ok(())),
        ("revoked", json!({"spec": {"revoked": true, "description": "leaked on Monday"}}), Ok(())),
        // Metadata.
        ("bobs", json!({"metadata": {"labels": {"team": "a"}}}), Ok(())),
        ("bobs", json!({"metadata": {"annotations": {"example.com/note": "x"}}}), Ok(())),
        ("bobs", json!({"metadata": {"finalizers": ["example.com/wait"]}}), Ok(())),
        // A token of the namespace itself.
        ("own", json!({"spec": {"scopes": ["everything"]}}), Ok(())),
    ];
    for (name, patch, expected) in cases {
        for change in Change::ALL {
            assert_eq!(change.dry_run(&jane, name, &patch).await, expected, "{name} by {change:?}: {patch}");
        }
        // The owner can make all changes.
        assert_eq!(Change::MergePatch.dry_run(&bob, name, &patch).await, Ok(()), "{name}: {patch}");
    }
    // Removing the field `revoked`, which an apply cannot do.
    for change in [Change::Put, Change::MergePatch, Change::JsonPatch] {
        assert_eq!(
            change.dry_run(&jane, "revoked", &json!({"spec": {"revoked": null}})).await,
            refused(),
            "{change:?}"
        );
    }
    // An apply without changes is allowed.
    assert_eq!(Change::Apply.dry_run(&jane, "bobs", &json!({"spec": user(BOB)})).await, Ok(()));
    // This policy does not cover the status.
    let status = json!({"status": {"revision": 1}});
    outcome(jane.patch_status("bobs", &PatchParams::default(), &Patch::Merge(status)).await).expect("a Role grants it");
    // RBAC alone decides about deletion.
    jane.delete("revoked", &DeleteParams::default()).await.expect("delete is allowed");
    jane.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .expect("deletecollection is allowed");
    eventually("the PATs are gone", async || jane.list(&ListParams::default()).await.unwrap().items.is_empty()).await;
    guard.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_outside_the_binding_is_unrestricted() {
    let (bound, free) = (Place::new("owners-bound").await, Place::new("owners-free").await);
    let guard = Guard::apply("owners", &bound, &[&bound]).await;
    let jane = Identity::user(JANE, &[]);
    let (in_bound, in_free) =
        (people::make_administrator(&bound, &jane).await, people::make_administrator(&free, &jane).await);
    let (in_bound, in_free) = (pats(&in_bound, bound.name()), pats(&in_free, free.name()));
    eventually("the policy is in force", async || Create::Post.dry_run(&in_bound, &pat("x", user(BOB))).await.is_err())
        .await;
    assert_eq!(Create::Post.dry_run(&in_free, &pat("x", user(BOB))).await, Ok(()));
    guard.end().await;
}
