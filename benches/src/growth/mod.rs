//! How memory and processor time grow with the configuration.

pub mod control_plane;
pub mod management;
pub mod picture;
mod probe;
pub mod proxy;

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::cpu;

/// Endpoints of each cluster, or workloads of each service.
pub const ENDPOINTS: usize = 10;
/// Weight of the endpoint that changes, so that most requests show where it is.
const HEAVY: u32 = 100;
/// Changes whose processor time is measured together, and those whose time to take effect is, one by one.
const CHANGES: u32 = 10;
const TIMED: usize = 5;

/// Everything that was measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// On what.
    pub machine: String,
    /// What grew.
    pub series: Vec<Series>,
}

/// One thing that grew.
#[derive(Debug, Serialize, Deserialize)]
pub struct Series {
    /// For people.
    pub name: String,
    /// By size.
    pub points: Vec<Point>,
}

/// What one size came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Point {
    /// Clusters, virtual hosts or services.
    pub size: usize,
    /// Resident memory with all of it, in MiB.
    pub resident_mib: f64,
    /// Processor time to take it in, in milliseconds.
    pub first_cpu_ms: f64,
    /// Time until requests go by it, in milliseconds.
    pub first_ms: f64,
    /// Processor time of one changed endpoint after that, in milliseconds.
    pub change_cpu_ms: f64,
    /// Time until requests go to the changed endpoint, in milliseconds.
    pub change_ms: f64,
    /// Processor time of a second without anything to do, in milliseconds.
    pub idle_cpu_ms: f64,
    /// Processor time of one changed route: its table is sent as a whole.
    pub route_cpu_ms: Option<f64>,
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        for series in &self.series {
            text += &format!("\n{}\n", series.name);
            text += "     size   memory  first CPU  first time  endpoint CPU  endpoint time  idle CPU\n";
            for point in &series.points {
                text += &format!(
                    "  {:7} {:6.1} M {:7.0} ms {:8.0} ms {:10.2} ms {:11.1} ms {:6.2} ms/s",
                    point.size,
                    point.resident_mib,
                    point.first_cpu_ms,
                    point.first_ms,
                    point.change_cpu_ms,
                    point.change_ms,
                    point.idle_cpu_ms
                );
                if let Some(route) = point.route_cpu_ms {
                    text += &format!("  route CPU {route:.1} ms");
                }
                text.push('\n');
            }
        }
        text
    }
}

/// Processor time of a process.
#[derive(Debug)]
struct Watched {
    pids: [i32; 1],
    /// What it uses in a second without anything to do, in seconds.
    idle: f64,
}

impl Watched {
    fn new(pid: i32) -> Self {
        Self { pids: [pid], idle: 0.0 }
    }

    fn used(&self) -> anyhow::Result<Duration> {
        cpu::time(&self.pids)
    }

    fn resident_mib(&self) -> anyhow::Result<f64> {
        Ok(cpu::resident(&self.pids)? as f64 / 1024.0)
    }

    /// Waits until it has nothing to do; what it has used by then.
    async fn settled(&self) -> anyhow::Result<Duration> {
        const LOOK: Duration = Duration::from_millis(20);
        let begun = Instant::now();
        let (mut last, mut quiet) = (self.used()?, 0);
        while quiet < 4 {
            ensure!(begun.elapsed() < Duration::from_secs(120), "it does not come to rest");
            tokio::time::sleep(LOOK).await;
            let now = self.used()?;
            quiet = if now - last < Duration::from_micros(400) { quiet + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    /// Watches it do nothing.
    async fn rest(&mut self) -> anyhow::Result<()> {
        const REST: Duration = Duration::from_secs(3);
        let before = self.settled().await?;
        tokio::time::sleep(REST).await;
        self.idle = (self.used()? - before).as_secs_f64() / REST.as_secs_f64();
        Ok(())
    }

    /// Processor time of each of some changes, without what goes on anyway, in milliseconds.
    async fn each(&self, mut change: impl FnMut(u32) -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let before = self.used()?;
        for turn in 0..CHANGES {
            change(turn)?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.settled().await?;
        }
        let used =
            (self.used()? - before).as_secs_f64() - self.idle * begun.elapsed().as_secs_f64();
        Ok(used.max(0.0) * 1000.0 / f64::from(CHANGES))
    }
}
