//! The TokenReview webhook of a Kubernetes API server: PATs become cluster credentials. It is disabled by default.
//!
//! Two rules limit what it grants. A PAT must list an audience that the API server requires, so a PAT without audiences is not
//! valid for a cluster. No user name and no group starts with `system:`. The scopes of a PAT are not Kubernetes permissions: the
//! answer has them as `extra`, and RBAC decides.
//!
//! The API server caches answers for two minutes, denials too, but not answers with `status.error`. So a token that may be new
//! gets an error. A token that is known to be invalid, or malformed text, gets a denial.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use axum::{extract::Request, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{CheckResult, Protocol, ProtocolRejection, Verifier, reason::DecisionReason, response};
use crate::{
    auth::decision::{Audience, Denial, Requirements},
    index::{CredentialRef, OwnerProfile},
    service::http::body::BodyError,
};

/// Path of the webhook.
pub const PATH: &str = "/k8s/tokenreview";

/// Key of `extra` for the ID of the credential. The API server requires keys in lower case.
pub const EXTRA_TOKEN_ID: &str = "pat-operator.io/token-id";

/// Key of `extra` for the scopes of the token.
pub const EXTRA_SCOPES: &str = "pat-operator.io/scopes";

const ALLOWED: &str = "POST";
const VERSIONS: [&str; 2] = ["authentication.k8s.io/v1", "authentication.k8s.io/v1beta1"];
const KIND: &str = "TokenReview";

/// Prefix of names and groups that are reserved for Kubernetes.
const RESERVED_PREFIX: &str = "system:";

/// Configuration of the webhook.
#[derive(Clone, Debug)]
pub struct TokenReviewConfig {
    /// Prefix of the user name and of each group.
    pub username_prefix: UsernamePrefix,
}

/// Prefix of user names and groups, which keeps them apart from users of other authenticators. Default: `pat:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsernamePrefix(String);

/// The error for text that is not a valid prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 visible ASCII characters and not start with system:, such as pat:")]
pub struct InvalidUsernamePrefix;

impl Default for UsernamePrefix {
    fn default() -> Self {
        Self("pat:".to_owned())
    }
}

impl FromStr for UsernamePrefix {
    type Err = InvalidUsernamePrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits && !is_reserved(text) { Ok(Self(text.to_owned())) } else { Err(InvalidUsernamePrefix) }
    }
}

impl fmt::Display for UsernamePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The request of an API server. Other fields are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewRequest<'a> {
    api_version: String,
    kind: String,
    #[serde(borrow)]
    spec: ReviewSpec<'a>,
}

#[derive(Deserialize)]
struct ReviewSpec<'a> {
    #[serde(borrow, default)]
    token: Cow<'a, str>,
    #[serde(default)]
    audiences: Option<Vec<String>>,
}

impl Drop for ReviewSpec<'_> {
    fn drop(&mut self) {
        // Owned only if the JSON string has escapes.
        if let Cow::Owned(token) = &mut self.token {
            token.zeroize();
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReviewResponse<'a> {
    api_version: &'a str,
    kind: &'static str,
    status: ReviewStatus,
}

/// The status that the API server reads.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct ReviewStatus {
    authenticated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<ReviewUser>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audiences: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ReviewUser {
    username: String,
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    extra: BTreeMap<&'static str, Vec<String>>,
}

/// Answers a TokenReview request.
pub async fn answer(verifier: &Verifier, config: &TokenReviewConfig, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !response::is_allowed(&head.method, ALLOWED) {
        return response::method_not_allowed(ALLOWED);
    }
    // The header is no longer needed and may be large.
    drop(head);
    match response::body(body, verifier.memory()).await {
        Ok(body) => answer_body(verifier, config, &body),
        Err(error @ BodyError::NoMemory(_)) => {
            response::with_retry_after(response::text(error.status(), format!("{error}\n")))
        }
        Err(error) => response::text(error.status(), format!("{error}\n")),
    }
}

/// Answers the body of a TokenReview request.
pub fn answer_body(verifier: &Verifier, config: &TokenReviewConfig, body: &[u8]) -> Response {
    // serde's error may quote the token, so it is dropped.
    let Ok(review) = serde_json::from_slice::<ReviewRequest<'_>>(body) else {
        return response::text(StatusCode::BAD_REQUEST, "the body is not a TokenReview\n");
    };
    if review.kind != KIND || !VERSIONS.contains(&&*review.api_version) {
        return response::text(
            StatusCode::BAD_REQUEST,
            "the body must be a TokenReview of authentication.k8s.io/v1 or v1beta1\n",
        );
    }
    let status = authenticate(verifier, config, &review.spec);
    response::json(StatusCode::OK, &ReviewResponse { api_version: &review.api_version, kind: KIND, status })
}

