//! The life of a token on the real API server: issue, rotation, grace, expiry, revocation, and how its Secret looks meanwhile.
//!
//! Every test has a stage (a namespace, an operator in this process, a clock that it drives) and tells one story in the order in
//! which it would happen. What other people do to Secrets, crashes and restores are not told here.

mod support;

mod lifecycle {
    mod expiry;
    mod handover;
    mod issue;
    mod observe;
    mod presets;
    mod revocation;
    mod rotation;
    mod secret;
    mod states;
    mod status;
    mod suspend;
    mod terms;
    mod year;
}
