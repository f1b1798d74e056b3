//! Puts the resource on the API server that the tests share: once, whoever comes first.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{conditions, wait::await_condition},
};

/// Installs `crds/` as this build has it and waits until it is served. Any number of tests may do so at a time.
pub async fn install_crds(client: &Client) {
    let crd = pat_operator::api::crd::crd();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = pat_operator::api::crd::NAME;
    let params = PatchParams::apply("tests").force();
    api.patch(name, &params, &Patch::Apply(&crd)).await.expect("the CRD is taken");
    let established = await_condition(api, name, conditions::is_crd_established());
    tokio::time::timeout(Duration::from_secs(30), established).await.expect("in time").expect("the CRD is established");
}
