//! Argo CD and Flux: what they say of a token's health in each state, that manifests which are applied again and again fight with nobody, and
//! that what `docs/gitops.md` shows can be copied and typed.

mod support;

#[allow(dead_code, reason = "what else is told of a state is the lifecycle's")]
#[path = "lifecycle/states.rs"]
mod states;

#[allow(dead_code, reason = "the tests of the policies use all of it")]
#[path = "policies/guard.rs"]
mod guard;
#[allow(dead_code, reason = "the tests of the policies use all of it")]
#[path = "policies/people.rs"]
mod people;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "support/fences.rs"]
mod fences;

mod gitops {
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
}
