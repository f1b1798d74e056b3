//! Argo CD and Flux: the health that they report for each state, repeated applies without differences, and the commands of
//! `docs/gitops.md`.

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
