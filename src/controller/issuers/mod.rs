//! The issuers of other systems: what is known of each one, its calls, and the lists of its tokens.
//!
//! ```text
//! watches -> Issuers (one Issuer each) -> protection: the finalizer of the issuer
//!                                      -> poller: check, list -> views and lists, which the planner reads
//!                                      -> orphans: tokens in lists that no PAT knows
//!                                      <- calls: create, delete, in tasks of their own, so that a slow issuer holds up no other PAT
//! ```

mod auth;
mod calls;
mod metrics;
mod orphans;
mod poller;
mod protection;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::AtomicU64},
};

use ipnet::IpNet;
use k8s_openapi::jiff::SignedDuration;
use kube::{Api, api::DynamicObject};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    calls::FinishedCalls,
    metrics::{CallCounts, IssuerMetrics},
    protection::users,
};
pub use self::{
    calls::{FinishedCall, FinishedResult},
    metrics::Operation,
    poller::host_of,
};
use super::{gate::ReconcileGate, namespaced_name::NamespacedName, stores::Stores};
use crate::{
    api::{
        CredentialState, GitLabAccessLevel, IssuerKind, IssuerReference, IssuerSystem, Reason, RemoteTarget,
        StoredIssuer, StoredPat, Time, TokenIssuerSpec, TrueFoundryTokenType,
    },
    issuer::{CallBudget, CallError, Driver, GitLabOwner, IssuerTarget, ServerInfo},
    planner::{
        orphans::UnknownTokens,
        remote::{IssuerProblem, IssuerView, ListProblem, RemoteList, issuer_mark, last_use, names_of_another},
    },
    service::{self, Clock},
};

/// How many calls an issuer gets in a minute, and at once.
const CALLS_PER_MINUTE: u32 = 600;
const CALLS_AT_ONCE: usize = 16;

/// How many names the status of an issuer lists.
const MAX_ORPHANED: usize = 1_000;

/// How long a target is listed after the last PAT with a token of it: so tokens that no PAT knows are found.
const LISTED_AFTER_USE: SignedDuration = SignedDuration::from_hours(1);

/// What the operator's flags say about all issuers.
#[derive(Clone, Debug, Default)]
pub struct IssuerSettings {
    /// Whether ClusterTokenIssuers work.
    pub cluster: bool,
    /// Whether TokenIssuers work.
    pub namespaced: bool,
    /// The namespace of the Secrets of ClusterTokenIssuers.
    pub namespace: String,
    /// The name of the lease, which tells the tokens of this installation from those of others in the same cluster.
    pub lease: String,
    /// The hosts that may be reached by HTTP.
    pub http_hosts: Vec<String>,
    /// The networks that TokenIssuers may reach although their addresses are not public.
    pub networks: Vec<IpNet>,
}

impl IssuerSettings {
    /// Whether any issuer works.
    pub fn is_enabled(&self) -> bool {
        self.cluster || self.namespaced
    }
}

/// The key of an issuer: its namespace, unless it is a ClusterTokenIssuer, and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IssuerKey {
    /// The namespace of a TokenIssuer.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl IssuerKey {
    /// Returns the key of the issuer that a PAT names.
    pub fn of(pat: &StoredPat) -> Option<Self> {
        Some(Self::named(pat.namespace(), pat.spec.as_ref().ok()?.issuer_ref.as_deref()?))
    }

    fn named(namespace: &str, reference: &IssuerReference) -> Self {
        let namespace = (reference.kind == IssuerKind::TokenIssuer).then(|| namespace.to_owned());
        Self { namespace, name: reference.name.clone() }
    }

    /// Whether a PAT names the issuer.
    pub fn is_named_by(&self, pat: &StoredPat) -> bool {
        Self::of(pat).as_ref() == Some(self)
    }

    /// Returns the kind.
    pub fn kind(&self) -> IssuerKind {
        if self.namespace.is_some() { IssuerKind::TokenIssuer } else { IssuerKind::ClusterTokenIssuer }
    }

    /// Returns the kind and the name, for messages.
    pub fn title(&self) -> String {
        self.kind().title(&self.name)
    }
}

