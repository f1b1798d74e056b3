//! The Istio objects of a workload: the examples, and the other objects that a cluster would have.

use std::{fs, net::SocketAddr, path::Path};

use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::support::process::place::eventually;

/// The role of the Envoy.
#[derive(Clone, Copy, Debug)]
pub enum Workload {
    /// A sidecar of one workload.
    Sidecar,
    /// A gateway of the mesh.
    Gateway,
}

impl Workload {
    /// Istio's name of the role.
    pub fn role(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Gateway => "router",
        }
    }
}

/// The addresses of all parts.
pub struct Surroundings {
    /// The verifier's host name in the mesh.
    pub host: String,
    /// The port of the verifier's Service.
    pub service: SocketAddr,
    /// The verifier's real address.
    pub verifier: SocketAddr,
    /// The address where clients connect.
    pub clients: SocketAddr,
    /// The address of the protected server.
    pub upstream: SocketAddr,
}

impl Surroundings {
    /// All objects except the policy: those that route traffic, and the example that removes the token.
    pub fn objects(&self, workload: Workload) -> Vec<Value> {
        let mut objects = vec![
            self.entry("verifier", &self.host, self.service.port(), self.verifier),
            object("security.istio.io/v1", "PeerAuthentication", "plain", &json!({"mtls": {"mode": "DISABLE"}})),
        ];
        let port = json!({"name": "http", "protocol": "HTTP", "number": self.clients.port()});
        let bind = self.clients.ip();
        match workload {
            Workload::Sidecar => {
                let ingress =
                    json!([{"port": port, "bind": bind, "captureMode": "NONE", "defaultEndpoint": self.upstream}]);
                let spec = json!({
                    "workloadSelector": {"labels": labels()}, "ingress": ingress, "egress": [{"hosts": ["./*"]}],
                });
                objects.push(object("networking.istio.io/v1", "Sidecar", "shop", &spec));
                objects.push(example("token.yaml"));
            }
            Workload::Gateway => {
                let spec = json!({"selector": labels(), "servers": [{"port": port, "bind": bind, "hosts": ["*"]}]});
                objects.push(object("networking.istio.io/v1", "Gateway", "shop", &spec));
                let route = example("gateway.yaml");
                let to = &route["spec"]["http"][0]["route"][0]["destination"];
                let host = to["host"].as_str().expect("a name");
                objects.push(self.entry("shop", host, 80, self.upstream));
                objects.push(route);
            }
        }
        objects
    }

    /// A ServiceEntry in place of a Service, because the API server accepts no endpoints on loopback.
    fn entry(&self, name: &str, host: &str, port: u16, at: SocketAddr) -> Value {
        let port = json!({"name": "http", "protocol": "HTTP", "number": port, "targetPort": at.port()});
        let spec = json!({
            "hosts": [host], "location": "MESH_INTERNAL", "resolution": "STATIC", "ports": [port],
            "endpoints": [{"address": at.ip()}],
        });
        object("networking.istio.io/v1", "ServiceEntry", name, &spec)
    }
}

fn object(api: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// The objects for TLS to the verifier: the example with this server name, and a Secret with these CAs.
pub fn over_tls(host: &str, authorities: &str) -> [Value; 2] {
    let mut rule = example("tls.yaml");
    let tls = &mut rule["spec"]["trafficPolicy"]["tls"];
    (tls["sni"], tls["subjectAltNames"]) = (json!(host), json!([host]));
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": tls["credentialName"]},
        "stringData": {"ca.crt": authorities},
    });
    [rule, secret]
}

/// A file of `examples/verifier/istio`.
pub fn example(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verifier/istio");
    serde_yaml::from_str(&fs::read_to_string(folder.join(name)).expect("the example exists")).expect("YAML")
}

/// The labels of the workload that the policy selects.
pub fn labels() -> Value {
    example("policy.yaml")["spec"]["selector"]["matchLabels"].clone()
}

/// Applies an object in this namespace. Unknown fields are errors.
pub async fn apply(client: &Client, namespace: &str, object: &Value) {
    let mut object: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
    object.metadata.namespace = Some(namespace.to_owned());
    let types = object.types.as_ref().expect("a kind");
    let kind = GroupVersionKind::try_from(types).expect("a kind");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind));
    let name = object.metadata.name.clone().expect("a name");
    let params = PatchParams::apply("person").force().validation_strict();
    eventually("the API server serves the kind", async || {
        match api.patch(&name, &params, &Patch::Apply(&object)).await {
            // The kind is new, and not all handlers of the API server know it yet.
            Err(kube::Error::Api(status)) if status.code == 404 => false,
            applied => {
                applied.expect("the API server accepts the object");
                true
            }
        }
    })
    .await;
}
