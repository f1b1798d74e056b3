//! The dialect over a fixture in memory: permissions, parameters, errors and pages. Writes are tested on a real API server.

use axum::{
    Router,
    http::{Method, Request, Response, header},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{TOKENS, routes};
use crate::{
    auth::decision::Freshness,
    index::PatUid,
    rest::fixture::{RestFixture, TestToken, block_on, get, request, send},
};

const MY_READ: &str = "sp:my-personal-access-tokens:read";
const MY_MANAGE: &str = "idn:my-personal-access-tokens:manage";
const ALL_READ: &str = "sp:all-personal-access-tokens:read";
const ALL_MANAGE: &str = "sp:all-personal-access-tokens:manage";
const MANAGED: &str = "sp:managed-personal-access-tokens:manage";

/// Sends a request with an optional JSON body.
async fn ask(
    router: &Router,
    known: Option<&TestToken>,
    method: Method,
    path: &str,
    body: impl Into<Option<Value>>,
) -> (Response<()>, Value) {
    let body = body.into().map(|body| body.to_string());
    request(router, known, method, path, body.as_deref().map(|body| ("application/json", body))).await
}

/// Returns the names of the listed tokens.
async fn names(router: &Router, known: &TestToken, parameters: &str) -> Vec<String> {
    let (status, body) = get(router, known, &format!("{TOKENS}?{parameters}")).await;
    assert_eq!(status, 200, "{parameters}: {body}");
    body.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap().to_owned()).collect()
}

fn path(known: &TestToken) -> String {
    format!("{TOKENS}/{}", known.id)
}

/// Ada with four tokens, and another owner's token.
fn populated() -> (Router, TestToken, TestToken) {
    let mut fixture = RestFixture::new();
    let ada = fixture.user("ada", "laptop", &[MY_READ]);
    let owner = json!({"kind": "User", "name": "ada"});
    fixture.pat(
        json!({"owner": owner, "displayName": "Build", "description": "for the laptop", "revoked": true}),
        json!({}),
    );
    let past = json!({"owner": owner, "displayName": "old", "expiry": {"at": "2026-03-01T00:00:00Z"}});
    fixture.pat(past, json!({"metadata": {"managedFields": [{
        "manager": "kubectl", "operation": "Apply", "time": "2026-02-01T00:00:00Z", "apiVersion": "pat-operator.io/v1alpha1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}},
    }]}}));
    fixture
        .pat(json!({"owner": owner, "displayName": "api"}), json!({"status": {"lastUsedAt": "2026-05-01T00:00:00Z"}}));
    let other = fixture.user("grace", "laptop", &[MY_READ]);
    (routes(fixture.service()), ada, other)
}

#[tokio::test]
async fn list_contains_own_tokens_including_revoked_and_expired_ones() {
    let (router, ada, grace) = populated();
    assert_eq!(names(&router, &ada, "").await, ["laptop", "Build", "old", "api"]);
    assert_eq!(names(&router, &grace, "").await, ["laptop"]);
    let (_, listed) = get(&router, &ada, TOKENS).await;
    assert_eq!((&listed[0]["revoked"], &listed[1]["revoked"]), (&json!(false), &json!(true)));
    let (status, shown) = get(&router, &ada, &path(&ada)).await;
    assert_eq!((status, &shown), (200, &listed[0]), "a token is shown as in the list");
}