/// All issuers.
pub struct Issuers {
    client: kube::Client,
    stores: Arc<Stores>,
    clock: Clock,
    settings: IssuerSettings,
    /// The UID of the namespace kube-system, which is a part of the marks in the names of tokens; empty before it is known.
    cluster: RwLock<String>,
    issuers: RwLock<HashMap<IssuerKey, Arc<Issuer>>>,
    changed: Notify,
    calls: TaskTracker,
    finished: Mutex<FinishedCalls>,
    gate: Arc<ReconcileGate>,
    metrics: IssuerMetrics,
}

/// One issuer.
pub struct Issuer {
    key: IssuerKey,
    uid: String,
    budget: Arc<CallBudget>,
    calls: Arc<CallCounts>,
    /// How many tokens that no PAT knew were revoked.
    orphans_revoked: AtomicU64,
    state: RwLock<IssuerState>,
    /// Held while the status is written, so that no write is based on an older one.
    writes: tokio::sync::Mutex<()>,
    poll_soon: Notify,
    removed: CancellationToken,
}

/// What is known of an issuer.
struct IssuerState {
    object: Arc<StoredIssuer>,
    view: Arc<IssuerView>,
    driver: Option<Arc<dyn Driver>>,
    /// What is known of each target that is listed.
    targets: HashMap<RemoteTarget, Listed>,
    unknown: UnknownTokens,
    /// The names of unknown tokens whose revocation the issuer accepted, until a list no longer shows them.
    unknown_revoked: HashMap<RemoteTarget, HashSet<String>>,
    /// Tokens that this process left at the issuer. The status in `object` may be older.
    left: Vec<String>,
}

impl IssuerState {
    /// Records tokens that are left at the issuer.
    fn leave(&mut self, names: Vec<String>) {
        let new: Vec<_> = names.into_iter().filter(|name| !self.left.contains(name)).collect();
        self.left.extend(new);
    }

    /// Returns the names of the tokens that were left at the issuer, the newest last.
    fn orphaned(&self) -> Vec<String> {
        let mut names = self.object.status.as_ref().map(|status| status.orphaned.clone()).unwrap_or_default();
        let new = self.left.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>();
        names.extend(new);
        let excess = names.len().saturating_sub(MAX_ORPHANED);
        names.drain(..excess);
        names
    }

    /// Returns why the newest list of a target failed, for each target where it did.
    fn list_problems(&self) -> HashMap<RemoteTarget, IssuerProblem> {
        let problem = |(target, listed): (&RemoteTarget, &Listed)| Some((target.clone(), listed.problem.clone()?));
        self.targets.iter().filter_map(problem).collect()
    }

    /// Whether new lists can change something for a PAT: one of its tokens is not settled or was used, or the newest list does not show it.
    fn may_settle(&self, pat: &StoredPat) -> bool {
        let recorded = pat.status.iter().flat_map(|status| &status.remote_credentials);
        recorded.into_iter().any(|one| {
            let is_settled = matches!(one.state, CredentialState::Active | CredentialState::Grace);
            let list = one.remote.as_ref().and_then(|remote| {
                let newest = self.targets.get(&remote.target)?.lists.first()?;
                Some(newest.live.contains_key(&remote.name) && last_use(remote, newest).is_none())
            });
            !is_settled || list != Some(true)
        })
    }
}

/// What is known of the tokens of a target.
#[derive(Default)]
struct Listed {
    /// The newest two lists, newest first.
    lists: Vec<Arc<RemoteList>>,
    /// Why the newest list failed.
    problem: Option<IssuerProblem>,
    /// When a PAT had a token of the target last.
    used_at: Option<Time>,
}

