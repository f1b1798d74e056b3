//! Argo CD and Flux: what they report for a token in each state, that repeated applies leave no difference, and that the commands of
//! `docs/gitops.md` work.

mod health;
mod judges;
mod manifests;
mod reapply;
mod rights;
mod sealed;
mod soak;
mod sops;
mod terminal;
mod tools;
mod unsealer;
