use super::*;

const RULES: Rules =
    Rules { max_head: 200, max_lines: 5, accept_http_10: false, allow_chunked_length: false };

/// That takes everything that can be taken.
const LAX: Rules = Rules { accept_http_10: true, allow_chunked_length: true, ..RULES };

fn status(text: &str) -> u16 {
    match check(text.as_bytes(), &RULES) {
        Ok(_) => 200,
        Err(verdict) => verdict.status.as_u16(),
    }
}

fn follows(text: &str) -> Follows {
    check(text.as_bytes(), &LAX).unwrap_or_else(|verdict| panic!("{text:?}: {verdict:?}"))
}

#[test]
fn what_two_parsers_could_read_in_two_ways_is_refused() {
    for (text, want) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        ("GET / HTTP/1.1\nhost: a\n\n", 200),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: +3\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n", 501),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            501,
        ),
        ("GET / HTTP/1.1\r\nx-a: 1\r\n 2\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nx-a: 1\r2\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nx-a: 1\r2\n\r\n", 400),
        ("GET / HTTP/1.1\r\nx-a: 1\r\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nx-a: 1\r\r\n\n", 400),
        ("GET / HTTP/1.1\r\nx-a: 1\x002\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nx-a: 1\x0c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nx-a: 1\x7f\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nx-a: 1\t2\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
        ("GET /a#b HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 426),
        ("GET / HTTP/3.0\r\n\r\n", 426),
        ("GET /\r\n\r\n", 426),
    ] {
        assert_eq!(status(text), want, "{text:?}");
    }
    let text = "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(check(text.as_bytes(), &LAX).unwrap_err().status, 400);
}

#[test]
fn limits_name_themselves() {
    let lines = "a: b\r\n".repeat(6);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\n{lines}\r\n")), 431);
}

#[test]
fn where_the_body_ends_is_found_on_the_way() {
    for (lines, want) in [
        ("", Framing::None),
        ("content-length: 0\r\n", Framing::None),
        ("Content-Length: 4\r\n", Framing::Length(4)),
        ("transfer-encoding: Chunked\r\n", Framing::Chunked),
    ] {
        let follows = follows(&format!("POST / HTTP/1.1\r\n{lines}\r\n"));
        assert_eq!((follows.body, follows.two_lengths), (want, false), "{lines:?}");
    }
    let lines = "content-length: 4\r\ntransfer-encoding: chunked\r\n";
    let follows = follows(&format!("POST / HTTP/1.1\r\n{lines}\r\n"));
    assert_eq!((follows.body, follows.two_lengths), (Framing::Chunked, true));
    // Whoever reads the other length must not get what follows as a request.
    assert!(!follows.keep_alive);
}

#[test]
fn what_the_client_wants_of_the_connection() {
    for (version, lines, want) in [
        ("1.1", "", true),
        ("1.1", "connection: keep-alive, Close\r\n", false),
        ("1.1", "connection: close\r\nconnection: keep-alive\r\n", false),
        ("1.0", "", false),
        ("1.0", "connection: Keep-Alive\r\n", true),
        ("1.0", "connection: keep-alive, close\r\n", false),
    ] {
        let follows = follows(&format!("GET / HTTP/{version}\r\n{lines}\r\n"));
        assert_eq!(follows.keep_alive, want, "{version} {lines:?}");
    }
    let expects = "PUT / HTTP/1.1\r\nexpect: 100-Continue\r\nte: gzip, trailers\r\n\r\n";
    assert!(follows(expects).expects && follows(expects).trailers);
    let old = follows("PUT / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n");
    assert!(old.http_10 && !old.expects && !old.trailers);
}

#[test]
fn after_an_upgrade_anything_may_follow() {
    let upgrade = |kind: &str, connection: &str, version: &str| {
        let lines = format!("upgrade: {kind}\r\nconnection: {connection}\r\n");
        follows(&format!("GET / HTTP/{version}\r\n{lines}\r\n")).through
    };
    assert!(upgrade("x", "keep-alive, Upgrade", "1.1"));
    assert!(!upgrade("x", "keep-alive", "1.1"));
    assert!(!upgrade("h2c", "upgrade", "1.1"));
    assert!(!upgrade("x", "upgrade", "1.0"));
    assert!(follows("CONNECT a:1 HTTP/1.1\r\n\r\n").through);
}
