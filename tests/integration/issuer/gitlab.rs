//! GitLab's driver, with a server that refuses what GitLab refuses.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use pat_operator::{
    api::{GitLabAccessLevel, IssuerSystem, RemoteTarget, Time},
    issuer::{CallError, GitLabOwner, IssuerTarget, NewToken, ServerInfo},
};

use crate::support::vendor::{
    driver_with_token,
    gitlab::{ADMIN, GitLab, MAINTAINER, MAX_DAYS, READER},
    live, new_token,
};

const NAME: &str = "po-k3v9d2xa-0123456789abcdefghij";

fn target(owner: GitLabOwner, access_level: Option<GitLabAccessLevel>) -> IssuerTarget {
    IssuerTarget::GitLab { owner, access_level }
}

fn project() -> IssuerTarget {
    target(GitLabOwner::Project("group/app".to_owned()), Some(GitLabAccessLevel::Reporter))
}

#[tokio::test]
async fn tokens_of_all_owners_live_and_die() {
    let gitlab = GitLab::start().await;
    let driver = driver_with_token(IssuerSystem::GitLab, &gitlab.vendor.url, ADMIN);
    assert_eq!(driver.check().await, Ok(ServerInfo { version: Some("19.4.0-ee".to_owned()), account: None }));
    let by_number = target(GitLabOwner::Project("7".to_owned()), None);
    let group = target(GitLabOwner::Group("group".to_owned()), Some(GitLabAccessLevel::Owner));
    let user = target(GitLabOwner::User(42), None);
    for (number, target) in [project(), by_number, group, user].into_iter().enumerate() {
        let name = format!("{}{number}", &NAME[..NAME.len() - 1]);
        let created = driver.create(&target, &new_token(&name, &["read_repository"])).await.expect("a token");
        assert!(gitlab.accepts(created.token.expose()));
        let listed = live(&*driver, &target, &name).await.expect("it is in the list");
        assert_eq!((&listed.id, listed.expires_at), (&created.id, created.expires_at));
        assert!(created.expires_at.is_some(), "GitLab sets the maximum");
        driver.delete(&target, &created.id).await.expect("it is deleted");
        assert!(!gitlab.accepts(created.token.expose()));
        assert_eq!(live(&*driver, &target, &name).await, None);
        driver.delete(&target, &created.id).await.expect("that it is revoked is no error");
        driver.delete(&target, "99").await.expect("that it is unknown is no error");
    }
    let requests = gitlab.vendor.take_requests();
    assert!(requests.iter().all(|request| !request.path.iter().any(|part| part == "rotate")), "never in place");
    assert!(requests.iter().all(|request| request.headers["authorization"].to_str().unwrap().starts_with("Bearer ")));
}

#[tokio::test]
async fn an_expiry_is_a_whole_day_within_the_maximum() {
    let gitlab = GitLab::start().await;
    let driver = driver_with_token(IssuerSystem::GitLab, &gitlab.vendor.url, MAINTAINER);
    let (limits, now) = (IssuerSystem::GitLab.limits(&RemoteTarget::default()), Time::from(Timestamp::now()));
    let day = SignedDuration::from_hours(24);
    for (number, lifetime) in
        [SignedDuration::from_secs(1), day, day * 30, day * MAX_DAYS as i32, day * 4_000].into_iter().enumerate()
    {
        let expiry = limits.expiry(Some(now.plus(lifetime)), now).expect("tokens expire");
        assert!(limits.expiry(Some(expiry), now) == Some(expiry), "{lifetime:?}");
        let request = NewToken { expires_at: Some(expiry), ..new_token(&format!("po-{number}"), &["api"]) };
        let created = driver.create(&project(), &request).await.unwrap_or_else(|error| panic!("{lifetime:?}: {error}"));
        assert_eq!(created.expires_at, Some(expiry), "{lifetime:?}");
    }
    for (expiry, words) in [(now, "future"), (now.plus(day * (MAX_DAYS as i32 + 1)), "must be before")] {
        let request = NewToken { expires_at: Some(expiry), ..new_token("po-bad", &["api"]) };
        let error = driver.create(&project(), &request).await.unwrap_err();
        assert!(matches!(&error, CallError::Refused { status: 400, message } if message.contains(words)), "{error:?}");
        assert!(!error.is_outcome_unknown());
    }
}

