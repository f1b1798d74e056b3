//! A `KUBEBUILDER_ASSETS` folder as `setup-envtest` makes it, on a machine without Go.
#![cfg(unix)]

use std::{env, os::unix::fs::symlink, process::Command};

use control_plane::{Assets, Binary, Component, ControlPlane, KUBECONFIG_VARIABLE, Options, require};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tempfile::TempDir;

mod support;
use support::Outcome;

/// A machine with only etcd, kube-apiserver and kubectl.
struct Machine {
    assets: TempDir,
    home: TempDir,
}

impl Machine {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let (assets, home) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let envtest = [Binary::Etcd, Binary::KubeApiserver, Binary::Kubectl];
        let programs = Assets::ensure(&envtest)?;
        for binary in envtest {
            symlink(programs.path(binary), assets.path().join(binary.name()))?;
        }
        Ok(Self { assets, home })
    }

    /// Runs an ignored test of this file on the machine.
    fn test(&self, name: &str) -> Result<Command, std::io::Error> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["--exact", name, "--ignored"])
            .env("KUBEBUILDER_ASSETS", self.assets.path())
            .env("HOME", self.home.path())
            .env("CONTROL_PLANE_MIRROR", "off")
            .env("PATH", self.home.path())
            .env_remove("XDG_CACHE_HOME")
            .env_remove("CI")
            .env_remove(KUBECONFIG_VARIABLE);
        Ok(command)
    }
}

#[tokio::test]
#[ignore = "another test runs it with an environment of its own"]
async fn starts_and_restarts() {
    let mut plane = ControlPlane::start(Options::default()).await.unwrap();
    assert_eq!(plane.pid(Component::ControllerManager), None);
    assert!(!plane.assets().has(Binary::KubeControllerManager) && !plane.assets().has(Binary::Helm));
    plane.restart(Component::ApiServer).await.unwrap();
    plane.check().unwrap();
    let namespaces = Api::<Namespace>::all(plane.client().unwrap());
    assert!(namespaces.get_opt("default").await.unwrap().is_some());
    assert!(require(Binary::Kubectl).is_some());
    let error = plane.restart(Component::ControllerManager).await.unwrap_err().to_string();
    assert!(error.contains("put kube-controller-manager"), "{error}");
}

#[test]
fn control_plane_starts_without_controller_manager_and_go() -> Outcome {
    let output = Machine::new()?.test("starts_and_restarts")?.output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{}{errors}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(errors.matches("LEFT OUT: kube-controller-manager (no garbage collection").count(), 1, "{errors}");
    Ok(())
}

#[test]
#[ignore = "another test runs it with an environment of its own"]
fn needs_helm() {
    let Some(_) = require(Binary::Helm) else { return };
    panic!("Helm is there");
}

#[test]
fn test_that_needs_a_missing_program_is_left_out_loudly() -> Outcome {
    let output = Machine::new()?.test("needs_helm")?.output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("LEFT OUT: needs_helm: it needs helm: "), "{errors}");
    Ok(())
}

#[test]
fn test_that_needs_a_missing_program_fails_in_ci() -> Outcome {
    let output = Machine::new()?.test("needs_helm")?.env("CI", "true").output()?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(101), "{text}");
    assert!(text.contains("needs_helm needs helm: helm is neither in KUBEBUILDER_ASSETS"), "{text}");
    Ok(())
}