/// What the planner reads about the issuer of one PAT.
#[derive(Clone, Default)]
pub struct IssuerFacts {
    /// The issuer.
    pub view: Option<Arc<IssuerView>>,
    /// The newest two lists of each target of the PAT's tokens, newest first.
    pub lists: Vec<Arc<RemoteList>>,
    /// The targets of the PAT's tokens for which the newest list failed.
    pub list_problems: Vec<ListProblem>,
    /// The names of the PAT's tokens that have ended, were issued to a PAT with another UID, and that some other PAT uses.
    pub shared_names: Vec<String>,
}

impl Issuers {
    /// Creates an empty set. The PATs that a finished call or a new list concerns are triggered in `gate`.
    pub fn new(
        client: kube::Client,
        stores: Arc<Stores>,
        gate: Arc<ReconcileGate>,
        clock: Clock,
        settings: IssuerSettings,
    ) -> Self {
        Self {
            client,
            stores,
            clock,
            settings,
            cluster: RwLock::default(),
            issuers: RwLock::default(),
            changed: Notify::new(),
            calls: TaskTracker::new(),
            finished: Mutex::default(),
            gate,
            metrics: IssuerMetrics::default(),
        }
    }

    /// Returns what is known of the issuer of a PAT.
    pub fn facts(&self, pat: &StoredPat) -> IssuerFacts {
        let issuer = IssuerKey::of(pat).and_then(|key| self.get(&key));
        let Some(issuer) = issuer else { return IssuerFacts::default() };
        let shared_names = self.shared_names(pat);
        let state = issuer.state();
        let mut facts = IssuerFacts { view: Some(state.view.clone()), shared_names, ..IssuerFacts::default() };
        for target in targets(pat) {
            let Some(listed) = state.targets.get(&target) else { continue };
            facts.lists.extend(listed.lists.iter().cloned());
            facts.list_problems.extend(listed.problem.clone().map(|problem| ListProblem { target, problem }));
        }
        facts
    }

    /// Returns the names of a PAT's tokens that have ended, were issued to a PAT with another UID, and that some other PAT uses, or may use.
    /// All PATs are read only if this one was restored from a backup, which is rare.
    fn shared_names(&self, pat: &StoredPat) -> Vec<String> {
        let names: Vec<_> = names_of_another(pat).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let mut used = HashSet::new();
        let all = self.stores.pats().state();
        for other in all.iter().filter(|other| other.uid() != pat.uid()) {
            let Some(status) = other.readable_status() else {
                return names.into_iter().map(str::to_owned).collect();
            };
            if other.metadata.deletion_timestamp.is_none() {
                used.extend(status.live().filter_map(|one| Some(one.remote.as_ref()?.name.as_str())));
            }
        }
        names.into_iter().filter(|name| used.contains(name)).map(str::to_owned).collect()
    }

    /// Asks for a list of the tokens of the issuer of a PAT soon.
    pub fn poll_soon(&self, pat: &StoredPat) {
        if let Some(issuer) = IssuerKey::of(pat).and_then(|key| self.get(&key)) {
            issuer.poll_soon.notify_one();
        }
    }

    /// Stores an issuer, and returns the PATs that name it.
    pub fn apply(&self, key: IssuerKey, object: StoredIssuer) -> Vec<NamespacedName> {
        let object = Arc::new(object);
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(issuer) = issuers.get(&key).filter(|issuer| issuer.uid == uid) {
            let mut state = issuer.state.write().unwrap_or_else(PoisonError::into_inner);
            if state.object.metadata.generation == object.metadata.generation {
                state.object = object;
                return Vec::new();
            }
            let problem = state.view.problem.clone();
            state.view = Arc::new(self.view(&key, &object, problem));
            state.object = object;
            drop(state);
            issuer.poll_soon.notify_one();
        } else {
            let message = format!("{} has not been contacted yet", key.title());
            let problem =
                Some(IssuerProblem { reason: Reason::IssuerUnavailable, message, since: self.clock.now().into() });
            let state = IssuerState {
                view: Arc::new(self.view(&key, &object, problem)),
                object,
                driver: None,
                targets: HashMap::new(),
                unknown: UnknownTokens::default(),
                unknown_revoked: HashMap::new(),
                left: Vec::new(),
            };
            let issuer = Issuer {
                key: key.clone(),
                uid,
                budget: CallBudget::new(CALLS_PER_MINUTE, CALLS_AT_ONCE),
                calls: Arc::default(),
                orphans_revoked: AtomicU64::default(),
                state: RwLock::new(state),
                writes: tokio::sync::Mutex::default(),
                poll_soon: Notify::new(),
                removed: CancellationToken::new(),
            };
            if let Some(former) = issuers.insert(key.clone(), Arc::new(issuer)) {
                former.removed.cancel();
            }
            self.changed.notify_one();
        }
        drop(issuers);
        self.pats_of(&key)
    }

