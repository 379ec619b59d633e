use std::time::Duration;

use super::*;
use crate::model::listener::{Address, Direction, Inspect, TcpProxy, Terminal};

fn chain(name: &str, change: impl FnOnce(&mut ChainMatch)) -> Arc<FilterChain> {
    let mut matches = ChainMatch::default();
    change(&mut matches);
    let tcp = TcpProxy {
        stat_prefix: "x".into(),
        clusters: Vec::new(),
        by_sni: None,
        hash_source: false,
        idle_timeout: None,
        max_connection_duration: None,
        duration_jitter: 0.0,
        max_connect_attempts: 1,
        access_log: Vec::new(),
        log_moments: Default::default(),
    };
    Arc::new(FilterChain {
        name: name.into(),
        matches,
        tls: None,
        transport_connect_timeout: Duration::ZERO,
        filters: Vec::new(),
        terminal: Terminal::Tcp(Arc::new(tcp)),
        fingerprint: 0,
    })
}

fn listener(filter_chains: Vec<Arc<FilterChain>>) -> Listener {
    Listener {
        name: "l".into(),
        address: Address::Socket("127.0.0.1:0".parse().unwrap()),
        stat_prefix: "l".into(),
        bind_to_port: true,
        bypass_overload: false,
        ignore_connection_limit: false,
        use_original_dst: false,
        dual_stack: false,
        additional: Vec::new(),
        frame: 0,
        transparent: false,
        direction: Direction::Inbound,
        filter_chains,
        default_filter_chain: None,
        chain_tree: None,
        inspect: Inspect::default(),
        original_src: None,
        proxy_protocol: None,
        inspect_timeout: Duration::ZERO,
        continue_on_inspect_timeout: false,
        buffer_limit: 1 << 20,
        backlog: 16,
        access_log: Vec::new(),
    }
}

struct Facts {
    destination: &'static str,
    source: &'static str,
    direct: &'static str,
    sni: Option<&'static str>,
    transport: Transport,
    protocols: &'static [&'static str],
}

const PLAIN: Facts = Facts {
    destination: "10.0.0.1:8080",
    source: "10.9.9.9:40000",
    direct: "10.8.8.8:40000",
    sni: None,
    transport: Transport::RawBuffer,
    protocols: &[],
};

