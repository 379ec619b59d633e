use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

const TLS: Inspect = Inspect { original_dst: false, tls: true, http: false };
const HTTP: Inspect = Inspect { original_dst: false, tls: false, http: true };
const BOTH: Inspect = Inspect { original_dst: false, tls: true, http: true };

/// A real ClientHello with a post-quantum key share.
fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same handshake message in records of `size` bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    hello[5..]
        .chunks(size)
        .flat_map(|part| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&[22, 3, 1, length[0], length[1]], part].concat()
        })
        .collect()
}

fn found(sni: &str, alpn: &[&str]) -> Sniffed {
    Sniffed {
        transport: Some(Transport::Tls),
        sni: Some(sni.to_owned()),
        alpn: alpn.iter().map(|&one| one.to_owned()).collect(),
        ..Sniffed::default()
    }
}

#[test]
fn finds_sni_and_alpn_of_a_real_hello() {
    let bytes = hello("Web.Shop.example", &["h2", "http/1.1"]);
    assert!(bytes.len() > 1184, "the hybrid key share is in it");
    let want = found("web.shop.example", &["h2", "http/1.1"]);
    assert_eq!(inspect(&bytes, TLS), want);
    assert_eq!(inspect(&bytes, BOTH), want);
    assert_eq!(want.application_protocols(), ["h2", "http/1.1"]);
    // What follows the hello does not matter.
    assert_eq!(inspect(&[bytes.as_slice(), b"more"].concat(), TLS), want);
    for size in [1, 7, 100, 1000] {
        assert_eq!(inspect(&in_records(&bytes, size), TLS), want, "records of {size}");
    }
}

#[test]
fn a_hello_without_names_is_still_tls() {
    let sniffed = inspect(&hello("10.0.0.1", &[]), TLS);
    assert_eq!(sniffed, Sniffed { transport: Some(Transport::Tls), ..Sniffed::default() });
}

#[test]
fn every_part_of_a_hello_asks_for_more() {
    let bytes = hello("web.shop", &["h2"]);
    for end in 0..bytes.len() {
        let sniffed = inspect(&bytes[..end], BOTH);
        assert!(sniffed.need_more, "after {end} bytes: {sniffed:?}");
        let known = (end >= 6).then_some(Transport::Tls);
        assert_eq!(sniffed.transport, known, "after {end} bytes");
    }
}

#[test]
fn http_is_recognised_by_its_first_line() {
    let cases: [(&[u8], Option<Http>, bool); 17] = [
        (b"", None, true),
        (b"G", None, true),
        (b"GET /", None, true),
        (b"GET / HTTP/1.1\r", None, true),
        (b"GET / HTTP/1.1\r\n", Some(Http::Http11), false),
        (b"\r\nGET / HTTP/1.1\r\n", Some(Http::Http11), false),
        (b"\r", None, true),
        (b"POST /a?b HTTP/1.0\nx", Some(Http::Http10), false),
        (b"PRI * HTTP/2.0\r\n", None, true),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Http::H2c), false),
        (b"PRI * HTTP/1.1\r\n", Some(Http::Http11), false),
        (b"GET / HTTP/3.0\r\n", None, false),
        (b"EHLO mail\r\n", None, false),
        (b"GET \x01", None, false),
        (b" GET / HTTP/1.1\r\n", None, false),
        (b"AVERYLONGMETHODTHATNOBODYWOULDEVERUSE", None, false),
        (b"\x16\x03\x01", None, false),
    ];
    for (bytes, http, need_more) in cases {
        let sniffed = inspect(bytes, HTTP);
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!((sniffed.http, sniffed.need_more), (http, need_more), "{shown:?}");
        assert_eq!(sniffed.transport, None, "TLS was not asked for");
    }
    let sniffed = inspect(b"GET / HTTP/1.1\r\n", BOTH);
    assert_eq!(sniffed.transport(), Transport::RawBuffer);
    assert_eq!(sniffed.application_protocols(), ["http/1.1"]);
}

#[test]
fn nothing_asked_nothing_found() {
    assert_eq!(inspect(b"", Inspect::default()), Sniffed::default());
    assert_eq!(inspect(&hello("web.shop", &[]), Inspect::default()), Sniffed::default());
}

#[test]
fn other_protocols_are_plain_text_at_once() {
    for bytes in
        [&b"SSH-2.0-x"[..], b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"\x16\x02\x01", b"*1\r\n"]
    {
        let sniffed = inspect(bytes, TLS);
        assert_eq!((sniffed.transport, sniffed.need_more), (Some(Transport::RawBuffer), false));
    }
}

#[test]
fn endless_beginnings_are_given_up() {
    let line = [b"GET /".as_slice(), &[b'a'; LIMIT]].concat();
    assert!(!inspect(&line, HTTP).need_more);
    // A message that claims 16 MiB is not waited for.
    let huge = [22, 3, 1, 0, 10, 1, 0xff, 0xff, 0xff, 3, 3, 0, 0, 0, 0];
    assert_eq!(inspect(&huge, TLS).transport, Some(Transport::Tls));
    assert!(!inspect(&huge, TLS).need_more);
}

proptest! {
    #[test]
    fn never_panics_on_anything(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for what in [TLS, HTTP, BOTH] {
            inspect(&bytes, what);
        }
    }

    #[test]
    fn never_panics_on_something_like_a_hello(
        body in proptest::collection::vec(any::<u8>(), 0..400),
        record in any::<u16>(),
        length in any::<u16>(),
    ) {
        let [high, low] = record.to_be_bytes();
        let [len_high, len_low] = length.to_be_bytes();
        let start = [22, 3, 3, high, low, 1, 0, len_high, len_low];
        inspect(&[&start, body.as_slice()].concat(), BOTH);
    }

    #[test]
    fn a_damaged_hello_never_panics_and_more_bytes_never_unsay(
        at in 0..1800_usize, byte in any::<u8>(), cut in 0..1800_usize,
    ) {
        let mut bytes = hello("web.shop", &["h2"]);
        let end = bytes.len();
        bytes[at % end] = byte;
        let whole = inspect(&bytes, BOTH);
        let part = inspect(&bytes[..cut % end], BOTH);
        if !part.need_more {
            prop_assert_eq!(part.transport, whole.transport);
        }
    }

    #[test]
    fn any_cut_into_records_reads_the_same(size in 1..2000_usize) {
        let bytes = hello("web.shop", &["h2"]);
        prop_assert_eq!(inspect(&in_records(&bytes, size), TLS), found("web.shop", &["h2"]));
    }
}
