//! A control plane: start it, kill its components, restart them.

use std::{
    fs, io,
    net::Ipv4Addr,
    ops::Deref,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use tokio::{net::TcpSocket, time::sleep};

use crate::{
    Access, Assets, Binary, Component, Error, Identity,
    access::{ADMIN_KUBECONFIG, AUTHORITY_KEY},
    component::ETCD_SOCKET,
    home::Home,
    pki::{Authority, Key},
    process::{Process, tail},
};

/// The interval between readiness checks.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A start takes about three seconds; this is for a machine under heavy load.
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// What to start, and with which flags.
#[derive(Debug, Clone)]
pub struct Options {
    controller_manager: bool,
    arguments: Vec<(Component, String)>,
    manifests: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { controller_manager: true, arguments: Vec::new(), manifests: Vec::new() }
    }
}

impl Options {
    /// Leaves out the controller manager: no garbage collection, and deleted namespaces stay.
    pub fn without_controller_manager(mut self) -> Self {
        self.controller_manager = false;
        self
    }

    /// Adds a flag to a component's command line, such as `--authentication-token-webhook-config-file=…`.
    ///
    /// `--controllers=resourcequota-controller` adds a controller to the two that run: quotas are enforced only with it.
    pub fn argument(mut self, component: Component, argument: impl Into<String>) -> Self {
        self.arguments.push((component, argument.into()));
        self
    }

    /// Applies a manifest, or a folder of manifests, before the controller manager starts.
    ///
    /// Apply CRDs here: the garbage collector discovers new kinds only at its start and every 30 seconds.
    pub fn apply(mut self, manifest: impl Into<PathBuf>) -> Self {
        self.manifests.push(manifest.into());
        self
    }
}

/// A running control plane. Dropping it kills its processes and removes its folder.
///
/// It dereferences to [`Access`], which has the clients and the kubeconfigs.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: processes before the folder that they write to.
    running: [Option<Process>; 3],
    access: Access,
    options: Options,
    assets: Assets,
    port: u16,
    /// Reserves the port while the API server is down: a client that keeps dialling a free port can connect to itself.
    _reservation: TcpSocket,
    home: Home,
}

impl ControlPlane {
    /// Starts a control plane and waits until it is ready: about three seconds, if the programs are in the cache.
    ///
    /// It starts without a controller manager if `KUBEBUILDER_ASSETS` has none and this machine cannot provide one. A test
    /// that needs it calls [`require`](crate::require) first.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let assets = tokio::task::spawn_blocking(|| Assets::ensure_available(&Assets::TO_RUN))
            .await
            .map_err(|error| Error::io("find the programs")(io::Error::other(error)))??;
        let home = Home::create().map_err(Error::io("make a folder for the control plane"))?;
        let (reservation, port) = reserve_port().map_err(Error::io("find a free port"))?;
        let url = format!("https://127.0.0.1:{port}");
        let authority = write_pki(home.path())?;
        let access = Access::new(home.path().to_owned(), url, authority);
        fs::write(home.path().join(ADMIN_KUBECONFIG), access.kubeconfig_text(&Identity::admin())?)
            .map_err(Error::io("write the administrator's kubeconfig"))?;

