//! A way in to a running control plane: clients, kubeconfigs and namespaces.
//!
//! For: tests; it is cheap to clone and outlives nothing.
//! Must not know whether this process or another one runs the control plane.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Request;
use kube::{Client, Config, config::Kubeconfig};

use crate::{
    Assets, Binary, Error, Identity, Namespace,
    pki::{Authority, Certified},
};

/// The environment variable by which `control-plane run` tells tests where the shared control plane is.
pub const KUBECONFIG_VARIABLE: &str = "PAT_CONTROL_PLANE_KUBECONFIG";

/// Where the administrator's kubeconfig lies in the control plane's folder.
pub(crate) const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";
/// Where the authority's key lies in the control plane's folder.
pub(crate) const AUTHORITY_KEY: &str = "pki/ca.key";

/// A running control plane, to talk to.
///
/// Every client is new: a [`Client`] belongs to the tokio runtime that it was made in, and each `#[tokio::test]` has
/// its own, so a client must never be kept in a static.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    url: String,
    authority: Authority,
}

impl fmt::Debug for Access {
    /// Without the authority's key.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Access").field(&self.0.url).finish()
    }
}

impl Access {
    pub(crate) fn new(folder: PathBuf, url: String, authority: Authority) -> Self {
        Self(Arc::new(Inner { folder, url, authority }))
    }

    /// The control plane whose administrator's kubeconfig is at `kubeconfig`, started by `up` or `run`.
    pub fn from_kubeconfig(kubeconfig: &Path) -> Result<Self, Error> {
        let folder = kubeconfig.parent().unwrap_or(Path::new(".")).to_owned();
        let foreign = |reason: String| Error::Foreign { kubeconfig: kubeconfig.to_owned(), reason };
        let url = Kubeconfig::read_from(kubeconfig)
            .map_err(|error| foreign(error.to_string()))?
            .clusters
            .into_iter()
            .find_map(|named| named.cluster?.server)
            .ok_or_else(|| foreign("it names no server".to_owned()))?;
        let key = fs::read_to_string(folder.join(AUTHORITY_KEY))
            .map_err(|error| foreign(format!("{AUTHORITY_KEY} beside it: {error}")))?;
        Ok(Self::new(folder, url, Authority::from_key_pem(&key)?))
    }

    /// The API server's address, such as `https://127.0.0.1:40123`.
    pub fn api_server_url(&self) -> &str {
        &self.0.url
    }

    /// The administrator's kubeconfig; it lies here as long as the control plane runs.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.0.folder.join(ADMIN_KUBECONFIG)
    }

    /// The control plane's folder, with the log of each component.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// A new client for the administrator.
    pub fn client(&self) -> Result<Client, Error> {
        self.client_for(&Identity::admin())
    }

    /// A new client for anybody, by a certificate that the API server trusts: no impersonation is involved.
    pub fn client_for(&self, identity: &Identity) -> Result<Client, Error> {
        Ok(Client::try_from(self.config_for(identity)?)?)
    }

    /// A client configuration for anybody, for a client with timeouts or layers of its own.
    pub fn config_for(&self, identity: &Identity) -> Result<Config, Error> {
        let Certified { certificate, key } = self.0.authority.client(identity)?;
        let url = self.0.url.parse().map_err(|_| Error::Url(self.0.url.clone()))?;
        let mut config = Config::new(url);
        config.root_cert = Some(vec![self.0.authority.certificate()?]);
        config.auth_info.client_certificate_data = Some(STANDARD.encode(certificate));
        config.auth_info.client_key_data = Some(STANDARD.encode(key).into());
        Ok(config)
    }

    /// Writes a kubeconfig for anybody, which needs no other file, and says where.
    pub fn kubeconfig_for(&self, identity: &Identity) -> Result<PathBuf, Error> {
        let write = |text: String| -> io::Result<PathBuf> {
            // The name says whose it is; what does not belong into a file name becomes a dash.
            let name = identity.name().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let mut builder = tempfile::Builder::new();
            let file = builder.prefix(&format!("{name}-")).suffix(".kubeconfig").tempfile_in(&self.0.folder)?;
            fs::write(&file, text)?;
            Ok(file.into_temp_path().keep()?)
        };
        write(self.kubeconfig_text(identity)?).map_err(Error::io("write a kubeconfig"))
    }

    /// The text of a kubeconfig for anybody.
    pub fn kubeconfig_text(&self, identity: &Identity) -> Result<String, Error> {
        let Certified { certificate, key } = self.0.authority.client(identity)?;
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "control-plane",
            "contexts": [{
                "name": "control-plane",
                "context": { "cluster": "control-plane", "user": identity.name(), "namespace": "default" },
            }],
            "clusters": [{
                "name": "control-plane",
                "cluster": {
                    "server": self.0.url,
                    "certificate-authority-data": STANDARD.encode(self.0.authority.certificate_pem()?),
                },
            }],
            "users": [{
                "name": identity.name(),
                "user": {
                    "client-certificate-data": STANDARD.encode(certificate),
                    "client-key-data": STANDARD.encode(key),
                },
            }],
        });
        serde_yaml::to_string(&config).map_err(|error| Error::Kubeconfig(error.to_string()))
    }

    /// `kubectl` or `helm` as the administrator: `access.command(Binary::Kubectl)?.args(["get", "pods"])`.
    ///
    /// Blocks for a while if the program has to be built first.
    pub fn command(&self, binary: Binary) -> Result<Command, Error> {
        let mut command = Command::new(Assets::ensure(&[binary])?.path(binary));
        command.envs(self.variables());
        Ok(command)
    }

    /// What a program's environment needs to work as the administrator and to leave nothing in the user's home.
    pub fn variables(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("KUBECONFIG", self.admin_kubeconfig()),
            (KUBECONFIG_VARIABLE, self.admin_kubeconfig()),
            ("KUBECACHEDIR", self.folder().join("kubectl-cache")),
        ]
    }

    /// The API server's own metrics, in the Prometheus text format.
    pub async fn metrics(&self) -> Result<String, Error> {
        Ok(self.client()?.request_text(get("/metrics")?).await?)
    }

    /// Makes a namespace with a name of its own, `<prefix>-<random>`, which is deleted on drop.
    pub async fn namespace(&self, prefix: &str) -> Result<Namespace, Error> {
        Namespace::create(self.clone(), prefix).await
    }
}

/// A plain GET, for what is no Kubernetes resource.
pub(crate) fn get(path: &str) -> Result<Request<Vec<u8>>, kube::Error> {
    Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)
}
