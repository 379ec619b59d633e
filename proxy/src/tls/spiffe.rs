//! Trust by SPIFFE trust domain (SPIFFE X.509-SVID, section 5): a certificate of a domain is
//! verified by the roots of that domain, and by no others.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error};
use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::pem::Source;
use super::rules::Trust;
use super::{PeerIdentity, TlsError};
use crate::model::tls::SpiffeBundles;

/// The roots of every trust domain.
///
/// # Errors
/// A bundle cannot be read, or is none.
pub(super) fn load(bundles: &SpiffeBundles) -> Result<BTreeMap<String, Trust>, TlsError> {
    match bundles {
        SpiffeBundles::Each(each) => each
            .iter()
            .map(|(name, source)| {
                let place = format!("trust_domains[{name}].trust_bundle");
                let source = Source::read(source, &place)?;
                Ok((name.to_string(), trust(&place, source.certificates()?)?))
            })
            .collect(),
        SpiffeBundles::Map(source) => {
            let source = Source::read(source, "trust_bundles")?;
            let bad = || source.bad("is no JSON with trust_domains");
            let json: Value = serde_json::from_slice(&source.bytes).map_err(|_| bad())?;
            let domains = json["trust_domains"].as_object().ok_or_else(bad)?;
            let one = |(name, bundle): (&String, &Value)| {
                let place = format!("{}, trust domain {name}", source.place);
                let keys = bundle["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
                let roots: Vec<_> = keys.iter().filter_map(root).collect();
                Ok((name.clone(), trust(&place, roots)?))
            };
            domains.iter().map(one).collect()
        }
    }
}

/// The trust domain of a certificate that may stand for a workload.
///
/// # Errors
/// It has no SPIFFE name, or it could sign others.
pub(super) fn trust_domain(leaf: &CertificateDer<'_>) -> Result<String, Error> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
    let signs = parsed
        .key_usage()
        .ok()
        .flatten()
        .is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
    if parsed.is_ca() || signs {
        return Err(CertificateError::InvalidPurpose.into());
    }
    let identity = PeerIdentity::from_der(std::slice::from_ref(leaf));
    let domain = identity.spiffe_id().and_then(|id| id.strip_prefix("spiffe://"));
    let domain = domain.and_then(|rest| rest.split('/').next()).filter(|name| !name.is_empty());
    Ok(domain.ok_or(CertificateError::ApplicationVerificationFailure)?.to_owned())
}

/// A root of an X.509 bundle (SPIFFE Trust Domain and Bundle, section 4.2.3).
fn root(key: &Value) -> Option<CertificateDer<'static>> {
    let of_x509 = key["use"].as_str() == Some("x509-svid");
    let der = STANDARD.decode(key["x5c"].as_array()?.first()?.as_str()?).ok()?;
    of_x509.then(|| der.into())
}

fn trust(place: &str, roots: Vec<CertificateDer<'static>>) -> Result<Trust, TlsError> {
    if roots.is_empty() {
        return Err(TlsError::bad(place, "has no root for X.509"));
    }
    Trust::of(roots).map_err(|_| TlsError::bad(place, "has a certificate that is no root"))
}

#[cfg(test)]
#[path = "spiffe_tests.rs"]
mod tests;
