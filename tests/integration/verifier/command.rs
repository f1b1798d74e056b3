//! Errors at start, and the help of the command line.

use clap::CommandFactory;
use control_plane::Identity;

use crate::support::process::{Launch, place::Place};

fn verifier(place: &Place) -> Launch {
    Launch::new(&["verifier", "--health-addr=127.0.0.1:0"]).env("KUBECONFIG", place.kubeconfig())
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_at_start_are_one_line() {
    let place = Place::new("refused").await;
    let line = verifier(&place).run().await.refusal();
    assert!(line.contains("--tls-cert") && line.contains("--insecure-listen") && line.contains("loopback"), "{line}");
    let local = || verifier(&place).arg("--http-addr=127.0.0.1:0").arg("--grpc-addr=127.0.0.1:0");
    let line = local().arg("--tls-cert=/nonexistent").run().await.refusal();
    assert!(line.contains("--tls-key"), "{line}");
    let line = local().arg("--tls-cert=/nonexistent").arg("--tls-key=/nonexistent").run().await.refusal();
    assert!(line.contains("/nonexistent"), "{line}");
    let line = local().arg("--enable-tokenreview").arg("--namespaces=a").run().await.refusal();
    assert!(line.contains("--enable-tokenreview needs all namespaces"), "{line}");

    let nobody = place.access.kubeconfig_for(&Identity::service_account(place.name(), "nobody")).unwrap();
    for (scope, words) in [
        (String::new(), "in all namespaces".to_owned()),
        (format!("--namespaces={}", place.name()), format!("in namespace {}", place.name())),
    ] {
        let launch = Launch::new(&["verifier", "--health-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0"]);
        let launch = launch.env("KUBECONFIG", &nobody).arg("--grpc-addr=127.0.0.1:0");
        let launch = if scope.is_empty() { launch } else { launch.arg(scope) };
        let line = launch.run().await.refusal();
        for part in ["get", "list", "watch"].map(|verb| format!("{verb} personalaccesstokens.pat-operator.io {words}"))
        {
            assert!(line.contains(&part), "{part}: {line}");
        }
        let patch = format!("patch personalaccesstokens.pat-operator.io/status {words}");
        assert!(line.contains(&patch) && !line.contains("secrets"), "{line}");
        // Owners are cluster-scoped, so only a verifier of all namespaces needs them.
        for verb in ["get", "list", "watch"] {
            let part = format!("{verb} tokenowners.pat-operator.io in all namespaces");
            assert_eq!(line.contains(&part), words == "in all namespaces", "{part}: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn help_lists_every_flag_and_every_variable_is_read() {
    let help = Launch::new(&["verifier", "--help"]).run().await;
    assert_eq!((help.code, help.stderr.len()), (0, 0), "{help}");
    let help = help.stdout.join("\n");
    let command = pat_operator::cli::Cli::command();
    let verifier = command.find_subcommand("verifier").unwrap();
    for flag in verifier.get_arguments().filter(|flag| flag.get_id() != "help") {
        let (long, variable) = (flag.get_long().unwrap(), flag.get_env().unwrap().to_str().unwrap());
        assert!(help.contains(&format!("--{long}")), "--{long} is missing in:\n{help}");
        assert!(help.contains(&format!("[env: {variable}=]")), "{variable} is missing in:\n{help}");
        // A value that every flag refuses proves that the variable is read.
        let wrong = if long.starts_with("tls-") { "/nonexistent/file" } else { "?! \u{7}" };
        let launch = Launch::new(&["verifier"]).env(variable, wrong);
        let launch = if long == "http-addr" { launch } else { launch.arg("--http-addr=127.0.0.1:0") };
        let ended = launch.run().await;
        assert!(ended.code != 0 && ended.stderr.join("\n").contains(&format!("--{long}")), "{variable}: {ended}");
    }
}
