//! The memory and time that an index takes. It runs in a separate process that does nothing else before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use pat_operator::{
    api::StoredPat,
    index::{Index, events::PatEventHandler},
    service::watch::WatchHandler,
};
use serde::{Deserialize, Serialize};

use crate::{proc::memory_kib, tokens};

/// The number of objects whose text exists at a time. The text must not count as memory of the index.
const CHUNK: u32 = 500;

/// The results.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// The number of tokens.
    pub tokens: u32,
    /// The resident memory with an empty index, in KiB.
    pub empty_kib: f64,
    /// The resident memory with the full index, in KiB.
    pub full_kib: f64,
    /// The time to decode the objects and add them to the index.
    pub fill_seconds: f64,
}

impl Memory {
    /// The memory per token, in bytes.
    pub fn bytes_each(&self) -> f64 {
        (self.full_kib - self.empty_kib) * 1024.0 / f64::from(self.tokens)
    }
}

/// Fills an index like a watch does: from the text of objects, decoded one after another.
pub fn fill(count: u32) -> anyhow::Result<(Arc<Index>, Memory)> {
    let resident = || memory_kib(std::process::id(), "VmRSS");
    let index = Arc::new(Index::default());
    let mut feed = PatEventHandler::new(index.clone(), None);
    // Decode some objects first, so that the memory that decoding itself takes does not count.
    texts(0..CHUNK.min(count))?.iter().try_for_each(|text| serde_json::from_slice::<StoredPat>(text).map(drop))?;
    let empty_kib = resident()?;
    let mut took = Duration::ZERO;
    feed.init();
    for first in (0..count).step_by(CHUNK as usize) {
        let texts = texts(first..count.min(first + CHUNK))?;
        let began = Instant::now();
        for text in &texts {
            feed.init_apply(serde_json::from_slice(text)?);
        }
        took += began.elapsed();
    }
    let began = Instant::now();
    feed.init_done();
    took += began.elapsed();
    ensure!(index.len() == count as usize, "the index has only {} of {count} tokens", index.len());
    let memory = Memory { tokens: count, empty_kib, full_kib: resident()?, fill_seconds: took.as_secs_f64() };
    Ok((index, memory))
}

fn texts(numbers: std::ops::Range<u32>) -> anyhow::Result<Vec<Vec<u8>>> {
    numbers.map(|number| Ok(serde_json::to_vec(&tokens::resource(number)?)?)).collect()
}
