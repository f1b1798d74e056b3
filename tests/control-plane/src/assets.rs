//! Where the programs are: in `KUBEBUILDER_ASSETS`, or in the per-user cache, built there if missing.
//!
//! For: everybody who runs one of the programs.
//! Must not know how Go builds one, or what the programs do.

use std::{
    env,
    ffi::OsString,
    fmt, io,
    path::{self, Path, PathBuf},
};

use crate::go_build::{self, Module};

/// One of the programs that this crate provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// The store.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// The controllers.
    KubeControllerManager,
    /// The command line client.
    Kubectl,
    /// The package manager.
    Helm,
    /// What Flux says of objects, by its own code.
    FluxVerdict,
    /// What Argo CD says of objects, by its own code.
    ArgocdVerdict,
    /// Istio's control plane, which sets proxies up.
    Istiod,
    /// The package manager of kubectl's plugins.
    Krew,
    /// What seals Secrets for a cluster.
    Kubeseal,
    /// What unseals them there.
    SealedSecrets,
    /// What encrypts the values of a file.
    Sops,
    /// What makes the keys for that.
    AgeKeygen,
    /// Who takes backups and restores them; also the plugin by which it keeps them in a folder.
    Velero,
}

impl Binary {
    /// Every program, in the order in which they are built: first those of the control plane.
    pub const ALL: [Self; 14] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::Kubectl,
        Self::Helm,
        Self::FluxVerdict,
        Self::ArgocdVerdict,
        Self::Istiod,
        Self::Krew,
        Self::Kubeseal,
        Self::SealedSecrets,
        Self::Sops,
        Self::AgeKeygen,
        Self::Velero,
    ];

    /// Its file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::FluxVerdict => "flux-verdict",
            Self::ArgocdVerdict => "argocd-verdict",
            Self::Istiod => "istiod",
            Self::Krew => "krew",
            Self::Kubeseal => "kubeseal",
            Self::SealedSecrets => "sealed-secrets-controller",
            Self::Sops => "sops",
            Self::AgeKeygen => "age-keygen",
            Self::Velero => "velero",
        }
    }

    /// The program of that file name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|binary| binary.name() == name)
    }

    /// Its version, as pinned in go.mod.
    pub fn version(self) -> &'static str {
        self.module().version()
    }

    pub(crate) fn module(self) -> &'static Module {
        match self {
            Self::Etcd => &go_build::ETCD,
            Self::KubeApiserver | Self::KubeControllerManager | Self::Kubectl => &go_build::KUBERNETES,
            Self::Helm => &go_build::HELM,
            Self::FluxVerdict => &go_build::FLUX_VERDICT,
            Self::ArgocdVerdict => &go_build::ARGOCD_VERDICT,
            Self::Istiod => &go_build::ISTIOD,
            Self::Krew => &go_build::KREW,
            Self::Kubeseal | Self::SealedSecrets => &go_build::SEALED_SECRETS,
            Self::Sops => &go_build::SOPS,
            Self::AgeKeygen => &go_build::AGE,
            Self::Velero => &go_build::VELERO,
        }
    }

    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::Helm => "helm.sh/helm/v4/cmd/helm",
            Self::FluxVerdict | Self::ArgocdVerdict | Self::Istiod | Self::Velero => ".",
            Self::Krew => "sigs.k8s.io/krew/cmd/krew",
            Self::Kubeseal => "github.com/bitnami/sealed-secrets/cmd/kubeseal",
            Self::SealedSecrets => "github.com/bitnami/sealed-secrets/cmd/controller",
            Self::Sops => "github.com/getsops/sops/v3/cmd/sops",
            Self::AgeKeygen => "filippo.io/age/cmd/age-keygen",
        }
    }

    /// How long a first build takes on a small machine (2 cores), downloads included.
    pub(crate) fn first_build(self) -> &'static str {
        match self {
            Self::Etcd | Self::KubeControllerManager => "about 1 minute",
            Self::KubeApiserver | Self::Istiod => "about 6 minutes",
            Self::Kubectl | Self::AgeKeygen => "half a minute",
            Self::Helm | Self::ArgocdVerdict | Self::Sops => "about 3 minutes",
            Self::FluxVerdict | Self::Kubeseal | Self::SealedSecrets => "about 2 minutes",
            Self::Krew => "about 1 minute",
            Self::Velero => "about 4 minutes",
        }
    }

    /// A folder of envtest programs has these; the others we build even then.
    fn is_envtest(self) -> bool {
        matches!(self, Self::Etcd | Self::KubeApiserver | Self::Kubectl)
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// The programs could not be provided.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssetsError {
    /// There is nothing to build with.
    #[error(
        "{binary} is not built yet and there is no `go` on PATH: install Go 1.26 or newer, and it is built once, in {time}; \
         or set KUBEBUILDER_ASSETS to a folder that holds etcd, kube-apiserver, kube-controller-manager and kubectl, and \
         those are used",
        time = binary.first_build()
    )]
    NoGo {
        /// What is missing.
        binary: Binary,
    },

    /// `KUBEBUILDER_ASSETS` is set and lacks what such folders mostly lack, and there is nothing to build that with.
    #[error(
        "there is no {binary} in KUBEBUILDER_ASSETS ({folder}), it is not built yet, and there is no `go` on PATH: put \
         {binary} {version} into that folder, or install Go 1.26 or newer, and it is built once, in {time}",
        version = binary.version(),
        time = binary.first_build()
    )]
    NoGoForTheRest {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        binary: Binary,
    },

    /// `go build` failed.
    #[error(
        "`go build` of {binary} {version} failed ({status}); what it said last:\n{output}\nCorrect that (a network? Go \
         1.26 or newer? 4 GB of memory and disk?) and start again: what is built already is kept",
        version = binary.version()
    )]
    Build {
        /// What was being built.
        binary: Binary,
        /// How the compiler ended.
        status: std::process::ExitStatus,
        /// The end of what it said.
        output: String,
    },

    /// `KUBEBUILDER_ASSETS` is set and wrong.
    #[error(
        "KUBEBUILDER_ASSETS is {folder}, where there is no {binary}: point it at a folder that holds etcd, kube-apiserver \
         and kubectl, or unset it to have them built"
    )]
    NotInAssets {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        binary: Binary,
    },

    /// No place for a cache.
    #[error("neither XDG_CACHE_HOME nor HOME is set to an absolute path: set one, built programs are kept below it")]
    NoCache,

    /// The operating system refused something.
    #[error("could not {action} in {folder}: {source}; check its rights and the disk space, then start again")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        folder: PathBuf,
        /// What came back.
        source: io::Error,
    },
}

