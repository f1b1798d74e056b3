//! The floor: a bare client that makes the same writes as the operator, with the same number in flight and two watches open.
//!
//! It decides nothing, and reads only the versions of the answers.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::{
    crowd::each,
    fixture::{self, Token},
    meter::Span,
    plane::Plane,
    progress::{self, Progress},
    script::{Kind, Script, Step},
    wire::{Watches, Wire, events, pats, secrets},
};

/// The limit for the watches to deliver the existing objects, and the number of attempts. An API server sometimes ends a watch, which every
/// client must expect.
const FULL_WITHIN: Duration = Duration::from_secs(30);
const TRIES: usize = 3;

/// The results of the floor.
#[derive(Clone, Debug, Serialize)]
pub struct Floor {
    /// First mints.
    pub mint: FloorPhase,
    /// Rotations.
    pub rotation: FloorPhase,
}

/// The results for one kind of work.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FloorPhase {
    /// The number of tokens.
    pub tokens: usize,
    /// The time that it took.
    pub seconds: f64,
    /// Tokens per second.
    pub rate: f64,
    /// The client's CPU time per token.
    pub client_cpu_ms: f64,
    /// The CPU time of the API server and etcd per token.
    pub control_plane_cpu_ms: f64,
    /// The share of the machine that other processes took.
    pub others: f64,
}

/// Measures the floor, in a namespace of its own.
pub async fn measure(plane: &Plane, script: &Script, count: usize) -> anyhow::Result<Floor> {
    let namespace = plane.namespace().await?;
    let tokens = fixture::create(plane, &namespace, count).await?;
    let client = Bare { wire: plane.wire()?, namespace };
    let watches = client.watch(count).await?;
    let (mint, tokens) = client.perform(plane, "floor: mint", &script.mint, tokens).await?;
    drop(watches);

    let tokens = fixture::ask_for_rotation(plane, &client.namespace, tokens).await?;
    let client = Bare { wire: plane.wire()?, ..client };
    let _watches = client.watch(2 * count).await?;
    let (rotation, _) = client.perform(plane, "floor: rotation", &script.rotation, tokens).await?;
    Ok(Floor { mint, rotation })
}

#[derive(Clone)]
struct Bare {
    wire: Wire,
    namespace: String,
}

impl Bare {
    /// Opens watches that deliver this many objects.
    async fn watch(&self, count: usize) -> anyhow::Result<Watches> {
        let mut seen = 0;
        for _ in 0..TRIES {
            let watches = self.wire.watch(&self.namespace).await?;
            let full = async {
                while watches.seen() < count {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            if tokio::time::timeout(FULL_WITHIN, full).await.is_ok() {
                return Ok(watches);
            }
            seen = watches.seen();
            progress::report(&format!("the floor's watches delivered {seen} of {count} objects and are reopened"));
        }
        anyhow::bail!("the floor's watches delivered only {seen} of {count} objects")
    }

    async fn perform(
        &self,
        plane: &Plane,
        what: &str,
        steps: &[Step],
        tokens: Vec<Token>,
    ) -> anyhow::Result<(FloorPhase, Vec<Token>)> {
        plane.settle().await?;
        let count = tokens.len();
        let progress = Progress::begin(format!("{what}, {count} tokens"), count);
        let (client, steps): (_, std::sync::Arc<[Step]>) = (self.clone(), steps.into());
        let work = move |token| {
            let (client, steps) = (client.clone(), steps.clone());
            async move { client.one(&steps, token).await }
        };
        let meter = plane.meter(None)?;
        let before = meter.read()?;
        let tokens = each(tokens, &progress, work).await.with_context(|| what.to_owned())?;
        let span = meter.read()? - before;
        let phase = FloorPhase::new(count, span);
        progress::report(&format!("{what}: {:.0}/s", phase.rate));
        Ok((phase, tokens))
    }

    async fn one(&self, steps: &[Step], mut token: Token) -> anyhow::Result<Token> {
        let Self { wire, namespace } = self;
        for step in steps {
            let body = step.body(namespace, &token);
            match step.kind {
                Kind::Status => token.pat = wire.apply_status(&pats(namespace), &token.name, body).await?,
                Kind::CreateSecret => token.secret = wire.create(&secrets(namespace), body).await?,
                Kind::PatchSecret => {
                    ensure!(!token.secret.uid.is_empty(), "the Secret to change does not exist");
                    let manager = pat_operator::api::FIELD_MANAGER;
                    token.secret = wire.merge(&secrets(namespace), &token.name, manager, body).await?;
                }
                Kind::Event => drop(wire.create(&events(namespace), body).await?),
            }
        }
        Ok(token)
    }
}

impl FloorPhase {
    fn new(tokens: usize, span: Span) -> Self {
        let each = |time: Duration| time.as_secs_f64() * 1e3 / tokens as f64;
        let seconds = span.took.as_secs_f64();
        Self {
            tokens,
            seconds,
            rate: tokens as f64 / seconds,
            client_cpu_ms: each(span.bench),
            control_plane_cpu_ms: each(span.control_plane()),
            others: span.others(),
        }
    }
}
