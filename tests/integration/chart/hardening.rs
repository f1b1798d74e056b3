//! Hardening and availability of every Deployment, and that its ports match in the process, the probes, the NetworkPolicy and the
//! Service.

use control_plane::Binary;
use std::collections::{BTreeMap, BTreeSet};

use clap::Parser;
use pat_operator::{
    cli::{Cli, Command},
    service::ListenAddr,
};
use serde_json::{Value, json};

use super::{
    deployed::Deployed,
    helm::{NAMESPACE, Program, chart, of_kind, place},
};
use crate::support::is_left_out;

/// Every component that has a Deployment.
const ALL: [&str; 3] = ["api", "controller", "verifier"];

/// Values that enable the verifier and the REST API, and set nothing else.
const ALL_ENABLED: &str =
    "verifier.enabled=true,verifier.tls.secretName=a,api.enabled=true,api.namespace=a,api.tls.secretName=a";

/// A values file, additional values, the resulting components, and the number of Pods of each.
const CASES: [(&str, &str, &[&str], u64); 3] =
    [("default", "", &["controller"], 2), ("default", ALL_ENABLED, &ALL, 2), ("everything", "", &ALL, 3)];

/// One Deployment and all rendered manifests.
struct RenderedDeployment<'a> {
    /// For messages.
    about: String,
    deployment: &'a Value,
    pod: &'a Value,
    container: &'a Value,
    manifests: &'a [Value],
}

impl<'a> RenderedDeployment<'a> {
    fn new(case: &str, deployment: &'a Value, manifests: &'a [Value]) -> Self {
        let pod = &deployment["spec"]["template"]["spec"];
        let about = format!("{case}, {}", place(deployment));
        Self { about, deployment, pod, container: &pod["containers"][0], manifests }
    }

    /// The labels that select its Pods.
    fn selector(&self) -> &'a Value {
        &self.deployment["spec"]["selector"]["matchLabels"]
    }

    /// The objects of a kind that select its Pods. `selector` is the path of their selector.
    fn selected_by(&self, kind: &str, selector: &str) -> Vec<&'a Value> {
        let mut found = of_kind(self.manifests, kind);
        found.retain(|one| one["spec"].pointer(selector) == Some(self.selector()));
        assert!(found.iter().all(|one| one["metadata"]["namespace"] == NAMESPACE), "{}", self.about);
        found
    }

    /// The container's ports by name.
    fn ports(&self) -> BTreeMap<&'a str, u64> {
        let ports = self.container["ports"].as_array().expect("ports");
        let named: BTreeMap<_, _> =
            ports.iter().map(|port| (text(&port["name"]), number(&port["containerPort"]))).collect();
        assert_eq!(named.len(), ports.len(), "{}: port names are unique", self.about);
        named
    }

    /// The container's port that a probe, a policy or a Service refers to by name or number.
    fn resolve(&self, port: &Value) -> u64 {
        let ports = self.ports();
        match port.as_str() {
            Some(name) => *ports.get(name).unwrap_or_else(|| panic!("{}: no port is named {name}", self.about)),
            None => {
                let port = number(port);
                assert!(ports.values().any(|one| *one == port), "{}: no container port {port}", self.about);
                port
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text: {value}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number: {value}"))
}

/// Calls `check` with every Deployment of every case.
fn for_each_deployment(check: impl Fn(&RenderedDeployment<'_>)) {
    let helm = Program::helm();
    for (file, set, components, _) in CASES {
        let manifests = rendered(&helm, file, set);
        let deployments = of_kind(&manifests, "Deployment");
        let mut found: Vec<_> =
            deployments.iter().map(|one| text(&one["metadata"]["labels"]["app.kubernetes.io/component"])).collect();
        found.sort_unstable();
        assert_eq!(found, components, "{file} {set}");
        for deployment in deployments {
            check(&RenderedDeployment::new(&format!("{file} {set}"), deployment, &manifests));
        }
    }
}

fn rendered(helm: &Program, file: &str, set: &str) -> Vec<Value> {
    let values = chart().join(format!("ci/{file}.yaml"));
    helm.renders(&["--values", values.to_str().expect("text"), "--set", set])
}

#[test]
fn each_component_has_two_replicas_by_default() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let helm = Program::helm();
    for (file, set, components, replicas) in CASES {
        let manifests = rendered(&helm, file, set);
        for component in components {
            assert_eq!(Deployed::find(&manifests, component).replicas, replicas, "{file} {set}, {component}");
        }
    }
}

#[test]
fn pods_are_restricted_and_declare_their_resources() {
    if is_left_out(Binary::Helm) {
        return;
    }
    for_each_deployment(|one| {
        let about = &one.about;
        assert_eq!(
            one.pod["securityContext"],
            json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}),
            "{about}"
        );
        assert_eq!(
            one.container["securityContext"],
            json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}),
            "{about}"
        );
        for more in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
            assert!(one.pod[more].is_null(), "{about}: {more}");
        }
        for mount in one.container["volumeMounts"].as_array().into_iter().flatten() {
            assert_eq!(mount["readOnly"], true, "{about}: {mount}");
        }
        for (kind, what) in [("requests", "cpu"), ("requests", "memory"), ("limits", "memory")] {
            let amount = text(&one.container["resources"][kind][what]);
            assert!(amount.starts_with(|first: char| ('1'..='9').contains(&first)), "{about}: {kind} {what} {amount}");
        }
        // A CPU limit would cause slow responses, so there is none by default.
        assert!(one.container["resources"]["limits"]["cpu"].is_null(), "{about}");
    });
}

