//! Child processes that do not outlive this process.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{OnceLock, mpsc},
    thread,
};

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts `command` so that the kernel kills it when this process ends for any reason.
///
/// `PR_SET_PDEATHSIG` acts when the *thread* that forked ends. Test threads end long before their process, so a single
/// thread that lives as long as the process starts all children.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    die_with_parent(&mut command);
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in requests {
                // If the caller is gone, the child is dropped here and dies with the process.
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

/// Does the same as [`spawn`] in a new process group: Ctrl-C on the terminal reaches only this process, which then stops
/// its children in order.
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
        // If the parent died between fork and prctl, the signal will never come.
        if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
    };
    // SAFETY: between fork and exec, `arm` makes two system calls. It neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(arm);
    }
}

/// On other systems the janitor of the control plane's folder (see `home`) kills the processes.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}
