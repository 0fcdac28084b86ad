//! The worker's own context: configuration, callouts, notes of other workers, time.

use crate::desk::{Desk, Reads};
use crate::host::{self, Buffer, Level, Map};
use crate::signatures::Signatures;
use jagway_core::config::Config;
use jagway_core::engine::Engine;
use jagway_core::http::{Answer, CallFailed, MAX_ANSWER};
use jagway_core::site::Site;
use jagway_core::worker::Worker;
use std::rc::Rc;

/// How often the worker looks at the clock.
const TICK_MILLISECONDS: u32 = 1000;
/// Most notes read in one callback.
const MAX_NOTES: usize = 10_000;

/// One plugin configuration in one worker.
pub struct Root {
    id: u32,
    desk: Option<Rc<Desk>>,
    warm: bool,
}

impl Root {
    /// The root context `id`, not configured yet.
    pub fn new(id: u32) -> Self {
        Self { id, desk: None, warm: false }
    }

    /// Takes a place among the workers of the process, and listens to its queue.
    fn join(&self, desk: &Desk, now: u64) {
        let place = desk.worker.borrow_mut().join(now);
        let queue = place.and_then(|place| host::register_queue(&format!("jagway/{place}")));
        if let (Some(place), Some(queue)) = (place, queue) {
            // What lies there was for the worker that had this place before.
            std::iter::from_fn(|| host::dequeue(queue)).take(MAX_NOTES).for_each(drop);
            desk.worker.borrow_mut().listens(place, queue, now);
        }
        *desk.queue.borrow_mut() = queue;
    }
}

impl Root {
    /// What the streams of this configuration share, once it is there.
    pub fn desk(&self) -> Option<Rc<Desk>> {
        self.desk.clone()
    }

    /// The callout `token` is answered, with a body of so many bytes.
    pub fn on_http_call_response(&mut self, token: u32, body: usize) {
        let Some((desk, moment)) = self.desk.as_ref().and_then(|desk| Some((desk, desk.moment()?)))
        else {
            return;
        };
        desk.catch_up();
        let Some(run) = desk.callouts.borrow_mut().remove(&token) else {
            return;
        };
        // A callout that failed comes back with no headers at all.
        let headers = host::headers(Map::CalloutResponse).unwrap_or_default();
        let status = headers.text(":status").and_then(|status| status.parse().ok());
        let answer =
            match (status, host::body(Buffer::CalloutResponseBody, 0, body.min(MAX_ANSWER + 1))) {
                (Some(status), Some(body)) => Ok(Answer { status, headers, body }),
                _ => Err(CallFailed::NoAnswer),
            };
        let todo = desk.worker.borrow_mut().answered(&run, answer, moment);
        desk.perform(self.id, todo);
    }

    /// The configuration, of so many bytes, is there. `false` refuses it.
    pub fn on_configure(&mut self, size: usize) -> bool {
        let document = host::body(Buffer::PluginConfiguration, 0, size).unwrap_or_default();
        let env = |name: &str| std::env::var(name).ok();
        let probe = || Engine::probe(Box::new(Signatures));
        let config = match Config::parse_with(&document, &env, &probe) {
            Ok(config) => config,
            Err(error) => {
                host::log(Level::Critical, &format!("jagway: configuration refused: {error}"));
                return false;
            }
        };
        for warning in &config.warnings {
            host::log(Level::Warn, &format!("jagway: configuration: {warning}"));
        }
        host::log(Level::Info, &format!("jagway: {}", config.about_signatures()));
        host::set_gauge("jagway.native_signatures", config.engine.natives() as u64);
        let (Some(now), Some(owner)) = (host::now(), host::random()) else {
            host::log(Level::Critical, "jagway: the host has no time or no randomness");
            return false;
        };
        let server = config.authorization_server.as_ref();
        let reads = Reads {
            source: server.is_some_and(|server| server.per_source_per_minute.is_some()),
            certificate: config.reads_certificates(),
            body: config.sends_again(),
        };
        let site = Rc::new(Site::new(config, Rc::new(host::SharedData)));
        let desk = Desk::new(self.id, Worker::new(site, u64::from_be_bytes(owner)), reads);
        self.join(&desk, now);
        host::set_tick_period(TICK_MILLISECONDS);
        host::log(Level::Info, "jagway: configured");
        self.desk = Some(desk);
        true
    }

    /// There are notes in `queue`.
    pub fn on_queue_ready(&mut self, queue: u32) {
        let Some((desk, moment)) = self.desk.as_ref().and_then(|desk| Some((desk, desk.moment()?)))
        else {
            return;
        };
        desk.catch_up();
        for note in std::iter::from_fn(|| host::dequeue(queue)).take(MAX_NOTES) {
            // An empty note is from a stream of this worker: there is a job to start.
            if let Ok(key) = note.try_into() {
                let todo = desk.worker.borrow_mut().note(&key, moment);
                desk.perform(self.id, todo);
            }
        }
        let todo = desk.worker.borrow_mut().turn(moment);
        desk.perform(self.id, todo);
    }

    /// A second has passed.
    pub fn on_tick(&mut self) {
        let Some(desk) = &self.desk else {
            return;
        };
        desk.reseed();
        let Some(moment) = desk.moment() else {
            return;
        };
        desk.catch_up();
        let mut todo = desk.worker.borrow_mut().tick(moment);
        if !core::mem::replace(&mut self.warm, true) {
            // Not when configured: Envoy may not have loaded its clusters then.
            todo.extend(desk.worker.borrow_mut().warm_up(moment));
        }
        desk.perform(self.id, todo);
        let todo = desk.worker.borrow_mut().turn(moment);
        desk.perform(self.id, todo);
        if desk.worker.borrow().is_alone() {
            self.join(desk, moment.now);
        }
        let todo = desk.worker.borrow_mut().cut(moment.now);
        desk.perform(self.id, todo);
    }
}
