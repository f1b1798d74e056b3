//! A limit on how long something may take, which costs nothing where it is done at once.
//!
//! Most answers come from memory. It must not know what is limited.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use tokio::time::{error::Elapsed, timeout};

/// What comes of `task` within this time. No clock is read and no timer set for what is ready when it is first asked.
///
/// # Errors
/// If it takes longer.
pub async fn within<F: Future>(limit: Duration, task: F) -> Result<F::Output, Elapsed> {
    let mut task = pin!(task);
    match poll_fn(|cx| Poll::Ready(task.as_mut().poll(cx))).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => timeout(limit, task).await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_needs_no_time_and_what_is_not_is_given_up_when_its_time_is_over() {
        assert_eq!(within(Duration::ZERO, ready(1)).await.ok(), Some(1));
        let began = tokio::time::Instant::now();
        assert!(within(Duration::from_secs(10), pending::<()>()).await.is_err());
        assert_eq!(began.elapsed().as_secs(), 10);
        let later = async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            2
        };
        assert_eq!(within(Duration::from_secs(10), later).await.ok(), Some(2));
    }
}
