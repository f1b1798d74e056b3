//! Whatever message is sent to Envoy's `Check`: no panic, an answer that Envoy takes for a denial, and never an allow.
//!
//! Each input is tried as a whole message, and as lines: the scope and the audience of a route, then the client's headers as
//! `name:value`, once as Envoy's map and once as it came. The one good token is not among them, for a fuzzer cannot guess it.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use pat_operator::{
    index::{Freshness, Index},
    service::Clock,
    verifier::{Verifier, envoy_grpc::answer_message, metrics::Metrics},
};

static VERIFIER: LazyLock<Arc<Verifier>> = LazyLock::new(|| {
    let metrics = Arc::new(Metrics::default());
    Arc::new(Verifier::new(Arc::new(Index::default()), || Freshness::Fresh, Clock::system(), metrics))
});

fuzz_target!(|input: &[u8]| {
    check(input);
    let mut lines = input.split(|byte| *byte == b'\n');
    let route = [b"scope".as_slice(), b"audience"].map(|key| entry(10, key, lines.next().unwrap_or_default()));
    let headers = lines.take(32).map(|line| {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        (&line[..colon], line.get(colon + 1..).unwrap_or_default())
    });
    let map: Vec<u8> = headers.clone().flat_map(|(name, value)| entry(3, name, value)).collect();
    let raw: Vec<u8> =
        headers.flat_map(|(name, value)| field(1, &[field(1, name), field(3, value)].concat())).collect();
    for http in [map, field(13, &raw)] {
        let attributes = [field(4, &field(2, &http)), route.concat()].concat();
        check(&field(1, &attributes));
    }
});

/// The answer begins with its status, which is not 0: a denial.
fn check(message: &[u8]) {
    let answer = answer_message(VERIFIER.clone(), message);
    // Behind the tag stands the status's length, in as many bytes as it takes.
    let status = answer.iter().skip(1).skip_while(|byte| **byte >= 0x80).skip(1).take(2).collect::<Vec<_>>();
    let is_denial = answer.first() == Some(&0x0a) && matches!(status[..], [0x08, code] if *code != 0);
    assert!(is_denial, "{answer:?}");
}

/// An entry of a map.
fn entry(tag: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    field(tag, &[field(1, key), field(2, value)].concat())
}

/// A field of protobuf whose length stands before it.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(content);
    bytes
}
