//! Makes a token: an object, its mint by the controller, and the handing over, to be had once.
//!
//! Wherever it breaks off, no live token is left that nobody holds: what was not handed out is deleted, and what this server can no
//! longer delete, because it died, dies by itself: its Secret has not been picked up in time, or its arrival not been acknowledged.

use kube::api::{DynamicObject, ObjectMeta, PostParams, TypeMeta};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use tracing::{Instrument, debug, warn};

use super::{
    FIELD_MANAGER, Writer, call,
    handover::Handover,
    name::{SLOTS, object_name},
    trouble::COME_BACK,
    unwanted::Unwanted,
};
use crate::{
    api::{CredentialState, GROUP, VERSION, duration},
    index::PatUid,
    rest::{
        failure::{Conflict, Failure},
        order::{Create, Created},
        request_id::RequestId,
    },
    token::TokenHash,
};

/// How long the controller may take.
const MINTED: Duration = Duration::from_secs(10);

/// How many seconds to wait between looks whether a request without an answer has had its effect after all: the API server gives up a request after a minute.
const LATE: [u64; 6] = [1, 2, 4, 8, 16, 34];

/// The key that holds the token in a Secret that says nothing else.
const KEY: &str = "token";

/// Tells an object that an unanswered request made from one that somebody else did.
const MARK: &str = "pat-operator.io/made-by-request";

const NOT_IN_TIME: Failure = Failure::Unavailable {
    problem: "the token was not issued in time, and is taken back: try again",
    retry_after: COME_BACK,
};

impl Writer {
    /// Makes it, and goes on to a good end if the caller goes away meanwhile.
    pub(in crate::rest) async fn create(&self, order: Create, audiences: Vec<String>) -> Result<Created, Failure> {
        let this = self.clone();
        self.hand_out(async move { this.make(&order, &audiences).await }).await
    }

    async fn make(&self, order: &Create, audiences: &[String]) -> Result<Created, Failure> {
        let deadline = Instant::now() + MINTED;
        let (name, uid) = self.post(order, audiences).await?;
        debug!(name, %uid, "made the object of a new token");
        match self.mint_and_take(&name, uid, deadline).await {
            Ok(created) => Ok(created),
            Err(failure) => {
                self.take_back(Unwanted { name, id: uid, credential: None }).await;
                Err(failure)
            }
        }
    }

    async fn mint_and_take(&self, name: &str, uid: PatUid, deadline: Instant) -> Result<Created, Failure> {
        let Some(hash) = self.until(deadline, || self.active(uid)).await else {
            warn!(name, "the controller has not issued a token in time: does it run, and watch this namespace?");
            return Err(NOT_IN_TIME);
        };
        let from = Handover { pat: uid, name, secret: name, key: KEY, hash, once: true };
        let token = self.take(&from, deadline + super::CALL).await.map_err(|_| NOT_IN_TIME)?;
        let item = self.store.item(uid).ok_or(NOT_IN_TIME)?;
        let receipt = self.receipt(Unwanted { name: name.to_owned(), id: uid, credential: None }, token.id());
        Ok(Created { item, token, receipt })
    }

    /// The hash of the active credential.
    fn active(&self, uid: PatUid) -> Option<TokenHash> {
        // In the store too: it comes after the index.
        self.store.item(uid)?;
        let pat = self.index.pat(uid)?;
        let active = pat.credentials.iter().find(|one| one.state == CredentialState::Active)?;
        Some(active.hash)
    }

