//! TLS contexts made into what rustls uses.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::{NoClientAuth, NoServerSessionStorage, danger::ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::certificates::Certificates;
use super::provider::chosen;
use super::rules::Rules;
use super::verifier::{Clients, Servers};
use super::{Secrets, TlsError};
use crate::model::tls::{CommonTls, DownstreamTls, TlsVersion, UpstreamTls};

/// What terminates TLS by this context. Make it anew when a secret or file changes: connections that
/// are open keep the old one.
///
/// A validation context without `require_client_certificate` lets a client come without a
/// certificate, but not with a bad one, as in Envoy.
///
/// # Errors
/// A named secret is missing, or something is wrong with a certificate, key, or root.
pub fn server_config(
    tls: &DownstreamTls,
    secrets: &dyn Secrets,
) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = Certificates::load(&tls.common, secrets, SystemTime::now())?;
    if certificates.is_empty() {
        let what = "a server needs a certificate: expected tls_certificates or tls_certificate_sds_secret_configs";
        return Err(TlsError::bad("common_tls_context", what));
    }
    let rules =
        tls.common.validation.as_ref().map(|rules| Rules::load(rules, secrets)).transpose()?;
    let clients: Arc<dyn ClientCertVerifier> = match rules {
        None if !tls.require_client_certificate => Arc::new(NoClientAuth),
        rules => Arc::new(Clients::new(rules.unwrap_or_default(), tls.require_client_certificate)),
    };
    let mut config =
        ServerConfig::builder_with_provider(chosen(&tls.common.ciphers, &tls.common.curves)?)
            .with_protocol_versions(versions(&tls.common)?)
            .map_err(|error| TlsError::bad("tls_params", error.to_string()))?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols.clone_from(&tls.common.alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What originates TLS by this context; pass [`server_name`] with each connection.
///
/// Without a validation context the server is not verified at all, as in Envoy.
///
/// # Errors
/// As of [`server_config`].
pub fn client_config(
    tls: &UpstreamTls,
    secrets: &dyn Secrets,
) -> Result<Arc<ClientConfig>, TlsError> {
    let certificates = Certificates::load(&tls.common, secrets, SystemTime::now())?;
    let rules = match &tls.common.validation {
        Some(validation) => Rules::load(validation, secrets)?,
        None => Rules::default(),
    };
    let servers = Servers::new(rules, tls.auto_sni_san_validation);
    let builder =
        ClientConfig::builder_with_provider(chosen(&tls.common.ciphers, &tls.common.curves)?)
            .with_protocol_versions(versions(&tls.common)?)
            .map_err(|error| TlsError::bad("tls_params", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(servers));
    let mut config = builder.with_client_cert_resolver(Arc::new(certificates));
    config.alpn_protocols.clone_from(&tls.common.alpn);
    config.resumption = Resumption::disabled();
    config.enable_sni = !tls.sni.is_empty() || tls.auto_host_sni || tls.by_request;
    Ok(Arc::new(config))
}

/// The name to pass to rustls for this SNI. An empty one, and an IP address, is not sent.
///
/// # Errors
/// It is neither a DNS name nor an IP address.
pub fn server_name(sni: &str) -> Result<ServerName<'static>, TlsError> {
    if sni.is_empty() {
        return Ok(ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()));
    }
    ServerName::try_from(sni.to_owned()).map_err(|_| {
        TlsError::bad("sni", format!("{sni:?} is neither a DNS name nor an IP address"))
    })
}

fn versions(tls: &CommonTls) -> Result<&'static [&'static SupportedProtocolVersion], TlsError> {
    static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    static OLD: &[&SupportedProtocolVersion] = &[&TLS12];
    static NEW: &[&SupportedProtocolVersion] = &[&TLS13];
    match (tls.min_version, tls.max_version) {
        (TlsVersion::V1_3, TlsVersion::V1_2) => Err(TlsError::bad(
            "tls_params",
            "tls_minimum_protocol_version TLSv1_3 is above tls_maximum_protocol_version TLSv1_2",
        )),
        (TlsVersion::V1_3, _) => Ok(NEW),
        (_, TlsVersion::V1_2) => Ok(OLD),
        _ => Ok(BOTH),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
