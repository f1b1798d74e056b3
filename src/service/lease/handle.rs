//! A handle that shows whether this instance leads.
//!
//! The role of a leader carries its end, which every reader compares with the current time. So a process that was paused past its lease
//! starts no new work, even before its elector runs again.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::{sync::watch, time::sleep};

use super::super::clock::uptime;

/// The role of this instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ElectionRole {
    /// Another instance leads, if any.
    Standby { holder: Option<String> },
    /// This instance leads until `until`, by [`uptime`]. A term is an uninterrupted time of leading.
    Leading { since: Timestamp, until: Duration, term: u64 },
}

impl ElectionRole {
    /// Returns the term in which it leads at `now`, and the time left.
    fn leading_at(&self, now: Duration) -> Option<(u64, Duration)> {
        match *self {
            Self::Leading { term, until, .. } if now < until => Some((term, until - now)),
            _ => None,
        }
    }
}

/// Shows whether this instance leads. It is cheap to clone and to read.
#[derive(Clone, Debug)]
pub struct LeaseHandle(Option<watch::Receiver<ElectionRole>>);

impl LeaseHandle {
    /// Creates a handle without leader election: this instance always leads.
    pub fn always() -> Self {
        Self(None)
    }

    pub(super) fn following(role: watch::Receiver<ElectionRole>) -> Self {
        Self(Some(role))
    }

    /// Whether this instance leads now. Check it right before each piece of work.
    pub fn is_leading(&self) -> bool {
        self.0.as_ref().is_none_or(|role| role.borrow().leading_at(uptime()).is_some())
    }

    /// Waits until this instance leads. Never returns if the election has ended.
    pub async fn leading(&self) {
        let Some(mut role) = self.0.clone() else { return };
        if role.wait_for(|role| role.leading_at(uptime()).is_some()).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until the current term ends. Returns at once if this instance does not lead.
    pub async fn lost(&self) {
        let Some(mut role) = self.0.clone() else { return std::future::pending().await };
        let Some((term, _)) = role.borrow_and_update().leading_at(uptime()) else { return };
        loop {
            let left = match role.borrow_and_update().leading_at(uptime()) {
                Some((same, left)) if same == term => left,
                _ => return,
            };
            tokio::select! {
                () = sleep(left) => {}
                changed = role.changed() => if changed.is_err() {
                    // The elector was dropped: the lease runs out without renewal.
                    return sleep(left).await;
                }
            }
        }
    }

    /// Returns a line for `/readyz`: who leads, and since when.
    pub fn describe(&self) -> String {
        let Some(role) = &self.0 else { return "leader election is off".to_owned() };
        match &*role.borrow() {
            ElectionRole::Leading { since, until, .. } if uptime() < *until => format!("leading since {since:.0}"),
            ElectionRole::Leading { .. } => "standby: the lease could not be renewed in time".to_owned(),
            ElectionRole::Standby { holder: Some(holder) } => format!("standby: {holder} leads"),
            ElectionRole::Standby { holder: None } => "standby: no leader is known".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(600);

    fn leading(left: Duration, term: u64) -> ElectionRole {
        ElectionRole::Leading { since: "2026-01-01T00:00:00.5Z".parse().unwrap(), until: uptime() + left, term }
    }

    fn handle(role: ElectionRole) -> (watch::Sender<ElectionRole>, LeaseHandle) {
        let (send, receive) = watch::channel(role);
        (send, LeaseHandle::following(receive))
    }

    async fn in_time(future: impl Future<Output = ()>) {
        tokio::time::timeout(Duration::from_secs(10), future).await.expect("not in time");
    }

    #[test]
    fn a_lease_ends_without_the_elector() {
        let (_elector, handle) = handle(leading(SOON, 1));
        assert!(handle.is_leading());
        assert_eq!(handle.describe(), "leading since 2026-01-01T00:00:00Z");
        std::thread::sleep(SOON);
        assert!(!handle.is_leading());
        assert_eq!(handle.describe(), "standby: the lease could not be renewed in time");
    }

    #[tokio::test]
    async fn lost_returns_at_the_end_of_the_lease_the_role_or_the_elector() {
        let (_elector, by_time) = handle(leading(SOON, 1));
        in_time(by_time.lost()).await;

        let (elector, by_role) = handle(leading(LONG, 1));
        let other = ElectionRole::Standby { holder: Some("b".into()) };
        in_time(async { tokio::join!(by_role.lost(), async { elector.send_replace(other) }).0 }).await;
        assert_eq!(by_role.describe(), "standby: b leads");
        in_time(by_role.lost()).await;

        let (elector, by_end) = handle(leading(SOON, 1));
        drop(elector);
        in_time(by_end.lost()).await;
        assert!(!by_end.is_leading());
    }

    #[tokio::test]
    async fn a_new_term_is_a_loss_but_a_renewal_is_not() {
        let (elector, handle) = handle(leading(LONG, 1));
        let lost = handle.lost();
        tokio::pin!(lost);
        assert!(tokio::time::timeout(SOON, &mut lost).await.is_err());
        elector.send_replace(leading(LONG, 1));
        assert!(tokio::time::timeout(SOON, &mut lost).await.is_err());
        elector.send_replace(leading(LONG, 2));
        in_time(lost).await;
        assert!(handle.is_leading());
    }

    #[tokio::test]
    async fn leading_waits_for_a_valid_lease() {
        let (elector, handle) = handle(ElectionRole::Standby { holder: None });
        assert_eq!(handle.describe(), "standby: no leader is known");
        elector.send_replace(leading(Duration::ZERO, 1));
        assert!(tokio::time::timeout(SOON, handle.leading()).await.is_err());
        elector.send_replace(leading(LONG, 2));
        in_time(handle.leading()).await;
    }

    #[tokio::test]
    async fn without_an_election_this_instance_always_leads() {
        let handle = LeaseHandle::always();
        assert!(handle.is_leading());
        in_time(handle.leading()).await;
        assert!(tokio::time::timeout(SOON, handle.lost()).await.is_err());
        assert_eq!(handle.describe(), "leader election is off");
    }
}
