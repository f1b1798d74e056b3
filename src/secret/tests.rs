//! Rendering of specs to the bytes of a Secret, and what they must never contain.

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::{collection::vec, prelude::*, sample::select, sample::subsequence};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    placeholder::{TemplateFilter, TemplateVariable},
    *,
};
use crate::api::{InvalidField, PersonalAccessTokenSpec, Time, crd};

const TOKEN: &str = "kpat_3Qk0000000AbxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxA1b2C3";
const PREVIOUS: &str = "kpat_1Zz0000000CdyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyD4e5F6";
const OWNER: &str = "va:team/app";

// ---- helpers

fn spec(secret: Value) -> PersonalAccessTokenSpec {
    serde_json::from_value(json!({ "secret": secret })).unwrap()
}

fn read(secret: Value) -> Result<Layout, InvalidField> {
    Layout::read("team", "app", OWNER, &spec(secret))
}

fn layout(secret: Value) -> Layout {
    read(secret).unwrap()
}

fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

fn facts() -> TemplateFacts<'static> {
    TemplateFacts {
        id: "3Qk0000000Ab",
        previous_id: Some("1Zz0000000Cd"),
        issued_at: at(0),
        expires_at: Some(at(86_400)),
        remote_id: None,
    }
}

fn render(layout: &Layout) -> Rendered {
    layout.render(TOKEN, Some(PREVIOUS), &facts()).unwrap()
}

fn texts(data: &Rendered) -> Vec<(&str, &str)> {
    data.iter().map(|(key, value)| (key, str::from_utf8(value).unwrap())).collect()
}

// ---- the plain Secret

#[test]
fn default_secret_is_opaque_and_holds_the_token() {
    let layout = Layout::read("team", "app", OWNER, &PersonalAccessTokenSpec::default()).unwrap();
    assert_eq!((layout.name.as_str(), layout.type_.as_str(), layout.key.as_str()), ("app", "Opaque", "token"));
    assert!(layout.labels.is_empty() && layout.annotations.is_empty() && !layout.wants_previous());
    assert_eq!(texts(&render(&layout)), [("token", TOKEN)]);
}

#[test]
fn previous_token_is_kept_under_its_key() {
    let layout = layout(json!({"name": "s", "key": "new", "previousKey": "old", "labels": {"a": "b"}}));
    assert_eq!((layout.name.as_str(), layout.labels["a"].as_str()), ("s", "b"));
    assert!(layout.wants_previous());
    assert_eq!(texts(&render(&layout)), [("new", TOKEN), ("old", PREVIOUS)]);
    assert_eq!(texts(&layout.render(TOKEN, None, &facts()).unwrap()), [("new", TOKEN)]);
}

// ---- presets

#[test]
fn presets_match_what_their_readers_expect() {
    let t = TOKEN;
    for (template, type_, key, value) in [
        (json!({"preset": "BasicAuth"}), "kubernetes.io/basic-auth", "username", "team/app".into()),
        (json!({"preset": "BasicAuth"}), "kubernetes.io/basic-auth", "password", t.into()),
        (json!({"preset": "BasicAuth", "username": "a\"b"}), "kubernetes.io/basic-auth", "username", "a\"b".into()),
        (
            json!({"preset": "Netrc", "host": "h.example"}),
            "Opaque",
            ".netrc",
            format!("machine h.example login team/app password {t}\n"),
        ),
        (json!({"preset": "Npmrc", "host": "h.example"}), "Opaque", ".npmrc", format!("//h.example/:_authToken={t}\n")),
        (
            json!({"preset": "Npmrc", "host": "H:4873/Npm/"}),
            "Opaque",
            ".npmrc",
            format!("//h:4873/Npm/:_authToken={t}\n"),
        ),
        (
            json!({"preset": "Npmrc", "host": "h/npm", "username": "a:b"}),
            "Opaque",
            ".npmrc",
            format!("//h/npm/:_authToken={t}\n"),
        ),
        (
            json!({"preset": "GitCredentials", "host": "h.example"}),
            "Opaque",
            ".git-credentials",
            format!("https://team%2Fapp:{t}@h.example\n"),
        ),
        (
            json!({"preset": "GitCredentials", "host": "h:8443/x.git", "username": "a@b#%"}),
            "Opaque",
            ".git-credentials",
            format!("https://a%40b%23%25:{t}@h:8443/x.git\n"),
        ),
    ] {
        let layout = layout(json!({ "template": template }));
        assert_eq!(layout.type_, type_, "{template}");
        let data = render(&layout);
        assert_eq!(str::from_utf8(data.get(key).unwrap()), Ok(value.as_str()), "{template}");
        assert_eq!(data.get("token"), Some(TOKEN.as_bytes()), "the bare token is there too: {template}");
    }
}

