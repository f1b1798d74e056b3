//! Certificates that the operator makes itself, as the API server has them.
//!
//! It must not know who serves them, nor who trusts them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use pat_operator::{
    certificates::{CertificateManager, CertificateRequest},
    service::{Clock, LeaseHandle},
};

use super::place::Place;

/// What makes and renews this certificate.
pub fn keeper(place: &Place, wanted: &CertificateRequest, clock: Clock) -> Arc<CertificateManager> {
    let (client, namespace) = (place.client.clone(), place.name().to_owned());
    CertificateManager::new(client, namespace, vec![wanted.clone()], clock, LeaseHandle::always(), "tests".into())
}

/// Where it is published whom clients are to trust.
pub fn maps(place: &Place) -> Api<ConfigMap> {
    Api::namespaced(place.client.clone(), place.name())
}

/// What is published for clients to trust.
pub async fn published(place: &Place, wanted: &CertificateRequest) -> String {
    let map = maps(place).get(&wanted.config_map()).await.expect("the ConfigMap is there");
    map.data.expect("data")["ca.crt"].clone()
}

/// The Secret that holds it.
pub async fn secret(place: &Place, wanted: &CertificateRequest) -> Secret {
    place.secrets().get(wanted.secret()).await.expect("the Secret is there")
}

/// A value of that Secret.
pub async fn value(place: &Place, wanted: &CertificateRequest, key: &str) -> Vec<u8> {
    secret(place, wanted).await.data.expect("data")[key].0.clone()
}
