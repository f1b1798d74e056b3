//! `make manifests`: the install file for clusters without Helm or a custom kustomization.

use std::process::Command;

use control_plane::{Assets, Binary};

use super::{
    dry_run::DryRun,
    helm::{NAMESPACE, manifests, of_kind, root},
};
use crate::support::is_left_out;

const DIGEST: &str = "sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730";

#[tokio::test(flavor = "multi_thread")]
async fn make_manifests_writes_a_complete_install_file() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let api_server = DryRun::new(&[NAMESPACE]).await;
    let kubectl = Assets::ensure(&[Binary::Kubectl]).expect("kubectl").path(Binary::Kubectl).to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let images = [
        "registry.example.com/tools/pat-operator:1.2.3".to_owned(),
        "registry:5000/x:1".to_owned(),
        format!("registry:5000/x@{DIGEST}"),
        format!("registry:5000/x:1@{DIGEST}"),
        "registry:5000/x".to_owned(),
        "x".to_owned(),
    ];
    for (number, image) in images.iter().enumerate() {
        // The folder does not exist yet, like dist/.
        let file = folder.path().join(number.to_string()).join("install.yaml");
        let output = Command::new("make")
            .current_dir(root())
            .args(["--no-print-directory", "manifests"])
            .arg(format!("IMAGE={image}"))
            .arg(format!("MANIFESTS={}", file.display()))
            .arg(format!("KUBECTL={}", kubectl.display()))
            .env("HOME", folder.path())
            // The tests may run under another make.
            .env_remove("MAKEFLAGS")
            .output()
            .expect("make");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{image}: {stderr}");
        let path = file.to_str().expect("text");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), path, "it prints the path");

        let written = manifests(&std::fs::read_to_string(&file).expect("the file is written"));
        let deployments = of_kind(&written, "Deployment");
        assert_eq!(deployments.len(), 1, "{image}");
        for deployment in deployments {
            assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], *image);
        }
        for (kind, count) in
            [("CustomResourceDefinition", 4), ("Namespace", 1), ("ValidatingAdmissionPolicy", 9), ("ConfigMap", 3)]
        {
            assert_eq!(of_kind(&written, kind).len(), count, "{image}: {kind}");
        }
        assert_eq!(api_server.accepts(image, ["--filename", path]).len(), written.len(), "{image}");
    }
}
