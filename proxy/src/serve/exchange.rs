//! One request, from its head to the last byte of its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::admit::{self, Plan};
use super::attempt;
use super::body::ReplyBody;
use super::connection::Connection;
use super::filter::{self, Notes, Passed, Routed};
use super::read;
use super::redirects::{self, Followed};
use super::reply::{self, Answer};
use super::route_stats::RequestStats;
use super::tunnel;
use super::upgrade::{self, Upgrade};
use crate::cluster::{Cluster, Endpoint, Live, SentOn};
use crate::http::body::{BoxBody, RequestBody};
use crate::http::guard::Verdict;
use crate::http::h2::Arriving;
use crate::http::meter::Meter;
use crate::http::presence::Presence;
use crate::http::{grpc, target};
use crate::model::dynamic::Dynamic;
use crate::model::names;
use crate::model::route::{Action, Route, RouteTable, VirtualCluster, VirtualHost};
use crate::policy::hash::NewCookie;
use crate::route::{Given, Match};
use crate::telemetry::reason::{Reason, Refusal};
use crate::telemetry::trace::{Span, Wants};

/// One request. What the access log and the metrics tell is gathered here, and told when the
/// exchange is dropped: after the last byte of the answer, or when the peer leaves.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The connection that it came on.
    pub(crate) connection: Arc<Connection>,
    /// The one snapshot that it is served by.
    pub(crate) live: Arc<Live>,
    /// When its head had arrived.
    pub(crate) started: Instant,
    /// The same by the wall clock, for logs and spans.
    pub(crate) wall: SystemTime,
    /// Its body; None: it has none.
    pub(crate) meter: Option<Meter>,
    /// What it asks to become.
    pub(crate) upgrade: Option<Upgrade>,
    /// What was found out on the way.
    pub(crate) facts: Facts,
    /// Headers that it came with.
    pub(super) present: Presence,
    /// It is HEAD: its answer has no content.
    pub(super) head_only: bool,
    /// The request is gRPC: refusals are gRPC too.
    pub(crate) grpc: bool,
    /// Its span, if it is traced.
    pub(crate) span: Option<Span>,
    /// The span of the try that is under way.
    pub(super) try_span: Option<Box<Span>>,
    /// Its head, kept only where a log, a span or a header of the answer will want it.
    pub(crate) head: Option<Box<Parts>>,
    /// The head has no more than a span will tell.
    pub(super) lean_head: bool,
    /// A header of the answer tells about it.
    told: bool,
    /// When it is written next while it is under way, if so.
    pub(super) periodic: Option<super::record::Periodic>,
    /// `x-request-id` of the answer, where the answer carries it.
    pub(crate) echo_request_id: Option<http::HeaderValue>,
    /// Its luck: decides shares of routes and weighted clusters, the same however often the route
    /// is chosen.
    pub(super) random: u64,
    /// From the start to the last byte of its answer, which is read when that is sent.
    pub(super) took: Option<Duration>,
    /// What filters remember of it. Mostly empty.
    pub(super) notes: Notes,
}

/// What a request's head is followed by.
pub(crate) enum Arrived {
    /// Nothing.
    Nothing,
    /// A body in HTTP/1.
    Http1(BoxBody),
    /// A body in HTTP/2.
    Http2(Arriving),
    /// The head itself may not pass: only this is known of it.
    Refused(Verdict),
}

