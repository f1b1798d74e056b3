//! `plan`, with and without a cluster.

use std::process::Command;

use serde_json::json;

use super::runner::{PLUGIN, PluginRunner, run};

fn offline(words: &[&str], manifest: &str) -> super::runner::CommandResult {
    let mut plugin = Command::new(PLUGIN);
    plugin.env_clear().env("HOME", "/nonexistent").args(words);
    run(plugin, Some(manifest))
}

#[test]
fn manifest_is_planned_without_a_cluster() {
    let manifest = offline(&["create", "ci", "--rotate-every", "7d", "--secret", "ci-token"], "").success();
    let text = offline(&["plan", "-f", "-"], &manifest).success();
    for part in [
        "default/ci",
        "1. mint a token kpat_… in memory",
        "2. write the status: publish the hash of a new token (revision 1)",
        "3. create Secret ci-token (Opaque): the new token under the key token",
        "4. write the status: the token of revision 1 is active",
        "a new token replaces the current one",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn file_without_a_token_is_a_usage_error() {
    for (text, part) in [("kind: Pod", "no PersonalAccessToken of pat-operator.io found"), ("{", "invalid YAML")] {
        let err = offline(&["plan", "-f", "-"], text).failed(2);
        assert!(err.contains(part), "{err}");
    }
    let err = offline(&["plan", "-f", "/nonexistent/file"], "").failed(1);
    assert!(err.contains("/nonexistent/file"), "{err}");
}

/// A manifest with these lines after `metadata: {name: a}`.
fn manifest(rest: &str) -> String {
    format!("apiVersion: pat-operator.io/v1alpha1\nkind: PersonalAccessToken\nmetadata: {{name: a}}\n{rest}")
}

#[test]
fn token_of_another_system_is_planned_with_the_issuer_of_the_file() {
    let token = "apiVersion: pat-operator.io/v1alpha1
kind: PersonalAccessToken
metadata: {name: app, namespace: shop}
spec:
  issuerRef: {kind: ClusterTokenIssuer, name: git}
  gitLab: {project: shop/web}
  scopes: [read_api]
  rotation: {interval: 30d}
";
    let issuer = |rule: &str| {
        format!(
            "---
apiVersion: pat-operator.io/v1alpha1
kind: ClusterTokenIssuer
metadata: {{name: git}}
spec:
  gitLab: {{url: 'https://gitlab.example.com'}}
  auth: {{secretRef: {{name: git}}}}
  policy: {{rules: [{rule}]}}
"
        )
    };
    let plan = |text: &str| offline(&["plan", "-f", "-", "--at", "2030-01-01T00:00:00Z"], text);
    let text = plan(&(token.to_owned() + &issuer("{namespaces: [shop]}"))).success();
    for part in [
        "add the finalizer that keeps the object until its tokens are revoked at the issuer",
        "record the name of a new token (revision 1) at the issuer",
        "ask the issuer for a token for project/shop/web, which ends at 2030-03-02T00:00:00Z",
        "create Secret app (Opaque): the new token under the key token",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let text = plan(&(token.to_owned() + &issuer("{namespaces: [payments]}"))).success();
    assert!(text.contains("IssuerPolicy") && text.contains("does not permit the namespace \"shop\""), "{text}");

    let err = plan(token).failed(1);
    let line = "error: shop/app: spec.issuerRef: ClusterTokenIssuer \"git\" is not in the file: put its manifest into the same file, or use \
                --live to read it from the cluster";
    assert!(err.contains(line), "{err}");
    let err = plan(&(token.to_owned() + &issuer("{namespace: [shop]}"))).failed(1);
    let line = "ClusterTokenIssuer git: spec.policy.rules[0].namespace: unknown field; did you mean spec.policy.rules[0].namespaces?";
    assert!(err.contains(line), "{err}");
    let err = plan(&issuer("{}")).failed(2);
    assert!(err.contains("no PersonalAccessToken"), "{err}");
}

#[test]
fn everything_that_the_api_server_refuses_strictly_is_an_error() {
    let secret = "spec: {secret: {template: {preset: BasicAuth, hostname: x}}}";
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}",
        manifest("spec: {suspend: true, suspend: true}").replace('\n', "\n  ")
    );
    for (text, line) in [
        (manifest("spec: {scope: [x]}"), "default/a: spec.scope: unknown field; did you mean spec.scopes?"),
        (manifest("spec: {displayname: x}"), "spec.displayname: unknown field; did you mean spec.displayName?"),
        (manifest(secret), "default/a: spec.secret.template.hostname: unknown field"),
        (manifest("spec: {permissions: [{role: x}]}"), "default/a: spec.permissions[0].role: unknown field"),
        (manifest("specs: {}"), "default/a: specs: unknown field; did you mean spec?"),
        (
            manifest("").replace("name: a", "name: a, label: {}"),
            "metadata.label: unknown field; did you mean metadata.labels?",
        ),
        (manifest("spec: {scopes: [x], scopes: [y]}"), "default/a: spec.scopes: duplicate field"),
        (manifest("spec: {permissions: [{x: 1, x: 2}]}"), "default/a: spec.permissions[0].x: duplicate field"),
        (list, "default/a: spec.suspend: duplicate field"),
        (manifest("spec: {scopes: 7}"), "default/a: spec: invalid type: integer `7`"),
        (manifest("spec: {expiry: {after: 5}}"), "default/a: spec: "),
        (manifest("spec: {expiry: {after: 5y}}"), "default/a: spec.expiry.after: \"5y\" is not a duration"),
        (manifest("spec: {}").replace("v1alpha1", "v1"), "apiVersion: must be pat-operator.io/v1alpha1"),
        (
            manifest("spec: {}").replace("kind: Personal", "kind: Perso"),
            "kind: must be one of ClusterTokenIssuer, PersonalAccessToken, TokenIssuer, TokenOwner",
        ),
        (manifest("spec: {}").replace("name: a", ""), "default/(no name): metadata.name: required"),
        (
            manifest("spec: {}").replace("name: a", "name: A_b"),
            "default/A_b: metadata.name: \"A_b\" is not a valid name",
        ),
    ] {
        let err = offline(&["plan", "-f", "-"], &text).failed(1);
        assert!(err.starts_with("error: ") && err.contains(line), "{text}\n{err}");
    }
}

#[test]
fn every_problem_of_a_file_is_reported_and_the_other_manifests_are_planned() {
    let bad = manifest("spec: {scope: [x], suspend: true, suspend: true}").replace("name: a", "name: bad");
    let ran = offline(&["plan", "-f", "-"], &format!("{bad}\n---\n{}\n---\nkind: Pod\n", manifest("spec: {}")));
    assert_eq!((ran.code, ran.err.lines().count()), (1, 2), "{ran:?}");
    assert!(
        ran.err.contains("default/bad: spec.suspend: duplicate") && ran.err.contains("spec.scope: unknown"),
        "{ran:?}"
    );
    assert!(ran.out.starts_with("default/a\n  1. mint") && !ran.out.contains("default/bad"), "{ran:?}");
}

#[test]
fn manifest_that_the_api_server_accepts_is_planned() {
    let merged = "base: &base {scopes: [x]}\n";
    for text in [
        // A null equals an absent field.
        manifest("spec: {displayName: null, scopes: null, secret: {labels: null}}"),
        manifest("spec: {secret: {labels: {any: thing}, annotations: {a.b/c: d}}}\nstatus: {revision: 1}"),
        manifest("spec: {secret: {template: {data: {any.key: '{{ token }}'}}}}"),
        manifest("spec: &spec {suspend: true}").replace("metadata:", "metadata: &m"),
        manifest("spec:\n  <<: {scopes: [x], suspend: false}\n  suspend: false"),
    ] {
        offline(&["plan", "-f", "-"], &text).success();
    }
    let err = offline(&["plan", "-f", "-"], &format!("{merged}{}", manifest("spec: *base"))).failed(1);
    assert!(err.contains("default/a: base: unknown field"), "{err}");
}

#[test]
fn namespace_is_that_of_the_context() {
    let folder = tempfile::tempdir().unwrap();
    let (file, ran) = (folder.path().join("config"), folder.path().join("ran"));
    // A credential plugin may read stdin, which has the manifest.
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "shop",
        "contexts": [
            {"name": "shop", "context": {"cluster": "c", "user": "u", "namespace": "team-shop"}},
            {"name": "bare", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "touch", "args": [ran], "interactiveMode": "Never",
        }}}],
    });
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let plan = |words: &[&str], text: &str| {
        let config = ["--kubeconfig", file.to_str().expect("a path")];
        offline(&[&["plan", "-f", "-"], words, &config].concat(), text)
    };
    let text = manifest("spec: {}");
    for (words, namespace) in [
        (&[][..], "team-shop"),
        (&["--context", "bare"], "default"),
        (&["-n", "other"], "other"),
        (&["--context", "bare", "-n", "other"], "other"),
    ] {
        let out = plan(words, &text).success();
        assert!(out.starts_with(&format!("{namespace}/a\n")), "{words:?}: {out}");
    }
    assert!(!ran.exists(), "a credential plugin ran");
    let named = text.replace("name: a", "name: a, namespace: own");
    assert!(plan(&[], &named).success().starts_with("own/a\n"));
    let err = plan(&["-n", "other"], &named).failed(1);
    assert!(err.contains("metadata.namespace: must be other, as in --namespace"), "{err}");
    let err = plan(&["--context", "nowhere"], &text).failed(1);
    assert!(err.contains("nowhere"), "{err}");
}

