//! SIGTERM: nothing that is under way is lost.

use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client::{self, Ask};
use pillion_tests::port::Port;
use pillion_tests::process::Signal;
use pillion_tests::proxy::{Bootstrap, Proxy};
use pillion_tests::wait;
use tokio::net::TcpStream;

use super::{cluster, listener};

#[tokio::test]
async fn requests_under_way_finish_and_new_connections_are_refused() -> anyhow::Result<()> {
    let app = Backend::start("app", Speaks::Http1).await?;
    let port = Port::reserve()?;
    let address = port.address();
    let mut bootstrap =
        Bootstrap::of(vec![listener("front", address, "app")], vec![cluster("app", app.address)]);
    bootstrap.hold(port);
    let proxy = Proxy::pillion(bootstrap).await?;

    let slow = |http2: bool, case: &str| {
        let mut ask = Ask::new(Method::GET, "/");
        ask.host = "any".to_owned();
        ask.http2 = http2;
        ask.headers = vec![
            ("x-case".to_owned(), case.to_owned()),
            ("x-do".to_owned(), "delay=1500".to_owned()),
        ];
        tokio::spawn(async move { client::send(address, &ask).await })
    };
    let (one, two) = (slow(false, "one"), slow(true, "two"));
    let arrived = || async { (app.seen("one") + app.seen("two") == 2).then_some(()) };
    wait::until("both requests are at the application", arrived).await?;
    proxy.process.signal(Signal::TERM);
    let closed = || async { TcpStream::connect(address).await.is_err().then_some(()) };
    wait::until("new connections are refused", closed).await?;

    let (one, two) = (one.await??, two.await??);
    assert_eq!((one.status, two.status), (200, 200));
    assert_eq!(one.header("connection"), Some("close"));
    let status = proxy.process.ended().await?;
    assert!(status.success(), "{}", proxy.process.describe());
    Ok(())
}

#[tokio::test]
async fn what_comes_in_can_be_drained_alone() -> anyhow::Result<()> {
    let app = Backend::start("app", Speaks::Http1).await?;
    let (inbound, outbound) = (Port::reserve()?, Port::reserve()?);
    let mut way_in = listener("in", inbound.address(), "app");
    way_in["traffic_direction"] = "INBOUND".into();
    let mut way_out = listener("out", outbound.address(), "app");
    way_out["traffic_direction"] = "OUTBOUND".into();
    let addresses = (inbound.address(), outbound.address());
    let mut bootstrap = Bootstrap::of(vec![way_in, way_out], vec![cluster("app", app.address)]);
    bootstrap.hold(inbound);
    bootstrap.hold(outbound);
    let proxy = Proxy::pillion(bootstrap).await?;

    let mut drain = Ask::new(Method::POST, "/drain_listeners?inboundonly");
    drain.host = proxy.admin.to_string();
    assert_eq!(client::send(proxy.admin, &drain).await?.status, 200);
    let closed = || async { TcpStream::connect(addresses.0).await.is_err().then_some(()) };
    wait::until("the way in is closed", closed).await?;
    assert_eq!(client::get(addresses.1, "/").await?.status, 200);
    Ok(())
}
