//! A cluster is lost, and Velero restores its tokens in another one with the commands of `docs/operations.md`. Revoked tokens stay revoked.

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

/// The code blocks of this language on the page.
fn shown(language: &str) -> Vec<String> {
    let fences = fences::of("docs/operations.md").into_iter().filter(|fence| fence.language == language);
    fences.map(|fence| fence.text).collect()
}

/// The page's commands that start like this, in order.
fn commands(begin: &str) -> Vec<String> {
    let shown = shown("console").concat().replace("\\\n", " ");
    let typed = shown.lines().filter_map(|line| line.strip_prefix("$ "));
    typed.filter(|command| command.starts_with(begin)).map(str::to_owned).collect()
}

/// The page's manifest that contains this text.
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

/// Creates a cluster with tokens and backups of it in `store`, and deletes the cluster. Returns the tokens: the current, the previous and a
/// revoked one of `ci`, that of `jane`, and that of a disabled owner.
async fn lose_cluster(store: &Path) -> [String; 5] {
    let release = Release::new().await;
    release.put(&["install", "--create-namespace"], &values());
    let controllers = release.controllers().await;
    let verifier = release.verifier().await;
    // After the chart, so that Velero discovers its kinds.
    let velero = Velero::start(&release.access(), store).await;
    apply(&release, "tokens.yaml", TOKENS);
    let leaked = release.ready("shop", "ci").await;
    let jane = release.ready("shop", "jane").await;
    let closed = release.ready("shop", "closed").await;
    verifier.forwards(&closed, 200).await;
    apply(&release, "closed.yaml", CLOSED);
    verifier.forwards(&closed, 401).await;

    // One token of ci is revoked, and its successor is rotated, with a grace period.
    let pats = release.pats("shop");
    let change = async |spec: Value, before: &str| {
        let patch = Patch::Merge(json!({"spec": spec}));
        pats.patch("ci", &PatchParams::default(), &patch).await.expect("the API server accepts the patch");
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
        let said = velero.run(&command);
        assert!(said.contains("Backup completed with status: Completed."), "{command}: {said}");
    }
    drop((controllers, verifier));
    [ci, previous, leaked, jane, closed]
}

