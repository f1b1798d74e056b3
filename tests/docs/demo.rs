//! Runs `examples/demo/demo.sh`: it completes, prints no token, and cleans up.
#![cfg(target_os = "linux")] // reads /proc

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use control_plane::{ControlPlane, Options};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, ResourceExt};
use pat_operator::token::Presented;
use tempfile::TempDir;

/// The variable with the folder for the script's files. Each process that the script starts has it in its environment.
const FOLDER: &str = "TMPDIR";

/// A control plane and a temporary folder for one test.
struct Stage {
    plane: ControlPlane,
    folder: TempDir,
}

impl Stage {
    async fn new(options: Options) -> Self {
        let plane = ControlPlane::start(options).await.expect("a control plane");
        Self { plane, folder: tempfile::Builder::new().prefix("pat-demo-").tempdir().expect("a folder") }
    }

    /// Starts the script like `make demo`, with the operator of this build and `typed` on stdin.
    fn play(&self, arguments: &[&str], typed: &str) -> Child {
        let mut demo = Command::new(root().join("examples/demo/demo.sh"));
        demo.args(arguments).envs(self.plane.variables()).env("PATH", self.plane.assets().search_path());
        demo.env("PAT_OPERATOR_BIN", env!("CARGO_BIN_EXE_pat-operator")).env(FOLDER, self.folder.path());
        demo.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut demo = control_plane::spawn(demo).expect("the script starts");
        // Dropping stdin ends the input.
        demo.stdin.take().expect("piped").write_all(typed.as_bytes()).expect("the input is written");
        demo
    }

    /// The names of the cluster's CRDs, and of the namespaces that Kubernetes does not create itself.
    async fn has(&self) -> BTreeSet<String> {
        let client = self.plane.client().expect("an administrator's client");
        let crds = Api::<CustomResourceDefinition>::all(client.clone());
        let namespaces = Api::<Namespace>::all(client);
        let crds = crds.list(&Default::default()).await.expect("CRDs are listed");
        let namespaces = namespaces.list(&Default::default()).await.expect("namespaces are listed");
        let crds = crds.iter().map(ResourceExt::name_any);
        let namespaces = namespaces.iter().map(ResourceExt::name_any);
        let own = |name: &String| !name.starts_with("kube-") && name != "default";
        crds.chain(namespaces.filter(own)).collect()
    }

    /// Asserts that no process and no file is left on this machine.
    fn assert_clean(&self) {
        let setting = format!("{FOLDER}={}", self.folder.path().display());
        let is_ours = |environment: &[u8]| environment.split(|byte| *byte == 0).any(|one| one == setting.as_bytes());
        let processes = fs::read_dir("/proc").expect("Linux").flatten().map(|entry| entry.path());
        // The processes of other users are not readable, and some processes end meanwhile.
        let left = processes.filter(|path| fs::read(path.join("environ")).is_ok_and(|text| is_ours(&text)));
        let left: Vec<_> = left.filter_map(|path| fs::read_to_string(path.join("cmdline")).ok()).collect();
        assert!(left.is_empty(), "the script left processes: {left:?}");
        let files = fs::read_dir(self.folder.path()).expect("the folder exists").count();
        assert_eq!(files, 0, "the script left files in {}", self.folder.path().display());
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All output of the script, and its exit code.
async fn to_its_end(mut demo: Child) -> (String, Option<i32>) {
    tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        demo.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
        (said, demo.wait().expect("the script ends").code())
    })
    .await
    .expect("no panic")
}

/// Asserts that the script completed its six chapters, and printed no usable token.
fn assert_complete(said: &str, code: Option<i32>) {
    assert_eq!(code, Some(0), "{said}");
    for part in ["── 1. ", "── 2. ", "── 3. ", "── 4. ", "── 5. ", "── 6. ", "(exit code 0)", "✓ That was the life"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let words = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let tokens = words.filter(|word| Presented::parse(*word).is_ok()).count();
    assert_eq!(tokens, 0, "the script printed tokens");
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_completes_in_a_temporary_cluster_and_leaves_no_process() {
    let stage = Stage::new(Options::default().apply(root().join("crds"))).await;
    let (said, code) = to_its_end(stage.play(&[], "")).await;
    assert_complete(&said, code);
    stage.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_asks_before_it_uses_the_current_cluster_and_cleans_up() {
    let stage = Stage::new(Options::default()).await;
    let (said, code) = to_its_end(stage.play(&["--current"], "n\n")).await;
    assert!(code == Some(0) && said.ends_with("Nothing was changed.\n"), "{code:?}: {said}");
    assert!(stage.has().await.is_empty());
    stage.assert_clean();

    let (said, code) = to_its_end(stage.play(&["--current"], "y\n")).await;
    assert_complete(&said, code);
    for crd in ["personalaccesstokens.pat-operator.io", "tokenowners.pat-operator.io"] {
        for line in [
            format!("  - installs the CRD {crd}, and removes it at the end\n"),
            format!("Removed the CRD {crd}, which this demo installed.\n"),
        ] {
            assert!(said.contains(&line), "{line}: {said}");
        }
    }
    assert_eq!(stage.has().await, BTreeSet::new(), "{said}");
    stage.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_demo_leaves_only_what_existed_before() {
    let stage = Stage::new(Options::default().apply(root().join("crds/personalaccesstokens.yaml"))).await;
    let before = stage.has().await;
    assert_eq!(before, BTreeSet::from(["personalaccesstokens.pat-operator.io".to_owned()]));
    let mut demo = stage.play(&["--current"], "y\n");
    let mut lines = BufReader::new(demo.stdout.take().expect("piped"));
    let (mut said, lines) = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        while !said.contains("The operator runs") {
            assert!(lines.read_line(&mut said).expect("text") > 0, "{said}");
        }
        (said, lines)
    })
    .await
    .expect("no panic");
    assert!(said.contains("tokenowners.pat-operator.io, and removes it at the end"), "{said}");
    assert!(said.contains("keeps the CRD personalaccesstokens.pat-operator.io, which exists already"), "{said}");
    assert_eq!(stage.has().await.len(), 5, "four CRDs, one namespace");

    let stopped = Command::new("sh").args(["-c", &format!("kill -TERM {}", demo.id())]).status();
    assert!(stopped.expect("the shell starts").success());
    let code = tokio::task::spawn_blocking(move || {
        let mut lines = lines;
        lines.read_to_string(&mut said).expect("text");
        demo.wait().expect("the script ends").code()
    });
    assert_eq!(code.await.expect("no panic"), Some(143));
    assert_eq!(stage.has().await, before);
    stage.assert_clean();
}
