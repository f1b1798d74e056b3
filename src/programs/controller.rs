//! `pat-operator controller`: starts the controller, its certificates and leader election, and stops them in order.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use kube::Client;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::runner::connect;
use crate::{
    certificates::{self, CertificateManager, CertificateRequest},
    cli::{ControllerArgs, IssuerScope},
    controller::{ControllerOptions, PatController, issuers::IssuerSettings, preflight},
    planner::{MAX_CLOCK_SKEW, intent::ControllerConfig},
    service::{
        Clock, Cluster, HealthServer, LeaderElector, LeaseError, LeaseHandle, LeaseSettings, PreflightError, Readiness,
        ReadinessGate, Shutdown, lease,
        preflight::{check_permissions, warn_of_missing_namespaces},
    },
};

/// The timeout to release the lease. If it passes, the next leader waits until the lease is stale.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// Runs until a signal or a fatal error.
pub(super) async fn controller(args: ControllerArgs) -> anyhow::Result<()> {
    check_certificates(&args.serving_certificate)?;
    if !args.issuers.is_empty() && !args.namespaces.is_all() {
        bail!("--issuers needs all namespaces: remove --namespaces, or --issuers");
    }
    let shutdown = Shutdown::listen().context("cannot listen for signals")?;
    let cluster = connect().await?;

    let crd_established = ReadinessGate::closed("crd", "not checked yet");
    let caches_full = ReadinessGate::closed("caches", "the first list is not complete");
    let health = HealthServer::bind(args.health_addr).await?;

    let identity = lease::identity();
    let elector = args.leader_elect.then(|| elector(&args, &cluster, &identity));
    let lease = elector.as_ref().map_or_else(LeaseHandle::always, LeaderElector::watch);
    let clock = Clock::system().corrected_by(cluster.server_time.clone(), MAX_CLOCK_SKEW);
    let options = options(&args, &identity, &cluster.namespace);
    let controller =
        PatController::new(cluster.client.clone(), options, clock.clone(), lease.clone(), caches_full.clone());
    let certificates = CertificateManager::new(
        cluster.client.clone(),
        args.serving_certificate_namespace.clone().unwrap_or_else(|| cluster.namespace.clone()),
        args.serving_certificate.clone(),
        clock,
        lease.clone(),
        identity,
    );

    let readiness = Readiness::new([crd_established.clone(), caches_full]).with_note("lease", move || lease.describe());
    let end = CancellationToken::new();
    let (token_metrics, certificate_metrics) = (controller.metrics_text(), certificates.clone());
    let metrics_text = move || format!("{}{}", certificate_metrics.metrics_text(), token_metrics());
    let serving = tokio::spawn(health.serve(readiness, Arc::new(metrics_text), end.clone()));

    let program = ControllerProgram { client: cluster.client, args, crd_established, certificates };
    let result = program.run(controller, elector, shutdown.token(), &end).await;
    end.cancel();
    let _ = serving.await;
    result
}

fn check_certificates(requests: &[CertificateRequest]) -> anyhow::Result<()> {
    let mut secrets = HashSet::new();
    if let Some(twice) = requests.iter().find(|request| !secrets.insert(request.secret())) {
        bail!("--serving-certificate: {} is given twice; give each Secret once, with all of its names", twice.secret());
    }
    Ok(())
}

fn elector(args: &ControllerArgs, cluster: &Cluster, identity: &str) -> LeaderElector {
    let namespace = args.lease_namespace.clone().unwrap_or_else(|| cluster.namespace.clone());
    let settings = LeaseSettings { identity: identity.to_owned(), ..LeaseSettings::new(namespace, &args.lease_name) };
    LeaderElector::new(cluster.client.clone(), settings)
}

