//! `pillion status`: asks a running control plane how things are.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::demo::http_get;
use crate::admin::{NodeStatus, Status};

/// Where a control plane answers people, unless it is told otherwise.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15080);

/// What `pillion status` can be told.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The control plane's administration address. Default: that of the `pillion up` in the data folder, else
    /// 127.0.0.1:15080.
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<SocketAddr>,
    /// The data folder of the `pillion up` that is meant.
    #[arg(long, value_name = "DIR", env = "PILLION_DATA_DIR", default_value = super::DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
    /// What the answer looks like.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Tables, in colour on a terminal.
    Text,
    /// JSON.
    Json,
}

/// Prints the status. The exit code is 1 when a node refuses something or the configuration has an error.
///
/// # Errors
/// When the control plane does not answer.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let admin = match args.admin {
        Some(admin) => admin,
        None => super::up::admin_of(&args.data_dir).await.unwrap_or(DEFAULT_ADMIN),
    };
    let reply = http_get::get(admin, "/api/v1/status")
        .await
        .context("cannot ask the control plane (is it running? is --admin right?)")?;
    if reply.status != 200 {
        bail!("{admin} answered {}", reply.status);
    }
    let status: Status = serde_json::from_slice(&reply.body)
        .context("the control plane's answer cannot be read: is it of another version?")?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Text => {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            print!("{}", render(&status, colour));
        }
    }
    Ok(if is_well(&status) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_well(status: &Status) -> bool {
    let node_is_well = |node: &NodeStatus| {
        node.refusals.is_empty() && node.types.iter().all(|of_type| of_type.error.is_none())
    };
    status.nodes.iter().all(node_is_well)
        && status.problems.iter().all(|problem| problem.severity != "error")
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const BOLD: &str = "1";

struct Paint(bool);

impl Paint {
    fn with(&self, colour: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn render(status: &Status, colour: bool) -> String {
    let paint = Paint(colour);
    let mut out = String::new();
    let head = format!(
        "control plane {}, trust domain {}, up {} s",
        status.version, status.trust_domain, status.uptime_seconds
    );
    let _ = writeln!(out, "{}", paint.with(BOLD, &head));
    render_nodes(&mut out, &paint, status);
    render_workloads(&mut out, &paint, status);
    if !status.problems.is_empty() {
        let _ = writeln!(out, "\n{}", paint.with(BOLD, "PROBLEMS"));
    }
    for problem in &status.problems {
        let colour = if problem.severity == "error" { RED } else { YELLOW };
        let _ = writeln!(out, "{}", paint.with(colour, &problem.text));
    }
    out
}

fn render_nodes(out: &mut String, paint: &Paint, status: &Status) {
    let rows: Vec<Vec<String>> = status.nodes.iter().map(node_row).collect();
    let head = ["NODE", "PROTOCOL", "ADDRESS", "TYPES (resources@acknowledged version)"];
    table(out, paint, &head, &rows, |row| {
        let node = &status.nodes[row];
        if node.types.iter().any(|t| t.error.is_some()) || !node.refusals.is_empty() {
            RED
        } else if node.types.iter().any(|t| t.sent != t.acked) {
            YELLOW
        } else {
            GREEN
        }
    });
    for node in &status.nodes {
        for of_type in &node.types {
            if let Some(error) = &of_type.error {
                let line = format!("{}: refuses {}: {error}", node.id, of_type.kind);
                let _ = writeln!(out, "  {}", paint.with(RED, &line));
            }
        }
        for refusal in &node.refusals {
            let (kind, name, reason) = (&refusal.kind, &refusal.name, &refusal.reason);
            let line = format!("{}: held back {kind} {name}: {reason}", node.id);
            let _ = writeln!(out, "  {}", paint.with(RED, &line));
        }
        for warning in &node.warnings {
            let _ = writeln!(out, "  {}", paint.with(YELLOW, &format!("{}: {warning}", node.id)));
        }
    }
}

fn node_row(node: &NodeStatus) -> Vec<String> {
    let of_type = |t: &crate::admin::TypeStatus| {
        let acked = t.acked.as_deref().map_or("none", |version| &version[..version.len().min(8)]);
        let pending = if t.sent == t.acked { "" } else { "*" };
        format!("{} {}@{acked}{pending}", t.kind, t.resources)
    };
    let types: Vec<String> = node.types.iter().map(of_type).collect();
    let id = if node.id.is_empty() { "(not introduced)" } else { &node.id };
    vec![id.to_owned(), node.protocol.clone(), node.address.clone(), types.join("  ")]
}

fn render_workloads(out: &mut String, paint: &Paint, status: &Status) {
    let row = |w: &crate::admin::WorkloadStatus| {
        let ready = if w.ready { "ready" } else { "not ready" };
        vec![w.name.clone(), w.service.clone(), w.address.clone(), ready.to_owned()]
    };
    let rows: Vec<Vec<String>> = status.workloads.iter().map(row).collect();
    table(out, paint, &["WORKLOAD", "SERVICE", "ADDRESS", "STATE"], &rows, |row| {
        if status.workloads[row].ready { GREEN } else { YELLOW }
    });
}

/// A table whose last column is coloured by row.
fn table(
    out: &mut String,
    paint: &Paint,
    head: &[&str],
    rows: &[Vec<String>],
    colour: impl Fn(usize) -> &'static str,
) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let last = cells.len() - 1;
        let padded =
            cells[..last].iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ")
    };
    let _ = writeln!(
        out,
        "\n{}  {}",
        paint.with(BOLD, &line(head)),
        paint.with(BOLD, head[head.len() - 1])
    );
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        let last = paint.with(colour(number), cells[cells.len() - 1]);
        let _ = writeln!(out, "{}  {last}", line(&cells));
    }
    if rows.is_empty() {
        let _ = writeln!(out, "(none)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{ProblemStatus, TypeStatus, WorkloadStatus};

    fn status() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            trust_domain: "shop.local".to_owned(),
            nodes: vec![NodeStatus {
                id: "sidecar~10.0.0.1~a.default~default".to_owned(),
                protocol: "delta".to_owned(),
                types: vec![TypeStatus {
                    kind: "rds".to_owned(),
                    resources: 2,
                    sent: Some("00000000000000ff".to_owned()),
                    acked: Some("00000000000000ee".to_owned()),
                    nacks: 1,
                    error: Some("r: routes[0]: no".to_owned()),
                }],
                ..NodeStatus::default()
            }],
            workloads: vec![WorkloadStatus { name: "default/a".to_owned(), ..Default::default() }],
            problems: vec![ProblemStatus {
                severity: "warning".to_owned(),
                text: "odd".to_owned(),
            }],
            ..Status::default()
        }
    }

    #[test]
    fn the_text_names_nodes_refusals_workloads_and_problems() {
        let text = render(&status(), false);
        for part in [
            "sidecar~10.0.0.1",
            "rds 2@00000000*",
            "refuses rds: r: routes[0]: no",
            "not ready",
            "odd",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains('\x1b'));
        assert!(render(&status(), true).contains("\x1b[31m"));
    }

    #[test]
    fn it_is_well_when_nobody_refuses_and_nothing_is_wrong() {
        let mut status = status();
        assert!(!is_well(&status));
        status.nodes[0].types[0].error = None;
        assert!(is_well(&status), "warnings are not failures");
        status.problems[0].severity = "error".to_owned();
        assert!(!is_well(&status));
    }
}
