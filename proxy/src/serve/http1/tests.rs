use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::*;
use crate::http::body::BoxBody;
use crate::http::upgraded;
use crate::net::splice::Pipe;
use crate::net::testing::tcp_pair;

const SETTINGS: Settings = Settings {
    rules: Rules {
        max_head: 1000,
        max_lines: 20,
        accept_http_10: true,
        allow_chunked_length: true,
    },
    patience: None,
    title_case: false,
};

type Reply = Response<BoxBody>;

/// Serve one end of a pair; the other one is the client's.
fn start<W: Future<Output = Reply> + Send + 'static>(
    settings: Settings,
    answer: impl Fn(Request<Arrived>) -> W + Send + Sync + 'static,
) -> (UnixStream, JoinHandle<io::Result<()>>) {
    let (client, server) = UnixStream::pair().unwrap();
    (client, tokio::spawn(serve(server, settings, answer)))
}

fn full(text: impl Into<Bytes>) -> Reply {
    let body = http_body_util::Full::new(text.into()).map_err(|never| match never {});
    Response::new(Box::pin(body))
}

/// As pieces, whose length nobody knows.
fn pieces(frames: Vec<Result<Frame<Bytes>, BodyError>>) -> Reply {
    Response::new(Box::pin(StreamBody::new(tokio_stream::iter(frames))))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BodyError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

async fn whole(body: Arrived) -> Result<(String, Option<HeaderMap>), BodyError> {
    let Arrived::Http1(body) = body else { return Ok((String::new(), None)) };
    let all = body.collect().await?;
    let trailers = all.trailers().cloned();
    Ok((String::from_utf8(all.to_bytes().to_vec()).unwrap(), trailers))
}

/// Tells what it was asked; of a refusal, its status.
async fn echo(request: Request<Arrived>) -> Reply {
    let (parts, body) = request.into_parts();
    if let Arrived::Refused(verdict) = body {
        let mut refused = full(verdict.why);
        *refused.status_mut() = verdict.status;
        return refused;
    }
    match whole(body).await {
        Ok((text, None)) => full(format!("{} {} {text}", parts.method, parts.uri)),
        Ok((text, Some(trailers))) => full(format!("{text} {trailers:?}")),
        Err(error) => {
            let mut refused = full(error.to_string());
            *refused.status_mut() = StatusCode::BAD_REQUEST;
            refused
        }
    }
}

/// Never answers, and tells when it is dropped.
async fn never(dropped: Arc<Dropped>) -> Reply {
    let _dropped = dropped;
    std::future::pending().await
}

struct Dropped(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// All that comes until the connection ends, without dates.
async fn rest(client: &mut UnixStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    plain(&text)
}

/// Everything until this comes, without dates.
async fn until(client: &mut UnixStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let byte = client.read_u8().await.unwrap_or_else(|_| panic!("{text:?}"));
        text.push(byte);
    }
    plain(&String::from_utf8(text).unwrap())
}

fn plain(text: &str) -> String {
    let lines = text.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("date: "));
    lines.collect::<Vec<_>>().join("|")
}

