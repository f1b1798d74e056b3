//! The access log.

use serde_json::{Value, json};

use super::stage::{MY_MANAGE, Stage};

/// The owner of the caller's token.
const USER: &str = "ada@example.com";

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_exactly_one_access_log_line() {
    let stage = Stage::new("rest-told", &[]).await;
    let token = stage.caller("laptop", USER, &[MY_MANAGE]).await;
    let id = stage.place.pats().get("laptop").await.unwrap().metadata.uid.expect("a uid").replace('-', "");
    let credential = stage.place.status("laptop").await.credentials[0].id.to_string();
    let known = Some((USER, credential.as_str()));
    let nothing = "0".repeat(32);
    let mut requests = Vec::new();
    for (dialect, method, path, route, status, caller) in [
        ("sailpoint", "GET", "/v3/personal-access-tokens?owner-id=me", "/v3/personal-access-tokens", 200, known),
        (
            "sailpoint",
            "DELETE",
            &format!("/beta/personal-access-tokens/{nothing}"),
            "/beta/personal-access-tokens/{id}",
            404,
            known,
        ),
        ("truefoundry", "GET", "/v1/personal-access-tokens?limit=5", "/v1/personal-access-tokens", 200, known),
        ("truefoundry", "GET", "/v1/session", "/v1/session", 401, None),
        ("cryptlex", "GET", "/v3/personal-access-tokens?search=zebra", "/v3/personal-access-tokens", 200, known),
        ("cryptlex", "GET", &format!("/v3/personal-access-tokens/{id}"), "/v3/personal-access-tokens/{id}", 200, known),
        ("other", "GET", "/nowhere", "none", 404, None),
    ] {
        let mount = match dialect {
            "sailpoint" => "/sailpoint",
            "truefoundry" => "/api/svc",
            "cryptlex" => "/cryptlex",
            _ => "",
        };
        let bearer = if caller.is_some() { token.as_str() } else { "kpat_junk" };
        let reply = stage.api.call(method, &format!("{mount}{path}"), bearer, None).await;
        assert_eq!(reply.status, status, "{dialect} {path}: {reply:?}");
        let route = if route == "none" { route.to_owned() } else { format!("{mount}{route}") };
        requests.push((
            reply.headers["x-request-id"].to_str().unwrap().to_owned(),
            dialect,
            method,
            route,
            status,
            caller,
        ));
    }
    let reply = stage.api.exchange(&id, &token).await;
    let request = reply.headers["x-request-id"].to_str().unwrap().to_owned();
    requests.push((request, "oauth", "POST", "/oauth/token".to_owned(), 200, known));

    // The log is complete once the process has ended.
    let log = stage.api.process.terminate().await.stderr;
    let lines: Vec<Value> = log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (id, dialect, method, route, status, caller) in requests {
        let of_this: Vec<&Value> = lines
            .iter()
            .filter(|line| line["target"] == "pat_operator::access" && line.to_string().contains(&id))
            .collect();
        let [line] = of_this[..] else { panic!("{dialect} {route}: {of_this:#?}") };
        let mut expected = json!({"id": id, "dialect": dialect, "method": method, "route": route, "status": status});
        if let Some((owner, token)) = caller {
            expected["owner"] = json!(owner);
            expected["token"] = json!(token);
        }
        assert!(line["took_ms"].as_f64().is_some_and(|took| took > 0.0), "{line}");
        assert_eq!((&line["level"], &line["message"]), (&json!("INFO"), &json!("answered")), "{line}");
        let mut fields = line.as_object().expect("an object").clone();
        fields.retain(|name, _| !["timestamp", "level", "target", "message", "took_ms"].contains(&name.as_str()));
        assert_eq!(Value::Object(fields), expected);
    }
    let log = log.join("\n");
    for hidden in [token.as_str(), "zebra", "limit=5", "nowhere", &nothing] {
        assert!(!log.contains(hidden), "{hidden}");
    }
}