#[tokio::test]
async fn every_list_parameter_works() {
    let (router, ada, _) = populated();
    for (parameters, expected) in [
        ("limit=1", &["laptop"][..]),
        ("limit=3&page=2", &["api"]),
        ("page=5", &[]),
        ("page=2147483647&limit=100", &[]),
        ("sort=createdAt", &["laptop", "Build", "old", "api"]),
        ("sort=-createdAt", &["api", "old", "Build", "laptop"]),
        ("sort=-createdAt&limit=2&page=2", &["Build", "laptop"]),
        ("sort=name", &["Build", "api", "laptop", "old"]),
        ("sort=-id&limit=1", &["api"]),
        // Tokens without a value are ordered by id, in both directions.
        ("sort=expiresAt", &["old", "laptop", "Build", "api"]),
        ("sort=-expiresAt", &["old", "laptop", "Build", "api"]),
        ("sort=-lastUsedAt&limit=1", &["api"]),
        ("sort=-updatedAt&limit=1", &["old"]),
        ("sort=-revoked", &["Build", "laptop", "old", "api"]),
        ("sort=revoked", &["laptop", "old", "api", "Build"]),
        ("sort=-scopes&limit=1", &["laptop"]),
        ("sort=scopes", &["Build", "old", "api", "laptop"]),
        ("sort=-userId", &["laptop", "Build", "old", "api"]),
        ("sort=user", &["laptop", "Build", "old", "api"]),
        ("sort=lastRotatedAt", &["laptop", "Build", "old", "api"]),
        ("search=", &["laptop", "Build", "old", "api"]),
        ("search=LAPTOP", &["laptop", "Build"]),
        ("query=ld", &["Build", "old"]),
        ("createdAt=2026-01-01T00:00:02Z", &["Build"]),
        ("createdAt[gt]=2026-01-01T00:00:02%2B00:00", &["old", "api"]),
        ("createdAt%5Bgte%5D=2026-01-01T01:00:02+01:00&createdAt%5Blt%5D=2026-01-01T00:00:04", &["Build", "old"]),
        ("createdAt[lte]=2026-01-01", &[]),
        ("createdAt[ne]=2026-01-01T00:00:02Z", &["laptop", "old", "api"]),
        ("updatedAt[gte]=2026-02-01", &["old"]),
        ("updatedAt=2026-02-01&createdAt[lt]=2026-01-02", &["old"]),
        ("id=00000000000000000000000000000002", &["Build"]),
        ("id=00000000-0000-0000-0000-000000000002", &["Build"]),
        ("id[ne]=00000000000000000000000000000002&limit=2", &["laptop", "old"]),
        ("id[gt]=00000000000000000000000000000002&id[lte]=00000000000000000000000000000003", &["old"]),
        ("id[in]=00000000000000000000000000000001,00000000-0000-0000-0000-000000000003,x", &["laptop", "old"]),
        ("id[nin]=00000000000000000000000000000001", &["Build", "old", "api"]),
        ("id[sw]=0&id[ew]=2", &["Build"]),
        ("id[cn]=002", &["Build"]),
        ("id[nc]=002", &["laptop", "old", "api"]),
        ("id[gte]=00000000000000000000000000000004", &["api"]),
        ("id[lt]=00000000000000000000000000000002", &["laptop"]),
        ("sort=-name&search=a&id[ne]=00000000000000000000000000000004&limit=1&page=2", &["Build"]),
        // Another owner's.
        ("id=00000000000000000000000000000005", &[]),
    ] {
        assert_eq!(names(&router, &ada, parameters).await, expected, "{parameters}");
    }
}

#[tokio::test]
async fn every_described_parameter_is_accepted() {
    let (router, ada, _) = populated();
    let document = serde_json::to_value(super::openapi()).unwrap();
    let described = document["paths"][TOKENS]["get"]["parameters"].as_array().unwrap();
    assert_eq!(described.len(), 8);
    for parameter in described {
        let name = parameter["name"].as_str().unwrap();
        let schema = parameter["schema"]["$ref"].as_str().and_then(|reference| document.pointer(&reference[1..]));
        let operators =
            schema.and_then(|schema| schema["properties"].as_object()).into_iter().flat_map(|all| all.keys());
        let with_operators = operators.map(|operator| format!("{name}[{operator}]"));
        for name in with_operators.chain([name.to_owned()]) {
            let value = if name.ends_with("limit") || name.ends_with("page") { "2" } else { "2026-01-01" };
            let value = if name == "sort" { "-name" } else { value };
            let (status, body) = get(&router, &ada, &format!("{TOKENS}?{name}={value}")).await;
            assert_eq!(status, 200, "{name}: {body}");
        }
    }
}

#[tokio::test]
async fn invalid_parameter_is_named() {
    let (router, ada, _) = populated();
    for (parameters, begin) in [
        ("limit=1e9", "limit: "),
        ("limit=0", "limit: "),
        ("page=0", "page: "),
        ("page=1&page=2", "page: "),
        ("sort=secret", "sort: "),
        ("createdAt%5Bgte%5D=x", "createdAt[gte]: "),
        ("name=x", "name: "),
    ] {
        let (status, body) = get(&router, &ada, &format!("{TOKENS}?{parameters}")).await;
        assert_eq!(status, 400, "{parameters}");
        assert_eq!(body["code"], "Invalid");
        assert!(body["message"].as_str().unwrap().starts_with(begin), "{parameters}: {body}");
    }
}

