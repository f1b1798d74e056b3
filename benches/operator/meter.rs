//! CPU time of the API server, etcd, the operator and the benchmark, and of all other processes.

use std::{
    ops::Sub,
    time::{Duration, Instant},
};

use crate::proc::machine;
pub use crate::proc::{cores, cpu};

/// The processes whose CPU time is read.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// The process id of the API server.
    pub api_server: u32,
    /// The process id of etcd.
    pub etcd: u32,
    /// The process id of the operator, while it runs.
    pub operator: Option<u32>,
}

/// CPU times since the start of each process.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: Instant,
    machine: Duration,
    api_server: Duration,
    etcd: Duration,
    operator: Duration,
    bench: Duration,
}

/// The CPU times between two readings.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The time between the readings.
    pub took: Duration,
    /// The busy time of the machine, over all cores.
    machine: Duration,
    api_server: Duration,
    etcd: Duration,
    /// The CPU time of the operator.
    pub operator: Duration,
    /// The CPU time of this process.
    pub bench: Duration,
}

impl Meter {
    /// Reads all CPU times.
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
    /// The CPU time of the API server and etcd.
    pub fn control_plane(&self) -> Duration {
        self.api_server + self.etcd
    }

    /// The share of all cores that processes outside the benchmark took.
    pub fn others(&self) -> f64 {
        let known = self.api_server + self.etcd + self.operator + self.bench;
        let all = self.took.as_secs_f64() * cores() as f64;
        self.machine.saturating_sub(known).as_secs_f64() / all.max(f64::EPSILON)
    }
}

/// The peak resident memory of a process, in MiB.
pub fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    Ok(crate::proc::memory_kib(pid, "VmHWM")? / 1024.0)
}
