//! A stage with an issuer: a TokenIssuer in the stage's namespace, and a GitLab whose calls can fail. The test polls the issuer.

use std::time::Instant;

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use pat_operator::{
    api::{PersonalAccessToken, Time, TokenIssuer},
    controller::{error::Error, issuers::IssuerSettings},
};
use serde_json::{Value, json};

use super::{
    stage::{SOON, Stage},
    vendor::{faulty::FaultyGitLab, gitlab::ADMIN},
};

/// The name of the TokenIssuer, and of the Secret with its credential.
pub const ISSUER: &str = "gitlab";

/// A stage with an issuer.
pub struct RemoteStage {
    pub stage: Stage,
    pub gitlab: FaultyGitLab,
}

impl RemoteStage {
    /// Creates a namespace whose name starts with `prefix`, with a GitLab, a TokenIssuer and a controller.
    pub async fn new(prefix: &str) -> Self {
        let mut stage = Stage::new(prefix).await;
        stage.issuers = IssuerSettings {
            namespaced: true,
            lease: "test".into(),
            http_hosts: vec!["127.0.0.1".into()],
            networks: vec!["127.0.0.0/8".parse().expect("a network")],
            ..IssuerSettings::default()
        };
        let gitlab = FaultyGitLab::start(stage.clock.clone()).await;
        let mut stage = Self { stage, gitlab };
        stage.put_credential(ISSUER, ADMIN).await;
        stage.put_issuer(ISSUER, json!({"secretRef": {"name": ISSUER}})).await;
        let client = stage.stage.client.clone();
        stage.restart_with(client).await;
        stage
    }

    /// Replaces the controller by a new one without state in memory, and waits until it knows the issuers.
    pub async fn restart_with(&mut self, client: Client) {
        self.stage.restart_with(client);
        self.until_issuers_are_known().await;
    }

    /// Waits until the controller knows the issuers as they are.
    pub async fn until_issuers_are_known(&self) {
        let issuers = self.api().list(&Default::default()).await.expect("issuers are listed").items;
        let names = |issuer: &TokenIssuer| (issuer.name_any(), issuer.metadata.generation);
        let mut wanted: Vec<_> = issuers.iter().map(names).collect();
        wanted.sort();
        let deadline = Instant::now() + SOON;
        loop {
            let mut known: Vec<_> =
                self.issuers().generations().into_iter().map(|(key, number)| (key.name, number)).collect();
            known.sort();
            if known == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "the controller does not see the issuers: {known:?}, {wanted:?}");
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
    }

    fn api(&self) -> Api<TokenIssuer> {
        Api::namespaced(self.stage.client.clone(), self.stage.namespace.name())
    }

    fn issuers(&self) -> &pat_operator::controller::issuers::Issuers {
        self.stage.operator().issuers.as_deref().expect("issuers are on")
    }

    /// Writes the Secret of a credential for the GitLab.
    pub async fn put_credential(&self, name: &str, token: &str) {
        self.put_secret(name, &self.gitlab.url, json!({"token": token})).await;
    }

