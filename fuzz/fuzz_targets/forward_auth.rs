//! Fuzzes forward authentication and Envoy's HTTP protocol: no panic, and no token is accepted. For nginx, each answer is 401 or 403.
//!
//! The input is a list of lines: the query or path, then headers as `name:value`. The index is empty, so that no token is valid.

#![no_main]

use std::sync::{Arc, LazyLock};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use libfuzzer_sys::fuzz_target;
use pat_operator::{
    index::{Freshness, Index},
    service::{Clock, authorization::Authorization},
    verifier::{Verifier, forward_auth, metrics::Metrics, requirements::MisconfigurationLog},
};

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    Verifier::new(Arc::new(Index::default()), || Freshness::Fresh, Clock::system(), Arc::new(Metrics::default()))
});

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines.take(32) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let (name, value) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.get(1..).unwrap_or_default()));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let plain = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    if Authorization::read(plain).token().is_ok() {
        assert_eq!(headers.get_all("authorization").iter().count(), 1);
    }
    let log = MisconfigurationLog::default();
    let to = |prefix: &str| Uri::try_from([prefix.as_bytes(), target].concat()).ok();
    if let Some(uri) = to("/auth/forward?") {
        let status = forward_auth::answer(&VERIFIER, &log, &uri, &headers).status();
        assert!([401, 403].contains(&status.as_u16()), "{status}");
    }
    if let Some(uri) = to(forward_auth::ENVOY_PREFIX) {
        let status = forward_auth::answer_envoy(&VERIFIER, &log, &uri, &headers).status();
        assert!(status.is_client_error(), "{status}");
    }
});
