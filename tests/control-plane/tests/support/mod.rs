//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    error::Error,
    future::Future,
    time::{Duration, Instant},
};

/// What a test returns.
pub type Outcome = Result<(), Box<dyn Error>>;

/// Looks every 20 ms until `done` says so; fails after 30 seconds.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !done().await {
        assert!(begin.elapsed() < Duration::from_secs(30), "still not true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
