use proptest::prelude::*;

use super::*;

fn ends(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
    Some((from.parse().unwrap(), to.parse().unwrap()))
}

fn read(version: Version, length: usize, ends: Option<(SocketAddr, SocketAddr)>) -> Found {
    Found::Whole(Read { version, length, ends })
}

#[test]
fn lines() {
    let line = b"PROXY TCP4 1.2.3.4 253.253.253.253 65535 1234\r\nmore";
    let expected = ends("1.2.3.4:65535", "253.253.253.253:1234");
    assert_eq!(parse(line), read(Version::V1, line.len() - 4, expected));
    let line = b"PROXY TCP6 1:2:3::4 5:6::7:8 65535 1234\r\n";
    assert_eq!(
        parse(line),
        read(Version::V1, line.len(), ends("[1:2:3::4]:65535", "[5:6::7:8]:1234"))
    );
    let line = b"PROXY UNKNOWN ffff::1 whatever\r\n";
    assert_eq!(parse(line), read(Version::V1, line.len(), None));
}

#[test]
fn what_is_wrong_in_a_line() {
    for bad in [
        "PROXY TCP4 1.2.3.4 2.3.4.5 80\r\n",
        "PROXY TCP4 1.2.3.4 2.3.4.5 80 81 82\r\n",
        "PROXY TCP4 1.2.3.4 2.3.4.5 +80 81\r\n",
        "PROXY TCP4 1.2.3.4 2.3.4.5 80 65536\r\n",
        "PROXY TCP4 ::1 ::2 80 81\r\n",
        "PROXY TCP6 1.2.3.4 2.3.4.5 80 81\r\n",
        "PROXY TCP4  1.2.3.4 2.3.4.5 80 81\r\n",
        "PROXY UDP4 1.2.3.4 2.3.4.5 80 81\r\n",
        "PROXY \r\n",
    ] {
        assert!(matches!(parse(bad.as_bytes()), Found::Bad(Version::V1, _)), "{bad}");
    }
    let endless = format!("PROXY TCP6 {}", "1".repeat(200));
    assert!(matches!(parse(endless.as_bytes()), Found::Bad(Version::V1, _)));
    assert_eq!(parse(&endless.as_bytes()[..107]), Found::Undecided);
}

#[test]
fn binary_headers() {
    let head = |command: u8, kind: u8, body: &[u8]| {
        let size = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, kind], &size, body].concat()
    };
    let v4 = [1, 2, 3, 4, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];
    assert_eq!(
        parse(&head(0x21, 0x11, &v4)),
        read(Version::V2, 28, ends("1.2.3.4:8080", "10.0.0.1:80"))
    );
    let extended = [&v4[..], &[4, 0, 1, 9]].concat();
    assert_eq!(
        parse(&head(0x21, 0x11, &extended)),
        read(Version::V2, 32, ends("1.2.3.4:8080", "10.0.0.1:80"))
    );
    assert_eq!(parse(&head(0x20, 0x11, &v4)), read(Version::V2, 28, None), "LOCAL");
    assert_eq!(parse(&head(0x21, 0, &[])), read(Version::V2, 16, None), "UNSPEC");
    for (command, kind, body) in [
        (0x11, 0x11, &v4[..]),
        (0x22, 0x11, &v4),
        (0x21, 0x31, &v4),
        (0x21, 0x11, &v4[..11]),
        (0x21, 0x21, &v4),
    ] {
        assert!(
            matches!(parse(&head(command, kind, body)), Found::Bad(Version::V2, _)),
            "{command:x} {kind:x}"
        );
    }
}

#[test]
fn anything_else_is_known_at_the_first_byte_that_differs() {
    for (bytes, expected) in [
        (&b""[..], Found::Undecided),
        (b"PROX", Found::Undecided),
        (b"PRI * HTTP/2.0", Found::No),
        (b"PROXIMITY", Found::No),
        (b"\r\n\r\n\0", Found::Undecided),
        (b"\r\nGET", Found::No),
        (b"\x16\x03\x01", Found::No),
    ] {
        assert_eq!(parse(bytes), expected, "{bytes:?}");
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<Ipv4Addr>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<Ipv6Addr>(), any::<u16>()).prop_map(SocketAddr::from),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        from in address(),
        to in address(),
        v2 in any::<bool>(),
        tlvs in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..9)), 0..3),
        rest in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let version = if v2 { Version::V2 } else { Version::V1 };
        let header = write(&Header { version, tlvs }, Some((from, to)));
        let same_family = from.is_ipv4() == to.is_ipv4();
        let expected = Read { version, length: header.len(), ends: same_family.then_some((from, to)) };
        for cut in 0..header.len() {
            prop_assert_eq!(parse(&header[..cut]), Found::Undecided);
        }
        let whole = [header, rest].concat();
        prop_assert_eq!(parse(&whole), Found::Whole(expected));
    }

    #[test]
    fn nothing_is_read_beyond_what_is_there(bytes in prop::collection::vec(any::<u8>(), 0..300), v2 in any::<bool>()) {
        let start: &[u8] = if v2 { SIGNATURE } else { WORD };
        let bytes = [start, &bytes].concat();
        if let Found::Whole(read) = parse(&bytes) {
            prop_assert!(read.length <= bytes.len());
        }
    }
}
