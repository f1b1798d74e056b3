//! What a Deployment says of its processes, as a kubelet would read it.

use std::{collections::BTreeMap, fs, path::Path};

use control_plane::{Access, Identity};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::Value;

use super::{helm::NAMESPACE, next};
use crate::support::process::Launch;

/// One Deployment's Pod, parsed.
pub struct Deployed {
    /// The ServiceAccount that it runs as.
    pub account: String,
    /// How many there should be.
    pub replicas: u64,
    image: String,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    mounts: Vec<Mount>,
}

/// Values of a Secret that a Pod has as files.
struct Mount {
    path: String,
    secret: String,
    /// Only these, by their keys and the names of the files.
    items: Vec<(String, String)>,
}

impl Deployed {
    /// The Deployment of this component in what was rendered.
    pub fn find(manifests: &[Value], component: &str) -> Self {
        let is_it = |manifest: &&Value| {
            manifest["kind"] == "Deployment"
                && manifest["metadata"]["labels"]["app.kubernetes.io/component"] == component
        };
        Self::read(manifests.iter().find(is_it).unwrap_or_else(|| panic!("a Deployment of the {component}")))
    }

    /// Reads a Deployment: its one container, all of it that a process can see.
    pub fn read(deployment: &Value) -> Self {
        let pod = &deployment["spec"]["template"]["spec"];
        let [container] = &pod["containers"].as_array().expect("containers")[..] else { panic!("one container") };
        assert!(container["command"].is_null(), "the image's own entry point");
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("text: {value}")).to_owned();
        let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let variable = |one: &Value| {
            let name = text(&one["name"]);
            let of_pod = one["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name";
            (name, if of_pod { String::new() } else { text(&one["value"]) })
        };
        let mount = |mount: &Value| {
            let volumes = all(&pod["volumes"]);
            let found = volumes.iter().find(|one| one["name"] == mount["name"]).expect("the volume is there");
            let items = all(&found["secret"]["items"]);
            Mount {
                path: text(&mount["mountPath"]),
                secret: text(&found["secret"]["secretName"]),
                items: items.iter().map(|item| (text(&item["key"]), text(&item["path"]))).collect(),
            }
        };
        Self {
            account: text(&pod["serviceAccountName"]),
            replicas: deployment["spec"]["replicas"].as_u64().expect("a number"),
            image: text(&container["image"]),
            arguments: all(&container["args"]).iter().map(text).collect(),
            environment: all(&container["env"]).iter().map(variable).collect(),
            mounts: all(&container["volumeMounts"]).iter().map(mount).collect(),
        }
    }

    /// The whole command line, subcommand first.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// The version of its image, by the tag.
    pub fn version(&self) -> &str {
        self.image.rsplit_once(':').expect("a tag").1
    }

    /// The process of the Pod of this name, as its ServiceAccount, of the version that the image is. Two things are not as in a Pod, because many share this machine: it serves on
    /// free ports of loopback, and what would be mounted lies in `folder`.
    pub async fn launch(&self, access: &Access, pod: &str, folder: &Path) -> Launch {
        let identity = Identity::service_account(NAMESPACE, &self.account);
        let mut arguments = self.arguments.clone();
        for mount in &self.mounts {
            let there = folder.join(format!("{pod}-{}", mount.secret));
            mount.write(access, &there).await;
            for argument in &mut arguments {
                *argument = argument.replace(&format!("{}/", mount.path), &format!("{}/", there.display()));
            }
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let kubeconfig = access.kubeconfig_for(&identity).expect("a kubeconfig");
        let launch = Launch::program(&next::program(self.version()), &arguments)
            .env("KUBECONFIG", kubeconfig)
            .arg("--health-addr=127.0.0.1:0");
        let environment = self.environment.iter();
        environment.fold(launch, |launch, (name, value)| launch.env(name, if value.is_empty() { pod } else { value }))
    }
}

impl Mount {
    /// Writes the files, as a kubelet does.
    async fn write(&self, access: &Access, folder: &Path) {
        let secrets: Api<Secret> = Api::namespaced(access.client().expect("a client"), NAMESPACE);
        let secret = secrets.get(&self.secret).await.expect("the Secret is there");
        let data = secret.data.unwrap_or_default();
        assert!(!self.items.is_empty(), "a Pod has no more of a Secret than it reads");
        fs::create_dir_all(folder).expect("a folder");
        for (key, path) in &self.items {
            fs::write(folder.join(path), &data[key].0).expect("a file");
        }
    }
}
