//! Issuers in `issuers`, `show`, `doctor` and `plan`. No controller serves these TokenIssuers, so the test writes what one would.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use pat_operator::{
    api::{ClusterTokenIssuer, TokenIssuer},
    planner::remote::remote_name,
};
use serde_json::{Value, json};

use super::runner::{PluginRunner, run};

const URL: &str = "https://gitlab.example.com";

/// Creates the TokenIssuer `git` of GitLab.
async fn put_issuer(runner: &PluginRunner) -> Api<TokenIssuer> {
    let spec = json!({"gitLab": {"url": URL}, "auth": {"secretRef": {"name": "git-auth"}}, "pollInterval": "10m"});
    let issuer = json!({"metadata": {"name": "git"}, "spec": spec});
    let issuers: Api<TokenIssuer> = Api::namespaced(runner.place.client.clone(), runner.place.name());
    issuers.create(&PostParams::default(), &serde_json::from_value(issuer).expect("an issuer")).await.expect("created");
    issuers
}

async fn report(issuers: &Api<TokenIssuer>, ready: &str, reason: &str, message: &str) {
    let condition = json!({
        "type": "Ready", "status": ready, "reason": reason, "message": message, "lastTransitionTime": "2030-01-01T00:00:00Z",
    });
    let status = json!({
        "conditions": [condition], "observedGeneration": 1, "type": "GitLab", "url": URL, "tokens": 2, "serverVersion": "18.1.0",
        "lastPolledAt": "2026-01-01T00:00:00Z",
    });
    let patch = Patch::Merge(json!({"status": status}));
    issuers.patch_status("git", &PatchParams::default(), &patch).await.expect("a status");
}

fn token_spec() -> Value {
    json!({
        "issuerRef": {"kind": "TokenIssuer", "name": "git"}, "gitLab": {"project": "shop/web", "accessLevel": "Reporter"},
        "scopes": ["read_repository"], "rotation": {"interval": "30d"},
    })
}

/// Applies the PAT `web` of the issuer `git` with this UID, with a token that works and one that is being revoked. Returns their names.
async fn put_token(runner: &PluginRunner, issuer: &str) -> [String; 2] {
    runner.place.apply("web", token_spec()).await;
    let uid = runner.place.pats().get("web").await.expect("the PAT").metadata.uid.expect("a UID");
    let name = |revision: i64, id: &str| remote_name("00000000", &uid, revision, id);
    let credential = |id: &str, revision: i64, state: &str, remote: &str| {
        json!({
            "id": id, "revision": revision, "sha256": "a".repeat(64), "state": state, "issuedAt": "2026-01-01T00:00:00Z",
            "expiresAt": "2099-01-01T00:00:00Z",
            "remote": {"name": name(revision, id), "id": remote, "issuerUID": issuer, "parameters": "p",
                "target": {"gitLab": {"project": "shop/web", "accessLevel": "Reporter"}}},
        })
    };
    let credentials =
        json!([credential("BBBBBBBBBBBB", 2, "Active", "4711"), credential("AAAAAAAAAAAA", 1, "Revoking", "4242")]);
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Issued", "message": "issued", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = json!({"remoteCredentials": credentials, "conditions": [condition], "observedGeneration": 1, "secretName": "web"});
    let patch = Patch::Merge(json!({"status": status}));
    runner.place.pats().patch_status("web", &PatchParams::default(), &patch).await.expect("a status");
    [name(2, "BBBBBBBBBBBB"), name(1, "AAAAAAAAAAAA")]
}