async fn ask(settings: Settings, text: &str) -> String {
    let (mut client, served) = start(settings, echo);
    client.write_all(text.as_bytes()).await.unwrap();
    let answer = rest(&mut client).await;
    served.await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_order() {
    let (mut client, served) = start(SETTINGS, echo);
    let text = "\r\nGET /1 HTTP/1.1\r\nhost: a\r\n\r\n\
                POST /2 HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc\
                GET /3 HTTP/1.1\r\nho";
    client.write_all(text.as_bytes()).await.unwrap();
    let first = "HTTP/1.1 200 OK|content-length: 7||GET /1 ";
    assert_eq!(until(&mut client, "GET /1 ").await, first);
    let second = "HTTP/1.1 200 OK|content-length: 11||POST /2 abc";
    assert_eq!(until(&mut client, "abc").await, second);
    client.write_all(b"st: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let third = "HTTP/1.1 200 OK|content-length: 7|connection: close||GET /3 ";
    assert_eq!(rest(&mut client).await, third);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn half_a_head_is_waited_for_but_not_for_ever() {
    let (mut client, served) = start(SETTINGS, echo);
    for byte in b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" {
        client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(rest(&mut client).await.ends_with("GET /slow "));
    served.await.unwrap().unwrap();
    // Nobody is there to be answered.
    let (mut client, served) = start(SETTINGS, echo);
    client.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, "");
    served.await.unwrap().unwrap();
    let hasty = Settings { patience: Some(Duration::from_millis(20)), ..SETTINGS };
    let late = ask(hasty, "GET / HTTP/1.1\r\nhost").await;
    assert!(late.starts_with("HTTP/1.1 408 Request Timeout|"), "{late}");
    assert!(late.contains("|connection: close|"), "{late}");
}

#[tokio::test]
async fn what_may_not_pass_is_refused_and_ends_the_connection() {
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(2000));
    let lines = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(21));
    for (text, status) in [
        ("GET / HTTP/1.1\r\nbad\r\n\r\nGET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (long.as_str(), 431),
        (lines.as_str(), 431),
        ("GET /\r\n\r\n", 426),
    ] {
        let answer = ask(SETTINGS, text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{text:?}: {answer}");
        assert_eq!(answer.matches("connection: close").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn chunks_and_trailers_go_both_ways() {
    let (mut client, _served) = start(SETTINGS, async |request: Request<Arrived>| {
        let (text, trailers) = whole(request.into_body()).await.unwrap();
        let mut ends = trailers.unwrap_or_default();
        ends.insert("x-more", HeaderValue::from_static("2"));
        let mut reply = pieces(vec![data("<"), data(""), data(">"), Ok(Frame::trailers(ends))]);
        reply.headers_mut().insert("x-read", HeaderValue::from_str(&text).unwrap());
        reply.headers_mut().insert("trailer", HeaderValue::from_static("X-Sum, host"));
        reply
    });
    let body = "transfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n1\r\nd\r\n0\r\nx-sum: 1\r\n\r\n";
    client
        .write_all(format!("POST / HTTP/1.1\r\nTE: trailers\r\n{body}").as_bytes())
        .await
        .unwrap();
    let answer = "HTTP/1.1 200 OK|x-read: abcd|trailer: X-Sum, host|transfer-encoding: chunked||\
                  1|<|1|>|0|x-sum: 1||";
    assert_eq!(until(&mut client, "x-sum: 1\r\n\r\n").await, answer);
    client.write_all(format!("POST / HTTP/1.1\r\n{body}").as_bytes()).await.unwrap();
    assert!(until(&mut client, "\r\n0\r\n\r\n").await.ends_with("||1|<|1|>|0||"));
}

#[tokio::test]
async fn a_body_that_is_none_is_told_to_who_reads_it() {
    let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    let endless = format!("3;{}\r\n", "x".repeat(2000));
    let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(21));
    for body in [
        "3\r\nabcd\r\n0\r\n\r\n",
        "zz\r\n",
        "fffffffffffffffff\r\n",
        endless.as_str(),
        trailers.as_str(),
    ] {
        let answer = ask(SETTINGS, &format!("{head}{body}GET / HTTP/1.1\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer}");
        assert!(answer.contains("|connection: close|"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn continue_is_said_when_the_body_is_read_and_has_not_come() {
    let head = "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    let (mut client, _served) = start(SETTINGS, echo);
    client.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue||");
    client.write_all(b"abc").await.unwrap();
    assert!(until(&mut client, "abc").await.starts_with("HTTP/1.1 200 "));
    client.write_all(format!("{head}def").as_bytes()).await.unwrap();
    assert!(until(&mut client, "def").await.starts_with("HTTP/1.1 200 "));
    // Nobody reads it: then the client need not send it.
    let (mut client, _served) = start(SETTINGS, async |_request| full("no"));
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = "HTTP/1.1 200 OK|content-length: 2|connection: close||no";
    assert_eq!(rest(&mut client).await, answer);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_arrives() {
    // What is here already is thrown away; what is not ends the connection.
    let (mut client, _served) = start(SETTINGS, async |_request| full("early"));
    client.write_all(b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc").await.unwrap();
    let answer = until(&mut client, "early").await;
    assert_eq!(answer, "HTTP/1.1 200 OK|content-length: 5||early");
    client.write_all(b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\nabc").await.unwrap();
    client.write_all(&[b'x'; 100_000]).await.unwrap();
    let answer = rest(&mut client).await;
    assert_eq!(answer, "HTTP/1.1 200 OK|content-length: 5|connection: close||early");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_exchange_along() {
    let (sender, mut dropped) = tokio::sync::mpsc::unbounded_channel();
    for text in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc",
    ] {
        let guard = Mutex::new(Some(Arc::new(Dropped(sender.clone()))));
        let (mut client, served) =
            start(SETTINGS, move |_| never(guard.lock().unwrap().take().unwrap()));
        client.write_all(text.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        drop(client);
        dropped.recv().await.unwrap();
        assert!(served.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn the_connection_stays_or_ends_as_both_sides_say() {
    for (version, asked, said, want) in [
        ("1.1", "", "", "||"),
        ("1.1", "connection: close\r\n", "", "|connection: close||"),
        ("1.1", "", "close", "connection: close|content-length: 2||"),
        ("1.0", "", "", "content-length: 2||"),
        ("1.0", "connection: keep-alive\r\n", "", "|connection: keep-alive||"),
        ("1.0", "connection: keep-alive\r\n", "close", "connection: close|content-length: 2||"),
    ] {
        let (mut client, _served) = start(SETTINGS, move |_| async move {
            let mut reply = full("ok");
            if !said.is_empty() {
                reply.headers_mut().insert("connection", HeaderValue::from_static(said));
            }
            reply
        });
        let request = format!("GET / HTTP/{version}\r\n{asked}\r\n");
        client.write_all(format!("{request}{request}").as_bytes()).await.unwrap();
        let ends = want.contains("close") || version == "1.0" && asked.is_empty();
        let answer = if ends {
            rest(&mut client).await
        } else {
            until(&mut client, "ok").await + &until(&mut client, "ok").await
        };
        let begins = format!("HTTP/{version} 200 OK|");
        assert_eq!(answer.matches(&begins).count(), if ends { 1 } else { 2 }, "{answer}");
        assert!(answer.contains(&format!("{want}ok")), "{want}: {answer}");
    }
}

#[tokio::test]
async fn an_upgrade_hands_over_what_was_read() {
    let (mut client, served) = start(SETTINGS, async |mut request: Request<Arrived>| {
        let on = upgraded::take(request.extensions_mut()).unwrap();
        tokio::spawn(async move {
            let mut stream = on.await.unwrap();
            let mut text = [0; 10];
            stream.read_exact(&mut text).await.unwrap();
            stream.write_all(&text).await.unwrap();
        });
        let mut reply = full("");
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        reply.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        reply
    });
    let head = "GET / HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: x\r\n\r\nearly ";
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = until(&mut client, "\r\n\r\n").await;
    assert_eq!(answer, "HTTP/1.1 101 Switching Protocols|connection: upgrade||");
    served.await.unwrap().unwrap();
    client.write_all(b"late").await.unwrap();
    assert_eq!(rest(&mut client).await, "early late");
}

#[tokio::test]
async fn connect_has_no_length_and_an_upgrade_that_fails_ends_the_connection() {
    let (mut client, _served) = start(SETTINGS, async |mut request: Request<Arrived>| {
        let on = upgraded::take(request.extensions_mut()).unwrap();
        tokio::spawn(async move { on.await.unwrap().write_all(b"through").await });
        full("")
    });
    client.write_all(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut client).await, "HTTP/1.1 200 OK||through");
    let head = "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    let answer = ask(SETTINGS, head).await;
    assert_eq!(answer, "HTTP/1.1 200 OK|content-length: 6|connection: close||GET / ");
}

#[tokio::test]
async fn old_clients_read_to_the_end() {
    let (mut client, _served) =
        start(SETTINGS, async |_request| pieces(vec![data("to the"), data(" end")]));
    client.write_all(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut client).await, "HTTP/1.0 200 OK||to the end");
}

#[tokio::test]
async fn an_answer_that_breaks_off_has_no_end() {
    let broken = || Err(BodyError::from("the upstream is gone"));
    let (mut client, served) =
        start(SETTINGS, move |_| async move { pieces(vec![data("half"), broken()]) });
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let answer = rest(&mut client).await;
    assert_eq!(answer, "HTTP/1.1 200 OK|transfer-encoding: chunked||4|half|");
    assert!(served.await.unwrap().is_err());
    let (mut client, served) = start(SETTINGS, async |_request| {
        let mut reply = pieces(vec![data("half")]);
        reply.headers_mut().insert("content-length", HeaderValue::from_static("8"));
        reply
    });
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut client).await, "HTTP/1.1 200 OK|content-length: 8||half");
    assert!(served.await.unwrap().is_err());
}

#[tokio::test]
async fn some_answers_are_heads_only() {
    for (method, status, length, want) in [
        ("HEAD", 200, None, "HTTP/1.1 200 OK|content-length: 4||"),
        ("HEAD", 200, Some("9"), "HTTP/1.1 200 OK|content-length: 9||"),
        ("GET", 204, None, "HTTP/1.1 204 No Content||"),
        ("GET", 304, Some("9"), "HTTP/1.1 304 Not Modified|content-length: 9||"),
        (
            "GET",
            100,
            None,
            "HTTP/1.1 500 Internal Server Error|content-length: 0|connection: close||",
        ),
    ] {
        let (mut client, _served) = start(SETTINGS, move |_| async move {
            let mut reply = full("body");
            *reply.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(length) = length {
                reply.headers_mut().insert("content-length", HeaderValue::from_static(length));
            }
            reply
        });
        let request = format!("{method} / HTTP/1.1\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(until(&mut client, "\r\n\r\n").await, want);
        if status != 100 {
            // Nothing but the next answer follows.
            client.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(until(&mut client, "\r\n\r\n").await, want);
        }
    }
}

#[tokio::test]
async fn a_large_body_is_read_elsewhere_while_the_answer_is_written() {
    let (mut client, served) = start(SETTINGS, async |request: Request<Arrived>| {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let Arrived::Http1(mut body) = request.into_body() else { panic!("a body") };
        tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                sender.send(Ok::<_, BodyError>(frame)).await.unwrap();
            }
        });
        let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
        Response::new(Box::pin(StreamBody::new(frames)) as BoxBody)
    });
    let all: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let (mut read, mut write) = client.split();
    let send = async {
        for _ in 0..2 {
            let head = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", all.len());
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&all).await.unwrap();
        }
        write
            .write_all(b"POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: 1\r\n\r\n!")
            .await
            .unwrap();
    };
    let mut answer = Vec::new();
    let (_, length) = tokio::join!(send, read.read_to_end(&mut answer));
    assert!(length.unwrap() > 2_000_000);
    assert!(answer.ends_with(b"\r\n1\r\n!\r\n0\r\n\r\n"));
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_is_to_finish_ends_after_what_is_under_way() {
    let (near, far) = UnixStream::pair().unwrap();
    let mut serving = Box::pin(serve(near, SETTINGS, echo));
    assert!(futures_util::poll!(serving.as_mut()).is_pending());
    serving.as_mut().finish();
    serving.await.unwrap();
    drop(far);

    let (near, mut far) = UnixStream::pair().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = |_request| {
        let asked = Arc::clone(&asked);
        async move {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            full("last")
        }
    };
    let mut serving = Box::pin(serve(near, SETTINGS, answer));
    far.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
    while asked.load(Ordering::Relaxed) == 0 {
        assert!(futures_util::poll!(serving.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    serving.as_mut().finish();
    let (answer, served) = tokio::join!(rest(&mut far), serving);
    served.unwrap();
    assert_eq!(answer, "HTTP/1.1 200 OK|content-length: 4|connection: close||last");
}

#[tokio::test]
async fn names_are_written_as_they_are_told() {
    let titled = Settings { title_case: true, ..SETTINGS };
    let answer = ask(titled, "GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert_eq!(answer, "HTTP/1.1 200 OK|Content-Length: 6|Connection: close||GET / ");
}

impl Straight for BoxBody {
    fn straight(&self) -> u64 {
        0
    }

    fn poll_straight(
        &mut self,
        _: &mut Context<'_>,
        _: &mut Pipe,
    ) -> Poll<Result<usize, BodyError>> {
        Poll::Ready(Ok(0))
    }
}

/// What is left of an answer, in a socket. Told how much of it went past the program's memory.
struct InSocket {
    from: TcpStream,
    left: u64,
    passed: Arc<AtomicUsize>,
}

impl Body for InSocket {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut room = [0; 1000];
        let mut read = tokio::io::ReadBuf::new(&mut room);
        std::task::ready!(Pin::new(&mut self.from).poll_read(cx, &mut read))?;
        self.left -= read.filled().len() as u64;
        Poll::Ready(match read.filled() {
            [] => Some(Err("it ended early".into())),
            data => Some(Ok(Frame::data(Bytes::copy_from_slice(data)))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

impl Straight for InSocket {
    fn straight(&self) -> u64 {
        self.left
    }

    fn poll_straight(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Result<usize, BodyError>> {
        let bytes = std::task::ready!(pipe.poll_fill(&self.from, self.left as usize, cx))?;
        self.left -= bytes as u64;
        self.passed.fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(Ok(bytes))
    }
}

/// What a client gets of an answer of `promised` bytes whose sender has `sent` of them, and how much went past the
/// program's memory.
async fn passed(promised: u64, sent: usize) -> (String, usize) {
    let (mut backend, from) = tcp_pair().await;
    let (mut client, server) = tcp_pair().await;
    let passed = Arc::new(AtomicUsize::new(0));
    let answer = Mutex::new(Some(InSocket { from, left: promised, passed: Arc::clone(&passed) }));
    let serving = tokio::spawn(serve(server, SETTINGS, move |_| {
        let answer = answer.lock().unwrap().take().unwrap();
        async move { Response::new(answer) }
    }));
    let sending = tokio::spawn(async move {
        let text: Vec<u8> = (0..sent).map(|at| b'a' + (at % 23) as u8).collect();
        backend.write_all(&text).await
    });
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    // Cut off: an end, or a reset.
    let _ = client.read_to_string(&mut text).await;
    sending.await.unwrap().unwrap();
    assert_eq!(serving.await.unwrap().is_ok(), promised == sent as u64);
    (text.split_once("\r\n\r\n").unwrap().1.to_owned(), passed.load(Ordering::Relaxed))
}

#[tokio::test]
async fn large_answers_go_past_this_programs_memory_and_small_ones_do_not() {
    let (text, past) = passed(3_000_000, 3_000_000).await;
    assert_eq!((text.len(), past), (3_000_000, 3_000_000));
    assert!(text.bytes().enumerate().all(|(at, byte)| byte == b'a' + (at % 23) as u8));
    let (text, past) = passed(1000, 1000).await;
    assert_eq!((text.len(), past), (1000, 0));
}

#[tokio::test]
async fn a_large_answer_that_breaks_off_is_cut_off() {
    let (text, past) = passed(3_000_000, 1_000_000).await;
    assert_eq!((text.len(), past), (1_000_000, 1_000_000));
}