    /// Makes the object, under the first name that is free. Two that want to be called the same come to the same name.
    async fn post(&self, order: &Create, audiences: &[String]) -> Result<(String, PatUid), Failure> {
        let taken = || Failure::Conflict(Conflict::NameTaken(order.display_name.clone()));
        if self.store.named(&order.owner, &order.display_name).is_some() {
            return Err(taken());
        }
        let mark = RequestId::new().0;
        for slot in 0..SLOTS {
            let name = object_name(&order.owner, &order.display_name, slot);
            let object = object(order, audiences, &name, &mark);
            let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
            let made = match call(self.pats().create(&params, &object)).await {
                Ok(made) => Some(made),
                Err(trouble) if trouble.code() == Some(409) => None,
                Err(trouble) if trouble.is_ambiguous() => match self.marked(&name, &mark).await {
                    Some(made) => Some(made),
                    None => {
                        self.look_for(name, mark);
                        return Err(trouble.into_failure("create a token"));
                    }
                },
                Err(trouble) => return Err(trouble.into_failure("create a token")),
            };
            if let Some(made) = made {
                let uid = made.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).ok_or(Failure::Internal)?;
                return Ok((name, uid));
            }
            match call(self.pats().get(&name)).await {
                // One that was renamed, or one of another owner: it only has the object's name.
                Ok(other) if !is_called(&other, order) => {}
                Ok(other) if is_marked(&other, &mark) => {
                    let uid =
                        other.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).ok_or(Failure::Internal)?;
                    return Ok((name, uid));
                }
                Ok(_) => return Err(taken()),
                Err(trouble) if trouble.code() == Some(404) => return Err(taken()),
                Err(trouble) => return Err(trouble.into_failure("create a token")),
            }
        }
        Err(taken())
    }

    /// Looks for what a request without an answer may yet make, as long as the API server may be at it, and takes it back.
    fn look_for(&self, name: String, mark: String) {
        let this = self.clone();
        let looking = async move {
            for pause in LATE {
                this.rest(Duration::from_secs(pause)).await;
                // Not that it is gone, but that it never comes, is what a 404 cannot tell.
                let found = this.marked(&name, &mark).await;
                if let Some(id) = found.and_then(|object| object.metadata.uid?.parse().ok()) {
                    return this.take_back(Unwanted { name, id, credential: None }).await;
                }
                if this.stopping.is_cancelled() {
                    return;
                }
            }
        };
        self.tasks.spawn(looking.in_current_span());
    }

    /// The object that a request without an answer has made, if it has.
    async fn marked(&self, name: &str, mark: &str) -> Option<DynamicObject> {
        for _ in 0..3 {
            match call(self.pats().get(name)).await {
                Ok(object) => return is_marked(&object, mark).then_some(object),
                Err(trouble) if trouble.code() == Some(404) => return None,
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
        None
    }
}

fn is_marked(object: &DynamicObject, mark: &str) -> bool {
    object.metadata.annotations.as_ref().and_then(|all| all.get(MARK)).is_some_and(|found| found == mark)
}

/// Whether an object is of this owner and has this name, as people see it.
fn is_called(object: &DynamicObject, order: &Create) -> bool {
    let spec = &object.data["spec"];
    spec["displayName"] == json!(order.display_name) && spec["owner"] == json!(order.owner)
}

fn object(order: &Create, audiences: &[String], name: &str, mark: &str) -> DynamicObject {
    let mut spec = json!({
        "displayName": order.display_name,
        "owner": order.owner,
        "expiry": order.expiry,
        "secret": {"delivery": "Once"},
    });
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            spec[field] = value;
        }
    };
    set("description", order.description.as_ref().map(|text| json!(text)));
    set("scopes", (!order.scopes.is_empty()).then(|| json!(order.scopes)));
    set("audiences", (!audiences.is_empty()).then(|| json!(audiences)));
    set("permissions", (!order.permissions.is_empty()).then(|| json!(order.permissions)));
    set("accessTokenValidity", order.access_token_validity.map(|length| json!(duration::format(length))));
    set("tokenPrefix", order.token_prefix.as_ref().map(|prefix| json!(prefix.as_str())));
    DynamicObject {
        types: Some(TypeMeta { api_version: format!("{GROUP}/{VERSION}"), kind: "PersonalAccessToken".into() }),
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some([(MARK.to_owned(), mark.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: json!({ "spec": spec }),
    }
}
