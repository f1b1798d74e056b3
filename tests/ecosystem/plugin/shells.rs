//! The shells themselves: each takes its completions by the lines of the help, and answers the tab key as a person sees it.
//!
//! A home has nothing but what is written here, and no shell reads what the machine has set up for it; only `/etc/zsh/zshenv` is read
//! by every zsh that there is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::{Assets, Binary};

use super::{
    hand::{PLUGIN, run},
    tty::Terminal,
};
use crate::support::programs::{FISH, ZSH, libraries, root};

/// What is typed after the command, with tabs, and what is then offered, in the order of the alphabet. The first tab completes as far as
/// is certain, and bash wants two more to list the rest.
const OFFERS: [(&str, &[&str]); 3] = [
    ("re\t\t\t", &["reveal", "revoke"]),
    ("list --all\t", &["--all-namespaces"]),
    ("wait ci --for \t\t\t", &["dead", "ready", "rotation"]),
];

/// It has no part of what is offered.
const PROMPT: &str = "here> ";

/// A person who has kubectl and the plugin, and an empty home.
struct Person {
    home: tempfile::TempDir,
    path: String,
}

impl Person {
    fn new() -> Self {
        let tools = Assets::ensure(&[Binary::Kubectl]).expect("kubectl is built");
        let home = tempfile::Builder::new().prefix("pat-shell-").tempdir().expect("a folder");
        let folder = |program: &Path| program.parent().expect("it lies in a folder").to_owned();
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
        fs::write(self.home.path().join(name), text).expect("it is written");
    }

    /// A shell that knows nothing of the environment. It is cleared by `env`, for a terminal would not.
    fn shell(&self, program: &Path, arguments: &[&str]) -> Command {
        let home = self.home.path().display();
        let mut shell = Command::new("env");
        shell.args(["-i", "LANG=C.UTF-8", "TERM=dumb", "INPUTRC=/dev/null"]);
        shell.args([format!("PATH={}", self.path), format!("HOME={home}"), format!("TMPDIR={home}")]);
        shell.args([format!("PS1={PROMPT}"), format!("LD_LIBRARY_PATH={}", libraries(program).display())]);
        shell.arg(program).args(arguments);
        shell
    }

    /// The lines by which the help says that a shell, or kubectl, gets its completions.
    fn lines(&self, shell: &str) -> Vec<String> {
        let mut plugin = Command::new(PLUGIN);
        plugin.args(["completion", "--help"]);
        let help = run(plugin, None).good();
        let (above, examples) = help.split_once("Examples:\n").expect("there are examples");
        let (_, for_kubectl) = above.split_once("with:\n").expect("kubectl has its lines");
        let lines = if shell == "kubectl" { for_kubectl } else { examples }.lines().map(str::trim);
        let named =
            |line: &&str| !line.is_empty() && (shell == "kubectl" || line.contains(&format!("completion {shell}")));
        lines.filter(named).map(str::to_owned).collect()
    }
}

/// At its prompt, a shell offers after `command` what there is, and nothing that is hidden.
fn offers(terminal: &mut Terminal, command: &str) {
    let take_away = '\u{15}';
    for (keys, offered) in OFFERS {
        terminal.answers(&format!("{take_away}{command} {keys}"), offered);
    }
    terminal.answers(&format!("{take_away}{command} \t\t\t"), &["completion", "list", "verify", "wait"]);
    assert!(!terminal.shown().contains("__complete"), "{}", terminal.shown());
    terminal.answers(&format!("{take_away}\n"), &[PROMPT]);
}

fn leaves(mut terminal: Terminal) {
    terminal.types("exit 0");
    let (code, shown) = terminal.ends();
    assert_eq!(code, 0, "{shown}");
}

#[test]
fn bash_takes_its_completions_and_offers_them_on_the_tab_key() {
    let person = Person::new();
    let mut terminal = Terminal::run(&person.shell(Path::new("bash"), &["--noprofile", "--norc", "-i"]));
    terminal.shows(PROMPT);
    for line in person.lines("bash") {
        terminal.types(&line);
    }
    offers(&mut terminal, "kubectl-pat");
    leaves(terminal);
}

#[test]
fn zsh_takes_its_completions_and_kubectls_and_offers_them_on_the_tab_key() {
    let Some(zsh) = ZSH.or_left_out() else { return };
    let person = Person::new();
    // Its own folders lie in what was unpacked as they do in `/`. What else the machine has for it is left out.
    let root = root(&zsh).display();
    person.write(
        ".zshenv",
        &format!(
            "module_path=({root}${{^module_path}})\nfpath=({} {root}${{^${{fpath:#*/(site|vendor)-*}}}})\n",
            person.folder(".zsh").display()
        ),
    );
    person.write(".zshrc", "autoload -U compinit && compinit -u -D\nsource <(kubectl completion zsh)\n");
    // `-d`: without what the machine has set up.
    for line in [person.lines("zsh"), person.lines("kubectl")].concat() {
        run(person.shell(&zsh, &["-d", "-c", &line]), None).good();
    }
    let mut terminal = Terminal::run(&person.shell(&zsh, &["-d", "-i"]));
    terminal.shows(PROMPT);
    for command in ["kubectl-pat", "kubectl pat"] {
        offers(&mut terminal, command);
    }
    leaves(terminal);
}

#[test]
fn fish_takes_its_completions_and_kubectls_and_offers_them() {
    let Some(fish) = FISH.or_left_out() else { return };
    let person = Person::new();
    // Fish makes it when a person first uses it.
    let completions = person.folder(".config/fish/completions");
    let set_up = format!(
        "set fish_function_path {}; set fish_complete_path {}; kubectl completion fish | source",
        root(&fish).join("usr/share/fish/functions").display(),
        completions.display()
    );
    let types = |line: &str| {
        let ran = run(person.shell(&fish, &["--no-config", "-c", &format!("{set_up}; {line}")]), None);
        assert!(ran.err.is_empty(), "{ran:#?}");
        ran.good()
    };
    for line in [person.lines("fish"), person.lines("kubectl")].concat() {
        types(&line);
    }
    let offered = |typed: &str| {
        let lines = types(&format!("complete --do-complete '{typed}'"));
        lines.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    for command in ["kubectl-pat", "kubectl pat"] {
        for (keys, expected) in OFFERS {
            let typed = format!("{command} {}", keys.trim_end_matches('\t'));
            assert_eq!(offered(&typed), expected, "{typed}");
        }
        let all = offered(&format!("{command} "));
        assert!(all.contains(&"wait".to_owned()) && !all.contains(&"__complete".to_owned()), "{all:?}");
    }
}
