//! A wire between an operator and the API server that can be held: what is sent is delivered late, but delivered.
//!
//! It must not know what goes over it, and cannot: that is TLS from end to end.

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

/// See the module. It is cut when dropped.
pub struct Wire {
    access: Access,
    addr: SocketAddr,
    held: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
    _connections: JoinSet<()>,
}

impl Wire {
    /// A wire to this API server, not held.
    pub async fn to(access: &Access) -> Self {
        Self::slow(access, Duration::ZERO).await
    }

    /// A wire on which everything that is sent to the API server takes so long.
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

    /// A kubeconfig that leads over this wire.
    pub fn kubeconfig_for(&self, identity: &Identity) -> PathBuf {
        let text = self.access.kubeconfig_text(identity).expect("a kubeconfig");
        let text = text.replace(self.access.api_server_url(), &format!("https://{}", self.addr));
        let path = self.access.folder().join(format!("wire-{}.kubeconfig", self.addr.port()));
        std::fs::write(&path, text).expect("a kubeconfig is written");
        path
    }

    /// From now on nothing that is sent to the API server arrives; answers still do.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Everything that was sent arrives now.
    pub fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// Waits until so many connections have something that does not arrive.
    pub async fn holds_back(&self, count: usize) {
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
    // A connection that the operator has given up still delivers what was sent on it.
    tokio::join!(there, back);
}
