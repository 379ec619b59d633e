//! Pillion beside real Envoy, nginx and haproxy, in one run: processor time of each request, latency and memory.
//!
//! The proxies have one core, the load and the backend the other. Each scenario is played by each proxy in turn, over several
//! rounds; what counts is the median of each round's ratio to Envoy.

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use pillion_benches::backend;
use pillion_benches::cpu;
use pillion_benches::peer::{Backends, Peer, Workshop};
use pillion_benches::report::{self, Report};
use pillion_benches::scenario::{self, ALL, Load, Scenario};
use pillion_benches::workers::Workers;

const PEERS: [Peer; 4] = [Peer::Envoy, Peer::Nginx, Peer::Haproxy, Peer::Pillion];

/// Processor time, latency and memory of Pillion, Envoy, nginx and haproxy, side by side.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; each plays every proxy once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each sample.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only these scenarios, by name; `memory` and `workers` are such too.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// JSON in place of tables.
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    cpu::stay_on_load_core()?;
    let backends = Backends { http1: backend::http1().await?, http2: backend::http2().await? };
    let mut workshop = Workshop::new(backends)?;
    let length = Duration::from_secs_f64(args.seconds);
    let mut report = Report { machine: report::machine()?, ..Report::default() };
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    if !args.json {
        println!("{}; {} rounds of {} s", report.machine, args.rounds, args.seconds);
    }
    for scenario in ALL.iter().filter(|scenario| wanted(scenario.name)) {
        if matches!(scenario.load, Load::Paced(_)) && report.direct_us.is_none() {
            report.direct_us = Some(scenario::direct(&workshop, length).await?);
        }
        play(&workshop, scenario, &args, &mut report).await?;
        if !args.json {
            print!("{}", report.table(scenario));
        }
    }
    if wanted("memory") {
        for peer in PEERS {
            let measured = scenario::resident(&workshop, peer).await;
            report.memory.insert(peer, measured.with_context(|| format!("memory of {peer}"))?);
        }
        if !args.json {
            print!("{}", report.memory_table());
        }
    }
    if wanted("workers") {
        report.workers = Workers::measure(&mut workshop, args.rounds, length).await?;
        if !args.json {
            print!("{}", report.workers.table());
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if report.disturbed > 0 {
        println!(
            "\n{} samples were disturbed by other processes, however often they were taken",
            report.disturbed
        );
    }
    Ok(())
}

async fn play(
    workshop: &Workshop,
    scenario: &Scenario,
    args: &Args,
    report: &mut Report,
) -> anyhow::Result<()> {
    let length = Duration::from_secs_f64(args.seconds);
    for round in 0..args.rounds {
        for peer in PEERS.into_iter().filter(|peer| workshop.can(*peer, scenario.job)) {
            let sample = scenario::sample(workshop, peer, scenario, length).await;
            let sample =
                sample.with_context(|| format!("{}, {peer}, round {round}", scenario.name))?;
            report.add(scenario.name, peer, sample);
        }
    }
    Ok(())
}
