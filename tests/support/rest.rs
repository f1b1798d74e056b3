//! A namespace with a controller, a verifier and a REST server. Callers' tokens come from manifests.

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

/// The scope to manage one's own tokens.
pub const MY_MANAGE: &str = "sp:my-personal-access-tokens:manage";

/// The scope to manage all tokens.
pub const ALL_MANAGE: &str = "sp:all-personal-access-tokens:manage";

/// A namespace with running programs.
pub struct Stage {
    pub place: Place,
    pub api: ApiProcess,
    pub verifier: VerifierProcess,
    _operator: OperatorProcess,
}

impl Stage {
    /// Starts the programs in a namespace whose name starts with `prefix`. `arguments` are for the REST server.
    pub async fn new(prefix: &str, arguments: &[&str]) -> Self {
        let place = Place::new(prefix).await;
        let operator = place.operator().start();
        let verifier = VerifierProcess::start(&place.kubeconfig(), &[]).await;
        let api = ApiProcess::start(&place, arguments).await;
        Self { place, api, verifier, _operator: operator }
    }

    /// Creates a user's token with these scopes, which never expires. Returns it when the REST server accepts it.
    pub async fn caller(&self, name: &str, user: &str, scopes: &[&str]) -> String {
        self.caller_of(name, &Owner { kind: OwnerKind::User, name: user.into() }, scopes).await
    }

    /// The same for any owner.
    pub async fn caller_of(&self, name: &str, owner: &Owner, scopes: &[&str]) -> String {
        let spec = json!({"owner": owner, "scopes": scopes, "expiry": {"never": true}});
        self.place.apply(name, spec).await;
        let token = self.place.ready(name).await;
        let deadline = Instant::now() + SOON;
        // Any dialect will do. A token that the server does not know yet gets 401.
        while self.api.call("GET", "/cryptlex/v3/personal-access-tokens", &token, None).await.status == 401 {
            assert!(Instant::now() < deadline, "the REST server does not accept {name} in time:\n{}", self.api.process);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        token
    }

    /// Creates a TokenOwner for this user. It is cluster-scoped, so its name contains the namespace.
    pub async fn owner(&self, user: &str, spec: Value) -> TokenOwnerOnStage {
        describe(&self.place, &Owner { kind: OwnerKind::User, name: user.into() }, spec).await
    }

    /// Asserts for each token, given by display name and text, that the verifier accepts it and that kubectl shows its PAT with its hash.
    pub async fn assert_usable(&self, created: &[(&str, &str)]) {
        for (_, token) in created {
            self.verifier.forwards(token, 200).await;
        }
        let (access, namespace) = (self.place.access.clone(), self.place.name().to_owned());
        let run = move || {
            let mut kubectl = access.command(Binary::Kubectl).expect("kubectl");
            kubectl.args(["get", "pat", "--output=json", "--namespace", &namespace]).output().expect("kubectl runs")
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
        assert!(tokens.into_iter().all(|token| !shown.contains(token)), "kubectl must not show a token");
    }

    /// The PAT with this display name.
    pub async fn pat(&self, display_name: &str) -> Option<PersonalAccessToken> {
        let params = ListParams::default().fields(&format!("spec.displayName={display_name}"));
        let mut found = self.place.pats().list(&params).await.expect("PATs are listed").items;
        assert!(found.len() <= 1, "{} PATs are named {display_name}", found.len());
        found.pop()
    }
}

/// Creates a TokenOwner for this owner. It is cluster-scoped, so its name contains the namespace.
pub async fn describe(place: &Place, owner: &Owner, mut spec: Value) -> TokenOwnerOnStage {
    spec["subject"] = json!(owner);
    let kind = GroupVersionKind::gvk("pat-operator.io", "v1alpha1", "TokenOwner");
    let api: Api<DynamicObject> = Api::all_with(place.client.clone(), &ApiResource::from_gvk(&kind));
    let name = format!("{}-owner", place.name());
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "TokenOwner", "metadata": {"name": name}, "spec": spec,
    });
    let params = PatchParams::apply("person").force();
    let object =
        api.patch(&name, &params, &Patch::Apply(&manifest)).await.expect("the API server accepts the manifest");
    TokenOwnerOnStage { api, name, uid: object.uid().expect("a uid") }
}

/// A TokenOwner in a test. [`TokenOwnerOnStage::remove`] deletes it.
pub struct TokenOwnerOnStage {
    api: Api<DynamicObject>,
    name: String,
    /// Its uid.
    pub uid: String,
}

impl TokenOwnerOnStage {
    /// Deletes it.
    pub async fn remove(self) {
        self.api.delete(&self.name, &Default::default()).await.expect("the TokenOwner is deleted");
    }
}
