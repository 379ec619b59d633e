//! Who asks: `envoy.config.core.v3.Node` to a typed [`Node`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pillion_xds::envoy::config::core::v3 as core;
use prost_types::{Struct, Value, value::Kind};

use crate::intent::{self, Tracing};

/// A client of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `node.id`
    pub id: String,
    /// Namespace, which decides what a short host name means. `default` if it says none.
    pub namespace: String,
    /// The service that it belongs to; a gateway or a client may belong to none.
    pub service: Option<String>,
    /// Service account that it claims; whoever accepts its stream has checked it.
    pub service_account: Option<String>,
    /// Name of the workload: that of its pod, or the one that it registers by.
    pub instance: Option<String>,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// What kind of client it is.
    pub kind: NodeKind,
}

/// Kinds of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A proxy beside a workload.
    Sidecar(Box<Sidecar>),
    /// A proxy that brings traffic in, or takes it out.
    Gateway(Box<GatewayProxy>),
    /// A gRPC library that speaks xDS itself.
    Grpc {
        /// Name of the certificate provider in its bootstrap; without one it speaks plain text.
        certificate_provider: Option<String>,
    },
}

/// A proxy beside a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Address and port at which peers reach it, if it has an inbound side.
    pub inbound: Option<(IpAddr, u16)>,
    /// Port of the workload, if it has an inbound side.
    pub app_port: Option<u16>,
    /// Further ports of the workload, by name. Only a captured workload can be reached at them.
    pub app_ports: BTreeMap<String, u16>,
    /// How connections come to it.
    pub interception: Interception,
    /// Loopback port at which the workload reaches the mesh.
    pub outbound_port: Option<u16>,
    /// Places on its machine that stand for one service each, by `service.namespace:port`.
    pub upstream_ports: BTreeMap<String, Place>,
    /// Unix socket at which the workload listens, in place of its port.
    pub app_socket: Option<String>,
    /// Where its certificates are.
    pub certificates: Certificates,
    /// OTLP receiver of its own, in place of the mesh's.
    pub otlp: Option<(String, u16)>,
}

/// A proxy that runs a `Gateway`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayProxy {
    /// Which one. `None`: all that there are.
    pub gateway: Option<intent::Name>,
    /// Its own side of the mesh.
    pub proxy: Sidecar,
    /// Folder on its machine with `<namespace>/<name>/tls.crt` and `tls.key` for each Secret that says
    /// nothing else.
    pub certificate_dir: Option<String>,
    /// It runs in this very process, so that it may have the keys that Secrets hold.
    pub is_here: bool,
    /// Address and port at which workloads of the mesh reach it, for what leaves the mesh through it.
    pub inbound: Option<(IpAddr, u16)>,
}

/// A place on a sidecar's machine where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A TCP socket on loopback.
    Socket(SocketAddr),
    /// A Unix socket.
    Pipe(String),
}

/// How connections of the workload come to its sidecar (node metadata `INTERCEPTION`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Interception {
    /// They name the sidecar (`NONE`).
    #[default]
    None,
    /// nftables redirects them (`REDIRECT`).
    Redirect,
    /// nftables redirects outgoing ones, and hands incoming ones over as they are (`TPROXY`).
    Tproxy,
}

/// Where a sidecar's certificates are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certificates {
    /// It answers the secret names `default` and `ROOTCA` itself (our proxy).
    Own,
    /// In files on its machine (an Envoy).
    Files {
        /// Certificate chain, PEM.
        chain: String,
        /// Private key, PEM.
        key: String,
        /// Trusted roots, PEM.
        bundle: String,
    },
    /// Nowhere: it speaks plain text.
    None,
}

