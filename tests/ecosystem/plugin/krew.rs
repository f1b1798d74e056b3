//! The release archive of the plugin, installed and removed by krew.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::{Assets, Binary};
use serde_json::Value;

use super::runner::{PLUGIN, run};

/// A home directory with krew and an empty plugin index.
struct KrewHome {
    directory: tempfile::TempDir,
    tools: Assets,
}

impl KrewHome {
    fn new() -> Self {
        let tools = Assets::ensure(&[Binary::Kubectl, Binary::Krew]).expect("kubectl and krew are built");
        let home = Self { directory: tempfile::tempdir().expect("a folder"), tools };
        // Krew needs an index, a Git repository that it clones, before it lists or removes plugins.
        let author = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"];
        let empty = ["commit", "--quiet", "--allow-empty", "--message", "No plugins yet"];
        for words in [&["init", "--quiet"][..], &[&author[..], &empty[..]].concat()] {
            let mut git = home.command(Path::new("git"));
            git.args(["-C", "index"]).args(words);
            fs::create_dir_all(home.index()).expect("a folder");
            run(git, None).success();
        }
        run(home.krew(&["update"]), None).success();
        home
    }

    fn index(&self) -> PathBuf {
        self.directory.path().join("index")
    }

    /// The directory of the installed plugins, which is on the PATH.
    fn programs(&self) -> PathBuf {
        self.directory.path().join("krew/bin")
    }

    fn command(&self, program: &Path) -> Command {
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([self.programs()].into_iter().chain(env::split_paths(&path))).expect("a PATH");
        let mut command = Command::new(program);
        command.env_clear().env("PATH", path).env("HOME", self.directory.path());
        command.env("KREW_ROOT", self.directory.path().join("krew")).env("KREW_NO_UPGRADE_CHECK", "1");
        command.env("KREW_DEFAULT_INDEX_URI", self.index());
        command.current_dir(self.directory.path());
        command
    }

    fn krew(&self, arguments: &[&str]) -> Command {
        let mut krew = self.command(self.tools.path(Binary::Krew));
        krew.args(arguments);
        krew
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut kubectl = self.command(self.tools.path(Binary::Kubectl));
        kubectl.args(arguments);
        kubectl
    }

    /// Packs the plugin. Returns the name of the archive.
    fn pack(&self) -> String {
        let mut pack = self.command(&Path::new(env!("CARGO_MANIFEST_DIR")).join("plugin/pack.sh"));
        pack.args([PLUGIN, "dist", "https://example.com/pat"]);
        let output = run(pack, None).success();
        let archive = output.lines().find(|line| line.ends_with(".tar.gz")).expect("the output names the archive");
        archive.to_owned()
    }
}

#[test]
fn krew_installs_and_removes_the_plugin() {
    let home = KrewHome::new();
    let archive = home.pack();
    assert_ne!(run(home.kubectl(&["pat", "--version"]), None).code, 0, "not installed yet");

    let archive = format!("--archive={archive}");
    run(home.krew(&["install", "--manifest=dist/pat.yaml", &archive]), None).success();
    let version = run(home.kubectl(&["pat", "--version"]), None).success();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let known = run(home.krew(&["list"]), None).success();
    assert_eq!(known.trim(), "detached/pat", "the name of a plugin without an index");
    let found = run(home.kubectl(&["plugin", "list"]), None).success();
    let installed = home.programs().join("kubectl-pat");
    assert!(found.contains(installed.to_str().expect("text")), "{found}");

    // The other files of the archive are installed too.
    let store = fs::canonicalize(&installed).expect("a link by krew").parent().expect("a folder").to_owned();
    for file in ["LICENSE", "man/kubectl-pat.1", "completions/kubectl-pat.zsh"] {
        assert!(store.join(file).is_file(), "{file}");
    }
    let mut complete = home.command(&store.join("kubectl_complete-pat"));
    complete.arg("rev");
    let output = run(complete, None).success();
    assert!(output.lines().any(|line| line.split('\t').next() == Some("reveal")), "{output}");

    run(home.krew(&["uninstall", "pat"]), None).success();
    assert!(!installed.exists() && !store.exists(), "all files are removed");
    assert_ne!(run(home.kubectl(&["pat", "--version"]), None).code, 0);
}

#[test]
fn krew_refuses_a_wrong_checksum() {
    let home = KrewHome::new();
    let archive = home.directory.path().join(home.pack());
    let mut bytes = fs::read(&archive).expect("the file exists");
    bytes.push(0);
    fs::write(&archive, bytes).expect("the file is written");
    let archive = format!("--archive={}", archive.display());
    let refused = run(home.krew(&["install", "--manifest=dist/pat.yaml", &archive]), None);
    assert!(refused.code != 0 && refused.err.contains("checksum"), "{refused:#?}");
    assert!(!home.programs().join("kubectl-pat").exists());
}

#[test]
fn manifest_lists_only_packed_platforms() {
    let home = KrewHome::new();
    let archive = home.pack();
    let manifest = fs::read_to_string(home.directory.path().join("dist/pat.yaml")).expect("the file exists");
    assert!(!manifest.lines().skip_while(|line| line.starts_with('#')).any(|line| line.contains('@')), "{manifest}");
    let manifest: Value = serde_yaml::from_str(&manifest).expect("YAML");
    let platforms = manifest["spec"]["platforms"].as_array().expect("platforms");
    let [only] = &platforms[..] else { panic!("{platforms:?}") };
    let file = archive.rsplit('/').next().expect("a name");
    assert!(only["uri"].as_str().is_some_and(|uri| uri.ends_with(file)), "{only}");
    assert_eq!((only["sha256"].as_str().map(str::len), only["bin"].as_str()), (Some(64), Some("kubectl-pat")));
}
