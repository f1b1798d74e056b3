//! A server that refuses what GitLab refuses: access tokens of projects and groups, and personal ones by an administrator.
//!
//! It follows `doc/api/project_access_tokens.md`, `personal_access_tokens.md` and `user_tokens.md` of GitLab, and `lib/api/` where these say
//! nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use k8s_openapi::jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use pat_operator::service::Clock;
use serde_json::{Value, json};

use super::{Vendor, VendorRequest, VendorResponse};

/// The token of the administrator.
pub const ADMIN: &str = "glpat-admin-0123456789";

/// A token that may do the same, but is no administrator's.
pub const MAINTAINER: &str = "glpat-maintainer-0123456789";

/// A token without the scope `api`.
pub const READER: &str = "glpat-reader-0123456789";

/// The longest life of a token, in days.
pub const MAX_DAYS: i64 = 365;

const SCOPES: [&str; 8] = [
    "api",
    "read_api",
    "create_runner",
    "read_repository",
    "write_repository",
    "read_registry",
    "write_registry",
    "k8s_proxy",
];

/// What the server has.
#[derive(Default)]
pub struct GitLabState {
    tokens: BTreeMap<u64, Value>,
    /// How many tokens there ever were.
    count: u64,
    /// Its clock.
    pub clock: Clock,
    /// How many requests are left until the server answers 429.
    pub left: Option<u32>,
    /// The most tokens on a page.
    pub page: Option<usize>,
    /// Whether the project was deleted.
    pub project_is_gone: bool,
    /// How many requests had a credential that is not accepted.
    pub unauthorized: u32,
}

/// A running server with the project `7` (`group/app`), the group `3` (`group`) and the user 42.
pub struct GitLab {
    /// The server.
    pub vendor: Vendor,
    /// Its state.
    pub state: Arc<Mutex<GitLabState>>,
}

impl GitLab {
    /// Starts a server.
    pub async fn start() -> Self {
        let state = Arc::<Mutex<GitLabState>>::default();
        let shared = state.clone();
        let vendor = Vendor::start(move |request| shared.lock().expect("no panic").answer(request)).await;
        Self { vendor, state }
    }

    /// Whether a token is accepted.
    pub fn accepts(&self, token: &str) -> bool {
        self.state.lock().expect("no panic").accepts(token)
    }
}

fn refused(status: u16, message: &str) -> VendorResponse {
    (status, vec![], json!({"message": message}))
}

/// An error of a parameter, as grape writes it.
fn invalid(message: &str) -> VendorResponse {
    (400, vec![], json!({"error": message}))
}

impl GitLabState {
    /// Whether a token is accepted.
    pub fn accepts(&self, token: &str) -> bool {
        self.tokens.values().any(|one| one["token"] == token && self.is_active(one))
    }

    /// Adds a token of the project that another client created, without an end.
    pub fn add_foreign(&mut self, name: &str) {
        self.insert("project:7", json!({"name": name, "scopes": ["api"], "expires_at": null, "access_level": 40}));
    }

    /// The tokens that are accepted, oldest first.
    pub fn live(&self) -> Vec<Value> {
        self.tokens.values().filter(|token| self.is_active(token)).cloned().collect()
    }

    /// Revokes a token, as a person does in the user interface.
    pub fn revoke(&mut self, text: &str) {
        let token = self.tokens.values_mut().find(|token| token["token"] == text).expect("there is such a token");
        token["revoked"] = json!(true);
    }

    /// Ends a token today, as the owner of a group can for all its tokens.
    pub fn expire(&mut self, text: &str) {
        let today = self.today().to_string();
        let token = self.tokens.values_mut().find(|token| token["token"] == text).expect("there is such a token");
        token["expires_at"] = json!(today);
    }

    /// Deletes all tokens but these.
    pub fn retain(&mut self, keep: impl Fn(&Value) -> bool) {
        self.tokens.retain(|_, token| keep(token));
    }

