//! Gitea: tokens that clone a private repository until they are deleted.

use std::collections::BTreeSet;

use control_plane::Binary;
use pat_operator::api::IssuerSystem;
use pat_operator::issuer::{CallError, Endpoint, IssuerCredential, IssuerTarget, PlainToken, ServerInfo, driver};

use crate::support::{
    is_left_out,
    vendor::{
        driver_with, endpoint,
        gitea::{ADMIN, Gitea, USER},
        live, new_token,
    },
};

const NAME: &str = "po-k3v9d2xa-0123456789abcdefghij";

const TARGET: IssuerTarget = IssuerTarget::Account;

#[tokio::test(flavor = "multi_thread")]
async fn gitea_accepts_a_token_until_it_is_deleted() {
    if is_left_out(Binary::Gitea) {
        return;
    }
    let gitea = Gitea::start(3).await;
    let driver = driver_with(IssuerSystem::Gitea, &gitea.url, Gitea::credential(USER));
    let version = Binary::Gitea.version().trim_start_matches('v').to_owned();
    assert_eq!(driver.check().await, Ok(ServerInfo { version: Some(version), account: Some(USER.into()) }));
    let created = driver.create(&TARGET, &new_token(NAME, &["read:repository"])).await.expect("a token");
    assert_eq!(created.expires_at, None);
    assert!(gitea.clones(created.token.expose()).await);
    let listed = live(&*driver, &TARGET, NAME).await.expect("it is in the list");
    assert_eq!(listed.id, created.id);

    let error = driver.create(&TARGET, &new_token(NAME, &["read:repository"])).await.unwrap_err();
    assert!(matches!(&error, CallError::Refused { status: 400, message } if message.contains("already")), "{error:?}");
    for scopes in [&[][..], &["read:everything"]] {
        let error = driver.create(&TARGET, &new_token("po-bad", scopes)).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Refused { status: 400, message } if message.contains("scope")),
            "{error:?}"
        );
    }
    driver.delete(&TARGET, &created.id).await.expect("it is deleted");
    assert!(!gitea.clones(created.token.expose()).await);
    assert_eq!(live(&*driver, &TARGET, NAME).await, None);
    driver.delete(&TARGET, &created.id).await.expect("that it is gone is no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_of_gitea_are_read() {
    if is_left_out(Binary::Gitea) {
        return;
    }
    let gitea = Gitea::start(3).await;
    let driver = driver_with(IssuerSystem::Gitea, &gitea.url, Gitea::credential(USER));
    // Some are created in the same second, so their order is not certain.
    let names: BTreeSet<_> = (0..10).map(|number| format!("po-{number}")).collect();
    for name in &names {
        driver.create(&TARGET, &new_token(name, &["read:user"])).await.expect("a token");
    }
    let listed: BTreeSet<_> = driver.list(&TARGET).await.expect("a list").into_iter().map(|token| token.name).collect();
    assert_eq!(listed, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn gitea_needs_the_password_of_the_account_or_of_an_administrator() {
    if is_left_out(Binary::Gitea) {
        return;
    }
    let gitea = Gitea::start(50).await;
    let of = |credential, account: &str| {
        let endpoint = Endpoint { account: Some(account.to_owned()), ..endpoint(&gitea.url, credential) };
        driver(IssuerSystem::Gitea, &endpoint).expect("a driver")
    };
    let admin = of(Gitea::credential(ADMIN), USER);
    let created = admin.create(&TARGET, &new_token(NAME, &["write:user", "write:repository"])).await.expect("a token");
    assert!(gitea.clones(created.token.expose()).await, "it is a token of the user");
    // In place of the password, a token of the scope write:user renews itself. It may also create one with all scopes.
    let with_token = |token: &PlainToken| IssuerCredential::Basic { user: USER.to_owned(), password: token.clone() };
    let renewing = of(with_token(&created.token), USER);
    let second = renewing.create(&TARGET, &new_token("po-2", &["read:repository"])).await.expect("a token");
    renewing.create(&TARGET, &new_token("po-3", &["all"])).await.expect("a token");
    renewing.delete(&TARGET, &created.id).await.expect("it deletes itself");
    assert!(matches!(renewing.check().await, Err(CallError::Unauthorized { .. })));
    let weak = of(with_token(&second.token), USER);
    assert!(matches!(weak.check().await, Err(CallError::Forbidden { .. })));
    let wrong =
        IssuerCredential::Basic { user: USER.to_owned(), password: PlainToken::new("wrong-password".to_owned()) };
    let error = of(wrong, USER).check().await.unwrap_err();
    assert!(matches!(&error, CallError::Unauthorized { message } if !message.contains("wrong-password")), "{error:?}");
    let other = of(Gitea::credential(USER), ADMIN);
    assert!(matches!(other.check().await, Err(CallError::Forbidden { .. })));
    assert!(matches!(of(Gitea::credential(ADMIN), "nobody").check().await, Err(CallError::NotFound { .. })));
    assert!(matches!(admin.delete(&TARGET, NAME).await, Err(CallError::Unsupported(_))), "an id is a number");
}
