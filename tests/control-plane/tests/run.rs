//! `control-plane run`: the command's environment, signals and exit code.

use std::{
    io::{BufRead, BufReader},
    path::Path,
};

use rustix::process::{Pid, Signal, kill_process};

mod support;
use support::{Outcome, binary};

#[test]
fn command_finds_cluster_and_tools_and_its_exit_code_is_kept() -> Outcome {
    let Some(_) = control_plane::require(control_plane::Binary::Helm) else { return Ok(()) };
    let script = r#"
        kubectl get namespace default --output name || exit 1
        helm list --short || exit 1
        kubectl version --output json | grep -c "\"gitVersion\": \"$VERSION\""
        [ "$KUBECONFIG" = "$PAT_CONTROL_PLANE_KUBECONFIG" ] || exit 1
        echo "$KUBECONFIG"
        exit 7
    "#;
    let version = control_plane::Binary::Kubectl.version();
    let output = binary(&["run", "--", "sh", "-c", script]).env("VERSION", version).output()?;
    let (out, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert_eq!(output.status.code(), Some(7), "{out}{errors}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "namespace/default");
    if std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
        assert_eq!(lines[1], "2", "kubectl and the API server are both {version}");
    }
    assert!(!Path::new(lines[2]).exists(), "the control plane is gone when run has ended");
    Ok(())
}

#[test]
fn signals_are_forwarded_to_the_command() -> Outcome {
    let script = r#"
        trap 'echo interrupted' INT
        trap 'echo terminated; exit 3' TERM
        echo ready
        while :; do sleep 0.02; done
    "#;
    let mut run = binary(&["run", "sh", "-c", script]).spawn()?;
    let pid = Pid::from_raw(run.id().try_into()?).ok_or("a process has a number")?;
    let mut lines = BufReader::new(run.stdout.take().ok_or("piped")?).lines();
    assert_eq!(lines.next().ok_or("a line")??, "ready");
    kill_process(pid, Signal::INT)?;
    assert_eq!(lines.next().ok_or("a line")??, "interrupted");
    kill_process(pid, Signal::TERM)?;
    assert_eq!(lines.next().ok_or("a line")??, "terminated");
    assert_eq!(run.wait()?.code(), Some(3));
    Ok(())
}

#[test]
fn missing_command_is_named_in_the_error() -> Outcome {
    let output = binary(&["run", "no-such-command"]).output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("error: cannot run `no-such-command`"), "{errors}");
    Ok(())
}
