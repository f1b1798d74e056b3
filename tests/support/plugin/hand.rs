//! A person's hands: `kubectl pat …` typed in a namespace of a real cluster.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use control_plane::{Binary, Identity};

use crate::support::process::{OperatorProcess, place::Place};

/// The plugin itself.
pub const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-pat");

/// See the module.
pub struct Hand {
    pub place: Place,
    kubeconfig: PathBuf,
}

/// What came of a command.
#[derive(Debug)]
pub struct Ran {
    #[expect(dead_code, reason = "it is shown where something is not as it should be")]
    line: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// It went well; what it printed.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out
    }

    /// It ended with this code; what stands on stderr.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:#?}");
        self.err
    }
}

impl Hand {
    /// An administrator's, in a namespace whose name starts with `prefix`.
    pub async fn new(prefix: &str) -> Self {
        let place = Place::new(prefix).await;
        Self { kubeconfig: place.kubeconfig(), place }
    }

    /// The same, with a controller at work.
    pub async fn with_operator(prefix: &str) -> (Self, OperatorProcess) {
        let hand = Self::new(prefix).await;
        let operator = hand.place.operator().start();
        (hand, operator)
    }

    /// The kubeconfig of somebody else.
    pub fn kubeconfig_of(&self, name: &str) -> PathBuf {
        self.place.access.kubeconfig_for(&Identity::user(name, &[])).expect("a kubeconfig")
    }

    /// `kubectl` with the plugin on its PATH, in this namespace.
    pub fn kubectl(&self, kubeconfig: &Path) -> Command {
        let mut kubectl = self.place.access.command(Binary::Kubectl).expect("kubectl");
        let folder = Path::new(PLUGIN).parent().expect("it lies in a folder").to_owned();
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([folder].into_iter().chain(env::split_paths(&path))).expect("a PATH");
        kubectl.env("PATH", path).env("KUBECONFIG", kubeconfig).env_remove("NO_COLOR");
        kubectl
    }

    /// `kubectl pat <words> -n <namespace>`.
    pub fn pat(&self, words: &str) -> Ran {
        self.typed(words, None, &self.kubeconfig)
    }

    /// The same with something on stdin.
    pub fn piped(&self, words: &str, stdin: &str) -> Ran {
        self.typed(words, Some(stdin), &self.kubeconfig)
    }

    /// The same as somebody else.
    pub fn pat_as(&self, kubeconfig: &Path, words: &str) -> Ran {
        self.typed(words, None, kubeconfig)
    }

    fn typed(&self, words: &str, stdin: Option<&str>, kubeconfig: &Path) -> Ran {
        let mut kubectl = self.kubectl(kubeconfig);
        kubectl.arg("pat").args(words.split_whitespace());
        if !words.split_whitespace().any(|word| matches!(word, "-A" | "-n" | "completion" | "man")) {
            kubectl.args(["-n", self.place.name()]);
        }
        run(kubectl, stdin)
    }
}

/// Runs a command to its end.
pub fn run(mut command: Command, stdin: Option<&str>) -> Ran {
    let line = format!("{command:?}");
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    if let Some(text) = stdin {
        // Whoever does not read it may have ended already.
        let _ = child.stdin.take().expect("it is piped").write_all(text.as_bytes());
    }
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { line, code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}
