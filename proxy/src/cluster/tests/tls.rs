use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_rustls::TlsAcceptor;

use crate::cluster::testing::{Backend, Shop, assignment, config, endpoint, get, locality};
use crate::model::cluster::{Cluster, Protocol};
use crate::model::matcher::{StringMatch, StringMatcher};
use crate::model::tls::{
    CommonTls, DownstreamTls, SanKind, SanMatcher, Secret, SecretKind, SecretRef, UpstreamTls,
    Validation, ValidationContext,
};
use crate::model::{Changes, Snapshot};
use crate::telemetry::reason::{Reason, Sent};
use crate::tls::testing::{Ca, spiffe};
use crate::tls::{NoSecrets, server_config};

/// A server that asks for a certificate and speaks what ALPN says.
async fn backend(ca: &Ca, account: &str, alpn: &[&str]) -> Backend {
    let tls = DownstreamTls {
        common: CommonTls {
            certificates: vec![SecretRef::Inline(Arc::new(
                ca.leaf(&spiffe(account)).certificate(),
            ))],
            validation: Some(trust(ca, &[])),
            alpn: alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect(),
            ..CommonTls::default()
        },
        require_client_certificate: true,
    };
    let acceptor = TlsAcceptor::from(server_config(&tls, &NoSecrets).unwrap());
    Backend::raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let service =
                service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                    let text = format!("{:?}", request.version());
                    Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(
                        text,
                    ))))
                });
            let io = TokioIo::new(stream);
            if http2 {
                let builder = http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(io, service).await;
            } else {
                let _ = http1::Builder::new().serve_connection(io, service).await;
            }
        }
    })
    .await
}

fn trust(ca: &Ca, names: &[String]) -> Validation {
    let sans =
        names.iter().map(|name| SanMatcher { kind: Some(SanKind::Uri), matcher: exact(name) });
    Validation {
        context: ValidationContext {
            trusted_ca: Some(ca.pem()),
            sans: sans.collect(),
            ..ValidationContext::default()
        },
        sds: None,
    }
}

fn exact(text: &str) -> StringMatcher {
    StringMatcher { kind: StringMatch::Exact(text.into()), ignore_case: false }
}

fn upstream(ca: &Ca, expected: &str) -> UpstreamTls {
    UpstreamTls {
        common: CommonTls {
            certificates: vec![SecretRef::Sds("default".into())],
            validation: Some(trust(ca, &[spiffe(expected)])),
            ..CommonTls::default()
        },
        sni: "".into(),
        auto_host_sni: false,
        by_request: false,
        auto_sni_san_validation: false,
    }
}

fn publish(shop: &Shop, config: Cluster, backend: &Backend, identity: Option<(&Ca, &str)>) {
    let mut snapshot = Snapshot::default();
    snapshot.clusters.insert_mut("shop".into(), Arc::new(config));
    let endpoints = assignment(vec![locality(0, vec![endpoint(backend.address)])]);
    snapshot.assignments.insert_mut("shop".into(), Arc::new(endpoints));
    if let Some((ca, account)) = identity {
        let certificate = Arc::new(ca.leaf(&spiffe(account)).certificate());
        let kind = SecretKind::Certificate(certificate);
        let secret = Secret { name: "default".into(), kind };
        snapshot.secrets.insert_mut("default".into(), Arc::new(secret));
    }
    let changes = Changes { secrets: vec!["default".into()], ..Changes::all(&snapshot) };
    shop.clusters.publish(snapshot, &changes);
}

fn mutual(ca: &Ca, expected: &str, protocol: Protocol) -> Cluster {
    Cluster { tls: Some(Arc::new(upstream(ca, expected))), protocol, ..config() }
}

