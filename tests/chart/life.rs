//! The life of a release: installed, upgraded, rolled back, taken away and installed again, with the operator at work beside it as the chart's
//! ServiceAccounts, with the chart's rights, flags and environment and nothing else.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use control_plane::{Access, Binary, ControlPlane, Identity, Options};
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{Namespace, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use pat_operator::api::{PersonalAccessToken, crd};
use serde_json::{Value, json};

use super::{
    deployed::Deployed,
    helm::{NAMESPACE, Program, chart, manifests, of_kind},
};
use crate::support::process::{
    OperatorProcess, SOON,
    place::{eventually, eventually_within, is_ready},
    verifier::VerifierProcess,
};

/// How many tokens are alive over an upgrade.
const LIVE: usize = 1000;

/// The release, and the processes that its Deployments ask for.
pub struct Release {
    pub plane: ControlPlane,
    helm: Program,
    pub folder: tempfile::TempDir,
    pub client: Client,
}

impl Release {
    async fn new() -> Self {
        Self::on(Options::default()).await
    }

    /// In a cluster of its own, started like this; nothing of ours is in it.
    pub async fn on(options: Options) -> Self {
        let plane = ControlPlane::start(options).await.expect("a control plane");
        let helm = Program::new(Binary::Helm, Some(plane.admin_kubeconfig()));
        let client = plane.client().expect("a client");
        Self { plane, helm, folder: tempfile::tempdir().expect("a folder"), client }
    }

    pub fn access(&self) -> Access {
        self.plane.access()
    }

    /// `helm <arguments>` in the release's namespace.
    pub fn helm(&self, arguments: &[&str]) -> String {
        self.helm.prints(&[arguments, &["--namespace", NAMESPACE]].concat())
    }

    /// Installs or upgrades with these values.
    pub fn put(&self, how: &[&str], values: &Value) -> String {
        let file = self.folder.path().join("values.yaml");
        std::fs::write(&file, serde_yaml::to_string(values).expect("YAML")).expect("a file");
        let (chart, file) = (chart(), file.to_str().expect("text").to_owned());
        self.helm(&[how, &["pat-operator", chart.to_str().expect("text"), "--values", &file]].concat())
    }

    /// What Helm rendered and stored.
    pub fn manifests(&self) -> Vec<Value> {
        manifests(&self.helm(&["get", "manifest", "pat-operator"]))
    }

    /// Starts what the Deployment of this component asks for; the first of them is up.
    pub async fn controllers(&self) -> Vec<OperatorProcess> {
        let deployed = Deployed::find(&self.manifests(), "controller");
        let mut running = Vec::new();
        for number in 0..deployed.replicas {
            let pod = format!("{}-{number}", deployed.account);
            let launch = deployed.launch(&self.access(), &pod, self.folder.path()).await;
            let mut process = launch.start();
            process.is_ready().await;
            running.push(process);
        }
        running
    }

    pub async fn verifier(&self) -> VerifierProcess {
        let deployed = Deployed::find(&self.manifests(), "verifier");
        VerifierProcess::of(deployed.launch(&self.access(), "verifier-0", self.folder.path()).await).await
    }

    pub fn pats(&self, namespace: &str) -> Api<PersonalAccessToken> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Waits until a token is Ready, and tells it.
    pub async fn ready(&self, namespace: &str, name: &str) -> String {
        let pats = self.pats(namespace);
        let began = Instant::now();
        loop {
            let pat = pats.get_opt(name).await.expect("an answer");
            let status = pat.and_then(|pat| pat.status).unwrap_or_default();
            if is_ready(&status) {
                break;
            }
            assert!(began.elapsed() < SOON, "{namespace}/{name} is not ready in time: {status:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = secrets.get(name).await.expect("its Secret");
        String::from_utf8(secret.data.expect("data")["token"].0.clone()).expect("text")
    }

    /// Waits until so many tokens are Ready.
    async fn all_ready(&self, namespace: &str, count: usize) {
        let deadline = Instant::now() + 4 * SOON;
        loop {
            let pats = self.pats(namespace).list(&ListParams::default()).await.expect("a list").items;
            let ready = pats.iter().filter(|pat| pat.status.as_ref().is_some_and(is_ready)).count();
            if ready == count {
                return;
            }
            assert!(Instant::now() < deadline, "{ready} of {count} are ready in time");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// All Secrets with tokens, whole.
    async fn secrets(&self, namespace: &str) -> BTreeMap<String, Value> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=pat-operator");
        let all = secrets.list(&ours).await.expect("Secrets").items.into_iter();
        all.map(|one| (one.metadata.name.clone().expect("a name"), serde_json::to_value(one).expect("JSON"))).collect()
    }

    /// The names of everything cluster-wide that belongs to the release.
    async fn cluster_wide(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (group, kind, plural) in [
            ("rbac.authorization.k8s.io", "ClusterRole", "clusterroles"),
            ("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings"),
            ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
            ("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions"),
        ] {
            let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
            let ours = ListParams::default().labels("app.kubernetes.io/instance=pat-operator");
            let these = api.list(&ours).await.expect("a list").items.into_iter();
            found.extend(these.filter_map(|one| one.metadata.name).map(|name| format!("{plural} {name}")));
        }
        found.sort();
        found
    }

    /// The same, where only the resources of `crds/` are left.
    fn only_crds() -> Vec<String> {
        let rendered = Program::helm().renders(&[]);
        let names = of_kind(&rendered, "CustomResourceDefinition").into_iter();
        let mut names: Vec<_> = names.map(|crd| crd["metadata"]["name"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names.iter().map(|name| format!("customresourcedefinitions {name}")).collect()
    }
}

/// Somebody who administers a namespace, and nothing else.
pub async fn person(release: &Release, namespace: &str) -> (Client, PathBuf) {
    let identity = Identity::user("jane@example.com", &[]);
    let namespaces: Api<Namespace> = Api::all(release.client.clone());
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    namespaces.patch(namespace, &PatchParams::apply("tests"), &Patch::Apply(object)).await.expect("a namespace");
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let group = "rbac.authorization.k8s.io";
    let of = |kind: &str, more: Value| {
        let mut object = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "all"}});
        object.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        (Api::<DynamicObject>::namespaced_with(release.client.clone(), namespace, &kind), object)
    };
    for (api, object) in [
        of("Role", json!({"rules": rules})),
        of(
            "RoleBinding",
            json!({
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "all"},
                "subjects": [{"apiGroup": group, "kind": "User", "name": identity.name()}],
            }),
        ),
    ] {
        api.patch("all", &PatchParams::apply("tests"), &Patch::Apply(object)).await.expect("a right");
    }
    let access = release.access();
    (access.client_for(&identity).expect("a client"), access.kubeconfig_for(&identity).expect("a kubeconfig"))
}

fn manifest(folder: &Path, name: &str, spec: &Value) -> PathBuf {
    let path = folder.join(format!("{name}.yaml"));
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": name}, "spec": spec,
    });
    std::fs::write(&path, serde_yaml::to_string(&manifest).expect("YAML")).expect("a file");
    path
}

