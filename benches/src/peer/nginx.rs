//! nginx: one worker, kept connections to the upstream, mTLS where it is asked for.

use std::net::SocketAddr;
use std::path::Path;

use super::{End, Http, Side, Workshop};

pub(super) fn config(workshop: &Workshop, address: SocketAddr, side: &Side, dir: &Path) -> String {
    let mut listen = address.to_string();
    if side.tls == Some(End::In) {
        listen.push_str(" ssl");
    }
    if side.down == Http::Two {
        listen.push_str(" http2");
    }
    let down = match side.tls {
        Some(End::In) => format!(
            "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on; \
             ssl_protocols TLSv1.3; ssl_session_tickets off;",
            workshop.server.chain.display(),
            workshop.server.key.display(),
            workshop.server.roots.display(),
        ),
        _ => String::new(),
    };
    let (scheme, up) = upstream(workshop, side);
    let (temp, to) = (dir.display(), side.to);
    // A sleeping master would never answer callgrind.
    let master = if workshop.callgrind { "master_process off;" } else { "" };
    format!(
        "daemon off;
{master}
worker_processes 1;
pid {temp}/nginx-{port}.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {temp}/body;
  proxy_temp_path {temp}/proxy;
  fastcgi_temp_path {temp}/fastcgi;
  uwsgi_temp_path {temp}/uwsgi;
  scgi_temp_path {temp}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  upstream app {{ server {to}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {listen} backlog=4096;
    {down}
    location / {{
      proxy_pass {scheme}://app;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      {up}
    }}
  }}
}}
",
        port = address.port(),
    )
}

/// The scheme towards the upstream, and what goes with it.
fn upstream(workshop: &Workshop, side: &Side) -> (&'static str, String) {
    if side.tls != Some(End::Out) {
        return ("http", String::new());
    }
    let settings = format!(
        "proxy_ssl_certificate {}; proxy_ssl_certificate_key {}; proxy_ssl_trusted_certificate {}; \
         proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_protocols TLSv1.3;",
        workshop.client.chain.display(),
        workshop.client.key.display(),
        workshop.client.roots.display(),
    );
    ("https", settings)
}
