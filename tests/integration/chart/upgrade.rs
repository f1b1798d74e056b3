//! The lifecycle of a release: install, upgrade, rollback, uninstall and reinstall. The operator runs as the chart's ServiceAccounts, with only
//! the permissions, flags and environment of the chart.

use std::time::{Duration, Instant};

use control_plane::{Binary, ControlPlane, Options};
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::Secret, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use pat_operator::api::{PersonalAccessToken, crd};
use serde_json::{Value, json};

use super::{
    deployed::Deployed,
    helm::{NAMESPACE, Program, chart},
    next,
    release::{Release, manifest, person},
};
use crate::support::is_left_out;
use crate::support::process::{
    SOON,
    place::{eventually, eventually_within},
};

/// The number of live tokens during an upgrade.
const LIVE: usize = 1000;

fn certificate() -> Value {
    let generated = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "verifier-tls"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": generated.cert.pem(), "tls.key": generated.signing_key.serialize_pem()},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_lost_over_the_life_of_a_release() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let next_program =
        tokio::task::spawn_blocking(|| next::program(&next::VERSION)).await.expect("the next version is built");
    println!("the next version: {}", next_program.display());
    let release = Release::new().await;
    let folder = release.folder.path();
    let values = json!({
        "scopeGrants": {"_default": ["read:*"], "shop": ["packages:write"]},
        "verifier": {"enabled": true, "lastUsedInterval": "1s", "tls": {"insecure": true}},
    });

    // From `helm install` to the first ready token.
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

    // One controller leads, with the chart's Lease, and none was refused anything.
    let mut leading = 0;
    for controller in &mut controllers {
        leading += usize::from(controller.leads().await);
        let metrics = controller.metrics().await;
        let refused = metrics.value(r#"pat_operator_reconcile_errors_total{category="Refused"}"#);
        assert_eq!(refused, 0.0, "{controller}");
        // The watch of a new resource may be asked to retry, which is no refusal.
        for word in ["forbidden", "(403", "not permitted"] {
            assert!(!controller.has_logged(&[word]), "{word}\n{controller}");
        }
    }
    assert_eq!((controllers.len(), leading), (2, 1));

    // The verifier accepts the token and records its use.
    let verifier = release.verifier().await;
    verifier.forwards(&token, 200).await;
    assert_eq!(verifier.forward(&token, "scope=packages:write").await, 200);
    assert_eq!(verifier.forward(&token, "scope=everything").await, 403);
    eventually("the use is recorded", async || {
        let pat = release.pats("shop").get("first").await.expect("the PAT exists");
        pat.status.is_some_and(|status| status.last_used_at.is_some())
    })
    .await;

    // The admission policies refer to the accounts and the ConfigMap of the release.
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
    assert!(status.expect_err("the user is not allowed to").to_string().contains("only the pat-operator controller"));
    let planted = json!({"metadata": {"annotations": {"pat-operator.io/pat-uid": "x"}}});
    let secrets: Api<Secret> = Api::namespaced(shop.clone(), "shop");
    let planted = secrets.patch("first", &PatchParams::default(), &Patch::Merge(planted)).await;
    assert!(
        planted
            .expect_err("the user is not allowed to")
            .to_string()
            .contains("may not set annotations under pat-operator.io/")
    );

    // Create many tokens, then upgrade to the next version, with other flags, a certificate, a token in the values, and a new field. First wait
    // until the garbage collector knows the resource: it looks for new ones every 30 s, and many Secrets with unknown owners delay it.
    pats.delete("first", &DeleteParams::default()).await.expect("the user is allowed to");
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
                .expect("the PAT is created");
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
    // Stop the old controllers first, so that the new one mints the release's token.
    for controller in controllers {
        controller.terminate().await;
    }
    let next_chart = folder.join("next");
    next::write_chart(&next_chart);
    release.put_chart(&next_chart, &["upgrade"], &newer);
    let mut controllers = release.controllers().await;
    let [controller] = &mut controllers[..] else { panic!("not exactly one controller") };
    controller.leads_within(SOON).await;
    assert!(controller.has_logged(&["starting", &next::VERSION]), "{controller}");
    let of_release = release.ready(NAMESPACE, "release").await;
    let metrics = controller.metrics().await;
    assert_eq!(metrics.value("pat_operator_mints_total"), 1.0, "only the release's token is minted");
    assert_eq!(release.secrets("shop").await, before, "no Secret has changed");
    assert!(release.knows(next::NEW_FIELD).await, "the resource was upgraded with the chart");
    verifier.process.terminate().await;
    let mut verifier = release.verifier().await;
    assert!(verifier.process.has_logged(&["serving introspection", r#""tls":true"#]), "{}", verifier.process);
    verifier.process.is_ready().await;
    verifier.process.terminate().await;

    // The rollback restores the first version and removes the token of the upgrade.
    release.helm(&["rollback", "pat-operator", "1"]);
    eventually("the release's own token is gone", async || {
        release.pats(NAMESPACE).get_opt("release").await.expect("an answer").is_none()
            && release.secrets(NAMESPACE).await.is_empty()
    })
    .await;
    let deployed = Deployed::find(&release.manifests(), "controller");
    assert_eq!((deployed.replicas, deployed.version()), (2, env!("CARGO_PKG_VERSION")));
    assert!(!release.knows(next::NEW_FIELD).await, "the resource was rolled back");
    for controller in controllers {
        controller.terminate().await;
    }
    let controllers = release.controllers().await;
    let verifier = release.verifier().await;
    verifier.forwards(&token, 200).await;
    verifier.forwards(&of_release, 401).await;
    assert_eq!(release.secrets("shop").await, before);

    // After uninstall, only the resource and the tokens remain.
    for controller in controllers {
        controller.terminate().await;
    }
    verifier.process.terminate().await;
    release.helm(&["uninstall", "pat-operator"]);
    assert_eq!(release.cluster_wide().await, Release::only_crds());
    let left = own.list(&ListParams::default()).await.expect("Secrets").items;
    assert_eq!(left.into_iter().filter_map(|one| one.metadata.name).collect::<Vec<_>>(), ["verifier-tls"]);
    assert_eq!(release.secrets("shop").await, before);
    pats.delete("app-0000", &DeleteParams::default()).await.expect("no policy remains that refuses it");

    // Reinstall over the kept resource, this time without keeping it.
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
    eventually("the Secret is deleted with its token", async || release.secrets("shop").await.len() == after.len())
        .await;
    assert_eq!(release.secrets("shop").await, after);
    for controller in controllers {
        controller.terminate().await;
    }
    release.helm(&["uninstall", "pat-operator"]);
    let crds: Api<CustomResourceDefinition> = Api::all(release.client.clone());
    eventually("the resource and all Secrets are gone", async || {
        crds.get_opt(crd::NAME).await.expect("an answer").is_none() && release.secrets("shop").await.is_empty()
    })
    .await;
    assert_eq!(release.cluster_wide().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaced_release_has_rights_in_its_namespaces_only() {
    if is_left_out(Binary::Helm) {
        return;
    }
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
    assert!(release.pats("team-c").get("app").await.expect("the PAT exists").status.is_none());
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
async fn release_that_lacks_or_does_not_own_the_crds_is_refused_with_a_hint() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let plane = ControlPlane::start(Options::default().without_controller_manager()).await.expect("a control plane");
    let helm = Program::new(Binary::Helm, Some(plane.admin_kubeconfig()));
    let chart = chart();
    let arguments = ["install", "pat-operator", chart.to_str().expect("text"), "--set", "tokens[0].name=app"];
    let message = helm.refuses(&arguments);
    assert!(message.contains("install the chart without tokens, then upgrade with them"), "{message}");

    // Another release in the cluster.
    let chart = chart.to_str().expect("text");
    helm.prints(&["install", "pat-operator", chart, "--namespace", "default"]);
    let other = ["install", "other", chart, "--namespace", "kube-system", "--set", "policies.enabled=false"];
    let message = helm.refuses(&other);
    let part = "crds: release pat-operator in namespace default has installed clustertokenissuers.pat-operator.io personalaccesstokens.pat-operator.io tokenissuers.pat-operator.io tokenowners.pat-operator.io: set crds.enabled to false";
    assert!(message.contains(part), "{message}");
    helm.prints(&[&other[..], &["--set", "crds.enabled=false"]].concat());
    // The CRDs stay. The message has the command that hands them over to another release.
    helm.prints(&["uninstall", "other", "--namespace", "kube-system"]);
    helm.prints(&["uninstall", "pat-operator", "--namespace", "default"]);
    let kubectl = Program::new(Binary::Kubectl, Some(plane.admin_kubeconfig()));
    let message = helm.refuses(&other);
    let (_, commands) = message.split_once("instead: ").expect("commands");
    for command in commands.trim().split(" && ") {
        let words: Vec<_> = command.split_whitespace().collect();
        assert_eq!(words[0], "kubectl", "{command}");
        kubectl.prints(&words[1..]);
    }
    helm.prints(&other);
}