fn certificate() -> Value {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "verifier-tls"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_installed_and_works_is_upgraded_rolled_back_taken_away_and_comes_back_and_no_token_is_lost() {
    let release = Release::new().await;
    let folder = release.folder.path();
    let values = json!({
        "scopeGrants": {"_default": ["read:*"], "shop": ["packages:write"]},
        "verifier": {"enabled": true, "lastUsedInterval": "1s", "tls": {"insecure": true}},
    });

    // From `helm install` to a first token that is Ready.
    let began = Instant::now();
    let notes = release.put(&["install", "--create-namespace"], &values);
    assert!(notes.contains("STATUS: deployed") && notes.contains("kubectl apply -f -"), "{notes}");
    let mut controllers = release.controllers().await;
    let (shop, kubeconfig) = person(&release, "shop").await;
    let kubectl = Program::new(Binary::Kubectl, Some(kubeconfig));
    let spec =
        json!({"scopes": ["packages:write"], "rotation": {"interval": "30d"}, "secret": {"previousKey": "previous"}});
    let first = manifest(folder, "first", &spec);
    let first = ["apply", "--namespace", "shop", "--filename", first.to_str().expect("text")];
    eventually("the Role and the grant are in force", async || kubectl.run(&first).status.success()).await;
    let token = release.ready("shop", "first").await;
    println!("helm install to the first Ready token: {:?}", began.elapsed());

    // One of the controllers leads, the Lease is the chart's, and nothing was refused to any.
    let mut leading = 0;
    for controller in &mut controllers {
        leading += usize::from(controller.leads().await);
        let metrics = controller.metrics().await;
        let refused = metrics.value(r#"pat_operator_reconcile_errors_total{category="Refused"}"#);
        assert_eq!(refused, 0.0, "{controller}");
        // (A watch of a resource that is brand-new may be told to come back.)
        for word in ["forbidden", "(403", "not permitted"] {
            assert!(!controller.has_logged(&[word]), "{word}\n{controller}");
        }
    }
    assert_eq!((controllers.len(), leading), (2, 1));

    // The verifier knows it, and notes its use.
    let verifier = release.verifier().await;
    verifier.forwards(&token, 200).await;
    assert_eq!(verifier.forward(&token, "scope=packages:write").await, 200);
    assert_eq!(verifier.forward(&token, "scope=everything").await, 403);
    eventually("the use is noted", async || {
        let pat = release.pats("shop").get("first").await.expect("it is there");
        pat.status.is_some_and(|status| status.last_used_at.is_some())
    })
    .await;

    // The guard rails are the release's: they know its accounts, its ConfigMap, and nobody else.
    let pats: Api<PersonalAccessToken> = Api::namespaced(shop.clone(), "shop");
    let refused = async |spec: Value, part: &str| {
        let pat = json!({"apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": "x"}, "spec": spec});
        let pat = serde_json::from_value(pat).expect("a PAT");
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let error = pats.create(&dry, &pat).await.expect_err(part).to_string();
        assert!(error.contains(part), "{part}: {error}");
    };
    refused(json!({"owner": {"kind": "User", "name": "bob"}}), "may not issue tokens for the User bob").await;
    refused(
        json!({"scopes": ["read:x"]}),
        "under the key shop of the ConfigMap pat-operator/pat-operator-scope-grants",
    )
    .await;
    let status = json!({"status": {"revision": 9}});
    let status = pats.patch_status("first", &PatchParams::default(), &Patch::Merge(status)).await;
    assert!(status.expect_err("not hers").to_string().contains("only the controller of pat-operator"));
    let planted = json!({"metadata": {"annotations": {"pat-operator.io/pat-uid": "x"}}});
    let secrets: Api<Secret> = Api::namespaced(shop.clone(), "shop");
    let planted = secrets.patch("first", &PatchParams::default(), &Patch::Merge(planted)).await;
    assert!(planted.expect_err("not hers").to_string().contains("may not set annotations under pat-operator.io/"));

    // Many tokens, and then an upgrade: other flags, a certificate, a token of the release's own. The garbage collector has to know
    // the resource before: it looks for new ones every 30 s, and with many Secrets of owners that it does not know it gets into a backlog.
    pats.delete("first", &DeleteParams::default()).await.expect("hers");
    eventually_within(Duration::from_secs(120), "the garbage collector knows the resource", async || {
        release.secrets("shop").await.is_empty()
    })
    .await;
    kubectl.run(&first);
    let token = release.ready("shop", "first").await;
    verifier.forwards(&token, 200).await;
    let many: Api<DynamicObject> = {
        let kind = GroupVersionKind::gvk("pat-operator.io", "v1alpha1", "PersonalAccessToken");
        Api::namespaced_with(shop.clone(), "shop", &ApiResource::from_gvk(&kind))
    };
    stream::iter(0..LIVE)
        .for_each_concurrent(16, async |number| {
            let name = format!("app-{number:04}");
            let pat = json!({
                "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": name},
                "spec": {"rotation": {"interval": "30d"}},
            });
            many.create(&PostParams::default(), &serde_json::from_value(pat).expect("a PAT"))
                .await
                .expect("it is taken");
        })
        .await;
    release.all_ready("shop", LIVE + 1).await;
    let before = release.secrets("shop").await;
    assert_eq!(before.len(), LIVE + 1);
    let own: Api<Secret> = Api::namespaced(release.client.clone(), NAMESPACE);
    own.patch("verifier-tls", &PatchParams::apply("tests"), &Patch::Apply(certificate())).await.expect("a certificate");
    let mut newer = values.clone();
    newer["controller"] = json!({"concurrency": 8, "replicas": 1});
    newer["verifier"]["tls"] = json!({"secretName": "verifier-tls"});
    newer["scopeGrants"][NAMESPACE] = json!(["introspect"]);
    newer["tokens"] = json!([{"name": "release", "spec": {"scopes": ["introspect"]}}]);
    // The old ones first, so that it is the new one that mints what there is to mint.
    for controller in controllers {
        controller.terminate().await;
    }
    release.put(&["upgrade"], &newer);
    let mut controllers = release.controllers().await;
    let [controller] = &mut controllers[..] else { panic!("there should be one now") };
    controller.leads_within(SOON).await;
    let of_release = release.ready(NAMESPACE, "release").await;
    let metrics = controller.metrics().await;
    assert_eq!(metrics.value("pat_operator_mints_total"), 1.0, "the release's own token and no other");
    assert_eq!(release.secrets("shop").await, before, "not a byte of any Secret is another");
    verifier.process.terminate().await;
    let mut verifier = release.verifier().await;
    assert!(verifier.process.has_logged(&["serving introspection", r#""tls":true"#]), "{}", verifier.process);
    verifier.process.is_ready().await;
    verifier.process.terminate().await;

    // Back: as it was, and the token that came with the upgrade goes.
    release.helm(&["rollback", "pat-operator", "1"]);
    eventually("the release's own token is gone", async || {
        release.pats(NAMESPACE).get_opt("release").await.expect("an answer").is_none()
            && release.secrets(NAMESPACE).await.is_empty()
    })
    .await;
    assert_eq!(Deployed::find(&release.manifests(), "controller").replicas, 2);
    for controller in controllers {
        controller.terminate().await;
    }
    let controllers = release.controllers().await;
    let verifier = release.verifier().await;
    verifier.forwards(&token, 200).await;
    verifier.forwards(&of_release, 401).await;
    assert_eq!(release.secrets("shop").await, before);

    // Taken away: only the resource stays, with every token.
    for controller in controllers {
        controller.terminate().await;
    }
    verifier.process.terminate().await;
    release.helm(&["uninstall", "pat-operator"]);
    assert_eq!(release.cluster_wide().await, Release::only_crds());
    let left = own.list(&ListParams::default()).await.expect("Secrets").items;
    assert_eq!(left.into_iter().filter_map(|one| one.metadata.name).collect::<Vec<_>>(), ["verifier-tls"]);
    assert_eq!(release.secrets("shop").await, before);
    pats.delete("app-0000", &DeleteParams::default()).await.expect("no policy is left behind that would mind");

    // And back again, over the resource that was kept; now nothing is to stay.
    let mut last = newer;
    last["crds"] = json!({"keep": false});
    release.put(&["install"], &last);
    let mut controllers = release.controllers().await;
    release.ready(NAMESPACE, "release").await;
    let mut leading = 0;
    for controller in &mut controllers {
        leading += usize::from(controller.leads().await);
    }
    assert_eq!(leading, 1);
    let mut after = before.clone();
    after.remove("app-0000");
    eventually("the Secret went with its token", async || release.secrets("shop").await.len() == after.len()).await;
    assert_eq!(release.secrets("shop").await, after);
    for controller in controllers {
        controller.terminate().await;
    }
    release.helm(&["uninstall", "pat-operator"]);
    let crds: Api<CustomResourceDefinition> = Api::all(release.client.clone());
    eventually("the resource is gone, and every Secret with it", async || {
        crds.get_opt(crd::NAME).await.expect("an answer").is_none() && release.secrets("shop").await.is_empty()
    })
    .await;
    assert_eq!(release.cluster_wide().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_some_namespaces_the_release_has_rights_there_only_and_does_the_same_work() {
    let release = Release::new().await;
    let (_, kubeconfig) = person(&release, "team-a").await;
    person(&release, "team-b").await;
    person(&release, "team-c").await;
    let notes = release.put(
        &["install", "--create-namespace"],
        &json!({
            "namespaces": ["team-a", "team-b"],
            "verifier": {"enabled": true, "lastUsedInterval": "1s", "tls": {"insecure": true}},
        }),
    );
    for part in ["It works in team-a, team-b only", "admission policies", "TokenOwners", "TokenReview"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    assert_eq!(release.cluster_wide().await, Release::only_crds());
    let mut controllers = release.controllers().await;
    let kubectl = Program::new(Binary::Kubectl, Some(kubeconfig));
    let app = manifest(release.folder.path(), "app", &json!({"scopes": ["anything"]}));
    kubectl.prints(&["apply", "--namespace", "team-a", "--filename", app.to_str().expect("text")]);
    let administrator = Program::new(Binary::Kubectl, Some(release.plane.admin_kubeconfig()));
    for namespace in ["team-b", "team-c"] {
        administrator.prints(&["apply", "--namespace", namespace, "--filename", app.to_str().expect("text")]);
    }
    let verifier = release.verifier().await;
    for namespace in ["team-a", "team-b"] {
        let token = release.ready(namespace, "app").await;
        verifier.forwards(&token, 200).await;
    }
    assert!(release.pats("team-c").get("app").await.expect("it is there").status.is_none());
    for controller in &mut controllers {
        for word in ["forbidden", "(403", "not permitted"] {
            assert!(!controller.has_logged(&[word]), "{word}\n{controller}");
        }
    }
    verifier.process.terminate().await;
    for controller in controllers {
        controller.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_release_in_a_cluster_that_does_not_know_them_are_refused_with_what_to_do() {
    let plane = ControlPlane::start(Options::default().without_controller_manager()).await.expect("a control plane");
    let helm = Program::new(Binary::Helm, Some(plane.admin_kubeconfig()));
    let chart = chart();
    let arguments = ["install", "pat-operator", chart.to_str().expect("text"), "--set", "tokens[0].name=app"];
    let said = helm.refuses(&arguments);
    assert!(said.contains("install the chart without tokens, and then upgrade with them"), "{said}");
}
