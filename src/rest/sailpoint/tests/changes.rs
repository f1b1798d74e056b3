//! Changes by JSON patch: of one token, and in bulk.

use std::sync::Arc;

use axum::http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{NEWER, OLDER, cause, patch, router};
use crate::{
    api::Expiry,
    rest::{
        caller::RestCaller,
        fixture::{NOW, RestFixture, block_on, request},
        model::{ChangeToken, TokenItem},
        sailpoint::{
            body::{self, SailpointPatch},
            expiry::ExpiryPolicy,
        },
    },
};

/// A token that expires on the first of July, or never.
async fn token(ends: bool) -> (Arc<TokenItem>, RestCaller) {
    let mut fixture = RestFixture::new();
    let expiry = if ends { json!({"at": "2026-07-01T00:00:01Z"}) } else { json!({"never": true}) };
    let known = fixture.pat(json!({"displayName": "ci", "scopes": ["a", "b"], "expiry": expiry}), json!({}));
    let service = fixture.service();
    (service.item(known.id).unwrap(), service.caller(&known.headers()).await.unwrap())
}

async fn change_in(policy: ExpiryPolicy, ends: bool, operations: &Value) -> Result<ChangeToken, String> {
    let (item, caller) = token(ends).await;
    let patch = SailpointPatch::parse(operations.to_string().as_bytes());
    let change = patch.and_then(|patch| patch.apply(&item, &caller, policy, NOW.parse().unwrap()));
    change.map_err(|error| error.to_string())
}

async fn change(operations: Value) -> Result<ChangeToken, String> {
    change_in(ExpiryPolicy::NeverIfAcknowledged, true, &operations).await
}

/// Returns the names of the changed fields.
fn changed(change: &ChangeToken) -> Vec<&'static str> {
    let fields = [
        ("name", change.display_name.is_some()),
        ("scope", change.scopes.is_some()),
        ("expiry", change.expiry.is_some()),
        ("validity", change.access_token_validity.is_some()),
        (
            "other",
            change.revoked.is_some() || change.revoke_credential.is_some() || change.revoke_if_issued_before.is_some(),
        ),
    ];
    fields.into_iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn every_patch_operation_works_and_only_differences_are_changed() {
    for (operations, fields) in [
        (json!([]), &[][..]),
        (json!([{"op": "replace", "path": "/name", "value": "cd"}]), &["name"]),
        (json!([{"op": "replace", "path": "/name", "value": "ci"}]), &[]),
        (json!([{"op": "add", "path": "/name", "value": "cd"}]), &["name"]),
        (json!([{"op": "replace", "path": "/scope", "value": ["a"]}]), &["scope"]),
        (json!([{"op": "replace", "path": "/scope", "value": ["sp:scopes:all"]}]), &[]),
        (json!([{"op": "replace", "path": "/scope", "value": ["a", "b"]}]), &[]),
        (json!([{"op": "add", "path": "/scope/-", "value": "c"}]), &["scope"]),
        (json!([{"op": "remove", "path": "/scope/0"}]), &["scope"]),
        (json!([{"op": "move", "from": "/scope/0", "path": "/scope/1"}]), &["scope"]),
        (json!([{"op": "copy", "from": "/scope/0", "path": "/name"}]), &["name"]),
        (
            json!([{"op": "test", "path": "/name", "value": "ci"}, {"op": "replace", "path": "/name", "value": "cd"}]),
            &["name"],
        ),
        (json!([{"op": "test", "path": "/scope", "value": ["a", "b"]}]), &[]),
        (json!([{"op": "test", "path": "/accessTokenValiditySeconds", "value": 43200}]), &[]),
        (json!([{"op": "test", "path": "/expirationDate", "value": "2026-07-01T00:00:01.000Z"}]), &[]),
        (json!([{"op": "test", "path": "/userAwareTokenNeverExpires", "value": false}]), &[]),
        (json!([{"op": "replace", "path": "/accessTokenValiditySeconds", "value": 15}]), &["validity"]),
        (json!([{"op": "remove", "path": "/accessTokenValiditySeconds"}]), &[]),
        (json!([{"op": "replace", "path": "/expirationDate", "value": "2026-08-01"}]), &["expiry"]),
        (json!([{"op": "replace", "path": "/expirationDate", "value": "2026-07-01T02:00:01+02:00"}]), &[]),
        (
            json!([{"op": "remove", "path": "/expirationDate"}, {"op": "replace", "path": "/userAwareTokenNeverExpires", "value": true}]),
            &["expiry"],
        ),
        (
            json!([{"op": "replace", "path": "/name", "value": "cd"}, {"op": "replace", "path": "/accessTokenValiditySeconds", "value": 60}]),
            &["name", "validity"],
        ),
    ] {
        let change = change(operations.clone()).await;
        assert_eq!(change.as_ref().map(changed).map_err(String::as_str), Ok(fields.to_vec()), "{operations}");
    }
}