/// A node that cannot be served, with the field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct NodeError {
    /// Path of the field, such as `node.metadata.INBOUND_PORT`.
    pub field: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl Node {
    /// Reads a node as it stands in a discovery request.
    ///
    /// # Errors
    /// The id is missing, or a metadata field has a value that cannot be understood.
    pub fn parse(node: &core::Node) -> Result<Self, NodeError> {
        if node.id.is_empty() {
            return Err(error("id", "it is empty; every client must name itself"));
        }
        let metadata = Metadata { fields: node.metadata.as_ref() };
        let namespace = metadata.text("NAMESPACE")?.unwrap_or_else(|| "default".to_owned());
        // gRPC libraries call themselves `gRPC C-core`, `gRPC Go`, `gRPC Java`, `grpc-node-js`.
        let is_grpc = node.user_agent_name.to_ascii_lowercase().starts_with("grpc")
            || metadata.text("GENERATOR")?.as_deref() == Some("grpc");
        let kind = if is_grpc {
            NodeKind::Grpc { certificate_provider: metadata.text("CERT_PROVIDER")? }
        } else if let Some(gateway) = metadata.text("GATEWAY")? {
            NodeKind::Gateway(Box::new(GatewayProxy {
                gateway: Some(intent::Name::new(namespace.clone(), gateway)),
                proxy: Sidecar::parse(&metadata)?,
                certificate_dir: metadata.text("CERTIFICATE_DIR")?,
                is_here: false,
                inbound: match metadata.port("INBOUND_PORT")? {
                    Some(port) => Some((metadata.address("ADDRESS")?, port)),
                    None => None,
                },
            }))
        } else {
            NodeKind::Sidecar(Box::new(Sidecar::parse(&metadata)?))
        };
        Ok(Self {
            id: node.id.clone(),
            namespace,
            service: metadata.text("SERVICE")?,
            service_account: metadata.text("SERVICE_ACCOUNT")?,
            instance: metadata.text("INSTANCE")?,
            labels: metadata.struct_of("LABELS", "text", |text| Some(text.to_owned()))?,
            kind,
        })
    }

    /// A proxy that runs gateways without asking anybody.
    #[must_use]
    pub fn of_gateway(proxy: GatewayProxy) -> Self {
        let name = proxy.gateway.as_ref().map_or("gateway", |name| &name.name).to_owned();
        let namespace = proxy.gateway.as_ref().map_or("default", |name| &name.namespace).to_owned();
        Self {
            id: format!("gateway~{name}.{namespace}"),
            namespace,
            service: Some(name),
            service_account: None,
            instance: None,
            labels: BTreeMap::new(),
            kind: NodeKind::Gateway(Box::new(proxy)),
        }
    }

    /// `service.namespace`, for traces.
    pub(crate) fn service_name(&self) -> String {
        match &self.service {
            Some(service) => format!("{service}.{}", self.namespace),
            None => format!("unknown.{}", self.namespace),
        }
    }
}

impl Interception {
    /// Whether connections come to the sidecar that name somebody else.
    pub(crate) fn captures(self) -> bool {
        self != Self::None
    }
}

impl Sidecar {
    /// Whether it is a proxy of this project (node metadata `PROXY=pillion`), which knows more than Envoy does.
    pub(crate) fn is_ours(&self) -> bool {
        self.certificates == Certificates::Own
    }

    /// Every port of the workload, its main one first.
    pub(crate) fn all_app_ports(&self) -> Vec<u16> {
        let mut all: Vec<u16> = self.app_port.into_iter().collect();
        for port in self.app_ports.values() {
            if !all.contains(port) {
                all.push(*port);
            }
        }
        all
    }

    /// A proxy that nobody reaches, with these certificates.
    #[must_use]
    pub fn alone(certificates: Certificates) -> Self {
        Self {
            inbound: None,
            app_port: None,
            app_ports: BTreeMap::new(),
            interception: Interception::None,
            outbound_port: None,
            upstream_ports: BTreeMap::new(),
            app_socket: None,
            certificates,
            otlp: None,
        }
    }

    fn parse(metadata: &Metadata<'_>) -> Result<Self, NodeError> {
        let inbound_port = metadata.port("INBOUND_PORT")?;
        let app_port = metadata.port("APP_PORT")?;
        let inbound = match (inbound_port, app_port) {
            (Some(port), Some(_)) => Some((metadata.address("ADDRESS")?, port)),
            (None, Some(_)) => {
                let message = "it is missing, and APP_PORT says that there is a workload to reach";
                return Err(error("metadata.INBOUND_PORT", message));
            }
            (_, None) => None,
        };
        Ok(Self {
            inbound,
            app_port,
            app_ports: metadata.ports("APP_PORTS")?,
            interception: metadata.interception("INTERCEPTION")?,
            outbound_port: metadata.port("OUTBOUND_PORT")?,
            upstream_ports: metadata.places("UPSTREAM_PORTS")?,
            app_socket: metadata.text("APP_SOCKET")?,
            certificates: metadata.certificates()?,
            otlp: metadata.otlp("OTLP_ENDPOINT")?,
        })
    }
}

struct Metadata<'a> {
    fields: Option<&'a Struct>,
}

