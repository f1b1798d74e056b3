//! Virtual accounts of TrueFoundry, with a server of the test: our own REST API does not create them.

use std::sync::{Arc, Mutex};

use k8s_openapi::jiff::SignedDuration;
use pat_operator::{
    api::{IssuerSystem, Permission, RemoteTarget, Time, TrueFoundryTarget, TrueFoundryTokenType},
    issuer::{CallError, IssuerTarget, NewToken},
};
use serde_json::{Value, json};

use crate::support::vendor::{Vendor, VendorRequest, VendorResponse, driver_with_token, live, new_token};

const NAME: &str = "po-k3v9d2xa-0123456789abcdefghij";

/// As `VirtualAccount` in PyPI's `truefoundry-sdk` 0.6.0.
fn answer(accounts: &mut Vec<Value>, request: &VendorRequest) -> VendorResponse {
    let path: Vec<_> = request.path.iter().map(String::as_str).collect();
    match (request.method.as_str(), &path[..]) {
        ("PUT", ["api", "svc", "v1", "virtual-accounts"]) => {
            let manifest = request.body["manifest"].clone();
            let id = format!("va-{}", manifest["name"].as_str().expect("a name"));
            let account = json!({
                "id": id, "type": "virtual-account", "tenantName": "acme", "accountId": "acme", "manifest": manifest,
                "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z", "isExpired": false,
            });
            accounts.push(account.clone());
            (200, vec![], json!({"data": account}))
        }
        ("GET", ["api", "svc", "v1", "virtual-accounts"]) => {
            (200, vec![], json!({"data": accounts, "pagination": {"total": accounts.len(), "offset": 0, "limit": 100}}))
        }
        ("GET", ["api", "svc", "v1", "virtual-accounts", id, "token"]) if id.contains("broken") => {
            (403, vec![], json!({"statusCode": 403, "message": "no right to read tokens"}))
        }
        ("GET", ["api", "svc", "v1", "virtual-accounts", id, "token"]) => {
            (200, vec![], json!({"token": format!("tfy_{id}")}))
        }
        ("DELETE", ["api", "svc", "v1", "virtual-accounts", id]) => {
            let known = accounts.len();
            accounts.retain(|account| account["id"] != *id);
            if accounts.len() < known {
                (200, vec![], json!({}))
            } else {
                (404, vec![], json!({"statusCode": 404, "message": "not found"}))
            }
        }
        _ => (404, vec![], json!({"statusCode": 404, "message": "no such path"})),
    }
}

#[tokio::test]
async fn each_token_has_a_virtual_account_of_its_own() {
    let accounts = Arc::<Mutex<Vec<Value>>>::default();
    let shared = accounts.clone();
    let vendor = Vendor::start(move |request| answer(&mut shared.lock().unwrap(), request)).await;
    let driver = driver_with_token(IssuerSystem::TrueFoundry, &vendor.url, "tfy_admin");
    let target = IssuerTarget::TrueFoundryVirtualAccount;
    let now: Time = "2030-01-01T12:00:00Z".parse().unwrap();
    let for_account = TrueFoundryTarget { type_: TrueFoundryTokenType::VirtualAccount };
    let for_account = RemoteTarget { true_foundry: Some(for_account), ..RemoteTarget::default() };
    let wanted = now.plus(SignedDuration::from_hours(1));
    let expiry = IssuerSystem::TrueFoundry.limits(&for_account).expiry(Some(wanted), now);
    let permission = Permission {
        resource_fqn: "acme:model".to_owned(),
        resource_type: "model".to_owned(),
        role_id: "model-user".to_owned(),
    };
    let request = NewToken { permissions: vec![permission], expires_at: expiry, ..new_token(NAME, &[]) };
    let created = driver.create(&target, &request).await.expect("a token");
    assert_eq!(created.token.expose(), format!("tfy_va-{NAME}"));
    assert_eq!(created.expires_at.map(|end| end.to_string()).as_deref(), Some("2030-01-02T00:00:00Z"));
    let manifest = json!({
        "name": NAME, "type": "virtual-account", "expiration_date": "2030-01-02",
        "permissions": [{"resource_fqn": "acme:model", "resource_type": "model", "role_id": "model-user"}],
    });
    assert_eq!(accounts.lock().unwrap()[0]["manifest"], manifest);
    assert_eq!(live(&*driver, &target, NAME).await.expect("it is in the list").id, created.id);
    driver.delete(&target, &created.id).await.expect("it is deleted");
    driver.delete(&target, &created.id).await.expect("that it is gone is no error");
    assert_eq!(driver.list(&target).await, Ok(vec![]));

    let error = driver.create(&target, &new_token("po-broken", &[])).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "the account exists: {error:?}");
    assert_eq!(accounts.lock().unwrap().len(), 1);
    let error = driver.create(&target, &new_token("po-scoped", &["x"])).await.unwrap_err();
    assert!(matches!(error, CallError::Unsupported(_)), "{error:?}");
}
