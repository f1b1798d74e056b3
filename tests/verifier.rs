//! The verifier on a real API server: what it knows and when, what it does when nothing is to be heard, and what it writes.
//!
//! The binary runs as a process and is asked by HTTP. How each protocol speaks is told elsewhere.

mod support;

mod verifier {
    mod certificates;
    mod command;
    mod grant;
    mod knowing;
    mod leak;
    mod owners;
    mod policy;
    mod protocols;
    mod shutdown;
    mod staleness;
    mod usage;
}
