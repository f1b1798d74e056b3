//! SailPoint, TrueFoundry and Cryptlex: tokens that our own REST API issues, on a real control plane.

use k8s_openapi::jiff::SignedDuration;
use pat_operator::{
    api::{IssuerSystem, Owner, OwnerKind, Time},
    issuer::{CallError, Driver, IssuerCredential, IssuerTarget, NewToken, PlainToken},
};

use crate::support::{
    rest::{MY_MANAGE, Stage},
    vendor::{driver_with, driver_with_token, live, new_token},
};

const NAME: &str = "po-k3v9d2xa-0123456789abcdefghij";

/// In an hour, in whole milliseconds, which is as exact as SailPoint is.
fn in_an_hour() -> Time {
    Time::from(k8s_openapi::jiff::Timestamp::now()).floor_second().plus(SignedDuration::from_hours(1))
}

/// A token is created, found by its name, accepted, deleted, and no longer accepted. Returns what the system said of it.
async fn lives_and_dies(stage: &Stage, driver: &dyn Driver, request: &NewToken) -> pat_operator::issuer::CreatedToken {
    let target = IssuerTarget::Account;
    driver.check().await.expect("the credential is accepted");
    let created = driver.create(&target, request).await.expect("a token");
    assert_eq!(created.expires_at, request.expires_at);
    let listed = live(driver, &target, &request.name).await.expect("it is in the list");
    assert_eq!((&listed.id, listed.expires_at, listed.last_used_at), (&created.id, request.expires_at, None));
    stage.verifier.forwards(created.token.expose(), 200).await;
    driver.delete(&target, &created.id).await.expect("it is deleted");
    assert_eq!(live(driver, &target, &request.name).await, None);
    stage.verifier.forwards(created.token.expose(), 401).await;
    driver.delete(&target, &created.id).await.expect("that it is gone is no error");
    assert!(!format!("{created:?}").contains(created.token.expose()));
    created
}

#[tokio::test(flavor = "multi_thread")]
async fn cryptlex_issues_lists_and_deletes() {
    let stage = Stage::new("issuer-cryptlex", &[]).await;
    let url = format!("http://{}/cryptlex", stage.api.http);
    let vendor = |token: &str| driver_with_token(IssuerSystem::Cryptlex, &url, token);
    let token = stage.caller("vendor", "ada", &[MY_MANAGE, "license:read"]).await;
    let driver = vendor(&token);
    let request = NewToken { expires_at: Some(in_an_hour()), ..new_token(NAME, &["license:read"]) };
    lives_and_dies(&stage, &*driver, &request).await;

    driver.create(&IssuerTarget::Account, &new_token("po-twice", &["license:read"])).await.expect("a token");
    let error = driver.create(&IssuerTarget::Account, &new_token("po-twice", &["license:read"])).await.unwrap_err();
    assert!(matches!(error, CallError::Conflict { status: 409, .. }) && !error.is_outcome_unknown(), "{error:?}");
    let error = driver.create(&IssuerTarget::Account, &new_token("po-more", &["license:write"])).await.unwrap_err();
    assert!(matches!(&error, CallError::Forbidden { message } if message.contains("license:write")), "{error:?}");
    let past = NewToken { expires_at: Some(Time::from_micros(0)), ..new_token("po-past", &[]) };
    let error = driver.create(&IssuerTarget::Account, &past).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Refused { status: 400 | 422, message } if message.contains("expiresAt")),
        "{error:?}"
    );

    let reader = vendor(&stage.caller("reader", "ada", &["sp:my-personal-access-tokens:read"]).await);
    reader.check().await.expect("it may read");
    let error = reader.create(&IssuerTarget::Account, &new_token("po-reader", &[])).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden { .. }), "{error:?}");
    let unknown = token.replace('_', "_0");
    let error = vendor(&unknown[..token.len()]).check().await.unwrap_err();
    assert!(matches!(&error, CallError::Unauthorized { .. }), "{error:?}");
    assert!(!error.to_string().contains(&unknown[..20]), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn truefoundry_issues_lists_and_deletes() {
    let stage = Stage::new("issuer-tfy", &[]).await;
    let url = format!("http://{}", stage.api.http);
    let account = Owner { kind: OwnerKind::VirtualAccount, name: "ci".into() };
    let token = stage.caller_of("vendor", &account, &[MY_MANAGE, "repo:read"]).await;
    let driver = driver_with_token(IssuerSystem::TrueFoundry, &url, &token);
    let request = NewToken { expires_at: Some(in_an_hour()), ..new_token(NAME, &[]) };
    lives_and_dies(&stage, &*driver, &request).await;

    driver.create(&IssuerTarget::Account, &new_token("po-twice", &[])).await.expect("a token");
    let error = driver.create(&IssuerTarget::Account, &new_token("po-twice", &[])).await.unwrap_err();
    assert!(matches!(error, CallError::Conflict { status: 409, .. }), "{error:?}");
    let error = driver.create(&IssuerTarget::Account, &new_token("po-scoped", &["repo:read"])).await.unwrap_err();
    assert!(matches!(error, CallError::Unsupported(_)) && !error.is_outcome_unknown(), "{error:?}");
    // A personal access token of a user cannot create others.
    let user = driver_with_token(IssuerSystem::TrueFoundry, &url, &stage.caller("user", "ada", &[MY_MANAGE]).await);
    user.check().await.expect("it may read");
    let error = user.create(&IssuerTarget::Account, &new_token("po-user", &[])).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sailpoint_issues_lists_and_deletes() {
    let stage = Stage::new("issuer-sp", &[]).await;
    let url = format!("http://{}/sailpoint", stage.api.http);
    let token = stage.caller("vendor", "ada", &[MY_MANAGE, "repo:read"]).await;
    let pat = stage.place.pats().get("vendor").await.expect("a PAT");
    let id = pat.metadata.uid.expect("a uid").replace('-', "");
    let credential =
        |secret: &str| IssuerCredential::Client { id: id.clone(), secret: PlainToken::new(secret.to_owned()) };
    let driver = driver_with(IssuerSystem::SailPoint, &url, credential(&token));
    let request = NewToken { expires_at: Some(in_an_hour()), ..new_token(NAME, &["repo:read"]) };
    let first = lives_and_dies(&stage, &*driver, &request).await;
    assert_eq!(first.client_id.as_ref(), Some(&first.id));
    let server = driver.check().await.expect("the credential is accepted");
    assert!(server.account.is_some(), "the list names the owner");

    let second = driver.create(&IssuerTarget::Account, &new_token("po-twice", &["repo:read"])).await.expect("a token");
    assert_ne!(second.client_id, first.client_id, "each token has a client id of its own");
    assert!(second.expires_at.is_some(), "six months are the default");
    let (client, secret) = (second.client_id.expect("a client id"), second.token.expose());
    assert_eq!(stage.api.exchange(&client, secret).await.status, 200);
    let error = driver.create(&IssuerTarget::Account, &new_token("po-twice", &["repo:read"])).await.unwrap_err();
    assert!(matches!(&error, CallError::Refused { status: 400, message } if message.contains("name")), "{error:?}");
    let error = driver.create(&IssuerTarget::Account, &new_token("po-all", &[])).await.unwrap_err();
    assert!(matches!(error, CallError::Unsupported(_)), "no scopes would be all scopes: {error:?}");
    let error = driver_with(IssuerSystem::SailPoint, &url, credential(secret)).check().await.unwrap_err();
    assert!(matches!(error, CallError::Unauthorized { .. }), "{error:?}");
}
