//! Readiness: a fixed list of named gates, each open or closed with a reason.
//!
//! `/readyz?verbose` lists every gate with its reason, as Kubernetes components do. `tower-health` and `kubert` do not
//! support that.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

/// One condition of readiness. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct ReadinessGate {
    name: &'static str,
    state: Arc<Mutex<GateState>>,
}

#[derive(Clone, Debug)]
struct GateState {
    passed: bool,
    detail: String,
}

impl ReadinessGate {
    /// Creates a closed gate with the reason.
    pub fn closed(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, state: Arc::new(Mutex::new(GateState { passed: false, detail: why.into() })) }
    }

    /// Returns the name in `/readyz`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Opens the gate. `detail` may be empty.
    pub fn pass(&self, detail: impl Into<String>) {
        self.set(true, detail.into());
    }

    /// Closes the gate with the reason.
    pub fn fail(&self, why: impl Into<String>) {
        self.set(false, why.into());
    }

    fn set(&self, passed: bool, detail: String) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = GateState { passed, detail };
    }

    fn read(&self) -> GateState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type NoteFn = Arc<dyn Fn() -> String + Send + Sync>;
type CheckFn = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// The gates and checks of a program, and notes in `/readyz` that do not affect readiness.
#[derive(Clone, Default)]
pub struct Readiness {
    gates: Vec<ReadinessGate>,
    checks: Vec<(&'static str, CheckFn)>,
    notes: Vec<(&'static str, NoteFn)>,
}

impl Readiness {
    /// Creates a readiness that requires all of these gates to be open.
    pub fn new(gates: impl IntoIterator<Item = ReadinessGate>) -> Self {
        Self { gates: gates.into_iter().collect(), ..Self::default() }
    }

    /// Adds a condition that is evaluated for each report; both results carry a detail.
    #[must_use]
    pub fn with_check(
        mut self,
        name: &'static str,
        check: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push((name, Arc::new(check)));
        self
    }

    /// Adds a note that is evaluated for each report.
    #[must_use]
    pub fn with_note(mut self, name: &'static str, note: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.notes.push((name, Arc::new(note)));
        self
    }

    /// Evaluates every gate, check and note once.
    pub fn report(&self) -> ReadinessReport {
        let mut lines = String::new();
        let mut ready = true;
        for gate in &self.gates {
            let GateState { passed, detail } = gate.read();
            ready &= passed;
            line(&mut lines, passed, gate.name, &detail);
        }
        for (name, check) in &self.checks {
            let found = check();
            ready &= found.is_ok();
            line(&mut lines, found.is_ok(), name, found.as_ref().unwrap_or_else(|why| why));
        }
        for (name, note) in &self.notes {
            line(&mut lines, true, name, &note());
        }
        ReadinessReport { ready, lines }
    }
}

/// The result of [`Readiness::report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessReport {
    /// Whether the program is ready.
    pub ready: bool,
    /// One line for each, in the format of Kubernetes: `[+]caches ok`, `[-]crd not ready: …`.
    pub lines: String,
}

fn line(lines: &mut String, passed: bool, name: &str, detail: &str) {
    let sign = if passed { '+' } else { '-' };
    let verdict = match (passed, detail.is_empty()) {
        (true, true) => "ok",
        (true, false) => "ok: ",
        (false, true) => "not ready",
        (false, false) => "not ready: ",
    };
    // A detail may be an error message of several lines.
    let detail = detail.replace(['\n', '\r'], " ");
    let _infallible = writeln!(lines, "[{sign}]{name} {verdict}{detail}");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn readiness_needs_all_gates_and_checks_but_no_note() {
        let (crd, caches) = (ReadinessGate::closed("crd", "not looked yet"), ReadinessGate::closed("caches", ""));
        let readiness =
            Readiness::new([crd.clone(), caches.clone()]).with_note("lease", || "standby: a leads".to_owned());
        let report = |readiness: &Readiness| {
            let ReadinessReport { ready, lines } = readiness.report();
            (ready, lines)
        };
        let first = "[-]crd not ready: not looked yet\n[-]caches not ready\n[+]lease ok: standby: a leads\n";
        assert_eq!(report(&readiness), (false, first.to_owned()));
        crd.pass("v1alpha1");
        assert!(!readiness.report().ready);
        caches.pass("");
        let then = "[+]crd ok: v1alpha1\n[+]caches ok\n[+]lease ok: standby: a leads\n";
        assert_eq!(report(&readiness), (true, then.to_owned()));
        let asked = AtomicUsize::new(0);
        let readiness = readiness.with_check("freshness", move || match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Err("lost".to_owned()),
            _ => Ok("fresh".to_owned()),
        });
        let (ready, lines) = report(&readiness);
        assert!(!ready && lines.contains("[-]freshness not ready: lost\n"), "{lines}");
        let (ready, lines) = report(&readiness);
        assert!(ready && lines.contains("[+]freshness ok: fresh\n"), "{lines}");
        crd.fail("deleted\nby a user");
        assert_eq!(report(&readiness).1.lines().next(), Some("[-]crd not ready: deleted by a user"));
    }
}