/// The paths of programs that are there.
#[derive(Debug, Clone)]
pub struct Assets {
    paths: [PathBuf; Binary::ALL.len()],
}

impl Assets {
    /// What it takes to run a control plane.
    pub const TO_RUN: [Binary; 3] = [Binary::Etcd, Binary::KubeApiserver, Binary::KubeControllerManager];

    /// What it takes to run one and to work with it.
    pub const TO_WORK_WITH: [Binary; 5] =
        [Binary::Etcd, Binary::KubeApiserver, Binary::KubeControllerManager, Binary::Kubectl, Binary::Helm];

    /// Finds programs and builds those that are missing, which blocks for minutes and says so on standard error.
    pub fn ensure(needed: &[Binary]) -> Result<Self, AssetsError> {
        let given = env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty());
        // Absolute, because the components run in a folder of their own.
        let given = given.map(|folder| path::absolute(&folder).unwrap_or_else(|_| folder.into()));
        let cache = cache_folder();
        let mut paths = [const { PathBuf::new() }; Binary::ALL.len()];
        for binary in Binary::ALL {
            let in_given = given.as_ref().map(|folder| folder.join(binary.name()));
            paths[binary as usize] = match (in_given, &cache) {
                (Some(path), _) if path.is_file() => path,
                (Some(_), _) if binary.is_envtest() && needed.contains(&binary) => {
                    return Err(AssetsError::NotInAssets { folder: given.unwrap_or_default(), binary });
                }
                (_, Some(cache)) if needed.contains(&binary) => {
                    go_build::ensure(binary, cache).map_err(|error| match (error, &given) {
                        (AssetsError::NoGo { binary }, Some(folder)) => {
                            AssetsError::NoGoForTheRest { folder: folder.clone(), binary }
                        }
                        (error, _) => error,
                    })?
                }
                (_, Some(cache)) => go_build::place(binary, cache),
                (_, None) if needed.contains(&binary) => return Err(AssetsError::NoCache),
                (_, None) => PathBuf::new(),
            };
        }
        Ok(Self { paths })
    }

    /// Where a program is; it is there if it was asked for.
    pub fn path(&self, binary: Binary) -> &Path {
        &self.paths[binary as usize]
    }

    /// The folders of kubectl and helm.
    pub fn tool_folders(&self) -> [&Path; 2] {
        [Binary::Kubectl, Binary::Helm].map(|binary| self.path(binary).parent().unwrap_or(Path::new("")))
    }

    /// `PATH` with the folders of kubectl and helm in front.
    pub fn search_path(&self) -> OsString {
        let before = env::var_os("PATH").unwrap_or_default();
        let folders = self.tool_folders().into_iter().map(Path::to_owned).chain(env::split_paths(&before));
        // A folder with a colon in its name cannot stand in PATH: then PATH stays as it is.
        env::join_paths(folders).unwrap_or(before)
    }
}

/// `pat-operator/control-plane` in the user's cache, outside every checkout, so that a fresh clone finds it.
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("pat-operator/control-plane"))
}
