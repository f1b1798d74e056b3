//! Checks before a program starts: whether a resource is served, and whether all later requests are permitted.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    authentication::v1::UserInfo,
    authorization::v1::{
        ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
        SubjectAccessReviewSpec,
    },
};
use kube::{Api, Client, api::PostParams};

use super::{client::explain_api_error, readiness::ReadinessGate};

/// The interval of checks for a missing resource.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Permissions that a program needs: API group, resource, subresource, verbs.
pub type RequiredAccess = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// Why a program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// A permission is missing.
    #[error("not permitted: {}; grant it to this identity by a Role or ClusterRole (see the README), then start again", missing.join(", "))]
    NotPermitted {
        /// Verb, resource and namespace of each missing permission.
        missing: Vec<String>,
    },
    /// The API server rejects the label selector.
    #[error("--label-selector: {0}; write it as for `kubectl get -l`, such as shard=a")]
    BadSelector(String),
    /// The API server cannot be reached.
    #[error("{0}")]
    Unreachable(String),
}

/// Waits until the API server serves the resource, using discovery, which needs no permission. `missing` is the message about what is missing
/// and how to install it.
///
/// # Errors
/// The API server cannot be reached.
pub async fn wait_for_resource(
    client: &Client,
    group_version: &str,
    resource: &str,
    missing: &str,
    gate: &ReadinessGate,
) -> Result<(), PreflightError> {
    let mut logged = false;
    loop {
        match client.list_api_group_resources(group_version).await {
            Ok(found) if found.resources.iter().any(|one| one.name == resource) => {
                gate.pass("");
                return Ok(());
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 503) => {}
            // The API server has answered before, so the error is temporary.
            Err(error) if logged && !matches!(error, kube::Error::Api(_)) => {
                tracing::debug!("{}", explain_api_error(&error));
            }
            Err(error) => return Err(PreflightError::Unreachable(explain_api_error(&error))),
        }
        if !std::mem::replace(&mut logged, true) {
            tracing::warn!("waiting: {missing}");
            gate.fail(missing);
        }
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

/// One request whose permission is checked.
pub struct AccessCheck<'a> {
    /// The namespace; empty for all of them.
    pub namespace: &'a str,
    /// The API group.
    pub group: &'a str,
    /// The resource.
    pub resource: &'a str,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The verb.
    pub verb: &'a str,
    /// The name, for permissions on a single object; else empty.
    pub name: &'a str,
}

/// A ServiceAccount.
#[derive(Clone, Copy, Debug)]
pub struct ServiceAccount<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl ServiceAccount<'_> {
    /// Returns the user name in the API server.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// Returns the user name and groups.
    pub fn user_info(&self) -> UserInfo {
        let all = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned);
        let groups = all.into_iter().chain([format!("system:serviceaccounts:{}", self.namespace)]).collect();
        UserInfo { username: Some(self.user()), groups: Some(groups), ..UserInfo::default() }
    }
}

impl AccessCheck<'_> {
    /// Whether the client's own identity has the permission.
    ///
    /// # Errors
    /// The API server cannot be reached.
    pub async fn is_allowed(&self, client: &Client) -> kube::Result<bool> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(self.attributes()),
                non_resource_attributes: None,
            },
            ..Default::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Whether another user has the permission. This check itself needs a permission.
    ///
    /// # Errors
    /// The API server cannot be reached, or refuses the check.
    pub async fn is_allowed_to(&self, client: &Client, user: UserInfo) -> kube::Result<bool> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                resource_attributes: Some(self.attributes()),
                non_resource_attributes: None,
                user: user.username,
                groups: user.groups,
                uid: user.uid,
                extra: user.extra,
            },
            ..Default::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }

    fn attributes(&self) -> ResourceAttributes {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        ResourceAttributes {
            namespace: text(self.namespace),
            group: text(self.group),
            resource: text(self.resource),
            subresource: text(self.subresource),
            verb: text(self.verb),
            name: text(self.name),
            ..Default::default()
        }
    }

    /// Returns the request in words.
    pub fn words(&self) -> String {
        let scope = match self.namespace {
            "" => "in all namespaces".to_owned(),
            namespace => format!("in namespace {namespace}"),
        };
        let resource = match (self.group, self.subresource) {
            ("", _) => self.resource.to_owned(),
            (group, "") => format!("{}.{group}", self.resource),
            (group, subresource) => format!("{}.{group}/{subresource}", self.resource),
        };
        format!("{} {resource} {scope}", self.verb)
    }
}

/// Returns a check for each verb in each of these namespaces, or for all namespaces if none is given.
pub fn questions<'a>(needs: &[RequiredAccess], namespaces: &'a [String]) -> Vec<AccessCheck<'a>> {
    let scopes: Vec<&str> =
        if namespaces.is_empty() { vec![""] } else { namespaces.iter().map(String::as_str).collect() };
    let mut questions = Vec::new();
    for namespace in scopes {
        for &(group, resource, subresource, verbs) in needs {
            for verb in verbs {
                questions.push(AccessCheck { namespace, group, resource, subresource, verb, name: "" });
            }
        }
    }
    questions
}

/// Checks all permissions.
///
/// # Errors
/// Permissions are missing, or the API server cannot be reached.
pub async fn check_permissions(client: &Client, questions: Vec<AccessCheck<'_>>) -> Result<(), PreflightError> {
    let answers: Vec<Option<String>> = stream::iter(questions)
        .map(|question| async move {
            let allowed = question.is_allowed(client).await?;
            Ok((!allowed).then(|| question.words()))
        })
        .buffer_unordered(8)
        .try_collect()
        .await
        .map_err(|error: kube::Error| PreflightError::Unreachable(explain_api_error(&error)))?;
    let mut missing: Vec<String> = answers.into_iter().flatten().collect();
    missing.sort_unstable();
    if missing.is_empty() { Ok(()) } else { Err(PreflightError::NotPermitted { missing }) }
}