#[tokio::test]
async fn refusals_say_why_and_that_nothing_was_created() {
    let gitlab = GitLab::start().await;
    let url = &*gitlab.vendor.url;
    let (admin, maintainer) =
        (driver_with_token(IssuerSystem::GitLab, url, ADMIN), driver_with_token(IssuerSystem::GitLab, url, MAINTAINER));
    let error = admin.create(&project(), &new_token(NAME, &["sudo"])).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Refused { status: 400, message } if message == "scopes does not have a valid value"),
        "{error:?}"
    );
    let error = admin.create(&project(), &new_token(NAME, &[])).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { status: 400, .. }), "{error:?}");
    let owner = target(GitLabOwner::Project("7".to_owned()), Some(GitLabAccessLevel::Owner));
    let error = maintainer.create(&owner, &new_token(NAME, &["api"])).await.unwrap_err();
    assert!(matches!(&error, CallError::Refused { message, .. } if message.contains("owner access")), "{error:?}");
    let nowhere = target(GitLabOwner::Group("elsewhere".to_owned()), None);
    let error = admin.create(&nowhere, &new_token(NAME, &["api"])).await.unwrap_err();
    assert!(matches!(error, CallError::NotFound { .. }), "{error:?}");
    assert!(matches!(admin.list(&nowhere).await, Err(CallError::NotFound { .. })));
    let user = target(GitLabOwner::User(42), None);
    let error = maintainer.create(&user, &new_token(NAME, &["api"])).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden { .. }), "only an administrator: {error:?}");
    assert!(matches!(maintainer.list(&user).await, Err(CallError::Unauthorized { .. })));
    gitlab.vendor.take_requests();
    let error = admin.create(&IssuerTarget::Account, &new_token(NAME, &["api"])).await.unwrap_err();
    assert!(matches!(error, CallError::Unsupported(_)), "{error:?}");
    // `self` is the credential of the issuer.
    assert!(matches!(admin.delete(&user, "self").await, Err(CallError::Unsupported(_))));
    assert_eq!(gitlab.vendor.take_requests().len(), 0, "nothing was sent");
}

#[tokio::test]
async fn a_check_finds_a_bad_or_weak_token() {
    let gitlab = GitLab::start().await;
    let check = async |token| driver_with_token(IssuerSystem::GitLab, &gitlab.vendor.url, token).check().await;
    assert!(matches!(check("glpat-unknown").await, Err(CallError::Unauthorized { .. })));
    let error = check(READER).await.unwrap_err();
    assert_eq!(
        (error.category(), error.to_string()),
        ("Forbidden", "the credential lacks a right: the token needs the scope api".to_owned())
    );
}

#[tokio::test]
async fn all_pages_are_read_from_the_same_host() {
    let gitlab = GitLab::start().await;
    let driver = driver_with_token(IssuerSystem::GitLab, &gitlab.vendor.url, ADMIN);
    gitlab.state.lock().unwrap().page = Some(2);
    let mut names = Vec::new();
    for number in 0..7 {
        names.push(format!("po-{number}"));
        driver.create(&project(), &new_token(&names[number], &["api"])).await.expect("a token");
    }
    gitlab.vendor.take_requests();
    let mut listed: Vec<_> = driver.list(&project()).await.expect("a list").into_iter().map(|one| one.name).collect();
    listed.sort();
    assert_eq!(listed, names);
    assert_eq!(gitlab.vendor.take_requests().len(), 4, "the link names another host, which gets no request");
}

#[tokio::test]
async fn a_rate_limit_stops_a_list_and_all_further_calls() {
    let gitlab = GitLab::start().await;
    let driver = driver_with_token(IssuerSystem::GitLab, &gitlab.vendor.url, ADMIN);
    gitlab.state.lock().unwrap().page = Some(1);
    for name in ["po-1", "po-2"] {
        driver.create(&project(), &new_token(name, &["api"])).await.expect("a token");
    }
    gitlab.state.lock().unwrap().left = Some(1);
    let error = driver.list(&project()).await.unwrap_err();
    assert_eq!(error, CallError::RateLimited { retry_after: Some(Duration::from_secs(30)) }, "half a list is none");
    gitlab.vendor.take_requests();
    let error = driver.create(&project(), &new_token(NAME, &["api"])).await.unwrap_err();
    assert!(matches!(error, CallError::OverBudget { .. }) && !error.is_outcome_unknown(), "{error:?}");
    assert_eq!(gitlab.vendor.take_requests().len(), 0, "nothing was sent");
}
