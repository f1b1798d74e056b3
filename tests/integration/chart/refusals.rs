//! Invalid values are refused, with a message that names the correct ones.

use super::helm::{Program, chart};
use crate::support::is_left_out;
use control_plane::Binary;

#[test]
fn invalid_values_are_refused_by_name() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let cases = [
        ("controller.replica=2", "additional properties 'replica' not allowed"),
        (
            "verifier.enabled=true",
            "verifier.tls: set one of selfSigned.enabled (the controller issues and renews the certificate), secretName",
        ),
        (
            "verifier.enabled=true,verifier.tls.secretName=a,verifier.tls.certManager.enabled=true",
            "verifier.tls: secretName and certManager exclude each other",
        ),
        (
            "verifier.enabled=true,verifier.tls.secretName=a,verifier.tls.insecure=true",
            "verifier.tls: secretName and insecure exclude each other",
        ),
        (
            "verifier.enabled=true,verifier.tls.certManager.enabled=true",
            "verifier.tls.certManager.issuerRef: set the name of the Issuer that signs the certificate",
        ),
        (
            "verifier.enabled=true,verifier.tls.certManager.enabled=true,verifier.tls.selfSigned.enabled=true",
            "verifier.tls: certManager and selfSigned exclude each other",
        ),
        (
            "verifier.enabled=true,verifier.tls.selfSigned.enabled=true,controller.enabled=false",
            "verifier.tls.selfSigned: the controller issues the certificate: set controller.enabled, or another field of verifier.tls",
        ),
        ("verifier.tls.selfSigned.dnsNames={a;b}", "/verifier/tls/selfSigned/dnsNames/0"),
        ("api.enabled=true,api.namespace=a", "api.tls: set one of selfSigned.enabled"),
        (
            "api.enabled=true,api.tls.insecure=true",
            "api.namespace: set the namespace whose tokens the REST API manages",
        ),
        (
            "api.enabled=true,api.namespace=a,api.tls.insecure=true,namespaces={a}",
            "api: the REST API reads TokenOwners",
        ),
        (
            "verifier.enabled=true,verifier.tls.insecure=true,verifier.tokenReview.enabled=true,namespaces={a}",
            "verifier.tokenReview: TokenReview needs all namespaces",
        ),
        ("controller.concurrency=0", "/controller/concurrency"),
        ("controller.defaultLifetime=90 days", "/controller/defaultLifetime"),
        ("namespaces={Team}", "/namespaces/0"),
        ("scopeGrants.team-a=deploy", "/scopeGrants/team-a"),
        ("scopeGrants.Team={deploy}", "Team"),
        ("scopeGrants.team={de ploy}", "/scopeGrants/team/0"),
        ("image.digest=sha256:12", "/image/digest"),
        ("tokens[0].spec.scopes={a}", "missing property 'name'"),
        // The same checks as in the API server, but at rendering.
        ("tokens[0].name=a,tokens[0].spec.scpoes={a}", "additional properties 'scpoes' not allowed"),
        ("tokens[0].name=a,tokens[0].spec.scopes=a", "/tokens/0/spec/scopes"),
        ("tokens[0].name=a,tokens[0].spec.scopes={a,a}", "/tokens/0/spec/scopes"),
        ("tokens[0].name=a,tokens[0].spec.scopes={a b}", "/tokens/0/spec/scopes/0"),
        ("tokens[0].name=a,tokens[0].spec.rotation.interval=monthly", "/tokens/0/spec/rotation/interval"),
        ("tokens[0].name=a,tokens[0].spec.rotation.intervall=30d", "additional properties 'intervall' not allowed"),
        ("policies.validationActions={Maybe}", "/policies/validationActions/0"),
        ("policies.otherAccounts.controllers={a'b}", "/policies/otherAccounts/controllers/0"),
        ("verifier.issuer=http://tokens.example.com", "/verifier/issuer"),
        ("monitoring.monitor.kind=Probe", "/monitoring/monitor/kind"),
    ];
    let (helm, chart) = (Program::helm(), chart());
    for (set, expected) in cases {
        let message = helm.refuses(&["template", "pat-operator", chart.to_str().expect("text"), "--set", set]);
        assert!(message.contains(expected), "{set}: {message}");
    }
}

#[test]
fn api_server_that_is_too_old_is_refused() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let (helm, chart) = (Program::helm(), chart());
    let message = helm.refuses(&["template", chart.to_str().expect("text"), "--kube-version", "1.30.9"]);
    assert!(message.contains("requires kubeVersion: >=1.31.0-0"), "{message}");
}
