//! Runs the programs that a page starts and that do not end, and those of an installed chart, like a kubelet.
//!
//! They serve on free ports of loopback, because tests run at the same time. In the page's commands, the real addresses replace those of
//! the page.

use std::path::{Path, PathBuf};

use control_plane::{Access, Binary};
use serde_json::Value;

use crate::support::{
    chart::{
        deployed::Deployed,
        helm::{self, NAMESPACE, Program},
    },
    process::{Launch, OperatorProcess, verifier::listens},
};

/// The programs that run until they are stopped. For each of its listeners: the flag, and the start of the log line with the address.
const PROGRAMS: [(&str, &[(&str, &str)]); 3] = [
    ("controller", &[]),
    ("verifier", &[("--http-addr", "serving introspection"), ("--grpc-addr", "serving Envoy's checks")]),
    ("api", &[("--http-addr", "serving the REST API")]),
];

struct Running {
    program: &'static str,
    /// The arguments. Starting the same program with the same arguments again does nothing.
    with: String,
    process: OperatorProcess,
    /// The address of the first listener.
    serves: Option<String>,
}

/// The running programs. They are killed on drop.
pub struct BackgroundPrograms {
    access: Access,
    folder: PathBuf,
    running: Vec<Running>,
    /// Addresses on the page, each with the real one.
    addresses: Vec<(String, String)>,
}

/// A command that does not end.
#[derive(Debug, PartialEq, Eq)]
pub enum LongRunning {
    /// A program of the operator, with its arguments.
    Program(&'static str, Vec<String>),
    /// `kubectl port-forward` to a Service: its name and the local port.
    Forward(String, String),
}

/// Splits a block into the commands that end, and a last command that does not.
pub fn split(block: &str) -> (String, Option<LongRunning>) {
    let joined = block.replace("\\\n", " ");
    let lines: Vec<_> = joined.lines().filter(|line| !line.trim().is_empty()).collect();
    let Some((last, before)) = lines.split_last() else { return (String::new(), None) };
    match long_running(last) {
        Some(long_running) => (before.join("\n"), Some(long_running)),
        None => (block.to_owned(), None),
    }
}

fn long_running(line: &str) -> Option<LongRunning> {
    let words: Vec<_> = line.split_whitespace().collect();
    let arguments = match &words[..] {
        ["pat-operator", arguments @ ..] | ["cargo", "run", "--release", "--", arguments @ ..] => arguments,
        ["kubectl", arguments @ ..] => {
            let at = arguments.iter().position(|word| *word == "port-forward")?;
            let [service, ports] = arguments[at + 1..] else { return None };
            let service = service.strip_prefix("service/")?;
            return Some(LongRunning::Forward(service.to_owned(), ports.split(':').next()?.to_owned()));
        }
        _ => return None,
    };
    let (first, rest) = arguments.split_first()?;
    let (program, _) = PROGRAMS.iter().find(|(program, _)| program == first)?;
    let ends = rest.iter().any(|flag| ["--help", "--version"].contains(flag));
    (!ends).then(|| LongRunning::Program(program, rest.iter().map(|&word| word.to_owned()).collect()))
}

impl BackgroundPrograms {
    pub fn new(access: Access, folder: &Path) -> Self {
        Self { access, folder: folder.to_owned(), running: Vec::new(), addresses: Vec::new() }
    }

    /// The text with the real addresses.
    pub fn address(&self, text: &str) -> String {
        self.addresses.iter().fold(text.to_owned(), |text, (said, real)| text.replace(said, real))
    }