        let running = [const { None }; 3];
        let mut plane = Self { running, access, options, assets, port, _reservation: reservation, home };
        plane.spawn(Component::Etcd)?;
        plane.spawn(Component::ApiServer)?;
        plane.api_server_is_ready().await?;
        plane.apply_manifests().await?;
        if plane.options.controller_manager && plane.assets.has(Binary::KubeControllerManager) {
            plane.spawn(Component::ControllerManager)?;
        }
        Ok(plane)
    }

    /// Clients and kubeconfigs for this control plane, to clone and move into tasks.
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// The programs it runs, and the kubectl and Helm that fit.
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// The process ID of a component, if it runs.
    pub fn pid(&self, component: Component) -> Option<u32> {
        self.running[component as usize].as_ref().map(Process::pid)
    }

    /// The path of a component's log.
    pub fn log(&self, component: Component) -> PathBuf {
        self.home.path().join(component.binary().name()).with_extension("log")
    }

    /// Kills a component as `kill -9` does. Does nothing if it is not running.
    pub fn kill(&mut self, component: Component) {
        self.running[component as usize] = None;
    }

    /// Restarts a component on the same data and the same port, and waits until it is ready.
    ///
    /// Kills it first if it runs. If etcd and the API server are both down, restart etcd first.
    pub async fn restart(&mut self, component: Component) -> Result<(), Error> {
        self.kill(component);
        self.spawn(component)?;
        match component {
            Component::Etcd if self.pid(Component::ApiServer).is_none() => self.etcd_is_ready().await,
            Component::Etcd | Component::ApiServer => self.api_server_is_ready().await,
            Component::ControllerManager => Ok(()),
        }
    }

    /// Returns an error if a component has exited by itself.
    pub fn check(&mut self) -> Result<(), Error> {
        for component in Component::ALL {
            if let Some(status) = self.running[component as usize].as_mut().and_then(Process::exit_status) {
                return Err(Error::Ended { component, status, log: tail(&self.log(component)) });
            }
        }
        Ok(())
    }

    /// Stops the control plane, as dropping it does.
    pub fn stop(self) {}

    fn spawn(&mut self, component: Component) -> Result<(), Error> {
        if !self.assets.has(component.binary()) {
            self.assets = Assets::ensure(&[component.binary()])?;
        }
        let mut command = component.command(self.assets.path(component.binary()), self.port);
        command.args(self.options.arguments.iter().filter(|(to, _)| *to == component).map(|(_, argument)| argument));
        let process = Process::start(command, self.home.path(), component.binary().name(), &self.log(component))
            .map_err(Error::io("start a component"))?;
        self.running[component as usize] = Some(process);
        Ok(())
    }

    async fn etcd_is_ready(&mut self) -> Result<(), Error> {
        let socket = self.home.path().join(ETCD_SOCKET);
        self.wait(Component::Etcd, async || UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string()))
            .await
    }

    async fn api_server_is_ready(&mut self) -> Result<(), Error> {
        let mut config = self.access.config_for(&Identity::admin())?;
        // `wait` retries, and reports the last answer.
        config.default_retry = false;
        config.read_timeout = Some(Duration::from_secs(5));
        let client = Client::try_from(config)?;
        self.wait(Component::ApiServer, async || is_ready(&client).await.map_err(|error| error.to_string())).await
    }

    async fn apply_manifests(&mut self) -> Result<(), Error> {
        for path in &self.options.manifests {
            let mut kubectl = self.access.command(Binary::Kubectl)?;
            kubectl.args(["apply", "--server-side", "--filename"]).arg(path);
            let output = tokio::task::spawn_blocking(move || kubectl.output())
                .await
                .map_err(io::Error::other)
                .flatten()
                .map_err(Error::io("run kubectl"))?;
            if !output.status.success() {
                let output = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(Error::Apply { path: path.clone(), output });
            }
        }
        if self.options.manifests.is_empty() {
            return Ok(());
        }
        let client = self.access.client()?;
        self.wait(Component::ApiServer, async || crds_are_established(&client).await).await
    }

    /// Polls `ready` until it succeeds, a component exits, or the timeout is reached.
    async fn wait(
        &mut self,
        component: Component,
        mut ready: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<(), Error> {
        let begin = Instant::now();
        loop {
            self.check()?;
            let Err(last) = ready().await else { return Ok(()) };
            let waited = begin.elapsed();
            if waited > READY_TIMEOUT {
                return Err(Error::NotReady { component, waited, last, log: tail(&self.log(component)) });
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

impl Deref for ControlPlane {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

/// Reserves a port on loopback: the API server shares it (SO_REUSEPORT), every other process is refused.
fn reserve_port() -> io::Result<(TcpSocket, u16)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

fn write_pki(folder: &Path) -> Result<Authority, Error> {
    let authority = Authority::generate()?;
    let server = authority.server()?;
    let service_account = Key::generate()?;
    let files = [
        ("pki/ca.crt", authority.certificate_pem()?),
        (AUTHORITY_KEY, authority.key_pem()),
        ("pki/server.crt", server.certificate),
        ("pki/server.key", server.key),
        ("pki/service-account.key", service_account.private_pem()),
        ("pki/service-account.pub", service_account.public_pem()),
    ];
    let write = || {
        fs::create_dir(folder.join("pki"))?;
        files.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))
    };
    write().map_err(Error::io("write keys and certificates"))?;
    Ok(authority)
}

/// Checks `/readyz` and the `default` namespace, which is created a moment later.
async fn is_ready(client: &Client) -> Result<(), kube::Error> {
    client.request_text(crate::access::get("/readyz")?).await?;
    Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone()).get("default").await.map(drop)
}

async fn crds_are_established(client: &Client) -> Result<(), String> {
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    let crds = crds.list(&Default::default()).await.map_err(|error| error.to_string())?;
    let established = |crd: &CustomResourceDefinition| {
        let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Established" && one.status == "True"))
    };
    match crds.items.iter().find(|crd| !established(crd)) {
        Some(crd) => Err(format!("{} is not established", crd.metadata.name.as_deref().unwrap_or("a CRD"))),
        None => Ok(()),
    }
}
