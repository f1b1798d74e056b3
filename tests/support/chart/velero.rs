//! Velero on a control plane: everything that `velero install` creates, its server as a process, and backups in a folder.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use control_plane::{Access, Assets, Binary, Identity};
use serde_json::{Value, json};

use super::helm::Program;
use crate::support::process::place::eventually;

/// Velero's namespace and ServiceAccount.
const NAMESPACE: &str = "velero";

/// The plugin that stores backups in a folder. It is the same program under another name.
const PLUGIN: &str = "folder-store";

/// Velero with a running server. Dropping it kills the server.
pub struct Velero {
    program: PathBuf,
    kubectl: Program,
    /// The kubeconfig of the server's ServiceAccount.
    kubeconfig: PathBuf,
    admin: PathBuf,
    arguments: Vec<String>,
    child: Child,
    // Dropped after the process, which writes into it.
    folder: tempfile::TempDir,
}

impl Velero {
    /// Installs Velero with its backups in `store`, and waits until it has found them.
    ///
    /// Its ServiceAccount has the usual verbs on all objects, and no special ones such as `impersonate`. (`velero install` makes it a
    /// cluster administrator.)
    pub async fn start(access: &Access, store: &Path) -> Self {
        let ensure = || Assets::ensure(&[Binary::Velero]).expect("Velero is built").path(Binary::Velero).to_owned();
        let program = tokio::task::spawn_blocking(ensure).await.expect("no panic");
        let folder = tempfile::Builder::new().prefix("pat-velero-").tempdir().expect("a folder");
        fs::create_dir(folder.path().join("plugins")).expect("a folder");
        symlink(&program, folder.path().join("plugins").join(PLUGIN)).expect("a link");

        let kubectl = Program::new(Binary::Kubectl, Some(access.admin_kubeconfig()));
        let installed = installed(&program, &access.admin_kubeconfig(), store);
        let (kinds, mut objects): (Vec<_>, Vec<_>) =
            installed.into_iter().partition(|object| object["kind"] == "CustomResourceDefinition");
        objects.retain(|object| object["kind"] != "ClusterRoleBinding");
        objects.extend(rights());
        let arguments = arguments(&objects);
        let file = |name: &str, objects: &[Value]| {
            let path = folder.path().join(name);
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
            fs::write(&path, list.to_string()).expect("a file");
            path.to_str().expect("text").to_owned()
        };
        let (kinds, objects) = (file("kinds.json", &kinds), file("objects.json", &objects));
        kubectl.prints(&["apply", "--server-side", "--filename", &kinds]);
        kubectl.prints(&["wait", "--for=condition=Established", "--filename", &kinds]);
        eventually("the API server serves Velero's kinds", async || {
            kubectl.run(&["apply", "--server-side", "--filename", &objects]).status.success()
        })
        .await;

        let identity = Identity::service_account(NAMESPACE, NAMESPACE);
        let kubeconfig = access.kubeconfig_for(&identity).expect("a kubeconfig");
        let child = serve(&program, &arguments, &kubeconfig, folder.path());
        let admin = access.admin_kubeconfig();
        let mut this = Self { program, kubectl, kubeconfig, admin, arguments, child, folder };
        this.has_its_store().await;
        this.finds(&backups(store)).await;
        this
    }

    /// Runs a command as an administrator, such as `velero backup get`. The command must succeed. Returns its stdout.
    pub fn run(&self, command: &str) -> String {
        let mut words = command.split_whitespace();
        assert_eq!(words.next(), Some("velero"), "{command}");
        let mut velero = bare(&self.program, &self.admin, self.folder.path());
        let output = velero.args(words).output().expect("velero runs");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        printed
    }

    /// Restarts the server, as `kubectl rollout restart` does.
    pub fn restart(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
        self.child = serve(&self.program, &self.arguments, &self.kubeconfig, self.folder.path());
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        let text = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    async fn has_its_store(&mut self) {
        eventually("Velero's backup storage location is available", async || {
            self.runs();
            let phase = self.get(&["backupstoragelocation", "default", "--output=jsonpath={.status.phase}"]);
            phase.as_deref() == Some("Available")
        })
        .await;
    }

    /// Velero looks for backups when it starts, and then once a minute, once its storage location is available.
    async fn finds(&mut self, backups: &[String]) {
        if !backups.is_empty() {
            self.restart();
        }
        for backup in backups {
            eventually(&format!("Velero finds the backup {backup}"), async || {
                self.runs();
                self.get(&["backups.velero.io", backup, "--output=name"]).is_some()
            })
            .await;
        }
    }

    fn get(&self, arguments: &[&str]) -> Option<String> {
        let output = self.kubectl.run(&[&["--namespace", NAMESPACE, "get"], arguments].concat());
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn runs(&mut self) {
        assert!(
            self.child.try_wait().expect("the server's status is available").is_none(),
            "Velero's server has exited"
        );
    }
}

impl Drop for Velero {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
        if std::thread::panicking() {
            // The log is long: it lists each item.
            let log = self.log();
            let wrong: Vec<_> = log.lines().filter(|line| !line.contains("level=info")).collect();
            eprintln!("--- warnings and errors of Velero:\n{}", wrong.join("\n"));
        }
    }
}

/// All objects of `velero install`.
fn installed(program: &Path, kubeconfig: &Path, store: &Path) -> Vec<Value> {
    let mut command = bare(program, kubeconfig, store);
    command.args(["install", "--dry-run", "--output=json"]);
    command.args(["--bucket=backups", "--no-secret", "--use-volume-snapshots=false"]);
    command.arg(format!("--provider=pat-operator.io/{PLUGIN}")).arg(format!("--plugins=pat-operator.io/{PLUGIN}"));
    command.arg(format!("--backup-location-config=folder={}", store.display()));
    let output = command.output().expect("velero runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    list["items"].as_array().expect("a list").clone()
}

/// The rights of the ServiceAccount.
fn rights() -> [Value; 2] {
    let group = "rbac.authorization.k8s.io";
    let metadata = json!({"name": NAMESPACE});
    [
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": metadata,
            "rules": [{
                "apiGroups": ["*"], "resources": ["*"],
                "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"],
            }],
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": NAMESPACE},
            "subjects": [{"kind": "ServiceAccount", "name": NAMESPACE, "namespace": NAMESPACE}],
        }),
    ]
}

/// The arguments of the Deployment's container.
fn arguments(objects: &[Value]) -> Vec<String> {
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").expect("a Deployment");
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    arguments.as_array().expect("arguments").iter().map(|one| one.as_str().expect("text").to_owned()).collect()
}

/// Starts the server as in its Pod, except for the folder of its plugins and its ports.
fn serve(program: &Path, arguments: &[String], kubeconfig: &Path, folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log");
    let mut command = bare(program, kubeconfig, folder);
    command.args(arguments).arg(format!("--plugin-dir={}", folder.join("plugins").display()));
    command.args(["--metrics-address=127.0.0.1:0", "--profiler-address="]).current_dir(folder).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a log")).stderr(log);
    control_plane::spawn(command).expect("velero starts")
}

/// The program with an empty environment.
fn bare(program: &Path, kubeconfig: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", folder).env("TMPDIR", folder).env("KUBECONFIG", kubeconfig);
    command
}

/// The names of the backups in a store.
fn backups(store: &Path) -> Vec<String> {
    let Ok(folders) = fs::read_dir(store.join("backups/backups")) else { return Vec::new() };
    folders.map(|folder| folder.expect("readable").file_name().into_string().expect("text")).collect()
}
