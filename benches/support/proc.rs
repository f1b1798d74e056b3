//! CPU time and memory of processes, from `/proc`.

use std::{fs, time::Duration};

use anyhow::Context;

/// `USER_HZ`: 100 on every Linux, see time(7).
const TICK: Duration = Duration::from_millis(10);

/// The number of cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The CPU time of a process, in user mode and in the kernel.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = read(pid, "stat")?;
    // The second field is the program's name in parentheses, which may contain any character.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let ticks = |index: usize| fields.as_ref()?.get(index)?.parse::<u32>().ok();
    let (user, system) = ticks(11).zip(ticks(12)).context("/proc/PID/stat has an unexpected format")?;
    Ok(TICK * (user + system))
}

/// A field of `/proc/PID/status` in kB: `VmRSS` is the resident memory of a process, and `VmHWM` its peak.
pub fn memory_kib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.with_context(|| format!("/proc/PID/status has no {field}"))
}

/// The busy time of the machine, over all cores.
pub fn machine() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("the benchmark reads /proc; run it on Linux")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u32> = line.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let idle = ticks.iter().skip(3).take(2).sum::<u32>();
    let all = ticks.iter().take(8).sum::<u32>();
    Ok(TICK * all.saturating_sub(idle))
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("cannot read /proc/{pid}/{file}: has the process exited?"))
}
