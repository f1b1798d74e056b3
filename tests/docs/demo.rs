//! `examples/demo/demo.sh`: it plays to its end, shows no token, and takes away what it brought.
#![cfg(target_os = "linux")] // it looks into /proc

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

/// Where the script keeps its files. Whatever it starts has it in its environment.
const FOLDER: &str = "TMPDIR";

/// A cluster of its own, and a folder of its own for files.
struct Stage {
    plane: ControlPlane,
    folder: TempDir,
}

impl Stage {
    async fn new(options: Options) -> Self {
        let plane = ControlPlane::start(options).await.expect("a control plane");
        Self { plane, folder: tempfile::Builder::new().prefix("pat-demo-").tempdir().expect("a folder") }
    }

    /// Starts it as `make demo` does, with the operator of this build; what is typed is `typed`.
    fn play(&self, arguments: &[&str], typed: &str) -> Child {
        let mut demo = Command::new(root().join("examples/demo/demo.sh"));
        demo.args(arguments).envs(self.plane.variables()).env("PATH", self.plane.assets().search_path());
        demo.env("PAT_OPERATOR_BIN", env!("CARGO_BIN_EXE_pat-operator")).env(FOLDER, self.folder.path());
        demo.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut demo = control_plane::spawn(demo).expect("the script starts");
        // Its end is the end of what is typed.
        demo.stdin.take().expect("piped").write_all(typed.as_bytes()).expect("it is typed");
        demo
    }

    /// The names of what the cluster has of the demo's: CRDs and namespaces.
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

    /// Nothing of it is left on this machine: no process, and no file.
    fn is_left_clean(&self) {
        let setting = format!("{FOLDER}={}", self.folder.path().display());
        let is_ours = |environment: &[u8]| environment.split(|byte| *byte == 0).any(|one| one == setting.as_bytes());
        let processes = fs::read_dir("/proc").expect("Linux").flatten().map(|entry| entry.path());
        // Those of others cannot be read, and some end meanwhile.
        let left = processes.filter(|path| fs::read(path.join("environ")).is_ok_and(|text| is_ours(&text)));
        let left: Vec<_> = left.filter_map(|path| fs::read_to_string(path.join("cmdline")).ok()).collect();
        assert!(left.is_empty(), "processes are left: {left:?}");
        let files = fs::read_dir(self.folder.path()).expect("the folder is there").count();
        assert_eq!(files, 0, "files are left in {}", self.folder.path().display());
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All that it says until it ends, and how it ends.
async fn to_its_end(mut demo: Child) -> (String, Option<i32>) {
    tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        demo.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
        (said, demo.wait().expect("it ends").code())
    })
    .await
    .expect("no panic")
}

/// Six chapters, told to the end, and not one token that could be used.
fn was_whole(said: &str, code: Option<i32>) {
    assert_eq!(code, Some(0), "{said}");
    for part in ["── 1. ", "── 2. ", "── 3. ", "── 4. ", "── 5. ", "── 6. ", "(exit code 0)", "✓ That was the life"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let words = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let tokens = words.filter(|word| Presented::parse(*word).is_ok()).count();
    assert_eq!(tokens, 0, "tokens were shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_that_is_thrown_away_it_plays_to_its_end_and_no_process_is_left() {
    let stage = Stage::new(Options::default().apply(root().join("crds"))).await;
    let (said, code) = to_its_end(stage.play(&[], "")).await;
    was_whole(&said, code);
    stage.is_left_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_current_cluster_it_asks_first_and_takes_away_all_that_it_brought() {
    let stage = Stage::new(Options::default()).await;
    let (said, code) = to_its_end(stage.play(&["--current"], "n\n")).await;
    assert!(code == Some(0) && said.ends_with("Nothing was changed.\n"), "{code:?}: {said}");
    assert!(stage.has().await.is_empty());
    stage.is_left_clean();

    let (said, code) = to_its_end(stage.play(&["--current"], "y\n")).await;
    was_whole(&said, code);
    for crd in ["personalaccesstokens.pat-operator.io", "tokenowners.pat-operator.io"] {
        for line in [
            format!("  - installs the CRD {crd}, and removes it at the end\n"),
            format!("Removed the CRD {crd}, which this demo installed.\n"),
        ] {
            assert!(said.contains(&line), "{line}: {said}");
        }
    }
    assert_eq!(stage.has().await, BTreeSet::new(), "{said}");
    stage.is_left_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_half_way_it_leaves_what_was_there_before_and_nothing_else() {
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
    assert_eq!(stage.has().await.len(), 3, "two CRDs, one namespace");

    let stopped = Command::new("sh").args(["-c", &format!("kill -TERM {}", demo.id())]).status();
    assert!(stopped.expect("there is a shell").success());
    let code = tokio::task::spawn_blocking(move || {
        let mut lines = lines;
        lines.read_to_string(&mut said).expect("text");
        demo.wait().expect("it ends").code()
    });
    assert_eq!(code.await.expect("no panic"), Some(143));
    assert_eq!(stage.has().await, before);
    stage.is_left_clean();
}
