//! SailPoint's log-in: access tokens are replaced, and an error of the log-in is none of the call that needs it.

use std::sync::{Arc, Mutex};

use pat_operator::api::IssuerSystem;
use pat_operator::issuer::{CallError, Driver, IssuerCredential, IssuerTarget, PlainToken};
use serde_json::{Value, json};

use crate::support::vendor::{Vendor, VendorRequest, VendorResponse, driver_with, new_token};

/// The number of the only access token that is accepted, and the answer to a log-in, if it is another one.
type Server = Arc<Mutex<(u32, Option<VendorResponse>)>>;

fn answer(server: &Server, request: &VendorRequest) -> VendorResponse {
    let (accepted, failure) = &*server.lock().unwrap();
    if request.path == ["oauth", "token"] {
        assert_eq!(request.body, json!("grant_type=client_credentials&client_id=id&client_secret=s%2Bcret"));
        let token = json!({"access_token": format!("access-{accepted}"), "token_type": "bearer", "expires_in": 43_199});
        return failure.clone().unwrap_or((200, vec![], token));
    }
    if request.headers["authorization"] != format!("Bearer access-{accepted}") {
        return (401, vec![], json!({"error": format!("access-{accepted} is not what you sent")}));
    }
    match request.method.as_str() {
        "POST" => (
            200,
            vec![],
            json!({"id": "client", "secret": "new", "name": request.body["name"], "expirationDate": null}),
        ),
        _ => (200, vec![], json!([])),
    }
}

async fn start() -> (Server, Vendor, Arc<dyn Driver>) {
    let server: Server = Arc::new(Mutex::new((1, None)));
    let shared = server.clone();
    let vendor = Vendor::start(move |request| answer(&shared, request)).await;
    let credential = IssuerCredential::Client { id: "id".to_owned(), secret: PlainToken::new("s+cret".to_owned()) };
    let driver = driver_with(IssuerSystem::SailPoint, &vendor.url, credential);
    (server, vendor, driver)
}

fn sent(vendor: &Vendor) -> Vec<String> {
    let shown = |request: &VendorRequest| format!("{} {}", request.method, request.path.join("/"));
    vendor.take_requests().iter().map(shown).collect()
}

#[tokio::test]
async fn an_access_token_is_used_until_it_is_refused_and_then_replaced_once() {
    let (server, vendor, driver) = start().await;
    let (log_in, create) = ("POST oauth/token", "POST v2025/personal-access-tokens");
    driver.check().await.expect("it is accepted");
    driver.create(&IssuerTarget::Account, &new_token("po-1", &["x"])).await.expect("a token");
    assert_eq!(sent(&vendor), [log_in, "GET v2025/personal-access-tokens", create]);
    server.lock().unwrap().0 = 2;
    driver.create(&IssuerTarget::Account, &new_token("po-2", &["x"])).await.expect("a token");
    assert_eq!(sent(&vendor), [create, log_in, create]);
    // A log-in that returns what is refused does not go on for ever.
    server.lock().unwrap().0 = 3;
    server.lock().unwrap().1 = Some((200, vec![], json!({"access_token": "access-2", "expires_in": 60})));
    let error = driver.create(&IssuerTarget::Account, &new_token("po-3", &["x"])).await.unwrap_err();
    assert!(matches!(error, CallError::Unauthorized { .. }), "{error:?}");
    assert_eq!(sent(&vendor), [create, log_in, create]);
}

#[tokio::test]
async fn a_failed_log_in_creates_nothing() {
    let (server, vendor, driver) = start().await;
    let message = || json!({"error": "invalid_client", "error_description": "client s+cret is wrong"});
    for (failure, category) in [
        ((400, vec![], message()), "Unauthorized"),
        ((401, vec![], message()), "Unauthorized"),
        ((403, vec![], message()), "Forbidden"),
        ((500, vec![], message()), "Unreachable"),
        ((302, vec![], Value::Null), "Unreachable"),
        ((200, vec![], json!({"token": "s+cret"})), "Unreachable"),
        ((429, vec![("retry-after", "7".to_owned())], message()), "RateLimited"),
    ] {
        server.lock().unwrap().1 = Some(failure.clone());
        let error = driver.create(&IssuerTarget::Account, &new_token("po-1", &["x"])).await.unwrap_err();
        assert_eq!((error.category(), error.is_outcome_unknown()), (category, false), "{failure:?}: {error}");
        assert!(!error.to_string().contains("s+cret"), "{error}");
        assert_eq!(sent(&vendor), ["POST oauth/token"]);
    }
}
