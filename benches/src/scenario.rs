//! What is measured, and how: each proxy in turn, over several rounds.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use crate::backend::LARGE_PATH;
use crate::cpu;
use crate::load::{self, Style};
use crate::peer::{Growth, Http, Job, Peer, Running, Workshop};

/// A path in the middle of the table of routes.
pub const PATH: &str = "/r25/x";

/// A job with its load.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// For `--only` and JSON.
    pub name: &'static str,
    /// In words.
    pub title: &'static str,
    /// What the proxy does.
    pub job: Job,
    /// What it is asked.
    pub load: Load,
    /// Share of Envoy's processor time that ours must not exceed, and what we aim at.
    pub limits: Option<(f64, f64)>,
}

/// How a scenario asks.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// As fast as the answers come.
    Closed(Style, &'static str),
    /// So many requests a second.
    Paced(u32),
}

/// All scenarios with processor time.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "h1",
        title: "HTTP/1.1 hop, 1 KiB, 50 connections",
        job: Job::Hop(Http::One, Http::One),
        load: Load::Closed(Style::Kept(50), PATH),
        limits: Some((0.40, 0.30)),
    },
    Scenario {
        name: "h2-h1",
        title: "HTTP/2 in, HTTP/1.1 out",
        job: Job::Hop(Http::Two, Http::One),
        load: Load::Closed(Style::Multiplexed(5, 10), PATH),
        limits: Some((0.42, 0.26)),
    },
    Scenario {
        name: "h2-h2",
        title: "HTTP/2 in, HTTP/2 out",
        job: Job::Hop(Http::Two, Http::Two),
        load: Load::Closed(Style::Multiplexed(5, 10), PATH),
        limits: Some((0.45, 0.33)),
    },
    Scenario {
        name: "pair-h1",
        title: "pair over mTLS, HTTP/1.1",
        job: Job::Pair(Http::One),
        load: Load::Closed(Style::Kept(50), PATH),
        limits: Some((0.38, 0.27)),
    },
    Scenario {
        name: "pair-h2",
        title: "pair over mTLS, HTTP/2",
        job: Job::Pair(Http::Two),
        load: Load::Closed(Style::Kept(50), PATH),
        limits: Some((0.40, 0.25)),
    },
    Scenario {
        name: "large",
        title: "1 MiB answers, one hop",
        job: Job::Hop(Http::One, Http::One),
        load: Load::Closed(Style::Kept(8), LARGE_PATH),
        limits: Some((0.66, 0.35)),
    },
    Scenario {
        name: "large-pair",
        title: "1 MiB answers, pair over mTLS",
        job: Job::Pair(Http::One),
        load: Load::Closed(Style::Kept(8), LARGE_PATH),
        limits: Some((0.80, 0.60)),
    },
    Scenario {
        name: "anew",
        title: "a new connection for each request",
        job: Job::Hop(Http::One, Http::One),
        load: Load::Closed(Style::Anew(20), PATH),
        limits: Some((0.50, 0.38)),
    },
    Scenario {
        name: "paced",
        title: "1000 requests/s, pair over mTLS, HTTP/1.1",
        job: Job::Pair(Http::One),
        load: Load::Paced(1000),
        limits: Some((0.36, 0.26)),
    },
    Scenario {
        name: "paced-h2",
        title: "1000 requests/s, pair over mTLS, HTTP/2",
        job: Job::Pair(Http::Two),
        load: Load::Paced(1000),
        limits: Some((0.36, 0.26)),
    },
];

/// What one run of one proxy came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Processor time of the proxy's processes for one request, in microseconds.
    pub cpu_us: f64,
    /// Requests a second.
    pub per_second: f64,
    /// Median latency, counted from when a request was due, in microseconds. Paced loads only.
    pub p50_us: Option<f64>,
    /// The same, of which one request in a hundred takes longer.
    pub p99_us: Option<f64>,
}

/// How much of the proxies' core others may have used while a sample was taken.
const DISTURBED: f64 = 0.05;
/// How often a disturbed sample is taken again.
const AGAIN: usize = 4;
const WARM_UP: Duration = Duration::from_millis(500);

/// One sample, taken again where others used the proxies' core.
///
/// # Errors
/// When the proxy does not start, or a request fails.
pub async fn sample(
    workshop: &Workshop,
    peer: Peer,
    scenario: &Scenario,
    length: Duration,
) -> anyhow::Result<(Sample, bool)> {
    let running = workshop.start(peer, scenario.job).await?;
    let mut last = None;
    for _ in 0..AGAIN {
        let (sample, others) = once(&running, scenario, length).await?;
        if others <= DISTURBED {
            return Ok((sample, false));
        }
        last = Some(sample);
    }
    last.map(|sample| (sample, true)).ok_or_else(|| anyhow::anyhow!("no sample"))
}

/// Processor time of a request, in microseconds, whoever else uses the proxies' core.
///
/// # Errors
/// As [`sample`].
pub async fn cost(
    workshop: &Workshop,
    peer: Peer,
    scenario: &Scenario,
    length: Duration,
) -> anyhow::Result<f64> {
    let running = workshop.start(peer, scenario.job).await?;
    Ok(once(&running, scenario, length).await?.0.cpu_us)
}

