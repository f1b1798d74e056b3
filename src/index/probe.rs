//! Asks the API server every few seconds for something that only etcd can tell: a watch that brings nothing does not show that
//! there could be anything.
//!
//! An API server that has lost its etcd goes on serving what it remembers, and its watches go on with bookmarks until it
//! notices. So the question is a list without a version, which is consistent: the API server answers it only with etcd's word on what
//! is newest, whether it then reads from etcd or from its cache
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>). It must not know what the index holds.

use std::{fmt::Debug, time::Duration};

use kube::{Api, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::freshness::{PROBE_EVERY, Pulse};
use crate::service::explain_api_error;

/// How long an answer may take: the next question follows a second later.
const ANSWER: Duration = Duration::from_secs(4);

/// Asks for ever.
pub async fn probe<K>(api: Api<K>, pulse: &Pulse)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut turns = interval(PROBE_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        turns.tick().await;
        match ask(&api).await {
            Ok(()) => {
                pulse.answered();
                if std::mem::take(&mut failing) {
                    info!("the API server answers again");
                }
            }
            Err(why) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(why, "the API server does not answer from its etcd");
                }
            }
        }
    }
}

/// Any refusal is no proof: 429 is also what an API server says that waits for its etcd, and after 401 or 403 the next watch will not
/// begin.
async fn ask<K>(api: &Api<K>) -> Result<(), String>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let newest = ListParams::default().limit(1);
    match timeout(ANSWER, api.list_metadata(&newest)).await {
        Err(_) => Err(format!("no answer within {} seconds", ANSWER.as_secs())),
        Ok(Err(error)) => Err(explain_api_error(&error)),
        Ok(Ok(_)) => Ok(()),
    }
}
