//! The commands on the pages, and how each is run. Commands that are not in the table fail, and the page with them.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use control_plane::{Assets, Binary};

use super::pages::pages;
use crate::support::fences;

/// How to run a command.
pub enum How {
    /// This program of the present build.
    Own(&'static str),
    /// This program of the control plane.
    Built(Binary),
    /// The program of this machine.
    Machine,
    /// A script that replaces the program.
    Script(&'static str),
}

use How::{Built, Machine, Own, Script};

/// The commands. Each occurs on some page. Programs that run until they are stopped (`pat-operator controller`, `verifier` and `api`, also
/// by `cargo run`) are started in the background on free ports; see `background.rs`.
pub const TOOLS: [(&str, How); 17] = [
    ("kubectl", Built(Binary::Kubectl)),
    ("helm", Built(Binary::Helm)),
    ("velero", Built(Binary::Velero)),
    ("pat-operator", Own(env!("CARGO_BIN_EXE_pat-operator"))),
    // kubectl finds the plugin on its PATH.
    ("kubectl-pat", Own(env!("CARGO_BIN_EXE_kubectl-pat"))),
    // `cargo run` runs the present build.
    (
        "cargo",
        Script(
            "[ \"$1 $2 $3\" = 'run --release --' ] && shift 3 && exec pat-operator \"$@\"\necho \"cargo $*: only cargo run --release --\" >&2; exit 2",
        ),
    ),
    ("curl", Machine),
    ("jq", Machine),
    ("base64", Machine),
    ("bash", Machine),
    ("chmod", Machine),
    ("cut", Machine),
    ("date", Machine),
    ("diff", Machine),
    ("mkdir", Machine),
    ("sha256sum", Machine),
    ("tr", Machine),
];

/// Creates a folder with these commands and no others. A command that the machine lacks is missing.
pub fn folder(into: &Path) {
    fs::create_dir_all(into).expect("a folder");
    let built: Vec<_> =
        TOOLS.iter().filter_map(|(_, how)| if let Built(binary) = how { Some(*binary) } else { None }).collect();
    let assets = Assets::ensure(&built).expect("the programs");
    for (name, how) in &TOOLS {
        let there = into.join(name);
        match how {
            Own(program) => symlink(program, there).expect("a link"),
            Built(binary) => symlink(assets.path(*binary), there).expect("a link"),
            Machine => {
                if let Some(program) = of_the_machine(name) {
                    symlink(program, there).expect("a link");
                }
            }
            Script(text) => {
                fs::write(&there, format!("#!/bin/sh\n{text}\n")).expect("a script");
                fs::set_permissions(&there, fs::Permissions::from_mode(0o755)).expect("the script is executable");
            }
        }
    }
}

fn of_the_machine(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[test]
fn each_command_occurs_on_a_page() {
    let fences: Vec<_> = pages().iter().flat_map(|page| fences::of(page)).collect();
    let typed = fences.iter().filter(|fence| ["sh", "console"].contains(&&*fence.language));
    let words: BTreeSet<_> =
        typed.flat_map(|fence| fence.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')).collect();
    for (name, _) in &TOOLS {
        // bash is the shell itself, and pat-operator is run by `cargo run`.
        assert!(words.contains(name) || ["bash", "pat-operator"].contains(name), "no page has {name}");
    }
}
