//! Compares the verifier with bare handlers in turns: floor, verifier, floor, verifier, …, floor.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use crate::{
    args::Args,
    floor::{Answers, Constant},
    load::{self, LoadResult},
    part::Part,
    proc,
    progress::Progress,
    protocol::Protocol,
    subject::Addresses,
};

/// All rounds of one protocol.
#[derive(Debug, Serialize)]
pub struct Duel {
    /// The protocol.
    pub protocol: Protocol,
    /// The rounds of the bare handler, one more than the verifier has.
    pub floors: Vec<Turn>,
    /// The rounds of the verifier.
    pub subjects: Vec<Turn>,
}

/// One round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Turn {
    /// The results of the load.
    pub heard: LoadResult,
    /// The server's CPU time per answer, in microseconds.
    pub server_micros: f64,
    /// The share of the machine that other processes took.
    pub others: f64,
}

struct Side {
    part: Part,
    at: Addresses,
}

/// Measures all protocols.
pub async fn measure(args: &Args) -> anyhow::Result<Vec<Duel>> {
    let (part, at) = Part::start(&["subject", &args.tokens().to_string()])?;
    let subject = Side { part, at };
    let constant = async |protocol| {
        let answer = load::probe(protocol, subject.addr(protocol)).await?;
        anyhow::Ok(Constant { headers: answer.headers, body: String::from_utf8(answer.body)? })
    };
    let answers = Answers {
        introspection: constant(Protocol::Introspection).await?,
        forward_auth: constant(Protocol::ForwardAuth).await?,
        grpc_bytes: load::probe(Protocol::Grpc, subject.at.grpc).await?.body.len(),
    };
    let (part, at) = Part::start(&["floor", &serde_json::to_string(&answers)?])?;
    let floor = Side { part, at };
    Protocol::ALL.into_iter().map(|protocol| duel(protocol, &floor, &subject, args)).collect()
}

fn duel(protocol: Protocol, floor: &Side, subject: &Side, args: &Args) -> anyhow::Result<Duel> {
    let rounds = args.rounds();
    let progress = Progress::begin(format!("{} compared with a bare handler", protocol.name()), 2 * rounds + 1);
    let turn = |side: &Side| {
        let turn = side.turn(protocol, args);
        progress.step();
        turn
    };
    let (mut floors, mut subjects) = (vec![turn(floor)?], Vec::new());
    for _ in 0..rounds {
        subjects.push(turn(subject)?);
        floors.push(turn(floor)?);
    }
    let size = |turns: &[Turn]| turns[0].heard.answer_bytes;
    ensure!(
        size(&floors) == size(&subjects),
        "the answers differ in size: {} and {} bytes",
        size(&floors),
        size(&subjects)
    );
    Ok(Duel { protocol, floors, subjects })
}

impl Side {
    fn addr(&self, protocol: Protocol) -> std::net::SocketAddr {
        match protocol {
            Protocol::Introspection | Protocol::ForwardAuth => self.at.http,
            Protocol::Grpc => self.at.grpc,
        }
    }

    fn turn(&self, protocol: Protocol, args: &Args) -> anyhow::Result<Turn> {
        let name = clap::ValueEnum::to_possible_value(&protocol).map(|value| value.get_name().to_owned());
        let (name, addr) = (name.unwrap_or_default(), self.addr(protocol).to_string());
        let (began, machine, server) = (Instant::now(), proc::machine()?, proc::cpu(self.part.pid())?);
        let arguments = ["load", &name, &addr, &args.tokens().to_string(), &args.seconds().to_string()];
        let (load, heard) = Part::start::<LoadResult>(&arguments)?;
        load.finish()?;
        let server = proc::cpu(self.part.pid())?.saturating_sub(server);
        let others = proc::machine()?
            .saturating_sub(machine)
            .saturating_sub(server + Duration::from_secs_f64(heard.cpu_seconds));
        let all = began.elapsed().as_secs_f64() * proc::cores() as f64;
        Ok(Turn {
            heard,
            server_micros: server.as_secs_f64() * 1e6 / heard.answers as f64,
            others: others.as_secs_f64() / all,
        })
    }
}
