//! Tests the TrueFoundry dialect with TrueFoundry's own Python client, newer and older.

use pat_operator::api::SecretDelivery;
use serde_json::{Value, json};

use super::stage::{ALL_MANAGE, MY_MANAGE, Stage};
use crate::support::{
    clients,
    process::place::{eventually, in_seconds},
};

const TOKENS: &str = "/api/svc/v1/personal-access-tokens";

/// Makes calls with a client. Returns `None` if the client is not available.
async fn calls_of(client: &str, stage: &Stage, token: &str, calls: Value) -> Option<Vec<Value>> {
    let asked = json!({"url": format!("http://{}", stage.api.http), "token": token, "calls": calls});
    let answers = clients::run(&format!("{client}/call.py"), &asked).await?;
    Some(answers.as_array().expect("a list").clone())
}

/// The same with the newer client, which must be available.
async fn calls(stage: &Stage, token: &str, calls: Value) -> Vec<Value> {
    calls_of("truefoundry", stage, token, calls).await.expect("the client is available")
}

fn one(call: &str, arguments: Value) -> Value {
    json!({"call": call, "arguments": arguments})
}

fn create(arguments: Value) -> Value {
    one("personal_access_tokens.create", arguments)
}

fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().map(|answer| answer["status"].as_u64().expect("a number")).collect()
}

fn names(tokens: &Value) -> Vec<&str> {
    tokens.as_array().expect("a list").iter().map(|token| token["name"].as_str().expect("a name")).collect()
}

fn token_in(answer: &Value) -> String {
    answer["read"]["token"].as_str().unwrap_or_else(|| panic!("no token in {answer}")).to_owned()
}

