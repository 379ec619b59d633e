//! haproxy: one thread, connections to the upstream shared by all, mTLS where it is asked for.

use std::net::SocketAddr;

use super::{End, Http, Side, Workshop};

pub(super) fn config(workshop: &Workshop, address: SocketAddr, side: &Side) -> String {
    let mut bind = address.to_string();
    let mut server = side.to.to_string();
    let alpn = |http| if http == Http::Two { "h2" } else { "http/1.1" };
    match side.tls {
        Some(End::In) => bind.push_str(&format!(
            " ssl crt {} ca-file {} verify required ssl-min-ver TLSv1.3 no-tls-tickets alpn {}",
            workshop.server_both.display(),
            workshop.server.roots.display(),
            alpn(side.down),
        )),
        _ if side.down == Http::Two => bind.push_str(" proto h2"),
        _ => {}
    }
    match side.tls {
        Some(End::Out) => server.push_str(&format!(
            " ssl crt {} ca-file {} verify required verifyhost localhost ssl-min-ver TLSv1.3 alpn {}",
            workshop.client_both.display(),
            workshop.client.roots.display(),
            alpn(side.up),
        )),
        _ if side.up == Http::Two => server.push_str(" proto h2"),
        _ => {}
    }
    format!(
        "global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  http-reuse always
frontend front
  bind {bind}
  default_backend app
backend app
  server app {server} pool-max-conn 256
"
    )
}
