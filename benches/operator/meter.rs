//! CPU time and memory of processes, as `/proc` tells them.
//!
//! Must not know whose processes they are.

use std::{
    fs,
    ops::Sub,
    time::{Duration, Instant},
};

use anyhow::Context;

/// `USER_HZ`: 100 on every Linux, see time(7).
const TICK: Duration = Duration::from_millis(10);

/// Whose CPU time to read.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// The process id of the API server.
    pub api_server: u32,
    /// The process id of etcd.
    pub etcd: u32,
    /// The process id of the operator, while it runs.
    pub operator: Option<u32>,
}

/// CPU times, since each process began.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: Instant,
    machine: Duration,
    api_server: Duration,
    etcd: Duration,
    operator: Duration,
    bench: Duration,
}

/// CPU times between two readings.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// How long it was.
    pub took: Duration,
    /// The whole machine's busy time, over all cores.
    machine: Duration,
    api_server: Duration,
    etcd: Duration,
    /// The operator's part.
    pub operator: Duration,
    /// This process's part.
    pub bench: Duration,
}

impl Meter {
    /// Reads all of them.
    pub fn read(&self) -> anyhow::Result<Reading> {
        Ok(Reading {
            at: Instant::now(),
            machine: machine()?,
            api_server: cpu(self.api_server)?,
            etcd: cpu(self.etcd)?,
            operator: self.operator.map_or(Ok(Duration::ZERO), cpu)?,
            bench: cpu(std::process::id())?,
        })
    }
}

impl Sub for Reading {
    type Output = Span;

    fn sub(self, earlier: Self) -> Span {
        Span {
            took: self.at.saturating_duration_since(earlier.at),
            machine: self.machine.saturating_sub(earlier.machine),
            api_server: self.api_server.saturating_sub(earlier.api_server),
            etcd: self.etcd.saturating_sub(earlier.etcd),
            operator: self.operator.saturating_sub(earlier.operator),
            bench: self.bench.saturating_sub(earlier.bench),
        }
    }
}

impl Span {
    /// The API server's and etcd's part.
    pub fn control_plane(&self) -> Duration {
        self.api_server + self.etcd
    }

    /// The share of all cores that went to processes which have nothing to do with the bench.
    pub fn others(&self) -> f64 {
        let known = self.api_server + self.etcd + self.operator + self.bench;
        let all = self.took.as_secs_f64() * cores() as f64;
        self.machine.saturating_sub(known).as_secs_f64() / all.max(f64::EPSILON)
    }
}

/// How many cores there are.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The CPU time that a process has taken, in user mode and in the kernel.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = read(pid, "stat")?;
    // The second field is the program's name in brackets, and may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let ticks = |index: usize| fields.as_ref()?.get(index)?.parse::<u32>().ok();
    let (user, system) = ticks(11).zip(ticks(12)).context("/proc/PID/stat has another form than expected")?;
    Ok(TICK * (user + system))
}

/// The most memory that a process has ever had resident, in MiB.
pub fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.context("/proc/PID/status has no VmHWM")? / 1024.0)
}

/// The busy time of the whole machine, over all cores.
fn machine() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("this bench reads /proc: run it on Linux")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u32> = line.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let idle = ticks.iter().skip(3).take(2).sum::<u32>();
    let all = ticks.iter().take(8).sum::<u32>();
    Ok(TICK * all.saturating_sub(idle))
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("cannot read /proc/{pid}/{file}: has that process ended?"))
}
