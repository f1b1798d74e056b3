//! The verifier: is this token good, whose is it, what may it do. One decision, and one thin file for each protocol over it.
//!
//! It answers from memory and must not know the controller.

pub mod decision;
