//! Checks the alerts and the dashboard: promtool accepts and tests them, and the operator serves each metric and label that they use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use pat_operator::{
    api::{ClusterTokenIssuer, CredentialState, ISSUER_AUTH_TYPE, IssuerKind, Reason},
    certificates, controller,
    issuer::CallError,
    rest::dialect::Dialect,
    verifier,
};
use serde_json::{Value, json};

use super::helm::{Program, chart, of_kind};
use crate::support::{
    process::{
        Launch, OperatorProcess,
        api::ApiProcess,
        metrics::Metrics,
        place::{Place, eventually, in_seconds, is_ready},
        verifier::VerifierProcess,
    },
    programs::PROMTOOL,
};

fn alerts() -> Value {
    serde_yaml::from_str(&fs::read_to_string(chart().join("files/alerts.yaml")).expect("alerts")).expect("YAML")
}

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(chart().join("files/dashboard.json")).expect("a dashboard")).expect("JSON")
}

/// The queries of the dashboard, each with its panel, and with Grafana's variables filled in.
fn queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query").replace("$namespace", ".*");
            let query = query.replace("$__rate_interval", "5m");
            assert!(!query.contains('$'), "an unknown variable: {query}");
            found.push((panel["title"].as_str().expect("a title").to_owned(), query));
        }
    }
    found
}

fn rules() -> Vec<(String, String)> {
    let alerts = alerts();
    let rules = alerts["groups"][0]["rules"].as_array().expect("rules").iter();
    rules
        .map(|rule| {
            let text = |key: &str| rule[key].as_str().expect("text").to_owned();
            (text("alert"), text("expr"))
        })
        .collect()
}

