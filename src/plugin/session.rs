//! The connection of a command to its cluster: client, namespace, clock, and requests with a timeout.

use std::{future::Future, sync::OnceLock, time::Duration};

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
    error::Error,
    issuer::IssuerObject,
    pat::{PatObject, pat_resource},
    terminal::Paint,
};
use crate::{
    api::{GROUP, IssuerKind, PersonalAccessToken, Time, VERSION, crd},
    service,
};

/// The timeout of a request without `--request-timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The timeout of `--request-timeout`, which is the same for all requests of a command.
static CHOSEN_TIMEOUT: OnceLock<Duration> = OnceLock::new();

/// A smaller clock skew is ignored, because the API server reports its time in whole seconds.
const MIN_SKEW: SignedDuration = SignedDuration::from_secs(2);

/// The connection of a command to its cluster.
pub struct Session {
    /// The Kubernetes client.
    pub client: Client,
    /// The address of the API server.
    pub url: String,
    /// The namespace from `--namespace` or the context.
    pub namespace: String,
    /// Whether `--namespace` was given.
    pub namespace_is_named: bool,
    /// The color setting for stdout.
    pub paint: Paint,
}

impl Session {
    /// Reads the kubeconfig, and calls its credential plugin. This sends no request.
    pub async fn open(args: &ClusterArgs) -> Result<Self, Error> {
        if let Some(timeout) = args.connection.request_timeout {
            CHOSEN_TIMEOUT.get_or_init(|| timeout);
        }
        let cluster = service::client::connect_as(&args.overrides()).await?;
        Ok(Self {
            client: cluster.client,
            url: cluster.url,
            namespace: args.namespace().map_or(cluster.namespace, str::to_owned),
            namespace_is_named: args.namespace().is_some(),
            paint: Paint::stdout(args.color),
        })
    }

    /// The current time of the local clock.
    pub fn now(&self) -> Time {
        Timestamp::now().into()
    }

    /// The current time of the cluster: the local time, corrected by the clock skew. A time in a spec is compared with times of the
    /// operator.
    pub async fn cluster_now(&self) -> Result<Time, Error> {
        let skew = self.clock_skew().await?.filter(|skew| skew.abs() > MIN_SKEW);
        Ok(self.now().plus(skew.unwrap_or_default()))
    }

    /// Measures how far the API server's clock is ahead of the local clock, to the second; `None` without a Date header.
    pub async fn clock_skew(&self) -> Result<Option<SignedDuration>, Error> {
        let request = Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?;
        let before = self.now();
        let answer = with_timeout(self.client.send(request)).await?;
        let after = self.now();
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| rfc2822::parse(&date.replace("GMT", "+0000")).ok());
        let middle = before.plus(after.since(before) / 2);
        // The header is truncated to whole seconds, by half a second on average.
        Ok(date.map(|date| Time::from(date.timestamp()).plus(SignedDuration::from_millis(500)).since(middle)))
    }

    /// The API of PersonalAccessTokens in one namespace or in all namespaces.
    pub fn pats(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        service::scoped_dynamic(&self.client, namespace, &pat_resource())
    }

    /// The same connection for another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), client: self.client.clone(), url: self.url.clone(), ..*self }
    }

    /// Gets an object in the namespace.
    pub async fn get_pat(&self, name: &str) -> Result<PatObject, Error> {
        self.find_pat(name).await?.ok_or_else(|| {
            Error::NotFound(format!(
                "PersonalAccessToken {name} not found in namespace {}; use -n for another namespace, or `kubectl pat list -A` to list \
                 all tokens",
                self.namespace
            ))
        })
    }

    /// Gets an object in the namespace, or `None` if it does not exist.
    pub async fn find_pat(&self, name: &str) -> Result<Option<PatObject>, Error> {
        let found = with_timeout(self.pats(Some(&self.namespace)).get_opt(name)).await?;
        if found.is_none() {
            self.check_crd_installed().await?;
        }
        found.map(PatObject::parse).transpose()
    }

    /// Lists the objects of one namespace or of all namespaces, page by page.
    pub async fn list_pats(&self, namespace: Option<&str>, selector: Option<&str>) -> Result<Vec<PatObject>, Error> {
        let params = selector.iter().fold(ListParams::default(), |params, selector| params.labels(selector));
        let objects = match list_objects(&self.pats(namespace), params).await {
            Err(error) if error.is_api_status(404) => {
                self.check_crd_installed().await?;
                return Err(error);
            }
            objects => objects?,
        };
        let parse = |mut object: DynamicObject| {
            // Items of a list have no apiVersion and kind.
            object.types.get_or_insert_with(TypeMeta::resource::<PersonalAccessToken>);
            PatObject::parse(object)
        };
        objects.into_iter().map(parse).collect()
    }

    fn issuers(&self, kind: IssuerKind, namespace: Option<&str>) -> Api<DynamicObject> {
        let namespace = namespace.filter(|_| kind == IssuerKind::TokenIssuer);
        service::scoped_dynamic(&self.client, namespace, &kind.resource())
    }

    /// Lists the issuers of a kind: TokenIssuers of one namespace or of all namespaces.
    pub async fn list_issuers(&self, kind: IssuerKind, namespace: Option<&str>) -> Result<Vec<IssuerObject>, Error> {
        let objects = list_objects(&self.issuers(kind, namespace), ListParams::default()).await?;
        objects.into_iter().map(|object| IssuerObject::parse(kind, object)).collect()
    }

    /// Gets the issuer that a PersonalAccessToken names, or `None` if it names none or the issuer does not exist.
    pub async fn issuer_of(&self, pat: &PatObject) -> Result<Option<IssuerObject>, Error> {
        let Some(reference) = pat.spec().issuer_ref else { return Ok(None) };
        let found = with_timeout(self.issuers(reference.kind, Some(pat.namespace())).get_opt(&reference.name)).await?;
        found.map(|object| IssuerObject::parse(reference.kind, object)).transpose()
    }

    /// Returns an error with a hint if the CRD is not installed.
    async fn check_crd_installed(&self) -> Result<(), Error> {
        let version = format!("{GROUP}/{VERSION}");
        match with_timeout(self.client.list_api_group_resources(&version)).await {
            Ok(found) if found.resources.iter().any(|one| one.name == crd::PLURAL) => Ok(()),
            Ok(_) | Err(Error::Api(kube::Error::Api(_))) => Err(Error::NotFound(crd::how_to_install(crd::NAME))),
            Err(error) => Err(error),
        }
    }
}

async fn list_objects(api: &Api<DynamicObject>, params: ListParams) -> Result<Vec<DynamicObject>, Error> {
    service::list_pages(params, |params| async move { with_timeout(api.list(&params)).await }).await
}

/// Sends a request with a timeout.
pub async fn with_timeout<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    let timeout = CHOSEN_TIMEOUT.get().copied().unwrap_or(REQUEST_TIMEOUT);
    tokio::time::timeout(timeout, request).await.map_err(|_| Error::Timeout(timeout))?.map_err(Error::Api)
}
