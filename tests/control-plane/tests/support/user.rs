//! A user with an empty home, whose `go` is a shell script: the tests are about what happens with its results.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use tempfile::TempDir;

use super::binary;

/// A script for [`User::with_go`] that builds a program.
pub const GOOD: &str = "echo whole > \"$2\"";

/// A user with an empty home and nothing on PATH.
pub struct User {
    home: TempDir,
}

impl User {
    /// Creates the user.
    pub fn new() -> Result<Self, io::Error> {
        let home = tempfile::tempdir()?;
        fs::create_dir(home.path().join("bin"))?;
        Ok(Self { home })
    }

    /// Gives the user a `go`. Before it runs `script`, it appends its arguments to `calls`.
    pub fn with_go(self, script: &str) -> Result<Self, io::Error> {
        let go = self.home.path().join("bin/go");
        let note = "#!/bin/sh\nPATH=$PATH:/usr/bin:/bin\necho \"$@\" >> \"$HOME/calls\"\n";
        let find = "while [ \"$1\" != -o ]; do shift; done\n";
        // Renamed into place: a program that is open for writing cannot be started.
        fs::write(self.home.path().join("go"), format!("{note}{find}{script}\n"))?;
        fs::set_permissions(self.home.path().join("go"), fs::Permissions::from_mode(0o755))?;
        fs::rename(self.home.path().join("go"), go)?;
        Ok(self)
    }

    /// `control-plane` for this user. Downloads are off.
    pub fn run(&self, arguments: &[&str]) -> Command {
        let mut command = binary(arguments);
        command
            .env("HOME", self.home.path())
            .env("PATH", self.home.path().join("bin"))
            .env("CONTROL_PLANE_MIRROR", "off")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("KUBEBUILDER_ASSETS");
        command
    }

    /// The user's home.
    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// How often `go` was called.
    pub fn calls(&self) -> usize {
        fs::read_to_string(self.home.path().join("calls")).unwrap_or_default().lines().count()
    }

    /// The cache folder of Kubernetes programs, which the first build or download creates.
    pub fn programs(&self) -> Result<PathBuf, io::Error> {
        let cache = self.home.path().join(".cache/pat-operator/control-plane");
        for entry in fs::read_dir(&cache)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubernetes-")) {
                return Ok(path.join("bin"));
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The path that a successful command printed.
pub fn path(command: &mut Command) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let output = command.output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{errors}");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// The error that a failed command printed.
pub fn error(command: &mut Command) -> Result<String, Box<dyn std::error::Error>> {
    let output = command.output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{errors}");
    Ok(errors)
}