#[test]
fn what_happens_then_is_sorted() {
    let text =
        offline(&["plan", "-f", "-"], &manifest("spec: {expiry: {after: 90d}, rotation: {interval: 30d}}")).success();
    let (_, then) = text.split_once("then:\n").expect("a part with what happens then");
    let times: Vec<_> = then.lines().map(|line| line.split_whitespace().next().expect("a time")).collect();
    assert!(times.len() > 1 && times.is_sorted(), "{text}");
    let text = offline(&["plan", "-f", "-"], &manifest("spec: {}")).success();
    let (_, then) = text.split_once("then:\n").expect("a part with what happens then");
    assert!(then.lines().count() == 2 && then.lines().last().is_some_and(|last| last.contains("expires")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_dry_run_checks_what_only_the_api_server_knows() {
    let runner = PluginRunner::new("pat-dry").await;
    runner.place.apply("taken", json!({"owner": {"kind": "VirtualAccount", "name": "a"}})).await;
    for (text, part) in [
        (manifest("spec: {gracePeriod: 2d, rotation: {interval: 1d}}"), "gracePeriod must be shorter than"),
        (manifest("spec: {secret: {labels: {a: '-'}}}"), "must be the value of a label"),
        (
            manifest("spec: {owner: {kind: VirtualAccount, name: b}}").replace("name: a", "name: taken"),
            "owner is immutable",
        ),
    ] {
        runner.piped("plan -f -", &text).success();
        let ran = runner.piped("plan -f - --server-dry-run", &text);
        assert!(ran.code == 1 && ran.out.is_empty() && !ran.err.contains("<nil>"), "{ran:?}");
        assert!(
            ran.err.starts_with("error: ") && ran.err.contains("/a: spec") || ran.err.contains("/taken: spec"),
            "{ran:?}"
        );
        assert!(ran.err.contains(part), "{ran:?}");
    }
    let text = runner.piped("plan -f - --server-dry-run", &manifest("spec: {}")).success();
    assert!(text.contains("3. create Secret a (Opaque)"), "{text}");
    assert!(runner.place.pats().get_opt("a").await.unwrap().is_none(), "a dry run saves nothing");
    let elsewhere = manifest("spec: {}").replace("name: a", "name: a, namespace: pat-dry-missing");
    let mut kubectl = runner.kubectl(&runner.place.kubeconfig());
    kubectl.args(["pat", "plan", "-f", "-", "--server-dry-run"]);
    let err = run(kubectl, Some(&elsewhere)).failed(1);
    assert!(err.contains("namespaces \"pat-dry-missing\" not found"), "{err}");
}

#[test]
fn every_example_issues_a_token_unless_suspended() {
    let files = ["/examples", "/examples/issuers"].into_iter().flat_map(|folder| {
        std::fs::read_dir(format!("{}{folder}", env!("CARGO_MANIFEST_DIR"))).expect("examples are there")
    });
    let mut planned = 0;
    for file in files {
        let path = file.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = offline(&["plan", "-f", path.to_str().expect("a path")], "").success();
            let waits = text.contains("spec.suspend is true, so no token is issued");
            assert!(waits || text.contains("create Secret"), "{}:\n{text}", path.display());
            planned += 1;
        }
    }
    assert!(planned > 3, "{planned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_object_is_planned() {
    let (runner, mut operator) = PluginRunner::with_operator("pat-plan").await;
    let spec = json!({"secret": {"template": {"data": {"env": "TOKEN={{ token }}"}}}});
    runner.place.apply("ci", spec).await;
    runner.place.ready("ci").await;
    operator.kill();
    let text = runner.pat("plan ci").success();
    assert!(
        text.contains("nothing to do") && text.contains("the token expires (spec.expiry or the default lifetime)"),
        "{text}"
    );
    // The token has expired by then.
    let text = runner.pat("plan ci --at 2099-01-01T00:00:00Z").success();
    assert!(
        text.contains("remove the token from Secret ci") && text.contains("has ended and is removed from the status"),
        "{text}"
    );

    let changed = "apiVersion: pat-operator.io/v1alpha1\nkind: PersonalAccessToken\nmetadata: {name: ci}\nspec: {secret: {name: other}}";
    let text = runner.piped("plan -f - --live", changed).success();
    assert!(text.contains("create Secret other (Opaque): the active token"), "{text}");
    assert!(text.contains("delete Secret ci") && !text.contains("mint"), "{text}");

    // The older object keeps the Secret.
    let conflicting = changed.replace("name: ci", "name: late").replace("name: other", "name: ci");
    let text = runner.piped("plan -f - --live", &conflicting).success();
    assert!(text.contains("SecretConflict") && !text.contains("create Secret"), "{text}");
}