/// What the access log tells about an exchange.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Status of the answer. None: there was none.
    pub(crate) status: Option<StatusCode>,
    /// The same of an answer of our own, while it is made.
    pub(crate) own_status: Option<StatusCode>,
    /// `%RESPONSE_FLAGS%`
    pub(crate) flags: Vec<&'static str>,
    /// `%RESPONSE_CODE_DETAILS%`
    pub(crate) details: Option<&'static str>,
    /// The same where it carries a name, such as that of a policy; wins.
    pub(crate) why: Option<String>,
    /// What failed towards the upstream, in words.
    pub(crate) failure: Option<String>,
    /// Tries.
    pub(crate) attempts: u32,
    /// The route.
    pub(crate) route: Option<Arc<Route>>,
    /// Its virtual host.
    pub(crate) host: Option<Arc<VirtualHost>>,
    /// The virtual cluster, where the virtual host has some.
    pub(crate) virtual_cluster: Option<Arc<VirtualCluster>>,
    /// The cluster.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// The endpoint that answered, or was tried last.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// The connection to it, kept only where a log wants it.
    pub(crate) sent_on: Option<SentOn>,
    /// It was a health check, and is answered here.
    pub(crate) health_check: bool,
    /// It has become a tunnel.
    pub(super) is_session: bool,
    /// It comes from inside (`x-envoy-internal`).
    pub(crate) internal: bool,
    /// Why the downstream connection was closed by us.
    pub(crate) termination: Option<&'static str>,
    /// Response headers, kept only where a log wants them.
    pub(crate) response: Option<Box<HeaderMap>>,
    /// Response trailers, kept only where a log wants them.
    pub(crate) trailers: Option<Box<HeaderMap>>,
    /// From the start to the upstream's response headers.
    pub(crate) response_after: Option<Duration>,
    /// From the start to the first byte sent upstream.
    pub(crate) sent_after: Option<Duration>,
    /// From the start to the last byte of the upstream's response.
    pub(crate) response_end: Option<Duration>,
    /// From the start to the response headers towards the client.
    pub(crate) reply_after: Option<Duration>,
    /// Bytes of the answer's body.
    pub(crate) bytes_sent: u64,
    /// Client address as far as it can be trusted.
    pub(crate) client: Option<std::net::IpAddr>,
    /// What filters noted for those who come after them. None: nothing.
    pub(crate) dynamic: Option<Box<Dynamic>>,
    /// Cookies for the client to come back with.
    pub(crate) cookies: Vec<NewCookie>,
}

impl Facts {
    /// For a filter that notes something.
    pub(super) fn dynamic_mut(&mut self) -> &mut Dynamic {
        self.dynamic.get_or_insert_default()
    }
}

/// Where a request got to.
enum Pass {
    Answer(Answer),
    /// An internal redirect: it is routed again.
    Elsewhere(Box<Request<RequestBody>>),
}

impl Exchange {
    /// Serve one request. Never fails: whatever goes wrong becomes an answer. In a box: a connection without a request does
    /// not carry the state of one, and whoever serves the connection hands it on by value.
    pub(crate) fn serve(
        connection: Arc<Connection>,
        request: Request<Arrived>,
    ) -> Pin<Box<impl Future<Output = Response<ReplyBody>> + use<>>> {
        let http2 = connection.is_http2();
        let mut exchange = Box::new(Self::begin(connection, &request));
        // read, at once: a request that a future is given is kept by it twice.
        let refused = match request.body() {
            Arrived::Refused(verdict) => Some(*verdict),
            _ => None,
        };
        let mut request = request.map(|body| exchange.take_body(body));
        let accepted = match refused {
            Some(verdict) => Err(read::refused(&verdict, &exchange.connection.http.stats)),
            None => read::accept(&mut exchange, &mut request),
        };
        // Made in its place: most of a future is room for what it will wait for, and would be copied there.
        let place = Box::new_uninit();
        Box::into_pin(Box::write(place, async move {
            let outcome = match accepted {
                Ok(None) => exchange.answer(&mut request).await,
                Ok(Some(answer)) => Ok(*answer),
                Err(refusal) => Err(refusal),
            };
            let ends = exchange.upgrade.is_some() && !http2;
            let connection = Arc::clone(&exchange.connection);
            let mut response = reply::send(exchange, outcome).await;
            if ends {
                upgrade::refused(&mut response);
            }
            connection.conclude(&mut response);
            response
        }))
    }

    /// Steps four to seven; the eighth, the reply, is made of what this returns.
    async fn answer(&mut self, request: &mut Request<RequestBody>) -> Result<Answer, Refusal> {
        let live = Arc::clone(&self.live);
        let connection = Arc::clone(&self.connection);
        let table = admit::route_table(&live, &connection.http.manager.routes);
        self.begin_trace(table.as_ref().ok().copied(), request);
        let table = table?;
        if !self.facts.internal {
            for name in &table.internal_only {
                request.headers_mut().remove(name);
            }
        }
        let mut followed = Followed::default();
        loop {
            match self.pass(table, request, &mut followed).await? {
                Pass::Answer(answer) => return Ok(answer),
                Pass::Elsewhere(next) => *request = *next,
            }
        }
    }

