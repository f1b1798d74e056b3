//! A year of daily rotations.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pat_operator::{
    api::{CredentialState, MAX_LIVE_CREDENTIALS, PersonalAccessToken, Time},
    auth::verdict::Terms,
    controller::namespaced_name::NamespacedName,
    token::Token,
};
use serde_json::json;

use super::observe::{assert_rests, length};
use crate::support::stage::{SOON, Stage};

/// PAT and Secret in the cluster at one time.
struct Snapshot {
    pat: PersonalAccessToken,
    token: String,
    previous: Option<String>,
    annotations: usize,
    /// The resource version of the Secret.
    version: String,
}

impl Snapshot {
    async fn of(stage: &Stage) -> Self {
        let (pat, secret) = tokio::join!(stage.pat("app"), stage.secret("app"));
        let secret = secret.expect("the Secret always exists");
        let version = secret.metadata.resource_version.expect("a version");
        let mut data: BTreeMap<_, _> = secret.data.unwrap_or_default();
        let mut text = |key: &str| data.remove(key).map(|value| String::from_utf8(value.0).expect("text"));
        let (token, previous) = (text("token").expect("the Secret always holds a token"), text("old"));
        assert!(data.is_empty(), "there is no other key");
        let annotations = serde_json::to_string(&secret.metadata.annotations).unwrap().len();
        Self { pat, token, previous, annotations, version }
    }

    /// Waits for the caches like [`Stage::reconcile`], but for one object and without lists, because a year has more than a thousand runs.
    async fn wait_for_caches(&self, stage: &Stage) {
        let key = NamespacedName::new(stage.namespace.name(), "app");
        let stores = &stage.operator().stores;
        let shown = || {
            let pat =
                stores.pat(&key).is_some_and(|pat| pat.metadata.resource_version == self.pat.metadata.resource_version);
            pat && stores
                .secret(key.namespace(), key.name())
                .is_some_and(|secret| secret.resource_version == self.version)
        };
        let wait = async {
            while !shown() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("the caches catch up with the API server");
    }

    fn is_accepted(&self, token: &str, now: Time) -> bool {
        let status = self.pat.status.as_ref().unwrap();
        let terms = Terms::read(&self.pat.spec, status, false).unwrap();
        let hash = Token::parse(token).unwrap().hash().to_string();
        let found = status.credentials.iter().find(|credential| credential.sha256.to_string() == hash);
        found.is_some_and(|credential| terms.judge(credential, now).is_valid())
    }

    fn check(&self, now: Time) {
        let status = self.pat.status.as_ref().unwrap();
        assert!(self.is_accepted(&self.token, now), "{now}: the token in the Secret is accepted at every instant");
        assert!(status.credentials.len() <= MAX_LIVE_CREDENTIALS.min(3), "{now}: {:?}", status.credentials);
        let ready = &status.conditions[0];
        assert_eq!((ready.type_.as_ref(), ready.status.as_ref()), ("Ready", "True"), "{now}");
    }

    /// Checks that the Secret of an idle PAT contains the replaced token exactly as long as it is in grace.
    fn check_idle(&self, now: Time) {
        self.check(now);
        let status = self.pat.status.as_ref().unwrap();
        let in_grace = status.credentials.iter().any(|credential| credential.state == CredentialState::Grace);
        assert_eq!(self.previous.is_some(), in_grace, "{now}");
        if let Some(previous) = &self.previous {
            assert!(self.is_accepted(previous, now), "{now}: the previous token works in its grace period");
        }
    }

    fn size(&self) -> usize {
        let status = serde_json::to_string(&self.pat.status).unwrap().len();
        let managers = self.pat.metadata.managed_fields.as_ref().map_or(0, Vec::len);
        status + self.annotations + 100 * managers
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daily_rotation_lasts_a_year_without_outage_or_growth() {
    let began = Instant::now();
    let mut stage = Stage::new("year").await;
    stage.apply("app", json!({"rotation": {"interval": "1d"}, "secret": {"previousKey": "old"}})).await;
    stage.settle("app").await;
    let issued = stage.now();
    let end = issued.plus(length("365d"));
    // Replaced tokens, and the ends of their grace periods.
    let mut in_grace: Vec<(String, Time)> = Vec::new();
    let mut before = Snapshot::of(&stage).await;
    let (mut early, mut late, mut wakes, mut rotations) = (0, 0, 0, 0);
    while stage.now() < end {
        let key = NamespacedName::new(stage.namespace.name(), "app");
        let wake = stage.operator().reconciler.reconcile(&key).await.expect("the run succeeds");
        let now = stage.now();
        let snapshot = Snapshot::of(&stage).await;
        snapshot.wait_for_caches(&stage).await;
        let waits = wake.is_some_and(|wake| wake.since(now) <= length("10s"));
        if waits {
            snapshot.check(now)
        } else {
            snapshot.check_idle(now)
        }
        if snapshot.token != before.token {
            rotations += 1;
            assert_eq!(snapshot.previous.as_ref(), Some(&before.token), "{now}");
            let status = snapshot.pat.status.as_ref().unwrap();
            let replaced = status.credentials.iter().find(|one| one.state == CredentialState::Grace).unwrap();
            let until = replaced.expires_at.unwrap();
            assert!(until >= now.plus(length("12h")), "{now}: at least half the interval");
            in_grace.push((before.token.clone(), until));
        }
        in_grace.retain(|(token, until)| {
            assert_eq!(snapshot.is_accepted(token, now), now < *until, "{now}: in grace until {until}");
            now < *until
        });
        let size = snapshot.size();
        if now < issued.plus(length("30d")) {
            early = early.max(size)
        } else {
            late = late.max(size)
        }

        let wake = wake.expect("a further run is always due");
        assert!(wake > now, "{now}: a requeue time in the past would loop");
        // The state stays correct until the next run, so the operator is never needed earlier.
        snapshot.check(wake.minus(length("1s")).max(now));
        stage.hand.set(wake.timestamp());
        snapshot.check(wake);
        before = snapshot;
        wakes += 1;
    }
    assert!(rotations >= 365, "{rotations} rotations");
    assert_eq!(before.pat.status.as_ref().unwrap().revision, Some(rotations + 1), "no other mint");
    assert!(wakes <= 3 * rotations + 3, "{wakes} runs: due, published, end of grace");
    assert!(late <= early + 40, "status and annotations do not grow: {early} bytes in the first month, {late} after");
    stage.settle("app").await;
    assert_rests(&mut stage, "app").await;
    eprintln!("{rotations} rotations, {wakes} runs, {:.1} s", began.elapsed().as_secs_f64());
}