fn authenticate(verifier: &Verifier, config: &TokenReviewConfig, spec: &ReviewSpec<'_>) -> ReviewStatus {
    let required = spec.audiences.as_deref().unwrap_or_default();
    let required: Vec<&str> = required.iter().map(|audience| &**audience).collect();
    // Without audiences no token matches: the API server would apply the answer to its own audience, which is unknown here.
    let requirements = Requirements { scopes: &[], audience: Audience::OneOf(&required) };
    let admit = |record: &CredentialRef| admit(record, verifier.owner_of(record).as_deref(), config, &required);
    match verifier.check_and_admit(Protocol::TokenReview, spec.token.as_bytes(), &requirements, admit) {
        CheckResult::Allow(_, status) => status,
        CheckResult::Reject(_, ReservedName) => ReviewStatus::default(),
        CheckResult::Deny(Denial::Unknown { removed: false }) => {
            ReviewStatus::error("the token is unknown or not known yet", &required)
        }
        CheckResult::Deny(Denial::WrongAudience(_)) if required.is_empty() => {
            ReviewStatus::error("spec.audiences is empty: start the API server with --api-audiences", &required)
        }
        CheckResult::Deny(_) => ReviewStatus::default(),
        CheckResult::Unavailable(_) => ReviewStatus::error("tokens cannot be verified at the moment", &required),
    }
}

/// The user name or a group is reserved for Kubernetes.
struct ReservedName;

impl ProtocolRejection for ReservedName {
    fn reason(&self) -> DecisionReason {
        DecisionReason::Reserved
    }
}

fn admit(
    record: &CredentialRef,
    owner: Option<&OwnerProfile>,
    config: &TokenReviewConfig,
    required: &[&str],
) -> Result<ReviewStatus, ReservedName> {
    let pat = &record.pat;
    let prefixed = |name: &str| format!("{}{name}", config.username_prefix);
    let mut extra = BTreeMap::from([(EXTRA_TOKEN_ID, vec![record.credential().id.to_string()])]);
    if !pat.scopes().is_empty() {
        extra.insert(EXTRA_SCOPES, pat.scopes().iter().map(str::to_owned).collect());
    }
    let user = ReviewUser {
        username: prefixed(pat.subject()),
        uid: pat.uid.hyphenated(),
        groups: owner.map_or(&[][..], |owner| &owner.groups).iter().map(|group| prefixed(group)).collect(),
        extra,
    };
    let audiences: Vec<String> =
        pat.audiences().iter().filter(|one| required.contains(one)).map(str::to_owned).collect();
    // Checked last, on exactly the names in the answer. The API server would accept an answer without audiences for any audience.
    let reserved = is_reserved(&user.username) || user.groups.iter().any(|group| is_reserved(group));
    if reserved || audiences.is_empty() {
        return Err(ReservedName);
    }
    Ok(ReviewStatus { authenticated: true, user: Some(user), audiences, error: None })
}

impl ReviewStatus {
    // The answer repeats the required audiences. Without them, the API server would check its own audience first, turn the error
    // into a denial if it required another, and cache it.
    fn error(error: &'static str, required: &[&str]) -> Self {
        let audiences = required.iter().map(|audience| (*audience).to_owned()).collect();
        Self { error: Some(error), audiences, ..Self::default() }
    }
}

fn is_reserved(name: &str) -> bool {
    name.as_bytes()
        .get(..RESERVED_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX.as_bytes()))
}
