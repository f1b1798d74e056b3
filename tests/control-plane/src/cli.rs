//! What the command line looks like, and the help that teaches it.
//!
//! For: `main`.
//! Must not do anything.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use control_plane::Binary;

const EXAMPLES: &str = "\
Examples:
  control-plane up                            a cluster to play with, until Ctrl-C
  control-plane up --apply crds/              the same, with CRDs in it
  control-plane run cargo test                the tests, on one shared control plane
  control-plane run --apply crds/ -- bash     a shell with kubectl and helm; `exit` takes the cluster down
  $(control-plane path kubectl) version       the kubectl it built

Environment:
  KUBEBUILDER_ASSETS  a folder with etcd, kube-apiserver and kubectl, used instead of building them
  XDG_CACHE_HOME      where built programs are kept (default: ~/.cache), below pat-operator/control-plane

The first start builds the programs with Go 1.26 or newer, once, in about 10 minutes; after that it takes 3 seconds.";

/// A real Kubernetes control plane on loopback: etcd, kube-apiserver, garbage collector and namespace controller.
#[derive(Parser)]
#[command(name = "control-plane", after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Subcommand)]
pub enum Action {
    /// Build what is missing and print where each program is
    Build,
    /// Start one in the foreground; Ctrl-C stops it and leaves nothing behind
    Up(Start),
    /// Start one, run a command with it, stop it, and exit as the command did
    ///
    /// The command gets KUBECONFIG and PAT_CONTROL_PLANE_KUBECONFIG (the administrator's kubeconfig; tests that use this
    /// crate find the shared control plane by the latter) and a PATH that begins with the kubectl and helm that fit.
    /// SIGINT and SIGTERM are passed on to it.
    Run {
        #[command(flatten)]
        start: Start,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Print where a program is, and build it if it is missing
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
    /// A manifest or a folder of manifests to apply first; may be repeated
    ///
    /// The place for CRDs: the garbage collector looks for new kinds only every 30 seconds, and at its start.
    #[arg(long, value_name = "PATH")]
    pub apply: Vec<PathBuf>,
}

fn binary(name: &str) -> Result<Binary, String> {
    Binary::named(name).ok_or_else(|| format!("one of {}", Binary::ALL.map(Binary::name).join(", ")))
}
