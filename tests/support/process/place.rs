//! A namespace with PATs on a real API server, for an operator that runs as a process.
//!
//! The clock is the real one. Each helper that waits has a deadline.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use control_plane::{Access, Namespace};
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Secret, events::v1::Event},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use pat_operator::{
    api::{Condition, CredentialState, PersonalAccessToken, PersonalAccessTokenStatus},
    token::Token,
};
use serde_json::{Value, json};

use super::{Launch, SOON};

/// The default name of the Lease.
pub const LEASE: &str = "pat-operator-controller";

/// A namespace, with the clients and helpers of a test.
pub struct Place {
    pub access: Access,
    pub namespace: Namespace,
    /// The test's client, with an administrator's rights.
    pub client: Client,
}

impl Place {
    /// Creates a namespace on the shared control plane, whose name starts with `prefix`.
    pub async fn new(prefix: &str) -> Self {
        let access = control_plane::shared().await.expect("a control plane");
        let client = access.client().expect("a client");
        super::super::crd::install_on_shared(&client).await;
        super::super::policies::guard::keep_parameters_read(&client).await;
        Self::on(&access, prefix).await
    }

    /// Creates a namespace on this control plane.
    pub async fn on(access: &Access, prefix: &str) -> Self {
        let client = access.client().expect("an administrator's client");
        let namespace = access.namespace(prefix).await.expect("a namespace");
        Self { access: access.clone(), namespace, client }
    }

