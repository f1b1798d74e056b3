//! The cluster as one command uses it: which one, which namespace, and requests that end in time.
//!
//! It must not know any command.

use std::{future::Future, time::Duration};

use hyper::{Request, header::DATE};
use k8s_openapi::jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    client::Body,
    core::TypeMeta,
};

use super::{
    cli::ClusterArgs,
    failure::Failure,
    pat::{Pat, resource},
    terminal::Paint,
};
use crate::{
    api::{GROUP, PersonalAccessToken, Time, VERSION, crd},
    service,
};

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Objects asked for at a time.
const PAGE: u32 = 500;

/// A clock that is off by less is right: the API server tells its own to the second.
const SKEW: SignedDuration = SignedDuration::from_secs(2);

/// See the module.
pub struct Session {
    /// The client.
    pub client: Client,
    /// The API server's address.
    pub url: String,
    /// The namespace: the one that is named, or the context's.
    pub namespace: String,
    /// Whether the person named it.
    pub namespace_is_named: bool,
    /// How stdout is coloured.
    pub paint: Paint,
}

impl Session {
    /// Reads the kubeconfig; nothing is asked yet.
    pub async fn open(args: &ClusterArgs) -> Result<Self, Failure> {
        let cluster = service::client::connect_as(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
        Ok(Self {
            client: cluster.client,
            url: cluster.url,
            namespace: args.namespace.clone().unwrap_or(cluster.namespace),
            namespace_is_named: args.namespace.is_some(),
            paint: Paint::stdout(args.color),
        })
    }

    /// The present by this machine's clock.
    pub fn now(&self) -> Time {
        Timestamp::now().into()
    }

    /// The present as the cluster has it: this machine's, unless the API server's is clearly another. What is written into a spec
    /// is compared with times that the operator took.
    pub async fn cluster_now(&self) -> Result<Time, Failure> {
        let skew = self.skew().await?;
        let off = skew.filter(|skew| skew.abs() > SKEW).unwrap_or_default();
        Ok(self.now().plus(off))
    }

    /// By how much the API server's clock is ahead of this machine's, to the second; `None` if it does not tell its time.
    pub async fn skew(&self) -> Result<Option<SignedDuration>, Failure> {
        let request = Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?;
        let before = self.now();
        let answer = in_time(self.client.send(request)).await?;
        let after = self.now();
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| rfc2822::parse(&date.replace("GMT", "+0000")).ok());
        let middle = before.plus(after.since(before) / 2);
        // The header is cut off to the second; half of one is what that takes on average.
        Ok(date.map(|date| Time::from(date.timestamp()).plus(SignedDuration::from_millis(500)).since(middle)))
    }

    /// The API of tokens, in a namespace or in all.
    pub fn pats(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource()),
            None => Api::all_with(self.client.clone(), &resource()),
        }
    }

    /// One token of this namespace.
    pub async fn pat(&self, name: &str) -> Result<Pat, Failure> {
        self.pat_opt(name).await?.ok_or_else(|| {
            Failure::NotFound(format!(
                "there is no PersonalAccessToken {name} in namespace {}; kubectl pat list -A shows all there are, and -n names another \
                 namespace",
                self.namespace
            ))
        })
    }

    /// The same, where it may be missing.
    pub async fn pat_opt(&self, name: &str) -> Result<Option<Pat>, Failure> {
        let found = in_time(self.pats(Some(&self.namespace)).get_opt(name)).await?;
        if found.is_none() {
            self.must_be_installed().await?;
        }
        found.map(Pat::of).transpose()
    }

    /// All tokens of a namespace, or of all, page by page.
    pub async fn list(&self, namespace: Option<&str>, selector: Option<&str>) -> Result<Vec<Pat>, Failure> {
        let api = self.pats(namespace);
        let mut params = ListParams::default().limit(PAGE);
        if let Some(selector) = selector {
            params = params.labels(selector);
        }
        let mut pats = Vec::new();
        loop {
            let page = match in_time(api.list(&params)).await {
                Err(Failure::Api(kube::Error::Api(status))) if status.code == 404 => {
                    self.must_be_installed().await?;
                    return Err(kube::Error::Api(status).into());
                }
                page => page?,
            };
            for mut object in page.items {
                // A list leaves out what all of its items have in common.
                object.types.get_or_insert_with(TypeMeta::resource::<PersonalAccessToken>);
                pats.push(Pat::of(object)?);
            }
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => return Ok(pats),
            }
        }
    }

    /// That there is no token is one thing, that there cannot be any is another.
    async fn must_be_installed(&self) -> Result<(), Failure> {
        let version = format!("{GROUP}/{VERSION}");
        match in_time(self.client.list_api_group_resources(&version)).await {
            Ok(found) if found.resources.iter().any(|one| one.name == crd::PLURAL) => Ok(()),
            Ok(_) | Err(Failure::Api(kube::Error::Api(_))) => Err(Failure::NotFound(crd::how_to_install(crd::NAME))),
            Err(error) => Err(error),
        }
    }
}

/// An answer, or an end.
pub async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    tokio::time::timeout(LIMIT, request).await.map_err(|_| Failure::Silent)?.map_err(Failure::Api)
}
