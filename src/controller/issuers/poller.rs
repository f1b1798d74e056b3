//! Polls each issuer: checks that it answers and accepts the credential, lists the tokens of each target, and writes its status.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::{api::core::v1::Namespace, jiff::SignedDuration};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    super::error::Error,
    Issuer, IssuerKey, Issuers, auth, issuer_target,
    protection::{Protection, users},
};
use crate::{
    api::{
        Condition, CredentialState, FIELD_MANAGER, IssuerStatus, IssuerSystem, Reason, StoredIssuer, StoredPat, Time,
        TokenIssuerSpec,
    },
    issuer::{AddressPolicy, CallError, ConfigError, Driver, Endpoint, IssuerCredential, ServerInfo, check_id, driver},
    planner::remote::{IssuerProblem, ListedToken, RemoteList},
};

/// The time between two polls without `pollInterval`.
const INTERVAL: Duration = Duration::from_secs(300);

/// The time between two polls at least, and the delay after the first poll that failed. It doubles with each further failure.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// The time after the last poll when another one that is asked for begins.
const SOON: Duration = Duration::from_secs(15);

/// The time between two polls of an issuer that is being deleted.
const DELETING_INTERVAL: Duration = Duration::from_secs(30);

/// The time in which all tokens of a target must be listed.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// What a poll found.
#[derive(Default)]
struct Polled {
    driver: Option<Arc<dyn Driver>>,
    problem: Option<IssuerProblem>,
    server: ServerInfo,
    listed: bool,
    /// Why the other credentials cannot be used, if one can.
    unused: Vec<String>,
}