#[test]
fn docker_config_json_reads_back() {
    for (template, username) in [
        (json!({"preset": "DockerConfigJson", "host": "h.example"}), "team/app"),
        (json!({"preset": "DockerConfigJson", "host": "index.docker.io/v1/", "username": "robot"}), "robot"),
        (json!({"preset": "DockerConfigJson", "host": "h.example:5000", "username": "r\"\\o"}), "r\"\\o"),
    ] {
        let host = template["host"].as_str().unwrap().to_owned();
        let layout = layout(json!({ "template": template }));
        assert_eq!(layout.type_, "kubernetes.io/dockerconfigjson");
        let data = render(&layout);
        assert_eq!(data.keys().collect::<Vec<_>>(), [".dockerconfigjson", "token"]);
        let config: Value = serde_json::from_slice(data.get(".dockerconfigjson").unwrap()).unwrap();
        let auth = STANDARD.encode(format!("{username}:{TOKEN}"));
        assert_eq!(config, json!({"auths": {host: {"username": username, "password": TOKEN, "auth": auth}}}));
    }
}

#[test]
fn basic_auth_may_hold_its_bare_token_under_password() {
    let layout = layout(json!({"key": "password", "template": {"preset": "BasicAuth"}}));
    assert_eq!(texts(&render(&layout)), [("password", TOKEN), ("username", "team/app")]);
}

#[test]
fn owner_with_a_colon_needs_an_explicit_username() {
    let read = |template| Layout::read("team", "app", "oidc:alice", &spec(json!({ "template": template })));
    for preset in ["BasicAuth", "DockerConfigJson", "Netrc", "GitCredentials"] {
        let error = read(json!({"preset": preset, "host": "h"})).unwrap_err();
        assert_eq!(error.field, "spec.secret.template.username");
        assert!(error.message.starts_with("the default, the owner's name, cannot be used: "), "{error}");
        assert!(read(json!({"preset": preset, "host": "h", "username": "alice"})).is_ok());
    }
    assert!(read(json!({"preset": "Npmrc", "host": "h"})).is_ok());
}

// ---- templates

#[test]
fn every_variable_has_its_value() {
    let spec: PersonalAccessTokenSpec = serde_json::from_value(json!({
        "displayName": "The \"app\"",
        "scopes": ["repo:read", "repo:write"],
        "audiences": ["a", "b"],
        "secret": {"previousKey": "old", "template": {"data": {"x": TemplateVariable::ALL.iter().map(|v| format!("{0}={{{{ {0} }}}}\n", v.name())).collect::<String>()}}},
    }))
    .unwrap();
    let layout = Layout::read("team", "app", OWNER, &spec).unwrap();
    assert_eq!(
        texts(&render(&layout))[2],
        (
            "x",
            format!(
                "token={TOKEN}\npreviousToken={PREVIOUS}\nid=3Qk0000000Ab\npreviousId=1Zz0000000Cd\nowner=va:team/app\n\
                 username=va:team/app\ndisplayName=The \"app\"\nnamespace=team\nname=app\nscopes=repo:read repo:write\n\
                 audiences=a b\nissuedAt=1970-01-01T00:00:00Z\nexpiresAt=1970-01-02T00:00:00Z\nremoteId=\n"
            )
            .as_str()
        )
    );
    let bare = layout.render(TOKEN, None, &TemplateFacts { expires_at: None, ..facts() }).unwrap();
    let text = str::from_utf8(bare.get("x").unwrap()).unwrap();
    assert!(
        text.contains("\npreviousToken=\n")
            && text.contains("\npreviousId=\n")
            && text.ends_with("\nexpiresAt=\nremoteId=\n")
    );
}

