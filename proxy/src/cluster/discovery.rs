//! Endpoints by DNS: STRICT_DNS and LOGICAL_DNS. One task a cluster on the control thread asks for
//! all names, and again when the records expire. A failure keeps what was known; an answer that
//! there is nothing empties the name, as in Envoy.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;

use super::Cluster;
use crate::model::Name;
use crate::model::cluster::{Dns, DnsFamily};

/// What names stand for.
type Names = HashMap<(Name, u16), Vec<SocketAddr>>;

/// Records that expire sooner are kept for so long.
const SHORTEST: Duration = Duration::from_secs(1);

/// The answer about one name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// These addresses, for so long.
    Found(Vec<IpAddr>, Duration),
    Nothing,
    Failed(String),
}

/// The addresses of one name, and how long they may be kept. An address is its own.
///
/// # Errors
/// The name is not known, or nobody answers.
pub async fn resolve(host: &str, family: DnsFamily) -> Result<(Vec<IpAddr>, Duration), String> {
    // Without a configuration of the system's, it may know better itself.
    let Ok(resolver) = connect(family) else { return by_system(host).await };
    match lookup(&resolver, host).await {
        Answer::Found(found, ttl) => Ok((found, ttl)),
        Answer::Nothing => Err("the name has no address".to_owned()),
        Answer::Failed(error) => Err(error),
    }
}

async fn by_system(host: &str) -> Result<(Vec<IpAddr>, Duration), String> {
    let found = tokio::net::lookup_host((host, 0)).await.map_err(|error| error.to_string())?;
    Ok((found.map(|address| address.ip()).collect(), Duration::ZERO))
}

