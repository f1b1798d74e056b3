//! Fuzzes the form of introspection: no panic, and a token only if the form has exactly one.
//!
//! Each input is used unchanged and after a token. That token must then be found, or the form refused. It is never replaced.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pat_operator::verifier::introspection::token;

fuzz_target!(|input: &[u8]| {
    if let Ok(token) = token(input) {
        assert!(!token.is_empty());
    }
    if let Ok(token) = token(&[b"token=mine&".as_slice(), input].concat()) {
        assert_eq!(&*token, b"mine");
    }
});
