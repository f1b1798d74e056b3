//! Tests the Cryptlex dialect with Cryptlex's own Python client, and with plain HTTP for fields that the client ignores.

use pat_operator::api::SecretDelivery;
use serde_json::{Value, json};

use super::stage::{ALL_MANAGE, MY_MANAGE, Stage};
use crate::support::{
    clients,
    process::place::{eventually, in_seconds},
};

const MOUNT: &str = "/cryptlex";
const TOKENS: &str = "/cryptlex/v3/personal-access-tokens";

/// Tests send more requests than users do.
const QUICK: &[&str] = &["--rate-limit=1000", "--rate-burst=10000"];

/// Makes calls with the client. Returns `None` if the client is not available.
async fn calls(stage: &Stage, token: &str, calls: Value) -> Option<Vec<Value>> {
    let asked = json!({"url": format!("http://{}{MOUNT}", stage.api.http), "token": token, "calls": calls});
    let answers = clients::run("cryptlex/call.py", &asked).await?;
    Some(answers.as_array().expect("a list").clone())
}

/// Sends a GET over plain HTTP, which must be answered with 200.
async fn get(stage: &Stage, token: &str, path: &str) -> Value {
    let reply = stage.api.call("GET", path, token, None).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

fn names(answer: &Value) -> Vec<&str> {
    assert_eq!(answer["status"], 200, "{answer}");
    answer["parsed"].as_array().expect("a list").iter().map(|token| token["name"].as_str().expect("a name")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn cryptlex_client_creates_uses_revokes_and_deletes_tokens() {
    let stage = Stage::new("cryptlex-story", QUICK).await;
    let token = stage.caller("laptop", "ada", &[MY_MANAGE, "deploy"]).await;
    let end = in_seconds(3600);
    let create = |name: &str, more: Value| {
        let mut arguments = json!({"name": name});
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"call": "create", "arguments": arguments})
    };
    let made = calls(
        &stage,
        &token,
        json!([
            create("ci", json!({"scopes": ["deploy", MY_MANAGE], "expiresAt": end})),
            create("bare", json!({})),
            create("ci", json!({})),
            create("wide", json!({"scopes": ["deploy", ALL_MANAGE]})),
            create("late", json!({"expiresAt": "2020-01-01T00:00:00Z"})),
            {"call": "create", "arguments": {"scopes": []}},
            create(&"x".repeat(129), json!({})),
            {"call": "list", "arguments": {"sort": "name"}},
        ]),
    )
    .await;
    let Some(made) = made else { return };
    let statuses: Vec<_> = made.iter().map(|answer| &answer["status"]).collect();
    assert_eq!(statuses, [201, 201, 409, 403, 400, 400, 400, 200], "{made:#?}");
    for (refused, begin) in
        [(2, "a token with the name"), (3, "your token lacks"), (4, "expiresAt: "), (5, "name: "), (6, "name: ")]
    {
        let message = made[refused]["parsed"]["message"].as_str().expect("a message");
        assert!(message.starts_with(begin), "{message}");
    }
    assert_eq!(names(&made[7]), ["bare", "ci", "laptop"]);
    let listed = &made[7]["parsed"][1];
    assert_eq!((&listed["revoked"], &listed["scopes"]), (&json!(false), &json!(["deploy", MY_MANAGE])));
    assert_eq!(listed["expiresAt"].as_str().map(|text| &text[..19]), Some(&end[..19]), "{listed}");
    assert_eq!(made[7]["parsed"][0]["expiresAt"], Value::Null);

    // In Kubernetes, it is a PAT like any other, with one-time delivery and no Secret left.
    let pat = stage.pat("ci").await.expect("the PAT exists");
    assert_eq!(pat.spec.owner.as_ref().map(|owner| owner.text()).as_deref(), Some("ada"));
    assert_eq!(pat.spec.scopes, ["deploy", MY_MANAGE]);
    assert_eq!(pat.spec.secret.as_ref().and_then(|secret| secret.delivery), Some(SecretDelivery::Once));
    let secrets = stage.place.secrets().list(&Default::default()).await.expect("Secrets are listed").items;
    let owned = secrets.iter().filter(|secret| {
        secret.metadata.owner_references.iter().flatten().any(|one| Some(&one.uid) == pat.metadata.uid.as_ref())
    });
    assert_eq!(owned.count(), 0, "no Secret with the token remains");
    let id = pat.metadata.uid.expect("a uid").replace('-', "");
    assert_eq!(listed["id"], id);

    // The verifier and the REST server accept the new token.
    let token_in = |answer: &Value| answer["parsed"]["accessToken"].as_str().expect("a token").to_owned();
    let (new, bare) = (token_in(&made[0]), token_in(&made[1]));
    stage.assert_usable(&[("ci", &new), ("bare", &bare)]).await;
    assert_eq!(stage.verifier.forward(&bare, "scope=deploy").await, 403, "the token has no scopes");
    assert_eq!(stage.verifier.forward(&new, "scope=deploy").await, 200);
    let revoked = calls(
        &stage,
        &new,
        json!([
            {"call": "get", "arguments": {"id": id}},
            {"call": "revoke", "arguments": {"id": id, "revoked": false}},
            {"call": "list", "arguments": {"sort": "-name"}},
        ]),
    )
    .await
    .expect("the client is available");
    // Meanwhile the controller recorded the delivery, which changes updatedAt.
    let but_its_change = |token: &Value| {
        Value::Object(
            token.as_object().expect("a token").clone().into_iter().filter(|(field, _)| field != "updatedAt").collect(),
        )
    };
    assert_eq!(but_its_change(&revoked[0]["parsed"]), but_its_change(listed), "the same as in the list");
    assert_eq!(but_its_change(&revoked[1]["parsed"]), but_its_change(listed));
    assert_eq!(names(&revoked[2]), ["laptop", "ci", "bare"]);

    let ended = calls(
        &stage,
        &token,
        json!([
            {"call": "revoke", "arguments": {"id": id, "revoked": true}},
            {"call": "revoke", "arguments": {"id": id, "revoked": true}},
            {"call": "revoke", "arguments": {"id": id, "revoked": false}},
            {"call": "list", "arguments": {"query": "ci"}},
            {"call": "delete", "arguments": {"id": made[7]["parsed"][0]["id"]}},
            {"call": "get", "arguments": {"id": made[7]["parsed"][0]["id"]}},
            {"call": "delete", "arguments": {"id": made[7]["parsed"][0]["id"]}},
            {"call": "list", "arguments": {"sort": "-name"}},
        ]),
    )
    .await
    .expect("the client is available");
    let statuses: Vec<_> = ended.iter().map(|answer| &answer["status"]).collect();
    assert_eq!(statuses, [200, 200, 400, 200, 204, 404, 404, 200], "{ended:#?}");
    assert_eq!(ended[0]["parsed"]["revoked"], true);
    assert_eq!(ended[3]["parsed"][0]["revoked"], true, "revoked tokens stay in the list");
    assert!(ended[5]["parsed"]["message"].is_string());
    assert_eq!(names(&ended[7]), ["laptop", "ci"]);
    for dead in [&new, &bare] {
        stage.verifier.forwards(dead, 401).await;
    }
    assert_eq!(stage.pat("ci").await.expect("the PAT still exists").spec.revoked, Some(true));
    assert!(stage.pat("bare").await.is_none(), "the PAT is deleted");
    let refused =
        calls(&stage, &new, json!([{"call": "list", "arguments": {}}])).await.expect("the client is available");
    assert_eq!(refused[0]["status"], 401);
    assert!(refused[0]["parsed"]["message"].is_string());
    let log = stage.api.process.log().join("\n");
    assert!(![&token, &new, &bare].iter().any(|token| log.contains(token.as_str())), "no token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn cryptlex_client_lists_with_all_parameter_combinations() {
    let stage = Stage::new("cryptlex-lists", QUICK).await;
    let token = stage.caller("laptop", "ada", &[MY_MANAGE]).await;
    for name in ["alpha", "beta", "gamma"] {
        let spec =
            json!({"owner": {"kind": "User", "name": "ada"}, "displayName": name, "description": "a test of lists"});
        stage.place.apply(name, spec).await;
        stage.place.ready(name).await;
    }
    stage.place.apply("other", json!({"owner": {"kind": "User", "name": "grace"}, "displayName": "alpha"})).await;
    stage.place.ready("other").await;
    let count = async || get(&stage, &token, TOKENS).await.as_array().map(Vec::len);
    eventually("the list has all tokens", async || count().await == Some(4)).await;

    // Each parameter is absent, null, or has one of two values: 4 × 4 × 4 × 4 combinations.
    let choices = |given: [Value; 2]| [None, Some(Value::Null)].into_iter().chain(given.map(Some)).collect::<Vec<_>>();
    let (pages, limits) = (choices([json!(1), json!(2)]), choices([json!(1), json!(2)]));
    let (sorts, queries) = (choices([json!("name"), json!("-name")]), choices([json!("A"), json!("of lists")]));
    let mut asked = Vec::new();
    let mut expected = Vec::new();
    for (page, limit) in pages.iter().flat_map(|page| limits.iter().map(move |limit| (page, limit))) {
        for (sort, query) in sorts.iter().flat_map(|sort| queries.iter().map(move |query| (sort, query))) {
            let arguments = [("page", page), ("limit", limit), ("sort", sort), ("query", query)];
            let given = arguments.iter().filter_map(|(name, value)| Some(((*name).to_owned(), (*value).clone()?)));
            asked.push(json!({"call": "list", "arguments": Value::Object(given.collect())}));

            let value = |value: &Option<Value>| value.clone().filter(|value| !value.is_null());
            let mut all = vec!["alpha", "beta", "gamma", "laptop"];
            let search = value(query).and_then(|query| query.as_str().map(str::to_owned));
            if search.as_deref() == Some("of lists") {
                all.retain(|name| *name != "laptop");
            }
            match value(sort).and_then(|sort| sort.as_str().map(str::to_owned)).as_deref() {
                Some("name") => {}
                Some(_) => all.reverse(),
                // The default order is by creation. Ids order those of one second, so only their number is known.
                None => all.fill("?"),
            }
            let (page, limit) =
                (value(page).and_then(|page| page.as_u64()), value(limit).and_then(|limit| limit.as_u64()));
            let (page, limit) = (page.unwrap_or(1) as usize, limit.unwrap_or(100) as usize);
            let part: Vec<_> = all.into_iter().skip((page - 1) * limit).take(limit).collect();
            expected.push(part);
        }
    }
    let Some(answers) = calls(&stage, &token, Value::Array(asked.clone())).await else { return };
    assert_eq!(answers.len(), 256);
    for ((answer, expected), asked) in answers.iter().zip(&expected).zip(&asked) {
        let got = names(answer);
        assert_eq!(got.len(), expected.len(), "{asked}");
        assert!(expected.first() == Some(&"?") || got == *expected, "{asked}: {got:?}");
    }

    let wrong = [json!({"page": 0}), json!({"limit": 101}), json!({"sort": "owner"}), json!({"limit": 1_000_000_000})];
    let wrong: Vec<_> = wrong.into_iter().map(|arguments| json!({"call": "list", "arguments": arguments})).collect();
    let refused = calls(&stage, &token, Value::Array(wrong)).await.expect("the client is available");
    // The client does not expect a 400 for a list. It parses nothing, and does not fail.
    assert!(refused.iter().all(|answer| *answer == json!({"status": 400, "parsed": null})), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cryptlex_client_parses_users_and_sorts_by_every_field() {
    let stage = Stage::new("cryptlex-users", QUICK).await;
    let user = format!("ada@{}.example.com", stage.place.name());
    let token = stage.caller("laptop", &user, &[MY_MANAGE, "deploy"]).await;
    let asked = json!([{"call": "users", "arguments": {}}]);
    let Some(unknown) = calls(&stage, &token, asked.clone()).await else { return };
    assert_eq!(unknown[0]["parsed"][0]["id"], user, "{unknown:#?}");
    assert_eq!(unknown[0]["parsed"][0].get("createdAt"), None, "{unknown:#?}");
    let owner = stage.owner(&user, json!({"metadata": [{"key": "desk", "value": "4"}]})).await;
    let id = owner.uid.replace('-', "");
    eventually("the REST server knows the owner", async || get(&stage, &token, TOKENS).await[0]["userId"] == id).await;
    let known = calls(&stage, &token, asked).await.expect("the client is available");
    assert_eq!(known[0]["parsed"][0]["metadata"][0]["key"], "desk", "{known:#?}");
    assert!(known[0]["parsed"][0]["createdAt"].is_string(), "{known:#?}");

    let create = |name: &str, scopes: &[&str]| json!({"call": "create", "arguments": {"name": name, "scopes": scopes}});
    let made = json!([create("first", &["deploy"]), create("second", &[])]);
    calls(&stage, &token, made).await.expect("the client is available");
    let fields = get(&stage, &token, TOKENS).await[0].as_object().expect("a token").keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields.len(), 11, "{fields:?}");
    let sorts = fields.iter().flat_map(|field| [field.clone(), format!("-{field}")]);
    let sorts: Vec<_> = sorts.map(|sort| json!({"call": "list", "arguments": {"sort": sort}})).collect();
    for (answer, sort) in calls(&stage, &token, json!(sorts)).await.expect("the client is available").iter().zip(&sorts)
    {
        assert_eq!(names(answer).len(), 3, "{sort}");
        if sort["arguments"]["sort"] == "-scopes" {
            assert_eq!(names(answer), ["laptop", "first", "second"]);
        }
    }
    owner.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cryptlex_response_has_fields_that_the_client_ignores() {
    let stage = Stage::new("cryptlex-plain", QUICK).await;
    let user = format!("ada@{}.example.com", stage.place.name());
    let token = stage.caller("laptop", &user, &[MY_MANAGE, "deploy"]).await;
    let owner = stage
        .owner(&user, json!({
            "displayName": "Ada Lovelace", "firstName": "Ada", "lastName": "Lovelace", "email": user, "role": "admin",
            "roles": ["admin"], "company": "Analytical Engines", "twoFactorEnabled": true, "tags": ["math"],
            "lastLoginAt": "2026-04-01T00:00:00Z", "organization": {"id": "o-1", "address": {"city": "London"}},
            "metadata": [{"key": "desk", "value": "4", "viewPermissions": ["activation"]}], "emailPreference": {"metrics": true},
        }))
        .await;
    let id = owner.uid.replace('-', "");
    eventually("the REST server knows the owner", async || get(&stage, &token, TOKENS).await[0]["userId"] == id).await;

    let reply = stage.api.call("GET", TOKENS, &token, None).await;
    assert_eq!((reply.status, reply.headers["cache-control"].to_str().expect("text")), (200, "no-store"));
    let list = reply.json();
    let user_details = &list[0]["user"];
    assert_eq!((&user_details["id"], &user_details["email"]), (&json!(id), &json!(user)));
    assert_eq!(
        (&user_details["name"], &user_details["organization"]["address"]["city"]),
        (&json!("Ada Lovelace"), &json!("London"))
    );
    assert_eq!(
        (&user_details["metadata"][0]["key"], &user_details["emailPreference"]["metrics"]),
        (&json!("desk"), &json!(true))
    );
    assert_eq!(
        (&user_details["lastLoginAt"], &user_details["reseller"]),
        (&json!("2026-04-01T00:00:00Z"), &Value::Null)
    );
    assert!(user_details["createdAt"].is_string() && user_details["updatedAt"].is_string());
    assert_eq!(list[0]["lastRotatedAt"], Value::Null, "the token was not rotated");

    let created = stage.api.call("POST", TOKENS, &token, Some(&json!({"name": "ci"}))).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.json().as_object().expect("an object").keys().collect::<Vec<_>>(), ["accessToken"]);
    let place = created.headers["location"].to_str().expect("text");
    let made = get(&stage, &token, &format!("/cryptlex/v3/{place}")).await;
    assert_eq!((&made["name"], &made["userId"]), (&json!("ci"), &json!(id)));

    // After a rotation by its manifest, the id is the same and the time is set.
    let spec = json!({"owner": {"kind": "User", "name": user}, "scopes": [MY_MANAGE], "expiry": {"never": true}});
    let new = stage.place.rotated("laptop", spec).await;
    eventually("the list shows the rotation", async || {
        let reply = stage.api.call("GET", &format!("{TOKENS}?sort=-name"), &new, None).await;
        reply.status == 200 && reply.json()[0]["lastRotatedAt"].is_string()
    })
    .await;
    let both = get(&stage, &new, &format!("{TOKENS}?sort=-name")).await;
    assert_eq!((&both[0]["name"], &both[1]["name"]), (&json!("laptop"), &json!("ci")));
    assert_eq!(both[1]["lastRotatedAt"], Value::Null);

    // Unknown paths and methods get JSON errors too.
    for (method, path, status) in
        [("PUT", TOKENS, 405), ("GET", "/cryptlex/v3/licenses", 404), ("GET", "/cryptlex", 404)]
    {
        let reply = stage.api.send(method, path, &[], "").await;
        assert_eq!((reply.status, reply.json()["message"].is_string()), (status, true), "{method} {path}: {reply:?}");
    }
    owner.remove().await;
}
