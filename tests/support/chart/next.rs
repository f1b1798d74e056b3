//! The next version of the operator: the present sources with a higher version number, and a chart whose CRD has one more field.
//!
//! It is built in the same target folder under another name, so that the dependencies are not compiled again. The build takes about half a
//! minute, once.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::{Value, json};

use super::helm::{chart, root};

/// The field that only the next version's CRD has.
pub const NEW_FIELD: &str = "remark";

/// The next version's number.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut parts = env!("CARGO_PKG_VERSION").split('.');
    let major = parts.next().expect("a major number");
    let minor: u64 = parts.next().and_then(|minor| minor.parse().ok()).expect("a minor number");
    format!("{major}.{}.0", minor + 1)
});

/// The program of this version. The next version is built if necessary. For any other version, such as `dev`, it is the present program.
pub fn program(version: &str) -> PathBuf {
    if version == *VERSION { PROGRAM.clone() } else { env!("CARGO_BIN_EXE_pat-operator").into() }
}

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let present = Path::new(env!("CARGO_BIN_EXE_pat-operator"));
    let built = present.parent().expect("a folder");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a folder");
    let sources = target.join("next");
    for part in ["src", "benches", "tests/control-plane", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        copy(&root().join(part), &sources.join(part));
    }
    // The test target makes Cargo choose the same features of dependencies as in the present build.
    put(&sources.join("tests/nothing.rs"), b"//! Nothing.\n");
    let read = |name: &str| fs::read_to_string(root().join(name)).expect("readable");
    let named = |name: &str, version: &str| format!("name = \"{name}\"\nversion = \"{version}\"\n");
    let (now, next) = (named("pat-operator", env!("CARGO_PKG_VERSION")), named("pat-operator-next", &VERSION));
    let lock = read("Cargo.lock").replace(&now, &next);
    put(&sources.join("Cargo.lock"), lock.as_bytes());
    let mut manifest = read("Cargo.toml").replace(&now, &next).replace("default-run = \"pat-operator\"\n", "");
    // The other programs are built for the test too. They must not replace those of the present version.
    manifest = manifest.replace("[package]\n", "[package]\nautobins = false\n");
    for program in ["crdgen", "kubectl-pat"] {
        manifest = manifest.replace(&format!("name = \"{program}\"\n"), &format!("name = \"{program}-next\"\n"));
    }
    assert!(
        manifest.contains(&next) && lock.contains(&next),
        "Cargo.toml and Cargo.lock have the package's name and version on two consecutive lines"
    );
    let program = "\n[lib]\nname = \"pat_operator\"\n\n[[bin]]\nname = \"pat-operator-next\"\npath = \"src/main.rs\"\n";
    put(&sources.join("Cargo.toml"), format!("{manifest}{program}").as_bytes());

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&sources).args([
        "build",
        "--locked",
        "--offline",
        "--bin",
        "pat-operator-next",
        "--test",
        "nothing",
    ]);
    cargo.arg("--target-dir").arg(target);
    if built.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    built.join("pat-operator-next")
});

/// Copies a file or a folder. Unchanged files keep their times, so that Cargo does not compile them again.
pub fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        put(to, &fs::read(from).expect("readable"));
        return;
    }
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("readable");
        copy(&entry.path(), &to.join(entry.file_name()));
    }
    for entry in fs::read_dir(to).into_iter().flatten().flatten() {
        // What has gone since an earlier copy would still be compiled.
        if !from.join(entry.file_name()).exists() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.expect("it is removed");
        }
    }
}

fn put(path: &Path, content: &[u8]) {
    if fs::read(path).is_ok_and(|there| there == content) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is created");
    fs::write(path, content).expect("the file is written");
}

/// Writes the next version's chart into this folder.
pub fn write_chart(folder: &Path) {
    copy(&chart(), folder);
    let about = fs::read_to_string(chart().join("Chart.yaml")).expect("readable");
    let next = about.replace(env!("CARGO_PKG_VERSION"), &VERSION);
    assert_ne!(next, about);
    put(&folder.join("Chart.yaml"), next.as_bytes());
    let path = folder.join("files/crds/personalaccesstokens.yaml");
    let mut crd: Value = serde_yaml::from_str(&fs::read_to_string(&path).expect("readable")).expect("YAML");
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"][NEW_FIELD] = json!({"type": "string", "maxLength": 64});
    put(&path, serde_yaml::to_string(&crd).expect("YAML").as_bytes());
}