/// A sample, and the share of the proxies' core that others used meanwhile.
async fn once(
    running: &Running,
    scenario: &Scenario,
    length: Duration,
) -> anyhow::Result<(Sample, f64)> {
    match scenario.load {
        Load::Closed(style, path) => {
            let meter = load::start(style, running.address, path);
            load::begins(&meter).await?;
            tokio::time::sleep(WARM_UP).await;
            let watch = Watch::begin(running)?;
            let before = meter.answered();
            tokio::time::sleep(length).await;
            let answered = meter.answered() - before;
            let (used, took, others) = watch.end()?;
            meter.stop();
            // What is under way may end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            ensure!(meter.failed() == 0, "{} requests failed", meter.failed());
            let cpu_us = used.as_secs_f64() * 1e6 / answered as f64;
            let per_second = answered as f64 / took.as_secs_f64();
            Ok((Sample { cpu_us, per_second, p50_us: None, p99_us: None }, others))
        }
        Load::Paced(per_second) => {
            let address = running.address;
            let run = move |length| load::paced(address, PATH, per_second, 2, length);
            tokio::task::spawn_blocking(move || run(WARM_UP)).await??;
            let watch = Watch::begin(running)?;
            let latencies = tokio::task::spawn_blocking(move || run(length)).await??;
            let (used, took, others) = watch.end()?;
            let microseconds = |share| Some(latencies.percentile(share).as_secs_f64() * 1e6);
            let count = latencies.count() as f64;
            let sample = Sample {
                cpu_us: used.as_secs_f64() * 1e6 / count,
                per_second: count / took.as_secs_f64(),
                p50_us: microseconds(0.5),
                p99_us: microseconds(0.99),
            };
            Ok((sample, others))
        }
    }
}

struct Watch {
    pids: Vec<i32>,
    used: Duration,
    busy: Duration,
    begun: Instant,
}

impl Watch {
    fn begin(running: &Running) -> anyhow::Result<Self> {
        let pids = running.pids();
        let (used, busy) = (cpu::time(&pids)?, cpu::proxy_core_busy()?);
        Ok(Self { pids, used, busy, begun: Instant::now() })
    }

    /// What the proxies used, how long it took, and the share of their core that others used.
    fn end(self) -> anyhow::Result<(Duration, Duration, f64)> {
        let used = cpu::time(&self.pids)? - self.used;
        let took = self.begun.elapsed();
        let busy = cpu::proxy_core_busy()?.saturating_sub(self.busy);
        let others = busy.saturating_sub(used).as_secs_f64() / took.as_secs_f64();
        Ok((used, took, others))
    }
}

/// Median latency without any proxy, in microseconds.
///
/// # Errors
/// When a request fails.
pub async fn direct(workshop: &Workshop, length: Duration) -> anyhow::Result<f64> {
    let address = workshop.backends.http1;
    let run = move || load::paced(address, PATH, 1000, 2, length);
    let latencies = tokio::task::spawn_blocking(run).await??;
    Ok(latencies.percentile(0.5).as_secs_f64() * 1e6)
}

/// Memory of one proxy, in MiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Resident {
    /// At rest.
    pub idle: f64,
    /// With 1000 connections that had a request each.
    pub connections: f64,
    /// What 1000 clusters of 10 endpoints add. Envoy and ours only.
    pub clusters: Option<f64>,
    /// The first request of a pair over mTLS after it got ready, in milliseconds.
    pub first_ms: f64,
}

/// Measures memory, and the first request.
///
/// # Errors
/// When the proxy does not start, or a request fails.
pub async fn resident(workshop: &Workshop, peer: Peer) -> anyhow::Result<Resident> {
    let mebibytes = |kib: u64| kib as f64 / 1024.0;
    let job = Job::Hop(Http::One, Http::One);
    let rest = Duration::from_millis(500);
    let running = workshop.start(peer, job).await?;
    tokio::time::sleep(rest).await;
    let idle = mebibytes(cpu::resident(&running.pids())?);
    let open = load::idle(running.address, PATH, 1000).await?;
    tokio::time::sleep(rest).await;
    let connections = mebibytes(cpu::resident(&running.pids())?);
    drop((open, running));
    let clusters = if matches!(peer, Peer::Envoy | Peer::Pillion) {
        let growth = Growth { clusters: 1000, endpoints: 10 };
        let running = workshop.start_with(peer, job, growth).await?;
        tokio::time::sleep(rest).await;
        Some(mebibytes(cpu::resident(&running.pids())?) - idle)
    } else {
        None
    };
    let running = workshop.start(peer, Job::Pair(Http::One)).await?;
    tokio::time::sleep(rest).await;
    let begun = Instant::now();
    drop(load::idle(running.address, PATH, 1).await?);
    let first_ms = begun.elapsed().as_secs_f64() * 1000.0;
    Ok(Resident { idle, connections, clusters, first_ms })
}
