//! Follows the pages from top to bottom: every manifest is applied and every command run, on a real API server, in the order of
//! the page.
//!
//! The language of a fence says what it is for (`LANGUAGES`); where that is not enough, a comment before it does, such as
//! `<!-- test: skip because it takes a container engine -->` (see `support/fences.rs`). One table says how a command is run (`tools.rs`).

mod beside;
mod cells;
mod expected;
mod links;
mod pages;
mod reading;
mod schemas;
mod shell;
mod tools;