    async fn put_secret(&self, name: &str, url: &str, credential: Value) {
        let host = url.strip_prefix("http://").and_then(|url| url.split('/').next()).expect("a URL");
        let mut data = json!({"host": host});
        data.as_object_mut().expect("an object").extend(credential.as_object().expect("an object").clone());
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "pat-operator.io/issuer-auth",
            "stringData": data,
        });
        let params = PatchParams::apply("person").force();
        self.stage.secrets().patch(name, &params, &Patch::Apply(&secret)).await.expect("a Secret");
    }

    /// Writes a TokenIssuer for the GitLab with this `auth`.
    pub async fn put_issuer(&self, name: &str, auth: Value) {
        self.put_issuer_of(name, "gitLab", &self.gitlab.url, auth).await;
    }

    /// Writes a TokenIssuer for another system, whose field in the spec is `system`, and the Secret with its credential. Both have the name
    /// of the field. Waits until the controller knows it.
    pub async fn add_system(&self, system: &str, url: &str, credential: Value) {
        let name = system.to_ascii_lowercase();
        self.put_secret(&name, url, credential).await;
        self.put_issuer_of(&name, system, url, json!({"secretRef": {"name": name}})).await;
        self.until_issuers_are_known().await;
    }

    async fn put_issuer_of(&self, name: &str, system: &str, url: &str, auth: Value) {
        let issuer = json!({
            "apiVersion": "pat-operator.io/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": name},
            "spec": {
                system: {"url": url}, "auth": auth, "policy": {"rules": [{"targets": ["*"]}]},
                "caBundle": self.some_certificate(),
            },
        });
        let params = PatchParams::apply("person").force();
        self.api().patch(name, &params, &Patch::Apply(&issuer)).await.expect("an issuer");
    }

    /// A certificate. Nothing uses it, but a poll takes long if it reads all that the system trusts.
    fn some_certificate(&self) -> String {
        let config = self.stage.access.config_for(&control_plane::Identity::admin()).expect("a configuration");
        let certificate =
            config.root_cert.and_then(|all| all.into_iter().next()).expect("the API server has an authority");
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(certificate))
    }

    /// The status and message of the condition Ready of a TokenIssuer.
    pub async fn issuer_ready(&self, name: &str) -> (bool, String) {
        let status = self.api().get(name).await.expect("the issuer").status.unwrap_or_default();
        let ready = status.conditions.into_iter().find(|one| one.type_ == "Ready").expect("a condition");
        (ready.is_true(), ready.message)
    }

    /// Applies a PAT of this issuer for the project `group/app`; the fields of `spec` win.
    pub async fn apply(&self, name: &str, spec: Value) -> PersonalAccessToken {
        let mut whole = json!({
            "issuerRef": {"kind": "TokenIssuer", "name": ISSUER}, "gitLab": {"project": "group/app", "accessLevel": "Reporter"},
            "scopes": ["read_repository"], "rotation": {"interval": "30d"}, "gracePeriod": "1d",
        });
        whole.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
        self.stage.apply(name, whole).await
    }

    /// Applies a PAT as [`apply`](Self::apply) does, and returns the token in its Secret.
    pub async fn issue(&self, name: &str, spec: Value) -> String {
        self.apply(name, spec).await;
        self.settle(name).await;
        self.stage.value(name, "token").await
    }

    /// Whether the GitLab accepts a token.
    pub fn accepts(&self, token: &str) -> bool {
        self.gitlab.with(|gitlab| gitlab.accepts(token))
    }

    /// Polls every issuer once.
    pub async fn poll(&self) {
        self.issuers().poll_all().await;
    }

    /// Waits until no call at an issuer is under way.
    pub async fn calls_end(&self) {
        let deadline = Instant::now() + SOON;
        while self.issuers().calls_under_way() > 0 {
            assert!(Instant::now() < deadline, "a call does not end");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Reconciles a PAT, and again as long as calls at the issuer end. `look` looks after each reconcile.
    pub async fn act(
        &self,
        name: &str,
        look: impl AsyncFn() -> Result<(), String>,
    ) -> Result<Result<Option<Time>, Error>, String> {
        for _ in 0..20 {
            self.stage.operator().take_triggers();
            let result = self.stage.reconcile(name).await;
            self.calls_end().await;
            look().await?;
            if result.is_err() || !self.stage.operator().take_triggers() {
                return Ok(result);
            }
        }
        Err("calls at the issuer do not end".into())
    }

    /// Polls and reconciles until nothing is left to do at this time, without faults.
    pub async fn settle(&self, name: &str) {
        self.poll().await;
        self.act(name, async || Ok(())).await.expect("it rests").expect("the run succeeds");
    }

    /// The API of Secrets, and the name of the Secret of a PAT.
    pub fn secret_of(&self, name: &str) -> (Api<Secret>, String) {
        (self.stage.secrets(), name.to_owned())
    }
}
