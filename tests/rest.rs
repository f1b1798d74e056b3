//! The REST API on a real API server with a real controller: what it hands out, what it leaves behind when it breaks off, what
//! keeps it from starting, and the vendors' own libraries as its clients.
//!
//! What each parameter does is told beside the code; here it is about what only the whole shows.

mod support;

#[path = "verifier/protocols.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod protocols;

mod rest {
    mod audience;
    mod change;
    mod command;
    mod create;
    mod cryptlex;
    mod delete;
    mod elsewhere;
    mod exchange;
    mod inside;
    mod judged_again;
    mod killed;
    mod openapi;
    mod regenerate;
    mod sailpoint;
    mod stage;
    mod staleness;
    mod taken_back;
    mod tls;
    mod told;
    mod truefoundry;
    mod undelivered;
}
