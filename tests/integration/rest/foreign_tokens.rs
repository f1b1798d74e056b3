//! Tokens at the wrong server: of another namespace with the same key, and access tokens at the verifier.

use base64::{Engine, prelude::BASE64_STANDARD};
use pat_operator::{
    api::Time,
    rest::access_token::{AccessTokenError, AccessTokenSigner, KEY_SECRET_FIELD},
};
use serde_json::{Value, json};

use super::stage::MY_MANAGE;
use crate::support::{
    process::{
        Launch,
        api::{ApiProcess, Reply, send},
        place::{Place, eventually},
        verifier::VerifierProcess,
    },
    protocols::{AUDIENCE, TOKENREVIEW, Way},
};

const KEY: &str = "pat-operator-api-key";

/// Checks the body of a dialect's 401.
type Refused = fn(&Value) -> bool;

/// The list of each dialect.
const LISTS: [(&str, Refused); 3] = [
    ("/sailpoint/personal-access-tokens/v1?owner-id=me", |body| body["error"].is_string()),
    ("/api/svc/v1/personal-access-tokens", |body| body["statusCode"] == 401 && body["message"].is_string()),
    ("/cryptlex/v3/personal-access-tokens", |body| body["message"].is_string() && body["code"] == "Unauthenticated"),
];

/// Starts a server for one namespace with the key of another.
async fn server(place: &Place, key: &Place) -> ApiProcess {
    let launch = Launch::new(&["api", "--log-format=json", "--health-addr=127.0.0.1:0"]);
    let launch = launch.env("KUBECONFIG", place.kubeconfig()).arg(format!("--namespace={}", place.name()));
    ApiProcess::of(launch.arg(format!("--key-namespace={}", key.name()))).await
}

/// Returns the id of a PAT.
async fn id(place: &Place, name: &str) -> String {
    place.pats().get(name).await.expect("it is there").metadata.uid.expect("a uid").replace('-', "")
}

/// Exchanges a PAT for an access token, once the server accepts it.
async fn access_token(api: &ApiProcess, id: &str, token: &str) -> String {
    eventually("the token is accepted", async || api.exchange(id, token).await.status == 200).await;
    api.exchange(id, token).await.json()["access_token"].as_str().expect("an access token").to_owned()
}

async fn lists(api: &ApiProcess, token: &str) -> Vec<Reply> {
    let mut replies = Vec::new();
    for (path, _) in LISTS {
        replies.push(api.call("GET", path, token, None).await);
    }
    replies
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_share_a_key_refuse_each_others_tokens() {
    let places = [Place::new("rest-one").await, Place::new("rest-two").await];
    let _operators = [&places[0], &places[1]].map(|place| place.operator().start());
    let (mut servers, mut tokens) = (Vec::new(), Vec::new());
    for place in &places {
        let api = server(place, &places[0]).await;
        // The same name and owner: only the namespace differs.
        let owner = json!({"kind": "User", "name": "ada@example.com"});
        place.apply("app", json!({"owner": owner, "scopes": [MY_MANAGE], "expiry": {"after": "1d"}})).await;
        let pat = place.ready("app").await;
        let access = access_token(&api, &id(place, "app").await, &pat).await;
        tokens.push([pat, access]);
        servers.push(api);
    }

    for (here, there) in [(0, 1), (1, 0)] {
        for own in &tokens[here] {
            let statuses: Vec<_> = lists(&servers[here], own).await.iter().map(|reply| reply.status).collect();
            assert_eq!(statuses, [200; 3], "its own");
        }
        for foreign in &tokens[there] {
            let replies = lists(&servers[here], foreign).await;
            for ((path, is_told), reply) in LISTS.iter().zip(&replies) {
                assert_eq!((reply.status, is_told(&reply.json())), (401, true), "{path}: {reply:?}");
                assert_eq!(reply.headers["www-authenticate"], "Bearer", "{path}");
                assert!(!reply.text.contains(places[there].name()), "{path}: {reply:?}");
            }
        }
    }

    // The key is the same: the other server's access token has a valid signature for another audience.
    assert!(places[1].secrets().get_opt(KEY).await.expect("an answer").is_none());
    let kept = places[0].secrets().get(KEY).await.expect("the key").data.expect("data");
    let key: &[u8; 32] = kept[KEY_SECRET_FIELD].0.as_slice().try_into().expect("32 bytes");
    let now: Time = k8s_openapi::jiff::Timestamp::now().into();
    for (place, [_, access]) in places.iter().zip(&tokens) {
        for server in &places {
            let signer = AccessTokenSigner::new(key, format!("pat-operator-api:{}", server.name()));
            let refused = signer.verify(access.as_bytes(), now).err();
            assert_eq!(refused, (server.name() != place.name()).then_some(AccessTokenError::WrongAudience));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verifier_refuses_access_tokens_in_every_protocol() {
    let place = Place::new("rest-access").await;
    let _operator = place.operator().start();
    let scopes = ["introspect", MY_MANAGE];
    place.apply("app", json!({"scopes": scopes, "audiences": [AUDIENCE], "expiry": {"after": "1d"}})).await;
    let pat = place.ready("app").await;
    let id = id(&place, "app").await;
    let api = ApiProcess::start(&place, &["--audience", AUDIENCE]).await;
    let verifier = VerifierProcess::start(&place.kubeconfig(), &[TOKENREVIEW]).await;
    let access = access_token(&api, &id, &pat).await;
    assert_eq!(api.call("GET", LISTS[2].0, &access, None).await.status, 200, "it is good where it belongs");

    for way in Way::ALL {
        let (let_in, answer) = way.asks(&verifier, &pat, &pat).await;
        assert!(let_in, "{way:?}: {answer}");
        let (let_in, answer) = way.asks(&verifier, &pat, &access).await;
        assert!(!let_in, "{way:?}: {answer}");
        assert!(!answer.contains(&id), "{way:?} tells nothing of whose it is: {answer}");
    }

    // It does not authenticate at the introspection endpoint either.
    let form = ("content-type", "application/x-www-form-urlencoded");
    for (secret, status) in [(&pat, 200), (&access, 401)] {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")));
        for authorization in [format!("Bearer {secret}"), basic] {
            let headers = [("authorization", authorization.as_str()), form];
            let reply = send(verifier.http, "POST", "/oauth2/introspect", &headers, format!("token={pat}")).await;
            let reply = reply.expect("an answer");
            assert_eq!((reply.status, reply.text.contains("\"active\":true")), (status, status == 200), "{reply:?}");
        }
    }
    let log = [verifier.process.terminate().await, api.process.terminate().await].map(|ended| ended.stderr.join("\n"));
    assert!(log.iter().all(|log| !log.contains(&access) && !log.contains(&pat)), "no token in the log");
}
