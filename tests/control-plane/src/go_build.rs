//! Builds a program from its pinned Go module into the cache, once.
//!
//! For: `assets`. What stands under a program's own name is always a whole build: it is built under another name and
//! renamed; a lock makes a second builder wait for the first.
//! Must not know where the cache is.

use std::{
    env,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use crate::{AssetsError, Binary, process::tail, progress::Progress, spawn};

/// A Go module whose `go.mod` pins a program. Its files are part of this crate: the cache needs no checkout.
///
/// To move to another version, edit `go.mod` (for Kubernetes also its `replace` lines), then run `go mod tidy` there.
pub(crate) struct Module {
    name: &'static str,
    path: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    /// The program itself, if it is our own and not the module's.
    main_go: Option<&'static str>,
}

/// The module in the folder of this name, which pins the program at this path; with `main.go` it has the program itself.
macro_rules! module {
    ($name:literal, $path:literal) => {
        module!($name, $path, None)
    };
    ($name:literal, $path:literal, "main.go") => {
        module!($name, $path, Some(include_str!(concat!("../go/", $name, "/main.go"))))
    };
    ($name:literal, $path:literal, $main_go:expr) => {
        Module {
            name: $name,
            path: $path,
            go_mod: include_str!(concat!("../go/", $name, "/go.mod")),
            go_sum: include_str!(concat!("../go/", $name, "/go.sum")),
            main_go: $main_go,
        }
    };
}

pub(crate) static ETCD: Module = module!("etcd", "go.etcd.io/etcd/server/v3");
pub(crate) static KUBERNETES: Module = module!("kubernetes", "k8s.io/kubernetes");
pub(crate) static HELM: Module = module!("helm", "helm.sh/helm/v4");
pub(crate) static FLUX_VERDICT: Module = module!("flux-verdict", "github.com/fluxcd/pkg/runtime", "main.go");
pub(crate) static ARGOCD_VERDICT: Module = module!("argocd-verdict", "github.com/argoproj/argo-cd/v3", "main.go");
pub(crate) static ISTIOD: Module = module!("istiod", "istio.io/istio", "main.go");
pub(crate) static KREW: Module = module!("krew", "sigs.k8s.io/krew");
pub(crate) static SEALED_SECRETS: Module = module!("sealed-secrets", "github.com/bitnami/sealed-secrets");
pub(crate) static SOPS: Module = module!("sops", "github.com/getsops/sops/v3");
pub(crate) static AGE: Module = module!("age", "filippo.io/age");
pub(crate) static VELERO: Module = module!("velero", "github.com/vmware-tanzu/velero", "main.go");

impl Module {
    /// The version that `go.mod` requires, such as `v1.36.3`.
    pub(crate) fn version(&self) -> &'static str {
        let required = |line: &'static str| {
            let line = line.trim().strip_prefix("require ").unwrap_or(line.trim());
            line.strip_prefix(self.path)?.strip_prefix(' ')?.split_whitespace().next()
        };
        self.go_mod.lines().find_map(|line| required(line).filter(|word| word.starts_with('v'))).unwrap_or("unpinned")
    }

    /// The linker flags: no symbols, and for Kubernetes the version that it reports.
    fn linker_flags(&self) -> String {
        let version = self.version();
        let mut parts = version.trim_start_matches('v').split('.');
        match (self.name, parts.next(), parts.next()) {
            ("kubernetes", Some(major), Some(minor)) => format!(
                "-s -w -X k8s.io/component-base/version.gitVersion={version} -X \
                 k8s.io/component-base/version.gitMajor={major} -X k8s.io/component-base/version.gitMinor={minor}"
            ),
            _ => "-s -w".to_owned(),
        }
    }

    /// The folder's name: the version for people, and a hash of everything that decides what is built.
    fn key(&self) -> String {
        let flags = self.linker_flags();
        let mut parts = vec![self.go_mod, self.go_sum, &flags, env::consts::OS, env::consts::ARCH];
        parts.extend(self.main_go);
        format!("{}-{}-{:08x}", self.name, self.version(), fnv1a(&parts))
    }
}

