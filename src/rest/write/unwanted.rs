//! Takes back what nobody holds: tries until it is done, or the server has to end.
//!
//! It must not know why nobody holds it.

use std::{pin::pin, time::Duration};

use tokio::{runtime::Handle, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, error, info, warn};

use super::{Writer, acknowledge::OnItsWay, counters::Owed};
use crate::{
    index::PatUid,
    rest::{failure::Failure, order::Change, receipt::Receipt},
    token::TokenId,
};

/// How long to wait before the second try, and how long at most before any other: it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Something live that has reached nobody.
#[derive(Clone, Debug)]
pub(super) struct Unwanted {
    /// The PAT's name.
    pub(super) name: String,
    /// The PAT.
    pub(super) id: PatUid,
    /// The one credential that it is about; `None`: the whole PAT is not wanted.
    pub(super) credential: Option<TokenId>,
}

/// How long to wait before the next try.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    /// Twice as long each time. Once the server stops there is not much time left: each second counts.
    pub(super) fn next(&mut self, stopping: &CancellationToken) -> Duration {
        let pause = if stopping.is_cancelled() { FIRST_PAUSE } else { self.0 };
        self.0 = LONGEST_PAUSE.min(2 * pause);
        pause
    }
}

impl Writer {
    /// A receipt that has this taken back if it is not signed, and else says of this credential of it that it has arrived.
    pub(super) fn receipt(&self, unwanted: Unwanted, credential: TokenId) -> Receipt {
        let (this, span, runtime) = (self.clone(), Span::current(), Handle::current());
        Receipt::new(move |arrived| {
            let tasks = this.tasks.clone();
            let settling = async move {
                if arrived {
                    return this.acknowledge(&OnItsWay { name: unwanted.name, pat: unwanted.id, credential }).await;
                }
                info!(name = unwanted.name, "a token has not reached whoever asked for it: it is taken back");
                this.take_back(unwanted).await;
            };
            tasks.spawn_on(settling.instrument(span), &runtime);
        })
    }

    /// Takes it back. The first try is over when this returns; the others go on.
    pub(super) async fn take_back(&self, unwanted: Unwanted) {
        let owed = self.counters.owed();
        if self.try_to_take_back(&unwanted).await {
            return owed.done();
        }
        let this = self.clone();
        self.tasks.spawn(async move { this.keep_trying(unwanted, owed).await }.in_current_span());
    }

    async fn keep_trying(&self, unwanted: Unwanted, owed: Owed) {
        let trying = async {
            let mut pause = Pause::default();
            loop {
                self.rest(pause.next(&self.stopping)).await;
                if self.try_to_take_back(&unwanted).await {
                    break;
                }
            }
        };
        if self.given_up.run_until_cancelled(pin!(trying)).await.is_some() {
            return owed.done();
        }
        let credential = unwanted.credential.map(|id| id.to_string());
        error!(
            name = unwanted.name,
            credential, "a live token that nobody holds could not be taken back before the end: revoke or delete it"
        );
        owed.given_up();
    }

    /// Waits, but not once the server begins to stop.
    pub(super) async fn rest(&self, pause: Duration) {
        if self.stopping.is_cancelled() {
            return sleep(pause.min(FIRST_PAUSE)).await;
        }
        let _cut_short = self.stopping.run_until_cancelled(sleep(pause)).await;
    }

    /// Whether it is done, or there is nothing left of it.
    async fn try_to_take_back(&self, unwanted: &Unwanted) -> bool {
        let why = match unwanted.credential {
            // Whatever has become of it meanwhile, nobody holds its token: there is no version on which that would depend.
            None => match self.remove(&unwanted.name, unwanted.id, None).await {
                Ok(()) => return true,
                // It is gone, or another one has its name.
                Err(trouble) if matches!(trouble.code(), Some(404 | 409)) => return true,
                Err(trouble) => trouble.to_string(),
            },
            Some(credential) => {
                // Of one that is deleted nothing is live.
                let Some(item) = self.store.item(unwanted.id) else { return true };
                let change = Change { revoke_credential: Some(credential), ..Change::default() };
                match self.change(&item, &change).await {
                    Ok(_) | Err(Failure::NotFound) => return true,
                    Err(failure) => failure.to_string(),
                }
            }
        };
        warn!(name = unwanted.name, why, "a token that nobody holds cannot be taken back yet");
        false
    }
}