#[tokio::test]
async fn invalid_patch_is_refused_as_a_whole_and_names_the_place() {
    let paths =
        "must be one of /name, /scope, /accessTokenValiditySeconds, /expirationDate, /userAwareTokenNeverExpires";
    let good = json!({"op": "replace", "path": "/name", "value": "cd"});
    for (operation, words) in [
        (json!({"op": "replace", "path": "/id", "value": "x"}), format!("[1].path: {paths}")),
        (json!({"op": "replace", "path": "/owner/name", "value": "x"}), format!("[1].path: {paths}")),
        (json!({"op": "replace", "path": "", "value": {}}), "[1].path: must be a string that is not blank".into()),
        (json!({"op": "replace", "path": "/", "value": {}}), format!("[1].path: {paths}")),
        (json!({"op": "replace", "path": "name", "value": "x"}), format!("[1].path: {paths}")),
        (json!({"op": "replace", "path": "/na~2me", "value": "x"}), format!("[1].path: {paths}")),
        (json!({"op": "replace", "path": 5, "value": "x"}), "[1].path: must be a string that is not blank".into()),
        (json!({"op": "replace"}), "[1].path: is required".into()),
        (json!({"path": "/name"}), "[1].op: is required".into()),
        (json!({"op": "erase", "path": "/name"}), "[1].op: must be add, remove, replace, move, copy or test".into()),
        (json!({"op": "Replace", "path": "/name"}), "[1].op: must be add, remove, replace, move, copy or test".into()),
        (json!({"op": "copy", "path": "/name"}), "[1].from: is required".into()),
        (json!({"op": "copy", "from": "/secret", "path": "/name"}), format!("[1].from: {paths}")),
        (json!({"op": "copy", "from": "/scope/9", "path": "/name"}), "[1]: no value at from".into()),
        (json!({"op": "remove", "path": "/scope/9"}), "[1]: no value at /scope/9".into()),
        (json!({"op": "replace", "path": "/name/first", "value": "x"}), "[1]: no value at /name/first".into()),
        (json!({"op": "test", "path": "/name", "value": "ci"}), "[1]: the value at /name differs".into()),
        (json!({"op": "remove", "path": "/name"}), "name: is required".into()),
        (json!({"op": "replace", "path": "/name", "value": null}), "name: is required".into()),
        (json!({"op": "replace", "path": "/name", "value": 5}), "name: must be a string that is not blank".into()),
        (json!({"op": "remove", "path": "/scope"}), "scope: must be a list; it may be empty".into()),
        (json!({"op": "replace", "path": "/scope"}), "scope: must be a list; it may be empty".into()),
        (json!({"op": "replace", "path": "/scope", "value": "a"}), "scope: must be a list of strings".into()),
        (json!({"op": "add", "path": "/scope/0", "value": 1}), "scope[0]: must be a string".into()),
        (
            json!({"op": "replace", "path": "/scope", "value": {"a": 1}}),
            "[1]: must result in strings, numbers, booleans, null and a list of strings within the size limits".into(),
        ),
        (
            json!({"op": "copy", "from": "/scope", "path": "/scope/-"}),
            "[1]: must result in strings, numbers, booleans, null and a list of strings within the size limits".into(),
        ),
        (
            json!({"op": "replace", "path": "/accessTokenValiditySeconds", "value": 43201}),
            "accessTokenValiditySeconds: must be a whole number from 15 to 43200".into(),
        ),
        (
            json!({"op": "replace", "path": "/expirationDate", "value": "2026-01-01"}),
            "expirationDate: must be in the future".into(),
        ),
        (
            json!({"op": "replace", "path": "/userAwareTokenNeverExpires", "value": 1}),
            "userAwareTokenNeverExpires: must be true or false".into(),
        ),
        (
            json!(["replace", "/name", null, "cd"]),
            "body: must be a list of operations such as {\"op\": \"replace\", \"path\": \"/name\", \"value\": \"ci\"}"
                .into(),
        ),
        (
            json!("replace"),
            "body: must be a list of operations such as {\"op\": \"replace\", \"path\": \"/name\", \"value\": \"ci\"}"
                .into(),
        ),
    ] {
        assert_eq!(change(json!([good, operation])).await.map(|change| changed(&change)), Err(words), "{operation}");
    }
    let twice = r#"[{"op": "replace", "path": "/name", "path": "/scope", "value": "a"}]"#;
    let words = SailpointPatch::parse(twice.as_bytes()).unwrap_err().to_string();
    assert_eq!(words, "path: must not be set more than once");
}

