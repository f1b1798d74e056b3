//! Generates `docs/metrics.md` with all metrics of the programs and all alerts of the chart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    sync::Arc,
    time::Duration,
};

use kube::runtime::watcher;
use pat_operator::{
    controller::{
        self,
        event_handlers::{EventHandler, PatHandler},
        gate::ReconcileGate,
        issuers::{IssuerKey, IssuerSettings, Issuers},
        stores::Stores,
    },
    index::{Index, IndexFreshness},
    issuer::CallError,
    rest::{self, dialect::Dialect, store::TokenStore},
    service::Clock,
    verifier,
};
use serde_json::{Value, json};

use super::{checked_in, code, file, openmetrics, table};

const PAGE: &str = include_str!("metrics.md.in");

/// What the names of the metrics of issuers begin with.
const OF_ISSUERS: &str = "pat_operator_issuer_";

#[tokio::test]
async fn metrics_page_lists_each_metric_and_alert() {
    let results: Vec<_> = CallError::CATEGORIES.iter().map(code).collect();
    let page = PAGE
        .replace("{{ controller }}", &metric_table(&controller(), |name| !name.starts_with(OF_ISSUERS)))
        .replace("{{ issuers }}", &metric_table(&controller(), |name| name.starts_with(OF_ISSUERS)))
        .replace("{{ results }}", &results.join(", "))
        .replace("{{ verifier }}", &metric_table(&verifier(), |_| true))
        .replace("{{ api }}", &metric_table(&api(), |_| true))
        .replace("{{ alerts }}", &alerts());
    checked_in::compare("docs/metrics.md", &page);
}

/// The metrics of a controller with one PAT and one issuer, because a family without series is not served.
fn controller() -> String {
    let stores = Arc::new(Stores::default());
    let issuer = json!({"kind": "ClusterTokenIssuer", "name": "gitlab"});
    let pat = json!({
        "metadata": {"name": "app", "namespace": "shop", "uid": "3b241101-e2bb-4255-8caf-4136c566a962", "resourceVersion": "1"},
        "spec": {"issuerRef": issuer, "gitLab": {"project": "a"}},
    });
    let pat = serde_json::from_value(pat).expect("a PAT");
    PatHandler::new(stores.clone(), None).handle(watcher::Event::Apply(pat));
    let gate = Arc::new(ReconcileGate::new(1));
    let address = "http://127.0.0.1:1".parse().expect("an address");
    let client = kube::Client::try_from(kube::Config::new(address)).expect("a client");
    let issuers =
        Arc::new(Issuers::new(client, stores.clone(), gate.clone(), Clock::system(), IssuerSettings::default()));
    let issuer = json!({
        "metadata": {"name": "gitlab", "uid": "u", "creationTimestamp": "2030-01-01T00:00:00Z"},
        "spec": {"gitLab": {"url": "https://gitlab.example.com"}},
    });
    let key = IssuerKey { namespace: None, name: "gitlab".into() };
    issuers.apply(key, serde_json::from_value(issuer).expect("an issuer"));
    let now = "2030-01-01T00:00:00Z".parse().expect("a time");
    controller::metrics::Metrics::new().with_issuers(Some(&issuers)).text(&stores, &gate, true, now)
}

fn verifier() -> String {
    verifier::metrics::Metrics::new().text(&Index::default(), &IndexFreshness::new(1, Duration::from_secs(1)))
}

fn api() -> String {
    let metrics = rest::metrics::Metrics::new();
    for dialect in Dialect::ALL {
        metrics.answered(dialect, "", 200, Duration::ZERO);
    }
    metrics.text(&TokenStore::default(), &IndexFreshness::new(1, Duration::from_secs(1)))
}

/// A table of the metrics in an OpenMetrics text whose names are wanted.
fn metric_table(text: &str, is_wanted: impl Fn(&str) -> bool) -> String {
    let metrics = openmetrics::Metrics::parse(text);
    let helps = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let helps = helps.filter(|(family, _)| is_wanted(family));
    let rows = helps.map(|(family, help)| {
        let type_ = metrics.types[family].as_str();
        let name = match type_ {
            "counter" => format!("{family}_total"),
            _ => family.to_owned(),
        };
        vec![code(&name), type_.to_owned(), labels(&metrics, family), help.to_owned()]
    });
    table(&["metric", "type", "labels", "description"], rows)
}

/// The labels of a family's series, each with the values known from the start.
fn labels(metrics: &openmetrics::Metrics, family: &str) -> String {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for series in metrics.values.keys() {
        let Some((name, labels)) = series.trim_end_matches('}').split_once('{') else { continue };
        let suffix = name.strip_prefix(family);
        if !suffix.is_some_and(|suffix| ["", "_total", "_bucket"].contains(&suffix)) {
            continue;
        }
        for label in labels.split(',') {
            let (label, value) = label.split_once('=').expect("a label has a value");
            found.entry(label).or_default().insert(value.trim_matches('"'));
        }
    }
    found.remove("le");
    let cells = found.into_iter().map(|(label, values)| {
        let values: Vec<_> = values.into_iter().filter(|value| !value.is_empty()).collect();
        match label {
            // These have more values over time. The page on conditions lists them.
            "ready" | "reason" if family == "pat_operator_tokens" => code(&label),
            "kind" | "issuer" | "issuer_namespace" | "result" | "system" if family.starts_with(OF_ISSUERS) => {
                code(&label)
            }
            "route" | "status" => code(&label),
            _ => format!("{}: {}", code(&label), values.join(", ")),
        }
    });
    cells.collect::<Vec<_>>().join("; ")
}

fn alerts() -> String {
    let alerts = fs::read_to_string(file("charts/pat-operator/files/alerts.yaml")).expect("the chart's alerts");
    let alerts: Value = serde_yaml::from_str(&alerts).expect("YAML");
    let rules =
        alerts["groups"].as_array().expect("groups").iter().flat_map(|group| group["rules"].as_array().expect("rules"));
    let mut made = String::new();
    for rule in rules {
        let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
        let severity = text(&rule["labels"]["severity"]);
        let wait = match text(&rule["for"]) {
            wait if wait.is_empty() => "immediately".to_owned(),
            wait => format!("after {wait}"),
        };
        let annotations = &rule["annotations"];
        let summary = without_placeholders(&text(&annotations["summary"]));
        let _ = write!(
            made,
            "### {}\n\n**{severity}**, {wait}: {summary}\n\n```promql\n{}\n```\n\n{}\n\n",
            text(&rule["alert"]),
            text(&rule["expr"]),
            text(&annotations["description"]),
        );
    }
    made.trim_end().to_owned()
}

/// A summary with an ellipsis for each placeholder. A namespace is left out, because not every issuer has one.
fn without_placeholders(summary: &str) -> String {
    let summary = summary.replace("{{ with $labels.issuer_namespace }}{{ . }}/{{ end }}", "");
    let mut parts = summary.split("{{");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + "…" + part.split_once("}}").expect("the placeholder ends").1)
}
