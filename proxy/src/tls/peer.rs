//! What a certificate says about who holds it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::model::tls::{SanKind, SanMatcher};
use crate::telemetry::format::Certificate;

/// The facts of a certificate that authorization, access logs and `x-forwarded-client-cert` use.
#[derive(Clone, Debug, Default)]
pub struct PeerIdentity {
    /// URI names, in order. A SPIFFE certificate has exactly one.
    pub uri_sans: Vec<String>,
    /// DNS names, in order.
    pub dns_sans: Vec<String>,
    /// E-mail names, in order.
    pub email_sans: Vec<String>,
    /// IP names, in order.
    pub ip_sans: Vec<IpAddr>,
    /// Subject, as RFC 2253 writes it (last part first): `CN=web,O=shop`.
    pub subject: String,
    /// Issuer, in the same form.
    pub issuer: String,
    /// Serial number in lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate in lower-case hexadecimal.
    pub sha256: String,
    /// Valid from.
    pub not_before: Option<SystemTime>,
    /// Valid until.
    pub not_after: Option<SystemTime>,
    chain: Vec<CertificateDer<'static>>,
    pem: OnceLock<String>,
    chain_pem: OnceLock<String>,
}

impl PeerIdentity {
    /// Reads the first certificate of a chain. What cannot be parsed stays empty: the handshake has
    /// already decided whether the certificate is acceptable.
    pub fn from_der(chain: &[CertificateDer<'_>]) -> Self {
        let Some(leaf) = chain.first() else { return Self::default() };
        let mut identity = Self {
            sha256: hex(&Sha256::digest(leaf)),
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            ..Self::default()
        };
        if let Ok((_, certificate)) = X509Certificate::from_der(leaf) {
            identity.read(&certificate);
        }
        identity
    }

    /// Reads the first certificate of a PEM chain. None: it cannot be read.
    pub fn of_source(chain: &crate::model::tls::DataSource) -> Option<Self> {
        let chain = super::pem::Source::read(chain, "certificate_chain").ok()?;
        Some(Self::from_der(&chain.certificates().ok()?))
    }

    /// The SPIFFE ID: the one URI name, if there is exactly one and it is a `spiffe://` one
    /// (SPIFFE X.509-SVID, section 2).
    pub fn spiffe_id(&self) -> Option<&str> {
        match self.uri_sans.as_slice() {
            [one] if one.starts_with("spiffe://") => Some(one),
            _ => None,
        }
    }

    /// The certificate as URL-encoded PEM (`Cert=` of `x-forwarded-client-cert`). Made at first use.
    pub fn pem_url_encoded(&self) -> &str {
        self.pem.get_or_init(|| url_encoded(self.chain.get(..1).unwrap_or_default()))
    }

    /// The whole chain likewise (`Chain=`).
    pub fn chain_url_encoded(&self) -> &str {
        self.chain_pem.get_or_init(|| url_encoded(&self.chain))
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The same of each certificate of the chain.
    fn of_chain(&self, what: impl Fn(&[u8]) -> Option<String>) -> Vec<String> {
        self.chain.iter().filter_map(|one| what(one)).collect()
    }

    /// Whether one of the names is one of those.
    pub(crate) fn matches_any(&self, sans: &[SanMatcher]) -> bool {
        sans.iter().any(|san| self.matches(san))
    }

    /// Every name with its kind, for messages.
    pub(crate) fn presented(&self) -> Vec<String> {
        let uris = self.uri_sans.iter().map(|name| format!("URI:{name}"));
        let dns = self.dns_sans.iter().map(|name| format!("DNS:{name}"));
        let emails = self.email_sans.iter().map(|name| format!("EMAIL:{name}"));
        let ips = self.ip_sans.iter().map(|name| format!("IP:{name}"));
        uris.chain(dns).chain(emails).chain(ips).collect()
    }

    fn matches(&self, san: &SanMatcher) -> bool {
        let wants = |kind| san.kind.is_none_or(|wanted| wanted == kind);
        let text = |names: &[String]| names.iter().any(|name| san.matcher.matches(name));
        (wants(SanKind::Uri) && text(&self.uri_sans))
            || (wants(SanKind::Dns) && self.dns_sans.iter().any(|name| matches_dns(san, name)))
            || (wants(SanKind::Email) && text(&self.email_sans))
            || (wants(SanKind::Ip)
                && self.ip_sans.iter().any(|ip| san.matcher.matches(&ip.to_string())))
    }

    fn read(&mut self, certificate: &X509Certificate<'_>) {
        self.subject = rfc2253(certificate.subject());
        self.issuer = rfc2253(certificate.issuer());
        self.serial = serial(certificate.raw_serial());
        self.not_before = time(certificate.validity().not_before.timestamp());
        self.not_after = time(certificate.validity().not_after.timestamp());
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return };
        for name in &names.value.general_names {
            match name {
                GeneralName::URI(uri) => self.uri_sans.push((*uri).to_owned()),
                GeneralName::DNSName(name) => self.dns_sans.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => self.email_sans.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => self.ip_sans.extend(ip(bytes)),
                _ => {}
            }
        }
    }
}

impl Certificate for PeerIdentity {
    fn uris(&self) -> &[String] {
        &self.uri_sans
    }

