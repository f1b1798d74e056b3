//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    error::Error,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use control_plane::KUBECONFIG_VARIABLE;

/// What a test returns.
pub type Outcome = Result<(), Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `done` says so; fails after 30 seconds.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !done().await {
        assert!(begin.elapsed() < LIMIT, "still not true: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// As [`until`], for tests without a runtime.
pub fn until_blocking(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LIMIT, "still not true: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// The binary of this crate, with nothing that an outer `control-plane run` has set.
pub fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    command.args(arguments).env_remove(KUBECONFIG_VARIABLE).env_remove("KUBECONFIG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether a process lives. One that nobody has reaped yet does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands after the name, which is in parentheses and may itself hold some.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The processes of the control plane in `folder`.
pub fn pids(folder: &Path) -> Vec<u32> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "pid"));
    files.filter_map(|path| fs::read_to_string(path).ok()?.parse().ok()).collect()
}

/// Waits until neither the processes nor the folder of a control plane are left.
pub fn until_gone(folder: &Path, pids: &[u32]) {
    assert_eq!(pids.len(), 3, "etcd, API server and controller manager were to run in {}", folder.display());
    for pid in pids {
        until_blocking(&format!("process {pid} is gone"), || !is_alive(*pid));
    }
    until_blocking(&format!("{} is gone", folder.display()), || !folder.exists());
}
