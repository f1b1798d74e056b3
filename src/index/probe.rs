//! Asks the API server every few seconds whether it is there: a watch that brings nothing does not show it.
//!
//! It must not know what the index holds.

use std::time::Duration;

use hyper::Request;
use kube::{Client, Error};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::freshness::{PROBE_EVERY, Pulse};
use crate::runtime::explain_api_error;

/// How long an answer may take: the next question follows a second later.
const ANSWER: Duration = Duration::from_secs(4);

/// Includes that the API server reaches its etcd. Everybody who is logged in may ask (`system:public-info-viewer`).
const PATH: &str = "/readyz";

/// Asks for ever.
pub async fn probe(client: Client, pulse: &Pulse) {
    let mut turns = interval(PROBE_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        turns.tick().await;
        match ask(&client).await {
            Ok(()) => {
                pulse.answered();
                if std::mem::take(&mut failing) {
                    info!("the API server is ready again");
                }
            }
            Err(why) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(why, "the API server is not ready");
                }
            }
        }
    }
}

async fn ask(client: &Client) -> Result<(), String> {
    let request = Request::get(PATH).body(Vec::new()).map_err(|error| error.to_string())?;
    match timeout(ANSWER, client.request_text(request)).await {
        Err(_) => Err(format!("no answer within {} seconds", ANSWER.as_secs())),
        Ok(Err(error)) if !shows_that_it_is_there(&error) => Err(explain_api_error(&error)),
        Ok(_) => Ok(()),
    }
}

/// Being refused (403) or told to come back later (429) is an answer too, where the question is only whether there is one. Not to
/// be known (401) is not: the next watch will not begin.
fn shows_that_it_is_there(error: &Error) -> bool {
    matches!(error, Error::Api(status) if matches!(status.code, 403 | 404 | 429))
}
