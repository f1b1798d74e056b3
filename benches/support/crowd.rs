//! A fixed number of workers that share a list of items, like the operator's workers.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::task::JoinSet;

use crate::progress::Progress;

/// The number of requests in flight. It is the operator's default.
pub const CONCURRENCY: usize = 32;

/// Runs `work` for each item, [`CONCURRENCY`] at a time. Returns the results in the order of the items, or the first error.
pub async fn each<T, R, F, Fut>(items: Vec<T>, progress: &Progress, work: F) -> anyhow::Result<Vec<R>>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Fn(T) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = anyhow::Result<R>> + Send,
{
    let count = items.len();
    let queue = Arc::new(Mutex::new(items.into_iter().enumerate()));
    let mut workers = JoinSet::new();
    for _ in 0..CONCURRENCY.min(count) {
        let (queue, work, progress) = (queue.clone(), work.clone(), progress.clone());
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, item)) = next else { return anyhow::Ok(done) };
                done.push((index, work(item).await?));
                progress.step();
            }
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(done) = workers.join_next().await {
        all.extend(done??);
    }
    all.sort_unstable_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, answer)| answer).collect())
}
