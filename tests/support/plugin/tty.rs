//! A pseudo-terminal that runs a program, reads its output and types to it.

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
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::support::process::SOON;

/// A pseudo-terminal with a program. Dropping it kills the program.
pub struct Terminal {
    master: File,
    child: Child,
    shown: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Runs a program on a new controlling terminal, so that /dev/tty works too.
    pub fn run(command: &Command) -> Self {
        Self::run_in(command, 0)
    }

    /// The same, on a terminal with this many columns; 0 if it does not tell.
    pub fn run_in(command: &Command, columns: u16) -> Self {
        let master = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        pty::grantpt(&master).expect("the slave is accessible");
        pty::unlockpt(&master).expect("the slave is unlocked");
        let size = Winsize { ws_row: 0, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("the terminal has a size");
        let name = pty::ptsname(&master, Vec::new()).expect("the slave has a name");
        let slave = || -> OwnedFd {
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("the slave opens")
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
        // The command keeps the slave open, which would hide the end of the program.
        drop(session);
        let master = File::from(master);
        let shown = Arc::<Mutex<String>>::default();
        let (mut from, into) = (master.try_clone().expect("a second handle"), shown.clone());
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The read fails when the program has ended.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                into.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { master, child, shown, reader: Some(reader) }
    }

    /// All output so far.
    pub fn shown(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for this text in the output.
    pub fn shows(&self, text: &str) {
        self.until(&format!("{text:?} is shown"), || self.shown().contains(text));
    }

    /// Waits until the program turns off echo.
    pub fn hides(&self) {
        self.until("echo is off", || {
            !tcgetattr(&self.master).expect("a terminal").local_modes.contains(LocalModes::ECHO)
        });
    }

    /// Types a line.
    pub fn types(&mut self, line: &str) {
        self.press(&format!("{line}\n"));
    }

    /// Presses keys, and waits for all of these texts in the new output.
    pub fn answers(&mut self, keys: &str, texts: &[&str]) {
        let before = self.shown().len();
        self.press(keys);
        self.until(&format!("{keys:?} is answered by {texts:?}"), || {
            let shown = self.shown();
            texts.iter().all(|text| shown[before..].contains(text))
        });
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the keys are written");
    }

    /// Waits for the end of the program. Returns the exit code and all output.
    pub fn ends(mut self) -> (i32, String) {
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the status is available") {
                break status;
            }
            assert!(Instant::now() < deadline, "the program does not end: {}", self.shown());
            std::thread::sleep(Duration::from_millis(10));
        };
        self.reader.take().expect("a reader").join().expect("the reader ends");
        (status.code().unwrap_or(-1), self.shown())
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < deadline, "timeout: {what}; output: {}", self.shown());
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
