//! The three components of a control plane and their flags.

use std::{fmt, path::Path, process::Command};

use crate::Binary;

/// A component of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The database of the API server.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controller manager: garbage collector and namespace controller.
    ControllerManager,
}

impl Component {
    /// Every component, in start order.
    pub const ALL: [Self; 3] = [Self::Etcd, Self::ApiServer, Self::ControllerManager];

    /// The program of the component.
    pub fn binary(self) -> Binary {
        match self {
            Self::Etcd => Binary::Etcd,
            Self::ApiServer => Binary::KubeApiserver,
            Self::ControllerManager => Binary::KubeControllerManager,
        }
    }

    /// The command line, with paths relative to the control plane's folder.
    pub(crate) fn command(self, program: &Path, port: u16) -> Command {
        let mut command = Command::new(program);
        match self {
            Self::Etcd => command.args(ETCD),
            Self::ApiServer => command.args(API_SERVER).arg(format!("--secure-port={port}")),
            Self::ControllerManager => command.args(CONTROLLER_MANAGER),
        };
        command
    }
}

impl fmt::Display for Component {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.binary().name())
    }
}

/// etcd's socket for clients. A socket in a private folder needs no free port, and other users cannot read Secrets.
pub(crate) const ETCD_SOCKET: &str = "etcd.sock";

const ETCD: &[&str] = &[
    "--name=control-plane",
    "--data-dir=etcd",
    "--listen-client-urls=unix://etcd.sock",
    "--listen-peer-urls=unix://etcd-peer.sock",
    // Must look like TCP. No client uses them: there is one member.
    "--advertise-client-urls=http://localhost:2379",
    "--initial-advertise-peer-urls=http://localhost:2380",
    "--initial-cluster=control-plane=http://localhost:2380",
    // The data survives a kill of the process. It need not survive a crash of the machine.
    "--unsafe-no-fsync",
    "--quota-backend-bytes=8589934592",
    "--log-level=warn",
];

const API_SERVER: &[&str] = &[
    "--etcd-servers=unix://etcd.sock",
    "--bind-address=127.0.0.1",
    // `ControlPlane` reserves the port, so that no process takes it while the API server is down.
    "--permit-port-sharing=true",
    // Without these two it does not start on a machine without a default route.
    "--advertise-address=127.0.0.1",
    "--endpoint-reconciler-type=none",
    "--tls-cert-file=pki/server.crt",
    "--tls-private-key-file=pki/server.key",
    "--client-ca-file=pki/ca.crt",
    "--authorization-mode=RBAC",
    "--anonymous-auth=false",
    "--service-account-key-file=pki/service-account.pub",
    "--service-account-signing-key-file=pki/service-account.key",
    "--service-account-issuer=https://kubernetes.default.svc",
    "--service-cluster-ip-range=10.0.0.0/24",
    // No controller creates ServiceAccounts or their tokens here, so it would reject every Pod.
    "--disable-admission-plugins=ServiceAccount",
];

const CONTROLLER_MANAGER: &[&str] = &[
    "--kubeconfig=admin.kubeconfig",
    "--controllers=garbage-collector-controller,namespace-controller",
    "--use-service-account-credentials=false",
    "--leader-elect=false",
    // Its health and metrics endpoints are not used.
    "--secure-port=0",
    // With the default of 20 requests a second, tests wait for the deletion of their namespaces.
    "--kube-api-qps=500",
    "--kube-api-burst=1000",
];
