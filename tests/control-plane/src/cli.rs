//! The command line arguments and their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use control_plane::Binary;

const EXAMPLES: &str = "\
Examples:
  control-plane up                            run a cluster until Ctrl-C
  control-plane up --apply crds/              the same, with CRDs
  control-plane run cargo test                run the tests on a shared control plane
  control-plane run --apply crds/ -- bash     a shell with kubectl and Helm; `exit` stops the cluster
  $(control-plane path kubectl) version       run the kubectl in the cache

Environment:
  KUBEBUILDER_ASSETS    a folder with etcd, kube-apiserver and kubectl, as `setup-envtest use -p path` prints it;
                        they are used instead of a download or build
  CONTROL_PLANE_MIRROR  the base URL of a mirror for downloads, or `off` (or nothing) to build everything with Go;
                        the official host is the first part of a path: <base>/dl.k8s.io/release/v1.36.3/…
  HTTPS_PROXY           a proxy for downloads
  XDG_CACHE_HOME        where the cache is (default: ~/.cache); programs are in pat-operator/control-plane below it

The first start downloads five programs and verifies their pinned SHA-256 digests. A program that cannot be downloaded
is built with Go 1.26 or newer; all five take about 12 minutes. Later starts take 3 seconds.";

/// A real Kubernetes control plane on loopback: etcd, kube-apiserver, garbage collector and namespace controller.
#[derive(Parser)]
#[command(name = "control-plane", after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Subcommand)]
pub enum Action {
    /// Download or build what is missing in the cache, and print the path of each program
    Build {
        /// Also build the third-party programs for the ecosystem tests (about 25 minutes more on 2 cores)
        ///
        /// They are flux-verdict, argocd-verdict, istiod, krew, kubeseal, sealed-secrets-controller, sops, age-keygen and
        /// velero.
        #[arg(long)]
        ecosystem: bool,
    },
    /// Run a control plane in the foreground until Ctrl-C
    Up(Start),
    /// Start a control plane, run a command, stop the control plane, and exit with the command's exit code
    ///
    /// The command gets KUBECONFIG and PAT_CONTROL_PLANE_KUBECONFIG, both the administrator's kubeconfig, and a PATH that
    /// begins with the folders of kubectl and Helm. Tests that use this crate find the shared control plane by
    /// PAT_CONTROL_PLANE_KUBECONFIG. SIGINT and SIGTERM are forwarded to the command.
    Run {
        #[command(flatten)]
        start: Start,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Print the path of a program, after downloading or building it if it is missing
    Path {
        /// etcd, kube-apiserver, kube-controller-manager, kubectl, helm, flux-verdict, argocd-verdict, istiod, krew, kubeseal,
        /// sealed-secrets-controller, sops, age-keygen or velero
        #[arg(value_parser = binary)]
        binary: Binary,
    },
}

/// How to start a control plane.
#[derive(Args)]
pub struct Start {
    /// A manifest or a folder of manifests to apply at the start; can be repeated
    ///
    /// Apply CRDs here: the garbage collector discovers new kinds only at its start and every 30 seconds.
    #[arg(long, value_name = "PATH")]
    pub apply: Vec<PathBuf>,
}

fn binary(name: &str) -> Result<Binary, String> {
    Binary::named(name).ok_or_else(|| format!("must be one of {}", Binary::ALL.map(Binary::name).join(", ")))
}
