//! A rotation at Gitea while clients clone with the token in the Secret.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use control_plane::Binary;
use k8s_openapi::{api::core::v1::Secret, jiff::SignedDuration};
use kube::Api;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    is_left_out,
    process::place::eventually,
    remote_stage::RemoteStage,
    vendor::gitea::{Gitea, PASSWORD, USER},
};

/// The number of clients that clone all the time.
const CLIENTS: usize = 3;

/// Clients that clone with the token in the Secret `web`.
struct Clients {
    tasks: JoinSet<()>,
    clones: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Clients {
    fn start(gitea: &Arc<Gitea>, secrets: &Api<Secret>) -> Self {
        let (clones, is_over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..CLIENTS {
            let (gitea, secrets, clones, is_over) = (gitea.clone(), secrets.clone(), clones.clone(), is_over.clone());
            tasks.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let data = secrets.get("web").await.expect("the Secret").data.expect("data");
                    let token = String::from_utf8(data["token"].0.clone()).expect("a text");
                    assert!(gitea.clones(&token).await, "the token in the Secret clones at every moment");
                    clones.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { tasks, clones, is_over }
    }

    /// Waits until each of them has cloned again.
    async fn go_on(&self) {
        let before = self.clones.load(Ordering::Relaxed);
        eventually("the clients keep cloning", async || self.clones.load(Ordering::Relaxed) >= before + 2 * CLIENTS)
            .await;
    }

    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_gitea_clone_before_during_and_after_a_rotation() {
    if is_left_out(Binary::Gitea) {
        return;
    }
    let gitea = Arc::new(Gitea::start(50).await);
    let scene = RemoteStage::new("gitea-rotation").await;
    scene.add_system("gitea", &gitea.url, json!({"username": USER, "password": PASSWORD})).await;
    let spec = json!({
        "issuerRef": {"kind": "TokenIssuer", "name": "gitea"}, "scopes": ["read:repository"],
        "rotation": {"interval": "30d"}, "gracePeriod": "1d",
    });
    scene.stage.apply("web", spec).await;
    scene.settle("web").await;
    assert_eq!(scene.stage.ready("web").await, ("True".into(), "Issued".into()));
    let first = scene.stage.value("web", "token").await;
    let clients = Clients::start(&gitea, &scene.stage.secrets());
    clients.go_on().await;

    scene.stage.hand.advance(SignedDuration::from_hours(30 * 24));
    scene.settle("web").await;
    let second = scene.stage.value("web", "token").await;
    assert_ne!(second, first);
    clients.go_on().await;
    assert!(gitea.clones(&first).await, "the grace period");

    scene.stage.hand.advance(SignedDuration::from_hours(25));
    scene.settle("web").await;
    clients.go_on().await;
    clients.end().await;
    assert!(!gitea.clones(&first).await, "after the grace period");
    assert!(gitea.clones(&second).await);

    scene.stage.pats().delete("web", &Default::default()).await.expect("it is being deleted");
    scene.settle("web").await;
    assert!(!gitea.clones(&second).await, "after the deletion");
    scene.stage.hand.advance(SignedDuration::from_mins(3));
    scene.settle("web").await;
    assert!(scene.stage.pats().get_opt("web").await.expect("an answer").is_none());
}
