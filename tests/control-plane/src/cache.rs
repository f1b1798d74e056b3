//! The per-user cache of programs: each is downloaded or built once.
//!
//! A file under a program's own name is always complete: it is written under another name, then renamed. A lock on the
//! folder makes a second process wait for the first.

use std::{
    env,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    process,
    sync::LazyLock,
};

use crate::{
    AssetsError, Binary,
    download::{Downloader, Limits},
    go_build,
    progress::{Progress, print},
    sources::{self, Mirror, Source},
};

/// What the name of an unfinished file begins with.
const PARTIAL: &str = ".partial-";

/// The cache folder, `pat-operator/control-plane` in the user's cache, so that a fresh clone finds it.
pub(crate) fn folder() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("pat-operator/control-plane"))
}

/// The path of a program in the cache, whether it is there or not.
pub(crate) fn path(binary: Binary, cache: &Path) -> PathBuf {
    cache.join(binary.module().key()).join("bin").join(binary.name())
}

/// Returns the path of a program in the cache, after downloading or building it if it is missing.
pub(crate) fn ensure(binary: Binary, cache: &Path) -> Result<PathBuf, AssetsError> {
    static DOWNLOADER: LazyLock<Downloader> = LazyLock::new(|| Downloader::new(Limits::default()));
    install(binary, cache, &DOWNLOADER, sources::source(binary, &Mirror::from_env()).as_ref())
}

fn install(
    binary: Binary,
    cache: &Path,
    downloader: &Downloader,
    source: Option<&Source>,
) -> Result<PathBuf, AssetsError> {
    let program = path(binary, cache);
    if program.is_file() {
        return Ok(program);
    }
    let folder = cache.join(binary.module().key());
    let failed = |action| {
        let folder = folder.clone();
        move |source| AssetsError::Io { action, folder, source }
    };
    let programs = folder.join("bin");
    fs::create_dir_all(&programs).map_err(failed("make a folder"))?;
    // Held until this function returns; the kernel releases it if the process is killed.
    let _lock = lock(&folder, binary).map_err(failed("take the lock"))?;
    if program.is_file() {
        return Ok(program);
    }
    remove_partial(&programs).map_err(failed("remove an unfinished file"))?;
    let partial = program.with_file_name(format!("{PARTIAL}{}-{}", binary.name(), process::id()));
    if !download(binary, downloader, source, &partial) {
        remove_partial(&programs).map_err(failed("remove an unfinished file"))?;
        go_build::build(binary, &folder.join("src"), &partial)?;
    }
    File::open(&partial).and_then(|file| file.sync_all()).map_err(failed("write the program"))?;
    fs::rename(&partial, &program).map_err(failed("rename the program"))?;
    Ok(program)
}

/// Downloads a program if it has a source. Prints why, if that fails.
fn download(binary: Binary, downloader: &Downloader, source: Option<&Source>, output: &Path) -> bool {
    let Some(source) = source else { return false };
    let label = format!("{binary} {}", binary.version());
    match downloader.fetch(&label, source, output) {
        Ok(()) => true,
        Err(error) => {
            print(&format!("cannot download {label}, falling back to a Go build: {error}\n"));
            false
        }
    }
}

/// Takes the lock on a module's folder, and reports if that means waiting.
fn lock(folder: &Path, binary: Binary) -> io::Result<File> {
    let file = File::create(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let waiting = Progress::begin(format!("waiting for another process that downloads or builds {binary}"));
            file.lock()?;
            waiting.done("it finished");
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(file)
}

/// Removes what a killed process has left. The caller holds the lock, so no other process is writing there.
fn remove_partial(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
