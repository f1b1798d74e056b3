//! The service and `/oauth/token` over a world in memory.

mod authentication;
mod exchange;
mod lists;
mod requests;
