//! What must be in place before a program starts: a resource, and permission for every request that it will make.
//!
//! Finding out here costs a few questions; finding out in the middle of the work costs a night. It must not change anything, nor
//! know which resource and which requests they are.

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

use super::{client::explain_api_error, gate::Gate};

/// How often the API server is asked for a resource that is not there yet.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Requests that will be made: API group, resource, subresource, verbs.
pub type Need = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// Why a program cannot start.
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
/// `missing` says what is missing and how to get it.
///
/// # Errors
/// The API server cannot be asked at all.
pub async fn wait_for_resource(
    client: &Client,
    group_version: &str,
    resource: &str,
    missing: &str,
    gate: &Gate,
) -> Result<(), PreflightError> {
    let mut told = false;
    loop {
        match client.list_api_group_resources(group_version).await {
            Ok(found) if found.resources.iter().any(|one| one.name == resource) => {
                gate.pass("");
                return Ok(());
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 503) => {}
            // It has answered before, so this passes.
            Err(error) if told && !matches!(error, kube::Error::Api(_)) => {
                tracing::debug!("{}", explain_api_error(&error));
            }
            Err(error) => return Err(PreflightError::Unreachable(explain_api_error(&error))),
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("waiting: {missing}");
            gate.fail(missing);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// One request that will be made.
pub struct Question<'a> {
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
    /// For rights that may be restricted to one name; else empty.
    pub name: &'a str,
}

/// A program's identity in the cluster.
#[derive(Clone, Copy, Debug)]
pub struct ServiceAccount<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl ServiceAccount<'_> {
    /// The user that it is to the API server.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// The same with the groups that it is in.
    pub fn user_info(&self) -> UserInfo {
        let all = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned);
        let groups = all.into_iter().chain([format!("system:serviceaccounts:{}", self.namespace)]).collect();
        UserInfo { username: Some(self.user()), groups: Some(groups), ..UserInfo::default() }
    }
}

impl Question<'_> {
    /// Asks the API server, for whoever asks.
    ///
    /// # Errors
    /// It does not answer.
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

    /// Asks the API server for somebody else. That takes a right of its own.
    ///
    /// # Errors
    /// It does not answer, or does not say this of others.
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

    /// As a person would say it.
    pub fn words(&self) -> String {
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

/// Each verb of each need, in each of these namespaces, or everywhere if there are none.
pub fn questions<'a>(needs: &[Need], namespaces: &'a [String]) -> Vec<Question<'a>> {
    let scopes: Vec<&str> =
        if namespaces.is_empty() { vec![""] } else { namespaces.iter().map(String::as_str).collect() };
    let mut questions = Vec::new();
    for namespace in scopes {
        for &(group, resource, subresource, verbs) in needs {
            for verb in verbs {
                questions.push(Question { namespace, group, resource, subresource, verb, name: "" });
            }
        }
    }
    questions
}

/// Asks whether all of this is allowed.
///
/// # Errors
/// Which is not, or the API server cannot be asked.
pub async fn check_permissions(client: &Client, questions: Vec<Question<'_>>) -> Result<(), PreflightError> {
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
