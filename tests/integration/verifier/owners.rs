//! `TokenOwner` in every protocol, on a real API server.

use std::time::{Duration, Instant};

use control_plane::{ControlPlane, Options};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use pat_operator::api::{TokenOwner, crd};
use serde_json::{Value, json};

use super::{
    index::{AT_ONCE, issued},
    protocols::{AUDIENCE, TOKENREVIEW, Way},
};
use crate::support::process::{SOON, place::Place, verifier::VerifierProcess};

/// A namespace with a caller that may introspect and tokens of two people, and a verifier of all namespaces.
struct Scene {
    place: Place,
    verifier: VerifierProcess,
    caller: String,
    jane: String,
    john: String,
}

impl Scene {
    async fn new(prefix: &str) -> Self {
        let place = Place::new(prefix).await;
        let operator = place.operator().arg("--publish-lead=0s").start();
        place.apply("caller", json!({"scopes": ["introspect"]})).await;
        let caller = place.ready("caller").await;
        let mut tokens = Vec::new();
        for name in ["jane", "john"] {
            let owner = json!({"kind": "User", "name": owner(&place, name)});
            place.apply(name, json!({"owner": owner, "audiences": [AUDIENCE]})).await;
            tokens.push(place.ready(name).await);
        }
        operator.terminate().await;
        let verifier = VerifierProcess::start(&place.kubeconfig(), &[TOKENREVIEW]).await;
        let [jane, john] = tokens.try_into().expect("two");
        Self { place, verifier, caller, jane, john }
    }

    /// Applies a `TokenOwner` that describes this person.
    async fn describe(&self, object: &str, person: &str, mut spec: Value) {
        spec["subject"] = json!({"kind": "User", "name": owner(&self.place, person)});
        let name = format!("{}-{object}", self.place.name());
        let manifest = json!({
            "apiVersion": "pat-operator.io/v1alpha1", "kind": "TokenOwner", "metadata": {"name": name}, "spec": spec,
        });
        let params = PatchParams::apply("person").force();
        self.owners().patch(&name, &params, &Patch::Apply(&manifest)).await.expect("the manifest is taken");
    }

    async fn forget(&self, object: &str) {
        let name = format!("{}-{object}", self.place.name());
        self.owners().delete(&name, &DeleteParams::default()).await.expect("it can be deleted");
    }

    fn owners(&self) -> Api<TokenOwner> {
        Api::all(self.place.client.clone())
    }

