//! One request on its way through the proxy.

use crate::abi::Action;
use crate::desk::{Desk, Phase};
use crate::host::{self, Buffer, Map};
use jagway_core::client_certificate::ClientCertificate;
use jagway_core::error::Error;
use jagway_core::flow::Moment;
use jagway_core::http::Request;
use jagway_core::reply::{Reply, Surface};
use jagway_core::resend::{MAX_KEPT, Route};
use jagway_core::worker::AfterResponse;
use std::rc::Rc;

/// One request. It keeps the configuration it began with.
pub struct Stream {
    id: u32,
    desk: Option<Rc<Desk>>,
    kept: Kept,
    /// Whether there was something to its answer.
    concerned: bool,
}

/// The body of a request that may have to be sent once more.
#[derive(Default)]
struct Kept {
    body: Vec<u8>,
    /// Whether all of it has gone by.
    whole: bool,
    /// Whether it is too large to be kept, or has trailers.
    lost: bool,
}

impl Kept {
    /// A part of the body goes by: `size` bytes, or so many of all there is so far, held back until now, if `all`.
    fn take(&mut self, size: usize, all: bool, end: bool) {
        self.whole = end;
        let start = if all { self.body.len() } else { 0 };
        let length = size.checked_sub(start).unwrap_or(usize::MAX);
        self.lost |= self.body.len().saturating_add(length) > MAX_KEPT;
        if self.lost {
            self.body = Vec::new();
            return;
        }
        match host::body(Buffer::RequestBody, start, length) {
            Some(part) if part.len() == length => self.body.extend(part),
            _ => self.lost = true,
        }
    }

    /// The way that the request took, and its body; `None` if not all of it was kept.
    fn give(&mut self) -> Option<(Route, Vec<u8>)> {
        let all = self.whole && !self.lost;
        all.then(|| (route(), std::mem::take(&mut self.body)))
    }
}

impl Stream {
    /// The stream context `id`.
    pub fn new(id: u32, desk: Option<Rc<Desk>>) -> Self {
        Self { id, desk, kept: Kept::default(), concerned: false }
    }

    /// Whether the request goes on, after what the core asked for has been done.
    fn action(&self, desk: &Desk) -> Action {
        match desk.phase(self.id) {
            Some(Phase::Forwarded(_)) => Action::Continue,
            _ => Action::Pause,
        }
    }

    /// Refuses without the core: there is no configuration, no time, or no header map.
    fn refuse(&self, error: &Error) -> Action {
        if let Some(desk) = &self.desk {
            desk.set_phase(self.id, Phase::Replied);
        }
        host::reply(&Reply::refusal(error, &Surface::Other));
        Action::Pause
    }

    /// The body, or as much of it as there will be, is there.
    fn body_is_there(&self, desk: &Desk, size: usize) -> Action {
        let Some(moment) = desk.moment() else {
            return self.refuse(&Error::Deadline);
        };
        desk.set_phase(self.id, Phase::Held);
        let Some(body) = host::body(Buffer::RequestBody, 0, size) else {
            return self.refuse(&Error::Internal("the host does not hand over the body"));
        };
        let todo = desk.worker.borrow_mut().body(self.id, body, moment);
        desk.perform(self.id, todo);
        self.action(desk)
    }
}

/// The certificate of the connection, as Envoy itself saw it.
fn certificate() -> Option<ClientCertificate> {
    let attribute = |name| host::property(&["connection", name]).unwrap_or_default();
    ClientCertificate::from_attributes(
        &attribute("sha256_peer_certificate_digest"),
        &attribute("subject_peer_certificate"),
        &attribute("uri_san_peer_certificate"),
        &attribute("dns_san_peer_certificate"),
    )
}

/// Whether the answer is that of the server behind, and not of Envoy or another filter.
fn is_upstreams() -> bool {
    host::property(&["response", "code_details"]).as_deref() == Some("via_upstream")
}

/// The way that Envoy chose for the request.
fn route() -> Route {
    let [cluster, name] = ["cluster_name", "route_name"]
        .map(|name| host::property(&["xds", name]).unwrap_or_default());
    Route { cluster, name }
}

impl Stream {
    /// It is gone.
    pub fn forget(&self) {
        if let Some(desk) = &self.desk {
            desk.forget(self.id);
        }
    }

