//! Istio itself: its control plane, which reads `examples/verifier/istio` and sets an Envoy up as a sidecar or a gateway.
//!
//! What takes pods is done by hand: a Sidecar says where it listens, since nothing diverts traffic to it, and between workloads the mesh is plain,
//! since the agent that fetches their certificates is not there. It must not know what they have to do: `story` does.

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

/// The kinds that are used here, of the many that Istio has: it does not wait for those that the API server does not have.
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

/// What an Envoy without Istio's own extensions must not be told, and what is for a cluster with pods, certificates and webhooks.
const SETTINGS: [(&str, &str); 9] = [
    // Two filters of Istio's build of Envoy: one tells the other side's name for telemetry, one chooses the protocol of a way out.
    ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
    ("PILOT_ENABLE_ALPN_FILTER", "false"),
    // No certificates for workloads, no webhooks.
    ("ENABLE_CA_SERVER", "false"),
    ("PILOT_CERT_PROVIDER", "none"),
    ("INJECT_ENABLED", "false"),
    ("INJECTION_WEBHOOK_CONFIG_NAME", ""),
    ("VALIDATION_WEBHOOK_CONFIG_NAME", ""),
    // It is alone, and its kinds are enough.
    ("ENABLE_LEADER_ELECTION", "false"),
    ("PILOT_ENABLE_GATEWAY_API", "false"),
];

/// The control plane of a mesh with one workload. It dies with the value, and with the test process however that ends.
pub struct Mesh {
    /// Where it tells proxies what to do.
    xds: SocketAddr,
    /// Where the workload's clients come to.
    clients: SocketAddr,
    workload: Workload,
    namespace: String,
    identities: Identities,
    child: Child,
    // After the process, which writes into it.
    folder: tempfile::TempDir,
}

impl Mesh {
    /// Sets a workload up in this place, as the examples say, with the verifier and what the workload protects there.
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
        let kinds = Command::new(&istiod).arg("crds").output().expect("it runs");
        let kinds: Vec<Value> = serde_yaml::from_multiple(&String::from_utf8_lossy(&kinds.stdout)).expect("YAML");
        for kind in kinds.iter().filter(|kind| KINDS.iter().any(|name| kind["spec"]["names"]["kind"] == *name)) {
            crd::establish(&place.client, kind["metadata"]["name"].as_str().expect("a name"), kind).await;
        }
        // A sidecar that nothing diverts traffic to listens at the port of each service in the mesh, so the verifier's is a free one.
        let (clients, service) = (free_port(), free_port());
        let mut mesh: Value = example("mesh.yaml");
        let provider = &mut mesh["extensionProviders"][0]["envoyExtAuthzHttp"];
        provider["port"] = service.port().into();
        let host = provider["service"].as_str().expect("a name").to_owned();
        mesh["enableAutoMtls"] = false.into();
        // Other tests' namespaces are none of its business.
        mesh["discoverySelectors"] = json!([{"matchLabels": {"kubernetes.io/metadata.name": place.name()}}]);

        // All is there before it starts, so a proxy never hears of less.
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
        let child = control_plane::spawn(command).expect("it starts");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut mesh =
            Self { xds: nowhere, clients, workload, namespace: place.name().to_owned(), identities, child, folder };
        eventually("istiod tells where it serves proxies", async || {
            assert!(mesh.child.try_wait().expect("it can be waited for").is_none(), "istiod has ended by itself");
            mesh.served().map(|xds| mesh.xds = xds).is_some()
        })
        .await;
        mesh
    }

    /// The workload's Envoy, which has all that it does from the control plane; `None` if there is none, which is then told.
    pub async fn proxy(&self) -> Option<Proxy> {
        Proxy::configured(Kind::EnvoyHttp, self.clients, &self.bootstrap()).await
    }

    /// What Istio's agent would write: who it is, and whom it asks. The address is nobody's: by it Istio would find the pod.
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
        // To the end of the line: that it is whole.
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

/// What Istio's agent would get: by it the control plane knows whose sidecar asks, and lets it have its namespace's authorities.
struct Identities {
    authority: String,
    certificate: String,
    key: String,
}

impl Identities {
    /// Makes them, and puts the control plane's own into this folder.
    fn make(folder: &Path, namespace: &str) -> Self {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "the authority of a mesh");
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
            fs::write(folder.join(name), content).expect("it is written");
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

/// What Istio makes of this MeshConfig: nothing if it is well, else what is wrong.
fn known(istiod: &Path, mesh: &Value) -> Result<(), String> {
    let mut command = Command::new(istiod);
    command.arg("mesh").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = control_plane::spawn(command).expect("it starts");
    child.stdin.take().expect("an input").write_all(mesh.to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Istio passes over what it does not know in a MeshConfig, and a check that is misspelt is none.
#[tokio::test]
async fn istio_knows_every_field_of_the_mesh_and_the_policy_names_its_provider() {
    let (istiod, mesh) = (istiod().await, example("mesh.yaml"));
    assert_eq!(known(&istiod, &mesh), Ok(()));
    let mut wrong = mesh.clone();
    wrong["extensionProviders"][0]["envoyExtAuthzHttp"]["failOpened"] = json!(true);
    let error = known(&istiod, &wrong).expect_err("a field that Istio does not know");
    assert!(error.contains("failOpened"), "{error}");
    assert_eq!(example("policy.yaml")["spec"]["provider"]["name"], mesh["extensionProviders"][0]["name"]);
}
