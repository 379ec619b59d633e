//! How memory and processor time of proxy and control plane grow with the configuration: from ten to ten thousand clusters,
//! virtual hosts and services.

use std::path::{Path, PathBuf};

use clap::Parser;
use pillion_benches::growth::{Point, Report, Series, control_plane, picture, proxy};
use pillion_benches::{cpu, report};

/// Clusters or virtual hosts of a series whose other number grows.
const FEW: usize = 10;

/// Memory and processor time of proxy and control plane as their configuration grows.
#[derive(Debug, Parser)]
struct Args {
    /// How many clusters, virtual hosts and services.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1000, 10_000])]
    sizes: Vec<usize>,
    /// Only these: clusters, hosts, services.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// JSON in place of tables.
    #[arg(long)]
    json: bool,
    /// Keep the figures and their picture: benches/growth.json and benches/growth.svg.
    #[arg(long)]
    accept: bool,
    /// Only draw the picture of the figures that are kept.
    #[arg(long)]
    draw: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.draw {
        let kept = serde_json::from_str(&std::fs::read_to_string(file("growth.json"))?)?;
        std::fs::write(file("growth.svg"), picture::svg(&kept))?;
        return Ok(());
    }
    cpu::stay_on_load_core()?;
    let mut report = Report { machine: report::machine()?, series: Vec::new() };
    for (kind, name) in [
        ("clusters", "Proxy, by clusters of 10 endpoints"),
        ("hosts", "Proxy, by virtual hosts"),
        ("services", "Control plane, by services of 10"),
    ] {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == kind) {
            continue;
        }
        let mut points: Vec<Point> = Vec::new();
        for size in args.sizes.iter().copied() {
            let measured = match kind {
                "clusters" => proxy::measure(size, FEW).await?,
                "hosts" => proxy::measure(FEW, size).await?,
                _ => control_plane::measure(size).await?,
            };
            points.push(Point { size, ..measured });
        }
        report.series.push(Series { name: name.to_owned(), points });
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    if args.accept {
        std::fs::write(file("growth.json"), serde_json::to_string_pretty(&report)? + "\n")?;
        std::fs::write(file("growth.svg"), picture::svg(&report))?;
    }
    Ok(())
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