/// Waits until the guard rails refuse Velero's writes.
async fn wait_for_guard_rails(release: &Release) {
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

/// Waits until Velero's ServiceAccount has one of the operator's custom verbs.
async fn wait_for_right(release: &Release, verb: &str, resource: &str) {
    let reviews: Api<SubjectAccessReview> = Api::all(release.client.clone());
    let asked = json!({"group": "pat-operator.io", "resource": resource, "verb": verb});
    let review = json!({"spec": {"user": "system:serviceaccount:velero:velero", "resourceAttributes": asked}});
    let review = serde_json::from_value(review).expect("a review");
    eventually("the right is in force", async || {
        let answer = reviews.create(&PostParams::default(), &review).await.expect("the API server answers");
        answer.status.expect("a status").allowed
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn velero_restores_tokens_and_revoked_ones_stay_revoked() {
    let store = tempfile::tempdir().expect("a folder");
    let [ci, previous, leaked, jane, closed] = lose_cluster(store.path()).await;

    let release = Release::new().await;
    let velero = Velero::start(&release.access(), store.path()).await;
    release.put(&["install", "--create-namespace"], &values());
    let controllers = release.controllers().await;
    let verifier = release.verifier().await;
    let restores = commands("velero restore create");
    let [of_secrets, of_tokens, _, of_owners] = &restores[..] else { panic!("four restores: {restores:?}") };
    // Each restore needs another name.
    let named = |command: &str, name: &str| command.replace("restore create ", &format!("restore create {name}-"));
    let assert_phase = |said: String, phase: &str| {
        assert!(said.contains(&format!("Restore completed with status: {phase}.")), "{said}");
    };

    let names = async || {
        let tokens = release.pats("shop").list(&ListParams::default()).await.expect("a list").items;
        tokens.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    };

    // Without the rights on the page, the restore is refused, and Velero's log says why.
    let refused = |part: &str| {
        let account = "system:serviceaccount:velero:velero may not ";
        assert!(velero.log().contains(&format!("{account}{part}")), "{part}");
    };
    wait_for_guard_rails(&release).await;
    assert_phase(velero.run(&named(of_secrets, "refused")), "PartiallyFailed");
    refused("set annotations under pat-operator.io/ on a Secret");
    assert!(release.secrets("shop").await.is_empty());
    let rights = manifest_with("verbs: [restore]");
    let (restore, _) = rights.split_once("  - apiGroups: [pat-operator.io]\n    resources: [users").expect("two rules");
    let (_, binding) = rights.split_once("---\n").expect("a role and its binding");
    apply(&release, "restore.yaml", &format!("{restore}---\n{binding}"));
    wait_for_right(&release, "restore", "secrets").await;
    assert_phase(velero.run(of_secrets), "Completed");
    assert_eq!(release.secrets("shop").await.len(), 3);
    assert_phase(velero.run(&named(of_tokens, "refused")), "PartiallyFailed");
    refused("issue tokens for the User jane@example.com");
    assert_eq!(names().await, ["ci", "closed"]);

    // With both rights, Velero restores the rest and leaves existing objects alone.
    apply(&release, "rights.yaml", &rights);
    wait_for_right(&release, "issue-for", "users").await;
    assert_phase(velero.run(of_tokens), "Completed");
    assert_eq!(names().await, ["ci", "closed", "jane"]);
    let namespaces: Api<Namespace> = Api::all(release.client.clone());
    assert!(
        namespaces.get_opt("elsewhere").await.expect("the API server answers").is_none(),
        "this namespace has no tokens"
    );
    let shop = namespaces.get("shop").await.expect("the namespace is restored");
    assert_eq!(shop.labels().get("kept").map(String::as_str), Some("true"));
    for name in names().await {
        wait_for_reason(&release, &name, "SecretConflict").await;
    }
    for token in [&ci, &previous, &jane, &closed, &leaked] {
        assert_eq!(verifier.forward(token, "").await, 401, "the controller adopts nothing by default");
    }

    let controllers = upgrade(&release, controllers, &Timestamp::now().to_string()).await;
    assert_eq!(release.ready("shop", "ci").await, ci);
    assert_eq!(release.ready("shop", "jane").await, jane);
    verifier.forwards(&ci, 200).await;
    assert_eq!(verifier.forward(&ci, "scope=packages:write").await, 200);
    assert_eq!(verifier.forward(&previous, "").await, 200, "the previous token is in its grace period");
    verifier.forwards(&jane, 200).await;
    assert_eq!(verifier.forward(&leaked, "").await, 401);

    // Only the TokenOwner disables the token of the disabled owner.
    wait_for_reason(&release, "closed", "OwnerDisabled").await;
    assert_eq!(verifier.forward(&closed, "").await, 401);
    let owners: Api<TokenOwner> = Api::all(release.client.clone());
    let open = Patch::Merge(json!({"spec": {"disabled": false}}));
    owners.patch("closed", &PatchParams::default(), &open).await.expect("the API server accepts the patch");
    assert_eq!(release.ready("shop", "closed").await, closed);
    verifier.forwards(&closed, 200).await;
    owners.delete("closed", &DeleteParams::default()).await.expect("the TokenOwner is deleted");
    assert_phase(velero.run(of_owners), "Completed");
    verifier.forwards(&closed, 401).await;

    // Without the flag, the token is rotated like any other.
    let controllers = upgrade(&release, controllers, "").await;
    let now = Patch::Merge(json!({"spec": {"rotateIfIssuedBefore": Timestamp::now().to_string()}}));
    release.pats("shop").patch("ci", &PatchParams::default(), &now).await.expect("the API server accepts the patch");
    eventually("the token is rotated", async || release.ready("shop", "ci").await != ci).await;
    assert_eq!(verifier.forward(&ci, "").await, 200, "the old token is in its grace period");
    for mut controller in controllers {
        let errors = controller.metrics().await;
        let restless = errors.value(r#"pat_operator_reconcile_errors_total{category="Restless"}"#);
        assert_eq!(restless, 0.0, "{controller}");
    }
}

/// Waits until a PAT of the namespace `shop` is not ready for this reason.
async fn wait_for_reason(release: &Release, pat: &str, reason: &str) {
    eventually("the condition Ready has the reason", async || {
        let status = release.pats("shop").get(pat).await.expect("the PAT is restored").status.unwrap_or_default();
        status.conditions.iter().any(|one| one.type_ == "Ready" && one.reason == reason)
    })
    .await;
}

/// Upgrades the release with this `restoreIssuedBefore`, and replaces its controllers.
async fn upgrade(release: &Release, before: Vec<OperatorProcess>, line: &str) -> Vec<OperatorProcess> {
    for controller in before {
        controller.terminate().await;
    }
    release.put(&["upgrade", "--reuse-values"], &json!({"controller": {"restoreIssuedBefore": line}}));
    release.controllers().await
}
