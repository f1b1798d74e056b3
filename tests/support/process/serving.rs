//! Certificates that the operator issues itself, as stored in the API server.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use pat_operator::{
    certificates::{CertificateManager, CertificateRequest},
    service::{Clock, LeaseHandle},
};

use super::place::Place;

/// The manager that issues and renews this certificate.
pub fn certificate_manager(place: &Place, wanted: &CertificateRequest, clock: Clock) -> Arc<CertificateManager> {
    let (client, namespace) = (place.client.clone(), place.name().to_owned());
    CertificateManager::new(client, namespace, vec![wanted.clone()], clock, LeaseHandle::always(), "tests".into())
}

/// The API of the ConfigMaps that publish the CA certificates.
pub fn maps(place: &Place) -> Api<ConfigMap> {
    Api::namespaced(place.client.clone(), place.name())
}

/// The CA certificate in the ConfigMap that clients read.
pub async fn published(place: &Place, wanted: &CertificateRequest) -> String {
    let map = maps(place).get(&wanted.config_map()).await.expect("the ConfigMap exists");
    map.data.expect("data")["ca.crt"].clone()
}

/// The Secret with the certificate.
pub async fn secret(place: &Place, wanted: &CertificateRequest) -> Secret {
    place.secrets().get(wanted.secret()).await.expect("the Secret exists")
}

/// A value of that Secret.
pub async fn value(place: &Place, wanted: &CertificateRequest, key: &str) -> Vec<u8> {
    secret(place, wanted).await.data.expect("data")[key].0.clone()
}