    fn dns(&self) -> &[String] {
        &self.dns_sans
    }

    fn emails(&self) -> &[String] {
        &self.email_sans
    }

    fn ips(&self) -> &[IpAddr] {
        &self.ip_sans
    }

    fn subject(&self) -> &str {
        &self.subject
    }

    fn issuer(&self) -> &str {
        &self.issuer
    }

    fn validity(&self) -> (Option<SystemTime>, Option<SystemTime>) {
        (self.not_before, self.not_after)
    }

    fn pem(&self) -> &str {
        self.pem_url_encoded()
    }

    fn serials(&self) -> Vec<String> {
        self.of_chain(|der| {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            Some(serial(certificate.raw_serial()))
        })
    }

    fn sha256(&self) -> Vec<String> {
        self.of_chain(|der| Some(hex(&Sha256::digest(der))))
    }

    fn sha1(&self) -> Vec<String> {
        use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
        self.of_chain(|der| Some(hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref())))
    }
}

/// An exact matcher also accepts a wildcard certificate for the name, as in Envoy.
fn matches_dns(san: &SanMatcher, presented: &str) -> bool {
    use crate::model::matcher::StringMatch;
    if san.matcher.matches(presented) {
        return true;
    }
    let StringMatch::Exact(wanted) = &san.matcher.kind else { return false };
    match (presented.strip_prefix("*."), wanted.split_once('.')) {
        (Some(suffix), Some((label, rest))) => {
            !label.is_empty() && rest.eq_ignore_ascii_case(suffix)
        }
        _ => wanted.eq_ignore_ascii_case(presented),
    }
}

/// RFC 2253: last relative name first, `,` between them, `+` inside one, special characters escaped.
fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes: Vec<String> = rdn
                .iter()
                .map(|attribute| {
                    let oid = attribute.attr_type();
                    let value = attribute
                        .as_str()
                        .map_or_else(|_| format!("#{}", hex(attribute.as_slice())), escaped);
                    let key =
                        x509_parser::objects::oid2abbrev(oid, x509_parser::objects::oid_registry())
                            .map_or_else(|_| oid.to_id_string(), str::to_owned);
                    format!("{key}={value}")
                })
                .collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (at == 0 && matches!(c, ' ' | '#'))
            || (at == last && c == ' ');
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Without the zero byte that DER puts before a high bit.
fn serial(raw: &[u8]) -> String {
    match raw {
        [0, rest @ ..] if !rest.is_empty() => hex(rest),
        raw => hex(raw),
    }
}

