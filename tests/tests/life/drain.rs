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
