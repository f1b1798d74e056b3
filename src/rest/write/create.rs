//! Creates a token: the object, the controller's mint, and the delivery of the token.
//!
//! If this fails at any point, no live token is left without a holder: an undelivered token is deleted. If this server dies first, the
//! token expires, because it was not taken from its Secret, or its delivery was not acknowledged in time.

use kube::api::{DynamicObject, ObjectMeta, PostParams, TypeMeta};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Duration, Instant};
use tracing::{Instrument, debug, warn};

use super::{
    CALL_TIMEOUT, FIELD_MANAGER, RETRY_AFTER, Writer, call,
    delivery::{TokenInSecret, UndeliveredToken},
};
use crate::{
    api::{CredentialState, GROUP, Owner, VERSION, duration},
    index::PatUid,
    rest::{
        caller::RestCaller,
        error::{Conflict, RestError},
        model::{CreateToken, IssuedToken},
        request::RequestId,
    },
    token::TokenHash,
};

/// How long to wait for the controller.
const MINT_TIMEOUT: Duration = Duration::from_secs(10);

/// Pauses in seconds between checks whether a request without a response took effect. The API server ends requests after a minute.
const LATE_CHECKS: [u64; 6] = [1, 2, 4, 8, 16, 34];

/// The default key of the token in its Secret.
const KEY: &str = "token";

/// Identifies the object that a request created, if its response was lost.
const REQUEST_ANNOTATION: &str = "pat-operator.io/made-by-request";

const NOT_IN_TIME: RestError = RestError::Unavailable {
    problem: "the token was not issued in time and was revoked: try again",
    retry_after: RETRY_AFTER,
};

impl Writer {
    /// Creates a token with the caller's audiences, whose parent is the caller's PAT. It is taken back if the caller stops waiting.
    pub(in crate::rest) async fn create(
        &self,
        request: CreateToken,
        caller: &RestCaller,
    ) -> Result<IssuedToken, RestError> {
        let (this, caller) = (self.clone(), caller.clone());
        self.deliver(async move { this.create_and_wait(&request, &caller).await }).await
    }

    async fn create_and_wait(&self, request: &CreateToken, caller: &RestCaller) -> Result<IssuedToken, RestError> {
        let deadline = Instant::now() + MINT_TIMEOUT;
        let (name, uid) = self.post(request, caller).await?;
        debug!(name, %uid, "created the object of a new token");
        match self.mint_and_take(&name, uid, deadline).await {
            Ok(issued) => Ok(issued),
            Err(error) => {
                self.take_back(UndeliveredToken { name, id: uid, credential: None }).await;
                Err(error)
            }
        }
    }

    async fn mint_and_take(&self, name: &str, uid: PatUid, deadline: Instant) -> Result<IssuedToken, RestError> {
        let Some(hash) = self.wait_until(deadline, || self.active(uid)).await else {
            warn!(name, "the controller did not issue a token in time: check that it runs and watches this namespace");
            return Err(NOT_IN_TIME);
        };
        let from = TokenInSecret { pat: uid, name, secret: name, key: KEY, hash, once: true };
        let token = self.take(&from, deadline + CALL_TIMEOUT).await.map_err(|_| NOT_IN_TIME)?;
        let item = self.store.item(uid).ok_or(NOT_IN_TIME)?;
        let undelivered = UndeliveredToken { name: name.to_owned(), id: uid, credential: None };
        let receipt = self.receipt(undelivered, token.id());
        Ok(IssuedToken { item, token, receipt, limited_to: None })
    }

    fn active(&self, uid: PatUid) -> Option<TokenHash> {
        // The store is updated after the index.
        self.store.item(uid)?;
        let pat = self.index.pat(uid)?;
        let active = pat.credentials.iter().find(|one| one.state == CredentialState::Active)?;
        Some(active.hash)
    }

    /// Creates the object under the first free name. Two requests for one display name try the same names.
    async fn post(&self, request: &CreateToken, caller: &RestCaller) -> Result<(String, PatUid), RestError> {
        let taken = || RestError::Conflict(Conflict::NameTaken(request.display_name.clone()));
        if self.store.named(&request.owner, &request.display_name).is_some() {
            return Err(taken());
        }
        let mark = RequestId::random().0;
        for slot in 0..NAME_SLOTS {
            let name = object_name(&request.owner, &request.display_name, slot);
            let object = object(request, caller, &name, &mark);
            let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
            let created = match call(self.pats().create(&params, &object)).await {
                Ok(created) => Some(created),
                Err(error) if error.code() == Some(409) => None,
                Err(error) if error.is_ambiguous() => match self.created_by(&name, &mark).await {
                    Some(created) => Some(created),
                    None => {
                        self.take_back_late(name, mark);
                        return Err(error.into_rest_error("create a token"));
                    }
                },
                Err(error) => return Err(error.into_rest_error("create a token")),
            };
            if let Some(created) = created {
                return uid_of(&created).map(|uid| (name, uid));
            }
            match call(self.pats().get(&name)).await {
                // Renamed, or of another owner: only the object's name is the same.
                Ok(other) if !is_requested(&other, request) => {}
                Ok(other) if is_marked(&other, &mark) => return uid_of(&other).map(|uid| (name, uid)),
                Ok(_) => return Err(taken()),
                Err(error) if error.code() == Some(404) => return Err(taken()),
                Err(error) => return Err(error.into_rest_error("create a token")),
            }
        }
        Err(taken())
    }

