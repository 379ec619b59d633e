//! A request that is on its way, so that it can be sent again.

use bytes::Bytes;
use http::Request;
use http::request::Parts;

use super::admit::Plan;
use crate::http::body::RequestBody;
use crate::http::replay::Replay;
use crate::model::route::HostRewrite;

/// The request, to be sent once or, if a retry is possible, again.
pub(super) struct Source<'r> {
    /// Each try dresses it, and takes its body.
    request: &'r mut Request<RequestBody>,
    /// It is as it came, or was dressed but not sent.
    fresh: bool,
    /// There may be another try, or a copy.
    keep: bool,
    /// As it was before it was dressed, where that matters.
    head: Option<Box<Parts>>,
    pub(super) replay: Option<Replay>,
    had_body: bool,
}

impl<'r> Source<'r> {
    pub(super) fn new(plan: &Plan<'_>, request: &'r mut Request<RequestBody>) -> Self {
        let mirrored = !plan.forward.mirrors.is_empty();
        let keep = plan.retries.possible() || mirrored;
        let had_body = !matches!(request.body(), RequestBody::Empty);
        // Copies are not dressed, tries beside each other need one head each, and a host that
        // depends on the endpoint is made of the host that was asked for.
        let by_endpoint = matches!(plan.forward.host_rewrite, HostRewrite::Auto);
        let apart = keep && (mirrored || plan.hedges() || by_endpoint);
        let mut replay = None;
        if keep && had_body {
            let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
            let kept = replay.insert(Replay::new(body, plan.buffer_limit()));
            *request.body_mut() = kept.reader();
        }
        let head = apart.then(|| Box::new(super::read::head_of(request)));
        Self { request, fresh: true, keep, head, replay, had_body }
    }

    /// The request: as it came, or from its beginning once more.
    pub(super) fn next(&mut self) -> Option<&mut Request<RequestBody>> {
        if !std::mem::take(&mut self.fresh) {
            if !self.keep {
                return None;
            }
            *self.request.body_mut() = match &self.replay {
                Some(replay) if replay.can_replay() => replay.reader(),
                Some(_) => return None,
                None => RequestBody::Empty,
            };
            if let Some(head) = &self.head {
                let body = std::mem::replace(self.request.body_mut(), RequestBody::Empty);
                *self.request = Request::from_parts(Parts::clone(head), body);
            }
        }
        Some(self.request)
    }

    /// The same, for a try that goes on by itself.
    pub(super) fn take(&mut self) -> Option<Request<RequestBody>> {
        let request = self.next()?;
        Some(std::mem::replace(request, Request::new(RequestBody::Empty)))
    }

    /// The next try needs the head that this one leaves.
    pub(super) fn is_wanted_again(&self) -> bool {
        self.keep && self.head.is_none()
    }

    /// Whether there will be anything to send.
    pub(super) fn can_repeat(&self) -> bool {
        self.fresh || (self.keep && self.replay.as_ref().is_none_or(Replay::can_replay))
    }

    /// The whole of it beside the one that is under way, if it has been read to its end.
    pub(super) fn whole(&self) -> Option<Request<RequestBody>> {
        let head = Parts::clone(self.head.as_ref()?);
        let body = match &self.replay {
            Some(replay) => RequestBody::Full(Some(Bytes::from(replay.complete()?.concat()))),
            None => RequestBody::Empty,
        };
        Some(Request::from_parts(head, body))
    }

    /// Not a byte of it was sent.
    pub(super) fn give_back(&mut self) {
        self.fresh = true;
    }

    /// Nothing is lost, and nothing is done twice, if it is sent again.
    pub(super) fn is_harmless(&self) -> bool {
        let method = self.head.as_ref().map_or_else(|| self.request.method(), |head| &head.method);
        self.keep && method.is_idempotent() && !self.had_body && self.can_repeat()
    }
}
