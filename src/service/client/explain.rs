//! Error messages about the API server: what went wrong, and what to do.

use std::{error::Error as StdError, io};

use kube::core::Status;
use rustls::{AlertDescription, CertificateError};

use super::{credentials::CredentialError, proxy::ProxyError};

/// Explains an error in one line: what went wrong, and what to do.
pub fn explain_api_error(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => explain_status(status),
        _ => explain_transport(error),
    }
}

/// Explains why no client can be built.
pub fn explain_build_error(error: &kube::Error) -> String {
    match error {
        kube::Error::RustlsTls(_) => format!(
            "{}; check that the client certificate and its key are in PEM format and belong together, and that the key is RSA, P-256, P-384 \
             or Ed25519",
            one_line(error)
        ),
        _ => explain_transport(error),
    }
}

/// Explains why there are no credentials.
pub fn explain_credentials(error: &CredentialError) -> String {
    let reason = shorten(&error.to_string());
    format!("no credentials for the API server: {reason}; try the same with kubectl, or fix the user in the kubeconfig")
}

fn explain_status(status: &Status) -> String {
    let message = shorten(&status.message);
    match status.code {
        400 if message.contains("HTTP request to an HTTPS server") => {
            format!("the server needs TLS (400 {message}); write https:// before the server in the kubeconfig")
        }
        401 => format!(
            "the API server rejects our credentials (401 {message}): the token or certificate is missing, wrong or expired; renew \
             the kubeconfig's user, or restart the pod for a new ServiceAccount token"
        ),
        403 => match RbacRefusal::parse(&status.message) {
            Some(denied) => denied.explain(),
            None => format!("the API server refused it (403): {message}"),
        },
        404 if status.details.as_ref().is_none_or(|details| details.name.is_empty()) => format!(
            "the API server does not know this resource (404 {message}): is its CustomResourceDefinition installed, and \
             is this the right cluster?"
        ),
        429 => format!("the API server is busy (429 {message}); try again later"),
        code @ 500.. => {
            format!("the API server failed ({code} {message}); try again later, or see its log")
        }
        code => format!("the API server refused it ({code}): {message}"),
    }
}

/// The parts of an RBAC refusal, as in: `leases.coordination.k8s.io "a" is forbidden: User "u" cannot get resource
/// "leases" in API group "coordination.k8s.io" in the namespace "n"`.
struct RbacRefusal<'m> {
    user: &'m str,
    verb: &'m str,
    resource: &'m str,
    group: &'m str,
    namespace: Option<&'m str>,
}

impl<'m> RbacRefusal<'m> {
    fn parse(message: &'m str) -> Option<Self> {
        let (user, rest) = message.split_once("User \"")?.1.split_once("\" cannot ")?;
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once("\" in API group \"")?;
        let (group, rest) = rest.split_once('"')?;
        let namespace = rest.strip_prefix(" in the namespace \"").and_then(|rest| rest.split('"').next());
        Some(Self { user, verb, resource, group, namespace })
    }

    fn explain(&self) -> String {
        let Self { user, verb, resource, group, namespace } = self;
        // `kubectl auth can-i` takes a subresource as a flag, RBAC rules write it with a slash.
        let (plain, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let dot = if group.is_empty() { "" } else { "." };
        let flag = if subresource.is_empty() { String::new() } else { format!(" --subresource={subresource}") };
        let (scope, role, flags) = match namespace {
            Some(namespace) => {
                (format!("in namespace {namespace}"), "Role or ClusterRole", format!(" --namespace={namespace}"))
            }
            None => ("in the whole cluster".to_owned(), "ClusterRole", " --all-namespaces".to_owned()),
        };
        format!(
            "no permission: {user} may not {verb} {resource}{dot}{group} {scope}; allow it with a {role} bound to that \
             user, and check with: kubectl auth can-i {verb} {plain}{dot}{group}{flag}{flags} --as={user}"
        )
    }
}

fn explain_transport(error: &(dyn StdError + 'static)) -> String {
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<CredentialError>() {
            return explain_credentials(error);
        }
        if let Some(error) = cause.downcast_ref::<ProxyError>() {
            return format!(
                "{}; check proxy-url in the kubeconfig, HTTPS_PROXY and NO_PROXY, and the proxy's user and password",
                one_line(error)
            );
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return explain_tls(error);
        }
        let Some(io) = cause.downcast_ref::<io::Error>() else { continue };
        match io.kind() {
            io::ErrorKind::ConnectionRefused => {
                return format!(
                    "no API server listens at this address: {io}; is it running, and is the address right?"
                );
            }
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                return format!("the API server does not answer: {io}; is its address right, and the network open?");
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                return format!("the API server closed the connection: {io}; try again later");
            }
            _ => {}
        }
        if io.to_string().starts_with("failed to lookup address") {
            return format!("the API server's name cannot be resolved: {io}; is the address right?");
        }
    }
    one_line(error)
}

