//! What the contexts of one worker share, and the doing of what the core asks for.

use crate::host::{self, Level, Map};
use jagway_core::flow::Moment;
use jagway_core::http::CallFailed;
use jagway_core::worker::{AfterResponse, Run, StreamId, Todo, Verdict, Worker};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Most streams other than its own that one callback answers or resumes.
const MOST_AT_A_TIME: u32 = 32;

/// A configured worker and its streams. No borrow is held over a call of the host.
pub struct Desk {
    /// The root context's number.
    pub root: u32,
    /// The worker.
    pub worker: RefCell<Worker>,
    /// Which run of a job each callout is for.
    pub callouts: RefCell<BTreeMap<u32, Run>>,
    /// The queue the worker listens to.
    pub queue: RefCell<Option<u32>>,
    /// What is asked of the host about each request.
    pub reads: Reads,
    streams: RefCell<BTreeMap<StreamId, Phase>>,
    later: RefCell<Vec<Todo>>,
    elsewhere: Cell<u32>,
    seed: Cell<Option<[u8; SEED]>>,
    drawn: Cell<u64>,
    counters: RefCell<BTreeMap<(&'static str, &'static str), u32>>,
}

/// What is asked of the host about each request besides its headers.
#[derive(Clone, Copy)]
pub struct Reads {
    /// Where it comes from.
    pub source: bool,
    /// The certificate its connection showed.
    pub certificate: bool,
    /// Its body, as it goes by, if it is small: it may have to be sent once more.
    pub body: bool,
}

/// Random bytes in the entropy of a moment; the other eight are a number.
const SEED: usize = 24;

/// Where a stream stands.
#[derive(Clone)]
pub enum Phase {
    /// It waits for a verdict; its body is held.
    Held,
    /// Its body is collected, up to so many bytes.
    Collecting(usize),
    /// It went upstream.
    Forwarded(Rc<AfterResponse>),
    /// It went upstream, and the answer waits for a verdict.
    Answered(Rc<AfterResponse>),
    /// It was answered here: nothing more is sent on it.
    Replied,
}

impl Desk {
    /// A desk for `worker`.
    pub fn new(root: u32, worker: Worker, reads: Reads) -> Rc<Self> {
        Rc::new(Self {
            root,
            worker: RefCell::new(worker),
            callouts: RefCell::default(),
            queue: RefCell::new(None),
            reads,
            streams: RefCell::default(),
            later: RefCell::default(),
            elsewhere: Cell::new(0),
            seed: Cell::new(host::random()),
            drawn: Cell::new(0),
            counters: RefCell::default(),
        })
    }

    /// The time, and entropy for what happens now: of the seed, which is renewed each second, and of a number that
    /// differs each time. To ask the host for more with every request is a tenth of what a warm one costs. `None` if
    /// the host has no time or no randomness: then nothing may be decided.
    pub fn moment(&self) -> Option<Moment> {
        let drawn = self.drawn.get().wrapping_add(1);
        self.drawn.set(drawn);
        let mut entropy = [0; 32];
        let (random, number) = entropy.split_at_mut(SEED);
        random.copy_from_slice(&self.seed.get()?);
        number.copy_from_slice(&drawn.to_be_bytes());
        Some(Moment { now: host::now()?, entropy })
    }

    /// Renews the seed.
    pub fn reseed(&self) {
        self.seed.set(host::random());
    }

    /// Where `stream` stands.
    pub fn phase(&self, stream: StreamId) -> Option<Phase> {
        self.streams.borrow().get(&stream).cloned()
    }

    /// Says where `stream` stands.
    pub fn set_phase(&self, stream: StreamId, phase: Phase) {
        self.streams.borrow_mut().insert(stream, phase);
    }

    /// Forgets `stream`.
    pub fn forget(&self, stream: StreamId) {
        self.streams.borrow_mut().remove(&stream);
        self.worker.borrow_mut().gone(stream);
    }

    /// What was put off by an earlier callback. To be called first in a callback of the root context.
    pub fn catch_up(&self) {
        self.elsewhere.set(0);
        let later = self.later.take();
        self.perform(self.root, later);
    }

