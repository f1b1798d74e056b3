//! Creation and deletion of tokens.

use futures::future::join_all;
use k8s_openapi::jiff::SignedDuration;
use pat_operator::{
    api::{Expiry, Time},
    rest::{
        error::{Conflict, RestError},
        model::{ChangeToken, CreateToken},
        query::{OwnerSelector, TokenQuery},
    },
};

use super::in_process::{InProcessApi, ada, mint_caller, mint_caller_and_stop, new_token, remaining};
use crate::support::{
    faults::{Fault, Faults},
    process::place::{Place, eventually, is_ready},
};

fn taken(name: &str) -> RestError {
    RestError::Conflict(Conflict::NameTaken(name.into()))
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_delivered_once_and_works_at_once_until_deleted() {
    let place = Place::new("rest-create").await;
    let _operator = place.operator().start();
    mint_caller(&place).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let caller = api.caller(&place).await;
    let mut wanted = new_token("Laptop of Ada");
    wanted.description = Some("For the laptop".into());
    wanted.access_token_validity = Some(SignedDuration::from_mins(5));
    wanted.token_prefix = Some("tfy".parse().unwrap());
    let created = api.service.create(&caller, wanted).await.expect("a token");
    assert!(api.accepts(&created.token).await);
    assert_eq!(created.token.prefix(), "tfy");
    let item = &created.item;
    assert_eq!((&*item.display_name, item.description.as_deref()), ("Laptop of Ada", Some("For the laptop")));
    assert_eq!((&item.owner, &item.scopes, item.once), (&ada(), &vec!["repo:read".to_owned()], true));
    assert_eq!((item.secret_name.clone(), item.access_token_validity), (None, Some(SignedDuration::from_mins(5))));
    assert!(item.name.starts_with("laptop-of-ada-"), "{}", item.name);

    let page = api.service.list(&TokenQuery { owner: OwnerSelector::Owner(ada()), ..TokenQuery::default() });
    let others = page.items.iter().map(|one| one.id).filter(|id| *id != caller.id);
    assert_eq!(others.collect::<Vec<_>>(), [item.id]);
    // The Secret is deleted and not created again.
    let status = place.until(&item.name, "ready", is_ready).await;
    assert_eq!(status.credentials.len(), 1);
    assert_eq!(remaining(&place).await, (vec![item.name.clone()], vec![]));
    let pat = place.pats().get(&item.name).await.unwrap();
    assert!(!format!("{pat:?}").contains(created.token.expose()));

    api.service.delete(&caller, item, |_, _| Ok(())).await.expect("it is deleted");
    assert!(api.service.item(item.id).is_none() && !api.accepts(&created.token).await);
    assert_eq!(api.service.delete(&caller, item, |_, _| Ok(())).await, Err(RestError::NotFound));
    assert_eq!(remaining(&place).await, (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_concurrent_requests_gets_a_name_and_a_former_name_is_free() {
    let place = Place::new("rest-names").await;
    let _operator = place.operator().start();
    mint_caller(&place).await;
    let [one, other] =
        [InProcessApi::new(&place, place.client.clone()).await, InProcessApi::new(&place, place.client.clone()).await];
    let caller = one.caller(&place).await;
    other.caller(&place).await;
    let ask = |number: usize| {
        let service = if number.is_multiple_of(2) { &one.service } else { &other.service };
        service.create(&caller, new_token("Same"))
    };
    let made: Vec<_> = join_all((0..8).map(ask)).await;
    let won: Vec<_> = made.iter().filter_map(|made| made.as_ref().ok()).collect();
    assert_eq!(won.len(), 1, "{made:?}");
    assert!(made.iter().filter_map(|made| made.as_ref().err()).all(|failure| *failure == taken("Same")), "{made:?}");
    assert_eq!(remaining(&place).await.0.len(), 1);
    // Another owner may use the name.
    let mut of_bob = new_token("Same");
    of_bob.owner.name = "bob@example.com".into();
    one.service.create(&caller, of_bob).await.expect("another owner's");

    let change = ChangeToken { display_name: Some("Renamed".into()), ..ChangeToken::default() };
    let renamed = one.service.change(&caller, &won[0].item, change).await.expect("a free name");
    assert_eq!((&*renamed.display_name, &renamed.name), ("Renamed", &won[0].item.name));
    assert_eq!(one.service.create(&caller, new_token("Renamed")).await.unwrap_err(), taken("Renamed"));
    let again = one.service.create(&caller, new_token("Same")).await.expect("its former name is free");
    assert_ne!(again.item.name, renamed.name);
    let back = ChangeToken { display_name: Some("Same".into()), ..ChangeToken::default() };
    assert_eq!(one.service.change(&caller, &renamed, back).await.unwrap_err(), taken("Same"));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_request_names_its_field_and_creates_nothing() {
    let place = Place::new("rest-refused").await;
    mint_caller_and_stop(&place).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let (service, caller) = (&api.service, api.caller(&place).await);
    let refusal = async |change: &dyn Fn(&mut CreateToken)| {
        let mut order = new_token("Wrong");
        change(&mut order);
        service.create(&caller, order).await.unwrap_err()
    };
    let lacking = refusal(&|order| order.scopes.push("admin".into())).await;
    assert_eq!(lacking, RestError::Forbidden("your token lacks the scope admin".into()));
    let past: Time = "2020-01-01T00:00:00Z".parse().unwrap();
    type Spoil<'a> = &'a dyn Fn(&mut CreateToken);
    let cases: [(&str, Spoil<'_>); 7] = [
        ("spec.expiry.at", &|order| order.expiry = Expiry { at: Some(past), ..Expiry::default() }),
        ("spec.displayName", &|order| order.display_name = String::new()),
        ("spec.displayName", &|order| order.display_name = "x".repeat(129)),
        ("spec.owner.name", &|order| order.owner.name = "va:somebody".into()),
        ("spec.owner.name", &|order| order.owner.name = "with a space".into()),
        ("spec.accessTokenValidity", &|order| order.access_token_validity = Some(SignedDuration::from_secs(1))),
        ("spec.description", &|order| order.description = Some("x".repeat(1_025))),
    ];
    for (field, change) in cases {
        let RestError::Invalid { field: named, problem } = refusal(change).await else { panic!("{field}") };
        assert!(named.starts_with(field) && !problem.is_empty(), "{field}: {named}: {problem}");
    }
    assert_eq!(remaining(&place).await, (vec![], vec![]));

    let reader = InProcessApi::with(&place, place.client.clone(), true).await;
    assert_eq!(reader.service.create(&caller, new_token("Any")).await.unwrap_err(), RestError::ReadOnly);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_controller_create_is_unavailable_and_leaves_nothing() {
    let place = Place::new("rest-alone").await;
    mint_caller_and_stop(&place).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let failure = api.service.create(&api.caller(&place).await, new_token("Never minted")).await.unwrap_err();
    assert!(matches!(failure, RestError::Unavailable { .. }), "{failure}");
    assert_eq!(remaining(&place).await, (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_create_leaves_nothing() {
    let place = Place::new("rest-gone").await;
    mint_caller_and_stop(&place).await;
    let faults = Faults::none(&place.client);
    let api = InProcessApi::new(&place, faults.client()).await;
    let caller = api.caller(&place).await;
    let taken_back = async |what: &str| {
        eventually(&format!("it is taken back {what}"), async || remaining(&place).await == (vec![], vec![])).await;
    };
    // First before the token is minted.
    let goes_away = async |name: &str, sent: usize| {
        let (service, caller, order) = (api.service.clone(), caller.clone(), new_token(name));
        let before = faults.sent().len();
        let asking = tokio::spawn(async move { service.create(&caller, order).await });
        eventually("so many requests are sent", async || faults.sent().len() >= before + sent || asking.is_finished())
            .await;
        asking.abort();
        asking.await
    };
    assert!(goes_away("unminted", 1).await.is_err_and(|error| error.is_cancelled()));
    taken_back("before the mint").await;
    // Then around the mint, which takes milliseconds. A token that is delivered nevertheless is deleted.
    let _operator = place.operator().start();
    let mut cancelled = 0;
    for round in 0..20 {
        match goes_away(&format!("round {round}"), 1 + round % 3).await {
            Err(_) => cancelled += 1,
            Ok(made) => {
                let made = made.expect("a token");
                api.service.delete(&caller, &made.item, |_, _| Ok(())).await.expect("it is deleted");
            }
        }
        taken_back("after the mint").await;
    }
    assert!(cancelled >= 5, "only {cancelled} went away in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_reported_and_a_missing_permission_is_not() {
    let place = Place::new("rest-rules").await;
    mint_caller_and_stop(&place).await;
    let faults = Faults::at(&place.client, 0, Fault::TooMany);
    let api = InProcessApi::new(&place, faults.client()).await;
    let caller = api.caller(&place).await;
    let busy = api.service.create(&caller, new_token("Busy")).await.unwrap_err();
    assert!(matches!(busy, RestError::Unavailable { .. }), "{busy}");
    let nobody = control_plane::Identity::service_account(place.name(), "nobody");
    let client = place.access.client_for(&nobody).expect("a client");
    let unable = InProcessApi::new(&place, client).await;
    unable.caller(&place).await;
    assert_eq!(unable.service.create(&caller, new_token("Any")).await.unwrap_err(), RestError::Internal);
}
