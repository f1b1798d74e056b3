//! Authorization decisions: whether a credential is good, and whether it is good for this request.
//!
//! Pure: every function takes `now` and reads nothing else.

pub mod decision;
pub mod verdict;
