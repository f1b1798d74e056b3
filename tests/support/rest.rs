//! A namespace with a controller and a REST server, and callers whose tokens are minted from manifests.
//!
//! It must not know any dialect.

use std::time::Instant;

use control_plane::Binary;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use pat_operator::api::{Owner, OwnerKind, PersonalAccessToken};
use serde_json::{Value, json};

use crate::support::process::{
    OperatorProcess, SOON,
    api::ApiProcess,
    place::{Place, hash},
    verifier::VerifierProcess,
};

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
        self.caller_of(name, &Owner { kind: OwnerKind::User, name: user.into() }, scopes).await
    }

    /// The same of any owner.
    pub async fn caller_of(&self, name: &str, owner: &Owner, scopes: &[&str]) -> String {
        let spec = json!({"owner": owner, "scopes": scopes, "expiry": {"after": "1d"}});
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

    /// Checks that each of these tokens, of display name and text, is let in by the verifier, and that kubectl shows it with this token.
    pub async fn has_all(&self, created: &[(&str, &str)]) {
        for (_, token) in created {
            self.verifier.forwards(token, 200).await;
        }
        let (access, namespace) = (self.place.access.clone(), self.place.name().to_owned());
        let run = move || {
            let mut kubectl = access.command(Binary::Kubectl).expect("kubectl");
            kubectl.args(["get", "pat", "--output=json", "--namespace", &namespace]).output().expect("it runs")
        };
        let output = tokio::task::spawn_blocking(run).await.expect("no panic");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let shown = list["items"].as_array().expect("a list");
        for (name, token) in created {
            let pat = shown.iter().find(|pat| pat["spec"]["displayName"] == *name);
            let pat = pat.unwrap_or_else(|| panic!("kubectl does not show {name:?}: {list:#}"));
            let credentials = pat["status"]["credentials"].as_array().expect("credentials");
            let is_its = |one: &Value| one["sha256"] == hash(token) && one["state"] == "Active";
            assert!(credentials.iter().any(is_its), "{name}: {pat:#}");
        }
        let (shown, tokens) = (list.to_string(), created.iter().map(|(_, token)| token));
        assert!(tokens.into_iter().all(|token| !shown.contains(token)), "and no token itself");
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
