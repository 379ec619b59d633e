use super::*;

const RULES: Rules =
    Rules { max_head: 200, max_lines: 5, accept_http_10: false, allow_chunked_length: false };

fn status(text: &str) -> u16 {
    match Guard::new(RULES).look(text.as_bytes()) {
        Step::Refuse(_, verdict) => verdict.status.as_u16(),
        Step::Pass(_) => 200,
        Step::End(_) => 0,
    }
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
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
        ("GET /a#b HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 426),
        ("GET / HTTP/3.0\r\n\r\n", 426),
        ("GET /\r\n\r\n", 426),
    ] {
        assert_eq!(status(text), want, "{text:?}");
    }
}

#[test]
fn limits_name_themselves() {
    let lines = "a: b\r\n".repeat(6);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\n{lines}\r\n")), 431);
    assert_eq!(status(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(300))), 431);
}

#[test]
fn bodies_are_followed_to_the_next_head() {
    let bad = "GET / HTTP/1.1\r\nbad\r\n\r\n";
    for good in [
        "POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nGET ",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nx: y\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    ] {
        let both = format!("{good}{bad}");
        let step = Guard::new(RULES).look(both.as_bytes());
        assert!(matches!(step, Step::Refuse(at, _) if at == good.len()), "{step:?} {both:?}");
        // In pieces, too: what was not passed comes again, with more.
        let mut guard = Guard::new(RULES);
        let (mut from, mut refused) = (0, false);
        for to in 1..=both.len() {
            match guard.look(&both.as_bytes()[from..to]) {
                Step::Pass(passed) => from += passed,
                Step::Refuse(passed, _) => {
                    assert_eq!(from + passed, good.len());
                    refused = true;
                    break;
                }
                Step::End(_) => panic!("{both:?}"),
            }
        }
        assert!(refused);
    }
}

#[test]
fn nothing_follows_a_body_that_is_none() {
    let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in ["3\r\nabcd\r\n0\r\n\r\n", "zz\r\n", "fffffffffffffffff\r\n"] {
        let text = format!("{head}{body}GET / HTTP/1.1\r\n\r\n");
        let step = Guard::new(RULES).look(text.as_bytes());
        assert!(matches!(step, Step::End(at) if at < head.len() + body.len()), "{step:?}");
    }
}

#[test]
fn after_an_upgrade_everything_passes() {
    let text = "GET / HTTP/1.1\r\nupgrade: x\r\nconnection: keep-alive, Upgrade\r\n\r\n\0\0";
    let mut guard = Guard::new(RULES);
    assert_eq!(guard.look(text.as_bytes()), Step::Pass(text.len()));
    assert!(guard.is_through());
    let text = "CONNECT a:1 HTTP/1.1\r\n\r\n\0\0";
    assert_eq!(Guard::new(RULES).look(text.as_bytes()), Step::Pass(text.len()));
}
