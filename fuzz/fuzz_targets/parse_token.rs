//! Fuzzes the token parser: no panic, and each accepted token has exactly one text.
//!
//! A fuzzer hardly ever finds a valid token. So each input is used unchanged, with a correct checksum in place of its last six bytes, and
//! as a well-formed token made from its bytes. The base62 here is a second implementation, written differently from the operator's.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pat_operator::token::{Presented, Token};

const ALPHABET: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fuzz_target!(|input: &[u8]| {
    check(input);
    if let Some(signed) = input.len().checked_sub(6) {
        check(&sealed(&input[..signed]));
    }
    check(&sealed(&spelled(input)));
});

fn check(input: &[u8]) {
    let parsed = Presented::parse(input);
    let token = Token::parse(input);
    assert_eq!(parsed.as_ref().err(), token.as_ref().err());
    let (Ok(parsed), Ok(token)) = (parsed, token) else {
        return;
    };
    assert_eq!(token.expose().as_bytes(), input);
    assert_eq!((token.id(), token.prefix()), (parsed.id(), parsed.prefix()));
    assert_eq!(token.hash(), parsed.hash());

    let prefix = parsed.prefix().parse().expect("a parsed prefix is valid");
    let secret = decoded(&input[input.len() - 49..input.len() - 6]);
    let again = Token::from_parts(&prefix, parsed.id(), &secret);
    assert_eq!(again.expose().as_bytes(), input);
    assert_eq!(again.hash(), parsed.hash());
}

/// Decodes base62 in the simplest way. Panics if the number does not fit in 32 bytes.
fn decoded(text: &[u8]) -> [u8; 32] {
    let mut number = [0; 32];
    for digit in text {
        let mut carry = ALPHABET.iter().position(|d| d == digit).expect("base62");
        for byte in number.iter_mut().rev() {
            carry += usize::from(*byte) * 62;
            *byte = carry as u8;
            carry >>= 8;
        }
        assert_eq!(carry, 0, "the secret part is less than 2^256");
    }
    number
}

fn sealed(signed: &[u8]) -> Vec<u8> {
    let mut rest = crc32fast::hash(signed) as usize;
    let mut token = signed.to_vec();
    token.extend([b'0'; 6]);
    for digit in token.iter_mut().rev().take(6) {
        *digit = ALPHABET[rest % 62];
        rest /= 62;
    }
    token
}

/// A prefix, `_`, and a digit for each remaining byte.
fn spelled(input: &[u8]) -> Vec<u8> {
    let (prefix, body) = input.split_at(input.len().saturating_sub(12 + 43));
    let letters = prefix.iter().map(|byte| b'a' + byte % 26);
    let digits = body.iter().map(|byte| ALPHABET[usize::from(byte % 62)]);
    letters.chain([b'_']).chain(digits).collect()
}
