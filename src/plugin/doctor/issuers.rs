//! Checks of issuers: whether each is ready, whether its credential is in the right Secret, whether a controller serves it, and whether those
//! that tokens name exist.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::{
    super::{
        error::Error,
        issuer::{IssuerObject, find_issuer},
        pat::PatObject,
        session::{Session, with_timeout},
        terminal::Tone,
    },
    Finding, Report,
    operator::DeployedProgram,
    unless_forbidden,
};
use crate::{
    api::{ISSUER_AUTH_TYPE, IssuerKind, IssuerReference},
    controller::issuers::host_of,
};

/// The kinds of issuers, each with the value of the controller's flag `--issuers`.
const KINDS: [(IssuerKind, &str); 2] =
    [(IssuerKind::ClusterTokenIssuer, "cluster"), (IssuerKind::TokenIssuer, "namespaced")];

/// What is known of the operator.
pub struct OperatorPrograms<'a> {
    /// Its controllers; empty if the user may not list them.
    pub controllers: &'a [DeployedProgram],
    /// Its namespaces.
    pub namespaces: &'a BTreeSet<String>,
}

impl OperatorPrograms<'_> {
    /// Returns the namespace of the Secrets of ClusterTokenIssuers, if it is known.
    fn issuer_namespace(&self) -> Option<&str> {
        let serves = |controller: &&DeployedProgram| controller.issuers().contains(&"cluster");
        let by_flag = self.controllers.iter().find(serves).map(DeployedProgram::issuer_namespace);
        let only = self.namespaces.first().filter(|_| self.namespaces.len() == 1);
        by_flag.or(only.map(String::as_str))
    }
}

/// Checks the issuers. `pats` are the tokens of a namespace, or of the whole cluster.
pub async fn check_issuers(
    session: &Session,
    namespace_of_pats: Option<&str>,
    pats: &[PatObject],
    operator: &OperatorPrograms<'_>,
    report: &mut Report,
) -> Result<(), Error> {
    let (mut issuers, mut listed) = (Vec::new(), Vec::new());
    for (kind, scope) in KINDS {
        let namespace = namespace_of_pats.filter(|_| kind == IssuerKind::TokenIssuer);
        match session.list_issuers(kind, namespace).await {
            Ok(mut found) => {
                listed.push(kind);
                // A check of one namespace is not about the issuers of others.
                let is_used = |issuer: &IssuerObject| issuer.kind == IssuerKind::TokenIssuer || names(pats, issuer);
                found.retain(|issuer| namespace_of_pats.is_none() || is_used(issuer));
                if !found.is_empty() {
                    report.extend(rate_flag(kind, scope, operator.controllers));
                }
                issuers.extend(found);
            }
            // A check of its own says that the kind is not installed.
            Err(error) if error.is_api_status(404) => {}
            Err(error) if error.is_api_status(403) && names_kind(pats, kind) => report.add(
                Tone::Muted,
                format!("state of the issuers: you may not list {}s", kind.as_str()),
                "ask an administrator to run `kubectl pat doctor`",
            ),
            Err(error) if error.is_api_status(403) => {}
            Err(error) => return Err(error),
        }
    }
    for issuer in &issuers {
        report.extend(rate_state(issuer));
        check_credential(session, issuer, operator, report).await?;
    }
    let ready = issuers.iter().filter(|issuer| issuer.state().tone == Tone::Good).count();
    if ready > 0 {
        report.ok(format!("{ready} of {} issuers are ready", issuers.len()));
    }
    report.extend(missing_issuers(pats, &issuers, &listed));
    Ok(())
}

fn names(pats: &[PatObject], issuer: &IssuerObject) -> bool {
    pats.iter().any(|pat| pat.spec().issuer_ref.is_some_and(|reference| issuer.is_named(pat.namespace(), &reference)))
}

fn names_kind(pats: &[PatObject], kind: IssuerKind) -> bool {
    pats.iter().any(|pat| pat.spec().issuer_ref.is_some_and(|reference| reference.kind == kind))
}

