//! What an index takes: memory and time. Runs in a process of its own, which does nothing else before.
//!
//! Must not know what the index is for.

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

/// So many are made at a time: their text must not be taken for the index's.
const CHUNK: u32 = 500;

/// What it took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// How many tokens there are.
    pub tokens: u32,
    /// Resident with an empty index, in KiB.
    pub empty_kib: f64,
    /// Resident with the full one.
    pub full_kib: f64,
    /// To decode the objects and to put them into the index.
    pub fill_seconds: f64,
}

impl Memory {
    /// The memory of one token.
    pub fn bytes_each(&self) -> f64 {
        (self.full_kib - self.empty_kib) * 1024.0 / f64::from(self.tokens)
    }
}

/// Fills an index the way a watch does: from the text of objects, decoded one after the other.
pub fn fill(count: u32) -> anyhow::Result<(Arc<Index>, Memory)> {
    let resident = || memory_kib(std::process::id(), "VmRSS");
    let index = Arc::new(Index::default());
    let mut feed = PatEventHandler::new(index.clone(), None);
    // What decoding takes for itself, whatever the size of the index, is there already.
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
    ensure!(index.len() == count as usize, "{} of {count} tokens are in the index", index.len());
    let memory = Memory { tokens: count, empty_kib, full_kib: resident()?, fill_seconds: took.as_secs_f64() };
    Ok((index, memory))
}

fn texts(numbers: std::ops::Range<u32>) -> anyhow::Result<Vec<Vec<u8>>> {
    numbers.map(|number| Ok(serde_json::to_vec(&tokens::resource(number)?)?)).collect()
}
