//! The verifier and the controller as processes on a real API server, and one token of each kind.

use pat_operator::token::Token;
use serde_json::json;

use crate::support::process::{OperatorProcess, place::Place, verifier::VerifierProcess};

/// The owner of every token.
pub const OWNER: &str = "jane@example.com";

/// See the module.
pub struct Running {
    /// Where it listens.
    pub verifier: VerifierProcess,
    /// It may read and write.
    pub good: Credential,
    /// It may only write.
    pub writes: Credential,
    /// It has ended.
    pub expired: Credential,
    /// It is good until [`revoke`](Self::revoke).
    pub revoked: Credential,
    /// It is well-formed, and nobody issued it.
    pub unknown: Credential,
    place: Place,
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
        let place = Place::new("proxies").await;
        let mut controller = place.operator().start();
        controller.is_ready().await;
        let namespace = format!("--namespaces={}", place.name());
        let verifier = VerifierProcess::start(&place.kubeconfig(), &[&namespace]).await;
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
        Self { verifier, good, writes, expired, revoked, unknown, place, _controller: controller }
    }

    /// Somebody writes `revoked: true` into its spec.
    pub async fn revoke(&self) {
        let spec = json!({"owner": {"kind": "User", "name": OWNER}, "scopes": ["read"], "revoked": true});
        self.place.apply("revoked", spec).await;
    }

    /// Nobody listens any more.
    pub async fn stop(self) {
        self.verifier.process.terminate().await;
    }
}

impl Credential {
    fn of(token: &str) -> Self {
        let parsed = Token::parse(token).expect("a token");
        Self { token: token.to_owned(), id: parsed.id().to_string() }
    }
}