/// Returns a problem if controllers are known, and none serves this kind of issuers.
fn rate_flag(kind: IssuerKind, scope: &str, controllers: &[DeployedProgram]) -> Option<Finding> {
    let is_served = controllers.iter().any(|controller| controller.issuers().contains(&scope));
    (!controllers.is_empty() && !is_served).then(|| {
        Finding::new(
            Tone::Bad,
            format!("there are {}s, but no controller serves them", kind.as_str()),
            format!(
                "set controller.issuers.{scope} in the Helm values, or start the controller with --issuers={scope}"
            ),
        )
    })
}

/// Returns the problem of an issuer, or `None` if it is ready.
fn rate_state(issuer: &IssuerObject) -> Option<Finding> {
    let state = issuer.state();
    let reason = if state.reason.is_empty() { String::new() } else { format!(" ({})", state.reason) };
    let ready = if state.ready == "True" { "not up to date" } else { "not ready" };
    (state.tone != Tone::Good)
        .then(|| Finding::new(state.tone, format!("{} is {ready}{reason}", issuer.title()), state.message))
}

/// Checks the type and the host of the Secrets with the credential of an issuer.
async fn check_credential(
    session: &Session,
    issuer: &IssuerObject,
    operator: &OperatorPrograms<'_>,
    report: &mut Report,
) -> Result<(), Error> {
    let Ok(spec) = &issuer.stored.spec else { return Ok(()) };
    let (Some(auth), Some((_, Some(url)))) = (&spec.auth, spec.system()) else { return Ok(()) };
    for (field, secret) in [("secretRef", &auth.secret_ref), ("fallback", &auth.fallback)] {
        let Some(secret) = secret else { continue };
        let namespace = match issuer.kind {
            IssuerKind::TokenIssuer => Some(issuer.namespace()),
            IssuerKind::ClusterTokenIssuer => operator.issuer_namespace(),
        };
        let what = format!("the credential of {} (spec.auth.{field})", issuer.title());
        let Some(namespace) = namespace else {
            let fix = "pass the namespace of the operator, which holds the Secret, with --operator-namespace";
            report.add(Tone::Muted, format!("{what}: its namespace is not known"), fix);
            continue;
        };
        let api: Api<Secret> = Api::namespaced(session.client.clone(), namespace);
        let name = format!("{namespace}/{}", secret.name);
        match unless_forbidden(with_timeout(api.get_opt(&secret.name)).await)? {
            None => report.add(
                Tone::Muted,
                format!("{what}: you may not get Secret {name}"),
                "ask an administrator to run `kubectl pat doctor`; do not request this permission for yourself",
            ),
            Some(found) => report.extend(rate_credential(&what, &name, found.as_ref(), url)),
        }
    }
    Ok(())
}

/// Returns the problem of a Secret with a credential, or `None` if the controller uses it.
fn rate_credential(what: &str, name: &str, secret: Option<&Secret>, url: &str) -> Option<Finding> {
    let bad = |problem: String, fix: String| Some(Finding::new(Tone::Bad, format!("{what}: {problem}"), fix));
    let Some(secret) = secret else {
        let fix = format!("create it with type {ISSUER_AUTH_TYPE}; docs/issuers.md lists its keys");
        return bad(format!("Secret {name} does not exist"), fix);
    };
    if secret.type_.as_deref() != Some(ISSUER_AUTH_TYPE) {
        let fix = format!("create it again with type {ISSUER_AUTH_TYPE}: the type of a Secret cannot be changed");
        return bad(format!("Secret {name} does not have the type {ISSUER_AUTH_TYPE}"), fix);
    }
    let host = host_of(url);
    let named = secret.data.as_ref().and_then(|data| data.get("host"));
    let named = named.map(|named| String::from_utf8_lossy(&named.0).trim().to_owned());
    if named.as_deref() != Some(host) {
        let problem = format!("Secret {name} does not name the host {host:?}");
        return bad(problem, format!("set the key host to {host}, if the credential is for this host"));
    }
    None
}

