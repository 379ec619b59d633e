//! `backendRefs` of routes.

use super::decode::{At, Context, Object, any_text, dns_label, dns_name, port, whole};
use super::document::Referent;
use super::filter::{Filter, backend_filter};
use super::meta::Name;
use super::problem::Cause;

/// One of the places a rule sends requests to.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Who.
    pub target: BackendTarget,
    /// Share of the requests, relative to the sum over the rule. Default 1.
    pub weight: u32,
    /// Header changes for this share only.
    pub filters: Vec<Filter>,
}

/// Who a backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendTarget {
    /// A service; without a port its only one, or 80.
    Service {
        /// Which.
        service: Name,
        /// Its port.
        port: Option<u16>,
    },
    /// A host outside; without a port its only one.
    External {
        /// Which.
        service: Name,
        /// Its port.
        port: Option<u16>,
    },
    /// A kind that cannot be a backend here; its share gets a 500.
    Unsupported(String),
    /// One of another namespace that no `ReferenceGrant` opens to the route; its share gets a 500. Its kind and name.
    NotPermitted(String),
}

/// An element of `backendRefs`.
pub(crate) fn backend(cx: &mut Context, at: &At<'_>) -> Option<Backend> {
    let mut object = Object::open(cx, at)?;
    let target = backend_target(cx, at, &mut object);
    let weight = object.optional(cx, "weight", whole(0..=1_000_000)).unwrap_or(1);
    let filters = object.list(cx, "filters", backend_filter);
    object.finish(cx);
    Some(Backend { target: target?, weight, filters })
}

/// The reference itself: `group`, `kind`, `name`, `namespace`, `port`.
pub(crate) fn backend_target<'n>(
    cx: &mut Context,
    at: &At<'n>,
    object: &mut Object<'n>,
) -> Option<BackendTarget> {
    let group = object.optional(cx, "group", any_text).unwrap_or_default();
    let kind = object.optional(cx, "kind", any_text).unwrap_or_else(|| "Service".to_owned());
    let name_at = object.field("name");
    let name = object.required(cx, "name", dns_name)?;
    let namespace =
        object.optional(cx, "namespace", dns_label).unwrap_or_else(|| cx.namespace.clone());
    let port = object.optional(cx, "port", port);
    if (group.as_str(), kind.as_str()) == ("pillion.io", "ExternalService") {
        let service = Name::new(namespace, name);
        if let Some(at) = name_at {
            cx.refer(&at, Referent::External { service: service.clone(), port });
        }
        return Some(BackendTarget::External { service, port });
    }
    let is_service = matches!((group.as_str(), kind.as_str()), ("" | "core", "Service"));
    if !is_service {
        let written = if group.is_empty() { kind } else { format!("{group}/{kind}") };
        cx.warn(
            at,
            format!("a {written} cannot be a backend here: its share of the requests gets a 500"),
        );
        if let Some(last) = cx.problems.last_mut() {
            last.cause = Cause::InvalidKind;
        }
        return Some(BackendTarget::Unsupported(written));
    }
    let service = Name::new(namespace, name);
    if let Some(at) = name_at {
        cx.refer(&at, Referent::Backend { service: service.clone(), port });
    }
    Some(BackendTarget::Service { service, port })
}
