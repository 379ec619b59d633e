use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers one connection with this text, and gives what it was asked.
async fn app(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    });
    (port, asked)
}

fn one(text: &str) -> Target {
    let text = format!(r#"{{"web/readyz": {{"timeoutSeconds": 1, "target": {text}}}}}"#);
    probes(&text).unwrap()["web/readyz"].target.clone()
}

#[tokio::test]
async fn http_probes_ask_what_the_kubelet_would_have_asked() {
    let (port, asked) = app("HTTP/1.1 418 teapot\r\ncontent-length: 0\r\n\r\n").await;
    let headers = r#"[["X-Who", "kubelet"], ["Host", "shop"]]"#;
    let target = one(&format!(
        r#"{{"httpGet": {{"port": {port}, "path": "/well?deep=1", "headers": {headers}}}}}"#
    ));
    assert_eq!(ask(&target).await.unwrap().as_u16(), 418);
    let asked = asked.await.unwrap().to_lowercase();
    assert!(asked.starts_with("get /well?deep=1 http/1.1\r\n"), "{asked}");
    assert!(asked.contains("x-who: kubelet\r\n") && asked.contains("host: shop\r\n"), "{asked}");
    assert_eq!(asked.matches("host:").count(), 1, "{asked}");
}

#[tokio::test]
async fn https_probes_do_not_look_at_the_certificate() {
    use crate::model::tls::{DownstreamTls, SecretRef};
    let leaf = tls::testing::Ca::new("nobody's").leaf("spiffe://other/ns/a/sa/b");
    let certificates = vec![SecretRef::Inline(Arc::new(leaf.certificate()))];
    let common = CommonTls { certificates, ..CommonTls::default() };
    let context = DownstreamTls { common, require_client_certificate: false };
    let config = tls::server_config(&context, &tls::NoSecrets).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 204 fine\r\n\r\n").await.unwrap();
    });
    let target = one(&format!(r#"{{"httpGet": {{"port": {port}, "path": "/", "https": true}}}}"#));
    assert_eq!(ask(&target).await.unwrap(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn tcp_probes_see_whether_the_port_is_open() {
    let (port, _asked) = app("").await;
    let target = one(&format!(r#"{{"tcpSocket": {{"port": {port}}}}}"#));
    assert_eq!(ask(&target).await.unwrap(), StatusCode::OK);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let target = one(&format!(r#"{{"tcpSocket": {{"port": {closed}}}}}"#));
    assert!(ask(&target).await.is_err());
}

#[tokio::test]
async fn grpc_probes_read_the_health_service() {
    for (state, expected) in [(1, StatusCode::OK), (2, StatusCode::SERVICE_UNAVAILABLE)] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(&body[..], b"\0\0\0\0\x06\x0a\x04shop");
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![
                    0, 0, 0, 0, 2, 8, state,
                ]))))
            });
            let io = TokioIo::new(stream);
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await;
        });
        let target = one(&format!(r#"{{"grpc": {{"port": {port}, "service": "shop"}}}}"#));
        assert_eq!(ask(&target).await.unwrap(), expected);
        server.abort();
    }
}

#[test]
fn what_is_unknown_in_probes_is_refused() {
    let error =
        probes(r#"{"a/livez": {"timeoutSeconds": 1, "target": {"exec": {}}}}"#).unwrap_err();
    assert!(error.contains("exec"), "{error}");
}
