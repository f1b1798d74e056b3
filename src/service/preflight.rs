//! Checks before a program starts: whether a resource is served, whether namespaces exist, and whether all later requests are permitted, by RBAC and
//! by the admission policy for statuses.

use std::{fmt, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        authentication::v1::UserInfo,
        authorization::v1::{
            ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
            SubjectAccessReviewSpec,
        },
        core::v1::Namespace,
    },
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;

use super::{
    client::{explain_api_error, scoped},
    readiness::ReadinessGate,
};

/// The interval of checks for a missing resource.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// The number of concurrent requests.
const CONCURRENT_CHECKS: usize = 8;

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
    /// The admission policy of the chart refuses the status writes of this identity.
    #[error(
        "the admission policy for statuses does not allow {user} to write the status of tokens: add {user} to the value {value} of the release that \
         installed the policies, then start again"
    )]
    RefusedByPolicy {
        /// The user name of this identity.
        user: String,
        /// The value of the chart that lists the identities.
        value: &'static str,
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
        .buffer_unordered(CONCURRENT_CHECKS)
        .try_collect()
        .await
        .map_err(|error: kube::Error| PreflightError::Unreachable(explain_api_error(&error)))?;
    let mut missing: Vec<String> = answers.into_iter().flatten().collect();
    missing.sort_unstable();
    if missing.is_empty() { Ok(()) } else { Err(PreflightError::NotPermitted { missing }) }
}

/// Warns of each namespace that does not exist. `flag` is the flag that lists them. A namespace that may not be read is taken to exist.
///
/// This is no error: the namespace may be created later, and its tokens are then served.
pub async fn warn_of_missing_namespaces(client: &Client, namespaces: &[String], flag: &str) {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut found = stream::iter(namespaces)
        .map(|name| {
            let api = api.clone();
            async move { (name, api.get_metadata_opt(name).await) }
        })
        .buffered(CONCURRENT_CHECKS);
    while let Some((name, found)) = found.next().await {
        if let Ok(None) = found {
            tracing::warn!("{flag}: namespace {name} does not exist: create it, or correct the flag and start again");
        }
    }
}

/// Checks that the chart's admission policy `status` lets this identity write statuses: by a dry run that changes nothing, on one object in the
/// first namespace that has one (in any if none is given). Without an object, or after any other error, there is no answer.
///
/// `value` is the value of the chart that lists the identities.
///
/// # Errors
/// The policy refuses the write.
pub async fn check_status_policy<K>(
    client: &Client,
    namespaces: &[String],
    field_manager: &str,
    value: &'static str,
) -> Result<(), PreflightError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + fmt::Debug,
{
    let scopes = match namespaces {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    for scope in scopes {
        let api: Api<K> = scoped(client, scope);
        let Ok(found) = api.list_metadata(&ListParams::default().limit(1)).await else { continue };
        let Some(metadata) = found.items.into_iter().next().map(|one| one.metadata) else { continue };
        let (Some(namespace), Some(name)) = (metadata.namespace, metadata.name) else { continue };
        let api: Api<K> = Api::namespaced(client.clone(), &namespace);
        let params =
            PatchParams { dry_run: true, field_manager: Some(field_manager.to_owned()), ..PatchParams::default() };
        let answer = api.patch_status(&name, &params, &Patch::Merge(serde_json::json!({}))).await;
        return match answer {
            Err(kube::Error::Api(status)) => match refused_user(&status.message) {
                Some(user) => Err(PreflightError::RefusedByPolicy { user: user.to_owned(), value }),
                None => Ok(()),
            },
            _ => Ok(()),
        };
    }
    Ok(())
}

/// Warns if the chart's admission policies refuse to let this identity record when tokens are used. Its server works nevertheless.
pub async fn warn_of_status_policy<K>(client: &Client, namespaces: &[String], field_manager: &str)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + fmt::Debug,
{
    let value = "policies.otherAccounts.verifiers";
    if let Err(error) = check_status_policy::<K>(client, namespaces, field_manager, value).await {
        tracing::warn!("the times of last use cannot be recorded: {error}");
    }
}

/// Returns the user in the message of the policy (charts/pat-operator/policies/status.yaml).
fn refused_user(message: &str) -> Option<&str> {
    let (_, reason) = message.split_once(" denied request: status: ")?;
    reason.split_once(" may not write it").map(|(user, _)| user)
}
