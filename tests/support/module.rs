//! Go modules of third-party projects that publish their files in no other way.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

/// Downloads a module given as `path@version`, and returns its folder. Go checks it against the checksum database.
pub fn module(name: &str) -> PathBuf {
    let folder = tempfile::tempdir().expect("a folder");
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", name]).current_dir(folder.path()).env("GOWORK", "off");
    let output = go.output().expect("Go is installed: the control plane is built with it");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    PathBuf::from(said["Dir"].as_str().unwrap_or_else(|| panic!("{name} is not available: {said}")))
}
