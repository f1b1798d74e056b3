//! Authorization decisions: the one place that decides whether a token is accepted.
//!
//! - [`verdict`]: is this credential valid now? It depends on the spec and status of its PAT and on its own expiry. The planner,
//!   the verifier, the REST API and `kubectl pat` use it.
//! - [`decision`]: is this token accepted for this request? [`decision::decide`] parses the token, looks up its credential, and
//!   checks validity, owner, audience and scopes. The verifier and the REST API use it.
//!
//! Both are pure: no I/O, no clock, no logging. The time is an argument, and known credentials come through the trait
//! [`decision::CredentialLookup`], which the index implements. A protocol only translates a [`decision::Decision`] into its own
//! answer.

pub mod decision;
pub mod verdict;