    /// Removes an issuer, and returns the PATs that name it.
    pub fn remove(&self, key: &IssuerKey) -> Vec<NamespacedName> {
        let removed = self.issuers.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        let Some(removed) = removed else { return Vec::new() };
        removed.removed.cancel();
        self.pats_of(key)
    }

    /// Returns the keys of all issuers with a namespace, or of all without.
    pub fn keys(&self, namespaced: bool) -> Vec<IssuerKey> {
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        issuers.keys().filter(|key| key.namespace.is_some() == namespaced).cloned().collect()
    }

    /// Returns the keys of all issuers, with the generation of each that is known.
    pub fn generations(&self) -> Vec<(IssuerKey, Option<i64>)> {
        let generation = |issuer: Arc<Issuer>| (issuer.key.clone(), issuer.state().object.metadata.generation);
        self.all().into_iter().map(generation).collect()
    }

    /// Returns the PATs that name an issuer.
    fn pats_of(&self, key: &IssuerKey) -> Vec<NamespacedName> {
        self.stored_pats_of(key).iter().map(|pat| self.stores.key_of(pat)).collect()
    }

    fn stored_pats_of(&self, key: &IssuerKey) -> Vec<Arc<StoredPat>> {
        self.stores.pats().state().into_iter().filter(|pat| key.is_named_by(pat)).collect()
    }

    /// Returns the API of the kind and namespace of an issuer.
    fn api(&self, key: &IssuerKey) -> Api<DynamicObject> {
        service::scoped_dynamic(&self.client, key.namespace.as_deref(), &key.kind().resource())
    }

    fn get(&self, key: &IssuerKey) -> Option<Arc<Issuer>> {
        self.issuers.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Returns an issuer as the planner sees it.
    fn view(&self, key: &IssuerKey, object: &StoredIssuer, problem: Option<IssuerProblem>) -> IssuerView {
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        view(key, object, issuer_mark(&cluster, &self.settings.lease, uid), problem)
    }
}

impl Issuer {
    fn state(&self) -> std::sync::RwLockReadGuard<'_, IssuerState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the driver of the last poll that worked, if the issuer is being deleted: the Secret of its credential may go first, with the
    /// namespace.
    fn last_driver(&self) -> Option<Arc<dyn Driver>> {
        let state = self.state();
        state.driver.clone().filter(|_| state.object.is_deleting())
    }

    /// Returns what is wrong if the credential is for another account than before, whose lists would show none of the tokens.
    /// While there are no tokens, the account may change.
    fn other_account(&self, server: &ServerInfo, pats: &[Arc<StoredPat>]) -> Option<String> {
        let state = self.state();
        if users(pats) == 0 && state.orphaned().is_empty() {
            return None;
        }
        let recorded = state.object.status.as_ref().ok()?.account.as_ref()?;
        let account = server.account.as_ref().filter(|account| !account.eq_ignore_ascii_case(recorded))?;
        Some(format!(
            "the credential is for the account {account:?}, but the tokens belong to {recorded:?}: use a credential of {recorded:?}, or create \
             another issuer"
        ))
    }

