//! Processor time and memory of processes, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The core that the proxies have to themselves.
pub const PROXY_CORE: usize = 0;
/// The core of the load and of the backends.
pub const LOAD_CORE: usize = 1;

/// Keeps this process, and what it starts without saying otherwise, on the core for the load.
///
/// # Errors
/// When the machine has only one.
pub fn stay_on_load_core() -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(LOAD_CORE);
    sched_setaffinity(None, &set).context("two cores are needed: one for the proxies")
}

/// What these processes have used so far, user and system together.
///
/// # Errors
/// When one of them is gone.
pub fn time(pids: &[i32]) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .with_context(|| format!("process {pid} is gone"))?;
        for task in tasks {
            // A thread may end between the two.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let nanoseconds = text.split_whitespace().next().context("an empty schedstat")?;
            sum += nanoseconds.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// Resident memory of these processes, in KiB.
///
/// # Errors
/// When one of them is gone.
pub fn resident(pids: &[i32]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} is gone"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        sum += number.parse::<u64>()?;
    }
    Ok(sum)
}

/// How long the proxies' core was busy since the machine started, whoever kept it so.
///
/// # Errors
/// When `/proc/stat` is not as expected.
pub fn proxy_core_busy() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{PROXY_CORE}");
    let line = stat.lines().find(|line| line.split(' ').next() == Some(&name));
    let fields = line.context("the core is not in /proc/stat")?.split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    // user nice system idle iowait irq softirq steal; a tick is a hundredth of a second.
    let idle = ticks.get(3).zip(ticks.get(4)).map_or(0, |(idle, wait)| idle + wait);
    let all: u64 = ticks.iter().take(8).sum();
    Ok(Duration::from_millis((all - idle) * 10))
}

/// Processes of the group that this one leads, with its own.
pub fn group(leader: i32) -> Vec<i32> {
    let of_group = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which stands in brackets: state, parent, group.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        rest.split_whitespace().nth(2) == Some(&leader.to_string())
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(of_group).collect()
}