    /// A request by the route that it takes now: once, or again after an internal redirect.
    async fn pass(
        &mut self,
        table: &RouteTable,
        request: &mut Request<RequestBody>,
        followed: &mut Followed,
    ) -> Result<Pass, Refusal> {
        let connection = Arc::clone(&self.connection);
        // route
        let mut routed = self.choose(table, request);
        if let Some(answer) = self.refused_by(routed, request)? {
            return Ok(Pass::Answer(answer));
        }
        super::record::begin(self, routed);
        // filters
        let filters = &connection.http.filters;
        if !filters.is_empty() {
            match filter::run(self, filters, routed, request).await? {
                Passed::Answered(answer) => return Ok(Pass::Answer(answer)),
                Passed::On(chosen) => routed = chosen,
            }
        }
        let view = read::view(request);
        let matched =
            routed.matched.ok_or_else(|| self.no_route("no virtual host serves this authority"))?;
        self.facts.host = Some(Arc::clone(matched.host));
        let route =
            matched.route.ok_or_else(|| self.no_route("no route of the virtual host matches"))?;
        self.facts.route = Some(Arc::clone(route));
        let forward = match &route.action {
            Action::Forward(forward) => forward,
            Action::Redirect(redirect) => {
                return Ok(Pass::Answer(reply::redirect(redirect, route, &view)));
            }
            Action::Direct(direct) => return Ok(Pass::Answer(reply::direct(direct, &view))),
            Action::NonForwarding => return Err(self.no_route("the route does not forward")),
        };
        // admit
        let mut plan = Plan::new(self, routed, (matched.host, route), forward, &view)?;
        let kept = forward
            .internal_redirect
            .as_deref()
            .map(|policy| (policy, Box::new(redirects::keep(request, plan.buffer_limit()))));
        admit::prepare(self, &mut plan, request)?;
        if self.upgrade.is_some() {
            if forward.connect && request.method() == Method::CONNECT {
                let open = Box::pin(tunnel::open(self, plan, authority(request)));
                return open.await.map(Pass::Answer);
            }
            plan.timeouts = upgrade::unlimited(plan.timeouts);
        }
        // pick, forward
        let response = attempt::run(self, &mut plan, request).await?;
        if let Some((policy, kept)) = kept
            && let Some(next) =
                redirects::follow(self, (table, route), policy, (*kept, followed), &response)
        {
            self.facts.attempts = 0;
            self.facts.cluster = None;
            return Ok(Pass::Elsewhere(Box::new(next)));
        }
        // reply
        self.facts.status = Some(response.status());
        if self.upgrade.is_some() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let answered = Box::pin(upgrade::answered(self, plan, response));
            return answered.await.map(Pass::Answer);
        }
        Ok(Pass::Answer(reply::from_upstream(self, &mut plan, response).await))
    }

    /// What the route, or its virtual host, does not take: an upgrade, or plain text.
    fn refused_by(
        &mut self,
        routed: Routed<'_>,
        request: &Request<RequestBody>,
    ) -> Result<Option<Answer>, Refusal> {
        let Some(Match { host, route }) = routed.matched else { return Ok(None) };
        if let Some(route) = route {
            upgrade::admit(self, route)?;
        }
        let answer = admit::tls_required(&self.connection, host, request);
        if answer.is_some() {
            self.facts.host = Some(Arc::clone(host));
        }
        Ok(answer)
    }

    /// Begin the span, as the connection manager wants it, or the route.
    fn begin_trace(&mut self, table: Option<&RouteTable>, request: &mut Request<RequestBody>) {
        if self.connection.http.tracer.is_some() {
            let table = table.filter(|table| table.traces);
            let route = table.and_then(|table| {
                let routed = Routed::choose(table, &read::view(request), self.given());
                routed.matched?.route
            });
            let decorator = route.and_then(|route| route.decorator.clone());
            let tracing = route.and_then(|route| route.tracing.clone());
            super::record::start_span(self, (tracing, decorator), request);
        }
        if self.connection.http.manager.always_set_request_id_in_response {
            self.echo_request_id = request.headers().get(names::X_REQUEST_ID).cloned();
        }
        super::record::keep_head(self, request);
    }

    /// What routes look at beside the request itself.
    pub(super) fn given(&self) -> Given<'_> {
        let verified = self.connection.is_mutual_tls();
        Given {
            random: self.random,
            presented: verified,
            validated: verified,
            dynamic: self.facts.dynamic.as_deref(),
            source: self.connection.remote_ip(),
        }
    }

    /// Count in the metrics of the virtual cluster and of the route, if they have some.
    pub(super) fn count(&self, count: impl Fn(&RequestStats)) {
        let Some(host) = &self.facts.host else { return };
        let registry = &self.connection.http.context.registry;
        if let Some(cluster) = &self.facts.virtual_cluster {
            count(cluster.kept.get(|| RequestStats::of_cluster(registry, &host.name, cluster)));
        }
        if let Some(counted) = self.facts.route.as_ref().and_then(|r| r.counted.as_ref()) {
            count(counted.kept.get(|| RequestStats::of_route(registry, &host.name, counted)));
        }
    }

    /// The route that a request takes now.
    pub(super) fn choose<'t>(
        &mut self,
        table: &'t RouteTable,
        request: &Request<RequestBody>,
    ) -> Routed<'t> {
        let routed = Routed::choose(table, &read::view(request), self.given());
        self.keep_if_told(routed, request);
        routed
    }

    /// Keep what headers of the answer will tell about the request, if they do.
    fn keep_if_told(&mut self, routed: Routed<'_>, request: &Request<RequestBody>) {
        if routed.tells_request() {
            self.told = true;
            if self.head.is_none() || std::mem::take(&mut self.lean_head) {
                self.head = Some(Box::new(read::head_of(request)));
            }
        }
    }

    /// What the log tells where a filter answers: where the request would have gone.
    pub(super) fn note(&mut self, routed: Routed<'_>) {
        let Some(Match { host, route: Some(route) }) = routed.matched else { return };
        self.facts.host = Some(Arc::clone(host));
        self.facts.route = Some(Arc::clone(route));
        self.facts.cluster = routed.cluster().and_then(|name| self.live.cluster(name).cloned());
    }

    fn begin(connection: Arc<Connection>, request: &Request<Arrived>) -> Self {
        let stats = &connection.http.stats;
        stats.begin(request.version(), connection.is_mutual_tls());
        let present = Presence::of(request.headers());
        Self {
            live: connection.http.context.clusters.load(),
            started: Instant::now(),
            wall: SystemTime::now(),
            meter: None,
            upgrade: None,
            facts: Facts::default(),
            present,
            head_only: request.method() == Method::HEAD,
            grpc: present.has(Presence::CONTENT_TYPE) && grpc::is_grpc(request.headers()),
            span: None,
            try_span: None,
            head: None,
            lean_head: false,
            told: false,
            periodic: None,
            echo_request_id: None,
            random: fastrand::u64(..),
            took: None,
            notes: Notes::default(),
            connection,
        }
    }

    /// The request's body, metered.
    pub(crate) fn take_body(&mut self, body: Arrived) -> RequestBody {
        let meter = || Meter::new(self.started);
        let (body, meter) = match body {
            Arrived::Http2(body) => {
                let meter = meter();
                (RequestBody::Http2(body, meter.clone()), meter)
            }
            Arrived::Http1(body) => {
                let meter = meter();
                (RequestBody::Http1(body, meter.clone()), meter)
            }
            Arrived::Nothing | Arrived::Refused(_) => return RequestBody::Empty,
        };
        self.meter = Some(meter);
        body
    }

    /// Whether anybody will want to read about this request's headers afterwards.
    pub(crate) fn is_recorded(&self) -> bool {
        let of_span = self.span.as_ref().is_some_and(|span| span.wants() == Wants::All);
        self.connection.http.logger.is_enabled() || of_span || self.told
    }

    /// Put a flag into the access log, once.
    pub(crate) fn flag(&mut self, reason: Reason) {
        let flag = reason.flag();
        if flag != "-" && !self.facts.flags.contains(&flag) {
            self.facts.flags.push(flag);
        }
        self.facts.details = Some(reason.details());
    }

    fn no_route(&self, why: &'static str) -> Refusal {
        self.connection.http.stats.no_route.inc();
        Refusal::local(Reason::NoRoute, StatusCode::NOT_FOUND, why)
    }
}

fn authority(request: &Request<RequestBody>) -> String {
    target::authority(request.uri(), request.headers()).to_owned()
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let took = self.took.unwrap_or_else(|| self.started.elapsed());
        let unanswered = self.facts.status.is_none().then_some(took);
        self.connection.lifetime.request_ended(self.started + took, unanswered);
        super::record::finish(self, took);
    }
}
