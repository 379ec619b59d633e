use std::sync::Arc;

use rcgen::{BasicConstraints, IsCa, SanType};
use rustls::{ClientConfig, ServerConfig};
use serde_json::json;

use super::*;
use crate::model::Name;
use crate::model::tls::{
    CommonTls, DownstreamTls, SecretRef, TlsVersion, UpstreamTls, Validation, ValidationContext,
};
use crate::tls::testing::{Ca, Leaf, handshake, inline};
use crate::tls::{NoSecrets, client_config, server_config};

fn id(domain: &str) -> String {
    format!("spiffe://{domain}/ns/default/sa/web")
}

fn server(own: &Leaf, context: ValidationContext) -> Result<Arc<ServerConfig>, TlsError> {
    let common = CommonTls {
        certificates: vec![SecretRef::Inline(Arc::new(own.certificate()))],
        validation: Some(Validation { context, sds: None }),
        ..CommonTls::default()
    };
    server_config(&DownstreamTls { common, require_client_certificate: true }, &NoSecrets)
}

fn client(own: &Leaf, change: impl FnOnce(&mut CommonTls)) -> Arc<ClientConfig> {
    let mut common = CommonTls {
        certificates: vec![SecretRef::Inline(Arc::new(own.certificate()))],
        ..CommonTls::default()
    };
    change(&mut common);
    let tls = UpstreamTls {
        common,
        sni: "".into(),
        auto_host_sni: false,
        by_request: false,
        auto_sni_san_validation: false,
    };
    client_config(&tls, &NoSecrets).unwrap()
}

async fn accepts(bundles: &SpiffeBundles, own: &Leaf, peer: &Leaf) -> bool {
    let context =
        ValidationContext { spiffe: Some(bundles.clone()), ..ValidationContext::default() };
    handshake(client(peer, |_| ()), server(own, context).unwrap()).await.is_ok()
}

#[tokio::test]
async fn each_domain_is_verified_by_its_own_roots() {
    let (east, west) = (Ca::new("east"), Ca::new("west"));
    let own = east.leaf(&id("east.test"));
    let each = SpiffeBundles::Each(vec![
        (Name::from("east.test"), east.pem()),
        (Name::from("west.test"), west.pem()),
    ]);
    let key =
        |ca: &Ca| json!({"kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(ca.der())]});
    let map = json!({"trust_domains": {
        "east.test": {"keys": [{"kty": "EC", "use": "jwt-svid"}, key(&east)]},
        "west.test": {"keys": [key(&west)]},
    }});
    let map = SpiffeBundles::Map(inline(&map.to_string()));
    let signer = east.leaf_with(|params| {
        params.subject_alt_names = vec![SanType::URI(id("east.test").try_into().unwrap())];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    for bundles in [each, map] {
        assert!(accepts(&bundles, &own, &east.leaf(&id("east.test"))).await);
        assert!(accepts(&bundles, &own, &west.leaf(&id("west.test"))).await);
        // A root speaks for its own domain only.
        assert!(!accepts(&bundles, &own, &west.leaf(&id("east.test"))).await);
        assert!(!accepts(&bundles, &own, &east.leaf(&id("north.test"))).await);
        assert!(!accepts(&bundles, &own, &east.leaf("https://east.test/web")).await);
        assert!(!accepts(&bundles, &own, &signer).await);
    }
}

#[test]
fn bundles_that_are_none() {
    let own = Ca::new("x").leaf(&id("x.test"));
    for text in ["nothing", "{}", "{\"trust_domains\": {\"x.test\": {\"keys\": []}}}"] {
        let context = ValidationContext {
            spiffe: Some(SpiffeBundles::Map(inline(text))),
            ..ValidationContext::default()
        };
        let error = server(&own, context).unwrap_err().to_string();
        assert!(error.contains("trust_bundles"), "{error}");
    }
}

#[tokio::test]
async fn chosen_ciphers_and_groups() {
    let ca = Ca::new("ca");
    let own = ca.leaf(&id("x.test"));
    let context = ValidationContext { trusted_ca: Some(ca.pem()), ..ValidationContext::default() };
    let server = server(&own, context).unwrap();
    let client = client(&own, |common| {
        common.max_version = TlsVersion::V1_2;
        common.ciphers = vec!["ECDHE-ECDSA-CHACHA20-POLY1305".into()];
        common.curves = vec!["P-384".into()];
    });
    let (client, _) = handshake(client, server).await.unwrap();
    let (_, connection) = client.get_ref();
    let suite = connection.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
    let group = connection.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::secp384r1);
}

#[tokio::test]
async fn a_chain_may_be_no_longer_than_is_said() {
    let ca = Ca::new("ca");
    let between = ca.intermediate("between");
    let own = ca.leaf(&id("x.test"));
    let peer = between.leaf(&id("x.test"));
    let tls = |most| {
        let trusted_ca = Some(ca.pem());
        let max_depth = Some(most);
        server(&own, ValidationContext { trusted_ca, max_depth, ..ValidationContext::default() })
            .unwrap()
    };
    let client = || {
        let chain = Arc::new(peer.certificate_with(&[&between]));
        client(&peer, |common| common.certificates = vec![SecretRef::Inline(chain)])
    };
    assert!(handshake(client(), tls(1)).await.is_ok());
    assert!(handshake(client(), tls(0)).await.is_err());
}
