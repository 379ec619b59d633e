//! TLS contexts and secrets.

use std::sync::Arc;

use base64::Engine;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3 as pb;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::OcspStaplePolicy;

use super::at::At;
use super::{common, matcher, source};
use crate::model::Name;
use crate::model::source::Reference;
use crate::model::tls::{
    CommonTls, DownstreamTls, SanKind, SanMatcher, Secret, SecretKind, SecretRef, SpiffeBundles,
    TlsCertificate, TlsVersion, UpstreamTls, Validation, ValidationContext,
};
use crate::tls::{knows_cipher, knows_curve};

const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

/// The transport socket of a filter chain. None inside: plain text.
pub(super) fn downstream(
    at: &At<'_>,
    socket: &core::TransportSocket,
) -> Option<Option<Arc<DownstreamTls>>> {
    let at = at.field("typed_config");
    let packed = packed(&at, socket)?;
    match common::type_of(packed) {
        RAW_BUFFER => Some(None),
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => {
            let context: pb::DownstreamTlsContext = common::unpack(&at, packed)?;
            let common_at = at.field("common_tls_context");
            let common = common_tls(&common_at, context.common_tls_context.as_ref())?;
            common_at.field("tls_certificates").expect(
                !common.certificates.is_empty(),
                "expected at least one certificate, here or by SDS",
            )?;
            let must = context.ocsp_staple_policy() == OcspStaplePolicy::MustStaple;
            let why = "MUST_STAPLE is not supported: no certificate here has an OCSP response";
            at.field("ocsp_staple_policy").expect(!must, why)?;
            Some(Some(Arc::new(DownstreamTls {
                common,
                require_client_certificate: context.require_client_certificate == Some(true),
            })))
        }
        other => at.refuse(format!("transport socket `{other}` is not supported")),
    }
}

/// The transport socket of a cluster. None inside: plain text.
pub(super) fn upstream(
    at: &At<'_>,
    socket: &core::TransportSocket,
) -> Option<Option<Arc<UpstreamTls>>> {
    let at = at.field("typed_config");
    let packed = packed(&at, socket)?;
    match common::type_of(packed) {
        RAW_BUFFER => Some(None),
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
            let context: pb::UpstreamTlsContext = common::unpack(&at, packed)?;
            let common_at = at.field("common_tls_context");
            let by_name = context.auto_sni_san_validation;
            let named = !context.sni.is_empty() || context.auto_host_sni;
            at.field("auto_sni_san_validation")
                .expect(!by_name || named, "expected sni or auto_host_sni beside it")?;
            Some(Some(Arc::new(UpstreamTls {
                common: common_tls(&common_at, context.common_tls_context.as_ref())?,
                sni: context.sni.as_str().into(),
                auto_host_sni: context.auto_host_sni,
                by_request: false,
                auto_sni_san_validation: by_name,
            })))
        }
        other => at.refuse(format!("transport socket `{other}` is not supported")),
    }
}

fn packed<'a>(at: &At<'_>, socket: &'a core::TransportSocket) -> Option<&'a prost_types::Any> {
    match &socket.config_type {
        Some(core::transport_socket::ConfigType::TypedConfig(packed)) => Some(packed),
        None => at.refuse("is missing"),
    }
}

fn common_tls(at: &At<'_>, context: Option<&pb::CommonTlsContext>) -> Option<CommonTls> {
    let Some(context) = context else { return Some(CommonTls::default()) };
    let params_at = at.field("tls_params");
    let params = context.tls_params.clone().unwrap_or_default();
    let ciphers = names(&params_at.field("cipher_suites"), &params.cipher_suites, knows_cipher)?;
    let curves = names(&params_at.field("ecdh_curves"), &params.ecdh_curves, knows_curve)?;
    let min_at = params_at.field("tls_minimum_protocol_version");
    let max_at = params_at.field("tls_maximum_protocol_version");
    let mut certificates: Vec<SecretRef<TlsCertificate>> =
        at.field("tls_certificates").each(&context.tls_certificates, |at, one| {
            certificate(at, one).map(|made| SecretRef::Inline(Arc::new(made)))
        });
    certificates.extend(
        at.field("tls_certificate_sds_secret_configs")
            .each(&context.tls_certificate_sds_secret_configs, |at, config| {
                sds(at, config).map(SecretRef::Sds)
            }),
    );
    Some(CommonTls {
        min_version: version(&min_at, params.tls_minimum_protocol_version())?,
        max_version: version(&max_at, params.tls_maximum_protocol_version())?,
        certificates,
        validation: validation(at, context.validation_context_type.as_ref())?,
        alpn: context.alpn_protocols.iter().map(|one| one.clone().into_bytes()).collect(),
        ciphers,
        curves,
    })
}

