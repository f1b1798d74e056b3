//! Takes the ports of servers whose requests hold tokens: by TLS, or on loopback.

use pat_operator::{
    cli::TlsArgs,
    service::{
        Clock, HttpServer, ListenAddr, Tls, TlsError,
        http::{HttpError, Limits, refuse_plain_text},
        tls,
    },
};

/// The certificate that the command line names, if it does.
pub fn tls_of(args: &TlsArgs, clock: &Clock) -> Result<Option<Tls>, TlsError> {
    let files = tls::Files::of(args.tls_cert.clone(), args.tls_key.clone())?;
    files.map(|files| Tls::load(files, clock.clone())).transpose()
}

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

/// What `/metrics` serves of a server: how it stands with its certificate, and then `rest`, which ends with the mark of the end.
pub fn with_tls(
    tls: Option<&Tls>,
    clock: &Clock,
    rest: impl Fn() -> String + Send + Sync + 'static,
) -> impl Fn() -> String + Send + Sync + 'static {
    let figures = tls::Figures::new(tls.cloned(), clock.clone());
    move || format!("{}{}", figures.text(), rest())
}