    /// Checks whether a request without a response creates an object late, and takes it back.
    fn take_back_late(&self, name: String, mark: String) {
        let this = self.clone();
        let checking = async move {
            for pause in LATE_CHECKS {
                this.pause(Duration::from_secs(pause)).await;
                // A 404 does not prove that the object will never exist.
                let found = this.created_by(&name, &mark).await;
                if let Some(id) = found.and_then(|object| object.metadata.uid?.parse().ok()) {
                    return this.take_back(UndeliveredToken { name, id, credential: None }).await;
                }
                if this.stopping.is_cancelled() {
                    return;
                }
            }
        };
        self.tasks.spawn(checking.in_current_span());
    }

    /// Returns the object that a request without a response created, if any.
    async fn created_by(&self, name: &str, mark: &str) -> Option<DynamicObject> {
        for _ in 0..3 {
            match call(self.pats().get(name)).await {
                Ok(object) => return is_marked(&object, mark).then_some(object),
                Err(error) if error.code() == Some(404) => return None,
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
        None
    }
}

fn uid_of(object: &DynamicObject) -> Result<PatUid, RestError> {
    object.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).ok_or(RestError::Internal)
}

fn is_marked(object: &DynamicObject, mark: &str) -> bool {
    object.metadata.annotations.as_ref().and_then(|all| all.get(REQUEST_ANNOTATION)).is_some_and(|found| found == mark)
}

/// Whether an object has the requested owner and display name.
fn is_requested(object: &DynamicObject, request: &CreateToken) -> bool {
    let spec = &object.data["spec"];
    spec["displayName"] == json!(request.display_name) && spec["owner"] == json!(request.owner)
}

fn object(request: &CreateToken, caller: &RestCaller, name: &str, mark: &str) -> DynamicObject {
    let mut spec = json!({
        "displayName": request.display_name,
        "owner": request.owner,
        "expiry": request.expiry,
        "secret": {"delivery": "Once"},
        "parent": caller.as_parent(),
    });
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            spec[field] = value;
        }
    };
    set("description", request.description.as_ref().map(|text| json!(text)));
    set("scopes", (!request.scopes.is_empty()).then(|| json!(request.scopes)));
    // A token for a few audiences must not lead to one for all.
    set("audiences", (!caller.audiences.is_empty()).then(|| json!(caller.audiences)));
    set("permissions", (!request.permissions.is_empty()).then(|| json!(request.permissions)));
    set("accessTokenValidity", request.access_token_validity.map(|length| json!(duration::format(length))));
    set("tokenPrefix", request.token_prefix.as_ref().map(|prefix| json!(prefix.as_str())));
    DynamicObject {
        types: Some(TypeMeta { api_version: format!("{GROUP}/{VERSION}"), kind: "PersonalAccessToken".into() }),
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some([(REQUEST_ANNOTATION.to_owned(), mark.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: json!({ "spec": spec }),
    }
}

/// The number of object names for one owner and display name: a renamed token keeps its object name, and its old display name is free.
const NAME_SLOTS: u8 = 8;

/// The maximum length of the readable part of an object name.
const READABLE_LENGTH: usize = 38;

/// The length of the hash in an object name: 96 bits as hexadecimal digits.
const HASH_LENGTH: usize = 24;

/// Returns the name of the object for an owner and a display name, so that the API server decides between concurrent requests. It is a DNS
/// label of a readable part and a hash.
fn object_name(owner: &Owner, display_name: &str, slot: u8) -> String {
    let mut hasher = Sha256::new();
    for part in [&*owner.text(), display_name] {
        // Each part is hashed with its length, so that no character can move from one part to the other.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.update([slot]);
    let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let readable = readable(display_name);
    let start = if readable.is_empty() { "pat" } else { &readable };
    format!("{start}-{}", &hash[..HASH_LENGTH])
}

fn readable(text: &str) -> String {
    let mut name = String::new();
    for letter in text.chars() {
        if name.len() == READABLE_LENGTH {
            break;
        }
        match letter.to_ascii_lowercase() {
            letter if letter.is_ascii_alphanumeric() => name.push(letter),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::OwnerKind;

    fn owner(kind: OwnerKind, name: &str) -> Owner {
        Owner { kind, name: name.into() }
    }

    #[test]
    fn object_name_is_readable_and_differs_by_owner_name_and_slot() {
        let jane = owner(OwnerKind::User, "jane@example.com");
        let name = object_name(&jane, "CI: deploy (prod)", 0);
        assert!(name.starts_with("ci-deploy-prod-") && name.len() == 15 + HASH_LENGTH, "{name}");
        assert!(object_name(&jane, "日本", 0).starts_with("pat-"));
        let account = owner(OwnerKind::VirtualAccount, "jane@example.com");
        let names = [
            name,
            object_name(&jane, "CI: deploy (prod)", 1),
            object_name(&jane, "CI: deploy (prod", 0),
            object_name(&account, "CI: deploy (prod)", 0),
            object_name(&owner(OwnerKind::User, "jane@example.comCI: "), "deploy (prod)", 0),
        ];
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
    }

    proptest! {
        #[test]
        fn object_name_is_always_a_dns_label(text in "\\PC{1,128}", slot in 0_u8..NAME_SLOTS) {
            let name = object_name(&owner(OwnerKind::User, "a"), &text, slot);
            let is_label = |name: &str| {
                name.len() <= 63
                    && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                    && !name.starts_with('-') && !name.ends_with('-')
            };
            prop_assert!(is_label(&name), "{name}");
        }
    }
}