#[test]
fn display_name_defaults_to_the_object_name() {
    let layout = layout(json!({"template": {"data": {"x": "{{ displayName }}"}}}));
    assert_eq!(texts(&render(&layout))[1], ("x", "app"));
}

#[test]
fn too_large_data_is_refused_when_the_spec_is_read() {
    let text = |length| "x".repeat(length);
    let read = |last: usize| {
        let data = json!({"a": text(16_384), "b": text(16_384), "c": text(16_384), "d": text(last)});
        read(json!({ "template": { "data": data } }))
    };
    // The stand-in for the token has 77 bytes.
    assert!(read(16_384 - 77).is_ok());
    let error = read(16_384 - 76).unwrap_err();
    assert_eq!(error.field, "spec.secret.template.data[d]");
    assert!(error.message.contains("64 KiB"), "{error}");
}

#[test]
fn templated_docker_config_is_validated() {
    let read = |text: &str| {
        read(json!({
            "type": "kubernetes.io/dockerconfigjson",
            "previousKey": "old",
            "template": {"data": {".dockerconfigjson": text}},
        }))
    };
    for text in [
        r#" {"auths":{"h":{"username":"u","password":"{{ token }}"}}} "#,
        r#"{"auths":{"h":{"auth":{{ token | b64encode | tojson }}}},"credHelpers":{"x":{{ expiresAt | tojson }}}}"#,
    ] {
        assert!(read(text).is_ok(), "{text}");
    }
    for text in [
        "",
        "{}",
        r#"[{"auths":{}}]"#,
        r#"[{}]"#,
        r#"{"auths":[]}"#,
        r#"{"auths":null}"#,
        r#"{"auths":{}} x"#,
        r#"{"auths":{"h":{"password":{{ token }}}}}"#,
        r#"{"auths":{},"id":{{ id }}}"#,
        r#"{"auths":{{{"{"}}},"only with a previous one":{{ previousToken }}}"#,
        r#"{"auths":{},"only without an end":[{{ expiresAt }}]}"#,
        r#"{"auths":{},"only without a previous one":[{{ previousToken }}]}"#,
        r#"{"auths":{},"{{ previousId }}auths":"twice without a previous one"}"#,
        r#"{"auths":{},"only with an end":"\u{{ expiresAt }}"}"#,
        r#"{"auths":{},"only with some tokens":"\u{{ token }}"}"#,
        r#"{"auths":{},"only with some ids":"\u{{ id }}"}"#,
    ] {
        let error = read(text).unwrap_err();
        assert_eq!(error.field, "spec.secret.template.data[.dockerconfigjson]", "{text}");
    }
}

// ---- what is refused

/// Checks that each `spec.secret` is refused because of this field, with this part of a message that admission uses too.
fn assert_refused<const N: usize>(cases: [(Value, &str, &str); N]) {
    let crd = serde_json::to_string(&crd::crd()).unwrap();
    for (secret, field, message) in cases {
        let error = read(secret.clone()).expect_err(&secret.to_string());
        assert_eq!(error.field, format!("spec.secret.{field}"), "{secret}: {error}");
        assert!(error.message.contains(message), "{secret}: {error}");
        assert!(crd.contains(&error.message), "admission says something else: {secret}: {error}");
    }
}