impl Issuers {
    /// Polls every issuer until it is dropped. Only the leader does.
    pub async fn run(self: Arc<Self>) {
        self.find_cluster().await;
        let mut pollers = JoinSet::new();
        let mut polled: Vec<Arc<Issuer>> = Vec::new();
        loop {
            let issuers = self.all();
            polled.retain(|former| issuers.iter().any(|issuer| Arc::ptr_eq(issuer, former)));
            for issuer in issuers {
                if !polled.iter().any(|other| Arc::ptr_eq(other, &issuer)) {
                    pollers.spawn(self.clone().poll_until_removed(issuer.clone()));
                    polled.push(issuer);
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                Some(_) = pollers.join_next() => {}
            }
        }
    }

    /// Polls every issuer once, one after the other.
    pub async fn poll_all(&self) {
        if self.cluster.read().unwrap_or_else(PoisonError::into_inner).is_empty() && !self.read_cluster().await {
            return;
        }
        for issuer in self.all() {
            self.poll(&issuer).await;
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Issuer>> {
        self.issuers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Finds what tells this cluster from others.
    async fn find_cluster(&self) {
        while !self.read_cluster().await {
            sleep(MIN_INTERVAL).await;
        }
    }

    /// Reads the UID of the namespace kube-system, which tells this cluster from others. Returns whether it is known.
    async fn read_cluster(&self) -> bool {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match namespaces.get("kube-system").await {
            Ok(found) => {
                let uid = found.metadata.uid.unwrap_or_default();
                *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = uid;
            }
            Err(error) => {
                let why = crate::service::explain_api_error(&error);
                tracing::warn!(
                    "cannot read the namespace kube-system, so no issuer is contacted; the controller tries again: {why}"
                );
                return false;
            }
        }
        for issuer in self.all() {
            let mut state = issuer.state.write().unwrap_or_else(PoisonError::into_inner);
            let problem = state.view.problem.clone();
            state.view = Arc::new(self.view(&issuer.key, &state.object, problem));
        }
        true
    }

    async fn poll_until_removed(self: Arc<Self>, issuer: Arc<Issuer>) {
        let poll = async {
            let mut failures = 0;
            loop {
                let began = Instant::now();
                let works = self.poll(&issuer).await;
                failures = if works { 0 } else { (failures + 1).min(16) };
                let regular = issuer.interval();
                let wait = if works { regular } else { (MIN_INTERVAL * 2u32.pow(failures - 1)).min(regular) };
                tokio::select! {
                    () = sleep(wait) => {}
                    // After a failure only the delay counts, so that a wrong password is not tried too often.
                    () = issuer.poll_soon.notified(), if works => sleep_until(began + SOON).await,
                }
            }
        };
        tokio::select! {
            () = poll => {}
            () = issuer.removed.cancelled() => {}
        }
    }

    /// Polls an issuer once, and returns whether it works.
    async fn poll(&self, issuer: &Issuer) -> bool {
        let object = issuer.state().object.clone();
        let pats = self.stored_pats_of(&issuer.key);
        let problems_before = issuer.state().list_problems();
        let mut polled = match (self.protect(issuer, &object, &pats).await, &object.spec) {
            (Ok(Protection::Removed), _) => return true,
            (Ok(Protection::Kept), Ok(spec)) => {
                let polled = AssertUnwindSafe(self.check_and_list(issuer, spec, &pats)).catch_unwind().await;
                // The panic hook has logged the panic.
                polled.unwrap_or_else(|_| {
                    let message = "the controller failed while it contacted the issuer; this is a bug, please report it with the log";
                    Polled::failed(Reason::IssuerUnavailable, message.into())
                })
            }
            (Ok(Protection::Kept), Err(problem)) => Polled::failed(Reason::IssuerNotReady, format!("spec: {problem}")),
            (Err(problem), _) => Polled::failed(Reason::IssuerUnavailable, problem),
        };
        let works = polled.problem.is_none();
        polled.problem = polled.problem.map(|problem| {
            let problem = IssuerProblem { since: self.clock.now().into(), ..problem };
            problem.following(issuer.state().view.problem.as_ref())
        });
        if let Some(problem) = &polled.problem {
            tracing::warn!(issuer = %issuer.key.title(), reason = %problem.reason, "{}", problem.message);
        }
        let has_changed = {
            let mut state = issuer.state.write().unwrap_or_else(PoisonError::into_inner);
            let next = self.view(&issuer.key, &state.object, polled.problem.clone());
            let had_driver = state.driver.is_some();
            if polled.driver.is_some() || !state.object.is_deleting() {
                state.driver.clone_from(&polled.driver);
            }
            let is_new = *state.view != next;
            if is_new {
                state.view = Arc::new(next);
            }
            is_new || had_driver != state.driver.is_some() || state.list_problems() != problems_before
        };
        self.write_status(issuer, &polled, &pats).await;
        let concerned = pats.iter().filter(|pat| has_changed || issuer.state().may_settle(pat));
        concerned.for_each(|pat| self.gate.trigger(self.stores.key_of(pat)));
        works
    }

    async fn check_and_list(&self, issuer: &Issuer, spec: &TokenIssuerSpec, pats: &[Arc<StoredPat>]) -> Polled {
        let Some((system, url)) = spec.system() else {
            return Polled::failed(Reason::IssuerNotReady, "spec: set exactly one system".into());
        };
        let Some(url) = url else { return Polled::default() };
        let is_enabled = if issuer.key.namespace.is_some() { self.settings.namespaced } else { self.settings.cluster };
        if !is_enabled {
            let message = format!("{} is not enabled in this installation", issuer.key.title());
            return Polled::failed(Reason::IssuerNotReady, message);
        }
        let namespace = issuer.key.namespace.as_deref().unwrap_or(&self.settings.namespace);
        let (drivers, mut problems) =
            match auth::credentials(&self.client, namespace, spec, system, host_of(url), issuer).await {
                Ok(auth::Credentials { usable, problems }) => {
                    let connect = |credential| {
                        let driver = driver(system, &self.endpoint(issuer, spec, url, credential))?;
                        Ok::<_, ConfigError>(self.observed(issuer, system, driver))
                    };
                    (usable.into_iter().map(connect).collect(), problems)
                }
                Err(problem) => match issuer.last_driver() {
                    Some(driver) => (vec![Ok(driver)], vec![problem]),
                    None => return Polled::failed(Reason::IssuerNotReady, problem),
                },
            };
        let mut why = Reason::IssuerNotReady;
        for driver in drivers {
            let driver = match driver {
                Ok(driver) => driver,
                Err(error) => {
                    problems.push(error.to_string());
                    continue;
                }
            };
            match driver.check().await {
                Ok(server) => {
                    if let Some(problem) = issuer.other_account(&server, pats) {
                        why = Reason::IssuerNotReady;
                        problems.push(problem);
                        continue;
                    }
                    let listed = self.list(issuer, system, &*driver, pats).await;
                    return Polled { driver: Some(driver), server, listed, unused: problems, ..Polled::default() };
                }
                Err(error) => {
                    let is_refused = matches!(
                        error,
                        CallError::Unauthorized { .. } | CallError::Forbidden { .. } | CallError::MissingRight(_)
                    );
                    why = reason(&error);
                    problems.push(issuer.shown(error).to_string());
                    if !is_refused {
                        break;
                    }
                }
            }
        }
        Polled::failed(why, problems.join("; "))
    }

    /// Lists the tokens of each target, and returns whether all lists are complete.
    async fn list(&self, issuer: &Issuer, system: IssuerSystem, driver: &dyn Driver, pats: &[Arc<StoredPat>]) -> bool {
        let mut lists = Vec::new();
        let targets = issuer.targets_to_list(system, pats, self.clock.now().into());
        let expected = targets.len();
        for target in targets {
            let begun_at = Time::from(self.clock.now());
            let list = timeout(LIST_LIMIT, driver.list(&issuer_target(&target))).await;
            let list = list.unwrap_or(Err(CallError::TimedOut));
            match list.and_then(|tokens| tokens.iter().try_for_each(|token| check_id(&token.id)).map(|()| tokens)) {
                Ok(tokens) => {
                    let live = tokens.into_iter().filter(|token| token.live);
                    let live = live
                        .map(|token| (token.name, ListedToken { id: token.id, last_used_at: token.last_used_at }))
                        .collect();
                    let list = Arc::new(RemoteList { target, begun_at, live });
                    issuer.note_list(list.clone());
                    lists.push(list);
                }
                Err(error) => {
                    let (title, text, reason) = (issuer.key.title(), target.text(), reason(&error));
                    let why = issuer.shown(error);
                    tracing::warn!(issuer = %title, target = text, "the tokens cannot be listed: {why}");
                    let of = if text.is_empty() { String::new() } else { format!(" of {text}") };
                    let message = format!("{title}: the tokens{of} cannot be listed: {why}");
                    let since = self.clock.now().into();
                    issuer.note_list_problem(target, IssuerProblem { reason, message, since });
                }
            }
        }
        self.revoke_unknown(issuer, driver, &lists).await;
        lists.len() == expected
    }

    fn endpoint(&self, issuer: &Issuer, spec: &TokenIssuerSpec, url: &str, credential: IssuerCredential) -> Endpoint {
        let addresses = match issuer.key.namespace {
            Some(_) => AddressPolicy { allowed: self.settings.networks.clone(), ..AddressPolicy::public_only() },
            None => AddressPolicy::default(),
        };
        Endpoint {
            url: url.to_owned(),
            ca_bundle: spec.ca_bundle.clone(),
            credential,
            account: None,
            http_hosts: self.settings.http_hosts.clone(),
            addresses,
            proxy: None,
            budget: issuer.budget.clone(),
        }
    }

    async fn write_status(&self, issuer: &Issuer, polled: &Polled, pats: &[Arc<StoredPat>]) {
        let _writes = issuer.writes.lock().await;
        let object = issuer.state().object.clone();
        let Ok(spec) = &object.spec else { return };
        let Some((system, url)) = spec.system() else { return };
        let now = Time::from(self.clock.now());
        let before = object.status.clone().unwrap_or_default();
        let live = |pat: &Arc<StoredPat>| {
            let all = pat.status.iter().flat_map(|status| &status.remote_credentials);
            all.filter(|one| matches!(one.state, CredentialState::Active | CredentialState::Grace)).count()
        };
        let is_remote = system != IssuerSystem::Local;
        let tokens: usize = pats.iter().map(live).sum();
        let status = IssuerStatus {
            observed_generation: object.metadata.generation,
            conditions: vec![ready(polled, &object, &before, users(pats), now)],
            type_: Some(system.as_str().into()),
            url: url.map(str::to_owned),
            server_version: polled.server.version.clone().or(before.server_version.clone()),
            account: polled.server.account.clone().or(before.account.clone()),
            tokens: is_remote.then(|| i64::try_from(tokens).unwrap_or(i64::MAX)),
            last_polled_at: if polled.listed { Some(now.floor_second()) } else { before.last_polled_at },
            orphaned: issuer.state().orphaned(),
        };
        if status == before {
            return;
        }
        if let Err(error) = self.patch_status(issuer, &status).await {
            let why = crate::service::explain_api_error(&error);
            tracing::warn!(issuer = %issuer.key.title(), "the status of the issuer cannot be written: {why}");
        }
    }

    /// Records that tokens of a PAT that is being deleted stay at the issuer, so that nothing revokes them later.
    ///
    /// # Errors
    /// The status of the issuer cannot be written.
    pub async fn leave(&self, pat: &StoredPat, names: Vec<String>) -> Result<(), Error> {
        let Some(issuer) = IssuerKey::of(pat).and_then(|key| self.get(&key)) else { return Ok(()) };
        let _writes = issuer.writes.lock().await;
        let status = {
            let mut state = issuer.state.write().unwrap_or_else(PoisonError::into_inner);
            state.leave(names);
            let status = state.object.status.clone().unwrap_or_default();
            IssuerStatus { orphaned: state.orphaned(), ..status }
        };
        let written = self.patch_status(&issuer, &status).await;
        written.map_err(|error| Error::of(&format!("patch status of {}", issuer.key.title()), error))
    }

    async fn patch_status(&self, issuer: &Issuer, status: &IssuerStatus) -> kube::Result<()> {
        let (name, resource) = (&issuer.key.name, issuer.key.kind().resource());
        let body = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": name, "uid": issuer.uid}, "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.api(&issuer.key).patch_status(name, &params, &Patch::Apply(&body)).await.map(drop)
    }
}

/// Returns the condition `Ready` of an issuer.
fn ready(polled: &Polled, object: &StoredIssuer, before: &IssuerStatus, users: usize, now: Time) -> Condition {
    let accepted = "the issuer answers and accepts the credential";
    let (status, reason, message) = match &polled.problem {
        None if object.is_deleting() => {
            let message = format!(
                "the issuer is being deleted, so it issues no more tokens: delete the PersonalAccessTokens that have tokens of it ({users} left), and it goes"
            );
            ("False", Reason::IssuerNotReady.as_str(), message)
        }
        None if polled.unused.is_empty() => ("True", "Available", accepted.to_owned()),
        None => {
            let message = format!("{accepted}; the other credential cannot be used: {}", polled.unused.join("; "));
            ("True", "Available", message)
        }
        Some(problem) => ("False", problem.reason.as_str(), problem.message.clone()),
    };
    let condition = Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_transition_time: now.floor_second(),
        observed_generation: object.metadata.generation,
    };
    condition.following(&before.conditions)
}

/// Returns the reason of the condition for a call that failed: whether a person must act, or it may work again.
fn reason(error: &CallError) -> Reason {
    match error {
        CallError::Unauthorized { .. }
        | CallError::Forbidden { .. }
        | CallError::NotFound { .. }
        | CallError::AddressRefused
        | CallError::Redirected { .. }
        | CallError::Malformed { .. }
        | CallError::MissingRight(_)
        | CallError::Unsupported(_) => Reason::IssuerNotReady,
        _ => Reason::IssuerUnavailable,
    }
}

/// Returns the host of a URL, with its port.
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

impl Polled {
    fn failed(reason: Reason, message: String) -> Self {
        // The poll sets the time.
        Self { problem: Some(IssuerProblem { reason, message, since: Time::MIN }), ..Self::default() }
    }
}

impl Issuer {
    /// Returns the time between two polls.
    pub(super) fn interval(&self) -> Duration {
        if self.state().object.is_deleting() {
            return DELETING_INTERVAL;
        }
        let interval =
            self.state().object.spec.as_ref().ok().and_then(|spec| spec.poll_interval.as_ref()?.parse().ok());
        interval.and_then(|interval: SignedDuration| Duration::try_from(interval).ok()).unwrap_or(INTERVAL)
    }
}
