//! The minimum permissions of the controller. With them, everything works. If one is missing, one line names it.

use std::path::PathBuf;

use crate::support::is_left_out;
use crate::support::process::{
    Launch, OperatorProcess, SOON,
    place::{Place, eventually, hash, in_seconds, is_ready},
};
use control_plane::{Binary, Identity};
use futures::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use pat_operator::cli::MAX_NAMESPACES;
use serde_json::{Value, json};

const CLUSTER: &str = include_str!("../data/rbac-cluster.yaml");
const NAMESPACED: &str = include_str!("../data/rbac-namespaced.yaml");
const NAME: &str = "pat-operator-controller";

/// The manifests of one installation, with unique names, because many share one cluster.
struct Grant {
    account: String,
    home: String,
    manifests: Vec<Value>,
}

impl Grant {
    /// Reads the manifests for `account` in namespace `home`, with the objects of `team-a` once for each of `teams`.
    fn new(text: &str, account: &str, home: &str, teams: &[&str]) -> Self {
        let mut manifests = Vec::new();
        for document in text.split("\n---\n") {
            let manifest: Value = serde_yaml::from_str(document).expect("a manifest");
            let places = if manifest["metadata"]["namespace"] == "team-a" { teams } else { &[home][..] };
            for place in places {
                let mut manifest = manifest.clone();
                // Some objects are cluster-scoped, so names are unique in the cluster.
                let unique = |name: &Value| json!(name.as_str().unwrap().replace(NAME, &format!("{home}-{account}")));
                manifest["metadata"]["name"] = unique(&manifest["metadata"]["name"]);
                if manifest["metadata"]["namespace"].is_string() {
                    manifest["metadata"]["namespace"] = json!(place);
                }
                if manifest["kind"] == "ServiceAccount" {
                    manifest["metadata"]["name"] = json!(account);
                }
                if manifest["roleRef"].is_object() {
                    manifest["roleRef"]["name"] = unique(&manifest["roleRef"]["name"]);
                    manifest["subjects"][0]["name"] = json!(account);
                    manifest["subjects"][0]["namespace"] = json!(home);
                }
                for rule in manifest.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
                    for name in rule.get_mut("resourceNames").and_then(Value::as_array_mut).into_iter().flatten() {
                        *name = unique(name);
                    }
                }
                manifests.push(manifest);
            }
        }
        Self { account: account.to_owned(), home: home.to_owned(), manifests }
    }

    /// The name of the Lease.
    fn lease(&self) -> String {
        format!("{}-{}", self.home, self.account)
    }

    /// All permissions that the manifests grant.
    fn rules(&self) -> Vec<Rule> {
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let mut rules = Vec::new();
        for manifest in self.manifests.iter().filter(|manifest| manifest["rules"].is_array()) {
            for rule in manifest["rules"].as_array().unwrap() {
                for (resource, verb) in texts(&rule["resources"])
                    .into_iter()
                    .flat_map(|resource| texts(&rule["verbs"]).into_iter().map(move |verb| (resource.clone(), verb)))
                {
                    rules.push(Rule {
                        namespace: manifest["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
                        group: texts(&rule["apiGroups"])[0].clone(),
                        resource,
                        verb,
                        name: texts(&rule["resourceNames"]).into_iter().next().unwrap_or_default(),
                    });
                }
            }
        }
        rules
    }

    /// The manifests without one verb on one resource.
    fn without(mut self, missing: &Rule) -> Self {
        for manifest in self.manifests.iter_mut().filter(|manifest| manifest["rules"].is_array()) {
            if manifest["metadata"]["namespace"].as_str().unwrap_or_default() != missing.namespace {
                continue;
            }
            for rule in manifest["rules"].as_array_mut().unwrap() {
                if rule["resources"][0] == missing.resource.as_str() {
                    rule["verbs"].as_array_mut().unwrap().retain(|verb| verb != missing.verb.as_str());
                }
            }
            // A rule without verbs is invalid.
            manifest["rules"].as_array_mut().unwrap().retain(|rule| rule["verbs"] != json!([]));
        }
        self
    }

    /// Applies the manifests, waits until they are in force, and writes a kubeconfig for the ServiceAccount.
    async fn apply(&self, place: &Place) -> PathBuf {
        for manifest in &self.manifests {
            let version = manifest["apiVersion"].as_str().unwrap();
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let kind = GroupVersionKind::gvk(group, version, manifest["kind"].as_str().unwrap());
            let kind = ApiResource::from_gvk(&kind);
            let api: Api<DynamicObject> = match manifest["metadata"]["namespace"].as_str() {
                Some(namespace) => Api::namespaced_with(place.client.clone(), namespace, &kind),
                None => Api::all_with(place.client.clone(), &kind),
            };
            let name = manifest["metadata"]["name"].as_str().unwrap();
            api.patch(name, &PatchParams::apply("tests"), &Patch::Apply(manifest))
                .await
                .expect("the manifest is applied");
        }
        for rule in self.rules() {
            eventually(&format!("{rule:?} is in force"), async || rule.holds_for(self, place).await).await;
        }
        place.access.kubeconfig_for(&Identity::service_account(&self.home, &self.account)).expect("a kubeconfig")
    }
}

