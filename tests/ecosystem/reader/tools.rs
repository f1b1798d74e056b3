//! How each command that a page shows is run. What is not in this table does not run, and the page is refused.
//!
//! It must not know which pages there are.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use control_plane::{Assets, Binary};

use super::pages::pages;
use crate::support::fences;

/// How a command is run.
pub enum How {
    /// It is this build's own, and lies here.
    Own(&'static str),
    /// It is that of the control plane.
    Built(Binary),
    /// It is the machine's.
    Machine,
    /// A script in its place.
    Script(&'static str),
}

use How::{Built, Machine, Own, Script};

/// Every command, and how it is run; each is needed by some page. Those that run until they are stopped (`pat-operator controller`, `verifier` and `api`, also by `cargo run`) are
/// started beside the page, on free ports; see `beside.rs`.
pub const TOOLS: [(&str, How); 17] = [
    ("kubectl", Built(Binary::Kubectl)),
    ("helm", Built(Binary::Helm)),
    ("velero", Built(Binary::Velero)),
    ("pat-operator", Own(env!("CARGO_BIN_EXE_pat-operator"))),
    // kubectl looks for it on its PATH.
    ("kubectl-pat", Own(env!("CARGO_BIN_EXE_kubectl-pat"))),
    // The build that is tested is the one that is there.
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

/// Makes a folder that has these commands and no others. A command that the machine lacks is missing there, and whoever asks for it is told.
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
                fs::set_permissions(&there, fs::Permissions::from_mode(0o755)).expect("it can be run");
            }
        }
    }
}

fn of_the_machine(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[test]
fn every_command_is_needed_by_some_page() {
    let fences: Vec<_> = pages().iter().flat_map(|page| fences::of(page)).collect();
    let typed = fences.iter().filter(|fence| ["sh", "console"].contains(&&*fence.language));
    let words: BTreeSet<_> =
        typed.flat_map(|fence| fence.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')).collect();
    for (name, _) in &TOOLS {
        // The terminal itself, and what stands behind `cargo run`.
        assert!(words.contains(name) || ["bash", "pat-operator"].contains(name), "no page has {name}");
    }
}
