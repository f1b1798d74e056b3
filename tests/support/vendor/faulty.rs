//! A GitLab whose calls fail as calls do: refused, lost before or after they took effect, late, or answered with garbage.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{Router, body::Body, extract::Request, response::Response};
use futures::stream;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use pat_operator::{api::Time, service::Clock};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use super::{VendorRequest, gitlab::GitLabState, read, respond};
use crate::support::faults::Faults;

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemoteCall {
    /// A call that checks the issuer.
    Check,
    /// One page of a list.
    Page,
    /// The creation of a token.
    Create,
    /// The revocation of a token.
    Delete,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteFault {
    /// The controller dies before the call arrives.
    DieBefore,
    /// The call takes effect, and the controller dies before it gets the answer.
    DieAfter,
    /// The controller dies, and the call takes effect later, just before the nth call after it.
    DieLate(usize),
    /// The connection breaks before the call arrives.
    LostBefore,
    /// The call takes effect, and the answer is lost.
    LostAfter,
    /// The connection breaks, and the call takes effect later, just before the nth call after it.
    Late(usize),
    /// The server refuses the call with this status.
    Refused(u16),
    /// The call takes effect, and the answer is 200 with something else than JSON.
    Garbage,
}

/// A fault for the nth call of a kind, counted from 0.
pub type PlannedFault = (RemoteCall, usize, RemoteFault);

/// A running server.
pub struct FaultyGitLab {
    /// Its base URL.
    pub url: String,
    state: Arc<Mutex<FaultyState>>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct FaultyState {
    gitlab: GitLabState,
    plan: Vec<PlannedFault>,
    seen: HashMap<RemoteCall, usize>,
    hits: usize,
    /// How many calls are left until a late one takes effect, the call, and the time when it was sent.
    late: Option<(usize, VendorRequest, Time)>,
    /// The requests of the controller to the API server, which die with it.
    process: Option<Faults>,
    /// The Secret whose token must not be revoked.
    guarded: Option<(Api<Secret>, String)>,
    violations: Vec<String>,
    calls: Vec<String>,
    /// Whether it answers 503 to all calls.
    is_down: bool,
}

enum Way {
    Through,
    Broken,
    ThenBroken,
    Refused(u16),
    Garbage,
}

impl RemoteCall {
    fn of(request: &VendorRequest) -> Self {
        match request.method.as_str() {
            "POST" => Self::Create,
            "DELETE" => Self::Delete,
            _ if request.path.last().is_some_and(|last| last == "access_tokens") => Self::Page,
            _ => Self::Check,
        }
    }
}

impl FaultyGitLab {
    /// Starts a server without faults, which shows two tokens on a page.
    pub async fn start(clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mut gitlab = GitLabState::default();
        (gitlab.clock, gitlab.page) = (clock, Some(2));
        let state = Arc::new(Mutex::new(FaultyState { gitlab, ..FaultyState::default() }));
        let shared = state.clone();
        let handle = async move |request: Request| answer(&shared, read(request).await).await;
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, Router::new().fallback(handle)).await.expect("it serves");
        });
        Self { url, state, _server: server }
    }

    /// Plans faults for the calls from now on. `process` dies with the controller, and `guarded` is the Secret whose token must not be
    /// revoked.
    pub fn arm(&self, plan: Vec<PlannedFault>, process: &Faults, guarded: Option<(Api<Secret>, String)>) {
        let mut state = self.state();
        let gitlab = std::mem::take(&mut state.gitlab);
        let process = Some(process.clone());
        *state = FaultyState { gitlab, plan, process, guarded, ..FaultyState::default() };
    }

    /// Lets another process make calls. Planned faults stay.
    pub fn serve(&self, process: &Faults) {
        self.state().process = Some(process.clone());
    }

    /// How many of the planned faults have hit a call.
    pub fn hits(&self) -> usize {
        self.state().hits
    }

    /// What went wrong at the server.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// All calls since [`arm`](Self::arm), for messages.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// Makes the server answer 503 to all calls, or work again.
    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// Works on the server's tokens.
    pub fn with<T>(&self, work: impl FnOnce(&mut GitLabState) -> T) -> T {
        work(&mut self.state().gitlab)
    }

    /// When the late call was sent, if there is one that has not taken effect.
    pub fn late_since(&self) -> Option<Time> {
        self.state().late.as_ref().map(|(_, _, sent_at)| *sent_at)
    }

    /// Lets the late call take effect, if there is one.
    pub async fn land(&self) {
        let late = self.state().late.take();
        if let Some((_, request, _)) = late {
            perform(&self.state, &request, " (late)").await;
        }
    }

    fn state(&self) -> MutexGuard<'_, FaultyState> {
        self.state.lock().expect("no panic")
    }
}

