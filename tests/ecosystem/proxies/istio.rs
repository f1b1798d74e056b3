//! Istio's control plane with `examples/verifier/istio`. It configures an Envoy as a sidecar or a gateway.
//!
//! There are no Pods, so two things differ: a Sidecar object says where to listen, because no traffic is redirected, and workloads use
//! plain text, because the agent that gets their certificates does not run.

use std::{
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use control_plane::{Assets, Binary};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};

use super::{
    istio_objects::{Surroundings, Workload, apply, example, labels},
    proxy::{Kind, Proxy, free_port},
};
use crate::support::{
    crd,
    process::place::{Place, eventually},
};

/// The Istio kinds that the tests use. Istio does not wait for kinds that the API server does not have.
const KINDS: [&str; 8] = [
    "AuthorizationPolicy",
    "DestinationRule",
    "EnvoyFilter",
    "Gateway",
    "PeerAuthentication",
    "ServiceEntry",
    "Sidecar",
    "VirtualService",
];

/// Settings for an Envoy without Istio's extensions, and for a cluster without Pods, certificates and webhooks.
const SETTINGS: [(&str, &str); 9] = [
    // Filters that only Istio's build of Envoy has: exchange of metadata for telemetry, and choice of the upstream protocol.
    ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
    ("PILOT_ENABLE_ALPN_FILTER", "false"),
    // No certificates for workloads, and no webhooks.
    ("ENABLE_CA_SERVER", "false"),
    ("PILOT_CERT_PROVIDER", "none"),
    ("INJECT_ENABLED", "false"),
    ("INJECTION_WEBHOOK_CONFIG_NAME", ""),
    ("VALIDATION_WEBHOOK_CONFIG_NAME", ""),
    // There is one replica, and only the kinds above.
    ("ENABLE_LEADER_ELECTION", "false"),
    ("PILOT_ENABLE_GATEWAY_API", "false"),
];

/// The control plane of a mesh with one workload. It is killed on drop.
pub struct Mesh {
    /// The address of its xDS server.
    xds: SocketAddr,
    /// The address where the workload's clients connect.
    clients: SocketAddr,
    workload: Workload,
    namespace: String,
    identities: Identities,
    child: Child,
    // Dropped after the process, which writes into it.
    folder: tempfile::TempDir,
}

impl Mesh {
    /// Starts a mesh with a workload as in the examples, for this verifier and upstream.
    pub async fn start(place: &Place, workload: Workload, verifier: SocketAddr, upstream: SocketAddr) -> Self {
        Self::start_with(place, workload, [verifier, upstream], &[]).await
    }

    /// The same with more objects.
    pub async fn start_with(
        place: &Place,
        workload: Workload,
        [verifier, upstream]: [SocketAddr; 2],
        more: &[Value],
    ) -> Self {
        let istiod = istiod().await;
        let kinds = Command::new(&istiod).arg("crds").output().expect("istiod runs");
        let kinds: Vec<Value> = serde_yaml::from_multiple(&String::from_utf8_lossy(&kinds.stdout)).expect("YAML");
        for kind in kinds.iter().filter(|kind| KINDS.iter().any(|name| kind["spec"]["names"]["kind"] == *name)) {
            crd::establish(&place.client, kind["metadata"]["name"].as_str().expect("a name"), kind).await;
        }
        // Without redirected traffic, a sidecar listens on the port of each service in the mesh. So the verifier's service has a free port.
        let (clients, service) = (free_port(), free_port());
        let mut mesh: Value = example("mesh.yaml");
        let provider = &mut mesh["extensionProviders"][0]["envoyExtAuthzHttp"];
        provider["port"] = service.port().into();
        let host = provider["service"].as_str().expect("a name").to_owned();
        mesh["enableAutoMtls"] = false.into();
        // Ignore the namespaces of other tests.
        mesh["discoverySelectors"] = json!([{"matchLabels": {"kubernetes.io/metadata.name": place.name()}}]);

        // Create all objects before Istio starts, so that a proxy never gets an incomplete configuration.
        let objects = Surroundings { host, service, verifier, clients, upstream }.objects(workload);
        for object in [example("policy.yaml")].iter().chain(&objects).chain(more) {
            apply(&place.client, place.name(), object).await;
        }

        let folder = tempfile::Builder::new().prefix("pat-istio-").tempdir().expect("a folder");
        fs::write(folder.path().join("mesh"), mesh.to_string()).expect("the mesh is written");
        let identities = Identities::make(folder.path(), place.name());
        let log = File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(istiod);
        command.env_clear().envs(SETTINGS).env("HOME", folder.path()).env("POD_NAMESPACE", place.name());
        command.arg("discovery").arg("--kubeconfig").arg(place.kubeconfig()).args(["--meshConfig", "mesh"]);
        command.args([
            "--secureGRPCAddr=127.0.0.1:0",
            "--caCertFile=ca.crt",
            "--tlsCertFile=tls.crt",
            "--tlsKeyFile=tls.key",
        ]);
        command.args(["--grpcAddr=", "--httpsAddr=", "--httpAddr=127.0.0.1:0", "--monitoringAddr=127.0.0.1:0"]);
        command.args(["--ctrlz_address=127.0.0.1", "--ctrlz_port=0"]);
        command.current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let child = control_plane::spawn(command).expect("istiod starts");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut mesh =
            Self { xds: nowhere, clients, workload, namespace: place.name().to_owned(), identities, child, folder };
        eventually("istiod logs its xDS address", async || {
            assert!(mesh.child.try_wait().expect("the status is available").is_none(), "istiod has exited");
            mesh.served().map(|xds| mesh.xds = xds).is_some()
        })
        .await;
        mesh
    }

