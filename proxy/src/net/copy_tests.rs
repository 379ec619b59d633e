use std::future::pending;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::*;
use crate::net::testing::tcp_pair;

async fn plain(mut down: TcpStream, mut up: TcpStream) -> Copied {
    bidirectional(&mut down, &mut up, CopyOptions::default(), pending(), |_, _| {}).await
}

#[tokio::test]
async fn half_close_lets_the_other_half_finish() {
    let (mut client, down) = tcp_pair().await;
    let (up, mut server) = tcp_pair().await;
    let copy = tokio::spawn(plain(down, up));
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut asked = Vec::new();
    server.read_to_end(&mut asked).await.unwrap();
    assert_eq!(asked, b"question");
    // The answer comes after the end of the question.
    server.write_all(b"a long answer").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"a long answer");
    let copied = copy.await.unwrap();
    assert!(matches!(copied.end, CopyEnd::Finished), "{copied:?}");
    assert_eq!((copied.from_downstream, copied.from_upstream), (8, 13));
}

#[tokio::test]
async fn megabytes_arrive_unharmed_both_ways() {
    let (client, down) = tcp_pair().await;
    let (up, server) = tcp_pair().await;
    let copy = tokio::spawn(plain(down, up));
    let bytes: Arc<Vec<u8>> = Arc::new((0..5_000_000_u32).map(|at| (at % 251) as u8).collect());
    let exchange = |stream: TcpStream| {
        let bytes = bytes.clone();
        tokio::spawn(async move {
            let (mut read, mut write) = stream.into_split();
            let sent = bytes.clone();
            let send = tokio::spawn(async move {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            send.await.unwrap();
            assert!(got == *bytes, "{} bytes arrived changed", got.len());
        })
    };
    let (one, two) = (exchange(client), exchange(server));
    one.await.unwrap();
    two.await.unwrap();
    let copied = copy.await.unwrap();
    assert_eq!((copied.from_downstream, copied.from_upstream), (5_000_000, 5_000_000));
}

#[tokio::test]
async fn a_reset_names_its_side() {
    let (client, down) = tcp_pair().await;
    let (up, server) = tcp_pair().await;
    let copy = tokio::spawn(plain(down, up));
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let copied = copy.await.unwrap();
    assert!(matches!(copied.end, CopyEnd::Failed { side: Side::Upstream, .. }), "{copied:?}");
    drop(client);
}

fn streams() -> (DuplexStream, DuplexStream, DuplexStream, DuplexStream) {
    let (client, down) = duplex(64);
    let (up, server) = duplex(64);
    (client, down, up, server)
}

#[tokio::test]
async fn idle_counts_from_the_last_byte_either_way() {
    let (mut client, mut down, mut up, mut server) = streams();
    let options =
        CopyOptions { idle: Some(Duration::from_secs(2)), max_duration: None, buffers: None };
    let copy = tokio::spawn(async move {
        bidirectional(&mut down, &mut up, options, pending(), |_, _| {}).await
    });
    // Longer than the idle time altogether, with gaps that are far shorter.
    for _ in 0..3 {
        sleep(Duration::from_millis(400)).await;
        client.write_all(b"x").await.unwrap();
        server.read_u8().await.unwrap();
        sleep(Duration::from_millis(400)).await;
        server.write_all(b"y").await.unwrap();
        client.read_u8().await.unwrap();
    }
    let copied = copy.await.unwrap();
    assert!(matches!(copied.end, CopyEnd::Idle), "{copied:?}");
    assert_eq!((copied.from_downstream, copied.from_upstream), (3, 3));
}

#[tokio::test]
async fn the_idle_timer_is_moved_when_it_fires_too_early() {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut timer = pin!(Some(sleep_until(Instant::now())));
    let later = Instant::now() + Duration::from_secs(3600);
    poll_fn(|cx| timer.as_mut().as_pin_mut().unwrap().poll(cx)).await;
    assert!(poll_idle(&mut timer, &mut cx, later).is_pending());
    assert_eq!(timer.as_ref().as_pin_ref().unwrap().deadline(), later);
    let mut fired = pin!(Some(sleep_until(Instant::now())));
    poll_fn(|cx| fired.as_mut().as_pin_mut().unwrap().poll(cx)).await;
    assert!(poll_idle(&mut fired, &mut cx, Instant::now()).is_ready());
    assert!(poll_idle(&mut pin!(None), &mut cx, Instant::now()).is_pending());
}

#[tokio::test]
async fn a_half_closed_connection_is_not_kept_for_ever() {
    let (mut client, mut down, mut up, _server) = streams();
    client.shutdown().await.unwrap();
    let options =
        CopyOptions { idle: Some(Duration::from_millis(50)), max_duration: None, buffers: None };
    let copied = bidirectional(&mut down, &mut up, options, pending(), |_, _| {}).await;
    assert!(matches!(copied.end, CopyEnd::Idle), "{copied:?}");
}

#[tokio::test]
async fn a_busy_connection_ends_at_its_longest_duration_and_when_told() {
    let (mut client, mut down, mut up, mut server) = streams();
    let chatter = tokio::spawn(async move {
        while client.write_all(b"x").await.is_ok() && server.read_u8().await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    let options = CopyOptions {
        idle: Some(Duration::from_secs(10)),
        max_duration: Some(Duration::from_millis(200)),
        buffers: None,
    };
    let copied = bidirectional(&mut down, &mut up, options, pending(), |_, _| {}).await;
    assert!(matches!(copied.end, CopyEnd::MaxDuration), "{copied:?}");

    let stop = Arc::new(Notify::new());
    stop.notify_one();
    let stopping = stop.clone();
    let options = CopyOptions::default();
    let copied = bidirectional(&mut down, &mut up, options, stopping.notified(), |_, _| {}).await;
    assert!(matches!(copied.end, CopyEnd::Stopped), "{copied:?}");
    drop((down, up));
    chatter.await.unwrap();
}

#[tokio::test]
async fn progress_is_told_as_it_happens() {
    let (mut client, mut down, mut up, mut server) = streams();
    let mut told = (0, 0);
    client.write_all(b"12345").await.unwrap();
    client.shutdown().await.unwrap();
    server.write_all(b"123").await.unwrap();
    server.shutdown().await.unwrap();
    let progress = |side, count| match side {
        Side::Downstream => told.0 += count,
        Side::Upstream => told.1 += count,
    };
    let copied =
        bidirectional(&mut down, &mut up, CopyOptions::default(), pending(), progress).await;
    assert!(matches!(copied.end, CopyEnd::Finished), "{copied:?}");
    assert_eq!(told, (5, 3));
}

#[test]
fn buffers_grow_while_filled_and_vanish_when_idle() {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut half = Half::new(Side::Downstream, SIZES[2]);
    let mut full = tokio::io::repeat(7);
    for want in [1 << 10, 16 << 10, 256 << 10, 256 << 10] {
        assert_eq!(half.size, want);
        assert!(half.poll_fill(&mut cx, &mut full).is_ready());
        assert!(half.buffer.len() >= want);
        half.buffer.clear();
    }
    let (mut silent, _other) = duplex(64);
    assert!(half.poll_fill(&mut cx, &mut silent).is_pending());
    assert_eq!((half.buffer.capacity(), half.size), (0, 16 << 10));
}
