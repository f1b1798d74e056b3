//! Runs `kubectl pat …` in a namespace of a real cluster.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use control_plane::{Binary, Identity};

use crate::support::process::{OperatorProcess, place::Place};

/// The plugin binary.
pub const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-pat");

/// Runs the plugin in a namespace of its own.
pub struct PluginRunner {
    pub place: Place,
    kubeconfig: PathBuf,
}

/// The result of a command.
#[derive(Debug)]
pub struct CommandResult {
    #[expect(dead_code, reason = "shown when an assertion fails")]
    line: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl CommandResult {
    /// Asserts that the command succeeded. Returns its stdout.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out
    }

    /// Asserts the exit code. Returns stderr.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:#?}");
        self.err
    }
}

impl PluginRunner {
    /// Creates a namespace with this prefix, for an administrator.
    pub async fn new(prefix: &str) -> Self {
        let place = Place::new(prefix).await;
        Self { kubeconfig: place.kubeconfig(), place }
    }

    /// Also starts a controller.
    pub async fn with_operator(prefix: &str) -> (Self, OperatorProcess) {
        let runner = Self::new(prefix).await;
        let operator = runner.place.operator().start();
        (runner, operator)
    }

    /// The kubeconfig of another user.
    pub fn kubeconfig_of(&self, name: &str) -> PathBuf {
        self.place.access.kubeconfig_for(&Identity::user(name, &[])).expect("a kubeconfig")
    }

    /// `kubectl` with the plugin on its PATH, in this namespace.
    pub fn kubectl(&self, kubeconfig: &Path) -> Command {
        let mut kubectl = self.place.access.command(Binary::Kubectl).expect("kubectl");
        let folder = Path::new(PLUGIN).parent().expect("a parent folder").to_owned();
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([folder].into_iter().chain(env::split_paths(&path))).expect("a PATH");
        kubectl.env("PATH", path).env("KUBECONFIG", kubeconfig).env_remove("NO_COLOR");
        kubectl
    }

    /// `kubectl pat <words> -n <namespace>`.
    pub fn pat(&self, words: &str) -> CommandResult {
        self.run_pat(words, None, &self.kubeconfig)
    }

    /// The same, with text on stdin.
    pub fn piped(&self, words: &str, stdin: &str) -> CommandResult {
        self.run_pat(words, Some(stdin), &self.kubeconfig)
    }

    /// The same, as another user.
    pub fn pat_as(&self, kubeconfig: &Path, words: &str) -> CommandResult {
        self.run_pat(words, None, kubeconfig)
    }

    fn run_pat(&self, words: &str, stdin: Option<&str>, kubeconfig: &Path) -> CommandResult {
        let mut kubectl = self.kubectl(kubeconfig);
        kubectl.arg("pat").args(words.split_whitespace());
        if !words.split_whitespace().any(|word| matches!(word, "-A" | "-n" | "completion" | "man")) {
            kubectl.args(["-n", self.place.name()]);
        }
        run(kubectl, stdin)
    }
}

/// Runs a command, and waits for its end.
pub fn run(mut command: Command, stdin: Option<&str>) -> CommandResult {
    let line = format!("{command:?}");
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    if let Some(text) = stdin {
        // The command may end before it reads stdin.
        let _ = child.stdin.take().expect("stdin is a pipe").write_all(text.as_bytes());
    }
    let output = child.wait_with_output().expect("the command ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    CommandResult { line, code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}
