//! The programs on this machine: in `KUBEBUILDER_ASSETS`, or in the per-user cache, downloaded or built if missing.

use std::{
    env,
    ffi::OsString,
    io,
    path::{self, Path, PathBuf},
    thread,
};

use crate::{
    Binary, cache,
    progress::{about, print},
    sources::{self, Mirror},
};

/// A program cannot be provided.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssetsError {
    /// The program is not in the cache, and Go, which builds it, is not installed.
    #[error(
        "{binary} {version} is not in the cache and cannot be built: there is no `go` on PATH; install Go 1.26 or newer (the \
         build takes {time}, once), or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl",
        version = binary.version(),
        time = about(binary.build_time())
    )]
    NoGo {
        /// The missing program.
        binary: Binary,
    },

    /// The program is neither in `KUBEBUILDER_ASSETS` nor in the cache, and Go is not installed.
    #[error(
        "{binary} is neither in KUBEBUILDER_ASSETS ({folder}) nor in the cache, and cannot be built: there is no `go` on PATH; \
         put {binary} {version} into that folder, or install Go 1.26 or newer (the build takes {time}, once)",
        version = binary.version(),
        time = about(binary.build_time())
    )]
    NotInAssetsAndNoGo {
        /// The folder.
        folder: PathBuf,
        /// The missing program.
        binary: Binary,
    },

    /// `go build` failed.
    #[error(
        "`go build` of {binary} {version} failed ({status}); the end of its output:\n{output}\nCheck the network, the Go version \
         (1.26 or newer), memory (4 GB) and disk, then start again: finished programs stay in the cache",
        version = binary.version()
    )]
    Build {
        /// The program.
        binary: Binary,
        /// The exit status of `go build`.
        status: std::process::ExitStatus,
        /// The end of its output.
        output: String,
    },

    /// `KUBEBUILDER_ASSETS` is set to a folder that lacks a program which it must have.
    #[error(
        "KUBEBUILDER_ASSETS is {folder}, which has no {binary}: set it to a folder with etcd, kube-apiserver and kubectl, or \
         unset it to download or build them"
    )]
    NotInAssets {
        /// The folder.
        folder: PathBuf,
        /// The missing program.
        binary: Binary,
    },

    /// There is no folder for the cache.
    #[error("neither XDG_CACHE_HOME nor HOME is an absolute path: set one of them, the cache is kept below it")]
    NoCache,

    /// A file operation failed.
    #[error("cannot {action} in {folder}: {source}; check permissions and disk space, then start again")]
    Io {
        /// The operation.
        action: &'static str,
        /// The folder.
        folder: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl AssetsError {
    /// Whether this machine lacks what it takes, as opposed to an operation that failed.
    fn is_missing_go(&self) -> bool {
        matches!(self, Self::NoGo { .. } | Self::NotInAssetsAndNoGo { .. })
    }
}

/// The paths of programs.
#[derive(Debug, Clone)]
pub struct Assets {
    paths: [PathBuf; Binary::ALL.len()],
}

impl Assets {
    /// The programs that make up a running control plane.
    pub const TO_RUN: [Binary; 3] = [Binary::Etcd, Binary::KubeApiserver, Binary::KubeControllerManager];

    /// The programs of a control plane and its command line tools.
    pub const CONTROL_PLANE: [Binary; 5] =
        [Binary::Etcd, Binary::KubeApiserver, Binary::KubeControllerManager, Binary::Kubectl, Binary::Helm];

    /// Third-party programs for the tests with the ecosystem.
    pub const ECOSYSTEM: [Binary; 10] = [
        Binary::FluxVerdict,
        Binary::ArgocdVerdict,
        Binary::Istiod,
        Binary::Krew,
        Binary::Kubeseal,
        Binary::SealedSecrets,
        Binary::Sops,
        Binary::AgeKeygen,
        Binary::Velero,
        Binary::Gitea,
    ];

    /// Finds programs, and downloads or builds those that are missing.
    ///
    /// That blocks, for minutes if a program is built, and reports on standard error.
    pub fn ensure(needed: &[Binary]) -> Result<Self, AssetsError> {
        let search = Search::from_env();
        search.announce(needed);
        let assets = search.found();
        needed.iter().try_fold(assets, |mut assets, binary| {
            assets.paths[*binary as usize] = search.ensure(*binary)?;
            Ok(assets)
        })
    }

    /// Does the same as [`ensure`](Self::ensure), but leaves out kube-controller-manager and Helm where they cannot be had.
    ///
    /// That is the case if `KUBEBUILDER_ASSETS` is set, lacks them, and neither a download nor Go provides them. It is
    /// reported on standard error once.
    pub fn ensure_available(needed: &[Binary]) -> Result<Self, AssetsError> {
        let search = Search::from_env();
        search.announce(needed);
        let mut assets = search.found();
        for binary in needed {
            match search.ensure(*binary) {
                Ok(path) => assets.paths[*binary as usize] = path,
                Err(error @ AssetsError::NotInAssetsAndNoGo { .. }) if binary.is_optional() => {
                    left_out(*binary, &error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(assets)
    }

    /// Returns the path of a program that is on this machine, without downloading or building it.
    pub fn find(binary: Binary) -> Option<PathBuf> {
        Some(Search::from_env().path(binary)).filter(|path| path.is_file())
    }

    /// Whether a program is there.
    pub fn has(&self, binary: Binary) -> bool {
        self.path(binary).is_file()
    }

    /// The path of a program. It exists if the program was asked for and [`has`](Self::has) says so.
    pub fn path(&self, binary: Binary) -> &Path {
        &self.paths[binary as usize]
    }

    /// The folders of kubectl and Helm.
    pub fn tool_folders(&self) -> Vec<&Path> {
        let tools = [Binary::Kubectl, Binary::Helm].into_iter().filter(|binary| self.has(*binary));
        tools.filter_map(|binary| self.path(binary).parent()).collect()
    }

    /// `PATH` with the folders of kubectl and Helm in front.
    pub fn search_path(&self) -> OsString {
        let before = env::var_os("PATH").unwrap_or_default();
        let folders = self.tool_folders().into_iter().map(Path::to_owned).chain(env::split_paths(&before));
        // A folder with a colon in its name cannot stand in PATH: then PATH stays unchanged.
        env::join_paths(folders).unwrap_or(before)
    }
}

/// Returns the path of a program that a test needs, or `None` if this machine cannot provide it.
///
/// Call it at the start of a test: `let Some(_) = require(Binary::Helm) else { return };`. The program is downloaded or
/// built if it is missing. `None` is reported on standard error as `LEFT OUT: …`.
///
/// # Panics
/// If `CI` is set and the program cannot be provided, and always if a build fails.
pub fn require(binary: Binary) -> Option<PathBuf> {
    match Assets::ensure(&[binary]) {
        Ok(assets) => Some(assets.path(binary).to_owned()),
        Err(error) if error.is_missing_go() => {
            let test = thread::current().name().unwrap_or("a test").to_owned();
            assert!(env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{test} needs {binary}: {error}");
            print(&format!("LEFT OUT: {test}: it needs {binary}: {error}\n"));
            None
        }
        Err(error) => panic!("{binary} cannot be provided: {error}"),
    }
}

/// Reports once in a process that a control plane runs without a program.
fn left_out(binary: Binary, error: &AssetsError) {
    use std::sync::{Mutex, PoisonError};
    static REPORTED: Mutex<Vec<Binary>> = Mutex::new(Vec::new());
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !reported.contains(&binary) {
        reported.push(binary);
        let effect = match binary {
            Binary::KubeControllerManager => "no garbage collection, and deleted namespaces stay",
            _ => "it is not on PATH",
        };
        print(&format!("LEFT OUT: {binary} ({effect}): {error}\n"));
    }
}

/// Where to look for programs, as the environment says.
struct Search {
    given: Option<PathBuf>,
    cache: Option<PathBuf>,
}

impl Search {
    fn from_env() -> Self {
        let given = env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty());
        // Absolute, because the components run in a folder of their own.
        let given = given.map(|folder| path::absolute(&folder).unwrap_or_else(|_| folder.into()));
        Self { given, cache: cache::folder() }
    }

    /// The path of a program, whether it is there or not.
    fn path(&self, binary: Binary) -> PathBuf {
        let given = self.given.as_ref().map(|folder| folder.join(binary.name())).filter(|path| path.is_file());
        let cached = || self.cache.as_ref().map(|cache| cache::path(binary, cache));
        given.or_else(cached).unwrap_or_default()
    }

    fn found(&self) -> Assets {
        Assets { paths: Binary::ALL.map(|binary| self.path(binary)) }
    }

    fn ensure(&self, binary: Binary) -> Result<PathBuf, AssetsError> {
        match (&self.given, &self.cache) {
            (Some(folder), _) if folder.join(binary.name()).is_file() => Ok(folder.join(binary.name())),
            (Some(folder), _) if binary.is_in_envtest() => {
                Err(AssetsError::NotInAssets { folder: folder.clone(), binary })
            }
            (given, Some(cache)) => cache::ensure(binary, cache).map_err(|error| match (error, given) {
                (AssetsError::NoGo { binary }, Some(folder)) => {
                    AssetsError::NotInAssetsAndNoGo { folder: folder.clone(), binary }
                }
                (error, _) => error,
            }),
            (_, None) => Err(AssetsError::NoCache),
        }
    }

    /// Prints what is missing and how long that takes, if it is more than one program: one reports itself.
    fn announce(&self, needed: &[Binary]) {
        let missing: Vec<_> = needed.iter().copied().filter(|binary| !self.path(*binary).is_file()).collect();
        // A folder of envtest programs without one of them is an error, not a build.
        let is_error = self.given.is_some() && missing.iter().any(|binary| binary.is_in_envtest());
        if missing.len() > 1 && !is_error {
            print(&plan(&missing, &Mirror::from_env()));
        }
    }
}

/// What will be downloaded and built, in one line each.
fn plan(missing: &[Binary], mirror: &Mirror) -> String {
    let (downloads, builds): (Vec<_>, Vec<_>) =
        missing.iter().copied().partition(|binary| sources::source(*binary, mirror).is_some());
    let names = |binaries: &[Binary]| {
        binaries.iter().map(|binary| format!("{binary} {}", binary.version())).collect::<Vec<_>>().join(", ")
    };
    let time = |binaries: &[Binary]| about(binaries.iter().map(|binary| binary.build_time()).sum());
    let mut lines = String::new();
    if !downloads.is_empty() {
        let (names, time) = (names(&downloads), time(&downloads));
        lines += &format!("to download: {names} (if that fails: to build, {time} on 2 cores)\n");
    }
    if !builds.is_empty() {
        lines += &format!("to build: {} ({} on 2 cores)\n", names(&builds), time(&builds));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{Assets, plan};
    use crate::{Binary, sources::Mirror};

    #[test]
    fn control_plane_and_ecosystem_are_all_programs() {
        let all: Vec<_> = Assets::CONTROL_PLANE.into_iter().chain(Assets::ECOSYSTEM).collect();
        assert_eq!(all, Binary::ALL);
    }

    #[test]
    fn plan_names_what_is_built_and_the_total_time() {
        let text = plan(&[Binary::KubeApiserver, Binary::Istiod, Binary::Krew], &Mirror::Off);
        let [api_server, istiod, krew] = [Binary::KubeApiserver, Binary::Istiod, Binary::Krew]
            .map(|binary| format!("{binary} {}", binary.version()));
        assert_eq!(text, format!("to build: {api_server}, {istiod}, {krew} (about 13 minutes on 2 cores)\n"));
    }

    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[test]
    fn plan_tells_downloads_from_builds() {
        let text = plan(&[Binary::Etcd, Binary::Istiod], &Mirror::Official);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("to download: etcd ") && lines[0].contains("about 1 minute on"), "{text}");
        assert!(lines[1].starts_with("to build: istiod ") && lines[1].contains("(about 6 minutes on"), "{text}");
    }
}
