//! Certificates that the operator issues, on a real API server: a verifier serves them from files and reloads renewed ones. Clients that
//! trust an earlier authority keep working.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    jiff::{SignedDuration, Timestamp},
};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use pat_operator::{
    certificates::{CertificateRequest, Error, RenewalOutcome},
    service::{Clock, ClockHand},
};
use serde_json::{Value, json};

use crate::support::process::{
    place::{Place, eventually},
    serving::{certificate_manager, maps, published, secret, value},
    trust::{Seen, Trust, certificates, flags, mount},
    verifier::VerifierProcess,
};

const HOST: &str = "verifier.system.svc";
const SECRET: &str = "verifier-serving";

fn wanted() -> CertificateRequest {
    format!("{SECRET}:{HOST}").parse().expect("a Secret and a name")
}

fn driven(days_ago: i64) -> (Clock, ClockHand) {
    Clock::driven(days_before_now(days_ago))
}

fn days_before_now(days: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(24 * days)
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_are_served_without_a_restart_and_old_clients_keep_working() {
    let place = Place::new("renewals").await;
    // An authority is replaced after two thirds of ten years, 2,433 days.
    let (clock, hand) = driven(2440);
    let certificate_manager = certificate_manager(&place, &wanted(), clock);
    assert_eq!(certificate_manager.check(&wanted()).await.expect("it is made"), RenewalOutcome::Renewed);
    let first = certificates(&published(&place, &wanted()).await);
    assert_eq!(first.len(), 1);
    hand.set(days_before_now(61));
    assert_eq!(certificate_manager.check(&wanted()).await.expect("it is renewed"), RenewalOutcome::Renewed);
    assert_eq!(certificates(&published(&place, &wanted()).await), first, "by the same authority");

    let folder = tempfile::tempdir().expect("a folder");
    let remount = async |version| {
        let (cert, key) = (value(&place, &wanted(), "tls.crt").await, value(&place, &wanted(), "tls.key").await);
        mount(folder.path(), version, &[("tls.crt", &cert), ("tls.key", &key)]);
        certificates(std::str::from_utf8(&cert).expect("PEM"))
    };
    let before = remount(1).await;
    let files = flags(folder.path());
    let only = format!("--namespaces={}", place.name());
    let mut verifier = VerifierProcess::start(&place.kubeconfig(), &[&only, &files[0], &files[1]]).await;
    let addr = verifier.http;
    let ask = async |trust: &Trust| trust.get(addr, "/auth/forward?scope=a", "none").await;
    let old = Trust::new(&first, HOST);
    assert_eq!(ask(&old).await.expect("it is trusted"), Seen { code: 401, chain: before.clone() });
    assert!(ask(&Trust::new(&first, "api.system.svc")).await.is_err(), "it is for no other name");
    let stranger = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).expect("a certificate");
    assert!(
        ask(&Trust::new(&[stranger.cert.der().clone()], HOST)).await.is_err(),
        "another certificate is not trusted"
    );

    // Clients that trust only the first authority and never reload.
    let (enough, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (old, enough, asked) = (old.clone(), enough.clone(), asked.clone());
            tokio::spawn(async move {
                while !enough.load(Ordering::Relaxed) {
                    old.get(addr, "/auth/forward?scope=a", "none")
                        .await
                        .expect("a client with the first authority still trusts it");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    hand.set(Timestamp::now());
    assert_eq!(certificate_manager.check(&wanted()).await.expect("another authority"), RenewalOutcome::Renewed);
    let both = certificates(&published(&place, &wanted()).await);
    assert_eq!((both.len(), &both[1]), (2, &first[0]), "the new one first, and the old one stays");
    let after = remount(2).await;
    assert_ne!(after, before);
    eventually("the new certificate is served", async || ask(&old).await.expect("still trusted").chain == after).await;
    for trusted in [&first[..], &both[..1], &both[..]] {
        assert_eq!(ask(&Trust::new(trusted, HOST)).await.expect("trusted").code, 401);
    }
    let seen = asked.load(Ordering::Relaxed);
    eventually("calls continue", async || asked.load(Ordering::Relaxed) > seen + 9).await;
    enough.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call failed");
    }

    let metrics = verifier.process.metrics().await;
    let days = metrics.value("pat_operator_tls_certificate_expiry_seconds") / 86_400.0;
    assert!((89.0..=90.0).contains(&days), "{days} days are left");
    assert_eq!(metrics.value("pat_operator_tls_reloads_total"), 1.0);
    assert_eq!(metrics.value("pat_operator_tls_files_unusable"), 0.0);
    verifier.process.terminate().await;
    let reasons: Vec<_> = place.events(SECRET).await.into_iter().map(|(reason, _)| reason).collect();
    for reason in ["CertificateIssued", "CertificateRenewed", "AuthorityReplaced"] {
        assert_eq!(reasons.iter().filter(|one| *one == reason).count(), 1, "{reason}: {reasons:?}");
    }
    let text = certificate_manager.metrics_text();
    assert!(text.contains("pat_operator_serving_certificate_renewals_total 3\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn intact_certificates_are_not_rewritten_and_damaged_ones_are_restored() {
    let place = Place::new("mended").await;
    let certificate_manager = certificate_manager(&place, &wanted(), Clock::system());
    let look = async || certificate_manager.check(&wanted()).await.expect("it is looked after");
    let version = async || {
        let map = maps(&place).get(&wanted().config_map()).await.expect("it is there");
        (secret(&place, &wanted()).await.metadata.resource_version, map.metadata.resource_version)
    };
    assert_eq!(look().await, RenewalOutcome::Renewed);
    let made = version().await;
    let made_secret = secret(&place, &wanted()).await;
    assert_eq!(made_secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let keys: Vec<_> = made_secret.data.expect("data").into_keys().collect();
    assert_eq!(keys, ["ca.crt", "ca.key", "tls.crt", "tls.key"]);
    let map = maps(&place).get(&wanted().config_map()).await.expect("it is there");
    assert_eq!(map.data.expect("data").into_keys().collect::<Vec<_>>(), ["ca.crt"], "no key is published");
    assert!(
        matches!(look().await, RenewalOutcome::Kept(until) if until > Timestamp::now() + SignedDuration::from_hours(24 * 59))
    );
    assert_eq!(version().await, made, "nothing is written");
    let first = certificates(&published(&place, &wanted()).await);

    maps(&place).delete(&wanted().config_map(), &DeleteParams::default()).await.expect("deleted");
    assert!(matches!(look().await, RenewalOutcome::Kept(_)));
    assert_eq!(certificates(&published(&place, &wanted()).await), first);
    let other = json!({"data": {"ca.crt": "foreign"}});
    maps(&place).patch(&wanted().config_map(), &PatchParams::default(), &Patch::Merge(other)).await.expect("changed");
    look().await;
    assert_eq!(certificates(&published(&place, &wanted()).await), first);
    assert_eq!(version().await.0, made.0, "the certificate is the same all the time");

    let patch = async |patch: Value| {
        place.secrets().patch(SECRET, &PatchParams::default(), &Patch::Merge(patch)).await.expect("changed")
    };
    patch(json!({"metadata": {"labels": {"team": "a"}}, "data": {"tls.key": "AAAA"}})).await;
    assert_eq!(look().await, RenewalOutcome::Renewed);
    let mended = secret(&place, &wanted()).await;
    assert_eq!(mended.metadata.labels.expect("labels")["team"], "a", "what others put there stays");
    assert_eq!(certificates(&published(&place, &wanted()).await), first, "by the same authority");

    place.secrets().delete(SECRET, &DeleteParams::default()).await.expect("deleted");
    assert_eq!(look().await, RenewalOutcome::Renewed);
    assert_ne!(certificates(&published(&place, &wanted()).await), first, "its key is gone, so it is another");
    assert!(matches!(look().await, RenewalOutcome::Kept(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_objects_are_not_changed_and_one_event_says_so() {
    let place = Place::new("others").await;
    let pair = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).expect("a certificate");
    let theirs: Secret = serde_json::from_value(json!({
        "metadata": {"name": SECRET}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": pair.cert.pem(), "tls.key": pair.signing_key.serialize_pem()},
    }))
    .expect("a Secret");
    let theirs = place.secrets().create(&PostParams::default(), &theirs).await.expect("created");
    let certificate_manager = certificate_manager(&place, &wanted(), Clock::system());
    let running = tokio::spawn(certificate_manager.clone().run());
    eventually("an event is published", async || !place.events(SECRET).await.is_empty()).await;
    eventually("it is tried again", async || {
        let text = certificate_manager.metrics_text();
        let series = r#"pat_operator_serving_certificate_errors_total{category="CertificateNotOurs"} "#;
        let count = text.lines().find_map(|line| line.strip_prefix(series)).expect("a count");
        count.parse::<u64>().expect("a number") >= 2
    })
    .await;
    let [(reason, note)] = &place.events(SECRET).await[..] else { panic!("once") };
    assert_eq!(reason, "CertificateNotOurs");
    for part in ["it has no annotation pat-operator.io/serving-certificate", "delete it", "--serving-certificate"] {
        assert!(note.contains(part), "{part}: {note}");
    }
    assert_eq!(secret(&place, &wanted()).await, theirs);
    assert!(maps(&place).get_opt(&wanted().config_map()).await.expect("an answer").is_none());

    // Once the foreign Secret is deleted, it continues without help.
    let map = json!({"metadata": {"name": wanted().config_map()}, "data": {"ca.crt": "theirs"}});
    let map: ConfigMap = serde_json::from_value(map).expect("a ConfigMap");
    let map = maps(&place).create(&PostParams::default(), &map).await.expect("created");
    place.secrets().delete(SECRET, &DeleteParams::default()).await.expect("deleted");
    eventually("it is made", async || place.secrets().get_opt(SECRET).await.expect("an answer").is_some()).await;
    running.abort();
    let error = certificate_manager.check(&wanted()).await.expect_err("the ConfigMap is theirs");
    assert!(matches!(error, Error::NotOurs { kind: "ConfigMap", .. }), "{error}");
    assert_eq!(maps(&place).get(&wanted().config_map()).await.expect("it is there"), map);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_controllers_one_issues_and_all_agree() {
    let place = Place::new("many").await;
    for round in 0..3 {
        let certificate_managers: Vec<_> =
            (0..8).map(|_| certificate_manager(&place, &wanted(), Clock::system())).collect();
        let looked: Vec<_> = stream::iter(&certificate_managers)
            .map(|certificate_manager| async move { certificate_manager.check(&wanted()).await })
            .buffer_unordered(8)
            .collect()
            .await;
        let mut made = 0;
        for looked in looked {
            match looked {
                Ok(RenewalOutcome::Renewed) => made += 1,
                Ok(RenewalOutcome::Kept(_)) | Err(Error::Conflict { .. }) => {}
                // Another controller created the ConfigMap.
                other => panic!("{other:?}"),
            }
        }
        assert!(made <= 1, "{made} in round {round}");
        for certificate_manager in &certificate_managers {
            assert!(matches!(certificate_manager.check(&wanted()).await, Ok(RenewalOutcome::Kept(_))));
        }
        let trusted = value(&place, &wanted(), "ca.crt").await;
        assert_eq!(published(&place, &wanted()).await.as_bytes(), trusted);
        place.secrets().delete(SECRET, &DeleteParams::default()).await.expect("deleted");
    }
}
