//! What must be in place before the controller starts: the resource, and permission for every request that it will make.
//!
//! Finding out here costs a few questions; finding out in the middle of a mint costs a night. It must not change anything.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};

use crate::{
    api::{GROUP, StoredPat, VERSION, crd},
    runtime::Gate,
};

/// How often the API server is asked for a resource that is not there yet.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Every request that the controller makes: API group, resource, subresource, verbs.
pub const NEEDS: &[(&str, &str, &str, &[&str])] = &[
    (GROUP, "personalaccesstokens", "", &["get", "list", "watch"]),
    (GROUP, "personalaccesstokens", "status", &["patch"]),
    ("", "secrets", "", &["get", "list", "watch", "create", "patch", "delete"]),
    ("events.k8s.io", "events", "", &["create", "patch"]),
];

/// The verbs that leader election needs on its Lease.
pub const LEASE_NEEDS: &[&str] = &["get", "create", "update"];

/// Why the controller cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// Something is not allowed.
    #[error("not permitted: {}; grant it to this identity by a Role or ClusterRole (the README has one), then start again", missing.join(", "))]
    NotPermitted {
        /// Verb, resource and place of each request that is not allowed.
        missing: Vec<String>,
    },
    /// The API server does not understand the label selector.
    #[error("--label-selector: {0}; write it as for `kubectl get -l`, such as shard=a")]
    BadSelector(String),
    /// The API server did not answer.
    #[error("{0}")]
    Unreachable(String),
}

/// Waits until the API server serves the resource. Discovery is open to everybody, so this needs no right to read CRDs.
///
/// # Errors
/// The API server cannot be asked at all.
pub async fn wait_for_crd(client: &Client, gate: &Gate) -> Result<(), PreflightError> {
    let group_version = format!("{GROUP}/{VERSION}");
    let mut told = false;
    loop {
        match client.list_api_group_resources(&group_version).await {
            Ok(found) if found.resources.iter().any(|resource| resource.name == "personalaccesstokens") => {
                gate.pass("");
                return Ok(());
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 503) => {}
            // It has answered before, so this passes.
            Err(error) if told && !matches!(error, kube::Error::Api(_)) => {
                tracing::debug!("{}", crate::runtime::explain_api_error(&error));
            }
            Err(error) => return Err(PreflightError::Unreachable(crate::runtime::explain_api_error(&error))),
        }
        if !std::mem::replace(&mut told, true) {
            let why = format!(
                "{} is not installed: kubectl apply -f crds/ (or: pat-operator crds | kubectl apply -f -)",
                crd::NAME
            );
            tracing::warn!("waiting: {why}");
            gate.fail(why);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// One request that will be made.
struct Question<'a> {
    namespace: &'a str,
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    verb: &'a str,
    /// For rights that may be restricted to one name.
    name: &'a str,
}

impl Question<'_> {
    /// Asks the API server.
    async fn is_allowed(&self, client: &Client) -> kube::Result<bool> {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: text(self.namespace),
                    group: text(self.group),
                    resource: text(self.resource),
                    subresource: text(self.subresource),
                    verb: text(self.verb),
                    name: text(self.name),
                    ..Default::default()
                }),
                non_resource_attributes: None,
            },
            ..Default::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// As a person would say it.
    fn words(&self) -> String {
        let place = match self.namespace {
            "" => "in all namespaces".to_owned(),
            namespace => format!("in namespace {namespace}"),
        };
        let resource = match (self.group, self.subresource) {
            ("", _) => self.resource.to_owned(),
            (group, "") => format!("{}.{group}", self.resource),
            (group, subresource) => format!("{}.{group}/{subresource}", self.resource),
        };
        format!("{} {resource} {place}", self.verb)
    }
}

/// Asks whether every request that the controller will make is allowed, in each namespace or everywhere; and those of
/// leader election, if there is a `lease` (namespace and name): without the right to renew it, an instance would work
/// for some seconds, lose it and end.
///
/// # Errors
/// Which are not, or the API server cannot be asked.
pub async fn check_permissions(
    client: &Client,
    namespaces: &[String],
    lease: Option<(&str, &str)>,
) -> Result<(), PreflightError> {
    let everywhere = [String::new()];
    let scopes = if namespaces.is_empty() { everywhere.as_slice() } else { namespaces };
    let mut questions = Vec::new();
    for namespace in scopes {
        for &(group, resource, subresource, verbs) in NEEDS {
            for verb in verbs {
                questions.push(Question { namespace, group, resource, subresource, verb, name: "" });
            }
        }
    }
    if let Some((namespace, name)) = lease {
        for &verb in LEASE_NEEDS {
            // A name is not known to the authorizer when something is created.
            let name = if verb == "create" { "" } else { name };
            let (group, resource) = ("coordination.k8s.io", "leases");
            questions.push(Question { namespace, group, resource, subresource: "", verb, name });
        }
    }
    let answers: Vec<Option<String>> = stream::iter(questions)
        .map(|question| async move {
            let allowed = question.is_allowed(client).await?;
            Ok((!allowed).then(|| question.words()))
        })
        .buffer_unordered(8)
        .try_collect()
        .await
        .map_err(|error: kube::Error| PreflightError::Unreachable(crate::runtime::explain_api_error(&error)))?;
    let mut missing: Vec<String> = answers.into_iter().flatten().collect();
    missing.sort_unstable();
    if missing.is_empty() { Ok(()) } else { Err(PreflightError::NotPermitted { missing }) }
}

/// Lets the API server read the label selector, once: a watch with a wrong one would begin anew for ever.
///
/// # Errors
/// It cannot be read, or the API server cannot be asked.
pub async fn check_selector(
    client: &Client,
    namespaces: &[String],
    selector: Option<&str>,
) -> Result<(), PreflightError> {
    let Some(selector) = selector else { return Ok(()) };
    let api: Api<StoredPat> = match namespaces.first() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    match api.list_metadata(&ListParams::default().labels(selector).limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 400 => Err(PreflightError::BadSelector(status.message.clone())),
        Err(error) => Err(PreflightError::Unreachable(crate::runtime::explain_api_error(&error))),
    }
}
