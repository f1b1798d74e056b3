//! Queries: pages are stable and complete, and fast with a hundred thousand tokens.

use std::{
    cmp::Ordering,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use serde_json::json;

use super::super::{
    fixture::{RestFixture, at},
    model::TokenItem,
    query::{Comparison, Operand, OwnerSelector, SortKey, TokenField, TokenFilter, TokenQuery, TokenRow},
    store::TokenStore,
};
use crate::{
    api::{Owner, OwnerKind, StoredPat, Time},
    index::PatUid,
};

/// Few different values produce ties.
fn item(uid: u32, created: u8, name: u8, used: Option<u8>) -> TokenItem {
    item_that_ends(uid, created, name, used, None)
}

fn item_that_ends(uid: u32, created: u8, name: u8, used: Option<u8>, end: Option<u8>) -> TokenItem {
    let time = |second: u8| format!("2026-01-01T00:00:{:02}Z", second % 60);
    let stored: StoredPat = serde_json::from_value(json!({
        "metadata": {
            "namespace": "team", "name": format!("pat-{uid}"), "uid": PatUid::from(u128::from(uid)).hyphenated(),
            "creationTimestamp": time(created),
        },
        "spec": {
            "displayName": format!("Name {name}"), "owner": {"kind": "User", "name": if name.is_multiple_of(2) { "ada" } else { "bob" }},
            "managed": name.is_multiple_of(3), "expiry": end.map(|end| json!({"at": time(end)})),
        },
        "status": {"lastUsedAt": used.map(time), "expiresAt": end.map(time)},
    }))
    .unwrap();
    TokenItem::read(&stored).unwrap()
}

fn ada() -> Owner {
    Owner { kind: OwnerKind::User, name: "ada".into() }
}

fn items() -> impl Strategy<Value = Vec<TokenItem>> {
    let parts = (0_u8..4, 0_u8..6, prop::option::of(0_u8..4), prop::option::of(0_u8..4));
    prop::collection::vec(parts, 0..60).prop_map(|parts| {
        let uids = (1..).map(|uid| uid * 7919 % 1009);
        uids.zip(parts).map(|(uid, (created, name, used, end))| item_that_ends(uid, created, name, used, end)).collect()
    })
}

fn sorts() -> impl Strategy<Value = Vec<SortKey>> {
    let by = prop::sample::select(vec![
        TokenField::Id,
        TokenField::Name,
        TokenField::CreatedAt,
        TokenField::UpdatedAt,
        TokenField::LastUsedAt,
        TokenField::ExpiresAt,
        TokenField::LastRotatedAt,
        TokenField::Revoked,
        TokenField::Scopes,
        TokenField::Owner,
    ]);
    prop::collection::vec((by, any::<bool>()).prop_map(|(by, descending)| SortKey { by, descending }), 0..3)
}

fn filters() -> impl Strategy<Value = TokenFilter> {
    let field = prop::sample::select(vec![TokenField::CreatedAt, TokenField::LastUsedAt, TokenField::ExpiresAt]);
    let moment = |second: u8| Operand::Time(at(&format!("2026-01-01T00:00:0{second}Z")));
    let of_times = (0_usize..8, 0_u8..4, 0_u8..4).prop_map(move |(which, one, other)| match which {
        0 => Comparison::Eq(moment(one)),
        1 => Comparison::Ne(moment(one)),
        2 => Comparison::Lt(moment(one)),
        3 => Comparison::Le(moment(one)),
        4 => Comparison::Gt(moment(one)),
        5 => Comparison::Ge(moment(one)),
        6 => Comparison::In(vec![moment(one), moment(other)]),
        _ => Comparison::NotIn(vec![moment(one), moment(other)]),
    });
    let part = prop::sample::select(vec!["name", " 1", "NAME 2", "E 3", "5", ""]).prop_map(str::to_owned);
    let of_names = (0_usize..4, part).prop_map(|(which, part)| match which {
        0 => Comparison::StartsWith(part),
        1 => Comparison::EndsWith(part),
        2 => Comparison::Contains(part),
        _ => Comparison::NotContains(part),
    });
    let test = prop_oneof![
        1 => field.clone().prop_map(|field| TokenFilter::Compare(field, Comparison::IsNull)),
        4 => (field, of_times).prop_map(|(field, test)| TokenFilter::Compare(field, test)),
        2 => of_names.prop_map(|test| TokenFilter::Compare(TokenField::Name, test)),
    ];
    test.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(TokenFilter::All),
            prop::collection::vec(inner.clone(), 0..3).prop_map(TokenFilter::Any),
            inner.prop_map(|filter| TokenFilter::Not(Box::new(filter))),
        ]
    })
}

