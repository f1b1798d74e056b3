//! The programs that this crate provides: their names, versions, Go packages and build times.

use std::{fmt, time::Duration};

use crate::go_build::{self, Module};

/// A program that this crate provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Binary {
    /// The database of the API server.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// The controller manager: garbage collector and namespace controller.
    KubeControllerManager,
    /// The Kubernetes command line client.
    Kubectl,
    /// The package manager for Kubernetes.
    Helm,
    /// Flux's own health checks, as a command.
    FluxVerdict,
    /// Argo CD's own health checks and comparison, as a command.
    ArgocdVerdict,
    /// Istio's control plane, which configures proxies.
    Istiod,
    /// The package manager for kubectl plugins.
    Krew,
    /// The client of Sealed Secrets, which encrypts Secrets.
    Kubeseal,
    /// The controller of Sealed Secrets, which decrypts them.
    SealedSecrets,
    /// The encryption tool for values in files.
    Sops,
    /// The generator of age keys, which sops encrypts with.
    AgeKeygen,
    /// Velero, which backs up and restores; also its plugin that keeps backups in a folder.
    Velero,
    /// Gitea, a Git server that issues tokens.
    Gitea,
}

impl Binary {
    /// Every program, in build order: those of the control plane come first.
    pub const ALL: [Self; 15] = [
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
        Self::Gitea,
    ];

    /// The file name.
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
            Self::Gitea => "gitea",
        }
    }

    /// Returns the program with this file name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|binary| binary.name() == name)
    }

    /// The version, as pinned in `go.mod`.
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
            Self::Gitea => &go_build::GITEA,
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
            Self::Gitea => "code.gitea.io/gitea",
        }
    }

    /// How long a first build takes on 2 cores, with the download of its Go modules.
    pub(crate) fn build_time(self) -> Duration {
        Duration::from_secs(match self {
            Self::Kubectl | Self::AgeKeygen => 30,
            Self::Etcd | Self::KubeControllerManager | Self::Krew => 60,
            Self::FluxVerdict | Self::Kubeseal | Self::SealedSecrets => 120,
            Self::Helm | Self::ArgocdVerdict | Self::Sops => 180,
            Self::Velero => 240,
            Self::KubeApiserver | Self::Istiod | Self::Gitea => 360,
        })
    }

    /// Whether `setup-envtest` provides this program.
    pub(crate) fn is_in_envtest(self) -> bool {
        matches!(self, Self::Etcd | Self::KubeApiserver | Self::Kubectl)
    }

    /// Whether a control plane runs without this program, with less function.
    pub(crate) fn is_optional(self) -> bool {
        matches!(self, Self::KubeControllerManager | Self::Helm)
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
