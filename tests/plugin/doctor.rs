//! `doctor`: of an installation that works, and of one that does not.

use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;

use super::hand::Hand;

async fn certificate(hand: &Hand, name: &str, until: (i32, u8, u8)) {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": name}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
    }))
    .unwrap();
    hand.place.secrets().create(&PostParams::default(), &secret).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_works_has_nothing_broken_and_one_that_stopped_is_named_with_its_fix() {
    let (hand, operator) = Hand::with_operator("pat-doctor").await;
    hand.place.apply("ci", json!({})).await;
    hand.place.ready("ci").await;
    certificate(&hand, "good", (2099, 1, 1)).await;
    let doctor = format!("doctor --operator-namespace {}", hand.place.name());
    let text = hand.pat(&doctor).good();
    for part in [
        "the API server at https://127.0.0.1:",
        "the API server's clock and this machine's agree",
        "personalaccesstokens.pat-operator.io v1alpha1 is installed, with every field",
        "tokenowners.pat-operator.io v1alpha1 is installed",
        "you may do all that this plugin does",
        "is held by ",
        "good is good until 2099-01-01T00:00:00Z",
        "1 of 1 tokens in namespace",
        "0 broken, 0 warnings",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }

    certificate(&hand, "ended", (2002, 1, 1)).await;
    operator.terminate().await;
    let ran = hand.pat(&doctor);
    assert_eq!(ran.code, 1, "{}", ran.out);
    for part in [
        "is held by nobody",
        "no controller works",
        "fix: kubectl -n ",
        "the certificate in Secret ",
        "/ended ended 2002-01-01T00:00:00Z",
        "fix: renew it",
        "2 broken",
    ] {
        assert!(ran.out.contains(part), "{part} is missing in:\n{}", ran.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_operator_has_ever_run_that_is_what_is_said() {
    let hand = Hand::new("pat-empty").await;
    let ran = hand.pat(&format!("doctor --operator-namespace {}", hand.place.name()));
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.contains("there is no Lease pat-operator-controller") && ran.out.contains("helm install"),
        "{}",
        ran.out
    );
}
