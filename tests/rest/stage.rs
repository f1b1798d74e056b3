//! A namespace with a controller and a REST server, and callers whose tokens are minted from manifests.
//!
//! It must not know any dialect.

use std::time::Instant;

use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use pat_operator::api::{Owner, OwnerKind, PersonalAccessToken};
use serde_json::{Value, json};

use crate::support::process::{OperatorProcess, SOON, api::ApiProcess, place::Place, verifier::VerifierProcess};

/// The rights to one's own tokens.
pub const MY_MANAGE: &str = "sp:my-personal-access-tokens:manage";

/// The rights to everybody's.
pub const ALL_MANAGE: &str = "sp:all-personal-access-tokens:manage";

/// See the module.
pub struct Stage {
    pub place: Place,
    pub api: ApiProcess,
    pub verifier: VerifierProcess,
    _operator: OperatorProcess,
}

impl Stage {
    /// A stage in a namespace whose name starts with `prefix`; `arguments` are the REST server's.
    pub async fn new(prefix: &str, arguments: &[&str]) -> Self {
        let place = Place::new(prefix).await;
        let operator = place.operator().start();
        let verifier = VerifierProcess::start(&place.kubeconfig(), &[]).await;
        let api = ApiProcess::start(&place, arguments).await;
        Self { place, api, verifier, _operator: operator }
    }

    /// A user's token with these scopes, from a manifest, once the REST server takes it.
    pub async fn caller(&self, name: &str, user: &str, scopes: &[&str]) -> String {
        let spec = json!({"owner": {"kind": "User", "name": user}, "scopes": scopes, "expiry": {"after": "1d"}});
        self.place.apply(name, spec).await;
        let token = self.place.ready(name).await;
        let deadline = Instant::now() + SOON;
        // Any dialect would do: 401 is what a token gets that has not been heard of yet.
        while self.api.call("GET", "/cryptlex/v3/personal-access-tokens", &token, None).await.status == 401 {
            assert!(Instant::now() < deadline, "the REST server does not take {name} in time:\n{}", self.api.process);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        token
    }

    /// A TokenOwner for this user; its name is cut to the namespace, as it belongs to the whole cluster.
    pub async fn owner(&self, user: &str, spec: Value) -> TokenOwnerOnStage {
        describe(&self.place, &Owner { kind: OwnerKind::User, name: user.into() }, spec).await
    }

    /// The PAT of this display name, as `kubectl get pat` would find it.
    pub async fn pat(&self, display_name: &str) -> Option<PersonalAccessToken> {
        let params = ListParams::default().fields(&format!("spec.displayName={display_name}"));
        let mut found = self.place.pats().list(&params).await.expect("PATs are listed").items;
        assert!(found.len() <= 1, "{display_name} is there {} times", found.len());
        found.pop()
    }
}

/// A TokenOwner for this owner; its name is cut to the namespace, as it belongs to the whole cluster.
pub async fn describe(place: &Place, owner: &Owner, mut spec: Value) -> TokenOwnerOnStage {
    spec["subject"] = json!(owner);
    let kind = GroupVersionKind::gvk("pat-operator.io", "v1alpha1", "TokenOwner");
    let api: Api<DynamicObject> = Api::all_with(place.client.clone(), &ApiResource::from_gvk(&kind));
    let name = format!("{}-owner", place.name());
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "TokenOwner", "metadata": {"name": name}, "spec": spec,
    });
    let params = PatchParams::apply("person").force();
    let object = api.patch(&name, &params, &Patch::Apply(&manifest)).await.expect("the manifest is taken");
    TokenOwnerOnStage { api, name, uid: object.uid().expect("a uid") }
}

/// A TokenOwner that is removed again with [`TokenOwnerOnStage::remove`].
pub struct TokenOwnerOnStage {
    api: Api<DynamicObject>,
    name: String,
    /// Its uid.
    pub uid: String,
}

impl TokenOwnerOnStage {
    /// Removes it.
    pub async fn remove(self) {
        self.api.delete(&self.name, &Default::default()).await.expect("it is deleted");
    }
}
