//! Clusters that send each request to the host that it names (`dynamic_forward_proxy`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use http::uri::Authority;

use super::Cluster;
use super::discovery::resolve;
use crate::model::cluster::{Discovery, DnsFamily};
use crate::telemetry::reason::{Reason, Refusal};

/// A lookup may take so long (Envoy: `dns_query_timeout`).
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers are kept for their TTL, but not for less (Envoy: `dns_min_refresh_rate`), and for the cluster's refresh rate
/// at most.
const SHORTEST: Duration = Duration::from_secs(5);

/// Addresses that were looked up not long ago.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Each until this moment.
    known: Mutex<HashMap<String, (Instant, SocketAddr)>>,
}

impl Addresses {
    fn get(&self, host: &str, now: Instant) -> Option<SocketAddr> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(host).filter(|(until, _)| now < *until).map(|(_, address)| *address)
    }

    fn put(&self, host: &str, (until, address): (Instant, SocketAddr), most: usize, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= most {
            known.retain(|_, (until, _)| now < *until);
        }
        // Still full: this one is looked up again the next time.
        if known.len() < most {
            known.insert(host.to_owned(), (until, address));
        }
    }
}

impl Cluster {
    /// Whether requests say themselves where they go.
    pub fn forwards(&self) -> bool {
        matches!(self.config.discovery, Discovery::Forward(_))
    }

    /// Where a request for `authority` goes, in a cluster that goes where requests say. None: it is
    /// another kind of cluster. Without a port, 80 is meant, or 443 where the cluster has TLS.
    ///
    /// # Errors
    /// The authority is none, or its name has no address.
    pub async fn forward_to(&self, authority: &str) -> Result<Option<SocketAddr>, Refusal> {
        let Discovery::Forward(config) = &self.config.discovery else { return Ok(None) };
        if let Some(address) = self.forwards.get(authority, Instant::now()) {
            return Ok(Some(address));
        }
        let parsed: Authority = authority.parse().map_err(|_| {
            let detail = format!("`{authority}` is no host to forward to");
            Refusal::local(Reason::DnsFailure, StatusCode::BAD_REQUEST, detail)
        })?;
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
        let default = if self.config.tls.is_some() { 443 } else { 80 };
        let port = parsed.port_u16().unwrap_or(default);
        let found = match tokio::time::timeout(PATIENCE, resolve(host, config.family)).await {
            Ok(Ok((found, ttl))) => choose(&found, config.family).map(|address| (address, ttl)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        let (address, ttl) = found.map_err(|why| {
            let detail = format!("host `{host}` cannot be looked up: {why}");
            Refusal::local(Reason::DnsFailure, StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
        let address = SocketAddr::new(address, port);
        let now = Instant::now();
        let until = now + ttl.max(SHORTEST).min(config.refresh_rate);
        self.forwards.put(authority, (until, address), config.max_hosts, now);
        Ok(Some(address))
    }
}

fn choose(found: &[IpAddr], family: DnsFamily) -> Result<IpAddr, String> {
    let first = |v6: bool| found.iter().find(|address| address.is_ipv6() == v6).copied();
    let chosen = match family {
        DnsFamily::V4Only => first(false),
        DnsFamily::V6Only => first(true),
        DnsFamily::V4Preferred => first(false).or_else(|| first(true)),
        // In the order in which the resolver asked.
        DnsFamily::Auto | DnsFamily::All => found.first().copied(),
    };
    chosen.ok_or_else(|| "it has no address of the family that is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_kept_to() {
        let all: Vec<IpAddr> = ["::1", "127.0.0.1"].map(|at| at.parse().unwrap()).into();
        assert_eq!(choose(&all, DnsFamily::Auto), Ok(all[0]));
        assert_eq!(choose(&all, DnsFamily::V4Preferred), Ok(all[1]));
        assert!(choose(&all[..1], DnsFamily::V4Only).is_err());
    }

    #[test]
    fn so_many_hosts_are_remembered_until_their_answers_run_out() {
        let addresses = Addresses::default();
        let address = "127.0.0.1:80".parse().unwrap();
        let now = Instant::now();
        let until = now + Duration::from_secs(60);
        addresses.put("a", (until, address), 1, now);
        addresses.put("b", (until, address), 1, now);
        assert_eq!(addresses.get("a", now), Some(address));
        assert_eq!(addresses.get("b", now), None);
        assert_eq!(addresses.get("a", until), None);
        addresses.put("b", (until, address), 1, until);
        assert_eq!(addresses.get("b", now), Some(address));
    }
}
