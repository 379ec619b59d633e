//! A request that is on its way, so that it can be sent again.

use bytes::Bytes;
use http::Request;
use http::request::Parts;

use super::admit::Plan;
use crate::http::body::RequestBody;
use crate::http::replay::Replay;

/// The request, to be sent once or, if a retry is possible, again.
pub(super) struct Source {
    head: Option<Parts>,
    first: Option<Request<RequestBody>>,
    pub(super) replay: Option<Replay>,
    had_body: bool,
}

impl Source {
    pub(super) fn new(plan: &Plan<'_>, request: Request<RequestBody>) -> Self {
        let keep = plan.retries.possible() || !plan.forward.mirrors.is_empty();
        let had_body = !matches!(request.body(), RequestBody::Empty);
        if !keep {
            return Self { head: None, first: Some(request), replay: None, had_body };
        }
        let (head, body) = request.into_parts();
        let kept = Some(head.clone());
        if !had_body {
            let first = Some(Request::from_parts(head, RequestBody::Empty));
            return Self { head: kept, first, replay: None, had_body };
        }
        let replay = Replay::new(body, plan.buffer_limit());
        let first = Some(Request::from_parts(head, replay.reader()));
        Self { head: kept, first, replay: Some(replay), had_body }
    }

    /// The request: as it came, or from its beginning once more.
    pub(super) fn take(&mut self) -> Option<Request<RequestBody>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let head = self.head.clone()?;
        let body = match &self.replay {
            Some(replay) if replay.can_replay() => replay.reader(),
            Some(_) => return None,
            None => RequestBody::Empty,
        };
        Some(Request::from_parts(head, body))
    }

    /// Whether there will be anything to send.
    pub(super) fn can_repeat(&self) -> bool {
        self.first.is_some()
            || (self.head.is_some() && self.replay.as_ref().is_none_or(Replay::can_replay))
    }

    /// The whole of it beside the one that is under way, if it has been read to its end.
    pub(super) fn whole(&self) -> Option<Request<RequestBody>> {
        let head = self.head.clone()?;
        let body = match &self.replay {
            Some(replay) => RequestBody::Full(Some(Bytes::from(replay.complete()?.concat()))),
            None => RequestBody::Empty,
        };
        Some(Request::from_parts(head, body))
    }

    /// Here it is again, not a byte of it sent.
    pub(super) fn give_back(&mut self, request: Request<RequestBody>) {
        self.first = Some(request);
    }

    /// Nothing is lost, and nothing is done twice, if it is sent again.
    pub(super) fn is_harmless(&self) -> bool {
        let idempotent = self.head.as_ref().is_some_and(|head| head.method.is_idempotent());
        idempotent && !self.had_body && self.can_repeat()
    }
}