#[test]
fn a_key_with_two_values_is_refused_as_by_admission() {
    let same = "previousKey must differ from key";
    let defined = "template.data may not define the keys";
    let preset = "the preset writes this key";
    assert_refused([
        (json!({"key": "a", "previousKey": "a"}), "previousKey", same),
        (json!({"previousKey": "token"}), "previousKey", same),
        (json!({"template": {"data": {"token": ""}}}), "template", defined),
        (json!({"previousKey": "a", "template": {"data": {"a": ""}}}), "template", defined),
        (json!({"key": "username", "template": {"preset": "BasicAuth"}}), "key", preset),
        (json!({"previousKey": "password", "template": {"preset": "BasicAuth"}}), "previousKey", preset),
        (json!({"key": ".netrc", "template": {"preset": "Netrc", "host": "h"}}), "key", preset),
    ]);
}

#[test]
fn an_incomplete_or_contradictory_template_is_refused_as_by_admission() {
    let needs_previous = "a template that uses previousToken or previousId needs previousKey";
    let one = "set exactly one of";
    let only_presets = "template.host and template.username are only for presets";
    assert_refused([
        (json!({"template": {"data": {"a": "{{ previousToken }}"}}}), "template", needs_previous),
        (json!({"template": {"data": {"a": "{{ previousId }}"}}}), "template", needs_previous),
        (json!({"template": {}}), "template", one),
        (json!({"template": {"preset": "BasicAuth", "data": {"a": ""}}}), "template", one),
        (json!({"template": {"host": "h", "data": {"a": ""}}}), "template", only_presets),
        (json!({"template": {"username": "u", "data": {"a": ""}}}), "template", only_presets),
        (json!({"template": {"preset": "Npmrc"}}), "template.host", "this preset needs template.host"),
    ]);
}

#[test]
fn a_type_that_does_not_fit_is_refused_as_by_admission() {
    let docker = "kubernetes.io/dockerconfigjson";
    let unknown = "type must be Opaque, ";
    let preset = "type does not match the preset";
    let keys = "this type requires certain keys";
    assert_refused([
        (json!({"type": "kubernetes.io/tls"}), "type", unknown),
        (json!({"type": "kubernetes.io/service-account-token"}), "type", unknown),
        (json!({"type": "bootstrap.kubernetes.io/token"}), "type", unknown),
        (json!({"type": "pat-operator.io/x"}), "type", unknown),
        (json!({"type": "opaque"}), "type", unknown),
        (json!({"type": "Opaque", "template": {"preset": "BasicAuth"}}), "type", preset),
        (json!({"type": "example.com/x", "template": {"preset": "BasicAuth"}}), "type", preset),
        (json!({"type": docker, "template": {"preset": "Npmrc", "host": "h"}}), "type", preset),
        (json!({"type": docker}), "type", keys),
        (json!({"type": docker, "key": ".dockerconfigjson"}), "type", keys),
        (json!({"type": "kubernetes.io/basic-auth", "template": {"data": {"a": ""}}}), "type", keys),
    ]);
}

#[test]
fn reserved_labels_and_annotations_are_refused_as_by_admission() {
    let labels = "labels under pat-operator.io/";
    assert_refused([
        (json!({"labels": {"pat-operator.io/x": ""}}), "labels", labels),
        (json!({"labels": {"app.kubernetes.io/managed-by": "me"}}), "labels", labels),
        (json!({"annotations": {"x.pat-operator.io/x": ""}}), "annotations", "annotations under pat-operator.io/"),
    ]);
}