    /// Starts a program and waits until it is ready. It replaces a running program of the same kind.
    pub async fn start(&mut self, long_running: LongRunning) {
        let (program, mut arguments) = match long_running {
            LongRunning::Program(program, arguments) => (program, arguments),
            LongRunning::Forward(service, port) => return self.forward(&service, &port),
        };
        self.stop(program).await;
        let flags: &[_] = PROGRAMS.iter().find(|(name, _)| *name == program).expect("a known program").1;
        let mut said = Vec::new();
        for at in 0..arguments.len() {
            let (flag, value) = match arguments[at].split_once('=') {
                Some((flag, value)) => (flag.to_owned(), value.to_owned()),
                None => (arguments[at].clone(), arguments.get(at + 1).cloned().unwrap_or_default()),
            };
            if flag.ends_with("-addr") {
                let place = if arguments[at].contains('=') { at } else { at + 1 };
                arguments[place] = arguments[place].replace(&value, "127.0.0.1:0");
                said.push((flag, value));
            }
        }
        let with = arguments.join(" ");
        let launch = arguments.iter().fold(Launch::new(&[program]), |launch, argument| launch.arg(argument));
        let launch = launch.env("KUBECONFIG", self.access.admin_kubeconfig()).env("PAT_OPERATOR_LOG_FORMAT", "json");
        let mut process = launch.start();
        process.is_ready().await;
        let mut serves = None;
        for (flag, line) in flags {
            let real = listens(&mut process, line).await.to_string();
            if let Some((_, said)) = said.iter().find(|(one, _)| one == flag) {
                self.is_at(said, &real);
            }
            serves.get_or_insert(real);
        }
        if let Some((_, said)) = said.iter().find(|(flag, _)| flag == "--health-addr") {
            let real = process.address().await.to_string();
            self.is_at(said, &real);
        }
        self.running.push(Running { program, with, process, serves });
    }

    /// No Pods run here, so the forwarded port is that of the process that replaces the Pod.
    fn forward(&mut self, service: &str, port: &str) {
        let program = service.rsplit('-').next().unwrap_or_default();
        let running = self.running.iter().find(|running| running.program == program);
        let serves = running.and_then(|running| running.serves.clone());
        let serves = serves.unwrap_or_else(|| panic!("nothing runs for the Service {service}"));
        self.is_at(&format!("127.0.0.1:{port}"), &serves);
    }

    fn is_at(&mut self, said: &str, real: &str) {
        self.addresses.retain(|(one, _)| one != said);
        self.addresses.push((said.to_owned(), real.to_owned()));
    }

    /// Stops all programs of a kind.
    async fn stop(&mut self, program: &str) {
        let (stopping, staying): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(|one| one.program == program);
        self.running = staying;
        for one in stopping {
            one.process.terminate().await;
        }
    }

    /// Starts the programs of the chart's release with their ServiceAccounts, and stops others of the same kinds.
    pub async fn follow_release(&mut self) {
        let helm = Program::new(Binary::Helm, Some(self.access.admin_kubeconfig()));
        let got = helm.run(&["get", "manifest", "pat-operator", "--namespace", NAMESPACE]);
        let manifests = helm::manifests(&String::from_utf8_lossy(&got.stdout));
        for (program, flags) in PROGRAMS {
            let is_it = |manifest: &&Value| {
                manifest["kind"] == "Deployment"
                    && manifest["metadata"]["labels"]["app.kubernetes.io/component"] == program
            };
            let Some(manifest) = manifests.iter().find(is_it) else {
                self.stop(program).await;
                continue;
            };
            let with = manifest["spec"]["template"].to_string();
            if self.running.iter().any(|one| one.program == program && one.with == with) {
                continue;
            }
            self.stop(program).await;
            let launch = Deployed::read(manifest).launch(&self.access, program, &self.folder).await;
            let launch = flags.iter().fold(launch, |launch, (flag, _)| launch.arg(format!("{flag}=127.0.0.1:0")));
            let mut process = launch.start();
            process.is_ready().await;
            let mut serves = None;
            for (_, line) in flags {
                let real = listens(&mut process, line).await.to_string();
                serves.get_or_insert(real);
            }
            self.running.push(Running { program, with, process, serves });
        }
    }
}

#[test]
fn long_running_commands_are_recognised() {
    let (before, last) = split("kubectl apply -f crds/\ncargo run --release -- controller \\\n  --health-addr :8080\n");
    assert_eq!(before, "kubectl apply -f crds/");
    let arguments = ["--health-addr", ":8080"].map(str::to_owned).into();
    assert_eq!(last, Some(LongRunning::Program("controller", arguments)));
    let (_, last) = split("kubectl -n pat-operator port-forward service/pat-operator-verifier 8443:8443\n");
    assert_eq!(last, Some(LongRunning::Forward("pat-operator-verifier".into(), "8443".into())));
    for ends in ["pat-operator crds", "pat-operator controller --help", "kubectl get pat", "cargo build"] {
        assert_eq!(split(ends), (ends.to_owned(), None));
    }
}