    /// The workload's Envoy, configured by the control plane. `None` with a message on stderr if Envoy is not available.
    pub async fn proxy(&self) -> Option<Proxy> {
        Proxy::configured(Kind::EnvoyHttp, self.clients, &self.bootstrap()).await
    }

    /// The bootstrap configuration that Istio's agent would write. Its IP address belongs to no Pod.
    fn bootstrap(&self) -> String {
        let namespace = &self.namespace;
        let ads = json!({"ads": {}, "resource_api_version": "V3"});
        let http2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let (ip, port, role) = (self.xds.ip(), self.xds.port(), self.workload.role());
        let Identities { authority, certificate, key } = &self.identities;
        let tls = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_certificates":
                        [{"certificate_chain": {"inline_string": certificate}, "private_key": {"inline_string": key}}],
                    "validation_context": {"trusted_ca": {"inline_string": authority}},
                },
            },
        });
        let endpoint = json!({"endpoint": {"address": {"socket_address": {"address": ip, "port_value": port}}}});
        json!({
            "node": {
                "id": format!("{role}~192.0.2.1~shop.{namespace}~{namespace}.svc.cluster.local"),
                "cluster": format!("shop.{namespace}"),
                "metadata": {
                    "CLUSTER_ID": "Kubernetes", "NAMESPACE": namespace, "INTERCEPTION_MODE": "NONE",
                    "LABELS": labels(),
                },
            },
            "dynamic_resources": {
                "lds_config": ads, "cds_config": ads,
                "ads_config": {
                    "api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
            },
            "static_resources": {"clusters": [{
                "name": "xds-grpc", "connect_timeout": "1s", "transport_socket": tls,
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions":
                        {"@type": http2, "explicit_http_config": {"http2_protocol_options": {}}},
                },
                "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [endpoint]}]},
            }]},
        })
        .to_string()
    }

    fn log(&self) -> String {
        let text = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn served(&self) -> Option<SocketAddr> {
        let log = self.log();
        let (_, after) = log.split_once("starting secure gRPC discovery service at ")?;
        // Only a complete line counts.
        after.split_once('\n')?.0.trim().parse().ok()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of istiod:\n{}", self.log());
        }
    }
}

/// The certificates that Istio's agent would get. By them the control plane knows the sidecar's namespace, and sends it that namespace's
/// CAs.
struct Identities {
    authority: String,
    certificate: String,
    key: String,
}

impl Identities {
    /// Creates the certificates, and writes the control plane's own to this folder.
    fn make(folder: &Path, namespace: &str) -> Self {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "the CA of a mesh");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = authority.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(authority, key);
        let issue = |name: SanType| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![name];
            let key = KeyPair::generate().expect("a key");
            let certificate = params.signed_by(&key, &issuer).expect("a certificate");
            (certificate.pem(), key.serialize_pem())
        };
        let (certificate, key) = issue(SanType::DnsName("localhost".try_into().expect("a name")));
        for (name, content) in [("ca.crt", &root), ("tls.crt", &certificate), ("tls.key", &key)] {
            fs::write(folder.join(name), content).expect("the file is written");
        }
        let spiffe = format!("spiffe://cluster.local/ns/{namespace}/sa/default");
        let (certificate, key) = issue(SanType::URI(spiffe.try_into().expect("a URI")));
        Self { authority: root, certificate, key }
    }
}

async fn istiod() -> PathBuf {
    let ensure = || Assets::ensure(&[Binary::Istiod]).expect("istiod is built").path(Binary::Istiod).to_owned();
    tokio::task::spawn_blocking(ensure).await.expect("no panic")
}

/// Lets Istio check a MeshConfig.
fn known(istiod: &Path, mesh: &Value) -> Result<(), String> {
    let mut command = Command::new(istiod);
    command.arg("mesh").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = control_plane::spawn(command).expect("istiod starts");
    child.stdin.take().expect("stdin is piped").write_all(mesh.to_string().as_bytes()).expect("istiod reads its stdin");
    let output = child.wait_with_output().expect("istiod ends");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Istio ignores unknown fields of a MeshConfig, so a misspelt check would be no check.
#[tokio::test]
async fn istio_knows_each_field_of_the_example_mesh() {
    let (istiod, mesh) = (istiod().await, example("mesh.yaml"));
    assert_eq!(known(&istiod, &mesh), Ok(()));
    let mut wrong = mesh.clone();
    wrong["extensionProviders"][0]["envoyExtAuthzHttp"]["failOpened"] = json!(true);
    let error = known(&istiod, &wrong).expect_err("an unknown field");
    assert!(error.contains("failOpened"), "{error}");
    assert_eq!(example("policy.yaml")["spec"]["provider"]["name"], mesh["extensionProviders"][0]["name"]);
}
