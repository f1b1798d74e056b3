//! The webhook by which a Kubernetes API server asks who the holder of a token is: PATs become cluster credentials.
//!
//! Off unless it is asked for. Two rules keep it from handing out more than it should: a PAT must itself list an audience that
//! the API server asks for (one without audiences is for no cluster), and no name or group that begins with `system:` ever
//! leaves here. A PAT's scopes are not Kubernetes rights: they go along as `extra`, and RBAC decides.
//!
//! The API server keeps answers for two minutes, denials too, but none with `status.error`. So a token that may merely be new
//! here gets an error, and only what is known to be dead, or can never become a token, a plain denial.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use axum::{extract::Request, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{Checked, Protocol, Refusal, Verifier, reason::Reason, reply};
use crate::{
    auth::decision::{Audience, Demand, Denial},
    index::{CredentialRef, OwnerProfile, PatUid},
    service::http::body::BodyError,
};

/// Where it is.
pub const PATH: &str = "/k8s/tokenreview";

/// The key of `extra` under which the credential's id stands. The API server wants keys in lower case.
pub const EXTRA_TOKEN_ID: &str = "pat-operator.io/token-id";

/// The key of `extra` under which the token's scopes stand.
pub const EXTRA_SCOPES: &str = "pat-operator.io/scopes";

const ALLOWED: &str = "POST";
const VERSIONS: [&str; 2] = ["authentication.k8s.io/v1", "authentication.k8s.io/v1beta1"];
const KIND: &str = "TokenReview";

/// What names and groups begin with that only Kubernetes itself may give.
const RESERVED: &str = "system:";

/// How the webhook answers.
#[derive(Clone, Debug)]
pub struct TokenReviewSettings {
    /// What stands before the owner in the user name, and before each group.
    pub username_prefix: UsernamePrefix,
}

/// What user names and groups begin with, so that nobody's owner is taken for a user of another kind. Default: `pat:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsernamePrefix(String);

/// Text that cannot be such a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the prefix of user names is 1 to 64 visible ASCII characters and does not begin with system:, such as pat:")]
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

/// A review as it comes in; what else it may have does not matter.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: String,
    kind: String,
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow, default)]
    token: Cow<'a, str>,
    #[serde(default)]
    audiences: Option<Vec<String>>,
}

impl Drop for Spec<'_> {
    fn drop(&mut self) {
        // Borrowed, unless it was written with escapes.
        if let Cow::Owned(token) = &mut self.token {
            token.zeroize();
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reviewed<'a> {
    api_version: &'a str,
    kind: &'static str,
    status: Status,
}

/// What the API server reads.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Status {
    authenticated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audiences: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct User {
    username: String,
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    extra: BTreeMap<&'static str, Vec<String>>,
}

/// Answers an API server.
pub async fn answer(verifier: &Verifier, settings: &TokenReviewSettings, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !reply::is_allowed(&head.method, ALLOWED) {
        return reply::wrong_method(ALLOWED);
    }
    // Its header is not needed any more, and may be large.
    drop(head);
    match reply::body(body, verifier.memory()).await {
        Ok(body) => answer_body(verifier, settings, &body),
        Err(error @ BodyError::NoRoom(_)) => reply::try_again(reply::text(error.status(), format!("{error}\n"))),
        Err(error) => reply::text(error.status(), format!("{error}\n")),
    }
}

/// Answers a review as it stands in a body.
pub fn answer_body(verifier: &Verifier, settings: &TokenReviewSettings, body: &[u8]) -> Response {
    // What serde says may quote the token, so nobody is told.
    let Ok(review) = serde_json::from_slice::<Review<'_>>(body) else {
        return reply::text(StatusCode::BAD_REQUEST, "the body is no TokenReview\n");
    };
    if review.kind != KIND || !VERSIONS.contains(&&*review.api_version) {
        return reply::text(
            StatusCode::BAD_REQUEST,
            "there is TokenReview of authentication.k8s.io/v1 and v1beta1 here\n",
        );
    }
    let status = judge(verifier, settings, &review.spec);
    reply::json(StatusCode::OK, &Reviewed { api_version: &review.api_version, kind: KIND, status })
}

fn judge(verifier: &Verifier, settings: &TokenReviewSettings, spec: &Spec<'_>) -> Status {
    let wanted = spec.audiences.as_deref().unwrap_or_default();
    let wanted: Vec<&str> = wanted.iter().map(|audience| &**audience).collect();
    // Without any, no token matches: the API server would take our answer for its own audience, which we cannot know.
    let demand = Demand { scopes: &[], audience: Audience::OneOf(&wanted) };
    let admit = |record: &CredentialRef| admit(record, verifier.owner_of(record).as_deref(), settings, &wanted);
    match verifier.check_for(Protocol::TokenReview, spec.token.as_bytes(), &demand, admit) {
        Checked::Allow(_, status) => status,
        Checked::Refused(_, Reserved) => Status::default(),
        Checked::Deny(Denial::Unknown { gone: false }) => {
            Status::error("the token is not known, or not known yet", &wanted)
        }
        Checked::Deny(Denial::Audience(_)) if wanted.is_empty() => {
            Status::error("spec.audiences is empty: start the API server with --api-audiences", &wanted)
        }
        Checked::Deny(_) => Status::default(),
        Checked::Unavailable(_) => Status::error("tokens cannot be verified at the moment", &wanted),
    }
}

/// The name, or a group, is one that only Kubernetes itself may give.
struct Reserved;

impl Refusal for Reserved {
    fn reason(&self) -> Reason {
        Reason::Reserved
    }
}

fn admit(
    record: &CredentialRef,
    owner: Option<&OwnerProfile>,
    settings: &TokenReviewSettings,
    wanted: &[&str],
) -> Result<Status, Reserved> {
    let pat = &record.pat;
    let prefixed = |name: &str| format!("{}{name}", settings.username_prefix);
    let mut extra = BTreeMap::from([(EXTRA_TOKEN_ID, vec![record.credential().id.to_string()])]);
    if !pat.scopes().is_empty() {
        extra.insert(EXTRA_SCOPES, pat.scopes().iter().map(str::to_owned).collect());
    }
    let user = User {
        username: prefixed(pat.subject()),
        uid: with_dashes(pat.uid),
        groups: owner.map_or(&[][..], |owner| &owner.groups).iter().map(|group| prefixed(group)).collect(),
        extra,
    };
    let audiences: Vec<String> = pat.audiences().iter().filter(|one| wanted.contains(one)).map(str::to_owned).collect();
    // Last of all, and on the very texts that would leave. An answer without audiences would be taken for any.
    let reserved = is_reserved(&user.username) || user.groups.iter().any(|group| is_reserved(group));
    if reserved || audiences.is_empty() {
        return Err(Reserved);
    }
    Ok(Status { authenticated: true, user: Some(user), audiences, error: None })
}

impl Status {
    // With the audiences as they were asked for: of an answer without any the API server looks at its own audience first, and if
    // another was asked for, it makes a plain denial of the error and keeps it.
    fn error(error: &'static str, wanted: &[&str]) -> Self {
        let audiences = wanted.iter().map(|audience| (*audience).to_owned()).collect();
        Self { error: Some(error), audiences, ..Self::default() }
    }
}

fn is_reserved(name: &str) -> bool {
    name.as_bytes().get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED.as_bytes()))
}

/// The uid as `metadata.uid` has it.
fn with_dashes(uid: PatUid) -> String {
    let digits = uid.to_string();
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