/// One verb on one resource, in one namespace or all.
#[derive(Clone, Debug)]
struct Rule {
    namespace: String,
    group: String,
    resource: String,
    verb: String,
    name: String,
}

impl Rule {
    async fn holds_for(&self, grant: &Grant, place: &Place) -> bool {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (resource, subresource) = self.resource.split_once('/').unwrap_or((&self.resource, ""));
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{}:{}", grant.home, grant.account)),
                resource_attributes: Some(ResourceAttributes {
                    namespace: text(&self.namespace),
                    group: text(&self.group),
                    resource: text(resource),
                    subresource: text(subresource),
                    verb: text(&self.verb),
                    name: text(&self.name),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(place.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.expect("a review");
        answer.status.is_some_and(|status| status.allowed)
    }

    /// The resource as messages name it: `secrets`, `personalaccesstokens.pat-operator.io/status`.
    fn resource_name(&self) -> String {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, subresource)) => (resource, format!("/{subresource}")),
            None => (&*self.resource, String::new()),
        };
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("{resource}{dot}{}{subresource}", self.group)
    }
}

/// Makes the controller send each kind of request at least once for one token.
async fn exercise_all_requests(place: &Place, labels: &Value) {
    let apply = async |name: &str, spec: Value| place.apply_labelled(name, labels.clone(), spec).await;
    let spec = json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "previous"}});
    apply("app", spec.clone()).await;
    let first = place.ready("app").await;

    let mut again = spec.clone();
    again["rotateIfIssuedBefore"] = in_seconds(0).into();
    apply("app", again).await;
    place.until("app", "rotated", |status| status.revision == Some(2) && is_ready(status)).await;
    assert_eq!(place.value("app", "previous").await, Some(first));
    eventually("the rotation event is published", async || {
        place.events("app").await.iter().any(|(reason, _)| reason == "Rotated")
    })
    .await;

    place.secrets().delete("app", &DeleteParams::default()).await.unwrap();
    place.until("app", "repaired", |status| status.revision == Some(3) && is_ready(status)).await;
    let third = place.token("app").await;

    let mut renamed = spec.clone();
    renamed["secret"]["name"] = "elsewhere".into();
    apply("app", renamed.clone()).await;
    eventually("the Secret has moved", async || {
        place.value("elsewhere", "token").await.as_ref() == Some(&third)
            && place.secrets().get_opt("app").await.unwrap().is_none()
    })
    .await;

    renamed["revoked"] = true.into();
    apply("app", renamed).await;
    place.has("app", "Ready", "False", "Revoked").await;
    assert!(place.status("app").await.credentials.iter().all(|one| one.sha256.to_string() != hash(&third)));
    eventually("the Secret holds no token", async || {
        place.value("elsewhere", "token").await.unwrap_or_default().is_empty()
    })
    .await;

    place.pats().delete("app", &DeleteParams::default()).await.unwrap();
    eventually("the Secret is deleted with its PAT", async || {
        place.secrets().get_opt("elsewhere").await.unwrap().is_none()
    })
    .await;
}

