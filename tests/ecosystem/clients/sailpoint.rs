//! Tests the SailPoint dialect with SailPoint's own Python clients: the current one, and the one for older API versions.

use kube::api::{Patch, PatchParams};
use pat_operator::api::SecretDelivery;
use serde_json::{Value, json};

use super::stage::{ALL_MANAGE, MY_MANAGE, Stage};
use crate::support::{
    clients,
    process::place::{eventually, in_seconds},
};

const MOUNT: &str = "/sailpoint";
const V1: &str = "/sailpoint/personal-access-tokens/v1";
const OLDER: [&str; 4] = ["beta", "v3", "v2024", "v2025"];

/// The credentials of a client: a token's id, and the token.
#[derive(Clone, Debug)]
struct LogIn {
    id: String,
    secret: String,
}

impl LogIn {
    /// Those of a token that is created from a manifest.
    async fn of(stage: &Stage, name: &str, user: &str, scopes: &[&str]) -> Self {
        let secret = stage.caller(name, user, scopes).await;
        Self { id: id_of(stage, name).await, secret }
    }

    /// Those of a token that the client has created.
    fn created(answer: &Value) -> Self {
        assert_eq!(answer["status"], 200, "{answer}");
        let text = |field: &str| answer["parsed"][field].as_str().expect("a text").to_owned();
        Self { id: text("id"), secret: text("secret") }
    }

    /// Makes calls with the current client or, with a version, the older one. Returns `None` if the client is not available.
    async fn calls(&self, stage: &Stage, version: Option<&str>, calls: Value) -> Option<Vec<Value>> {
        let url = format!("http://{}{MOUNT}", stage.api.http);
        let asked = json!({"url": url, "id": self.id, "secret": self.secret, "version": version, "calls": calls});
        let script = if version.is_some() { "sailpoint_older/call.py" } else { "sailpoint/call.py" };
        let answers = clients::run(script, &asked).await?;
        Some(answers.as_array().expect("a list").clone())
    }
}

/// The id of a PAT in this API: its uid without dashes.
async fn id_of(stage: &Stage, name: &str) -> String {
    let pat = stage.place.pats().get(name).await.expect("the PAT exists");
    pat.metadata.uid.expect("a uid").replace('-', "")
}

fn call(name: &str, arguments: Value) -> Value {
    json!({"call": name, "arguments": arguments})
}

fn patch(id: &str, operations: Value) -> Value {
    call("patch", json!({"id": id, "operations": operations}))
}

fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().map(|answer| answer["status"].as_u64().expect("a status")).collect()
}

/// The cause of an error, as the client parsed it.
fn cause(answer: &Value) -> &str {
    assert!(answer["parsed"]["trackingId"].as_str().is_some_and(|id| id.len() == 32), "{answer}");
    answer["parsed"]["causes"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer} has no cause"))
}

/// The names in a list, in alphabetical order, because tokens created in the same second are ordered by their ids.
fn names(answer: &Value) -> Vec<&str> {
    assert_eq!(answer["status"], 200, "{answer}");
    let list = answer["parsed"].as_array().expect("a list");
    let mut names: Vec<&str> = list.iter().map(|token| token["name"].as_str().expect("a name")).collect();
    names.sort_unstable();
    names
}

