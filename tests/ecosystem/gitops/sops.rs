//! Encrypts the verifier's certificate with SOPS as `docs/gitops.md` shows, and decrypts it with the key in the cluster.
//!
//! Flux decrypts with the library of `sops`, and with each key in the Secret whose name ends in `.agekey`.

use control_plane::Binary;
use serde_json::{Value, json};

use super::{
    judges::manifests,
    terminal::{Terminal, commands_with, shown},
};
use crate::support::process::place::Place;

/// Decrypts like Flux, with only the key from the cluster.
const AS_FLUX: &str = r#"SOPS_AGE_KEY="$(kubectl get secret sops-age --namespace flux-system --output jsonpath='{.data.age\.agekey}' | base64 --decode)"
export SOPS_AGE_KEY
sops --decrypt verifier-tls.yaml | kubectl apply --filename -"#;

#[tokio::test(flavor = "multi_thread")]
async fn certificate_encrypted_as_documented_needs_the_clusters_key() {
    let place = Place::new("gitops-sops").await;
    let terminal = Terminal::open(&place, &[Binary::Sops, Binary::AgeKeygen]).await;
    let [makes_the_key, seals] = &commands_with("age-keygen")[..] else {
        panic!("a block that makes the key, and a block that uses it")
    };
    terminal.types(makes_the_key, &[]).await;
    terminal.types(seals, &[]).await;

    // The Kustomization names the Secret with the key.
    let flux = manifests("flux-kustomizations.yaml");
    let decryption = &flux
        .iter()
        .find(|one| one["spec"]["decryption"].is_object())
        .expect("a Kustomization with decryption")["spec"];
    let name = decryption["decryption"]["secretRef"]["name"].as_str().expect("a name");
    let data = place.secrets().get(name).await.expect("the page's commands create the Secret").data.expect("data");
    assert_eq!(data["age.agekey"].0, terminal.file("age.key").into_bytes());

    // The file for Git shows the names of the values, but not the values.
    let text = terminal.file("verifier-tls.yaml");
    let encrypted: Value = serde_yaml::from_str(&text).expect("YAML");
    let plain = json!([encrypted["kind"], encrypted["metadata"]["name"], encrypted["type"]]);
    assert_eq!(plain, json!(["Secret", "verifier-tls", "kubernetes.io/tls"]));
    let values = encrypted["data"].as_object().expect("data");
    assert_eq!(values.keys().collect::<Vec<_>>(), ["tls.crt", "tls.key"]);
    assert!(values.values().all(|one| one.as_str().is_some_and(|one| one.starts_with("ENC["))), "{text}");
    assert!(!terminal.leaks_into(&text), "{text}");

    let stranger = "age-keygen -o stranger.key; SOPS_AGE_KEY_FILE=stranger.key sops --decrypt verifier-tls.yaml";
    let refusal = terminal.tries(stranger, &[]).await.expect_err("another key must not decrypt it");
    assert!(refusal.contains("did not match any"), "{refusal}");

    terminal.types(AS_FLUX, &[]).await;
    let secret = place.secrets().get("verifier-tls").await.expect("the Secret is applied");
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let data = secret.data.expect("data");
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| &data[name].0[..]);
    assert_eq!((cert, key, data.len()), (terminal.certificate.as_bytes(), terminal.key.as_bytes(), 2));
}

#[test]
fn tests_run_each_command_of_the_gitops_page() {
    let typed = ["kubeseal", "age-keygen"].map(commands_with).concat();
    assert_eq!((shown("sh"), shown("console")), (typed, Vec::new()), "a new command on the page needs a test");
}
