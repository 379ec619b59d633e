//! Follows a fleet and its load, second by second, and says how they look now.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::fleet::{Fleet, Instance};
use super::load::{Load, Tally};
use super::process::Phase;
use super::scrape::{Counters, Follower, scrape};
use super::summary::Summary;

/// A sidecar that does not answer by then is left out until the next second.
const SCRAPE_LIMIT: Duration = Duration::from_millis(800);
/// Rates and percentiles on the screen are those of the last so many seconds.
const WINDOW: usize = 3;
const HISTORY: usize = 240;
const EVENTS: usize = 50;

/// Everything the live picture shows.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) elapsed: Duration,
    /// How many requests there will be, if that is known.
    pub(crate) goal: Option<u64>,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) per_second: f64,
    pub(crate) success_percent: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) mtls_percent: Option<f64>,
    /// Requests in each of the last seconds, the newest last.
    pub(crate) history: Vec<u64>,
    pub(crate) services: Vec<ServiceView>,
    pub(crate) control_plane: SocketAddr,
    pub(crate) control_plane_ready: bool,
    pub(crate) mesh_dir: PathBuf,
    pub(crate) log_dir: PathBuf,
    /// What happened, the newest last.
    pub(crate) events: Vec<String>,
}

/// One line of the table: the instances of one group.
#[derive(Debug, Clone)]
pub(crate) struct ServiceView {
    pub(crate) name: String,
    /// Groups of the same service share its traffic.
    pub(crate) service: String,
    pub(crate) instances: usize,
    pub(crate) ready: usize,
    /// Of the last seconds, seen on the inbound side of its sidecars; so are the percentages and latencies.
    pub(crate) per_second: f64,
    pub(crate) success_percent: Option<f64>,
    pub(crate) mtls_percent: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// The admin ports of its sidecars.
    pub(crate) admin_ports: Vec<u16>,
    /// Whether there is anything inbound at all.
    pub(crate) has_app: bool,
}

/// Keeps what is needed from one second to the next.
#[derive(Debug)]
pub(crate) struct Monitor {
    followers: Vec<Follower>,
    /// What the followers had counted before the load began.
    baseline: Vec<Counters>,
    past: VecDeque<(Instant, Vec<Counters>)>,
    front: VecDeque<(Duration, Tally)>,
    start: Instant,
    last_tick: Instant,
    deaths: Vec<u32>,
    events: VecDeque<String>,
    goal: Option<u64>,
    mesh_dir: PathBuf,
}

impl Monitor {
    /// Begins to count now: what the sidecars have counted before is left out.
    pub(crate) async fn start(fleet: &Fleet, goal: Option<u64>, mesh_dir: PathBuf) -> Self {
        let now = Instant::now();
        let mut monitor = Self {
            followers: vec![Follower::default(); fleet.instances.len()],
            baseline: vec![Counters::default(); fleet.instances.len()],
            past: VecDeque::new(),
            front: VecDeque::new(),
            start: now,
            last_tick: now,
            deaths: fleet.processes().map(|process| process.status().deaths).collect(),
            events: VecDeque::new(),
            goal,
            mesh_dir,
        };
        monitor.scrape(fleet).await;
        monitor.baseline = monitor.totals();
        monitor.past.push_back((Instant::now(), monitor.totals()));
        monitor
    }

    /// Once a second: asks the sidecars, and closes the load's current window.
    pub(crate) async fn tick(&mut self, fleet: &Fleet, load: &Load) {
        self.scrape(fleet).await;
        let now = Instant::now();
        self.past.push_back((now, self.totals()));
        while self.past.len() > WINDOW + 1 {
            self.past.pop_front();
        }
        self.front.push_back((now - self.last_tick, load.take_window()));
        while self.front.len() > HISTORY {
            self.front.pop_front();
        }
        self.last_tick = now;
        self.note_deaths(fleet);
    }

