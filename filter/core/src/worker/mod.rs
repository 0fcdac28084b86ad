//! One worker: its streams that wait, the jobs it leads, and its part in the process.
//!
//! The host calls in with what happened; every call returns what the host must do next. A stream
//! never makes a request itself: jobs do, and a job belongs to the worker, so it goes on when the
//! client that caused it is gone.

mod jobs;
mod requests;
mod responses;

pub use requests::Purpose;
pub use responses::{AfterResponse, ResponseEdits, Watch};

use crate::digest::{Key, of_fields};
use crate::error::Error;
use crate::flow::{Flow, Moment};
use crate::http::{Answer, Callout, Request, RequestId};
use crate::job::{Job, JobError, Value, Want};
use crate::peers;
use crate::reply::{Reply, Surface};
use crate::resource_server::Edits;
use crate::site::{Note, Site};
use crate::table::Table;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The host's number for a stream.
pub type StreamId = u32;

/// How long a stream waits at most, in seconds.
const STREAM_DEADLINE: u64 = 10;
/// How long a request that is sent once more may take in all, in seconds.
const RESEND_DEADLINE: u64 = 40;
/// How long a body may take in all, in seconds, however steadily it grows.
const BODY_DEADLINE: u64 = 30;
/// How long a token request waits for keys, in seconds: a client's own patience is short.
const KEYS_DEADLINE: u64 = 3;
/// How often each document of other servers is looked at, in seconds: a key that its issuer has taken
/// back must not wait for a request to be noticed, least of all for the one it signed.
const LOOK_EVERY: u64 = 15;
/// Most documents that a worker looks at at once when it starts. The others come in their turn.
const FIRST_LOOK: usize = 32;
/// Most streams of one worker that wait at once.
const MAX_WAITING: usize = 10_000;

/// What the host must do.
#[derive(Debug)]
pub enum Todo {
    /// Let the stream go on: upstream, or with a reply.
    Conclude(StreamId, Verdict),
    /// Hold the stream and collect its body, up to so many bytes; then call [`Worker::body`].
    Collect(StreamId, usize),
    /// Call [`Worker::turn`] from a callback of the root context.
    Wake,
    /// End the stream, whatever is still on its way.
    Close(StreamId),
    /// Make a request for this run of a job or for a stream; then call [`Worker::answered`]. Only ever asked for by
    /// calls that come from the root context.
    Dispatch(Run, Callout),
    /// Put the note into this queue.
    Tell(u32, Key),
    /// Write a line to the log: something the operator should look at.
    Warn(String),
    /// Write a line to the log: a request was refused, a token issued or exchanged.
    Info(String),
    /// One more for the counter of this name.
    Count(&'static str, &'static str),
}

/// One run of the job under a key. An answer that comes too late is for a run that is over, and must
/// not be taken for the answer of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// `None`: it is a stream's own request.
    key: Option<Key>,
    number: u64,
}

/// How a stream goes on.
#[derive(Debug)]
pub enum Verdict {
    /// Upstream.
    Forward(Edits, Rc<AfterResponse>),
    /// Not upstream.
    Reply(Reply),
    /// The answer of the upstream server goes on to the client.
    Pass,
    /// Another answer of the upstream server goes to the client in the place of the first.
    Answer(Answer),
}

/// The state of one worker.
pub struct Worker {
    site: Rc<Site>,
    owner: u64,
    place: Option<Place>,
    streams: BTreeMap<StreamId, Stream>,
    jobs: BTreeMap<Key, Running>,
    backlog: Vec<Job>,
    errands: Vec<(StreamId, u64, Callout)>,
    runs: u64,
    /// How many flows have gone on.
    steps: u64,
    /// Event streams and what they go by: no more than the host has streams.
    open: BTreeMap<StreamId, Watch>,
    /// The documents of other servers that are looked at whether anybody asks or not.
    documents: Rc<[Job]>,
    /// The second up to which those whose turn it was were looked at; 0 before the first look.
    looked_at: u64,
}

/// A worker's place among the workers of the process.
struct Place {
    number: usize,
    queue: u32,
    seen: u64,
}

struct Stream {
    deadline: u64,
    asker: Asker,
    state: State,
}

/// Who waits for an answer: what it needs to be refused, and to be found again in the log.
#[derive(Clone)]
struct Asker {
    surface: Surface,
    request_id: RequestId,
}

