//! Fencing: late writes of a process are refused after another one has taken over.

use crate::support::{
    faults::{Fault, Faults, Recorded},
    is_left_out,
    recorder::Recorder,
    stage::{SOON, Stage},
};
use control_plane::Binary;
use k8s_openapi::{api::core::v1::Secret, jiff::SignedDuration};
use kube::api::{Patch, PatchParams};
use pat_operator::api::CredentialState;
use serde_json::{Value, json};

/// What a process does when it is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    FirstMint,
    Rotation,
    RepairAfterDeletion,
    RepairAfterEdit,
    Rerender,
    Rename,
    GraceEnd,
    Revocation,
    Expiry,
}

impl Work {
    const ALL: [Self; 9] = [
        Self::FirstMint,
        Self::Rotation,
        Self::RepairAfterDeletion,
        Self::RepairAfterEdit,
        Self::Rerender,
        Self::Rename,
        Self::GraceEnd,
        Self::Revocation,
        Self::Expiry,
    ];

    fn spec(self) -> Value {
        match self {
            Self::Expiry => json!({"expiry": {"after": "1h"}}),
            _ => json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "old"}}),
        }
    }

    async fn prepare(self, stage: &Stage, name: &str) {
        if self != Self::FirstMint {
            stage.apply(name, self.spec()).await;
            stage.settle(name).await;
        }
        if self == Self::GraceEnd {
            stage.advance("30d");
            stage.settle(name).await;
        }
    }

    async fn begin(self, stage: &Stage, name: &str) {
        let mut spec = self.spec();
        match self {
            Self::FirstMint => {}
            Self::Rotation => return stage.advance("30d"),
            Self::GraceEnd => return stage.advance("1d1s"),
            Self::Expiry => return stage.advance("1h1s"),
            Self::RepairAfterDeletion => {
                stage.secrets().delete(name, &Default::default()).await.expect("the object is deleted");
                return;
            }
            Self::RepairAfterEdit => {
                let edit = json!({"data": {"token": "b29wcw=="}});
                let edited = stage.secrets().patch(name, &PatchParams::default(), &Patch::Merge(edit)).await;
                edited.expect("the Secret is edited");
                return;
            }
            Self::Rerender => spec["secret"]["labels"] = json!({"team": "a"}),
            Self::Rename => spec["secret"]["name"] = json!(format!("{name}-new")),
            Self::Revocation => spec["revoked"] = json!(true),
        }
        stage.apply(name, spec).await;
    }
}

/// Runs an operator with this client until it is idle or frozen.
async fn run_until_idle(stage: &mut Stage, name: &str, faults: &Faults) {
    stage.restart_with(faults.client());
    for _ in 0..20 {
        let result = stage.reconcile(name).await;
        if faults.is_dead() {
            return;
        }
        let wake = result.expect("the run succeeds");
        match wake.map(|at| at.since(stage.now())) {
            Some(wait) if wait <= SignedDuration::from_secs(10) => {
                stage.hand.advance(wait.max(SignedDuration::from_millis(1)));
            }
            _ => return,
        }
    }
    panic!("{name} does not become idle");
}

