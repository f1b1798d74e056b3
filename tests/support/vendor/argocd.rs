//! A server that behaves like Argo CD's API for tokens of accounts and roles (`server/account/account.go`, `server/project/project.go`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{Vendor, VendorRequest, VendorResponse};

/// The token of the caller.
pub const CALLER: &str = "argocd-0123456789";

/// A token of a caller without rights.
pub const NOBODY: &str = "argocd-nobody-0123456789";

/// The tokens by account (`account:ci`) or role (`role:deploy`).
type ArgoCdState = BTreeMap<&'static str, Vec<Value>>;

/// A running server with the account `ci`, the account `human` that cannot have tokens, and the role `deploy` of the project `shop`.
pub struct ArgoCd {
    /// The server.
    pub vendor: Vendor,
    state: Arc<Mutex<ArgoCdState>>,
}

impl ArgoCd {
    /// Starts a server.
    pub async fn start() -> Self {
        let state = Arc::<Mutex<ArgoCdState>>::default();
        let shared = state.clone();
        let vendor = Vendor::start(move |request| answer(&mut shared.lock().expect("no panic"), request)).await;
        Self { vendor, state }
    }

    /// The ids of the tokens of an account or a role.
    pub fn ids(&self, of: &str) -> Vec<String> {
        let state = self.state.lock().expect("no panic");
        let tokens = state.get(of).into_iter().flatten();
        tokens.map(|token| token["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// Adds a token that was issued in the same second as another one.
    pub fn add_to_role(&self, id: &str, issued_at: i64) {
        let mut state = self.state.lock().expect("no panic");
        state.entry("role:deploy").or_default().push(json!({"id": id, "iat": issued_at, "exp": 0}));
    }

    /// The time at which the tokens of a role were issued.
    pub fn issued_at(&self) -> i64 {
        self.state.lock().expect("no panic")["role:deploy"][0]["iat"].as_i64().expect("a time")
    }
}

fn error(status: u16, code: u8, message: &str) -> VendorResponse {
    (status, vec![], json!({"error": message, "code": code, "message": message}))
}

fn answer(state: &mut ArgoCdState, request: &VendorRequest) -> VendorResponse {
    let authorization = request.headers.get("authorization").and_then(|value| value.to_str().ok());
    let caller = authorization.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let path: Vec<_> = request.path.iter().map(String::as_str).collect();
    match (request.method.as_str(), &path[..]) {
        ("GET", ["api", "version"]) => return (200, vec![], json!({"Version": "v3.4.5+ce9b63e"})),
        ("GET", ["api", "v1", "session", "userinfo"]) => {
            let is_known = caller == CALLER || caller == NOBODY;
            return (200, vec![], if is_known { json!({"loggedIn": true, "username": "ci"}) } else { json!({}) });
        }
        _ => {}
    }
    match caller {
        CALLER => {}
        NOBODY => return error(403, 7, "permission denied"),
        _ => return error(401, 16, "invalid session: token signature is invalid"),
    }
    match (request.method.as_str(), &path[..]) {
        (_, ["api", "v1", "account", account, rest @ ..]) => match *account {
            "ci" => account_tokens(state.entry("account:ci").or_default(), rest, request),
            "human" if rest == ["token"] => error(500, 2, "account 'human' does not have apiKey capability"),
            _ => error(404, 5, "account does not exist"),
        },
        ("GET", ["api", "v1", "projects", "shop"]) => {
            let tokens = state.entry("role:deploy").or_default();
            let status =
                if tokens.is_empty() { json!({}) } else { json!({"jwtTokensByRole": {"deploy": {"items": tokens}}}) };
            (
                200,
                vec![],
                json!({"metadata": {"name": "shop"}, "spec": {"roles": [{"name": "deploy"}]}, "status": status}),
            )
        }
        (_, ["api", "v1", "projects", "shop", "roles", "deploy", "token", rest @ ..]) => {
            role_tokens(state.entry("role:deploy").or_default(), rest, request)
        }
        ("POST", ["api", "v1", "projects", "shop", "roles", ..]) => error(404, 5, "project 'shop' does not have role"),
        (_, ["api", "v1", "projects", ..]) => error(404, 5, "appprojects.argoproj.io not found"),
        _ => error(404, 5, "Not Found"),
    }
}

/// The id, the time of issue and the expiry of a token to create; 0 for never.
fn requested(request: &VendorRequest) -> (String, i64, i64) {
    let (now, lifetime) = (Timestamp::now().as_second(), request.body["expiresIn"].as_i64().unwrap_or_default());
    let id = request.body["id"].as_str().expect("the driver chooses the id").to_owned();
    (id, now, if lifetime > 0 { now + lifetime } else { 0 })
}

fn account_tokens(tokens: &mut Vec<Value>, rest: &[&str], request: &VendorRequest) -> VendorResponse {
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            // Without tokens, Go writes null.
            let shown = if tokens.is_empty() { Value::Null } else { json!(tokens) };
            (200, vec![], json!({"name": "ci", "enabled": true, "capabilities": ["apiKey"], "tokens": shown}))
        }
        ("POST", ["token"]) => {
            let (id, now, end) = requested(request);
            if tokens.iter().any(|token| token["id"] == *id) {
                return error(500, 2, &format!("account already has token with id '{id}'"));
            }
            tokens.push(json!({"id": id, "issuedAt": now, "expiresAt": end}));
            (200, vec![], json!({"token": format!("eyJ.{id}")}))
        }
        ("DELETE", ["token", id]) => match tokens.iter().position(|token| token["id"] == *id) {
            Some(at) => {
                tokens.remove(at);
                (200, vec![], json!({}))
            }
            None => error(404, 5, &format!("token with id '{id}' does not exist")),
        },
        _ => error(405, 12, "Method Not Allowed"),
    }
}

fn role_tokens(tokens: &mut Vec<Value>, rest: &[&str], request: &VendorRequest) -> VendorResponse {
    match (request.method.as_str(), rest) {
        ("POST", []) => {
            let (id, now, end) = requested(request);
            if tokens.iter().any(|token| token["id"] == *id) {
                return error(400, 3, "Token id is already in use");
            }
            tokens.push(json!({"id": id, "iat": now, "exp": end}));
            (200, vec![], json!({"token": format!("eyJ.{id}")}))
        }
        ("DELETE", [issued_at]) => {
            let issued_at: i64 = issued_at.parse().expect("a number");
            let id = request.query.get("id").map(String::as_str).unwrap_or_default();
            let by_id = tokens.iter().position(|token| !id.is_empty() && token["id"] == id);
            let by_time = || tokens.iter().position(|token| issued_at != -1 && token["iat"] == issued_at);
            // 200 also for a token that does not exist.
            if let Some(at) = by_id.or_else(by_time) {
                tokens.remove(at);
            }
            (200, vec![], json!({}))
        }
        _ => error(405, 12, "Method Not Allowed"),
    }
}