fn chosen(listener: &Listener, facts: &Facts) -> String {
    let protocols: Vec<String> = facts.protocols.iter().map(|&one| one.to_owned()).collect();
    let facts = ConnectionFacts {
        destination: facts.destination.parse().ok(),
        source: facts.source.parse().ok(),
        direct_source: facts.direct.parse().ok(),
        sni: facts.sni,
        transport: facts.transport,
        application_protocols: &protocols,
    };
    select(listener, &facts).map_or_else(|| "none".to_owned(), |chain| chain.name.to_string())
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Two chains for each neighbouring pair of criteria: both fit; the one with the earlier criterion wins.
#[test]
fn earlier_criteria_outweigh_all_later_ones() {
    type Change = fn(&mut ChainMatch);
    let criteria: [(&str, Change); 9] = [
        ("destination port", |m| m.destination_port = Some(443)),
        ("destination prefix", |m| m.prefix_ranges = nets(&["10.0.0.0/24"])),
        ("server name", |m| m.server_names = names(&["web.shop"])),
        ("transport", |m| m.transport_protocol = Some(Transport::Tls)),
        ("application protocols", |m| m.application_protocols = names(&["h2"])),
        ("direct source", |m| m.direct_source_prefix_ranges = nets(&["10.8.0.0/16"])),
        ("source type", |m| m.source_type = SourceType::External),
        ("source prefix", |m| m.source_prefix_ranges = nets(&["10.9.0.0/16"])),
        ("source port", |m| m.source_ports = vec![40000]),
    ];
    let facts = Facts {
        destination: "10.0.0.1:443",
        sni: Some("web.shop"),
        transport: Transport::Tls,
        protocols: &["h2"],
        ..PLAIN
    };
    for earlier in 0..criteria.len() {
        let (name, change) = criteria[earlier];
        let alone = listener(vec![chain("any", |_| {}), chain(name, change)]);
        assert_eq!(chosen(&alone, &facts), name, "more specific than nothing");
        // All the later criteria together weigh less than the one earlier one.
        let later =
            chain("later", |m| criteria[earlier + 1..].iter().for_each(|(_, change)| change(m)));
        let both = listener(vec![later, chain(name, change)]);
        assert_eq!(chosen(&both, &facts), name, "outweighs what comes later");
    }
}

#[test]
fn the_most_specific_value_wins_within_a_criterion() {
    let prefixes = listener(vec![
        chain("any", |_| {}),
        chain("/8", |m| m.prefix_ranges = nets(&["10.0.0.0/8"])),
        chain("/24", |m| m.prefix_ranges = nets(&["10.0.0.0/24", "192.168.0.0/16"])),
        chain("v6", |m| m.prefix_ranges = nets(&["2001:db8::/32"])),
    ]);
    for (destination, want) in [
        ("10.0.0.1:80", "/24"),
        ("10.1.0.1:80", "/8"),
        ("192.168.1.1:80", "/24"),
        ("11.0.0.1:80", "any"),
        ("[2001:db8::1]:80", "v6"),
        ("a unix socket", "any"),
    ] {
        assert_eq!(chosen(&prefixes, &Facts { destination, ..PLAIN }), want, "{destination}");
    }

    let servers = listener(vec![
        chain("any", |_| {}),
        chain("*.com", |m| m.server_names = names(&["*.com"])),
        chain("*.shop.com", |m| m.server_names = names(&["*.shop.com"])),
        chain("exact", |m| m.server_names = names(&["a.shop.com", "b.shop.com"])),
    ]);
    for (sni, want) in [
        (Some("a.shop.com"), "exact"),
        (Some("b.shop.com"), "exact"),
        (Some("c.shop.com"), "*.shop.com"),
        (Some("x.c.shop.com"), "*.shop.com"),
        (Some("shop.com"), "*.com"),
        (Some("shop.org"), "any"),
        (None, "any"),
    ] {
        assert_eq!(chosen(&servers, &Facts { sni, ..PLAIN }), want, "{sni:?}");
    }
}

#[test]
fn there_is_no_going_back() {
    let chains = listener(vec![
        chain("any", |_| {}),
        chain("port and name", |m| {
            m.destination_port = Some(8080);
            m.server_names = names(&["web.shop"]);
        }),
    ]);
    assert_eq!(chosen(&chains, &Facts { sni: Some("web.shop"), ..PLAIN }), "port and name");
    assert_eq!(chosen(&chains, &PLAIN), "none", "the port is taken, the name does not fit");
    assert_eq!(chosen(&chains, &Facts { destination: "10.0.0.1:9", ..PLAIN }), "any");
    let mut chains = chains;
    chains.default_filter_chain = Some(chain("default", |_| {}));
    assert_eq!(chosen(&chains, &PLAIN), "default");
}

#[test]
fn the_clients_first_protocol_wins() {
    let chains = listener(vec![
        chain("h1", |m| m.application_protocols = names(&["http/1.1", "http/1.0"])),
        chain("h2", |m| m.application_protocols = names(&["h2"])),
    ]);
    let with = |protocols| chosen(&chains, &Facts { protocols, ..PLAIN });
    assert_eq!(with(&["h2", "http/1.1"]), "h2");
    assert_eq!(with(&["http/1.1", "h2"]), "h1");
    assert_eq!(with(&["spdy", "http/1.0"]), "h1");
    assert_eq!(with(&[]), "none");
}

#[test]
fn permissive_mode_tells_tls_from_plain_text() {
    let chains = listener(vec![
        chain("tls", |m| m.transport_protocol = Some(Transport::Tls)),
        chain("plain", |m| m.transport_protocol = Some(Transport::RawBuffer)),
    ]);
    assert_eq!(chosen(&chains, &Facts { transport: Transport::Tls, ..PLAIN }), "tls");
    assert_eq!(chosen(&chains, &PLAIN), "plain");
}

#[test]
fn local_is_loopback_or_the_same_address() {
    let chains = listener(vec![
        chain("local", |m| m.source_type = SourceType::SameIpOrLoopback),
        chain("external", |m| m.source_type = SourceType::External),
    ]);
    let from = |source| chosen(&chains, &Facts { source, ..PLAIN });
    assert_eq!(from("127.0.0.1:1"), "local");
    assert_eq!(from("127.0.0.9:1"), "external");
    assert_eq!(from("[::1]:1"), "local");
    assert_eq!(from("10.0.0.1:1"), "local");
    assert_eq!(from("10.0.0.2:1"), "external");
    assert_eq!(from("a unix socket"), "local");
}

#[test]
fn one_chain_for_everything_and_none_at_all() {
    assert_eq!(chosen(&listener(vec![chain("all", |_| {})]), &PLAIN), "all");
    assert_eq!(chosen(&listener(Vec::new()), &PLAIN), "none");
}
