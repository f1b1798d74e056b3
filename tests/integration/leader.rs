//! Several operator processes on one cluster: failover and late writes of a former leader.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::support::process::{
    Launch, OperatorProcess,
    history::History,
    place::{Place, eventually, hash, in_seconds, is_ready},
    wire::Wire,
};
use control_plane::{Component, ControlPlane, Identity, Options};
use pat_operator::api::{CredentialState, PersonalAccessTokenStatus};
use serde_json::json;

/// The documented maximum duration of a failover.
const FAILOVER_LIMIT: Duration = Duration::from_secs(15);

/// After a graceful shutdown, another instance takes over at its next read, within about 2 s.
const HANDOVER_LIMIT: Duration = Duration::from_secs(4);

async fn find_leader(operators: &mut [OperatorProcess]) -> usize {
    let deadline = Instant::now() + crate::support::process::SOON;
    loop {
        for (index, operator) in operators.iter_mut().enumerate() {
            if operator.leads().await {
                return index;
            }
        }
        assert!(Instant::now() < deadline, "no instance leads");
    }
}

/// Makes all tokens rotate at the same moment, a few seconds from now.
async fn rotate_all_soon(place: &Place, count: usize, mut spec: serde_json::Value) {
    spec["rotateIfIssuedBefore"] = in_seconds(3).into();
    place.apply_many("app", count, &spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_instances_leads_and_is_replaced() {
    let place = Place::new("three").await;
    let mut operators: Vec<_> = (0..3).map(|_| place.operator().start()).collect();
    for operator in &mut operators {
        operator.is_ready().await;
    }
    let leader = find_leader(&mut operators).await;
    let mut leader = operators.remove(leader);
    let holder = place.lease_holder().await.expect("an instance leads");
    for standby in &mut operators {
        standby.logs(&["standing by", &holder]).await;
        let response = standby.get("/readyz?verbose").await;
        assert_eq!(response.code, 200, "a standby is ready");
        assert!(response.body.contains(&format!("[+]lease ok: standby: {holder} leads")), "{}", response.body);
    }

    place.apply_many("before", 20, &json!({"rotation": {"interval": "30d"}})).await;
    place.all_ready(20).await;
    assert_eq!(leader.metrics().await.value("pat_operator_mints_total"), 20.0);
    assert_eq!(leader.metrics().await.value("pat_operator_leader"), 1.0);
    for standby in &mut operators {
        let metrics = standby.metrics().await;
        assert_eq!(metrics.value("pat_operator_mints_total"), 0.0, "only the leader mints");
        assert_eq!(metrics.value("pat_operator_leader"), 0.0);
        assert_eq!(metrics.value("pat_operator_reconcile_duration_seconds_count"), 0.0);
        assert_eq!(metrics.value("pat_operator_secrets"), 20.0, "standbys know all Secrets");
    }

    // Work has to continue, so wait for a token, not only for the Lease.
    let killed_at = Instant::now();
    leader.kill();
    place.apply("after-kill", json!({})).await;
    place.ready("after-kill").await;
    let took = killed_at.elapsed();
    eprintln!("failover after kill -9: {took:?}");
    assert!(took < FAILOVER_LIMIT, "{took:?}");
    let leader = find_leader(&mut operators).await;
    let leader = operators.remove(leader);
    let mut last = operators.remove(0);
    assert!(!last.leads().await);

    let asked_at = Instant::now();
    let ended = leader.terminate().await;
    assert!(ended.stderr.iter().any(|line| line.contains("released the lease")), "{ended}");
    place.apply("after-term", json!({})).await;
    place.ready("after-term").await;
    let took = asked_at.elapsed();
    eprintln!("handover after SIGTERM: {took:?}");
    assert!(took < HANDOVER_LIMIT, "{took:?}");
    assert!(last.leads().await);
    let metrics = last.metrics().await;
    assert_eq!(metrics.value("pat_operator_mints_total"), 1.0, "existing tokens are not minted again");
    assert_eq!(metrics.value("pat_operator_rotations_total"), 0.0);

    last.terminate().await;
    assert_eq!(place.lease_holder().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_paused_during_a_rotation_changes_nothing_later() {
    let place = Place::new("paused").await;
    let launch = || place.operator().arg("--publish-lead=10s").start();
    let mut former = launch();
    former.leads_within(FAILOVER_LIMIT).await;
    let mut next = launch();
    next.logs(&["standing by"]).await;
    let history = History::of(&place.client, place.name()).await;

    let spec = json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "previous"}});
    place.apply("app", spec.clone()).await;
    let first = place.ready("app").await;

    // The new hash is published, but the Secret changes only 10 s later: the rotation is half done.
    let mut now = spec.clone();
    now["rotateIfIssuedBefore"] = in_seconds(0).into();
    place.apply("app", now).await;
    let pending = |status: &pat_operator::api::PersonalAccessTokenStatus| {
        status.credentials.iter().filter(|one| one.state == CredentialState::Pending).count()
    };
    let half_done = place.until("app", "pending", |status| pending(status) == 1).await;
    former.pause().await;
    let lost = half_done.credentials[0].sha256.to_string();
    assert_eq!(place.token("app").await, first, "the Secret still has the old token");
    let paused_at = Instant::now();

    next.leads_within(FAILOVER_LIMIT).await;
    let took = paused_at.elapsed();
    eprintln!("failover from a paused leader: {took:?}");
    assert!(took < FAILOVER_LIMIT, "{took:?}");

    // The new leader is in the middle of the same rotation, with its own token, when the former leader resumes with a
    // published and overdue token in memory.
    place.until("app", "minted again", |status| pending(status) == 2).await;
    assert_eq!(place.token("app").await, first);
    former.resume();
    eventually("the former leader stands by", async || {
        let response = former.get("/readyz?verbose").await;
        response.body.contains("[+]lease ok: standby: ") && response.body.contains(" leads\n")
    })
    .await;
    assert!(!former.leads().await && next.leads().await);

    place.until("app", "rotated", |status| is_ready(status) && status.revision >= Some(2)).await;
    place.assert_active_token_in_secret("app").await;
    let second = place.token("app").await;
    assert_ne!(hash(&second), lost, "the token that only the paused process knew is discarded");
    assert_eq!(place.value("app", "previous").await.as_deref(), Some(&*first), "the old token is in its grace period");
    let status = place.status("app").await;
    assert!(
        status
            .credentials
            .iter()
            .any(|one| one.sha256.to_string() == hash(&first) && one.state == CredentialState::Grace)
    );
    assert!(
        !status.credentials.iter().any(|one| one.sha256.to_string() == lost),
        "the lost token is discarded: {status:#?}"
    );
    history.assert_invariants().await;
    assert_eq!(history.hashes("app"), [hash(&first), lost, hash(&second)], "nothing else was ever published");
    assert_eq!(former.metrics().await.value("pat_operator_rotations_total"), 0.0);

    // When the new leader stops, the former one leads again.
    next.terminate().await;
    let third = place.rotated("app", spec).await;
    assert_ne!(third, second);
    place.assert_active_token_in_secret("app").await;
    history.assert_invariants().await;
    former.terminate().await;
}

/// Which writes of many simultaneous rotations arrive late.
enum Late {
    All,
    Rest,
}

/// Many simultaneous rotations during which the leader is paused and its last writes are held back.
struct PausedLeader {
    place: Place,
    wire: Wire,
    former: OperatorProcess,
    next: OperatorProcess,
    history: History,
    names: Vec<String>,
    first: Vec<String>,
}

impl PausedLeader {
    /// Pauses the former leader. The next one does not lead yet.
    async fn new(name: &str, count: usize, delay: Duration, late: Late) -> Self {
        let place = Place::new(name).await;
        let wire = Wire::slow(&place.access, delay).await;
        let launch =
            |kubeconfig: PathBuf| Launch::controller_in(&kubeconfig, place.name()).arg("--publish-lead=0s").start();
        let mut former = launch(wire.kubeconfig_for(&Identity::admin()));
        former.leads_within(FAILOVER_LIMIT).await;
        let mut next = launch(place.kubeconfig());
        next.logs(&["standing by"]).await;
        let history = History::of(&place.client, place.name()).await;

        let spec = json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "previous"}});
        let names = place.apply_many("app", count, &spec).await;
        place.all_ready(count).await;
        let mut first = Vec::new();
        for name in &names {
            first.push(place.token(name).await);
        }
        rotate_all_soon(&place, count, spec).await;

        match late {
            // All writes are sent, and none arrives.
            Late::All => {
                wire.hold();
                wire.wait_until_held(count).await;
            }
            // As soon as the first write of a rotation is seen, the wire holds back the following ones.
            Late::Rest => {
                eventually("the rotations start", async || names.iter().any(|name| history.hashes(name).len() > 1))
                    .await;
                wire.hold();
            }
        }
        former.pause().await;
        Self { place, wire, former, next, history, names, first }
    }

    /// Delivers the held writes and resumes the process that sent them.
    async fn resume_former(&mut self) {
        self.wire.release_held();
        self.former.resume();
        eventually("the former leader stands by and has no work in progress", async || {
            let body = self.former.get("/readyz?verbose").await.body;
            body.contains("standby: ") && self.former.has_logged(&["no longer leading"])
        })
        .await;
    }

    async fn wait_until_all_rotated(&self) {
        eventually("all have rotated", async || {
            let done = |status: &PersonalAccessTokenStatus| {
                let pending = status.credentials.iter().any(|one| one.state == CredentialState::Pending);
                status.revision >= Some(2) && is_ready(status) && !pending
            };
            self.place.statuses().await.iter().all(|(_, status)| done(status))
        })
        .await;
    }

    /// Checks that each PAT has a new valid token and its old token in grace.
    async fn assert_sound(&self) {
        for (name, first) in self.names.iter().zip(&self.first) {
            assert_ne!(self.place.token(name).await, *first, "{name}");
            self.place.assert_active_token_in_secret(name).await;
            let status = self.place.status(name).await;
            assert!(
                status.credentials.iter().any(|one| one.sha256.to_string() == hash(first)),
                "{name}: the old token is in its grace period"
            );
            assert_eq!(status.unplanned_mints, [], "{name}: no repair was needed");
        }
        self.history.assert_invariants().await;
    }

    async fn shut_down(self) {
        self.former.terminate().await;
        self.next.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_writes_of_a_former_leader_are_refused() {
    let mut scene = PausedLeader::new("late", 24, Duration::ZERO, Late::All).await;
    scene.next.leads_within(FAILOVER_LIMIT).await;
    scene.wait_until_all_rotated().await;
    let mut second = Vec::new();
    for name in &scene.names {
        second.push(scene.place.token(name).await);
    }
    let before: Vec<_> = scene.place.statuses().await;

    scene.resume_former().await;
    let conflicts = scene.former.metrics().await.value(r#"pat_operator_reconcile_errors_total{category="Conflict"}"#);
    assert!(conflicts >= 1.0, "late writes were refused: {conflicts}\n{}", scene.former);
    assert_eq!(scene.place.statuses().await, before, "nothing has changed");
    for (name, second) in scene.names.iter().zip(&second) {
        assert_eq!(scene.place.token(name).await, *second, "{name}");
    }
    scene.assert_sound().await;
    scene.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_former_leader_does_no_damage() {
    let mut scene = PausedLeader::new("midst", 96, Duration::from_millis(40), Late::Rest).await;
    // The slow reads and writes of the former leader now mix with those of the new one.
    scene.next.leads_within(FAILOVER_LIMIT).await;
    scene.resume_former().await;
    scene.wait_until_all_rotated().await;
    scene.assert_sound().await;
    scene.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_instance_resumes_after_its_lease_expires() {
    const COUNT: usize = 40;
    let place = Place::new("alone").await;
    let mut operator = place.operator().arg("--publish-lead=0s").start();
    operator.leads_within(FAILOVER_LIMIT).await;
    let spec = json!({"rotation": {"interval": "30d"}});
    let names = place.apply_many("app", COUNT, &spec).await;
    place.all_ready(COUNT).await;
    let history = History::of(&place.client, place.name()).await;
    rotate_all_soon(&place, COUNT, spec).await;
    eventually("the rotations start", async || names.iter().any(|name| history.hashes(name).len() > 1)).await;
    operator.pause().await;
    // There is nothing to wait for but time: for its holder, the lease expires after 7 s.
    tokio::time::sleep(Duration::from_secs(8)).await;
    operator.resume();
    let took = operator.leads_within(FAILOVER_LIMIT).await;
    eprintln!("a single instance leads again after: {took:?}");
    place.apply("later", json!({})).await;
    place.ready("later").await;
    eventually("all have rotated", async || {
        place.statuses().await.iter().all(|(name, status)| name == "later" || status.revision >= Some(2))
    })
    .await;
    place.all_ready(COUNT + 1).await;
    history.assert_invariants().await;
    operator.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regained_lease_keeps_all_workers() {
    const COUNT: usize = 12;
    let place = Place::new("regained").await;
    let wire = Wire::to(&place.access).await;
    let kubeconfig = wire.kubeconfig_for(&Identity::admin());
    let mut operator = Launch::controller_in(&kubeconfig, place.name()).start();
    operator.leads_within(FAILOVER_LIMIT).await;

    // One worker is busy while the lease expires, the others are idle.
    place.apply("first", json!({})).await;
    place.ready("first").await;
    wire.hold();
    place.apply("second", json!({})).await;
    wire.wait_until_held(1).await;
    eventually("the lease has expired", async || !operator.leads().await).await;
    wire.release_held();
    operator.leads_within(FAILOVER_LIMIT).await;
    place.ready("second").await;

    // All workers run again: each has one waiting request.
    wire.hold();
    place.apply_many("app", COUNT, &json!({})).await;
    wire.wait_until_held(COUNT).await;
    wire.release_held();
    place.all_ready(COUNT + 2).await;
    operator.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_survives_api_server_and_etcd_outages() {
    let mut plane = ControlPlane::start(Options::default().apply("crds")).await.expect("a control plane");
    let place = Place::on(&plane, "reborn").await;
    let mut operator = place.operator().arg("--publish-lead=0s").start();
    let mut standby = place.operator().arg("--publish-lead=0s").start();
    operator.is_ready().await;
    standby.is_ready().await;
    let spec = json!({"rotation": {"interval": "30d"}});
    place.apply("app", spec.clone()).await;
    let first = place.ready("app").await;
    let history = History::of(&place.client, place.name()).await;

    // The outage lasts until the lease is lost, while work is in progress.
    place.apply_many("crowd", 40, &spec).await;
    plane.kill(Component::ApiServer);
    plane.kill(Component::Etcd);
    eventually("no instance leads any more", async || !operator.leads().await && !standby.leads().await).await;
    assert!(operator.is_running() && standby.is_running());
    assert_eq!(operator.get("/livez").await.code, 200);
    plane.restart(Component::Etcd).await.expect("etcd comes back");
    plane.restart(Component::ApiServer).await.expect("the API server comes back");
    let back_at = Instant::now();

    place.all_ready(41).await;
    assert_eq!(place.token("app").await, first, "existing tokens are not minted again");
    place.apply("new", spec.clone()).await;
    place.ready("new").await;
    place.rotated("app", spec).await;
    eprintln!("working again after the API server's return: {:?}", back_at.elapsed());
    for (name, _) in place.statuses().await {
        place.assert_active_token_in_secret(&name).await;
    }

    history.assert_invariants().await;
    operator.terminate().await;
    standby.terminate().await;
}
