//! Checks the manifests in `examples/`: a real API server accepts each file, and the spec is valid for the controller.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use control_plane::{Access, Binary, Namespace};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use pat_operator::{
    api::{ClusterTokenIssuer, ISSUER_AUTH_TYPE, PersonalAccessToken, TokenOwner},
    controller::issuers::host_of,
    planner::intent,
    secret::Layout,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// The text of each example, by file name. `examples/demo`, `examples/issuers` and `examples/owners` have their own tests.
fn examples() -> BTreeMap<String, String> {
    examples_in(&folder())
}

fn examples_in(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder).expect("the folder exists").map(|file| file.expect("readable").path());
    let read = |path: PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).expect("a plain name");
        (name.to_owned(), fs::read_to_string(&path).expect("readable"))
    };
    files.filter(|path| path.is_file()).map(read).collect()
}

fn parse(text: &str) -> PersonalAccessToken {
    serde_yaml::from_str(text).expect("one PersonalAccessToken")
}

/// Applies all examples as the README says. Returns the output of kubectl for each object.
async fn kubectl_apply(access: &Access, namespace: &Namespace) -> Vec<String> {
    let (access, namespace) = (access.clone(), namespace.name().to_owned());
    let run = move || {
        let mut kubectl = access.command(Binary::Kubectl).expect("kubectl");
        kubectl.args(["apply", "--namespace", &namespace, "--filename"]).arg(folder()).output().expect("kubectl runs")
    };
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(run).await.expect("no panic");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn applying_all_examples_again_changes_nothing() {
    let access = control_plane::shared().await.expect("a control plane");
    crate::crd::install_on_shared(&access.client().expect("an administrator's client")).await;
    let namespace = access.namespace("examples").await.expect("a namespace");
    for outcome in ["created", "unchanged"] {
        let lines = kubectl_apply(&access, &namespace).await;
        let other: Vec<_> = lines.iter().filter(|line| !line.ends_with(outcome)).collect();
        assert!(other.is_empty(), "{other:?}");
        assert_eq!(lines.len(), examples().len(), "one object for each file: {lines:?}");
    }
}

#[tokio::test]
async fn api_server_accepts_owner_examples_unchanged() {
    let access = control_plane::shared().await.expect("a control plane");
    let client = access.client().expect("an administrator's client");
    crate::crd::install_on_shared(&client).await;
    let owners = kube::Api::<TokenOwner>::all(client);
    let files = fs::read_dir(folder().join("owners")).expect("the folder examples/owners/ exists");
    for file in files.map(|file| file.expect("readable").path()) {
        let owner: TokenOwner =
            serde_yaml::from_str(&fs::read_to_string(&file).expect("readable")).expect("one TokenOwner");
        let name = owner.metadata.name.clone().expect("a name");
        // A dry run, because TokenOwners are cluster-scoped and would affect other tests.
        let params = kube::api::PatchParams { dry_run: true, ..kube::api::PatchParams::apply("person") };
        let taken =
            owners.patch(&name, &params, &kube::api::Patch::Apply(&owner)).await.expect("the API server accepts it");
        assert_eq!(taken.spec, owner.spec, "{}", file.display());
    }
}

#[tokio::test]
async fn api_server_accepts_issuer_examples_unchanged() {
    let access = control_plane::shared().await.expect("a control plane");
    let client = access.client().expect("an administrator's client");
    crate::crd::install_on_shared(&client).await;
    let namespace = access.namespace("issuer-examples").await.expect("a namespace");
    let issuers: Api<ClusterTokenIssuer> = Api::all(client.clone());
    let pats: Api<PersonalAccessToken> = Api::namespaced(client.clone(), namespace.name());
    let secrets: Api<Secret> = Api::namespaced(client, namespace.name());
    // A dry run, because ClusterTokenIssuers are cluster-scoped and would affect other tests.
    let params = PatchParams { dry_run: true, ..PatchParams::apply("person") };
    for (file, text) in examples_in(&folder().join("issuers")) {
        let [secret, issuer, pat] = text.split("\n---\n").collect::<Vec<_>>()[..] else {
            panic!("{file}: a Secret, an issuer and a PersonalAccessToken")
        };
        let mut secret: Secret = serde_yaml::from_str(secret).expect("a Secret");
        let issuer: ClusterTokenIssuer = serde_yaml::from_str(issuer).expect("a ClusterTokenIssuer");
        let mut pat = parse(pat);
        let name = issuer.metadata.name.clone().expect("a name");
        let (_, url) = issuer.spec.0.system().expect("a system");
        let host = secret.string_data.as_ref().and_then(|data| data.get("host"));
        assert_eq!(host.map(String::as_str), url.map(host_of), "{file}");
        assert_eq!(secret.type_.as_deref(), Some(ISSUER_AUTH_TYPE), "{file}");
        let reference = issuer.spec.0.auth.as_ref().and_then(|auth| auth.secret_ref.as_ref());
        assert_eq!(reference.map(|reference| &reference.name), secret.metadata.name.as_ref(), "{file}");
        assert_eq!(pat.spec.issuer_ref.as_ref().map(|reference| &reference.name), Some(&name), "{file}");

        let taken = issuers.patch(&name, &params, &Patch::Apply(&issuer)).await;
        assert_eq!(taken.unwrap_or_else(|error| panic!("{file}: {error}")).spec, issuer.spec, "{file}");
        let namespace = Some(namespace.name().to_owned());
        let pat_name = pat.metadata.name.clone().expect("a name");
        pat.metadata.namespace.clone_from(&namespace);
        let taken = pats.patch(&pat_name, &params, &Patch::Apply(&pat)).await;
        assert_eq!(taken.unwrap_or_else(|error| panic!("{file}: {error}")).spec, pat.spec, "{file}");
        let secret_name = secret.metadata.name.clone().expect("a name");
        secret.metadata.namespace = namespace;
        let taken = secrets.patch(&secret_name, &params, &Patch::Apply(&secret)).await;
        taken.unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

#[test]
fn each_example_is_valid_and_has_its_own_secret() {
    let mut secrets = BTreeSet::new();
    for (file, text) in examples() {
        let pat = parse(&text);
        let name = pat.metadata.name.expect("a name");
        assert_eq!(pat.metadata.namespace, None, "{file}: an example must not set a namespace");
        let stored = parse(&text).into();
        let owner = intent::owner(&stored, &pat.spec).text();
        let layout = Layout::read("team", &name, &owner, &pat.spec).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(secrets.insert(layout.name), "{file}: another example has the same Secret");
    }
}

#[test]
fn each_example_starts_with_a_short_comment() {
    let examples = examples();
    assert!(examples.len() >= 10);
    for (file, text) in examples.into_iter().chain(examples_in(&folder().join("issuers"))) {
        assert!(file.ends_with(".yaml"), "{file}");
        let comment = text.lines().take_while(|line| line.starts_with("# ")).count();
        assert!((2..=3).contains(&comment), "{file}: {comment} lines");
    }
}
