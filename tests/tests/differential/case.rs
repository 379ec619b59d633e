//! One row of the table: a piece of configuration, and what is asked of it.

use http::Method;
use pillion_tests::client::Ask;

/// A piece of configuration with its requests.
#[derive(Debug)]
pub(crate) struct Case {
    /// In messages; also the host `<name, with dashes>.test`, unless the piece says `domains`.
    pub(crate) name: &'static str,
    /// Fields of an `envoy.config.route.v3.VirtualHost`, as YAML. None: the listener has its own.
    pub(crate) vhost: Option<&'static str>,
    /// What is asked.
    pub(crate) probes: Vec<Probe>,
}

/// A request, and what becomes of it.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) ask: Request,
    /// Status, response flags, route name and cluster, as the access log has it.
    pub(crate) expected: &'static str,
}

/// A request, and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Name of a listener of the world.
    pub(crate) listener: &'static str,
    pub(crate) ask: Ask,
    /// Sent instead of `ask`. `{case}` is replaced by the name of the case, `{host}` by its host.
    pub(crate) raw: Option<&'static str>,
    /// Of a talk in bytes: it reads until what came ends so, before it says that there is no more.
    pub(crate) until: Option<&'static str>,
    /// Of a talk in bytes: another connection is open meanwhile.
    pub(crate) beside: bool,
    /// The client's certificate and what it speaks in TLS; see [`super::world::Trust`].
    pub(crate) tls: Option<Client>,
}

/// A client of the listener with mTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// With the certificate that the listener wants.
    Right,
    /// With that of another account.
    OtherAccount,
    /// With one of another authority.
    OtherAuthority,
    /// With one that was good once.
    Expired,
    /// With one that was revoked.
    Revoked,
    /// Without.
    Nobody,
}

impl Case {
    pub(crate) fn new(name: &'static str, vhost: &'static str) -> Self {
        Self { name, vhost: Some(vhost), probes: Vec::new() }
    }

    /// For a listener that has its routes already.
    pub(crate) fn plain(name: &'static str) -> Self {
        Self { name, vhost: None, probes: Vec::new() }
    }

    /// Asks, and expects this in the access log.
    pub(crate) fn ask(mut self, ask: Request, expected: &'static str) -> Self {
        self.probes.push(Probe { ask, expected });
        let host = self.host();
        if let Some(probe) = self.probes.last_mut()
            && probe.ask.ask.host.is_empty()
        {
            probe.ask.ask.host = host;
        }
        self
    }

    pub(crate) fn slug(&self) -> String {
        let dash = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        self.name.chars().map(dash).collect()
    }

    pub(crate) fn host(&self) -> String {
        format!("{}.test", self.slug())
    }

    pub(crate) fn probe_name(&self, index: usize) -> String {
        format!("{}.{index}", self.slug())
    }
}

/// `GET`
pub(crate) fn get(path: &str) -> Request {
    request(Method::GET, path)
}

/// `POST` with content.
pub(crate) fn post(path: &str, body: &str) -> Request {
    let mut request = request(Method::POST, path);
    request.ask.body = body.as_bytes().to_vec();
    request
}

/// A call of `/test.Echo/Call`, with one message.
pub(crate) fn grpc(message: &str) -> Request {
    let mut body = vec![0, 0, 0, 0, u8::try_from(message.len()).expect("a short message")];
    body.extend_from_slice(message.as_bytes());
    let mut request = post("/test.Echo/Call", "").http2();
    request.ask.body = body;
    request.header("content-type", "application/grpc").header("te", "trailers")
}

pub(crate) fn request(method: Method, path: &str) -> Request {
    Request {
        listener: "http",
        ask: Ask::new(method, path),
        raw: None,
        until: None,
        beside: false,
        tls: None,
    }
}

/// A `GET` with headers that only those inside may send.
pub(crate) fn pretends(path: &str) -> Request {
    [
        "x-envoy-internal",
        "x-envoy-original-path",
        "x-envoy-original-host",
        "x-envoy-decorator-operation",
        "x-envoy-ip-tags",
        "x-envoy-downstream-service-cluster",
        "x-envoy-downstream-service-node",
        "x-envoy-upstream-alt-stat-name",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-external-address",
        "x-envoy-attempt-count",
    ]
    .into_iter()
    .fold(get(path), |request, name| request.header(name, "1"))
}

/// Exactly these bytes.
pub(crate) fn raw(text: &'static str) -> Request {
    Request { raw: Some(text), ..get("/") }
}

/// These bytes, to a listener whose name starts with `tcp`; reads until what came ends with `until` or the other side
/// closes, before it closes its own.
pub(crate) fn talk(text: &'static str, until: &'static str) -> Request {
    Request { until: Some(until), ..raw(text) }
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.ask.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.ask.host = host.to_owned();
        self
    }

    /// What the backend shall do: see `pillion_tests::script`.
    pub(crate) fn does(self, script: &str) -> Self {
        self.header("x-do", script)
    }

    pub(crate) fn http2(mut self) -> Self {
        self.ask.http2 = true;
        self
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.ask.chunked = true;
        self
    }

    pub(crate) fn trailer(mut self, name: &str, value: &str) -> Self {
        self.ask.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: Vec<u8>) -> Self {
        self.ask.body = body;
        self
    }

    /// While another connection to the same listener is open.
    pub(crate) fn beside(mut self) -> Self {
        self.beside = true;
        self
    }

    pub(crate) fn on(mut self, listener: &'static str) -> Self {
        self.listener = listener;
        self
    }

    /// Whom a client with TLS asks for.
    pub(crate) fn sni(mut self, name: &str) -> Self {
        self.ask.server_name = name.to_owned();
        self
    }

    pub(crate) fn by(mut self, client: Client) -> Self {
        self.tls = Some(client);
        self.on("mtls")
    }
}
