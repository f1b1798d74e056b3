//! Says on the object that a token is on its way to whoever asked, and takes that back once it has gone out.
//!
//! Should this server die in between, nobody may hold the token: it dies with its time, as the controller sees to. It must not know
//! how the token gets to anybody.

use std::time::Duration;

use kube::{
    ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{FIELD_MANAGER, Writer, call, trouble::Trouble, unwanted::Pause};
use crate::{
    api::UNACKNOWLEDGED,
    index::PatUid,
    rest::{failure::Failure, item::Item},
    token::TokenId,
};

/// How long an answer that has gone out may take to be acknowledged, for somebody who waits for it; and how often it is looked for.
const ARRIVAL: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(20);

/// A token that is on its way.
#[derive(Clone, Debug)]
pub(super) struct OnItsWay {
    /// The PAT's name.
    pub(super) name: String,
    /// The PAT.
    pub(super) pat: PatUid,
    /// The credential.
    pub(super) credential: TokenId,
}

impl Writer {
    /// Says that it is on its way. Before the Secret is deleted: afterwards it would be live, and nobody would know.
    pub(super) async fn announce(&self, token: &OnItsWay) -> Result<(), Trouble> {
        let patch = json!({"metadata": {
            "uid": token.pat.hyphenated(),
            "annotations": {UNACKNOWLEDGED: token.credential.as_str()},
        }});
        call(self.pats().patch(&token.name, &params(), &Patch::Merge(patch))).await.map(drop)
    }

    /// Takes that back: it has arrived. Tries until it is done, or the server has to end.
    pub(super) async fn acknowledge(&self, token: &OnItsWay) {
        let trying = async {
            let mut pause = Pause::default();
            while !self.try_to_acknowledge(token).await {
                self.rest(pause.next(&self.stopping)).await;
            }
        };
        if self.given_up.run_until_cancelled(Box::pin(trying)).await.is_none() {
            let (name, credential) = (&token.name, token.credential.as_str());
            warn!(
                name,
                credential,
                "the arrival of a token could not be acknowledged before the end: it dies 10 minutes after it was issued"
            );
        }
    }

    /// The object, once nothing of it is on its way, or a moment later: whoever has just been answered may be the one who asks for another
    /// token, and one whose arrival is not known has no grace.
    pub(super) async fn after_arrivals(&self, item: &Item) -> Result<DynamicObject, Failure> {
        let deadline = Instant::now() + ARRIVAL;
        loop {
            let object = self.present(item).await?;
            let on_its_way = object.annotations().get(UNACKNOWLEDGED);
            let waits = on_its_way.is_some_and(|id| item.credentials.iter().any(|live| live.id.as_str() == id));
            if !waits || Instant::now() >= deadline {
                return Ok(object);
            }
            sleep(AGAIN).await;
        }
    }

    /// Whether it is done, or there is nothing left to do.
    async fn try_to_acknowledge(&self, token: &OnItsWay) -> bool {
        // A newer token may be on its way meanwhile: that one's word stands.
        let path = format!("/metadata/annotations/{}", UNACKNOWLEDGED.replace('/', "~1"));
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": token.pat.hyphenated()},
            {"op": "test", "path": path, "value": token.credential.as_str()},
            {"op": "remove", "path": path},
        ]);
        let patch = serde_json::from_value(patch).expect("it is a JSON patch");
        let Err(trouble) = call(self.pats().patch(&token.name, &params(), &Patch::<()>::Json(patch))).await else {
            return true;
        };
        // A test that failed and a refusal by admission have the same code.
        match call(self.pats().get(&token.name)).await {
            Ok(object) => {
                let on_its_way = object.annotations().get(UNACKNOWLEDGED).map(String::as_str);
                let stands = object.metadata.uid == Some(token.pat.hyphenated())
                    && on_its_way == Some(token.credential.as_str());
                if stands {
                    warn!(name = token.name, why = %trouble, "the arrival of a token cannot be acknowledged yet");
                }
                !stands
            }
            Err(trouble) => trouble.code() == Some(404),
        }
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}
