//! Completion in bash, zsh and fish, installed with the commands of `completion --help`.
//!
//! Each test has an empty home directory. The shells ignore the configuration of the machine, except that zsh always reads
//! `/etc/zsh/zshenv`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::{Assets, Binary};

use super::{
    runner::{PLUGIN, run},
    tty::Terminal,
};
use crate::support::programs::{FISH, ZSH, libraries, root};

/// What is typed after the command, and the sorted suggestions. The first tab completes the common prefix, and bash needs two more to
/// list the suggestions.
const SUGGESTIONS: [(&str, &[&str]); 3] = [
    ("re\t\t\t", &["reveal", "revoke"]),
    ("list --all\t", &["--all-namespaces"]),
    ("wait ci --for \t\t\t", &["dead", "ready", "rotation"]),
];

/// The prompt, which contains no part of a suggestion.
const PROMPT: &str = "here> ";

/// An empty home directory, with kubectl and the plugin on the PATH.
struct ShellHome {
    home: tempfile::TempDir,
    path: String,
}

impl ShellHome {
    fn new() -> Self {
        let tools = Assets::ensure(&[Binary::Kubectl]).expect("kubectl is available");
        let home = tempfile::Builder::new().prefix("pat-shell-").tempdir().expect("a folder");
        let folder = |program: &Path| program.parent().expect("a parent folder").to_owned();
        let first = [home.path().join(".local/bin"), folder(tools.path(Binary::Kubectl)), folder(Path::new(PLUGIN))];
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(first.into_iter().chain(env::split_paths(&path))).expect("a PATH");
        Self { home, path: path.into_string().expect("text") }
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.home.path().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.home.path().join(name), text).expect("the file is written");
    }

    /// A shell with an empty environment. `env` clears it, because a terminal does not.
    fn shell(&self, program: &Path, arguments: &[&str]) -> Command {
        let home = self.home.path().display();
        let mut shell = Command::new("env");
        shell.args(["-i", "LANG=C.UTF-8", "TERM=dumb", "INPUTRC=/dev/null"]);
        shell.args([format!("PATH={}", self.path), format!("HOME={home}"), format!("TMPDIR={home}")]);
        shell.args([format!("PS1={PROMPT}"), format!("LD_LIBRARY_PATH={}", libraries(program).display())]);
        shell.arg(program).args(arguments);
        shell
    }

    /// The commands in the help that install the completion of a shell or of kubectl.
    fn lines(&self, shell: &str) -> Vec<String> {
        let mut plugin = Command::new(PLUGIN);
        plugin.args(["completion", "--help"]);
        let help = run(plugin, None).success();
        let (above, examples) = help.split_once("Examples:\n").expect("the help has examples");
        let (_, for_kubectl) = above.split_once("with:\n").expect("the help has commands for kubectl");
        let lines = if shell == "kubectl" { for_kubectl } else { examples }.lines().map(str::trim);
        let named =
            |line: &&str| !line.is_empty() && (shell == "kubectl" || line.contains(&format!("completion {shell}")));
        lines.filter(named).map(str::to_owned).collect()
    }
}

/// Checks the suggestions of a shell after `command`. Hidden commands are not among them.
fn check_suggestions(terminal: &mut Terminal, command: &str) {
    let clear_line = '\u{15}';
    for (keys, suggestions) in SUGGESTIONS {
        terminal.answers(&format!("{clear_line}{command} {keys}"), suggestions);
    }
    terminal.answers(&format!("{clear_line}{command} \t\t\t"), &["completion", "list", "verify", "wait"]);
    assert!(!terminal.shown().contains("__complete"), "{}", terminal.shown());
    terminal.answers(&format!("{clear_line}\n"), &[PROMPT]);
}

fn exit(mut terminal: Terminal) {
    terminal.types("exit 0");
    let (code, shown) = terminal.ends();
    assert_eq!(code, 0, "{shown}");
}

#[test]
fn bash_completes_commands() {
    let home = ShellHome::new();
    let mut terminal = Terminal::run(&home.shell(Path::new("bash"), &["--noprofile", "--norc", "-i"]));
    terminal.shows(PROMPT);
    for line in home.lines("bash") {
        terminal.types(&line);
    }
    check_suggestions(&mut terminal, "kubectl-pat");
    exit(terminal);
}

#[test]
fn zsh_completes_commands() {
    let Some(zsh) = ZSH.or_left_out() else { return };
    let home = ShellHome::new();
    // Use the modules and functions of the unpacked zsh, and ignore those of the machine.
    let root = root(&zsh).display();
    home.write(
        ".zshenv",
        &format!(
            "module_path=({root}${{^module_path}})\nfpath=({} {root}${{^${{fpath:#*/(site|vendor)-*}}}})\n",
            home.folder(".zsh").display()
        ),
    );
    home.write(".zshrc", "autoload -U compinit && compinit -u -D\nsource <(kubectl completion zsh)\n");
    // `-d` ignores the configuration of the machine.
    for line in [home.lines("zsh"), home.lines("kubectl")].concat() {
        run(home.shell(&zsh, &["-d", "-c", &line]), None).success();
    }
    let mut terminal = Terminal::run(&home.shell(&zsh, &["-d", "-i"]));
    terminal.shows(PROMPT);
    for command in ["kubectl-pat", "kubectl pat"] {
        check_suggestions(&mut terminal, command);
    }
    exit(terminal);
}

#[test]
fn fish_completes_commands() {
    let Some(fish) = FISH.or_left_out() else { return };
    let home = ShellHome::new();
    // Fish creates this directory on first use.
    let completions = home.folder(".config/fish/completions");
    let set_up = format!(
        "set fish_function_path {}; set fish_complete_path {}; kubectl completion fish | source",
        root(&fish).join("usr/share/fish/functions").display(),
        completions.display()
    );
    let run_line = |line: &str| {
        let ran = run(home.shell(&fish, &["--no-config", "-c", &format!("{set_up}; {line}")]), None);
        assert!(ran.err.is_empty(), "{ran:#?}");
        ran.success()
    };
    for line in [home.lines("fish"), home.lines("kubectl")].concat() {
        run_line(&line);
    }
    let suggestions = |typed: &str| {
        let lines = run_line(&format!("complete --do-complete '{typed}'"));
        lines.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    for command in ["kubectl-pat", "kubectl pat"] {
        for (keys, expected) in SUGGESTIONS {
            let typed = format!("{command} {}", keys.trim_end_matches('\t'));
            assert_eq!(suggestions(&typed), expected, "{typed}");
        }
        let all = suggestions(&format!("{command} "));
        assert!(all.contains(&"wait".to_owned()) && !all.contains(&"__complete".to_owned()), "{all:?}");
    }
}
