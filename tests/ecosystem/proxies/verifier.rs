//! A verifier and a controller as processes on a real API server, with one token of each kind.

use std::{fs, path::PathBuf};

use pat_operator::{certificates::CertificateRequest, service::Clock, token::Token};
use serde_json::json;

use crate::support::process::{
    OperatorProcess,
    place::Place,
    serving::{certificate_manager, published, value},
    trust::flags,
    verifier::VerifierProcess,
};

/// The owner of all tokens.
pub const OWNER: &str = "jane@example.com";

/// The name in the verifier's certificate.
pub const HOST: &str = "localhost";

/// The running programs and the tokens.
pub struct Running {
    /// The verifier.
    pub verifier: VerifierProcess,
    /// A token with the scopes read and write.
    pub good: Credential,
    /// A token with only the scope write.
    pub writes: Credential,
    /// An expired token.
    pub expired: Credential,
    /// A token that is valid until [`revoke`](Self::revoke).
    pub revoked: Credential,
    /// A well-formed token that was never issued.
    pub unknown: Credential,
    place: Place,
    files: Option<tempfile::TempDir>,
    _controller: OperatorProcess,
}

/// A token and its id.
#[derive(Clone)]
pub struct Credential {
    pub token: String,
    pub id: String,
}

impl Running {
    pub async fn start() -> Self {
        Self::begin(Place::new("proxies").await, None).await
    }

    /// The same with a certificate that the operator issues.
    pub async fn start_over_tls() -> Self {
        let place = Place::new("proxies-tls").await;
        let files = certificate(&place).await;
        Self::begin(place, Some(files)).await
    }

    /// The namespace of the tokens.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The file with the CA that clients must trust, if the verifier serves over TLS.
    pub fn authority(&self) -> PathBuf {
        self.files.as_ref().expect("the verifier serves over TLS").path().join("ca.crt")
    }

    async fn begin(place: Place, files: Option<tempfile::TempDir>) -> Self {
        let mut controller = place.operator().start();
        controller.is_ready().await;
        let mut arguments = vec![format!("--namespaces={}", place.name())];
        arguments.extend(files.iter().flat_map(|folder| flags(folder.path())));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let verifier = VerifierProcess::start(&place.kubeconfig(), &arguments).await;
        let owner = json!({"kind": "User", "name": OWNER});
        let ends = json!({"owner": owner, "scopes": ["read"], "expiry": {"after": "2s"}});
        place.apply("expired", ends).await;
        let expired = place.ready("expired").await;
        for (name, scopes) in [("good", &["read", "write"][..]), ("writes", &["write"]), ("revoked", &["read"])] {
            place.apply(name, json!({"owner": owner, "scopes": scopes})).await;
        }
        let good = place.ready("good").await;
        let writes = place.ready("writes").await;
        let revoked = place.ready("revoked").await;
        place.has("expired", "Ready", "False", "Expired").await;
        let unknown = Token::mint(&Default::default()).expect("a token");
        let [good, writes, expired, revoked, unknown] =
            [&good, &writes, &expired, &revoked, unknown.expose()].map(Credential::of);
        Self { verifier, good, writes, expired, revoked, unknown, place, files, _controller: controller }
    }

    /// Revokes a token in its spec.
    pub async fn revoke(&self) {
        let spec = json!({"owner": {"kind": "User", "name": OWNER}, "scopes": ["read"], "revoked": true});
        self.place.apply("revoked", spec).await;
    }

    /// Stops the verifier. Returns the namespace, whose objects exist until it is dropped.
    pub async fn stop(self) -> Place {
        self.verifier.process.terminate().await;
        self.place
    }
}

/// A folder with the certificate, its key and the CA for clients.
async fn certificate(place: &Place) -> tempfile::TempDir {
    let wanted: CertificateRequest = format!("serving:{HOST}").parse().expect("a Secret and a name");
    certificate_manager(place, &wanted, Clock::system()).check(&wanted).await.expect("the certificate is issued");
    let folder = tempfile::Builder::new().prefix("pat-proxy-tls-").tempdir().expect("a folder");
    let put = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).expect("a file");
    for name in ["tls.crt", "tls.key"] {
        put(name, &value(place, &wanted, name).await);
    }
    put("ca.crt", published(place, &wanted).await.as_bytes());
    folder
}

impl Credential {
    fn of(token: &str) -> Self {
        let parsed = Token::parse(token).expect("a token");
        Self { token: token.to_owned(), id: parsed.id().to_string() }
    }
}
