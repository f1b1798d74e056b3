//! Workers that share the cases of a matrix.

use std::sync::Mutex;

/// Runs each case once, the last one first, in several workers at a time. Each worker opens a scene of its own, and closes it at the end.
/// Returns the failures of all cases, and what closing the scenes returned.
pub async fn run_cases<C, S, R>(
    workers: usize,
    cases: Vec<C>,
    open: impl AsyncFn(usize) -> S,
    run: impl AsyncFn(&mut S, C) -> Vec<String>,
    close: impl AsyncFn(S) -> R,
) -> (Vec<String>, Vec<R>) {
    let cases = Mutex::new(cases);
    let next = || cases.lock().expect("the lock is not poisoned").pop();
    let worker = async |number: usize| {
        let mut scene = open(number).await;
        let mut failures = Vec::new();
        while let Some(case) = next() {
            failures.extend(run(&mut scene, case).await);
        }
        (failures, close(scene).await)
    };
    let (failures, closed): (Vec<_>, _) = futures::future::join_all((0..workers).map(worker)).await.into_iter().unzip();
    (failures.into_iter().flatten().collect(), closed)
}
