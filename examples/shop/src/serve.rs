//! One listener, HTTP/1.1 and HTTP/2 with prior knowledge on it, and an orderly stop.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tonic::body::Body;
use tonic::codegen::Service as _;

use crate::cart::Cart;
use crate::catalog::Catalog;
use crate::pricing::PriceList;
use crate::proto::pricing_server::PricingServer;
use crate::reply::{SHOP_INSTANCE, error_reply, json_reply, no_such_page};
use crate::reviews::Reviews;
use crate::web::Web;
use crate::{Args, Service};

/// How long requests in flight may take once the process was asked to stop.
const GRACE: Duration = Duration::from_secs(10);
/// After a failed accept (out of file descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs one service until SIGTERM or SIGINT; says on stdout where it listens.
///
/// # Errors
/// When the port cannot be bound, or `--app-version` cannot stand in a header.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let address = (Ipv4Addr::LOCALHOST, args.port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{}", args.port))?;
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    println!("{} {} listening on {}", args.instance(), args.version, listener.local_addr()?);
    serve(args, listener, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}

/// Serves on `listener` until `stop` is done; then takes no new connection, and waits up to 10 s for the requests
/// in flight.
///
/// # Errors
/// When `--app-version` cannot stand in a header.
pub async fn serve(
    args: Args,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let app = Arc::new(App::new(&args)?);
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => spawn_connection(stream, Arc::clone(&app), &graceful),
            Err(error) => {
                eprintln!("{}: accept: {error}", args.instance());
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // What is still open after the grace time is a client that does not read; it is cut off.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

fn spawn_connection(stream: TcpStream, app: Arc<App>, graceful: &GracefulShutdown) {
    // Without it small answers wait for the peer's delayed ACK; an error here is a connection already gone.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    let connection = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // A peer that goes away in mid-request is its own affair.
        let _ = connection.await;
    });
}

/// One service with what all of them have in common.
struct App {
    kind: Kind,
    name: &'static str,
    version: String,
    instance: HeaderValue,
    delay: Duration,
    fail_percent: u8,
}

enum Kind {
    Web(Box<Web>),
    Catalog(Catalog),
    Cart(Cart),
    Reviews(Reviews),
    Pricing(PricingServer<PriceList>),
}

impl App {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let kind = match args.service {
            Service::Web => Kind::Web(Box::new(Web::new(args))),
            Service::Catalog => Kind::Catalog(Catalog::new(args)?),
            Service::Cart => Kind::Cart(Cart::new(args)),
            Service::Reviews => Kind::Reviews(Reviews::new(args)),
            Service::Pricing => Kind::Pricing(PricingServer::new(PriceList::new(args))),
        };
        Ok(Self {
            kind,
            name: args.service.name(),
            version: args.version.clone(),
            instance: HeaderValue::from_str(args.instance()).context("the instance's name")?,
            delay: Duration::from_millis(args.delay_ms),
            fail_percent: args.fail_percent,
        })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let mut reply = if request.uri().path() == "/healthz" {
            let health = json!({ "status": "ok", "service": self.name, "version": self.version });
            json_reply(StatusCode::OK, &health)
        } else {
            self.work(request).await
        };
        reply.headers_mut().insert(SHOP_INSTANCE, self.instance.clone());
        reply
    }

    async fn work(&self, request: Request<Incoming>) -> Response<Body> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if fastrand::u8(0..100) < self.fail_percent {
            return error_reply(StatusCode::INTERNAL_SERVER_ERROR, "sick, as --fail-percent asks");
        }
        match &self.kind {
            Kind::Web(web) => web.handle(request).await,
            Kind::Catalog(catalog) => catalog.handle(&request),
            Kind::Cart(cart) => cart.handle(request).await,
            Kind::Reviews(reviews) => reviews.handle(&request),
            Kind::Pricing(pricing) if is_grpc(&request) => {
                let Ok(reply) = pricing.clone().call(request).await;
                reply
            }
            Kind::Pricing(_) => no_such_page(request.uri().path()),
        }
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
