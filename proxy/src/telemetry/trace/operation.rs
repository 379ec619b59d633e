//! What a span is called, by this proxy's route or by the one on the other side.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Span;
use crate::model::route::Decorator;
use crate::telemetry::format::Record;

/// Carries the name between a client's proxy and a server's.
const OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// The name of one span.
#[derive(Debug, Default)]
pub(super) struct Operation {
    /// As the route has it.
    of_route: Option<Arc<Decorator>>,
    /// As the other side says it; wins.
    told: Option<HeaderValue>,
}

impl Span {
    /// Take the name that the route has for it. A client's proxy passes it on with the request; a server's takes
    /// what it is told so (`told`: it may be), and passes nothing on to the service.
    pub fn decorate(
        &mut self,
        decorator: Option<Arc<Decorator>>,
        headers: &mut HeaderMap,
        told: bool,
    ) {
        self.operation.of_route = decorator;
        if self.inbound && told {
            self.hear(headers);
        } else if !self.inbound {
            self.tell(headers);
        }
    }

    /// The same with the answer, the other way round.
    pub fn answered(&mut self, headers: &mut HeaderMap, told: bool) {
        if !self.inbound {
            if told {
                self.hear(headers);
            }
        } else if self.operation.told.is_none() {
            self.tell(headers);
        }
    }

    /// Envoy's names: what comes in is just that, what goes out says where to.
    pub(super) fn name(&self, record: &Record<'_>) -> String {
        let told = self.operation.told.as_ref().and_then(|told| told.to_str().ok());
        let of_route = || self.operation.of_route.as_ref().map(|route| &*route.operation);
        match (told.or_else(of_route), record.authority) {
            (Some(operation), _) => operation.to_owned(),
            (_, Some(authority)) if !self.inbound => format!("egress {authority}"),
            _ if !self.inbound => "egress".to_owned(),
            _ => "ingress".to_owned(),
        }
    }

    fn hear(&mut self, headers: &mut HeaderMap) {
        if let Some(told) = headers.remove(OPERATION).filter(|told| !told.is_empty()) {
            self.operation.told = Some(told);
        }
    }

    fn tell(&self, headers: &mut HeaderMap) {
        let route = self.operation.of_route.as_ref();
        let named = route.filter(|route| route.propagate);
        if let Some(Ok(value)) = named.map(|route| HeaderValue::from_str(&route.operation)) {
            headers.insert(OPERATION, value);
        }
    }
}