#[test]
fn promtool_accepts_the_rules_and_each_alert_is_tested() {
    let Some(promtool) = PROMTOOL.or_left_out() else { return };
    let run = |arguments: &[&str]| {
        let output =
            Command::new(&promtool).current_dir(chart().join("files")).args(arguments).output().expect("promtool runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    };
    run(&["check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"]);
    run(&["test", "rules", "alerts.test.yaml"]);
    let tests: Value =
        serde_yaml::from_str(&fs::read_to_string(chart().join("files/alerts.test.yaml")).expect("tests"))
            .expect("YAML");
    let (mut fire, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for test in tests["tests"].as_array().expect("tests") {
        for case in test["alert_rule_test"].as_array().expect("cases") {
            let name = case["alertname"].as_str().expect("a name").to_owned();
            let is_silent = case["exp_alerts"].as_array().expect("a list").is_empty();
            if is_silent { &mut silent } else { &mut fire }.insert(name);
        }
    }
    let all: BTreeSet<_> = rules().into_iter().map(|(name, _)| name).collect();
    assert_eq!(fire, all, "each alert fires in a test");
    assert_eq!(silent, all, "each alert is silent in a test");

    // The dashboard's queries as recording rules.
    let recorded = queries().into_iter().enumerate();
    let recorded: Vec<_> =
        recorded.map(|(n, (_, query))| json!({"record": format!("panel:{n}"), "expr": query})).collect();
    let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a file");
    fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": recorded}]}).to_string()).expect("written");
    let said = run(&["check", "rules", file.path().to_str().expect("text")]);
    assert!(said.contains(&format!("{} rules found", queries().len())), "{said}");
}

/// The metrics and labels that a query uses, as in `name{a="b"}` and `by (a, b)`.
fn names_in(query: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut names, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for (at, _) in query.match_indices("pat_operator_") {
        let rest = &query[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        names.insert(rest[..end].to_owned());
    }
    for (open, close) in [("{", '}'), ("by (", ')')] {
        for (at, _) in query.match_indices(open) {
            let inside = &query[at + open.len()..];
            let inside = &inside[..inside.find(close).expect("the bracket is closed")];
            for part in inside.split(',') {
                let end = part.find(['=', '!', '~']).unwrap_or(part.len());
                labels.insert(part[..end].trim().to_owned());
            }
        }
    }
    (names, labels)
}

#[test]
fn metric_and_label_names_of_queries_are_found() {
    let (names, labels) =
        names_in(r#"sum by (le, a) (rate(pat_operator_x_bucket{namespace=~".*",b!="c"}[5m])) > pat_operator_y"#);
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["pat_operator_x_bucket", "pat_operator_y"]);
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), ["a", "b", "le", "namespace"]);
}

/// The label values that a query uses, as in `reason!~"a|b"`: metric, label and value.
fn values_in(query: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (at, _) in query.match_indices("pat_operator_") {
        let rest = &query[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let Some(inside) = rest[end..].strip_prefix('{') else { continue };
        let inside = &inside[..inside.find('}').expect("the bracket is closed")];
        for part in inside.split(',') {
            let (label, value) = part.split_once(['=', '!']).expect("a comparison");
            let value = value.trim_start_matches(['=', '~']).trim_matches('"');
            let values = value.split('|').map(|one| (rest[..end].to_owned(), label.trim().to_owned(), one.to_owned()));
            found.extend(values);
        }
    }
    found
}

#[test]
fn label_values_of_queries_are_found() {
    let found = values_in(r#"max(pat_operator_x{a!~"b|c", d="e"}) / pat_operator_y > pat_operator_z{f=~"g"}"#);
    let found: Vec<_> = found.iter().map(|(metric, label, value)| (&metric[..], &label[..], &value[..])).collect();
    let x = "pat_operator_x";
    assert_eq!(found, [(x, "a", "b"), (x, "a", "c"), (x, "d", "e"), ("pat_operator_z", "f", "g")]);
}

/// All values that the code uses for a label of a metric, or `None` for labels with values from elsewhere.
fn words(metric: &str, label: &str) -> Option<Vec<&'static str>> {
    match (metric, label) {
        // These come from Kubernetes, HTTP and Prometheus.
        (_, "namespace" | "pod" | "status" | "route" | "le") => None,
        (_, "dialect") => Some(Dialect::ALL.iter().map(|dialect| dialect.as_str()).collect()),
        ("pat_operator_tokens", "ready") => Some(vec!["True", "False", "Unknown"]),
        ("pat_operator_tokens", "reason") => Some(Reason::ALL.iter().map(|reason| reason.as_str()).collect()),
        ("pat_operator_credentials", "state") => {
            Some([CredentialState::Pending, CredentialState::Active, CredentialState::Grace].map(|s| s.as_str()).into())
        }
        (_, "kind") => Some(vec![IssuerKind::TokenIssuer.as_str(), IssuerKind::ClusterTokenIssuer.as_str()]),
        (_, "issuer" | "issuer_namespace") => None,
        ("pat_operator_issuer_calls_total", "result") => Some([&["Ok", "Cancelled"], CallError::CATEGORIES].concat()),
        ("pat_operator_issuer_calls_total", "operation") => {
            Some(controller::issuers::Operation::ALL.map(|operation| operation.as_str()).into())
        }
        ("pat_operator_decisions_total", "reason") => {
            Some(verifier::reason::DecisionReason::ALL.iter().map(|reason| reason.as_str()).collect())
        }
        ("pat_operator_reconcile_errors_total", "category") => Some(controller::error::Error::CATEGORIES.to_vec()),
        ("pat_operator_serving_certificate_errors_total", "category") => Some(certificates::Error::CATEGORIES.to_vec()),
        _ => panic!("unknown label {label} of {metric}"),
    }
}

#[test]
fn alerts_and_dashboard_use_only_existing_label_values() {
    let tests = fs::read_to_string(chart().join("files/alerts.test.yaml")).expect("tests");
    let tests = [("alerts.test.yaml".to_owned(), tests)];
    let mut seen = BTreeSet::new();
    for (whose, query) in rules().into_iter().chain(queries()).chain(tests) {
        for (metric, label, value) in values_in(&query) {
            if let Some(words) = words(&metric, &label) {
                assert!(words.contains(&&value[..]), "{whose}: {metric} has no {label} {value}; it has {words:?}");
                seen.insert((metric, label));
            }
        }
    }
    for (metric, label) in [
        ("pat_operator_tokens", "ready"),
        ("pat_operator_tokens", "reason"),
        ("pat_operator_decisions_total", "reason"),
        ("pat_operator_reconcile_errors_total", "category"),
    ] {
        assert!(seen.contains(&(metric.to_owned(), label.to_owned())), "no query uses {label} of {metric}");
    }
}

/// The labels of each series.
fn served(all: &[Metrics]) -> BTreeMap<String, BTreeSet<String>> {
    let mut served: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for series in all.iter().flat_map(|metrics| metrics.values.keys()) {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        served.entry(name.to_owned()).or_default().extend(labels);
    }
    served
}

/// Starts a controller that has called an issuer, which does not answer.
async fn controller_with_issuer(place: &Place) -> (OperatorProcess, Api<ClusterTokenIssuer>) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "issuer"}, "type": ISSUER_AUTH_TYPE,
        "stringData": {"host": "127.0.0.1:1", "token": "glpat-x"},
    });
    let params = PatchParams::apply("person").force();
    let secrets: Api<Secret> = Api::namespaced(place.client.clone(), place.name());
    secrets.patch("issuer", &params, &Patch::Apply(&secret)).await.expect("a Secret");
    let issuer = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "ClusterTokenIssuer", "metadata": {"name": place.name()},
        "spec": {
            "gitLab": {"url": "http://127.0.0.1:1"}, "auth": {"secretRef": {"name": "issuer"}},
            "policy": {"rules": [{"namespaces": [place.name()]}]},
        },
    });
    let issuers: Api<ClusterTokenIssuer> = Api::all(place.client.clone());
    issuers.patch(place.name(), &params, &Patch::Apply(&issuer)).await.expect("an issuer");
    let mut controller = Launch::controller(&place.kubeconfig())
        .arg("--leader-elect=false")
        .arg(format!("--lease-namespace={}", place.name()))
        .arg("--label-selector=no=pat")
        .arg("--issuers=cluster")
        .arg(format!("--issuer-namespace={}", place.name()))
        .arg("--issuer-insecure-hosts=127.0.0.1")
        .start();
    let name = place.name();
    let called = format!(
        r#"pat_operator_issuer_calls_total{{kind="ClusterTokenIssuer",issuer_namespace="",issuer="{name}",operation="check",result="Unreachable"}}"#
    );
    eventually("the issuer is called", async || controller.metrics().await.values.contains_key(&called)).await;
    (controller, issuers)
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboard_use_only_served_metrics_and_labels() {
    let place = Place::new("figures").await;
    let mut operator = place.operator().start();
    let spec = json!({"rotation": {"interval": "30d"}});
    place.apply("app", spec.clone()).await;
    place.ready("app").await;
    let mut again = spec;
    again["rotateIfIssuedBefore"] = in_seconds(0).into();
    place.apply("app", again).await;
    place.until("app", "rotated", |status| status.revision == Some(2) && is_ready(status)).await;
    let namespaces = format!("--namespaces={}", place.name());
    let mut verifier = VerifierProcess::start(&place.kubeconfig(), &[&namespaces]).await;
    verifier.forwards(&place.token("app").await, 200).await;
    let mut api = ApiProcess::start(&place, &[]).await;
    let listed = api.call("GET", "/cryptlex/v3/personal-access-tokens", &place.token("app").await, None).await;
    assert_ne!(listed.status, 404, "{listed:?}");
    let (mut with_issuers, issuer) = controller_with_issuer(&place).await;
    let served = served(&[
        operator.metrics().await,
        with_issuers.metrics().await,
        verifier.process.metrics().await,
        api.process.metrics().await,
    ]);
    issuer.delete(place.name(), &DeleteParams::default()).await.expect("the issuer is deleted");
    with_issuers.terminate().await;

    // Prometheus adds these labels.
    let of_target = ["namespace", "pod"];
    let cases = rules().into_iter().chain(queries());
    for (whose, query) in cases {
        let (names, labels) = names_in(&query);
        assert!(!names.is_empty(), "{whose}: {query}");
        let mut known: BTreeSet<_> = of_target.map(str::to_owned).into();
        for name in &names {
            let labels = served.get(name).unwrap_or_else(|| panic!("{whose}: {name} is not served"));
            known.extend(labels.iter().cloned());
        }
        let unknown: Vec<_> = labels.difference(&known).collect();
        assert!(unknown.is_empty(), "{whose}: {names:?} have no labels {unknown:?}");
    }
    // The variables of the dashboard.
    let variables = dashboard()["templating"]["list"].as_array().expect("variables").clone();
    let chosen: Vec<_> = variables.iter().filter(|variable| variable["type"] == "query").collect();
    assert!(!chosen.is_empty());
    for variable in chosen {
        let query = variable["query"]["query"].as_str().expect("a query");
        assert_eq!(variable["definition"], query, "the definition equals the query");
        let (name, label) = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(|inside| inside.split_once(", "))
            .unwrap_or_else(|| panic!("not of the form label_values(metric, label): {query}"));
        let labels = served.get(name).unwrap_or_else(|| panic!("{name} is not served"));
        assert!(labels.contains(label) || of_target.contains(&label), "{query}");
        // Panels use the variable.
        let used = format!("${}", variable["name"].as_str().expect("a name"));
        assert!(dashboard()["panels"].to_string().contains(&used), "no panel uses {used}");
    }
    // The dashboard shows each metric.
    let shown: BTreeSet<_> = queries().iter().flat_map(|(_, query)| names_in(query).0).collect();
    let families: BTreeSet<_> =
        served.keys().filter(|name| !name.ends_with("_sum") && !name.ends_with("_count")).collect();
    let hidden: Vec<_> = families.into_iter().filter(|name| !shown.contains(*name)).collect();
    assert!(hidden.is_empty(), "not on the dashboard: {hidden:?}");
    operator.terminate().await;
}

