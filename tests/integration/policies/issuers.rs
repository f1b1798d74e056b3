//! The policy `issuers`: which users can request tokens from which issuers.

use control_plane::Identity;
use kube::Client;
use serde_json::{Value, json};

use super::{
    guard::Guard,
    people,
    write::{Change, Create, Outcome, pat, pats},
};
use crate::support::process::place::{Place, eventually};

fn of(kind: &str, name: &str) -> Value {
    json!({"issuerRef": {"kind": kind, "name": name}})
}

fn refusal(place: &Place, who: &str, kind: &str, name: &str) -> Outcome {
    let (ask, resource) = match kind {
        "ClusterTokenIssuer" => {
            ("ask a cluster administrator for a ClusterRole and a ClusterRoleBinding".to_owned(), "clustertokenissuers")
        }
        _ => (format!("ask for a Role and a RoleBinding in the namespace {}", place.name()), "tokenissuers"),
    };
    Err(format!(
        "spec.issuerRef: {who} may not request tokens from the {kind} {name}: {ask} that grant the verb use on {resource}.pat-operator.io with \
         the resource name {name}"
    ))
}

/// Creates a user who may write PersonalAccessTokens in the place's namespace.
async fn editor(place: &Place, name: &str) -> (Identity, Client) {
    let identity = Identity::user(name, &["people"]);
    let rules = json!([{"apiGroups": ["pat-operator.io"], "resources": ["personalaccesstokens"], "verbs": ["*"]}]);
    people::grant_in_namespace(place, &identity, "editor", &rules).await;
    let client = place.access.client_for(&identity).expect("a client");
    (identity, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn new_token_of_issuer_requires_use() {
    let place = Place::new("use").await;
    let home = place.name();
    let guard = Guard::apply("issuers", &place, &[&place]).await;
    let rule = |resource: &str| json!([{"apiGroups": ["pat-operator.io"], "resources": [resource], "resourceNames": ["git"], "verbs": ["use"]}]);
    let (_, none) = editor(&place, "none").await;
    let (all, cluster_wide) = editor(&place, "all").await;
    people::grant_in_cluster(&place, &all, &rule("clustertokenissuers")).await;
    let (one, here) = editor(&place, "one").await;
    people::grant_in_namespace(&place, &one, "use", &rule("tokenissuers")).await;
    // A RoleBinding cannot grant a cluster-scoped resource.
    people::grant_in_namespace(&place, &one, "use-cluster", &rule("clustertokenissuers")).await;

    let probe = pats(&none, home);
    eventually("the policy is in force", async || {
        Create::Post.dry_run(&probe, &pat("x", of("TokenIssuer", "git"))).await.is_err()
    })
    .await;
    for (client, kind) in [(&cluster_wide, "ClusterTokenIssuer"), (&here, "TokenIssuer")] {
        let api = pats(client, home);
        eventually("the right is in force", async || {
            Create::Post.dry_run(&api, &pat("x", of(kind, "git"))).await.is_ok()
        })
        .await;
    }

    let cases = [
        (&none, "none", json!({}), Ok(())),
        (&none, "none", of("TokenIssuer", "git"), refusal(&place, "none", "TokenIssuer", "git")),
        (&none, "none", of("ClusterTokenIssuer", "git"), refusal(&place, "none", "ClusterTokenIssuer", "git")),
        (&cluster_wide, "all", of("ClusterTokenIssuer", "git"), Ok(())),
        (&cluster_wide, "all", of("ClusterTokenIssuer", "hub"), refusal(&place, "all", "ClusterTokenIssuer", "hub")),
        (&cluster_wide, "all", of("TokenIssuer", "git"), refusal(&place, "all", "TokenIssuer", "git")),
        (&here, "one", of("TokenIssuer", "git"), Ok(())),
        (&here, "one", of("ClusterTokenIssuer", "git"), refusal(&place, "one", "ClusterTokenIssuer", "git")),
    ];
    for (client, who, spec, expected) in cases {
        for create in Create::ALL {
            let found = create.dry_run(&pats(client, home), &pat("app", spec.clone())).await;
            assert_eq!(found, expected, "{who} by {create:?}: {spec}");
        }
    }
    // To change what an existing token may do, the verb is needed, too.
    let mut spec = of("TokenIssuer", "git");
    spec["scopes"] = json!(["api", "read_api"]);
    spec["gitLab"] = json!({"project": "shop/web"});
    place.apply("mine", spec).await;
    let refused = || refusal(&place, "none", "TokenIssuer", "git");
    let changes = [
        (json!({"description": "x", "suspend": true}), Ok(())),
        (json!({"scopes": ["read_api"]}), Ok(())),
        (json!({"scopes": ["api", "read_api", "write_registry"]}), refused()),
        (json!({"scopes": null}), refused()),
        (json!({"gitLab": {"project": "shop/api"}}), refused()),
        (json!({"gitLab": {"accessLevel": "Owner"}}), refused()),
    ];
    for (change, expected) in changes {
        let found = Change::MergePatch.dry_run(&pats(&none, home), "mine", &json!({"spec": change})).await;
        assert_eq!(found, expected, "{change}");
    }
    people::revoke_grants(&place).await;
    guard.end().await;
}