    /// The name of the namespace.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.access.admin_kubeconfig()
    }

    /// A controller for this namespace only, with an administrator's rights.
    pub fn operator(&self) -> Launch {
        Launch::controller_in(&self.kubeconfig(), self.name())
    }

    /// Applies a spec to the PAT of this name, like `kubectl apply --server-side`.
    pub async fn apply(&self, name: &str, spec: Value) {
        self.apply_labelled(name, json!({}), spec).await;
    }

    /// The same with labels.
    pub async fn apply_labelled(&self, name: &str, labels: Value, spec: Value) {
        self.try_apply(name, labels, spec).await.expect("the API server accepts the manifest");
    }

    /// The same. Returns the API server's answer.
    pub async fn try_apply(&self, name: &str, labels: Value, spec: Value) -> kube::Result<DynamicObject> {
        let kind = GroupVersionKind::gvk("pat-operator.io", "v1alpha1", "PersonalAccessToken");
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), self.name(), &ApiResource::from_gvk(&kind));
        let manifest = json!({
            "apiVersion": "pat-operator.io/v1alpha1",
            "kind": "PersonalAccessToken",
            "metadata": {"name": name, "labels": labels},
            "spec": spec,
        });
        api.patch(name, &PatchParams::apply("person").force(), &Patch::Apply(&manifest)).await
    }

    /// Applies one spec to this many PATs, named `<prefix>-000` and so on, several at a time.
    pub async fn apply_many(&self, prefix: &str, count: usize, spec: &Value) -> Vec<String> {
        let names: Vec<_> = (0..count).map(|n| format!("{prefix}-{n:03}")).collect();
        stream::iter(&names).for_each_concurrent(16, |name| self.apply(name, spec.clone())).await;
        names
    }

    /// The API of PATs.
    pub fn pats(&self) -> Api<PersonalAccessToken> {
        Api::namespaced(self.client.clone(), self.name())
    }

    /// The API of Secrets.
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), self.name())
    }

    /// The status of a PAT. Empty if it has none.
    pub async fn status(&self, name: &str) -> PersonalAccessTokenStatus {
        self.pats().get(name).await.expect("the PAT exists").status.unwrap_or_default()
    }

    /// The statuses of all PATs.
    pub async fn statuses(&self) -> Vec<(String, PersonalAccessTokenStatus)> {
        let pats = self.pats().list(&ListParams::default()).await.expect("PATs are listed");
        pats.into_iter().map(|pat| (pat.name_any(), pat.status.unwrap_or_default())).collect()
    }

    /// A value of a Secret. `None` if the Secret or the key does not exist.
    pub async fn value(&self, secret: &str, key: &str) -> Option<String> {
        let secret = self.secrets().get_opt(secret).await.expect("the API server answers")?;
        let value = secret.data?.remove(key)?;
        Some(String::from_utf8(value.0).expect("text"))
    }

    /// The token in the Secret of this name.
    pub async fn token(&self, secret: &str) -> String {
        self.value(secret, "token").await.unwrap_or_else(|| panic!("no token in Secret {secret}"))
    }

    /// The reason and note of each event about the PAT of this name.
    pub async fn events(&self, name: &str) -> Vec<(String, String)> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), self.name());
        let mut events = api.list(&ListParams::default()).await.expect("events are listed").items;
        events.retain(|event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(name)));
        let text = |text: Option<String>| text.unwrap_or_default();
        events.into_iter().map(|event| (text(event.reason), text(event.note))).collect()
    }

    /// The holder of the Lease, if there is one.
    pub async fn lease_holder(&self) -> Option<String> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), self.name());
        let lease = api.get_opt(LEASE).await.expect("the API server answers")?;
        lease.spec?.holder_identity.filter(|holder| !holder.is_empty())
    }

    /// Waits until the status of the PAT of this name fulfils a predicate. Returns the status.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&PersonalAccessTokenStatus) -> bool,
    ) -> PersonalAccessTokenStatus {
        let deadline = Instant::now() + SOON;
        loop {
            // The test may restart the API server.
            let status = self.pats().get(name).await.ok().and_then(|pat| pat.status).unwrap_or_default();
            if holds(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "PersonalAccessToken {name} is not {what} in time: {status:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the PAT of this name has this condition.
    pub async fn has(&self, name: &str, type_: &str, status: &str, reason: &str) -> Condition {
        let is = |one: &Condition| one.type_ == type_ && one.status == status && one.reason == reason;
        let what = format!("{type_}={status} {reason}");
        let found = self.until(name, &what, |status| status.conditions.iter().any(is)).await;
        found.conditions.into_iter().find(is).expect("the condition exists")
    }

    /// Waits until the PAT of this name is Ready and nothing is in progress. Returns its token.
    pub async fn ready(&self, name: &str) -> String {
        self.until(name, "ready", is_ready).await;
        self.token(name).await
    }

    /// Waits until this many PATs are Ready and nothing is in progress.
    pub async fn all_ready(&self, count: usize) {
        let deadline = Instant::now() + 2 * SOON;
        loop {
            let statuses = self.statuses().await;
            let ready = statuses.iter().filter(|(_, status)| is_ready(status)).count();
            if ready == count {
                return;
            }
            let other = statuses.iter().find(|(_, status)| !is_ready(status));
            assert!(Instant::now() < deadline, "only {ready} of {count} PATs are ready in time; not ready: {other:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until each of these PATs is Ready and nothing is in progress.
    pub async fn all_ready_of(&self, names: &[&str]) {
        for name in names {
            self.until(name, "ready", is_ready).await;
        }
    }

    /// Rotates the token of a Ready PAT. Returns the new token.
    pub async fn rotated(&self, name: &str, mut spec: Value) -> String {
        let before = self.status(name).await.revision.unwrap_or_default();
        spec["rotateIfIssuedBefore"] = in_seconds(0).into();
        self.apply(name, spec).await;
        self.until(name, "rotated", |status| status.revision > Some(before) && is_ready(status)).await;
        self.token(name).await
    }

    /// Asserts that exactly one credential is active, and that its token is in the Secret of the PAT's name.
    pub async fn assert_active_token_in_secret(&self, name: &str) {
        let status = self.status(name).await;
        let hash = hash(&self.token(name).await);
        let active: Vec<_> = status
            .credentials
            .iter()
            .filter(|one| one.state == CredentialState::Active)
            .map(|one| one.sha256.to_string())
            .collect();
        assert_eq!(active, [hash], "{name}: {status:#?}");
    }
}

/// The hash of a token, as in the status.
pub fn hash(token: &str) -> String {
    Token::parse(token).expect("a token").hash().to_string()
}

/// The time this many seconds from now, as in a spec.
pub fn in_seconds(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds)).to_string()
}

/// Whether a PAT is Ready and nothing is in progress.
pub fn is_ready(status: &PersonalAccessTokenStatus) -> bool {
    let is = |type_: &str| status.conditions.iter().any(|one| one.type_ == type_ && one.is_true());
    let pending = status.all_credentials().any(|one| one.state == CredentialState::Pending);
    is("Ready") && !is("Reconciling") && !is("Stalled") && !pending
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    eventually_within(SOON, what, holds).await;
}

/// The same with another limit.
pub async fn eventually_within(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "timeout: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
