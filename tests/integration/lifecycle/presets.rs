//! Presets and templates: additional keys in the Secret.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use pat_operator::api::CredentialState::{Active, Grace};
use serde_json::{Value, json};

use super::observe::{after, assert_rests, conditions, credentials, end_of, id_of, is_anywhere, reasons, revision};
use crate::support::stage::Stage;

/// A preset with its keys for a user name and token, and its keys without a live token.
struct Case {
    preset: &'static str,
    host: Option<&'static str>,
    type_: &'static str,
    values: fn(&str, &str) -> Vec<(&'static str, String)>,
    without_token: &'static [(&'static str, &'static str)],
}

const PRESETS: [Case; 5] = [
    Case {
        preset: "BasicAuth",
        host: None,
        type_: "kubernetes.io/basic-auth",
        values: |user, token| vec![("username", user.into()), ("password", token.into())],
        without_token: &[("password", ""), ("username", "")],
    },
    Case {
        preset: "DockerConfigJson",
        host: Some("registry.example.com:5000"),
        type_: "kubernetes.io/dockerconfigjson",
        values: |user, token| {
            let auth = STANDARD.encode(format!("{user}:{token}"));
            let entry = json!({"username": user, "password": token, "auth": auth});
            vec![(".dockerconfigjson", json!({"auths": {"registry.example.com:5000": entry}}).to_string())]
        },
        without_token: &[(".dockerconfigjson", r#"{"auths":{}}"#)],
    },
    Case {
        preset: "Netrc",
        host: Some("git.example.com"),
        type_: "Opaque",
        values: |user, token| vec![(".netrc", format!("machine git.example.com login {user} password {token}\n"))],
        without_token: &[],
    },
    Case {
        preset: "Npmrc",
        host: Some("npm.example.com/team"),
        type_: "Opaque",
        values: |_, token| vec![(".npmrc", format!("//npm.example.com/team/:_authToken={token}\n"))],
        without_token: &[],
    },
    Case {
        preset: "GitCredentials",
        host: Some("git.example.com"),
        type_: "Opaque",
        values: |user, token| {
            let user = user.replace('/', "%2F");
            vec![(".git-credentials", format!("https://{user}:{token}@git.example.com\n"))]
        },
        without_token: &[],
    },
];

/// Parses values that are JSON, and keeps others as text.
fn parse_json_values(data: BTreeMap<String, String>) -> BTreeMap<String, Value> {
    let read = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    data.into_iter().map(|(key, text)| (key, read(text))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn presets_render_valid_data_with_and_without_a_token() {
    let mut stage = Stage::new("preset").await;
    for case in PRESETS {
        let name = &case.preset.to_lowercase();
        for user in [None, Some("robot")] {
            let mut template = json!({"preset": case.preset});
            if let Some(host) = case.host {
                template["host"] = json!(host);
            }
            if let Some(user) = user
                && case.preset != "Npmrc"
            {
                template["username"] = json!(user);
            }
            let text = user.map_or_else(|| format!("{}/{name}", stage.namespace.name()), str::to_owned);
            let expected = |token: &str| {
                let mut data: BTreeMap<String, String> =
                    (case.values)(&text, token).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                data.insert("token".into(), token.into());
                parse_json_values(data)
            };
            let spec = |more: Value| {
                let mut spec = json!({"secret": {"template": template}});
                spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                spec
            };
            stage.apply(name, spec(json!({}))).await;
            stage.settle(name).await;
            let first = stage.value(name, "token").await;
            assert_eq!(parse_json_values(stage.data(name).await), expected(&first), "{name}");
            let secret = stage.secret(name).await.unwrap();
            assert_eq!(secret.type_.as_deref(), Some(case.type_), "{name}");
            assert_rests(&mut stage, name).await;

            stage.advance("1h");
            let line = stage.now();
            stage.apply(name, spec(json!({"rotateIfIssuedBefore": line}))).await;
            stage.settle(name).await;
            let second = stage.value(name, "token").await;
            assert_ne!(first, second, "{name}");
            assert_eq!(parse_json_values(stage.data(name).await), expected(&second), "{name}: rotated in every key");
            assert!(!is_anywhere(&stage, &first).await, "{name}");

            stage.apply(name, spec(json!({"revoked": true}))).await;
            stage.settle(name).await;
            let expected =
                case.without_token.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(stage.data(name).await, expected, "{name}: empty but valid");
            assert!(!is_anywhere(&stage, &second).await, "{name}");
            assert_rests(&mut stage, name).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_auth_password_can_be_the_token_key() {
    let stage = Stage::new("preset-password").await;
    let secret = json!({"key": "password", "template": {"preset": "BasicAuth", "username": "robot"}});
    stage.apply("app", json!({"secret": secret})).await;
    stage.settle("app").await;
    let token = stage.value("app", "password").await;
    assert!(stage.accepts("app", &token).await);
    assert_eq!(stage.data("app").await, [("password".into(), token), ("username".into(), "robot".into())].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn template_follows_its_variables_without_a_mint() {
    let mut stage = Stage::new("template").await;
    let config = concat!(
        "token={{ token }}\nold={{ previousToken }}\nids={{ id }},{{ previousId }}\nowner={{ owner }}\n",
        "name={{ displayName | tojson }}\nuntil={{ expiresAt }}\n"
    );
    let json_text =
        r#"{"t":{{ token | tojson }},"b":"{{ token | b64encode }}","u":"{{ owner | urlencode }}","{{ "{{" }}":1}"#;
    let spec = |stage: &Stage, name: &str, days: &str, line: Option<pat_operator::api::Time>| {
        let mut spec = json!({
            "displayName": name,
            "gracePeriod": "1d",
            "expiry": {"at": after(stage, days).floor_second()},
            "secret": {"previousKey": "former", "template": {"data": {"config": config, "config.json": json_text}}},
        });
        if let Some(line) = line {
            spec["rotateIfIssuedBefore"] = json!(line);
        }
        spec
    };
    let namespace = stage.namespace.name().to_owned();
    let expected = |token: &str, old: &str, ids: &str, name: &str, until: &str| {
        let config =
            format!("token={token}\nold={old}\nids={ids}\nowner=va:{namespace}/app\nname=\"{name}\"\nuntil={until}\n");
        let owner = format!("va%3A{namespace}%2Fapp");
        let parsed = json!({"t": token, "b": STANDARD.encode(token), "u": owner, "{{": 1});
        (config, parsed)
    };
    let found = async |stage: &Stage| {
        let parsed: Value = serde_json::from_str(&stage.value("app", "config.json").await).expect("valid JSON");
        (stage.value("app", "config").await, parsed)
    };

    stage.apply("app", spec(&stage, "one", "60d", None)).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    let first_id = id_of(&stage, "app", 1).await;
    let until = after(&stage, "60d").floor_second().to_string();
    assert_eq!(found(&stage).await, expected(&first, "", &format!("{first_id},"), "one", &until));
    assert_rests(&mut stage, "app").await;

    stage.apply("app", spec(&stage, "two", "50d", None)).await;
    stage.settle("app").await;
    let until = after(&stage, "50d").floor_second().to_string();
    assert_eq!(found(&stage).await, expected(&first, "", &format!("{first_id},"), "two", &until));
    assert_eq!(revision(&stage, "app").await, 1, "a changed variable causes no mint");
    assert_eq!(reasons(&stage, "app").await, [""; 0]);
    assert_rests(&mut stage, "app").await;

    stage.advance("1h");
    stage.apply("app", spec(&stage, "two", "40d", Some(stage.now()))).await;
    let until = after(&stage, "40d").floor_second().to_string();
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    let second_id = id_of(&stage, "app", 2).await;
    let ids = format!("{second_id},{first_id}");
    assert_eq!(found(&stage).await, expected(&second, &first, &ids, "two", &until));
    assert_eq!(stage.value("app", "former").await, first);
    assert_rests(&mut stage, "app").await;

    stage.live_until("app", end_of(&stage, "app", 1).await.unwrap()).await;
    stage.settle("app").await;
    assert_eq!(found(&stage).await, expected(&second, "", &format!("{second_id},"), "two", &until));
    assert!(!is_anywhere(&stage, &first).await);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_template_is_reported_and_spares_the_secret() {
    let cases = [
        ("unknown-variable", "{{ tokn }}", "line 1, column 4"),
        ("unknown-filter", "a\nb {{ token | base64 }}", "line 2, column 14"),
        ("no-end", "x {{ token", "line 1, column 3"),
        ("no-logic", "\n\n{{ if token }}", "line 3, column 4"),
    ];
    let mut stage = Stage::new("template-bad").await;
    let spec = |text: &str| json!({"rotation": {"interval": "10d"}, "secret": {"labels": {"a": "b"}, "template": {"data": {"config": text}}}});
    for (name, text, place) in cases {
        stage.apply(name, spec("good={{ token }}")).await;
        stage.settle(name).await;
        let token = stage.value(name, "token").await;
        let secret = stage.secret(name).await;
        let mut bad = spec(text);
        bad["secret"]["labels"] = json!({"other": "label"});
        bad["secret"]["key"] = json!("other-key");
        let pat = stage.apply(name, bad.clone()).await;
        stage.settle(name).await;
        assert_eq!(stage.secret(name).await, secret, "{name}: the Secret is untouched");
        assert_eq!(conditions(&stage, name).await, ["Ready=False InvalidSpec", "Stalled=True InvalidSpec"], "{name}");
        let status = stage.status(name).await;
        assert_eq!(status.observed_generation, pat.metadata.generation, "{name}");
        assert_eq!(status.secret_name.as_deref(), Some(name));
        for condition in &status.conditions {
            let start = format!("spec.secret.template.data[config]: {place}: ");
            assert!(condition.message.starts_with(&start), "{name}: {}", condition.message);
        }
        assert!(stage.accepts(name, &token).await, "{name}: the token stays valid");
        assert_eq!(reasons(&stage, name).await, ["InvalidSpec"], "{name}");
        assert_rests(&mut stage, name).await;

        // A rotation becomes due: no token is minted, because it could not be written.
        stage.live_until(name, after(&stage, "11d")).await;
        stage.settle(name).await;
        assert_eq!(credentials(&stage, name).await, [(1, Active)], "{name}");
        assert_eq!(stage.secret(name).await, secret, "{name}");

        stage.apply(name, spec("fixed={{ token }}")).await;
        stage.settle(name).await;
        let second = stage.value(name, "token").await;
        assert_ne!(token, second, "{name}: overdue");
        assert_eq!(stage.value(name, "config").await, format!("fixed={second}"), "{name}");
        assert_eq!(credentials(&stage, name).await, [(2, Active), (1, Grace)], "{name}: the PAT recovers");
        assert_eq!(conditions(&stage, name).await, ["Ready=True Issued", "InGracePeriod=True PreviousCredentialLive"]);
        assert_eq!(reasons(&stage, name).await, ["InvalidSpec", "Rotated"], "{name}");
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reverted_template_does_not_write_the_secret() {
    let mut stage = Stage::new("template-back").await;
    let spec = |text: &str| json!({"secret": {"template": {"data": {"config": text}}}});
    stage.apply("app", spec("good={{ token }}")).await;
    stage.settle("app").await;
    let secret = stage.secret("app").await;
    stage.apply("app", spec("{{ bad }}")).await;
    stage.settle("app").await;
    stage.apply("app", spec("good={{ token }}")).await;
    stage.settle("app").await;
    assert_eq!(stage.secret("app").await, secret);
    assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_template_does_not_block_revocation_or_expiry() {
    let mut stage = Stage::new("template-end").await;
    let spec = |text: &str, more: Value| {
        let mut spec = json!({"secret": {"template": {"data": {"config": text}}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    for (name, more, reason) in [
        ("revoked", json!({"revoked": true}), "Revoked"),
        ("expired", json!({"expiry": {"at": "2001-01-01T00:00:00Z"}}), "Expired"),
        ("by-time", json!({"revokeIfIssuedBefore": after(&stage, "2h30m")}), "InvalidSpec"),
    ] {
        stage.apply(name, spec("good={{ token }}", json!({}))).await;
        stage.settle(name).await;
        let token = stage.value(name, "token").await;
        stage.apply(name, spec("{{ bad }}", json!({}))).await;
        stage.settle(name).await;
        stage.advance("1h");
        stage.apply(name, spec("{{ bad }}", more)).await;
        stage.settle(name).await;
        assert!(!stage.accepts(name, &token).await, "{name}");
        assert!(!is_anywhere(&stage, &token).await, "{name}: the Secret is cleared");
        assert_eq!(stage.ready(name).await, ("False".into(), reason.into()), "{name}");
        assert_eq!(credentials(&stage, name).await, [], "{name}");
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_blocked_by_a_template_warns_of_expiry() {
    let mut stage = Stage::new("template-warn").await;
    let spec =
        |text: &str| json!({"rotation": {"interval": "10d"}, "secret": {"template": {"data": {"config": text}}}});
    stage.apply("app", spec("good={{ token }}")).await;
    stage.settle("app").await;
    stage.apply("app", spec("{{ bad }}")).await;
    stage.settle("app").await;
    let end = end_of(&stage, "app", 1).await.unwrap();
    stage.live_until("app", end.minus(super::observe::length("1d"))).await;
    stage.settle("app").await;
    assert_eq!(
        conditions(&stage, "app").await,
        ["Ready=False InvalidSpec", "Stalled=True InvalidSpec", "ExpiringSoon=True ExpiryNear"]
    );
    let message = stage.condition("app", pat_operator::api::ConditionType::ExpiringSoon).await.unwrap().message;
    assert!(!message.contains("suspend"), "the message does not mention suspend: {message}");
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_issued_with_an_invalid_template() {
    let mut stage = Stage::new("template-first").await;
    let spec = |text: &str| json!({"secret": {"template": {"data": {"config": text}}}});
    stage.apply("app", spec("{{ bad }}")).await;
    assert_eq!(stage.settle("app").await, None, "no further run is due");
    assert_eq!(stage.secret("app").await, None);
    assert_eq!(credentials(&stage, "app").await, []);
    assert_eq!(conditions(&stage, "app").await, ["Ready=False InvalidSpec", "Stalled=True InvalidSpec"]);
    let status = stage.status("app").await;
    assert_eq!((status.first_issued_at, status.revision), (None, None));
    assert_rests(&mut stage, "app").await;
    stage.advance("10d");
    stage.apply("app", spec("t={{ token }}")).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    assert_eq!(stage.status("app").await.first_issued_at, Some(stage.now()));
}
