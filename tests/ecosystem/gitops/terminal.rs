//! Runs the commands of `docs/gitops.md` in bash.

use std::{
    env,
    ffi::OsString,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use control_plane::{Assets, Binary};

use crate::support::{fences, process::place::Place};

/// The namespaces in the page's commands. In a test, the place's namespace replaces them.
const NAMESPACES: [&str; 2] = ["pat-operator", "flux-system"];

/// The code blocks of this language on the page.
pub fn shown(language: &str) -> Vec<String> {
    let fences = fences::of("docs/gitops.md").into_iter().filter(|fence| fence.language == language);
    fences.map(|fence| fence.text).collect()
}

/// The blocks of commands that contain this word.
pub fn commands_with(word: &str) -> Vec<String> {
    let has = |block: &String| block.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|one| one == word);
    shown("sh").into_iter().filter(has).collect()
}

/// A folder with a certificate in files, and access to a cluster.
pub struct Terminal {
    folder: tempfile::TempDir,
    path: OsString,
    cluster: [(&'static str, PathBuf); 3],
    namespace: String,
    /// The content of `tls.crt`.
    pub certificate: String,
    /// The content of `tls.key`.
    pub key: String,
}

impl Terminal {
    /// Creates a terminal with kubectl and these programs.
    pub async fn open(place: &Place, programs: &[Binary]) -> Self {
        let programs = [&[Binary::Kubectl], programs].concat();
        let find = move || {
            let assets = Assets::ensure(&programs).expect("the programs are built");
            let folders = programs.iter().map(|one| assets.path(*one).parent().expect("a folder").to_owned());
            folders.collect::<Vec<_>>()
        };
        let folders = tokio::task::spawn_blocking(find).await.expect("no panic");
        let machine = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(folders.into_iter().chain(env::split_paths(&machine))).expect("a PATH");

        let folder = tempfile::Builder::new().prefix("pat-gitops-").tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(folder.path().join("tls.crt"), &certificate).expect("a file");
        fs::write(folder.path().join("tls.key"), &key).expect("a file");
        Self { folder, path, cluster: place.access.variables(), namespace: place.name().to_owned(), certificate, key }
    }

    /// Runs commands with these variables. Returns their stdout, or all output if one of them fails.
    pub async fn tries(&self, text: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let text = NAMESPACES.iter().fold(text.to_owned(), |text, namespace| {
            text.replace(&format!("--namespace {namespace} "), &format!("--namespace {} ", self.namespace))
        });
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &text]).current_dir(self.folder.path()).stdin(Stdio::null());
        bash.env_clear().env("PATH", &self.path).env("HOME", self.folder.path()).envs(self.cluster.clone());
        bash.envs(variables.iter().copied());
        let output = tokio::task::spawn_blocking(move || bash.output()).await.expect("no panic").expect("bash runs");
        let [printed, said] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        if output.status.success() { Ok(printed) } else { Err(format!("{said}{printed}")) }
    }

    /// The same for commands that must succeed. Returns their stdout.
    pub async fn types(&self, text: &str, variables: &[(&str, &str)]) -> String {
        self.tries(text, variables).await.unwrap_or_else(|said| panic!("{text}\n--- failed:\n{said}"))
    }

    /// The content of a file in the folder.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Whether a text contains a part of the certificate or the key, in plain text or base64.
    pub fn leaks_into(&self, text: &str) -> bool {
        [&self.certificate, &self.key].into_iter().any(|pem| {
            let line = pem.lines().nth(1).expect("a line below the first");
            text.contains(line) || text.contains(&STANDARD.encode(pem)[..60])
        })
    }
}
