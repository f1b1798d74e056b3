//! The Lease and its holder: whether a controller is at work.

use std::collections::BTreeSet;

use k8s_openapi::{api::coordination::v1::Lease, jiff::SignedDuration};
use kube::{Api, api::ListParams};

use super::{
    super::{
        cli::DoctorArgs,
        failure::Failure,
        phrase,
        session::{Session, in_time},
        terminal::Tone,
    },
    Findings, allowed,
};
use crate::api::Time;

/// Looks for it wherever the person may; the namespaces in which it is.
pub async fn look(session: &Session, args: &DoctorArgs, findings: &mut Findings) -> Result<BTreeSet<String>, Failure> {
    let named = ListParams::default().fields(&format!("metadata.name={}", args.lease_name));
    let list = async |namespace: Option<&str>| {
        let api: Api<Lease> = match namespace {
            Some(namespace) => Api::namespaced(session.client.clone(), namespace),
            None => Api::all(session.client.clone()),
        };
        allowed(in_time(api.list(&named)).await)
    };
    let mut found = list(args.operator_namespace.as_deref()).await?;
    if found.is_none() && args.operator_namespace.is_none() {
        found = list(Some(&session.namespace)).await?;
    }
    let Some(found) = found else {
        findings.add(
            Tone::Quiet,
            format!(
                "whether an operator leads: you may not list leases.coordination.k8s.io where Lease {} may be",
                args.lease_name
            ),
            "--operator-namespace names where it runs, or ask somebody who may",
        );
        return Ok(BTreeSet::new());
    };
    if found.items.is_empty() {
        findings.add(
            Tone::Bad,
            format!("there is no Lease {}: no controller with leader election has ever run there", args.lease_name),
            "install the operator (helm install, see its README), or name its Lease with --lease-name; one with --leader-elect=false has none",
        );
    }
    let now = session.cluster_now().await?;
    let mut places = BTreeSet::new();
    for lease in found.items {
        let namespace = lease.metadata.namespace.unwrap_or_default();
        let spec = lease.spec.unwrap_or_default();
        let what = format!("Lease {namespace}/{}", args.lease_name);
        let renewed = spec.renew_time.as_ref().map(|time| Time::from(time.0));
        let age = renewed.map(|renewed| now.since(renewed));
        let limit = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds.unwrap_or(15)) + 5);
        match (spec.holder_identity.filter(|holder| !holder.is_empty()), age) {
            (Some(holder), Some(age)) if age <= limit => {
                findings.good(format!("{what} is held by {holder}, renewed {} ago", phrase::span(age)));
            }
            (holder, age) => {
                let last = age.map_or_else(String::new, |age| format!(", last renewed {} ago", phrase::span(age)));
                let who = holder.map_or_else(|| "nobody".to_owned(), |holder| format!("{holder}, who is gone"));
                findings.add(
                    Tone::Bad,
                    format!("{what} is held by {who}{last}: no controller works, so that nothing is issued or rotated"),
                    format!("kubectl -n {namespace} get pods, and the log of the controller's"),
                );
            }
        }
        places.insert(namespace);
    }
    Ok(places)
}