fn queries() -> impl Strategy<Value = TokenQuery> {
    let owner =
        prop::sample::select(vec![OwnerSelector::All, OwnerSelector::Owner(ada()), OwnerSelector::Managed(ada())]);
    let search = prop::sample::select(vec![None, Some(String::new()), Some("NAME 1".to_owned()), Some("x".to_owned())]);
    (owner, prop::option::of(filters()), search, sorts()).prop_map(|(owner, filter, search, sort)| TokenQuery {
        owner,
        filter,
        search,
        sort,
        ..TokenQuery::default()
    })
}

/// A simple implementation of queries, with which the fast one is compared.
mod reference {
    use super::*;

    pub(super) fn list(items: &[TokenItem], query: &TokenQuery) -> Vec<PatUid> {
        let mut wanted: Vec<&TokenItem> = items.iter().filter(|item| wants(query, item)).collect();
        wanted.sort_by_key(|item| item.id.to_string());
        let by_creation = [SortKey { by: TokenField::CreatedAt, descending: false }];
        let sort = if query.sort.is_empty() { &by_creation[..] } else { &query.sort };
        // Stable sorts, the least important first.
        for SortKey { by, descending } in sort.iter().rev() {
            let (mut there, missing): (Vec<_>, Vec<_>) =
                wanted.into_iter().partition(|item| value(item, *by).is_some());
            there.sort_by(|one, other| {
                let (one, other) = (value(one, *by), value(other, *by));
                if *descending { other.cmp(&one) } else { one.cmp(&other) }
            });
            wanted = [there, missing].concat();
        }
        wanted.into_iter().map(|item| item.id).collect()
    }

    fn wants(query: &TokenQuery, item: &TokenItem) -> bool {
        let theirs = match &query.owner {
            OwnerSelector::All => true,
            OwnerSelector::Owner(owner) => item.owner.name == owner.name,
            OwnerSelector::Managed(owner) => item.owner.name == owner.name && item.managed,
        };
        let found =
            query.search.as_ref().is_none_or(|text| item.display_name.to_lowercase().contains(&text.to_lowercase()));
        theirs && found && query.filter.as_ref().is_none_or(|filter| passes(filter, item))
    }

    fn passes(filter: &TokenFilter, item: &TokenItem) -> bool {
        match filter {
            TokenFilter::All(filters) => !filters.iter().any(|filter| !passes(filter, item)),
            TokenFilter::Any(filters) => filters.iter().filter(|filter| passes(filter, item)).count() > 0,
            TokenFilter::Not(filter) => !passes(filter, item),
            TokenFilter::Compare(field, test) => is_true(test, value(item, *field)),
        }
    }

    /// A missing value is neither greater nor less, but not equal either.
    fn is_true(test: &Comparison, value: Option<String>) -> bool {
        let text = |value: &Operand| match value {
            Operand::Text(text) => text.clone(),
            Operand::Time(time) => time.to_string(),
        };
        let lower = value.as_deref().map(str::to_lowercase);
        let has = |part: &String| lower.as_ref().is_some_and(|value| value.contains(&part.to_lowercase()));
        match test {
            Comparison::IsNull => value.is_none(),
            Comparison::Eq(other) => value == Some(text(other)),
            Comparison::Ne(other) => value != Some(text(other)),
            Comparison::Lt(other) => value.is_some_and(|value| value < text(other)),
            Comparison::Le(other) => value.is_some_and(|value| value <= text(other)),
            Comparison::Gt(other) => value.is_some_and(|value| value > text(other)),
            Comparison::Ge(other) => value.is_some_and(|value| value >= text(other)),
            Comparison::In(others) => value.is_some_and(|value| others.iter().any(|other| text(other) == value)),
            Comparison::NotIn(others) => value.is_none_or(|value| others.iter().all(|other| text(other) != value)),
            Comparison::StartsWith(part) => lower.is_some_and(|value| value.starts_with(&part.to_lowercase())),
            Comparison::EndsWith(part) => lower.is_some_and(|value| value.ends_with(&part.to_lowercase())),
            Comparison::Contains(part) => has(part),
            Comparison::NotContains(part) => !has(part),
        }
    }

    /// The value as text with the same order.
    fn value(item: &TokenItem, field: TokenField) -> Option<String> {
        match field {
            TokenField::Id => Some(item.id.to_string()),
            TokenField::Name => Some(item.display_name.clone()),
            TokenField::LastRotatedAt => item.last_rotated_at().map(|time| time.to_string()),
            TokenField::Revoked => Some(item.revoked.to_string()),
            TokenField::Scopes => Some(item.scopes.join(" ")),
            TokenField::Owner => Some(item.owner.name.clone()),
            TokenField::CreatedAt => Some(item.created_at.to_string()),
            TokenField::UpdatedAt => Some(item.updated_at.to_string()),
            TokenField::LastUsedAt => item.last_used_at.map(|time| time.to_string()),
            TokenField::ExpiresAt => item.expires_at().map(|time| time.to_string()),
        }
    }
}

