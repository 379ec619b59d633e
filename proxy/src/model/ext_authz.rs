//! External authorization (`ext_authz.v3`): a service is asked whether a request may pass.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::Name;
use super::headers::HeaderAppend;
use super::listener::Address;
use super::matcher::StringMatcher;
use super::metadata::Fields;
use super::service::{GrpcService, HttpService};

/// `ExtAuthz`
#[derive(Debug)]
pub struct ExtAuthz {
    /// Namespaces of dynamic metadata that the service is told.
    pub namespaces: Vec<String>,
    /// Metadata that the service answers is noted.
    pub notes: bool,
    /// Who is asked.
    pub service: Service,
    /// Requests pass while nobody answers.
    pub failure_mode_allow: bool,
    /// They are marked then, by `x-envoy-auth-failure-mode-allowed`.
    pub failure_mode_header: bool,
    /// What a request is answered with where nobody answers. Default 403.
    pub status_on_error: StatusCode,
    /// How much of the body is sent along.
    pub body: Option<BodySettings>,
    /// The route is chosen again where the service changed the request.
    pub clear_route: bool,
    /// Share of requests that are asked about, out of a million.
    pub enabled: u32,
    /// The others are refused.
    pub deny_at_disable: bool,
    /// Send the client's certificate along.
    pub include_peer_certificate: bool,
    /// Send the name of its TLS hello along.
    pub include_tls_session: bool,
    /// Headers that are told. None: all by gRPC, the usual ones by HTTP.
    pub allowed_headers: Option<Vec<StringMatcher>>,
    /// Headers that are not.
    pub disallowed_headers: Vec<StringMatcher>,
    /// Headers one by one, as bytes, rather than joined by name.
    pub raw_headers: bool,
    /// An answer with a header that cannot be is an error.
    pub validate: bool,
    /// Put before the names of the counters.
    pub stat_prefix: Name,
}

/// Who is asked.
#[derive(Debug)]
pub enum Service {
    /// `grpc_service`; with the time that an answer may take, and the translation of messages.
    Grpc(GrpcService, Duration, Wire),
    /// `http_service`
    Http(HttpAuthz),
}

/// Messages of `envoy.service.auth.v3` as bytes: where they are known is not where they are sent.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    /// A `CheckRequest`
    pub encode: fn(&Question<'_>) -> Bytes,
    /// A `CheckResponse`
    ///
    /// # Errors
    /// They are no such message.
    pub decode: fn(&[u8]) -> Result<Decision, String>,
}

/// `HttpService`
#[derive(Debug)]
pub struct HttpAuthz {
    /// Who.
    pub service: HttpService,
    /// Put before the path.
    pub path_prefix: String,
    /// Added to the question.
    pub headers_to_add: Vec<(HeaderName, HeaderValue)>,
    /// Headers of a yes that replace those of the request.
    pub to_upstream: Vec<StringMatcher>,
    /// Headers of a yes that come beside those of the request.
    pub to_upstream_append: Vec<StringMatcher>,
    /// Headers of a no that the client gets. None: all.
    pub to_client: Option<Vec<StringMatcher>>,
    /// Headers of a yes that the client gets.
    pub to_client_on_success: Vec<StringMatcher>,
}

/// `BufferSettings`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodySettings {
    /// Bytes at most.
    pub most: usize,
    /// A longer body is cut rather than refused.
    pub partial: bool,
    /// As bytes rather than as text.
    pub bytes: bool,
}

/// `ExtAuthzPerRoute`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtAuthzRoute {
    /// Nobody is asked here.
    Disabled,
    /// What is changed here.
    Check {
        /// Told to the service; those of more specific places win.
        extensions: BTreeMap<String, String>,
        /// No body is sent along.
        no_body: bool,
        /// How much of it, if it is said here.
        body: Option<BodySettings>,
    },
}

/// What a service is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// The client's end.
    pub source: Peer<'a>,
    /// Ours.
    pub destination: Peer<'a>,
    /// When the request came.
    pub time: SystemTime,
    /// Unique for the request.
    pub id: String,
    /// `:method`
    pub method: &'a str,
    /// `:path`
    pub path: &'a str,
    /// `:authority`
    pub host: &'a str,
    /// `:scheme`
    pub scheme: &'a str,
    /// `HTTP/1.1`
    pub protocol: &'static str,
    /// Those that may be told, pseudo-headers among them.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// Headers one by one.
    pub raw_headers: bool,
    /// As much of the body as is told. None: it is not.
    pub body: Option<&'a [u8]>,
    /// Bytes of the body that have come.
    pub size: usize,
    /// The body as bytes.
    pub raw_body: bool,
    /// Of the route.
    pub extensions: BTreeMap<&'a str, &'a str>,
    /// Name of the TLS hello, if it is told.
    pub server_name: Option<&'a str>,
    /// What filters noted, as far as it is told.
    pub metadata: Vec<(&'a str, &'a Fields)>,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Peer<'a> {
    /// Its address.
    pub address: &'a Address,
    /// Who it is, by its certificate. Empty: not known.
    pub principal: &'a str,
    /// What it calls itself. Empty: not known.
    pub service: &'a str,
    /// Its certificate, PEM, percent-encoded. Empty: not told.
    pub certificate: &'a str,
}

/// What a service answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The request may pass, changed so.
    Allowed(Box<Allowed>),
    /// It may not.
    Denied(Said),
    /// The service itself says that it failed; status 0 stands for the one that is configured.
    Failed(Said),
}

/// How a request that may pass is changed, and its answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allowed {
    /// Of the request.
    pub request: Vec<Change>,
    /// Headers that are taken out of the request.
    pub remove: Vec<String>,
    /// Of the answer.
    pub response: Vec<Change>,
    /// Query parameters.
    pub set_query: Vec<(String, String)>,
    /// Query parameters that are taken out.
    pub remove_query: Vec<String>,
    /// Noted for those who come after.
    pub metadata: Fields,
}

/// A header, as the service has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
    /// What becomes of one that is there.
    pub action: HeaderAppend,
    /// By the older field: what is appended joins the line that is there; where none is, it is not
    /// added.
    pub only_beside: bool,
}

/// A refusal in the service's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// None: the usual one.
    pub status: Option<StatusCode>,
    /// Its headers.
    pub headers: Vec<Change>,
    /// Its text.
    pub body: Bytes,
    /// Noted for the access log.
    pub metadata: Fields,
}

impl Change {
    /// The header, if there can be such a one.
    pub fn parts(&self) -> Option<(HeaderName, HeaderValue)> {
        let name = HeaderName::from_bytes(self.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(&self.value).ok()?))
    }

    /// Make it.
    pub fn apply(&self, to: &mut HeaderMap) {
        let Some((name, value)) = self.parts() else { return };
        let there = to.contains_key(&name);
        match self.action {
            HeaderAppend::AppendIfExistsOrAdd if self.only_beside => join(to, &name, &value),
            HeaderAppend::AppendIfExistsOrAdd => {
                to.append(name, value);
            }
            HeaderAppend::AddIfAbsent if !there => {
                to.insert(name, value);
            }
            HeaderAppend::OverwriteIfExists if there => {
                to.insert(name, value);
            }
            HeaderAppend::OverwriteIfExistsOrAdd => {
                to.insert(name, value);
            }
            _ => {}
        }
    }
}

fn join(to: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    let Some(there) = to.get(name) else { return };
    let joined = [there.as_bytes(), value.as_bytes()].join(&b","[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        to.insert(name, joined);
    }
}