async fn assert_nothing_refused(operator: &mut OperatorProcess) {
    let metrics = operator.metrics().await;
    for series in [
        r#"pat_operator_reconcile_errors_total{category="Refused"}"#,
        r#"pat_operator_reconcile_errors_total{category="Unavailable"}"#,
        r#"pat_operator_watch_errors_total{kind="Secret"}"#,
        r#"pat_operator_watch_errors_total{kind="PersonalAccessToken"}"#,
        r#"pat_operator_watch_errors_total{kind="TokenOwner"}"#,
        "pat_operator_refused_writes_total",
    ] {
        assert_eq!(metrics.value(series), 0.0, "{series}\n{operator}");
    }
    // With the opening parenthesis, because timestamps in the log can contain these digits.
    for word in ["forbidden", "(403", "WARN", "could not be published"] {
        assert!(!operator.has_logged(&[word]), "{word}\n{operator}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_role_suffices_in_all_namespaces() {
    if is_left_out(Binary::KubeControllerManager) {
        return;
    }
    let home = Place::new("rbac-home").await;
    let (one, two) = (Place::new("rbac-one").await, Place::new("rbac-two").await);
    let grant = Grant::new(CLUSTER, "operator", home.name(), &[]);
    let kubeconfig = grant.apply(&home).await;
    // Other tests have PATs in this cluster, too.
    let mut operator = Launch::controller(&kubeconfig)
        .arg(format!("--lease-namespace={}", home.name()))
        .arg(format!("--lease-name={}", grant.lease()))
        .arg(format!("--label-selector=test={}", home.name()))
        .arg("--log-level=debug")
        .start();
    operator.leads_within(SOON).await;
    let labels = json!({"test": home.name()});
    tokio::join!(
        exercise_all_requests(&one, &labels),
        exercise_all_requests(&two, &labels),
        exercise_all_requests(&home, &labels)
    );
    assert_nothing_refused(&mut operator).await;
    let ended = operator.terminate().await;
    assert!(ended.stderr.iter().any(|line| line.contains("released the lease")), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_suffice_in_listed_namespaces() {
    if is_left_out(Binary::KubeControllerManager) {
        return;
    }
    let home = Place::new("roles-home").await;
    let (one, two) = (Place::new("roles-one").await, Place::new("roles-two").await);
    let other = Place::new("roles-other").await;
    let grant = Grant::new(NAMESPACED, "operator", home.name(), &[one.name(), two.name()]);
    assert!(
        grant.manifests.iter().all(|manifest| manifest["metadata"]["namespace"].is_string()),
        "no object is cluster-scoped"
    );
    let kubeconfig = grant.apply(&home).await;
    other.apply("app", json!({})).await;
    home.apply("app", json!({})).await;
    let mut operator = Launch::controller(&kubeconfig)
        .arg(format!("--lease-namespace={}", home.name()))
        .arg(format!("--lease-name={}", grant.lease()))
        .arg(format!("--namespaces={},{}", one.name(), two.name()))
        .arg("--log-level=debug")
        .start();
    operator.leads_within(SOON).await;
    let labels = json!({});
    tokio::join!(exercise_all_requests(&one, &labels), exercise_all_requests(&two, &labels));
    assert_nothing_refused(&mut operator).await;
    for place in [&other, &home] {
        assert_eq!(place.status("app").await, Default::default());
        assert!(place.secrets().get_opt("app").await.unwrap().is_none());
    }
    operator.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_serves_the_maximum_number_of_namespaces() {
    let home = Place::new("most-home").await;
    let places: Vec<Place> =
        stream::iter(0..MAX_NAMESPACES).map(|_| Place::on(&home.access, "most")).buffer_unordered(8).collect().await;
    let names: Vec<_> = places.iter().map(Place::name).collect();
    let kubeconfig = Grant::new(NAMESPACED, "operator", home.name(), &names).apply(&home).await;
    let mut operator = Launch::controller(&kubeconfig)
        .arg(format!("--lease-namespace={}", home.name()))
        .arg(format!("--lease-name={}-operator", home.name()))
        .arg(format!("--namespaces={}", names.join(",")))
        .start();
    operator.leads_within(SOON).await;
    stream::iter(&places)
        .for_each_concurrent(8, async |place| {
            place.apply("app", json!({})).await;
            place.ready("app").await;
            place.assert_active_token_in_secret("app").await;
        })
        .await;
    assert_nothing_refused(&mut operator).await;
    operator.terminate().await;
    // Dropping a namespace blocks the thread.
    let ends = places.into_iter().map(|place| tokio::task::spawn_blocking(move || drop(place)));
    futures::future::join_all(ends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_rule_is_named_in_one_line() {
    let home = &Place::new("missing-home").await;
    let team = &Place::new("missing-team").await;
    let mut cases = Vec::new();
    for (kind, text) in [("cluster", CLUSTER), ("roles", NAMESPACED)] {
        let whole = |account: &str| Grant::new(text, account, home.name(), &[team.name()]);
        let is_required = |rule: &Rule| rule.resource != "tokenowners";
        for (number, missing) in whole("all").rules().into_iter().filter(is_required).enumerate() {
            let account = format!("{kind}-{number}");
            cases.push((kind, whole(&account).without(&missing), missing));
        }
    }
    assert_eq!(cases.len(), 2 * (3 + 1 + 6 + 2 + 3));
    stream::iter(cases)
        .for_each_concurrent(6, async |(kind, grant, missing)| {
            let kubeconfig = grant.apply(home).await;
            let mut launch = Launch::controller(&kubeconfig).arg(format!("--lease-namespace={}", home.name()));
            if kind == "roles" {
                launch = launch.arg(format!("--namespaces={}", team.name()));
            }
            let launch = launch.arg(format!("--label-selector=test={}", grant.account));
            let ended = launch.arg(format!("--lease-name={}", grant.lease())).run().await;
            let line = ended.refusal();
            let place = match &*missing.namespace {
                "" => "in all namespaces".to_owned(),
                namespace => format!("in namespace {namespace}"),
            };
            let words = format!("{} {}", missing.verb, missing.resource_name());
            let named = line.contains(&format!("{words} {place}"));
            assert!(
                named && line.contains("not permitted") | line.contains("no permission"),
                "{kind} {words}: {ended}"
            );
            assert!(!ended.stderr.iter().any(|line| line.contains("WARN")), "no warning precedes it: {ended}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn controller_without_rights_on_token_owners_says_so_and_works() {
    let place = Place::new("no-owners").await;
    let mut grant = Grant::new(CLUSTER, "operator", place.name(), &[]);
    for missing in grant.rules().into_iter().filter(|rule| rule.resource == "tokenowners") {
        grant = grant.without(&missing);
    }
    let kubeconfig = grant.apply(&place).await;
    let mut operator = Launch::controller(&kubeconfig)
        .arg(format!("--lease-namespace={}", place.name()))
        .arg(format!("--lease-name={}", grant.lease()))
        .arg(format!("--label-selector=test={}", place.name()))
        .start();
    operator.leads_within(SOON).await;
    let what = "not permitted: list tokenowners.pat-operator.io in all namespaces, watch tokenowners.pat-operator.io in all namespaces";
    assert!(operator.has_logged(&["WARN", "Ready does not show whether the owner", what]), "{operator}");
    place.apply_labelled("app", json!({"test": place.name()}), json!({})).await;
    place.ready("app").await;
    operator.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_missing_permissions_are_reported_together() {
    let place = Place::new("nobody").await;
    let kubeconfig = place.access.kubeconfig_for(&Identity::service_account(place.name(), "nobody")).unwrap();
    let line = Launch::controller_in(&kubeconfig, place.name()).run().await.refusal();
    for part in ["patch personalaccesstokens.pat-operator.io/status", "delete secrets", "create events.events.k8s.io"] {
        assert!(line.contains(&format!("{part} in namespace {}", place.name())), "{part}: {line}");
    }
}