/// Asserts that no Secret of this PAT remains after its one-time delivery.
async fn assert_no_secret(stage: &Stage, display_name: &str) {
    let pat = stage.pat(display_name).await.expect("kubectl finds it");
    assert_eq!(pat.spec.secret.as_ref().and_then(|secret| secret.delivery), Some(SecretDelivery::Once));
    let secrets = stage.place.secrets().list(&Default::default()).await.expect("Secrets are listed").items;
    let owned = secrets.iter().flat_map(|secret| secret.metadata.owner_references.iter().flatten());
    assert_eq!(owned.filter(|owner| Some(&owner.uid) == pat.metadata.uid.as_ref()).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sailpoint_client_creates_uses_patches_and_deletes_tokens() {
    let stage = Stage::new("sailpoint-story", &[]).await;
    let laptop = LogIn::of(&stage, "laptop", "ann", &[MY_MANAGE, "repo:read", "repo:write"]).await;
    let end = in_seconds(30 * 86_400);
    let made = laptop.calls(&stage, None, json!([
        call("create", json!({"name": "ci", "scope": ["repo:read", MY_MANAGE], "expirationDate": end, "accessTokenValiditySeconds": 60})),
        call("create", json!({"name": "for ever", "userAwareTokenNeverExpires": true})),
        call("create", json!({"name": "no end"})),
        call("create", json!({"name": "ci", "userAwareTokenNeverExpires": true})),
        call("create", json!({"name": "wide", "scope": ["repo:admin"], "userAwareTokenNeverExpires": true})),
        call("create", json!({"name": "late", "expirationDate": "2020-01-01T00:00:00Z"})),
        call("create", json!({"name": "x".repeat(129), "userAwareTokenNeverExpires": true})),
        call("create", json!({"name": "bad scope", "scope": ["sp:scopes:all", "a b"], "userAwareTokenNeverExpires": true})),
        call("list", json!({"owner_id": "me"})),
    ])).await;
    let Some(made) = made else { return };
    assert_eq!(statuses(&made), [200, 200, 400, 400, 403, 400, 400, 200, 200], "{made:#?}");
    for (refused, begin) in [
        (2, "expirationDate: is required"),
        (3, "name: a token with the name \"ci\" already exists"),
        (4, "your token lacks the scope repo:admin"),
        (5, "expirationDate: must be in the future"),
        (6, "name: "),
    ] {
        assert!(cause(&made[refused]).starts_with(begin), "{}", made[refused]);
    }
    let ci = &made[0]["parsed"];
    assert_eq!(
        (&ci["name"], &ci["scope"], &ci["accessTokenValiditySeconds"]),
        (&json!("ci"), &json!(["repo:read", MY_MANAGE]), &json!(60))
    );
    assert_eq!(ci["expirationDate"].as_str().map(|text| &text[..19]), Some(&end[..19]), "{ci}");
    let for_ever = &made[1]["parsed"];
    assert_eq!(for_ever["expirationDate"], "9999-12-31T23:59:59.999000+00:00");
    assert_eq!(for_ever["scope"], json!([MY_MANAGE, "repo:read", "repo:write"]), "all scopes of the caller");
    assert_eq!(for_ever["accessTokenValiditySeconds"], 43_200);
    assert_eq!(names(&made[8]), ["bad scope", "ci", "for ever", "laptop"]);
    assert!(!made[8].to_string().contains("secret"), "a list contains no token");

    // The tokens belong to ordinary PATs, the verifier accepts them, and clients can log in with them.
    let [ci, for_ever, bad_scope] = [0, 1, 7].map(|one: usize| LogIn::created(&made[one]));
    let created = [("ci", &*ci.secret), ("for ever", &for_ever.secret), ("bad scope", &bad_scope.secret)];
    for (name, _) in created {
        assert_no_secret(&stage, name).await;
    }
    stage.assert_usable(&created).await;
    for all in [&for_ever, &bad_scope] {
        let scopes = "scope=repo:read&scope=repo:write";
        assert_eq!(stage.verifier.forward(&all.secret, scopes).await, 200, "all scopes of the caller");
    }
    assert_eq!(stage.verifier.forward(&ci.secret, "scope=repo:read").await, 200);
    assert_eq!(stage.verifier.forward(&ci.secret, "scope=repo:write").await, 403);

    let replace = |path: &str, value: Value| json!({"op": "replace", "path": path, "value": value});
    let changed = ci.calls(&stage, None, json!([
        patch(&ci.id, json!([{"op": "test", "path": "/name", "value": "ci"}, replace("/name", json!("cd")), replace("/accessTokenValiditySeconds", json!(30))])),
        patch(&ci.id, json!([replace("/name", json!("laptop"))])),
        patch(&ci.id, json!([replace("/name", json!("one")), {"op": "test", "path": "/name", "value": "other"}])),
        // The client omits `null`.
        patch(&ci.id, json!([replace("/expirationDate", Value::Null)])),
        patch(&ci.id, json!([replace("/expirationDate", Value::Null), replace("/userAwareTokenNeverExpires", json!(true))])),
        patch(&ci.id, json!([{"op": "add", "path": "/scope/-", "value": "repo:write"}])),
        patch(&ci.id, json!([replace("/expirationDate", json!(end)), {"op": "remove", "path": "/scope/0"}])),
        patch("00000000000000000000000000000000", json!([replace("/name", json!("x"))])),
        patch(&ci.id, json!([replace("/managed", json!(true))])),
        call("bulk", json!({"ids": [ci.id], "patch": [{"op": "remove", "path": "/expirationDate"}]})),
        call("list", json!({})),
        call("list", json!({"owner_id": "me"})),
    ])).await.expect("the client is available");
    assert_eq!(statuses(&changed), [200, 400, 400, 400, 403, 403, 200, 404, 400, 403, 403, 200], "{changed:#?}");
    assert_eq!(
        (&changed[0]["parsed"]["name"], &changed[0]["parsed"]["accessTokenValiditySeconds"]),
        (&json!("cd"), &json!(30))
    );
    assert!(cause(&changed[1]).starts_with("name: a token with the name \"laptop\" already exists"));
    assert_eq!(cause(&changed[2]), "[1]: the value at /name differs");
    assert!(cause(&changed[3]).starts_with("expirationDate: is required"));
    assert!(cause(&changed[4]).starts_with("your token ends at "), "a token cannot extend itself: {}", changed[4]);
    assert_eq!(cause(&changed[5]), "your token lacks the scope repo:write");
    assert_eq!(changed[6]["parsed"]["scope"], json!([MY_MANAGE]));
    assert_eq!(names(&changed[11]), ["bad scope", "cd", "for ever", "laptop"]);
    let pat = stage.pat("cd").await.expect("kubectl finds it under its new name");
    assert_eq!(pat.spec.scopes, [MY_MANAGE]);
    assert_eq!(pat.spec.access_token_validity.map(|length| length.to_string()).as_deref(), Some("30s"));
    assert_eq!(stage.verifier.forward(&ci.secret, "").await, 200, "the token has not changed");

    let gone = laptop
        .calls(
            &stage,
            None,
            json!([
                patch(&laptop.id, json!([{"op": "remove", "path": "/scope/0"}])),
                patch(
                    &ci.id,
                    json!([
                        replace("/expirationDate", Value::Null),
                        replace("/userAwareTokenNeverExpires", json!(true))
                    ])
                ),
                call("delete", json!({"id": ci.id})),
                call("delete", json!({"id": ci.id})),
                patch(&ci.id, json!([replace("/name", json!("x"))])),
                call("list", json!({"owner_id": "me"})),
            ]),
        )
        .await
        .expect("the client is available");
    assert_eq!(statuses(&gone), [400, 200, 204, 404, 404, 200], "{gone:#?}");
    assert_eq!(
        (&gone[1]["parsed"]["expirationDate"], &gone[1]["parsed"]["userAwareTokenNeverExpires"]),
        (&Value::Null, &json!(true))
    );
    // A field that a manifest sets is changed in the manifest.
    assert_eq!(cause(&gone[0]), "scope is managed by \"person\": change it there");
    assert_eq!(names(&gone[5]), ["bad scope", "for ever", "laptop"]);
    stage.verifier.forwards(&ci.secret, 401).await;
    assert!(stage.pat("cd").await.is_none(), "the PAT is deleted");
    for kept in [&for_ever, &bad_scope] {
        assert_eq!(stage.verifier.forward(&kept.secret, "").await, 200, "the other tokens still work");
    }
    let log = stage.api.process.log().join("\n");
    assert!(
        ![&ci, &for_ever, &bad_scope, &laptop].iter().any(|one| log.contains(&one.secret)),
        "no token is in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sailpoint_client_updates_tokens_in_bulk() {
    let stage = Stage::new("sailpoint-bulk", &[]).await;
    let admin = LogIn::of(&stage, "admin", "root", &[ALL_MANAGE]).await;
    let made = admin
        .calls(
            &stage,
            None,
            json!([
                call("create", json!({"name": "one", "userAwareTokenNeverExpires": true})),
                call("create", json!({"name": "two", "userAwareTokenNeverExpires": true})),
            ]),
        )
        .await;
    let Some(made) = made else { return };
    let (one, two) = (LogIn::created(&made[0]), LogIn::created(&made[1]));
    let created = [("one", &*one.secret), ("two", &two.secret)];
    stage.assert_usable(&created).await;
    let end = in_seconds(86_400);
    let set = json!([{"op": "replace", "path": "/expirationDate", "value": end}]);
    let clear = json!([{"op": "remove", "path": "/expirationDate"}, {"op": "replace", "path": "/userAwareTokenNeverExpires", "value": true}]);
    let bulk = |ids: &[&str], patch: &Value| call("bulk", json!({"ids": ids, "patch": patch}));
    let unknown = "00000000000000000000000000000000";
    stage.place.apply("fixed", json!({"owner": {"kind": "User", "name": "root"}, "expiry": {"after": "1d"}})).await;
    stage.place.ready("fixed").await;
    let fixed = id_of(&stage, "fixed").await;
    eventually("the list has the token of the manifest", async || {
        let list = stage.api.call("GET", V1, &admin.secret, None).await.json();
        list.as_array()
            .is_some_and(|list| list.iter().any(|token| token["id"] == fixed && token["expirationDate"].is_string()))
    })
    .await;
    let answers = admin
        .calls(
            &stage,
            None,
            json!([
                bulk(&[&two.id, &one.id], &set),
                bulk(&[&one.id, unknown], &clear),
                bulk(&[&one.id, &two.id], &json!([{"op": "remove", "path": "/expirationDate"}])),
                bulk(&[&one.id, &two.id], &json!([{"op": "replace", "path": "/name", "value": "x"}])),
                call("list", json!({})),
                bulk(&[&one.id, &fixed, &two.id], &clear),
                call("list", json!({})),
            ]),
        )
        .await
        .expect("the client is available");
    assert_eq!(statuses(&answers), [200, 400, 400, 400, 200, 400, 200], "{answers:#?}");
    let ids: Vec<&Value> = answers[0]["parsed"].as_array().expect("a list").iter().map(|token| &token["id"]).collect();
    assert_eq!(ids, [&two.id, &one.id], "in the order of the request");
    let ends = |answer: &Value| -> Vec<Option<String>> {
        let of = |login: &LogIn| {
            answer["parsed"]
                .as_array()
                .expect("a list")
                .iter()
                .find(|token| token["id"] == login.id)
                .expect("the token is in the list")
                .clone()
        };
        [&one, &two].map(|login| of(login)["expirationDate"].as_str().map(|text| text[..19].to_owned())).to_vec()
    };
    assert_eq!(ends(&answers[4]), vec![Some(end[..19].to_owned()); 2], "a refused request changes no token");
    assert_eq!(cause(&answers[1]), "ids[1]: token not found");
    // The second token is managed by its manifest. The first one is already changed, and the answer says so.
    assert_eq!(cause(&answers[5]), "expirationDate is managed by \"person\": change it there");
    let cause = answers[5]["parsed"]["causes"][1]["text"].as_str().expect("a text");
    assert!(cause.contains(&one.id) && !cause.contains(&two.id), "{cause}");
    assert_eq!(ends(&answers[6]), [None, Some(end[..19].to_owned())]);
    stage.assert_usable(&created).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_sailpoint_client_works_with_each_older_version() {
    let stage = Stage::new("sailpoint-older", &[]).await;
    let laptop = LogIn::of(&stage, "laptop", "ann", &[MY_MANAGE, "repo:read"]).await;
    // Lists show a use with a delay.
    eventually("the list shows the use of the caller's token", async || {
        let list = stage.api.call("GET", &format!("{V1}?owner-id=me"), &laptop.secret, None).await;
        list.json().as_array().is_some_and(|list| list.iter().any(|token| token["lastUsed"].is_string()))
    })
    .await;
    for version in OLDER {
        let (name, other) = (format!("ci {version}"), format!("cd {version}"));
        let made = laptop
            .calls(
                &stage,
                Some(version),
                json!([
                    call("create", json!({"name": name})),
                    call("create", json!({"name": name, "scope": ["repo:read"]})),
                    call("create", json!({"name": "late", "expirationDate": in_seconds(200 * 86_400)})),
                    call("list", json!({"owner_id": "me", "filters": "lastUsed isnull"})),
                    call("list", json!({})),
                ]),
            )
            .await;
        let Some(made) = made else { return };
        assert_eq!(statuses(&made), [200, 400, 400, 200, 403], "{version}: {made:#?}");
        assert!(cause(&made[2]).starts_with("expirationDate: must be at most 6 months"), "{version}");
        assert_eq!(names(&made[3]), [&name], "{version}: the caller's token has been used");
        let ci = LogIn::created(&made[0]);
        let created = &made[0]["parsed"];
        let days = |field: &str| {
            let time: pat_operator::api::Time = created[field].as_str().expect("a time").parse().expect("a time");
            time.as_micros() / 86_400_000_000
        };
        assert!((180..=184).contains(&(days("expirationDate") - days("created"))), "{version}: {created}");
        assert_no_secret(&stage, &name).await;
        stage.assert_usable(&[(&name, &ci.secret)]).await;

        let changed = ci.calls(&stage, Some(version), json!([
            patch(&ci.id, json!([{"op": "replace", "path": "/name", "value": other}, {"op": "remove", "path": "/scope/1"}])),
            patch(&ci.id, json!([{"op": "replace", "path": "/expirationDate", "value": in_seconds(200 * 86_400)}])),
            patch(&ci.id, json!([{"op": "replace", "path": "/expirationDate", "value": in_seconds(86_400)}])),
            patch(&ci.id, json!([{"op": "remove", "path": "/expirationDate"}])),
        ])).await.expect("the client is available");
        assert_eq!(statuses(&changed), [200, 400, 200, 403], "{version}: {changed:#?}");
        assert!(cause(&changed[3]).starts_with("your token ends at "), "{version}: a token cannot extend itself");
        assert_eq!(
            (&changed[0]["parsed"]["name"], &changed[0]["parsed"]["scope"]),
            (&json!(other), &json!([MY_MANAGE])),
            "{version}"
        );
        let remove = json!([patch(&ci.id, json!([{"op": "remove", "path": "/expirationDate"}]))]);
        let extended = laptop.calls(&stage, Some(version), remove).await.expect("the client is available");
        assert_eq!(
            extended[0]["parsed"]["expirationDate"].as_str().map(|end| &end[..10]),
            created["expirationDate"].as_str().map(|end| &end[..10])
        );
        let end = json!([call("delete", json!({"id": ci.id})), call("list", json!({"owner_id": "me"}))]);
        let ended = ci.calls(&stage, Some(version), end).await.expect("the client is available");
        // The client expects an object where SailPoint's own example has a text, and parses nothing.
        assert_eq!((statuses(&ended), &ended[1]["parsed"]), (vec![204, 401], &Value::Null), "{version}: {ended:#?}");
        stage.verifier.forwards(&ci.secret, 401).await;
        assert!(stage.pat(&other).await.is_none(), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sailpoint_clients_list_with_all_parameter_combinations() {
    let stage = Stage::new("sailpoint-lists", &["--rate-limit=1000", "--rate-burst=10000"]).await;
    let bob = format!("bob@{}.example.com", stage.place.name());
    let admin = LogIn::of(
        &stage,
        "admin",
        "root",
        &["sp:my-personal-access-tokens:read", "sp:all-personal-access-tokens:read"],
    )
    .await;
    let auditor = LogIn::of(&stage, "auditor", "eve", &["idn:managed-personal-access-tokens:read"]).await;
    for (name, managed, used) in [
        ("early", false, Some("2023-01-01T00:00:00Z")),
        ("late", true, Some("2024-01-01T00:00:00Z")),
        ("never", false, None),
    ] {
        let spec = json!({"owner": {"kind": "User", "name": bob}, "managed": managed, "suspend": true});
        stage.place.apply(name, spec).await;
        if let Some(used) = used {
            let patch = json!({"status": {"lastUsedAt": used}});
            let params = PatchParams { field_manager: Some("verifier".into()), ..PatchParams::default() };
            stage.place.pats().patch_status(name, &params, &Patch::Merge(patch)).await.expect("a use");
        }
    }
    let owner = stage.owner(&bob, json!({"displayName": "Bob"})).await;
    let bobs = owner.uid.replace('-', "");
    eventually("the REST server knows the owner and the uses", async || {
        let list = stage.api.call("GET", &format!("{V1}?owner-id={bobs}"), &admin.secret, None).await.json();
        list.as_array().is_some_and(|list| list.iter().filter(|token| token["lastUsed"].is_string()).count() == 2)
    })
    .await;

    // The callers' own tokens are in use today.
    let owners =
        [None, Some(Value::Null), Some(json!("")), Some(json!("me")), Some(json!(bobs)), Some(json!("nobody"))];
    let filters = [
        (None, &["early", "late", "never", "admin", "auditor"][..]),
        (Some(Value::Null), &["early", "late", "never", "admin", "auditor"]),
        (Some(json!("lastUsed isnull")), &["never"]),
        (Some(json!("lastUsed le 2023-06-01T00:00:00.000Z")), &["early"]),
        (Some(json!("lastUsed le 2024-01-01T01:00:00+01:00")), &["early", "late"]),
        (Some(json!("lastUsed isnull or lastUsed le 2023-06-01")), &["early", "never"]),
        (Some(json!("not lastUsed isnull and not (lastUsed le 2023-06-01T00:00)")), &["late", "admin", "auditor"]),
    ];
    let mut calls = Vec::new();
    let mut expected = Vec::new();
    for owner in &owners {
        for (filter, passing) in &filters {
            let given = [("owner_id", owner), ("filters", filter)];
            let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
            calls.push(call("list", Value::Object(given.collect())));
            let of_owner: &[&str] = match owner.as_ref().and_then(Value::as_str) {
                None | Some("") => &["early", "late", "never", "admin", "auditor"],
                Some("me") => &["admin"],
                Some("nobody") => &[],
                Some(_) => &["early", "late", "never"],
            };
            let mut both: Vec<&str> = of_owner.iter().filter(|name| passing.contains(name)).copied().collect();
            both.sort_unstable();
            expected.push(both);
        }
    }
    for version in OLDER.map(Some).into_iter().chain([None]) {
        let Some(answers) = admin.calls(&stage, version, Value::Array(calls.clone())).await else { return };
        assert_eq!(answers.len(), 42);
        // Log-ins count as uses with a delay, so the callers' own tokens may not be shown as used at first.
        for ((answer, expected), call) in answers.iter().zip(&expected).zip(&calls) {
            let mut got = names(answer);
            got.retain(|name| !["admin", "auditor"].contains(name) || expected.contains(name));
            let expected: Vec<_> = expected
                .iter()
                .filter(|name| got.contains(name) || !["admin", "auditor"].contains(name))
                .copied()
                .collect();
            assert_eq!(got, expected, "{version:?} {call}");
        }
        let wrong = ["lastUsed ge 2023-01-01", "name eq \"a\"", "lastUsed le", "lastUsed ISNULL", "(lastUsed isnull"];
        let wrong: Vec<_> = wrong.into_iter().map(|filter| call("list", json!({"filters": filter}))).collect();
        let refused = admin.calls(&stage, version, Value::Array(wrong)).await.expect("the client is available");
        assert!(
            refused.iter().all(|answer| answer["status"] == 400 && cause(answer).starts_with("filters: at character ")),
            "{refused:#?}"
        );
        let managed = auditor
            .calls(
                &stage,
                version,
                json!([
                    call("list", json!({"owner_id": bobs})),
                    call("list", json!({"owner_id": bobs, "filters": "lastUsed isnull"})),
                    call("list", json!({"owner_id": "me"})),
                    call("list", json!({})),
                    call("list", json!({"owner_id": ""})),
                ]),
            )
            .await
            .expect("the client is available");
        assert_eq!(statuses(&managed), [200, 200, 200, 403, 403], "{managed:#?}");
        assert_eq!((names(&managed[0]), names(&managed[1]), names(&managed[2])), (vec!["late"], vec![], vec![]));
    }
    owner.remove().await;
}