#[test]
fn hosts_and_usernames_that_a_preset_cannot_hold_are_refused_as_by_admission() {
    let preset = |preset: &str, host: &str| json!({"template": {"preset": preset, "host": host}});
    let user = |preset: &str, user: &str| json!({"template": {"preset": preset, "host": "h", "username": user}});
    let (host, username) = ("template.host", "template.username");
    let plain = "a .netrc supports neither ports nor paths";
    let no_host = "must be a host name without https://";
    assert_refused([
        (preset("Netrc", "h:80"), host, plain),
        (preset("Netrc", "h/x"), host, plain),
        (preset("Npmrc", "h\nx=y"), host, no_host),
        (preset("Npmrc", "https://h"), host, no_host),
        (preset("GitCredentials", "u@h"), host, no_host),
        (preset("GitCredentials", "h:65536"), host, no_host),
        (preset("GitCredentials", "h:+1"), host, no_host),
        (preset("GitCredentials", "h-"), host, no_host),
        (user("Netrc", "a#b"), username, "a .netrc cannot hold"),
        (user("Netrc", "\"a\""), username, "a .netrc cannot hold"),
        (user("Netrc", "a b"), username, "visible ASCII"),
        (user("DockerConfigJson", "a:b"), username, "and without ':'"),
        (user("GitCredentials", ""), username, "must be 1 to 256"),
        (json!({"template": {"preset": "BasicAuth", "username": "a:b"}}), username, "and without ':'"),
    ]);
}

#[test]
fn an_unknown_variable_is_reported_with_its_place() {
    let error = read(json!({"template": {"data": {"a": "x\n{{ toke }}"}}})).unwrap_err();
    assert_eq!(error.field, "spec.secret.template.data[a]");
    let message = "line 2, column 4: unknown variable \"toke\": write one of token, ";
    assert!(error.message.starts_with(message), "{error}");
}

#[test]
fn custom_types_and_names_are_accepted() {
    for secret in [
        json!({"type": "example.com/token"}),
        json!({"type": "mykubernetes.io/token"}),
        json!({"type": "example.com/x", "template": {"preset": "Npmrc", "host": "h"}}),
        json!({"type": "kubernetes.io/basic-auth", "template": {"preset": "BasicAuth"}}),
        json!({"type": "kubernetes.io/basic-auth", "template": {"data": {"username": "me"}}}),
        json!({"labels": {"notpat-operator.io/x": "", "pat-operator.io": ""}}),
    ] {
        assert!(read(secret.clone()).is_ok(), "{secret}");
    }
}

// ---- without a live token