/// Creates a virtual account's token with these scopes. Returns it when the REST server accepts it.
async fn robot(stage: &Stage, name: &str, scopes: &[&str]) -> String {
    let owner = json!({"kind": "VirtualAccount", "name": format!("{}/{name}", stage.place.name())});
    stage.place.apply(name, json!({"owner": owner, "scopes": scopes, "expiry": {"never": true}})).await;
    let token = stage.place.ready(name).await;
    eventually("the REST server accepts the token", async || {
        stage.api.call("GET", "/api/svc/v1/session", &token, None).await.status == 200
    })
    .await;
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn truefoundry_client_in_between_creates_by_name_and_counts_grace_in_days() {
    let stage = Stage::new("truefoundry-middle", &[]).await;
    let token = robot(&stage, "robot", &[MY_MANAGE, "deploy"]).await;
    let get = |name: &str| one("personal_access_tokens.get", json!({"name": name}));
    let asked = json!([get("by-name"), get("by-name"), get("robot"), get("No Name")]);
    let Some(made) = calls_of("truefoundry-middle", &stage, &token, asked).await else { return };
    assert_eq!(statuses(&made), [200, 409, 409, 400], "{made:#?}");
    let (new, data) = (token_in(&made[0]), &made[0]["read"]["data"]);
    assert_eq!((&made[0]["read"]["created"], &data["manifest"]["name"]), (&json!(true), &json!("by-name")));
    assert_eq!(data["jwts"].as_array().map(Vec::len), Some(1), "{data}");
    for exists in &made[1..3] {
        let message = exists["read"]["message"].as_str().expect("a message");
        assert!(message.contains("its text was shown only once"), "{message}");
    }
    stage.assert_usable(&[("by-name", &new)]).await;
    assert_eq!(stage.verifier.forward(&new, "scope=deploy").await, 200);

    let regenerate =
        |days: Value| one("virtual_accounts.regenerate_token", json!({"id": data["id"], "grace_period_in_days": days}));
    let asked = json!([regenerate(json!(1)), regenerate(json!(366))]);
    let replaced = calls_of("truefoundry-middle", &stage, &token, asked).await.expect("the client is available");
    assert_eq!(statuses(&replaced), [200, 400], "{replaced:#?}");
    stage.verifier.forwards(&token_in(&replaced[0]), 200).await;
    assert_eq!(stage.verifier.forward(&new, "").await, 200, "the old token is in its grace period");
    let pat = stage.pat("by-name").await.expect("the PAT exists");
    assert_eq!(pat.spec.grace_period.map(|grace| grace.to_string()).as_deref(), Some("1d"));
}

/// Whether a Secret of this PAT exists.
async fn has_secret(stage: &Stage, uid: &str) -> bool {
    let secrets = stage.place.secrets().list(&Default::default()).await.expect("Secrets are listed").items;
    secrets.iter().any(|secret| secret.metadata.owner_references.iter().flatten().any(|one| one.uid == uid))
}

#[tokio::test(flavor = "multi_thread")]
async fn truefoundry_client_creates_regenerates_and_deletes_tokens() {
    let stage = Stage::new("truefoundry-story", &[]).await;
    let token = robot(&stage, "robot", &[MY_MANAGE, "deploy", "introspect"]).await;
    let end = in_seconds(3600);
    let made = calls_of(
        "truefoundry",
        &stage,
        &token,
        json!([
            create(json!({"name": "ci-token", "expiration_date": end, "account_name": stage.place.name(), "token_type": "opaque"})),
            create(json!({"name": "for-ever", "expiration_date": null, "team_name": null, "token_type": "jwt"})),
            create(json!({"name": "ci-token"})),
            create(json!({"name": "CI"})),
            create(json!({"name": "too-late", "expiration_date": "2020-01-01"})),
            create(json!({"name": "no-team", "team_name": "core"})),
            create(json!({"name": "no-account", "account_name": "elsewhere"})),
            one("personal_access_tokens.create_for_user", json!({"name": "for-you", "user_email": "nobody@example.com"})),
            one("page", json!({})),
        ]),
    )
    .await;
    let Some(made) = made else { return };
    assert_eq!(statuses(&made), [200, 200, 409, 400, 400, 400, 400, 404, 200], "{made:#?}");
    let fields: Vec<_> = made[3..7].iter().map(|answer| &answer["read"]["details"][0]["field"]).collect();
    assert_eq!(fields, ["name", "expirationDate", "teamName", "accountName"]);
    assert_eq!(made[2]["error"], "ConflictError");
    assert_eq!(made[7]["read"]["message"], "no such user");
    assert_eq!((&made[2]["read"]["statusCode"], &made[2]["read"]["code"]), (&json!(409), &json!("Conflict")));
    assert!(made[2]["read"]["message"].as_str().is_some_and(|words| words.contains("\"ci-token\"")), "{}", made[2]);
    let page = &made[8]["read"];
    assert_eq!(page["pagination"], json!({"total": 3, "offset": 0, "limit": 100}));
    assert_eq!(names(&page["data"]).len(), 3);
    let item = page["data"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|item| item["name"] == "ci-token")
        .expect("the token is in the list");
    let account = format!("{}/robot", stage.place.name());
    assert_eq!(item["createdBySubject"]["subjectType"], "serviceaccount");
    assert_eq!(item["createdBySubject"]["subjectSlug"], account);
    assert_eq!(item["tenantName"], stage.place.name());
    assert_eq!((&item["isExpired"], &item["manifest"]["secret_fqn"]), (&json!(false), &Value::Null));
    assert_eq!(item["manifest"]["expiration_date"].as_str().map(|text| &text[..19]), Some(&end[..19]), "{item}");
    assert_eq!(item["jwts"][0]["expiry"].as_str().map(|text| &text[..19]), Some(&end[..19]), "{item}");

    // In Kubernetes, it is a PAT like any other, with one-time delivery, no Secret left, and without scopes for this operator's own APIs.
    let (new, endless) = (token_in(&made[0]), token_in(&made[1]));
    stage.assert_usable(&[("ci-token", &new), ("for-ever", &endless)]).await;
    let pat = stage.pat("ci-token").await.expect("the PAT exists");
    assert_eq!(pat.spec.owner.as_ref().map(|owner| owner.name.as_str()), Some(account.as_str()));
    assert_eq!(pat.spec.scopes, ["deploy"]);
    assert_eq!(pat.spec.secret.as_ref().and_then(|secret| secret.delivery), Some(SecretDelivery::Once));
    let uid = pat.metadata.uid.expect("a uid");
    assert!(!has_secret(&stage, &uid).await, "no Secret with the token remains");
    assert_eq!(item["id"], uid.replace('-', ""));
    let for_ever = stage.pat("for-ever").await.expect("the PAT exists");
    assert_eq!(for_ever.spec.expiry.and_then(|expiry| expiry.never), Some(true));

    // The verifier accepts the new token, and the session endpoint shows who holds it, as TrueFoundry's command line requests.
    for made in [&new, &endless] {
        assert!(made.starts_with("tfy_"), "TrueFoundry's command line expects this prefix");
        assert_eq!(stage.verifier.forward(made, "scope=deploy").await, 200);
        assert_eq!(stage.verifier.forward(made, "scope=introspect").await, 403);
    }
    let session = stage.api.call("GET", "/api/svc/v1/session", &new, None).await.json();
    assert_eq!(session["user"]["subject"]["subjectPatName"], "ci-token", "{session}");
    assert_eq!((&session["user"]["tenantName"], &session["user"]["email"]), (&json!(stage.place.name()), &Value::Null));

    // After a regeneration both tokens work during the grace period, and each can be revoked.
    let id = item["id"].clone();
    let old_jwt = item["jwts"][0]["id"].clone();
    let regenerate = |minutes: Value| {
        one("virtual_accounts.regenerate_token", json!({"id": id, "grace_period_in_minutes": minutes}))
    };
    let replaced =
        calls(&stage, &token, json!([regenerate(json!(5)), one("page", json!({"name_search_query": "CI-"}))])).await;
    assert_eq!(statuses(&replaced), [200, 200], "{replaced:#?}");
    let second = token_in(&replaced[0]);
    assert!(second.starts_with("tfy_") && second != new);
    stage.verifier.forwards(&second, 200).await;
    assert_eq!(stage.verifier.forward(&new, "").await, 200, "the old token is in its grace period");
    let shown = &replaced[1]["read"]["data"][0];
    assert_eq!((&shown["id"], shown["jwts"].as_array().map(Vec::len)), (&id, Some(2)), "{shown}");
    assert_eq!(shown["jwts"][1]["id"], old_jwt);
    assert!(!has_secret(&stage, &uid).await, "no Secret with the token remains");
    let deleted = one("virtual_accounts.delete_jwt", json!({"id": id, "jwt_id": old_jwt}));
    let revoked =
        calls(&stage, &token, json!([deleted, deleted, one("page", json!({"name_search_query": "ci-"}))])).await;
    assert_eq!(statuses(&revoked), [200, 404, 200], "{revoked:#?}");
    stage.verifier.forwards(&new, 401).await;
    assert_eq!(stage.verifier.forward(&second, "").await, 200);
    assert_eq!(revoked[2]["read"]["data"][0]["jwts"].as_array().map(Vec::len), Some(1));
    let without_grace = calls(&stage, &token, json!([regenerate(json!(0)), regenerate(json!(-1))])).await;
    assert_eq!(statuses(&without_grace), [200, 400], "{without_grace:#?}");
    let third = token_in(&without_grace[0]);
    stage.verifier.forwards(&second, 401).await;
    stage.verifier.forwards(&third, 200).await;

    let delete = one("personal_access_tokens.delete", json!({"id": id}));
    let ended = calls(&stage, &token, json!([delete, delete, one("all", json!({}))])).await;
    assert_eq!(statuses(&ended), [200, 404, 200], "{ended:#?}");
    assert_eq!((&ended[0]["read"], &ended[1]["error"]), (&json!({}), &json!("NotFoundError")));
    assert!(!names(&ended[2]["read"]).contains(&"ci-token"));
    stage.verifier.forwards(&third, 401).await;
    assert!(stage.pat("ci-token").await.is_none(), "the PAT is deleted");
    let refused = calls(&stage, &third, json!([one("page", json!({}))])).await;
    assert_eq!((&refused[0]["status"], &refused[0]["read"]["statusCode"]), (&json!(401), &json!(401)));
    let log = stage.api.process.log().join("\n");
    assert_eq!(stage.verifier.forward(&endless, "").await, 200, "the other token still works");
    assert!(
        ![&token, &new, &endless, &second, &third].iter().any(|token| log.contains(token.as_str())),
        "no token is in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn truefoundry_client_creates_for_users_who_create_nothing() {
    let stage = Stage::new("truefoundry-admin", &[]).await;
    let user = format!("ada@{}.example.com", stage.place.name());
    let owner = stage.owner(&user, json!({"email": user, "displayName": "Ada Lovelace", "groups": ["core"]})).await;
    let admin = robot(&stage, "admin", &[ALL_MANAGE, "deploy"]).await;
    let laptop = stage.caller("laptop", &user, &[MY_MANAGE, "deploy"]).await;
    let plain = robot(&stage, "plain", &[MY_MANAGE, "deploy"]).await;
    eventually("the REST server knows the owner", async || {
        let session = stage.api.call("GET", "/api/svc/v1/session", &laptop, None).await.json();
        session["user"]["email"] == user.as_str()
    })
    .await;
    let for_user = |name: &str| {
        let arguments =
            json!({"name": name, "user_email": user, "team_name": "core", "expiration_date": "2100-01-01T12:00"});
        one("personal_access_tokens.create_for_user", arguments)
    };
    let revoke_all = one("personal_access_tokens.revoke_all", json!({"email": user}));

    let made = calls_of("truefoundry", &stage, &admin, json!([for_user("for-ada"), for_user("for-ada")])).await;
    let Some(made) = made else { return owner.remove().await };
    assert_eq!(statuses(&made), [200, 409], "{made:#?}");
    let new = token_in(&made[0]);
    stage.assert_usable(&[("for-ada", &new)]).await;
    let pat = stage.pat("for-ada").await.expect("the PAT exists");
    assert_eq!(pat.spec.owner.as_ref().map(|owner| owner.text()), Some(user.clone()));
    assert_eq!(pat.spec.scopes, ["deploy"]);
    assert_eq!(
        pat.spec.expiry.and_then(|expiry| expiry.at).map(|at| at.to_string()).as_deref(),
        Some("2100-01-01T12:00:00Z")
    );
    let id = pat.metadata.uid.expect("a uid").replace('-', "");

    // A user's token can list tokens but not create any. Without the right, other owners' tokens are not found.
    let of_user =
        calls(&stage, &laptop, json!([create(json!({"name": "more"})), for_user("more"), one("all", json!({}))])).await;
    assert_eq!(statuses(&of_user), [403, 403, 200], "{of_user:#?}");
    assert_eq!(of_user[1]["error"], "ForbiddenError");
    let mut listed = names(&of_user[2]["read"]);
    listed.sort_unstable();
    assert_eq!(listed, ["for-ada", "laptop"]);
    let delete = one("personal_access_tokens.delete", json!({"id": id}));
    let regenerate = one("virtual_accounts.regenerate_token", json!({"id": id, "grace_period_in_minutes": 1}));
    let of_others = calls(&stage, &plain, json!([for_user("more"), delete, regenerate, revoke_all])).await;
    assert_eq!(statuses(&of_others), [404, 404, 404, 404], "{of_others:#?}");
    assert_eq!(stage.verifier.forward(&new, "").await, 200);

    // Revokes all tokens of the user and no others. A token whose manifest sets `revoked` stays, and the answer says so. The other tokens
    // are still revoked.
    let held = |more: Value| {
        let mut spec = json!({"owner": {"kind": "User", "name": user}, "scopes": ["deploy"]});
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        spec
    };
    stage.place.apply("held", held(json!({"revoked": false}))).await;
    let held_token = stage.place.ready("held").await;
    eventually("the list has all tokens", async || {
        let listed = stage.api.call("GET", TOKENS, &laptop, None).await.json();
        listed["pagination"]["total"] == 3
    })
    .await;
    let kept = calls(&stage, &admin, json!([revoke_all])).await;
    assert_eq!(statuses(&kept), [409], "{kept:#?}");
    assert_eq!(kept[0]["read"]["message"], "spec.revoked is managed by \"person\": change it there");
    stage.verifier.forwards(&laptop, 401).await;
    assert_eq!(stage.verifier.forward(&held_token, "").await, 200);
    stage.place.apply("held", held(json!({}))).await;
    let revoked = calls(&stage, &admin, json!([revoke_all, revoke_all])).await;
    assert_eq!(statuses(&revoked), [200, 200], "{revoked:#?}");
    assert_eq!(revoked[0]["read"], json!({}));
    stage.verifier.forwards(&new, 401).await;
    stage.verifier.forwards(&held_token, 401).await;
    assert_eq!(stage.verifier.forward(&plain, "").await, 200);
    for name in [pat.metadata.name.as_deref().expect("a name"), "laptop", "held"] {
        assert_eq!(
            stage.place.pats().get(name).await.expect("the PAT still exists").spec.revoked,
            Some(true),
            "{name}"
        );
    }
    let refused = calls(&stage, &laptop, json!([one("page", json!({}))])).await;
    assert_eq!(statuses(&refused), [401]);
    owner.remove().await;
}

/// Creates four tokens of the virtual account with fields that only manifests can set.
async fn with_tokens(stage: &Stage, token: &str) {
    let owner = json!({"kind": "VirtualAccount", "name": format!("{}/robot", stage.place.name())});
    for name in ["alpha", "beta", "gamma", "delta"] {
        let spec = json!({
            "owner": owner, "displayName": name, "rotation": {"interval": "30d"}, "gracePeriod": "2d",
            "permissions": [{"resourceFQN": "a:b", "resourceType": "cluster", "roleID": "admin"}],
            "notificationTarget": {"type": "Email", "channel": "mail", "recipients": ["ops@example.com"]},
        });
        stage.place.apply(name, spec).await;
        stage.place.ready(name).await;
    }
    stage.place.apply("other", json!({"displayName": "alpha"})).await;
    stage.place.ready("other").await;
    eventually("the list has all tokens", async || {
        let page = stage.api.call("GET", TOKENS, token, None).await.json();
        // Waits for credentials too, so that nothing changes later.
        let data = page["data"].as_array().cloned().unwrap_or_default();
        data.len() == 5 && data.iter().all(|item| item["jwtId"].is_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truefoundry_client_lists_with_all_parameter_combinations() {
    let stage = Stage::new("truefoundry-lists", &["--rate-limit=1000", "--rate-burst=10000"]).await;
    let token = robot(&stage, "robot", &["idn:my-personal-access-tokens:read"]).await;
    with_tokens(&stage, &token).await;
    let order = stage.api.call("GET", TOKENS, &token, None).await.json();
    let all = names(&order["data"]);

    // Each parameter is absent, null, or has a value, for a single page and for the pager.
    let limits = [None, Some(Value::Null), Some(json!(1)), Some(json!(2)), Some(json!(1000))];
    let offsets = [None, Some(Value::Null), Some(json!(1)), Some(json!(5)), Some(json!(1_000_000))];
    let searches = [None, Some(Value::Null), Some(json!("")), Some(json!("TA")), Some(json!("nothing"))];
    let (mut asked, mut expected) = (Vec::new(), Vec::new());
    for (limit, offset) in limits.iter().flat_map(|limit| offsets.iter().map(move |offset| (limit, offset))) {
        for search in &searches {
            let arguments = [("limit", limit), ("offset", offset), ("name_search_query", search)];
            let given = arguments.iter().filter_map(|(name, value)| Some(((*name).to_owned(), (*value).clone()?)));
            let arguments = Value::Object(given.collect());
            let value = |value: &Option<Value>| value.clone().filter(|value| !value.is_null());
            let search = value(search).and_then(|search| search.as_str().map(str::to_lowercase)).unwrap_or_default();
            let found: Vec<_> = all.iter().copied().filter(|name| name.contains(&search)).collect();
            let number = |wanted: &Option<Value>, default| {
                value(wanted).and_then(|one| one.as_u64()).unwrap_or(default) as usize
            };
            let (limit, offset) = (number(limit, 100), number(offset, 0));
            let rest: Vec<_> = found.iter().copied().skip(offset).collect();
            let page: Vec<_> = rest.iter().copied().take(limit).collect();
            asked.extend([one("page", arguments.clone()), one("all", arguments)]);
            expected.push((page, rest, json!({"total": found.len(), "offset": offset, "limit": limit})));
        }
    }
    let answers = calls_of("truefoundry", &stage, &token, Value::Array(asked.clone())).await;
    let Some(answers) = answers else { return };
    assert_eq!(answers.len(), 250);
    for ((answers, asked), (page, rest, pagination)) in answers.chunks(2).zip(asked.chunks(2)).zip(expected) {
        assert_eq!(names(&answers[0]["read"]["data"]), page, "{}", asked[0]);
        assert_eq!(answers[0]["read"]["pagination"], pagination, "{}", asked[0]);
        assert_eq!(names(&answers[1]["read"]), rest, "{}", asked[1]);
    }

    let wrong = [json!({"limit": 0}), json!({"limit": 1001}), json!({"limit": 1_000_000_000}), json!({"offset": -1})];
    let wrong: Vec<_> = wrong.into_iter().map(|arguments| one("page", arguments)).collect();
    let refused = calls(&stage, &token, Value::Array(wrong)).await;
    assert_eq!(statuses(&refused), [400; 4], "{refused:#?}");
    assert_eq!(
        (&refused[0]["read"]["statusCode"], &refused[3]["read"]["details"][0]["field"]),
        (&json!(400), &json!("offset"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn older_truefoundry_client_reads_creates_and_deletes() {
    let stage = Stage::new("truefoundry-older", &[]).await;
    let token = robot(&stage, "robot", &[MY_MANAGE, "deploy"]).await;
    with_tokens(&stage, &token).await;
    let asked = json!([one("all", json!({"limit": 2})), create(json!({"name": "made-so"}))]);

    let Some(older) = calls_of("truefoundry-older", &stage, &token, asked).await else { return };
    let newer = calls(&stage, &token, json!([one("all", json!({}))])).await;

    assert_eq!(statuses(&older), [200, 200], "{older:#?}");
    let item = older[0]["read"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|item| item["name"] == "alpha")
        .expect("the token is in the list");
    assert_eq!(
        item["manifest"]["permissions"],
        json!([{"resource_fqn": "a:b", "resource_type": "cluster", "role_id": "admin"}])
    );
    let same = newer[0]["read"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|item| item["name"] == "alpha")
        .expect("the token is in the list");
    assert_eq!(same["manifest"]["auto_rotate"]["auto_rotate_interval"], 30);
    assert_eq!(same["manifest"]["notification_target"]["to_emails"], json!(["ops@example.com"]));
    assert_eq!(same["manifest"]["secret_fqn"], format!("{}:alpha", stage.place.name()));
    let new = token_in(&older[1]);
    stage.assert_usable(&[("made-so", &new)]).await;
    let made = stage.pat("made-so").await.expect("the PAT exists");
    let id = made.metadata.uid.expect("a uid").replace('-', "");
    let delete = json!([one("personal_access_tokens.delete", json!({"id": id}))]);
    let deleted = calls_of("truefoundry-older", &stage, &token, delete).await.expect("the client is available");
    assert_eq!(statuses(&deleted), [200], "{deleted:#?}");
    stage.verifier.forwards(&new, 401).await;
}
