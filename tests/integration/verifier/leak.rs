//! No token and no secret part of one appears in logs at any level, in metrics or in health checks.

use pat_operator::token::Token;
use serde_json::json;

use super::protocols::{AUDIENCE, TOKENREVIEW, Way};
use crate::support::process::{place::Place, verifier::VerifierProcess};

/// The most verbose level of every library, including targets that are off by default.
const EVERYTHING: &str = "--log-level=trace,kube_client=trace,kube_runtime=trace,hyper=trace,hyper_util=trace,rustls=trace,\
                          tower=trace,h2=trace,tonic=trace,axum=trace";

#[tokio::test(flavor = "multi_thread")]
async fn logs_metrics_and_health_contain_no_token() {
    let place = Place::new("leak").await;
    let operator = place.operator().arg("--publish-lead=0s").start();
    place.apply("caller", json!({"scopes": ["introspect"]})).await;
    let caller = place.ready("caller").await;
    let spec = |revoked: bool| json!({"audiences": [AUDIENCE], "scopes": ["a"], "revoked": revoked});
    place.apply("good", spec(false)).await;
    let good = place.ready("good").await;
    place.apply("revoked", spec(false)).await;
    let revoked = place.ready("revoked").await;
    place.apply("revoked", spec(true)).await;
    let unknown = Token::mint(&Default::default()).expect("randomness").expose().to_owned();
    // One wrong character: the checksum refuses it, but the rest of it is as secret as before.
    let last = if good.ends_with('0') { "1" } else { "0" };
    let mistyped = format!("{}{last}", &good[..good.len() - 1]);
    let mut verifier = VerifierProcess::start(&place.kubeconfig(), &[TOKENREVIEW, EVERYTHING]).await;
    let presented = [&*good, &*revoked, &*unknown, &*mistyped, &*caller];
    for token in presented {
        for way in Way::ALL {
            let (let_in, answer) = way.asks(&verifier, &caller, token).await;
            assert_eq!(let_in, token == good || token == caller && way == Way::Introspection, "{way:?}: {answer}");
            assert!(presented.iter().all(|token| !answer.contains(secret(token))), "{way:?}: {answer}");
        }
        // A token in the wrong place.
        verifier.forward(token, &format!("scope={token}")).await;
        verifier.forward("kpat_x", &format!("{token}=1")).await;
    }
    let shown = [
        verifier.process.get("/metrics").await.body,
        verifier.process.get("/readyz?verbose").await.body,
        verifier.process.get("/livez?verbose").await.body,
    ];
    let ended = verifier.process.terminate().await;
    operator.terminate().await;
    let all = [ended.stderr.join("\n"), ended.stdout.join("\n"), shown.join("\n")].concat();
    // The log is verbose, and has lines about requests.
    for part in
        ["\"TRACE\"", "\"DEBUG\"", "\"verify\"", "h2::", "hyper", "pat_operator::audit", "pat_operator_decisions_total"]
    {
        assert!(all.contains(part), "no {part} in:\n{}", &all[..all.len().min(2_000)]);
    }
    for token in presented {
        let at = all.find(secret(token)).or_else(|| all.find(token));
        let context = at.map(|at| String::from_utf8_lossy(&all.as_bytes()[at.saturating_sub(300)..at]).into_owned());
        assert_eq!(context, None, "a token follows this text");
    }
}

/// Returns the secret: the 43 characters between the ID and the checksum.
fn secret(token: &str) -> &str {
    &token[token.len() - 49..token.len() - 6]
}
