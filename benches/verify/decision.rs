//! The decision alone, with no network around it: parse, checksum, SHA-256, look-up, judgement.
//!
//! Must not know any protocol.

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

/// How many decisions are timed together, and how often.
const BATCH: usize = 1_000;
const BATCHES: usize = 1_000;

/// How many tokens are in use all the time.
const FEW: usize = 256;

/// How many different tokens are judged by turns: more than a processor's caches hold.
const DIFFERENT: u32 = 20_000;

/// Nanoseconds a decision.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Decisions {
    /// A good token, two scopes and an audience asked for; one of a few that are in use all the time.
    pub hit: Percentiles,
    /// The same, with so many in use that most of them come from memory.
    pub cold: Percentiles,
    /// A well-formed token that nobody minted.
    pub unknown: Percentiles,
    /// A token with one wrong character.
    pub junk: Percentiles,
    /// Of all that, only parsing and SHA-256: no verifier can do with less.
    pub hash: Percentiles,
}

/// Measures all sorts.
pub fn measure(index: &Index, count: u32) -> anyhow::Result<Decisions> {
    // Far apart, so that neighbours in the list are none in memory.
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
    ensure!(good.iter().all(|text| matches!(judge(text), Decision::Allow(_))), "a good token is refused");
    ensure!(
        unknown.iter().all(|text| matches!(judge(text), Decision::Deny(Denial::Unknown { removed: false }))),
        "an unknown token is not unknown"
    );
    ensure!(
        junk.iter().all(|text| matches!(judge(text), Decision::Deny(Denial::Malformed(_)))),
        "junk is not malformed"
    );
    Ok(Decisions {
        hit: time(&good[..FEW], judge),
        cold: time(&good, judge),
        unknown: time(&unknown, judge),
        junk: time(&junk, judge),
        hash: time(&good[..FEW], |text| Presented::parse(text).map(|token| token.hash())),
    })
}

/// The same text with its last character changed: only the checksum tells.
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

/// The CPU time of this thread: a decision waits for nothing, and what others take of the machine is not its time.
fn cpu_nanos() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