#[test]
fn chart_ships_alerts_and_dashboard_unchanged() {
    let helm = Program::helm();
    let values = chart().join("ci/pod-monitor.yaml");
    let manifests = helm.renders(&["--values", values.to_str().expect("text")]);
    let [rule] = &of_kind(&manifests, "PrometheusRule")[..] else { panic!("one") };
    let mut alerts = alerts();
    for rule in alerts["groups"][0]["rules"].as_array_mut().expect("rules") {
        rule["labels"]["team"] = json!("platform");
    }
    assert_eq!(rule["spec"]["groups"], alerts["groups"]);
    let maps = of_kind(&manifests, "ConfigMap");
    let map = maps.iter().find(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1").expect("a dashboard");
    let shipped: Value = serde_json::from_str(map["data"]["pat-operator.json"].as_str().expect("text")).expect("JSON");
    assert_eq!(shipped, dashboard());

    let values = chart().join("ci/service-monitor.yaml");
    let manifests = helm.renders(&["--values", values.to_str().expect("text")]);
    let [rule] = &of_kind(&manifests, "PrometheusRule")[..] else { panic!("one") };
    let names = rule["spec"]["groups"][0]["rules"].as_array().expect("rules").len();
    assert_eq!(names, rules().len() - 2, "the values disable two alerts");
    // Each monitor selects exactly one Service.
    for monitor in of_kind(&manifests, "ServiceMonitor") {
        let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().expect("a map");
        let services = of_kind(&manifests, "Service");
        let found = services.iter().filter(|service| {
            wanted.iter().all(|(key, value)| service["metadata"]["labels"][key] == *value)
                && service["spec"]["ports"][0]["name"] == monitor["spec"]["endpoints"][0]["port"]
        });
        assert_eq!(found.count(), 1, "{monitor}");
    }
}
