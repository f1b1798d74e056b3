//! Installs the CRDs on the shared control plane. Tests may do so at the same time.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Error, Resource,
    api::{ListParams, Patch, PatchParams},
    runtime::{conditions, wait::await_condition},
};
use pat_operator::api::{ClusterTokenIssuer, PersonalAccessToken, TokenIssuer, TokenOwner, crd};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

const LIMIT: Duration = Duration::from_secs(30);

/// Installs the CRDs of this build, and waits until the API server serves them.
pub async fn install_crds(client: &Client) {
    tokio::time::timeout(LIMIT, async {
        for (_, crd) in crd::all() {
            let name = crd.metadata.name.as_deref().expect("a CRD has a name");
            establish(client, name, &crd).await;
        }
        // "Established" is true a moment before the API server serves the resource.
        while is(404, &list::<PersonalAccessToken>(client).await)
            || is(404, &list::<TokenOwner>(client).await)
            || is(404, &list::<TokenIssuer>(client).await)
            || is(404, &list::<ClusterTokenIssuer>(client).await)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the CRDs are installed in time");
}

/// Installs the CRDs on the shared control plane, once for all tests of this process.
pub async fn install_on_shared(client: &Client) {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED.get_or_init(|| install_crds(client)).await;
}

/// Applies a CRD, and waits until it is established.
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
        // Another test applied it at the same time.
        if !is(409, &applied) {
            applied.expect("the API server accepts the CRD");
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
