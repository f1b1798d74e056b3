//! pat-operator: reads the command line, wires the parts, runs them, ends them in order.
//!
//! Errors end here, as one line that says what to do next, and exit code 1.

use std::{collections::HashSet, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Parser;
use pat_operator::{
    api::crd,
    certificates::{self, Keeper},
    cli::{Cli, Command, ControllerArgs, LogArgs},
    controller::{ControllerOptions, PatController, preflight},
    planner::intent::ControllerConfig,
    service::{self, Clock, Elector, Gate, Health, LeaseHandle, LeaseSettings, PreflightError, Readiness, Shutdown},
};
use tokio::{
    runtime::Builder,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

mod programs {
    pub mod api;
    mod listen;
    mod news;
    pub mod verifier;
}

/// How long it may take to give the lease back. If that fails, the next leader waits until the lease is stale.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Crds => {
            print!("{}", crd::all_yaml());
            return ExitCode::SUCCESS;
        }
        // One thread has time to spare beside what an API server can take, and two would wake each other with each request.
        Command::Controller(args) => run(&args.log.clone(), Builder::new_current_thread(), controller(*args)),
        Command::Verifier(args) => {
            run(&args.log.clone(), Builder::new_multi_thread(), programs::verifier::verifier(*args))
        }
        Command::Api(args) => run(&args.log.clone(), Builder::new_multi_thread(), programs::api::api(*args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(log: &LogArgs, mut threads: Builder, program: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    service::telemetry::init(log.log_format.into(), &log.log_level)?;
    service::client::install_crypto();
    let runtime = threads.enable_all().build().context("no threads could be started")?;
    runtime.block_on(program)
}

async fn controller(args: ControllerArgs) -> anyhow::Result<()> {
    let mut secrets = HashSet::new();
    if let Some(twice) = args.serving_certificate.iter().find(|wanted| !secrets.insert(wanted.secret())) {
        bail!("--serving-certificate: {} is given twice; give each Secret once, with all of its names", twice.secret());
    }
    let shutdown = Shutdown::listen().context("signals cannot be listened to")?;
    let stopping = shutdown.token();
    let cluster = service::client::connect().await?;
    tracing::info!(api_server = cluster.url, version = env!("CARGO_PKG_VERSION"), "starting");

    let crd_there = Gate::closed("crd", "not looked for yet");
    let caches_full = Gate::closed("caches", "the first list is not in yet");
    let health = Health::bind(args.health_addr).await?;

    let identity = service::lease::identity();
    let namespaces = args.namespaces.names().to_vec();
    let elector = args.leader_elect.then(|| {
        let namespace = args.lease_namespace.clone().unwrap_or_else(|| cluster.namespace.clone());
        let settings = LeaseSettings { identity: identity.clone(), ..LeaseSettings::new(namespace, &args.lease_name) };
        Elector::new(cluster.client.clone(), settings)
    });
    let lease = elector.as_ref().map_or_else(LeaseHandle::always, Elector::watch);

    let options = ControllerOptions {
        namespaces: namespaces.clone(),
        label_selector: args.label_selector.as_deref().map(str::to_owned),
        concurrency: usize::from(args.concurrency),
        settings: ControllerConfig {
            default_lifetime: args.default_lifetime,
            publish_lead: args.publish_lead,
            restore_issued_before: args.restore_issued_before,
        },
        instance: Some(identity.clone()),
    };
    let clock = Clock::system();
    let controller =
        PatController::new(cluster.client.clone(), options, clock.clone(), lease.clone(), caches_full.clone());
    let certificates = Certificates {
        namespace: args.serving_certificate_namespace.clone().unwrap_or_else(|| cluster.namespace.clone()),
        wanted: args.serving_certificate.clone(),
    };
    let keeper = certificates.keeper(&cluster.client, clock, lease.clone(), identity);

    let readiness = Readiness::new([crd_there.clone(), caches_full]).with_note("lease", move || lease.describe());
    let end = CancellationToken::new();
    let (of_tokens, of_certificates) = (controller.metrics_text(), keeper.clone());
    let metrics_text = move || format!("{}{}", of_certificates.metrics_text(), of_tokens());
    let serving = tokio::spawn(health.serve(readiness, Arc::new(metrics_text), end.clone()));

    let result = work(
        &cluster.client,
        &namespaces,
        args.label_selector.as_deref(),
        &crd_there,
        controller,
        (&certificates, keeper),
        elector,
        stopping,
        end.clone(),
    )
    .await;
    end.cancel();
    let _ = serving.await;
    result
}

/// The certificates that this instance is to look after.
struct Certificates {
    namespace: String,
    wanted: Vec<certificates::Wanted>,
}

impl Certificates {
    fn keeper(&self, client: &kube::Client, clock: Clock, lease: LeaseHandle, instance: String) -> Arc<Keeper> {
        Keeper::new(client.clone(), self.namespace.clone(), self.wanted.clone(), clock, lease, instance)
    }

    async fn check_permissions(&self, client: &kube::Client) -> Result<(), PreflightError> {
        let names = certificates::preflight::names(&self.wanted);
        let questions = certificates::preflight::questions(&self.namespace, &names);
        service::preflight::check_permissions(client, questions).await
    }
}

/// Waits for what must be there, then works until told to stop; the lease is given back last.
#[expect(clippy::too_many_arguments, reason = "it is called once, and each is another part")]
async fn work(
    client: &kube::Client,
    namespaces: &[String],
    selector: Option<&str>,
    crd_there: &Gate,
    controller: PatController,
    (certificates, keeper): (&Certificates, Arc<Keeper>),
    elector: Option<Elector>,
    stopping: CancellationToken,
    end: CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        () = stopping.cancelled() => return Ok(()),
        ready = async {
            preflight::wait_for_crd(client, crd_there).await?;
            preflight::check_permissions(client, namespaces, elector.as_ref().map(Elector::lease)).await?;
            certificates.check_permissions(client).await?;
            preflight::check_selector(client, namespaces, selector).await
        } => ready?,
    }
    let release = end.child_token();
    let mut electing: Option<JoinHandle<_>> = elector.map(|elector| {
        let (full, release) = (controller.caches_are_full(), release.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = release.cancelled() => Ok(()),
                () = full.cancelled() => elector.run(release.clone()).await,
            }
        })
    });
    let election_failed = async {
        match &mut electing {
            Some(election) => election.await,
            None => std::future::pending().await,
        }
    };
    // It must end with this process, and never before.
    let mut keeping = JoinSet::new();
    keeping.spawn(keeper.run());
    let result = tokio::select! {
        _ = keeping.join_next() => Err(anyhow::anyhow!("what looks after certificates ended unexpectedly")),
        result = controller.run(stopping) => result.map_err(anyhow::Error::from),
        ended = election_failed => {
            return match ended {
                Ok(result) => result.map_err(anyhow::Error::from),
                Err(panic) => Err(anyhow::Error::from(panic).context("leader election ended unexpectedly")),
            };
        }
    };
    keeping.shutdown().await;
    // Only now may another instance begin.
    release.cancel();
    if let Some(election) = electing {
        let _ = tokio::time::timeout(RELEASE_LIMIT, election).await;
    }
    result
}
