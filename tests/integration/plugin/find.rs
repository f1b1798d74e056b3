//! `find`: from a leaked text or an ID to the object that issued the token.

use serde_json::{Value, json};

use super::runner::PluginRunner;
use crate::support::process::place::hash;

/// The fields of the row that begins with this ID.
fn row<'a>(table: &'a str, id: &str) -> Vec<&'a str> {
    let row = table.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{id} is not in:\n{table}"));
    row.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_in_a_leaked_text_are_found() {
    let (runner, _operator) = PluginRunner::with_operator("pat-find").await;
    let place = &runner.place;
    place.apply("ci", json!({"tokenPrefix": "shop", "rotation": {"interval": "10d"}})).await;
    place.apply("bob", json!({"owner": {"kind": "User", "name": "bob@example.com"}})).await;
    let (old, bob) = (place.ready("ci").await, place.ready("bob").await);
    let new = place.rotated("ci", json!({"tokenPrefix": "shop", "rotation": {"interval": "10d"}})).await;
    let id = |token: &str| token.split_once('_').expect("a token").1[..12].to_owned();

    let text = format!("log: Authorization: Bearer {old}\\nx={new}%0A\n \"{bob}\" {old} kpat_not-a-token");
    let found = runner.piped("find", &text).success();
    assert_eq!(found.lines().count(), 4, "{found}");
    let (namespace, own) = (place.name(), format!("va:{}/ci", place.name()));
    assert_eq!(row(&found, &id(&old))[1..6], [namespace, "ci", &own, "Grace", "1"], "{found}");
    assert_eq!(row(&found, &id(&new))[1..6], [namespace, "ci", &own, "Active", "2"], "{found}");
    assert_eq!(row(&found, &id(&bob))[1..6], [namespace, "bob", "bob@example.com", "Active", "1"], "{found}");
    // The last column changes with the time.
    let everywhere = runner.piped("find -A", &text).success();
    let by_id = runner.pat(&format!("find {} {}", id(&new), hash(&bob))).success();
    for (table, tokens) in [(&everywhere, &[&old, &new, &bob][..]), (&by_id, &[&new, &bob])] {
        assert_eq!(table.lines().count(), 1 + tokens.len(), "{table}");
        tokens.iter().for_each(|token| assert_eq!(row(table, &id(token))[..6], row(&found, &id(token))[..6]));
    }
    let value: Value = serde_json::from_str(&runner.piped("find -o json", &text).success()).unwrap();
    let first = &value["items"][0];
    for (field, expected) in [
        ("id", json!(id(&old))),
        ("sha256", json!(hash(&old))),
        ("found", json!(true)),
        ("valid", json!(true)),
        ("name", json!("ci")),
        ("revision", json!(1)),
    ] {
        assert_eq!(first[field], expected, "{field}: {first}");
    }

    runner.pat(&format!("revoke ci --yes --id {}", id(&new))).success();
    place.until("ci", "reissued", |status| status.revision == Some(3)).await;
    let revoked = runner.piped("find", &new).success();
    assert_eq!(row(&revoked, &id(&new))[1..5], [namespace, "ci", &own, "RevokedById"], "{revoked}");
    for output in [found, by_id, revoked, value.to_string()] {
        assert!([&old, &new, &bob].iter().all(|token| !output.contains(token.as_str())), "a token is printed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_token_is_an_error() {
    let runner = PluginRunner::new("pat-lost").await;
    let token = pat_operator::token::Token::mint(&"kpat".parse().unwrap()).unwrap();
    let (text, id) = (token.expose().to_owned(), token.id().to_string());
    let here = format!("token {id} not found in namespace {}", runner.place.name());
    let ran = runner.piped("find", &text);
    assert!(ran.code == 1 && ran.out.is_empty() && ran.err.contains(&here) && ran.err.contains("use -A"), "{ran:?}");
    assert!(runner.pat(&format!("find {id}")).failed(1).contains(&here));
    let ran = runner.piped("find -o json", &text);
    let value: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &value["items"][0]["found"], &value["items"][0]["id"]), (1, &json!(false), &json!(id)));

    let cut = &text[..text.len() - 1];
    for (text, part) in [("", "the text contains no token"), (cut, "no token with a valid checksum")] {
        let err = runner.piped("find", text).failed(1);
        assert!(err.contains(part) && err.contains("can only be found by its ID"), "{err}");
    }
    // A token in an argument is refused without a request, and without repeating it.
    for (word, part) in
        [(&text[..], "pass the token to `kubectl pat find -A` on stdin"), (cut, "pass the text on stdin")]
    {
        let err = runner.pat(&format!("find {word}")).failed(2);
        assert!(err.contains(part) && !err.contains(word), "{err}");
    }
}