#[tokio::test]
async fn permissions_follow_from_the_callers_scopes() {
    // 503: permitted, but the fixture cannot write.
    for (scope, list, own, other, create, change) in [
        ("", 403, 403, 403, 403, (403, 403, 403)),
        ("a", 403, 403, 403, 403, (403, 403, 403)),
        (MANAGED, 403, 403, 403, 403, (403, 403, 403)),
        (MY_READ, 200, 200, 404, 403, (403, 403, 403)),
        (MY_MANAGE, 200, 200, 404, 503, (503, 404, 404)),
        (ALL_READ, 200, 200, 404, 403, (403, 403, 403)),
        (ALL_MANAGE, 200, 200, 200, 503, (503, 503, 404)),
    ] {
        let mut fixture = RestFixture::new();
        let scopes: Vec<&str> = Some(scope).into_iter().filter(|scope| !scope.is_empty()).collect();
        let (ada, grace) = (fixture.user("ada", "laptop", &scopes), fixture.user("grace", "laptop", &[]));
        let router = routes(fixture.service());
        let unknown = format!("{TOKENS}/{}", "f".repeat(32));
        let revoke = || json!({"revoked": true});
        let mut got = Vec::new();
        for (method, path, body) in [
            (Method::GET, TOKENS.to_owned(), None),
            (Method::GET, path(&ada), None),
            (Method::GET, path(&grace), None),
            (Method::POST, TOKENS.to_owned(), Some(json!({"name": "ci"}))),
            (Method::PATCH, path(&ada), Some(revoke())),
            (Method::PATCH, path(&grace), Some(revoke())),
            (Method::PATCH, unknown.clone(), Some(revoke())),
            (Method::DELETE, path(&ada), None),
            (Method::DELETE, path(&grace), None),
            (Method::DELETE, unknown, None),
        ] {
            got.push(ask(&router, Some(&ada), method, &path, body).await.0.status().as_u16());
        }
        let (mine, others, none) = change;
        assert_eq!(got, [list, own, other, create, mine, others, none, mine, others, none], "{scope}");
    }
}

#[tokio::test]
async fn another_owners_token_looks_like_an_unknown_one() {
    let mut fixture = RestFixture::new();
    let (ada, grace) = (fixture.user("ada", "laptop", &[MY_MANAGE]), fixture.user("grace", "laptop", &[]));
    let router = routes(fixture.service());
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let mut answers = Vec::new();
        for id in
            [grace.id.to_string(), "f".repeat(32), "x".into(), "..".into(), "%FF".into(), grace.id.to_string() + "0"]
        {
            let body = (method == Method::PATCH).then(|| json!({"revoked": true}));
            let (response, body) = ask(&router, Some(&ada), method.clone(), &format!("{TOKENS}/{id}"), body).await;
            answers.push((response.status().as_u16(), format!("{:?}", response.headers()), body));
        }
        assert_eq!(answers[0].0, 404);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
}

#[tokio::test]
async fn caller_that_manages_all_sees_the_owner() {
    let mut fixture = RestFixture::new();
    let (ada, grace) = (fixture.user("ada", "laptop", &[ALL_MANAGE]), fixture.user("grace", "desk", &[]));
    fixture.owner(0x9ace, json!({"subject": {"kind": "User", "name": "grace"}, "email": "grace@example.com"}));
    let (status, token) = get(&routes(fixture.service()), &ada, &path(&grace)).await;
    assert_eq!((status, &token["name"]), (200, &json!("desk")));
    assert_eq!(
        (&token["userId"], &token["user"]["email"]),
        (&json!("00000000000000000000000000009ace"), &json!("grace@example.com"))
    );
}

