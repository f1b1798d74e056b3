//! Builds a program from its pinned Go module.

use std::{
    env,
    fs::{self, File},
    io,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    AssetsError, Binary,
    process::tail,
    progress::{Progress, about},
    spawn,
};

/// A Go module whose `go.mod` pins a program. Its files are compiled into this crate: the cache needs no checkout.
///
/// To move to another version, edit `go.mod` (for Kubernetes also its `replace` lines), then run `go mod tidy` there.
/// If [`sources`](crate::sources) has digests for the program, change them too.
pub(crate) struct Module {
    name: &'static str,
    path: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    /// The source of the program, if it is our own and not the module's.
    main_go: Option<&'static str>,
}

/// The module in `go/<name>`, which pins the module path; with `"main.go"` it has a program of our own.
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
pub(crate) static GITEA: Module = module!("gitea", "code.gitea.io/gitea");
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

    /// The build tags: for Gitea its database.
    fn tags(&self) -> &'static str {
        if self.name == "gitea" { "sqlite,sqlite_unlock_notify" } else { "" }
    }

    /// The linker flags: no symbols, and for Kubernetes and Gitea the version that they report.
    fn linker_flags(&self) -> String {
        let version = self.version();
        let mut parts = version.trim_start_matches('v').split('.');
        match (self.name, parts.next(), parts.next()) {
            ("kubernetes", Some(major), Some(minor)) => format!(
                "-s -w -X k8s.io/component-base/version.gitVersion={version} -X \
                 k8s.io/component-base/version.gitMajor={major} -X k8s.io/component-base/version.gitMinor={minor}"
            ),
            ("gitea", ..) => format!("-s -w -X main.Version={}", version.trim_start_matches('v')),
            _ => "-s -w".to_owned(),
        }
    }

    /// The name of the cache folder: the version for people, and a hash of everything that the build depends on.
    pub(crate) fn key(&self) -> String {
        let flags = self.linker_flags();
        let mut parts = vec![self.go_mod, self.go_sum, &flags, env::consts::OS, env::consts::ARCH];
        parts.extend(self.main_go);
        parts.extend(Some(self.tags()).filter(|tags| !tags.is_empty()));
        format!("{}-{}-{:08x}", self.name, self.version(), fnv1a(&parts))
    }
}

/// Builds a program in the folder `source` and writes it to `output`.
pub(crate) fn build(binary: Binary, source: &Path, output: &Path) -> Result<(), AssetsError> {
    let failed = |action| move |error| AssetsError::Io { action, folder: source.to_owned(), source: error };
    write_module(binary.module(), source).map_err(failed("write the Go module"))?;
    let log_path = source.join(binary.name()).with_extension("log");
    let log = File::create(&log_path).map_err(failed("write a log"))?;
    let mut go = Command::new("go");
    go.current_dir(source)
        .args(["build", "-trimpath", "-mod=readonly", "-ldflags", &binary.module().linker_flags()])
        .args(["-tags", binary.module().tags()])
        .arg("-o")
        .arg(output)
        .arg(binary.package())
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed("write a log"))?)
        .stderr(log);
    let mut child = match spawn::spawn(go) {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AssetsError::NoGo { binary }),
        Err(error) => return Err(failed("start go")(error)),
    };
    let text = format!("building {binary} {} ({}, once)", binary.version(), about(binary.build_time()));
    let progress = Progress::begin(text);
    let status = child.wait().map_err(failed("wait for go"))?;
    if !status.success() {
        progress.done("failed");
        return Err(AssetsError::Build { binary, status, output: tail(&log_path) });
    }
    progress.done("done");
    Ok(())
}

fn write_module(module: &Module, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("go.mod"), module.go_mod)?;
    fs::write(folder.join("go.sum"), module.go_sum)?;
    module.main_go.map_or(Ok(()), |main_go| fs::write(folder.join("main.go"), main_go))
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
    fn module_folder_is_named_after_the_pinned_version() {
        for module in Binary::ALL.map(Binary::module) {
            assert!(module.version().split('.').count() == 3, "{} {}", module.name, module.version());
            assert!(module.key().starts_with(&format!("{}-{}-", module.name, module.version())));
        }
    }

    #[test]
    fn kubernetes_reports_the_pinned_version() {
        let version = KUBERNETES.version();
        assert!(KUBERNETES.linker_flags().contains(&format!("version.gitVersion={version} ")));
        assert_eq!(ETCD.linker_flags(), "-s -w");
    }
}
