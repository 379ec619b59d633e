//! `pillion-proxy redirect`: nftables rules that bring a machine's TCP connections to its sidecar.

mod kernel;
mod rules;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;

use clap::ValueEnum;
use ipnet::IpNet;

/// What `pillion-proxy redirect` can be told.
///
/// All rules are in a table of their own, `inet pillion`, which is replaced as a whole in one
/// transaction: saying it twice is saying it once. UDP, and so most DNS, is never touched, nor is
/// TCP to port 53.
#[derive(Clone, Debug, clap::Args)]
pub struct Redirect {
    /// How incoming connections come to the sidecar.
    #[arg(long, value_enum, default_value = "redirect")]
    pub mode: RedirectMode,
    /// Inbound port of the sidecar.
    #[arg(long, value_name = "PORT", default_value_t = 15006)]
    pub inbound_port: u16,
    /// Outbound port of the sidecar.
    #[arg(long, value_name = "PORT", default_value_t = 15001)]
    pub outbound_port: u16,
    /// User ids that the sidecar runs as; their connections are let through.
    #[arg(long, value_name = "UID", value_delimiter = ',', default_value = "1337")]
    pub proxy_uid: Vec<u32>,
    /// Group ids that the sidecar runs as.
    #[arg(long, value_name = "GID", value_delimiter = ',')]
    pub proxy_gid: Vec<u32>,
    /// Socket marks of the sidecar.
    #[arg(long, value_name = "MARK", value_delimiter = ',')]
    pub proxy_mark: Vec<u32>,
    /// Ports (or ranges, 8000-8099) at which incoming connections are left alone.
    #[arg(
        long,
        value_name = "PORTS",
        value_delimiter = ',',
        default_value = "22,15020,15021,15090"
    )]
    pub exclude_inbound_ports: Vec<Ports>,
    /// Ports (or ranges) to which outgoing connections are left alone; 53 is one of them always.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub exclude_outbound_ports: Vec<Ports>,
    /// Networks to which outgoing connections are left alone.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    pub exclude_cidrs: Vec<IpNet>,
    /// User ids whose outgoing connections are left alone.
    #[arg(long, value_name = "UIDS", value_delimiter = ',')]
    pub exclude_uids: Vec<u32>,
    /// Leave incoming connections alone.
    #[arg(long)]
    pub no_inbound: bool,
    /// Leave outgoing connections alone.
    #[arg(long)]
    pub no_outbound: bool,
    /// Mark and number of the routing table that TPROXY needs for itself.
    #[arg(long, value_name = "NUMBER", default_value_t = 1338)]
    pub tproxy_mark: u32,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Take everything back.
    #[arg(long)]
    pub undo: bool,
    /// The nft program.
    #[arg(long, value_name = "PROGRAM", default_value = "nft")]
    pub nft: String,
    /// The ip program; only TPROXY needs it.
    #[arg(long, value_name = "PROGRAM", default_value = "ip")]
    pub ip: String,
}

/// How incoming connections come to the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RedirectMode {
    /// By REDIRECT.
    Redirect,
    /// By TPROXY: addresses stay as they are. The sidecar needs `CAP_NET_ADMIN`.
    Tproxy,
}

/// A port, or the ports from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}`: expected a port such as 22, or a range such as 8000-8099");
        let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0).ok_or_else(bad);
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last { Err(bad()) } else { Ok(Self { first, last }) }
    }
}

/// Write the rules, print them, or take them back.
pub(super) fn run(args: &Redirect) -> ExitCode {
    let outcome = if args.undo { undo(args) } else { establish(args) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pillion-proxy redirect: {error}");
            ExitCode::FAILURE
        }
    }
}

