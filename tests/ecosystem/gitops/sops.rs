//! The verifier's certificate, encrypted as `docs/gitops.md` shows, and decrypted with the key that the page has put into the cluster.
//!
//! What Flux does with it, it does by the library that `sops` is made of, with each key in the Secret whose name ends in `.agekey`.

use control_plane::Binary;
use serde_json::{Value, json};

use super::{
    judges::manifests,
    terminal::{Terminal, commands_with, shown},
};
use crate::support::process::place::Place;

/// What Flux does: it has the key from the cluster, and from nowhere else.
const AS_FLUX: &str = r#"SOPS_AGE_KEY="$(kubectl get secret sops-age --namespace flux-system --output jsonpath='{.data.age\.agekey}' | base64 --decode)"
export SOPS_AGE_KEY
sops --decrypt verifier-tls.yaml | kubectl apply --filename -"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_as_the_page_shows_is_decrypted_with_the_key_in_the_cluster_and_with_no_other() {
    let place = Place::new("gitops-sops").await;
    let terminal = Terminal::open(&place, &[Binary::Sops, Binary::AgeKeygen]).await;
    let [makes_the_key, seals] = &commands_with("age-keygen")[..] else { panic!("a key, and what is sealed with it") };
    terminal.types(makes_the_key, &[]).await;
    terminal.types(seals, &[]).await;

    // The Secret with the key is the one that the Kustomization names.
    let flux = manifests("flux-kustomizations.yaml");
    let decryption = &flux.iter().find(|one| one["spec"]["decryption"].is_object()).expect("one decrypts")["spec"];
    let name = decryption["decryption"]["secretRef"]["name"].as_str().expect("a name");
    let data = place.secrets().get(name).await.expect("the page makes it").data.expect("data");
    assert_eq!(data["age.agekey"].0, terminal.file("age.key").into_bytes());

    // What goes into Git: everybody sees what it is, and nobody what is in it.
    let text = terminal.file("verifier-tls.yaml");
    let encrypted: Value = serde_yaml::from_str(&text).expect("YAML");
    let plain = json!([encrypted["kind"], encrypted["metadata"]["name"], encrypted["type"]]);
    assert_eq!(plain, json!(["Secret", "verifier-tls", "kubernetes.io/tls"]));
    let values = encrypted["data"].as_object().expect("data");
    assert_eq!(values.keys().collect::<Vec<_>>(), ["tls.crt", "tls.key"]);
    assert!(values.values().all(|one| one.as_str().is_some_and(|one| one.starts_with("ENC["))), "{text}");
    assert!(!terminal.is_given_away_by(&text), "{text}");

    let stranger = "age-keygen -o stranger.key; SOPS_AGE_KEY_FILE=stranger.key sops --decrypt verifier-tls.yaml";
    let refusal = terminal.tries(stranger, &[]).await.expect_err("another key is none");
    assert!(refusal.contains("did not match any"), "{refusal}");

    terminal.types(AS_FLUX, &[]).await;
    let secret = place.secrets().get("verifier-tls").await.expect("it is applied");
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let data = secret.data.expect("data");
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| &data[name].0[..]);
    assert_eq!((cert, key, data.len()), (terminal.certificate.as_bytes(), terminal.key.as_bytes(), 2));
}

#[test]
fn every_command_of_the_page_is_typed() {
    let typed = ["kubeseal", "age-keygen"].map(commands_with).concat();
    assert_eq!((shown("sh"), shown("console")), (typed, Vec::new()), "say which test types it");
}