    /// Adds a line to what happened, with the time since the start before it.
    pub(crate) fn note(&mut self, event: &str) {
        let seconds = self.start.elapsed().as_secs();
        self.events.push_back(format!("{:02}:{:02} {event}", seconds / 60, seconds % 60));
        while self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    pub(crate) fn mesh_dir(&self) -> &Path {
        &self.mesh_dir
    }

    /// Takes what happened since the last call, for those who print it line by line.
    pub(crate) fn take_events(&mut self) -> Vec<String> {
        self.events.drain(..).collect()
    }

    /// How everything looks now.
    pub(crate) fn view(&self, fleet: &Fleet, load: &Load) -> View {
        let total = load.total();
        let (mut recent, mut seconds) = (Tally::default(), 0.0);
        for (length, tally) in self.front.iter().rev().take(WINDOW) {
            recent.add(tally);
            seconds += length.as_secs_f64();
        }
        let services: Vec<_> = fleet
            .groups()
            .iter()
            .map(|(name, members)| self.service(fleet, name, members))
            .collect();
        View {
            elapsed: load.elapsed(),
            goal: self.goal,
            done: total.done,
            failed: total.failed,
            per_second: per_second(recent.done, seconds),
            success_percent: super::scrape::percent(total.done - total.failed, total.done),
            p50_ms: recent.latency_ms(50.0),
            p99_ms: recent.latency_ms(99.0),
            mtls_percent: self.all().mtls_percent(),
            history: self.front.iter().map(|(_, tally)| tally.done).collect(),
            services,
            control_plane: fleet.control_plane.admin,
            control_plane_ready: fleet.control_plane.process.status().phase == Phase::Ready,
            mesh_dir: self.mesh_dir.clone(),
            log_dir: fleet.log_dir().to_owned(),
            events: self.events.iter().cloned().collect(),
        }
    }

    /// The outcome, once the load is over and the last tick was made.
    pub(crate) fn summary(&self, fleet: &Fleet, load: &Load, elapsed: Duration) -> Summary {
        let totals = self.totals();
        let services: Vec<_> = fleet
            .groups()
            .into_iter()
            .filter(|(_, members)| members.iter().any(|instance| instance.app.is_some()))
            .map(|(name, members)| {
                (name, members.len(), self.sum(fleet, &members, &totals, &self.baseline))
            })
            .collect();
        Summary::new(&load.total(), &services, elapsed.as_secs_f64(), fleet.deaths())
    }

    async fn scrape(&mut self, fleet: &Fleet) {
        let scrapes =
            fleet.instances.iter().map(|instance| timeout(SCRAPE_LIMIT, scrape(instance.admin)));
        for (follower, answer) in self.followers.iter_mut().zip(join_all(scrapes).await) {
            // One that is just being started again answers next time.
            if let Ok(Ok(counters)) = answer {
                follower.follow(counters);
            }
        }
    }

    fn totals(&self) -> Vec<Counters> {
        self.followers.iter().map(|follower| follower.total().clone()).collect()
    }

    /// Everything since the baseline.
    fn all(&self) -> Counters {
        let mut all = Counters::default();
        for (now, before) in self.totals().iter().zip(&self.baseline) {
            all.add(&now.since(before));
        }
        all
    }

    fn service(&self, fleet: &Fleet, name: &str, members: &[&Instance]) -> ServiceView {
        let (Some((from, before)), Some((to, now))) = (self.past.front(), self.past.back()) else {
            unreachable!("`start` puts the first one there, and `tick` leaves some")
        };
        let recent = self.sum(fleet, members, now, before);
        ServiceView {
            name: name.to_owned(),
            service: members[0].plan.service.clone(),
            instances: members.len(),
            ready: members.iter().filter(|instance| instance.is_ready()).count(),
            per_second: per_second(recent.requests, (*to - *from).as_secs_f64()),
            success_percent: recent.success_percent(),
            mtls_percent: recent.mtls_percent(),
            p50_ms: recent.latency_ms(50.0),
            p99_ms: recent.latency_ms(99.0),
            admin_ports: members.iter().map(|instance| instance.admin.port()).collect(),
            has_app: members.iter().any(|instance| instance.app.is_some()),
        }
    }

    /// What `members` counted between two times.
    fn sum(
        &self,
        fleet: &Fleet,
        members: &[&Instance],
        now: &[Counters],
        before: &[Counters],
    ) -> Counters {
        let mut sum = Counters::default();
        for (instance, (now, before)) in fleet.instances.iter().zip(now.iter().zip(before)) {
            if members.iter().any(|member| member.plan.name == instance.plan.name) {
                sum.add(&now.since(before));
            }
        }
        sum
    }

    fn note_deaths(&mut self, fleet: &Fleet) {
        let mut events = Vec::new();
        for (process, known) in fleet.processes().zip(&mut self.deaths) {
            let status = process.status();
            if status.deaths > *known {
                *known = status.deaths;
                let end = status.last_end.unwrap_or_default();
                events.push(format!("{} {end}; starting it again", process.name));
            }
        }
        for event in events {
            self.note(&event);
        }
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