    fn insert(&mut self, owner: &str, fields: Value) -> Value {
        self.count += 1;
        let id = self.count + 99;
        let mut token = fields;
        let text = format!("glpat-{}-{id}", token["name"].as_str().expect("a name"));
        let more = json!({
            "id": id, "owner": owner, "revoked": false, "created_at": self.clock.now().to_string(), "last_used_at": null,
            "user_id": id + 1_000, "token": text,
        });
        token.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.tokens.insert(id, token.clone());
        token
    }

    fn today(&self) -> Date {
        TimeZone::UTC.to_datetime(self.clock.now()).date()
    }

    /// A token expires at midnight at the beginning of the day.
    fn is_active(&self, token: &Value) -> bool {
        let end: Option<Date> = token["expires_at"].as_str().map(|end| end.parse().expect("a date"));
        token["revoked"] == false && end.is_none_or(|end| self.today() < end)
    }

    /// Answers a request.
    pub(super) fn answer(&mut self, request: &VendorRequest) -> VendorResponse {
        match &mut self.left {
            Some(0) => {
                let now = Timestamp::now().as_second();
                let headers = vec![("ratelimit-reset", (now + 30).to_string()), ("retry-after", "30".to_owned())];
                return (429, headers, json!({"message": "Retry later"}));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let authorization = request.headers.get("authorization").and_then(|value| value.to_str().ok());
        let caller = authorization.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        // The user 42 is an administrator. A token of a project or group may create no others.
        let own = self.tokens.values().find(|one| one["token"] == caller && self.is_active(one));
        let is_bot = own.is_some_and(|one| one["owner"] != "user:42");
        let caller = if own.is_some_and(|one| one["scopes"].as_array().is_some_and(|all| all.contains(&json!("api")))) {
            if is_bot { MAINTAINER } else { ADMIN }
        } else {
            caller
        };
        if ![ADMIN, MAINTAINER, READER].contains(&caller) {
            self.unauthorized += 1;
            return refused(401, "401 Unauthorized");
        }
        if is_bot && request.method == "POST" {
            return refused(403, "403 Forbidden");
        }
        let path: Vec<_> = request.path.iter().map(String::as_str).collect();
        let is_read = request.method == "GET";
        match (&path[..], is_read) {
            (["api", "v4", "personal_access_tokens", "self"], true) => {
                let scopes = if caller == READER { json!(["read_user"]) } else { json!(["api"]) };
                (200, vec![], json!({"id": 1, "scopes": scopes, "active": true}))
            }
            (["api", "v4", "version"], true) => (200, vec![], json!({"version": "19.4.0-ee", "revision": "0"})),
            _ if caller == READER => (
                403,
                vec![],
                json!({"error": "insufficient_scope", "error_description": "The request requires higher privileges", "scope": "api"}),
            ),
            (["api", "v4", kind @ ("projects" | "groups"), id, "access_tokens", rest @ ..], _) => match (*kind, *id) {
                ("projects", "7" | "group/app") if !self.project_is_gone => self.tokens_of("project:7", rest, request),
                ("groups", "3" | "group") => self.tokens_of("group:3", rest, request),
                ("projects", _) => refused(404, "404 Project Not Found"),
                _ => refused(404, "404 Group Not Found"),
            },
            (["api", "v4", "users", user, "personal_access_tokens"], false) => match (caller, *user) {
                (ADMIN, "42") => self.create("user:42", request),
                (ADMIN, _) => refused(404, "404 User Not Found"),
                _ => refused(403, "403 Forbidden"),
            },
            (["api", "v4", "personal_access_tokens", rest @ ..], _) => {
                match request.query.get("user_id").map(String::as_str) {
                    _ if caller != ADMIN => refused(401, "401 Unauthorized"),
                    Some("42") | None => self.tokens_of("user:42", rest, request),
                    Some(_) => refused(404, "404 Not Found"),
                }
            }
            _ => (404, vec![], json!({"error": "404 Not Found"})),
        }
    }

    fn tokens_of(&mut self, owner: &str, rest: &[&str], request: &VendorRequest) -> VendorResponse {
        match (request.method.as_str(), rest) {
            ("GET", []) => self.list(owner, request),
            ("POST", []) if !owner.starts_with("user") => self.create(owner, request),
            ("DELETE", [id]) => {
                let found = id.parse().ok().and_then(|id: u64| self.tokens.get_mut(&id));
                match found.filter(|token| token["owner"] == owner) {
                    Some(token) => {
                        token["revoked"] = json!(true);
                        (204, vec![], Value::Null)
                    }
                    None => refused(404, "404 Access Token Not Found"),
                }
            }
            _ => (405, vec![], json!({"error": "405 Not Allowed"})),
        }
    }

    fn create(&mut self, owner: &str, request: &VendorRequest) -> VendorResponse {
        let body = &request.body;
        let Some(name) = body["name"].as_str() else { return invalid("name is missing") };
        let scopes: Vec<_> = body["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if scopes.is_empty() {
            return invalid("scopes is missing");
        }
        if !scopes.iter().all(|scope| SCOPES.contains(scope)) {
            return invalid("scopes does not have a valid value");
        }
        let level = body.get("access_level").map_or(Some(40), Value::as_u64);
        if !matches!(level, Some(10 | 15 | 20 | 30 | 40 | 50)) {
            return invalid("access_level does not have a valid value");
        }
        if level == Some(50) && owner.starts_with("project") {
            return refused(400, "400 Bad request - Could not provision owner access to project access token");
        }
        let latest = self.today().saturating_add(MAX_DAYS.days());
        let end = match body.get("expires_at").map(|end| end.as_str().map(str::parse::<Date>)) {
            None => latest,
            Some(Some(Ok(end))) => end,
            Some(_) => return invalid("expires_at is invalid"),
        };
        if end <= self.today() {
            return refused(400, "400 Bad request - Expiration date must be in the future");
        }
        if end > latest {
            let message = format!("400 Bad request - Expires at must be before {}", latest.tomorrow().expect("a day"));
            return refused(400, &message);
        }
        let fields = json!({"name": name, "scopes": scopes, "expires_at": end.to_string(), "access_level": level});
        let mut token = self.insert(owner, fields);
        token["active"] = json!(true);
        (201, vec![], token)
    }

    fn list(&self, owner: &str, request: &VendorRequest) -> VendorResponse {
        let get = |name: &str| request.query.get(name).map(String::as_str);
        let number = |name, default| get(name).map_or(Some(default), |text| text.parse().ok().filter(|one| *one > 0));
        let (Some(page), Some(size)) = (number("page", 1), number("per_page", 20)) else {
            return invalid("page is invalid");
        };
        let size: usize = size.min(100).min(self.page.unwrap_or(100));
        let wanted = match get("state") {
            None => None,
            Some("active") => Some(true),
            Some("inactive") => Some(false),
            Some(_) => return invalid("state does not have a valid value"),
        };
        let all: Vec<_> = self
            .tokens
            .values()
            .rev()
            .filter(|token| token["owner"] == owner && wanted.is_none_or(|wanted| wanted == self.is_active(token)))
            .map(|token| {
                let mut shown = token.clone();
                shown["active"] = json!(self.is_active(token));
                let fields = shown.as_object_mut().expect("an object");
                fields.retain(|name, _| !matches!(&**name, "token" | "owner"));
                shown
            })
            .collect();
        let mut headers = vec![("x-total", all.len().to_string())];
        if page * size < all.len() {
            let mut query = request.query.clone();
            query.insert("page".to_owned(), (page + 1).to_string());
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&query).finish();
            // The host that GitLab knows itself by, which need not be the one that the client uses.
            let url = format!("https://gitlab.internal/{}?{query}", request.path.join("/"));
            headers.push(("link", format!("<{url}>; rel=\"next\", <{url}>; rel=\"last\"")));
        }
        let shown: Vec<_> = all.into_iter().skip((page - 1) * size).take(size).collect();
        (200, headers, json!(shown))
    }
}
