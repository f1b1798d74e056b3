//! No process and no folder is left behind, no matter how a control plane ends.
#![cfg(target_os = "linux")] // reads /proc

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::{ControlPlane, KUBECONFIG_VARIABLE, Options, shared};
use rustix::process::{Pid, Signal, kill_process};

mod support;
use support::{Outcome, binary, is_alive, pids, processes, until_blocking, until_gone};

fn send(pid: u32, signal: Signal) -> Outcome {
    Ok(kill_process(Pid::from_raw(pid.try_into()?).ok_or("a process has a number")?, signal)?)
}

#[tokio::test]
async fn dropped_control_plane_is_gone_when_drop_returns() -> Outcome {
    let plane = ControlPlane::start(Options::default()).await?;
    let (folder, pids) = (plane.folder().to_owned(), pids(plane.folder()));
    assert_eq!(pids.len(), processes());
    plane.stop();
    assert!(!folder.exists());
    assert!(!pids.into_iter().any(is_alive));
    Ok(())
}

#[tokio::test]
#[ignore = "the next test runs it in a process of its own"]
async fn panics_with_two_control_planes() {
    let own = ControlPlane::start(Options::default()).await.unwrap();
    let shared = shared().await.unwrap();
    for folder in [own.folder(), shared.folder()] {
        println!(
            "\nfolder {} {}",
            folder.display(),
            pids(folder).into_iter().map(|pid| format!("{pid} ")).collect::<String>()
        );
    }
    panic!("on purpose");
}

#[test]
fn panicking_test_leaves_nothing_behind() -> Outcome {
    let output = Command::new(env::current_exe()?)
        .args(["--exact", "panics_with_two_control_planes", "--ignored", "--nocapture"])
        .env_remove(KUBECONFIG_VARIABLE)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(!output.status.success() && text.contains("1 failed"), "{text}");
    let started: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("folder ")).collect();
    assert_eq!(started.len(), 2, "{text}");
    for line in started {
        let mut words = line.split_whitespace();
        let folder = words.next().map(PathBuf::from).ok_or("a folder")?;
        let pids = words.map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        until_gone(&folder, &pids);
    }
    Ok(())
}

#[test]
fn kill_9_of_run_ends_the_command_and_the_control_plane() -> Outcome {
    let script = r#"echo $$ "$PAT_CONTROL_PLANE_KUBECONFIG"; exec sleep 600"#;
    let mut run = binary(&["run", "sh", "-c", script]).spawn()?;
    let mut line = String::new();
    BufReader::new(run.stdout.take().ok_or("piped")?).read_line(&mut line)?;
    let (command, kubeconfig) = line.trim().split_once(' ').ok_or("two words")?;
    let folder = Path::new(kubeconfig).parent().ok_or("in a folder")?;
    let pids = pids(folder);
    assert!(pids.iter().all(|pid| is_alive(*pid)));

    run.kill()?;
    run.wait()?;
    until_gone(folder, &pids);
    let command = command.parse()?;
    until_blocking("the command is gone", || !is_alive(command));
    Ok(())
}

#[test]
fn up_prints_how_to_connect_and_stops_on_a_signal() -> Outcome {
    for signal in [Signal::INT, Signal::TERM] {
        let mut up = binary(&["up"]).spawn()?;
        let mut out = BufReader::new(up.stdout.take().ok_or("piped")?);
        let mut output = String::new();
        while !output.contains("Ctrl-C") {
            assert!(out.read_line(&mut output)? > 0, "{output}");
        }
        let kubeconfig = output.lines().find_map(|line| line.trim().strip_prefix("export KUBECONFIG="));
        let folder = Path::new(kubeconfig.ok_or("it prints the kubeconfig")?).parent().ok_or("in a folder")?.to_owned();
        let pids = pids(&folder);
        send(up.id(), signal)?;
        assert!(up.wait()?.success());
        out.read_to_string(&mut output)?;
        assert!(output.ends_with("stopped\n"), "{output}");
        until_gone(&folder, &pids);
    }
    Ok(())
}
