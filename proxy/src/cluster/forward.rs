//! Clusters that send each request to the host that it names (`dynamic_forward_proxy`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use http::uri::Authority;

use super::Cluster;
use crate::model::cluster::{Discovery, DnsFamily, Forward};
use crate::telemetry::reason::{Reason, Refusal};

/// A lookup may take so long (Envoy: `dns_query_timeout`).
const PATIENCE: Duration = Duration::from_secs(5);

/// Addresses that were looked up not long ago.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    known: Mutex<HashMap<String, (Instant, SocketAddr)>>,
}

impl Addresses {
    fn get(&self, host: &str, rate: Duration) -> Option<SocketAddr> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(host).filter(|(since, _)| since.elapsed() < rate).map(|(_, address)| *address)
    }

    fn put(&self, host: &str, address: SocketAddr, config: &Forward) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= config.max_hosts {
            known.retain(|_, (since, _)| since.elapsed() < config.refresh_rate);
        }
        // Still full: this one is looked up again the next time.
        if known.len() < config.max_hosts {
            known.insert(host.to_owned(), (Instant::now(), address));
        }
    }
}

impl Cluster {
    /// Where a request for `authority` goes, in a cluster that goes where requests say. None: it is
    /// another kind of cluster. Without a port, 80 is meant, or 443 where the cluster has TLS.
    ///
    /// # Errors
    /// The authority is none, or its name has no address.
    pub async fn forward_to(&self, authority: &str) -> Result<Option<SocketAddr>, Refusal> {
        let Discovery::Forward(config) = &self.config.discovery else { return Ok(None) };
        if let Some(address) = self.forwards.get(authority, config.refresh_rate) {
            return Ok(Some(address));
        }
        let parsed: Authority = authority.parse().map_err(|_| {
            let detail = format!("`{authority}` is no host to forward to");
            Refusal::local(Reason::DnsFailure, StatusCode::BAD_REQUEST, detail)
        })?;
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
        let default = if self.config.tls.is_some() { 443 } else { 80 };
        let port = parsed.port_u16().unwrap_or(default);
        let looked = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port))).await;
        let found = match looked {
            Ok(Ok(found)) => choose(found.collect(), config.family),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        let address = found.map_err(|why| {
            let detail = format!("host `{host}` cannot be looked up: {why}");
            Refusal::local(Reason::DnsFailure, StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
        self.forwards.put(authority, address, config);
        Ok(Some(address))
    }
}

fn choose(found: Vec<SocketAddr>, family: DnsFamily) -> Result<SocketAddr, String> {
    let first = |v6: bool| found.iter().find(|address| address.is_ipv6() == v6).copied();
    let chosen = match family {
        DnsFamily::V4Only => first(false),
        DnsFamily::V6Only => first(true),
        DnsFamily::V4Preferred => first(false).or_else(|| first(true)),
        // The system puts what it can reach first (RFC 6724).
        DnsFamily::Auto | DnsFamily::All => found.first().copied(),
    };
    chosen.ok_or_else(|| "it has no address of the family that is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_kept_to() {
        let all: Vec<SocketAddr> =
            ["[::1]:80", "127.0.0.1:80"].map(|at| at.parse().unwrap()).into();
        assert_eq!(choose(all.clone(), DnsFamily::Auto), Ok(all[0]));
        assert_eq!(choose(all.clone(), DnsFamily::V4Preferred), Ok(all[1]));
        assert!(choose(vec![all[0]], DnsFamily::V4Only).is_err());
    }

    #[test]
    fn only_so_many_hosts_are_remembered() {
        let config = Forward {
            family: DnsFamily::Auto,
            refresh_rate: Duration::from_secs(60),
            max_hosts: 1,
        };
        let addresses = Addresses::default();
        let address = "127.0.0.1:80".parse().unwrap();
        addresses.put("a", address, &config);
        addresses.put("b", address, &config);
        assert_eq!(addresses.get("a", config.refresh_rate), Some(address));
        assert_eq!(addresses.get("b", config.refresh_rate), None);
        assert_eq!(addresses.get("a", Duration::ZERO), None);
    }
}
