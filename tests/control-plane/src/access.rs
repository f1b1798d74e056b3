//! Access to a running control plane: clients, kubeconfigs and namespaces.

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

/// The environment variable in which `control-plane run` passes the shared control plane's kubeconfig to tests.
pub const KUBECONFIG_VARIABLE: &str = "PAT_CONTROL_PLANE_KUBECONFIG";

/// The administrator's kubeconfig in the control plane's folder.
pub(crate) const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";
/// The certificate authority's key in the control plane's folder.
pub(crate) const AUTHORITY_KEY: &str = "pki/ca.key";

/// Access to a running control plane. It is cheap to clone and does not keep the control plane alive.
///
/// Every client is new: a [`Client`] belongs to the tokio runtime in which it was made, and each `#[tokio::test]` has its
/// own. Never keep a client in a static.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    url: String,
    authority: Authority,
}

impl fmt::Debug for Access {
    /// Omits the authority's key.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Access").field(&self.0.url).finish()
    }
}

impl Access {
    pub(crate) fn new(folder: PathBuf, url: String, authority: Authority) -> Self {
        Self(Arc::new(Inner { folder, url, authority }))
    }

    /// Access to the control plane of an administrator's kubeconfig, started by `control-plane up` or `run`.
    pub fn from_kubeconfig(kubeconfig: &Path) -> Result<Self, Error> {
        let folder = kubeconfig.parent().unwrap_or(Path::new(".")).to_owned();
        let foreign = |reason: String| Error::Foreign { kubeconfig: kubeconfig.to_owned(), reason };
        let url = Kubeconfig::read_from(kubeconfig)
            .map_err(|error| foreign(error.to_string()))?
            .clusters
            .into_iter()
            .find_map(|named| named.cluster?.server)
            .ok_or_else(|| foreign("it has no server".to_owned()))?;
        let key = fs::read_to_string(folder.join(AUTHORITY_KEY))
            .map_err(|error| foreign(format!("{AUTHORITY_KEY} in the same folder: {error}")))?;
        Ok(Self::new(folder, url, Authority::from_key_pem(&key)?))
    }

    /// The URL of the API server, such as `https://127.0.0.1:40123`.
    pub fn api_server_url(&self) -> &str {
        &self.0.url
    }

    /// The path of the administrator's kubeconfig. The file exists as long as the control plane runs.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.0.folder.join(ADMIN_KUBECONFIG)
    }

    /// The control plane's folder, which has the log of each component.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Returns a new client for the administrator.
    pub fn client(&self) -> Result<Client, Error> {
        self.client_for(&Identity::admin())
    }

    /// Returns a new client for an identity. It authenticates by certificate, not by impersonation.
    pub fn client_for(&self, identity: &Identity) -> Result<Client, Error> {
        Ok(Client::try_from(self.config_for(identity)?)?)
    }

    /// Returns a client configuration for an identity, to build a client with special timeouts or layers.
    pub fn config_for(&self, identity: &Identity) -> Result<Config, Error> {
        let Certified { certificate, key } = self.0.authority.client(identity)?;
        let url = self.0.url.parse().map_err(|_| Error::Url(self.0.url.clone()))?;
        let mut config = Config::new(url);
        config.root_cert = Some(vec![self.0.authority.certificate()?]);
        config.auth_info.client_certificate_data = Some(STANDARD.encode(certificate));
        config.auth_info.client_key_data = Some(STANDARD.encode(key).into());
        Ok(config)
    }

    /// Writes a self-contained kubeconfig for an identity, and returns its path.
    pub fn kubeconfig_for(&self, identity: &Identity) -> Result<PathBuf, Error> {
        let write = |text: String| -> io::Result<PathBuf> {
            // The file name has the identity's name, with dashes for special characters.
            let name = identity.name().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let mut builder = tempfile::Builder::new();
            let file = builder.prefix(&format!("{name}-")).suffix(".kubeconfig").tempfile_in(&self.0.folder)?;
            fs::write(&file, text)?;
            Ok(file.into_temp_path().keep()?)
        };
        write(self.kubeconfig_text(identity)?).map_err(Error::io("write a kubeconfig"))
    }

    /// Returns the text of a kubeconfig for an identity.
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

    /// Returns a command for `kubectl` or `helm` as the administrator, to add arguments to:
    /// `access.command(Binary::Kubectl)?.args(["get", "pods"])`.
    ///
    /// Blocks while the program is downloaded or built, if it is missing.
    pub fn command(&self, binary: Binary) -> Result<Command, Error> {
        let mut command = Command::new(Assets::ensure(&[binary])?.path(binary));
        command.envs(self.variables());
        Ok(command)
    }

    /// The environment variables with which a program acts as the administrator and leaves nothing in the user's home.
    pub fn variables(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("KUBECONFIG", self.admin_kubeconfig()),
            (KUBECONFIG_VARIABLE, self.admin_kubeconfig()),
            ("KUBECACHEDIR", self.folder().join("kubectl-cache")),
        ]
    }

    /// Returns the API server's metrics in the Prometheus text format.
    pub async fn metrics(&self) -> Result<String, Error> {
        Ok(self.client()?.request_text(get("/metrics")?).await?)
    }

    /// Creates a namespace with a unique name, `<prefix>-<random>`. Dropping it deletes it.
    pub async fn namespace(&self, prefix: &str) -> Result<Namespace, Error> {
        Namespace::create(self.clone(), prefix).await
    }
}

/// A GET request for a path that is not a Kubernetes resource.
pub(crate) fn get(path: &str) -> Result<Request<Vec<u8>>, kube::Error> {
    Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)
}
