//! One request on its way through the proxy.

use crate::desk::{Desk, Phase};
use crate::host::{self, Buffer, Map};
use jagway_core::client_certificate::ClientCertificate;
use jagway_core::error::Error;
use jagway_core::http::Request;
use jagway_core::reply::{Reply, Surface};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::rc::Rc;

/// One request. It keeps the configuration it began with.
pub struct Stream {
    id: u32,
    desk: Option<Rc<Desk>>,
}

impl Stream {
    /// The stream context `id`.
    pub fn new(id: u32, desk: Option<Rc<Desk>>) -> Self {
        Self { id, desk }
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
            _ => self.action(desk),
        }
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
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
        // The time matters only to what is dropped; the rest must be done in any case.
        let now = host::moment().map_or(0, |moment| moment.now);
        let headers = host::headers(Map::Response).unwrap_or_default();
        let (edits, todo) = desk.worker.borrow_mut().response(&after, &headers, now);
        for name in &edits.remove {
            host::remove_header(Map::Response, name);
        }
        for (name, value) in &edits.set {
            host::set_header(Map::Response, name, value);
        }
        desk.worker.borrow_mut().opened(self.id, &after, &headers);
        desk.perform(self.id, todo);
        Action::Continue
    }
}