/// Returns a problem for each issuer that tokens name and that does not exist, if its kind was listed.
fn missing_issuers(pats: &[PatObject], issuers: &[IssuerObject], listed: &[IssuerKind]) -> Vec<Finding> {
    let mut missing: BTreeMap<(IssuerReference, &str), Vec<String>> = BTreeMap::new();
    for pat in pats {
        let Some(reference) = pat.spec().issuer_ref else { continue };
        if listed.contains(&reference.kind) && find_issuer(issuers, pat).is_none() {
            let namespace = if reference.kind == IssuerKind::TokenIssuer { pat.namespace() } else { "" };
            let name = format!("{}/{}", pat.namespace(), pat.name());
            missing.entry((*reference, namespace)).or_default().push(name);
        }
    }
    let finding = |((reference, namespace), tokens): ((IssuerReference, &str), Vec<String>)| {
        let place = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
        let what = format!(
            "{}{place} does not exist, and {} of the tokens name it, such as {}",
            reference.title(),
            tokens.len(),
            tokens[0]
        );
        Finding::new(
            Tone::Bad,
            what,
            "create the issuer; until then, these tokens are neither issued, rotated nor revoked",
        )
    };
    missing.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(type_: &str, host: &str) -> Secret {
        let data = json!({"host": host});
        let secret: Secret = serde_json::from_value(json!({"type": type_, "stringData": data})).expect("a Secret");
        let data = secret.string_data.clone().into_iter().flatten();
        let data = data.map(|(key, value)| (key, k8s_openapi::ByteString(value.into_bytes()))).collect();
        Secret { data: Some(data), ..secret }
    }

    #[test]
    fn credential_must_be_in_a_secret_of_the_right_type_and_host() {
        let good = secret(ISSUER_AUTH_TYPE, "git.example.com:8443");
        for (secret, problem) in [
            (None, Some("does not exist")),
            (Some(secret("Opaque", "git.example.com:8443")), Some("does not have the type")),
            (
                Some(secret(ISSUER_AUTH_TYPE, "git.example.com")),
                Some("does not name the host \"git.example.com:8443\""),
            ),
            (Some(good), None),
        ] {
            let found = rate_credential("it", "sys/a", secret.as_ref(), "https://git.example.com:8443/gitlab");
            assert_eq!(found.is_some(), problem.is_some(), "{found:?}");
            assert!(found.is_none_or(|found| found.what.contains(problem.unwrap()) && !found.fix.is_empty()));
        }
    }

    fn pat(name: &str, spec: Value) -> PatObject {
        let object = json!({
            "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken",
            "metadata": {"name": name, "namespace": "shop", "uid": "u"}, "spec": spec,
        });
        PatObject::parse(serde_json::from_value(object).expect("an object")).expect("a PAT")
    }

    #[test]
    fn missing_issuers_are_reported_once_with_an_example() {
        let named = |kind: &str, name: &str| json!({"issuerRef": {"kind": kind, "name": name}});
        let pats = [
            pat("a", named("ClusterTokenIssuer", "git")),
            pat("b", named("ClusterTokenIssuer", "git")),
            pat("c", named("TokenIssuer", "git")),
            pat("d", named("TokenIssuer", "here")),
            pat("e", json!({})),
        ];
        let here = json!({"metadata": {"name": "here", "namespace": "shop"}, "spec": {"local": {}}});
        let here = IssuerObject::parse(IssuerKind::TokenIssuer, serde_json::from_value(here).expect("an object"));
        let issuers = [here.expect("an issuer")];
        let both = [IssuerKind::TokenIssuer, IssuerKind::ClusterTokenIssuer];
        let found = missing_issuers(&pats, &issuers, &both);
        let found: Vec<_> = found.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(
            found,
            [
                "TokenIssuer \"git\" in namespace shop does not exist, and 1 of the tokens name it, such as shop/c",
                "ClusterTokenIssuer \"git\" does not exist, and 2 of the tokens name it, such as shop/a",
            ]
        );
        assert_eq!(missing_issuers(&pats, &issuers, &both[..1]).len(), 1, "the others may exist");
    }
}
