//! Argo CD and Flux: what they say of a token's health in each state, that manifests which are applied again and again fight with nobody, and
//! that what `docs/gitops.md` shows can be copied.

mod support;

#[allow(dead_code, reason = "what else is told of a state is the lifecycle's")]
#[path = "lifecycle/states.rs"]
mod states;

mod gitops {
    mod health;
    mod judges;
    mod manifests;
    mod reapply;
    mod soak;
    mod tools;
}
