//! Runs the third-party clients in `tests/clients`, each in its own Python environment. The environments are cached for the user.

use std::{env, io::Write, path::Path, process::Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt;

/// Runs a script of tests/clients with this JSON on stdin, and parses the JSON of its stdout. Returns `None` if its environment is not
/// available, which is a failure in CI. Secrets go through stdin, because other users can see arguments.
pub async fn run(script: &str, input: &Value) -> Option<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let mut child = tokio::process::Command::new(folder.join("run.sh"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the script starts");
    let mut stdin = child.stdin.take().expect("an input");
    stdin.write_all(input.to_string().as_bytes()).await.expect("the script reads its stdin");
    drop(stdin);
    let output = child.wait_with_output().await.expect("the script ends");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) {
        assert!(env::var("CI").as_deref() != Ok("true"), "{script} cannot run: {said}");
        // `eprintln` is captured while a test passes.
        let _ = writeln!(std::io::stderr(), "LEFT OUT: {script}, a third-party client: {said}");
        return None;
    }
    assert!(output.status.success(), "{script}: {said}{}", String::from_utf8_lossy(&output.stdout));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}
