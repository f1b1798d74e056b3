//! What can go wrong with a request to the API server, and what the caller is told of it.
//!
//! It must not tell the caller what is the operator's own affair: that goes to the log.

use std::time::Duration;

use kube::core::Status;
use tracing::{error, warn};

use crate::{rest::failure::Failure, service::explain_api_error};

/// When a client should come back.
pub(super) const COME_BACK: Duration = Duration::from_secs(2);

/// What an admission policy and a webhook put before their own words.
const DENIED: [&str; 2] = ["denied request", "denied the request"];

/// How the sentences of the guard rails begin that are for callers, as they say whom to ask for what (charts/pat-operator/policies).
const FOR_CALLERS: [&str; 2] = ["the REST API may not issue tokens for ", "spec.scopes: "];

/// Why a request did not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// It was refused, or the connection broke.
    #[error("{}", explain_api_error(.0))]
    Failed(kube::Error),
    /// There was no answer.
    #[error("the API server did not answer within {} s", .0.as_secs())]
    Silent(Duration),
}

impl Trouble {
    /// The status of the answer, if there was one.
    pub(super) fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// Whether the request may have had its effect all the same.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.code().is_none_or(|code| code >= 500)
    }

    fn status(&self) -> Option<&Status> {
        match self {
            Self::Failed(kube::Error::Api(status)) => Some(status),
            Self::Failed(_) | Self::Silent(_) => None,
        }
    }

    /// What the caller is told. `doing` is for the log.
    pub(super) fn into_failure(self, doing: &str) -> Failure {
        let Some(status) = self.status() else {
            warn!(why = %self, doing, "the API server cannot be reached");
            return unreachable();
        };
        if DENIED.iter().any(|denied| status.message.contains(denied)) {
            warn!(why = %self, doing, "a rule of the cluster forbids what a caller asks for");
            // Most rules have words for whoever runs the cluster: they may name accounts that are none of the caller's business.
            let words = for_callers(&status.message).unwrap_or("a rule of this cluster does not allow this");
            return Failure::Forbidden(words.to_owned());
        }
        match status.code {
            404 => Failure::NotFound,
            400 | 422 => invalid(status, doing),
            429 | 500.. => {
                warn!(why = %self, doing, "the API server is in trouble");
                unreachable()
            }
            _ => {
                error!(why = %self, doing, "the API server refuses what this server has to do");
                Failure::Internal
            }
        }
    }
}

/// The words of a guard rail of ours, if they are for callers.
fn for_callers(message: &str) -> Option<&str> {
    let (policy, words) = message.split_once(" denied request: ")?;
    let is_for_callers = FOR_CALLERS.iter().any(|begin| words.starts_with(begin));
    (policy.contains("ValidatingAdmissionPolicy '") && is_for_callers).then_some(words)
}

fn unreachable() -> Failure {
    Failure::Unavailable { problem: "tokens cannot be changed at the moment: try again", retry_after: COME_BACK }
}

fn invalid(status: &Status, doing: &str) -> Failure {
    let cause = status.details.iter().flat_map(|details| &details.causes).find(|cause| !cause.field.is_empty());
    match cause {
        Some(cause) => {
            // `Invalid value: "object": words`
            let words = cause.message.rsplit_once("\": ").map_or(cause.message.as_str(), |(_, words)| words);
            Failure::invalid(&*cause.field, words)
        }
        None => {
            warn!(why = status.message, doing, "the API server does not take what a caller asks for");
            Failure::invalid("spec", "the cluster does not take a token like this")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: u16, message: &str) -> Failure {
        let status = Status { code, message: message.into(), ..Status::default() };
        Trouble::Failed(kube::Error::Api(status.boxed())).into_failure("test")
    }

    #[test]
    fn no_word_of_a_rule_of_the_cluster_reaches_the_caller() {
        let policy = "personalaccesstokens.pat-operator.io \"x\" is forbidden: ValidatingAdmissionPolicy 'guard' with binding \
            'guard' denied request: system:serviceaccount:ops:secret-robot may not";
        let webhook = "admission webhook \"hook.ops.svc\" denied the request: secret-robot may not";
        for message in [policy, webhook] {
            for code in [400, 403, 422] {
                let failure = told(code, message);
                assert_eq!(
                    failure,
                    Failure::Forbidden("a rule of this cluster does not allow this".into()),
                    "{message}"
                );
            }
        }
        let ours = policy
            .replace("system:serviceaccount:ops:secret-robot may not", "spec.scopes: ask whoever runs pat-operator");
        assert_eq!(told(422, &ours), Failure::Forbidden("spec.scopes: ask whoever runs pat-operator".into()));
        let other = told(422, "hook.ops.svc says no");
        assert_eq!(other, Failure::invalid("spec", "the cluster does not take a token like this"));
    }
}
