//! Where the programs come from. A shell script plays Go here: what is tested is what is done with its results.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::Binary;
use tempfile::TempDir;

mod support;
use support::{Outcome, binary, until_blocking};

/// A user with an empty home and nothing on PATH.
struct User {
    home: TempDir,
}

impl User {
    fn new() -> Result<Self, std::io::Error> {
        let home = tempfile::tempdir()?;
        fs::create_dir(home.path().join("bin"))?;
        Ok(Self { home })
    }

    /// Gives the user a `go`; before it acts it notes its arguments in `calls`.
    fn with_go(self, script: &str) -> Result<Self, std::io::Error> {
        let go = self.home.path().join("bin/go");
        let note = "#!/bin/sh\nPATH=$PATH:/usr/bin:/bin\necho \"$@\" >> \"$HOME/calls\"\n";
        let find = "while [ \"$1\" != -o ]; do shift; done\n";
        // Renamed into place: a program that is open for writing cannot be started.
        fs::write(self.home.path().join("go"), format!("{note}{find}{script}\n"))?;
        fs::set_permissions(self.home.path().join("go"), fs::Permissions::from_mode(0o755))?;
        fs::rename(self.home.path().join("go"), go)?;
        Ok(self)
    }

    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = binary(arguments);
        command
            .env("HOME", self.home.path())
            .env("PATH", self.home.path().join("bin"))
            .env_remove("XDG_CACHE_HOME")
            .env_remove("KUBEBUILDER_ASSETS");
        command
    }

    fn calls(&self) -> usize {
        fs::read_to_string(self.home.path().join("calls")).unwrap_or_default().lines().count()
    }

    /// The cache folder of kubectl's programs; made by the first try to build.
    fn programs(&self) -> Result<PathBuf, std::io::Error> {
        let cache = self.home.path().join(".cache/pat-operator/control-plane");
        for entry in fs::read_dir(&cache)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubernetes-")) {
                return Ok(path.join("bin"));
            }
        }
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// What a command printed on success.
fn path(command: &mut Command) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let output = command.output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{errors}");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// What a command said on failure.
fn error(command: &mut Command) -> Result<String, Box<dyn std::error::Error>> {
    let output = command.output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{errors}");
    Ok(errors)
}

const GOOD: &str = "echo whole > \"$2\"";

#[test]
fn without_go_one_sentence_says_what_to_install_and_what_kubebuilder_assets_would_do() -> Outcome {
    let said = error(&mut User::new()?.run(&["build"]))?;
    assert_eq!(
        said,
        "error: etcd is not built yet and there is no `go` on PATH: install Go 1.26 or newer, and it is built once, in \
         about 1 minute; or set KUBEBUILDER_ASSETS to a folder that holds etcd, kube-apiserver, \
         kube-controller-manager and kubectl, and those are used\n"
    );
    Ok(())
}

#[test]
fn without_go_what_is_missing_in_kubebuilder_assets_is_named() -> Outcome {
    let user = User::new()?;
    let assets = tempfile::tempdir()?;
    for name in ["etcd", "kube-apiserver", "kubectl"] {
        fs::write(assets.path().join(name), "theirs")?;
    }
    let said = error(user.run(&["build"]).env("KUBEBUILDER_ASSETS", assets.path()))?;
    let folder = assets.path().display();
    let version = Binary::KubeControllerManager.version();
    assert_eq!(
        said,
        format!(
            "error: there is no kube-controller-manager in KUBEBUILDER_ASSETS ({folder}), it is not built yet, and there is \
             no `go` on PATH: put kube-controller-manager {version} into that folder, or install Go 1.26 or newer, and it \
             is built once, in about 1 minute\n"
        )
    );
    Ok(())
}