/// Where a program is, or would be.
pub(crate) fn place(binary: Binary, cache: &Path) -> PathBuf {
    cache.join(binary.module().key()).join("bin").join(binary.name())
}

/// Makes sure that a program is in the cache and says where.
pub(crate) fn ensure(binary: Binary, cache: &Path) -> Result<PathBuf, AssetsError> {
    let program = place(binary, cache);
    if program.is_file() {
        return Ok(program);
    }
    let folder = cache.join(binary.module().key());
    let failed = |action| {
        let folder = folder.clone();
        move |source| AssetsError::Io { action, folder, source }
    };
    fs::create_dir_all(folder.join("bin")).map_err(failed("make a folder"))?;
    // Held until the end of this function, and let go by the kernel if we are killed.
    let _lock = lock(&folder, binary).map_err(failed("take the lock"))?;
    if program.is_file() {
        return Ok(program);
    }
    sweep(&folder.join("bin")).map_err(failed("remove a half-finished build"))?;
    let source = folder.join("src");
    fs::create_dir_all(&source).map_err(failed("make a folder"))?;
    fs::write(source.join("go.mod"), binary.module().go_mod).map_err(failed("write go.mod"))?;
    fs::write(source.join("go.sum"), binary.module().go_sum).map_err(failed("write go.sum"))?;
    if let Some(main_go) = binary.module().main_go {
        fs::write(source.join("main.go"), main_go).map_err(failed("write main.go"))?;
    }

    let partial = program.with_file_name(format!("{PARTIAL}{}-{}", binary.name(), process::id()));
    build(binary, &source, &partial)?;
    File::open(&partial).and_then(|file| file.sync_all()).map_err(failed("write the program"))?;
    fs::rename(&partial, &program).map_err(failed("name the program"))?;
    Ok(program)
}

/// What the name of an unfinished build begins with.
const PARTIAL: &str = ".partial-";

/// Takes the lock on a module's folder; says so if that means waiting.
fn lock(folder: &Path, binary: Binary) -> io::Result<File> {
    let file = File::create(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let waiting = Progress::begin(format!("waiting for {binary}, which somebody else is building"));
            file.lock()?;
            waiting.done("their build has ended");
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(file)
}

/// Removes what a killed build left; we hold the lock, so nobody is building there.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn build(binary: Binary, source: &Path, output: &Path) -> Result<(), AssetsError> {
    let log = source.join(binary.name()).with_extension("log");
    let failed = |action| move |error| AssetsError::Io { action, folder: source.to_owned(), source: error };
    let said = File::create(&log).map_err(failed("write a log"))?;
    let mut go = Command::new("go");
    go.current_dir(source)
        .args(["build", "-trimpath", "-mod=readonly", "-ldflags", &binary.module().linker_flags()])
        .arg("-o")
        .arg(output)
        .arg(binary.package())
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(said.try_clone().map_err(failed("write a log"))?)
        .stderr(said);
    let mut child = match spawn::spawn(go) {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AssetsError::NoGo { binary }),
        Err(error) => return Err(failed("start go")(error)),
    };
    let text = format!("building {binary} {} ({}, once)", binary.version(), binary.first_build());
    let progress = Progress::begin(text);
    let status = child.wait().map_err(failed("wait for go"))?;
    if !status.success() {
        progress.done("failed");
        return Err(AssetsError::Build { binary, status, output: tail(&log) });
    }
    progress.done("done");
    Ok(())
}

/// FNV-1a: stable across Rust releases, which the standard library's hasher does not promise to be.
fn fnv1a(parts: &[&str]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::{ETCD, KUBERNETES};
    use crate::Binary;

    #[test]
    fn each_module_pins_a_version_and_its_folder_is_named_after_it() {
        for module in Binary::ALL.map(Binary::module) {
            assert!(module.version().split('.').count() == 3, "{} {}", module.name, module.version());
            assert!(module.key().starts_with(&format!("{}-{}-", module.name, module.version())));
        }
    }

    #[test]
    fn kubernetes_is_told_the_version_that_it_is() {
        let version = KUBERNETES.version();
        assert!(KUBERNETES.linker_flags().contains(&format!("version.gitVersion={version} ")));
        assert_eq!(ETCD.linker_flags(), "-s -w");
    }
}