    /// Waits until every protocol gives this answer for the token, and returns the time until the last one did.
    async fn says(&self, token: &str, let_in: bool) -> Duration {
        let began = Instant::now();
        for way in Way::ALL {
            loop {
                let (answer, text) = way.asks(&self.verifier, &self.caller, token).await;
                if answer == let_in {
                    break;
                }
                assert!(began.elapsed() < SOON, "{way:?}: {text}\n{}", self.verifier.process);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        began.elapsed()
    }

    async fn end(self) {
        for object in ["a", "b", "c"] {
            let _ = self.owners().delete(&format!("{}-{object}", self.place.name()), &DeleteParams::default()).await;
        }
        self.verifier.process.terminate().await;
    }
}

/// Returns a unique name of an owner, because owners are cluster-wide and tests share a cluster.
fn owner(place: &Place, person: &str) -> String {
    format!("{person}@{}.example.com", place.name())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_refuses_a_disabled_owner_at_once_until_it_is_enabled() {
    let mut scene = Scene::new("disabled").await;
    scene.says(&scene.jane, true).await;
    scene.says(&scene.john, true).await;

    scene.describe("a", "jane", json!({"disabled": true})).await;
    let took = scene.says(&scene.jane, false).await;
    assert!(took < AT_ONCE, "{took:?}");
    scene.says(&scene.john, true).await;
    scene.describe("a", "jane", json!({"disabled": false})).await;
    let took = scene.says(&scene.jane, true).await;
    assert!(took < AT_ONCE, "{took:?}");

    // If several objects describe an owner, each of them can disable it.
    scene.describe("b", "jane", json!({"disabled": true})).await;
    scene.describe("c", "jane", json!({"disabled": true})).await;
    scene.says(&scene.jane, false).await;
    scene.describe("b", "jane", json!({})).await;
    scene.says(&scene.jane, false).await;
    scene.forget("c").await;
    scene.says(&scene.jane, true).await;

    let metrics = scene.verifier.process.metrics().await;
    assert_eq!(metrics.value(r#"pat_operator_watch_lists_total{kind="TokenOwner"}"#), 1.0);
    assert_eq!(metrics.value(r#"pat_operator_watch_lists_total{kind="PersonalAccessToken"}"#), 1.0);
    for protocol in ["introspection", "tokenreview", "forward-auth", "envoy-http", "envoy-grpc"] {
        let series =
            format!(r#"pat_operator_decisions_total{{protocol="{protocol}",answer="deny",reason="OwnerDisabled"}}"#);
        assert!(metrics.value(&series) >= 3.0, "{series}");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn address_and_groups_reach_services_and_the_api_server() {
    let scene = Scene::new("described").await;
    let groups = json!(["staff", "system:masters"]);
    scene.describe("a", "jane", json!({"email": "jane@example.com", "groups": groups})).await;
    let answer_of = async |way: Way| way.asks(&scene.verifier, &scene.caller, &scene.jane).await.1;
    let began = Instant::now();
    while !answer_of(Way::ForwardAuth).await.contains("x-auth-request-email: jane@example.com\r\n") {
        assert!(began.elapsed() < SOON, "{}", answer_of(Way::ForwardAuth).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for way in [Way::ForwardAuth, Way::EnvoyHttp] {
        let answer = answer_of(way).await;
        assert!(answer.contains("x-auth-request-groups: staff,system:masters\r\n"), "{answer}");
    }
    let answer = answer_of(Way::EnvoyGrpc).await;
    assert!(answer.contains("jane@example.com") && answer.contains("staff,system:masters"), "{answer}");
    let answer = answer_of(Way::TokenReview).await;
    assert!(answer.contains(r#""groups":["pat:staff","pat:system:masters"]"#), "{answer}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_namespaces_owners_are_not_watched_and_a_line_says_so() {
    let scene = Scene::new("some").await;
    scene.describe("a", "jane", json!({"disabled": true})).await;
    scene.says(&scene.jane, false).await;
    let only = format!("--namespaces={}", scene.place.name());
    let mut other = VerifierProcess::start(&scene.place.kubeconfig(), &[&only]).await;
    other.process.logs(&["with --namespaces, TokenOwners are not watched"]).await;
    assert_eq!(other.forward(&scene.jane, &format!("audience={AUDIENCE}")).await, 200);
    other.process.terminate().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_crd_of_owners_it_waits_and_says_what_to_do() {
    let plane = ControlPlane::start(Options::default()).await.expect("a control plane");
    let place = Place::on(&plane.access(), "undefined").await;
    let crds: Api<CustomResourceDefinition> = Api::all(place.client.clone());
    crds.create(&PostParams::default(), &crd::crd()).await.expect("the API server takes the CRD");
    let mut verifier = VerifierProcess::begin(&place.kubeconfig(), &[]).await;
    verifier.process.logs(&["waiting: tokenowners.pat-operator.io is not installed: kubectl apply -f crds/"]).await;
    let readiness = verifier.process.get("/readyz").await;
    assert!(readiness.code == 503 && readiness.body.contains("[-]crd not ready: tokenowners"), "{}", readiness.body);
    crate::support::crd::install_crds(&place.client).await;
    verifier.process.is_ready().await;
    let token = issued(&place, &["app"]).await.remove(0);
    verifier.forwards(&token, 200).await;
    verifier.process.terminate().await;
}