fn options(args: &ControllerArgs, identity: &str, namespace: &str) -> ControllerOptions {
    ControllerOptions {
        namespaces: args.namespaces.names().to_vec(),
        label_selector: args.label_selector.as_deref().map(str::to_owned),
        concurrency: usize::from(args.concurrency),
        config: ControllerConfig {
            default_lifetime: args.default_lifetime,
            publish_lead: args.publish_lead,
            restore_issued_before: args.restore_issued_before,
            issue_events: args.issue_events,
        },
        instance: Some(identity.to_owned()),
        issuers: IssuerSettings {
            cluster: args.issuers.contains(&IssuerScope::Cluster),
            namespaced: args.issuers.contains(&IssuerScope::Namespaced),
            namespace: args.issuer_namespace.as_deref().unwrap_or(namespace).to_owned(),
            lease: format!("{}/{}", args.lease_namespace.as_deref().unwrap_or(namespace), args.lease_name),
            http_hosts: args.issuer_insecure_hosts.clone(),
            networks: args.issuer_networks.clone(),
        },
    }
}

/// The parts that run alongside the controller.
struct ControllerProgram {
    client: Client,
    args: ControllerArgs,
    crd_established: ReadinessGate,
    certificates: Arc<CertificateManager>,
}

impl ControllerProgram {
    /// Waits for the prerequisites, then runs until `stopping`. The lease is released last.
    async fn run(
        self,
        controller: PatController,
        elector: Option<LeaderElector>,
        stopping: CancellationToken,
        end: &CancellationToken,
    ) -> anyhow::Result<()> {
        let watches_owners = tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            ready = self.preflight(elector.as_ref().map(LeaderElector::lease)) => ready?,
        };
        let controller = controller.watching_owners(watches_owners);
        let release = end.child_token();
        let mut election = elector.map(|elector| elect(elector, controller.caches_are_full(), release.clone()));
        let election_ended = async {
            match &mut election {
                Some(election) => election.await,
                None => std::future::pending().await,
            }
        };
        // The task has a set of its own, because its end is an error.
        let mut certificates = JoinSet::new();
        certificates.spawn(self.certificates.run());
        let result = tokio::select! {
            _ = certificates.join_next() => Err(anyhow!("the certificate manager ended unexpectedly")),
            result = controller.run(stopping) => result.map_err(anyhow::Error::from),
            ended = election_ended => {
                return match ended {
                    Ok(result) => result.map_err(anyhow::Error::from),
                    Err(panic) => Err(anyhow::Error::from(panic).context("leader election ended unexpectedly")),
                };
            }
        };
        certificates.shutdown().await;
        // Only now may another instance lead.
        release.cancel();
        if let Some(election) = election {
            let _ = tokio::time::timeout(RELEASE_LIMIT, election).await;
        }
        result
    }

    /// Waits for the prerequisites, and returns whether the controller can watch TokenOwners.
    async fn preflight(&self, lease: Option<(&str, &str)>) -> Result<bool, PreflightError> {
        let namespaces = self.args.namespaces.names();
        preflight::wait_for_crd(&self.client, &self.crd_established).await?;
        warn_of_missing_namespaces(&self.client, namespaces, "--namespaces").await;
        check_permissions(&self.client, preflight::questions(namespaces, lease)).await?;
        let names = certificates::preflight::names(&self.args.serving_certificate);
        let checks = certificates::preflight::questions(self.certificates.namespace(), &names);
        check_permissions(&self.client, checks).await?;
        if !self.args.issuers.is_empty() {
            check_permissions(
                &self.client,
                preflight::issuer_questions(self.args.issuers.contains(&IssuerScope::Namespaced)),
            )
            .await?;
        }
        preflight::check_selector(&self.client, namespaces, self.args.label_selector.as_deref()).await?;
        preflight::check_status_policy(&self.client, namespaces).await?;
        preflight::can_watch_owners(&self.client, namespaces).await
    }
}

/// Joins the election once the caches are full: a leader without full caches would do nothing.
fn elect(
    elector: LeaderElector,
    caches_full: CancellationToken,
    release: CancellationToken,
) -> JoinHandle<Result<(), LeaseError>> {
    tokio::spawn(async move {
        tokio::select! {
            () = release.cancelled() => Ok(()),
            () = caches_full.cancelled() => elector.run(release.clone()).await,
        }
    })
}
