//! The certificates that stand in TLS Secrets where the operator runs: whether they end soon.

use k8s_openapi::{api::core::v1::Secret, jiff::SignedDuration};
use kube::{Api, api::ListParams};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{
    super::{
        failure::Failure,
        phrase,
        session::{Session, in_time},
        terminal::Tone,
    },
    Findings, allowed,
};
use crate::{api::Time, service::tls::validity};

/// A certificate that ends sooner should have been renewed.
const RENEWAL: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Looks at each.
pub async fn look(session: &Session, namespace: &str, findings: &mut Findings) -> Result<(), Failure> {
    let api: Api<Secret> = Api::namespaced(session.client.clone(), namespace);
    let of_type = ListParams::default().fields("type=kubernetes.io/tls");
    let Some(secrets) = allowed(in_time(api.list(&of_type)).await)? else {
        findings.add(
            Tone::Quiet,
            format!("how long certificates are good: you may not list secrets in namespace {namespace}"),
            "ask somebody who may to run kubectl pat doctor: it is no reason to be granted that",
        );
        return Ok(());
    };
    let now = session.now();
    for secret in secrets.items {
        let name = format!("{namespace}/{}", secret.metadata.name.as_deref().unwrap_or_default());
        let pem = secret
            .data
            .as_ref()
            .and_then(|data| data.get("tls.crt"))
            .map(|value| value.0.as_slice())
            .unwrap_or_default();
        let first = CertificateDer::pem_slice_iter(pem).next().and_then(Result::ok);
        let Some(validity) = first.and_then(|certificate| validity::read(&certificate)) else {
            findings.add(
                Tone::Notice,
                format!("Secret {name} has no certificate under tls.crt"),
                "whoever makes it (cert-manager?) knows more: kubectl get certificates",
            );
            continue;
        };
        let until = Time::from(validity.until);
        let fix = "renew it: with cert-manager see kubectl get certificates, else put a new one into that Secret; it is read again by itself";
        match until.since(now) {
            left if left.is_negative() => findings.add(
                Tone::Bad,
                format!("the certificate in Secret {name} ended {}", phrase::both(until, now)),
                fix,
            ),
            left if left < RENEWAL => findings.add(
                Tone::Notice,
                format!("the certificate in Secret {name} ends {}", phrase::both(until, now)),
                fix,
            ),
            _ => findings.good(format!("the certificate in Secret {name} is good until {}", phrase::both(until, now))),
        }
    }
    Ok(())
}