#[test]
fn a_program_is_built_once_and_each_build_is_told_in_a_line() -> Outcome {
    let user = User::new()?.with_go(GOOD)?;
    let output = user.run(&["build"]).output()?;
    let errors = String::from_utf8(output.stderr)?;
    for binary in Binary::ALL {
        assert!(errors.contains(&format!("building {binary} {} (", binary.version())), "{errors}");
    }
    assert_eq!(errors.matches("… done in 0s").count(), Binary::ALL.len(), "{errors}");
    assert_eq!(
        String::from_utf8(output.stdout)?.lines().filter(|line| Path::new(line).is_file()).count(),
        Binary::ALL.len()
    );
    assert_eq!(user.calls(), Binary::ALL.len());

    let again = user.run(&["build"]).output()?;
    assert!(again.status.success() && again.stderr.is_empty());
    assert_eq!(user.calls(), Binary::ALL.len());
    Ok(())
}

#[test]
fn a_failed_build_shows_what_go_said_and_its_half_program_is_never_used() -> Outcome {
    let user = User::new()?.with_go("echo half > \"$2\"; echo 'the disk is full' >&2; exit 1")?;
    let said = error(&mut user.run(&["path", "kubectl"]))?;
    assert!(said.contains("of kubectl") && said.contains("the disk is full"), "{said}");

    let user = user.with_go(GOOD)?;
    assert_eq!(fs::read_to_string(path(&mut user.run(&["path", "kubectl"]))?)?, "whole\n");
    let names = fs::read_dir(user.programs()?)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    assert_eq!(names, ["kubectl"], "nothing half is left");
    Ok(())
}

#[test]
fn a_build_that_was_killed_half_way_is_done_again() -> Outcome {
    let user = User::new()?.with_go("echo half > \"$2\"; exec sleep 600")?;
    let mut build = user.run(&["path", "kubectl"]).spawn()?;
    let half = || {
        fs::read_dir(user.programs().ok()?)
            .ok()?
            .next()?
            .ok()
            .filter(|entry| entry.metadata().is_ok_and(|data| data.len() > 0))
    };
    until_blocking("half a program is there", || half().is_some());
    build.kill()?;
    build.wait()?;

    let user = user.with_go(GOOD)?;
    assert_eq!(fs::read_to_string(path(&mut user.run(&["path", "kubectl"]))?)?, "whole\n");
    Ok(())
}

#[test]
fn the_second_of_two_builders_says_that_it_waits_and_does_not_build() -> Outcome {
    let user = User::new()?.with_go(&format!("until [ -e \"$HOME/gate\" ]; do sleep 0.02; done; {GOOD}"))?;
    let first = user.run(&["path", "kubectl"]).spawn()?;
    until_blocking("the first is building", || user.calls() == 1);
    let mut second = user.run(&["path", "kubectl"]).spawn()?;
    let mut line = String::new();
    BufReader::new(second.stderr.take().ok_or("piped")?).read_line(&mut line)?;
    assert!(line.contains("waiting for kubectl"), "{line}");

    fs::write(user.home.path().join("gate"), "")?;
    let (first, second) = (first.wait_with_output()?, second.wait_with_output()?);
    assert!(first.status.success() && second.status.success());
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(user.calls(), 1);
    Ok(())
}

#[test]
fn kubebuilder_assets_wins_over_the_cache_and_only_what_such_folders_lack_is_built() -> Outcome {
    let user = User::new()?.with_go(GOOD)?;
    let assets = tempfile::tempdir()?;
    let run = |arguments: &[&str]| {
        let mut command = user.run(arguments);
        command.env("KUBEBUILDER_ASSETS", assets.path());
        command
    };
    let said = error(&mut run(&["path", "kubectl"]))?;
    assert!(said.contains("KUBEBUILDER_ASSETS is") && said.contains("there is no kubectl"), "{said}");

    fs::write(assets.path().join("kubectl"), "theirs")?;
    assert_eq!(path(&mut run(&["path", "kubectl"]))?, assets.path().join("kubectl"));
    let relative = path(run(&["path", "kubectl"]).current_dir(assets.path()).env("KUBEBUILDER_ASSETS", "."))?;
    assert!(relative.is_absolute(), "the components run in another folder: {}", relative.display());
    assert!(path(&mut run(&["path", "helm"]))?.starts_with(user.home.path()));
    assert_eq!(user.calls(), 1);
    Ok(())
}
