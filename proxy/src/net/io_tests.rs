use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::net::{ConnectOptions, connect, listen};

fn self_signed() -> (rcgen::CertifiedKey<rcgen::KeyPair>, rustls::RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["web.shop".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (made, roots)
}

fn configs(server: &[&str], client: &[&str]) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let (made, roots) = self_signed();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut serving = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut calling = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let list = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
    (serving.alpn_protocols, calling.alpn_protocols) = (list(server), list(client));
    (Arc::new(serving), Arc::new(calling))
}

async fn plain() -> (Io, Io) {
    let listener = listen(&Address::Socket("127.0.0.1:0".parse().unwrap()), 16).unwrap();
    let client = connect(listener.address(), &ConnectOptions::default()).await.unwrap();
    (client, listener.acceptor().unwrap().accept().await.unwrap().0)
}

async fn secured(server: &[&str], client: &[&str]) -> (Io, Io) {
    let (near, far) = plain().await;
    let (serving, calling) = configs(server, client);
    let name = ServerName::try_from("web.shop").unwrap();
    let (near, far) = tokio::join!(near.connect_tls(calling, name), far.accept_tls(serving));
    (near.unwrap(), far.unwrap())
}

#[tokio::test]
async fn plain_text_knows_nothing_of_tls() {
    let (client, server) = plain().await;
    assert!(!client.is_tls() && client.alpn().is_none() && client.tls_version().is_none());
    assert!(server.peer_certificates().is_empty() && server.sni().is_none());
    assert!(server.is_write_vectored());
}

#[tokio::test]
async fn tls_over_tcp_carries_bytes_and_tells_what_was_agreed() {
    let (mut client, mut server) = secured(&["h2", "http/1.1"], &["h2"]).await;
    assert_eq!(client.alpn(), Some(&b"h2"[..]));
    assert_eq!(server.sni(), Some("web.shop"));
    assert_eq!(server.tls_version(), Some("TLSv1.3"));
    assert_eq!(client.peer_certificates().len(), 1);
    assert_eq!(client.local_address().unwrap(), server.peer_address().unwrap());

    let slices = [IoSlice::new(b"hel"), IoSlice::new(b"lo")];
    let written = client.write_vectored(&slices).await.unwrap();
    client.flush().await.unwrap();
    let mut read = vec![0; written];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(read, b"hello"[..written]);

    // One half closed, the other still speaks.
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");
}

#[tokio::test]
async fn no_common_alpn_is_no_reason_to_refuse() {
    let (client, server) = secured(&["h2"], &["istio"]).await;
    assert_eq!((client.alpn(), server.alpn()), (None, None));
    let (client, _) = secured(&[], &["h2"]).await;
    assert_eq!(client.alpn(), None);
    let (client, _) = secured(&["http/1.1", "h2"], &["h2", "http/1.1"]).await;
    assert_eq!(client.alpn(), Some(&b"http/1.1"[..]), "the server's order counts");
}

#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_is_an_error() {
    let (client, server) = plain().await;
    drop(client);
    let (serving, _) = configs(&[], &[]);
    let error = server.accept_tls(serving).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