/// Names, also several of the same rank: `[A|B]`. The order within a rank is ours.
fn names(at: &At<'_>, list: &[String], known: fn(&str) -> bool) -> Option<Vec<Name>> {
    let ranks = list.iter().map(|rank| rank.trim_start_matches('[').trim_end_matches(']'));
    let names: Vec<Name> = ranks.flat_map(|rank| rank.split('|')).map(Name::from).collect();
    for name in &names {
        at.expect(known(name), format!("`{name}` is not supported"))?;
    }
    Some(names)
}

fn version(at: &At<'_>, version: pb::tls_parameters::TlsProtocol) -> Option<TlsVersion> {
    use pb::tls_parameters::TlsProtocol as Protocol;
    match version {
        Protocol::TlsAuto => Some(TlsVersion::Auto),
        Protocol::TlSv12 => Some(TlsVersion::V1_2),
        Protocol::TlSv13 => Some(TlsVersion::V1_3),
        Protocol::TlSv10 | Protocol::TlSv11 => {
            at.refuse("TLS 1.0 and 1.1 are not supported (RFC 8996)")
        }
    }
}

fn validation(
    at: &At<'_>,
    kind: Option<&pb::common_tls_context::ValidationContextType>,
) -> Option<Option<Validation>> {
    use pb::common_tls_context::ValidationContextType as Kind;
    Some(match kind {
        None => None,
        Some(Kind::ValidationContext(context)) => Some(Validation {
            context: validation_context(&at.field("validation_context"), context)?,
            sds: None,
        }),
        Some(Kind::ValidationContextSdsSecretConfig(config)) => {
            let at = at.field("validation_context_sds_secret_config");
            Some(Validation { context: ValidationContext::default(), sds: Some(sds(&at, config)?) })
        }
        Some(Kind::CombinedValidationContext(combined)) => {
            let at = at.field("combined_validation_context");
            let config_at = at.field("validation_context_sds_secret_config");
            let config = combined.validation_context_sds_secret_config.as_ref();
            let sds = sds(&config_at, config_at.required(config)?)?;
            let context = match &combined.default_validation_context {
                Some(context) => {
                    validation_context(&at.field("default_validation_context"), context)?
                }
                None => ValidationContext::default(),
            };
            Some(Validation { context, sds: Some(sds) })
        }
        Some(_) => return at.refuse("certificate provider instances are not supported"),
    })
}

/// A secret that comes from elsewhere, or that the bootstrap holds (no source).
fn sds(at: &At<'_>, config: &pb::SdsSecretConfig) -> Option<Reference> {
    at.field("name").expect(!config.name.is_empty(), "is empty")?;
    match &config.sds_config {
        Some(from) => source::reference(&at.field("sds_config"), &config.name, Some(from)),
        None => Some(config.name.as_str().into()),
    }
}

fn certificate(at: &At<'_>, config: &pb::TlsCertificate) -> Option<TlsCertificate> {
    Some(TlsCertificate {
        chain: common::data_source(
            &at.field("certificate_chain"),
            config.certificate_chain.as_ref(),
        )?,
        key: common::data_source(&at.field("private_key"), config.private_key.as_ref())?,
    })
}

fn validation_context(
    at: &At<'_>,
    config: &pb::CertificateValidationContext,
) -> Option<ValidationContext> {
    use pb::certificate_validation_context::TrustChainVerification as Verify;
    let trusted_ca = match &config.trusted_ca {
        Some(_) => Some(common::data_source(&at.field("trusted_ca"), config.trusted_ca.as_ref())?),
        None => None,
    };
    let typed_at = at.field("match_typed_subject_alt_names");
    let mut sans = typed_at.each(&config.match_typed_subject_alt_names, san);
    sans.extend(
        at.field("match_subject_alt_names").each(&config.match_subject_alt_names, |at, one| {
            Some(SanMatcher { kind: None, matcher: matcher::string(at, one)? })
        }),
    );
    Some(ValidationContext {
        trusted_ca,
        sans,
        spki_sha256: at
            .field("verify_certificate_spki")
            .each(&config.verify_certificate_spki, base64_digest),
        certificate_sha256: at
            .field("verify_certificate_hash")
            .each(&config.verify_certificate_hash, hex_digest),
        allow_expired: config.allow_expired_certificate,
        accept_untrusted: config.trust_chain_verification() == Verify::AcceptUntrusted,
        crl: match &config.crl {
            Some(_) => Some(common::data_source(&at.field("crl"), config.crl.as_ref())?),
            None => None,
        },
        crl_leaf_only: config.only_verify_leaf_cert_crl,
        max_depth: config.max_verify_depth,
        spiffe: match &config.custom_validator_config {
            Some(custom) => Some(spiffe(&at.field("custom_validator_config"), custom)?),
            None => None,
        },
    })
}

