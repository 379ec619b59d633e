//! The rules, as text for `nft -f -`. Pure.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::{Ports, Redirect, RedirectMode};

/// Mark of what the sidecar sends to its application in the name of a client (`original_src`), and of the
/// application's answers.
pub(super) const SOURCE_MARK: u32 = 1339;

/// Connections that were there before the rules stay as they are. The kernel takes the first packet that it sees of
/// them for the beginning of one, which may even be an answer; redirected, it would reset the connection.
const NOT_NEW: &str = "tcp flags & (fin | syn | rst | ack) != syn return";

/// One transaction that leaves exactly these rules in the table, whatever was in it. `notes` are names of chains
/// without rules, which remember things for `--undo`.
pub(super) fn table(args: &Redirect, notes: &[String]) -> String {
    let mut text = no_table();
    text.push_str("table inet pillion {\n");
    if !args.no_inbound {
        text.push_str(&match args.mode {
            RedirectMode::Redirect => inbound(args),
            RedirectMode::Tproxy => inbound_tproxy(args),
        });
    }
    if !args.no_outbound {
        text.push_str(&outbound(args));
    }
    for note in notes {
        let _ = write!(text, "\tchain {note} {{\n\t}}\n");
    }
    text.push_str("}\n");
    text
}

/// One transaction that leaves no table. (Deleting one that is not there would be an error.)
pub(super) fn no_table() -> String {
    "add table inet pillion\ndelete table inet pillion\n".to_owned()
}

fn inbound(args: &Redirect) -> String {
    let mut rules = vec!["meta l4proto != tcp return".to_owned(), NOT_NEW.to_owned()];
    rules.push("iifname \"lo\" return".to_owned());
    rules.extend(tcp_ports(&args.exclude_inbound_ports).map(|ports| format!("{ports} return")));
    rules.push(format!("meta l4proto tcp redirect to :{}", args.inbound_port));
    chain("inbound", "type nat hook prerouting priority -100; policy accept;", &rules)
}

/// Answers to what this machine began are not to be taken for something new. The mark has done its work when the
/// packet was routed: sockets that are accepted must not inherit it (`tcp_fwmark_accept`).
fn inbound_tproxy(args: &Redirect) -> String {
    let (port, mark) = (args.inbound_port, args.tproxy_mark);
    let mut rules = vec![
        "meta l4proto != tcp return".to_owned(),
        "iifname \"lo\" return".to_owned(),
        "ct direction reply return".to_owned(),
    ];
    rules.extend(tcp_ports(&args.exclude_inbound_ports).map(|ports| format!("{ports} return")));
    rules.push(format!("meta l4proto tcp socket transparent 1 meta mark set {mark} accept"));
    rules.push(format!("meta l4proto tcp tproxy to :{port} meta mark set {mark} accept"));
    let arrived = format!("meta mark {mark} meta mark set 0");
    chain("inbound", "type filter hook prerouting priority -150; policy accept;", &rules)
        + &chain("arrived", "type filter hook input priority -150; policy accept;", &[arrived])
}

fn outbound(args: &Redirect) -> String {
    let mut rules = vec!["meta l4proto != tcp return".to_owned(), NOT_NEW.to_owned()];
    let own = own(args);
    if !args.no_inbound {
        // The sidecar calls its own workload by its address: that has to come in like anybody's call.
        let port = args.inbound_port;
        let ports = tcp_ports(&args.exclude_inbound_ports).map_or_else(
            || "meta l4proto tcp".to_owned(),
            |ports| ports.replacen("dport", "dport !=", 1),
        );
        for own in &own {
            for address in ["ip daddr != 127.0.0.0/8", "ip6 daddr != ::1"] {
                rules.push(format!("oifname \"lo\" {address} {own} {ports} redirect to :{port}"));
            }
        }
    }
    rules.extend(own.iter().map(|own| format!("{own} return")));
    rules.push("oifname \"lo\" return".to_owned());
    let dns = Ports { first: 53, last: 53 };
    let ports: Vec<Ports> = [dns].into_iter().chain(args.exclude_outbound_ports.clone()).collect();
    rules.extend(tcp_ports(&ports).map(|ports| format!("{ports} return")));
    rules.extend(set("meta skuid", &args.exclude_uids).map(|uids| format!("{uids} return")));
    let (v4, v6): (Vec<&IpNet>, Vec<&IpNet>) =
        args.exclude_cidrs.iter().partition(|net| net.addr().is_ipv4());
    rules.extend(v4.iter().map(|net| format!("ip daddr {net} return")));
    rules.extend(v6.iter().map(|net| format!("ip6 daddr {net} return")));
    rules.push(format!("meta l4proto tcp redirect to :{}", args.outbound_port));
    chain("outbound", "type nat hook output priority -100; policy accept;", &rules)
}

