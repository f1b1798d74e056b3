//! Takes the ports of servers whose requests hold tokens: by TLS, or on loopback.

use pat_operator::runtime::{
    HttpServer, ListenAddr, Tls,
    http::{HttpError, Limits, refuse_plain_text},
};

/// A server that has its port. `purpose` and `flag` are for the message if that fails.
pub async fn listen(
    addr: ListenAddr,
    (purpose, flag): (&'static str, &'static str),
    insecure: bool,
    tls: Option<&Tls>,
    limits: Limits,
) -> Result<HttpServer, HttpError> {
    refuse_plain_text(addr, tls.is_some(), insecure, purpose, flag)?;
    Ok(HttpServer::bind(addr, purpose, flag).await?.with_limits(limits).with_tls(tls.cloned()))
}
