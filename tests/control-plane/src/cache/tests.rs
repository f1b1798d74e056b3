use std::{
    error::Error,
    fs,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::{install, path};
use crate::{
    Binary,
    download::{Downloader, Limits},
    server::{Reply, Server},
    sources::Source,
};

const FILE: &[u8] = b"a program";

fn source(server: &Server) -> Source {
    let sha256 = Sha256::digest(FILE).iter().map(|byte| format!("{byte:02x}")).collect();
    Source { url: format!("{}/kubectl", server.url()), member: None, sha256 }
}

fn names(folder: &Path) -> Result<Vec<String>, std::io::Error> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[test]
fn downloaded_program_is_kept_in_the_cache() -> Result<(), Box<dyn Error>> {
    let server = Server::start(|_| Reply::File(FILE.to_owned()))?;
    let cache = tempfile::tempdir()?;
    let downloader = Downloader::new(Limits::default());
    for _ in 0..2 {
        let program = install(Binary::Kubectl, cache.path(), &downloader, Some(&source(&server)))?;
        assert_eq!(program, path(Binary::Kubectl, cache.path()));
        assert_eq!(fs::read(&program)?, FILE);
        assert_eq!(names(program.parent().ok_or("a folder")?)?, ["kubectl"]);
    }
    assert_eq!(server.requests().len(), 1);
    Ok(())
}

#[test]
fn two_at_once_download_once() -> Result<(), Box<dyn Error>> {
    let (open, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let server = Server::start(move |_| {
        let _ = gate.lock().map(|gate| gate.recv());
        Reply::File(FILE.to_owned())
    })?;
    let cache = tempfile::tempdir()?;
    let source = source(&server);
    // Each has its own downloader, as two processes have.
    let install_once = || install(Binary::Kubectl, cache.path(), &Downloader::new(Limits::default()), Some(&source));
    thread::scope(|scope| {
        let first = scope.spawn(install_once);
        let begin = Instant::now();
        while server.requests().is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(30), "the first does not download");
            thread::yield_now();
        }
        let (started, second_started) = mpsc::channel();
        let second = scope.spawn(move || {
            started.send(()).expect("the test waits for it");
            install_once()
        });
        second_started.recv()?;
        open.send(())?;
        let programs = [first, second].map(|thread| thread.join().expect("no panic"));
        for program in programs {
            assert_eq!(fs::read(program?)?, FILE);
        }
        assert_eq!(server.requests().len(), 1);
        Ok(())
    })
}