impl Metadata<'_> {
    fn kind(&self, key: &str) -> Option<&Kind> {
        self.fields?.fields.get(key)?.kind.as_ref()
    }

    /// A text that is not empty; numbers are taken as they are written.
    fn text(&self, key: &str) -> Result<Option<String>, NodeError> {
        match self.kind(key) {
            None | Some(Kind::NullValue(_)) => Ok(None),
            Some(Kind::StringValue(text)) if text.is_empty() => Ok(None),
            Some(Kind::StringValue(text)) => Ok(Some(text.clone())),
            Some(Kind::NumberValue(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(error(&format!("metadata.{key}"), "expected a string")),
        }
    }

    fn port(&self, key: &str) -> Result<Option<u16>, NodeError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        parse_port(&text).map(Some).ok_or_else(|| port_error(&format!("metadata.{key}"), &text))
    }

    fn ports(&self, key: &str) -> Result<BTreeMap<String, u16>, NodeError> {
        self.struct_of(key, "port number from 1 to 65535", parse_port)
    }

    fn places(&self, key: &str) -> Result<BTreeMap<String, Place>, NodeError> {
        self.struct_of(key, "port number from 1 to 65535, IP:PORT on loopback or unix:PATH", place)
    }

    /// A struct of texts or numbers, each read by `read`.
    fn struct_of<T>(
        &self,
        key: &str,
        expected: &str,
        read: fn(&str) -> Option<T>,
    ) -> Result<BTreeMap<String, T>, NodeError> {
        let fields = match self.kind(key) {
            None | Some(Kind::NullValue(_)) => return Ok(BTreeMap::new()),
            Some(Kind::StructValue(fields)) => &fields.fields,
            Some(_) => {
                return Err(error(
                    &format!("metadata.{key}"),
                    "expected a struct of names to ports",
                ));
            }
        };
        let entry = |(name, value): (&String, &Value)| {
            let text = match &value.kind {
                Some(Kind::StringValue(text)) => text.clone(),
                Some(Kind::NumberValue(number)) => number.to_string(),
                _ => String::new(),
            };
            let found = read(&text).ok_or_else(|| {
                let field = format!("metadata.{key}.{name}");
                error(&field, &format!("expected a {expected}, found {text:?}"))
            })?;
            Ok((name.clone(), found))
        };
        fields.iter().map(entry).collect()
    }

    fn interception(&self, key: &str) -> Result<Interception, NodeError> {
        match self.text(key)?.as_deref() {
            None | Some("NONE") => Ok(Interception::None),
            Some("REDIRECT") => Ok(Interception::Redirect),
            Some("TPROXY") => Ok(Interception::Tproxy),
            Some(other) => Err(error(
                &format!("metadata.{key}"),
                &format!("expected NONE, REDIRECT or TPROXY, found {other:?}"),
            )),
        }
    }

    fn address(&self, key: &str) -> Result<IpAddr, NodeError> {
        let field = format!("metadata.{key}");
        let text = self.text(key)?.ok_or_else(|| {
            error(&field, "it is missing; expected the IP address at which peers reach the sidecar")
        })?;
        text.parse().map_err(|_| error(&field, &format!("expected an IP address, found {text:?}")))
    }

    fn certificates(&self) -> Result<Certificates, NodeError> {
        if self.text("PROXY")?.as_deref() == Some("pillion") {
            return Ok(Certificates::Own);
        }
        let chain = self.text("TLS_CERTIFICATE_CHAIN")?;
        let key = self.text("TLS_PRIVATE_KEY")?;
        let bundle = self.text("TLS_TRUST_BUNDLE")?;
        match (chain, key, bundle) {
            (Some(chain), Some(key), Some(bundle)) => {
                Ok(Certificates::Files { chain, key, bundle })
            }
            (None, None, None) => Ok(Certificates::None),
            _ => Err(error(
                "metadata",
                "TLS_CERTIFICATE_CHAIN, TLS_PRIVATE_KEY and TLS_TRUST_BUNDLE go together: all or none",
            )),
        }
    }

    fn otlp(&self, key: &str) -> Result<Option<(String, u16)>, NodeError> {
        let Some(url) = self.text(key)? else { return Ok(None) };
        let message = || format!("expected a URL such as `http://127.0.0.1:4317`, found {url:?}");
        Tracing::endpoint(&url)
            .map(Some)
            .ok_or_else(|| error(&format!("metadata.{key}"), &message()))
    }
}

fn place(text: &str) -> Option<Place> {
    if let Some(path) = text.strip_prefix("unix:") {
        return path.starts_with(['/', '@']).then(|| Place::Pipe(path.to_owned()));
    }
    let port = parse_port(text).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let address = port.or_else(|| text.parse().ok())?;
    (address.ip().is_loopback() && address.port() > 0).then_some(Place::Socket(address))
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

fn port_error(field: &str, text: &str) -> NodeError {
    error(field, &format!("expected a port number from 1 to 65535, found {text:?}"))
}

fn error(field: &str, message: &str) -> NodeError {
    NodeError { field: format!("node.{field}"), message: message.to_owned() }
}
