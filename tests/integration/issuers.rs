//! Tokens of other systems on a real API server: a controller with issuers, and a server that refuses what GitLab refuses.

use control_plane::{Access, Namespace};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use pat_operator::api::{ClusterTokenIssuer, Condition, CredentialState, PersonalAccessTokenStatus};
use serde_json::{Value, json};

use crate::support::{
    process::{
        Launch, OperatorProcess,
        place::{Place, eventually, in_seconds, is_ready},
    },
    vendor::gitlab::{ADMIN, GitLab},
};

/// A namespace whose PATs one controller serves, and a GitLab.
struct Scene {
    place: Place,
    gitlab: GitLab,
    /// The namespace of the controller, with the credentials of issuers.
    system: Namespace,
    issuer: String,
}

impl Scene {
    async fn new(prefix: &str) -> Self {
        let place = Place::new(prefix).await;
        let access: &Access = &place.access;
        let system = access.namespace("issuers").await.expect("a namespace");
        let issuer = format!("gitlab-{}", place.name());
        Self { gitlab: GitLab::start().await, issuer, system, place }
    }

    fn controller(&self) -> OperatorProcess {
        Launch::controller(&self.place.kubeconfig())
            .arg("--leader-elect=false")
            .arg(format!("--lease-namespace={}", self.system.name()))
            .arg(format!("--label-selector=place={}", self.place.name()))
            .arg("--issuers=cluster")
            .arg(format!("--issuer-namespace={}", self.system.name()))
            .arg("--issuer-insecure-hosts=127.0.0.1")
            .start()
    }

    fn issuers(&self) -> Api<ClusterTokenIssuer> {
        Api::all(self.place.client.clone())
    }

    async fn put_credential(&self, token: &str) {
        let host = self.gitlab.vendor.url.strip_prefix("http://").expect("a URL");
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gitlab"}, "type": "pat-operator.io/issuer-auth",
            "stringData": {"host": host, "token": token},
        });
        let secrets: Api<Secret> = Api::namespaced(self.place.client.clone(), self.system.name());
        secrets.patch("gitlab", &PatchParams::apply("person").force(), &Patch::Apply(&secret)).await.expect("a Secret");
    }

    async fn put_issuer(&self, rule: Value) {
        let issuer = json!({
            "apiVersion": "pat-operator.io/v1alpha1", "kind": "ClusterTokenIssuer", "metadata": {"name": self.issuer},
            "spec": {
                "gitLab": {"url": self.gitlab.vendor.url}, "auth": {"secretRef": {"name": "gitlab"}},
                "policy": {"rules": [rule]},
            },
        });
        let params = PatchParams::apply("person").force();
        self.issuers().patch(&self.issuer, &params, &Patch::Apply(&issuer)).await.expect("an issuer");
    }

    /// Applies a PAT of the project `group/app`.
    async fn apply(&self, name: &str, mut spec: Value) {
        spec["issuerRef"] = json!({"kind": "ClusterTokenIssuer", "name": self.issuer});
        spec["gitLab"] = json!({"project": "group/app", "accessLevel": "Reporter"});
        spec["scopes"] = json!(["read_repository"]);
        self.place.apply_labelled(name, json!({"place": self.place.name()}), spec).await;
    }

    /// Waits until the condition Ready of the issuer has this reason.
    async fn issuer_is(&self, reason: &str) -> Condition {
        let mut found = None;
        eventually(&format!("the issuer is {reason}"), async || {
            let status = self.issuers().get(&self.issuer).await.expect("the issuer").status.unwrap_or_default();
            found = status.conditions.into_iter().find(|one| one.type_ == "Ready" && one.reason == reason);
            found.is_some()
        })
        .await;
        found.expect("the condition")
    }
}

/// One test, because each controller serves all ClusterTokenIssuers.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_gitlab_are_issued_rotated_and_revoked() {
    let scene = Scene::new("remote").await;
    scene.put_issuer(json!({"namespaces": [scene.place.name()], "maxAccessLevel": "Guest"})).await;
    let mut controller = scene.controller();
    report_the_issuer_and_its_policy(&scene).await;
    live_and_die(&scene).await;
    show_metrics(&scene, &mut controller).await;
    report_a_lost_target(&scene).await;
    delete_the_issuer_in_use(&scene).await;
    let labels = labels_of(&scene);
    eventually("its series end", async || !controller.metrics().await.text.contains(&labels)).await;
    controller.terminate().await;
}