/// Resolves the names of a cluster for as long as it lives.
pub(super) async fn run(cluster: Weak<Cluster>, dns: Dns) {
    let mut resolver = None;
    let mut failures = 0;
    loop {
        let Some(names) = cluster.upgrade().map(|cluster| cluster.names()) else { return };
        let (failed, wait) = round(&cluster, &dns, names, &mut resolver).await;
        failures = if failed { failures + 1 } else { 0 };
        let wait = pause(&dns, (failures, wait), fastrand::u64(..));
        // The wait holds the cluster: whoever replaces it aborts this task.
        let Some(cluster) = cluster.upgrade() else { return };
        let renamed = cluster.renamed.notified();
        tokio::select! {
            () = renamed => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn round(
    cluster: &Weak<Cluster>,
    dns: &Dns,
    before: Names,
    resolver: &mut Option<TokioResolver>,
) -> (bool, Duration) {
    let asked: Vec<Name> = before.keys().map(|(name, _)| Name::clone(name)).collect();
    let answers = match &*resolver {
        Some(resolver) => ask(resolver, &asked).await,
        None => match connect(dns.family) {
            Ok(fresh) => ask(resolver.insert(fresh), &asked).await,
            Err(error) => without_resolver(&asked, &error),
        },
    };
    let failed = answers.values().any(|answer| matches!(answer, Answer::Failed(_)));
    if failed {
        // The system's configuration may have changed: read it again next time.
        *resolver = None;
    }
    let (names, wait) = digest(before, &answers, dns);
    if let Some(cluster) = cluster.upgrade() {
        publish(&cluster, names, &answers);
    }
    (failed, wait)
}

/// How long until the next lookup: `wait`, or sooner or later after so many `failures` in a row.
fn pause(dns: &Dns, (failures, wait): (u32, Duration), random: u64) -> Duration {
    let part = |limit: Duration, random: u64| {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(random.checked_rem(millis).unwrap_or(0))
    };
    match dns.failure_rate {
        Some((base, max)) if failures > 0 => {
            let ceiling = base.saturating_mul(1 << (failures - 1).min(30)).min(max);
            let least = Duration::from_millis(1);
            wait.min(part(ceiling, random)).max(least)
        }
        _ => wait + part(dns.jitter, random),
    }
}

fn publish(cluster: &Cluster, names: Names, answers: &HashMap<Name, Answer>) {
    let stats = &cluster.stats;
    for (name, answer) in answers {
        stats.update_attempt.inc();
        match answer {
            Answer::Found(..) => stats.update_success.inc(),
            Answer::Nothing => {
                stats.update_success.inc();
                stats.update_empty.inc();
            }
            Answer::Failed(error) => {
                stats.update_failure.inc();
                tracing::warn!(cluster = %cluster.name(), host = %name, "DNS lookup failed: {error}");
            }
        }
    }
    if !cluster.resolved(names) {
        stats.update_no_rebuild.inc();
    }
    cluster.asked.store(true, Ordering::Relaxed);
}

/// What the names stand for after these answers, and when to ask again.
fn digest(before: Names, answers: &HashMap<Name, Answer>, dns: &Dns) -> (Names, Duration) {
    let mut wait = Duration::MAX;
    let mut names = Names::new();
    for ((name, port), known) in before {
        let addresses = match answers.get(&name) {
            Some(Answer::Found(found, ttl)) => {
                if dns.respect_ttl {
                    wait = wait.min((*ttl).max(SHORTEST));
                } else {
                    wait = wait.min(dns.refresh_rate);
                }
                let mut all: Vec<SocketAddr> =
                    found.iter().map(|address| SocketAddr::new(*address, port)).collect();
                // Servers rotate their answers: the order must not look like a change.
                all.sort_unstable();
                all
            }
            Some(Answer::Nothing) => {
                wait = wait.min(dns.refresh_rate);
                Vec::new()
            }
            Some(Answer::Failed(_)) | None => {
                wait = wait.min(dns.refresh_rate);
                known
            }
        };
        names.insert((name, port), addresses);
    }
    (names, wait.min(Duration::from_secs(3600)))
}

fn connect(family: DnsFamily) -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    let options = builder.options_mut();
    options.ip_strategy = match family {
        DnsFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    // Expiry is this module's affair.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

async fn ask(resolver: &TokioResolver, names: &[Name]) -> HashMap<Name, Answer> {
    let answers = names.iter().map(async |name| (Name::clone(name), lookup(resolver, name).await));
    join_all(answers).await.into_iter().collect()
}

async fn lookup(resolver: &TokioResolver, name: &str) -> Answer {
    if let Ok(address) = name.parse() {
        return Answer::Found(vec![address], Duration::MAX);
    }
    match resolver.lookup_ip(name).await {
        Ok(found) => {
            let ttl = found.valid_until().saturating_duration_since(Instant::now());
            Answer::Found(found.iter().collect(), ttl)
        }
        Err(error) if error.is_no_records_found() => Answer::Nothing,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// The system says nothing about DNS: addresses are understood all the same.
fn without_resolver(names: &[Name], error: &str) -> HashMap<Name, Answer> {
    let answer = |name: &Name| {
        let answer = match name.parse() {
            Ok(address) => Answer::Found(vec![address], Duration::MAX),
            Err(_) => Answer::Failed(error.to_owned()),
        };
        (Name::clone(name), answer)
    };
    names.iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(respect_ttl: bool) -> Dns {
        Dns { respect_ttl, ..Dns::default() }
    }

    fn names(addresses: &[&str]) -> Names {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        [((Name::from("a.test"), 80), addresses)].into()
    }

    fn answered(answer: Answer) -> HashMap<Name, Answer> {
        [(Name::from("a.test"), answer)].into()
    }

    #[test]
    fn answers_replace_failures_keep_and_nothing_empties() {
        let found = Answer::Found(
            vec!["10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()],
            Duration::from_secs(30),
        );
        let before = names(&["10.0.0.9:80"]);
        let (now, wait) = digest(before.clone(), &answered(found.clone()), &dns(true));
        assert_eq!(now, names(&["10.0.0.1:80", "10.0.0.2:80"]));
        assert_eq!(wait, Duration::from_secs(30));
        assert_eq!(digest(before.clone(), &answered(found), &dns(false)).1, Duration::from_secs(5));
        let failed = answered(Answer::Failed("timeout".into()));
        assert_eq!(
            digest(before.clone(), &failed, &dns(true)),
            (before.clone(), Duration::from_secs(5))
        );
        assert_eq!(digest(before, &answered(Answer::Nothing), &dns(true)).0, names(&[]));
    }

    #[test]
    fn failures_in_a_row_back_off_and_jitter_spreads() {
        let second = Duration::from_secs(1);
        let plain = Dns::default();
        assert_eq!(pause(&plain, (3, second * 5), 77), second * 5);
        let dns = Dns { failure_rate: Some((second, second * 10)), ..Dns::default() };
        assert_eq!(pause(&dns, (0, second * 5), 77), second * 5);
        for (failures, ceiling) in [(1, 1000), (2, 2000), (4, 5000), (40, 5000)] {
            for random in [0, 12_345, u64::MAX] {
                let found = pause(&dns, (failures, second * 5), random);
                assert!(found <= Duration::from_millis(ceiling), "{failures}: {found:?}");
            }
        }
        let spread = Dns { jitter: second, ..Dns::default() };
        assert_eq!(pause(&spread, (0, second * 5), 1_250), Duration::from_millis(5_250));
    }

    #[test]
    fn a_ttl_of_zero_is_not_a_busy_loop() {
        let found = Answer::Found(vec!["10.0.0.1".parse().unwrap()], Duration::ZERO);
        assert_eq!(digest(names(&[]), &answered(found), &dns(true)).1, SHORTEST);
    }
}
