//! The real binary from start to shutdown: its messages, endpoints and effects.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::support::is_left_out;
use crate::support::process::{
    Launch, SOON,
    api::ApiProcess,
    place::{Place, eventually, in_seconds, is_ready},
    verifier::VerifierProcess,
    wire::Wire,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::CommandFactory;
use control_plane::{Binary, ControlPlane, Identity, Options};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PropagationPolicy},
    core::{ApiResource, GroupVersionKind},
};
use pat_operator::api::{CredentialState, crd};
use serde_json::{Value, json};

/// The longest time from SIGTERM to the exit of the process.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

fn temporary_file(text: &str) -> tempfile::TempPath {
    let file = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
    std::fs::write(&file, text).expect("the file is written");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_namespaces_are_told_at_start() {
    let place = Place::new("nowhere").await;
    let missing = format!("{}-missing", place.name());
    let both = format!("--namespaces={},{missing}", place.name());
    let told = format!("namespace {missing} does not exist");
    let mut controller = place.operator().arg(&both).start();
    controller.logs(&["--namespaces", &told]).await;
    assert!(!controller.has_logged(&[&format!("namespace {} does not exist", place.name())]), "{controller}");
    controller.terminate().await;
    let mut verifier = VerifierProcess::start(&place.kubeconfig(), &[&both]).await;
    verifier.process.logs(&["--namespaces", &told]).await;
    verifier.process.terminate().await;
    let only = format!("--namespace={missing}");
    let mut api = ApiProcess::begin(&place, &place.kubeconfig(), &[&only]).await;
    api.process.logs(&["--namespace:", &told]).await;
    api.process.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_errors_are_one_line() {
    let place = Place::new("refused").await;
    let good = place.access.kubeconfig_text(&Identity::admin()).unwrap();
    let url = place.access.api_server_url();
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut kubeconfig: Value = serde_yaml::from_str(&good).unwrap();
        edit(&mut kubeconfig);
        temporary_file(&kubeconfig.to_string())
    };
    let server = |server: &str| edited(&|config| config["clusters"][0]["cluster"]["server"] = server.into());
    let user = |user: Value| edited(&|config| config["users"][0]["user"] = user.clone());
    // A certificate of another authority, as after a rebuild of the cluster.
    let other_cluster = ClusterCredentials::of_another_cluster(&good);

    let closed_port = server("https://127.0.0.1:1");
    let no_such_name = server("https://api.invalid:6443");
    let plain = server(&url.replace("https://", "http://"));
    let bad_token = user(json!({"token": "s3cret-but-wrong"}));
    let nameless = user(json!({}));
    let wrong_authority = edited(&|config| {
        config["clusters"][0]["cluster"]["certificate-authority-data"] = other_cluster.authority.clone()
    });
    let no_authority = edited(&|config| {
        config["clusters"][0]["cluster"]["certificate-authority-data"] = "bm9uc2Vuc2U=".into();
    });
    let no_plugin = user(json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "/no/such/plugin", "interactiveMode": "Never",
    }}));
    let not_yaml = temporary_file("users: [{user: {token: s3cret-in-a-file}}");
    let empty = temporary_file("");
    let missing = PathBuf::from("/nonexistent/kubeconfig");

    let cases: [(&str, &Path, &[&str]); 11] = [
        ("a missing file", &missing, &["cannot read /nonexistent/kubeconfig", "KUBECONFIG"]),
        ("an empty file", &empty, &["kubeconfig", "KUBECONFIG"]),
        ("a file that is not YAML", &not_yaml, &["not YAML", "KUBECONFIG"]),
        ("a closed port", &closed_port, &["no API server listens at this address", "is it running"]),
        ("an unknown host name", &no_such_name, &["the API server's name cannot be resolved"]),
        ("plain HTTP to a TLS port", &plain, &["400"]),
        (
            "a wrong token",
            &bad_token,
            &[
                "rejects our credentials (401",
                "context \"control-plane\", server https://",
                "renew the kubeconfig's user",
            ],
        ),
        ("no credentials", &nameless, &["rejects our credentials (401"]),
        ("another authority", &wrong_authority, &["no secure connection to the API server", "certificate-authority"]),
        ("an invalid authority", &no_authority, &["kubeconfig"]),
        ("a missing credentials plugin", &no_plugin, &["no credentials for the API server", "exec"]),
    ];
    for (what, kubeconfig, parts) in cases {
        let ended = Launch::controller(kubeconfig).run().await;
        let line = ended.refusal();
        for part in parts {
            assert!(line.contains(part), "{what}: no {part:?} in {line}");
        }
        assert!(line.len() < 500, "{what}: {line}");
        assert!(!ended.to_string().contains("s3cret"), "{what}: {ended}");
    }

    let nowhere = Launch::new(&["controller", "--health-addr=127.0.0.1:0"]).run().await.refusal();
    assert!(nowhere.contains("no kubeconfig and not in a cluster: set KUBECONFIG"), "{nowhere}");
    // In a pod, the operator does not use ~/.kube/config.
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".kube")).unwrap();
    std::fs::write(home.path().join(".kube/config"), &good).unwrap();
    let podless = Launch::new(&["controller", "--health-addr=127.0.0.1:0"]).env("HOME", home.path());
    let podless = podless.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", "1");
    let podless = podless.run().await.refusal();
    assert!(podless.contains("without a usable ServiceAccount"), "{podless}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ended = Launch::new(&["controller"]).env("KUBECONFIG", place.kubeconfig());
    let line = ended.arg(format!("--health-addr={address}")).run().await.refusal();
    assert!(line.contains(&format!("cannot listen on {address}")) && line.contains("--health-addr"), "{line}");

    let lease = Launch::controller(&place.kubeconfig()).arg(format!("--namespaces={}", place.name()));
    let line = lease.arg("--lease-namespace=no-such-namespace").run().await.refusal();
    assert!(line.contains("needs namespace no-such-namespace, which does not exist"), "{line}");
}

