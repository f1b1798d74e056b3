//! Downloads from a mirror, and the build that replaces a failed download.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))] // pinned platforms

use std::{
    fs,
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use control_plane::{Assets, Binary};

mod support;
use support::{
    Outcome,
    server::{Reply, Server},
    user::{GOOD, User},
};

/// Runs a command that succeeds, and returns what it printed on standard error.
fn errors(command: &mut Command) -> Result<String, Box<dyn std::error::Error>> {
    let output = command.output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{errors}");
    Ok(errors)
}

/// Checks that kubectl was built because of `reason`, and that one line says so.
fn assert_built(user: &User, errors: &str, reason: &str) -> Outcome {
    let lines: Vec<_> = errors.lines().filter(|line| !line.trim_start().starts_with('…')).collect();
    let version = Binary::Kubectl.version();
    let start = format!("cannot download kubectl {version}, falling back to a Go build: ");
    let failed: Vec<_> = lines.iter().filter(|line| line.starts_with(&start)).collect();
    assert_eq!(failed.len(), 1, "{errors}");
    assert!(failed[0].contains(reason), "{errors}");
    assert!(lines.iter().any(|line| line.starts_with(&format!("building kubectl {version} ("))), "{errors}");
    assert_eq!(fs::read_to_string(user.programs()?.join("kubectl"))?, "whole\n");
    assert_eq!(fs::read_dir(user.programs()?)?.count(), 1, "no unfinished file is left");
    Ok(())
}

fn kubectl_from(user: &User, mirror: &str) -> Command {
    let mut command = user.run(&["path", "kubectl"]);
    command.env("CONTROL_PLANE_MIRROR", mirror);
    command
}

#[test]
fn missing_file_is_built_instead() -> Outcome {
    let user = User::new()?.with_go(GOOD)?;
    let server = Server::start(|_| Reply::Status(404))?;
    assert_built(&user, &errors(&mut kubectl_from(&user, &server.url()))?, "the server answered 404")?;
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let version = Binary::Kubectl.version();
    assert_eq!(server.requests(), [format!("/dl.k8s.io/release/{version}/bin/linux/{arch}/kubectl")]);
    Ok(())
}

#[test]
fn file_with_a_wrong_checksum_is_built_instead() -> Outcome {
    let user = User::new()?.with_go(GOOD)?;
    let server = Server::start(|_| Reply::File(b"another file".to_vec()))?;
    assert_built(&user, &errors(&mut kubectl_from(&user, &server.url()))?, "wrong checksum")
}

#[test]
fn file_that_is_cut_off_is_built_instead() -> Outcome {
    let user = User::new()?.with_go(GOOD)?;
    let server = Server::start(|_| Reply::CutOff(vec![7; 1_000_000]))?;
    assert_built(&user, &errors(&mut kubectl_from(&user, &server.url()))?, &server.url())
}

#[test]
fn unreachable_mirror_is_given_up_at_once() -> Outcome {
    // Bound and not listening: no other process can take the port.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let mirror = format!("http://{}", socket.local_addr()?);
    let user = User::new()?.with_go(GOOD)?;
    let begin = Instant::now();
    let errors = errors(user.run(&["build"]).env("CONTROL_PLANE_MIRROR", &mirror))?;
    assert!(begin.elapsed() < Duration::from_secs(3), "{errors}");
    assert_eq!(errors.matches(&format!("cannot connect to {mirror}: ")).count(), 1, "{errors}");
    assert_eq!(errors.matches(&format!("cannot connect to {mirror}, as before")).count(), 4, "{errors}");
    assert_eq!(user.calls(), Assets::CONTROL_PLANE.len());
    Ok(())
}

#[test]
fn mirror_that_is_off_is_not_asked() -> Outcome {
    for off in ["off", ""] {
        let user = User::new()?.with_go(GOOD)?;
        let errors = errors(&mut kubectl_from(&user, off))?;
        assert!(errors.starts_with("building kubectl "), "{errors}");
    }
    Ok(())
}