    /// The head of the request. `end_of_stream` says that there is no body.
    pub fn on_request_headers(&mut self, end_of_stream: bool) -> Action {
        let Some((desk, moment)) = self.desk.as_ref().and_then(|desk| Some((desk, desk.moment()?)))
        else {
            return self.refuse(&Error::Deadline);
        };
        let Some(headers) = host::headers(Map::Request) else {
            return self.refuse(&Error::HeadersTooLarge);
        };
        let source = match desk.reads.source {
            true => host::property(&["source", "address"]).unwrap_or_default(),
            false => String::new(),
        };
        let certificate = desk.reads.certificate.then(certificate).flatten();
        self.kept.whole = end_of_stream;
        desk.set_phase(self.id, Phase::Held);
        let request = Request { headers, source, certificate };
        let todo = desk.worker.borrow_mut().request(self.id, request, !end_of_stream, moment);
        desk.perform(self.id, todo);
        self.action(desk)
    }

    /// A part of its body, or all so far if it is held: `size` bytes.
    pub fn on_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let Some(desk) = &self.desk else {
            return Action::Pause;
        };
        match desk.phase(self.id) {
            Some(Phase::Collecting(limit)) if size > limit => {
                let todo = desk.worker.borrow_mut().body_too_large(self.id);
                desk.perform(self.id, todo);
                Action::Pause
            }
            Some(Phase::Collecting(_)) if end_of_stream => self.body_is_there(desk, size),
            Some(Phase::Collecting(_)) => {
                if let Some(moment) = desk.moment() {
                    desk.worker.borrow_mut().body_grows(self.id, moment.now);
                }
                Action::Pause
            }
            phase => {
                let keeps = match &phase {
                    Some(Phase::Forwarded(after)) => after.went.is_some(),
                    phase => desk.reads.body && matches!(phase, Some(Phase::Held)),
                };
                if keeps {
                    let all = matches!(phase, Some(Phase::Held));
                    self.kept.take(size, all, end_of_stream);
                }
                self.action(desk)
            }
        }
    }

    /// Its trailers.
    pub fn on_request_trailers(&mut self) -> Action {
        self.kept.lost = true;
        let Some(desk) = &self.desk else {
            return Action::Pause;
        };
        match desk.phase(self.id) {
            // The body ended here; what the trailers say counts for nothing.
            Some(Phase::Collecting(limit)) => self.body_is_there(desk, limit),
            _ => self.action(desk),
        }
    }

    /// The head of the answer.
    pub fn on_response_headers(&mut self) -> Action {
        let Some(desk) = &self.desk else {
            return Action::Continue;
        };
        let Some(Phase::Forwarded(after)) = desk.phase(self.id) else {
            return Action::Continue;
        };
        // There is no second time after this; the answer may be an event stream, and last for hours.
        let mut kept = std::mem::replace(&mut self.kept, Kept { lost: true, ..Kept::default() });
        let Some(headers) = host::headers(Map::Response) else {
            // It cannot be looked into: nothing of it that would be hidden goes on.
            for name in after.hide.iter() {
                host::remove_header(Map::Response, name);
            }
            return Action::Continue;
        };
        // What another filter or Envoy itself answers was said by no server: the token is as good as before, and to
        // send the request once more would be to go around whoever refused it.
        self.concerned = after.concerns(&headers);
        if !self.concerned || after.sent.is_some() && !is_upstreams() {
            return Action::Continue;
        }
        // Without a time nothing is dropped or sent again; the rest must be done in any case.
        let refused = AfterResponse::is_refused(&headers);
        let moment = if refused { desk.moment() } else { None };
        let mut give = || kept.give().filter(|_| moment.is_some());
        let moment = moment.unwrap_or(Moment { now: 0, entropy: [0; 32] });
        let (edits, todo) =
            desk.worker.borrow_mut().response(self.id, &after, &headers, &mut give, moment);
        for name in &edits.remove {
            host::remove_header(Map::Response, name);
        }
        for (name, value) in &edits.set {
            host::set_header(Map::Response, name, value);
        }
        if edits.hold {
            desk.set_phase(self.id, Phase::Answered(after));
        } else {
            desk.worker.borrow_mut().opened(self.id, &after, &headers);
        }
        desk.perform(self.id, todo);
        self.action(desk)
    }

    /// It is over.
    pub fn on_log(&mut self) {
        let Some(desk) = &self.desk else {
            return;
        };
        let Some(Phase::Forwarded(after)) = desk.phase(self.id) else {
            return;
        };
        // What Envoy answered itself arrived nowhere.
        let wonders = self.concerned || desk.worker.borrow().wonders(&after);
        if after.went.is_none() || !wonders || !is_upstreams() {
            return;
        }
        let [authority, path] =
            ["host", "path"].map(|name| host::property(&["request", name]).unwrap_or_default());
        desk.worker.borrow().arrived(&after, &route(), (&authority, &path));
    }
}