proptest! {
    #[test]
    fn pages_together_are_the_matching_tokens_in_order(
        items in items(), query in queries(), size in 1_usize..20,
    ) {
        let store = TokenStore::default();
        let expected = reference::list(&items, &query);
        store.put(items);
        let mut seen = Vec::new();
        loop {
            let page = store.list(&TokenQuery { offset: seen.len(), limit: Some(size), ..query.clone() });
            prop_assert_eq!(page.total, expected.len());
            prop_assert!(page.items.len() <= size);
            if page.items.is_empty() {
                break;
            }
            seen.extend(page.items.iter().map(|item| item.id));
        }
        prop_assert_eq!(&seen, &expected);
        let all = store.list(&query);
        prop_assert_eq!(all.items.iter().map(|item| item.id).collect::<Vec<_>>(), expected.clone());
        let beyond = store.list(&TokenQuery { offset: usize::MAX, limit: Some(usize::MAX), ..query.clone() });
        prop_assert_eq!((beyond.items.len(), beyond.total), (0, expected.len()));
    }

    #[test]
    fn order_is_total_and_missing_values_come_last(items in items(), sort in sorts()) {
        let query = TokenQuery { sort, ..TokenQuery::default() };
        let rows: Vec<TokenRow> = items.into_iter().map(|item| Arc::new(item).into()).collect();
        for one in &rows {
            for other in &rows {
                let order = query.order(one, other);
                prop_assert_eq!(order == Ordering::Equal, one.item().id == other.item().id);
                prop_assert_eq!(order.reverse(), query.order(other, one));
                if let [SortKey { by: TokenField::LastUsedAt, .. }, ..] = query.sort[..]
                    && one.item().last_used_at.is_some() && other.item().last_used_at.is_none()
                {
                    prop_assert_eq!(order, Ordering::Less);
                }
            }
        }
    }

    #[test]
    fn store_lists_current_tokens_after_many_changes(changes in prop::collection::vec((0_u32..12, 0_u8..4, 0_u8..6, any::<bool>()), 0..80)) {
        let store = TokenStore::default();
        let mut there = std::collections::BTreeMap::new();
        for (uid, created, name, put) in changes {
            if put {
                store.put([item(uid, created, name, None)]);
                there.insert(PatUid::from(u128::from(uid)), format!("Name {name}"));
            } else {
                store.remove(u128::from(uid).into());
                there.remove(&u128::from(uid).into());
            }
        }
        let mut listed: Vec<_> = store.list(&TokenQuery::default()).items.iter().map(|item| (item.id, item.display_name.clone())).collect();
        for name in ["ada", "bob"] {
            let owner = OwnerSelector::Owner(Owner { kind: OwnerKind::User, name: name.into() });
            for item in store.list(&TokenQuery { owner, ..TokenQuery::default() }).items {
                prop_assert!(listed.contains(&(item.id, item.display_name.clone())) && item.owner.name == name);
            }
        }
        listed.sort();
        prop_assert_eq!(listed, there.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(store.len(), store.list(&TokenQuery::default()).total);
    }
}

#[test]
fn owner_is_found_by_the_id_of_its_token_owner_or_else_by_name() {
    let mut fixture = RestFixture::new();
    fixture.user("ada", "One", &[]);
    fixture.account("team/ci", "Two", &[]);
    let account = Owner { kind: OwnerKind::VirtualAccount, name: "team/ci".into() };
    let by_id = |id: &str| fixture.store.owner_by_id(id).map(|entry| entry.owner);
    assert_eq!((by_id("ada"), by_id("va:team/ci")), (Some(ada()), Some(account)));
    assert_eq!((by_id("nobody"), by_id("team/ci"), by_id("")), (None, None, None));

    let subject = json!({"kind": "User", "name": "ada"});
    fixture.owner(9, json!({"subject": subject, "email": "Ada@Example.com", "displayName": "Ada"}));
    let id = PatUid::from(9).to_string();
    assert_eq!((by_id(&id), by_id("ada")), (Some(ada()), None), "an owner has one id");
    assert_eq!(by_id(&PatUid::from(9).hyphenated()), None);
    let entry = fixture.store.owner(&ada());
    assert_eq!((&*entry.id, entry.spec.display_name.as_deref(), entry.times.is_some()), (&*id, Some("Ada"), true));
    let by_email = |email: &str| fixture.store.owner_by_email(email).map(|entry| entry.owner);
    assert_eq!((by_email("ada@example.COM"), by_email("ada"), by_email("")), (Some(ada()), None, None));

    // A second object for the same owner changes nothing; one for another owner makes the email ambiguous.
    fixture.owner(10, json!({"subject": subject, "email": "ada@example.com", "displayName": "Other"}));
    assert_eq!((fixture.store.owner(&ada()).id, by_email("ada@example.com")), (id, Some(ada())));
    fixture.owner(11, json!({"subject": {"kind": "User", "name": "eve"}, "email": "ada@example.com"}));
    assert_eq!(by_email("ada@example.com"), None);
}

/// 100,000 tokens of a thousand owners.
fn fleet() -> TokenStore {
    let store = TokenStore::default();
    let object = |n: u32| {
        let second = n.wrapping_mul(2_654_435_761) % 30_000_000;
        let created = at("2025-01-01T00:00:00Z").plus(k8s_openapi::jiff::SignedDuration::from_secs(second.into()));
        let used = (!n.is_multiple_of(3))
            .then(|| created.plus(k8s_openapi::jiff::SignedDuration::from_secs((n % 9_000_000).into())));
        let stored: StoredPat = serde_json::from_value(json!({
            "metadata": {
                "namespace": "team", "name": format!("pat-{n}"), "uid": PatUid::from(u128::from(n) << 64 | u128::from(second)).hyphenated(),
                "creationTimestamp": created.floor_second(),
            },
            "spec": {
                "displayName": format!("Deployment of service {} in region {}", n % 777, n % 13),
                "description": "What it is for, in as many words as people write about such things.",
                "owner": {"kind": "User", "name": format!("user-{}@example.com", n % 1_000)},
                "scopes": ["repo:read", "repo:write"],
            },
            "status": {"lastUsedAt": used},
        }))
        .unwrap();
        TokenItem::read(&stored).unwrap()
    };
    store.put((0..100_000).map(object));
    store
}

#[test]
#[ignore = "a measurement: cargo test --release --lib -- --ignored --nocapture a_page_of_a_hundred_thousand"]
fn a_page_of_a_hundred_thousand_tokens_takes_so_long() {
    let store = fleet();
    let used_before =
        |time: &str| TokenFilter::Compare(TokenField::LastUsedAt, Comparison::Le(Operand::Time(at(time))));
    let filters = [
        None,
        Some(TokenFilter::Any(vec![
            used_before("2025-09-01T00:00:00Z"),
            TokenFilter::Compare(TokenField::LastUsedAt, Comparison::IsNull),
        ])),
        Some(TokenFilter::Not(Box::new(TokenFilter::Compare(TokenField::Id, Comparison::Contains("abc".into()))))),
    ];
    let mut worst = (Duration::ZERO, String::new());
    for filter in &filters {
        for search in [None, Some("SERVICE 7".to_owned()), Some("such things".to_owned())] {
            for by in [
                TokenField::Id,
                TokenField::Name,
                TokenField::CreatedAt,
                TokenField::UpdatedAt,
                TokenField::LastUsedAt,
                TokenField::ExpiresAt,
            ] {
                for descending in [false, true] {
                    for offset in [0, 30_000, 99_900] {
                        let (sort, limit) = (vec![SortKey { by, descending }], Some(100));
                        let (filter, search) = (filter.clone(), search.clone());
                        let query = TokenQuery { owner: OwnerSelector::All, filter, search, sort, offset, limit };
                        let mut times: Vec<_> = (0..3).map(|_| timed(&store, &query)).collect();
                        times.sort();
                        if times[1] > worst.0 {
                            worst = (times[1], format!("{query:?}"));
                        }
                    }
                }
            }
        }
    }
    println!("slowest query: {:?} for {}", worst.0, worst.1);
}

fn timed(store: &TokenStore, query: &TokenQuery) -> Duration {
    let began = Instant::now();
    std::hint::black_box(store.list(query));
    began.elapsed()
}

#[test]
fn use_does_not_change_updated_at() {
    let time = |second: u8| format!("2026-01-01T00:00:{second:02}Z");
    let entry = |manager: &str, second: u8| json!({"manager": manager, "operation": "Update", "time": time(second)});
    let stored: StoredPat = serde_json::from_value(json!({
        "metadata": {
            "namespace": "team", "name": "app", "uid": PatUid::from(1).hyphenated(), "creationTimestamp": time(1),
            "managedFields": [entry("pat-operator-api", 2), entry("pat-operator", 3), entry("pat-operator-verifier", 9)],
        },
        "spec": {},
    }))
    .unwrap();
    let item = TokenItem::read(&stored).unwrap();
    let second = |time: Time| time.to_string();
    assert_eq!((second(item.created_at), second(item.updated_at)), (time(1), time(3)));
}