fn establish(args: &Redirect) -> Result<(), String> {
    if args.tproxy_mark == rules::SOURCE_MARK {
        return Err(format!("--tproxy-mark {} is taken: choose another", args.tproxy_mark));
    }
    let needs_routes = args.mode == RedirectMode::Tproxy && !args.no_inbound;
    let routes = if needs_routes { routes(args) } else { Vec::new() };
    let before = kernel::remembered(&args.nft);
    let switches = if needs_routes { kernel::needed(&before)? } else { Vec::new() };
    let notes: Vec<String> = switches.iter().map(kernel::Switch::note).collect();
    let script = rules::table(args, &notes);
    if args.dry_run {
        print(args, (&routes, &switches), &script);
        return Ok(());
    }
    forget_routes(args);
    for route in &routes {
        run_ip(args, route)?;
    }
    run_nft(args, &script)?;
    for off in before.iter().filter(|before| !switches.contains(before)) {
        off.turn(false)?;
    }
    let on = switches.iter().try_for_each(|switch| switch.turn(true));
    if on.is_err() {
        // Half of it would be worse than nothing.
        take_back(args)?;
    }
    on
}

fn undo(args: &Redirect) -> Result<(), String> {
    let script = rules::no_table();
    if args.dry_run {
        print(args, (&[], &[]), &script);
        return Ok(());
    }
    take_back(args)
}

fn take_back(args: &Redirect) -> Result<(), String> {
    let before = kernel::remembered(&args.nft);
    run_nft(args, &rules::no_table())?;
    forget_routes(args);
    before.iter().try_for_each(|switch| switch.turn(false))
}

/// Marked packets are for this machine, wherever they are addressed to.
fn routes(args: &Redirect) -> Vec<Vec<String>> {
    let mark = args.tproxy_mark.to_string();
    let command = |text: String| text.split(' ').map(str::to_owned).collect();
    let mut all = Vec::new();
    for (family, everything) in families() {
        for marked in [args.tproxy_mark, rules::SOURCE_MARK] {
            all.push(command(format!("{family} rule add fwmark {marked} lookup {mark}")));
        }
        all.push(command(format!("{family} route replace local {everything} dev lo table {mark}")));
    }
    all
}

/// Those that this machine has.
fn families() -> Vec<(&'static str, &'static str)> {
    let mut all = vec![("-4", "0.0.0.0/0")];
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        all.push(("-6", "::/0"));
    }
    all
}

/// Rules of an earlier run, however many there are; none is no error.
fn forget_routes(args: &Redirect) {
    let mark = args.tproxy_mark.to_string();
    for (family, _) in families() {
        for marked in [&mark, &rules::SOURCE_MARK.to_string()] {
            let rule = [family, "rule", "del", "fwmark", marked, "lookup", &mark];
            while quietly(args, &rule) {}
        }
        quietly(args, &[family, "route", "flush", "table", &mark]);
    }
}

fn quietly(args: &Redirect, command: &[&str]) -> bool {
    let mut process = Command::new(&args.ip);
    process.args(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    process.status().is_ok_and(|status| status.success())
}

fn run_ip(args: &Redirect, command: &[String]) -> Result<(), String> {
    let shown = format!("{} {}", args.ip, command.join(" "));
    let output = Command::new(&args.ip)
        .args(command)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{shown}`: {error} (Debian package iproute2)"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`{shown}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn run_nft(args: &Redirect, script: &str) -> Result<(), String> {
    let nft = &args.nft;
    let mut child = Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run `{nft}`: {error} (Debian package nftables)"))?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(|error| format!("`{nft}`: {error}"))?;
    if output.status.success() && !matches!(written, Some(Err(_))) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{nft} -f -` refused the rules, and nothing was changed: {}", said.trim()))
}

fn print(args: &Redirect, (routes, switches): (&[Vec<String>], &[kernel::Switch]), script: &str) {
    let mut text = String::new();
    for switch in switches {
        let _ = writeln!(text, "# {switch}");
    }
    for route in routes {
        let _ = writeln!(text, "# {} {}", args.ip, route.join(" "));
    }
    print!("{text}{script}");
}