#[tokio::test]
async fn token_never_expires_only_if_the_same_patch_acknowledges_it() {
    let acknowledges = json!({"op": "replace", "path": "/userAwareTokenNeverExpires", "value": true});
    let takes_back = json!({"op": "replace", "path": "/userAwareTokenNeverExpires", "value": false});
    // A client library cannot send `"value": null`.
    let clear = [
        json!({"op": "remove", "path": "/expirationDate"}),
        json!({"op": "replace", "path": "/expirationDate", "value": null}),
        json!({"op": "replace", "path": "/expirationDate"}),
        json!({"op": "replace", "path": "/expirationDate", "value": "9999-12-31T23:59:59.999Z"}),
    ];
    let refused =
        "expirationDate: is required, unless userAwareTokenNeverExpires is true for a token that never expires";
    let newer = |ends, operations| async move { change_in(ExpiryPolicy::NeverIfAcknowledged, ends, &operations).await };
    for clear in clear {
        assert_eq!(newer(true, json!([clear])).await.map(|_| ()), Err(refused.into()), "{clear}");
        assert_eq!(newer(true, json!([clear, takes_back])).await.map(|_| ()), Err(refused.into()), "{clear}");
        let change = newer(true, json!([clear, acknowledges])).await.unwrap();
        assert_eq!(change.expiry, Some(Expiry { never: Some(true), ..Expiry::default() }), "{clear}");
        // A token that never expires stays so.
        assert_eq!(
            newer(false, json!([acknowledges, clear])).await.map(|change| changed(&change)),
            Ok(vec![]),
            "{clear}"
        );
    }
    // An acknowledgement alone changes nothing, and withdrawing it requires an expiry.
    assert_eq!(newer(true, json!([acknowledges])).await.map(|change| changed(&change)), Ok(vec![]));
    assert_eq!(newer(false, json!([takes_back])).await.map(|_| ()), Err(refused.into()));
    let set = json!({"op": "replace", "path": "/expirationDate", "value": "2031-01-01"});
    assert_eq!(newer(false, json!([set, takes_back])).await.map(|change| changed(&change)), Ok(vec!["expiry"]));
    // A token that never expires can be renamed without an acknowledgement.
    let rename = json!({"op": "replace", "path": "/name", "value": "cd"});
    assert_eq!(newer(false, json!([rename])).await.map(|change| changed(&change)), Ok(vec!["name"]));
}

