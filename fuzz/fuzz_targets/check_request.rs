//! Fuzzes Envoy's gRPC `Check`: no panic, and each answer is a denial.
//!
//! Each input is used as a complete message, and as lines: the scope and the audience of a route, then the client's headers as
//! `name:value`, once as Envoy's map and once in raw form. The index is empty, so that no token is valid.

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

/// Asserts a denial: the answer starts with a status that is not 0.
fn check(message: &[u8]) {
    let answer = answer_message(VERIFIER.clone(), message);
    // The tag is followed by the length of the status, in one or more bytes.
    let status = answer.iter().skip(1).skip_while(|byte| **byte >= 0x80).skip(1).take(2).collect::<Vec<_>>();
    let is_denial = answer.first() == Some(&0x0a) && matches!(status[..], [0x08, code] if *code != 0);
    assert!(is_denial, "{answer:?}");
}

/// An entry of a protobuf map.
fn entry(tag: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    field(tag, &[field(1, key), field(2, value)].concat())
}

/// A length-delimited protobuf field.
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
