//! Seals the verifier's certificate as `docs/gitops.md` shows. The unsealed Secret works in a verifier.

use control_plane::Binary;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DynamicObject, ObjectMeta, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::Value;

use super::{
    judges::manifests,
    terminal::{Terminal, commands_with},
    unsealer::Unsealer,
};
use crate::support::{
    policies::guard::Guard,
    process::{
        place::{Place, eventually},
        trust::{Seen, Trust, certificates, flags, mount},
        verifier::VerifierProcess,
    },
};

/// Seals and applies a Secret with an annotation that claims a PAT.
const FORGED_SECRET: &str =
    "kubectl create secret generic planted --namespace pat-operator --from-literal=token=a --dry-run=client -o yaml |
  kubectl annotate --local --filename - --output yaml pat-operator.io/pat-uid=00000000-0000-4000-8000-000000000001 |
  kubeseal --cert sealing.pem | kubectl apply --filename -";

/// The state that the sealed-secrets controller reports: whether the Secret is unsealed, and a message.
async fn synced(place: &Place, name: &str) -> Option<(bool, String)> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("bitnami.com", "v1alpha1", "SealedSecret"));
    let api: Api<DynamicObject> = Api::namespaced_with(place.client.clone(), place.name(), &kind);
    let sealed = api.get(name).await.expect("the SealedSecret exists");
    let conditions = sealed.data["status"]["conditions"].as_array()?;
    let synced = conditions.iter().find(|one| one["type"] == "Synced")?;
    Some((synced["status"] == "True", synced["message"].as_str().unwrap_or_default().to_owned()))
}

/// Waits until the guard rails refuse the controller's writes of reserved annotations.
async fn wait_for_guard_rails(place: &Place, unsealer: &Unsealer) {
    let secrets: Api<Secret> =
        Api::namespaced(place.access.client_for(unsealer.identity()).expect("a client"), place.name());
    let annotations = [("pat-operator.io/anything".to_owned(), String::new())].into();
    let metadata =
        ObjectMeta { name: Some("probe".to_owned()), annotations: Some(annotations), ..ObjectMeta::default() };
    let probe = Secret { metadata, ..Secret::default() };
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the policy is in force", async || secrets.create(&dry, &probe).await.is_err()).await;
}

/// A SealedSecret with only the names of its encrypted values.
fn shape(sealed: &Value) -> Value {
    let mut shape = sealed.clone();
    let encrypted = &mut shape["spec"]["encryptedData"];
    *encrypted = encrypted.as_object().expect("a map").keys().cloned().collect();
    shape
}

#[tokio::test(flavor = "multi_thread")]
async fn verifier_serves_with_a_certificate_sealed_as_documented() {
    let place = Place::new("gitops-sealed").await;
    let guard = Guard::apply("secret-annotations", &place, &[&place]).await;
    let unsealer = Unsealer::start(&place).await;
    wait_for_guard_rails(&place, &unsealer).await;
    let terminal = Terminal::open(&place, &[Binary::Kubeseal]).await;
    let [commands] = &commands_with("kubeseal")[..] else { panic!("one block of commands") };
    terminal.types(commands, &[("SEALED_SECRETS_CERT", &unsealer.certificate())]).await;

    // The file for Git is as on the page, and does not contain the secret values.
    let text = terminal.file("verifier-tls.yaml");
    let sealed: Value = serde_yaml::from_str(&text).expect("YAML");
    let [example] = &manifests("sealed-secret.yaml")[..] else { panic!("one SealedSecret") };
    let mut expected = shape(example);
    for namespace in ["/metadata/namespace", "/spec/template/metadata/namespace"] {
        *expected.pointer_mut(namespace).expect("a namespace") = place.name().into();
    }
    assert_eq!(shape(&sealed), expected);
    assert!(!terminal.leaks_into(&text), "{text}");

    terminal.types("kubectl apply --filename verifier-tls.yaml", &[]).await;
    eventually("the Secret is unsealed", async || synced(&place, "verifier-tls").await == Some((true, String::new())))
        .await;
    let secret = place.secrets().get("verifier-tls").await.expect("the Secret exists");
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let owners = secret.metadata.owner_references.unwrap_or_default();
    let owners: Vec<_> = owners.iter().map(|one| (&*one.kind, &*one.name, one.controller)).collect();
    assert_eq!(owners, [("SealedSecret", "verifier-tls", Some(true))]);
    let data = secret.data.expect("data");
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| &data[name].0[..]);
    assert_eq!((cert, key, data.len()), (terminal.certificate.as_bytes(), terminal.key.as_bytes(), 2));

    let folder = tempfile::tempdir().expect("a folder");
    mount(folder.path(), 1, &[("tls.crt", cert), ("tls.key", key)]);
    let (only, [cert, key]) = (format!("--namespaces={}", place.name()), flags(folder.path()));
    let verifier = VerifierProcess::start(&place.kubeconfig(), &[&only, &cert, &key]).await;
    let chain = certificates(&terminal.certificate);
    let seen = Trust::new(&chain, "localhost").get(verifier.http, "/auth/forward?scope=a", "none").await;
    assert_eq!(seen.expect("the client trusts the certificate"), Seen { code: 401, chain });

    // Sealing does not bypass the guard rails.
    terminal.types(FORGED_SECRET, &[]).await;
    let refusal = "may not set annotations under pat-operator.io/ on a Secret";
    let is_refused = async || synced(&place, "planted").await.is_some_and(|(ok, why)| !ok && why.contains(refusal));
    eventually("the Secret is refused", is_refused).await;
    assert!(place.secrets().get_opt("planted").await.expect("the API server answers").is_none());
    guard.end().await;
}
