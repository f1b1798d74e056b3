//! Argo CD's driver, with a server that answers as Argo CD's API server.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use pat_operator::{
    api::{IssuerSystem, Time},
    issuer::{CallError, IssuerTarget, NewToken, ServerInfo},
};

use crate::support::vendor::{
    argocd::{ArgoCd, CALLER, NOBODY},
    driver_with_token, live, new_token,
};

const NAME: &str = "po-k3v9d2xa-0123456789abcdefghij";

fn account(name: &str) -> IssuerTarget {
    IssuerTarget::ArgoCdAccount { account: name.to_owned() }
}

fn role(name: &str) -> IssuerTarget {
    IssuerTarget::ArgoCdRole { project: "shop".to_owned(), role: name.to_owned() }
}

#[tokio::test]
async fn tokens_of_accounts_and_roles_live_and_die() {
    let argocd = ArgoCd::start().await;
    let driver = driver_with_token(IssuerSystem::ArgoCd, &argocd.vendor.url, CALLER);
    assert_eq!(driver.check().await, Ok(ServerInfo { version: Some("v3.4.5+ce9b63e".to_owned()), account: None }));
    let expiry = Time::from(Timestamp::now()).floor_second().plus(SignedDuration::from_hours(1));
    for (target, key) in [(account("ci"), "account:ci"), (role("deploy"), "role:deploy")] {
        assert_eq!(driver.list(&target).await, Ok(vec![]));
        let request = NewToken { expires_at: Some(expiry), ..new_token(NAME, &[]) };
        let created = driver.create(&target, &request).await.expect("a token");
        assert_eq!((&*created.id, created.expires_at), (NAME, Some(expiry)));
        let listed = live(&*driver, &target, NAME).await.expect("it is in the list");
        let difference = expiry.since(listed.expires_at.expect("an expiry")).as_secs();
        assert!((0..=1).contains(&difference), "never past what was wanted: {difference} s");
        let never = driver.create(&target, &new_token("po-never", &[])).await.expect("a token");
        assert_eq!(live(&*driver, &target, "po-never").await.expect("it is in the list").expires_at, None);
        driver.delete(&target, NAME).await.expect("it is deleted");
        assert_eq!(argocd.ids(key), ["po-never"]);
        driver.delete(&target, NAME).await.expect("that it is gone is no error");
        assert_eq!(argocd.ids(key), [never.id]);
    }
}

#[tokio::test]
async fn a_token_of_a_role_is_deleted_by_its_id_alone() {
    let argocd = ArgoCd::start().await;
    let driver = driver_with_token(IssuerSystem::ArgoCd, &argocd.vendor.url, CALLER);
    driver.create(&role("deploy"), &new_token(NAME, &[])).await.expect("a token");
    argocd.add_to_role("of-another", argocd.issued_at());
    // Old versions have no ids.
    argocd.add_to_role("", argocd.issued_at());
    driver.delete(&role("deploy"), NAME).await.expect("it is deleted");
    driver.delete(&role("deploy"), NAME).await.expect("that it is gone is no error");
    assert_eq!(argocd.ids("role:deploy"), ["of-another", ""]);
    let listed = driver.list(&role("deploy")).await.expect("a list");
    assert_eq!(listed.iter().map(|token| &*token.name).collect::<Vec<_>>(), ["of-another"]);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let argocd = ArgoCd::start().await;
    let url = &*argocd.vendor.url;
    let driver = driver_with_token(IssuerSystem::ArgoCd, url, CALLER);
    driver.create(&account("ci"), &new_token(NAME, &[])).await.expect("a token");
    let create = async |target: IssuerTarget, request| driver.create(&target, &request).await.unwrap_err();
    let error = create(account("ci"), new_token(NAME, &[])).await;
    assert!(matches!(&error, CallError::Unavailable { message, .. } if message.contains("already has")), "{error:?}");
    assert!(error.is_outcome_unknown(), "Argo CD answers 500");
    let error = create(role("other"), new_token(NAME, &[])).await;
    assert!(matches!(error, CallError::NotFound { .. }), "{error:?}");
    let error = create(account("human"), new_token(NAME, &[])).await;
    assert!(matches!(&error, CallError::Unavailable { message, .. } if message.contains("apiKey")), "{error:?}");
    argocd.vendor.take_requests();
    let past = NewToken { expires_at: Some(Time::from_micros(0)), ..new_token(NAME, &[]) };
    for (target, request) in [
        (account("ci"), new_token(NAME, &["admin"])),
        (account("ci"), past),
        (IssuerTarget::Account, new_token(NAME, &[])),
        (account(".."), new_token(NAME, &[])),
    ] {
        let error = create(target, request).await;
        assert!(matches!(error, CallError::Unsupported(_)), "{error:?}");
    }
    assert_eq!(argocd.vendor.take_requests().len(), 0, "nothing was sent; an expiry of 0 seconds would be none");

    let nobody = driver_with_token(IssuerSystem::ArgoCd, url, NOBODY);
    nobody.check().await.expect("it is known");
    assert!(matches!(nobody.list(&account("ci")).await, Err(CallError::Forbidden { .. })));
    let stranger = driver_with_token(IssuerSystem::ArgoCd, url, "argocd-unknown");
    assert!(matches!(stranger.check().await, Err(CallError::Unauthorized { .. })), "Argo CD answers 200");
}