    /// Returns the targets to list: those of the tokens that PATs have, those that PATs had tokens of recently, and the account of the
    /// credential, if tokens can belong to it.
    fn targets_to_list(&self, system: IssuerSystem, pats: &[Arc<StoredPat>], now: Time) -> Vec<RemoteTarget> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for target in pats.iter().flat_map(|pat| targets(pat)) {
            state.targets.entry(target).or_default().used_at = Some(now);
        }
        if system.has_account() {
            state.targets.entry(RemoteTarget::default()).or_default().used_at = Some(now);
        }
        state.targets.retain(|_, listed| listed.used_at.is_some_and(|at| now.since(at) < LISTED_AFTER_USE));
        state.targets.keys().cloned().collect()
    }

    fn note_list(&self, list: Arc<RemoteList>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let listed = state.targets.entry(list.target.clone()).or_default();
        listed.problem = None;
        listed.lists.insert(0, list);
        listed.lists.truncate(2);
    }

    fn note_list_problem(&self, target: RemoteTarget, problem: IssuerProblem) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let listed = state.targets.entry(target).or_default();
        listed.problem = Some(problem.following(listed.problem.as_ref()));
    }

    /// Returns a failed call as a person may see it: for a TokenIssuer, without anything that the server says, because its owner chose the
    /// server.
    fn shown(&self, error: CallError) -> CallError {
        if self.key.namespace.is_some() { error.without_message() } else { error }
    }
}

/// Returns the issuer as the planner sees it. `mark` is the part of the names of its tokens that tells them from those of other issuers.
pub fn view(key: &IssuerKey, object: &StoredIssuer, mark: String, problem: Option<IssuerProblem>) -> IssuerView {
    let spec = object.spec.as_ref().ok();
    IssuerView {
        title: key.title(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        system: spec.and_then(TokenIssuerSpec::system).map_or(IssuerSystem::Local, |(system, _)| system),
        mark,
        policy: spec.and_then(|spec| spec.policy.clone()),
        deleting: object.is_deleting(),
        problem: match spec.and_then(TokenIssuerSpec::system) {
            Some((IssuerSystem::Local, _)) => None,
            Some(_) => problem,
            None => {
                let message = format!("the spec of {} names no system that this version knows", key.title());
                Some(IssuerProblem { reason: Reason::IssuerNotReady, message, since: Time::MIN })
            }
        },
    }
}

/// Returns what the recorded tokens of a PAT are for. Only these are listed: a target in a spec is not yet permitted by a policy.
fn targets(pat: &StoredPat) -> Vec<RemoteTarget> {
    let recorded = pat.status.iter().flat_map(|status| &status.remote_credentials);
    let mut targets = Vec::new();
    for target in recorded.filter_map(|credential| Some(&credential.remote.as_ref()?.target)) {
        if !targets.contains(target) {
            targets.push(target.clone());
        }
    }
    targets
}

/// Returns a target as drivers name it.
fn issuer_target(target: &RemoteTarget) -> IssuerTarget {
    if let Some(git_lab) = &target.git_lab {
        let owner = match (&git_lab.project, &git_lab.group) {
            (Some(project), _) => GitLabOwner::Project(project.clone()),
            (None, Some(group)) => GitLabOwner::Group(group.clone()),
            (None, None) => GitLabOwner::User(git_lab.user.unwrap_or_default().unsigned_abs()),
        };
        let level = git_lab.access_level.unwrap_or(GitLabAccessLevel::Developer);
        let access_level = git_lab.user.is_none().then_some(level);
        return IssuerTarget::GitLab { owner, access_level };
    }
    if let Some(argo_cd) = &target.argo_cd {
        return match &argo_cd.account {
            Some(account) => IssuerTarget::ArgoCdAccount { account: account.clone() },
            None => IssuerTarget::ArgoCdRole {
                project: argo_cd.project.clone().unwrap_or_default(),
                role: argo_cd.role.clone().unwrap_or_default(),
            },
        };
    }
    match target.true_foundry.map(|target| target.type_) {
        Some(TrueFoundryTokenType::VirtualAccount) => IssuerTarget::TrueFoundryVirtualAccount,
        Some(TrueFoundryTokenType::PersonalAccessToken) | None => IssuerTarget::Account,
    }
}
