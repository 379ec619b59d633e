use std::time::Duration;

use rcgen::{
    CertificateRevocationListParams, ExtendedKeyUsagePurpose, KeyIdMethod, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls::{NamedGroup, ProtocolVersion};

use super::*;
use crate::model::Map;
use crate::model::matcher::StringMatcher;
use crate::model::tls::{
    DataSource, SanKind, SanMatcher, Secret, SecretKind, SecretRef, TlsCertificate, Validation,
    ValidationContext,
};
use crate::tls::testing::{Ca, Leaf, handshake, inline, named_handshake, spiffe};
use crate::tls::{NoSecrets, provider};

fn uri(text: &str) -> SanMatcher {
    SanMatcher { kind: Some(SanKind::Uri), matcher: StringMatcher::exact(text) }
}

fn trusting(ca: &Ca, name: Option<&str>) -> Option<Validation> {
    let context = ValidationContext {
        trusted_ca: Some(ca.pem()),
        sans: name.map(uri).into_iter().collect(),
        ..ValidationContext::default()
    };
    Some(Validation { context, sds: None })
}

fn common(leaf: Option<&Leaf>, validation: Option<Validation>) -> CommonTls {
    CommonTls {
        min_version: TlsVersion::V1_3,
        certificates: leaf
            .map(|leaf| SecretRef::Inline(Arc::new(leaf.certificate())))
            .into_iter()
            .collect(),
        validation,
        alpn: vec![b"h2".to_vec()],
        ..CommonTls::default()
    }
}

fn upstream(common: CommonTls) -> UpstreamTls {
    UpstreamTls {
        common,
        sni: "".into(),
        auto_host_sni: false,
        by_request: false,
        auto_sni_san_validation: false,
    }
}

fn downstream(common: CommonTls) -> DownstreamTls {
    DownstreamTls { common, require_client_certificate: true }
}

fn client(common: CommonTls) -> Arc<ClientConfig> {
    client_config(&upstream(common), &NoSecrets).unwrap()
}

fn server(common: CommonTls) -> Arc<ServerConfig> {
    server_config(&downstream(common), &NoSecrets).unwrap()
}

/// `web` calls `api`; each trusts `ca` and expects the other's name.
struct Two {
    ca: Ca,
    web: Leaf,
    api: Leaf,
}

impl Two {
    fn new() -> Self {
        let ca = Ca::new("root");
        let (web, api) = (ca.leaf(&spiffe("web")), ca.leaf(&spiffe("api")));
        Self { ca, web, api }
    }

    fn client(&self) -> CommonTls {
        common(Some(&self.web), trusting(&self.ca, Some(&spiffe("api"))))
    }

    fn server(&self) -> CommonTls {
        common(Some(&self.api), trusting(&self.ca, Some(&spiffe("web"))))
    }
}

#[tokio::test]
async fn mutual_tls_with_post_quantum_key_exchange() {
    let two = Two::new();
    let (client, server) = handshake(client(two.client()), server(two.server())).await.unwrap();
    let (client, server) = (client.get_ref().1, server.get_ref().1);
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = server.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    let seen = crate::tls::PeerIdentity::from_der(server.peer_certificates().unwrap());
    assert_eq!(seen.spiffe_id(), Some(spiffe("web").as_str()));
    let seen = crate::tls::PeerIdentity::from_der(client.peer_certificates().unwrap());
    assert_eq!(seen.spiffe_id(), Some(spiffe("api").as_str()));
    assert_eq!(server.server_name(), None, "no SNI was configured");
}

#[tokio::test]
async fn a_second_connection_is_a_full_handshake() {
    let two = Two::new();
    let (client, server) = (client(two.client()), server(two.server()));
    for _ in 0..2 {
        let (stream, _) = handshake(client.clone(), server.clone()).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_wrong_spiffe_id_says_what_was_presented_and_what_expected() {
    let two = Two::new();
    let wants_other = common(Some(&two.web), trusting(&two.ca, Some(&spiffe("billing"))));
    let failed = handshake(client(wants_other), server(two.server())).await.unwrap_err();
    assert!(failed.client.contains(&spiffe("api")), "{failed:?}");
    assert!(failed.client.contains(&spiffe("billing")), "{failed:?}");

    let wants_other = common(Some(&two.api), trusting(&two.ca, Some(&spiffe("billing"))));
    let failed = handshake(client(two.client()), server(wants_other)).await.unwrap_err();
    assert!(failed.server.contains(&format!("URI:{}", spiffe("web"))), "{failed:?}");
    assert!(failed.server.contains(&format!("expected URI:{}", spiffe("billing"))), "{failed:?}");
    assert!(failed.client.contains("does not accept our certificate"), "{failed:?}");
}

#[tokio::test]
async fn an_unknown_authority_is_named_as_such_on_both_sides() {
    let two = Two::new();
    let stranger = Ca::new("stranger").leaf(&spiffe("web"));
    let stranger = common(Some(&stranger), trusting(&two.ca, None));
    let failed = handshake(client(stranger), server(two.server())).await.unwrap_err();
    assert!(failed.server.contains("unknown issuer"), "{failed:?}");
    assert!(failed.client.contains("does not trust the authority"), "{failed:?}");
}

#[tokio::test]
async fn a_client_without_certificate_is_refused_only_where_one_is_required() {
    let two = Two::new();
    let bare = || client(common(None, trusting(&two.ca, None)));
    let failed = handshake(bare(), server(two.server())).await.unwrap_err();
    assert!(failed.server.contains("presented no certificate"), "{failed:?}");
    assert!(failed.client.contains("requires a client certificate"), "{failed:?}");

    let optional = DownstreamTls { common: two.server(), require_client_certificate: false };
    let optional = server_config(&optional, &NoSecrets).unwrap();
    handshake(bare(), optional.clone()).await.unwrap();
    // Optional is not "anything goes": a bad certificate is still refused.
    let stranger = Ca::new("stranger").leaf(&spiffe("web"));
    let stranger = client(common(Some(&stranger), trusting(&two.ca, None)));
    handshake(stranger, optional).await.unwrap_err();
}

#[tokio::test]
async fn an_expired_peer_is_refused_with_the_date() {
    let two = Two::new();
    let old = two.ca.leaf_with(|params| {
        params.subject_alt_names = vec![SanType::URI(spiffe("web").try_into().unwrap())];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 2, 3);
    });
    // Our own loader refuses it, so the peer is built by hand.
    let mut expired = ClientConfig::clone(&client(common(None, trusting(&two.ca, None))));
    let key = provider().key_provider.load_private_key(
        rustls::pki_types::PrivateKeyDer::try_from(old.key.serialize_der()).unwrap(),
    );
    let certified = rustls::sign::CertifiedKey::new(vec![old.der()], key.unwrap());
    expired.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let failed = handshake(Arc::new(expired), server(two.server())).await.unwrap_err();
    assert!(failed.server.contains("expired at 2021-02-03 00:00:00 UTC"), "{failed:?}");
    assert!(failed.client.contains("our certificate has expired"), "{failed:?}");
}

#[tokio::test]
async fn rotation_is_a_new_config_and_old_connections_stay() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let two = Two::new();
    let (old_client, old_server) = (client(two.client()), server(two.server()));
    let (mut near, mut far) = handshake(old_client.clone(), old_server).await.unwrap();

    // The authority changes altogether: both roots are trusted for a while.
    let next = Ca::new("next");
    let both = format!(
        "{}{}",
        crate::tls::peer::pem_of(&two.ca.der()),
        crate::tls::peer::pem_of(&next.der())
    );
    let api = next.leaf(&spiffe("api"));
    let mut rotated = common(Some(&api), trusting(&two.ca, Some(&spiffe("web"))));
    rotated.validation.as_mut().unwrap().context.trusted_ca = Some(inline(&both));
    let rotated = server(rotated);
    let failed = handshake(old_client, rotated.clone()).await.unwrap_err();
    assert!(failed.client.contains("unknown issuer"), "{failed:?}");
    let mut both_trusted = two.client();
    both_trusted.validation.as_mut().unwrap().context.trusted_ca = Some(inline(&both));
    handshake(client(both_trusted), rotated).await.unwrap();

    near.write_all(b"x").await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn certificates_come_from_secrets_and_files_alike() {
    let two = Two::new();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        DataSource::File(path)
    };
    let api = TlsCertificate {
        chain: file("api.pem", &two.api.certificate.pem()),
        key: file("api.key", &two.api.key.serialize_pem()),
    };
    let trust = ValidationContext { trusted_ca: Some(two.ca.pem()), ..Default::default() };
    let secret = |name: &str, kind| Arc::new(Secret { name: name.into(), kind });
    let mut secrets = Map::default();
    secrets.insert_mut("default".into(), secret("default", SecretKind::Certificate(Arc::new(api))));

    let sds = CommonTls {
        certificates: vec![SecretRef::Sds("default".into())],
        validation: Some(Validation {
            context: ValidationContext { sans: vec![uri(&spiffe("web"))], ..Default::default() },
            sds: Some("ROOTCA".into()),
        }),
        ..CommonTls::default()
    };
    let error = server_config(&downstream(sds.clone()), &secrets).unwrap_err();
    assert_eq!(error, TlsError::MissingSecret("ROOTCA".into()));
    secrets.insert_mut("ROOTCA".into(), secret("ROOTCA", SecretKind::Validation(Arc::new(trust))));
    let ready = server_config(&downstream(sds.clone()), &secrets).unwrap();
    handshake(client(two.client()), ready).await.unwrap();

    let swapped = CommonTls { certificates: vec![SecretRef::Sds("ROOTCA".into())], ..sds };
    let error = server_config(&downstream(swapped), &secrets).unwrap_err().to_string();
    assert_eq!(error, "secret \"ROOTCA\": is a validation_context: expected a tls_certificate");
}

#[test]
fn our_own_mistakes_are_named() {
    let two = Two::new();
    let load = |certificate: TlsCertificate| {
        let mut tls = two.server();
        tls.certificates = vec![SecretRef::Inline(Arc::new(certificate))];
        server_config(&downstream(tls), &NoSecrets).unwrap_err().to_string()
    };
    let mixed = TlsCertificate { key: two.web.certificate().key, ..two.api.certificate() };
    let error = load(mixed);
    assert_eq!(
        error,
        "tls_certificates[0], private_key: the private key does not match the first certificate of the chain"
    );

    let old = two.ca.leaf_with(|params| params.not_after = rcgen::date_time_ymd(2021, 2, 3));
    let error = load(old.certificate());
    assert_eq!(
        error,
        "tls_certificates[0], certificate_chain: the certificate expired at 2021-02-03 00:00:00 UTC"
    );

    let swapped = two.api.certificate();
    let error = load(TlsCertificate { chain: swapped.key, key: swapped.chain });
    assert!(error.contains("certificate_chain: has no PEM block CERTIFICATE"), "{error}");

    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let error = load(TlsCertificate { key: inline(garbage), ..two.api.certificate() });
    assert!(error.contains("private_key: is no private key that is supported"), "{error}");
    assert!(!error.contains("AAAA"), "{error}");

    let missing = DataSource::File("/no/such/ca.pem".into());
    let mut tls = two.server();
    tls.validation.as_mut().unwrap().context.trusted_ca = Some(missing);
    let error = server_config(&downstream(tls), &NoSecrets).unwrap_err().to_string();
    assert!(
        error.starts_with("validation_context, trusted_ca (file /no/such/ca.pem): "),
        "{error}"
    );

    let error = server_config(&downstream(common(None, None)), &NoSecrets).unwrap_err();
    assert!(error.to_string().contains("a server needs a certificate"), "{error}");

    let mut tls = two.client();
    tls.validation.as_mut().unwrap().context.trusted_ca = None;
    let error = client_config(&upstream(tls), &NoSecrets).unwrap_err().to_string();
    assert!(error.contains("there is no trusted_ca"), "{error}");

    let mut tls = two.client();
    tls.max_version = TlsVersion::V1_2;
    let error = client_config(&upstream(tls), &NoSecrets).unwrap_err().to_string();
    assert!(error.starts_with("tls_params: "), "{error}");
}

#[tokio::test]
async fn pins_names_and_untrusted_chains() {
    use sha2::{Digest, Sha256};
    let two = Two::new();
    let with = |context: ValidationContext| {
        let validation = Some(Validation { context, sds: None });
        client(common(Some(&two.web), validation))
    };
    let pin: [u8; 32] = Sha256::digest(two.api.der()).into();
    let spki: [u8; 32] =
        Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&two.api.key)).into();
    let base = ValidationContext::default;
    let good = [
        ValidationContext { certificate_sha256: vec![pin], ..base() },
        ValidationContext { spki_sha256: vec![[0; 32], spki], ..base() },
        ValidationContext { spki_sha256: vec![[0; 32]], certificate_sha256: vec![pin], ..base() },
        ValidationContext {
            trusted_ca: Some(Ca::new("stranger").pem()),
            accept_untrusted: true,
            ..base()
        },
        // The very certificate is what is trusted.
        ValidationContext { trusted_ca: Some(two.api.certificate().chain), ..base() },
        base(),
    ];
    for context in good {
        let shown = format!("{context:?}");
        let result = handshake(with(context), server(two.server())).await;
        assert!(result.is_ok(), "{shown}: {:?}", result.err());
    }
    let bad = ValidationContext { certificate_sha256: vec![[0; 32]], ..base() };
    let failed = handshake(with(bad), server(two.server())).await.unwrap_err();
    assert!(failed.client.contains("not one of the pinned ones"), "{failed:?}");
}