#[test]
fn pods_are_spread_and_updated_without_downtime() {
    if is_left_out(Binary::Helm) {
        return;
    }
    for_each_deployment(|one| {
        let about = &one.about;
        let [budget] = one.selected_by("PodDisruptionBudget", "/selector/matchLabels")[..] else {
            panic!("{about}: not exactly one budget")
        };
        assert_eq!(budget["spec"]["maxUnavailable"], 1, "{about}");
        assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow", "{about}");
        assert_eq!(
            one.deployment["spec"]["strategy"]["rollingUpdate"],
            json!({"maxUnavailable": 0, "maxSurge": 1}),
            "{about}"
        );
        let spread = |over: &str| {
            json!({
                "topologyKey": over, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": one.selector()},
            })
        };
        let wanted = json!([spread("topology.kubernetes.io/zone"), spread("kubernetes.io/hostname")]);
        assert_eq!(one.pod["topologySpreadConstraints"], wanted, "{about}");
    });
}

/// The ports on which the process listens, according to its command line: health, HTTP, gRPC.
fn listening_ports(deployment: &Value) -> BTreeMap<&'static str, u64> {
    let deployed = Deployed::read(deployment);
    let line = ["pat-operator".to_owned()].into_iter().chain(deployed.arguments().iter().cloned());
    let at = match Cli::try_parse_from(line).expect("a command line").command {
        Command::Controller(args) => vec![("health", args.health_addr)],
        Command::Verifier(args) => {
            vec![("health", args.health_addr), ("http", args.http_addr), ("grpc", args.grpc_addr)]
        }
        Command::Api(args) => vec![("health", args.health_addr), ("http", args.http_addr)],
        Command::Crds => panic!("`crds` does not listen"),
    };
    at.into_iter()
        .map(|(name, addr)| match addr {
            ListenAddr::Any { port } => (name, u64::from(port)),
            ListenAddr::One(addr) => panic!("{addr} cannot be reached from outside the Pod"),
        })
        .collect()
}

#[test]
fn ports_match_probes_network_policies_and_services() {
    if is_left_out(Binary::Helm) {
        return;
    }
    for_each_deployment(|one| {
        let about = &one.about;
        let ports = one.ports();
        assert_eq!(ports, listening_ports(one.deployment), "{about}: the ports of the process");
        for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz"), ("startupProbe", "/livez")] {
            let get = &one.container[probe]["httpGet"];
            assert_eq!((text(&get["path"]), one.resolve(&get["port"])), (path, ports["health"]), "{about}: {probe}");
        }

        let all: BTreeSet<_> = ports.values().copied().collect();
        let [policy] = one.selected_by("NetworkPolicy", "/podSelector/matchLabels")[..] else {
            panic!("{about}: not exactly one policy")
        };
        let ingress = policy["spec"]["ingress"].as_array().expect("rules");
        assert!(ingress.iter().all(|rule| rule["ports"].is_array()), "{about}: a rule without ports allows all ports");
        let allowed = ingress.iter().flat_map(|rule| rule["ports"].as_array().expect("ports"));
        let allowed: BTreeSet<_> = allowed
            .map(|port| {
                assert!(port["protocol"].is_null() || port["protocol"] == "TCP", "{about}: {port}");
                one.resolve(&port["port"])
            })
            .collect();
        assert_eq!(allowed, all, "{about}: the NetworkPolicy");
        let types = policy["spec"]["policyTypes"].as_array().expect("types");
        assert!(types.contains(&json!("Ingress")), "{about}: {types:?}");

        // Health is not part of a Service, so the controller has no Service.
        let served: BTreeSet<_> = all.into_iter().filter(|port| *port != ports["health"]).collect();
        let services = one.selected_by("Service", "/selector");
        assert_eq!(services.len(), usize::from(!served.is_empty()), "{about}: number of Services");
        let exposed = services.iter().flat_map(|service| service["spec"]["ports"].as_array().expect("ports"));
        let exposed: Vec<_> = exposed.map(|port| one.resolve(&port["targetPort"])).collect();
        assert_eq!(exposed.iter().copied().collect::<BTreeSet<_>>(), served, "{about}: the Service");
        assert_eq!(exposed.len(), served.len(), "{about}: each port once");
    });
}

#[test]
fn egress_is_limited_to_the_api_server_and_dns() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let manifests = rendered(&Program::helm(), "everything", "");
    let policies = of_kind(&manifests, "NetworkPolicy");
    assert_eq!(policies.len(), ALL.len());
    let to = json!([
        {"ports": [{"port": 443}, {"port": 6443}]},
        {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]},
    ]);
    for policy in policies {
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]), "{}", place(policy));
        assert_eq!(policy["spec"]["egress"], to, "{}", place(policy));
    }
}