#[tokio::test]
async fn older_versions_default_to_six_months_after_creation() {
    // It was created on the first of January.
    for operation in
        [json!({"op": "remove", "path": "/expirationDate"}), json!({"op": "replace", "path": "/expirationDate"})]
    {
        let change = change_in(ExpiryPolicy::SixMonths, true, &json!([operation])).await;
        assert_eq!(change.map(|change| changed(&change)), Ok(vec![]), "the first of July is its expiry already");
        let change = change_in(ExpiryPolicy::SixMonths, false, &json!([operation])).await.unwrap();
        assert_eq!(change.expiry.unwrap().at, Some("2026-07-01T00:00:01Z".parse().unwrap()));
    }
    let late = json!([{"op": "replace", "path": "/expirationDate", "value": "2026-07-02"}]);
    let words =
        "expirationDate: must be at most 6 months after the token's creation, which is 2026-07-01T00:00:01.000Z";
    assert_eq!(change_in(ExpiryPolicy::SixMonths, true, &late).await.map(|_| ()), Err(words.into()));
    let rename = json!([{"op": "replace", "path": "/name", "value": "cd"}]);
    assert_eq!(
        change_in(ExpiryPolicy::SixMonths, false, &rename).await.map(|change| changed(&change)),
        Ok(vec!["name"])
    );
}

#[tokio::test]
async fn copies_of_copies_are_limited() {
    let long = json!({"op": "replace", "path": "/name", "value": "a".repeat(20_000)});
    let copy = json!({"op": "copy", "from": "/name", "path": "/scope/-"});
    let operations: Vec<Value> = [long].into_iter().chain(vec![copy; 900]).collect();
    let words = change(json!(operations)).await.map(|_| ()).unwrap_err();
    assert_eq!(
        words,
        "[3]: must result in strings, numbers, booleans, null and a list of strings within the size limits"
    );
    let short = vec![json!({"op": "add", "path": "/scope/-", "value": "x"}); 300];
    let words = change(json!(short)).await.map(|_| ()).unwrap_err();
    assert_eq!(
        words,
        "[254]: must result in strings, numbers, booleans, null and a list of strings within the size limits"
    );
}

#[tokio::test]
async fn unreadable_token_is_not_found_and_readable_one_is_forbidden() {
    const OWN: usize = 0;
    const OTHERS: usize = 1;
    const MANAGED: usize = 2;
    // A permitted change ends with 503.
    for (scopes, own, others, managed) in [
        (&["sp:my-personal-access-tokens:manage"][..], 503, 404, 404),
        (&["idn:my-personal-access-tokens:manage"], 503, 404, 404),
        (&["sp:managed-personal-access-tokens:manage"], 404, 404, 503),
        (&["sp:all-personal-access-tokens:manage"], 503, 503, 503),
        (&["sp:my-personal-access-tokens:manage", "sp:all-personal-access-tokens:read"], 503, 403, 403),
        (&["sp:all-personal-access-tokens:manage", "other"], 503, 503, 503),
        (&["sp:my-personal-access-tokens:read", "sp:managed-personal-access-tokens:manage"], 403, 404, 503),
        (&["sp:all-personal-access-tokens:read"], 403, 403, 403),
        (&["other"], 403, 403, 403),
    ] {
        let mut fixture = RestFixture::new();
        let caller = fixture.user("ann@example.com", "caller", scopes);
        let other = fixture.user("bob@example.com", "one", &[]);
        let bob = json!({"kind": "User", "name": "bob@example.com"});
        let managed_one = fixture.pat(json!({"owner": bob, "managed": true}), json!({}));
        let router = router(&fixture);
        let expected = [(OWN, &caller, own), (OTHERS, &other, others), (MANAGED, &managed_one, managed)];
        for base in OLDER.into_iter().chain([NEWER]) {
            for (which, token, status) in expected {
                let path = format!("{base}/{}", token.id);
                let rename = json!([{"op": "replace", "path": "/name", "value": "new"}]).to_string();
                let (patched, _) = patch(&router, &caller, &path, &rename).await;
                let (deleted, error) = request(&router, Some(&caller), Method::DELETE, &path, None).await;
                assert_eq!((patched, deleted.status().as_u16()), (status, status), "{scopes:?} {which} {error}");
            }
        }
    }
}

