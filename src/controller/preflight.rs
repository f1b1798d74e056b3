//! What must be in place before the controller starts: the resource, and permission for every request that it will make.
//!
//! Finding out here costs a few questions; finding out in the middle of a mint costs a night. It must not change anything.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

use crate::{
    api::{GROUP, VERSION, crd},
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

/// Why the controller cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// Something is not allowed.
    #[error("not permitted: {}; grant it to this identity by a Role or ClusterRole (the README has one), then start again", missing.join(", "))]
    NotPermitted {
        /// Verb, resource and place of each request that is not allowed.
        missing: Vec<String>,
    },
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

/// Asks whether every request that the controller will make is allowed, in each namespace or everywhere.
///
/// # Errors
/// Which are not, or the API server cannot be asked.
pub async fn check_permissions(client: &Client, namespaces: &[String]) -> Result<(), PreflightError> {
    let everywhere = [String::new()];
    let scopes = if namespaces.is_empty() { everywhere.as_slice() } else { namespaces };
    let mut questions = Vec::new();
    for scope in scopes {
        for (group, resource, subresource, verbs) in NEEDS {
            for verb in *verbs {
                questions.push((scope, group, resource, subresource, verb));
            }
        }
    }
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answers: Vec<Option<String>> = stream::iter(questions)
        .map(|(scope, group, resource, subresource, verb)| {
            let api = api.clone();
            async move {
                let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
                let review = SelfSubjectAccessReview {
                    spec: SelfSubjectAccessReviewSpec {
                        resource_attributes: Some(ResourceAttributes {
                            namespace: text(scope),
                            group: text(group),
                            resource: text(resource),
                            subresource: text(subresource),
                            verb: text(verb),
                            ..Default::default()
                        }),
                        non_resource_attributes: None,
                    },
                    ..Default::default()
                };
                let answer = api.create(&PostParams::default(), &review).await?;
                let allowed = answer.status.is_some_and(|status| status.allowed);
                let place = if scope.is_empty() { "in all namespaces".into() } else { format!("in namespace {scope}") };
                let resource = match (*group, *subresource) {
                    ("", _) => (*resource).to_owned(),
                    (group, "") => format!("{resource}.{group}"),
                    (group, subresource) => format!("{resource}.{group}/{subresource}"),
                };
                Ok((!allowed).then(|| format!("{verb} {resource} {place}")))
            }
        })
        .buffer_unordered(8)
        .try_collect()
        .await
        .map_err(|error: kube::Error| PreflightError::Unreachable(crate::runtime::explain_api_error(&error)))?;
    let mut missing: Vec<String> = answers.into_iter().flatten().collect();
    missing.sort_unstable();
    if missing.is_empty() { Ok(()) } else { Err(PreflightError::NotPermitted { missing }) }
}
