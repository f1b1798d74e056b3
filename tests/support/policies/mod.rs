//! Admission policies in force, and users with and without rights.

pub mod guard;
pub mod people;
