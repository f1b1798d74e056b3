//! The cache of programs, and `KUBEBUILDER_ASSETS`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
};

use control_plane::{Assets, Binary};

mod support;
use support::{
    Outcome, until_blocking,
    user::{GOOD, User, error, path},
};

/// A folder with what `setup-envtest` provides.
fn envtest() -> Result<tempfile::TempDir, std::io::Error> {
    let folder = tempfile::tempdir()?;
    for name in ["etcd", "kube-apiserver", "kubectl"] {
        fs::write(folder.path().join(name), "theirs")?;
    }
    Ok(folder)
}

#[test]
fn error_without_go_says_what_to_install() -> Outcome {
    let message = error(&mut User::new()?.run(&["path", "etcd"]))?;
    assert_eq!(
        message,
        format!(
            "error: etcd {} is not in the cache and cannot be built: there is no `go` on PATH; install Go 1.26 or newer (the \
             build takes about 1 minute, once), or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl\n",
            Binary::Etcd.version()
        )
    );
    Ok(())
}

#[test]
fn error_names_what_kubebuilder_assets_lacks() -> Outcome {
    let (user, assets) = (User::new()?, envtest()?);
    let message = error(user.run(&["path", "kube-controller-manager"]).env("KUBEBUILDER_ASSETS", assets.path()))?;
    let folder = assets.path().display();
    let version = Binary::KubeControllerManager.version();
    assert_eq!(
        message,
        format!(
            "error: kube-controller-manager is neither in KUBEBUILDER_ASSETS ({folder}) nor in the cache, and cannot be built: \
             there is no `go` on PATH; put kube-controller-manager {version} into that folder, or install Go 1.26 or newer (the \
             build takes about 1 minute, once)\n"
        )
    );
    Ok(())
}

#[test]
fn build_with_kubebuilder_assets_and_no_go_leaves_out_the_rest() -> Outcome {
    let (user, assets) = (User::new()?, envtest()?);
    let output = user.run(&["build"]).env("KUBEBUILDER_ASSETS", assets.path()).output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{errors}");
    let paths: Vec<_> = ["etcd", "kube-apiserver", "kubectl"].map(|name| assets.path().join(name)).into();
    assert_eq!(String::from_utf8(output.stdout)?.lines().map(Path::new).collect::<Vec<_>>(), paths);
    let left_out: Vec<_> = errors.lines().filter(|line| line.starts_with("LEFT OUT: ")).collect();
    assert_eq!(left_out.len(), 2, "{errors}");
    assert!(left_out[0].contains("kube-controller-manager (no garbage collection"), "{errors}");
    assert!(left_out[1].contains("helm"), "{errors}");
    Ok(())
}

#[test]
fn program_is_built_once_and_each_build_is_reported() -> Outcome {
    let user = User::new()?.with_go(GOOD)?;
    let output = user.run(&["build", "--ecosystem"]).output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(errors.starts_with("to build: etcd "), "{errors}");
    for binary in Binary::ALL {
        assert!(errors.contains(&format!("building {binary} {} (", binary.version())), "{errors}");
    }
    assert_eq!(errors.matches("… done in 0s").count(), Binary::ALL.len(), "{errors}");
    assert_eq!(
        String::from_utf8(output.stdout)?.lines().filter(|line| Path::new(line).is_file()).count(),
        Binary::ALL.len()
    );
    assert_eq!(user.calls(), Binary::ALL.len());

    let again = user.run(&["build", "--ecosystem"]).output()?;
    assert!(again.status.success() && again.stderr.is_empty());
    assert_eq!(user.calls(), Binary::ALL.len());
    Ok(())
}

#[test]
fn build_without_ecosystem_builds_the_control_plane() -> Outcome {
    let user = User::new()?.with_go(GOOD)?;
    let output = user.run(&["build"]).output()?;
    let output = String::from_utf8(output.stdout)?;
    let names: Vec<_> = output.lines().filter_map(|line| Path::new(line).file_name()?.to_str()).collect();
    assert_eq!(names, Assets::CONTROL_PLANE.map(Binary::name));
    assert_eq!(user.calls(), Assets::CONTROL_PLANE.len());
    Ok(())
}

#[test]
fn failed_build_shows_the_output_of_go_and_leaves_nothing() -> Outcome {
    let user = User::new()?.with_go("echo half > \"$2\"; echo 'the disk is full' >&2; exit 1")?;
    let message = error(&mut user.run(&["path", "kubectl"]))?;
    assert!(message.contains("of kubectl") && message.contains("the disk is full"), "{message}");

    let user = user.with_go(GOOD)?;
    assert_eq!(fs::read_to_string(path(&mut user.run(&["path", "kubectl"]))?)?, "whole\n");
    let names = fs::read_dir(user.programs()?)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    assert_eq!(names, ["kubectl"], "no unfinished file is left");
    Ok(())
}

#[test]
fn killed_build_is_repeated() -> Outcome {
    let user = User::new()?.with_go("echo half > \"$2\"; exec sleep 600")?;
    let mut build = user.run(&["path", "kubectl"]).spawn()?;
    let half = || {
        fs::read_dir(user.programs().ok()?)
            .ok()?
            .next()?
            .ok()
            .filter(|entry| entry.metadata().is_ok_and(|data| data.len() > 0))
    };
    until_blocking("an unfinished program is there", || half().is_some());
    build.kill()?;
    build.wait()?;

    let user = user.with_go(GOOD)?;
    assert_eq!(fs::read_to_string(path(&mut user.run(&["path", "kubectl"]))?)?, "whole\n");
    Ok(())
}

#[test]
fn second_process_waits_for_the_build_of_the_first() -> Outcome {
    let user = User::new()?.with_go(&format!("until [ -e \"$HOME/gate\" ]; do sleep 0.02; done; {GOOD}"))?;
    let first = user.run(&["path", "kubectl"]).spawn()?;
    until_blocking("the first is building", || user.calls() == 1);
    let mut second = user.run(&["path", "kubectl"]).spawn()?;
    let mut line = String::new();
    BufReader::new(second.stderr.take().ok_or("piped")?).read_line(&mut line)?;
    assert!(line.contains("waiting for another process that downloads or builds kubectl"), "{line}");

    fs::write(user.home().join("gate"), "")?;
    let (first, second) = (first.wait_with_output()?, second.wait_with_output()?);
    assert!(first.status.success() && second.status.success());
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(user.calls(), 1);
    Ok(())
}

#[test]
fn kubebuilder_assets_come_first_and_the_rest_is_built() -> Outcome {
    let user = User::new()?.with_go(GOOD)?;
    let assets = tempfile::tempdir()?;
    let run = |arguments: &[&str]| {
        let mut command = user.run(arguments);
        command.env("KUBEBUILDER_ASSETS", assets.path());
        command
    };
    let message = error(&mut run(&["path", "kubectl"]))?;
    assert!(message.contains("KUBEBUILDER_ASSETS is") && message.contains("which has no kubectl"), "{message}");

    fs::write(assets.path().join("kubectl"), "theirs")?;
    assert_eq!(path(&mut run(&["path", "kubectl"]))?, assets.path().join("kubectl"));
    let relative = path(run(&["path", "kubectl"]).current_dir(assets.path()).env("KUBEBUILDER_ASSETS", "."))?;
    assert!(relative.is_absolute(), "the components run in another folder: {}", relative.display());
    assert!(path(&mut run(&["path", "helm"]))?.starts_with(user.home()));
    assert_eq!(user.calls(), 1);
    Ok(())
}