fn explain_tls(error: &rustls::Error) -> String {
    const P521: &str = "the API server's certificate may have a P-521 key, which this program cannot verify; use a certificate and an \
                        authority with RSA, P-256, P-384 or Ed25519 keys";
    let (error, hint) = match error {
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) | rustls::Error::PeerIncompatible(_) => {
            (error.to_string(), P521)
        }
        rustls::Error::InvalidCertificate(
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ) => ("unsupported signature algorithm".to_owned(), P521),
        rustls::Error::AlertReceived(_) => (
            error.to_string(),
            "the API server may refuse the client certificate; renew the kubeconfig's user, and check that it belongs to this cluster",
        ),
        _ => {
            (error.to_string(), "do the kubeconfig's certificate-authority and server name belong to this API server?")
        }
    };
    format!("no secure connection to the API server: {error}; {hint}")
}

/// The error and its causes. `io::Error::source` skips the wrapped error, which may be that of rustls.
fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
        None => error.source(),
    })
}

/// The error and its causes in one line, without repetitions.
pub fn one_line(error: &(dyn StdError + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    shorten(&line)
}

/// The text in one line of limited length.
pub fn shorten(text: &str) -> String {
    const MOST: usize = 500;
    let words: Vec<_> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "").with_code(code).boxed())
    }

    #[test]
    fn a_refusal_names_user_verb_resource_and_check() {
        for (message, line) in [
            (
                r#"leases.coordination.k8s.io "a" is forbidden: User "system:serviceaccount:ops:pat" cannot get resource "leases" in API group "coordination.k8s.io" in the namespace "ops""#,
                "no permission: system:serviceaccount:ops:pat may not get leases.coordination.k8s.io in namespace ops; \
                 allow it with a Role or ClusterRole bound to that user, and check with: kubectl auth can-i get \
                 leases.coordination.k8s.io --namespace=ops --as=system:serviceaccount:ops:pat",
            ),
            (
                r#"secrets is forbidden: User "u" cannot list resource "secrets" in API group "" at the cluster scope: RBAC: [clusterrole "x" not found]"#,
                "no permission: u may not list secrets in the whole cluster; allow it with a ClusterRole bound to that \
                 user, and check with: kubectl auth can-i list secrets --all-namespaces --as=u",
            ),
            (
                r#"pats.example.org "a" is forbidden: User "u" cannot patch resource "pats/status" in API group "example.org" in the namespace "n""#,
                "no permission: u may not patch pats/status.example.org in namespace n; allow it with a Role or \
                 ClusterRole bound to that user, and check with: kubectl auth can-i patch pats.example.org \
                 --subresource=status --namespace=n --as=u",
            ),
            (
                "secrets \"a\" is forbidden: exceeded quota: q",
                "the API server refused it (403): secrets \"a\" is forbidden: exceeded quota: q",
            ),
        ] {
            assert_eq!(explain_api_error(&api(403, message)), line);
        }
    }

    #[test]
    fn every_explanation_is_one_short_line() {
        for code in [400, 401, 403, 404, 409, 410, 422, 429, 500, 503, 504] {
            let line = explain_api_error(&api(code, &"first\nsecond ".repeat(1_000)));
            assert!(line.contains(&code.to_string()) && !line.contains('\n') && line.len() < 1_000, "{line}");
        }
    }

    #[test]
    fn a_rustls_error_is_found_inside_an_io_error() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = kube::Error::Service(Box::new(io::Error::other(tls)));
        let line = explain_api_error(&error);
        assert!(line.starts_with("no secure connection to the API server: invalid peer certificate"), "{line}");
    }

    #[test]
    fn an_unsupported_key_is_explained() {
        let unsupported = CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![6, 8],
            public_key_algorithm_id: vec![6, 7],
        };
        for tls in [
            rustls::Error::InvalidCertificate(unsupported),
            rustls::Error::AlertReceived(AlertDescription::HandshakeFailure),
        ] {
            let line = explain_api_error(&kube::Error::Service(Box::new(io::Error::other(tls))));
            assert!(line.contains("P-521") && line.ends_with("Ed25519 keys") && !line.contains('['), "{line}");
        }
    }
}
