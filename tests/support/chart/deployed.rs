//! A Deployment of the chart, read as a kubelet reads it.

use std::{collections::BTreeMap, fs, path::Path};

use control_plane::{Access, Identity};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::Value;

use super::{helm::NAMESPACE, next};
use crate::support::process::Launch;

/// The Pod of one Deployment, parsed.
pub struct Deployed {
    /// The ServiceAccount of the Pod.
    pub account: String,
    /// The number of replicas.
    pub replicas: u64,
    image: String,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    mounts: Vec<Mount>,
}

/// A volume mount with values of a Secret.
struct Mount {
    path: String,
    secret: String,
    /// The keys of the Secret, and the names of their files.
    items: Vec<(String, String)>,
}

impl Deployed {
    /// Finds the Deployment of a component among rendered manifests.
    pub fn find(manifests: &[Value], component: &str) -> Self {
        let is_it = |manifest: &&Value| {
            manifest["kind"] == "Deployment"
                && manifest["metadata"]["labels"]["app.kubernetes.io/component"] == component
        };
        Self::read(manifests.iter().find(is_it).unwrap_or_else(|| panic!("a Deployment of the {component}")))
    }

    /// Reads a Deployment with one container.
    pub fn read(deployment: &Value) -> Self {
        let pod = &deployment["spec"]["template"]["spec"];
        let [container] = &pod["containers"].as_array().expect("containers")[..] else { panic!("one container") };
        assert!(container["command"].is_null(), "the Deployment uses the image's entry point");
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("text: {value}")).to_owned();
        let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let variable = |one: &Value| {
            let name = text(&one["name"]);
            let of_pod = one["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name";
            (name, if of_pod { String::new() } else { text(&one["value"]) })
        };
        let mount = |mount: &Value| {
            let volumes = all(&pod["volumes"]);
            let found = volumes.iter().find(|one| one["name"] == mount["name"]).expect("the volume exists");
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

    /// All arguments, the subcommand first.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// The version of the image, from its tag.
    pub fn version(&self) -> &str {
        self.image.rsplit_once(':').expect("a tag").1
    }

    /// Builds the process of this Pod, with its ServiceAccount and the version of its image. Two things differ from a Pod, because many
    /// processes share the machine: it serves on free ports of loopback, and its mounted files are in `folder`.
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
        let secret = secrets.get(&self.secret).await.expect("the Secret exists");
        let data = secret.data.unwrap_or_default();
        assert!(!self.items.is_empty(), "the volume lists the keys it needs");
        fs::create_dir_all(folder).expect("a folder");
        for (key, path) in &self.items {
            fs::write(folder.join(path), &data[key].0).expect("a file");
        }
    }
}
