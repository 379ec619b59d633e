//! `/certs`: what every TLS context in use has (`envoy.admin.v3.Certificates`), without keys.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::model::Snapshot;
use crate::model::listener::FilterChain;
use crate::model::source::Reference;
use crate::model::tls::{
    CommonTls, DataSource, SecretKind, SecretRef, TlsCertificate, ValidationContext,
};
use crate::telemetry::time;
use crate::tls::PeerIdentity;

const DAY: u64 = 24 * 60 * 60;

/// One entry for each context of listeners and clusters, and no entry twice.
pub(super) fn all(snapshot: &Snapshot, now: SystemTime) -> Value {
    let mut entries: Vec<Value> = Vec::new();
    for context in contexts(snapshot) {
        let entry = entry(context, snapshot, now);
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    json!({ "certificates": entries })
}

fn contexts(snapshot: &Snapshot) -> Vec<&CommonTls> {
    let mut listeners: Vec<_> = snapshot.listeners.values().collect();
    listeners.sort_by(|one, other| one.name.cmp(&other.name));
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|one, other| one.name.cmp(&other.name));
    let chains = listeners
        .into_iter()
        .flat_map(|one| one.filter_chains.iter().chain(&one.default_filter_chain).map(Arc::as_ref));
    let down = chains.filter_map(|chain: &FilterChain| chain.tls.as_ref()).map(|tls| &tls.common);
    let up = clusters.into_iter().flat_map(|one| one.tls_contexts()).map(|tls| &tls.common);
    down.chain(up).collect()
}

/// Full days until the first certificate in use expires; none is in use: 4294967295, as in Envoy.
pub(super) fn days_left(snapshot: &Snapshot, now: SystemTime) -> i64 {
    let sources = contexts(snapshot).into_iter().flat_map(|context| {
        own(context, snapshot).chain(trusted(context, snapshot)).collect::<Vec<_>>()
    });
    let days = sources.filter_map(|source| {
        let ends = PeerIdentity::of_source(&source)?.not_after?;
        Some(ends.duration_since(now).map_or(0, |left| left.as_secs() / DAY))
    });
    days.min().and_then(|days| i64::try_from(days).ok()).unwrap_or_else(|| i64::from(u32::MAX))
}

fn entry(context: &CommonTls, snapshot: &Snapshot, now: SystemTime) -> Value {
    let details = |source: DataSource| details(&source, now);
    let trusted = trusted(context, snapshot).and_then(details);
    let own = own(context, snapshot).filter_map(details);
    json!({
        "ca_cert": trusted.into_iter().collect::<Vec<_>>(),
        "cert_chain": own.collect::<Vec<_>>(),
    })
}

fn own<'a>(
    context: &'a CommonTls,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = DataSource> + 'a {
    let certificates = context.certificates.iter().filter_map(|one| certificate(one, snapshot));
    certificates.map(|certificate| certificate.chain.clone())
}

/// Of which, as in Envoy, the first authority stands for all.
fn trusted(context: &CommonTls, snapshot: &Snapshot) -> Option<DataSource> {
    let validation = context.validation.as_ref()?;
    let named = validation.sds.as_ref().and_then(|name| authorities(name, snapshot));
    let named = named.and_then(|one| one.trusted_ca.clone());
    named.or_else(|| validation.context.trusted_ca.clone())
}

fn certificate(
    one: &SecretRef<TlsCertificate>,
    snapshot: &Snapshot,
) -> Option<Arc<TlsCertificate>> {
    match one {
        SecretRef::Inline(certificate) => Some(Arc::clone(certificate)),
        SecretRef::Sds(name) => match &snapshot.secrets.get(name.key())?.kind {
            SecretKind::Certificate(certificate) => Some(Arc::clone(certificate)),
            SecretKind::Validation(_) => None,
        },
    }
}

fn authorities(name: &Reference, snapshot: &Snapshot) -> Option<Arc<ValidationContext>> {
    match &snapshot.secrets.get(name.key())?.kind {
        SecretKind::Validation(context) => Some(Arc::clone(context)),
        SecretKind::Certificate(_) => None,
    }
}

/// `envoy.admin.v3.CertificateDetails` of the first certificate.
fn details(source: &DataSource, now: SystemTime) -> Option<Value> {
    let found = PeerIdentity::of_source(source)?;
    let path = match source {
        DataSource::File(path) => path.display().to_string(),
        DataSource::Inline(_) => "<inline>".to_owned(),
    };
    let dns = found.dns_sans.iter().map(|name| json!({"dns": name}));
    let uris = found.uri_sans.iter().map(|uri| json!({"uri": uri}));
    let ips = found.ip_sans.iter().map(|ip| json!({"ip_address": ip.to_string()}));
    let left = found.not_after.and_then(|end| end.duration_since(now).ok());
    let mut details = json!({
        "path": path,
        "serial_number": found.serial,
        "subject_alt_names": dns.chain(uris).chain(ips).collect::<Vec<_>>(),
        // 64-bit numbers are strings in the JSON of protocol buffers.
        "days_until_expiration": left.map_or(0, |left| left.as_secs() / DAY).to_string(),
    });
    for (field, at) in [("valid_from", found.not_before), ("expiration_time", found.not_after)] {
        if let Some(at) = at {
            let mut text = String::new();
            time::write(at, Some("%Y-%m-%dT%H:%M:%SZ"), &mut text);
            details[field] = text.into();
        }
    }
    Some(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_has_no_entry() {
        let missing = DataSource::File("/nonexistent/certificate.pem".into());
        assert_eq!(details(&missing, SystemTime::now()), None);
        let none = all(&Snapshot::default(), SystemTime::now());
        assert_eq!(none, json!({"certificates": []}));
    }
}
