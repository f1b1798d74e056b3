//! The whole cluster is lost: its tokens come back in another one, by Velero, with the commands of `docs/operations.md`; and what was dead stays dead.

use std::{fs, path::Path};

use control_plane::{Binary, Identity};
use k8s_openapi::{
    api::{
        authorization::v1::SubjectAccessReview,
        core::v1::{Namespace, Secret},
    },
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use pat_operator::api::{PersonalAccessToken, TokenOwner};
use serde_json::{Value, json};

use super::{helm::Program, release::Release, velero::Velero};
use crate::support::{
    fences,
    process::{OperatorProcess, place::eventually},
};

/// What the page that people follow shows in this language.
fn shown(language: &str) -> Vec<String> {
    let fences = fences::of("docs/operations.md").into_iter().filter(|fence| fence.language == language);
    fences.map(|fence| fence.text).collect()
}

/// Its commands that begin like this, in their order.
fn commands(begin: &str) -> Vec<String> {
    let shown = shown("console").concat().replace("\\\n", " ");
    let typed = shown.lines().filter_map(|line| line.strip_prefix("$ "));
    typed.filter(|command| command.starts_with(begin)).map(str::to_owned).collect()
}

/// Its manifest that has this in it.
fn manifest_with(part: &str) -> String {
    shown("yaml").into_iter().find(|manifest| manifest.contains(part)).expect("a manifest")
}

fn values() -> Value {
    json!({
        "controller": {"replicas": 1},
        "verifier": {"enabled": true, "tls": {"insecure": true}},
        "scopeGrants": {"shop": ["packages:write"]},
    })
}

/// Applies a manifest as an administrator.
fn apply(release: &Release, name: &str, text: &str) {
    let file = release.folder.path().join(name);
    fs::write(&file, text).expect("a file");
    let kubectl = Program::new(Binary::Kubectl, Some(release.plane.admin_kubeconfig()));
    kubectl.prints(&["apply", "--filename", file.to_str().expect("text")]);
}

const TOKENS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kept: 'true'}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: elsewhere}}
---
apiVersion: pat-operator.io/v1alpha1
kind: PersonalAccessToken
metadata: {name: ci, namespace: shop}
spec: {scopes: ['packages:write'], rotation: {interval: 30d}, secret: {previousKey: previous}}
---
apiVersion: pat-operator.io/v1alpha1
kind: PersonalAccessToken
metadata: {name: jane, namespace: shop}
spec: {owner: {kind: User, name: jane@example.com}}
---
apiVersion: pat-operator.io/v1alpha1
kind: PersonalAccessToken
metadata: {name: closed, namespace: shop}
spec: {}
";

const CLOSED: &str = "
apiVersion: pat-operator.io/v1alpha1
kind: TokenOwner
metadata: {name: closed}
spec: {subject: {kind: VirtualAccount, name: shop/closed}, disabled: true}
";

/// A cluster with tokens in each state, and backups of it in `store`; then it is gone. Its tokens: of `ci` the present, the previous and a revoked one,
/// of `jane`, and of an owner that is disabled.
async fn lost(store: &Path) -> [String; 5] {
    let release = Release::new().await;
    release.put(&["install", "--create-namespace"], &values());
    let controllers = release.controllers().await;
    let verifier = release.verifier().await;
    // After the chart: it has heard of its kinds.
    let velero = Velero::start(&release.access(), store).await;
    apply(&release, "tokens.yaml", TOKENS);
    let leaked = release.ready("shop", "ci").await;
    let jane = release.ready("shop", "jane").await;
    let closed = release.ready("shop", "closed").await;
    verifier.forwards(&closed, 200).await;
    apply(&release, "closed.yaml", CLOSED);
    verifier.forwards(&closed, 401).await;

    // One token of a life is revoked, the next is replaced and goes on for its grace period.
    let pats = release.pats("shop");
    let change = async |spec: Value, before: &str| {
        let patch = Patch::Merge(json!({"spec": spec}));
        pats.patch("ci", &PatchParams::default(), &patch).await.expect("it is taken");
        let mut token = before.to_owned();
        eventually("there is a new token", async || {
            token = release.ready("shop", "ci").await;
            token != before
        })
        .await;
        token
    };
    let id = pats.get("ci").await.expect("a PAT").status.expect("a status").credentials[0].id.to_string();
    let previous = change(json!({"revokedCredentials": [id]}), &leaked).await;
    verifier.forwards(&leaked, 401).await;
    let ci = change(json!({"rotateIfIssuedBefore": Timestamp::now().to_string()}), &previous).await;
    assert_eq!([verifier.forward(&ci, "").await, verifier.forward(&previous, "").await], [200, 200]);

    for command in commands("velero backup create") {
        let said = velero.type_(&command);
        assert!(said.contains("Backup completed with status: Completed."), "{command}: {said}");
    }
    drop((controllers, verifier));
    [ci, previous, leaked, jane, closed]
}

