//! Helpers that the tests of this crate share.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod server;
pub mod user;

use std::{
    error::Error,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use control_plane::{Assets, Binary, KUBECONFIG_VARIABLE};

/// The result of a test.
pub type Outcome = Result<(), Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Polls until `done` returns true. Panics after 30 seconds.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !done().await {
        assert!(begin.elapsed() < LIMIT, "still not true: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Does the same as [`until`], for tests without a runtime.
pub fn until_blocking(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LIMIT, "still not true: {what}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// The binary of this crate, without the variables that an outer `control-plane run` has set.
pub fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    command.args(arguments).env_remove(KUBECONFIG_VARIABLE).env_remove("KUBECONFIG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether a process is alive. A zombie is not.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may contain some itself.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The IDs of the control plane's processes in `folder`.
pub fn pids(folder: &Path) -> Vec<u32> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "pid"));
    files.filter_map(|path| fs::read_to_string(path).ok()?.parse().ok()).collect()
}

/// The number of processes of a control plane: the controller manager is optional.
pub fn processes() -> usize {
    2 + usize::from(Assets::find(Binary::KubeControllerManager).is_some())
}

/// Waits until the processes and the folder of a control plane are gone.
pub fn until_gone(folder: &Path, pids: &[u32]) {
    assert_eq!(pids.len(), processes(), "each component runs in {}", folder.display());
    for pid in pids {
        until_blocking(&format!("process {pid} is gone"), || !is_alive(*pid));
    }
    until_blocking(&format!("{} is gone", folder.display()), || !folder.exists());
}