fn spiffe(at: &At<'_>, config: &core::TypedExtensionConfig) -> Option<SpiffeBundles> {
    let at = at.field("typed_config");
    let packed = at.required(config.typed_config.as_ref())?;
    let kind = common::type_of(packed);
    let known = "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
    at.expect(kind == known, format!("`{kind}` is not supported"))?;
    let config: pb::SpiffeCertValidatorConfig = common::unpack(&at, packed)?;
    // It wins where both are there, as in Envoy.
    if config.trust_bundles.is_some() {
        let at = at.field("trust_bundles");
        return common::data_source(&at, config.trust_bundles.as_ref()).map(SpiffeBundles::Map);
    }
    let domains_at = at.field("trust_domains");
    domains_at.expect(!config.trust_domains.is_empty(), "expected at least one")?;
    let made = domains_at.each(&config.trust_domains, |at, domain| {
        at.field("name").expect(!domain.name.is_empty(), "is empty")?;
        let bundle_at = at.field("trust_bundle");
        let bundle = common::data_source(&bundle_at, domain.trust_bundle.as_ref())?;
        Some((Name::from(domain.name.as_str()), bundle))
    });
    domains_at.expect(made.len() == config.trust_domains.len(), "a trust domain is refused")?;
    let mut seen: Vec<&Name> = made.iter().map(|(name, _)| name).collect();
    seen.sort();
    seen.dedup();
    domains_at.expect(seen.len() == made.len(), "a trust domain stands twice")?;
    Some(SpiffeBundles::Each(made))
}

fn san(at: &At<'_>, config: &pb::SubjectAltNameMatcher) -> Option<SanMatcher> {
    use pb::subject_alt_name_matcher::SanType;
    let kind = match config.san_type() {
        SanType::Email => SanKind::Email,
        SanType::Dns => SanKind::Dns,
        SanType::Uri => SanKind::Uri,
        SanType::IpAddress => SanKind::Ip,
        SanType::Unspecified | SanType::OtherName => {
            return at.field("san_type").refuse("expected DNS, URI, EMAIL or IP_ADDRESS");
        }
    };
    let at = at.field("matcher");
    let matcher = matcher::string(&at, at.required(config.matcher.as_ref())?)?;
    Some(SanMatcher { kind: Some(kind), matcher })
}

fn base64_digest(at: &At<'_>, text: &String) -> Option<[u8; 32]> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(text).ok();
    decoded
        .and_then(|bytes| bytes.try_into().ok())
        .or_else(|| at.refuse("expected the base64 of a SHA-256"))
}

/// Colons between the bytes, as openssl prints them, are allowed.
#[expect(clippy::ptr_arg, reason = "called for each item of a list of Strings")]
fn hex_digest(at: &At<'_>, text: &String) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .or_else(|| at.refuse("expected the hexadecimal of a SHA-256"))
}

/// `Secret`
pub(super) fn secret(at: &At<'_>, config: &pb::Secret) -> Option<Secret> {
    use pb::secret::Type;
    at.field("name").expect(!config.name.is_empty(), "is empty")?;
    let kind = match &config.r#type {
        Some(Type::TlsCertificate(one)) => {
            SecretKind::Certificate(Arc::new(certificate(&at.field("tls_certificate"), one)?))
        }
        Some(Type::ValidationContext(context)) => {
            let at = at.field("validation_context");
            SecretKind::Validation(Arc::new(validation_context(&at, context)?))
        }
        _ => return at.refuse("expected tls_certificate or validation_context"),
    };
    Some(Secret { name: config.name.as_str().into(), kind })
}
