//! However it ends, nothing stays behind: no process, no folder.
#![cfg(target_os = "linux")] // it looks into /proc

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::{ControlPlane, KUBECONFIG_VARIABLE, Options, shared};
use rustix::process::{Pid, Signal, kill_process};

mod support;
use support::{Outcome, binary, is_alive, pids, until_blocking, until_gone};

fn send(pid: u32, signal: Signal) -> Outcome {
    Ok(kill_process(Pid::from_raw(pid.try_into()?).ok_or("a process has a number")?, signal)?)
}

#[tokio::test]
async fn a_dropped_control_plane_is_gone_when_drop_returns() -> Outcome {
    let plane = ControlPlane::start(Options::default()).await?;
    let (folder, pids) = (plane.folder().to_owned(), pids(plane.folder()));
    assert_eq!(pids.len(), 3);
    plane.stop();
    assert!(!folder.exists());
    assert!(!pids.into_iter().any(is_alive));
    Ok(())
}

#[tokio::test]
#[ignore = "the test below runs it, as a process of its own"]
async fn a_test_that_panics() {
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
fn a_panicking_test_leaves_nothing_neither_its_own_nor_the_shared_one() -> Outcome {
    let output = Command::new(env::current_exe()?)
        .args(["--exact", "a_test_that_panics", "--ignored", "--nocapture"])
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
fn kill_9_of_run_takes_the_command_and_the_control_plane_with_it() -> Outcome {
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
fn up_says_how_to_use_it_and_ends_in_order_on_a_signal() -> Outcome {
    for signal in [Signal::INT, Signal::TERM] {
        let mut up = binary(&["up"]).spawn()?;
        let mut out = BufReader::new(up.stdout.take().ok_or("piped")?);
        let mut said = String::new();
        while !said.contains("Ctrl-C") {
            assert!(out.read_line(&mut said)? > 0, "{said}");
        }
        let kubeconfig = said.lines().find_map(|line| line.trim().strip_prefix("export KUBECONFIG="));
        let folder = Path::new(kubeconfig.ok_or("it says where")?).parent().ok_or("in a folder")?.to_owned();
        let pids = pids(&folder);
        send(up.id(), signal)?;
        assert!(up.wait()?.success());
        out.read_to_string(&mut said)?;
        assert!(said.ends_with("stopped\n"), "{said}");
        until_gone(&folder, &pids);
    }
    Ok(())
}
