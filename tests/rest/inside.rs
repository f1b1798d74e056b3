//! The API's service inside of the test, fed by real watches, with a client of the test's choice for what it writes.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header};
use kube::{Api, Client, api::ListParams};
use pat_operator::{
    api::{Expiry, Owner, OwnerKind, StoredPat},
    index::{
        Index, Pulse,
        feed::{OwnerFeed as IndexOwnerFeed, PatFeed},
        watch,
    },
    rest::{
        access_token::{KEY_LENGTH, Signer},
        caller::Caller,
        failure::Failure,
        feed::{OwnerFeed, TokenFeed},
        order::Create,
        rate::Rate,
        rights::Rights,
        service::{Service, Settings},
        store::Store,
        write::Writer,
    },
    runtime::Clock,
    token::Token,
};
use tokio::task::JoinSet;

use crate::support::process::place::{Place, eventually};

/// What callers in these tests may do.
pub const SCOPES: [&str; 3] = ["repo:read", "repo:write", "sp:my-personal-access-tokens:manage"];

/// See the module. Everything of it ends with the value.
pub struct Inside {
    pub service: Arc<Service>,
    _watches: JoinSet<()>,
}

impl Inside {
    /// One that writes by this client, and has heard of all that there is.
    pub async fn new(place: &Place, writes_by: Client) -> Self {
        Self::with(place, writes_by, false).await
    }

    pub async fn with(place: &Place, writes_by: Client, read_only: bool) -> Self {
        let (index, store) = (Arc::new(Index::default()), Arc::new(Store::default()));
        let pulse = Pulse::new(2, Duration::from_secs(300));
        let many = NonZeroU32::new(100_000).unwrap();
        let settings = Settings {
            tenant: place.name().into(),
            audience: None,
            read_only,
            rate: Rate { per_second: many, burst: many },
        };
        let (namespace, client) = (place.name().to_owned(), place.client.clone());
        let mut watches = JoinSet::new();
        let tokens = TokenFeed::new(PatFeed::new(index.clone(), Some(namespace.clone())), store.clone());
        let owners = OwnerFeed::new(IndexOwnerFeed::new(index.clone()), store.clone());
        let api: Api<StoredPat> = Api::namespaced(client.clone(), &namespace);
        watches.spawn(watch::follow(api.clone(), tokens, pulse.beat(0), |_| {}));
        watches.spawn(watch::follow(Api::all(client), owners, pulse.beat(1), |_| {}));
        let probed = pulse.clone();
        watches.spawn(async move { pat_operator::index::probe::probe(api, &probed).await });
        eventually("the first lists are in", async || pulse.listed() == 2).await;
        let writer = Writer::new(writes_by, namespace, index.clone(), store.clone());
        let service = Service::new(index, store, move || pulse.freshness(), Clock::system(), settings);
        let service = service.with_writer(writer).with_signer(Signer::new(&[7; KEY_LENGTH], "tests".into()));
        Self { service: Arc::new(service), _watches: watches }
    }

    /// Whether this token is let in at this moment.
    pub async fn lets_in(&self, token: &Token) -> bool {
        let bearer = HeaderValue::try_from(format!("Bearer {}", token.expose())).unwrap();
        let headers: HeaderMap = [(header::AUTHORIZATION, bearer)].into_iter().collect();
        match self.service.caller(&headers).await {
            Ok(_) => true,
            Err(Failure::Unauthenticated) => false,
            Err(other) => panic!("{other}"),
        }
    }
}

/// The owner of most tokens.
pub fn ada() -> Owner {
    Owner { kind: OwnerKind::User, name: "ada@example.com".into() }
}

/// Somebody who may do what a test does.
pub fn caller() -> Caller {
    Caller {
        owner: ada(),
        id: 1.into(),
        token_name: "test".into(),
        credential: "000000000001".parse().unwrap(),
        scopes: SCOPES.map(str::to_owned).to_vec(),
        audiences: Vec::new(),
        rights: Rights::of(SCOPES),
    }
}

/// An order of a token with this name.
pub fn order(name: &str) -> Create {
    Create {
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

/// Names of all PATs and of all Secrets with a token.
pub async fn left(place: &Place) -> (Vec<String>, Vec<String>) {
    let pats = place.pats().list(&ListParams::default()).await.expect("PATs are listed");
    let secrets = place.secrets().list(&ListParams::default()).await.expect("Secrets are listed");
    let with_token = secrets.into_iter().filter(|one| one.data.as_ref().is_some_and(|data| data.contains_key("token")));
    let name = |metadata: kube::api::ObjectMeta| metadata.name.unwrap_or_default();
    (pats.into_iter().map(|one| name(one.metadata)).collect(), with_token.map(|one| name(one.metadata)).collect())
}
