//! The protocols of `pat-operator verifier`, with an index that is filled without an API server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pat_operator::{
    index::IndexFreshness,
    service::{
        Clock, HttpServer,
        http::Limits,
        telemetry::{self, LogFilter, LogFormat},
    },
    verifier::{Verifier, envoy_grpc, http, metrics::Metrics},
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{memory, part};

/// The addresses of a server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// HTTP.
    pub http: SocketAddr,
    /// gRPC.
    pub grpc: SocketAddr,
}

/// Serves until the process is killed.
pub async fn serve(tokens: u32) -> anyhow::Result<()> {
    // The default settings of the log. The parent process discards the log.
    telemetry::init(LogFormat::Json, &LogFilter::default())?;
    let (index, _) = memory::fill(tokens)?;
    let pulse = IndexFreshness::new(1, Duration::from_mins(5));
    let (heartbeat, watched) = (pulse.heartbeat(0), pulse.clone());
    let verifier = Verifier::new(index, move || watched.freshness(), Clock::system(), Arc::new(Metrics::new()));
    let verifier = Arc::new(verifier);
    let (http, grpc) = (bind().await?, bind().await?);
    let addresses = Addresses { http: http.local_addr(), grpc: grpc.local_addr() };
    let forever = CancellationToken::new();
    let protocols = http::VerifierService::new(verifier.clone(), http::HttpConfig::default(), None);
    tokio::spawn(http.serve(protocols, forever.clone()));
    tokio::spawn(envoy_grpc::serve(grpc, verifier, forever));
    heartbeat.beat();
    part::print(&addresses)?;
    loop {
        heartbeat.beat();
        pulse.answered();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn bind() -> anyhow::Result<HttpServer> {
    Ok(HttpServer::bind("127.0.0.1:0".parse()?, "the bench", "no flag").await?.with_limits(Limits::busy()))
}