#[tokio::test]
async fn only_the_canonical_id_names_a_token() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("ann@example.com", "caller", &["sp:my-personal-access-tokens:manage"]);
    let other = fixture.user("bob@example.com", "one", &[]);
    let router = router(&fixture);
    let mut answers = Vec::new();
    for id in [
        other.id.to_string(),
        caller.id.hyphenated(),
        "0000000000000000000000000000000A".into(),
        "00000000000000000000000000000009".into(),
        "me".into(),
        "%00".into(),
        "%FF".into(),
        "..%2F..".into(),
        "a".repeat(5_000),
    ] {
        let (response, mut error) =
            request(&router, Some(&caller), Method::DELETE, &format!("{NEWER}/{id}"), None).await;
        assert_eq!(response.status(), 404, "{id}");
        error["trackingId"].take();
        answers.push(error);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
}

const BULK: &str = "/personal-access-tokens/v1/bulk-update";

#[tokio::test]
async fn bulk_update_validates_everything_before_the_first_change() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("ann@example.com", "caller", &["sp:all-personal-access-tokens:manage"]);
    let other = fixture.user("bob@example.com", "one", &[]);
    let router = router(&fixture);
    let ids = json!([caller.id.to_string(), other.id.to_string()]);
    let set = json!([{"op": "replace", "path": "/expirationDate", "value": "2031-01-01"}]);
    let paths = "must be one of /expirationDate, /userAwareTokenNeverExpires";
    let many: Vec<String> = (0..26).map(|number| format!("{number:032x}")).collect();
    for (body, words) in [
        (json!({}), "ids: must be a list of ids".to_owned()),
        (json!({"ids": "a", "patch": set}), "ids: must be a list of ids".into()),
        (json!({"ids": [], "patch": set}), "ids: must have 1 to 25 ids".into()),
        (json!({"ids": many, "patch": set}), "ids: must have 1 to 25 ids".into()),
        (json!({"ids": ["a", "a"], "patch": set}), "ids[1]: is a duplicate".into()),
        (json!({"ids": [" "], "patch": set}), "ids[0]: must be a string that is not blank".into()),
        (json!({"ids": [5], "patch": set}), "ids[0]: must be a string that is not blank".into()),
        (json!({"ids": [caller.id.to_string(), "nobody"], "patch": set}), "ids[1]: token not found".into()),
        (json!({"ids": ids}), "patch: must have at least one operation".into()),
        (json!({"ids": ids, "patch": []}), "patch: must have at least one operation".into()),
        (
            json!({"ids": ids, "patch": [{"op": "replace", "path": "/name", "value": "a"}]}),
            format!("patch[0].path: {paths}"),
        ),
        (
            json!({"ids": ids, "patch": [{"op": "replace", "path": "/scope", "value": []}]}),
            format!("patch[0].path: {paths}"),
        ),
        (
            json!({"ids": ids, "patch": [{"op": "test", "path": "/name", "value": "a"}]}),
            format!("patch[0].path: {paths}"),
        ),
        (
            json!({"ids": ids, "patch": [{"op": "remove", "path": "/expirationDate"}]}),
            "expirationDate: is required, unless userAwareTokenNeverExpires is true for a token that never expires"
                .into(),
        ),
        (
            json!({"ids": ids, "patch": [{"op": "replace", "path": "/expirationDate", "value": "2020-01-01"}]}),
            "expirationDate: must be in the future".into(),
        ),
        (json!([[], []]), "body: must be an object with ids and patch, which is a list of operations".into()),
        (
            json!({"ids": ids, "patch": {}}),
            "body: must be an object with ids and patch, which is a list of operations".into(),
        ),
    ] {
        for method in [Method::PATCH, Method::POST] {
            let (response, error) =
                request(&router, Some(&caller), method, BULK, Some(("application/json", &body.to_string()))).await;
            assert_eq!((response.status().as_u16(), cause(&error)), (400, &*words), "{body}");
        }
    }
    let right = json!({"ids": ids, "patch": set}).to_string();
    for method in [Method::PATCH, Method::POST] {
        let (response, _) = request(&router, Some(&caller), method, BULK, Some(("application/json", &right))).await;
        assert_eq!(response.status(), 503);
    }
}