fn labels_of(scene: &Scene) -> String {
    format!(r#"kind="ClusterTokenIssuer",issuer_namespace="",issuer="{}""#, scene.issuer)
}

async fn show_metrics(scene: &Scene, controller: &mut OperatorProcess) {
    let labels = labels_of(scene);
    let metrics = controller.metrics().await;
    let value = |name: &str, more: &str| {
        let series = format!("pat_operator_issuer_{name}{{{labels}{more}}}");
        *metrics.values.get(&series).unwrap_or_else(|| panic!("no {series}: {}", metrics.text))
    };
    let calls =
        |operation: &str, result: &str| value("calls_total", &format!(r#",operation="{operation}",result="{result}""#));
    assert_eq!(value("ready", ""), 1.0);
    assert!(calls("check", "Unauthorized") >= 1.0, "with the wrong credential");
    assert!(calls("create", "Ok") >= 3.0 && calls("delete", "Ok") >= 2.0 && calls("list", "Ok") >= 1.0);
    // The token of `early` is left.
    assert_eq!(value("credentials", r#",state="Active""#), 1.0);
    assert_eq!(value("credentials", r#",state="Revoking""#), 0.0);
    assert!(value("last_list_timestamp_seconds", "") > value("poll_interval_seconds", ""));
    assert!(!metrics.text.contains("glpat"), "no credential");
}

/// The project is deleted at GitLab, and comes back.
async fn report_a_lost_target(scene: &Scene) {
    let set = |gone| scene.gitlab.state.lock().expect("no panic").project_is_gone = gone;
    set(true);
    // A new generation is polled soon.
    scene.put_issuer(json!({"namespaces": [scene.place.name()], "targets": ["project/*"]})).await;
    let told = scene.place.has("early", "Reconciling", "True", "IssuerNotReady").await;
    assert!(told.message.contains("the tokens of project/group/app cannot be listed"), "{}", told.message);
    // Nothing shows that the token does not work.
    scene.place.has("early", "Ready", "True", "Issued").await;
    set(false);
    scene.put_issuer(json!({"namespaces": [scene.place.name()]})).await;
    let is_told = |status: &PersonalAccessTokenStatus| status.conditions.iter().any(|one| one.type_ == "Reconciling");
    scene.place.until("early", "no longer reported", |status| !is_told(status)).await;
}

/// The issuer stays until the last token is revoked.
async fn delete_the_issuer_in_use(scene: &Scene) {
    let token = scene.place.token("early").await;
    scene.issuers().delete(&scene.issuer, &DeleteParams::default()).await.expect("the issuer is being deleted");
    let told = scene.issuer_is("IssuerNotReady").await;
    assert!(
        told.message.contains("delete the PersonalAccessTokens that have tokens of it (1 left)"),
        "{}",
        told.message
    );
    scene.apply("late", json!({})).await;
    let condition = scene.place.has("late", "Ready", "False", "IssuerNotReady").await;
    assert!(condition.message.contains("is being deleted"), "{}", condition.message);
    assert!(scene.gitlab.accepts(&token));
    // Its Secret goes first, as in a namespace that is being deleted.
    let secrets: Api<Secret> = Api::namespaced(scene.place.client.clone(), scene.system.name());
    secrets.delete("gitlab", &DeleteParams::default()).await.expect("the Secret is deleted");
    scene.place.pats().delete("early", &DeleteParams::default()).await.expect("deleted");
    eventually("the issuer is gone", async || {
        scene.issuers().get_opt(&scene.issuer).await.expect("an answer").is_none()
    })
    .await;
    assert!(!scene.gitlab.accepts(&token));
}

async fn live_and_die(scene: &Scene) {
    let spec = json!({"rotation": {"interval": "30d"}, "gracePeriod": "1d"});
    scene.apply("ci", spec.clone()).await;
    let first = scene.place.ready("ci").await;
    assert!(scene.gitlab.accepts(&first));
    let pat = scene.place.pats().get("ci").await.expect("the PAT");
    assert_eq!(pat.finalizers(), ["pat-operator.io/remote-tokens"]);
    let status = pat.status.expect("a status");
    assert!(status.credentials.is_empty(), "no verifier accepts it");
    let one = &status.remote_credentials[0];
    assert!(one.expires_at.expect("an end").to_string().ends_with("T00:00:00Z"), "whole days: {:?}", one.expires_at);
    assert!(!serde_json::to_string(&status).expect("JSON").contains(&first), "no token in a status");

    // Both work in the grace period.
    let mut rotated = spec.clone();
    rotated["rotateIfIssuedBefore"] = in_seconds(0).into();
    scene.apply("ci", rotated.clone()).await;
    scene.place.until("ci", "rotated", |status| status.revision == Some(2) && is_ready(status)).await;
    let second = scene.place.token("ci").await;
    assert!(first != second && scene.gitlab.accepts(&first) && scene.gitlab.accepts(&second));

    // A revoked one dies at GitLab at once, and a list confirms it.
    let id =
        scene.place.status("ci").await.remote_credentials.into_iter().find(|one| one.state == CredentialState::Grace);
    let mut revoked = rotated.clone();
    revoked["revokedCredentials"] = json!([id.expect("one in grace").id]);
    scene.apply("ci", revoked).await;
    eventually("GitLab refuses the revoked token", async || !scene.gitlab.accepts(&first)).await;
    scene.place.until("ci", "confirmed", |status| status.remote_credentials.len() == 1 && is_ready(status)).await;
    assert!(scene.gitlab.accepts(&second));

    // Deletion revokes, and then lets the object go.
    scene.place.pats().delete("ci", &DeleteParams::default()).await.expect("deleted");
    eventually("the object is gone", async || scene.place.pats().get_opt("ci").await.expect("an answer").is_none())
        .await;
    assert!(!scene.gitlab.accepts(&second));
}

async fn report_the_issuer_and_its_policy(scene: &Scene) {
    let missing = scene.issuer_is("IssuerNotReady").await;
    assert!(missing.message.contains("does not exist"), "{}", missing.message);
    scene.put_credential("glpat-wrong").await;
    // The next poll comes by itself.
    eventually("the credential is refused", async || {
        scene.issuer_is("IssuerNotReady").await.message.contains("does not accept the credential")
    })
    .await;
    scene.apply("early", json!({})).await;
    let condition = scene.place.has("early", "Ready", "False", "IssuerPolicy").await;
    assert!(condition.message.contains("no higher accessLevel than Guest"), "{}", condition.message);
    scene.put_credential(ADMIN).await;
    scene.put_issuer(json!({"namespaces": [scene.place.name()]})).await;
    scene.issuer_is("Available").await;
    let token = scene.place.ready("early").await;
    assert!(scene.gitlab.accepts(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_issuers_and_references_are_refused_with_a_reason() {
    let place = Place::new("bad").await;
    let issuers: Api<ClusterTokenIssuer> = Api::all(place.client.clone());
    let url = json!({"url": "https://git.example.com"});
    let auth = json!({"secretRef": {"name": "a"}});
    let policy = json!({"rules": [{}]});
    let cases = [
        (json!({"policy": policy}), "set exactly one of local"),
        (json!({"gitLab": url, "gitea": url, "auth": auth, "policy": policy}), "set exactly one of local"),
        (json!({"gitLab": url, "policy": policy}), "auth is required"),
        (json!({"local": {}, "auth": auth, "policy": policy}), "auth is required"),
        (json!({"gitLab": url, "auth": auth}), "needs spec.policy"),
        (json!({"gitLab": {"url": "git.example.com"}, "auth": auth, "policy": policy}), "must be a URL"),
        (json!({"gitLab": {"url": "https://u:p@git.example.com"}, "auth": auth, "policy": policy}), "without user"),
        (json!({"gitLab": url, "auth": {}, "policy": policy}), "exactly one of secretRef and tokenRef"),
        (json!({"gitLab": url, "auth": auth, "policy": {"rules": []}}), "at least 1"),
        (json!({"gitLab": url, "auth": auth, "policy": policy, "pollInterval": "10s"}), "from 1m to 1h"),
    ];
    for (spec, part) in cases {
        let issuer = json!({"metadata": {"name": "bad"}, "spec": spec});
        let issuer = serde_json::from_value(issuer).expect("an issuer");
        let error = issuers.create(&PostParams { dry_run: true, ..Default::default() }, &issuer).await.unwrap_err();
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let reference = json!({"kind": "ClusterTokenIssuer", "name": "x"});
    let cases = [
        (json!({"gitLab": {"project": "a"}}), "set issuerRef"),
        (json!({"deletionPolicy": "Orphan"}), "set issuerRef"),
        (json!({"issuerRef": reference, "gitLab": {}}), "exactly one of project, group and user"),
        (json!({"issuerRef": reference, "gitLab": {"user": 1, "accessLevel": "Guest"}}), "accessLevel is only for"),
        (
            json!({"issuerRef": reference, "argoCD": {"account": "a", "role": "b"}}),
            "set either account, or project and role",
        ),
        (
            json!({"issuerRef": reference, "argoCD": {"account": "a"}, "gitLab": {"project": "a"}}),
            "at most one of gitLab, argoCD and trueFoundry",
        ),
    ];
    for (spec, part) in cases {
        let error = place.try_apply("bad", json!({}), spec).await.unwrap_err();
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    place.apply("ref", json!({"issuerRef": reference})).await;
    let error = place.try_apply("ref", json!({}), json!({"description": "x"})).await.unwrap_err();
    assert!(error.to_string().contains("issuerRef is immutable"), "{error}");
}
