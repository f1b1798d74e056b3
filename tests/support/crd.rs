//! Puts the resource on the API server that the tests share: once, whoever comes first.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Error, Resource,
    api::{ListParams, Patch, PatchParams},
    runtime::{conditions, wait::await_condition},
};
use pat_operator::api::{PersonalAccessToken, TokenOwner, crd};
use serde::{Serialize, de::DeserializeOwned};

const LIMIT: Duration = Duration::from_secs(30);

/// Installs `crds/` as this build has it and waits until it is served. Any number of tests may do so at a time.
pub async fn install_crds(client: &Client) {
    tokio::time::timeout(LIMIT, async {
        for (_, crd) in crd::all() {
            let name = crd.metadata.name.as_deref().expect("a CRD has a name");
            establish(client, name, &crd).await;
        }
        // "Established" is told a moment before the API server's handlers have heard of it.
        while is(404, &list::<PersonalAccessToken>(client).await) || is(404, &list::<TokenOwner>(client).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the CRD is installed in time");
}

/// Applies a CRD and waits until it is established.
pub async fn establish(client: &Client, name: &str, crd: &(impl Serialize + Debug)) {
    apply(client, name, crd).await;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    await_condition(crds, name, conditions::is_crd_established()).await.expect("the CRD is established");
}

async fn apply(client: &Client, name: &str, crd: &(impl Serialize + Debug)) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("tests").force();
    loop {
        let applied = crds.patch(name, &params, &Patch::Apply(crd)).await;
        // Somebody else was quicker by a moment.
        if !is(409, &applied) {
            applied.expect("the API server takes the CRD");
            return;
        }
    }
}

async fn list<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug>(client: &Client) -> kube::Result<()> {
    let all: Api<K> = Api::all(client.clone());
    all.list_metadata(&ListParams::default().limit(1)).await.map(drop)
}

fn is<T>(code: u16, result: &kube::Result<T>) -> bool {
    matches!(result, Err(Error::Api(status)) if status.code == code)
}
