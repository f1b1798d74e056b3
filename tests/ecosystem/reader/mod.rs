//! The reader: follows each page from top to bottom. It applies each manifest and runs each command on a real API server, in the order of
//! the page.
//!
//! The language of a block decides what is done with it (`LANGUAGES`). A comment before a block can change that, for example
//! `<!-- test: skip because it takes a container engine -->` (see `support/fences.rs`). A table says how to run each command (`tools.rs`).

mod background;
mod cells;
mod expected;
mod links;
mod pages;
mod reading;
mod schemas;
mod shell;
mod tools;
