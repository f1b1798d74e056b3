//! The floor: a bare client that does just the writes that the operator does, with as many in flight and two watches open.
//!
//! It decides nothing, reads nothing back but versions, and keeps nothing. Must not know the operator.

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

/// How long the watches may take to tell what is there already, and how often they are opened anew if they do not: an API server
/// cuts a watch off now and then, which whoever needs it for longer has to live with.
const FULL_WITHIN: Duration = Duration::from_secs(30);
const TRIES: usize = 3;

/// What the floor reached.
#[derive(Clone, Debug, Serialize)]
pub struct Floor {
    /// First mints.
    pub mint: FloorPhase,
    /// Rotations.
    pub rotation: FloorPhase,
}

/// One sort of work, done for a number of tokens.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FloorPhase {
    /// How many tokens.
    pub tokens: usize,
    /// How long it took.
    pub seconds: f64,
    /// Tokens a second.
    pub rate: f64,
    /// The client's own CPU time for a token.
    pub client_cpu_ms: f64,
    /// The API server's and etcd's CPU time for a token.
    pub control_plane_cpu_ms: f64,
    /// The share of the machine that went to processes outside of the bench.
    pub others: f64,
}

/// Measures it, in a namespace of its own.
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
    /// Watches that have told of so many objects.
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
            progress::tell(&format!("the floor's watches told of {seen} objects out of {count} and are opened anew"));
        }
        anyhow::bail!("the floor's watches tell of {seen} objects out of {count}")
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
        progress::tell(&format!("{what}: {:.0}/s", phase.rate));
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
                    ensure!(!token.secret.uid.is_empty(), "there is no Secret to change");
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
