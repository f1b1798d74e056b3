//! What is counted of tokens that reached nobody.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// See the module. Clones share the figures.
#[derive(Clone, Debug, Default)]
pub struct TakeBackCounters {
    owed: Gauge,
    done: Counter,
    given_up: Counter,
}

/// One that is still to be taken back.
#[derive(Debug)]
pub(super) struct Owed(TakeBackCounters);

impl TakeBackCounters {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        let about = "Live tokens that reached nobody and are still to be taken back";
        registry.register("api_tokens_to_take_back", about, self.owed.clone());
        registry.register("api_tokens_taken_back", "Tokens taken back that reached nobody", self.done.clone());
        let about = "Live tokens that reached nobody and could not be taken back before the server ended";
        registry.register("api_tokens_given_up", about, self.given_up.clone());
    }

    /// One more.
    pub(super) fn owed(&self) -> Owed {
        self.owed.inc();
        Owed(self.clone())
    }
}

impl Owed {
    /// It is taken back.
    pub(super) fn done(self) {
        self.0.done.inc();
    }

    /// It never will be.
    pub(super) fn given_up(self) {
        self.0.given_up.inc();
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.owed.dec();
    }
}
