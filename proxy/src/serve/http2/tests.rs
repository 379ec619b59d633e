use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use h2::client::{self, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::http::body::BoxBody;
use crate::http::upgraded;

/// Length, kind, flags, stream.
const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Reply = Response<BoxBody>;
type Work = Pin<Box<dyn Future<Output = Reply> + Send>>;

fn settings() -> Settings {
    Settings::new(&HttpManager::default())
}

/// Serve one end of a pipe; the other one is the client's.
fn start<W: Future<Output = Reply> + Send + 'static>(
    settings: Settings,
    answer: impl Fn(Request<Arrived>) -> W + Send + Sync + Unpin + 'static,
) -> (DuplexStream, JoinHandle<Result<(), Error>>) {
    let (client, server) = tokio::io::duplex(64 << 10);
    let answer = move |request| -> Work { Box::pin(answer(request)) };
    (client, tokio::spawn(serve(server, settings, answer)))
}

async fn greet(io: DuplexStream) -> SendRequest<Bytes> {
    let (sender, connection) = client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn full(text: impl Into<Bytes>) -> Reply {
    let body = http_body_util::Full::new(text.into()).map_err(|never| match never {});
    Response::new(Box::pin(body))
}

/// Tells what it was asked.
async fn echo(request: Request<Arrived>) -> Reply {
    let (parts, body) = request.into_parts();
    let text = match body {
        Arrived::Http2(body) => body.collect().await.unwrap().to_bytes(),
        _ => Bytes::from_static(b"nothing"),
    };
    full([parts.method.as_str().as_bytes(), b" ", &text].concat())
}

fn post() -> Request<()> {
    Request::post("http://shop/cart").body(()).unwrap()
}

fn get() -> Request<()> {
    Request::get("http://shop/").body(()).unwrap()
}

async fn read(mut body: RecvStream) -> Result<(String, Option<HeaderMap>), h2::Error> {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        text.extend_from_slice(&data?);
    }
    Ok((String::from_utf8(text).unwrap(), body.trailers().await?))
}