/// Freezes a process at each of its writes in turn, and returns the writes.
async fn freeze_each_write(
    stage: &mut Stage,
    work: Work,
    mut after: impl AsyncFnMut(&mut Stage, &str, Recorded),
) -> Vec<String> {
    let mut writes = Vec::new();
    for at in 0..40 {
        let name = format!("{work:?}.{at:02}").to_lowercase();
        stage.restart();
        work.prepare(stage, &name).await;
        work.begin(stage, &name).await;
        let former = Faults::at(&stage.client, at, Fault::Freeze);
        run_until_idle(stage, &name, &former).await;
        let Some(late) = former.hit() else { return writes };
        if late.is_write() && !late.is_event() {
            writes.push(late.summary());
            after(stage, &name, late).await;
        }
    }
    panic!("{work:?} does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_writes_are_refused_after_a_takeover() {
    let mut replayed = 0;
    for work in Work::ALL {
        let mut stage = Stage::new(&format!("fence-{work:?}").to_lowercase()).await;
        let writes = freeze_each_write(&mut stage, work, async |stage, name, late| {
            let next = Faults::none(&stage.client);
            run_until_idle(stage, name, &next).await;
            let versions = stage.versions().await;
            let answer = late.replay(&stage.client).await;
            assert!([404, 409].contains(&answer.as_u16()), "{work:?}: {} was answered {answer}", late.summary());
            assert_eq!(versions, stage.versions().await, "{work:?}: {} changed something", late.summary());
        })
        .await;
        assert!(writes.len() >= 2, "{work:?} has only {writes:?}");
        replayed += writes.len();
    }
    println!("fencing: {replayed} recorded writes of {} kinds of work were refused", Work::ALL.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_writes_but_creates_carry_uid_and_resource_version() {
    for work in Work::ALL {
        let mut stage = Stage::new(&format!("named-{work:?}").to_lowercase()).await;
        freeze_each_write(&mut stage, work, async |_, _, late| {
            let body = late.json();
            let named = match late.method.as_str() {
                "POST" => return,
                "DELETE" => &body["preconditions"],
                _ => &body["metadata"],
            };
            for field in ["uid", "resourceVersion"] {
                let text = named[field].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "{work:?}: {} has no {field}", late.summary());
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_status_does_not_reach_a_recreated_pat() {
    if is_left_out(Binary::KubeControllerManager) {
        return;
    }
    for work in [Work::FirstMint, Work::Rotation, Work::Revocation] {
        let mut stage = Stage::new(&format!("recreated-{work:?}").to_lowercase()).await;
        freeze_each_write(&mut stage, work, async |stage, name, late| {
            let former = stage.pat(name).await.metadata.uid;
            stage.pats().delete(name, &Default::default()).await.expect("the object is deleted");
            wait_for_garbage_collection(stage, name).await;
            let answer = late.replay(&stage.client).await;
            let is_create = late.method == "POST";
            if !is_create {
                assert_eq!(answer, 404, "{work:?}: {} after the deletion", late.summary());
            }
            wait_for_garbage_collection(stage, name).await;

            stage.apply(name, work.spec()).await;
            assert_ne!(stage.pat(name).await.metadata.uid, former);
            if !is_create {
                let answer = late.replay(&stage.client).await;
                let refused = [404, 409].contains(&answer.as_u16());
                assert!(refused, "{work:?}: {} to the recreated PAT: {answer}", late.summary());
                assert_eq!(
                    stage.pat(name).await.status,
                    None,
                    "{work:?}: the recreated PAT has the status of the deleted one"
                );
            }
            let next = Faults::none(&stage.client);
            run_until_idle(stage, name, &next).await;
            let token = stage.value(name, "token").await;
            assert!(stage.accepts(name, &token).await, "{work:?}: the recreated PAT has its own token");
        })
        .await;
    }
}

/// Waits until the garbage collector has removed the Secret of a deleted PAT.
async fn wait_for_garbage_collection(stage: &Stage, name: &str) {
    let gone = kube::runtime::wait::await_condition(stage.secrets(), name, |secret: Option<&Secret>| secret.is_none());
    tokio::time::timeout(SOON, gone).await.expect("the Secret is removed in time").expect("the API server answers");
}

/// A create cannot be fenced, because there is no object to compare with. After a deletion it brings a token whose hash is no longer in the
/// status, in a Secret with our ownerReference. The operator notices this and replaces the token.
#[tokio::test(flavor = "multi_thread")]
async fn token_from_a_late_create_is_replaced_at_once() {
    let mut stage = Stage::new("fence-late-create").await;
    let recorder = Recorder::start(&stage.client, stage.namespace.name(), &stage.clock).await;
    let mut created = 0;
    freeze_each_write(&mut stage, Work::FirstMint, async |stage, name, late| {
        if late.method != "POST" {
            return;
        }
        created += 1;
        // Another process finishes the mint with its own token. Then the Secret is deleted.
        let next = Faults::none(&stage.client);
        run_until_idle(stage, name, &next).await;
        let good = stage.value(name, "token").await;
        stage.secrets().delete(name, &Default::default()).await.expect("the object is deleted");
        assert_eq!(late.replay(&stage.client).await, 201, "a create without a conflicting object is accepted");
        let late_token = stage.value(name, "token").await;
        assert!(!stage.accepts(name, &late_token).await, "its hash was removed when the other token was delivered");

        run_until_idle(stage, name, &next).await;
        let token = stage.value(name, "token").await;
        assert!(token != late_token && token != good && stage.accepts(name, &token).await);
        assert!(stage.accepts(name, &good).await, "the token of the deleted Secret has its grace period");
        assert!(!stage.accepts(name, &late_token).await, "the late token stays invalid");
        let story = recorder.judge(name, SignedDuration::ZERO).await;
        let only_this = |what: &String| what.contains("invariant 1") && what.contains("no longer in the status");
        assert!(!story.violations.is_empty() && story.violations.iter().all(only_this), "{:#?}", story.violations);
        assert_eq!((story.leftovers, story.orphans), (vec![], 0));
    })
    .await;
    assert_eq!(created, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_create_of_a_deleted_pat_is_garbage_collected() {
    if is_left_out(Binary::KubeControllerManager) {
        return;
    }
    let mut stage = Stage::new("fence-orphan").await;
    freeze_each_write(&mut stage, Work::FirstMint, async |stage, name, late| {
        if late.method != "POST" {
            return;
        }
        stage.pats().delete(name, &Default::default()).await.expect("the object is deleted");
        assert_eq!(late.replay(&stage.client).await, 201);
        wait_for_garbage_collection(stage, name).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_landing_during_a_takeover_leaves_one_active_token() {
    let mut stage = Stage::new("fence-between").await;
    freeze_each_write(&mut stage, Work::Rotation, async |stage, name, late| {
        let first = stage.data(name).await["token"].clone();
        let next = Faults::landing(&stage.client, 1, late.clone());
        run_until_idle(stage, name, &next).await;
        assert!(next.has_landed(), "{} arrived among the writes of the other process", late.summary());
        let token = stage.value(name, "token").await;
        assert!(stage.accepts(name, &token).await && stage.accepts(name, &first).await, "{}", late.summary());
        let status = stage.status(name).await;
        let active: Vec<_> = status.credentials.iter().filter(|one| one.state == CredentialState::Active).collect();
        assert_eq!(active.len(), 1, "{}: {status:#?}", late.summary());
    })
    .await;
}