    /// Does what the core asks for. `current` is the context whose callback this is.
    pub fn perform(&self, current: u32, todo: Vec<Todo>) {
        let mut next = todo;
        while !next.is_empty() {
            let mut failed = Vec::new();
            for todo in next {
                self.one(current, todo, &mut failed);
            }
            if failed.is_empty() {
                return;
            }
            // A cluster that does not exist says so at once, not by a callback.
            let Some(moment) = self.moment() else {
                return;
            };
            let answered = |(run, failed): (Run, CallFailed)| {
                self.worker.borrow_mut().answered(&run, Err(failed), moment)
            };
            next = failed.into_iter().flat_map(answered).collect();
        }
    }

    fn one(&self, current: u32, todo: Todo, failed: &mut Vec<(Run, CallFailed)>) {
        match todo {
            Todo::Warn(line) => host::log(Level::Warn, &format!("jagway: {line}")),
            Todo::Info(line) => host::log(Level::Info, &format!("jagway: {line}")),
            Todo::Count(kind, what) => self.count(kind, what),
            // The host answers or resumes other streams after this callback, each inside of the one before:
            // too many at a time are too deep for its stack, and that is a trap.
            Todo::Conclude(stream, _) | Todo::Close(stream)
                if current != stream && self.elsewhere.get() >= MOST_AT_A_TIME =>
            {
                if self.later.borrow().is_empty()
                    && let Some(queue) = *self.queue.borrow()
                {
                    host::enqueue(queue, &[]);
                }
                self.later.borrow_mut().push(todo);
            }
            Todo::Conclude(stream, verdict) => self.conclude(current, stream, verdict),
            Todo::Close(stream) => {
                self.elsewhere.set(self.elsewhere.get().saturating_add(1));
                if host::enter(stream) {
                    self.set_phase(stream, Phase::Replied);
                    host::close();
                }
                host::enter(self.root);
            }
            Todo::Collect(stream, limit) => self.set_phase(stream, Phase::Collecting(limit)),
            // Without a queue of its own the worker takes its turn with the next tick.
            Todo::Wake => {
                if let Some(queue) = *self.queue.borrow() {
                    host::enqueue(queue, &[]);
                }
            }
            Todo::Tell(queue, key) => host::enqueue(queue, &key),
            Todo::Dispatch(run, callout) => match host::dispatch(&callout) {
                Ok(token) => drop(self.callouts.borrow_mut().insert(token, run)),
                Err(error) => failed.push((run, error)),
            },
        }
    }

    /// Envoy keeps one counter for a name, however many workers define it.
    fn count(&self, kind: &'static str, what: &'static str) {
        let mut counters = self.counters.borrow_mut();
        let known = counters.get(&(kind, what)).copied();
        let Some(counter) = known.or_else(|| host::counter(&format!("jagway.{kind}.{what}")))
        else {
            return;
        };
        counters.insert((kind, what), counter);
        host::count(counter);
    }

    fn conclude(&self, current: u32, stream: StreamId, verdict: Verdict) {
        let phase = self.phase(stream);
        let held = matches!(phase, Some(Phase::Held | Phase::Collecting(_) | Phase::Answered(_)));
        let elsewhere = current != stream;
        if elsewhere && !(held && host::enter(stream)) {
            return;
        }
        self.elsewhere.set(self.elsewhere.get().saturating_add(u32::from(elsewhere)));
        match verdict {
            Verdict::Reply(reply) => {
                self.set_phase(stream, Phase::Replied);
                host::reply(&reply);
            }
            Verdict::Answer(answer) => {
                self.set_phase(stream, Phase::Replied);
                host::relay(&answer);
            }
            Verdict::Pass => {
                if let Some(Phase::Answered(after)) = phase {
                    self.set_phase(stream, Phase::Forwarded(after));
                    if elsewhere {
                        host::resume_answer();
                    }
                }
            }
            Verdict::Forward(edits, after) => {
                let mut removed = edits.remove.iter();
                let removed = removed.all(|name| host::remove_header(Map::Request, name));
                let set = edits.set.iter();
                let mut set =
                    set.map(|(name, value)| host::set_header(Map::Request, name, value.expose()));
                if removed && set.all(|one| one) {
                    self.set_phase(stream, Phase::Forwarded(after));
                    if elsewhere {
                        host::resume();
                    }
                } else {
                    // Held for good rather than sent on without its credential.
                    self.set_phase(stream, Phase::Replied);
                    host::log(Level::Critical, "jagway: the host does not change a header");
                }
            }
        }
        if elsewhere {
            host::enter(self.root);
        }
    }
}
