//! One request on its way through the proxy.

use crate::desk::{Desk, Phase};
use crate::host::{self, Buffer, Map};
use jagway_core::client_certificate::ClientCertificate;
use jagway_core::error::Error;
use jagway_core::flow::Moment;
use jagway_core::http::Request;
use jagway_core::recovery::{MAX_KEPT, Resend};
use jagway_core::reply::{Reply, Surface};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::rc::Rc;

/// One request. It keeps the configuration it began with.
pub struct Stream {
    id: u32,
    desk: Option<Rc<Desk>>,
    kept: Kept,
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
    /// A part of the body goes by; `all` if it is everything so far, held back until now.
    fn take(&mut self, size: usize, all: bool, end: bool) {
        self.whole = end;
        let before = if all { 0 } else { self.body.len() };
        self.lost |= before.saturating_add(size) > MAX_KEPT;
        if self.lost {
            self.body = Vec::new();
            return;
        }
        self.body.truncate(before);
        match host::body(Buffer::RequestBody, size) {
            Some(part) => self.body.extend(part),
            None => self.lost = true,
        }
    }
}

impl Stream {
    /// The stream context `id`.
    pub fn new(id: u32, desk: Option<Rc<Desk>>) -> Self {
        Self { id, desk, kept: Kept::default() }
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
        let Some(moment) = host::moment() else {
            return self.refuse(&Error::Deadline);
        };
        desk.set_phase(self.id, Phase::Held);
        let Some(body) = host::body(Buffer::RequestBody, size) else {
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

impl Context for Stream {
    fn on_done(&mut self) -> bool {
        if let Some(desk) = &self.desk {
            desk.forget(self.id);
        }
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let (Some(desk), Some(moment)) = (&self.desk, host::moment()) else {
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

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
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
                if let Some(moment) = host::moment() {
                    desk.worker.borrow_mut().body_grows(self.id, moment.now);
                }
                Action::Pause
            }
            phase => {
                let keeps = match &phase {
                    Some(Phase::Forwarded(after)) => after.sent.is_some(),
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

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
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

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let Some(desk) = &self.desk else {
            return Action::Continue;
        };
        let Some(Phase::Forwarded(after)) = desk.phase(self.id) else {
            return Action::Continue;
        };
        // Without a time nothing is dropped or sent again; the rest must be done in any case.
        let moment = host::moment();
        let headers = host::headers(Map::Response).unwrap_or_default();
        let kept = &mut self.kept;
        let mut resend = || resend(kept).filter(|_| moment.is_some());
        let moment = moment.unwrap_or(Moment { now: 0, entropy: [0; 32] });
        let (edits, todo) =
            desk.worker.borrow_mut().response(self.id, &after, &headers, &mut resend, moment);
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
        match desk.phase(self.id) {
            Some(Phase::Forwarded(_)) => Action::Continue,
            _ => Action::Pause,
        }
    }
}

/// The request as it went upstream; `None` if not all of it was kept.
fn resend(kept: &mut Kept) -> Option<Resend> {
    if !kept.whole || kept.lost {
        return None;
    }
    let cluster = host::property(&["xds", "cluster_name"]).filter(|name| !name.is_empty())?;
    let body = std::mem::take(&mut kept.body);
    Some(Resend { cluster, headers: host::headers(Map::Request)?, body })
}
