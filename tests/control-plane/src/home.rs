//! The temporary folder of a control plane, and the janitor process that removes it.
//!
//! A destructor is not enough: statics are never dropped, and `kill -9` runs none.

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Waits for the end of its input, which comes when the owner drops it or dies, then removes the folder.
///
/// It kills the processes first, so that nothing writes into the folder meanwhile. On Linux the kernel has killed them.
const JANITOR: &str = r#"
trap '' INT TERM HUP
read -r _
for file in "$1"/*.pid; do
    [ -f "$file" ] && kill -9 "$(cat "$file")"
done
rm -rf "$1"
"#;

/// A folder that is removed on drop, on exit and after a `kill -9` of this process.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    janitor: Child,
}

impl Home {
    /// Creates a folder that only this user can read.
    pub(crate) fn create() -> io::Result<Self> {
        let path = tempfile::Builder::new().prefix("pat-control-plane-").tempdir()?.keep();
        let janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&path)
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { path, janitor })
    }

    /// The path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}