/// Waits until Velero is refused what it has no right to.
async fn guards(release: &Release) {
    let velero = release.access().client_for(&Identity::service_account("velero", "velero")).expect("a client");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let secrets: Api<Secret> = Api::namespaced(velero.clone(), "default");
    let secret = json!({"metadata": {"name": "probe", "annotations": {"pat-operator.io/pat-uid": "x"}}});
    let secret = serde_json::from_value(secret).expect("a Secret");
    let pats: Api<PersonalAccessToken> = Api::namespaced(velero, "default");
    let owner = json!({"kind": "User", "name": "jane@example.com"});
    let pat = json!({"metadata": {"name": "probe"}, "spec": {"owner": owner}});
    let pat = serde_json::from_value(pat).expect("a PAT");
    eventually("the guard rails are in force", async || {
        secrets.create(&dry, &secret).await.is_err() && pats.create(&dry, &pat).await.is_err()
    })
    .await;
}

/// Waits until Velero's ServiceAccount has a verb of ours.
async fn may(release: &Release, verb: &str, resource: &str) {
    let reviews: Api<SubjectAccessReview> = Api::all(release.client.clone());
    let asked = json!({"group": "pat-operator.io", "resource": resource, "verb": verb});
    let review = json!({"spec": {"user": "system:serviceaccount:velero:velero", "resourceAttributes": asked}});
    let review = serde_json::from_value(review).expect("a review");
    eventually("the right is in force", async || {
        let answer = reviews.create(&PostParams::default(), &review).await.expect("an answer");
        answer.status.expect("a status").allowed
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_cluster_that_is_lost_live_on_in_the_next_by_velero_and_what_was_dead_stays_dead() {
    let store = tempfile::tempdir().expect("a folder");
    let [ci, previous, leaked, jane, closed] = lost(store.path()).await;

    let release = Release::new().await;
    let velero = Velero::start(&release.access(), store.path()).await;
    release.put(&["install", "--create-namespace"], &values());
    let controllers = release.controllers().await;
    let verifier = release.verifier().await;
    let restores = commands("velero restore create");
    let [of_secrets, of_tokens, _, of_owners] = &restores[..] else { panic!("four: {restores:?}") };
    // A restore has its name once.
    let named = |command: &str, name: &str| command.replace("restore create ", &format!("restore create {name}-"));
    let is = |said: String, phase: &str| {
        assert!(said.contains(&format!("Restore completed with status: {phase}.")), "{said}");
    };

    let names = async || {
        let tokens = release.pats("shop").list(&ListParams::default()).await.expect("a list").items;
        tokens.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    };

    // Without the rights that the page speaks of it is refused, and told why.
    let refused = |part: &str| {
        let account = "system:serviceaccount:velero:velero may not ";
        assert!(velero.log().contains(&format!("{account}{part}")), "{part}");
    };
    guards(&release).await;
    is(velero.type_(&named(of_secrets, "refused")), "PartiallyFailed");
    refused("set annotations under pat-operator.io/ on a Secret");
    assert!(release.secrets("shop").await.is_empty());
    let rights = manifest_with("verbs: [restore]");
    let (restore, _) = rights.split_once("  - apiGroups: [pat-operator.io]\n    resources: [users").expect("two rules");
    let (_, binding) = rights.split_once("---\n").expect("a role and its binding");
    apply(&release, "restore.yaml", &format!("{restore}---\n{binding}"));
    may(&release, "restore", "secrets").await;
    is(velero.type_(of_secrets), "Completed");
    assert_eq!(release.secrets("shop").await.len(), 3);
    is(velero.type_(&named(of_tokens, "refused")), "PartiallyFailed");
    refused("issue tokens for the User jane@example.com");
    assert_eq!(names().await, ["ci", "closed"]);

    // With both rights the rest comes back, and what is there is left alone.
    apply(&release, "rights.yaml", &rights);
    may(&release, "issue-for", "users").await;
    is(velero.type_(of_tokens), "Completed");
    assert_eq!(names().await, ["ci", "closed", "jane"]);
    let namespaces: Api<Namespace> = Api::all(release.client.clone());
    assert!(namespaces.get_opt("elsewhere").await.expect("an answer").is_none(), "it had no tokens");
    let shop = namespaces.get("shop").await.expect("it had");
    assert_eq!(shop.labels().get("kept").map(String::as_str), Some("true"));
    for name in names().await {
        eventually("its Secret is taken for somebody else's", async || {
            let status = release.pats("shop").get(&name).await.expect("it is back").status.unwrap_or_default();
            status.conditions.iter().any(|one| one.type_ == "Ready" && one.reason == "SecretConflict")
        })
        .await;
    }
    for token in [&ci, &previous, &jane, &closed, &leaked] {
        assert_eq!(verifier.forward(token, "").await, 401, "nothing is adopted by itself");
    }

    let controllers = upgraded(&release, controllers, &Timestamp::now().to_string()).await;
    assert_eq!(release.ready("shop", "ci").await, ci);
    assert_eq!(release.ready("shop", "jane").await, jane);
    verifier.forwards(&ci, 200).await;
    assert_eq!(verifier.forward(&ci, "scope=packages:write").await, 200);
    assert_eq!(verifier.forward(&previous, "").await, 200, "it is in its grace period");
    verifier.forwards(&jane, 200).await;
    assert_eq!(verifier.forward(&leaked, "").await, 401);

    // Of the owner that is disabled it is the TokenOwner that holds it back, and nothing else.
    assert_eq!(release.ready("shop", "closed").await, closed);
    assert_eq!(verifier.forward(&closed, "").await, 401);
    let owners: Api<TokenOwner> = Api::all(release.client.clone());
    let open = Patch::Merge(json!({"spec": {"disabled": false}}));
    owners.patch("closed", &PatchParams::default(), &open).await.expect("it is taken");
    verifier.forwards(&closed, 200).await;
    owners.delete("closed", &DeleteParams::default()).await.expect("it is enabled");
    is(velero.type_(of_owners), "Completed");
    verifier.forwards(&closed, 401).await;

    // The flag is off again, and life goes on: the next token is as every other.
    let controllers = upgraded(&release, controllers, "").await;
    let now = Patch::Merge(json!({"spec": {"rotateIfIssuedBefore": Timestamp::now().to_string()}}));
    release.pats("shop").patch("ci", &PatchParams::default(), &now).await.expect("it is taken");
    eventually("it is rotated", async || release.ready("shop", "ci").await != ci).await;
    assert_eq!(verifier.forward(&ci, "").await, 200, "in its grace period");
    for mut controller in controllers {
        let errors = controller.metrics().await;
        let restless = errors.value(r#"pat_operator_reconcile_errors_total{category="Restless"}"#);
        assert_eq!(restless, 0.0, "{controller}");
    }
}

/// The release with this `restoreIssuedBefore`, and its controllers in place of those that were.
async fn upgraded(release: &Release, before: Vec<OperatorProcess>, line: &str) -> Vec<OperatorProcess> {
    for controller in before {
        controller.terminate().await;
    }
    release.put(&["upgrade", "--reuse-values"], &json!({"controller": {"restoreIssuedBefore": line}}));
    release.controllers().await
}
