//! User instructions of each request, counted by callgrind: the same to one or two percent, whatever else the machine does.
//!
//! One client sends one request after the other; what is counted lies between two marks, so that starting up is not in it.
//! With `--accept` the figures become those in `benches/instructions.json`; without it, one that grew by more than 3 % fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::Parser;
use pillion_benches::backend;
use pillion_benches::load;
use pillion_benches::peer::{Backends, Http, Job, Peer, Workshop};
use pillion_benches::scenario::PATH;

/// What is counted.
const JOBS: [(&str, Job); 3] = [
    ("hop", Job::Hop(Http::One, Http::One)),
    ("pair-h1", Job::Pair(Http::One)),
    ("pair-h2", Job::Pair(Http::Two)),
];
/// Requests before counting begins, and while it goes on.
const WARM_UP: usize = 300;
const COUNTED: usize = 2000;
/// How much a figure may grow.
const GROWTH: f64 = 1.03;

/// User instructions of each request, by callgrind.
#[derive(Debug, Parser)]
struct Args {
    /// Keep what is counted as the figures to hold later runs against.
    #[arg(long)]
    accept: bool,
    /// Count another proxy: envoy, nginx or haproxy. Nothing is compared then.
    #[arg(long)]
    peer: Option<String>,
    /// Keep the profiles in this folder, for `callgrind_annotate`.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Count only this: hop, pair-h1 or pair-h2.
    #[arg(long)]
    only: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let peer = match args.peer.as_deref() {
        None | Some("pillion") => Peer::Pillion,
        Some("envoy") => Peer::Envoy,
        Some("nginx") => Peer::Nginx,
        Some("haproxy") => Peer::Haproxy,
        Some(other) => anyhow::bail!("no proxy `{other}`: expected envoy, nginx or haproxy"),
    };
    let backends = Backends { http1: backend::http1().await?, http2: backend::http2().await? };
    let workshop = Workshop::new(backends)?.under_callgrind();
    let mut counted = BTreeMap::new();
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| only == name);
    for (name, job) in JOBS {
        if !wanted(name) || !workshop.can(peer, job) {
            continue;
        }
        let keep = args.keep.as_deref().map(|folder| folder.join(name));
        let figure = count(&workshop, peer, (job, keep)).await.with_context(|| name.to_owned())?;
        println!("{name:8} {figure:8.0} instructions a request");
        counted.insert(name.to_owned(), figure.round());
    }
    if peer != Peer::Pillion || args.only.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    if args.accept {
        std::fs::write(&file, serde_json::to_string_pretty(&counted)? + "\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let accepted: BTreeMap<String, f64> = serde_json::from_str(&text)?;
    let mut code = ExitCode::SUCCESS;
    for (name, figure) in &counted {
        let Some(before) = accepted.get(name) else { continue };
        let share = figure / before;
        println!("{name:8} {:+.1} % since it was accepted", (share - 1.0) * 100.0);
        if share > GROWTH {
            println!("{name} grew by more than 3 %: find out why, or run this with --accept");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Instructions of each request. `keep`: a folder that the profiles go into.
async fn count(
    workshop: &Workshop,
    peer: Peer,
    (job, keep): (Job, Option<PathBuf>),
) -> anyhow::Result<f64> {
    let running = workshop.start(peer, job).await?;
    load::one_after_the_other(running.address, PATH, WARM_UP).await?;
    let pids = running.pids();
    for pid in &pids {
        control(&["-z", &pid.to_string()])?;
    }
    load::one_after_the_other(running.address, PATH, COUNTED).await?;
    for pid in &pids {
        control(&["-d", &pid.to_string()])?;
    }
    let mut sum = 0;
    for file in profiles(&workshop.folder())? {
        sum += total(&file)?;
        if let Some(folder) = &keep {
            std::fs::create_dir_all(folder)?;
            std::fs::copy(&file, folder.join(file.file_name().unwrap_or_default()))?;
        }
    }
    ensure!(sum > 0, "callgrind counted nothing");
    drop(running);
    for file in profiles(&workshop.folder())? {
        std::fs::remove_file(file)?;
    }
    Ok(sum as f64 / COUNTED as f64)
}

fn control(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("callgrind_control").args(args).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The dumps that were asked for: `callgrind.PID.1`.
fn profiles(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_dump = |path: &PathBuf| {
        path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("callgrind.") && name.ends_with(".1")
        })
    };
    Ok(files.filter(is_dump).collect())
}

/// `totals:` of a profile.
fn total(file: &Path) -> anyhow::Result<u64> {
    let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    let total = line.with_context(|| format!("no total in {}", file.display()))?;
    Ok(total.trim().parse()?)
}