#[tokio::test]
async fn missing_or_invalid_token_gets_401_on_every_path() {
    let (router, ada, _) = populated();
    let mut fixture = RestFixture::new();
    let stranger = fixture.user("ada", "laptop", &[MY_MANAGE]);
    for known in [None, Some(&stranger)] {
        for (method, path) in [
            (Method::GET, TOKENS.to_owned()),
            (Method::POST, TOKENS.to_owned()),
            (Method::GET, path(&ada)),
            (Method::PATCH, path(&ada)),
            (Method::DELETE, path(&ada)),
            // Authentication comes before validation.
            (Method::GET, format!("{TOKENS}?page=0")),
        ] {
            let (response, body) = ask(&router, known, method, &path, None).await;
            assert_eq!((response.status().as_u16(), &body["code"]), (401, &json!("Unauthenticated")));
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
            assert!(body["message"].is_string());
        }
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_in_json() {
    let (router, ada, _) = populated();
    for (method, path, status) in [
        (Method::GET, "/", 404),
        (Method::GET, "/v3", 404),
        (Method::GET, "/v3/personal-access-tokens/", 404),
        (Method::GET, "/v3/personal-access-tokens/a/b", 404),
        (Method::PUT, TOKENS, 405),
        (Method::DELETE, TOKENS, 405),
        (Method::POST, "/v3/personal-access-tokens/a", 405),
    ] {
        let (response, body) = ask(&router, Some(&ada), method.clone(), path, None).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert!(body["message"].is_string());
        let allow = response.headers().get(header::ALLOW).map(|allow| allow.to_str().unwrap());
        assert_eq!(allow.is_some_and(|allow| allow.contains("GET")), status == 405, "{method} {path}: {allow:?}");
    }
}

#[tokio::test]
async fn body_must_be_json_of_at_most_64_kib() {
    let mut fixture = RestFixture::new();
    let ada = fixture.user("ada", "laptop", &[MY_MANAGE]);
    let router = routes(fixture.service());
    for (method, path) in [(Method::POST, TOKENS.to_owned()), (Method::PATCH, path(&ada))] {
        for (content_type, body, status) in [
            (Some("text/plain"), "{}".to_owned(), 415),
            (Some("application/x-www-form-urlencoded"), "name=x".into(), 415),
            (None, "{}".into(), 415),
            (Some("application/json"), " ".repeat(65 * 1024), 413),
            (Some("application/json"), "{".into(), 400),
            (Some("application/json; charset=utf-8"), "[]".into(), 400),
        ] {
            let mut request = Request::builder().method(&method).uri(&path).header(header::AUTHORIZATION, ada.bearer());
            if let Some(content_type) = content_type {
                request = request.header(header::CONTENT_TYPE, content_type);
            }
            let (response, text) = send(&router, request.body(body.into()).unwrap()).await;
            assert_eq!(response.status().as_u16(), status, "{method} {content_type:?}: {text}");
            assert!(serde_json::from_str::<Value>(&text).unwrap()["message"].is_string());
        }
    }
}

#[tokio::test]
async fn unverifiable_token_gets_503_and_read_only_server_403() {
    let mut fixture = RestFixture::new();
    let ada = fixture.user("ada", "laptop", &[MY_MANAGE]);
    let blind = routes(fixture.service_with(|| Freshness::Starting));
    let (response, body) = ask(&blind, Some(&ada), Method::GET, TOKENS, None).await;
    assert_eq!((response.status().as_u16(), &body["code"]), (503, &json!("Unavailable")));
    assert!(response.headers()[header::RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() >= 1);

    fixture.config.read_only = true;
    let router = routes(fixture.service());
    assert_eq!(get(&router, &ada, TOKENS).await.0, 200);
    let revoke = json!({"revoked": true});
    for (method, path, body) in [
        (Method::POST, TOKENS.to_owned(), Some(json!({"name": "ci"}))),
        (Method::PATCH, path(&ada), Some(revoke)),
        (Method::DELETE, path(&ada), None),
    ] {
        let (response, body) = ask(&router, Some(&ada), method, &path, body).await;
        assert_eq!((response.status().as_u16(), &body["code"]), (403, &json!("ReadOnly")));
    }
}

/// A token of the property test. Times are a few days, which produces ties.
#[derive(Clone, Debug)]
struct CryptlexSample {
    id: String,
    name: String,
    description: Option<String>,
    created: u8,
    updated: Option<u8>,
    used: Option<u8>,
    ends: Option<u8>,
    is_mine: bool,
}

fn day(number: u8) -> String {
    format!("2026-02-{:02}T00:00:00Z", number + 1)
}

/// Returns ids with all digits in no order.
fn scattered(number: usize) -> u128 {
    (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn made() -> impl Strategy<Value = Vec<CryptlexSample>> {
    let maybe = || prop::option::of(0..4_u8);
    let texts = ("[abAB]{1,3}", prop::option::of("[abAB]{1,2}"));
    let one = (texts, 0..4_u8, maybe(), maybe(), maybe(), prop::bool::weighted(0.8));
    prop::collection::vec(one, 0..30).prop_map(|all| {
        let made = (2..).zip(all).map(|(number, ((name, description), created, updated, used, ends, is_mine))| {
            let id = format!("{:032x}", scattered(number));
            CryptlexSample { id, name, description, created, updated, used, ends, is_mine }
        });
        let own = CryptlexSample {
            id: format!("{:032x}", 1),
            name: "me".into(),
            description: None,
            created: 2,
            updated: None,
            used: None,
            ends: None,
            is_mine: true,
        };
        [own].into_iter().chain(made).collect()
    })
}

impl CryptlexSample {
    /// Returns the sort key; `None` without a value.
    fn key(&self, field: &str) -> Option<(u8, &str)> {
        let time = |day: Option<u8>| day.map(|day| (day, ""));
        match field {
            "id" => Some((0, &self.id)),
            "name" => Some((0, &self.name)),
            "createdAt" => time(Some(self.created)),
            "updatedAt" => time(Some(self.updated.unwrap_or(self.created))),
            "expiresAt" => time(self.ends),
            _ => time(self.used),
        }
    }

    fn has(&self, part: &str) -> bool {
        let texts = [Some(&self.name), self.description.as_ref()];
        texts.into_iter().flatten().any(|text| text.to_lowercase().contains(part))
    }
}

/// One filter: its operand, a day or a token whose id is compared, and the spelling of the operand.
#[derive(Clone, Debug)]
struct Asked {
    field: &'static str,
    operator: &'static str,
    day: u8,
    of: usize,
    spelling: usize,
}

fn asked() -> impl Strategy<Value = Vec<Asked>> {
    const TIMES: [&str; 6] = ["eq", "ne", "gt", "gte", "lt", "lte"];
    const TEXTS: [&str; 12] = ["eq", "ne", "gt", "gte", "lt", "lte", "sw", "ew", "cn", "nc", "in", "nin"];
    let times = ["createdAt", "updatedAt"].into_iter().flat_map(|field| TIMES.map(|operator| (field, operator)));
    let all: Vec<_> = times.chain(TEXTS.map(|operator| ("id", operator))).collect();
    let some = prop::sample::subsequence(all, 0..=3);
    (some, prop::collection::vec((0..5_u8, any::<usize>(), 0..3_usize), 3)).prop_map(|(some, values)| {
        let asked = some.into_iter().zip(values);
        asked.map(|((field, operator), (day, of, spelling))| Asked { field, operator, day, of, spelling }).collect()
    })
}

impl Asked {
    /// Returns the compared id, and another one.
    fn ids<'m>(&self, made: &'m [CryptlexSample]) -> [&'m str; 2] {
        [0, 1].map(|step| &*made[self.of.wrapping_add(step) % made.len()].id)
    }

    /// Returns the URL parameter.
    fn text(&self, made: &[CryptlexSample]) -> String {
        let [one, other] = self.ids(made);
        let hyphenated =
            |id: &str| [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-").to_uppercase();
        let value = match (self.field, self.operator) {
            ("id", "sw") => one[..1 + self.spelling % 2].to_uppercase(),
            ("id", "ew") => one[31 - self.spelling % 2..].to_uppercase(),
            ("id", "cn" | "nc") => one[15..16 + self.spelling % 2].to_uppercase(),
            ("id", "in" | "nin") => format!("{one},nothing,{}", hyphenated(other)),
            ("id", _) if self.spelling == 0 => hyphenated(one),
            ("id", _) => one.to_owned(),
            (_, _) if self.spelling == 0 => day(self.day),
            (_, _) if self.spelling == 1 => day(self.day).replace("T00:00:00Z", ""),
            (_, _) => day(self.day).replace("T00:00:00Z", "T01:30:00%2B01:30"),
        };
        let operator =
            if self.operator == "eq" && self.spelling == 2 { String::new() } else { format!("[{}]", self.operator) };
        format!("{}{operator}={value}", self.field)
    }

    /// Whether a token matches.
    fn wants(&self, token: &CryptlexSample, made: &[CryptlexSample]) -> bool {
        let [one, other] = self.ids(made);
        let length = 1 + self.spelling % 2;
        let order = if self.field == "id" {
            token.id.as_str().cmp(one)
        } else {
            token.key(self.field).cmp(&Some((self.day, "")))
        };
        match self.operator {
            "eq" => order.is_eq(),
            "ne" => order.is_ne(),
            "gt" => order.is_gt(),
            "gte" => order.is_ge(),
            "lt" => order.is_lt(),
            "lte" => order.is_le(),
            "sw" => token.id[..length] == one[..length],
            "ew" => token.id[32 - length..] == one[32 - length..],
            "cn" => token.id.contains(&one[15..15 + length]),
            "nc" => !token.id.contains(&one[15..15 + length]),
            "in" => token.id == one || token.id == other,
            _ => token.id != one && token.id != other,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn pages_together_are_the_matching_tokens_in_order_for_any_query(
        made in made(),
        limit in 1..8_usize,
        sort in prop::option::of((
            prop::sample::select(vec!["id", "name", "createdAt", "updatedAt", "expiresAt", "lastUsedAt"]), any::<bool>(),
        )),
        search in prop::option::of("[ab]{0,2}"),
        filters in asked(),
        right in prop::sample::select(vec![MY_READ, MY_MANAGE, ALL_READ, ALL_MANAGE]),
    ) {
        let mut fixture = RestFixture::new();
        let mut callers = Vec::new();
        for token in &made {
            let owner = json!({"kind": "User", "name": if token.is_mine { "ada" } else { "grace" }});
            let mut spec = json!({"owner": owner, "displayName": token.name, "scopes": [right]});
            if let Some(text) = &token.description {
                spec["description"] = json!(text);
            }
            if let Some(ends) = token.ends {
                spec["expiry"] = json!({"at": day(ends)});
            }
            let uid = u128::from_str_radix(&token.id, 16).unwrap();
            let mut metadata = json!({"uid": PatUid::from(uid).hyphenated(), "creationTimestamp": day(token.created)});
            if let Some(updated) = token.updated {
                metadata["managedFields"] = json!([{
                    "manager": "kubectl", "operation": "Apply", "time": day(updated), "apiVersion": "pat-operator.io/v1alpha1",
                    "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}},
                }]);
            }
            callers.push(fixture.pat(spec, json!({"metadata": metadata, "status": {"lastUsedAt": token.used.map(day)}})));
        }
        let router = routes(fixture.service());

        let wanted = |token: &&CryptlexSample| {
            let found = search.as_ref().is_none_or(|part| token.has(part));
            token.is_mine && found && filters.iter().all(|filter| filter.wants(token, &made))
        };
        let mut expected: Vec<&CryptlexSample> = made.iter().filter(wanted).collect();
        let (field, descending) = sort.unwrap_or(("createdAt", false));
        expected.sort_by(|one, other| {
            let order = match (one.key(field), other.key(field)) {
                (Some(one), Some(other)) if descending => other.cmp(&one),
                (Some(one), Some(other)) => one.cmp(&other),
                (one, other) => one.is_none().cmp(&other.is_none()),
            };
            order.then_with(|| one.id.cmp(&other.id))
        });
        let expected: Vec<&str> = expected.into_iter().map(|token| &*token.id).collect();

        let mut parameters = format!("limit={limit}");
        if let Some((field, descending)) = sort {
            parameters.push_str(&format!("&sort={}{field}", if descending { "-" } else { "" }));
        }
        if let Some(text) = &search {
            parameters.push_str(&format!("&search={text}"));
        }
        for filter in &filters {
            parameters.push_str(&format!("&{}", filter.text(&made)));
        }
        let (mut pages, mut page) = (Vec::new(), 1);
        loop {
            let path = format!("{TOKENS}?{parameters}&page={page}");
            let (status, part) = block_on(get(&router, &callers[0], &path));
            prop_assert_eq!(status, 200, "{}: {}", path, part);
            let ids: Vec<_> = part.as_array().unwrap().iter().map(|token| token["id"].as_str().unwrap().to_owned()).collect();
            prop_assert!(ids.len() <= limit);
            let is_last = ids.len() < limit;
            pages.extend(ids);
            if is_last {
                break;
            }
            page += 1;
        }
        prop_assert_eq!(pages, expected, "{}", parameters);
    }
}