fn time(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn url_encoded(chain: &[CertificateDer<'_>]) -> String {
    // Unreserved characters of RFC 3986 stay.
    const KEEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let pem: String = chain.iter().map(|one| pem_of(one)).collect();
    utf8_percent_encode(&pem, KEEP).to_string()
}

/// One certificate as PEM.
pub(crate) fn pem_of(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use rcgen::{DnType, SanType};
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::model::matcher::StringMatcher;
    use crate::tls::testing::{Ca, spiffe};

    #[test]
    fn reads_the_facts() {
        let ca = Ca::new("root");
        let leaf = ca.leaf_with(|params| {
            params.subject_alt_names = vec![
                SanType::URI("spiffe://shop/ns/default/sa/web".try_into().unwrap()),
                SanType::DnsName("web.shop".try_into().unwrap()),
                SanType::IpAddress("10.0.0.7".parse().unwrap()),
                SanType::Rfc822Name("ops@shop".try_into().unwrap()),
            ];
            params.distinguished_name.push(DnType::OrganizationName, "Fish, Chips");
            params.distinguished_name.push(DnType::CommonName, "web");
        });
        let identity = PeerIdentity::from_der(&[leaf.der(), ca.der()]);
        assert_eq!(identity.spiffe_id(), Some("spiffe://shop/ns/default/sa/web"));
        assert_eq!(identity.dns_sans, ["web.shop"]);
        assert_eq!(identity.ip_sans, ["10.0.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(identity.email_sans, ["ops@shop"]);
        assert!(identity.subject.contains("O=Fish\\, Chips"), "{}", identity.subject);
        assert!(identity.subject.contains("CN=web"), "{}", identity.subject);
        assert_eq!(identity.issuer, "CN=root");
        assert_eq!(identity.sha256.len(), 64);
        assert!(!identity.serial.is_empty());
        assert!(identity.not_before < identity.not_after);
        assert_eq!(identity.presented()[0], "URI:spiffe://shop/ns/default/sa/web");
    }

    #[test]
    fn pem_survives_the_url() {
        let leaf = Ca::new("root").leaf(&spiffe("web"));
        let identity = PeerIdentity::from_der(&[leaf.der()]);
        let text = percent_encoding::percent_decode_str(identity.pem_url_encoded());
        let pem = text.decode_utf8().unwrap().into_owned();
        assert_eq!(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(), leaf.der());
        assert!(!identity.pem_url_encoded().contains(['\n', '=', ' ', '+', '/']));
    }

    #[test]
    fn several_uri_names_are_no_spiffe_id() {
        let ids = vec!["spiffe://a/b".to_owned(), "spiffe://a/c".to_owned()];
        let identity = PeerIdentity { uri_sans: ids, ..PeerIdentity::default() };
        assert_eq!(identity.spiffe_id(), None);
        assert_eq!(PeerIdentity::from_der(&[]).spiffe_id(), None);
    }

    #[test]
    fn names_match_by_kind_and_wildcard() {
        let identity = PeerIdentity {
            uri_sans: vec!["spiffe://shop/x".to_owned()],
            dns_sans: vec!["*.shop.example".to_owned()],
            ..PeerIdentity::default()
        };
        let matches = |kind, text: &str| {
            identity.matches_any(&[SanMatcher { kind, matcher: StringMatcher::exact(text) }])
        };
        assert!(matches(Some(SanKind::Uri), "spiffe://shop/x"));
        assert!(!matches(Some(SanKind::Dns), "spiffe://shop/x"));
        assert!(matches(None, "spiffe://shop/x"));
        assert!(matches(Some(SanKind::Dns), "web.shop.example"));
        assert!(!matches(Some(SanKind::Dns), "a.web.shop.example"));
        assert!(!matches(Some(SanKind::Dns), "shop.example"));
        assert!(!identity.matches_any(&[]));
    }

    #[test]
    fn nonsense_gives_an_empty_identity() {
        let identity = PeerIdentity::from_der(&[CertificateDer::from(vec![1, 2, 3])]);
        assert!(identity.subject.is_empty());
        assert_eq!(identity.sha256.len(), 64);
    }
}