#[tokio::test]
async fn many_requests_are_answered_on_one_connection() {
    let (io, serving) = start(settings(), echo);
    let mut sender = greet(io).await;
    let mut open: Vec<_> = Vec::new();
    for _ in 0..3 {
        open.push(sender.send_request(post(), false).unwrap());
    }
    for (number, (_, stream)) in open.iter_mut().enumerate() {
        stream.send_data(Bytes::from(format!("item {number}")), true).unwrap();
    }
    for (number, (answer, _)) in open.into_iter().enumerate() {
        let (head, body) = answer.await.unwrap().into_parts();
        assert_eq!(head.headers[CONTENT_LENGTH], "11");
        assert!(head.headers[DATE].to_str().unwrap().ends_with(" GMT"));
        assert_eq!(read(body).await.unwrap().0, format!("POST item {number}"));
    }
    let (answer, _) = sender.send_request(get(), true).unwrap();
    assert_eq!(read(answer.await.unwrap().into_body()).await.unwrap().0, "GET nothing");
    drop(sender);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_http2_forbids_goes_and_trailers_come() {
    let (io, _serving) = start(settings(), async |_| {
        let trailers = HeaderMap::from_iter([(DATE, HeaderValue::from_static("later"))]);
        let frames: Vec<Result<_, BodyError>> =
            vec![Ok(Frame::data(Bytes::from_static(b"piece"))), Ok(Frame::trailers(trailers))];
        let mut reply: Reply = Response::new(Box::pin(StreamBody::new(tokio_stream::iter(frames))));
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close, x-hop"));
        reply.headers_mut().insert("x-hop", HeaderValue::from_static("1"));
        reply.headers_mut().insert(DATE, HeaderValue::from_static("now"));
        reply
    });
    let mut sender = greet(io).await;
    let (answer, _) = sender.send_request(get(), true).unwrap();
    let (head, body) = answer.await.unwrap().into_parts();
    assert_eq!(head.headers, HeaderMap::from_iter([(DATE, HeaderValue::from_static("now"))]));
    let (text, trailers) = read(body).await.unwrap();
    assert_eq!((text.as_str(), &trailers.unwrap()[DATE]), ("piece", &"later".parse().unwrap()));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset() {
    let (io, _serving) = start(settings(), async |_| {
        let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err("gone".into())];
        Response::new(Box::pin(StreamBody::new(tokio_stream::iter(frames))) as BoxBody)
    });
    let mut sender = greet(io).await;
    let (answer, _) = sender.send_request(get(), true).unwrap();
    // With its head, or before that is sent.
    let broken = match answer.await {
        Ok(answer) => read(answer.into_body()).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(broken.reason(), Some(Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn work_for_a_stream_that_the_client_resets_ends() {
    struct Dropped(mpsc::UnboundedSender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (tell, mut told) = mpsc::unbounded_channel();
    let dropped = move || Dropped(tell.clone());
    let (io, _serving) = start(settings(), move |_| {
        let dropped = dropped();
        async move {
            let _dropped = dropped;
            std::future::pending().await
        }
    });
    let mut sender = greet(io).await;
    let (_answer, mut stream) = sender.send_request(post(), false).unwrap();
    stream.send_data(Bytes::from_static(b"x"), false).unwrap();
    stream.send_reset(Reason::CANCEL);
    told.recv().await.unwrap();
}

/// Whatever reason it gives: half a request is none.
#[tokio::test]
async fn a_request_that_the_client_cuts_off_is_not_taken_for_whole() {
    for reason in [Reason::NO_ERROR, Reason::CANCEL] {
        let (tell, mut told) = mpsc::unbounded_channel();
        let (io, _serving) = start(settings(), move |request| {
            let tell = tell.clone();
            async move {
                let Arrived::Http2(mut body) = request.into_body() else { panic!("no body") };
                assert!(body.frame().await.unwrap().is_ok());
                tokio::spawn(async move { tell.send(body.frame().await) });
                std::future::pending().await
            }
        });
        let mut sender = greet(io).await;
        let (_answer, mut stream) = sender.send_request(post(), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        tokio::task::yield_now().await;
        stream.send_reset(reason);
        assert!(matches!(told.recv().await, Some(Some(Err(_)))), "{reason:?}");
    }
}

fn connect() -> http::request::Builder {
    Request::builder().method(Method::CONNECT).uri("db:5432")
}

async fn agree(mut request: Request<Arrived>) -> Reply {
    let on = upgraded::take(request.extensions_mut()).unwrap();
    tokio::spawn(async move {
        let mut io = on.await.unwrap();
        let mut word = [0; 4];
        io.read_exact(&mut word).await.unwrap();
        io.write_all(&word).await.unwrap();
        io.shutdown().await.unwrap();
    });
    full("")
}

async fn echoed(answer: client::ResponseFuture, mut stream: SendStream<Bytes>) -> String {
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    stream.send_data(Bytes::from_static(b"ping"), true).unwrap();
    read(answer.into_body()).await.unwrap().0
}

#[tokio::test]
async fn connect_opens_a_tunnel() {
    let (io, _serving) = start(settings(), agree);
    let mut sender = greet(io).await;
    let (answer, stream) = sender.send_request(connect().body(()).unwrap(), false).unwrap();
    assert_eq!(echoed(answer, stream).await, "ping");
}

#[tokio::test]
async fn connect_with_content_is_reset_and_the_connection_goes_on() {
    let (io, _serving) = start(settings(), agree);
    let mut sender = greet(io).await;
    let with_content = connect().header(CONTENT_LENGTH, "4").body(()).unwrap();
    let (answer, _stream) = sender.send_request(with_content, false).unwrap();
    assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR));
    let (answer, stream) = sender.send_request(connect().body(()).unwrap(), false).unwrap();
    assert_eq!(echoed(answer, stream).await, "ping");
}

/// Polls a connection, and has it finish when it is told so.
async fn finishing<T, A, W>(
    serving: Gathered<T, Serving<T, A>>,
    finish: Arc<AtomicBool>,
) -> Result<(), Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Arrived>) -> W + Unpin,
    W: Future<Output = Reply> + Send + Unpin + 'static,
{
    let mut serving = std::pin::pin!(serving);
    std::future::poll_fn(|cx| {
        if finish.swap(false, Ordering::Relaxed) {
            serving.as_mut().finish();
        }
        serving.as_mut().poll(cx)
    })
    .await
}

#[tokio::test]
async fn a_connection_that_finishes_answers_what_is_under_way_and_takes_nothing_more() {
    let (client, server) = tokio::io::duplex(64 << 10);
    let finish = Arc::new(AtomicBool::new(false));
    let answer = |request| -> Work { Box::pin(echo(request)) };
    let serving = serve(server, settings(), answer);
    let serving = tokio::spawn(finishing(serving, Arc::clone(&finish)));
    let mut sender = greet(client).await;
    let (answer, mut stream) = sender.send_request(post(), false).unwrap();
    stream.send_data(Bytes::from_static(b"half "), false).unwrap();
    tokio::task::yield_now().await;
    finish.store(true, Ordering::Relaxed);
    stream.send_data(Bytes::from_static(b"and half"), true).unwrap();
    assert_eq!(read(answer.await.unwrap().into_body()).await.unwrap().0, "POST half and half");
    serving.await.unwrap().unwrap();
    assert!(sender.ready().await.is_err());
}

#[tokio::test]
async fn a_connection_that_finishes_before_its_preface_takes_what_comes_with_it() {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let answer = |request| -> Work { Box::pin(echo(request)) };
    let serving = serve(server, settings(), answer);
    let serving = tokio::spawn(finishing(serving, Arc::new(AtomicBool::new(true))));
    // `GET http://shop/` (RFC 7541 appendix A), END_STREAM and END_HEADERS.
    let head = [&[0, 0, 9, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 4][..], b"shop"].concat();
    client.write_all(&[PREFACE, EMPTY_SETTINGS, &head].concat()).await.unwrap();
    let mut told = Vec::new();
    while !told.ends_with(b"GET nothing") {
        assert_ne!(client.read_buf(&mut told).await.unwrap(), 0, "{told:?}");
    }
    drop(client);
    let _ = serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_a_ping_is_gone() {
    let mut manager = HttpManager::default();
    manager.http2.keepalive_interval = Some(Duration::from_secs(30));
    manager.http2.keepalive_timeout = Some(Duration::from_secs(5));
    let (mut io, serving) = start(Settings::new(&manager), echo);
    let begun = tokio::time::Instant::now();
    io.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await.unwrap();
    assert!(matches!(serving.await.unwrap(), Err(Error::TimedOut)));
    assert_eq!(begun.elapsed().as_secs(), 35);
}

#[tokio::test]
async fn who_breaks_the_protocol_is_told_so_and_cut_off() {
    let data_on_stream_0 = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let priority = [&[0, 0, 5, 2, 0, 0, 0, 0, 1][..], &[0, 0, 0, 0, 16]].concat();
    for (frames, flood) in [(data_on_stream_0, None), (priority.repeat(101), Some(Flood::Priority))]
    {
        let (mut io, serving) = start(settings(), echo);
        io.write_all(&[PREFACE, EMPTY_SETTINGS, &frames].concat()).await.unwrap();
        match serving.await.unwrap().unwrap_err() {
            Error::Malformed(error) => assert_eq!((error.is_go_away(), flood), (true, None)),
            Error::Flooded(of) => assert_eq!(Some(of), flood),
            other => panic!("{other}"),
        }
        let mut told = Vec::new();
        io.read_to_end(&mut told).await.unwrap();
        // GOAWAY with PROTOCOL_ERROR.
        assert!(told.ends_with(&[0, 0, 0, 1]), "{told:?}");
    }
}