/// What the sidecar's own sockets are known by.
fn own(args: &Redirect) -> Vec<String> {
    let kinds = [
        ("meta skuid", &args.proxy_uid),
        ("meta skgid", &args.proxy_gid),
        ("meta mark", &args.proxy_mark),
    ];
    kinds.into_iter().filter_map(|(kind, ids)| set(kind, ids)).collect()
}

fn set(what: &str, numbers: &[u32]) -> Option<String> {
    let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    (!list.is_empty()).then(|| format!("{what} {{ {} }}", list.join(", ")))
}

/// Ports that overlap are no error to nft within a set that is merged.
fn tcp_ports(ports: &[Ports]) -> Option<String> {
    let mut sorted = ports.to_vec();
    sorted.sort_by_key(|ports| ports.first);
    let mut merged: Vec<Ports> = Vec::new();
    for ports in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(ports.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(ports.last);
            }
            _ => merged.push(ports),
        }
    }
    let list: Vec<String> = merged
        .iter()
        .map(|ports| match (ports.first, ports.last) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
        .collect();
    (!list.is_empty()).then(|| format!("tcp dport {{ {} }}", list.join(", ")))
}

fn chain(name: &str, hook: &str, rules: &[String]) -> String {
    let mut text = format!("\tchain {name} {{\n\t\t{hook}\n");
    for rule in rules {
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str("\t}\n");
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::flags::{Command, Flags};
    use super::*;

    fn args(more: &[&str]) -> Redirect {
        let all = ["pillion-proxy", "redirect"].iter().chain(more);
        match Flags::parse_from(all).command {
            Some(Command::Redirect(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_rules_replace_those_before_in_one_transaction() {
        let text = table(&args(&[]), &[]);
        assert!(text.starts_with("add table inet pillion\ndelete table inet pillion\ntable inet "));
        assert!(text.contains("\t\ttcp dport { 22, 15020-15021, 15090 } return\n"), "{text}");
        assert!(text.contains("\t\tmeta l4proto tcp redirect to :15006\n"), "{text}");
        assert!(text.contains("\t\tmeta l4proto tcp redirect to :15001\n"), "{text}");
        assert!(text.contains("\t\ttcp dport { 53 } return\n"), "{text}");
        assert!(!text.contains("udp"));
    }

    #[test]
    fn exclusions_stand_before_the_redirection() {
        let text = table(
            &args(&[
                "--exclude-cidrs",
                "10.1.0.0/16,fd00::/8",
                "--exclude-uids=7,8",
                "--exclude-outbound-ports=9000-9100,53",
                "--proxy-uid=1337",
                "--proxy-gid=1338",
                "--proxy-mark=9",
            ]),
            &[],
        );
        let outbound = text.split("chain outbound").nth(1).unwrap();
        let end = outbound.find("redirect to :15001").unwrap();
        for rule in [
            "ip daddr 10.1.0.0/16 return",
            "ip6 daddr fd00::/8 return",
            "meta skuid { 7, 8 } return",
            "meta skuid { 1337 } return",
            "meta skgid { 1338 } return",
            "meta mark { 9 } return",
            "tcp dport { 53, 9000-9100 } return",
        ] {
            let at = outbound.find(rule).unwrap_or_else(|| panic!("no `{rule}` in {outbound}"));
            assert!(at < end);
        }
    }

    #[test]
    fn a_side_can_be_left_alone_and_tproxy_marks() {
        let text = table(
            &args(&["--no-outbound", "--mode", "tproxy", "--tproxy-mark", "77"]),
            &["note".to_owned()],
        );
        assert!(text.contains("tproxy to :15006 meta mark set 77 accept"), "{text}");
        assert!(text.contains("meta mark 77 meta mark set 0"), "{text}");
        assert!(text.contains("chain note {\n\t}"), "{text}");
        assert!(!text.contains("chain outbound"));
        assert!(!table(&args(&["--no-inbound"]), &[]).contains(":15006"));
    }

    #[test]
    fn nonsense_is_no_port() {
        for bad in ["0", "x", "10-5", "70000", "1-"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
    }
}
