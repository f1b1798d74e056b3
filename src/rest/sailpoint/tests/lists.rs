//! Lists: permissions, filters and the format of tokens.

use std::sync::Arc;

use futures::StreamExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{NEWER, OLDER, numbers, router};
use crate::{
    index::PatUid,
    rest::{
        fixture::{RestFixture, TestToken, block_on, get},
        sailpoint::{expiry::ExpiryPolicy, list, token::SailpointToken},
    },
};

/// Ann and Bob, each with a token and a managed token; Bob has a TokenOwner.
fn populated() -> RestFixture {
    let mut fixture = RestFixture::new();
    for (owner, managed) in
        [("ann@example.com", false), ("ann@example.com", true), ("bob@example.com", false), ("bob@example.com", true)]
    {
        let spec = json!({"owner": {"kind": "User", "name": owner}, "displayName": "one", "managed": managed});
        fixture.pat(spec, json!({}));
    }
    fixture.owner(0xb0b, json!({"subject": {"kind": "User", "name": "bob@example.com"}, "displayName": "Bob Jones"}));
    fixture
}

const BOB: &str = "00000000000000000000000000000b0b";

/// Adds a caller: the fifth token, which belongs to Ann and has this scope.
fn ann(fixture: &mut RestFixture, scope: &str) -> TestToken {
    fixture.user("ann@example.com", "caller", &[scope])
}

