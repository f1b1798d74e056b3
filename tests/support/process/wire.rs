//! A TCP proxy between an operator and the API server that can hold back requests, which it delivers later, and swallow what is sent on
//! its present connections.
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
    /// The number of connections whose bytes are swallowed: the first ones.
    dead: watch::Sender<usize>,
    accepted: Arc<AtomicUsize>,
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
        let (held, dead, accepted) = (watch::Sender::new(false), watch::Sender::new(0), Arc::new(AtomicUsize::new(0)));
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut connections = JoinSet::new();
        let (gate, stuck) = (held.subscribe(), waiting.clone());
        let (until, count) = (dead.subscribe(), accepted.clone());
        connections.spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (number, mut until) = (count.fetch_add(1, Ordering::SeqCst), until.clone());
                let (server, gate, stuck) = (server.clone(), gate.clone(), stuck.clone());
                running.spawn(async move {
                    let mut running = std::pin::pin!(connection(client, server, gate, stuck, delay));
                    tokio::select! {
                        () = &mut running => return,
                        dies = until.wait_for(|dead| number < *dead) => drop(dies),
                    }
                    // Both sides stay open, but nothing is read any more.
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { access: access.clone(), addr, held, dead, accepted, waiting, _connections: connections }
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

    /// Swallows everything on the present connections in both directions, without closing them. New ones work.
    pub fn swallow_present_connections(&self) {
        self.dead.send_replace(self.accepted.load(Ordering::SeqCst));
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
