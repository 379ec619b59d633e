//! mTLS contexts: TLS 1.3 only, SPIFFE names checked both ways.

use std::collections::BTreeSet;

use pillion_xds::envoy::config::core::v3::TransportSocket;
use pillion_xds::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext,
    DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher, TlsCertificate, TlsParameters,
    UpstreamTlsContext,
};
use pillion_xds::envoy::r#type::matcher::v3::StringMatcher;

use super::node::Certificates;
use super::proto::{exact, file, over_ads, prefix, transport_socket};
use crate::intent::Origination;

/// What HTTP between sidecars is negotiated as.
pub(crate) const H2: &[&str] = &["h2"];
/// HTTP/1.1, towards services of which some workloads have no sidecar.
pub(crate) const HTTP1: &[&str] = &["http/1.1"];
/// What an inbound listener takes.
pub(crate) const H2_OR_HTTP1: &[&str] = &["h2", "http/1.1"];
/// Bytes: nothing to negotiate.
pub(crate) const NO_ALPN: &[&str] = &[];

const TLS: &str = "envoy.transport_sockets.tls";

/// `spiffe://<trust domain>/ns/<namespace>/sa/<account>` for each account.
pub(crate) fn spiffe_ids(
    trust_domain: &str,
    namespace: &str,
    accounts: &BTreeSet<String>,
) -> Vec<String> {
    let id = |account| format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}");
    accounts.iter().map(id).collect()
}

/// The client's side; `None` if the sidecar has no certificates.
pub(crate) fn upstream(
    certificates: &Certificates,
    ids: &[String],
    sni: &str,
    alpn: &[&str],
) -> Option<TransportSocket> {
    let names = ids.iter().map(|id| exact(id)).collect();
    let context = UpstreamTlsContext {
        common_tls_context: Some(common(certificates, names, alpn)?),
        sni: sni.to_owned(),
        ..UpstreamTlsContext::default()
    };
    Some(transport_socket(TLS, &context))
}

/// The server's side: any workload of the trust domain, and it must show a certificate. `None` if the sidecar
/// has no certificates.
pub(crate) fn downstream(
    certificates: &Certificates,
    trust_domain: &str,
    alpn: &[&str],
) -> Option<TransportSocket> {
    let names = vec![prefix(&format!("spiffe://{trust_domain}/"))];
    let context = DownstreamTlsContext {
        common_tls_context: Some(common(certificates, names, alpn)?),
        require_client_certificate: Some(true),
        ..DownstreamTlsContext::default()
    };
    Some(transport_socket(TLS, &context))
}

/// The client's side towards a host outside: its certificate has to be of a trusted root, and bear its name.
pub(crate) fn upstream_outside(origination: &Origination, alpn: &[&str]) -> TransportSocket {
    let name = |name: &String| SubjectAltNameMatcher {
        san_type: SanType::Dns.into(),
        matcher: Some(exact(name)),
        ..SubjectAltNameMatcher::default()
    };
    let validation = CertificateValidationContext {
        trusted_ca: Some(file(&origination.ca_file)),
        match_typed_subject_alt_names: origination.names.iter().map(name).collect(),
        ..CertificateValidationContext::default()
    };
    let common = CommonTlsContext {
        tls_params: Some(since_tls_12()),
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..CommonTlsContext::default()
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: origination.sni.clone(),
        ..UpstreamTlsContext::default()
    };
    transport_socket(TLS, &context)
}

fn since_tls_12() -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..TlsParameters::default()
    }
}

/// The side of a gateway towards anybody: TLS 1.2 and 1.3, with the certificates of these names, no client
/// certificates.
pub(crate) fn downstream_edge(certificates: &[String], alpn: &[&str]) -> TransportSocket {
    let common = CommonTlsContext {
        tls_params: Some(since_tls_12()),
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        tls_certificate_sds_secret_configs: certificates.iter().map(|name| secret(name)).collect(),
        ..CommonTlsContext::default()
    };
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS, &context)
}

/// The side of a proxyless gRPC client (gRFC A29).
pub(crate) fn upstream_grpc(provider: &str, ids: &[String]) -> TransportSocket {
    let instance = CertificateProviderPluginInstance {
        instance_name: provider.to_owned(),
        ..CertificateProviderPluginInstance::default()
    };
    let validation = CertificateValidationContext {
        ca_certificate_provider_instance: Some(instance.clone()),
        // gRPC reads the untyped list only.
        match_subject_alt_names: ids.iter().map(|id| exact(id)).collect(),
        ..CertificateValidationContext::default()
    };
    let common = CommonTlsContext {
        tls_certificate_provider_instance: Some(instance),
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..CommonTlsContext::default()
    };
    let context =
        UpstreamTlsContext { common_tls_context: Some(common), ..UpstreamTlsContext::default() };
    transport_socket(TLS, &context)
}

pub(crate) fn plain_text() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer::default())
}

fn common(
    certificates: &Certificates,
    names: Vec<StringMatcher>,
    alpn: &[&str],
) -> Option<CommonTlsContext> {
    let names = CertificateValidationContext {
        match_typed_subject_alt_names: names.into_iter().map(uri).collect(),
        ..CertificateValidationContext::default()
    };
    let context = CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..TlsParameters::default()
        }),
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        ..CommonTlsContext::default()
    };
    match certificates {
        Certificates::Own => Some(own_secrets(context, names)),
        Certificates::Files { chain, key, bundle } => Some(CommonTlsContext {
            tls_certificates: vec![TlsCertificate {
                certificate_chain: Some(file(chain)),
                private_key: Some(file(key)),
                ..TlsCertificate::default()
            }],
            validation_context_type: Some(ValidationContextType::ValidationContext(
                CertificateValidationContext { trusted_ca: Some(file(bundle)), ..names },
            )),
            ..context
        }),
        Certificates::None => None,
    }
}

/// The names that our proxy answers itself, with the key that it made and never sends.
fn own_secrets(context: CommonTlsContext, names: CertificateValidationContext) -> CommonTlsContext {
    CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![secret("default")],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(names),
                validation_context_sds_secret_config: Some(secret("ROOTCA")),
                ..CombinedCertificateValidationContext::default()
            },
        )),
        ..context
    }
}

fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(over_ads()) }
}

fn uri(matcher: StringMatcher) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: SanType::Uri.into(),
        matcher: Some(matcher),
        ..SubjectAltNameMatcher::default()
    }
}
