//! `/livez`, `/readyz` and `/metrics`, for the kubelet, Prometheus and curl.
//!
//! `kubert::admin` has a single readiness flag; here every gate is listed with its reason.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{
    http::{HttpError, HttpServer, ListenAddr},
    readiness::Readiness,
};

/// The content type of `/metrics`, see <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Renders all metrics as OpenMetrics text, at each scrape.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// A health endpoint that has bound its port but does not answer yet.
#[derive(Debug)]
pub struct HealthServer(HttpServer);

impl HealthServer {
    /// Binds the port and logs it.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn bind(addr: ListenAddr) -> Result<Self, HttpError> {
        let server = HttpServer::bind(addr, "health and metrics", "--health-addr").await?;
        info!(addr = %server.local_addr(), "serving /livez, /readyz and /metrics");
        Ok(Self(server))
    }

    /// Returns the bound address.
    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.0.local_addr()
    }

    /// Answers until cancelled. Cancel it last, so that the kubelet gets answers until the process ends.
    pub async fn serve(self, readiness: Readiness, metrics: RenderMetrics, cancellation: CancellationToken) {
        self.0.serve(router(readiness, metrics), cancellation).await;
    }
}

fn router(readiness: Readiness, metrics: RenderMetrics) -> Router {
    // Scrapes run one at a time, because each walks the whole store.
    let turn = Arc::new(Mutex::new(()));
    Router::new()
        .route("/livez", get(async |uri: Uri| livez(&uri)))
        .route("/readyz", get(async move |uri: Uri| readyz(&readiness, &uri)))
        .route("/metrics", get(async move || self::metrics(metrics, turn).await))
        .fallback(async || (StatusCode::NOT_FOUND, "not found: try /livez, /readyz or /metrics\n"))
}

fn livez(uri: &Uri) -> String {
    // Any answer shows that the process is alive, because it exits when a critical task ends.
    if is_verbose(uri) { "[+]ping ok\nlivez check passed\n".to_owned() } else { "ok".to_owned() }
}

fn readyz(readiness: &Readiness, uri: &Uri) -> Response {
    let report = readiness.report();
    match (report.ready, is_verbose(uri)) {
        (true, false) => "ok".into_response(),
        (true, true) => format!("{}readyz check passed\n", report.lines).into_response(),
        (false, _) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}readyz check failed\n", report.lines)).into_response()
        }
    }
}

async fn metrics(render: RenderMetrics, turn: Arc<Mutex<()>>) -> Response {
    let turn = turn.lock_owned().await;
    // Walking a large store takes a while and must not block a worker.
    let rendering = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        render()
    });
    match rendering.await {
        Ok(text) => ([(CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS))], text).into_response(),
        Err(error) => {
            error!(%error, "cannot render the metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot render the metrics: see the log\n").into_response()
        }
    }
}

/// `?verbose`, with or without a value, as in Kubernetes.
fn is_verbose(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")))
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::{super::readiness::ReadinessGate, *};

    async fn request(addr: SocketAddr, line: &str) -> String {
        let asking = async {
            let mut stream = TcpStream::connect(addr).await?;
            stream.write_all(format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        tokio::time::timeout(Duration::from_secs(10), asking).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn livez_readyz_and_metrics_answer_until_cancelled() {
        let gate = ReadinessGate::closed("crd", "not established");
        let readiness = Readiness::new([gate.clone()]).with_note("lease", || "standby: a leads".to_owned());
        let health = HealthServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = health.local_addr();
        let stop = CancellationToken::new();
        let render: RenderMetrics = Arc::new(|| "# EOF\n".to_owned());
        let serving = tokio::spawn(health.serve(readiness, render, stop.clone()));

        for (line, status, body) in [
            ("GET /livez", "200 OK", "ok"),
            ("GET /livez?verbose", "200 OK", "[+]ping ok\nlivez check passed\n"),
            (
                "GET /readyz",
                "503 Service Unavailable",
                "[-]crd not ready: not established\n[+]lease ok: standby: a leads\nreadyz check failed\n",
            ),
            ("GET /metrics", "200 OK", "# EOF\n"),
            ("HEAD /livez", "200 OK", ""),
            ("POST /livez", "405 Method Not Allowed", ""),
            ("GET /", "404 Not Found", "not found: try /livez, /readyz or /metrics\n"),
        ] {
            let answer = request(addr, line).await;
            let (head, text) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!((head.lines().next(), text), (Some(&*format!("HTTP/1.1 {status}")), body), "{line}");
            assert_eq!(head.contains(&format!("content-type: {OPENMETRICS}")), line == "GET /metrics", "{head}");
        }

        gate.pass("");
        assert!(request(addr, "GET /readyz").await.ends_with("\r\n\r\nok"));
        let verbose = request(addr, "GET /readyz?verbose=1").await;
        assert!(verbose.ends_with("[+]crd ok\n[+]lease ok: standby: a leads\nreadyz check passed\n"), "{verbose}");

        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
        assert!(TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn a_panic_in_metrics_fails_only_that_scrape() {
        let health = HealthServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = health.local_addr();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(health.serve(Readiness::default(), Arc::new(|| panic!("boom")), stop.clone()));
        for _ in 0..2 {
            assert!(request(addr, "GET /metrics").await.starts_with("HTTP/1.1 500 "));
        }
        assert!(request(addr, "GET /livez").await.starts_with("HTTP/1.1 200 "));
        stop.cancel();
        serving.await.unwrap();
    }
}
