//! A terminal: a pseudo-terminal with a program on it, read and typed to as a person does.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    pty,
    termios::{LocalModes, tcgetattr},
};

use crate::support::process::SOON;

/// See the module. The program dies with it.
pub struct Terminal {
    master: File,
    child: Child,
    shown: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// A program on a terminal of its own, which is its controlling one, so that /dev/tty is it as well.
    pub fn run(command: &Command) -> Self {
        let master = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        pty::grantpt(&master).expect("it is ours");
        pty::unlockpt(&master).expect("it is open");
        let name = pty::ptsname(&master, Vec::new()).expect("it has a name");
        let slave = || -> OwnedFd {
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side")
        };
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        session.stdin(slave()).stdout(slave()).stderr(slave());
        let child = session.spawn().expect("setsid, of util-linux, starts");
        // The command holds the other side open, and its end would not be seen.
        drop(session);
        let master = File::from(master);
        let shown = Arc::<Mutex<String>>::default();
        let (mut from, into) = (master.try_clone().expect("a second handle"), shown.clone());
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It ends with an error when the program has gone.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                into.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { master, child, shown, reader: Some(reader) }
    }

    /// All that stands there.
    pub fn shown(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this stands there.
    pub fn shows(&self, text: &str) {
        self.until(&format!("{text:?} is shown"), || self.shown().contains(text));
    }

    /// Waits until what is typed is not shown.
    pub fn hides(&self) {
        self.until("what is typed is hidden", || {
            !tcgetattr(&self.master).expect("a terminal").local_modes.contains(LocalModes::ECHO)
        });
    }

    /// Types a line.
    pub fn types(&mut self, line: &str) {
        self.press(&format!("{line}\n"));
    }

    /// Presses keys, and waits until all of this stands there since.
    pub fn answers(&mut self, keys: &str, texts: &[&str]) {
        let before = self.shown().len();
        self.press(keys);
        self.until(&format!("{keys:?} is answered by {texts:?}"), || {
            let shown = self.shown();
            texts.iter().all(|text| shown[before..].contains(text))
        });
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("it is typed");
    }

    /// Waits for its end; the exit code, and all that was shown.
    pub fn ends(mut self) -> (i32, String) {
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.shown());
            std::thread::sleep(Duration::from_millis(10));
        };
        self.reader.take().expect("it reads").join().expect("it is read to the end");
        (status.code().unwrap_or(-1), self.shown())
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < deadline, "not in time: {what}; shown: {}", self.shown());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
