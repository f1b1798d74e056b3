//! The drivers of other systems.
//!
//! Our own REST API is the server of SailPoint, TrueFoundry and Cryptlex, whose dialects it speaks. The others are servers of the test that
//! refuse what the system refuses. Gitea runs for real in the ecosystem tests.

mod argocd;
mod gitlab;
mod own_api;
mod pages;
mod sailpoint;
mod virtual_account;
