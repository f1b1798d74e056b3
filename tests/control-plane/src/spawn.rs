//! Starts child processes that cannot outlive this one.
//!
//! For: every process this crate starts, `go build` included.
//! Must not know what the processes are.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{OnceLock, mpsc},
    thread,
};

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts `command` so that the kernel kills it when this process ends, however it ends.
///
/// The kernel's promise (`PR_SET_PDEATHSIG`) is tied to the *thread* that forked. Test threads end long before their
/// process does, so one thread, which lives as long as the process, does all the spawning.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    die_with_parent(&mut command);
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in requests {
                // Nobody may be waiting any more; then the child is dropped here, and dies with the process.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let gone = || io::Error::other("the thread that starts processes has ended");
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// As [`spawn`], in a process group of its own: a Ctrl-C at the terminal reaches only us, and we decide the order.
pub(crate) fn spawn_apart(mut command: Command) -> io::Result<Child> {
    command.process_group(0);
    spawn(command)
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "`pre_exec` is the only way to call prctl in the child; see SAFETY")]
fn die_with_parent(command: &mut Command) {
    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

    let parent = getpid();
    let arm = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died between fork and prctl: then no signal will ever come.
        if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
    };
    // SAFETY: between fork and exec `arm` makes two system calls; it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(arm);
    }
}

/// Elsewhere the janitor of the control plane's folder (see `home`) does the killing.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}