enum State {
    /// Until the body is there; the number is the second at which it must be, however it grows.
    Collecting(Box<Request>, Purpose, u64),
    /// For a job that runs once for the process.
    Waiting(Job, Want, Flow<Result<Verdict, Error>>),
    /// For the answer to a request of its own, of this number.
    Calling(u64, Flow<Result<Verdict, Error>>),
    /// Until the next tick.
    Pausing(Flow<Result<Verdict, Error>>),
}

struct Running {
    job: Job,
    number: u64,
    deadline: u64,
    on: Waits,
}

enum Waits {
    ForAnswer(Flow<Result<Value, JobError>>),
    ForJob(Job, Want, Flow<Result<Value, JobError>>),
    Pausing(Flow<Result<Value, JobError>>),
}

impl Worker {
    /// A worker at `site`. `owner` is a random number that tells it from the others.
    pub fn new(site: Rc<Site>, owner: u64) -> Self {
        Self {
            documents: site.config.documents().into(),
            site,
            owner,
            place: None,
            streams: BTreeMap::new(),
            jobs: BTreeMap::new(),
            backlog: Vec::new(),
            errands: Vec::new(),
            runs: 0,
            steps: 0,
            open: BTreeMap::new(),
            looked_at: 0,
        }
    }

    /// Starts to fetch what is known to be needed, so that the first request need not wait and an
    /// unknown cluster shows in the log at once: 32 documents, and the rest within 15 s. The jobs start with the
    /// next [`Worker::turn`].
    pub fn warm_up(&mut self, moment: Moment) -> Vec<Todo> {
        let mut todo = Vec::new();
        self.looked_at = moment.now;
        for job in self.documents.clone().iter().take(FIRST_LOOK) {
            let _ = self.look(job, Want::Usable, moment, &mut todo);
        }
        self.finish(todo)
    }

    /// Looks at the documents whose turn has come since the last look: a share each second. Whatever the table
    /// says of each, somebody fetches it, or it is there and fresh.
    fn look_at_documents(&mut self, moment: Moment, todo: &mut Vec<Todo>) {
        let seconds = moment.now.saturating_sub(self.looked_at).min(LOOK_EVERY);
        self.looked_at = moment.now;
        let documents = self.documents.clone();
        for ago in 0..seconds {
            let turn = moment.now.saturating_sub(ago) % LOOK_EVERY;
            for job in documents.iter().skip(turn as usize).step_by(LOOK_EVERY as usize) {
                let _ = self.look(job, Want::Usable, moment, todo);
            }
        }
    }

    /// Joins the workers of this process. Returns the number of the queue to listen to; call
    /// [`Worker::listens`] with the host's identifier of it.
    pub fn join(&mut self, now: u64) -> Option<usize> {
        peers::take_place(&*self.site.store, self.owner, now).ok().flatten()
    }

    /// The worker, at `place`, listens to `queue`.
    pub fn listens(&mut self, place: usize, queue: u32, now: u64) {
        self.place = Some(Place { number: place, queue, seen: now });
        // A store that fails here fails again at the next sign of life.
        let _ = peers::alive(&*self.site.store, place, self.owner, queue, now);
    }

    /// Whether the worker has lost its place among the workers and must [`Worker::join`] again.
    pub fn is_alone(&self) -> bool {
        self.place.is_none()
    }

    /// `moment` for one flow of those that go on in it: no two may draw the same.
    fn apart(&mut self, moment: Moment) -> Moment {
        self.steps = self.steps.wrapping_add(1);
        let entropy = of_fields(&[b"step", &moment.entropy, &self.steps.to_be_bytes()]);
        Moment { entropy, ..moment }
    }

    fn finish(&self, mut todo: Vec<Todo>) -> Vec<Todo> {
        todo.extend(self.site.take_notes().into_iter().map(|note| match note {
            Note::Info(line) => Todo::Info(line),
            Note::Warn(line) => Todo::Warn(line),
            Note::Count(kind, what) => Todo::Count(kind, what),
        }));
        todo
    }

    fn table(&self, now: u64) -> Table<'_> {
        let seal = &self.site.config.seal;
        Table { store: &*self.site.store, seal, owner: self.owner, now }
    }
}