#[test]
fn cleared_secret_has_only_the_keys_its_type_requires() {
    for (type_, left) in [
        ("Opaque", vec![]),
        ("example.com/token", vec![]),
        ("kubernetes.io/basic-auth", vec![("password", ""), ("username", "")]),
        ("kubernetes.io/dockerconfigjson", vec![(".dockerconfigjson", r#"{"auths":{}}"#)]),
    ] {
        assert_eq!(texts(&cleared_data(type_)), left, "{type_}");
    }
}

// ---- hashes

#[test]
fn rendered_data_has_the_hash_of_its_value_hashes() {
    let data = render(&layout(json!({"previousKey": "old"})));
    let sha256 = |text: &str| -> [u8; 32] { Sha256::digest(text).into() };
    assert_eq!(data.hash(), data_hash([("old", sha256(PREVIOUS)), ("token", sha256(TOKEN))].into_iter()));
}

#[test]
fn debug_shows_keys_only() {
    assert_eq!(format!("{:?}", render(&layout(json!({"previousKey": "old"})))), r#"Rendered{"old", "token"}"#);
}

#[test]
fn render_hash_format_is_unchanged() {
    let data = json!({"x": "a {{ token | b64encode }} {{ owner }}"});
    let layout = layout(json!({"previousKey": "old", "labels": {"a": "b"}, "template": {"data": data}}));
    assert_eq!(
        layout.render_hash(&facts()).to_string(),
        "ad12b1bd973184057dab63cd9047fb0d7d700c71a3316318a8ed58269c6e7525"
    );
}

#[test]
fn render_hash_depends_on_everything_but_the_name() {
    let hashes: Vec<_> = [
        json!({}),
        json!({"type": "example.com/x"}),
        json!({"labels": {"a": "b"}}),
        json!({"annotations": {"a": "b"}}),
        json!({"key": "a"}),
        json!({"previousKey": "a"}),
        json!({"template": {"data": {"a": ""}}}),
        json!({"template": {"data": {"b": ""}}}),
        json!({"template": {"data": {"a": "b"}}}),
        json!({"template": {"data": {"a": "{{ token }}"}}}),
        json!({"template": {"data": {"a": "{{ token | tojson }}"}}}),
        json!({"template": {"preset": "BasicAuth"}}),
        json!({"template": {"preset": "BasicAuth", "username": "u"}}),
        json!({"template": {"preset": "DockerConfigJson", "host": "h"}}),
        json!({"template": {"preset": "DockerConfigJson", "host": "i"}}),
        json!({"template": {"preset": "Netrc", "host": "h"}}),
        json!({"template": {"preset": "Npmrc", "host": "h"}}),
        json!({"template": {"preset": "GitCredentials", "host": "h"}}),
        json!({"template": {"preset": "GitCredentials", "host": "h", "username": "u"}}),
    ]
    .into_iter()
    .map(|secret| layout(secret).render_hash(&facts()))
    .collect();
    for (index, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..index].contains(hash), "{index}");
    }
    assert_eq!(layout(json!({"name": "x"})).render_hash(&facts()), hashes[0]);
    let npmrc = json!({"template": {"preset": "Npmrc", "host": "h", "username": "u"}});
    assert_eq!(layout(npmrc).render_hash(&facts()), hashes[16], "an .npmrc has no user name");
}

/// One of two values for everything that a template can show, and for something that it cannot.
#[derive(Clone, Debug)]
struct TemplateInputs([bool; 11]);

impl TemplateInputs {
    fn pick<T>(&self, index: usize, one: T, other: T) -> T {
        if self.0[index] { one } else { other }
    }

    fn layout(&self, secret: &Value) -> Layout {
        let mut spec = spec(secret.clone());
        spec.display_name = self.pick(0, None, Some("App".into()));
        spec.scopes = self.pick(1, vec![], vec!["r".into(), "w".into()]);
        spec.audiences = self.pick(2, vec!["a".into()], vec!["a".into(), "b".into()]);
        spec.description = self.pick(3, None, Some("unrelated".into()));
        let namespace = self.pick(4, "team", "other");
        let owner = self.pick(5, "va:team/app", "alice");
        Layout::read(namespace, self.pick(6, "app", "job"), owner, &spec).unwrap()
    }

    fn facts(&self) -> TemplateFacts<'static> {
        TemplateFacts {
            id: self.pick(7, "3Qk0000000Ab", "3Qk0000000Ac"),
            previous_id: self.pick(8, None, Some("1Zz0000000Cd")),
            issued_at: self.pick(9, at(0), at(1)),
            expires_at: self.pick(10, None, Some(at(86_400))),
            remote_id: None,
        }
    }

    fn data(&self, layout: &Layout) -> Rendered {
        let facts = self.facts();
        layout.render(facts.id, facts.previous_id, &facts).unwrap()
    }
}

fn placeholder() -> impl Strategy<Value = String> {
    (select(TemplateVariable::ALL), vec(select(TemplateFilter::ALL), 0..3)).prop_map(|(variable, filters)| {
        let filters: String = filters.iter().map(|filter| format!(" | {}", filter.name())).collect();
        format!("{{{{ {}{filters} }}}}", variable.name())
    })
}

proptest! {
    /// The ID takes the place of the token, as in the hash.
    #[test]
    fn render_hash_changes_exactly_when_the_data_does(
        template in vec(placeholder(), 0..4).prop_map(|all| all.join(",")),
        inputs in any::<([bool; 11], [bool; 11])>(),
        changed in subsequence((0..11).collect::<Vec<_>>(), 0..3),
        previous in any::<bool>(),
    ) {
        let mut secret = json!({"template": {"data": {"x": template}}});
        if previous || template.contains("previous") {
            secret["previousKey"] = "old".into();
        }
        let one = TemplateInputs(inputs.0);
        let mut other = one.clone();
        changed.iter().for_each(|&index| other.0[index] = inputs.1[index]);
        let layouts = [one.layout(&secret), other.layout(&secret)];
        let same_hash = layouts[0].render_hash(&one.facts()) == layouts[1].render_hash(&other.facts());
        prop_assert_eq!(same_hash, one.data(&layouts[0]) == other.data(&layouts[1]));
    }

    #[test]
    fn every_layout_renders_with_every_token(
        wrapped in any::<bool>(),
        pieces in vec(
            prop_oneof![
                3 => placeholder(),
                3 => placeholder().prop_map(|text| format!("\"{text}\"")),
                6 => select(vec![r#"{"auths":{"#, "}", "}}", ",", r#""x":"#, r#""{{ token }}""#, r#""\u{{ id }}""#, r#""\u{{ token }}""#, "[", "]", "1", "{{", "x"]).prop_map(String::from),
                1 => "[a-z]{0,9000}",
            ],
            0..8,
        ),
        copies in 1..6_usize,
        docker in any::<bool>(),
        token in "[a-z][a-z0-9]{1,14}_[0-9A-Za-z]{61}",
        previous in proptest::option::of("[a-z][a-z0-9]{1,14}_[0-9A-Za-z]{61}"),
        micros in 0..4_000_000_000_000_000_i64,
        ends in any::<bool>(),
    ) {
        let text = if wrapped { format!(r#"{{"auths":{{}},"x":[{}]}}"#, pieces.join(",")) } else { pieces.concat() };
        let data: serde_json::Map<_, _> = (0..copies).map(|n| (format!("x{n}"), text.clone().into())).collect();
        let mut secret = json!({"previousKey": "old", "template": {"data": data}});
        if docker {
            secret["type"] = "kubernetes.io/dockerconfigjson".into();
            secret["template"]["data"][".dockerconfigjson"] = text.into();
        }
        if let Ok(layout) = read(secret) {
            let time = Time::from_micros(micros);
            let facts = TemplateFacts {
                id: &token[token.len() - 61..token.len() - 49],
                previous_id: previous.as_ref().map(|token| &token[token.len() - 61..token.len() - 49]),
                issued_at: time,
                expires_at: ends.then_some(time),
                remote_id: None,
            };
            let data = layout.render(&token, previous.as_deref(), &facts).unwrap();
            prop_assert!(data.iter().map(|(_, value)| value.len()).sum::<usize>() <= MAX_DATA);
        }
    }

    #[test]
    fn preset_values_cannot_break_out_of_their_line(
        preset in select(vec!["Netrc", "Npmrc", "GitCredentials"]),
        host in "[a-zA-Z0-9.:/@ #\n-]{1,12}",
        username in "\\PC{1,8}|[!-~]{1,8}",
    ) {
        let host_is_plain = !host.contains([' ', '\n', '#', '@']);
        if let Ok(layout) = read(json!({"template": {"preset": preset, "host": host, "username": username}})) {
            prop_assert!(host_is_plain);
            let data = render(&layout);
            let (_, value) = texts(&data)[0];
            prop_assert_eq!(value.matches('\n').count(), 1);
            prop_assert!(value.ends_with('\n'));
            match preset {
                "Netrc" => {
                    let words: Vec<_> = value.split_whitespace().collect();
                    prop_assert_eq!(words, ["machine", &host, "login", &username, "password", TOKEN]);
                }
                "Npmrc" => prop_assert_eq!(value.split_once('=').unwrap().1.trim_end(), TOKEN),
                _ => {
                    let (userinfo, rest) = value.strip_prefix("https://").unwrap().split_once('@').unwrap();
                    prop_assert_eq!(rest.trim_end(), &host);
                    let (user, password) = userinfo.split_once(':').unwrap();
                    prop_assert_eq!(percent_encoding::percent_decode_str(user).decode_utf8().unwrap(), username);
                    prop_assert_eq!(password, TOKEN);
                }
            }
        }
    }
}