#[tokio::test]
async fn sni_is_sent_chooses_the_certificate_and_can_be_demanded() {
    let ca = Ca::new("root");
    let named = |name: &str| {
        ca.leaf_with(|params| {
            params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        })
    };
    let both = [named("one.shop"), named("*.two.shop")]
        .map(|leaf| SecretRef::Inline(Arc::new(leaf.certificate())));
    let tls = CommonTls { certificates: both.to_vec(), ..CommonTls::default() };
    let server = DownstreamTls { common: tls, require_client_certificate: false };
    let server = server_config(&server, &NoSecrets).unwrap();
    let demanding = UpstreamTls {
        sni: "a.two.shop".into(),
        auto_sni_san_validation: true,
        ..upstream(common(None, trusting(&ca, None)))
    };
    let client = client_config(&demanding, &NoSecrets).unwrap();
    for name in ["a.two.shop", "one.shop"] {
        let (_, server) = named_handshake(name, client.clone(), server.clone()).await.unwrap();
        assert_eq!(server.get_ref().1.server_name(), Some(name));
    }
    let failed = named_handshake("three.shop", client, server).await.unwrap_err();
    assert!(failed.client.contains("expected the name three.shop"), "{failed:?}");
    assert!(failed.client.contains("DNS:one.shop"), "{failed:?}");
}