#[tokio::test]
async fn mutual_tls_speaks_what_alpn_says() {
    let ca = Ca::new("mesh");
    for (alpn, protocol, expected) in [
        (&["h2", "http/1.1"][..], Protocol::Auto, "HTTP/2.0"),
        (&["http/1.1"][..], Protocol::Auto, "HTTP/1.1"),
        (&["h2", "http/1.1"][..], Protocol::Http2, "HTTP/2.0"),
        (&["h2", "http/1.1"][..], Protocol::Http1, "HTTP/1.1"),
    ] {
        let backend = backend(&ca, "catalog", alpn).await;
        let shop = Shop::new(config(), assignment(vec![]));
        publish(&shop, mutual(&ca, "catalog", protocol), &backend, Some((&ca, "web")));
        for _ in 0..3 {
            let response = shop.send(get("/")).await.unwrap();
            assert_eq!(response.body().connection().tls_version(), Some("TLSv1.3"));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, expected);
        }
        assert_eq!(backend.accepted(), 1);
        assert_eq!(shop.cluster().stats.tls().handshake.get(), 1);
    }
}

#[tokio::test]
async fn a_wrong_name_and_a_missing_secret_are_told_and_nothing_is_sent() {
    let ca = Ca::new("mesh");
    let backend = backend(&ca, "impostor", &["h2"]).await;
    let shop = Shop::new(config(), assignment(vec![]));
    let config = || mutual(&ca, "catalog", Protocol::Http2);
    publish(&shop, config(), &backend, None);
    let refusal = shop.get().await.unwrap_err().refusal;
    assert_eq!((refusal.reason, refusal.sent), (Reason::TlsFailure, Sent::No));
    assert!(refusal.detail.contains("default"), "{}", refusal.detail);

    publish(&shop, config(), &backend, Some((&ca, "web")));
    let refusal = shop.get().await.unwrap_err().refusal;
    assert_eq!((refusal.reason, refusal.sent), (Reason::TlsFailure, Sent::No));
    assert!(refusal.detail.contains(&spiffe("impostor")), "{}", refusal.detail);
    assert_eq!(shop.cluster().stats.tls().fail_verify_san.get(), 1);
}

#[tokio::test]
async fn a_server_that_refuses_our_certificate_has_not_seen_the_request() {
    let (ca, other) = (Ca::new("mesh"), Ca::new("other"));
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let backend = backend(&ca, "catalog", &["h2", "http/1.1"]).await;
        let shop = Shop::new(config(), assignment(vec![]));
        publish(&shop, mutual(&ca, "catalog", protocol), &backend, Some((&other, "web")));
        let refusal = shop.get().await.unwrap_err().refusal;
        assert_eq!(refusal.reason, Reason::TlsFailure, "{}", refusal.detail);
        assert_eq!(refusal.sent, Sent::No);
    }
}

#[tokio::test]
async fn a_rotated_certificate_counts_from_the_next_connection_on() {
    let ca = Ca::new("mesh");
    let backend = backend(&ca, "catalog", &["h2"]).await;
    let shop = Shop::new(config(), assignment(vec![]));
    let config = || mutual(&ca, "catalog", Protocol::Http2);
    publish(&shop, config(), &backend, Some((&ca, "web")));
    shop.get().await.unwrap();
    let before = shop.cluster();
    publish(&shop, config(), &backend, Some((&ca, "web")));
    shop.get().await.unwrap();
    assert!(Arc::ptr_eq(&before, &shop.cluster()));
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn an_endpoint_that_never_finishes_the_handshake_runs_into_the_timeout() {
    let ca = Ca::new("mesh");
    let backend = Backend::raw(async |stream| {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let shop = Shop::new(config(), assignment(vec![]));
    let mut config = mutual(&ca, "catalog", Protocol::Http2);
    config.connect_timeout = Duration::from_millis(100);
    publish(&shop, config, &backend, Some((&ca, "web")));
    let error = shop.get().await.unwrap_err();
    assert_eq!(error.refusal.reason, Reason::ConnectTimeout);
    assert_eq!(error.refusal.sent, Sent::No);
    assert!(error.unsent);
    assert_eq!(shop.cluster().stats.upstream_cx_connect_timeout.get(), 1);
}