#[tokio::test]
async fn bulk_update_requires_the_permission_to_manage_all() {
    for (scope, status) in [
        ("sp:all-personal-access-tokens:manage", 503),
        ("idn:all-personal-access-tokens:manage", 503),
        ("sp:all-personal-access-tokens:read", 403),
        ("sp:my-personal-access-tokens:manage", 403),
        ("sp:managed-personal-access-tokens:manage", 403),
    ] {
        let mut fixture = RestFixture::new();
        let caller = fixture.user("ann@example.com", "caller", &[scope]);
        let patch = [{ json!({"op": "replace", "path": "/expirationDate", "value": "2031-01-01"}) }];
        let body = json!({"ids": [caller.id.to_string()], "patch": patch}).to_string();
        let (response, _) =
            request(&router(&fixture), Some(&caller), Method::PATCH, BULK, Some(("application/json", &body))).await;
        assert_eq!(response.status(), status, "{scope}");
    }
}

fn operations() -> impl Strategy<Value = Value> {
    let path = prop::sample::select(vec![
        "/name",
        "/scope",
        "/scope/-",
        "/scope/0",
        "/scope/7",
        "/accessTokenValiditySeconds",
        "/expirationDate",
        "/userAwareTokenNeverExpires",
        "/id",
        "",
        "/",
        "//",
        "/~",
        "/scope/-1",
        "/scope/01",
        "/scope/99999999999999999999",
    ]);
    let value = prop_oneof![
        Just(json!(null)),
        Just(json!("2031-01-01")),
        Just(json!("x")),
        Just(json!(["x"])),
        Just(json!({"x": []})),
        Just(json!([[]])),
        Just(json!(60)),
        Just(json!(1e300)),
        any::<bool>().prop_map(|flag| json!(flag)),
    ];
    let op = prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test", "x"]);
    let operation = (op, path.clone(), path, value)
        .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}));
    prop::collection::vec(operation, 0..8).prop_map(Value::Array)
}

proptest! {
    #[test]
    fn arbitrary_patch_neither_panics_nor_results_in_an_invalid_token(operations in operations(), ends in any::<bool>(), newer in any::<bool>()) {
        let policy = if newer { ExpiryPolicy::NeverIfAcknowledged } else { ExpiryPolicy::SixMonths };
        if let Ok(change) = block_on(change_in(policy, ends, &operations)) {
            prop_assert!(change.display_name.is_none_or(|name| !name.trim().is_empty()));
            prop_assert!(change.scopes.is_none_or(|scopes| scopes.len() <= 64));
            let seconds = change.access_token_validity.flatten().map(|length| length.as_secs());
            prop_assert!(seconds.is_none_or(|seconds| (15..=43_200).contains(&seconds)));
            if let Some(expiry) = change.expiry {
                prop_assert!(expiry.at.is_some() != (expiry.never == Some(true)));
                prop_assert!(newer || expiry.at.is_some());
                prop_assert!(expiry.at.is_none_or(|at| at > NOW.parse().unwrap()));
            }
        }
    }

    #[test]
    fn arbitrary_body_does_not_panic(text in "[\\[\\]{}\":,a-z0-9/~ ]{0,80}") {
        let _ = (SailpointPatch::parse(text.as_bytes()).is_ok(), body::bulk_update(text.as_bytes()).is_ok());
    }
}
