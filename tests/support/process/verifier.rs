//! Runs `pat-operator verifier` as a process.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Launch, OperatorProcess};

/// A running verifier. It is killed on drop.
pub struct VerifierProcess {
    /// The process.
    pub process: OperatorProcess,
    /// The address of its HTTP protocols.
    pub http: SocketAddr,
    /// The address of Envoy's gRPC protocol.
    pub grpc: SocketAddr,
}

impl VerifierProcess {
    /// Starts a verifier on the cluster of this kubeconfig and on free ports of loopback, and waits until it is ready.
    pub async fn start(kubeconfig: &Path, arguments: &[&str]) -> Self {
        let mut this = Self::begin(kubeconfig, arguments).await;
        this.process.is_ready().await;
        this
    }

    /// The same without waiting until it is ready.
    pub async fn begin(kubeconfig: &Path, arguments: &[&str]) -> Self {
        let launch =
            Launch::new(&["verifier", "--log-format=json", "--health-addr=127.0.0.1:0"]).env("KUBECONFIG", kubeconfig);
        // When a test stops a verifier, no client still sends requests.
        let waits = arguments.iter().any(|argument| argument.starts_with("--shutdown-delay"));
        let launch = if waits { launch } else { launch.arg("--shutdown-delay=0s") };
        Self::listening(arguments.iter().fold(launch, |launch, argument| launch.arg(argument))).await
    }

    /// Starts this process on free ports, and waits until it is ready.
    pub async fn of(launch: Launch) -> Self {
        let mut this = Self::listening(launch).await;
        this.process.is_ready().await;
        this
    }

    async fn listening(launch: Launch) -> Self {
        let mut process = launch.arg("--http-addr=127.0.0.1:0").arg("--grpc-addr=127.0.0.1:0").start();
        let http = listens(&mut process, "serving introspection").await;
        let grpc = listens(&mut process, "serving Envoy's checks").await;
        Self { process, http, grpc }
    }

    /// Sends a forward-authentication request with a token, like a proxy. Returns the status code. `query` may be empty, or `scope=…`.
    pub async fn forward(&self, token: &str, query: &str) -> u16 {
        let (addr, token) = (self.http, token.to_owned());
        let path = format!("/auth/forward?{query}");
        tokio::task::spawn_blocking(move || ask(addr, &path, &token)).await.expect("no panic").expect("an answer")
    }

    /// Waits until forward authentication answers with this code. Returns how long that took.
    pub async fn forwards(&self, token: &str, code: u16) -> Duration {
        let began = Instant::now();
        loop {
            let answer = self.forward(token, "").await;
            if answer == code {
                return began.elapsed();
            }
            assert!(began.elapsed() < super::SOON, "the answer is still {answer}, expected {code}:\n{}", self.process);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn ask(addr: SocketAddr, path: &str, token: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&addr, super::SOON)?;
    stream.set_read_timeout(Some(super::SOON))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| io::Error::other(format!("not an HTTP answer: {answer:?}")))
}

/// The address in the log line with this message.
pub async fn listens(process: &mut OperatorProcess, message: &str) -> SocketAddr {
    process.logs(&[message]).await;
    let line = process.log().into_iter().find(|line| line.contains(message)).expect("the line exists");
    let json: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
    let addr = json["addr"].as_str().and_then(|addr| addr.parse().ok());
    addr.unwrap_or_else(|| panic!("no address in {line}"))
}