#[tokio::test]
async fn versions_are_as_configured() {
    let two = Two::new();
    let mut old = two.client();
    (old.min_version, old.max_version) = (TlsVersion::Auto, TlsVersion::V1_2);
    let mut both = two.server();
    both.min_version = TlsVersion::Auto;
    let (stream, _) = handshake(client(old.clone()), server(both)).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    let failed = handshake(client(old), server(two.server())).await.unwrap_err();
    assert!(failed.server.contains("no TLS version that both sides allow"), "{failed:?}");
}

#[tokio::test]
async fn usage_and_revocation_are_checked() {
    let two = Two::new();
    let client_only = two.ca.leaf_with(|params| {
        params.subject_alt_names = vec![SanType::URI(spiffe("api").try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let wrong = common(Some(&client_only), trusting(&two.ca, Some(&spiffe("web"))));
    let failed = handshake(client(two.client()), server(wrong)).await.unwrap_err();
    assert!(failed.client.contains("extended key usage"), "{failed:?}");

    let revoked = two.ca.leaf_with(|params| {
        params.subject_alt_names = vec![SanType::URI(spiffe("web").try_into().unwrap())];
        params.serial_number = Some(SerialNumber::from(42));
    });
    let now = rcgen::date_time_ymd(2024, 1, 1);
    let list = CertificateRevocationListParams {
        this_update: now,
        next_update: rcgen::date_time_ymd(4000, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(42),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(two.ca.issuer()).unwrap().pem().unwrap();
    let mut checking = two.server();
    checking.validation.as_mut().unwrap().context.crl = Some(inline(&list));
    let checking = server(checking);
    let bad = client(common(Some(&revoked), trusting(&two.ca, None)));
    let failed = handshake(bad, checking.clone()).await.unwrap_err();
    assert!(failed.server.contains("is revoked"), "{failed:?}");
    handshake(client(two.client()), checking).await.unwrap();
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_explained() {
    use tokio::io::AsyncWriteExt;
    let two = Two::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = server(two.server());
    let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let accept = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    let error = tokio::time::timeout(Duration::from_secs(10), accept).await.unwrap().unwrap_err();
    let text = crate::tls::explain_io(&error);
    assert!(text.contains("does not speak TLS"), "{text}");
    assert_eq!(crate::tls::failure_io(&error), crate::tls::Failure::Connection);
}

#[test]
fn names_to_connect_with() {
    assert!(matches!(server_name("").unwrap(), ServerName::IpAddress(_)));
    assert!(matches!(server_name("10.0.0.1").unwrap(), ServerName::IpAddress(_)));
    assert!(matches!(server_name("web.shop").unwrap(), ServerName::DnsName(_)));
    assert!(server_name("not a name").unwrap_err().to_string().contains("\"not a name\""));
}
