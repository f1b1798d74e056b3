//! A TCP proxy between an operator and the API server that can hold back requests. It delivers them later, but always delivers them.
//!
//! TLS goes end to end, so that the proxy does not see the content.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use control_plane::{Access, Identity};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A proxy that can hold back requests. Dropping it closes all connections.
pub struct Wire {
    access: Access,
    addr: SocketAddr,
    held: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
    _connections: JoinSet<()>,
}

impl Wire {
    /// A proxy to this API server that holds back nothing.
    pub async fn to(access: &Access) -> Self {
        Self::slow(access, Duration::ZERO).await
    }

    /// A proxy that delays everything sent to the API server.
    pub async fn slow(access: &Access, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("it has an address");
        let server = access.api_server_url().trim_start_matches("https://").to_owned();
        let held = watch::Sender::new(false);
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut connections = JoinSet::new();
        let (gate, stuck) = (held.subscribe(), waiting.clone());
        connections.spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                running.spawn(connection(client, server.clone(), gate.clone(), stuck.clone(), delay));
            }
        });
        Self { access: access.clone(), addr, held, waiting, _connections: connections }
    }

    /// A kubeconfig that connects through this proxy.
    pub fn kubeconfig_for(&self, identity: &Identity) -> PathBuf {
        let text = self.access.kubeconfig_text(identity).expect("a kubeconfig");
        let text = text.replace(self.access.api_server_url(), &format!("https://{}", self.addr));
        let path = self.access.folder().join(format!("wire-{}.kubeconfig", self.addr.port()));
        std::fs::write(&path, text).expect("a kubeconfig is written");
        path
    }

    /// Holds back everything sent to the API server. Answers still arrive.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Delivers everything that is held back.
    pub fn release_held(&self) {
        self.held.send_replace(false);
    }

    /// Waits until this many connections have data held back.
    pub async fn wait_until_held(&self, count: usize) {
        let deadline = Instant::now() + super::SOON;
        while self.waiting.load(Ordering::SeqCst) < count {
            let now = self.waiting.load(Ordering::SeqCst);
            assert!(Instant::now() < deadline, "only {now} of {count} requests are held back");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn connection(
    client: TcpStream,
    server: String,
    mut gate: watch::Receiver<bool>,
    stuck: Arc<AtomicUsize>,
    delay: Duration,
) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            tokio::time::sleep(delay).await;
            if *gate.borrow() {
                stuck.fetch_add(1, Ordering::SeqCst);
                let opened = gate.wait_for(|held| !held).await.is_ok();
                stuck.fetch_sub(1, Ordering::SeqCst);
                if !opened {
                    return;
                }
            }
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
        let _ = to_server.shutdown().await;
    };
    let back = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    };
    // A connection that the operator has closed still delivers what was sent on it.
    tokio::join!(there, back);
}
