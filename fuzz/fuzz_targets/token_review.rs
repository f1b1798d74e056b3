//! Fuzzes the TokenReview webhook: no panic, no token is accepted, and the answer is short.
//!
//! Each input is used as a complete body, and as the token of a valid body.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use pat_operator::{
    index::{Freshness, Index},
    service::Clock,
    verifier::{
        Verifier,
        metrics::Metrics,
        tokenreview::{TokenReviewConfig, answer_body},
    },
};

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    Verifier::new(Arc::new(Index::default()), || Freshness::Fresh, Clock::system(), Arc::new(Metrics::default()))
});

fuzz_target!(|input: &[u8]| {
    let token = serde_json::Value::from(String::from_utf8_lossy(input)).to_string();
    let sound = format!(
        r#"{{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{{"token":{token},"audiences":["k8s"]}}}}"#
    );
    let config = TokenReviewConfig { username_prefix: Default::default() };
    for (body, statuses) in [(input, &[200, 400][..]), (sound.as_bytes(), &[200])] {
        let response = answer_body(&VERIFIER, &config, body);
        assert!(statuses.contains(&response.status().as_u16()));
        let answer = futures::executor::block_on(axum::body::to_bytes(response.into_body(), 4096)).expect("short");
        let answer = String::from_utf8(answer.to_vec()).expect("text");
        assert!(!answer.contains(r#""authenticated":true"#), "{answer}");
    }
});
