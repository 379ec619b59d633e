use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::UnixTime;
use std::sync::Arc;

use super::*;

fn domain() -> TrustDomain {
    "shop.local".parse().unwrap()
}

fn ca(now: SystemTime) -> Ca {
    let material = RootMaterial::generate(&domain(), now).unwrap();
    Ca::new(domain(), &material, DEFAULT_LEAF_TTL, now).unwrap()
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::new(domain(), "default", account).unwrap()
}

fn request() -> SigningRequest {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    SigningRequest::verify(params.serialize_request(&key).unwrap().der()).unwrap()
}

fn at(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

#[test]
fn a_leaf_carries_the_proved_identity_and_nothing_of_the_request() {
    let now = SystemTime::now();
    let issued = ca(now).sign_request(&request(), &Leaf::of(id("catalog"), None), now).unwrap();
    let der = &issued.chain[0];
    assert_eq!(SpiffeId::of_certificate(der).unwrap(), id("catalog"));
    let (_, parsed) = X509Certificate::from_der(der).unwrap();
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len();
    assert_eq!(names, 1);
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);
    let before = parsed.validity().not_before.timestamp();
    let seconds = at(now).as_secs() as i64;
    assert_eq!(seconds - before, 60);
    assert_eq!(parsed.validity().not_after.timestamp() - seconds, 24 * 3600);
}

#[test]
fn rustls_accepts_the_leaf_as_a_client_until_it_ends() {
    let now = SystemTime::now();
    let ca = ca(now);
    let mut roots = RootCertStore::empty();
    roots.add(ca.root().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let issued = ca.sign_request(&request(), &Leaf::of(id("a"), None), now).unwrap();
    let check = |when: SystemTime| verifier.verify_client_cert(&issued.chain[0], &[], at(when));
    assert!(check(now).is_ok());
    assert!(check(now + DEFAULT_LEAF_TTL + Duration::from_secs(1)).is_err());
    assert!(check(now - Duration::from_secs(61)).is_err());
}

#[test]
fn the_life_of_a_leaf_is_held_between_ten_seconds_and_the_maximum() {
    let now = SystemTime::now();
    let ca = ca(now);
    let life = |ttl: u64| {
        let leaf = Leaf::of(id("a"), Some(Duration::from_secs(ttl)));
        let issued = ca.issue(&leaf, now).unwrap().issued;
        issued.not_after.duration_since(now).unwrap()
    };
    assert_eq!(life(0), MIN_LEAF_TTL);
    assert_eq!(life(3600), Duration::from_secs(3600));
    assert_eq!(life(1 << 40), DEFAULT_LEAF_TTL);
}

#[test]
fn another_trust_domain_is_refused() {
    let now = SystemTime::now();
    let other: TrustDomain = "other.local".parse().unwrap();
    let leaf = Leaf::of(SpiffeId::new(other.clone(), "default", "a").unwrap(), None);
    assert!(matches!(ca(now).issue(&leaf, now), Err(CaError::OtherTrustDomain { .. })));
    let material = RootMaterial::generate(&domain(), now).unwrap();
    let error = Ca::new(other, &material, DEFAULT_LEAF_TTL, now).unwrap_err().to_string();
    assert!(error.contains("spiffe://shop.local") && error.contains("other.local"), "{error}");
}

#[test]
fn a_root_with_a_foreign_key_or_past_its_end_is_refused() {
    let now = SystemTime::now();
    let mut material = RootMaterial::generate(&domain(), now).unwrap();
    let late = now + ROOT_LIFE + Duration::from_secs(1);
    let expired = Ca::new(domain(), &material, DEFAULT_LEAF_TTL, late).unwrap_err();
    assert!(matches!(expired, CaError::RootExpired));
    material.key = RootMaterial::generate(&domain(), now).unwrap().key;
    let foreign = Ca::new(domain(), &material, DEFAULT_LEAF_TTL, now).unwrap_err();
    assert!(matches!(foreign, CaError::RootKey));
}

#[test]
fn the_server_certificate_is_ours_and_renews_at_half_life() {
    let now = SystemTime::now();
    let ca = Arc::new(ca(now));
    let names =
        ServerNames { dns: vec!["localhost".to_owned()], addresses: vec![[127, 0, 0, 1].into()] };
    let certificate = Arc::new(ServerCertificate::new(Arc::clone(&ca), names, now).unwrap());
    let renew_at = certificate.renew(now).unwrap();
    assert_eq!(renew_at.duration_since(now).unwrap(), DEFAULT_LEAF_TTL / 2);
    certificate.tls().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.root().clone()).unwrap();
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    )
    .build()
    .unwrap();
    let leaf = Leaf {
        id: id("x"),
        dns_names: vec!["localhost".to_owned()],
        addresses: vec![[127, 0, 0, 1].into()],
        ttl: None,
    };
    let chain = ca.issue(&leaf, now).unwrap().issued.chain;
    for name in ["localhost", "127.0.0.1"] {
        let name = name.try_into().unwrap();
        verifier.verify_server_cert(&chain[0], &[], &name, &[], at(now)).unwrap();
    }
}

#[test]
fn no_debug_output_shows_a_key() {
    let now = SystemTime::now();
    let material = RootMaterial::generate(&domain(), now).unwrap();
    let ca = Ca::new(domain(), &material, DEFAULT_LEAF_TTL, now).unwrap();
    let made = ca.issue(&Leaf::of(id("a"), None), now).unwrap();
    let text = format!("{material:?} {ca:?} {made:?}");
    for key in [&material.key, &made.key] {
        assert!(!text.contains(&format!("{:?}", key.as_slice())));
    }
}