#[tokio::test]
async fn list_contains_the_requested_owners_tokens_within_permissions() {
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
        ("all", "owner-id=me", own),
        ("all", "owner-id=ann@example.com", own),
        ("all", &format!("owner-id={BOB}"), bobs),
        // An owner with a TokenOwner has its id.
        ("all", "owner-id=bob@example.com", none),
        ("all", "owner-id=nobody", none),
        ("all", "owner-id=", all),
        ("all", "", all),
        ("none", "owner-id=me", FORBIDDEN),
        ("none", "", FORBIDDEN),
    ] {
        for spelling in ["sp", "idn"] {
            for deed in ["read", "manage"] {
                let mut fixture = populated();
                let caller = ann(&mut fixture, &format!("{spelling}:{reach}-personal-access-tokens:{deed}"));
                let router = router(&fixture);
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
async fn permissions_add_up() {
    let mut fixture = populated();
    let scopes = ["sp:my-personal-access-tokens:read", "idn:managed-personal-access-tokens:read"];
    let caller = fixture.user("ann@example.com", "caller", &scopes);
    let router = router(&fixture);
    assert_eq!(numbers(&get(&router, &caller, &format!("{NEWER}?owner-id=me")).await.1), [1, 2, 5]);
    assert_eq!(numbers(&get(&router, &caller, &format!("{NEWER}?owner-id={BOB}")).await.1), [4]);
}

#[tokio::test]
async fn token_has_every_field_and_the_newer_version_shows_the_acknowledgement() {
    let mut fixture = RestFixture::new();
    let caller = fixture.pat(
        json!({
            "owner": {"kind": "User", "name": "ann@example.com"}, "displayName": "caller",
            "scopes": ["sp:all-personal-access-tokens:read"], "expiry": {"at": "2026-07-01T00:00:00.123456Z"},
            "accessTokenValidity": "15m", "managed": true,
        }),
        json!({"status": {"lastUsedAt": "2026-05-05T05:05:05.050505Z"}}),
    );
    fixture.pat(json!({"expiry": {"never": true}}), json!({}));
    fixture.owner(0xa, json!({"subject": {"kind": "User", "name": "ann@example.com"}, "displayName": "Ann"}));
    let router = router(&fixture);
    let mut first = json!({
        "id": "00000000000000000000000000000001", "name": "caller", "scope": ["sp:all-personal-access-tokens:read"],
        "owner": {"type": "IDENTITY", "id": "0000000000000000000000000000000a", "name": "Ann"},
        "created": "2026-01-01T00:00:01.000Z", "lastUsed": "2026-05-05T05:05:05.050Z", "managed": true,
        "accessTokenValiditySeconds": 900, "expirationDate": "2026-07-01T00:00:00.123Z",
    });
    // The default owner, without a TokenOwner.
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
async fn invalid_or_deeply_nested_filter_is_refused() {
    let mut fixture = RestFixture::new();
    let caller = ann(&mut fixture, "sp:all-personal-access-tokens:read");
    let router = router(&fixture);
    for (query, words) in [
        ("filters=lastUsed+ge+2023-01-01".to_owned(), "filters: at character 10: unknown operator \"ge\""),
        ("filters=name+eq+%22a%22".to_owned(), "filters: at character 1: unknown field \"name\""),
        (format!("filters={}", "(".repeat(10_000)), "filters: at character 33: the filter nests deeper than 32 levels"),
        ("owner-id=me&owner-id=me".to_owned(), "owner-id: must not be set more than once"),
        ("limit=1e9".to_owned(), "limit: unknown parameter"),
    ] {
        let (status, error) = get(&router, &caller, &format!("{NEWER}?{query}")).await;
        assert_eq!(status, 400, "{query}");
        let cause = error["causes"][0]["text"].as_str().unwrap();
        assert!(cause.starts_with(words), "{cause}");
    }
}

#[test]
fn list_of_a_hundred_thousand_is_streamed_in_small_parts() {
    let mut fixture = RestFixture::new();
    let known = ann(&mut fixture, "sp:all-personal-access-tokens:read");
    let service = fixture.service();
    let item = service.item(known.id).unwrap();
    let count = 100_000;
    let body = list::stream(vec![Arc::clone(&item); count], move |item, to| {
        list::append(&SailpointToken::of(item, service.owner(&item.owner), ExpiryPolicy::SixMonths), to)
    });
    let parts: Vec<_> = block_on(body.into_data_stream().collect::<Vec<_>>());
    let parts: Vec<_> = parts.into_iter().map(Result::unwrap).collect();
    assert!(parts.iter().all(|part| part.len() <= 40 * 1024), "a part is too large");
    let list: Vec<Value> = serde_json::from_slice(&parts.concat()).unwrap();
    assert_eq!(list.len(), count);
}

#[tokio::test]
async fn list_of_an_unknown_owner_is_empty() {
    let mut fixture = RestFixture::new();
    let caller = ann(&mut fixture, "sp:all-personal-access-tokens:read");
    assert_eq!(get(&router(&fixture), &caller, &format!("{NEWER}?owner-id=nobody")).await, (200, json!([])));
}

/// The model of a filter.
#[derive(Clone, Debug)]
pub(in crate::rest::sailpoint) enum Meant {
    IsNull,
    Le(u8),
    Not(Box<Meant>),
    Both(Box<Meant>, Box<Meant>),
    Either(Box<Meant>, Box<Meant>),
}

pub(in crate::rest::sailpoint) fn meant() -> impl Strategy<Value = Meant> {
    let leaf = prop_oneof![Just(Meant::IsNull), (0_u8..5).prop_map(Meant::Le)];
    leaf.prop_recursive(8, 40, 2, |inner| {
        let two = (inner.clone().prop_map(Box::new), inner.clone().prop_map(Box::new));
        prop_oneof![
            inner.prop_map(|one| Meant::Not(Box::new(one))),
            two.clone().prop_map(|(one, other)| Meant::Both(one, other)),
            two.prop_map(|(one, other)| Meant::Either(one, other)),
        ]
    })
}

impl Meant {
    /// Returns the text with as few parentheses as possible.
    pub(in crate::rest::sailpoint) fn text(&self) -> String {
        match self {
            Self::IsNull => "lastUsed isnull".into(),
            Self::Le(day) => format!("lastUsed le {}", self::day(*day)),
            Self::Not(one) if matches!(**one, Self::Both(..) | Self::Either(..)) => format!("not ({})", one.text()),
            Self::Not(one) => format!("not {}", one.text()),
            Self::Both(one, other) => format!("{} and {}", one.within_and(), other.within_and()),
            Self::Either(one, other) => format!("{} or {}", one.text(), other.text()),
        }
    }

    fn within_and(&self) -> String {
        if matches!(self, Self::Either(..)) { format!("({})", self.text()) } else { self.text() }
    }

    pub(in crate::rest::sailpoint) fn says(&self, used: Option<u8>) -> bool {
        match self {
            Self::IsNull => used.is_none(),
            Self::Le(day) => used.is_some_and(|used| used <= *day),
            Self::Not(one) => !one.says(used),
            Self::Both(one, other) => one.says(used) && other.says(used),
            Self::Either(one, other) => one.says(used) || other.says(used),
        }
    }
}

pub(in crate::rest::sailpoint) fn day(number: u8) -> String {
    format!("2026-02-{:02}T00:00:00Z", number + 1)
}

const ANN: &str = "ann@example.com";

/// A token of the property test. Times are a few days, which produces ties; `whose` is Ann, Bob or a default owner.
#[derive(Clone, Debug)]
struct SailpointSample {
    created: u8,
    used: Option<u8>,
    whose: usize,
    managed: bool,
}

fn made() -> impl Strategy<Value = Vec<SailpointSample>> {
    let one = (0_u8..3, proptest::option::of(0_u8..5), 0_usize..3, any::<bool>());
    let one = one.prop_map(|(created, used, whose, managed)| SailpointSample { created, used, whose, managed });
    proptest::collection::vec(one, 0..30)
}

/// Returns what a caller with these permissions sees of an owner: the owner's number in [`SailpointSample`] or all, and whether only managed tokens.
/// `Err` if it is forbidden.
fn shown(rights: &[&str], owner_id: Option<&str>) -> Result<(Option<usize>, bool), ()> {
    let (my, managed, all) = (rights.contains(&"my"), rights.contains(&"managed"), rights.contains(&"all"));
    match owner_id {
        None | Some("") if all => Ok((None, false)),
        None | Some("") => Err(()),
        Some("me") if my || all => Ok((Some(0), false)),
        Some("me") if managed => Ok((Some(0), true)),
        Some("me") => Err(()),
        Some(id) if all || managed => {
            let whose = [ANN, BOB].iter().position(|known| *known == id).unwrap_or(usize::MAX);
            Ok((Some(whose), !all))
        }
        Some(_) => Err(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn list_is_the_filtered_set_in_order_of_creation(
        made in made(),
        filter in proptest::option::of(meant()),
        owner_id in proptest::sample::select(vec![None, Some(""), Some("me"), Some(ANN), Some(BOB), Some("nobody")]),
        rights in proptest::sample::subsequence(vec!["my", "managed", "all"], 1..=3),
        (deed, spelling) in (proptest::sample::select(vec!["read", "manage"]), proptest::sample::select(vec!["sp", "idn"])),
        base in proptest::sample::select(OLDER.into_iter().chain([NEWER]).collect::<Vec<_>>()),
    ) {
        let mut fixture = RestFixture::new();
        let scopes: Vec<_> = rights.iter().map(|reach| format!("{spelling}:{reach}-personal-access-tokens:{deed}")).collect();
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        // The caller's token is created first and has never been used.
        let caller = fixture.user(ANN, "caller", &scopes);
        fixture.owner(0xb0b, json!({"subject": {"kind": "User", "name": "bob@example.com"}, "displayName": "Bob Jones"}));
        let mut all = vec![(None, 1, SailpointSample { created: 0, used: None, whose: 0, managed: false })];
        for (number, one) in (2_u128..).zip(&made) {
            let mut spec = json!({"displayName": "one", "managed": one.managed});
            if let Some(owner) = [ANN, "bob@example.com"].get(one.whose) {
                spec["owner"] = json!({"kind": "User", "name": owner});
            }
            // Ids have another order than creations.
            let uid = u128::MAX - number;
            let metadata = json!({"uid": PatUid::from(uid).hyphenated(), "creationTimestamp": day(one.created)});
            fixture.pat(spec, json!({"metadata": metadata, "status": {"lastUsedAt": one.used.map(day)}}));
            all.push((Some(one.created), uid, one.clone()));
        }
        all.sort_by_key(|(created, uid, _)| (*created, *uid));

        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(owner_id) = owner_id {
            query.append_pair("owner-id", owner_id);
        }
        if let Some(filter) = &filter {
            query.append_pair("filters", &filter.text());
        }
        let path = format!("{base}?{}", query.finish());
        let (status, list) = block_on(get(&router(&fixture), &caller, &path));
        let Ok((whose, only_managed)) = shown(&rights, owner_id) else {
            prop_assert_eq!(status, 403, "{}: {}", path, list);
            return Ok(());
        };
        prop_assert_eq!(status, 200, "{}: {}", path, list);
        all.retain(|(_, _, one)| {
            let of_them = whose.is_none_or(|whose| one.whose == whose) && (one.managed || !only_managed);
            of_them && filter.as_ref().is_none_or(|filter| filter.says(one.used))
        });
        let expected: Vec<u128> = all.into_iter().map(|(_, uid, _)| uid).collect();
        prop_assert_eq!(numbers(&list), expected, "{}", path);
    }
}
