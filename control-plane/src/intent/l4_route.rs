//! `TLSRoute` and `TCPRoute` (Gateway API): connections that gateways pass on.

use super::attach::Claim;
use super::backend::{Backend, backend};
use super::decode::{At, Context, Object, dns_name};
use super::gateway::GatewayRef;
use super::http_route::{Parents, parents};
use super::meta::{Kind, Meta, Name};

/// A route of connections.
#[derive(Debug, Clone, PartialEq)]
pub struct L4Route {
    /// Which of the two it was written as.
    pub kind: L4Kind,
    /// Namespace and name.
    pub name: Name,
    /// `creationTimestamp`: of two routes for the same the older one wins.
    pub created: Option<String>,
    /// The gateways that it is attached to.
    pub gateways: Vec<GatewayRef>,
    /// Server names; empty is every one of the listener. A `TCPRoute` has none.
    pub hostnames: Vec<String>,
    /// Where connections go.
    pub backends: Vec<Backend>,
}

/// Which kind a route of connections was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum L4Kind {
    /// `TLSRoute`
    Tls,
    /// `TCPRoute`
    Tcp,
}

impl L4Kind {
    /// The kind that it was written as.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Tls => Kind::TlsRoute,
            Self::Tcp => Kind::TcpRoute,
        }
    }
}

impl L4Route {
    pub(crate) fn decode(
        cx: &mut Context,
        meta: &Meta,
        spec: &At<'_>,
        kind: L4Kind,
    ) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let Parents { services, gateways, hostnames } = parents(cx, &mut object);
        let rules = object.required(cx, "rules", |cx, at| {
            let rules: Vec<Vec<Backend>> =
                at.items(cx)?.iter().filter_map(|at| rule(cx, at)).collect();
            match rules.len() {
                1 => Some(rules),
                _ => cx.expected(at, "one rule"),
            }
        });
        object.finish(cx);
        if !services.is_empty() {
            cx.warn(spec, "such a route has an effect at gateways only, not for Services");
        }
        if kind == L4Kind::Tcp && !hostnames.is_empty() {
            return cx.error(spec, "a TCPRoute has no `hostnames`: nothing in TCP says one");
        }
        let backends = rules?.into_iter().flatten().collect();
        let (name, created) = (meta.name.clone(), meta.created.clone());
        Some(Self { kind, name, created, gateways, hostnames, backends })
    }

    /// What decides to which listeners it is attached.
    pub(crate) fn claim(&self) -> Claim<'_> {
        Claim {
            kind: self.kind.kind().as_str(),
            name: &self.name,
            hostnames: &self.hostnames,
            gateways: &self.gateways,
        }
    }
}

fn rule(cx: &mut Context, at: &At<'_>) -> Option<Vec<Backend>> {
    let mut object = Object::open(cx, at)?;
    object.optional(cx, "name", dns_name);
    let backends = object.list(cx, "backendRefs", backend);
    object.finish(cx);
    if backends.iter().all(|backend| backend.weight == 0) {
        cx.warn(at, "it leads nowhere: its connections are closed");
    }
    Some(backends)
}
