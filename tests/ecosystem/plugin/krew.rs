//! The plugin as it is delivered: packed as a release is, installed and removed by the real krew.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use control_plane::{Assets, Binary};
use serde_json::Value;

use super::hand::{PLUGIN, run};

/// A person who has krew with an index of plugins that has none yet.
struct Person {
    home: tempfile::TempDir,
    tools: Assets,
}

impl Person {
    fn new() -> Self {
        let tools = Assets::ensure(&[Binary::Kubectl, Binary::Krew]).expect("kubectl and krew are built");
        let person = Self { home: tempfile::tempdir().expect("a folder"), tools };
        // Before it lists or removes anything, krew wants an index, which is a Git repository that it clones.
        let author = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"];
        let empty = ["commit", "--quiet", "--allow-empty", "--message", "No plugins yet"];
        for words in [&["init", "--quiet"][..], &[&author[..], &empty[..]].concat()] {
            let mut git = person.command(Path::new("git"));
            git.args(["-C", "index"]).args(words);
            fs::create_dir_all(person.index()).expect("a folder");
            run(git, None).good();
        }
        run(person.krew(&["update"]), None).good();
        person
    }

    fn index(&self) -> PathBuf {
        self.home.path().join("index")
    }

    /// Where krew puts the programs of plugins; they have it on their PATH, as krew tells them to.
    fn programs(&self) -> PathBuf {
        self.home.path().join("krew/bin")
    }

    fn command(&self, program: &Path) -> Command {
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([self.programs()].into_iter().chain(env::split_paths(&path))).expect("a PATH");
        let mut command = Command::new(program);
        command.env_clear().env("PATH", path).env("HOME", self.home.path());
        command.env("KREW_ROOT", self.home.path().join("krew")).env("KREW_NO_UPGRADE_CHECK", "1");
        command.env("KREW_DEFAULT_INDEX_URI", self.index());
        command.current_dir(self.home.path());
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

    /// Packs the plugin that is built; the archive's name.
    fn pack(&self) -> String {
        let mut pack = self.command(&Path::new(env!("CARGO_MANIFEST_DIR")).join("plugin/pack.sh"));
        pack.args([PLUGIN, "dist", "https://example.com/pat"]);
        let told = run(pack, None).good();
        let archive = told.lines().find(|line| line.ends_with(".tar.gz")).expect("an archive is told of");
        archive.to_owned()
    }
}

#[test]
fn krew_installs_the_packed_plugin_kubectl_finds_it_and_krew_removes_it() {
    let person = Person::new();
    let archive = person.pack();
    assert_ne!(run(person.kubectl(&["pat", "--version"]), None).code, 0, "it is not there yet");

    let archive = format!("--archive={archive}");
    run(person.krew(&["install", "--manifest=dist/pat.yaml", &archive]), None).good();
    let version = run(person.kubectl(&["pat", "--version"]), None).good();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let known = run(person.krew(&["list"]), None).good();
    assert_eq!(known.trim(), "detached/pat", "which is what krew calls a plugin that is in no index");
    let found = run(person.kubectl(&["plugin", "list"]), None).good();
    let installed = person.programs().join("kubectl-pat");
    assert!(found.contains(installed.to_str().expect("text")), "{found}");

    // What came in the archive beside the program is of use where krew has put it.
    let store = fs::canonicalize(&installed).expect("krew links to it").parent().expect("a folder").to_owned();
    for file in ["LICENSE", "man/kubectl-pat.1", "completions/kubectl-pat.zsh"] {
        assert!(store.join(file).is_file(), "{file}");
    }
    let mut complete = person.command(&store.join("kubectl_complete-pat"));
    complete.arg("rev");
    let offers = run(complete, None).good();
    assert!(offers.lines().any(|line| line.split('\t').next() == Some("reveal")), "{offers}");

    run(person.krew(&["uninstall", "pat"]), None).good();
    assert!(!installed.exists() && !store.exists(), "nothing of it is left");
    assert_ne!(run(person.kubectl(&["pat", "--version"]), None).code, 0);
}

#[test]
fn krew_refuses_an_archive_that_is_not_the_one_of_the_manifest() {
    let person = Person::new();
    let archive = person.home.path().join(person.pack());
    let mut bytes = fs::read(&archive).expect("it is there");
    bytes.push(0);
    fs::write(&archive, bytes).expect("it is written");
    let archive = format!("--archive={}", archive.display());
    let refused = run(person.krew(&["install", "--manifest=dist/pat.yaml", &archive]), None);
    assert!(refused.code != 0 && refused.err.contains("checksum"), "{refused:#?}");
    assert!(!person.programs().join("kubectl-pat").exists());
}

#[test]
fn the_manifest_has_only_platforms_whose_archives_are_there() {
    let person = Person::new();
    let archive = person.pack();
    let manifest = fs::read_to_string(person.home.path().join("dist/pat.yaml")).expect("it is there");
    assert!(!manifest.lines().skip_while(|line| line.starts_with('#')).any(|line| line.contains('@')), "{manifest}");
    let manifest: Value = serde_yaml::from_str(&manifest).expect("YAML");
    let platforms = manifest["spec"]["platforms"].as_array().expect("platforms");
    let [only] = &platforms[..] else { panic!("{platforms:?}") };
    let file = archive.rsplit('/').next().expect("a name");
    assert!(only["uri"].as_str().is_some_and(|uri| uri.ends_with(file)), "{only}");
    assert_eq!((only["sha256"].as_str().map(str::len), only["bin"].as_str()), (Some(64), Some("kubectl-pat")));
}
