//! Tokens that a controller gets from SailPoint, TrueFoundry and Cryptlex: the clients of the vendors list them and use them. The server is our
//! own REST API, in another namespace.

use pat_operator::api::{Owner, OwnerKind};
use serde_json::{Value, json};

use crate::support::{
    clients,
    remote_stage::RemoteStage,
    rest::{MY_MANAGE, Stage},
};

const MY_READ: &str = "sp:my-personal-access-tokens:read";

/// A token that the controller got, and what the status says of it.
struct Issued {
    token: String,
    name: String,
    id: String,
}

/// Has the controller get a token with these scopes from a system.
async fn issue(scene: &RemoteStage, system: &str, url: &str, credential: Value, scopes: &[&str]) -> Issued {
    scene.add_system(system, url, credential).await;
    let issuer = json!({"kind": "TokenIssuer", "name": system.to_ascii_lowercase()});
    let spec = json!({"issuerRef": issuer, "scopes": scopes, "rotation": {"interval": "30d"}});
    scene.stage.apply("app", spec).await;
    scene.settle("app").await;
    assert_eq!(scene.stage.ready("app").await, ("True".into(), "Issued".into()));
    let facts = scene.stage.status("app").await.remote_credentials.remove(0).remote.expect("the token of an issuer");
    let token = scene.stage.value("app", "token").await;
    Issued { token, name: facts.name.clone(), id: facts.id.clone().expect("an ID") }
}

/// Deletes the object. After that, the vendor no longer accepts the token.
async fn delete(scene: &RemoteStage, vendor: &Stage, issued: &Issued) {
    scene.stage.pats().delete("app", &Default::default()).await.expect("it is being deleted");
    scene.settle("app").await;
    vendor.verifier.forwards(&issued.token, 401).await;
}

/// Runs a call with a client. Returns `None` if the client is not available.
async fn run(client: &str, connection: Value, call: Value) -> Option<Value> {
    let mut asked = connection;
    asked["calls"] = json!([call]);
    let mut answers = clients::run(&format!("{client}/call.py"), &asked).await?;
    Some(answers[0].take())
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|token| token["name"].as_str().expect("a name")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn cryptlex_client_lists_and_uses_a_token_of_the_controller() {
    let (vendor, scene) = (Stage::new("vendor-cryptlex", &[]).await, RemoteStage::new("at-cryptlex").await);
    let caller = vendor.caller("vendor", "ada", &[MY_MANAGE, MY_READ]).await;
    let url = format!("http://{}/cryptlex", vendor.api.http);
    let issued = issue(&scene, "cryptlex", &url, json!({"token": caller}), &[MY_READ]).await;
    for token in [&caller, &issued.token] {
        let list = json!({"call": "list", "arguments": {}});
        let Some(answer) = run("cryptlex", json!({"url": url, "token": token}), list).await else { return };
        assert_eq!(answer["status"], 200, "{answer}");
        assert!(names(&answer["parsed"]).contains(&&*issued.name), "{answer}");
    }
    delete(&scene, &vendor, &issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sailpoint_client_lists_and_uses_a_token_of_the_controller() {
    let (vendor, scene) = (Stage::new("vendor-sp", &[]).await, RemoteStage::new("at-sailpoint").await);
    let caller = vendor.caller("vendor", "ada", &[MY_MANAGE, MY_READ]).await;
    let pat = vendor.place.pats().get("vendor").await.expect("a PAT");
    let id = pat.metadata.uid.expect("a uid").replace('-', "");
    let url = format!("http://{}/sailpoint", vendor.api.http);
    let credential = json!({"clientID": id, "clientSecret": caller});
    let issued = issue(&scene, "sailPoint", &url, credential, &[MY_READ]).await;
    for (id, secret) in [(&id, &caller), (&issued.id, &issued.token)] {
        let list = json!({"call": "list", "arguments": {"owner_id": "me"}});
        let connection = json!({"url": url, "id": id, "secret": secret, "version": null});
        let Some(answer) = run("sailpoint", connection, list).await else { return };
        assert_eq!(answer["status"], 200, "{answer}");
        assert!(names(&answer["parsed"]).contains(&&*issued.name), "{answer}");
    }
    delete(&scene, &vendor, &issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truefoundry_client_lists_and_uses_a_token_of_the_controller() {
    let (vendor, scene) = (Stage::new("vendor-tfy", &[]).await, RemoteStage::new("at-truefoundry").await);
    let account = Owner { kind: OwnerKind::VirtualAccount, name: "ci".into() };
    let caller = vendor.caller_of("vendor", &account, &[MY_MANAGE, MY_READ]).await;
    let url = format!("http://{}", vendor.api.http);
    let issued = issue(&scene, "trueFoundry", &url, json!({"token": caller}), &[]).await;
    // TrueFoundry's tokens have no scopes. Our API knows the token, but gives it no right to list others.
    for (token, status) in [(&caller, 200), (&issued.token, 403)] {
        let list = json!({"call": "page", "arguments": {}});
        let Some(answer) = run("truefoundry", json!({"url": url, "token": token}), list).await else { return };
        assert_eq!(answer["status"], status, "{answer}");
        assert!(status != 200 || names(&answer["read"]["data"]).contains(&&*issued.name), "{answer}");
    }
    vendor.verifier.forwards(&issued.token, 200).await;
    delete(&scene, &vendor, &issued).await;
}