fn line<'t>(text: &'t str, part: &str) -> &'t str {
    text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part} is missing in:\n{text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_are_listed_in_every_format() {
    let runner = PluginRunner::new("pat-issuers").await;
    let issuers = put_issuer(&runner).await;
    let here = runner.place.name();
    let cluster: Api<ClusterTokenIssuer> = Api::all(runner.place.client.clone());
    let shared =
        json!({"metadata": {"name": here}, "spec": {"local": {}, "policy": {"rules": [{"namespaces": [here]}]}}});
    cluster.create(&PostParams::default(), &serde_json::from_value(shared).expect("an issuer")).await.expect("created");

    let table = runner.pat("issuers").success();
    assert!(line(&table, " git ").contains("Unknown") && line(&table, " git ").contains("--issuers"), "{table}");
    assert!(line(&table, &format!(" {here} ")).starts_with("ClusterTokenIssuer   -"), "{table}");

    report(&issuers, "True", "Available", "the issuer answers").await;
    let table = runner.pat("issuers").success();
    let words: Vec<_> = line(&table, " git ").split_whitespace().take(8).collect();
    assert_eq!(words, ["TokenIssuer", here, "git", "True", "Available", "GitLab", URL, "2"], "{table}");
    assert!(!line(&table, " git ").contains("answers"), "no message while it is ready: {table}");

    report(&issuers, "False", "IssuerNotReady", "Secret x/git-auth does not exist").await;
    for words in ["issuers", "issuers -A", "issuers -o wide"] {
        let table = runner.pat(words).success();
        let mut lines = table.lines().filter(|line| line.starts_with("TokenIssuer") && line.contains(here));
        let line = lines.next().unwrap_or_else(|| panic!("{words}: {table}"));
        assert!(
            line.contains("IssuerNotReady") && line.contains("Secret x/git-auth does not exist"),
            "{words}: {table}"
        );
    }
    let wide = runner.pat("issuers -o wide").success();
    let words: Vec<_> = line(&wide, " git ").split_whitespace().collect();
    assert!(wide.contains("INTERVAL") && words.windows(2).any(|pair| pair == ["10m", "18.1.0"]), "{wide}");

    let all: Value = serde_json::from_str(&runner.pat("issuers -o json").success()).expect("JSON");
    let items = all["items"].as_array().expect("items");
    let git = items.iter().find(|item| item["metadata"]["name"] == "git").expect("the issuer");
    assert_eq!(
        (git["kind"].as_str(), git["apiVersion"].as_str()),
        (Some("TokenIssuer"), Some("pat-operator.io/v1alpha1"))
    );
    assert!(git["metadata"]["managedFields"].is_null() && git["status"]["tokens"] == 2, "{git}");
    let yaml: Value = serde_yaml::from_str(&runner.pat("issuers -o yaml").success()).expect("YAML");
    assert!(yaml["items"].as_array().expect("items").contains(git));
    let names = runner.pat("issuers -o name").success();
    assert!(names.lines().any(|line| line == "tokenissuer.pat-operator.io/git"), "{names}");
    assert!(names.lines().any(|line| line == format!("clustertokenissuer.pat-operator.io/{here}")), "{names}");
    cluster.delete(here, &DeleteParams::default()).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn user_sees_the_issuers_that_permissions_allow() {
    let runner = PluginRunner::new("pat-issuer-rights").await;
    put_issuer(&runner).await;
    let user = format!("ann-{}", runner.place.name());
    let ann = runner.kubeconfig_of(&user);
    let err = runner.pat_as(&ann, "issuers").failed(1);
    assert!(err.contains("may not list clustertokenissuers.pat-operator.io"), "{err}");
    let admin = runner.place.kubeconfig();
    let role = ["create", "role", &user, "--verb=list", "--resource=tokenissuers.pat-operator.io"];
    let binding = ["create", "rolebinding", &user, &format!("--role={user}"), &format!("--user={user}")];
    for words in [&role[..], &binding] {
        let mut kubectl = runner.kubectl(&admin);
        kubectl.args(words).args(["-n", runner.place.name()]);
        run(kubectl, None).success();
    }
    let ran = runner.pat_as(&ann, "issuers -o name");
    assert_eq!((ran.code, &*ran.out), (0, "tokenissuer.pat-operator.io/git\n"), "{}", ran.err);
    assert!(ran.err.starts_with("note: ") && ran.err.contains("clustertokenissuers"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_of_another_system_is_shown_with_its_issuer() {
    let runner = PluginRunner::new("pat-issuer-show").await;
    let [active, revoking] = put_token(&runner, "u").await;
    let page = runner.pat("show web").success();
    assert_eq!(
        line(&page, "Issuer:").trim_start_matches("Issuer:").trim(),
        "TokenIssuer git: does not exist",
        "{page}"
    );

    let issuers = put_issuer(&runner).await;
    report(&issuers, "False", "IssuerUnavailable", "the issuer did not answer in time").await;
    let page = runner.pat("show web").success();
    for (field, value) in [
        (
            "Issuer:",
            format!(
                "TokenIssuer git: GitLab at {URL}, not ready (IssuerUnavailable): the issuer did not answer in time"
            ),
        ),
        ("Target:", "project/shop/web as Reporter".to_owned()),
    ] {
        assert_eq!(line(&page, field).trim_start_matches(field).trim(), value, "{page}");
    }
    assert!(!page.contains("verifier"), "no verifier accepts it: {page}");
    let words = |part: &str| line(&page, part).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&active)[..3], ["BBBBBBBBBBBB", "2", "Active"]);
    assert_eq!(words(&active).last().map(String::as_str), Some("4711"));
    assert_eq!(words(&revoking)[..3], ["AAAAAAAAAAAA", "1", "Revoking"]);

    let mut revoked = token_spec();
    revoked["revoked"] = true.into();
    runner.place.apply("web", revoked).await;
    let page = runner.pat("show web").success();
    assert!(line(&page, "State:").contains("Revoking  spec.revoked is true, and 2 of its tokens may work"), "{page}");
    let err = runner.pat("wait web --for dead --timeout 1s").failed(4);
    assert!(err.contains("web is not dead after 1s: Revoking: "), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_what_is_wrong_with_issuers() {
    let runner = PluginRunner::new("pat-issuer-doctor").await;
    let here = runner.place.name().to_owned();
    put_token(&runner, "u").await;
    let doctor = || runner.pat(&format!("doctor --operator-namespace {here}")).out;
    let has = |text: &str, parts: &[String]| {
        parts.iter().for_each(|part| assert!(text.contains(part), "{part} is missing in:\n{text}"));
    };
    has(
        &doctor(),
        &[format!(
            "broken   TokenIssuer \"git\" in namespace {here} does not exist, and 1 of the tokens name it, such as {here}/web"
        )],
    );

    let issuers = put_issuer(&runner).await;
    report(&issuers, "False", "IssuerNotReady", "the issuer does not accept the credential").await;
    let credential =
        format!("broken   the credential of TokenIssuer {here}/git (spec.auth.secretRef): Secret {here}/git-auth");
    let not_ready = format!(
        "broken   TokenIssuer {here}/git is not ready (IssuerNotReady)\n         fix: the issuer does not accept"
    );
    has(&doctor(), &[not_ready, format!("{credential} does not exist")]);

    let secrets: Api<Secret> = runner.place.secrets();
    for (type_, host, problem) in [
        ("Opaque", "gitlab.example.com", Some(" does not have the type pat-operator.io/issuer-auth")),
        ("pat-operator.io/issuer-auth", "gitlab.example.org", Some(" does not name the host \"gitlab.example.com\"")),
        ("pat-operator.io/issuer-auth", "gitlab.example.com", None),
    ] {
        let secret =
            json!({"metadata": {"name": "git-auth"}, "type": type_, "stringData": {"host": host, "token": "glpat-x"}});
        let secret = serde_json::from_value(secret).expect("a Secret");
        secrets.create(&PostParams::default(), &secret).await.expect("created");
        let text = doctor();
        match problem {
            Some(problem) => has(&text, &[format!("{credential}{problem}")]),
            None => assert!(!text.contains("the credential of"), "{text}"),
        }
        assert!(!text.contains("glpat"), "{text}");
        secrets.delete("git-auth", &DeleteParams::default()).await.expect("deleted");
    }
    report(&issuers, "True", "Available", "").await;
    has(&doctor(), &["ok       1 of 1 issuers are ready".to_owned()]);

    let ann = runner.kubeconfig_of(&format!("ann-{here}"));
    let text = runner.pat_as(&ann, "doctor").out;
    assert!(!text.contains("TokenIssuer"), "what a user may not list and no known token names is no problem: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_uses_the_issuer_of_the_cluster() {
    let runner = PluginRunner::new("pat-issuer-plan").await;
    let issuers = put_issuer(&runner).await;
    report(&issuers, "True", "Available", "").await;
    let spec = "{issuerRef: {kind: TokenIssuer, name: git}, gitLab: {project: shop/web}, rotation: {interval: 30d}}";
    let manifest = format!(
        "{{apiVersion: pat-operator.io/v1alpha1, kind: PersonalAccessToken, metadata: {{name: app}}, spec: {spec}}}"
    );
    let text = runner.piped("plan -f - --live", &manifest).success();
    assert!(text.contains("ask the issuer for a token for project/shop/web, which ends at 20"), "{text}");
    report(&issuers, "False", "IssuerNotReady", "the credential is refused").await;
    let text = runner.piped("plan -f - --live", &manifest).success();
    assert!(text.contains("Ready=False IssuerNotReady: the credential is refused"), "{text}");
    let other = manifest.replace("name: git", "name: nowhere");
    let text = runner.piped("plan -f - --live", &other).success();
    assert!(text.contains("TokenIssuer \"nowhere\" does not exist"), "{text}");

    let uid = issuers.get("git").await.expect("the issuer").metadata.uid.expect("a UID");
    let [_, revoking] = put_token(&runner, &uid).await;
    report(&issuers, "True", "Available", "").await;
    let text = runner.pat("plan web").success();
    for part in [
        &*format!("revoke token {revoking} at the issuer"),
        "list the tokens at the issuer, which confirms the revocation",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}
