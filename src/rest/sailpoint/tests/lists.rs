//! Lists: whose tokens, which of them, and how they look.

use std::sync::Arc;

use futures::StreamExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{NEWER, OLDER, block_on, get, numbers, router};
use crate::rest::{
    sailpoint::{family::Family, stream, token::TokenView},
    world::{Known, World},
};

/// Ann with two tokens, the second of them managed; Bob with one of each, known by a TokenOwner; and the callers.
fn populated() -> World {
    let mut world = World::new();
    for (owner, managed) in
        [("ann@example.com", false), ("ann@example.com", true), ("bob@example.com", false), ("bob@example.com", true)]
    {
        let spec = json!({"owner": {"kind": "User", "name": owner}, "displayName": "one", "managed": managed});
        world.pat(spec, json!({}));
    }
    world.owner(0xb0b, json!({"subject": {"kind": "User", "name": "bob@example.com"}, "displayName": "Bob Jones"}));
    world
}

const BOB: &str = "00000000000000000000000000000b0b";

/// Ann, with a token of this one scope, which is managed as well: the fifth.
fn ann(world: &mut World, scope: &str) -> Known {
    world.user("ann@example.com", "caller", &[scope])
}

#[tokio::test]
async fn a_list_has_what_owner_id_asks_for_as_far_as_the_rights_go() {
    const FORBIDDEN: Option<&[u128]> = None;
    let own = Some(&[1, 2, 5][..]);
    let own_managed = Some(&[2][..]);
    let bobs = Some(&[3, 4][..]);
    let bobs_managed = Some(&[4][..]);
    let all = Some(&[1, 2, 3, 4, 5][..]);
    let none = Some(&[][..]);
    for (reach, owner_id, expected) in [
        ("my", "owner-id=me", own),
        ("my", "owner-id=ann@example.com", FORBIDDEN),
        ("my", &format!("owner-id={BOB}"), FORBIDDEN),
        ("my", "owner-id=nobody", FORBIDDEN),
        ("my", "owner-id=", FORBIDDEN),
        ("my", "", FORBIDDEN),
        ("managed", "owner-id=me", own_managed),
        ("managed", "owner-id=ann@example.com", own_managed),
        ("managed", &format!("owner-id={BOB}"), bobs_managed),
        ("managed", "owner-id=nobody", none),
        ("managed", "owner-id=", FORBIDDEN),
        ("managed", "", FORBIDDEN),
        ("all", "owner-id=me", FORBIDDEN),
        ("all", "owner-id=ann@example.com", own),
        ("all", &format!("owner-id={BOB}"), bobs),
        // Who is known by a TokenOwner has the id of that.
        ("all", "owner-id=bob@example.com", none),
        ("all", "owner-id=nobody", none),
        ("all", "owner-id=", all),
        ("all", "", all),
        ("none", "owner-id=me", FORBIDDEN),
        ("none", "", FORBIDDEN),
    ] {
        for spelling in ["sp", "idn"] {
            for deed in ["read", "manage"] {
                let mut world = populated();
                let caller = ann(&mut world, &format!("{spelling}:{reach}-personal-access-tokens:{deed}"));
                let router = router(&world);
                for base in OLDER.into_iter().chain([NEWER]) {
                    let (status, list) = get(&router, &caller, &format!("{base}?{owner_id}")).await;
                    let case = format!("{base} {spelling}:{reach}:{deed} {owner_id}: {list}");
                    match expected {
                        Some(expected) => {
                            assert_eq!(status, 200, "{case}");
                            assert_eq!(numbers(&list), expected, "{case}");
                        }
                        None => assert_eq!(status, 403, "{case}"),
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn several_rights_add_up() {
    let mut world = populated();
    let scopes = ["sp:my-personal-access-tokens:read", "idn:managed-personal-access-tokens:read"];
    let caller = world.user("ann@example.com", "caller", &scopes);
    let router = router(&world);
    assert_eq!(numbers(&get(&router, &caller, &format!("{NEWER}?owner-id=me")).await.1), [1, 2, 5]);
    assert_eq!(numbers(&get(&router, &caller, &format!("{NEWER}?owner-id={BOB}")).await.1), [4]);
}

#[tokio::test]
async fn an_item_has_every_field_and_the_newer_family_tells_of_the_acknowledgement() {
    let mut world = World::new();
    let caller = world.pat(
        json!({
            "owner": {"kind": "User", "name": "ann@example.com"}, "displayName": "caller",
            "scopes": ["sp:all-personal-access-tokens:read"], "expiry": {"at": "2026-07-01T00:00:00.123456Z"},
            "accessTokenValidity": "15m", "managed": true,
        }),
        json!({"status": {"lastUsedAt": "2026-05-05T05:05:05.050505Z"}}),
    );
    world.pat(json!({"expiry": {"never": true}}), json!({}));
    world.owner(0xa, json!({"subject": {"kind": "User", "name": "ann@example.com"}, "displayName": "Ann"}));
    let router = router(&world);
    let mut first = json!({
        "id": "00000000000000000000000000000001", "name": "caller", "scope": ["sp:all-personal-access-tokens:read"],
        "owner": {"type": "IDENTITY", "id": "0000000000000000000000000000000a", "name": "Ann"},
        "created": "2026-01-01T00:00:01.000Z", "lastUsed": "2026-05-05T05:05:05.050Z", "managed": true,
        "accessTokenValiditySeconds": 900, "expirationDate": "2026-07-01T00:00:00.123Z",
    });
    // The object's own virtual account, and no TokenOwner that has an id.
    let mut second = json!({
        "id": "00000000000000000000000000000002", "name": "pat-2", "scope": [],
        "owner": {"type": "IDENTITY", "id": "va:team/pat-2", "name": "team/pat-2"},
        "created": "2026-01-01T00:00:02.000Z", "lastUsed": null, "managed": false,
        "accessTokenValiditySeconds": 43200, "expirationDate": null,
    });
    for base in OLDER {
        assert_eq!(get(&router, &caller, base).await, (200, json!([first, second])), "{base}");
    }
    first["userAwareTokenNeverExpires"] = json!(false);
    second["userAwareTokenNeverExpires"] = json!(true);
    assert_eq!(get(&router, &caller, NEWER).await, (200, json!([first, second])));
}

#[tokio::test]
async fn a_filter_that_cannot_be_read_or_nests_too_deep_is_refused() {
    let mut world = World::new();
    let caller = ann(&mut world, "sp:all-personal-access-tokens:read");
    let router = router(&world);
    for (query, words) in [
        (
            "filters=lastUsed+ge+2023-01-01".to_owned(),
            "filters: at character 10: \"ge\" is not an operator of lastUsed",
        ),
        ("filters=name+eq+%22a%22".to_owned(), "filters: at character 1: \"name\" is not a field to filter by"),
        (format!("filters={}", "(".repeat(10_000)), "filters: at character 33: it nests deeper than 32"),
        ("owner-id=me&owner-id=me".to_owned(), "owner-id: must be there only once"),
        ("limit=1e9".to_owned(), "limit: is not a parameter"),
    ] {
        let (status, error) = get(&router, &caller, &format!("{NEWER}?{query}")).await;
        assert_eq!(status, 400, "{query}");
        let cause = error["causes"][0]["text"].as_str().unwrap();
        assert!(cause.starts_with(words), "{cause}");
    }
}

#[test]
fn a_list_of_a_hundred_thousand_is_written_in_parts_none_of_which_is_large() {
    let mut world = World::new();
    let known = ann(&mut world, "sp:all-personal-access-tokens:read");
    let service = world.service();
    let item = service.item(known.id).unwrap();
    let count = 100_000;
    let body = stream::array(vec![Arc::clone(&item); count], move |item, to| {
        stream::append(&TokenView::of(item, service.owner(&item.owner), Family::HalfYear), to)
    });
    let parts: Vec<_> = block_on(body.into_data_stream().collect::<Vec<_>>());
    let parts: Vec<_> = parts.into_iter().map(Result::unwrap).collect();
    assert!(parts.iter().all(|part| part.len() <= 40 * 1024), "a part is larger");
    let list: Vec<Value> = serde_json::from_slice(&parts.concat()).unwrap();
    assert_eq!(list.len(), count);
}

#[tokio::test]
async fn a_list_of_nobody_is_an_empty_array() {
    let mut world = World::new();
    let caller = ann(&mut world, "sp:all-personal-access-tokens:read");
    assert_eq!(get(&router(&world), &caller, &format!("{NEWER}?owner-id=nobody")).await, (200, json!([])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_list_is_exactly_the_filtered_set_in_the_order_of_creation(
        used in proptest::collection::vec(proptest::option::of(0_u8..28), 0..40),
        bound in 0_u8..28,
        form in 0_usize..5,
    ) {
        let mut world = World::new();
        let caller = ann(&mut world, "sp:all-personal-access-tokens:read");
        for day in &used {
            let last_used = day.map(|day| format!("2026-02-{:02}T00:00:00Z", day + 1));
            world.pat(json!({}), json!({"status": {"lastUsedAt": last_used}}));
        }
        let le = format!("lastUsed le 2026-02-{:02}", bound + 1);
        let (filter, wanted): (String, &dyn Fn(Option<u8>) -> bool) = match form {
            0 => (le, &|day| day.is_some_and(|day| day <= bound)),
            1 => ("lastUsed isnull".into(), &|day| day.is_none()),
            2 => (format!("{le} or lastUsed isnull"), &|day| day.is_none_or(|day| day <= bound)),
            3 => (format!("not ({le})"), &|day| day.is_none_or(|day| day > bound)),
            _ => (format!("not {le} and not lastUsed isnull"), &|day| day.is_some_and(|day| day > bound)),
        };
        let filter: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        let (status, list) = block_on(get(&router(&world), &caller, &format!("{NEWER}?filters={filter}")));
        prop_assert_eq!(status, 200);
        // The caller is the first, and has never been used.
        let all = [None].into_iter().chain(used);
        let expected: Vec<u128> = (1..).zip(all).filter(|(_, day)| wanted(*day)).map(|(number, _)| number).collect();
        prop_assert_eq!(numbers(&list), expected);
    }
}
