//! The decision without a network: parse, checksum, SHA-256, look-up, judgement.

use std::hint::black_box;

use anyhow::ensure;
use pat_operator::{
    api::Time,
    auth::decision::{Audience, Decision, Denial, Freshness, Requirements, decide},
    index::Index,
    service::Clock,
    token::Presented,
};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{
    percentile::Percentiles,
    tokens::{AUDIENCE, SCOPES, token},
};

/// The number of decisions in a batch, and of batches.
const BATCH: usize = 1_000;
const BATCHES: usize = 1_000;

/// The number of tokens that are always in use.
const FEW: usize = 256;

/// The number of different tokens in turn. They do not fit in a processor's caches.
const DIFFERENT: u32 = 20_000;

/// Nanoseconds per decision.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Decisions {
    /// A valid token, of a few that are always in use. The request requires two scopes and an audience.
    pub hit: Percentiles,
    /// The same, with so many tokens that most come from main memory.
    pub cold: Percentiles,
    /// A well-formed token that was never issued.
    pub unknown: Percentiles,
    /// A token with one wrong character.
    pub junk: Percentiles,
    /// Only the parsing and SHA-256 of such a decision, which each verifier needs.
    pub hash: Percentiles,
}

/// Measures all kinds of decision.
pub fn measure(index: &Index, count: u32) -> anyhow::Result<Decisions> {
    // Far apart, so that neighbours in the list are not neighbours in memory.
    let known = |number: u32| 1 + (number.wrapping_mul(7_919)) % (count - 1);
    let texts = |number: &dyn Fn(u32) -> u32| -> anyhow::Result<Vec<String>> {
        (0..DIFFERENT).map(|one| Ok(token(number(one))?.expose().to_owned())).collect()
    };
    let good = texts(&known)?;
    let unknown = texts(&|one| count + one)?;
    let junk: Vec<String> = good.iter().map(|text| swapped(text)).collect();
    let now: Time = Clock::system().now().into();
    let requirements = Requirements { scopes: &SCOPES, audience: Audience::OneOf(&[AUDIENCE]) };
    let judge = |text: &String| decide(index, Freshness::Fresh, text.as_bytes(), &requirements, now);
    ensure!(good.iter().all(|text| matches!(judge(text), Decision::Allow(_))), "a valid token is refused");
    ensure!(
        unknown.iter().all(|text| matches!(judge(text), Decision::Deny(Denial::Unknown { removed: false }))),
        "an unknown token is not reported as unknown"
    );
    ensure!(
        junk.iter().all(|text| matches!(judge(text), Decision::Deny(Denial::Malformed(_)))),
        "a malformed token is not reported as malformed"
    );
    Ok(Decisions {
        hit: time(&good[..FEW], judge),
        cold: time(&good, judge),
        unknown: time(&unknown, judge),
        junk: time(&junk, judge),
        hash: time(&good[..FEW], |text| Presented::parse(text).map(|token| token.hash())),
    })
}

/// The same text with its last character changed, so that only the checksum is wrong.
fn swapped(text: &str) -> String {
    let (head, last) = text.split_at(text.len() - 1);
    head.to_owned() + if last == "0" { "1" } else { "0" }
}

fn time<T>(texts: &[String], work: impl Fn(&String) -> T) -> Percentiles {
    let mut each = Vec::with_capacity(BATCHES);
    let mut next = texts.iter().cycle();
    for _ in 0..BATCHES {
        let began = cpu_nanos();
        for text in next.by_ref().take(BATCH) {
            black_box(work(black_box(text)));
        }
        each.push((cpu_nanos() - began) as f64 / BATCH as f64);
    }
    Percentiles::of(each)
}

/// The CPU time of this thread. A decision waits for nothing, and other processes do not count.
fn cpu_nanos() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