/// Credentials of another cluster.
struct ClusterCredentials {
    authority: Value,
}

impl ClusterCredentials {
    /// Any certificate except the authority's is suitable, because it did not sign the API server's certificate.
    fn of_another_cluster(kubeconfig: &str) -> Self {
        let kubeconfig: Value = serde_yaml::from_str(kubeconfig).unwrap();
        Self { authority: kubeconfig["users"][0]["user"]["client-certificate-data"].clone() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_command_line_exits_with_2_and_a_hint() {
    let too_many: Vec<String> = (0..51).map(|n| format!("n{n}")).collect();
    let too_many = format!("--namespaces={}", too_many.join(","));
    for (arguments, part) in [
        (&[][..], "Usage: pat-operator"),
        (&["control"], "similar subcommand exists: 'controller'"),
        (&["controller", "--namespace=a"], "a similar argument exists: '--namespaces'"),
        (&["controller", "--concurrency=0"], "1..=256"),
        (&["controller", "--publish-lead=2"], "30d, 2w, 12h or 1d12h"),
        (&["controller", "--log-level=loud"], "write error, warn, info, debug or trace"),
        (&["controller", "--label-selector=a=\"b\""], "write it as for `kubectl get -l`"),
        (&["controller", &too_many], "51 namespaces are too many for one instance: list at most 50"),
    ] {
        let ended = Launch::new(arguments).run().await;
        assert_eq!(ended.code, 2, "{arguments:?}: {ended}");
        assert!(ended.stderr.join("\n").contains(part), "{arguments:?}: no {part:?} in {ended}");
        assert!(ended.stdout.is_empty(), "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn help_lists_every_flag_and_variable() {
    let help = Launch::new(&["controller", "--help"]).run().await;
    assert_eq!((help.code, help.stderr.len()), (0, 0), "{help}");
    let help = help.stdout.join("\n");
    let command = pat_operator::cli::Cli::command();
    let controller = command.find_subcommand("controller").unwrap();
    let mut variables = 0;
    for flag in controller.get_arguments().filter(|flag| flag.get_id() != "help") {
        let (long, variable) = (flag.get_long().unwrap(), flag.get_env().unwrap().to_str().unwrap());
        assert!(help.contains(&format!("--{long}")), "--{long} is missing in:\n{help}");
        assert!(help.contains(&format!("[env: {variable}=]")), "{variable} is missing in:\n{help}");
        // No flag accepts this value, so a refusal proves that the variable was read.
        let ended = Launch::new(&["controller"]).env(variable, "?!").run().await;
        let stderr = ended.stderr.join("\n");
        assert_eq!(ended.code, 2, "{variable}: {ended}");
        assert!(stderr.contains(&format!("--{long}")), "{variable}: {stderr}");
        variables += 1;
    }
    assert_eq!(variables, 19);
    let short = Launch::new(&["controller", "-h"]).run().await;
    assert_eq!(short.code, 0, "{short}");
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_variables_set_every_flag() {
    if is_left_out(Binary::KubeControllerManager) {
        return;
    }
    let place = Place::new("environment").await;
    let elsewhere = Place::new("elsewhere").await;
    // A Secret whose PAT no longer exists, as in a restored backup.
    let issuer = place.operator().start();
    place.apply_labelled("restored", json!({"shard": "a"}), json!({})).await;
    let restored = place.ready("restored").await;
    issuer.terminate().await;
    let orphaning = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    place.pats().delete("restored", &orphaning).await.unwrap();
    eventually("the PAT is gone and its Secret has no owner", async || {
        let secret = place.secrets().get("restored").await.unwrap();
        place.pats().get_opt("restored").await.unwrap().is_none() && secret.metadata.owner_references.is_none()
    })
    .await;
    place.apply_labelled("restored", json!({"shard": "a"}), json!({})).await;

    place.apply_labelled("other-shard", json!({"shard": "b"}), json!({})).await;
    elsewhere.apply_labelled("other-namespace", json!({"shard": "a"}), json!({})).await;
    let launch = Launch::new(&["controller"])
        .env("KUBECONFIG", place.kubeconfig())
        .env("PAT_OPERATOR_HEALTH_ADDR", "127.0.0.1:0")
        .env("PAT_OPERATOR_NAMESPACES", place.name())
        .env("PAT_OPERATOR_LABEL_SELECTOR", "shard=a")
        .env("PAT_OPERATOR_CONCURRENCY", "1")
        .env("PAT_OPERATOR_DEFAULT_LIFETIME", "10d")
        .env("PAT_OPERATOR_PUBLISH_LEAD", "5s")
        .env("PAT_OPERATOR_RESTORE_ISSUED_BEFORE", in_seconds(0))
        .env("PAT_OPERATOR_ISSUE_EVENTS", "true")
        .env("PAT_OPERATOR_LEADER_ELECT", "true")
        .env("PAT_OPERATOR_LEASE_NAME", "shard.a")
        .env("PAT_OPERATOR_LEASE_NAMESPACE", elsewhere.name())
        .env("PAT_OPERATOR_LOG_FORMAT", "json")
        .env("PAT_OPERATOR_LOG_LEVEL", "info,pat_operator::service=debug");
    let mut operator = launch.start();
    assert!(operator.address().await.ip().is_loopback());
    operator.is_ready().await;
    for line in operator.log() {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a line of JSON: {line}"));
        assert!(["INFO", "DEBUG"].contains(&line["level"].as_str().unwrap()), "{line}");
    }
    let leases: Api<DynamicObject> = Api::namespaced_with(
        place.client.clone(),
        elsewhere.name(),
        &ApiResource::from_gvk(&GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease")),
    );
    eventually("the Lease is in the configured namespace", async || leases.get_opt("shard.a").await.unwrap().is_some())
        .await;

    assert_eq!(place.ready("restored").await, restored, "the Secret was adopted");
    place.apply_labelled("mine", json!({"shard": "a"}), json!({})).await;
    place.ready("mine").await;
    eventually("the event is published", async || {
        place.events("mine").await.iter().any(|(reason, _)| reason == "Issued")
    })
    .await;
    let status = place.status("mine").await;
    let lifetime = status.default_expires_at.unwrap().since(status.first_issued_at.unwrap());
    assert_eq!(lifetime.as_hours(), 240, "{lifetime}");

    let spec = json!({"rotation": {"interval": "30d"}});
    place.apply_labelled("rotated", json!({"shard": "a"}), spec).await;
    let first = place.ready("rotated").await;
    let spec = json!({"rotation": {"interval": "30d"}, "rotateIfIssuedBefore": in_seconds(0)});
    let asked_at = Instant::now();
    place.apply_labelled("rotated", json!({"shard": "a"}), spec).await;
    place.until("rotated", "rotated", |status| status.revision == Some(2) && is_ready(status)).await;
    assert!(asked_at.elapsed() >= Duration::from_secs(5), "the flag's default is 2s: {:?}", asked_at.elapsed());
    assert_ne!(place.token("rotated").await, first);

    assert_eq!(place.status("other-shard").await, Default::default());
    assert_eq!(elsewhere.status("other-namespace").await, Default::default());
    operator.terminate().await;

    let alone = place.operator().env("PAT_OPERATOR_LEADER_ELECT", "false").start();
    let mut alone = alone;
    alone.is_ready().await;
    assert!(alone.get("/readyz?verbose").await.body.contains("[+]lease ok: leader election is off"));
    place.ready("other-shard").await;
    assert_eq!(place.lease_holder().await, None, "the default Lease is not used");
    alone.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_crd_is_awaited_and_logged_once() {
    let plane = ControlPlane::start(Options::default()).await.expect("a control plane");
    let place = Place::on(&plane, "early").await;
    let mut operator = place.operator().start();
    operator.logs(&["waiting: ", "personalaccesstokens.pat-operator.io is not installed"]).await;
    let response = operator.get("/readyz").await;
    assert_eq!(response.code, 503, "{}", response.body);
    let line = "[-]crd not ready: personalaccesstokens.pat-operator.io is not installed: kubectl apply -f crds/";
    assert!(response.body.contains(line) && response.body.ends_with("readyz check failed\n"), "{}", response.body);
    assert!(response.body.contains("[-]caches not ready: "), "{}", response.body);
    assert_eq!(operator.get("/livez").await.code, 200, "a waiting process is alive");
    operator.metrics().await;

    // A second process is stopped while it waits.
    let mut stopped = place.operator().start();
    stopped.logs(&["is not installed"]).await;
    let ended = stopped.terminate().await;
    assert!(ended.took < Duration::from_secs(2), "{ended}");

    crate::support::crd::install_crds(&place.client).await;
    operator.is_ready().await;
    place.apply("app", json!({})).await;
    place.ready("app").await;
    operator.logs(&["INFO", "reason=Issued", "was issued to Secret"]).await;
    let warnings = operator.log().iter().filter(|line| line.contains("is not installed")).count();
    assert_eq!(warnings, 1, "{operator}");
    operator.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_report_state_without_object_names() {
    let place = Place::new("endpoints").await;
    let mut operator = place.operator().arg("--publish-lead=0s").start();
    operator.leads_within(SOON).await;
    operator.is_ready().await;
    for (path, code, body) in [
        ("/livez", 200, "ok"),
        ("/livez?verbose", 200, "[+]ping ok\nlivez check passed\n"),
        ("/readyz", 200, "ok"),
        ("/nothing", 404, "not found: try /livez, /readyz or /metrics\n"),
    ] {
        let answer = operator.get(path).await;
        assert_eq!((answer.code, &*answer.body), (code, body), "{path}");
    }
    let verbose = operator.get("/readyz?verbose").await.body;
    let lines: Vec<_> = verbose.lines().map(|line| line.split(" since").next().unwrap_or(line)).collect();
    assert_eq!(lines, ["[+]crd ok", "[+]caches ok", "[+]lease ok: leading", "readyz check passed"]);

    let empty = operator.metrics().await;
    for category in pat_operator::controller::error::Error::CATEGORIES {
        let series = format!(r#"pat_operator_reconcile_errors_total{{category="{category}"}}"#);
        assert_eq!(empty.value(&series), 0.0, "every category exists from the start");
    }
    assert_eq!(empty.value("pat_operator_nearest_expiry_seconds"), f64::INFINITY);
    assert_eq!(empty.value("pat_operator_nearest_rotation_seconds"), f64::INFINITY);
    assert_eq!(empty.value("pat_operator_leader"), 1.0);

    let peculiar = "zyzzyva-0.peculiar";
    let spec = json!({"rotation": {"interval": "30d"}, "secret": {"name": "quixotic-secret"}});
    place.apply(peculiar, spec.clone()).await;
    place.apply("expires", json!({"expiry": {"after": "12h"}})).await;
    place.apply("is-revoked", json!({})).await;
    place.all_ready(3).await;
    let tokens = [place.token("quixotic-secret").await, place.token("expires").await];
    let minted = operator.metrics().await;
    for (family, type_) in [
        ("mints", "counter"),
        ("rotations", "counter"),
        ("revocations", "counter"),
        ("repairs", "counter"),
        ("reconcile_errors", "counter"),
        ("reconcile_duration_seconds", "histogram"),
        ("queue_lag_seconds", "histogram"),
        ("queue_oldest_due_seconds", "gauge"),
        ("tokens", "gauge"),
        ("credentials", "gauge"),
        ("nearest_expiry_seconds", "gauge"),
        ("nearest_rotation_seconds", "gauge"),
        ("nearest_grace_end_in_use_seconds", "gauge"),
        ("leader", "gauge"),
    ] {
        let name = format!("pat_operator_{family}");
        assert_eq!(minted.types.get(&name).map(String::as_str), Some(type_), "{name} in:\n{}", minted.text);
    }
    assert_eq!(minted.value("pat_operator_mints_total"), 3.0);
    assert_eq!(minted.value("pat_operator_rotations_total"), 0.0);
    assert_eq!(minted.value("pat_operator_secrets"), 3.0);
    assert_eq!(minted.value(r#"pat_operator_credentials{state="Active"}"#), 3.0);
    assert_eq!(minted.value(r#"pat_operator_tokens{ready="True",reason="Issued"}"#), 3.0);
    assert!(minted.value("pat_operator_reconcile_duration_seconds_count") >= 3.0);
    assert!(minted.value("pat_operator_queue_lag_seconds_count") >= 3.0);
    let hours = |value: f64| value / 3600.0;
    let expiry = hours(minted.value("pat_operator_nearest_expiry_seconds"));
    // Expiry times are rounded up to whole seconds.
    assert!((11.9..12.001).contains(&expiry), "{expiry}");
    let rotation = hours(minted.value("pat_operator_nearest_rotation_seconds"));
    assert!((24.0 * 26.0..=24.0 * 30.0).contains(&rotation), "{rotation}");

    let mut again = spec;
    again["rotateIfIssuedBefore"] = in_seconds(0).into();
    place.apply(peculiar, again).await;
    place.until(peculiar, "rotated", |status| status.revision == Some(2) && is_ready(status)).await;
    place.apply("is-revoked", json!({"revoked": true})).await;
    place.has("is-revoked", "Ready", "False", "Revoked").await;
    place.secrets().delete("expires", &DeleteParams::default()).await.unwrap();
    place.until("expires", "repaired", |status| status.revision == Some(2) && is_ready(status)).await;
    // The operator sees its own writes a moment later than the test.
    eventually("the metrics show all tokens", async || {
        let metrics = operator.metrics().await;
        metrics.value(r#"pat_operator_credentials{state="Grace"}"#) == 2.0
            && metrics.value(r#"pat_operator_tokens{ready="True",reason="Issued"}"#) == 2.0
    })
    .await;
    let after = operator.metrics().await;
    assert_eq!(after.value("pat_operator_nearest_grace_end_in_use_seconds"), f64::INFINITY);
    assert_eq!(after.value("pat_operator_rotations_total"), 1.0);
    assert_eq!(after.value("pat_operator_revocations_total"), 1.0);
    assert_eq!(after.value("pat_operator_repairs_total"), 1.0);
    assert_eq!(after.value("pat_operator_mints_total"), 5.0);
    assert_eq!(after.value(r#"pat_operator_credentials{state="Grace"}"#), 2.0);
    assert_eq!(after.value(r#"pat_operator_tokens{ready="False",reason="Revoked"}"#), 1.0);
    assert_eq!(after.value(r#"pat_operator_tokens{ready="True",reason="Issued"}"#), 2.0);

    let ids = tokens.map(|token| token.split('_').nth(1).unwrap()[..12].to_owned());
    // The replaced token is still used, as a verifier would report it.
    let use_ = json!({"status": {"usage": {&ids[0]: in_seconds(600)}}});
    place.pats().patch_status(peculiar, &PatchParams::default(), &Patch::Merge(use_)).await.unwrap();
    let within = Instant::now() + SOON;
    loop {
        let ends = hours(operator.metrics().await.value("pat_operator_nearest_grace_end_in_use_seconds"));
        if ends.is_finite() {
            assert!((23.9..24.001).contains(&ends), "{ends}");
            break;
        }
        assert!(Instant::now() < within, "the metric does not reflect the use in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for word in ["zyzzyva", "peculiar", "quixotic", place.name(), &*ids[0], &*ids[1]] {
        assert!(!after.text.contains(word), "{word} is in:\n{}", after.text);
    }
    operator.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_finishes_only_started_rotations() {
    const COUNT: usize = 200;
    let place = Place::new("load").await;
    place.apply_many("app", COUNT, &json!({"rotation": {"interval": "30d"}})).await;
    let mut operator = place.operator().start();
    let mut minted = 0.0;
    while minted < 20.0 {
        assert!(operator.is_running());
        minted = operator.metrics().await.value("pat_operator_mints_total");
    }
    let ended = operator.terminate().await;
    assert!(ended.took < SHUTDOWN_LIMIT, "{ended}");
    assert_eq!(place.lease_holder().await, None, "the lease is released");

    let statuses = place.statuses().await;
    let done = statuses.iter().filter(|(_, status)| is_ready(status)).count();
    eprintln!("{done} of {COUNT} were done when the process exited after {:?}", ended.took);
    assert!(done < COUNT, "the process exited before all work was done");
    let unfinished: Vec<_> = statuses.iter().filter(|(_, status)| status.credentials.iter().any(is_pending)).collect();
    assert!(unfinished.is_empty(), "{} were left unfinished, such as {:#?}", unfinished.len(), unfinished[0]);
    let secrets = place.secrets().list(&ListParams::default()).await.unwrap().items.len();
    assert_eq!(secrets, done, "every Secret has a status, and every status a Secret");
    assert_eq!(statuses.iter().filter(|(_, status)| status.revision.is_some()).count(), done);

    let mut next = place.operator().start();
    place.all_ready(COUNT).await;
    for (name, status) in place.statuses().await {
        assert_eq!((status.revision, status.credentials.len()), (Some(1), 1), "{name} was minted once: {status:#?}");
    }
    assert_eq!(next.metrics().await.value("pat_operator_mints_total"), (COUNT - done) as f64);
    next.terminate().await;
}

fn is_pending(credential: &pat_operator::api::Credential) -> bool {
    credential.state == CredentialState::Pending
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_is_on_time_without_an_api_server() {
    let place = Place::new("deaf").await;
    let wire = Wire::to(&place.access).await;
    let kubeconfig = wire.kubeconfig_for(&Identity::admin());
    let launch = |lease: &str| Launch::controller_in(&kubeconfig, place.name()).arg(format!("--lease-name={lease}"));
    let mut patient = launch("patient").start();
    let mut hasty = launch("hasty").start();
    patient.leads_within(SOON).await;
    hasty.leads_within(SOON).await;
    wire.hold();
    place.apply_many("app", 5, &json!({})).await;
    // Both processes have started on all five PATs.
    wire.wait_until_held(10).await;

    patient.signal("TERM");
    hasty.signal("TERM");
    hasty.logs(&["stopping: ", "SIGTERM"]).await;
    patient.logs(&["stopping: ", "SIGTERM"]).await;
    hasty.signal("TERM");
    let ended = hasty.ends_within(Duration::from_secs(2)).await;
    assert_eq!(ended.code, 143, "{ended}");
    let ended = patient.ends_within(SHUTDOWN_LIMIT + Duration::from_secs(5)).await;
    assert_eq!(ended.code, 0, "{ended}");
    eprintln!("exited without an API server after {:?}", ended.took);
    assert!(ended.took < SHUTDOWN_LIMIT, "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_token_does_not_block_others() {
    if is_left_out(Binary::KubeControllerManager) {
        return;
    }
    const GOOD: usize = 20;
    let plane = ControlPlane::start(Options::default().apply("crds")).await.expect("a control plane");
    let place = Place::on(&plane, "good").await;
    let barred = Place::on(&plane, "barred").await;
    let dying = Place::on(&plane, "dying").await;
    deny_secrets(&barred).await;
    dying.apply("stuck", json!({})).await;
    terminate_namespace_but_keep(&dying, "stuck").await;

    barred.apply("refused", json!({})).await;
    let broken_template = json!({"secret": {"template": {"data": {"conf": "{{ tokn }}"}}}});
    place.apply("bad-template", broken_template).await;
    let foreign: Value = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken"}, "stringData": {"token": "foreign"},
    });
    let params = PatchParams::apply("other");
    place.secrets().patch("taken", &params, &Patch::Apply(foreign)).await.unwrap();
    place.apply("taken", json!({})).await;
    relax_schema(&place).await;
    let garbage = json!({"scopes": "not-a-list", "rotation": 7});
    eventually("the API server accepts an invalid spec", async || {
        place.try_apply("garbage", json!({}), garbage.clone()).await.is_ok()
    })
    .await;

    // Works in all namespaces, with all of these objects from the start.
    let mut operator =
        Launch::controller(&place.kubeconfig()).arg(format!("--lease-namespace={}", place.name())).start();
    operator.is_ready().await;
    let names = place.apply_many("good", GOOD, &json!({"rotation": {"interval": "30d"}})).await;
    for name in &names {
        place.ready(name).await;
    }
    let reported = barred.has("refused", "Ready", "False", "ApiError").await;
    assert!(reported.message.contains("no Secrets here"), "the API server's message: {}", reported.message);
    let reported = place.has("bad-template", "Ready", "False", "InvalidSpec").await;
    assert!(
        reported.message.contains("spec.secret.template.data") && reported.message.contains("tokn"),
        "{}",
        reported.message
    );
    place.has("bad-template", "Stalled", "True", "InvalidSpec").await;
    let reported = place.has("taken", "Ready", "False", "SecretConflict").await;
    assert!(reported.message.contains("taken"), "{}", reported.message);
    assert_eq!(place.token("taken").await, "foreign");
    let reported = dying.has("stuck", "Ready", "False", "NamespaceTerminating").await;
    assert!(!reported.message.is_empty());
    assert_eq!(dying.value("stuck", "token").await, None);
    let raw = wait_for_ready_status(&place, "garbage", "False").await;
    let ready = condition(&raw, "Ready");
    assert_eq!(ready["reason"], "InvalidSpec", "{raw:#}");
    assert!(ready["message"].as_str().unwrap().contains("scopes") || !ready["message"].as_str().unwrap().is_empty());
    assert_eq!(condition(&raw, "Stalled")["status"], "True", "{raw:#}");
    assert_eq!(raw["spec"], garbage, "the spec is untouched");

    // A restart and rotations succeed despite these objects.
    operator.terminate().await;
    let mut operator =
        Launch::controller(&place.kubeconfig()).arg(format!("--lease-namespace={}", place.name())).start();
    for name in &names {
        let rotated = json!({"rotation": {"interval": "30d"}, "rotateIfIssuedBefore": in_seconds(0)});
        place.apply(name, rotated).await;
    }
    for name in &names {
        place.until(name, "rotated", |status| status.revision == Some(2) && is_ready(status)).await;
    }
    let metrics = operator.metrics().await;
    assert_eq!(metrics.value(r#"pat_operator_reconcile_errors_total{category="Panicked"}"#), 0.0);
    assert_eq!(metrics.value(r#"pat_operator_reconcile_errors_total{category="Restless"}"#), 0.0);

    // Each object recovers once its cause is removed.
    let policy = format!("barred-{}", barred.name());
    let bindings: Api<DynamicObject> = admission(&place, "ValidatingAdmissionPolicyBinding");
    bindings.delete(&policy, &DeleteParams::default()).await.unwrap();
    place.apply("bad-template", json!({"secret": {"template": {"data": {"conf": "{{ token }}"}}}})).await;
    place.ready("bad-template").await;
    place.apply("garbage", json!({"scopes": ["read"]})).await;
    place.ready("garbage").await;
    barred.ready("refused").await;
    operator.terminate().await;
    remove_finalizer(&dying, "stuck").await;
}

fn admission(place: &Place, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    Api::all_with(place.client.clone(), &ApiResource::from_gvk(&kind))
}

/// Makes the API server deny Secrets in this namespace.
async fn deny_secrets(place: &Place) {
    let name = format!("barred-{}", place.name());
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"],
            }]},
            "validations": [{"expression": "false", "message": "no Secrets here"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place.name()}}},
        },
    });
    let params = PatchParams::apply("tests");
    admission(place, "ValidatingAdmissionPolicy").patch(&name, &params, &Patch::Apply(policy)).await.unwrap();
    admission(place, "ValidatingAdmissionPolicyBinding").patch(&name, &params, &Patch::Apply(binding)).await.unwrap();
    let probe: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(json!({"metadata": {"generateName": "probe-"}})).unwrap();
    let dry = kube::api::PostParams { dry_run: true, ..Default::default() };
    eventually("the policy is in force", async || place.secrets().create(&dry, &probe).await.is_err()).await;
}

/// Deletes the namespace, while a finalizer on this PAT keeps it from going.
async fn terminate_namespace_but_keep(place: &Place, pat: &str) {
    let hold = json!({"metadata": {"finalizers": ["example.org/hold"]}});
    place.pats().patch(pat, &PatchParams::default(), &Patch::Merge(hold)).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(place.client.clone());
    namespaces.delete(place.name(), &DeleteParams::default()).await.unwrap();
    // The PAT is not deleted yet, so the controller tries to create a Secret that the namespace refuses.
    let probe: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(json!({"metadata": {"generateName": "probe-"}})).unwrap();
    let dry = kube::api::PostParams { dry_run: true, ..Default::default() };
    eventually("the namespace refuses new objects", async || place.secrets().create(&dry, &probe).await.is_err()).await;
}

async fn remove_finalizer(place: &Place, pat: &str) {
    let free = json!({"metadata": {"finalizers": null}});
    let _ = place.pats().patch(pat, &PatchParams::default(), &Patch::Merge(free)).await;
}

/// Relaxes the CRD so that any spec is stored.
async fn relax_schema(place: &Place) {
    let crds: Api<CustomResourceDefinition> = Api::all(place.client.clone());
    let mut definition = serde_json::to_value(crds.get(crd::NAME).await.unwrap()).unwrap();
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let spec = schema["properties"]["spec"].as_object_mut().unwrap();
    spec.remove("x-kubernetes-validations");
    for field in ["scopes", "rotation"] {
        spec["properties"][field] = json!({"x-kubernetes-preserve-unknown-fields": true});
    }
    let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
    crds.replace(crd::NAME, &Default::default(), &definition).await.expect("the CRD is relaxed");
}

fn condition<'a>(pat: &'a Value, type_: &str) -> &'a Value {
    let conditions = pat["status"]["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|one| one["type"] == type_)).unwrap_or(&Value::Null)
}

/// Waits until `Ready` has this status, and returns the raw object.
async fn wait_for_ready_status(place: &Place, name: &str, status: &str) -> Value {
    let kind = GroupVersionKind::gvk("pat-operator.io", "v1alpha1", "PersonalAccessToken");
    let api: Api<DynamicObject> =
        Api::namespaced_with(place.client.clone(), place.name(), &ApiResource::from_gvk(&kind));
    let deadline = Instant::now() + SOON;
    loop {
        let pat = serde_json::to_value(api.get(name).await.unwrap()).unwrap();
        if condition(&pat, "Ready")["status"] == status {
            return pat;
        }
        assert!(Instant::now() < deadline, "{name} is not Ready={status} in time: {pat:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_in_logs_metrics_events_or_status() {
    // A level alone does not include the libraries.
    const EVERYTHING: &str = "--log-level=trace,kube_client=trace,kube_runtime=trace,hyper=trace,hyper_util=trace,\
                              rustls=trace,tower=trace";
    let place = Place::new("canary").await;
    let mut operator = place.operator().arg("--publish-lead=0s").arg(EVERYTHING).start();
    operator.is_ready().await;
    let specs = [
        ("plain", json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "previous"}})),
        (
            "login",
            json!({"rotation": {"interval": "30d"}, "secret": {
                "type": "kubernetes.io/basic-auth", "template": {"preset": "BasicAuth", "username": "me"},
            }}),
        ),
        (
            "pulls",
            json!({"rotation": {"interval": "30d"}, "secret": {
                "type": "kubernetes.io/dockerconfigjson",
                "template": {"preset": "DockerConfigJson", "host": "registry.example.org"},
            }}),
        ),
        (
            "words",
            json!({"rotation": {"interval": "30d"}, "secret": {
                "template": {"data": {"conf": "Authorization: Basic {{ token | b64encode }}"}},
            }}),
        ),
    ];
    let mut tokens = BTreeSet::new();
    for (name, spec) in &specs {
        place.apply(name, spec.clone()).await;
        tokens.insert(place.ready(name).await);
        tokens.insert(place.rotated(name, spec.clone()).await);
        // Repairs and refused writes produce messages.
        place.secrets().delete(name, &DeleteParams::default()).await.unwrap();
        place.until(name, "repaired", |status| status.revision == Some(3) && is_ready(status)).await;
        tokens.insert(place.token(name).await);
    }
    assert_eq!(tokens.len(), 12);
    let frozen = json!({"immutable": true});
    place.secrets().patch("plain", &PatchParams::default(), &Patch::Merge(frozen)).await.unwrap();
    let mut again = specs[0].1.clone();
    again["rotateIfIssuedBefore"] = in_seconds(0).into();
    place.apply("plain", again).await;
    place.has("plain", "Reconciling", "True", "SecretImmutable").await;

    let mut places = vec![("metrics", operator.metrics().await.text)];
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(place.client.clone(), place.name());
    places.push(("events", serde_json::to_string(&events.list(&ListParams::default()).await.unwrap().items).unwrap()));
    places.push((
        "PATs",
        serde_json::to_string(&place.pats().list(&ListParams::default()).await.unwrap().items).unwrap(),
    ));
    let mut metadata = place.secrets().list(&ListParams::default()).await.unwrap().items;
    metadata.iter_mut().for_each(|secret| secret.data = None);
    places.push(("Secrets without their data", serde_json::to_string(&metadata).unwrap()));
    let ended = operator.terminate().await;
    assert!(ended.stderr.len() > 500, "the trace log is long: {} lines", ended.stderr.len());
    places.push(("the log", ended.stderr.join("\n")));
    for token in &tokens {
        let id = token.split('_').nth(1).unwrap()[..12].to_owned();
        assert!(places.iter().any(|(_, text)| text.contains(&id)), "the search finds what is present");
        let secret_part = &token[token.len() - 49..token.len() - 6];
        let encoded = STANDARD.encode(token);
        for (what, text) in &places {
            assert!(!text.contains(secret_part), "a token is in {what}");
            assert!(!text.contains(encoded.trim_end_matches('=')), "a token in base64 is in {what}");
        }
    }
}