impl FaultyState {
    /// Takes the late call that is due before the next one.
    fn take_late(&mut self) -> Option<VendorRequest> {
        let (left, ..) = self.late.as_mut()?;
        *left -= 1;
        (*left == 0).then(|| self.late.take()).flatten().map(|(_, request, _)| request)
    }

    /// Decides what happens to a call.
    fn meet(&mut self, request: &VendorRequest) -> Way {
        if self.process.as_ref().is_some_and(Faults::is_dead) {
            return Way::Broken;
        }
        if self.is_down {
            return Way::Refused(503);
        }
        let call = RemoteCall::of(request);
        let seen = self.seen.entry(call).or_default();
        let number = std::mem::replace(seen, *seen + 1);
        let Some((.., fault)) = self.plan.iter().find(|(kind, nth, _)| (*kind, *nth) == (call, number)) else {
            return Way::Through;
        };
        let fault = *fault;
        self.hits += 1;
        self.calls.push(format!("{fault:?} hits {} {}", request.method, request.path.join("/")));
        if let (RemoteFault::DieBefore | RemoteFault::DieAfter | RemoteFault::DieLate(_), Some(process)) =
            (fault, &self.process)
        {
            process.die();
        }
        match fault {
            RemoteFault::DieBefore | RemoteFault::LostBefore => Way::Broken,
            RemoteFault::DieAfter | RemoteFault::LostAfter => Way::ThenBroken,
            RemoteFault::DieLate(after) | RemoteFault::Late(after) => {
                self.late = Some((after, request.clone(), self.gitlab.clock.now().into()));
                Way::Broken
            }
            RemoteFault::Refused(status) => Way::Refused(status),
            RemoteFault::Garbage => Way::Garbage,
        }
    }
}

async fn answer(state: &Mutex<FaultyState>, request: VendorRequest) -> Response {
    let late = state.lock().expect("no panic").take_late();
    if let Some(late) = late {
        perform(state, &late, " (late)").await;
    }
    let way = state.lock().expect("no panic").meet(&request);
    match way {
        Way::Through => perform(state, &request, "").await,
        Way::Broken => broken(),
        Way::ThenBroken => {
            perform(state, &request, "").await;
            broken()
        }
        Way::Refused(status) => {
            let headers = if status == 429 { vec![("retry-after", "0".to_owned())] } else { Vec::new() };
            respond((status, headers, json!({"message": format!("a test's {status}")})))
        }
        Way::Garbage => {
            perform(state, &request, "").await;
            Response::new(Body::from("<html>welcome</html>"))
        }
    }
}

/// Lets a call take effect.
async fn perform(state: &Mutex<FaultyState>, request: &VendorRequest, remark: &str) -> Response {
    let guarded = state.lock().expect("no panic").guarded.clone();
    let in_secret = match guarded.filter(|_| request.method == "DELETE") {
        Some((secrets, name)) => {
            let secret = secrets.get_opt(&name).await.expect("the API server answers");
            let data = secret.and_then(|secret| secret.data).unwrap_or_default();
            data.get("token").and_then(|token| String::from_utf8(token.0.clone()).ok())
        }
        None => None,
    };
    let mut state = state.lock().expect("no panic");
    let id = request.path.last().cloned().unwrap_or_default();
    let is_in_use = |token: &serde_json::Value| {
        token["id"].as_u64() == id.parse().ok() && token["token"].as_str() == in_secret.as_deref()
    };
    if request.method == "DELETE" && state.gitlab.live().iter().any(is_in_use) {
        state.violations.push(format!("the token in the Secret is revoked: {id}{remark}"));
    }
    let (status, headers, body) = state.gitlab.answer(request);
    let name = body["name"].as_str().or(request.body["name"].as_str()).unwrap_or_default().to_owned();
    let now = state.gitlab.clock.now();
    state.calls.push(format!("{now} {} {} {name}: {status}{remark}", request.method, request.path.join("/")));
    respond((status, headers, body))
}

/// An answer that breaks off.
fn broken() -> Response {
    let error = io::Error::new(io::ErrorKind::ConnectionReset, "the connection broke");
    Response::new(Body::from_stream(stream::iter([Ok("["), Err(error)])))
}
