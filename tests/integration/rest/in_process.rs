//! The service in the process of the test, with real watches and a client of the test's choice for writes.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header};
use kube::{Api, Client, api::ListParams};
use pat_operator::{
    api::{Expiry, Owner, OwnerKind, StoredPat},
    index::{
        Index, IndexFreshness,
        events::{OwnerEventHandler, PatEventHandler},
    },
    rest::{
        access_token::{AccessTokenSigner, KEY_LENGTH},
        caller::RestCaller,
        error::RestError,
        metrics::Metrics,
        model::CreateToken,
        rate_limit::RateLimit,
        server,
        service::{RestConfig, TokenService},
        store::{OwnerStoreHandler, TokenStore, TokenStoreHandler},
        write::Writer,
    },
    service::{
        Clock,
        http::{HttpServer, Limits},
        watch,
    },
    token::Token,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::process::place::{Place, eventually};

/// The scopes of callers.
pub const SCOPES: [&str; 3] = ["repo:read", "repo:write", "sp:my-personal-access-tokens:manage"];

/// The PAT of the caller.
pub const CALLER: &str = "caller";

/// A service whose tasks end when it is dropped.
pub struct InProcessApi {
    pub service: Arc<TokenService>,
    background: JoinSet<()>,
    metrics: Arc<Metrics>,
    store: Arc<TokenStore>,
    pulse: Arc<IndexFreshness>,
}

impl InProcessApi {
    /// Creates a service that writes with this client, and waits for the first lists.
    pub async fn new(place: &Place, writes_by: Client) -> Self {
        Self::with(place, writes_by, false).await
    }

    pub async fn with(place: &Place, writes_by: Client, read_only: bool) -> Self {
        let (index, store) = (Arc::new(Index::default()), Arc::new(TokenStore::default()));
        let pulse = IndexFreshness::new(2, Duration::from_secs(300));
        let many = NonZeroU32::new(100_000).unwrap();
        let config = RestConfig {
            tenant: place.name().into(),
            audience: None,
            read_only,
            rate: RateLimit { per_second: many, burst: many },
        };
        let (namespace, client) = (place.name().to_owned(), place.client.clone());
        let mut watches = JoinSet::new();
        let tokens =
            TokenStoreHandler::new(PatEventHandler::new(index.clone(), Some(namespace.clone())), store.clone());
        let owners = OwnerStoreHandler::new(OwnerEventHandler::new(index.clone()), store.clone());
        let api: Api<StoredPat> = Api::namespaced(client.clone(), &namespace);
        watches.spawn(watch::follow(api.clone(), tokens, pulse.heartbeat(0), |_| {}));
        watches.spawn(watch::follow(Api::all(client), owners, pulse.heartbeat(1), |_| {}));
        let probed = pulse.clone();
        watches.spawn(async move { pat_operator::index::freshness::probe(api, &probed).await });
        eventually("the first lists are in", async || pulse.listed() == 2).await;
        let metrics = Arc::new(Metrics::new());
        let writer =
            Writer::new(writes_by, namespace, index.clone(), store.clone()).with_counters(metrics.undelivered());
        let fresh = pulse.clone();
        let service = TokenService::new(index, store.clone(), move || fresh.freshness(), Clock::system(), config);
        let service = service.with_writer(writer).with_signer(AccessTokenSigner::new(&[7; KEY_LENGTH], "tests".into()));
        Self { service: Arc::new(service), background: watches, metrics, store, pulse }
    }

    /// Returns the metrics as text.
    pub fn metrics_text(&self) -> String {
        self.metrics.text(&self.store, &self.pulse)
    }

    /// Serves HTTP within these limits, and returns the address.
    pub async fn serve(&mut self, limits: Limits) -> SocketAddr {
        self.serve_within(limits, server::REQUEST_TIMEOUT).await
    }

    /// Serves HTTP with this time limit of requests.
    pub async fn serve_within(&mut self, limits: Limits, longest: Duration) -> SocketAddr {
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), "tests", "--test-addr").await.expect("a port");
        let router = server::router_with_timeout(self.service.clone(), self.metrics.clone(), longest);
        let addr = server.local_addr();
        self.background.spawn(server.with_limits(limits).serve(router, CancellationToken::new()));
        addr
    }

    /// Returns the caller with the token of [`mint_caller`].
    pub async fn caller(&self, place: &Place) -> RestCaller {
        self.caller_of(place, CALLER).await
    }

    /// Returns the caller with the token of this PAT.
    pub async fn caller_of(&self, place: &Place, name: &str) -> RestCaller {
        let headers = bearer(&place.token(name).await);
        let mut caller = self.service.caller(&headers).await;
        eventually("the caller is known", async || {
            caller = self.service.caller(&headers).await;
            caller.is_ok()
        })
        .await;
        caller.expect("it is known")
    }

    /// Whether this token is accepted.
    pub async fn accepts(&self, token: &Token) -> bool {
        self.accepts_text(token.expose()).await
    }

    /// Whether the token with this text is accepted.
    pub async fn accepts_text(&self, token: &str) -> bool {
        match self.service.caller(&bearer(token)).await {
            Ok(_) => true,
            Err(RestError::Unauthenticated) => false,
            Err(other) => panic!("{other}"),
        }
    }
}

fn bearer(token: &str) -> HeaderMap {
    let bearer = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    [(header::AUTHORIZATION, bearer)].into_iter().collect()
}

/// The default owner.
pub fn ada() -> Owner {
    Owner { kind: OwnerKind::User, name: "ada@example.com".into() }
}

/// Mints a token for the caller; a controller must run.
pub async fn mint_caller(place: &Place) {
    mint_caller_as(place, CALLER, &ada()).await;
}

/// Mints a token with this name and owner, which does not end and so limits no other; a controller must run.
pub async fn mint_caller_as(place: &Place, name: &str, owner: &Owner) {
    place.apply(name, json!({"owner": owner, "scopes": SCOPES, "expiry": {"never": true}})).await;
    place.ready(name).await;
}

/// Mints a token for the caller with a controller that stops afterwards.
pub async fn mint_caller_and_stop(place: &Place) {
    let controller = place.operator().start();
    mint_caller(place).await;
    controller.terminate().await;
}

/// A request for a token with this name.
pub fn new_token(name: &str) -> CreateToken {
    CreateToken {
        owner: ada(),
        display_name: name.into(),
        description: None,
        scopes: vec!["repo:read".into()],
        expiry: Expiry { after: Some("90d".into()), ..Expiry::default() },
        access_token_validity: None,
        permissions: Vec::new(),
        token_prefix: None,
    }
}

/// Returns the names of all PATs and of all Secrets with a token, except the caller's.
pub async fn remaining(place: &Place) -> (Vec<String>, Vec<String>) {
    let pats = place.pats().list(&ListParams::default()).await.expect("PATs are listed");
    let secrets = place.secrets().list(&ListParams::default()).await.expect("Secrets are listed");
    let with_token = secrets.into_iter().filter(|one| one.data.as_ref().is_some_and(|data| data.contains_key("token")));
    let name = |metadata: kube::api::ObjectMeta| metadata.name.unwrap_or_default();
    let others = |names: Vec<String>| names.into_iter().filter(|name| !name.starts_with(CALLER)).collect();
    (
        others(pats.into_iter().map(|one| name(one.metadata)).collect()),
        others(with_token.map(|one| name(one.metadata)).collect()),
    )
}
