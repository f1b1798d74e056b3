//! The API's service inside of the test, fed by real watches, with a client of the test's choice for what it writes.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header};
use kube::{Api, Client, api::ListParams};
use pat_operator::{
    api::{Expiry, Owner, OwnerKind, StoredPat},
    index::{
        Index, Pulse,
        feed::{OwnerFeed, PatFeed},
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
        store::{OwnerEventHandler, TokenEventHandler, TokenStore},
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

/// What callers in these tests may do.
pub const SCOPES: [&str; 3] = ["repo:read", "repo:write", "sp:my-personal-access-tokens:manage"];

/// The PAT of whoever calls.
pub const CALLER: &str = "caller";

/// See the module. Everything of it ends with the value.
pub struct Inside {
    pub service: Arc<TokenService>,
    background: JoinSet<()>,
    metrics: Arc<Metrics>,
    store: Arc<TokenStore>,
    pulse: Arc<Pulse>,
}

impl Inside {
    /// One that writes by this client, and has heard of all that there is.
    pub async fn new(place: &Place, writes_by: Client) -> Self {
        Self::with(place, writes_by, false).await
    }

    pub async fn with(place: &Place, writes_by: Client, read_only: bool) -> Self {
        let (index, store) = (Arc::new(Index::default()), Arc::new(TokenStore::default()));
        let pulse = Pulse::new(2, Duration::from_secs(300));
        let many = NonZeroU32::new(100_000).unwrap();
        let config = RestConfig {
            tenant: place.name().into(),
            audience: None,
            read_only,
            rate: RateLimit { per_second: many, burst: many },
        };
        let (namespace, client) = (place.name().to_owned(), place.client.clone());
        let mut watches = JoinSet::new();
        let tokens = TokenEventHandler::new(PatFeed::new(index.clone(), Some(namespace.clone())), store.clone());
        let owners = OwnerEventHandler::new(OwnerFeed::new(index.clone()), store.clone());
        let api: Api<StoredPat> = Api::namespaced(client.clone(), &namespace);
        watches.spawn(watch::follow(api.clone(), tokens, pulse.beat(0), |_| {}));
        watches.spawn(watch::follow(Api::all(client), owners, pulse.beat(1), |_| {}));
        let probed = pulse.clone();
        watches.spawn(async move { pat_operator::index::probe::probe(api, &probed).await });
        eventually("the first lists are in", async || pulse.listed() == 2).await;
        let metrics = Arc::new(Metrics::new());
        let writer =
            Writer::new(writes_by, namespace, index.clone(), store.clone()).with_counters(metrics.undelivered());
        let fresh = pulse.clone();
        let service = TokenService::new(index, store.clone(), move || fresh.freshness(), Clock::system(), config);
        let service = service.with_writer(writer).with_signer(AccessTokenSigner::new(&[7; KEY_LENGTH], "tests".into()));
        Self { service: Arc::new(service), background: watches, metrics, store, pulse }
    }

    /// All figures, as they are served.
    pub fn figures(&self) -> String {
        self.metrics.text(&self.store, &self.pulse)
    }

    /// Serves it by HTTP, within these limits, and tells where.
    pub async fn serve(&mut self, limits: Limits) -> SocketAddr {
        self.serve_within(limits, server::REQUEST_TIMEOUT).await
    }

    /// The same, where a request may take so long.
    pub async fn serve_within(&mut self, limits: Limits, longest: Duration) -> SocketAddr {
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), "tests", "--test-addr").await.expect("a port");
        let router = server::router_with_timeout(self.service.clone(), self.metrics.clone(), longest);
        let addr = server.local_addr();
        self.background.spawn(server.with_limits(limits).serve(router, CancellationToken::new()));
        addr
    }

    /// Somebody who may do what a test does, with the token that [`hire`] has had minted.
    pub async fn caller(&self, place: &Place) -> RestCaller {
        self.caller_of(place, CALLER).await
    }

    /// Whoever has the token of this PAT.
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

    /// Whether this token is let in at this moment.
    pub async fn lets_in(&self, token: &Token) -> bool {
        self.lets_in_text(token.expose()).await
    }

    /// The same for its text.
    pub async fn lets_in_text(&self, token: &str) -> bool {
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

/// The owner of most tokens.
pub fn ada() -> Owner {
    Owner { kind: OwnerKind::User, name: "ada@example.com".into() }
}

/// Has a token minted for whoever calls in these tests; a controller must run.
pub async fn hire(place: &Place) {
    hire_as(place, CALLER, &ada()).await;
}

/// The same under this name, for this owner.
pub async fn hire_as(place: &Place, name: &str, owner: &Owner) {
    place.apply(name, json!({"owner": owner, "scopes": SCOPES, "expiry": {"after": "1d"}})).await;
    place.ready(name).await;
}

/// The same, with a controller that is gone afterwards.
pub async fn hire_before(place: &Place) {
    let controller = place.operator().start();
    hire(place).await;
    controller.terminate().await;
}

/// An order of a token with this name.
pub fn order(name: &str) -> CreateToken {
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

/// Names of all PATs and of all Secrets with a token, the caller's aside.
pub async fn left(place: &Place) -> (Vec<String>, Vec<String>) {
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
