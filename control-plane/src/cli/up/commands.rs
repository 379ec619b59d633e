//! `pillion ps`, `logs`, `restart`, `scale` and `down`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use tokio::time::sleep;

use super::control::ask;
use super::look::{Columns, Look};
use super::supervisor::Row;
use super::tail::Reader;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which `pillion up`.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The data folder of the `pillion up` that is meant.
    #[arg(long, value_name = "DIR", env = "PILLION_DATA_DIR", default_value = crate::cli::DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
}

/// What `pillion ps` can be told.
#[derive(Debug, clap::Args)]
pub struct PsArgs {
    #[command(flatten)]
    which: Which,
    /// What the answer looks like.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table.
    Text,
    /// JSON.
    Json,
}

/// What `pillion logs` can be told.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    #[command(flatten)]
    which: Which,
    /// A process, an instance, an instance's sidecar (`web-1-sidecar`), or `control-plane`.
    name: String,
    /// Goes on showing what comes.
    #[arg(short, long)]
    follow: bool,
}

/// What `pillion restart` can be told.
#[derive(Debug, clap::Args)]
pub struct RestartArgs {
    #[command(flatten)]
    which: Which,
    /// The process.
    name: String,
}

/// What `pillion scale` can be told.
#[derive(Debug, clap::Args)]
pub struct ScaleArgs {
    #[command(flatten)]
    which: Which,
    /// The process and the number of its instances, as in `web=3`.
    #[arg(value_name = "NAME=INSTANCES", value_parser = target)]
    target: (String, u32),
}

/// What `pillion down` can be told.
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    #[command(flatten)]
    which: Which,
}

/// Shows every instance.
///
/// # Errors
/// No `pillion up` runs there.
pub async fn ps(args: PsArgs) -> anyhow::Result<ExitCode> {
    let body = ask(&args.which.data_dir, Method::GET, "/ps").await?;
    let rows: Vec<Row> = serde_json::from_slice(&body).context("it is of another version")?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Text => print!("{}", table(&rows, Look::of_stdout().colour)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces every instance of a process, one by one, without a failed request.
///
/// # Errors
/// No `pillion up` runs there, or a new instance does not get ready.
pub async fn restart(args: RestartArgs) -> anyhow::Result<ExitCode> {
    ask(&args.which.data_dir, Method::POST, &format!("/restart/{}", args.name)).await?;
    println!("{}: every instance was replaced", args.name);
    Ok(ExitCode::SUCCESS)
}

/// Changes the number of instances of a process.
///
/// # Errors
/// No `pillion up` runs there, or a new instance does not get ready.
pub async fn scale(args: ScaleArgs) -> anyhow::Result<ExitCode> {
    let (name, number) = &args.target;
    ask(&args.which.data_dir, Method::POST, &format!("/scale/{name}/{number}")).await?;
    println!("{name}: {number} running");
    Ok(ExitCode::SUCCESS)
}

/// Stops everything.
///
/// # Errors
/// No `pillion up` runs there.
pub async fn down(args: DownArgs) -> anyhow::Result<ExitCode> {
    ask(&args.which.data_dir, Method::POST, "/down").await?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what processes wrote.
///
/// # Errors
/// Nothing of that name has written anything.
pub async fn logs(args: LogsArgs) -> anyhow::Result<ExitCode> {
    let folder = args.which.data_dir.join("logs");
    let mut found = files(&folder, &args.name)?;
    if found.is_empty() {
        bail!("nothing called `{}` has a log in {}", args.name, folder.display());
    }
    let many = found.len() > 1;
    let mut columns = Columns::new(Look::of_stdout(), found.iter().map(|(name, _)| name.as_str()));
    loop {
        for (name, reader) in &mut found {
            for line in reader.read().await {
                let line = if many { columns.line(name, &line) } else { line };
                if writeln!(std::io::stdout(), "{line}").is_err() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The log of exactly this name, else those of the instances of this process.
fn files(folder: &Path, name: &str) -> anyhow::Result<Vec<(String, Reader)>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let number = stem.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        let instance = number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()));
        if stem == name || instance {
            found.push((stem.to_owned(), Reader::new(path.clone())));
        }
    }
    found.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(found)
}

fn target(text: &str) -> Result<(String, u32), String> {
    let bad = || format!("`{text}`: expected NAME=INSTANCES, as in web=3");
    let (name, number) = text.split_once('=').ok_or_else(bad)?;
    Ok((name.to_owned(), number.parse().map_err(|_| bad())?))
}

fn table(rows: &[Row], colour: bool) -> String {
    let head = ["NAME", "STATE", "RESTARTS", "PID", "PORT", "ADMIN", "UP", "LAST END"];
    let head = head.map(str::to_owned);
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let cells = rows.iter().map(|row| {
        [
            row.name.clone(),
            row.state.clone(),
            row.restarts.to_string(),
            or_dash(row.pid.map(|pid| pid.to_string())),
            or_dash(row.port.map(|port| port.to_string())),
            format!("http://{}", row.admin),
            format!("{} s", row.seconds),
            row.last_end.clone().unwrap_or_default(),
        ]
    });
    let all: Vec<_> = std::iter::once(head).chain(cells).collect();
    // How something ended is only of interest where something did.
    let columns = if rows.iter().any(|row| row.last_end.is_some()) { 8 } else { 7 };
    let width = |column: usize| all.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |(index, row): (usize, &[String; 8])| {
        let cells = row.iter().zip(&widths).enumerate();
        let padded = cells.map(|(column, (cell, width))| {
            let padded = format!("{cell:<width$}");
            match (index, column) {
                _ if !colour => padded,
                (0, _) => format!("\x1b[1m{padded}\x1b[0m"),
                (_, 1) => format!("\x1b[{}m{padded}\x1b[0m", colour_of(cell)),
                _ => padded,
            }
        });
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    all.iter().enumerate().map(line).collect()
}

/// The colour of a state.
fn colour_of(state: &str) -> &'static str {
    match state {
        "ready" => "32",
        "starting" | "unhealthy" => "33",
        "stopped" => "90",
        _ => "31",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_stands_behind_the_name() {
        assert_eq!(target("web=3"), Ok(("web".to_owned(), 3)));
        assert!(target("web").unwrap_err().contains("NAME=INSTANCES"));
        assert!(target("web=many").is_err());
    }

    #[test]
    fn instances_of_a_process_are_found_but_not_those_of_a_namesake() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["web-1", "web-2", "web-2-sidecar", "web-api-1", "webber-1"] {
            std::fs::write(dir.path().join(format!("{name}.log")), "").unwrap();
        }
        let names = |name: &str| -> Vec<String> {
            files(dir.path(), name).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names("web"), ["web-1", "web-2"]);
        assert_eq!(names("web-2-sidecar"), ["web-2-sidecar"]);
    }
}
